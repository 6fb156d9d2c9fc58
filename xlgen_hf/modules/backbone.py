"""Backbones: a seq2seq or decoder-only checkpoint as it is, or an encoder checkpoint with a decoder made from it."""

from __future__ import annotations

import logging

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    BertConfig,
    ElectraConfig,
    EncoderDecoderConfig,
    EncoderDecoderModel,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
)

from ..configuration_xlgen import hidden_size
from ..encoders.causal import is_causal, refuse_causal
from ..encoders.checkpoints import checkpoint_errors, fetch_checkpoint
from ..encoders.loaded import num_positions
from ..errors import CheckpointError, ConfigurationError
from .causal import check_cache
from .seq2seq import SUPPORTED_BACKBONES, refuse_separate_vocabularies

__all__ = ["load_backbone", "longest_sequence", "make_backbone", "warm_start_backbone"]

logger = logging.getLogger(__name__)

# Encoder families whose decoder form has cross-attention, so that its layers take the encoder's weights as they are.
_SAME_FAMILY_DECODERS = {"bert", "roberta", "xlm-roberta", "camembert", "electra"}

# What families call their dropouts.
_DROPOUTS = (
    "dropout",
    "dropout_rate",
    "attention_dropout",
    "activation_dropout",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "embedding_dropout",
    "mlp_dropout",
    "embd_pdrop",
    "attn_pdrop",
    "resid_pdrop",
)


def load_backbone(
    name: str,
    tokenizer: PreTrainedTokenizerBase,
    *,
    decoder_layers: int = 2,
    dropout: float | None = None,
    dtype: torch.dtype = torch.float32,
) -> tuple[PreTrainedModel, list[str]]:
    """Load a seq2seq or decoder-only checkpoint, or build a seq2seq model around an encoder checkpoint.

    Args:
        name: a folder, a name that an installed package carries, or a Hub id.
        tokenizer: its tokenizer; gives the start, end and padding tokens of an encoder checkpoint's decoder.
        decoder_layers: layers of the decoder that is built for an encoder checkpoint.
        dropout: dropout everywhere in the backbone, in [0, 1); the checkpoint's own if None.
        dtype: of the weights. T5 needs float32 or bfloat16: in float16 its activations overflow.

    Returns:
        The backbone, and the prefixes of its parameters that no pretraining has seen.

    Raises:
        CheckpointError: if the name leads nowhere, or to something that is no language model.
        ConfigurationError: if texts and targets have separate vocabularies, the encoder no matrix of embeddings, a
            decoder-only model keeps something else of a text than keys and values, or `dtype` is the name of one.
    """
    if not isinstance(dtype, torch.dtype):
        raise ConfigurationError(f"dtype={dtype!r}; it must be a torch.dtype, such as torch.bfloat16.")
    path = fetch_checkpoint(name)
    with checkpoint_errors(name):
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
        if dropout is not None:
            _set_dropout(config, dropout)
        options = {"config": config, "dtype": dtype, "trust_remote_code": False, "use_safetensors": True}
        if config.is_encoder_decoder:
            _warn_of_half_precision(config, dtype)
            refuse_separate_vocabularies(name, config)
            backbone, info = AutoModelForSeq2SeqLM.from_pretrained(path, **options, output_loading_info=True)
            _refuse_half(name, config, sorted(key for key in info["missing_keys"] if "decoder." in key))
            return backbone, []
        if is_causal(config) and type(config) in MODEL_FOR_CAUSAL_LM_MAPPING:
            check_cache(name, config)
            return AutoModelForCausalLM.from_pretrained(path, **options), []
        refuse_causal(name, config, SUPPORTED_BACKBONES)
        if type(config) in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING:
            _refuse_half(name, config, ["its decoder"])
        encoder = AutoModel.from_pretrained(path, **options)
    return warm_start_backbone(encoder, tokenizer, decoder_layers=decoder_layers, dropout=dropout)


def make_backbone(config: PreTrainedConfig) -> PreTrainedModel:
    """A backbone with random weights, of the kind that a config is of."""
    auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    model: PreTrainedModel = auto.from_config(config)
    return model


def _refuse_half(name: str, config: PreTrainedConfig, missing: list[str]) -> None:
    """Refuse the encoder of a seq2seq family that was saved alone; transformers would give it a random decoder."""
    if missing:
        raise CheckpointError(
            f"{name!r} holds only part of a {config.model_type!r} model: {missing[0]} is missing. Give the whole "
            f"checkpoint that it was taken from. {SUPPORTED_BACKBONES}"
        )


