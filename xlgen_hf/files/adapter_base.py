"""What an adapter says of its base: a folder here, or a repository on the Hub at a commit."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from huggingface_hub.utils import HFValidationError, validate_repo_id

from ..errors import ModelFolderError
from .serialization import read_json

__all__ = ["ADAPTER_CONFIG_FILE", "BASE_FOLDER", "AdapterBase", "base_of", "is_adapter"]

ADAPTER_CONFIG_FILE = "adapter_config.json"
BASE_FOLDER = "base"  # in the folder of a run
_CONFIG_FILE = "config.json"
_REVISION = re.compile(r"\w[\w-]*([./]\w[\w-]*)*")  # it becomes part of a path of the cache


class AdapterBase(NamedTuple):
    """Where the base of an adapter is.

    Attributes:
        name: a folder, or an id on the Hub.
        revision: commit or branch on the Hub; the main branch if None.
    """

    name: str
    revision: str | None = None

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder here."""
        return (Path(self.name) / _CONFIG_FILE).is_file()


def is_adapter(folder: str | Path) -> bool:
    """Whether a folder holds an adapter.

    Args:
        folder: the folder.
    """
    return (Path(folder) / ADAPTER_CONFIG_FILE).is_file()


def base_of(folder: str | Path) -> AdapterBase:
    """Where the base of an adapter is: `base/` in its folder, before the one that its `adapter_config.json` names.

    Args:
        folder: the adapter's folder.

    Raises:
        ModelFolderError: if there is no such folder, and the name is no Hub id either.
    """
    folder = Path(folder)
    path = folder / ADAPTER_CONFIG_FILE
    content = read_json(path)
    name = content.get("base_model_name_or_path") if isinstance(content, dict) else None
    if not isinstance(name, str) or not name:
        raise ModelFolderError(f"{path}: 'base_model_name_or_path' must name the model that the adapter changes.")
    beside = [folder / BASE_FOLDER]
    if folder.name.startswith("checkpoint-"):
        beside.append(folder.parent / BASE_FOLDER)
    for place in (*beside, Path(name)):
        if (place / _CONFIG_FILE).is_file():
            return AdapterBase(str(place))
    try:
        validate_repo_id(name)
    except HFValidationError as err:
        raise ModelFolderError(
            f"{path}: the adapter's base {name!r} is no folder here, and no Hub id. Put the base (`base/` of the run "
            f"that trained the adapter) into {folder / BASE_FOLDER}."
        ) from err
    revision = content.get("revision")
    if revision is not None and not (isinstance(revision, str) and _REVISION.fullmatch(revision)):
        raise ModelFolderError(f"{path}: revision={str(revision)[:80]!r} is no commit, branch or tag of a base.")
    return AdapterBase(name, revision)
