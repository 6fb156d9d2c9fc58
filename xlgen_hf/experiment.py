"""The experiments of the XLGen article as cells: a system on a setting with a seed; planned, run, taken up again."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from ._io import read_json, write_json
from .configuration_xlgen import Conditioning
from .errors import ConfigurationError
from .experiment_cell import INTERRUPTED, MISSING_EXTRA, RESULT, SPEC, CellSpec
from .experiment_data import ExperimentData, PositiveUnlabelled, Setting, check_settings
from .labels import DecodeOrder
from .system_registry import SystemOptions, is_trained_network, kind_of, system_names, trained_as
from .training import TrainingSettings

__all__ = ["ABLATIONS", "Ablation", "AblationRow", "CellFailure", "Plan", "plan_cells", "read_result", "run_cells"]

logger = logging.getLogger(__name__)

Ablation = Literal["order", "clusters", "bits", "conditioning", "label-rows", "decoding"]
ABLATIONS: tuple[Ablation, ...] = get_args(Ablation)

SEARCHES: Mapping[str, dict[str, Any]] = {
    "greedy": {"num_beams": 1, "pool": "best"},
    "5 beams, best": {"num_beams": 5, "pool": "best"},
    "5 beams, average": {"num_beams": 5, "pool": "average"},
    "5 beams, vote": {"num_beams": 5, "pool": "vote"},
    "5 beams, union": {"num_beams": 5, "pool": "union"},
    "10 samples, average": {"num_samples": 10, "pool": "average"},
    "10 samples, vote": {"num_samples": 10, "pool": "vote"},
    "10 samples, union": {"num_samples": 10, "pool": "union"},
}
"""Searches and pools of the ablation `decoding`."""

_LABEL_ROWS = (0.0, 0.3)
_ONLY: Mapping[Ablation, tuple[str, ...]] = {
    "clusters": ("xlgen-bcl", "xlgen-mcg"),
    "conditioning": ("xlgen-bcl", "xlgen-rcl"),
}

_LOG_LINES = 5  # of a failed cell's log that are repeated
_LOG = "log.txt"


@dataclass(frozen=True)
class Plan:
    """What an experiment covers.

    Attributes:
        systems: names of systems, in the order of the report.
        settings: `full`, `pu`.
        seeds: of systems that take minutes.
        model_seeds: of systems that train a network.
        ablations: what is varied on XLGen in the setting `full`.
        ablation_system: the variant that is varied; `bits` are those of `xlgen-bcl` whatever this says.
        cluster_numbers: numbers of clusters of the ablation `clusters`.
        options: of systems that train a network.
        pu: how labels are dropped.
        models: `full.xlgen-rcl` or another setting and system -> folder of a model that is taken as it is.

    Raises:
        ConfigurationError: if a name is unknown, or ablations do not fit the system.
    """

    systems: Sequence[str]
    settings: Sequence[Setting] = ("full", "pu")
    seeds: Sequence[int] = (0, 1, 2)
    model_seeds: Sequence[int] = (0,)
    ablations: Sequence[Ablation] = ()
    ablation_system: str = "xlgen-bcl"
    cluster_numbers: Sequence[int] = (10, 30, 100)
    options: SystemOptions = field(default_factory=SystemOptions)
    pu: PositiveUnlabelled = field(default_factory=PositiveUnlabelled)
    models: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the names."""
        known = system_names()
        for name in (*self.systems, *([self.ablation_system] if self.ablations else [])):
            if name not in known:
                raise ConfigurationError(f"There is no system {name!r}; choose of {', '.join(known)}.")
        unknown = sorted(set(self.ablations) - set(ABLATIONS))
        if unknown:
            raise ConfigurationError(f"There is no ablation {unknown[0]!r}; choose of {', '.join(ABLATIONS)}.")
        if self.ablations and kind_of(self.ablation_system) != "generator":
            raise ConfigurationError(f"Ablations are of a variant of XLGen, not of {self.ablation_system!r}.")
        for ablation, systems in _ONLY.items():
            if ablation in self.ablations and self.ablation_system not in systems:
                raise ConfigurationError(
                    f"The ablation {ablation!r} is of {' or '.join(systems)}, not of {self.ablation_system!r}; choose "
                    f"one of them with --ablation-system."
                )
        check_settings(self.settings)
        can_take = {f"{setting}.{name}" for setting in self.settings for name in known if is_trained_network(name)}
        strange = sorted(set(self.models) - can_take)
        if strange:
            raise ConfigurationError(f"No cell takes a model for {strange[0]!r}; choose of {sorted(can_take)}.")

    def seeds_of(self, system: str) -> Sequence[int]:
        """The seeds that a system is run with."""
        return self.model_seeds if is_trained_network(system) else self.seeds


