"""The form of safetensors files: arrays with named dimensions, checked when they are read.

    _FORM = Tensors(
        {
            "documents": tensor(np.float16, "N", "H"),
            "label_start": offsets(np.int64, "N", "M"),
            "label_ids": tensor(np.int32, "M", minimum=0, maximum="L-1"),
        },
        format_version=2,
        made_by="xlgen index",
    )
    arrays, metadata = _FORM.read(path, {"L": num_labels})

Every error is a `ModelFolderError` that names the file, the array, and what is allowed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

from ..errors import ModelFolderError
from .schema import FORMAT_VERSION_FIELD, Fields, check_format_version, shown
from .serialization import JSON, map_tensors, write_tensors

__all__ = ["Tensor", "Tensors", "offsets", "tensor"]

_METADATA = "xlgen"
_ABOUT = Fields[dict[str, JSON]]({}, others=True)
_DIMENSION = re.compile(r"([A-Za-z_]+)([+-]\d+)?")


@dataclass(frozen=True)
class Tensor:
    """What an array must be; made by [`tensor`] and [`offsets`].

    Attributes:
        dtype: type of its numbers.
        shape: its sizes: numbers, or names of dimensions (`"N"`, `"N+1"`) that agree across a file.
        minimum, maximum: bounds of its values, both included: numbers, or dimensions (`"L-1"`), which bound where
            their size is known.
        offsets_to: the dimension that ascending offsets lead to, from 0; None for other arrays.
    """

    dtype: np.dtype[np.generic]
    shape: tuple[str | int, ...]
    minimum: str | int | None = None
    maximum: str | int | None = None
    offsets_to: str | None = None


def tensor(
    dtype: DTypeLike, *shape: str | int, minimum: str | int | None = None, maximum: str | int | None = None
) -> Tensor:
    """An array of numbers; floats must be finite. The arguments are those of [`Tensor`]."""
    return Tensor(np.dtype(dtype), shape, minimum, maximum)


def offsets(dtype: DTypeLike, count: str, total: str) -> Tensor:
    """Where each of `count` rows begins among `total` items (CSR): `count + 1` ascending integers, 0 to `total`."""
    return Tensor(np.dtype(dtype), (f"{count}+1",), offsets_to=total)


class Tensors:
    """A safetensors file with known arrays.

    Args:
        tensors: what each array must be. A dimension gets its size from the first array that names it.
        optional: arrays that are all there, or none of them.
        not_empty: dimensions that must be at least 1.
        format_version: as for [`Fields`]; it stands in the file's metadata.
        made_by: as for [`Fields`].
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        *,
        optional: Collection[str] = (),
        not_empty: Collection[str] = (),
        format_version: int | None = None,
        made_by: str = "xlgen train",
    ) -> None:
        self._tensors = dict(tensors)
        self._optional = frozenset(optional)
        self._not_empty = frozenset(not_empty)
        self._version = format_version
        self._made_by = made_by

    def read(
        self, path: str | Path, sizes: Mapping[str, int] | None = None, *, mapped: bool = False
    ) -> tuple[dict[str, np.ndarray], dict[str, JSON]]:
        """Read and check a file.

        Args:
            path: the file.
            sizes: dimensions whose size is known beforehand, such as the number of labels.
            mapped: map the file into memory, instead of reading it: an array's pages are read when they are used.

        Returns:
            The arrays, and the metadata without the version.

        Raises:
            ModelFolderError: if it is missing, unreadable, damaged, of another version, or not of this form.
        """
        arrays, header = map_tensors(path)
        if not mapped:
            arrays = {name: array.copy() for name, array in arrays.items()}
        metadata = _ABOUT.check(_parsed_json(header.get(_METADATA, "{}")), f"{path}, metadata")
        if self._version is not None:
            check_format_version(metadata.pop(FORMAT_VERSION_FIELD, None), self._version, path, self._made_by)
        self.check(arrays, path, sizes)
        return arrays, metadata

    def write(
        self, path: str | Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None
    ) -> None:
        """Write a file of this form, with its version.

        Raises:
            ModelFolderError: if the arrays are not of this form, which is a mistake of the caller.
        """
        self.check(arrays, path)
        about = ({} if self._version is None else {FORMAT_VERSION_FIELD: self._version}) | dict(metadata or {})
        # One entry: safetensors writes several in a random order, and equal content should give equal files.
        write_tensors(path, dict(arrays), {_METADATA: json.dumps(about, sort_keys=True)} if about else None)

    def check(
        self, arrays: Mapping[str, np.ndarray], path: str | Path, sizes: Mapping[str, int] | None = None
    ) -> dict[str, int]:
        """Check arrays; see [`read`].

        Returns:
            The size of each dimension.

        Raises:
            ModelFolderError: if an array is missing, unknown, or not as it must be.
        """
        found = dict(sizes or {})
        for problem in (self._name_problem(arrays), *self._array_problems(arrays, found)):
            if problem:
                raise ModelFolderError(f"{path}: {problem}")
        return found

    def _name_problem(self, arrays: Mapping[str, np.ndarray]) -> str | None:
        needed = set(self._tensors)
        if not self._optional & set(arrays):
            needed -= self._optional
        missing = sorted(needed - set(arrays))
        if missing:
            return f"tensor {missing[0]!r} is missing; needed are {sorted(needed)}."
        unknown = sorted(set(arrays) - set(self._tensors))
        if unknown:
            return f"tensor {shown(unknown[0])} does not belong in it; allowed are {sorted(self._tensors)}."
        return None

    def _array_problems(self, arrays: Mapping[str, np.ndarray], sizes: dict[str, int]) -> Iterator[str | None]:
        """Shapes first, which set the sizes; values then, whose bounds may be sizes of later arrays."""
        there = {name: wanted for name, wanted in self._tensors.items() if name in arrays}
        for name, wanted in there.items():
            yield _shape_problem(name, arrays[name], wanted, sizes)
        for name in sorted(self._not_empty & set(sizes)):
            yield f"it holds nothing: {name} is 0, and must be at least 1." if not sizes[name] else None
        for name, wanted in there.items():
            yield _value_problem(name, arrays[name], wanted, sizes)


