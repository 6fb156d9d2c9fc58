"""What an adapter says of its base: a folder here, or a repository on the Hub at a commit."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple, TypedDict

from huggingface_hub.utils import HFValidationError, validate_repo_id

from ..errors import ModelFolderError
from .model_folder import ADAPTER_CONFIG_FILE, CONFIG_FILE
from .saving import current_folder, plain_folder
from .schema import Fields, optional, shown, string

__all__ = ["ADAPTER_CONFIG_FILE", "BASE_FOLDER", "AdapterBase", "base_of", "is_adapter"]

BASE_FOLDER = "base"  # in the folder of a run


class _Required(TypedDict):
    base_model_name_or_path: str


class _Content(_Required, total=False):
    revision: str | None


_FORM = Fields[_Content](
    {"base_model_name_or_path": string(visible=True), "revision": optional(string())},
    optional=["revision"],
    others=True,  # peft's own
)
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
        return (Path(self.name) / CONFIG_FILE).is_file()


def is_adapter(folder: str | Path) -> bool:
    """Whether a folder holds an adapter.

    Args:
        folder: the folder.
    """
    return (current_folder(folder) / ADAPTER_CONFIG_FILE).is_file()


def base_of(folder: str | Path) -> AdapterBase:
    """Where the base of an adapter is: `base/` in its folder, before the one that its `adapter_config.json` names.

    Args:
        folder: the adapter's folder.

    Raises:
        ModelFolderError: if there is no such folder, and the name is no Hub id either.
    """
    folder = Path(folder)
    path = folder / ADAPTER_CONFIG_FILE
    content = _FORM.read(path)
    name, revision = content["base_model_name_or_path"], content.get("revision")
    folder = plain_folder(folder)
    beside = [folder / BASE_FOLDER]
    if folder.name.startswith("checkpoint-"):
        beside.append(folder.parent / BASE_FOLDER)
    for place in (*beside, Path(name)):
        if (place / CONFIG_FILE).is_file():
            return AdapterBase(str(place))
    try:
        validate_repo_id(name)
    except HFValidationError as err:
        raise ModelFolderError(
            f"{path}: the adapter's base {name!r} is not a folder here, and not a Hub id. Put the base (`base/` "
            f"of the run that trained the adapter) into {folder / BASE_FOLDER}."
        ) from err
    if revision is not None and not _REVISION.fullmatch(revision):
        raise ModelFolderError(f"{path}: revision={shown(revision)} is not a commit, branch or tag of a base.")
    return AdapterBase(name, revision)
