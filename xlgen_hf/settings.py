"""Settings, each defined once: its type, default, range, help text, and the variants that use it.

A setting is a field of a dataclass whose default comes from [`setting`]. The model's config, the settings and
arguments of a training, the options of the command line, the names that an experiment accepts and the table of a model
card all derive from these fields. This module imports nothing heavy, so that `xlgen --help` answers at once.
"""

from __future__ import annotations

import inspect
import numbers
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from math import isfinite
from pathlib import Path
from types import NoneType, UnionType
from typing import Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from .errors import ConfigurationError

__all__ = [
    "BATCH_SIZE",
    "CLUSTERS",
    "DEFAULT_BACKBONE",
    "RETRIEVAL",
    "RETRIEVER_LENGTH",
    "ClusterSettings",
    "ClusterSource",
    "Conditioning",
    "DecodeOrder",
    "Definition",
    "EncoderSettings",
    "LabelSettings",
    "ModelSettings",
    "Pool",
    "Precision",
    "PredictsWith",
    "Quantization",
    "Setting",
    "Variant",
    "check_effect",
    "check_label_bounds",
    "check_value",
    "check_values",
    "default_cluster_loss_weight",
    "default_conditioning",
    "definitions",
    "from_values",
    "no_effect",
    "setting",
    "uses",
]

Variant = Literal["base", "bcl", "mcg", "rcl"]
Pool = Literal["best", "average", "vote", "union"]
Conditioning = Literal["memory", "tokens"]
ClusterSource = Literal["gold", "predicted", "mixed"]
DecodeOrder = Literal["freq_forward", "freq_backward", "alphabet", "shuffle"]
Quantization = Literal["4bit", "8bit"]
Precision = Literal["float32", "int8"]  # of the weights of exported graphs
PredictsWith = Literal["generator", "candidate_head"]

_Value = TypeVar("_Value")
_Made = TypeVar("_Made")

DEFAULT_BACKBONE = "sentence-transformers/all-MiniLM-L6-v2"
"""Checkpoint that models start from, and that embeds texts for clusters and retrieval, where none is named."""

BATCH_SIZE = 64  # texts that are encoded or predicted at once, where nobody chose
RETRIEVER_LENGTH = 256  # tokens of a text that the encoder of a retriever reads, where nobody chose


class Setting(str):
    """The help text of a setting, with the rest of its definition as attributes.

    It is a string because `HfArgumentParser` hands a field's metadata on to argparse, which accepts a `help` and
    refuses what it does not know.

    Attributes:
        group: heading that the setting stands under in the help of a command.
        minimum, maximum: the range, both ends included; None where there is no bound.
        above, below: bounds that are themselves excluded.
        variants: variants that use the setting; empty if all do.
        needs: other settings and the values that they must have for this one to have an effect.
        unless: other settings that leave this one without effect when they are given.
        default_text: what an unset value means, for the help text.
        published: whether the value may appear in a model card; paths may not.
    """

    group: str
    minimum: float | None
    maximum: float | None
    above: float | None
    below: float | None
    variants: tuple[Variant, ...]
    needs: Mapping[str, object]
    unless: tuple[str, ...]
    default_text: str | None
    published: bool

    def __new__(cls, text: str, **facts: object) -> Setting:
        """Make a setting of its help text and its attributes."""
        made = super().__new__(cls, text)
        unset = {"minimum": None, "maximum": None, "above": None, "below": None, "default_text": None}
        empty = {"group": "Model", "variants": (), "needs": {}, "unless": (), "published": True}
        vars(made).update(unset | empty | facts)
        return made

    @property
    def range_text(self) -> str:
        """The range in words, empty if there is none."""
        if self.minimum is not None and self.maximum is not None:
            return f"between {self.minimum:g} and {self.maximum:g}"
        bounds = {">=": self.minimum, ">": self.above, "<=": self.maximum, "<": self.below}
        return " and ".join(f"{sign} {bound:g}" for sign, bound in bounds.items() if bound is not None)

    def holds(self, value: float) -> bool:
        """Whether a number is within the range."""
        return (
            isfinite(value)
            and (self.minimum is None or value >= self.minimum)
            and (self.maximum is None or value <= self.maximum)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )


def setting(default: _Value, help: str, **facts: object) -> _Value:
    """A dataclass field that is a setting.

    Args:
        default: its default.
        help: what it is, in a sentence without a percent sign.
        facts: attributes of [`Setting`].
    """
    return field(default=default, metadata={"help": Setting(help, **facts)})


