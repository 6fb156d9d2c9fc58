"""One cell of an experiment, a system on a setting with a seed, in a process of its own: `python -m` this module.

A process of its own has a peak of memory of its own, and a crash in it ends nothing else.
"""

from __future__ import annotations

import _thread
import argparse
import json
import logging
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypedDict, TypeVar, cast, get_args

import numpy as np
import torch
from transformers import set_seed

from ..errors import ConfigurationError, MissingExtraError, XLGenError
from ..files.json_lines import digest, write_jsonl
from ..files.outputs import sole_writer
from ..files.schema import (
    Fields,
    anything,
    boolean,
    choice,
    either,
    integer,
    mapping_of,
    named_after,
    number,
    optional,
    string,
)
from ..labels.space import LabelSpace
from ..ranking.decisions import DecisionRule
from ..ranking.scored_labels import ScoredLabels
from ..settings import from_values
from ..training.report import peak_memory
from ..training.run_record import contents_of
from ..version import __version__
from .data import ExperimentData, PositiveUnlabelled, Setting
from .scoring import Decision, ScoringSpace, choose_decision, score_decided
from .systems.base import SystemData
from .systems.registry import SystemOptions, is_trained_network, make_system, trained_as

__all__ = [
    "INTERRUPTED",
    "MISSING_EXTRA",
    "PREDICTIONS",
    "RESULT",
    "RESULT_FORM",
    "SPEC",
    "CellDecision",
    "CellResult",
    "CellSpec",
    "Environment",
    "main",
    "run_cell",
]

logger = logging.getLogger(__name__)

SPEC, RESULT, PREDICTIONS = "spec.json", "result.json", "predictions.jsonl"
MISSING_EXTRA, INTERRUPTED = 3, 130  # exit codes besides 0 and 1
_FORMAT_VERSION = 3
_LONGEST_WAIT = 600.0  # seconds for which a cell waits for one that an earlier run of the experiment has left
_PACKAGES = (
    "xlgen-hf", "torch", "transformers", "datasets", "numpy", "scipy", "scikit-learn", "omikuji", "napkinxc",
    "libpecos",
)  # fmt: skip
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class CellSpec:
    """What a cell computes.

    Attributes:
        name: name of the cell's folder.
        setting: which training rows.
        system: name of the system.
        seed: of the system.
        data_digest: of the experiment's rows.
        options: of systems that train a network.
        pu: how labels are dropped in the setting `pu`.
    """

    name: str
    setting: Setting
    system: str
    seed: int
    data_digest: str
    options: SystemOptions
    pu: PositiveUnlabelled

    @classmethod
    def load(cls, path: Path) -> CellSpec:
        """Read what `write_json` wrote of [`asdict`].

        Raises:
            ModelFolderError: if the file is missing, or is not a spec.
        """
        content = _SPEC_FORM.read(path)
        with named_after(path):
            options = from_values(SystemOptions, content["options"])
            pu = PositiveUnlabelled(content["pu"]["rate"], content["pu"]["seed"])
            return cls(
                content["name"], content["setting"], content["system"], content["seed"], content["data_digest"],
                options, pu,
            )  # fmt: skip

    @property
    def digest(self) -> str:
        """Of all that decides the result, the version of the package included."""
        return _digest({**asdict(self), "name": None, **self._contents()})

    @property
    def model_folder(self) -> str:
        """Folder for what the system learns, the same for cells that differ in the search alone."""
        options = asdict(self.options)
        if is_trained_network(self.system):
            options = {name: options[name] for name in ("training", "arguments")}
        system = trained_as(self.system)
        content = {**asdict(self), "system": system, "name": None, "options": options, **self._contents()}
        return f"{self.setting}.{system}.seed{self.seed}.{_digest(content)[:8]}"

    def _contents(self) -> dict[str, str]:
        """What is in the folders that the options name."""
        training = {name.rpartition(".")[2]: value for name, value in self.options.training.items()}
        return contents_of({**training, "model": self.options.model})


class _PuContent(TypedDict):
    rate: float
    seed: int


class _SpecContent(TypedDict):
    """A [`CellSpec`] as JSON holds it."""

    name: str
    setting: Setting
    system: str
    seed: int
    data_digest: str
    options: dict[str, object]
    pu: _PuContent


