"""What is trained: the settings of a training, beside the trainer's arguments."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..configuration_xlgen import Variant
from ..errors import ConfigurationError
from ..labels.space import DecodeOrder
from ..modules.adapters import require_peft
from .lora import Quantization, check_quantization

__all__ = ["TrainingSettings"]


@dataclass
class TrainingSettings:
    """What is trained, beside the training arguments.

    Attributes:
        backbone: checkpoint of a seq2seq model or of an encoder.
        variant: `base`, `bcl`, `mcg` or `rcl`.
        start_from: trained XLGen model, of any variant, whose weights the training starts from; its backbone must be
            the same.
        vocabulary: names beyond those of the training rows.
        clusters: folder that `xlgen cluster` wrote; clusters are made if None.
        encoder: checkpoint that embeds documents for clusters and retrieval; the backbone if None.
        num_clusters: number of clusters; grows with the label space if None.
        name_weight: weight of a label's name in its embedding, from 0 (documents alone) to 1.
        decode_order: order in which labels are generated, see [`LabelSpace`]; the paper has `freq_forward`.
        decoder_layers: layers of the decoder that an encoder checkpoint gets.
        dropout: dropout of the backbone; the checkpoint's own if None.
        drop_labels: share of each training row's labels that is dropped (PU), in [0, 1].
        label_rows: label-side rows for each training row, at least 0; the paper has none.
        retriever: `rcl`: folder that `xlgen index` wrote; one is made from the rows if None.
        retriever_epochs: `rcl`: epochs in which the encoder of a retriever that is made learns to match texts and
            label names; 0 takes it as it is.
        lexical: `rcl`: let spelling count in a retriever that is made, see [`LexicalIndex`].
        num_candidates: `rcl`: candidate labels that retrieval finds for a text.
        max_source_length: most tokens of an input.
        max_target_length: most tokens of a target.
        model_options: further fields of `XLGenConfig`.
        lora: train an adapter (see `xlgen_hf.training.lora`) in place of the whole model.
        lora_rank: its rank.
        lora_alpha: its changes are scaled by `lora_alpha / lora_rank`.
        quantize: hold the adapter's base in 4 or 8 bits; needs a GPU.
        sources: split -> where its rows come from, for the report of the training.
    """

    backbone: str
    variant: Variant = "base"
    start_from: str | None = None
    vocabulary: list[str] | None = None
    clusters: str | Path | None = None
    encoder: str | None = None
    num_clusters: int | None = None
    name_weight: float = 0.0
    decode_order: DecodeOrder = "freq_backward"
    decoder_layers: int = 2
    dropout: float | None = None
    drop_labels: float = 0.0
    label_rows: float = 0.3
    retriever: str | Path | None = None
    retriever_epochs: float = 1.0
    lexical: bool = True
    num_candidates: int = 16
    max_source_length: int = 256
    max_target_length: int = 256
    model_options: dict[str, Any] = field(default_factory=dict)
    lora: bool = False
    lora_rank: int = 16
    lora_alpha: float = 32
    quantize: Quantization | None = None
    sources: dict[str, str] = field(default_factory=dict)

    def check_lora(self) -> None:
        """Refuse, before anything is computed, an adapter that cannot be trained here.

        Raises:
            ConfigurationError: if a quantized base is asked for without an adapter, or without a GPU.
            MissingExtraError: if peft or bitsandbytes is needed and not installed.
        """
        if self.lora:
            require_peft()
            check_quantization(self.quantize)
        elif self.quantize is not None:
            raise ConfigurationError("--quantize holds the base of an adapter in fewer bits; add --lora.")
