"""The XLGen model: a backbone that generates label sets, guided by clusters of related labels."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from torch import nn
from transformers import (
    Cache,
    GenerationConfig,
    GenerationMixin,
    PreTrainedModel,
)
from transformers import initialization as init
from transformers.modeling_outputs import ModelOutput, Seq2SeqLMOutput

from .configuration_xlgen import XLGenConfig
from .decoding.memory import LastValue, XLGenMemory
from .errors import ConfigurationError
from .hub.push_mixin import PushModelMixin
from .modules.auto_classes import register_auto_classes
from .modules.backbone import load_backbone, make_backbone
from .modules.compatibility import cache_argument, windowed_cache
from .modules.conditioning import ConditionedEncoderMixin
from .modules.dry_run import check_decoding
from .modules.initialization import check_lengths, start_from_processor, variant_options
from .modules.losses import training_losses
from .modules.output_layer import IGNORED, KeptRows, RestrictedOutputMixin
from .modules.parts import add_parts
from .modules.persistence import ModelFilesMixin
from .modules.seq2seq import (
    choose_attention,
    embedding_tie,
    find_start_token,
    freeze_unsaved,
    resize_embeddings,
    shares_embeddings,
    shift_right,
)
from .prediction.prediction_mixin import PredictionMixin
from .processing_xlgen import XLGenProcessor

__all__ = ["XLGenForConditionalGeneration", "XLGenOutput"]

logger = logging.getLogger(__name__)

# In the names of the parameters that adapters of peft add to layers.
_ADAPTER_PARTS = (".lora_", ".trainable_tokens_", ".ia3_", ".vera_", ".hada_", ".lokr_", ".oft_")


def _start_token(backbone: PreTrainedModel, processor: XLGenProcessor) -> int:
    """The token that opens a target: of a decoder-only backbone the separator, as it stands between two labels."""
    if backbone.config.is_encoder_decoder:
        return find_start_token(backbone, processor.tokenizer)
    return processor.label_tokenizer.separator_token_id


@dataclass
class XLGenOutput(Seq2SeqLMOutput):
    """Output of a forward pass: the fields of `Seq2SeqLMOutput`, and the losses, clusters and candidates.

    Attributes:
        generation_loss: cross-entropy of the label tokens, shape `()`; None where the candidate head alone is trained.
        cluster_loss: loss of the clusters before weighting, shape `()`; None without clusters or targets.
        candidate_loss: loss of the candidate head before weighting, shape `()`; None without a head or targets.
        cluster_logits: logits of the clusters, shape `(B, C)`; `bcl` only.
        candidate_logits: logits of the candidates in the input, shape `(B, K)`; `rcl` with a candidate head only.
    """

    generation_loss: torch.Tensor | None = None
    cluster_loss: torch.Tensor | None = None
    candidate_loss: torch.Tensor | None = None
    cluster_logits: torch.Tensor | None = None
    candidate_logits: torch.Tensor | None = None


class XLGenForConditionalGeneration(
    PushModelMixin,
    PredictionMixin,
    ConditionedEncoderMixin,
    RestrictedOutputMixin,
    ModelFilesMixin,
    PreTrainedModel,
    GenerationMixin,
):
    """Generates the label set of a text with any seq2seq or decoder-only backbone.

    Variants: `base` generates labels from the text. `bcl` conditions on a multi-hot vector of clusters, which a head
    on the encoder predicts and training may give. `mcg` learns two tasks, text to cluster tokens, and text with
    cluster tokens to labels. `rcl` conditions on candidate labels that retrieval found for the text. Build one with
    [`from_backbone`], load one with `from_pretrained`, apply it with [`predict`].

    Args:
        config: the configuration.
        backbone: a seq2seq or decoder-only model to wrap; made from `config.backbone` if None.

    Source: Jung et al., "Cluster-Guided Label Generation in Extreme Multi-Label Classification", EACL 2023.
    """

    config_class = XLGenConfig
    base_model_prefix = "backbone"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True  # each part of the backbone checks for itself what attention it supports
    _supports_flash_attn = True
    _tied_weights_keys: dict[str, str] = {}  # noqa: RUF012  the backbone's own keys are collected by transformers
    accepts_loss_kwargs = False  # the loss is a mean of its batch: the trainer must divide by the accumulation steps

    def __init__(self, config: XLGenConfig, backbone: PreTrainedModel | None = None) -> None:
        super().__init__(config)
        self.backbone = make_backbone(config.backbone) if backbone is None else backbone
        self.backbone.config = config.backbone
        if __package__ == "xlgen_hf":
            freeze_unsaved(self.backbone)
        add_parts(self, config)
        self.kept_rows: LastValue[KeptRows] = LastValue()  # of the output layer
        self.cluster_loss_scale = 1.0  # the trainer lowers it where the cluster loss is annealed
        if config.tie_encoder_decoder:
            self._tied_weights_keys = embedding_tie(self.backbone)
        self.post_init()

    def train(self, mode: bool = True) -> XLGenForConditionalGeneration:
        """Switch between training and evaluation; what was made of the weights is forgotten."""
        self.kept_rows.clear()  # some optimizers write weights in ways that no version number tells
        super().train(mode)
        return self

    @property
    def is_gradient_checkpointing(self) -> bool:
        """Whether activation checkpointing is on; peft asks by this name, of which transformers 5.24 warns."""
        return any(getattr(module, "gradient_checkpointing", False) for module in self.modules())

    # ------------------------------------------------------------------------------------------------ building

    @classmethod
    def from_backbone(
        cls,
        name: str,
        processor: XLGenProcessor,
        *,
        variant: str = "base",
        decoder_layers: int = 2,
        restrict_output: bool = True,
        dropout: float | None = None,
        dtype: torch.dtype = torch.float32,
        **options: object,
    ) -> XLGenForConditionalGeneration:
        """Start a model from a pretrained seq2seq, decoder-only or encoder checkpoint.

        Args:
            name: a folder, a name that an installed package carries, or a Hub id.
            processor: made with the tokenizer of the same checkpoint; gives label space and clusters.
            variant: `base`, `bcl`, `mcg` or `rcl`.
            decoder_layers: layers of the decoder that an encoder checkpoint gets.
            restrict_output: score only the tokens that occur in labels, in training and decoding.
            dropout: dropout everywhere in the backbone; the checkpoint's own if None.
            dtype: of the weights.
            options: further fields of [`XLGenConfig`].

        Raises:
            CheckpointError: if the checkpoint cannot be loaded.
            ConfigurationError: if the variant needs clusters and the processor has none, an option is unknown, or the
                backbone cannot generate label sets: it has separate vocabularies, or fails in a dry run.
        """
        options = {**options, **variant_options(variant, processor, options)}
        unknown = sorted(set(options) - set(XLGenConfig.__annotations__))
        if unknown:
            raise ConfigurationError(f"Unknown options {unknown}; allowed are the fields of XLGenConfig.")
        backbone, fresh = load_backbone(
            name, processor.tokenizer, decoder_layers=decoder_layers, dropout=dropout, dtype=dtype
        )
        check_lengths(name, backbone.config, processor)
        output_tokens = processor.label_tokenizer.output_token_ids() if restrict_output else None
        config = XLGenConfig(
            backbone=backbone.config,
            variant=variant,
            num_output_tokens=None if output_tokens is None else len(output_tokens),
            num_end_tokens=len(processor.frame[1]),
            separator_token_id=processor.label_tokenizer.separator_token_id,
            fresh_modules=["cluster_", "candidate_", *(f"backbone.{prefix}" for prefix in fresh)],
            tie_encoder_decoder=shares_embeddings(backbone),
            pad_token_id=processor.pad_token_id,
            eos_token_id=processor.eos_token_id,
            decoder_start_token_id=_start_token(backbone, processor),
            **options,
        )
        processor.cluster_tokens = config.has_cluster_tokens
        model = cls(config, backbone=backbone).to(dtype)
        choose_attention(model.backbone)
        # What the checkpoint generates for its own task (lengths, forced and forbidden tokens) is not for label sets.
        ids = ("pad_token_id", "eos_token_id", "decoder_start_token_id")
        model.generation_config = GenerationConfig(**{name: getattr(config, name) for name in ids})
        if output_tokens is not None:
            model.output_token_ids.copy_(torch.tensor(output_tokens))
        start_from_processor(model, processor)
        model.forget_untied()
        check_decoding(model, processor, name)
        return model.eval()

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, XLGenForConditionalGeneration):
            for name in ("output_token_ids", "label_vectors"):
                if hasattr(module, name):
                    init.zeros_(getattr(module, name))

    # ------------------------------------------------------------------------------------------------ embeddings

    def get_input_embeddings(self) -> nn.Module:
        """The backbone's embedding matrix."""
        return self.backbone.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the backbone's embedding matrix."""
        self.backbone.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        """The backbone's output layer."""
        return self.backbone.get_output_embeddings()

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        """Replace the backbone's output layer."""
        self.backbone.set_output_embeddings(new_embeddings)

    def resize_token_embeddings(self, *args: object, **kwargs: object) -> nn.Module:
        """Resize embedding matrix and output layer, and keep them tied; the arguments are transformers'."""
        embeddings = resize_embeddings(self.backbone, *args, **kwargs)
        self.tie_weights()
        return embeddings

    def get_encoder(self, modality: str | None = None) -> nn.Module:
        """The backbone's encoder; of a decoder-only backbone its layers, which read the text as well."""
        return self.backbone.base_model if self.config.is_causal else self.backbone.get_encoder()

    def get_decoder(self) -> nn.Module:
        """The backbone's decoder."""
        return self.backbone.get_decoder()

    def prepare_decoder_input_ids_from_labels(self, labels: torch.Tensor) -> torch.Tensor:
        """Targets `(B, T)` -> decoder inputs `(B, T)`: shifted right, start token first, -100 as padding."""
        start, pad = self.config.start_token, self.config.pad_token_id
        return shift_right(labels, start, start if pad is None else pad, IGNORED)

    def is_fresh(self, parameter_name: str) -> bool:
        """Whether a parameter has seen no pretraining; those of an adapter (peft) never have."""
        name = parameter_name.removeprefix("base_model.model.")
        return any(part in name for part in _ADAPTER_PARTS) or name.startswith(tuple(self.config.fresh_modules or ()))

    # ------------------------------------------------------------------------------------------------ prediction

    def generate(
        self,
        inputs: torch.Tensor | None = None,
        *,
        input_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        cluster_bits: torch.Tensor | None = None,
        candidate_ids: torch.Tensor | None = None,
        candidate_scores: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        **options: object,
    ) -> torch.Tensor | ModelOutput:
        """Generate token sequences as any model of transformers does; the text is encoded and conditioned once.

        Args:
            inputs, input_ids: input ids, `(B, S)`, by either name.
            inputs_embeds: embeddings of the text, `(B, S, H)`, instead of its input ids.
            cluster_bits: clusters to condition on, `(B, C)`; `bcl` predicts them if None.
            candidate_ids: candidates that are read as vectors, see [`forward`].
            candidate_scores: what the retriever says of candidates, see [`forward`].
            attention_mask: `(B, S)`.
            options: arguments of `GenerationMixin.generate`; `decoder_start_token_id` says which task of `mcg`.
        """
        inputs = input_ids if inputs is None else inputs
        if options.get("encoder_outputs") is None:
            with torch.no_grad():
                memory = self.encode(
                    inputs, attention_mask, inputs_embeds, cluster_bits, candidate_ids, candidate_scores
                )
            options["encoder_outputs"], attention_mask, inputs = memory, memory.attention_mask, None
        if options.get("use_cache", True) and not self.config.is_causal:
            options = {**windowed_cache(self.config.get_text_config(decoder=True)), **options}
        found: torch.Tensor | ModelOutput = super().generate(inputs, attention_mask=attention_mask, **options)
        return found

    # ------------------------------------------------------------------------------------------------ forward

    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        decoder_input_ids: torch.LongTensor | None = None,
        decoder_attention_mask: torch.Tensor | None = None,
        encoder_outputs: ModelOutput | tuple | None = None,
        past_key_values: Cache | None = None,
        cache: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        decoder_inputs_embeds: torch.Tensor | None = None,
        labels: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        cluster_bits: torch.Tensor | None = None,
        cluster_rows: torch.Tensor | None = None,
        candidate_ids: torch.Tensor | None = None,
        candidate_scores: torch.Tensor | None = None,
        candidate_targets: torch.Tensor | None = None,
        decoder_history: torch.LongTensor | None = None,
        return_dict: bool | None = None,
        **kwargs: object,
    ) -> XLGenOutput:
        """Score target tokens and, with `labels`, compute the losses.

        Args:
            input_ids, attention_mask: the texts, `(B, S)`.
            encoder_outputs: what [`encode`] gave; or another encoder's output, with its mask as `attention_mask`.
            labels: target tokens, -100 where no loss counts, `(B, T)`.
            cluster_bits: gold clusters of the texts, 0 or 1, `(B, C)`; `bcl` only.
            cluster_rows: rows whose target is a cluster sequence, `(B,)`, bool; `mcg` only.
            candidate_ids: label ids of the candidates that are read as vectors, padded with -1, `(B, K)`; `rcl` with
                the conditioning `memory` only.
            candidate_scores: what the retriever says of the candidates in the inputs, `(B, K, F)`; for the candidate
                head.
            candidate_targets: how far such a candidate is a label of the text, from 0 to 1; -100 where no loss counts,
                `(B, K)`.
            decoder_input_ids, decoder_attention_mask, inputs_embeds, decoder_inputs_embeds, use_cache: as in any
                seq2seq model of transformers.
            past_key_values, cache: the decoder's cache; transformers calls it by the first name up to 5.23.
            decoder_history: all tokens of the decoder so far, where `decoder_input_ids` holds just the last ones,
                `(B, T)`; for models that copy candidates.
            return_dict: ignored, an output object always comes back.
            kwargs: passed to the backbone.

        Returns:
            Logits over the vocabulary `(B, T, V)`; with `labels` and a restricted output layer, over the label tokens
            `(B, T, R)`. They are log-probabilities where candidates are copied. The loss is the weighted sum of
            generation, cluster and candidate loss; where generation has no weight and there are `candidate_targets`,
            the decoder does not run, and there are no logits.
        """
        kwargs.pop("num_items_in_batch", None)
        if encoder_outputs is None:
            memory = self.encode(
                input_ids, attention_mask, inputs_embeds, cluster_bits, candidate_ids, candidate_scores
            )
        elif isinstance(encoder_outputs, XLGenMemory):
            memory = encoder_outputs
        else:
            memory = XLGenMemory(encoder_outputs[0], attention_mask)
        of_memory = {"cluster_logits": memory.cluster_logits, "candidate_logits": memory.candidate_logits}
        targets = (labels, cluster_bits, cluster_rows, candidate_targets)
        if labels is not None and candidate_targets is not None and not self.config.generation_loss_weight:
            return XLGenOutput(**training_losses(self, memory, None, *targets), **of_memory)
        if labels is not None and decoder_input_ids is None and decoder_inputs_embeds is None:
            decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)  # type: ignore[assignment]
            if cluster_rows is not None and self.config.cluster_start_token_id is not None:
                decoder_input_ids[cluster_rows, 0] = self.config.cluster_start_token_id  # type: ignore[index]
        out = self.run_decoder(
            memory,
            decoder_input_ids if decoder_history is None else decoder_history,
            decoder_input_ids=decoder_input_ids,
            decoder_attention_mask=decoder_attention_mask,
            decoder_inputs_embeds=decoder_inputs_embeds,
            use_cache=use_cache if labels is None else False,
            **cache_argument(past_key_values if cache is None else cache),
            **kwargs,
        )
        losses: dict[str, torch.Tensor | None] = {}
        if labels is not None or candidate_targets is not None:
            losses = training_losses(self, memory, out.logits, *targets)
        if labels is None:
            out.logits = self.full_logits(out.logits)
        # Some families have fields of their own (the n-grams of ProphetNet, the routers of mixtures of experts).
        kept = {name: value for name, value in out.items() if name in XLGenOutput.__dataclass_fields__}
        return XLGenOutput(**{**kept, **losses, **of_memory})

    def prepare_inputs_for_generation(
        self, input_ids: torch.Tensor, *args: object, **kwargs: object
    ) -> dict[str, object]:
        """Inputs of a step of `generate`: those of transformers, and all tokens so far where candidates are copied."""
        inputs: dict[str, object] = super().prepare_inputs_for_generation(input_ids, *args, **kwargs)
        if self.config.copies_candidates:
            inputs["decoder_history"] = input_ids
        return inputs


if __package__ == "xlgen_hf":  # a copy in one model's repository is not for other models
    register_auto_classes(XLGenForConditionalGeneration)