class CellDecision(TypedDict):
    """The rule of a cell, see [`DecisionRule`], and what validation rows say about it."""

    kind: str
    value: float | None
    min_labels: int
    validation_micro_f1: float
    calibrated: bool


class Environment(TypedDict):
    """What a cell ran on."""

    python: str
    packages: dict[str, str]
    device: str
    threads: int


class CellResult(TypedDict):
    """What a cell's result file holds.

    Attributes:
        digest: of the spec.
        spec: the spec.
        decision: how test labels were decided on.
        scores: scores on the test rows.
        cost: `fit_from_scratch`, `memory_before` and, of `fit` and `predict`, `_seconds`, `_cpu_seconds`, `_memory`.
        environment: what it ran on.
    """

    digest: str
    spec: _SpecContent
    decision: CellDecision
    scores: dict[str, float]
    cost: dict[str, float | None]
    environment: Environment


_SPEC_FORM = Fields[_SpecContent](
    {
        "name": string(),
        "setting": choice(*get_args(Setting)),
        "system": string(),
        "seed": integer(minimum=0),
        "data_digest": string(),
        "options": mapping_of(anything()),
        "pu": Fields[_PuContent]({"rate": number(), "seed": integer(minimum=0)}),
    }
)
_DECISION = Fields[CellDecision](
    {
        "kind": string(),
        "value": optional(number()),
        "min_labels": integer(minimum=0),
        "validation_micro_f1": number(),
        "calibrated": boolean(),
    }
)
_ENVIRONMENT = Fields[Environment](
    {"python": string(), "packages": mapping_of(string()), "device": string(), "threads": integer(minimum=1)}
)
RESULT_FORM = Fields[CellResult](
    {
        "digest": string(),
        "spec": _SPEC_FORM,
        "decision": _DECISION,
        "scores": mapping_of(number()),
        "cost": mapping_of(optional(either(number(), boolean()))),
        "environment": _ENVIRONMENT,
    }
)
"""The form of a cell's result file."""


def _digest(content: object) -> str:
    return digest([json.dumps(content, sort_keys=True, ensure_ascii=False), __version__, str(_FORMAT_VERSION)])


def run_cell(folder: Path) -> CellResult:
    """Fit, decide, predict, score; leaves the test predictions and the result in the folder.

    Args:
        folder: `cells/NAME` in the experiment's folder; holds the spec.

    Returns:
        What the result file holds.

    Raises:
        ConfigurationError: if the experiment's rows are not those of the spec.
        XLGenError: whatever the system says.
    """
    spec, root = CellSpec.load(folder / SPEC), folder.parent.parent
    data = ExperimentData.load(root / "data")
    if data.facts["digest"] != spec.data_digest:
        raise ConfigurationError(f"{folder / SPEC} is for other rows than those in {root / 'data'}.")
    set_seed(spec.seed)
    train = data.training_rows(spec.setting, spec.pu)
    setting = LabelSpace.from_label_lists(train["labels"], data.vocabulary)
    known, true = data.validation["labels"][:], data.test["labels"][:]
    space = ScoringSpace(data.label_space, setting, [*known, *true])
    models = root / "models" / spec.model_folder
    models.mkdir(parents=True, exist_ok=True)
    cost: dict[str, float | None] = {
        "fit_from_scratch": not any(models.iterdir()) and spec.options.model is None,
        "memory_before": peak_memory(),
    }
    system = make_system(spec.system, spec.options)
    _measured(lambda: system.fit(SystemData(train, data.validation, setting, models, spec.seed)), "fit", cost)
    seen = space.take(system.score(data.validation["text"][:]))
    decision = choose_decision(seen, space.encode(known), space.setting_counts)
    scored = _measured(lambda: system.score(data.test["text"][:]), "predict", cost)
    calibrated = decision.calibrate(space.take(scored), space.setting_counts)
    scores = score_decided(calibrated, decision.rule, space.encode(true), space.full_counts, len(data.train))
    write_jsonl(folder / PREDICTIONS, _prediction_rows(calibrated, decision.rule, space.names))
    result: CellResult = {
        "digest": spec.digest,
        "spec": cast("_SpecContent", asdict(spec)),
        "decision": _described(decision),
        "scores": scores,
        "cost": cost,
        "environment": _environment(),
    }
    RESULT_FORM.write(folder / RESULT, result)
    return result


