"""The output layer, cut down to the tokens that occur in labels; plain, or wrapped by an adapter."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.func import functional_call
from transformers.modeling_outputs import BaseModelOutput

from ..decoding.memory import XLGenMemory
from ..processing_xlgen import XLGenProcessor
from .candidate_pointer import CandidatePointer, next_pieces

__all__ = ["IGNORED", "RestrictedOutputMixin", "is_wrapped", "layer_rows", "layer_state", "unwrapped"]


IGNORED = -100  # target that no loss counts


class RestrictedOutputMixin:
    """Runs the backbone of an XLGen model, with the rows of its output layer that label sequences need."""

    # What the model brings.
    config: Any
    backbone: Any
    label_pieces: torch.Tensor
    label_vectors: torch.Tensor
    candidate_pointer: CandidatePointer
    _restricted: tuple[tuple[Any, ...], dict[str, torch.Tensor]] | None = None

    def widen_output(self, processor: XLGenProcessor) -> None:
        """Make room for labels that joined the processor after the model was built: their pieces and vectors."""
        if self.config.has_label_vectors and processor.candidates is not None:
            names = torch.as_tensor(processor.candidates.retriever.names).to(self.label_vectors)
            self.label_vectors = names
            self.config.num_label_vectors = len(names)
        if self.config.num_label_pieces is None:
            return
        pieces = torch.as_tensor(processor.label_tokenizer.output_token_ids(), device=self.label_pieces.device)
        self.label_pieces = torch.cat([self.label_pieces, pieces]).unique()  # sorted
        self.config.num_label_pieces = len(self.label_pieces)
        self._restricted = None

    def decode_step(self, memory: XLGenMemory, tokens: torch.Tensor, cache: Any = None) -> tuple[torch.Tensor, Any]:
        """Extend decoder rows by a token each.

        Args:
            memory: what [`encode`] gave, `N` rows.
            tokens: all tokens of each row so far, `(N, T)`; the cache holds all but the last.
            cache: what the step before returned.

        Returns:
            Log-probabilities of the next token, over the label pieces `(N, R)` where the output layer is restricted,
            else over the vocabulary `(N, V)`; and the cache.
        """
        out = self.run_decoder(memory, tokens, decoder_input_ids=tokens[:, -1:], past_key_values=cache, use_cache=True)
        logits = out.logits[:, -1].float()
        return logits if memory.candidate_pieces is not None else logits.log_softmax(-1), out.past_key_values

    def run_decoder(self, memory: XLGenMemory, tokens: torch.Tensor | None, **inputs: Any) -> Any:
        """Run the decoder, its output layer cut down to the label pieces.

        Args:
            memory: what [`encode`] gave, `N` rows.
            tokens: all tokens of the decoder so far, `(N, T)`; candidates are copied along them.
            inputs: what the backbone takes beside the memory.

        Returns:
            The backbone's output, with logits over the label pieces; log-probabilities where candidates are copied.
        """
        listed = None if tokens is None else memory.candidate_pieces
        if listed is not None:
            inputs["output_hidden_states"] = True
        out = self._run_backbone(
            encoder_outputs=BaseModelOutput(last_hidden_state=memory.last_hidden_state),
            attention_mask=memory.attention_mask,
            **inputs,
        )
        if listed is not None and tokens is not None:
            steps = out.logits.shape[1]
            pieces = next_pieces(tokens, listed, self.config.separator_token_id)[:, -steps:]
            columns = self._columns(pieces)
            states = out.decoder_hidden_states[-1]
            out.logits = self.candidate_pointer(out.logits, states, memory.candidate_keys, pieces, columns)
        return out

    def _run_backbone(self, **inputs: Any) -> Any:
        """Run the backbone with its output layer cut down to the label pieces."""
        layer = self.backbone.get_output_embeddings()
        if self.config.num_label_pieces is None and not is_wrapped(layer):
            return self.backbone(**inputs, return_dict=True)
        name = next(n for n, m in self.backbone.named_modules(remove_duplicate=False) if m is layer)
        with unwrapped(self.backbone, name):
            return functional_call(
                self.backbone, self._output_layer(layer, name), (), {**inputs, "return_dict": True}, tie_weights=False
            )

    def _output_layer(self, layer: nn.Module, name: str) -> dict[str, torch.Tensor]:
        """Rows of the output layer that remain, by parameter name; kept between steps while nothing changes them."""
        key = layer_state(layer)
        if not torch.is_grad_enabled() and self._restricted is not None and self._restricted[0] == key:
            return self._restricted[1]
        rows = slice(None) if self.config.num_label_pieces is None else self.label_pieces
        kept = layer_rows(layer, name, rows)
        shift = getattr(self.backbone, "final_logits_bias", None)  # BART and its kin add a bias of their own
        if shift is not None:
            kept["final_logits_bias"] = shift[:, rows]
        self._restricted = None if torch.is_grad_enabled() else (key, kept)
        return kept

    def _full_logits(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits of the label pieces `(B, T, R)` -> of the vocabulary `(B, T, V)`, minus infinity for the rest."""
        if self.config.num_label_pieces is None:
            return logits
        full = logits.new_full((*logits.shape[:-1], self.config.vocab_size), -torch.inf)
        full[..., self.label_pieces] = logits
        return full

    def piece_positions(self, tokens: torch.Tensor) -> torch.Tensor:
        """Token ids -> their positions in the logits that `forward` gives with `labels`; -100 stays.

        Raises:
            ValueError: if a token occurs in no label, so that a restricted output layer cannot score it.
        """
        if self.config.num_label_pieces is None:
            return tokens
        position = self._columns(tokens)
        ignored = tokens == IGNORED
        unknown = (self.label_pieces[position] != tokens) & ~ignored
        if bool(unknown.any()):
            raise ValueError(
                f"Target tokens {tokens[unknown].unique()[:5].tolist()} occur in no label; the output layer is "
                "restricted to label pieces. Build targets with the model's own processor, or the model with "
                "restrict_output=False."
            )
        return torch.where(ignored, IGNORED, position)

    def _columns(self, tokens: torch.Tensor) -> torch.Tensor:
        """Columns of the logits for tokens that have one; some column for the others."""
        if self.config.num_label_pieces is None:
            return tokens.clamp(min=0)
        return torch.searchsorted(self.label_pieces, tokens.clamp(min=0)).clamp(max=len(self.label_pieces) - 1)