@dataclass(frozen=True)
class AblationRow:
    """A row of an ablation's table.

    Attributes:
        ablation: what is varied.
        value: the value of this row.
        system: the system.
        cells: names of its cells, one a seed.
        is_default: whether this is what the experiment does elsewhere.
    """

    ablation: Ablation
    value: str
    system: str
    cells: tuple[str, ...]
    is_default: bool


@dataclass(frozen=True)
class CellFailure:
    """A cell without a result.

    Attributes:
        cell: its name.
        reason: the last lines of its log.
        log: the log.
        missing_extra: whether all that it lacks is a package.
    """

    cell: str
    reason: str
    log: Path
    missing_extra: bool


def plan_cells(plan: Plan, data_digest: str) -> tuple[list[CellSpec], list[AblationRow]]:
    """The cells of a plan, those that take minutes first, and the rows of the ablations' tables."""
    cells = {
        spec.name: spec
        for setting in plan.settings
        for system in plan.systems
        for seed in plan.seeds_of(system)
        for spec in [_spec(plan, data_digest, setting, system, seed)]
    }
    cheap_first = sorted(cells.values(), key=lambda spec: is_trained_network(spec.system))  # stable
    cells = {spec.name: spec for spec in cheap_first}
    rows = []
    for ablation in plan.ablations:
        system = "xlgen-bcl" if ablation == "bits" else plan.ablation_system
        for value, options in _ablation_options(plan, ablation, system).items():
            suffix = "" if options == plan.options else f".{ablation}-{_slug(value)}"
            specs = [_spec(plan, data_digest, "full", system, seed, options, suffix) for seed in plan.seeds_of(system)]
            cells |= {spec.name: spec for spec in specs}
            rows.append(AblationRow(ablation, value, system, tuple(spec.name for spec in specs), not suffix))
    return list(cells.values()), rows


def _spec(
    plan: Plan,
    data_digest: str,
    setting: Setting,
    system: str,
    seed: int,
    options: SystemOptions | None = None,
    suffix: str = "",
) -> CellSpec:
    # What a system has no use for must not make its cells run again.
    given = (options or plan.options).to_dict() if is_trained_network(system) else SystemOptions().to_dict()
    if options is None or options.training == plan.options.training:  # not where an ablation trains another model
        given["model"] = plan.models.get(f"{setting}.{system}", plan.models.get(f"{setting}.{trained_as(system)}"))
    pu = asdict(plan.pu) if setting == "pu" else asdict(PositiveUnlabelled())
    return CellSpec(f"{setting}.{system}{suffix}.seed{seed}", setting, system, seed, data_digest, given, pu)


def _slug(value: str) -> str:
    return "-".join(value.replace(",", " ").split())


def _ablation_options(plan: Plan, ablation: Ablation, system: str) -> dict[str, SystemOptions]:
    """Value -> options with it; the options of the plan for the value that they have anyhow."""
    if ablation == "decoding":
        found = {name: replace(plan.options, search=dict(search)) for name, search in SEARCHES.items()}
        return found if plan.options in found.values() else {"as elsewhere": plan.options, **found}
    if ablation == "order":
        return _varied(plan, system, "decode_order", get_args(DecodeOrder), TrainingSettings.decode_order)
    if ablation == "bits":
        return _varied(plan, system, "cluster_source", ("gold", "predicted", "mixed"), "mixed")
    if ablation == "conditioning":
        default = "tokens" if system == "xlgen-rcl" else "memory"
        return _varied(plan, system, "conditioning", get_args(Conditioning), default)
    if ablation == "label-rows":
        return _varied(plan, system, "label_rows", _LABEL_ROWS, TrainingSettings.label_rows)
    return _varied(plan, system, "num_clusters", plan.cluster_numbers, None)