@dataclass(frozen=True)
class Definition:
    """A setting as a dataclass defines it.

    Attributes:
        name: name of the field.
        kinds: the types that a value may have: `bool`, `int`, `float`, `str`, `Path`, `list` or `NoneType`.
        choices: the values to choose from; empty if every value of these types is allowed.
        default: the default.
        about: help text and range.
    """

    name: str
    kinds: tuple[type, ...]
    choices: tuple[object, ...]
    default: object
    about: Setting

    @property
    def allowed(self) -> str:
        """What a value may be, in words."""
        if self.choices:
            return f"one of {', '.join(map(str, self.choices))}"
        for kind, words in _WORDS.items():
            if kind in self.kinds:
                return f"{words} {self.about.range_text}".strip()
        return "a path" if Path in self.kinds else "a text"


_WORDS = {bool: "true or false", float: "a number", int: "an integer"}
_MATCHES: dict[type, Callable[[object], bool]] = {
    bool: lambda value: isinstance(value, bool),
    int: lambda value: isinstance(value, numbers.Integral) and not isinstance(value, bool),
    float: lambda value: isinstance(value, numbers.Real) and not isinstance(value, bool),
    str: lambda value: isinstance(value, str),
    Path: lambda value: isinstance(value, (str, os.PathLike)),
    list: lambda value: isinstance(value, list),
    NoneType: lambda value: value is None,
}


@cache
def definitions(kind: type) -> dict[str, Definition]:
    """The settings of a dataclass by name; fields that are not settings are left out.

    Args:
        kind: the dataclass.
    """
    hints = get_type_hints(kind)
    found = {}
    for one in fields(kind):
        about = one.metadata.get("help")
        if isinstance(about, Setting):
            kinds, choices = _split(hints[one.name])
            found[one.name] = Definition(one.name, kinds, choices, one.default, about)
    return found


def _split(hint: object) -> tuple[tuple[type, ...], tuple[object, ...]]:
    """Types and choices of an annotation."""
    parts = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    choices = tuple(value for part in parts if get_origin(part) is Literal for value in get_args(part))
    plain = [get_origin(part) or part for part in parts if get_origin(part) is not Literal]
    return tuple(dict.fromkeys([*map(type, choices), *plain])), choices


def check_value(definition: Definition, value: object) -> None:
    """Refuse a value that a setting cannot have.

    Args:
        definition: the setting.
        value: the value.

    Raises:
        ConfigurationError: if the type, the choice or the range is not allowed.
    """
    fits = any(_MATCHES[kind](value) for kind in definition.kinds)
    if fits and definition.choices and value is not None:
        fits = value in definition.choices
    if fits and isinstance(value, numbers.Real):
        fits = definition.about.holds(float(value))
    if not fits:
        shown = str(value) if isinstance(value, os.PathLike) else value
        raise ConfigurationError(f"{definition.name}={shown!r}; it must be {definition.allowed}.")


def check_values(kind: type, values: Mapping[str, object]) -> None:
    """Refuse values that settings of a dataclass cannot have.

    Args:
        kind: the dataclass.
        values: values by name; names that are not settings are passed over.

    Raises:
        ConfigurationError: for the first value that is not allowed.
    """
    for name, definition in definitions(kind).items():
        if name in values:
            check_value(definition, values[name])


def from_values(kind: Callable[..., _Made], values: Mapping[str, object]) -> _Made:
    """Make a dataclass of settings from values by name that nobody has checked, such as those of a file.

    Args:
        kind: the dataclass, which checks its values itself.
        values: values by name.

    Raises:
        ConfigurationError: if it has no such field, or a value is not allowed.
    """
    known = inspect.signature(kind).parameters
    unknown = [name for name in values if name not in known]
    if unknown:
        raise ConfigurationError(f"{unknown[0]!r} is not a setting; choose one of {', '.join(known)}.")
    return kind(**values)


def check_label_bounds(min_labels: int, max_labels: int | None) -> None:
    """Refuse bounds of the number of labels that contradict each other.

    Raises:
        ConfigurationError: if the minimum is greater than the maximum.
    """
    if max_labels is not None and min_labels > max_labels:
        raise ConfigurationError(
            f"min_labels={min_labels} is greater than max_labels={max_labels}; lower the one or raise the other."
        )


def uses(definition: Definition, variant: str, candidates: object = False) -> bool:
    """Whether a variant uses a setting; one that reads `candidates`, too, uses what `rcl` alone has otherwise."""
    variants = definition.about.variants
    return not variants or variant in variants or (bool(candidates) and variants == ("rcl",))