def is_wrapped(layer: nn.Module) -> bool:
    """Whether peft has put a wrapper around the layer, because an adapter trains rows of it."""
    return hasattr(layer, "original_module")


def _plain(layer: nn.Module) -> Any:
    return getattr(layer, "original_module", layer)


def layer_state(layer: nn.Module) -> tuple[Any, ...]:
    """What changes whenever the layer's weights do."""
    sources = [_plain(layer).weight, *(p for name, p in layer.named_parameters() if "trainable_tokens" in name)]
    return getattr(layer, "disable_adapters", False), *((p.data_ptr(), p._version) for p in sources)


def layer_rows(layer: nn.Module, name: str, rows: torch.Tensor | slice) -> dict[str, torch.Tensor]:
    """Rows of the layer's weight and bias, by parameter name, with those that an adapter trains.

    Args:
        layer: the layer.
        name: its name in the model.
        rows: their numbers.
    """
    weight: Any = layer.weight
    kept = {f"{name}.weight": weight[rows]}
    bias = getattr(_plain(layer), "bias", None)
    if bias is not None:
        kept[f"{name}.bias"] = bias[rows]
    return kept


@contextmanager
def unwrapped(model: nn.Module, name: str) -> Iterator[None]:
    """Put a layer in the place of the wrapper that peft has set around it, for the length of a block.

    The wrapper writes trained rows by their numbers in the vocabulary, which a restricted layer does not have, and
    leaves out the layer's bias (peft 0.21). So the layer itself runs, with the rows of [`layer_rows`].

    Args:
        model: the model.
        name: name of the layer in it; nothing happens where it is not wrapped.
    """
    above, _, last = name.rpartition(".")
    parent = model.get_submodule(above)
    layer = parent._modules[last]
    assert layer is not None
    parent._modules[last] = _plain(layer)
    try:
        yield
    finally:
        parent._modules[last] = layer
