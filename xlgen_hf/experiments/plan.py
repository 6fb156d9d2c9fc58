"""The experiments of the XLGen article as cells, a system on a setting with a seed: which there are."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from ..errors import ConfigurationError
from ..settings import default_conditioning, definitions
from ..training.settings import TrainingSettings
from .cell import CellSpec
from .data import PositiveUnlabelled, Setting, check_settings
from .systems.registry import PREFIX, SystemOptions, is_trained_network, kind_of, system_names, trained_as, variant_of

__all__ = ["ABLATIONS", "SEARCHES", "Ablation", "AblationRow", "Plan", "plan_cells"]

logger = logging.getLogger(__name__)

Ablation = Literal["order", "clusters", "bits", "conditioning", "label-rows", "decoding"]
ABLATIONS: tuple[Ablation, ...] = get_args(Ablation)

SEARCHES: Mapping[str, dict[str, object]] = {
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

_LABEL_ROWS = (0.0, TrainingSettings.label_rows)
_VARIED: Mapping[Ablation, str] = {
    "order": "decode_order",
    "clusters": "num_clusters",
    "bits": "cluster_source",
    "conditioning": "conditioning",
    "label-rows": "label_rows",
}
"""Ablation -> the setting of the training that it varies."""


def _systems_of(ablation: Ablation) -> list[str]:
    """The systems that have what an ablation varies; none is named if all have."""
    setting = definitions(TrainingSettings).get(_VARIED.get(ablation, ""))
    return [] if setting is None else [f"{PREFIX}{variant}" for variant in setting.about.variants]


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
                raise ConfigurationError(f"There is no system {name!r}; choose one of {', '.join(known)}.")
        unknown = sorted(set(self.ablations) - set(ABLATIONS))
        if unknown:
            raise ConfigurationError(f"There is no ablation {unknown[0]!r}; choose one of {', '.join(ABLATIONS)}.")
        if self.ablations and kind_of(self.ablation_system) != "generator":
            raise ConfigurationError(f"Ablations vary a variant of XLGen, not {self.ablation_system!r}.")
        for ablation in self.ablations:
            systems = _systems_of(ablation)
            if systems and ablation != "bits" and self.ablation_system not in systems:
                raise ConfigurationError(
                    f"The ablation {ablation!r} varies {' or '.join(systems)}, not {self.ablation_system!r}; choose "
                    "one of these with --ablation-system."
                )
        check_settings(self.settings)
        named = {*self.systems, *([self.ablation_system, "xlgen-bcl"] if self.ablations else [])}
        networks = [name for name in known if is_trained_network(name) and name in {*named, *map(trained_as, named)}]
        can_take = {f"{setting}.{name}" for setting in self.settings for name in networks}
        strange = sorted(set(self.models) - can_take)
        if strange:
            known_cells = f"choose one of {sorted(can_take)}" if can_take else "none of these systems is a network"
            raise ConfigurationError(f"No cell takes a model for {strange[0]!r}; {known_cells}.")

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
        cells: names of its cells, one per seed.
        is_default: whether this is what the experiment does elsewhere.
    """

    ablation: Ablation
    value: str
    system: str
    cells: tuple[str, ...]
    is_default: bool


def plan_cells(plan: Plan, data_digest: str) -> tuple[list[CellSpec], list[AblationRow]]:
    """The cells of a plan, those that take minutes first, and the rows of the ablations' tables.

    Raises:
        ConfigurationError: if a cell's settings do not fit together.
    """
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
    for spec in cells.values():
        if is_trained_network(spec.system):
            spec.options.settings(variant_of(spec.system))  # refuses what has no effect before the first cell runs
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
    given = (options or plan.options) if is_trained_network(system) else SystemOptions()
    if options is None or options.training == plan.options.training:  # not where an ablation trains another model
        model = plan.models.get(f"{setting}.{system}", plan.models.get(f"{setting}.{trained_as(system)}"))
        given = replace(given, model=model)
    pu = plan.pu if setting == "pu" else PositiveUnlabelled()
    return CellSpec(f"{setting}.{system}{suffix}.seed{seed}", setting, system, seed, data_digest, given, pu)


def _slug(value: str) -> str:
    return "-".join(value.replace(",", " ").split())


def _ablation_options(plan: Plan, ablation: Ablation, system: str) -> dict[str, SystemOptions]:
    """Value -> options with it; the options of the plan for the value that they have anyhow."""
    if ablation == "decoding":
        found = {name: replace(plan.options, search=dict(search)) for name, search in SEARCHES.items()}
        return found if plan.options in found.values() else {"as elsewhere": plan.options, **found}
    name = _VARIED[ablation]
    setting = definitions(TrainingSettings)[name]
    default = default_conditioning(system.removeprefix(PREFIX)) if name == "conditioning" else setting.default
    values = {"num_clusters": plan.cluster_numbers, "label_rows": _LABEL_ROWS}.get(name, setting.choices)
    return _varied(plan, system, name, values, default)


def _varied(plan: Plan, system: str, name: str, values: Iterable[object], default: object) -> dict[str, SystemOptions]:
    training, own = plan.options.training, f"{system.removeprefix(PREFIX)}.{name}"  # before one of all variants
    current = training.get(own, training.get(name, default))
    return {
        "automatic" if value is None else str(value): plan.options
        if value == current
        else replace(plan.options, training={**_without_effectless(training, name, value), own: value})
        for value in dict.fromkeys([*values, current])
    }


def _without_effectless(training: Mapping[str, object], name: str, value: object) -> dict[str, object]:
    """Settings of a training but for those beside which the one that is varied, or they themselves, have no effect."""
    known = definitions(TrainingSettings)
    names = {given: given.rpartition(".")[2] for given in training}
    idle = known[name].about.unless
    return {
        given: chosen
        for given, chosen in training.items()
        if names[given] not in idle and known[names[given]].about.needs.get(name, value) == value
    }
