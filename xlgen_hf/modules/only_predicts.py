"""Parts of a model that compute by graphs, as torch and transformers see them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from transformers import PreTrainedConfig
from transformers.modeling_outputs import BaseModelOutput

from ..configuration_xlgen import hidden_size
from ..encoders.exported import ExportedPart, Graph
from ..errors import ConfigurationError

__all__ = ["GraphEncoder", "OnlyPredicts", "run_graph"]


def run_graph(graph: Graph, *tensors: torch.Tensor) -> list[torch.Tensor]:
    """Run a graph.

    Args:
        graph: the graph.
        tensors: its inputs in their order, on the CPU; they are read in place.

    Returns:
        Its outputs in their order.
    """
    return [torch.from_numpy(array) for array in graph(*(one.detach().contiguous().numpy() for one in tensors))]


class OnlyPredicts(ExportedPart, nn.Module):
    """What takes the place of a part of a model and computes by graphs: on the CPU, without training or saving."""

    def __init__(self) -> None:
        super().__init__()
        self._place = _empty()

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self._place.device

    def train(self, mode: bool = True) -> OnlyPredicts:
        """Stay in evaluation mode.

        Raises:
            ConfigurationError: if training is asked for.
        """
        if mode:
            raise ConfigurationError(
                "An exported model only predicts. Train the model that it was exported from, and export it again."
            )
        return super().train(mode)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> OnlyPredicts:
        moved = super()._apply(fn, recurse)
        place, self._place = self._place, _empty()
        self.stay(place.device.type, str(place.dtype).removeprefix("torch."))
        return moved

    def _save_to_state_dict(self, *args: object, **kwargs: object) -> None:
        """Nothing: the place is no weight."""

    def _load_from_state_dict(self, *args: object, **kwargs: object) -> None:
        """Nothing, as above."""


def _empty() -> nn.Parameter:
    """A parameter without numbers: transformers finds by a parameter where a model is, and as what."""
    return nn.Parameter(torch.empty(0), requires_grad=False)


class GraphEncoder(OnlyPredicts):
    """The encoder of a model, as a graph.

    Args:
        graph: the graph.
        config: of the encoder that it was made from.
    """

    def __init__(self, graph: Graph, config: PreTrainedConfig) -> None:
        super().__init__()
        graph.check(["input_ids", "attention_mask"], 1, hidden_size(config))
        self.config = config
        self._graph = graph

    def get_encoder(self) -> GraphEncoder:
        """Itself, as any encoder."""
        return self

    def forward(
        self, input_ids: torch.Tensor | None = None, attention_mask: torch.Tensor | None = None, **options: object
    ) -> BaseModelOutput:
        """Token ids and mask, both `(B, S)`, to hidden states `(B, S, H)`."""
        if input_ids is None or attention_mask is None:
            raise ConfigurationError("An exported encoder reads input_ids with their attention_mask, nothing else.")
        return BaseModelOutput(last_hidden_state=run_graph(self._graph, input_ids, attention_mask)[0])
