"""The output layer, restricted to the tokens that occur in labels; a plain one, or one that an adapter wraps.

Nothing of a model changes while it runs, so any number of threads may run it at once: the output layer is told by a
context variable, which each thread has for itself, which of its rows to compute.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias, TypeVar

import torch
from torch import nn
from torch.nn import functional
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput

from ..configuration_xlgen import XLGenConfig
from ..decoding.memory import LastValue, XLGenMemory
from ..encoders.exported import ExportedPart
from ..errors import ConfigurationError
from ..processing_xlgen import XLGenProcessor
from .candidate_pointer import NOTHING, CandidatePointer, next_tokens
from .causal import continue_prompt
from .compatibility import cache_argument, cache_of

if TYPE_CHECKING:  # the classes of models take half of the time of a start, and graphs need none
    from transformers import Cache, PreTrainedModel

__all__ = ["IGNORED", "KeptRows", "OutputModel", "OutputRows", "RestrictedOutputMixin"]

IGNORED = -100  # target that no loss counts, in every batch; what cross-entropy of torch leaves out


KeptRows: TypeAlias = "tuple[OutputRows | None, list[torch.Tensor]]"
"""Rows of an output layer, None where it has no plain weights, and the tensors that they were taken from."""


class OutputModel(Protocol):
    """What [`RestrictedOutputMixin`] needs of the model that it is mixed into."""

    config: XLGenConfig
    backbone: PreTrainedModel
    output_token_ids: torch.Tensor
    label_vectors: torch.Tensor
    candidate_pointer: CandidatePointer
    kept_rows: LastValue[KeptRows]
    _buffers: dict[str, torch.Tensor | None]

    def run_decoder(self, memory: XLGenMemory, tokens: torch.Tensor | None, **inputs: object) -> Seq2SeqLMOutput:
        """See [`RestrictedOutputMixin`]."""

    def output_columns(self, tokens: torch.Tensor) -> torch.Tensor:
        """See [`RestrictedOutputMixin`]."""

    def candidate_weights(self, memory: XLGenMemory) -> torch.Tensor | None:
        """See [`ConditionedEncoderMixin`]."""


_Model = TypeVar("_Model", bound=OutputModel)


class OutputRows(NamedTuple):
    """The rows of an output layer that are computed.

    Attributes:
        weight: their weights, `(R, H)`.
        bias: their bias, with what the backbone adds after its output layer, `(R,)`; None without either.
        added_columns: columns of what the backbone adds after its output layer (BART and related families); 0 where it
            adds nothing.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None
    added_columns: int


