"""One dry run of a new model: what it computes by teacher forcing must be what its search computes step by step."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn
from transformers import Cache, PreTrainedModel
from transformers.modeling_outputs import Seq2SeqLMOutput

from ..configuration_xlgen import XLGenConfig
from ..decoding.memory import XLGenMemory
from ..errors import ConfigurationError
from ..processing_xlgen import XLGenProcessor
from .causal import read_prompt
from .seq2seq import SUPPORTED_BACKBONES

__all__ = ["Difference", "DryRun", "DryRunModel", "check_decoding", "dry_run"]

logger = logging.getLogger(__name__)

_TEXT_TOKENS = 4  # of the longer text; the shorter one has half of them, so that one row is padded
_TARGET_TOKENS = 4
# Differences that rounding explains, for each unit of the largest number: tiny models have 1e-7 in float32, and layers
# of large ones add up.
_ROUNDING = 3e-5
_COARSE_ROUNDING = 0.05  # in bfloat16 and float16
_FAILURES = (ArithmeticError, AssertionError, AttributeError, LookupError, NotImplementedError, RuntimeError,
             TypeError, ValueError)  # fmt: skip


@dataclass(frozen=True)
class Difference:
    """How far two computations of the same numbers are apart.

    Attributes:
        found: largest difference.
        allowed: what rounding explains, by the greatest number and the type of the weights.
    """

    found: float
    allowed: float

    @property
    def holds(self) -> bool:
        """Whether rounding explains the difference; not if it is NaN."""
        return self.found <= self.allowed

    @classmethod
    def of(cls, expected: torch.Tensor, computed: torch.Tensor) -> Difference:
        """Of two tensors of the same shape, the expected one in the type that it was computed in."""
        scale = max(1.0, float(expected.abs().max()))
        found = float((expected.float() - computed.float()).abs().max())
        return cls(found, scale * (_ROUNDING if expected.dtype == torch.float32 else _COARSE_ROUNDING))


@dataclass(frozen=True)
class DryRun:
    """What a dry run has found.

    Attributes:
        padding: hidden states of a text alone, and of the text padded in a batch.
        steps: log-probabilities by teacher forcing, and token by token.
    """

    padding: Difference
    steps: Difference


class DryRunModel(Protocol):
    """What the dry run needs of a model."""

    config: XLGenConfig
    backbone: PreTrainedModel
    training: bool

    @property
    def device(self) -> torch.device:
        """Where the model is."""

    @property
    def dtype(self) -> torch.dtype:
        """Type of its weights."""

    def eval(self) -> nn.Module:
        """Switch dropout off."""

    def train(self, mode: bool = True) -> nn.Module:
        """Switch dropout on, or off."""

    def get_encoder(self) -> nn.Module:
        """The backbone's encoder."""

    def prepare_decoder_input_ids_from_labels(self, labels: torch.Tensor) -> torch.Tensor:
        """Targets -> decoder inputs."""

    def run_decoder(self, memory: XLGenMemory, tokens: torch.Tensor | None, **inputs: object) -> Seq2SeqLMOutput:
        """See `output_layer.py`."""

    def decode_step(
        self, memory: XLGenMemory, tokens: torch.Tensor, cache: Cache | None = None
    ) -> tuple[torch.Tensor, Cache | None]:
        """See `output_layer.py`."""


def check_decoding(model: DryRunModel, processor: XLGenProcessor, name: str) -> None:
    """Refuse a backbone that does not do what training and search rely on, before hours of training.

    Training reads a target in one pass, search reads it token by token with a cache; texts of a batch are padded.
    Where a family masks, caches or counts positions in another way than this library expects, what was trained is not
    what predicts.

    Args:
        model: a model; weights, training mode and the state of random number generators stay as they are.
        processor: its processor.
        name: the checkpoint of the backbone, for the message.

    Raises:
        ConfigurationError: if a pass fails, or log-probabilities of tokens differ by more than rounding explains. That
            hidden states depend on padding is a warning: such a model works, and less well.
    """
    shown = f"{name!r} (type {_type_of(model)!r})"
    try:
        found = dry_run(model, processor)
    except _FAILURES as err:
        answer = (str(err).strip().splitlines() or ["no message"])[0]
        raise ConfigurationError(
            f"{shown} cannot be the backbone: a first pass over two short texts fails "
            f"({type(err).__name__}: {answer}). {SUPPORTED_BACKBONES}"
        ) from err
    if not found.steps.holds:
        raise ConfigurationError(
            f"{shown} cannot be the backbone: teacher forcing and decoding token by token disagree by "
            f"{found.steps.found:.2g} in log-probability (rounding explains {found.steps.allowed:.1g}), so it would "
            f"not predict what it is trained for. {SUPPORTED_BACKBONES}"
        )
    if not found.padding.holds:
        logger.warning(
            "The encoder of %s reads padding: a text's hidden states change by %.2g (rounding explains %.1g) when "
            "longer texts are in its batch, and so do predictions. %s",
            *(shown, found.padding.found, found.padding.allowed, SUPPORTED_BACKBONES),
        )


