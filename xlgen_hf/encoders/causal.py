"""Causal checkpoints, which are refused where an encoder is needed."""

from __future__ import annotations

from transformers import PreTrainedConfig

from ..errors import CheckpointError

__all__ = ["is_causal", "refuse_causal"]


def is_causal(config: PreTrainedConfig) -> bool:
    """Whether each position of a model reads only the positions before it.

    Families that transformers trains both ways (BERT) are causal as decoders; those that it knows as causal language
    models alone (Llama, Qwen, GPT-2) are, unless the config says that they read both ways.

    Args:
        config: of a checkpoint that is not a seq2seq model.
    """
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )

    if getattr(config, "is_decoder", False):
        return True
    text = config.get_text_config()
    reads_both_ways = (
        getattr(text, "use_bidirectional_attention", False),  # EmbeddingGemma
        getattr(text, "is_causal", True) is False,
        getattr(text, "attn_type", None) == "bi",  # XLNet
    )
    if any(reads_both_ways):
        return False
    kinds = {config.model_type, text.model_type}
    return bool(kinds & set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)) and not kinds & set(MODEL_FOR_MASKED_LM_MAPPING_NAMES)


def refuse_causal(name: str, config: PreTrainedConfig, advice: str) -> None:
    """Refuse a causal checkpoint where an encoder is needed.

    Args:
        name: the checkpoint as the user gave it.
        config: its config.
        advice: what to use instead, a sentence.

    Raises:
        CheckpointError: if it is causal.
    """
    if is_causal(config):
        raise CheckpointError(
            f"{name!r} is a causal (decoder-only) language model of type {config.model_type!r}: each of its positions "
            f"reads only the ones before it, so it cannot serve as an encoder. {advice}"
        )
