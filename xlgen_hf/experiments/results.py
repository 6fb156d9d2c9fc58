"""The numbers of an experiment, gathered from its cells: by seed, mean and standard deviation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np

from ..files.training_report import score_of
from ..version import __version__
from .cell import CellDecision, CellResult, CellSpec, Environment
from .data import DataFacts, ExperimentData
from .plan import AblationRow, Plan
from .run import CellFailure, read_result
from .systems.registry import Kind, kind_of

__all__ = [
    "RESULTS",
    "AblationSummary",
    "Moments",
    "Results",
    "SystemSummary",
    "collect_results",
    "mean_of",
    "spread_of",
]

RESULTS = "results.json"
_FORMAT_VERSION = 1
_COSTS = ("seconds", "cpu_seconds", "memory")


class Moments(TypedDict):
    """A number over seeds.

    Attributes:
        mean: of the values; None where the system does not tell a cost, and for a score of no label.
        sd: the sample standard deviation; None for one value.
        values: by seed.
    """

    mean: float | None
    sd: float | None
    values: list[float | None]


class SystemSummary(TypedDict):
    """A system in a setting, over its seeds."""

    seeds: list[int]
    decisions: list[CellDecision]
    scores: dict[str, Moments]
    cost: dict[str, Moments]


class AblationSummary(SystemSummary):
    """A row of an ablation's table."""

    ablation: str
    value: str
    system: str
    is_default: bool


class _CellSummary(TypedDict):
    setting: str
    system: str
    seed: int
    digest: str
    decision: CellDecision
    scores: dict[str, float]
    cost: dict[str, float | None]


class _FailedCell(TypedDict):
    cell: str
    reason: str
    log: str
    missing_extra: bool


class Results(TypedDict):
    """What `results.json` holds.

    Attributes:
        version: of this format.
        xlgen_hf: version of the package.
        command: the command line.
        data: the rows.
        settings: `pu` -> `rate` and `seed`, where labels were dropped.
        options: of systems that train a network.
        environment: what the cells ran on; None if none has run.
        systems: name -> kind, in the order of the report.
        summary: setting -> system -> its numbers over seeds.
        ablations: the rows of their tables.
        cells: by name.
        failed: cells that failed in this run.
        missing: names of the cells without a result.
    """

    version: int
    xlgen_hf: str
    command: list[str]
    data: DataFacts
    settings: dict[str, dict[str, float]]
    options: dict[str, object]
    environment: Environment | None
    systems: dict[str, Kind]
    summary: dict[str, dict[str, SystemSummary]]
    ablations: list[AblationSummary]
    cells: dict[str, _CellSummary]
    failed: list[_FailedCell]
    missing: list[str]


def collect_results(
    plan: Plan,
    cells: Sequence[CellSpec],
    rows: Sequence[AblationRow],
    root: Path,
    failures: Sequence[CellFailure],
    command: Sequence[str] = (),
) -> Results:
    """Gather the results of the cells.

    Args:
        plan: what the experiment covers.
        cells: its cells; those without a result are left out of the numbers.
        rows: rows of the ablations' tables.
        root: folder of the experiment.
        failures: cells that failed in this run.
        command: the command line, for the report.
    """
    found = {spec.name: result for spec in cells if (result := read_result(root, spec)) is not None}
    ablated = {name for row in rows if not row.is_default for name in row.cells}
    summary: dict[str, dict[str, SystemSummary]] = {setting: {} for setting in plan.settings}
    for setting in plan.settings:
        for system in plan.systems:
            mine = [
                found[spec.name]
                for spec in cells
                if (spec.setting, spec.system) == (setting, system) and spec.name not in ablated and spec.name in found
            ]
            if mine:
                summary[setting][system] = _summary(mine)
    return {
        "version": _FORMAT_VERSION,
        "xlgen_hf": __version__,
        "command": list(command),
        "data": ExperimentData.load(root / "data").facts,
        "settings": {"pu": {"rate": plan.pu.rate, "seed": plan.pu.seed}} if "pu" in plan.settings else {},
        "options": plan.options.to_dict(),
        "environment": next((result["environment"] for result in found.values()), None),
        "systems": {name: kind_of(name) for name in plan.systems},
        "summary": summary,
        "ablations": [_ablation(row, found) for row in rows],
        "cells": {name: _of_cell(result) for name, result in found.items()},
        "failed": [
            {
                "cell": one.cell,
                "reason": one.reason,
                "log": str(one.log.relative_to(root)),
                "missing_extra": one.missing_extra,
            }
            for one in failures
        ],
        "missing": [spec.name for spec in cells if spec.name not in found],
    }


def _of_cell(result: CellResult) -> _CellSummary:
    return {
        "setting": result["spec"]["setting"],
        "system": result["spec"]["system"],
        "seed": result["spec"]["seed"],
        "digest": result["digest"],
        "decision": result["decision"],
        "scores": result["scores"],
        "cost": result["cost"],
    }


def _ablation(row: AblationRow, found: Mapping[str, CellResult]) -> AblationSummary:
    mine = [found[name] for name in row.cells if name in found]
    numbers: SystemSummary = _summary(mine) if mine else {"seeds": [], "decisions": [], "scores": {}, "cost": {}}
    return {
        "ablation": row.ablation,
        "value": row.value,
        "system": row.system,
        "is_default": row.is_default,
        **numbers,
    }


def _summary(results: Sequence[CellResult]) -> SystemSummary:
    names = [name for name in results[0]["scores"] if all(name in one["scores"] for one in results)]
    whole = [one for one in results if one["cost"]["fit_from_scratch"]]
    costs = {f"predict_{part}": [one["cost"][f"predict_{part}"] for one in results] for part in _COSTS}
    costs |= {f"fit_{part}": [one["cost"][f"fit_{part}"] for one in whole] for part in _COSTS}
    costs["memory_before"] = [one["cost"]["memory_before"] for one in results]
    return {
        "seeds": [one["spec"]["seed"] for one in results],
        "decisions": [one["decision"] for one in results],
        "scores": {name: _moments(score_of(one["scores"], name) for one in results) for name in names},
        "cost": {name: _moments(values) for name, values in costs.items() if values},
    }


def _moments(values: Iterable[float | None]) -> Moments:
    """Mean and sample standard deviation; None where the system does not tell a cost."""
    listed = list(values)
    numbers = np.array([value for value in listed if value is not None], dtype=np.float64)
    return {
        "mean": float(numbers.mean()) if len(numbers) else None,
        "sd": float(numbers.std(ddof=1)) if len(numbers) > 1 else None,
        "values": listed,
    }


def mean_of(results: Results, setting: str, system: str, score: str) -> float | None:
    """Mean of a system's score over seeds; None where it was not measured."""
    found = _score(results, setting, system, score)
    return None if found is None else found["mean"]


def spread_of(results: Results, setting: str, system: str, score: str) -> float | None:
    """Standard deviation of a system's score over seeds; None where there is none."""
    found = _score(results, setting, system, score)
    return None if found is None else found["sd"]


def _score(results: Results, setting: str, system: str, score: str) -> Moments | None:
    numbers = results["summary"].get(setting, {}).get(system)
    return None if numbers is None else numbers["scores"].get(score)
