"""How many threads compute, as the environment says."""

from __future__ import annotations

import pytest

from xlgen_hf.encoders.threads import told_threads


@pytest.mark.parametrize(
    ("told", "threads"), [("3", 3), ("2,1", 2), (" 4 ", 4), ("", None), ("0", None), ("-1", None), ("two", None)]
)
def test_threads_that_openmp_is_told(monkeypatch, told, threads):
    """A list is for nested levels; the fault: it ended `xlgen index --method bonsai` with a traceback."""
    monkeypatch.setenv("OMP_NUM_THREADS", told)
    assert told_threads() == threads
