"""Graphs in ONNX that `xlgen export` wrote, run by onnxruntime on the CPU, and encoders that are such a graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Protocol, TypedDict, cast, get_args

import numpy as np
import torch
from torch import nn
from transformers import AutoConfig, PreTrainedConfig, PreTrainedTokenizerBase
from transformers.modeling_outputs import BaseModelOutput

from ..configuration_xlgen import hidden_size
from ..errors import ConfigurationError, MissingExtraError, ModelFolderError
from ..files.model_checks import check_config, load_errors, try_tokenizer
from ..files.model_folder import EXPORT_FILE, GRAPHS_FOLDER
from ..files.schema import Fields, choice
from ..settings import Precision

__all__ = [
    "ENCODER",
    "ExportedEncoder",
    "Graph",
    "OnlyPredicts",
    "load_exported_encoder",
    "read_graphs",
    "refuse_exported",
    "write_export",
]

ENCODER = "encoder"
"""Name of an encoder's graph: token ids and mask, both `(B, S)`, to hidden states `(B, S, H)`."""

_AGAIN = "Run `xlgen export` again."


class _Content(TypedDict):
    precision: str


_FORM = Fields[_Content]({"precision": choice(*get_args(Precision))}, format_version=1, made_by="xlgen export")


class _Port(Protocol):
    """An input or output of a graph: a number for each size that is fixed, a name for others."""

    name: str
    shape: list[int | str]


class _Session(Protocol):
    """What is used of onnxruntime's `InferenceSession`."""

    def get_inputs(self) -> list[_Port]: ...

    def get_outputs(self) -> list[_Port]: ...

    def run(self, outputs: None, feeds: dict[str, np.ndarray]) -> list[np.ndarray]: ...


class Graph:
    """A graph on the disk, which is run by as many threads as torch uses when it is loaded; safe with threads.

    Args:
        path: the file.

    Raises:
        MissingExtraError: if onnxruntime is not installed.
        ModelFolderError: if the file is missing, or cannot be run.
    """

    def __init__(self, path: Path) -> None:
        try:
            runtime = import_module("onnxruntime")
        except ImportError as err:
            raise MissingExtraError("onnxruntime", "onnx") from err
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 4  # what goes wrong is raised as well
        self.path = path
        if not path.is_file():
            raise ModelFolderError(f"{path} is missing. {_AGAIN}")
        with _explained(path):
            # Of the bytes of a file, since one that is opened by its path may name further files to read, anywhere.
            session = runtime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
        self._session = cast("_Session", session)
        self.inputs = {port.name: port.shape for port in self._session.get_inputs()}
        self.outputs = {port.name: port.shape for port in self._session.get_outputs()}

    def __call__(self, *tensors: torch.Tensor) -> list[torch.Tensor]:
        """Run the graph.

        Args:
            tensors: its inputs in their order, on the CPU; they are read in place.

        Returns:
            Its outputs in their order.
        """
        arrays = (tensor.detach().contiguous().numpy() for tensor in tensors)
        with _explained(self.path):
            found = self._session.run(None, dict(zip(self.inputs, arrays, strict=True)))
        return [torch.from_numpy(array) for array in found]

    def check(self, inputs: list[str], num_outputs: int, width: int | None = None) -> None:
        """Check that a graph is what it is taken for.

        Args:
            inputs: names of its inputs.
            num_outputs: number of its outputs.
            width: last size of its first output, where that is known.

        Raises:
            ModelFolderError: if it is not.
        """
        last = next(iter(self.outputs.values()))[-1] if self.outputs else None
        if list(self.inputs) != inputs or len(self.outputs) != num_outputs or width not in (None, last):
            raise ModelFolderError(
                f"{self.path} does not belong to this model: it reads {', '.join(self.inputs)} and gives "
                f"{len(self.outputs)} outputs, the first with {last} numbers for each token; {', '.join(inputs)} and "
                f"{num_outputs} outputs with {width or 'any'} fit. {_AGAIN}"
            )


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as err:  # onnxruntime has a class of its own for each kind of damage, right below Exception
        answer = (str(err).strip().splitlines() or [type(err).__name__])[0]
        raise ModelFolderError(f"{path} cannot be run by onnxruntime: {answer}. {_AGAIN}") from err


