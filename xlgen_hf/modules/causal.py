"""Decoder-only backbones: the text is the prompt, which takes the place of an encoder's output; labels follow it.

What reads the text and what writes the labels is one stack of layers here. [`read_prompt`] gives what a seq2seq
backbone's encoder gives, [`continue_prompt`] runs the backbone as a seq2seq model's decoder is run, so that search,
scores and training are those of every other backbone.

Prompts stand at the right end of their rows: between a prompt and its labels is no padding, which layers that look
back over a window of positions would count.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from transformers import Cache, DynamicCache, EncoderDecoderCache, PreTrainedConfig
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer
from transformers.modeling_outputs import ModelOutput, Seq2SeqLMOutput

from ..decoding.memory import XLGenMemory
from ..decoding.prompt_cache import beams_of, branched, shared_prompt
from ..errors import ConfigurationError
from .compatibility import cache_argument, cache_of, take_cache

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Prompt", "check_cache", "continue_prompt", "read_prompt", "with_vectors"]


def check_cache(name: str, config: PreTrainedConfig) -> None:
    """Refuse a backbone whose layers keep something else of a prompt than keys and values of its tokens.

    Args:
        name: the checkpoint, for the message.
        config: its config.

    Raises:
        ConfigurationError: if one does (Mamba and other recurrent or hybrid families).
    """
    others = {type(layer) for layer in DynamicCache(config=config).layers} - {DynamicLayer, DynamicSlidingWindowLayer}
    if others:
        kinds = ", ".join(sorted(kind.__name__ for kind in others))
        raise ConfigurationError(
            f"{name!r} ({config.model_type}) has layers of the kind {kinds}, whose state cannot be shared "
            "by the rows of a search. Choose a decoder-only model with attention in every layer, such as Llama, "
            "Qwen 2 or 3, Gemma or GPT-2."
        )


@dataclass
class Prompt:
    """Prompts as a decoder-only backbone has read them, each at the right end of its row.

    Attributes:
        embeds: embeddings of the tokens, `(B, S, H)`.
        mask: 1 where a token is, `(B, S)`.
        ids: the tokens, `(B, S)`; None where only embeddings are known.
        hidden: last hidden states, `(B, S, H)`; None where the backbone has not run.
        kept: its cache; None where it has not run, or cannot keep one (activation checkpointing).
    """

    embeds: torch.Tensor
    mask: torch.Tensor
    ids: torch.Tensor | None
    hidden: torch.Tensor | None = None
    kept: Cache | None = None

    def memory(self) -> XLGenMemory:
        """What the labels follow."""
        return XLGenMemory(self.embeds, self.mask, prompt=None if self.kept is None else shared_prompt(self.kept))


def with_vectors(backbone: PreTrainedModel, prompt: Prompt, vectors: torch.Tensor, active: torch.Tensor) -> Prompt:
    """Prompts that go on with vectors; what was kept of them is used, and changed.

    Args:
        backbone: a decoder-only model.
        prompt: what [`read_prompt`] gave.
        vectors: `(B, A, H)`.
        active: which of them count, `(B, A)`.
    """
    vectors = vectors.to(prompt.embeds.dtype)
    mask = torch.cat([prompt.mask, active.to(prompt.mask.dtype)], dim=1)
    joined = Prompt(torch.cat([prompt.embeds, vectors], dim=1), mask, None, kept=prompt.kept)
    if joined.kept is not None:
        _run(backbone, vectors, mask, joined.kept)
        for layer in joined.kept.layers:
            layer.keys, layer.values = (_to_the_right(part, mask, dim=2) for part in (layer.keys, layer.values))
    joined.embeds, joined.mask = _to_the_right(joined.embeds, mask), mask.sort(dim=1).values
    return joined


def read_prompt(
    backbone: PreTrainedModel,
    input_ids: torch.Tensor | None,
    attention_mask: torch.Tensor,
    inputs_embeds: torch.Tensor | None = None,
    *,
    with_states: bool,
) -> Prompt:
    """Read texts; the backbone runs where its states are wanted, or where no gradients are (for its cache).

    Args:
        backbone: a decoder-only model.
        input_ids: `(B, S)`, or None with `inputs_embeds`.
        attention_mask: 1 where a token is, `(B, S)`; padding may stand on either side.
        inputs_embeds: `(B, S, H)`.
        with_states: whether `hidden` is wanted.
    """
    mask = attention_mask.long()
    ids = None if input_ids is None else _to_the_right(input_ids, mask)
    if ids is not None and inputs_embeds is None:
        embeds = backbone.get_input_embeddings()(ids)
    else:
        assert inputs_embeds is not None
        embeds = _to_the_right(inputs_embeds, mask)
    prompt = Prompt(embeds, mask.sort(dim=1).values, ids)
    if mask.shape[1] and (with_states or not torch.is_grad_enabled()):
        prompt.kept = None if _recomputes(backbone) else DynamicCache()
        prompt.hidden = _run(backbone, embeds, prompt.mask, prompt.kept)
    elif with_states:
        prompt.hidden = embeds
    return prompt


def _run(backbone: PreTrainedModel, embeds: torch.Tensor, mask: torch.Tensor, kept: Cache | None) -> torch.Tensor:
    """Last hidden states of embeddings `(B, S, H)`, which end what the mask covers; the cache takes them in."""
    done = mask.shape[1] - embeds.shape[1]
    inputs = {"inputs_embeds": embeds, "attention_mask": mask, **_positions(backbone, mask, done)}
    out = backbone.base_model(**inputs, **cache_argument(kept), use_cache=kept is not None, return_dict=True)
    hidden: torch.Tensor = out.last_hidden_state
    return hidden


def _recomputes(backbone: PreTrainedModel) -> bool:
    """Whether the next run drops activations and computes them again: then it keeps no cache."""
    if not (backbone.training and torch.is_grad_enabled()):
        return False
    return any(getattr(module, "gradient_checkpointing", False) for module in backbone.modules())


def continue_prompt(backbone: PreTrainedModel, memory: XLGenMemory, inputs: dict[str, Any]) -> Seq2SeqLMOutput:
    """Run the backbone over label tokens that follow prompts, as a seq2seq model's decoder is run.

    Args:
        backbone: a decoder-only model.
        memory: what [`read_prompt`] gave, with what was joined to it, `N` rows.
        inputs: arguments of a seq2seq model's forward pass: `decoder_input_ids` `(N, T)` or `decoder_inputs_embeds`,
            `decoder_attention_mask`, the cache of the tokens before them, and others, which are passed on.

    Returns:
        Logits of the `T` label tokens, the cache, and hidden states of the label tokens where they are asked for.
    """
    ids, own = inputs.pop("decoder_input_ids", None), inputs.pop("decoder_inputs_embeds", None)
    own_mask, given = inputs.pop("decoder_attention_mask", None), take_cache(inputs)
    if own is None:
        own = backbone.get_input_embeddings()(ids)
    embeds, mask = memory.last_hidden_state, memory.attention_mask
    assert embeds is not None and mask is not None
    kept = _cache_before(given, memory, len(own), with_cache=bool(inputs.get("use_cache")))
    done = 0 if kept is None else kept.get_seq_length()
    if own_mask is None:
        own_mask = mask.new_ones(len(own), max(done - mask.shape[1], 0) + own.shape[1])
    mask = torch.cat([mask, own_mask.to(mask.dtype)], dim=1)
    inputs |= {
        "inputs_embeds": own if done else torch.cat([embeds, own], dim=1),
        "attention_mask": mask,
        "return_dict": True,
        **_positions(backbone, mask, done),
        **cache_argument(kept),
    }
    if "logits_to_keep" in _arguments(type(backbone).forward):
        inputs["logits_to_keep"] = own.shape[1]
    return _as_seq2seq(backbone(**inputs), own.shape[1])


def _cache_before(given: Cache | None, memory: XLGenMemory, rows: int, *, with_cache: bool) -> Cache | None:
    """The cache of all tokens before; at the start, what was kept of the prompts."""
    if isinstance(given, EncoderDecoderCache):
        given = given.self_attention_cache
    if given is not None and given.get_seq_length():
        return given
    if memory.prompt is not None:
        return branched(memory.prompt, beams_of(memory.prompt, rows)).self_attention_cache
    return DynamicCache() if with_cache else None


def _as_seq2seq(out: ModelOutput, length: int) -> Seq2SeqLMOutput:
    """The output of a decoder-only model as one of a seq2seq model: of the last tokens alone."""
    kept, states = cache_of(out), out.get("hidden_states")
    return Seq2SeqLMOutput(
        logits=out.logits[:, -length:],
        decoder_hidden_states=None if states is None else tuple(state[:, -length:] for state in states),
        **cache_argument(None if kept is None else EncoderDecoderCache(kept, DynamicCache())),
    )


@cache  # it is asked at every step of a search
def _arguments(forward: Callable[..., object]) -> frozenset[str]:
    """Names of the arguments of a forward pass."""
    return frozenset(inspect.signature(forward).parameters)


def _positions(backbone: PreTrainedModel, mask: torch.Tensor, done: int = 0) -> dict[str, torch.Tensor]:
    """Positions of the tokens from `done` on, without those of the padding; some families count for themselves."""
    if "position_ids" not in _arguments(type(backbone).forward):
        return {}
    return {"position_ids": (mask.cumsum(1) - 1).clamp(min=0)[:, done:]}


def _to_the_right(values: torch.Tensor, mask: torch.Tensor, dim: int = 1) -> torch.Tensor:
    """Move what a mask `(B, S)` keeps to the right end of its row, in its order.

    Args:
        values: first dimension `B`.
        mask: the mask.
        dim: dimension of `values` that has the size `S`; the mask is for all others but the first.
    """
    order = mask.argsort(dim=1, stable=True)
    shape = [1] * values.dim()
    shape[0], shape[dim] = mask.shape
    return values.gather(dim, order.view(shape).expand_as(values))
