"""Graphs in ONNX that `xlgen export` wrote, run by onnxruntime on the CPU, and encoders that are such a graph.

Neither torch nor transformers is imported here: they take most of the time of a start.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Literal, Protocol, TypeAlias, TypedDict, cast, get_args

import numpy as np

from ..errors import ConfigurationError, MissingExtraError, ModelFolderError
from ..files.model_folder import EXPORT_FILE, GRAPHS_FOLDER
from ..files.schema import Fields, choice, integer, optional
from ..settings import Precision
from .file_tokenizer import FileTokenizer
from .recipe import EmbeddingRecipe, Pooling
from .text_encoder import Encode, TextTokenizer
from .threads import num_threads

__all__ = [
    "ENCODER",
    "EncoderFacts",
    "ExportedEncoder",
    "ExportedPair",
    "ExportedPart",
    "Graph",
    "GraphSource",
    "load_exported_encoder",
    "pooled",
    "read_graphs",
    "refuse_exported",
    "write_export",
]

# onnxruntime reports how it is used to its makers (seen in 1.32) unless this is set when it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

ENCODER = "encoder"
"""Name of an encoder's graph: token ids and mask, both `(B, S)`, to hidden states `(B, S, H)`."""

_AGAIN = "Run `xlgen export` again."


class EncoderFacts(TypedDict):
    """What is known of a retriever's encoder and its tokenizer without their configs.

    Attributes:
        longest: how many tokens the encoder can take.
        tokenizer: what reads the tokenizer: `tokenizers`, of its `tokenizer.json` alone, or `transformers`.
        padding_id: what fills the rows of a batch.
    """

    longest: int
    tokenizer: Literal["tokenizers", "transformers"]
    padding_id: int


class _Content(TypedDict):
    precision: str
    encoder: EncoderFacts | None


