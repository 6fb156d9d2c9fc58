"""Exported models: a backbone that computes by graphs, under the same conditioning, search and constraint."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from transformers import DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import ModelOutput, Seq2SeqLMOutput

from ..configuration_xlgen import XLGenConfig
from ..decoding.memory import LastValue
from ..encoders.exported import ENCODER, Graph, read_graphs
from ..errors import ConfigurationError
from ..files.model_checks import check_loaded, load_config, load_errors
from ..files.model_folder import WEIGHTS_FILE
from ..files.serialization import read_tensors
from .compatibility import cache_argument, take_cache
from .conditioning import ConditionedEncoderMixin
from .only_predicts import GraphEncoder, OnlyPredicts, run_graph
from .output_layer import KeptRows, RestrictedOutputMixin
from .parts import add_parts

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = [
    "CROSS",
    "STEP",
    "ExportedBackbone",
    "GraphModel",
    "filled_cache",
    "load_exported",
    "step_inputs",
    "tensors_of",
]

CROSS, STEP = "cross", "step"
"""Names of the decoder's graphs: a memory to keys and values of cross-attention, which all steps read; and a step."""

# What `from_pretrained` takes and graphs cannot follow.
_WITHOUT_EFFECT = (
    "attn_implementation", "device_map", "dtype", "output_loading_info", "quantization_config", "torch_dtype",
)  # fmt: skip

_Model = TypeVar("_Model", bound="PreTrainedModel")


def step_inputs(layers: int) -> list[str]:
    """Names of the inputs of a step's graph: tokens `(N, 1)`, mask `(N, S)`, keys and values of each layer."""
    of_layers = [f"{kind}_{part}_{layer}" for kind in ("cross", "own") for layer in range(layers) for part in "kv"]
    return ["tokens", "mask", *of_layers]


def tensors_of(cache: DynamicCache) -> list[torch.Tensor]:
    """Keys and values of a cache, layer by layer, each `(N, heads, T, width)`."""
    return [part for layer in cache.layers for part in (layer.keys, layer.values)]


def filled_cache(tensors: list[torch.Tensor]) -> DynamicCache:
    """A cache of the keys and values of some layers; the reverse of [`tensors_of`]."""
    cache = DynamicCache()
    for layer, (keys, values) in enumerate(zip(tensors[::2], tensors[1::2], strict=True)):
        cache.update(keys, values, layer)
    return cache