def longest_sequence(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Maximum number of tokens that a backbone with learned positions can read; None where there is no limit (T5).

    Args:
        config: of the checkpoint, or of the backbone made from it.
        tokenizer: of the checkpoint, which may say less.
    """
    parts = (config, *(getattr(config, name) for name in config.sub_configs))
    known = [limit for part in parts if (limit := num_positions(part)) is not None]
    return min(*known, tokenizer.model_max_length) if known else None


def _set_dropout(config: PreTrainedConfig, dropout: float) -> None:
    if not 0 <= dropout < 1:
        raise ConfigurationError(f"dropout={dropout}; a share in [0, 1) is needed.")
    for part in (config, *(getattr(config, name) for name in config.sub_configs)):
        for name in _DROPOUTS:
            if hasattr(part, name):
                setattr(part, name, dropout)


def _warn_of_half_precision(config: PreTrainedConfig, dtype: torch.dtype) -> None:
    if dtype == torch.float16 and "t5" in config.model_type:
        logger.warning("T5 overflows to NaN in float16. Use dtype=torch.bfloat16, or float32.")


def warm_start_backbone(
    encoder: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    decoder_layers: int = 2,
    dropout: float | None = None,
) -> tuple[EncoderDecoderModel, list[str]]:
    """Put a shallow decoder on a pretrained encoder.

    Where the family has a decoder form (BERT, RoBERTa and relatives), decoder layer i takes the weights of an encoder
    layer, spread over the encoder's depth and ending with its last, its cross-attention those of that layer's
    self-attention; other families get a fresh BERT decoder or, where the embedding matrix is not as wide as the hidden
    states (ALBERT), a fresh ELECTRA decoder, which projects between both. The embedding matrix is the encoder's,
    shared by encoder, decoder and output layer.

    Args:
        encoder: a pretrained encoder with a word embedding matrix.
        tokenizer: gives start, end and padding token.
        decoder_layers: layers of the decoder, from 1 to the encoder's number.
        dropout: dropout of the decoder; the encoder's (for a fresh BERT decoder, BERT's) if None.

    Source: Wu et al., "On Leveraging Encoder-only Pre-trained Language Models for Effective Keyphrase Generation",
    2024 (deep encoder, shallow decoder).
    """
    depth = encoder.config.num_hidden_layers
    if not 1 <= decoder_layers <= depth:
        raise ConfigurationError(
            f"decoder_layers={decoder_layers}; the encoder has {depth}, so choose from 1 to {depth}."
        )
    decoder_config, same_family = _decoder_config(encoder.config, decoder_layers, _embedding_width(encoder))
    if dropout is not None:
        _set_dropout(decoder_config, dropout)
    config = EncoderDecoderConfig.from_encoder_decoder_configs(
        encoder.config, decoder_config, **_special_ids(tokenizer)
    )
    # A model made from its config gets attention and the like set as after a reload; the weights are moved over.
    backbone = AutoModelForSeq2SeqLM.from_config(config, dtype=encoder.dtype)
    backbone.encoder.load_state_dict(encoder.state_dict())
    if same_family:
        _copy_layers(encoder, backbone.decoder)
    backbone.decoder.set_input_embeddings(backbone.encoder.get_input_embeddings())
    backbone.decoder.get_output_embeddings().weight = backbone.encoder.get_input_embeddings().weight
    return backbone, ["decoder."]


def _special_ids(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    starts = (tokenizer.cls_token_id, tokenizer.bos_token_id, tokenizer.pad_token_id)  # T5 starts with its padding
    start = next((token for token in starts if token is not None), None)
    end = tokenizer.sep_token_id if tokenizer.eos_token_id is None else tokenizer.eos_token_id
    ids = {"decoder_start_token_id": start, "eos_token_id": end, "pad_token_id": tokenizer.pad_token_id}
    missing = sorted(name for name, value in ids.items() if value is None)
    if missing:
        raise ConfigurationError(
            f"The tokenizer has no {missing}; an encoder checkpoint with cls, sep and pad is needed."
        )
    return ids


def _embedding_width(encoder: PreTrainedModel) -> int:
    """Width of an encoder's word embeddings."""
    try:
        return int(encoder.get_input_embeddings().weight.shape[1])
    except (AttributeError, NotImplementedError) as err:
        raise ConfigurationError(
            f"A {type(encoder).__name__} has no matrix of word embeddings, which its decoder and output layer would "
            f"share. {SUPPORTED_BACKBONES}"
        ) from err


def _decoder_config(
    encoder_config: PreTrainedConfig, layers: int, embedding_width: int
) -> tuple[PreTrainedConfig, bool]:
    """Config of the decoder, and whether its layers have the shape of the encoder's."""
    width = hidden_size(encoder_config)
    same_family = encoder_config.model_type in _SAME_FAMILY_DECODERS
    if same_family:
        values = encoder_config.to_dict()
        config = type(encoder_config)(**values)
    else:
        sizes: dict[str, int] = {
            "vocab_size": encoder_config.vocab_size,
            "hidden_size": width,
            "num_attention_heads": encoder_config.num_attention_heads,
            "intermediate_size": getattr(encoder_config, "intermediate_size", None) or 4 * width,
            "pad_token_id": encoder_config.pad_token_id,
        }
        if embedding_width == width:
            config = BertConfig(**sizes)
        else:
            config = ElectraConfig(**sizes, embedding_size=embedding_width)
    config.num_hidden_layers = layers
    config.is_decoder = config.add_cross_attention = config.tie_word_embeddings = True
    return config, same_family


def _layers(model: nn.Module, count: int) -> nn.ModuleList:
    """The list of a model's `count` layers."""
    found = [
        m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == count and hasattr(m[0], "attention")
    ]
    if not found:
        raise ConfigurationError(f"{type(model).__name__} has no list of {count} layers to make a decoder from.")
    return found[0]


@torch.no_grad()
def _copy_layers(encoder: PreTrainedModel, decoder: PreTrainedModel) -> None:
    """Initialize a decoder of the same family from an encoder: embeddings, layers, cross-attention."""
    source = _layers(encoder, encoder.config.num_hidden_layers)
    target = _layers(decoder, decoder.config.num_hidden_layers)
    decoder.base_model.embeddings.load_state_dict(encoder.embeddings.state_dict())
    step = len(source) / len(target)
    for position, layer in enumerate(target):
        donor = source[round((position + 1) * step) - 1]
        layer.load_state_dict(donor.state_dict(), strict=False)
        layer.get_submodule("crossattention").load_state_dict(donor.get_submodule("attention").state_dict())
