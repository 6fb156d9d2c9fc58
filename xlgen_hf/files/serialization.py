"""Reading and writing of small files: written aside and renamed, so that an interrupted save leaves the old file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from ..errors import ModelFolderError

__all__ = ["atomic_path", "map_tensors", "read_json", "read_tensors", "write_json", "write_tensors"]


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Give a path beside `path` to write to; it takes the place of `path` when the block ends without an error."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield aside
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def write_json(path: str | Path, content: Any) -> None:
    """Write `content` as JSON in UTF-8."""
    with atomic_path(path) as aside:
        aside.write_text(json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: str | Path) -> Any:
    """Parse a JSON file of a model folder.

    Raises:
        ModelFolderError: if the file is missing, no UTF-8, no JSON, or holds NaN or infinity.
    """
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except FileNotFoundError as err:
        raise ModelFolderError(f"{path} is missing; is {path.parent} the folder of an XLGen model?") from err
    except (ValueError, RecursionError) as err:  # both no UTF-8 and no JSON are a ValueError
        raise ModelFolderError(f"{path} is no JSON in UTF-8: {err}") from err
    except OSError as err:
        raise ModelFolderError(f"{path} cannot be read: {err.strerror}") from err


def _refuse_constant(name: str) -> NoReturn:
    """Refuse the constants that Python's JSON parser knows and JSON does not."""
    raise ValueError(f"{name} is no JSON number.")


def write_tensors(path: str | Path, tensors: dict[str, np.ndarray], metadata: dict[str, str] | None = None) -> None:
    """Write arrays by name as a safetensors file."""
    with atomic_path(path) as aside:
        save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, aside, metadata)


def read_tensors(path: str | Path) -> dict[str, np.ndarray]:
    """Read a safetensors file.

    Raises:
        ModelFolderError: if the file is missing or damaged.
    """
    path = Path(path)
    try:
        return load_file(path)
    except FileNotFoundError as err:
        raise ModelFolderError(f"{path} is missing; is {path.parent} the folder of an XLGen model?") from err
    except (SafetensorError, OSError, TypeError) as err:  # the last for a type that numpy does not have
        raise ModelFolderError(f"{path} is no safetensors file that can be read: {err}") from err


def map_tensors(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Map a safetensors file into memory, an array's pages being read when they are used; with its metadata.

    Raises:
        ModelFolderError: if the file is missing or damaged.
    """
    path = Path(path)
    try:
        with safe_open(path, framework="pt") as file:  # torch's tensors are views of the mapped file, numpy's copies
            arrays = {name: file.get_tensor(name).numpy() for name in file.keys()}
            return arrays, file.metadata() or {}
    except FileNotFoundError as err:
        raise ModelFolderError(f"{path} is missing; is {path.parent} the folder of an XLGen model?") from err
    except (SafetensorError, OSError, TypeError) as err:  # TypeError: a number type that numpy does not have
        raise ModelFolderError(f"{path} is no safetensors file that can be read: {err}") from err