def check_effect(kind: type, values: Mapping[str, object], given: Iterable[str]) -> None:
    """Refuse settings that were given and have no effect together with the others.

    Where another setting decides that and is still None, because it follows from the backbone, nothing is refused yet.

    Args:
        kind: the dataclass.
        values: values of all its settings by name, `variant` among them.
        given: names of the settings that somebody chose.

    Raises:
        ConfigurationError: for the first setting without effect.
    """
    chosen = set(given)
    for name, definition in definitions(kind).items():
        if name not in chosen or any(values[other] is None for other in definition.about.needs):
            continue
        reason = no_effect(definition, values)
        if reason is not None:
            raise ConfigurationError(f"{name}={_shown(values[name])} has no effect {reason}, or leave {name} out.")


def no_effect(definition: Definition, values: Mapping[str, object]) -> str | None:
    """Why a setting has no effect, and what to do other than to leave it out; None if it has one.

    Args:
        definition: the setting.
        values: values of all settings by name, `variant` among them.
    """
    about, variant = definition.about, values["variant"]
    if not uses(definition, str(variant), values.get("candidates")):
        return f"with variant={variant!r}. Choose variant {' or '.join(about.variants)}"
    for other, value in about.needs.items():
        if values[other] != value:
            return f"with {other}={_shown(values[other])}. Choose {other}={value!r}"
    for other in about.unless:
        if values[other] is not None:
            return f"with {other}={_shown(values[other])}. Leave {other} out"
    return None


def _shown(value: object) -> str:
    return repr(os.fspath(value) if isinstance(value, os.PathLike) else value)


def default_conditioning(variant: str) -> Conditioning:
    """How a variant's clusters or candidates reach the decoder, where nobody chose: as tokens for `rcl`.

    RCL copies subword tokens of its candidates, for which they have to be in the input.
    """
    return "tokens" if variant == "rcl" else "memory"


def default_cluster_loss_weight(variant: str) -> float:
    """The weight of a variant's cluster loss, where nobody chose.

    MCG's decoder generates clusters as well as labels, and learns labels better where the clusters count less.
    """
    return 0.3 if variant == "mcg" else 1.0


CLUSTERS = "Label clusters (bcl, mcg)"
RETRIEVAL = "Retrieved candidates (rcl; bcl and mcg with --candidates)"


@dataclass(frozen=True, kw_only=True)
class LabelSettings:
    """How label sets become sequences.

    Attributes:
        decode_order: order in which the labels of a text are generated, see `LabelSpace`. The paper has
            `freq_forward`.
    """

    decode_order: DecodeOrder = setting(
        "freq_backward",
        help="Order in which a text's labels are generated: most frequent label first (the paper's choice) or last, "
        "by name, or random.",
    )


