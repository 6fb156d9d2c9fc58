"""Columns that are read in blocks."""

from __future__ import annotations

import pytest
from datasets import Dataset

from xlgen_hf.data import blocks
from xlgen_hf.data.blocks import each_value


@pytest.fixture
def rows(monkeypatch):
    """More rows than two blocks hold."""
    monkeypatch.setattr(blocks, "BLOCK_ROWS", 10)
    return Dataset.from_dict(
        {"text": [f"text {row}" for row in range(25)], "labels": [["a"] * (row % 3) for row in range(25)]}
    )


def test_each_value_is_there_in_its_place(rows):
    for part in (rows, rows.select([3, 1, 24, 3]), rows.shuffle(seed=0), rows.select([])):
        for column in ("text", "labels"):
            assert list(each_value(part, column)) == part[column][:]
