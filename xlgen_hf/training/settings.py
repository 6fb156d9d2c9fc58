"""What is trained: model, labels, clusters, candidates. `xlgen train` has an option for each setting."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..errors import ConfigurationError
from ..settings import (
    CLUSTERS,
    DEFAULT_BACKBONE,
    RETRIEVAL,
    ClusterSettings,
    Conditioning,
    EncoderSettings,
    LabelSettings,
    ModelSettings,
    Quantization,
    Variant,
    check_effect,
    check_label_bounds,
    check_values,
    default_cluster_loss_weight,
    default_conditioning,
    definitions,
    no_effect,
    setting,
    uses,
)

if TYPE_CHECKING:
    from ..labels.vocabulary import Vocabulary
else:
    Vocabulary = object  # for whoever evaluates the types of settings: help does without what a vocabulary imports

__all__ = ["ContrastiveSettings", "TrainingSettings"]

_BACKBONE = "Backbone"
_LORA = "LoRA"


@dataclass(frozen=True)
class ContrastiveSettings:
    """How the encoder of a retriever is trained.

    Attributes:
        epochs: passes over the training texts.
        batch_size: texts of a step; the labels of each are the others' negatives.
        learning_rate: highest learning rate.
        temperature: of the softmax over label names.
        hard_negatives: further label names for each text of a step, drawn from those that the encoder found near to it
            before the training and that are no labels of it, so that labels without documents are pushed away too
            where they do not fit.
        random_negatives: further label names of a step, drawn from the whole space.
        max_length: tokens of a text.

    Raises:
        ConfigurationError: if a value is not allowed.
    """

    epochs: float = setting(
        1.0, help="Epochs in which the encoder learns to match texts and label names; 0: none.", minimum=0
    )
    batch_size: int = setting(64, help="Texts per training step.", minimum=2)
    learning_rate: float = setting(5e-5, help="Highest learning rate of the encoder.", minimum=0)
    temperature: float = setting(0.05, help="Temperature of the softmax over label names.", minimum=0.001)
    random_negatives: int = setting(0, help="Further label names per training step.", minimum=0)
    max_length: int = setting(128, help="Tokens of a text that the encoder is trained with.", minimum=1)
    hard_negatives: int = setting(
        4, help="Label names per text that are near to it and no labels of it.", minimum=0, maximum=32
    )

    def __post_init__(self) -> None:
        """Check the values."""
        check_values(ContrastiveSettings, vars(self))


@dataclass(frozen=True, kw_only=True)
class TrainingSettings(ModelSettings, ClusterSettings, LabelSettings, EncoderSettings):
    """What is trained, in addition to the training arguments.

    Attributes:
        backbone: checkpoint of a seq2seq model, of a decoder-only language model or of an encoder.
        variant: `base`, `bcl`, `mcg` or `rcl`.
        start_from: trained XLGen model, of any variant, whose weights the training starts from; its backbone must be
            the same.
        vocabulary: concepts, or names, whose labels are predicted in addition to those of the training rows.
        clusters: folder that `xlgen cluster` wrote; clusters are made if None.
        cluster_by: what clusters are made by: `embeddings`, or `hierarchy`, the vocabulary's broader concepts.
        encoder: checkpoint that embeds documents for clusters and retrieval; if None the backbone, or all-MiniLM-L6-v2
            where that is a decoder-only language model.
        decoder_layers: layers of the decoder that an encoder checkpoint gets.
        dropout: dropout of the backbone; the checkpoint's own if None.
        drop_labels: fraction of each training row's labels that is dropped (PU).
        label_rows: label-side rows for each training row; the paper has none.
        candidates: `bcl`, `mcg`: read retrieved candidate labels, too, as tokens of the input. What `rcl` alone has
            below is theirs then.
        alias_rows: let label-side rows call the vocabulary's concepts by aliases and names in other languages half of
            the time.
        alias_spellings: let the decoder spell the vocabulary's concepts by aliases and names in other languages, too;
            targets of the training are spelled by the labels.
        retriever: `rcl`: folder that `xlgen index` wrote; one is made from the rows if None.
        retriever_epochs: `rcl`: epochs in which the encoder of a retriever that is made learns to match texts and
            label names; 0 takes it as it is.
        lexical: `rcl`: let character n-grams count in a retriever that is made, see [`LexicalIndex`].
        aliases: `rcl`: let aliases of the vocabulary's concepts, in the language of the labels, count in a retriever
            that is made: the best of a concept's names counts; by default where there are concepts.
        other_languages: `rcl`: let names and aliases in other languages count there; by default the same.
        definitions: `rcl`: let definitions of the vocabulary's concepts count as names in a retriever that is made.
        num_input_candidates: `rcl`: number of candidate labels that the model reads with a text.
        max_source_length: maximum number of tokens of an input.
        max_target_length: maximum number of tokens of a target.
        max_labels: maximum number of labels that decoding gives a text; the most of a training row if None.
        lora: train an adapter (see `xlgen_hf.training.lora`) instead of the whole model; if None where the backbone is
            a decoder-only language model.
        lora_rank: its rank.
        lora_alpha: its changes are scaled by `lora_alpha / lora_rank`.
        quantize: hold the adapter's base in 4 or 8 bits; needs a GPU.
        sources: split -> where its rows come from, for the report of the training.
        id_column: `rcl`: column of the training rows by which evidence calls them; by their number if None.

    Raises:
        ConfigurationError: if a value is out of range, or a setting that differs from its default has no effect with
            this variant or the other settings.
    """

    backbone: str = setting(
        DEFAULT_BACKBONE,
        help="Seq2seq (T5, BART ...) or decoder-only checkpoint (Llama, Qwen ...), or an encoder, which gets a "
        "shallow decoder: folder, name or Hub id.",
        group=_BACKBONE,
        published=False,
    )
    variant: Variant = setting("rcl", help="Kind of model, see above.", published=False)
    start_from: str | None = setting(
        None,
        help="Trained model, of any variant, to start from instead of the bare backbone.",
        group=_BACKBONE,
        published=False,
    )
    vocabulary: Vocabulary | list[str] | None = None
    clusters: str | Path | None = setting(
        None,
        help="Folder that `xlgen cluster` wrote.",
        default_text="made from the rows",
        group=CLUSTERS,
        variants=("bcl", "mcg"),
        published=False,
    )
    cluster_by: Literal["embeddings", "hierarchy"] = setting(
        "embeddings",
        help="What new clusters are made by: embeddings, or the broader concepts of the vocabulary.",
        group=CLUSTERS,
        variants=("bcl", "mcg"),
        unless=("clusters",),
    )
    encoder: str | None = setting(
        None,
        help="Checkpoint that embeds texts for clusters or retrieval.",
        default_text="the backbone; all-MiniLM-L6-v2 for a decoder-only one",
        variants=("bcl", "mcg", "rcl"),
        unless=("clusters", "retriever"),
        published=False,
    )
    decoder_layers: int = setting(
        2, help="Layers of the decoder that an encoder backbone gets.", minimum=1, group=_BACKBONE
    )
    dropout: float | None = setting(
        None, help="Dropout.", minimum=0, below=1, default_text="the checkpoint's own", group=_BACKBONE
    )
    drop_labels: float = setting(
        0.0, help="Fraction of each training row's labels to drop (PU experiment).", minimum=0, maximum=1, group="Data"
    )
    label_rows: float = setting(
        0.3, help="Rows made of label names per training row; they teach rare labels.", minimum=0, group="Data"
    )
    candidates: bool = setting(
        False,
        help="Let the model read retrieved candidate labels in addition to its clusters, as rcl does without any.",
        group=RETRIEVAL,
        variants=("bcl", "mcg"),
    )
    alias_rows: bool = setting(
        False,
        help="Let label rows call concepts by aliases and names in other languages, too; needs a vocabulary.",
        group="Data",
    )
    alias_spellings: bool = setting(
        False,
        help="Let the decoder spell a concept by aliases and names in other languages, too; needs a vocabulary.",
        group="Data",
    )
    retriever: str | Path | None = setting(
        None,
        help="Folder that `xlgen index` wrote.",
        default_text="made from the rows",
        group=RETRIEVAL,
        variants=("rcl",),
        published=False,
    )
    retriever_epochs: float = setting(
        ContrastiveSettings.epochs,
        help="Epochs that the encoder of a new retriever is trained for; 0 takes it as it is.",
        minimum=0,
        group=RETRIEVAL,
        variants=("rcl",),
        unless=("retriever",),
    )
    lexical: bool = setting(
        True,
        help="Let character n-grams count in a new retriever.",
        group=RETRIEVAL,
        variants=("rcl",),
        unless=("retriever",),
    )
    aliases: bool | None = setting(
        None,
        help="Let aliases in the language of the labels count in a new retriever; needs a vocabulary.",
        default_text="with a vocabulary",
        group=RETRIEVAL,
        variants=("rcl",),
        unless=("retriever",),
    )
    other_languages: bool | None = setting(
        None,
        help="Let names and aliases in other languages count in a new retriever; needs a vocabulary.",
        default_text="with a vocabulary",
        group=RETRIEVAL,
        variants=("rcl",),
        unless=("retriever",),
    )
    definitions: bool = setting(
        False,
        help="Let definitions count in a new retriever as names do; needs a vocabulary.",
        group=RETRIEVAL,
        variants=("rcl",),
        unless=("retriever",),
    )
    num_input_candidates: int = setting(
        16,
        help="Number of candidate labels that the model reads with a text.",
        minimum=1,
        maximum=1000,
        group=RETRIEVAL,
        variants=("rcl",),
    )
    max_source_length: int = setting(256, help="Maximum number of tokens of an input.", minimum=8)
    max_target_length: int = setting(256, help="Maximum number of tokens of a target.", minimum=8)
    max_labels: int | None = setting(  # type: ignore[assignment]
        None, help="Maximum number of labels per text.", minimum=1, default_text="the most of a training row"
    )
    lora: bool | None = setting(
        None,
        help="Train a LoRA adapter; its base stays in `base/` of the output folder.",
        default_text="with a decoder-only backbone",
        group=_LORA,
    )
    lora_rank: int = setting(16, help="Rank of the adapter.", minimum=1, group=_LORA, needs={"lora": True})
    lora_alpha: float = setting(
        32.0, help="Scale of the adapter's changes, times the rank.", above=0, group=_LORA, needs={"lora": True}
    )
    quantize: Quantization | None = setting(
        None,
        help="Bits of the adapter's base; needs a GPU and bitsandbytes.",
        default_text="not quantized",
        group=_LORA,
        needs={"lora": True},
    )
    sources: dict[str, str] = field(default_factory=dict)
    id_column: str | None = None

    def __post_init__(self) -> None:
        """Check values, and that every setting that was chosen has an effect."""
        check_values(TrainingSettings, vars(self))
        self.check_effect(
            [name for name, one in definitions(TrainingSettings).items() if vars(self)[name] != one.default]
        )
        check_label_bounds(self.min_labels, self.max_labels)

    def check_effect(self, given: Iterable[str]) -> None:
        """Refuse settings without effect, also where the given value is the default.

        Args:
            given: names of the settings that somebody chose.

        Raises:
            ConfigurationError: if one has no effect with this variant or the other settings.
        """
        check_effect(TrainingSettings, vars(self), given)

    def check_folders(self) -> None:
        """Refuse, before anything is computed, folders that are missing or of another kind, and aliases of nothing.

        Raises:
            ConfigurationError: if one is missing, or lacks its main file, or there are no concepts where some are
                needed.
        """
        self._check_concepts()
        from ..files.model_folder import LABEL_TREES_FOLDER, RETRIEVER_FOLDER  # heavy for `--help`

        for name, command in (("clusters", "xlgen cluster"), ("retriever", "xlgen index")):
            value = getattr(self, name)
            if value is not None and not Path(value).is_dir():
                raise ConfigurationError(f"{name}={str(value)!r}: no such folder. `{command}` makes one.")
        if self.retriever is not None and not (Path(self.retriever) / RETRIEVER_FOLDER).is_dir():
            trees = (Path(self.retriever) / LABEL_TREES_FOLDER).is_dir()
            what = "holds label trees, where a retriever is needed" if trees else "is not one that it wrote"
            raise ConfigurationError(
                f"retriever={str(self.retriever)!r}: this folder {what}. `xlgen index` makes one with a retriever."
            )
        if self.clusters is not None and not (Path(self.clusters) / "label_clusters.json").is_file():
            raise ConfigurationError(
                f"clusters={str(self.clusters)!r}: this folder has no label_clusters.json; it is not one that "
                "`xlgen cluster` wrote."
            )

    def _check_concepts(self) -> None:
        if self.id_column is not None and (not self.reads_candidates or self.retriever is not None):
            raise ConfigurationError(f"id_column={self.id_column!r} has no effect: this training makes no index.")
        if self.alias_rows and not self.label_rows:
            raise ConfigurationError("alias_rows=True has no effect with label_rows=0. Leave it out, or raise that.")
        if self.vocabulary is not None and not isinstance(self.vocabulary, list):
            return
        kinds = {"definitions": "definitions", "cluster_by": "a hierarchy", "other_languages": "other languages"}
        for name in ("aliases", "other_languages", "definitions", "alias_rows", "alias_spellings", "cluster_by"):
            value, what = getattr(self, name), kinds.get(name, "aliases")
            if value not in (None, False, "embeddings"):
                raise ConfigurationError(f"{name}={value!r}: only a vocabulary has {what}; give one (--vocabulary).")

    def resolved(self) -> TrainingSettings:
        """The same settings with those that follow from the kind of the backbone: whether LoRA, and the encoder.

        Raises:
            CheckpointError: if the backbone cannot be found.
            ConfigurationError: if a setting that was chosen has no effect then.
        """
        from transformers import AutoConfig

        from ..encoders.causal import is_causal
        from ..encoders.checkpoints import checkpoint_errors, fetch_checkpoint

        with checkpoint_errors(self.backbone):
            config = AutoConfig.from_pretrained(fetch_checkpoint(self.backbone), trust_remote_code=False)
        causal = is_causal(config)
        changes: dict[str, Any] = {"lora": causal if self.lora is None else self.lora}
        needs_encoder = no_effect(definitions(TrainingSettings)["encoder"], vars(self)) is None
        if causal and self.encoder is None and needs_encoder:
            changes["encoder"] = DEFAULT_BACKBONE
        return replace(self, **changes)

    def check_lora(self) -> None:
        """Refuse, before anything is computed, an adapter that cannot be trained here.

        Raises:
            ConfigurationError: if a quantized base is asked for without a GPU.
            MissingExtraError: if peft or bitsandbytes is needed and not installed.
        """
        if self.lora:
            from ..modules.adapters import require_peft
            from .lora import check_quantization

            require_peft()
            check_quantization(self.quantize)

    @property
    def reads_candidates(self) -> bool:
        """Whether the model reads retrieved candidate labels."""
        return self.candidates or self.variant == "rcl"

    def chosen_conditioning(self) -> Conditioning:
        """The conditioning, that of the variant where none was chosen."""
        return self.conditioning or default_conditioning(self.variant)

    def model_options(self) -> dict[str, Any]:
        """The fields of the model's config that the variant uses, as these settings or the variant have them."""
        known, weight = definitions(TrainingSettings), default_cluster_loss_weight(self.variant)
        defaults = {"conditioning": self.chosen_conditioning(), "cluster_loss_weight": weight}
        used = [one.name for one in fields(ModelSettings) if uses(known[one.name], self.variant, self.candidates)]
        values = {name: getattr(self, name) for name in used}
        return {name: defaults.get(name) if value is None else value for name, value in values.items()}

    def published(self) -> dict[str, object]:
        """The settings that decide the result, as a card shows them: without paths, and those that have an effect."""
        values = vars(self) | self.model_options()
        return {
            name: values[name]
            for name, one in definitions(TrainingSettings).items()
            if one.about.published and values[name] is not None and no_effect(one, values) is None
        }
