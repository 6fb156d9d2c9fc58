"""Configuration of an XLGen model: a seq2seq backbone, the variant, and how clusters guide it."""

from __future__ import annotations

from typing import Any, Literal, get_args

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from .errors import ConfigurationError

__all__ = ["NUM_LEVELS", "ClusterSource", "Conditioning", "Pool", "Variant", "XLGenConfig"]

Variant = Literal["base", "bcl", "mcg", "rcl"]
Pool = Literal["best", "average", "vote", "union"]
Conditioning = Literal["memory", "tokens"]
ClusterSource = Literal["gold", "predicted", "mixed"]

NUM_LEVELS = 8  # tokens that tell the decoder how near a candidate label is

_TOKEN_IDS = ("pad_token_id", "eos_token_id", "bos_token_id", "decoder_start_token_id")


@strict
class XLGenConfig(PreTrainedConfig):
    """Configuration of [`XLGenForConditionalGeneration`].

    Args:
        backbone: config of the seq2seq model that is wrapped (T5, BART, EncoderDecoder ...).
        variant: `base` generates labels from the text; `bcl` also conditions on a bit vector of clusters that a head
            on the encoder predicts; `mcg` first generates cluster tokens, then labels from text and clusters;
            `rcl` conditions on candidate labels that the processor's retriever finds for the text.
        num_clusters: clusters `C` of the label space; 0 for `base` and `rcl`.
        num_label_pieces: pieces `R` that occur in label sequences, to which the output layer is restricted; None keeps
            the whole vocabulary.
        separator_token_id: token that ends each label.
        first_cluster_token_id: token of cluster 0; cluster c has the c-th id after it. None for `base` and `rcl`.
        conditioning: how `bcl` tells the clusters to the decoder. `memory` joins their vectors to the encoder's output
            (one encoder pass); `tokens` appends cluster tokens to the input, as the paper's code does (two passes).
            `rcl` tells the candidate labels in the same ways: vectors of their names, or the names themselves.
        num_label_vectors: labels that have a vector, for `rcl` with `memory`; None otherwise.
        label_vector_size: width of those vectors.
        num_candidates: most candidates of a text, for `rcl`.
        first_level_token_id: lowest of the tokens that stand before the names of candidates, for `rcl` with `tokens`.
        copy_candidates: let `rcl` with `tokens` copy pieces of labels from the candidates (see `CandidatePointer`).
        cluster_source: clusters that `bcl` conditions on in training: `gold` (the paper), `predicted` by the head, or
            `mixed`, a draw for each text.
        predicted_rate: share of texts with predicted clusters under `mixed`, in [0, 1].
        cluster_loss_weight: weight of the cluster loss (`bcl`: cross-entropy of the bits; `mcg`: of the cluster
            sequence) beside the generation loss, at least 0.
        cluster_loss_annealing: divide that weight by the number of the epoch, counted from 1.
        cluster_threshold: probability above which `bcl` predicts a cluster, in (0, 1); the best one always counts.
        max_clusters: most clusters that are predicted for a text.
        min_labels: least labels that decoding gives a text.
        max_labels: most labels that decoding gives a text.
        num_beams: beams of a text, where a call names no number; 1 is greedy search.
        pool: how the sets of these beams become one (see `DecodingOptions`).
        fresh_modules: prefixes of the parameters that no pretraining has seen; they get their own learning rate.
        tie_encoder_decoder: one embedding matrix for an EncoderDecoder backbone's encoder, decoder and output layer.

    Raises:
        ConfigurationError: if a value is out of range, or the variant lacks what it needs.

    Source: Jung et al., EACL 2023, for variants, bits and annealing.
    """

    model_type = "xlgen"
    sub_configs_defaults = {"backbone": SubConfigSpec(config_class=AutoConfig, model_type="t5")}  # noqa: RUF012

    backbone: PreTrainedConfig | dict | None = None
    variant: str = "base"
    num_clusters: int = 0
    num_label_pieces: int | None = None
    separator_token_id: int | None = None
    first_cluster_token_id: int | None = None
    conditioning: str = "memory"
    num_label_vectors: int | None = None
    label_vector_size: int | None = None
    num_candidates: int | None = None
    first_level_token_id: int | None = None
    copy_candidates: bool = True
    cluster_source: str = "mixed"
    predicted_rate: float = 0.5
    cluster_loss_weight: float = 1.0
    cluster_loss_annealing: bool = False
    cluster_threshold: float = 0.5
    max_clusters: int = 8
    min_labels: int = 1
    max_labels: int = 30
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

    def __post_init__(self, **kwargs: Any) -> None:
        """Make the backbone's config and take the token ids over from it."""
        if __package__ == "xlgen_hf":
            # The pipeline of a repository with code is for where this package is not installed; transformers would
            # prefer it to ours, and ask for `trust_remote_code`.
            kwargs.pop("custom_pipelines", None)
        super().__post_init__(**kwargs)
        for name in _TOKEN_IDS:
            if getattr(self, name, None) is None:
                setattr(self, name, getattr(self.backbone, name, None))

    def validate_xlgen(self) -> None:
        """Check values and their agreement; runs on construction and on every assignment."""
        choices = {"variant": Variant, "conditioning": Conditioning, "cluster_source": ClusterSource, "pool": Pool}
        for name, allowed in choices.items():
            if getattr(self, name) not in get_args(allowed):
                raise ConfigurationError(f"{name}={getattr(self, name)!r}; choose one of {sorted(get_args(allowed))}.")
        if not 0 < self.cluster_threshold < 1:
            raise ConfigurationError(f"cluster_threshold={self.cluster_threshold}; it must lie between 0 and 1.")
        if not 0 <= self.predicted_rate <= 1:
            raise ConfigurationError(f"predicted_rate={self.predicted_rate}; it must lie in [0, 1].")
        if self.cluster_loss_weight < 0:
            raise ConfigurationError(f"cluster_loss_weight={self.cluster_loss_weight}; it must not be negative.")
        if self.num_beams < 1:
            raise ConfigurationError(f"num_beams={self.num_beams}; at least 1 is needed.")
        if self.max_clusters < 1:
            raise ConfigurationError(f"max_clusters={self.max_clusters}; at least one cluster is predicted.")
        if not 0 <= self.min_labels <= self.max_labels or self.max_labels < 1:
            raise ConfigurationError(
                f"min_labels={self.min_labels}, max_labels={self.max_labels}; 0 <= min_labels <= max_labels is needed."
            )
        if self.has_clusters and self.num_clusters < 1:
            raise ConfigurationError(
                f"variant={self.variant!r} needs label clusters; num_clusters={self.num_clusters}."
            )

    @property
    def has_clusters(self) -> bool:
        """Whether the variant is guided by clusters."""
        return self.variant in ("bcl", "mcg")

    @property
    def has_label_vectors(self) -> bool:
        """Whether vectors of candidate labels join the memory."""
        return self.variant == "rcl" and self.conditioning == "memory"

    @property
    def copies_candidates(self) -> bool:
        """Whether pieces of labels are copied from the candidates in the input."""
        return self.variant == "rcl" and self.copy_candidates and self.first_level_token_id is not None

    @property
    def level_token_ids(self) -> range:
        """Tokens that stand before the names of candidates, the lowest level first."""
        first = self.first_level_token_id
        return range(0) if first is None else range(first, first + NUM_LEVELS)

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> PreTrainedConfig:
        """Config that generation reads layer counts and vocabulary from: the backbone's."""
        backbone: Any = self.backbone
        if backbone.model_type == "encoder-decoder":
            return backbone.encoder if encoder else backbone.decoder
        return backbone.get_text_config(decoder=decoder, encoder=encoder)

    @property
    def vocab_size(self) -> int:
        """Rows of the backbone's embedding matrix `V`."""
        return self.get_text_config(decoder=True).vocab_size

    @property
    def hidden_size(self) -> int:
        """Width `H` of the encoder's output."""
        return self.get_text_config(encoder=True).hidden_size