def _described(decision: Decision) -> CellDecision:
    rule = decision.rule
    return {
        "kind": rule.kind,
        "value": rule.value,
        "min_labels": rule.min_labels,
        "validation_micro_f1": decision.micro_f1,
        "calibrated": decision.calibrator is not None,
    }


def _measured(work: Callable[[], _Result], name: str, cost: dict[str, float | None]) -> _Result:
    """Do some work, and note its seconds, seconds of processors, and the peak of memory until its end, in bytes."""
    started, used = time.monotonic(), _cpu_seconds()
    result = work()
    cost[f"{name}_seconds"] = round(time.monotonic() - started, 3)
    cost[f"{name}_cpu_seconds"] = round(_cpu_seconds() - used, 3)
    cost[f"{name}_memory"] = _peak_of_all()
    return result


def _peak_of_all() -> int | None:
    """The peak of memory of this process, or of the largest one that it has started, in which some systems compute."""
    own = peak_memory()
    if own is None:
        return None
    import resource  # not on Windows

    of_children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return max(own, of_children if sys.platform == "darwin" else of_children * 1024)


def _cpu_seconds() -> float:
    """Seconds of processors that this process and those that it started and that ended have used."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _prediction_rows(scored: ScoredLabels, rule: DecisionRule, names: Sequence[str]) -> Iterator[dict[str, list]]:
    """Predicted labels as `xlgen evaluate` reads them, and all candidates, each best first."""
    everything = scored.choose(np.ones(len(scored.labels), dtype=bool))
    for (labels, scores), (candidates, all_scores) in zip(rule.apply(scored).sets(), everything.sets(), strict=True):
        yield {
            "labels": [names[label] for label in labels],
            "scores": scores,
            "candidates": [names[label] for label in candidates],
            "candidate_scores": all_scores,
        }


def _environment() -> Environment:
    packages = {}
    for name in _PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:  # the extra that brings it is not installed
            continue
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    packages["xlgen-hf"] = __version__  # of the code that runs, whatever is installed
    return {
        "python": platform.python_version(),
        "packages": packages,
        "device": device,
        "threads": torch.get_num_threads(),
    }


def _end_with_starter() -> None:
    """Interrupt this process when the one that started it closes its end of stdin, be it by dying."""
    while os.read(0, 1):
        pass
    if hasattr(signal, "pthread_kill"):  # which also ends a wait, as interrupt_main does not
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
    else:
        _thread.interrupt_main()


def main(argv: Sequence[str] | None = None) -> int:
    """Run a cell.

    Args:
        argv: path of the spec; `--attached` ends the run when stdin is closed.

    Returns:
        The exit code: 0, 1 if the cell failed, `MISSING_EXTRA`, or `INTERRUPTED`.
    """
    parser = argparse.ArgumentParser(description="Run one cell of an experiment.")
    parser.add_argument("spec", type=Path, help="cells/NAME/spec.json in the experiment's folder")
    parser.add_argument("--attached", action="store_true", help="end when stdin is closed")
    given = parser.parse_args(argv)
    logging.basicConfig(stream=sys.stderr, format="%(levelname)s: %(message)s")
    logging.getLogger("xlgen_hf").setLevel(logging.INFO)
    if given.attached:
        # Of a starter in the background of a shell it has inherited that interrupts are ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        threading.Thread(target=_end_with_starter, daemon=True).start()
    folder = given.spec.resolve().parent
    try:
        # A cell whose starter was killed may still be saving what it has when the same experiment runs again.
        with sole_writer(folder.parent, command="a cell of xlgen experiment", timeout=_LONGEST_WAIT):
            run_cell(folder)
    except KeyboardInterrupt:
        return INTERRUPTED
    except XLGenError as err:
        sys.stderr.write(f"{type(err).__name__}: {err}\n")
        return MISSING_EXTRA if isinstance(err, MissingExtraError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