@dataclass(frozen=True, kw_only=True)
class ClusterSettings:
    """How label clusters are made.

    Attributes:
        num_clusters: number of clusters `C`; the square root of the number of labels if None. The paper has 30.
        name_weight: weight of a label's name in its embedding, from 0 (its documents alone) to 1 (its name alone).
    """

    num_clusters: int | None = setting(
        None, help="Number of clusters (30 in the paper).", minimum=1,
        default_text="the square root of the number of labels", group=CLUSTERS, variants=("bcl", "mcg"),
        unless=("clusters",),
    )  # fmt: skip
    name_weight: float = setting(
        0.0, help="Weight of a label's name in its embedding: 0 documents alone, 1 name alone.", minimum=0, maximum=1,
        group=CLUSTERS, variants=("bcl", "mcg"), unless=("clusters",),
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class EncoderSettings:
    """How texts are embedded for clusters and retrieval, where the encoder's checkpoint does not say it.

    Attributes:
        query_prompt: put before texts to predict labels for; the checkpoint's own if None.
        passage_prompt: put before training texts and label names; the checkpoint's own if None.
        trim_vocabulary: keep only the tokens that rows and labels consist of, and characters; see [`trim_checkpoint`].
    """

    query_prompt: str | None = setting(
        None, help="Put before texts to predict labels for when they are embedded, e.g. 'query: ' for E5.",
        default_text="the encoder's own", group=RETRIEVAL, variants=("rcl",), unless=("retriever",),
    )  # fmt: skip
    passage_prompt: str | None = setting(
        None, help="Put before training texts and label names when they are embedded, e.g. 'passage: ' for E5.",
        default_text="the encoder's own", variants=("bcl", "mcg", "rcl"), unless=("clusters", "retriever"),
    )  # fmt: skip
    trim_vocabulary: bool = setting(
        False, help="Keep only tokens of rows and labels: multilingual models shrink.", unless=("start_from",)
    )


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """Fields of the model's config that a person can choose; the others follow from the backbone and the labels.

    Attributes:
        conditioning: how `bcl` passes clusters, and `rcl` candidate labels, to the decoder: `memory` appends a vector
            for each to the encoder's hidden states, `tokens` appends tokens to the input. None: see
            [`default_conditioning`].
        copy_candidates: with candidates as tokens, copy subword tokens of labels from the candidates.
        candidate_loss_weight: weight of the loss of the candidate head (binary cross-entropy: which candidates are
            labels of the text) beside the generation loss; with candidates as tokens only, 0 leaves the head out.
        generation_loss_weight: 0 trains the candidate head alone, many times faster; `mcg` needs its decoder.
        candidate_gate: let the head's probabilities weigh the candidates that are copied from.
        candidate_threshold: probability by the head below which a candidate is hidden from the decoder; 0 hides none.
        cluster_source: clusters that `bcl` trains with: `gold` (the paper), `predicted`, or `mixed`, either for each.
        predicted_rate: fraction of texts with predicted clusters under `mixed`.
        cluster_loss_weight: weight of the cluster loss; if None 1 for `bcl` (a vector), 0.3 for `mcg` (tokens).
        cluster_loss_annealing: divide that weight by the number of the epoch, counted from 1.
        cluster_threshold: probability above which `bcl` predicts a cluster; the best one always counts.
        max_clusters: maximum number of clusters predicted for a text.
        min_labels: minimum number of labels that decoding gives a text; validation rows choose it after a training.
        max_labels: maximum number of labels that decoding gives a text.
    """

    conditioning: Conditioning | None = setting(
        None, help="Pass clusters or candidate labels to the decoder as vectors (memory) or as tokens of the input.",
        default_text="memory; rcl: tokens", variants=("bcl", "rcl"),
    )  # fmt: skip
    copy_candidates: bool = setting(
        True, help="With conditioning by tokens: copy subword tokens of labels from the candidates.", group=RETRIEVAL,
        variants=("rcl",),
    )  # fmt: skip
    candidate_loss_weight: float = setting(
        1.0,
        help="With conditioning by tokens: weight of the loss of the head that tells which candidates apply; 0: none.",
        minimum=0, group=RETRIEVAL, variants=("rcl",),
    )  # fmt: skip
    generation_loss_weight: float = setting(
        1.0, help="Weight of the generation loss; 0 trains the candidate head alone, without the decoder.", minimum=0,
        group=RETRIEVAL, variants=("rcl",),
    )  # fmt: skip
    candidate_gate: bool = setting(
        False, help="Let the head's probabilities weigh what is copied.", group=RETRIEVAL, variants=("rcl",)
    )
    candidate_threshold: float = setting(
        0.0, help="Probability by the head below which a candidate is hidden from the decoder.", minimum=0, below=1,
        group=RETRIEVAL, variants=("rcl",),
    )  # fmt: skip
    cluster_source: ClusterSource = setting(
        "mixed", help="Clusters that training conditions on: the true ones (the paper), predicted ones, or both.",
        group=CLUSTERS, variants=("bcl",),
    )  # fmt: skip
    predicted_rate: float = setting(
        0.5, help="Fraction of texts with predicted clusters where the source is mixed.", minimum=0, maximum=1,
        group=CLUSTERS, variants=("bcl",), needs={"cluster_source": "mixed"},
    )  # fmt: skip
    cluster_loss_weight: float | None = setting(None, help="Weight of the cluster loss.", minimum=0, group=CLUSTERS,
        default_text="1; mcg: 0.3", variants=("bcl", "mcg"),
    )  # fmt: skip
    cluster_loss_annealing: bool = setting(
        False, help="Divide that weight by the epoch's number.", group=CLUSTERS, variants=("bcl", "mcg")
    )
    cluster_threshold: float = setting(
        0.25, help="Probability above which a cluster is predicted; validation rows choose it.", minimum=0, maximum=1,
        group=CLUSTERS, variants=("bcl",),
    )  # fmt: skip
    max_clusters: int = setting(
        8, help="Maximum number of predicted clusters per text.", minimum=1, group=CLUSTERS, variants=("bcl", "mcg")
    )
    min_labels: int = setting(1, help="Minimum number of labels per text; validation rows choose it.", minimum=0)
    max_labels: int = setting(30, help="Maximum number of labels per text.", minimum=1)
