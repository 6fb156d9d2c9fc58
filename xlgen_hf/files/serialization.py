"""Reading and writing of JSON and safetensors files: written atomically, and errors of reading name the file."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from mmap import ACCESS_COPY, mmap
from pathlib import Path
from stat import S_ISREG
from typing import NoReturn, TypeAlias, cast

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ..errors import ModelFolderError
from .atomic import atomic_path

__all__ = [
    "JSON",
    "map_tensors",
    "parse_json",
    "read_errors",
    "read_json",
    "read_tensors",
    "write_json",
    "write_tensors",
]

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"
"""A parsed JSON value; `schema` checks that it is what a reader needs, and says so to the type checker."""

_NUMBER_TYPES: dict[str, type] = {
    "BOOL": np.bool_, "U8": np.uint8, "I8": np.int8, "U16": np.uint16, "I16": np.int16, "F16": np.float16,
    "U32": np.uint32, "I32": np.int32, "F32": np.float32, "U64": np.uint64, "I64": np.int64, "F64": np.float64,
    "C64": np.complex64,
}  # fmt: skip
"""Of the types that safetensors has, those of numpy."""


@contextmanager
def read_errors(path: Path, kind: str) -> Iterator[None]:
    """Turn what system and libraries say of a file that cannot be read into a `ModelFolderError` that names it.

    Args:
        path: the file; it must be a regular file, or a link to one.
        kind: what it should be, e.g. `JSON in UTF-8`.

    Raises:
        ModelFolderError: if the file is missing, unreadable, or not of that kind.
    """
    try:
        if not S_ISREG(path.stat().st_mode):  # a pipe would be waited for
            raise ModelFolderError(f"{path} is not a regular file.")
        with path.open("rb"):  # safetensors says of an unreadable file that it is missing
            pass
        yield
    except FileNotFoundError as err:
        raise ModelFolderError(f"{path} is missing; is {path.parent} the folder of an XLGen model?") from err
    except OSError as err:
        if isinstance(err, ModelFolderError):
            raise
        raise ModelFolderError(f"{path} cannot be read: {_reason(err)}") from err
    except (SafetensorError, ValueError, TypeError, RecursionError, MemoryError, OverflowError) as err:
        if isinstance(err, ModelFolderError):
            raise
        raise ModelFolderError(f"{path} is not {kind}: {str(err)[:300] or type(err).__name__}") from err


def _reason(err: OSError) -> str:
    if isinstance(err, PermissionError):
        return f"{err.strerror}. Its owner can make it readable: chmod a+r."
    return f"{err.strerror or err}."


def write_json(path: str | Path, content: object) -> None:
    """Write `content` as JSON in UTF-8.

    Raises:
        SaveError: if the file cannot be written.
    """
    with atomic_path(path) as aside:
        aside.write_text(json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: str | Path) -> JSON:
    """Parse a JSON file of a model folder.

    Raises:
        ModelFolderError: if the file is missing, unreadable, not UTF-8, not JSON, or holds NaN or infinity.
    """
    path = Path(path)
    with read_errors(path, "JSON in UTF-8"):
        return parse_json(path.read_text(encoding="utf-8"))


def parse_json(text: str) -> JSON:
    """Parse JSON as the standard has it.

    Raises:
        ValueError: if it is not JSON, or holds NaN or infinity.
    """
    content: JSON = json.loads(text, parse_constant=_refuse_constant)
    return content


def _refuse_constant(name: str) -> NoReturn:
    """Refuse the constants that Python's JSON parser knows and JSON does not."""
    raise ValueError(f"{name} is not a JSON number.")


def write_tensors(path: str | Path, tensors: dict[str, np.ndarray], metadata: dict[str, str] | None = None) -> None:
    """Write arrays by name as a safetensors file.

    Raises:
        SaveError: if the file cannot be written.
    """
    with atomic_path(path) as aside:
        save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, aside, metadata)


def read_tensors(path: str | Path) -> dict[str, np.ndarray]:
    """Read a safetensors file.

    Raises:
        ModelFolderError: if the file is missing, unreadable or damaged.
    """
    return {name: array.copy() for name, array in map_tensors(path)[0].items()}


def map_tensors(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Map a safetensors file into memory, an array's pages being read when they are used; with its metadata.

    Raises:
        ModelFolderError: if the file is missing, unreadable or damaged.
    """
    path = Path(path)
    with (
        read_errors(path, "a safetensors file of number types that numpy has"),
        safe_open(path, framework="numpy") as file,  # the file is whole
    ):
        if __package__ == "xlgen_hf.files":
            return _mapped_arrays(path), file.metadata() or {}
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # copies


def _mapped_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file that was checked, as views of the mapped file."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = parse_json(file.read(length).decode())
        mapped = mmap(file.fileno(), 0, access=ACCESS_COPY)  # who writes into an array changes no file
    assert isinstance(header, dict)
    header.pop("__metadata__", None)
    return {name: _mapped_array(mapped, 8 + length, entry) for name, entry in header.items()}


def _mapped_array(mapped: mmap, begin: int, entry: JSON) -> np.ndarray:
    """The array that an entry of a header, which was checked, describes; the data begins at that byte."""
    assert isinstance(entry, dict)
    name, shape, offsets = (
        str(entry["dtype"]),
        cast("list[int]", entry["shape"]),
        cast("list[int]", entry["data_offsets"]),
    )
    if name not in _NUMBER_TYPES:
        raise TypeError(f"numpy has no type {name}")
    count = math.prod(shape)
    return np.frombuffer(mapped, _NUMBER_TYPES[name], count, begin + offsets[0] if count else 0).reshape(shape)