class RestrictedOutputMixin:
    """Runs the backbone of an XLGen model, with the rows of its output layer that label sequences need.

    Attributes:
        label_smoothing: fraction of the targets' probability that all label tokens share in training, in [0, 1).
    """

    label_smoothing: float = 0.0

    def sharing_weights(self: _Model) -> _Model:
        """The same model on the same weights, with label tokens and vectors of its own for `fit_output` to change."""
        twin = copy.copy(self)
        twin.config, twin.kept_rows = copy.deepcopy(self.config), LastValue()
        twin._buffers = dict(self._buffers)
        return twin

    def fit_output(self: OutputModel, processor: XLGenProcessor) -> None:
        """Follow the labels of a processor that changed after the model was built: their tokens and vectors.

        Args:
            processor: the model's processor, with the changed labels. No other thread may use the model meanwhile.

        Raises:
            ConfigurationError: if an exported model cannot spell them.
        """
        if self.config.has_label_vectors and processor.candidates is not None:
            retriever = processor.candidates.retriever
            self.label_vectors = torch.as_tensor(retriever.names[: len(retriever)]).to(self.label_vectors)
            self.config.num_label_vectors = len(retriever)
        if self.config.num_output_tokens is None:
            return
        tokens = processor.label_tokenizer.output_token_ids()
        if isinstance(self.backbone, ExportedPart):  # its graph has the rows of these tokens, whatever labels need
            missing = len(set(tokens) - set(self.output_token_ids.tolist()))
            if missing:
                raise ConfigurationError(
                    f"The new labels have {missing} tokens that no label had when the model was exported. Add these "
                    "labels to the model that it was exported from."
                )
            return
        self.output_token_ids = torch.tensor(tokens, device=self.output_token_ids.device)
        self.config.num_output_tokens = len(tokens)
        self.kept_rows.clear()

    def decode_step(
        self: OutputModel, memory: XLGenMemory, tokens: torch.Tensor, cache: Cache | None = None
    ) -> tuple[torch.Tensor, Cache | None]:
        """Extend each decoder row by one token.

        Args:
            memory: what [`encode`] gave, `N` rows.
            tokens: all tokens of each row so far, `(N, T)`; the cache holds all but the last.
            cache: what the step before returned.

        Returns:
            Scores of the next token, over the label tokens `(N, R)` where the output layer is restricted, else over
            the vocabulary `(N, V)`: log-probabilities. And the cache.
        """
        inputs = {"decoder_input_ids": tokens[:, -1:], "use_cache": True, **cache_argument(cache)}
        out = self.run_decoder(memory, tokens, **inputs)
        logits = out.logits[:, -1].float()
        # Where candidates are copied, the mixture is normalised already.
        return logits if memory.candidate_tokens is not None else logits.log_softmax(-1), cache_of(out)

    def run_decoder(
        self: OutputModel, memory: XLGenMemory, tokens: torch.Tensor | None, **inputs: object
    ) -> Seq2SeqLMOutput:
        """Run the decoder, its output layer restricted to the label tokens.

        Args:
            memory: what [`encode`] gave, `N` rows.
            tokens: all tokens of the decoder so far, `(N, T)`; candidates are copied along them.
            inputs: what the backbone takes besides the memory.

        Returns:
            The backbone's output, with logits over the label tokens; log-probabilities where candidates are copied.
        """
        listed = None if tokens is None else memory.candidate_tokens
        if listed is not None:
            inputs["output_hidden_states"] = True
        out = _run_restricted(self, lambda: _run_backbone(self, memory, inputs))
        if listed is not None and tokens is not None:
            _copy_candidates(self, out, memory, tokens)
        return out

    def full_logits(self: OutputModel, logits: torch.Tensor) -> torch.Tensor:
        """Logits of the label tokens `(B, T, R)` -> of the vocabulary `(B, T, V)`, minus infinity for the rest."""
        if self.config.num_output_tokens is None:
            return logits
        full = logits.new_full((*logits.shape[:-1], self.config.vocab_size), -torch.inf)
        full[..., self.output_token_ids] = logits
        return full

    def output_positions(self: OutputModel, tokens: torch.Tensor) -> torch.Tensor:
        """Token ids -> their positions in the logits that `forward` gives with `labels`; -100 stays.

        The check waits for the device; where tokens come from the trie, [`output_columns`] does without it.

        Raises:
            ValueError: if a token occurs in no label, so that a restricted output layer cannot score it.
        """
        if self.config.num_output_tokens is None:
            return tokens
        position = self.output_columns(tokens)
        ignored = tokens == IGNORED
        unknown = (self.output_token_ids[position] != tokens) & ~ignored
        if bool(unknown.any()):
            raise ValueError(
                f"Target tokens {tokens[unknown].unique()[:5].tolist()} occur in no label; the output layer is "
                "restricted to label tokens. Build targets with the model's own processor, or the model with "
                "restrict_output=False."
            )
        return torch.where(ignored, IGNORED, position)

    def output_columns(self: OutputModel, tokens: torch.Tensor) -> torch.Tensor:
        """Token ids -> their columns in the logits; some column for tokens that have none."""
        if self.config.num_output_tokens is None:
            return tokens.clamp(min=0)
        return torch.searchsorted(self.output_token_ids, tokens.clamp(min=0)).clamp(max=len(self.output_token_ids) - 1)


@dataclass
class _EncoderOutput(BaseModelOutput):
    """What a backbone's decoder is given; mixtures of experts pass on what their encoder's routers chose."""

    router_logits: tuple[torch.Tensor, ...] | None = None


