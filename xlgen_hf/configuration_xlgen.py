"""Configuration of an XLGen model: a seq2seq or decoder-only backbone, the variant, and how clusters guide it."""

from __future__ import annotations

import inspect
from dataclasses import fields
from types import UnionType
from typing import Literal, get_args, get_origin

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from .errors import ConfigurationError
from .settings import (
    ClusterSource,
    Conditioning,
    ModelSettings,
    Pool,
    PredictsWith,
    Variant,
    check_label_bounds,
    check_values,
    default_conditioning,
)

__all__ = [
    "NUM_CANDIDATE_SCORES",
    "NUM_LEVELS",
    "TUNED_FIELDS",
    "ClusterSource",
    "Conditioning",
    "Pool",
    "Variant",
    "XLGenConfig",
    "hidden_size",
    "text_part",
]

NUM_CANDIDATE_SCORES = 5  # of a retriever, which the candidate head reads: the score and its four parts
NUM_LEVELS = 8  # tokens that tell the decoder how near a candidate label is

TUNED_FIELDS = (
    "predicts_with", "cluster_threshold", "min_clusters", "candidate_gate", "min_labels", "num_beams", "pool"
)  # fmt: skip
"""Fields that validation rows choose after a training."""

_TOKEN_IDS = ("pad_token_id", "eos_token_id", "bos_token_id", "decoder_start_token_id")


def text_part(config: PreTrainedConfig, side: Literal["encoder", "decoder"]) -> PreTrainedConfig:
    """The part of a model's config that describes its text encoder, or its decoder.

    Args:
        config: of a seq2seq model, an encoder, or a model with further inputs.
        side: which part; of a config without parts, the whole.
    """
    part = getattr(config, side, None)
    if isinstance(part, PreTrainedConfig):  # encoder-decoder, T5Gemma; T5Gemma2, whose encoder also reads images
        return part.get_text_config()
    return config.get_text_config(**{side: True})


def hidden_size(config: PreTrainedConfig) -> int:
    """Width `H` of what a model's text encoder computes.

    Args:
        config: of any model that reads text.

    Raises:
        ConfigurationError: if the config states none.
    """
    width = getattr(text_part(config, "encoder"), "hidden_size", None)
    if not isinstance(width, int):
        raise ConfigurationError(f"A model of type {config.model_type!r} does not encode text: it has no hidden_size.")
    return width


