"""What seq2seq families do in ways of their own: vocabularies, the token that opens a target, attention."""

from __future__ import annotations

import torch
from torch import nn
from transformers import EncoderDecoderModel, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from ..configuration_xlgen import text_part
from ..errors import ConfigurationError
from ..labels.tokens import language_token_id

__all__ = [
    "SUPPORTED_BACKBONES",
    "choose_attention",
    "embedding_tie",
    "find_start_token",
    "freeze_unsaved",
    "refuse_separate_vocabularies",
    "resize_embeddings",
    "shares_embeddings",
    "shift_right",
]

SUPPORTED_BACKBONES = (
    "Use a T5, BART, mBART or Pegasus, a decoder-only Llama, Qwen, Gemma or GPT-2, or an encoder such as "
    "sentence-transformers/all-MiniLM-L6-v2; the page 'Backbones' of the documentation lists all families."
)


def refuse_separate_vocabularies(name: str, config: PreTrainedConfig) -> None:
    """Refuse a seq2seq checkpoint whose texts and targets are spelled in different vocabularies.

    Labels stand in targets, and in inputs too (`rcl`), with the same token ids.

    Args:
        name: the checkpoint as the user gave it.
        config: its config.

    Raises:
        ConfigurationError: if it has two vocabularies.
    """
    sizes = [getattr(text_part(config, side), "vocab_size", None) for side in ("encoder", "decoder")]
    own_tables = getattr(config, "share_encoder_decoder_embeddings", True) is False or hasattr(
        config, "tgt_vocab_size"
    )
    if own_tables or sizes[0] != sizes[1]:
        raise ConfigurationError(
            f"{name!r} (type {config.model_type!r}) has separate vocabularies for texts and targets; labels need one "
            f"for both. {SUPPORTED_BACKBONES}"
        )


def find_start_token(backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that opens a target, in training and in search alike.

    A target language, where the tokenizer has one (mBART, NLLB); else what the checkpoint starts its decoder with;
    else its token for the beginning of a sequence, as in T5Gemma.

    Args:
        backbone: a seq2seq model.
        tokenizer: its tokenizer.

    Raises:
        ConfigurationError: if nothing says how a target begins.
    """
    language = language_token_id(tokenizer)
    if language is not None:
        return language
    sources = (backbone.config, backbone.generation_config, text_part(backbone.config, "decoder"))
    for field in ("decoder_start_token_id", "bos_token_id"):
        for source in sources:
            token = getattr(source, field, None)
            if isinstance(token, int):
                return token
    raise ConfigurationError(
        f"Neither config nor generation config of the {backbone.config.model_type!r} checkpoint says how a target "
        "begins. Set decoder_start_token_id in its config.json."
    )


def shift_right(labels: torch.Tensor, start_token: int, pad_token: int, ignored: int) -> torch.Tensor:
    """Targets -> decoder inputs: each token is predicted from those before it, the first from the start token.

    Args:
        labels: target tokens, `(B, T)`.
        start_token: token that opens a target.
        pad_token: takes the place of targets that no loss counts.
        ignored: the value of these.

    Returns:
        Decoder inputs, `(B, T)`.
    """
    shifted = labels.roll(1, dims=-1)
    shifted[..., 0] = start_token
    return shifted.masked_fill(shifted == ignored, pad_token)


def resize_embeddings(backbone: PreTrainedModel, *args: object, **kwargs: object) -> nn.Embedding:
    """Resize a backbone's embedding matrices and output layer, and note the size wherever its config states it.

    Args:
        backbone: any backbone; it is changed.
        args, kwargs: those of `PreTrainedModel.resize_token_embeddings`.

    Returns:
        The embedding matrix of its inputs.
    """
    if isinstance(backbone, EncoderDecoderModel):
        backbone.decoder.resize_token_embeddings(*args, **kwargs)
        embeddings: nn.Embedding = backbone.encoder.resize_token_embeddings(*args, **kwargs)
    else:
        embeddings = backbone.resize_token_embeddings(*args, **kwargs)
        decoder = backbone.get_decoder()
        if decoder.get_input_embeddings().num_embeddings != embeddings.num_embeddings:  # a table of its own
            decoder.resize_token_embeddings(*args, **kwargs)
    config = backbone.config
    for part in (config, text_part(config, "encoder"), text_part(config, "decoder")):  # T5Gemma states it twice
        if hasattr(part, "vocab_size"):
            part.vocab_size = embeddings.num_embeddings
    return embeddings


def choose_attention(backbone: PreTrainedModel) -> None:
    """Let each part of a backbone use the best attention that its own family supports.

    The config of an outer model passes a choice on to the configs inside it, unasked, and most families trust theirs:
    a mask for one kind of attention, read by another kind, lets positions see what comes after them.

    Args:
        backbone: a model; its configs are changed.
    """
    for module in backbone.modules():
        if isinstance(module, PreTrainedModel):
            module.config._attn_implementation_internal = module.get_correct_attn_implementation(None)


def freeze_unsaved(backbone: PreTrainedModel) -> None:
    """Keep parameters that a family never saves, such as Marian's table of positions, out of training.

    What training made of them would be lost in the saved model.

    Args:
        backbone: a model; it is changed.
    """
    unsaved = set(getattr(backbone, "_keys_to_ignore_on_save", None) or ())
    for name, parameter in backbone.named_parameters():
        if name in unsaved:
            parameter.requires_grad_(False)


def shares_embeddings(backbone: PreTrainedModel) -> bool:
    """Whether encoder and decoder of an `EncoderDecoderModel` have one embedding matrix; others see to it themselves.

    Args:
        backbone: any backbone.
    """
    if not isinstance(backbone, EncoderDecoderModel):
        return False
    shared: bool = backbone.decoder.get_input_embeddings().weight is backbone.encoder.get_input_embeddings().weight
    return shared


def embedding_tie(backbone: EncoderDecoderModel) -> dict[str, str]:
    """Name of the decoder's embedding matrix -> name of the encoder's; its output layer is tied to the former.

    Args:
        backbone: a backbone that shares its embeddings.
    """
    encoder, decoder = backbone.encoder.get_input_embeddings(), backbone.decoder.get_input_embeddings()
    encoder_name = next(name for name, module in backbone.encoder.named_modules() if module is encoder)
    decoder_name = next(name for name, module in backbone.decoder.named_modules() if module is decoder)
    return {f"backbone.decoder.{decoder_name}.weight": f"backbone.encoder.{encoder_name}.weight"}