# ---------------------------------------------------------------------------------------------------- running


@dataclass
class _Run:
    """One run of a backbone, as its output layer sees it.

    Attributes:
        layer: the output layer; an adapter's wrapper holds another one.
        rows: the rows to compute; None where the layer is of a kind that has no plain weights to take rows of.
        numbers: numbers of these rows, `(R,)`; all if None.
        states: what the output layer was given, where its logits are computed after the run.
    """

    layer: nn.Module
    rows: OutputRows | None
    numbers: torch.Tensor | None
    states: torch.Tensor | None = None


_RUN: ContextVar[_Run | None] = ContextVar("xlgen_output_layer", default=None)


class _RowwiseLayer(nn.Module):
    """Goes before the class of an output layer: computes the rows of this thread's [`_Run`], all rows without one."""

    def forward(self, states: torch.Tensor, *args: object, **kwargs: object) -> torch.Tensor:
        """Hidden states `(B, T, H)` -> logits `(B, T, R)`."""
        run = _RUN.get()
        if run is None or run.layer is not self or run.rows is None:
            logits: torch.Tensor = super().forward(states, *args, **kwargs)
            return logits if run is None or run.layer is not self or run.numbers is None else logits[..., run.numbers]
        if run.rows.added_columns:
            # The addition expects `V` columns: it gets them without rows, and the logits are computed after the run.
            run.states = states
            return states.new_zeros(*states.shape[:-2], 0, run.rows.added_columns)
        return functional.linear(states, run.rows.weight, run.rows.bias)

    def __reduce__(self) -> tuple[object, ...]:
        """Copies and pickles are of the layer's own class, which can be imported."""
        return _blank, (_own_class(self),), self.__getstate__()


@cache
def _rowwise(layer_class: type) -> type[nn.Module]:
    """The class of output layers that compute rows; state, names and type checks stay those of `layer_class`."""
    return type(layer_class.__name__, (_RowwiseLayer, layer_class), {"__module__": __name__})


def _blank(layer_class: type[nn.Module]) -> nn.Module:
    """A layer without its state."""
    return layer_class.__new__(layer_class)


def _own_class(layer: nn.Module) -> type[nn.Module]:
    """The class that a layer had before [`_computing`]; tracers of torch put classes of their own before both."""
    kinds = type(layer).__mro__
    return kinds[kinds.index(_RowwiseLayer) + 1] if _RowwiseLayer in kinds else type(layer)


@contextmanager
def _computing(layer: nn.Module, run: _Run) -> Iterator[None]:
    """Let an output layer compute the rows of a run, in this thread, for the length of a block."""
    if not isinstance(layer, _RowwiseLayer):
        # Once for each layer, as `torch.nn.utils.parametrize` does it; of no effect outside of such a block.
        kind: type = type(layer)
        layer.__class__ = _rowwise(kind)
    token = _RUN.set(run)
    try:
        yield
    finally:
        _RUN.reset(token)


def _copy_candidates(model: OutputModel, out: Seq2SeqLMOutput, memory: XLGenMemory, tokens: torch.Tensor) -> None:
    """Mix into the logits of an output how the names of candidates go on."""
    names, keys, separator = memory.candidate_tokens, memory.candidate_keys, model.config.separator_token_id
    assert names is not None and keys is not None and separator is not None
    if model.config.cluster_start_token_id is not None:  # nothing is copied into a target of clusters
        names = names.masked_fill((tokens[:, 0] == model.config.cluster_start_token_id)[:, None, None], NOTHING)
    following = next_tokens(tokens, names, separator)[:, -out.logits.shape[1] :]
    columns, states = model.output_columns(following), out.decoder_hidden_states[-1]
    out.logits = model.candidate_pointer(out.logits, states, keys, following, columns, model.candidate_weights(memory))


def _run_backbone(model: OutputModel, memory: XLGenMemory, inputs: dict[str, object]) -> Seq2SeqLMOutput:
    if model.config.is_causal:
        return continue_prompt(model.backbone, memory, inputs)
    states = _EncoderOutput(last_hidden_state=memory.last_hidden_state)
    out: Seq2SeqLMOutput = model.backbone(
        **inputs, encoder_outputs=states, attention_mask=memory.attention_mask, return_dict=True
    )
    return out