def _shape_problem(name: str, array: np.ndarray, wanted: Tensor, sizes: dict[str, int]) -> str | None:
    """Compare type and shape, and take over the sizes of dimensions that are new."""
    shape = f"({', '.join(map(str, wanted.shape))}{',' if len(wanted.shape) == 1 else ''})"
    needed = f"tensor {name!r} is {array.dtype} of shape {array.shape}; {wanted.dtype} of shape {shape} is needed"
    if array.dtype != wanted.dtype or array.ndim != len(wanted.shape):
        return f"{needed}."
    for dimension, size in zip(wanted.shape, array.shape, strict=True):
        if not isinstance(dimension, str):
            if dimension != size:
                return f"{needed}."
            continue
        letter, shift = _parsed(dimension)
        if sizes.setdefault(letter, size - shift) != size - shift or size - shift < 0:
            return f"{needed}, with {letter}={sizes[letter]}."
    return None


def _parsed_json(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _parsed(dimension: str) -> tuple[str, int]:
    """`"N+1"` -> `("N", 1)`."""
    match = _DIMENSION.fullmatch(dimension)
    if match is None:
        raise ValueError(f"{dimension!r} is not a dimension such as 'N' or 'N+1'.")
    return match[1], int(match[2] or 0)


def _value_problem(name: str, array: np.ndarray, wanted: Tensor, sizes: Mapping[str, int]) -> str | None:
    if not array.size:
        return None
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        return f"tensor {name!r} holds NaN or infinity."
    if wanted.offsets_to is not None:
        return _offset_problem(name, array, wanted.offsets_to, sizes)
    for sign, bound, worst in (
        (">=", wanted.minimum, array.min() if wanted.minimum is not None else None),
        ("<=", wanted.maximum, array.max() if wanted.maximum is not None else None),
    ):
        limit = None if bound is None else _size(bound, sizes)
        if limit is None or worst is None:
            continue
        if worst < limit if sign == ">=" else worst > limit:
            meaning = f" ({bound})" if isinstance(bound, str) else ""
            return f"tensor {name!r} holds {worst}; its values must be {sign} {limit}{meaning}."
    return None


def _offset_problem(name: str, array: np.ndarray, total: str, sizes: Mapping[str, int]) -> str | None:
    end = _size(total, sizes)
    if array[0] == 0 and array[-1] == (array[-1] if end is None else end) and (array[1:] >= array[:-1]).all():
        return None
    return f"tensor {name!r} must hold ascending offsets from 0 to {end} ({total})."


def _size(bound: str | int, sizes: Mapping[str, int]) -> int | None:
    """The number that a bound stands for; None for a dimension whose size nobody has given."""
    if isinstance(bound, int):
        return bound
    letter, shift = _parsed(bound)
    return sizes[letter] + shift if letter in sizes else None
