"""Models that tests make again and again are made once, and copied: at a fraction of the time of `copy.deepcopy`."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import TypeVar

import torch

T = TypeVar("T")

# What was made, and torch's random numbers after that, by what it was made from.
_COPIERS: dict[bytes, tuple[Callable[[], object], torch.Tensor]] = {}


def made_once(make: Callable[..., T], *arguments: object, **options: object) -> T:
    """What a function makes of its arguments; a copy of it where that was done before, and the same random numbers.

    Args:
        make: a function of a module whose result follows from its arguments, and can be pickled.
        arguments, options: what can be pickled.
    """
    key = pickle.dumps((make, arguments, sorted(options.items())))
    if key not in _COPIERS:
        _COPIERS[key] = _copier(make(*arguments, **options)), torch.get_rng_state()
    copied, numbers = _COPIERS[key]
    torch.set_rng_state(numbers)
    return copied()  # type: ignore[return-value]


def _copier(made: object) -> Callable[[], object]:
    """A function that copies what was made, as it is now; tied weights are tied in the copy, too."""
    tensors: list[torch.Tensor] = []
    content = io.BytesIO()
    _Pickler(content, tensors).dump(made)
    return lambda: _Unpickler(io.BytesIO(content.getvalue()), tensors).load()


class _Pickler(pickle.Pickler):
    """Leaves tensors out: to pickle them takes longer than to copy them."""

    def __init__(self, file: io.BytesIO, tensors: list[torch.Tensor]) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self.tensors = tensors
        self.numbers: dict[int, int] = {}

    def persistent_id(self, one: object) -> int | None:
        if not isinstance(one, torch.Tensor):
            return None
        if id(one) not in self.numbers:
            self.numbers[id(one)] = len(self.tensors)
            self.tensors.append(copy.deepcopy(one))
        return self.numbers[id(one)]


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, tensors: list[torch.Tensor]) -> None:
        super().__init__(file)
        self.tensors = tensors
        self.copied: dict[int, torch.Tensor] = {}

    def persistent_load(self, number: int) -> torch.Tensor:
        if number not in self.copied:
            self.copied[number] = copy.deepcopy(self.tensors[number])
        return self.copied[number]