def _varied(plan: Plan, system: str, name: str, values: Iterable[Any], default: Any) -> dict[str, SystemOptions]:
    training, own = plan.options.training, f"{system.removeprefix('xlgen-')}.{name}"  # before one of all variants
    current = training.get(own, training.get(name, default))
    return {
        "automatic" if value is None else str(value): plan.options
        if value == current
        else replace(plan.options, training={**training, own: value})
        for value in dict.fromkeys([*values, current])
    }


def read_result(root: Path, spec: CellSpec) -> dict[str, Any] | None:
    """The result of a cell; None if it is not there, or is that of other rows, settings or version."""
    path = root / "cells" / spec.name / RESULT
    if not path.is_file():
        return None
    result: dict[str, Any] = read_json(path)
    return result if result.get("digest") == spec.digest else None


def run_cells(cells: Sequence[CellSpec], root: Path) -> list[CellFailure]:
    """Run the cells that have no result yet, each in a process of its own, one after the other.

    Args:
        cells: the cells.
        root: folder of the experiment, with the rows of `ExperimentData.prepare` in `data/`.

    Returns:
        The cells that failed; the others were run all the same.

    Raises:
        KeyboardInterrupt: after an interrupt, once the running cell has ended. Cells that were done stay.
    """
    ExperimentData.load(root / "data")  # refuses a folder that is not complete
    failures = []
    for number, spec in enumerate(cells, start=1):
        what = f"Cell {number} of {len(cells)}, {spec.name}"
        if read_result(root, spec) is not None:
            logger.info("%s: done before.", what)
            continue
        logger.info("%s ...", what)
        started = time.monotonic()
        failure = _run(spec, root / "cells" / spec.name)
        if failure is not None:
            logger.warning("%s failed: %s", what, failure.reason)
            failures.append(failure)
            continue
        result = read_json(root / "cells" / spec.name / RESULT)
        micro = result["scores"]["micro_f1"]
        logger.info("%s: micro F1 %.3f after %.0f seconds.", what, micro, time.monotonic() - started)
    return failures


def _run(spec: CellSpec, folder: Path) -> CellFailure | None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RESULT).unlink(missing_ok=True)  # of other settings
    write_json(folder / SPEC, asdict(spec))
    command = [sys.executable, "-m", f"{__package__}.experiment_cell", str(folder / SPEC), "--attached"]
    with (folder / _LOG).open("wb") as log:
        # In a session of its own a cell does not get the terminal's Ctrl-C as well: closing its stdin ends it, once.
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        ) as process:
            code = _wait(process)
    if code == INTERRUPTED:
        raise KeyboardInterrupt
    if code == 0:
        return None
    lines = (folder / _LOG).read_text(encoding="utf-8", errors="replace").strip().splitlines()
    reason = "\n".join(lines[-_LOG_LINES:]) if code > 0 else f"killed by signal {-code}"
    return CellFailure(spec.name, reason or f"exit code {code}", folder / _LOG, code == MISSING_EXTRA)


def _wait(process: subprocess.Popen[bytes]) -> int:
    """Wait for a cell; an interrupt is handed on to it, and it may save a checkpoint."""
    assert process.stdin is not None
    try:
        return process.wait()
    except KeyboardInterrupt:
        logger.warning(
            "Interrupted: waiting for the running cell to save what it has. Ctrl-C again to end it at once."
        )
        process.stdin.close()
        try:
            process.wait()
        except KeyboardInterrupt:
            process.kill()
        raise