def _type_of(model: DryRunModel) -> str:
    """The family of a backbone; of one built around an encoder, the encoder's."""
    config: Any = model.config.backbone
    return str((config.encoder if config.model_type == "encoder-decoder" else config).model_type)


@torch.no_grad()
def dry_run(model: DryRunModel, processor: XLGenProcessor, exported: DryRunModel | None = None) -> DryRun:
    """Run two short texts and targets, made of the tokens of labels, through a model's backbone.

    Args:
        model: a model; weights, training mode and the state of random number generators stay as they are.
        processor: its processor.
        exported: what was exported of it: reads the texts too, and decodes them in place of the model.
    """
    with _undisturbed(model):
        memory, padding = _read_texts(model, processor)
        tokens = model.prepare_decoder_input_ids_from_labels(_targets(processor).to(model.device))
        # Copying is part of this library, so that only the backbone's own passes are compared.
        at_once = XLGenMemory(memory.last_hidden_state, memory.attention_mask)
        out = model.run_decoder(at_once, None, decoder_input_ids=tokens, use_cache=False)
        decoding = model if exported is None else exported
        if exported is not None:
            memory, _ = _read_texts(exported, processor)
        cache: Cache | None = None
        steps = []
        for length in range(1, tokens.shape[1] + 1):
            log_probs, cache = decoding.decode_step(memory, tokens[:, :length], cache)
            steps.append(log_probs)
        return DryRun(padding, Difference.of(out.logits.log_softmax(-1), torch.stack(steps, dim=1)))


def _read_texts(model: DryRunModel, processor: XLGenProcessor) -> tuple[XLGenMemory, Difference]:
    """What the backbone's encoder gives for two texts, and how far the shorter one differs when it is read alone."""
    tokens = _label_tokens(processor, _TEXT_TOKENS)
    long, short = (processor.build_input(tokens[: _TEXT_TOKENS // part]) for part in (1, 2))
    batch, alone = (processor.pad(inputs).to(model.device) for inputs in ([long, short], [short]))
    width = alone["input_ids"].shape[1]
    if model.config.is_causal:
        prompts, prompt = (read_prompt(model.backbone, **inputs, with_states=True) for inputs in (batch, alone))
        assert prompts.hidden is not None and prompt.hidden is not None
        return prompts.memory(), Difference.of(prompt.hidden, prompts.hidden[1:, -width:])
    encoder = model.get_encoder()
    together, own = (encoder(**inputs, return_dict=True).last_hidden_state for inputs in (batch, alone))
    return XLGenMemory(together, batch["attention_mask"]), Difference.of(own, together[1:, :width])


def _targets(processor: XLGenProcessor) -> torch.Tensor:
    """Two targets of label tokens, `(2, T)`."""
    tokens = _label_tokens(processor, _TARGET_TOKENS)
    return torch.tensor([tokens, tokens[::-1]])


def _label_tokens(processor: XLGenProcessor, count: int) -> list[int]:
    """So many tokens that occur in labels, repeated where there are fewer."""
    known = processor.label_tokenizer.trie.tokens().tolist()
    return [int(known[place % len(known)]) for place in range(count)]


@contextmanager
def _undisturbed(model: DryRunModel) -> Iterator[None]:
    """Switch dropout off for a while; random numbers go on as if nothing had happened."""
    was_training, state = model.training, np.random.get_state()
    model.eval()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        np.random.set_state(state)  # BigBird seeds it
        model.train(was_training)