@strict
class XLGenConfig(PreTrainedConfig):
    """Configuration of [`XLGenForConditionalGeneration`].

    Args:
        backbone: config of the model that is wrapped: seq2seq (T5, BART, EncoderDecoder ...), or a decoder-only
            language model (Llama, Qwen, GPT-2 ...).
        variant: `base` generates labels from the text; `bcl` also conditions on a multi-hot vector of clusters that a
            head on the encoder predicts; `mcg` first generates cluster tokens, then labels from text and clusters;
            `rcl` conditions on candidate labels that the processor's retriever finds for the text, and so do `bcl` and
            `mcg` that have a `first_level_token_id`.
        num_clusters: clusters `C` of the label space; 0 for `base` and `rcl`.
        num_output_tokens: tokens that occur in label sequences, `R`, to which the output layer is restricted;
            None keeps the whole vocabulary.
        num_end_tokens: special tokens that the tokenizer puts after a text; None: one where it is the end token.
        separator_token_id: token that ends each label.
        first_cluster_token_id: token of cluster 0; cluster c has the c-th id after it. None for `base` and `rcl`.
        cluster_start_token_id: token that opens a target of clusters (`mcg`); None: the one that opens any target.
        num_label_vectors: labels that have a vector, for `rcl` with `memory`; None otherwise.
        label_vector_size: width of those vectors.
        num_input_candidates: maximum number of candidates in the input of a text.
        first_level_token_id: lowest of the tokens that stand before the names of candidates in the input; None
            without candidates, and for `rcl` with `memory`.
        candidate_head: whether there is a head that says which of those candidates apply.
        predicts_with: `generator`, or `candidate_head`, which needs one encoder pass and no decoder.
        min_clusters: minimum number of clusters that `mcg` predicts for a text, at most `max_clusters`.
        num_beams: beams of a text, where a call names no number; 1 is greedy search.
        pool: how the sets of these beams become one (see `DecodingOptions`).
        fresh_modules: prefixes of the parameters that no pretraining has seen; they get their own learning rate.
        tie_encoder_decoder: one embedding matrix for an EncoderDecoder backbone's encoder, decoder and output layer.
        conditioning, copy_candidates, candidate_loss_weight, generation_loss_weight, candidate_gate,
            candidate_threshold, cluster_source, predicted_rate, cluster_loss_weight, cluster_loss_annealing,
            cluster_threshold, max_clusters, min_labels, max_labels: see [`ModelSettings`], which gives their defaults
            and ranges.

    Raises:
        ConfigurationError: if a value is out of range, or the variant lacks what it needs.

    Source: Jung et al., EACL 2023, for variants, bits and annealing.
    """

    model_type = "xlgen"
    sub_configs_defaults = {"backbone": SubConfigSpec(config_class=AutoConfig, model_type="t5")}  # noqa: RUF012

    backbone: PreTrainedConfig | dict | None = None
    variant: str = "base"
    num_clusters: int = 0
    num_output_tokens: int | None = None
    num_end_tokens: int | None = None
    separator_token_id: int | None = None
    first_cluster_token_id: int | None = None
    cluster_start_token_id: int | None = None
    num_label_vectors: int | None = None
    label_vector_size: int | None = None
    num_input_candidates: int | None = None
    first_level_token_id: int | None = None
    conditioning: str | None = ModelSettings.conditioning  # never None once the config is made
    copy_candidates: bool = ModelSettings.copy_candidates
    candidate_loss_weight: float = ModelSettings.candidate_loss_weight
    generation_loss_weight: float = ModelSettings.generation_loss_weight
    candidate_gate: bool = ModelSettings.candidate_gate
    candidate_threshold: float = ModelSettings.candidate_threshold
    candidate_head: bool = False
    predicts_with: str = "generator"
    cluster_source: str = ModelSettings.cluster_source
    predicted_rate: float = ModelSettings.predicted_rate
    cluster_loss_weight: float = 1.0
    cluster_loss_annealing: bool = ModelSettings.cluster_loss_annealing
    cluster_threshold: float = ModelSettings.cluster_threshold
    max_clusters: int = ModelSettings.max_clusters
    min_labels: int = ModelSettings.min_labels
    max_labels: int = ModelSettings.max_labels
    min_clusters: int = 1
    num_beams: int = 1
    pool: str = "best"
    fresh_modules: list[str] | None = None
    tie_encoder_decoder: bool = False

    is_encoder_decoder: bool = True
    tie_word_embeddings: bool = True  # peft reads this at the top level
    pad_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    bos_token_id: int | None = None
    decoder_start_token_id: int | None = None

    def __post_init__(self, **kwargs: object) -> None:
        """Make the backbone's config, take the token ids over from it, and fill in what depends on the variant."""
        if __package__ == "xlgen_hf":
            # The pipeline of a repository with code is for where this package is not installed; transformers would
            # prefer it to ours, and ask for `trust_remote_code`.
            kwargs.pop("custom_pipelines", None)
        super().__post_init__(**kwargs)
        for name in _TOKEN_IDS:
            if getattr(self, name, None) is None:
                setattr(self, name, getattr(self.backbone, name, None))
        if self.conditioning is None:
            self.conditioning = default_conditioning(self.variant)
        self.validate_xlgen()  # here too: `strict` would wrap what it raises into an error of its own

    def validate_xlgen(self) -> None:
        """Check values and their agreement; runs on construction and when the config is saved."""
        known = {"variant": get_args(Variant), "pool": get_args(Pool), "predicts_with": get_args(PredictsWith)}
        for name, choices in known.items():
            if getattr(self, name) not in choices:
                raise ConfigurationError(f"{name}={getattr(self, name)!r}; it must be one of {', '.join(choices)}.")
        if __package__ == "xlgen_hf":  # a copy of the code reads what this has checked
            self._check_settings()

    def _check_settings(self) -> None:
        """Check the settings that a person chose, and whether they agree."""
        check_values(ModelSettings, {one.name: getattr(self, one.name) for one in fields(ModelSettings)})
        check_label_bounds(self.min_labels, self.max_labels)
        for name, least in (("num_beams", 1), ("min_clusters", 0), ("num_end_tokens", 0)):
            if (getattr(self, name) or 0) < least:
                raise ConfigurationError(f"{name}={getattr(self, name)}; it must be an integer >= {least}.")
        if self.has_clusters and self.num_clusters < 1:
            raise ConfigurationError(
                f"variant={self.variant!r} needs label clusters; num_clusters={self.num_clusters}."
            )
        if not self.candidate_head:
            self._refuse_uses_of_the_head()
        if self.variant == "mcg" and (self.generation_loss_weight == 0 or self.predicts_with == "candidate_head"):
            raise ConfigurationError(
                f"generation_loss_weight={self.generation_loss_weight}, predicts_with={self.predicts_with!r}: "
                "variant='mcg' generates clusters before it reads them, so it needs its decoder. Choose bcl or rcl."
            )
        if self.variant == "base" and self.first_level_token_id is not None:
            raise ConfigurationError("variant='base' with candidates is variant='rcl'; choose that.")
        if self.is_causal and self.candidate_threshold > 0:
            raise ConfigurationError(
                f"candidate_threshold={self.candidate_threshold} hides candidates after the text was read; a "
                "decoder-only backbone has read them then. Leave it at 0, or choose a seq2seq or encoder backbone."
            )

    def _refuse_uses_of_the_head(self) -> None:
        """Without a candidate head nothing may need one."""
        needing = {
            "generation_loss_weight": self.generation_loss_weight == 0,
            "candidate_gate": self.candidate_gate,
            "candidate_threshold": self.candidate_threshold > 0,
            "predicts_with": self.predicts_with == "candidate_head",
        }
        for name, needs_head in needing.items():
            if needs_head:
                raise ConfigurationError(
                    f"{name}={getattr(self, name)!r} needs a candidate head. Choose variant='rcl' with "
                    "conditioning='tokens', or candidates and clusters, and a candidate_loss_weight above 0."
                )

    @classmethod
    def json_types(cls) -> dict[str, tuple[type, ...]]:
        """The fields, the backbone apart, and the types that a `config.json` may give them.

        Derived from the annotations. A whole number stands for a `float` too.
        """
        hints = inspect.get_annotations(XLGenConfig, eval_str=True)
        found = {}
        for name, hint in hints.items():
            parts = get_args(hint) if get_origin(hint) is UnionType else (hint,)
            kinds = [get_origin(part) or part for part in parts]
            found[name] = tuple(dict.fromkeys([*kinds, *([int] if float in kinds else [])]))
        del found["backbone"]
        return found

    @property
    def is_causal(self) -> bool:
        """Whether the backbone is a decoder-only language model, which reads the text as the prompt of its labels."""
        return self.backbone is not None and not self.backbone.is_encoder_decoder  # type: ignore[union-attr]

    @property
    def has_clusters(self) -> bool:
        """Whether the variant is guided by clusters."""
        return self.variant in ("bcl", "mcg")

    @property
    def has_cluster_tokens(self) -> bool:
        """Whether tokens of clusters stand in the input; of a decoder-only backbone they follow it."""
        as_tokens = self.conditioning == "tokens" and not self.is_causal
        return self.variant == "mcg" or (self.variant == "bcl" and as_tokens)

    @property
    def has_candidates(self) -> bool:
        """Whether the processor gives the model candidate labels to read."""
        return self.variant == "rcl" or self.first_level_token_id is not None

    @property
    def has_label_vectors(self) -> bool:
        """Whether vectors of candidate labels join the memory."""
        return self.variant == "rcl" and self.conditioning == "memory"

    @property
    def copies_candidates(self) -> bool:
        """Whether label tokens are copied from the candidates in the input."""
        return self.copy_candidates and self.first_level_token_id is not None

    @property
    def reads_candidates(self) -> bool:
        """Whether what the encoder makes of each candidate in the input is looked at."""
        return self.copies_candidates or self.candidate_head

    @property
    def level_token_ids(self) -> range:
        """Tokens that stand before the names of candidates, the lowest level first."""
        first = self.first_level_token_id
        return range(0) if first is None else range(first, first + NUM_LEVELS)

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> PreTrainedConfig:
        """Config that generation reads layer counts and vocabulary from: the backbone's."""
        return text_part(self.backbone, "encoder" if encoder else "decoder")

    @property
    def start_token(self) -> int:
        """Token that opens a target, in training and in search alike.

        Raises:
            ConfigurationError: if the config names none.
        """
        if self.decoder_start_token_id is None:
            raise ConfigurationError("The model's config names no decoder_start_token_id; make it with from_backbone.")
        return self.decoder_start_token_id

    @property
    def vocab_size(self) -> int:
        """Rows of the backbone's embedding matrix `V`."""
        return self.get_text_config(decoder=True).vocab_size

    @property
    def hidden_size(self) -> int:
        """Width `H` of the encoder's output."""
        return hidden_size(self.backbone)