class ExportedBackbone(OnlyPredicts):
    """A seq2seq backbone that computes by graphs, the output layer restricted to the label tokens as it was exported.

    Args:
        config: of the model.
        encoder, cross, step: its graphs.
    """

    def __init__(self, config: XLGenConfig, encoder: Graph, cross: Graph, step: Graph) -> None:
        super().__init__()
        self.encoder = GraphEncoder(encoder, config)
        layers = len(cross.outputs) // 2
        cross.check(["memory"], 2 * layers)
        step.check(step_inputs(layers), 2 + 2 * layers, config.num_output_tokens or config.vocab_size)
        self._cross, self._step = cross, step

    def get_encoder(self) -> GraphEncoder:
        """The encoder."""
        return self.encoder

    def get_input_embeddings(self) -> None:
        """None: they are in the graphs."""

    def get_output_embeddings(self) -> None:
        """None: the output layer is in the graphs, with just the rows of label tokens."""

    def forward(
        self,
        decoder_input_ids: torch.Tensor,
        encoder_outputs: ModelOutput,
        attention_mask: torch.Tensor,
        **inputs: object,
    ) -> Seq2SeqLMOutput:
        """Extend decoder rows by tokens, one after the other.

        Args:
            decoder_input_ids: the tokens, `(N, T)`.
            encoder_outputs: the decoder's memory, `(N, S, H)`.
            attention_mask: its mask, `(N, S)`.
            inputs: the cache, and what has no effect here.

        Returns:
            Logits of the label tokens `(N, T, R)`, the last hidden states `(N, T, H)`, and the cache.
        """
        cache = take_cache(dict(inputs))
        if not isinstance(cache, EncoderDecoderCache) or not cache.cross_attention_cache.get_seq_length():
            cross = run_graph(self._cross, encoder_outputs.last_hidden_state)
            nothing = [part[:, :, :0] for part in cross]
            cache = EncoderDecoderCache(filled_cache(nothing), filled_cache(cross))
        steps = [self._extend(cache, tokens, attention_mask) for tokens in decoder_input_ids.split(1, dim=1)]
        logits, states = (torch.cat(parts, dim=1) for parts in zip(*steps, strict=True))
        return Seq2SeqLMOutput(logits=logits, decoder_hidden_states=(states,), **cache_argument(cache))

    def _extend(
        self, cache: EncoderDecoderCache, tokens: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits and states of one more token in each row; the cache has its keys and values then."""
        own = cache.self_attention_cache
        inputs = (tokens, mask, *tensors_of(cache.cross_attention_cache), *tensors_of(own))
        logits, state, *extended = run_graph(self._step, *inputs)
        for layer, keys, values in zip(own.layers, extended[::2], extended[1::2], strict=True):
            layer.keys, layer.values = keys, values
        return logits, state


class GraphModel(ConditionedEncoderMixin, RestrictedOutputMixin, nn.Module):
    """An exported model as far as predicting needs it, without transformers' classes of models.

    Their import is most of the time of a start. What only they can do, losses and free generation, is left to the
    whole model, which is made of the same graphs when it is asked for.

    Args:
        config: of the model.
        backbone: its graphs.
        whole_class: gives the class of the whole model.
    """

    def __init__(
        self, config: XLGenConfig, backbone: ExportedBackbone, whole_class: Callable[[], type[PreTrainedModel]]
    ) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
        add_parts(self, config)
        self.kept_rows: LastValue[KeptRows] = LastValue()
        self._whole_class = whole_class

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.backbone.device

    def get_encoder(self) -> GraphEncoder:
        """The encoder."""
        return self.backbone.get_encoder()

    def forward(self, **inputs: object) -> ModelOutput:
        """See the whole model."""
        out: ModelOutput = self._whole()(**inputs)
        return out

    def generate(self, **options: object) -> torch.Tensor | ModelOutput:
        """See the whole model."""
        found: torch.Tensor | ModelOutput = self._whole().generate(**options)
        return found

    def _whole(self) -> PreTrainedModel:
        return _assembled(self._whole_class(), self.config, self.backbone, self.state_dict())


class _Undrawn(TorchFunctionMode):
    """Draws no numbers for embeddings: on the meta device torch would import its compiler for that (1.8 s)."""

    def __torch_function__(
        self,
        func: Callable[..., torch.Tensor],
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Run a function of torch, or leave it out; torch names the arguments of those that draw."""
        kwargs = kwargs or {}
        return kwargs["tensor"] if func is nn.init.normal_ and "tensor" in kwargs else func(*args, **kwargs)


def _assembled(
    model_class: Callable[..., _Model],
    config: XLGenConfig,
    backbone: ExportedBackbone,
    weights: Mapping[str, torch.Tensor],
) -> _Model:
    """A model of graphs and of the weights that are not in them."""
    with torch.device("meta"), _Undrawn():  # nothing of the config's sizes is made: parameters are those of the file
        model = model_class(config, backbone=backbone)
    model.load_state_dict(weights, assign=True)
    return model.eval()


def load_exported(model_class: Callable[..., _Model], folder: Path, options: Mapping[str, object]) -> _Model:
    """Load an exported model.

    Args:
        model_class: makes the model of its `config` and its `backbone`, such as its class.
        folder: its folder.
        options: those of `from_pretrained`.

    Raises:
        ConfigurationError: if an option is given that graphs cannot follow.
        MissingExtraError: if onnxruntime is not installed.
        ModelFolderError: if files are missing, damaged, or do not fit each other.
    """
    given = [name for name in _WITHOUT_EFFECT if options.get(name) not in (None, "auto", torch.float32)]
    if given:
        raise ConfigurationError(f"{given[0]} has no effect on the exported model {folder}; leave it out.")
    config = load_config(folder)
    backbone = ExportedBackbone(config, *read_graphs(folder, ENCODER, CROSS, STEP))
    weights = {name: torch.from_numpy(value) for name, value in read_tensors(folder / WEIGHTS_FILE).items()}
    with load_errors(folder):
        model = _assembled(model_class, config, backbone, weights)
    check_loaded(folder, model, {})
    return model