def _run_restricted(model: OutputModel, run_backbone: Callable[[], Seq2SeqLMOutput]) -> Seq2SeqLMOutput:
    """Run the backbone with its output layer restricted to the label tokens."""
    layer = model.backbone.get_output_embeddings()
    if layer is None:  # it is in the graph of an exported model, restricted already
        return run_backbone()
    numbers = None if model.config.num_output_tokens is None else model.output_token_ids
    # An adapter's wrapper leaves out the layer's bias (peft 0.21), so its rows are computed here even if they are all.
    if numbers is None and not _is_wrapped(layer):
        return run_backbone()
    run = _Run(layer, _rows_of(model, layer, numbers), numbers)
    with _computing(layer, run):
        out = run_backbone()
    if run.rows is not None and run.states is not None:
        out.logits = functional.linear(run.states, run.rows.weight, run.rows.bias)
    return out


# ---------------------------------------------------------------------------------------------------- rows


def _is_wrapped(layer: nn.Module) -> bool:
    """Whether peft has put a wrapper around the layer, because an adapter trains rows of it."""
    return hasattr(layer, "original_module")


def _plain(layer: nn.Module) -> nn.Module:
    inner: nn.Module = getattr(layer, "original_module", layer)
    return inner


def _rows_of(model: OutputModel, layer: nn.Module, numbers: torch.Tensor | None) -> OutputRows | None:
    """The rows of the output layer that are computed; kept from step to step while nothing changes the weights."""
    added = getattr(model.backbone, "final_logits_bias", None)
    if torch.is_grad_enabled():
        model.kept_rows.clear()
        return _take_rows(layer, numbers, added)
    # The tensors are kept with the rows, so that none of them can give its id to another one.
    sources = [*_sources(layer), *([] if added is None else [added])]
    kind = (_own_class(_plain(layer)), *_adapter_state(layer))
    key = (*kind, *((id(one), one.data_ptr(), one._version) for one in sources))
    rows, _ = model.kept_rows.get(key, lambda: (_take_rows(layer, numbers, added), sources))
    return rows


def _adapter_state(layer: nn.Module) -> tuple[bool, tuple[str, ...]]:
    """Which adapters of a layer count at the moment: whether none does, and which are active."""
    return getattr(layer, "disable_adapters", False), tuple(getattr(layer, "active_adapters", ()))


def _sources(layer: nn.Module) -> list[torch.Tensor]:
    """The tensors that an output layer's weights are made of."""
    adapter = getattr(layer, "token_adapter", None)  # where it is tied to another layer's, no parameter of this one
    trained = [] if adapter is None else list(adapter.trainable_tokens_delta.values())
    return [*layer.parameters(), *_plain(layer).parameters(), *trained]


def _take_rows(layer: nn.Module, numbers: torch.Tensor | None, added: torch.Tensor | None) -> OutputRows | None:
    """The rows of a layer by their numbers; None where it is quantized, or of a class of its own."""
    plain = _plain(layer)
    if not isinstance(plain, nn.Linear) or _own_class(plain).forward is not nn.Linear.forward:
        if added is not None:
            raise TypeError(
                f"The output layer is a {_own_class(plain).__name__}, and the backbone adds a bias after it; there it "
                "must be a torch.nn.Linear. Load the model without quantization of the output layer."
            )
        return None
    kept = slice(None) if numbers is None else numbers
    # The weight of a wrapper is made of the layer's and the trained rows.
    weight: torch.Tensor = getattr(layer, "weight", plain.weight)
    bias: torch.Tensor | None = getattr(layer, "bias", plain.bias)
    bias = None if bias is None else bias[kept]
    if added is None:
        return OutputRows(weight[kept], bias, 0)
    added_here = added[0, kept].to(weight.dtype)  # resizing makes it float32 whatever the weights are
    return OutputRows(weight[kept], added_here + (0 if bias is None else bias), added.shape[-1])