_FACTS = Fields[EncoderFacts](
    {
        "longest": integer(minimum=1),
        "tokenizer": choice("tokenizers", "transformers"),
        "padding_id": integer(minimum=0),
    }
)
_FORM = Fields[_Content](
    {"precision": choice(*get_args(Precision)), "encoder": optional(_FACTS)}, format_version=2, made_by="xlgen export"
)


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
    """A graph on the disk, which is run by as many threads as torch uses, or would use; safe with threads.

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
        options.intra_op_num_threads = num_threads()
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

    @property
    def width(self) -> int | str | None:
        """Last size of the first output: a number where it is fixed."""
        shape = next(iter(self.outputs.values()), None)
        return shape[-1] if shape else None

    def __call__(self, *arrays: np.ndarray) -> list[np.ndarray]:
        """Run the graph.

        Args:
            arrays: its inputs in their order, contiguous; they are read in place.

        Returns:
            Its outputs in their order.
        """
        with _explained(self.path):
            return self._session.run(None, dict(zip(self.inputs, arrays, strict=True)))

    def check(self, inputs: list[str], num_outputs: int, width: int | None = None) -> None:
        """Check that a graph is what it is taken for.

        Args:
            inputs: names of its inputs.
            num_outputs: number of its outputs.
            width: last size of its first output, where that is known.

        Raises:
            ModelFolderError: if it is not.
        """
        last = self.width
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


class ExportedPart:
    """What computes by graphs: on the CPU, without training or saving."""

    def save_pretrained(self, *args: object, **kwargs: object) -> None:
        """Refuse: the graphs are on the disk already.

        Raises:
            ConfigurationError: always.
        """
        raise ConfigurationError(
            "An exported model is not saved again. Copy its folder, or save the model that it was exported from."
        )

    @staticmethod
    def stay(device: str, dtype: str = "float32") -> None:
        """Refuse to go anywhere.

        Args:
            device: the kind of device, without a number.
            dtype: the type of numbers.

        Raises:
            ConfigurationError: if that is another place than a graph has, or another type of numbers.
        """
        if (device, dtype) != ("cpu", "float32"):
            raise ConfigurationError(
                f"An exported model computes on the CPU, in what it was exported with; {device} in {dtype} is asked "
                "for. Use --device cpu, or the model that it was exported from."
            )


class ExportedEncoder(ExportedPart):
    """The encoder of a retriever, as a graph.

    Args:
        graph: the graph.
        longest: how many tokens it can take.
    """

    def __init__(self, graph: Graph, longest: int) -> None:
        graph.check(["input_ids", "attention_mask"], 1)
        if not isinstance(graph.width, int):
            raise ModelFolderError(f"{graph.path} does not say how wide its hidden states are. {_AGAIN}")
        self.graph = graph
        self.width = graph.width
        self.longest = longest

    def to(self, where: object) -> ExportedEncoder:
        """Stay on the CPU, in float32.

        Args:
            where: a device or a type of numbers, as torch takes them.

        Raises:
            ConfigurationError: if it is another one.
        """
        name = str(where)
        dtype = name.removeprefix("torch.")
        self.stay(*(("cpu", dtype) if name != dtype else (name.partition(":")[0],)))
        return self


ExportedPair: TypeAlias = "tuple[ExportedEncoder, TextTokenizer]"
"""An encoder that is a graph, and its tokenizer."""


@dataclass(frozen=True)
class GraphSource:
    """An exported encoder as embedding uses it; see [`TextEncoder`]."""

    encoder: ExportedEncoder
    tokenizer: TextTokenizer
    recipe: EmbeddingRecipe

    @property
    def name(self) -> str:
        """See [`TextEncoder`]."""
        return str(self.encoder.graph.path)

    @property
    def width(self) -> int:
        """See [`TextEncoder`]."""
        return self.encoder.width

    @property
    def longest(self) -> float:
        """See [`TextEncoder`]."""
        return self.encoder.longest

    def identity(self) -> str:
        """See [`TextEncoder`]."""
        found = self.encoder.graph.path.stat()
        return f"{self.name}:{found.st_size}:{found.st_mtime_ns}"

    @contextmanager
    def computing(self, device: object) -> Iterator[Encode]:
        """See [`TextEncoder`]."""
        self.encoder.to("cpu" if device is None else device)

        def encode(ids: np.ndarray, mask: np.ndarray, keep: bool) -> tuple[np.ndarray, np.ndarray | None]:
            (hidden,) = self.encoder.graph(ids, mask)
            return pooled(hidden, mask, self.recipe.pooling), hidden if keep else None

        yield encode


def pooled(hidden: np.ndarray, mask: np.ndarray, pooling: Pooling) -> np.ndarray:
    """One vector for each text out of its hidden states, as `pool` of `encoders.loaded` makes it with torch.

    Args:
        hidden: `(B, S, H)`, float32, padded on the right.
        mask: 1 where a token of the text is, else 0, `(B, S)`.
        pooling: see [`EmbeddingRecipe`].
    """
    if pooling == "mean":
        weight = mask.astype(hidden.dtype)[:, :, None]
        mean: np.ndarray = (hidden * weight).sum(1) / weight.sum(1).clip(min=1)
        return mean
    if pooling == "max":
        largest: np.ndarray = np.where(mask[:, :, None] == 0, -np.inf, hidden).max(1).astype(hidden.dtype)
        return largest
    return hidden[:, 0] if pooling == "cls" else hidden[np.arange(len(hidden)), mask.sum(1) - 1]


def refuse_exported(part: object, name: str | Path) -> None:
    """Refuse what was exported, where something is trained with it or saved again.

    Args:
        part: backbone of a model, or encoder of a retriever.
        name: what the user gave.

    Raises:
        ConfigurationError: if it is exported.
    """
    if isinstance(part, ExportedPart):
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


def load_exported_encoder(folder: Path) -> ExportedPair:
    """Load the encoder of an exported retriever, and its tokenizer.

    Args:
        folder: the retriever's folder.

    Raises:
        MissingExtraError: if onnxruntime is not installed.
        ModelFolderError: if a file is missing or damaged, or they do not fit each other.
    """
    facts = _FORM.read(folder / EXPORT_FILE)["encoder"]
    if facts is None:
        raise ModelFolderError(f"{folder / EXPORT_FILE} says nothing of an encoder. {_AGAIN}")
    (graph,) = read_graphs(folder, ENCODER)
    return ExportedEncoder(graph, facts["longest"]), _tokenizer(folder, facts)


def _tokenizer(folder: Path, facts: EncoderFacts) -> TextTokenizer:
    if facts["tokenizer"] == "tokenizers":
        return FileTokenizer.read(folder, facts["padding_id"])
    from ..files.model_checks import check_config
    from ..files.tokenizer_checks import try_tokenizer
    from .loaded import LoadedTokenizer

    check_config(folder)
    return LoadedTokenizer(try_tokenizer(folder))


def write_export(folder: Path, precision: Precision, encoder: EncoderFacts | None = None) -> Path:
    """Note that a folder holds graphs; where they are to be written comes back.

    Args:
        folder: the folder of a model or retriever.
        precision: the type of the graphs' weights.
        encoder: of a retriever, what is known of its encoder.
    """
    _FORM.write(folder / EXPORT_FILE, {"precision": precision, "encoder": encoder})
    (folder / GRAPHS_FOLDER).mkdir(parents=True, exist_ok=True)
    return folder / GRAPHS_FOLDER
