"""Names that differ between the releases of transformers that setup.cfg allows, decided once.

Each entry says in which release the older name ended; it is removed when setup.cfg asks for that release.
"""

from __future__ import annotations

from collections.abc import MutableMapping

from transformers import Cache, DynamicCache, EncoderDecoderCache, PreTrainedConfig
from transformers.modeling_outputs import ModelOutput, Seq2SeqLMOutput

__all__ = ["cache_argument", "cache_of", "take_cache", "windowed_cache"]

# `past_key_values` until 5.23, `cache` since 5.24, in every forward pass and every output. The old name warns in 5.24
# and ends in 5.40.
_CACHE = "cache" if "cache" in Seq2SeqLMOutput.__dataclass_fields__ else "past_key_values"


def cache_argument(cache: Cache | None) -> dict[str, Cache | None]:
    """The decoder's cache as a keyword argument of a seq2seq model's forward pass."""
    return {_CACHE: cache}


def cache_of(output: ModelOutput) -> Cache | None:
    """The decoder's cache in the output of a seq2seq model."""
    cache: Cache | None = output.get(_CACHE)
    return cache


def take_cache(arguments: MutableMapping[str, object]) -> Cache | None:
    """The decoder's cache out of the keyword arguments of a forward pass, which lose it."""
    cache = arguments.pop(_CACHE, None)
    return cache if isinstance(cache, Cache) else None


def windowed_cache(config: PreTrainedConfig) -> dict[str, Cache]:
    """An empty cache as a keyword argument of `generate`, for decoders with sliding windows; nothing for other ones.

    `generate` (5.24) would cut the cross-attention to these windows too, so that only the end of a text were read.

    Args:
        config: of the decoder.
    """
    if getattr(config, "sliding_window", None) is None:
        return {}
    return {_CACHE: EncoderDecoderCache(DynamicCache(config=config), DynamicCache())}