class OnlyPredicts(nn.Module):
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

    def save_pretrained(self, *args: object, **kwargs: object) -> None:
        """Refuse: the graphs are on the disk already.

        Raises:
            ConfigurationError: always.
        """
        raise ConfigurationError(
            "An exported model is not saved again. Copy its folder, or save the model that it was exported from."
        )

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> OnlyPredicts:
        moved = super()._apply(fn, recurse)
        place = self._place
        if place.device.type != "cpu" or place.dtype != torch.float32:
            self._place = _empty()
            raise ConfigurationError(
                f"An exported model computes on the CPU, in what it was exported with; {place.device.type} in "
                f"{str(place.dtype).removeprefix('torch.')} is asked for. Use --device cpu, or the model that it was "
                "exported from."
            )
        return moved

    def _save_to_state_dict(self, *args: object, **kwargs: object) -> None:
        """Nothing: the place is no weight."""

    def _load_from_state_dict(self, *args: object, **kwargs: object) -> None:
        """Nothing, as above."""


def _empty() -> nn.Parameter:
    """A parameter without numbers: transformers finds by a parameter where a model is, and as what."""
    return nn.Parameter(torch.empty(0), requires_grad=False)


class ExportedEncoder(OnlyPredicts):
    """An encoder that is a graph.

    Args:
        graph: the graph.
        config: of the encoder that it was made from.
    """

    def __init__(self, graph: Graph, config: PreTrainedConfig) -> None:
        super().__init__()
        graph.check(["input_ids", "attention_mask"], 1, hidden_size(config))
        self.config = config
        self._graph = graph

    def get_encoder(self) -> ExportedEncoder:
        """Itself, as any encoder."""
        return self

    def forward(
        self, input_ids: torch.Tensor | None = None, attention_mask: torch.Tensor | None = None, **options: object
    ) -> BaseModelOutput:
        """Token ids and mask, both `(B, S)`, to hidden states `(B, S, H)`."""
        if input_ids is None or attention_mask is None:
            raise ConfigurationError("An exported encoder reads input_ids with their attention_mask, nothing else.")
        return BaseModelOutput(last_hidden_state=self._graph(input_ids, attention_mask)[0])


def refuse_exported(part: nn.Module, name: str | Path) -> None:
    """Refuse what was exported, where something is trained with it or saved again.

    Args:
        part: backbone of a model, or encoder of a retriever.
        name: what the user gave.

    Raises:
        ConfigurationError: if it is exported.
    """
    if isinstance(part, OnlyPredicts):
        raise ConfigurationError(f"{name} is exported, so that it only predicts. Give what it was exported from.")


def read_graphs(folder: Path, *names: str) -> list[Graph]:
    """Load graphs that [`write_export`] described.

    Args:
        folder: the folder of a model or retriever.
        names: names of the graphs.

    Raises:
        MissingExtraError: if onnxruntime is not installed.
        ModelFolderError: if a file is missing or damaged.
    """
    _FORM.read(folder / EXPORT_FILE)
    return [Graph(folder / GRAPHS_FOLDER / f"{name}.onnx") for name in names]


def load_exported_encoder(folder: Path) -> tuple[ExportedEncoder, PreTrainedTokenizerBase]:
    """Load the encoder of an exported retriever, and its tokenizer.

    Args:
        folder: the retriever's folder.

    Raises:
        MissingExtraError: if onnxruntime is not installed.
        ModelFolderError: if a file is missing or damaged, or they do not fit each other.
    """
    check_config(folder)
    with load_errors(folder):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    (graph,) = read_graphs(folder, ENCODER)
    return ExportedEncoder(graph, config).eval(), try_tokenizer(folder, config)


def write_export(folder: Path, precision: Precision) -> Path:
    """Note that a folder holds graphs; where they are to be written comes back.

    Args:
        folder: the folder of a model or retriever.
        precision: the type of the graphs' weights.
    """
    _FORM.write(folder / EXPORT_FILE, {"precision": precision})
    (folder / GRAPHS_FOLDER).mkdir(parents=True, exist_ok=True)
    return folder / GRAPHS_FOLDER
