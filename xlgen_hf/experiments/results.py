"""The numbers of an experiment, gathered from its cells: by seed, mean and standard deviation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..version import __version__
from .cell import CellSpec
from .data import ExperimentData
from .plan import AblationRow, Plan
from .run import CellFailure, read_result
from .systems.registry import kind_of

__all__ = ["RESULTS", "collect_results", "mean_of", "spread_of"]

RESULTS = "results.json"
_FORMAT_VERSION = 1
_COSTS = ("seconds", "cpu_seconds", "memory")


def collect_results(
    plan: Plan,
    cells: Sequence[CellSpec],
    rows: Sequence[AblationRow],
    root: Path,
    failures: Sequence[CellFailure],
    command: Sequence[str] = (),
) -> dict[str, Any]:
    """What `results.json` holds.

    Args:
        plan: what the experiment covers.
        cells: its cells; those without a result are left out of the numbers.
        rows: rows of the ablations' tables.
        root: folder of the experiment.
        failures: cells that failed in this run.
        command: the command line, for the report.

    Returns:
        `data`, `command`, `environment`, `systems` (name -> kind, in the order of the report), `cells` (each with
        scores, decision and cost), `summary` (setting -> system -> `seeds`, `scores` and `cost`, each with `mean`,
        `sd`, the sample standard deviation, None for one seed, and `values` by seed), `ablations` (the same a row),
        `failed` and `missing` (names of cells).
    """
    found = {spec.name: result for spec in cells if (result := read_result(root, spec)) is not None}
    ablated = {name for row in rows if not row.is_default for name in row.cells}
    summary: dict[str, dict[str, Any]] = {setting: {} for setting in plan.settings}
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
        "settings": {"pu": vars(plan.pu)} if "pu" in plan.settings else {},
        "options": plan.options.to_dict(),
        "environment": next((result["environment"] for result in found.values()), None),
        "systems": {name: kind_of(name) for name in plan.systems},
        "summary": summary,
        "ablations": [_ablation(row, found) for row in rows],
        "cells": {name: _without_spec(result) for name, result in found.items()},
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


def _without_spec(result: Mapping[str, Any]) -> dict[str, Any]:
    spec = {name: result["spec"][name] for name in ("setting", "system", "seed")}
    return {**spec, **{name: value for name, value in result.items() if name not in ("spec", "environment")}}


def _ablation(row: AblationRow, found: Mapping[str, Any]) -> dict[str, Any]:
    mine = [found[name] for name in row.cells if name in found]
    given = {"ablation": row.ablation, "value": row.value, "system": row.system, "is_default": row.is_default}
    return {**given, **(_summary(mine) if mine else {"seeds": [], "scores": {}, "cost": {}})}


def _summary(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    names = [name for name in results[0]["scores"] if all(name in one["scores"] for one in results)]
    whole = [one for one in results if one["cost"]["fit_from_scratch"]]
    costs = {f"predict_{part}": [one["cost"][f"predict_{part}"] for one in results] for part in _COSTS}
    costs |= {f"fit_{part}": [one["cost"][f"fit_{part}"] for one in whole] for part in _COSTS}
    costs["memory_before"] = [one["cost"]["memory_before"] for one in results]
    return {
        "seeds": [one["spec"]["seed"] for one in results],
        "decisions": [one["decision"] for one in results],
        "scores": {name: _moments(one["scores"][name] for one in results) for name in names},
        "cost": {name: _moments(values) for name, values in costs.items() if values},
    }


def _moments(values: Iterable[float | None]) -> dict[str, Any]:
    """Mean and sample standard deviation; None where the system does not tell a cost."""
    listed = list(values)
    numbers = np.array([value for value in listed if value is not None], dtype=np.float64)
    return {
        "mean": float(numbers.mean()) if len(numbers) else None,
        "sd": float(numbers.std(ddof=1)) if len(numbers) > 1 else None,
        "values": listed,
    }


def mean_of(results: Mapping[str, Any], setting: str, system: str, score: str) -> float | None:
    """Mean of a system's score over seeds; None where it was not measured."""
    found = results["summary"].get(setting, {}).get(system, {}).get("scores", {}).get(score)
    return None if found is None else found["mean"]


def spread_of(results: Mapping[str, Any], setting: str, system: str, score: str) -> float | None:
    """Standard deviation of a system's score over seeds; None where there is none."""
    found = results["summary"].get(setting, {}).get(system, {}).get("scores", {}).get(score)
    return None if found is None else found["sd"]
