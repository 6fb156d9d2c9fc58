"""Real objects, tiny: rows, tokenizers made in memory, checkpoints with random weights in a folder of the session."""

from __future__ import annotations

import functools
import gc
import logging
import os
import signal
import subprocess
import sys
import time

os.environ["HF_HUB_OFFLINE"] = "1"
# One thread, here and in the processes that tests start: tiny models gain nothing from more, and sums in another order
# would differ in their last bits.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# Where the tests run in the background, interrupts are ignored, and so they would be in every process that the tests
# start to interrupt it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says how busy the machine is.
settings.register_profile("tests", max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")

# Tests make many objects and little garbage that refers to itself: it is looked for less often.
gc.set_threshold(20_000, 20, 20)

# Files of tests lie in memory where there is some: on a disk each that is flushed or removed takes milliseconds.
if os.path.isdir("/dev/shm"):
    _memory = os.statvfs("/dev/shm")
    if _memory.f_bavail * _memory.f_frsize > 4 * 2**30 and not _memory.f_flag & os.ST_NOEXEC:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", "/dev/shm")

# Libraries are imported where they are used: the process that only hands out tests to others needs none of them.
if TYPE_CHECKING:
    from datasets import Dataset

    from xlgen_hf.labels.space import LabelSpace


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """See above; what tests start in this process."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="module", autouse=True)
def frozen_imports():
    """What is imported is no garbage: a collection, which every training asks for, need not look through all of it."""
    gc.collect()
    gc.freeze()


class _Deprecations(logging.Handler):
    """Keeps what libraries say in their logs of what they will drop."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if "deprecated" in record.getMessage():
            self.said.append(record.getMessage())


@pytest.fixture(autouse=True)
def no_deprecations():
    """Nothing that a library will drop is used; Python's own warnings of it are errors, see setup.cfg."""
    handler = _Deprecations()
    loggers = [logging.getLogger(name) for name in ("transformers", "datasets", "huggingface_hub", "peft")]
    for logger in loggers:
        logger.addHandler(handler)
    yield
    for logger in loggers:
        logger.removeHandler(handler)
    assert not handler.said


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders of tiny checkpoints with random weights, by family."""
    import torch
    from tiny import MAKERS

    root = tmp_path_factory.mktemp("checkpoints")
    for name, make in MAKERS.items():
        torch.manual_seed(0)
        make(root / name)
    return {name: str(root / name) for name in MAKERS}


@pytest.fixture
def rows() -> Dataset:
    """Training rows."""
    from datasets import Dataset
    from tiny import ROWS

    return Dataset.from_list(ROWS)


@pytest.fixture
def label_space() -> LabelSpace:
    """The labels of the rows, and two that no row has."""
    from tiny import ROWS, VOCABULARY

    from xlgen_hf.labels.space import LabelSpace

    return LabelSpace.from_label_lists([row["labels"] for row in ROWS], VOCABULARY)


@pytest.fixture
def make_model(checkpoints, label_space):
    """A function that builds an untrained model and its processor from a tiny checkpoint.

    Each call gives new ones, which a test may change.
    """
    from copies import made_once
    from sources import make_untrained

    def make(family: str = "bert", variant: str = "base", space: LabelSpace | None = None, **options):
        return made_once(make_untrained, checkpoints[family], variant, space or label_space, **options)

    return make


@pytest.fixture(scope="module")
def made() -> dict:
    """What tests of a module have made so far, by name: what several of them read, and none of them changes."""
    return {}


# ---------------------------------------------------------------------------------------------------- a Hub


@pytest.fixture(scope="session")
def hub_process():
    """The process of the test Hub."""
    from tiny import Hub

    command = [sys.executable, str(Path(__file__).parent / "hub" / "hub_server.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Hub(process.stdout.readline().strip())
        process.stdin.close()  # which ends it


@pytest.fixture
def hub(hub_process, monkeypatch, tmp_path):
    """An empty Hub that this process talks to as alice, without waiting between retries."""
    from huggingface_hub import constants, file_download
    from huggingface_hub.utils import _http
    from tiny import Hub

    from xlgen_hf.files import downloads

    hub_process.ask("clear")
    monkeypatch.setattr(downloads, "WAITS", (0.0, 0.0))
    monkeypatch.setattr(constants, "ENDPOINT", hub_process.url)
    template = hub_process.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    for module in (_http, file_download):
        monkeypatch.setattr(module, "time", SimpleNamespace(sleep=lambda seconds: None, time=time.time))
    monkeypatch.setenv("HF_TOKEN", Hub.alice)
    return hub_process


@functools.cache
def _comes_first(module: ModuleType) -> bool:
    """Whether a module has the longest tests, or processes forked from one that imports all libraries first."""
    found = (getattr(value, "__module__", None) for value in vars(module).values())
    return module.__name__ in ("test_exporting", "test_xmc_f1") or "processes" in found


def pytest_collection_modifyitems(items: list[pytest.Function]) -> None:
    """Two processes share the tests: one of them alone forks others, and none waits for the other's long last test."""
    items.sort(key=lambda item: not _comes_first(item.module))
