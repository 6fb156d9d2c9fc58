"""The systems that can be compared, by name: XLGen's variants, and those of the modules that are listed here."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, fields
from difflib import get_close_matches
from importlib import import_module
from typing import Literal, get_args

from ...configuration_xlgen import Variant
from ...decoding.decoded_sets import DecodingOptions
from ...errors import ConfigurationError
from ...settings import BATCH_SIZE, Definition, check_value, definitions, uses
from ...training.settings import TrainingSettings
from .base import System
from .retrieval import HybridSystem
from .xlgen import XLGenSystem

__all__ = [
    "PREFIX",
    "Kind",
    "SystemOptions",
    "is_trained_network",
    "kind_of",
    "make_system",
    "system_names",
    "trained_as",
    "variant_of",
]

# Modules of this package with a registry `SYSTEMS: dict[str, Callable[[], System]]`, in the order of reports.
_MODULES = ("linear_trees", "retrieval")
HYBRID = "hybrid"
PREFIX = "xlgen-"
"""Before the names of variants in the names of systems."""

Kind = Literal["baseline", "classifier", "retrieval", "generator", "hybrid", "other"]

_KINDS: dict[str, Kind] = {
    "most-frequent": "baseline",
    "parabel": "classifier",
    "bonsai": "classifier",
    "napkinxc": "classifier",
    "pecos": "classifier",
    "dense-retrieval": "retrieval",
    "dense-retrieval-trained": "retrieval",
    "retrieval": "retrieval",
    HYBRID: "hybrid",
}


@dataclass(frozen=True)
class SystemOptions:
    """What systems that train a network are made with; the others have no use for it.

    Attributes:
        training: fields of [`TrainingSettings`] by name; those of one variant alone as `bcl.cluster_threshold`. A name
            without a variant counts for the variants that use the setting. What is not given is as in `xlgen train`.
        arguments: fields of `XLGenTrainingArguments`.
        search: fields of [`DecodingOptions`].
        batch_size: texts in a batch of the search.
        model: folder of a model that was trained before on the same rows, instead of training one.

    Raises:
        ConfigurationError: if a name is not that of a setting, or a value is not allowed.
    """

    training: dict[str, object] = field(default_factory=dict)
    arguments: dict[str, object] = field(default_factory=dict)
    search: dict[str, object] = field(default_factory=lambda: {"num_beams": 5, "pool": "union"})
    batch_size: int = BATCH_SIZE
    model: str | None = None

    def __post_init__(self) -> None:
        """Check names and values."""
        known = _training_settings()
        _check_names("setting of the training", [_parts(name)[1] for name in self.training], known)
        _check_names("setting of the search", self.search, [one.name for one in fields(DecodingOptions)])
        for given, value in self.training.items():
            variant, name = _parts(given)
            check_value(known[name], value)
            if variant is not None and not uses(known[name], variant, self._candidates(variant)):
                raise ConfigurationError(
                    f"{given}={value!r} has no effect: {name} is a setting of {', '.join(known[name].about.variants)}."
                )

    def settings(self, variant: Variant) -> TrainingSettings:
        """The settings of a variant's training."""
        known = _training_settings()
        parts = [(*_parts(name), value) for name, value in self.training.items()]
        candidates = self._candidates(variant)
        values = {name: value for of, name, value in parts if of is None and uses(known[name], variant, candidates)}
        values |= {name: value for of, name, value in parts if of == variant}
        return TrainingSettings(**{**values, "variant": variant})  # type: ignore[arg-type]

    def _candidates(self, variant: str) -> object:
        """Whether a variant that has clusters is to read candidates, too."""
        return self.training.get(f"{variant}.candidates", self.training.get("candidates"))

    def to_dict(self) -> dict[str, object]:
        """As JSON holds it; `SystemOptions(**...)` makes it again."""
        return asdict(self)


def _training_settings() -> dict[str, Definition]:
    """The settings that a user may choose; the comparison chooses the variant."""
    return {name: one for name, one in definitions(TrainingSettings).items() if name != "variant"}


def _parts(name: str) -> tuple[str | None, str]:
    """Variant, None for all, and name of a setting."""
    variant, dot, own = name.partition(".")
    return (variant, own) if dot and variant in get_args(Variant) else (None, name)


def _check_names(what: str, given: Iterable[str], known: Iterable[str]) -> None:
    unknown = sorted(set(given) - set(known))
    if unknown:
        near = get_close_matches(unknown[0], list(known), n=3)
        hint = f" Did you mean one of {near}?" if near else ""
        raise ConfigurationError(f"{unknown[0]!r} is not a {what}.{hint} Choose among: {', '.join(sorted(known))}.")


def _registered() -> dict[str, Callable[[], System]]:
    """The systems of the listed modules."""
    found: dict[str, Callable[[], System]] = {}
    for name in _MODULES:
        found |= import_module(f".{name}", __package__).SYSTEMS
    return found


def system_names() -> list[str]:
    """Names of all systems, in the order of reports."""
    return [*_registered(), *(f"{PREFIX}{variant}" for variant in get_args(Variant)), HYBRID]


def kind_of(name: str) -> Kind:
    """What sort of system a name stands for; `other` where that is not known."""
    return "generator" if name.startswith(PREFIX) else _KINDS.get(name, "other")


def is_trained_network(name: str) -> bool:
    """Whether a system trains a network, which takes hours where the others take minutes."""
    return kind_of(name) in ("generator", "hybrid")


def make_system(name: str, options: SystemOptions) -> System:
    """Make a system, not fitted.

    Args:
        name: one of [`system_names`].
        options: of systems that train a network.

    Raises:
        ConfigurationError: if there is no such system.
    """
    if name == HYBRID:
        return HybridSystem(_make_generator(variant_of(name), options))
    if name.startswith(PREFIX) and name.removeprefix(PREFIX) in get_args(Variant):
        return _make_generator(variant_of(name), options)
    known = _registered()
    if name not in known:
        raise ConfigurationError(f"There is no system {name!r}; choose one of {', '.join(system_names())}.")
    return known[name]()


def _make_generator(variant: Variant, options: SystemOptions) -> XLGenSystem:
    search = DecodingOptions(**options.search)  # type: ignore[arg-type]
    return XLGenSystem(options.settings(variant), dict(options.arguments), search, options.batch_size, options.model)


def trained_as(name: str) -> str:
    """The system whose training another one shares: a hybrid's generator is that of `xlgen-rcl`."""
    return f"{PREFIX}rcl" if name == HYBRID else name


def variant_of(name: str) -> Variant:
    """The variant of XLGen that a system trains.

    Raises:
        ConfigurationError: if it trains none.
    """
    variant = trained_as(name).removeprefix(PREFIX)
    if not is_trained_network(name) or variant not in get_args(Variant):
        raise ConfigurationError(f"{name!r} trains no variant of XLGen.")
    return variant  # type: ignore[return-value]
