"""Spaces: a page on the Hub to try a model on, which runs `xlgen demo`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import Requirement

from ..errors import ConfigurationError
from ..files.model_folder import ADAPTER_CONFIG_FILE, CONFIG_FILE, LABEL_TREES_FOLDER, SCORE_MODEL_FILE
from ..version import __version__
from .card_text import compose_card, merge_cards, render
from .commits import Content, HubTarget, PushReport, TargetOptions, push_files, require_file

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["push_space"]

_NAME = "xlgen-hf"
_PACKAGE = Path(__file__).parents[1]
_EXTRAS = ("demo", "documents")
_PORT = 7860  # where a Space is expected to listen
_APP = '''"""The page of {model}; the card of this Space says more."""

import sys

from xlgen_hf.cli.main import main

sys.exit(main(["demo", "--model", {model!r}, "--title", {title!r}, "--host", "0.0.0.0", "--port", "{port}"]))
'''


def push_space(
    model: str,
    repo_id: str,
    *,
    requirement: str | None = None,
    extras: Sequence[str] = (),
    license_id: str | None = None,
    **target: Unpack[TargetOptions],
) -> PushReport:
    """Put a Space up that runs the page of a model of the Hub, in one commit.

    Args:
        model: `owner/name` of the model.
        repo_id: `owner/name` of the Space.
        requirement: the line of `requirements.txt` that brings this package, such as `xlgen-hf[demo]==1.0`; by
            default the code of this package goes up with the page, and the file lists what that needs.
        extras: extras of this package that the model needs besides those of the page; `lora` is added for an adapter.
        license_id: licence of the page, as the Hub spells it.
        **target: further fields of [`HubTarget`].

    Returns:
        The files and the commit.

    Raises:
        ConfigurationError: if an extra is unknown, comes with a requirement, or the package is not installed.
        HubError: if there is no such model, or the Hub refuses or cannot be reached.
    """
    place = HubTarget(repo_id, **target)
    if requirement is not None and extras:
        raise ConfigurationError(f"extras={list(extras)} belong into the requirement, as in 'xlgen-hf[demo,lora]'.")
    if not place.dry_run:
        there = HubTarget(model, token=place.token)
        needed_by = {ADAPTER_CONFIG_FILE: "lora", f"{LABEL_TREES_FOLDER}/label_trees.json": "baselines"}
        found = require_file(there, "model", (CONFIG_FILE, SCORE_MODEL_FILE, *needed_by), "Push the model first.")
        if requirement is None:
            extras = [*extras, *(extra for file, extra in needed_by.items() if file in found)]
    name = model.rpartition("/")[2]
    needed = [requirement] if requirement is not None else _requirements({*_EXTRAS, *extras})
    files: dict[str, Content] = {
        "app.py": _APP.format(model=model, title=f"Labels by {name}", port=_PORT).encode(),
        "requirements.txt": "".join(f"{line}\n" for line in needed).encode(),
        **({} if requirement is not None else _code()),
    }
    facts = {"model": model, "version": __version__, "carries_code": requirement is None}
    card = compose_card(_metadata(model, license_id), f"Labels by {name}", render("space.md", facts))
    return push_files(
        files, replace(place, message=place.message or f"Upload the page of {model}"), "space",
        card=lambda old: merge_cards(card, old), owned=_own_code,
    )  # fmt: skip


def _metadata(model: str, license_id: str | None) -> dict[str, object]:
    try:
        sdk_version = version("gradio")
    except PackageNotFoundError:  # then the Hub takes its newest one
        sdk_version = None
    return {
        "title": f"Labels by {model.rpartition('/')[2]}"[:60],
        "emoji": "🏷️",
        "colorFrom": "blue",
        "colorTo": "green",
        "sdk": "gradio",
        "sdk_version": sdk_version,
        "app_file": "app.py",
        "models": [model],
        "license": license_id,
        "tags": ["xlgen", "extreme-multi-label-classification"],
    }


def _requirements(extras: Collection[str]) -> list[str]:
    """What this package and some of its extras need, as lines of `requirements.txt`."""
    try:
        listed = [Requirement(line) for line in requires(_NAME) or ()]
    except PackageNotFoundError as err:
        raise ConfigurationError(
            "xlgen-hf is not installed, so what its code needs is not known; say how a Space installs it "
            "(requirement=..., --requirement)."
        ) from err
    markers = [str(one.marker) for one in listed if one.marker is not None]
    unknown = sorted(extra for extra in extras if not any(f'extra == "{extra}"' in marker for marker in markers))
    if unknown:
        raise ConfigurationError(f"xlgen-hf has no extras {unknown}; setup.cfg lists them.")
    kept: dict[str, None] = {}
    for one in listed:
        wanted = one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in extras)
        kept |= {f"{one.name}{_bracketed(one.extras)}{one.specifier}": None} if wanted else {}
    return sorted(kept)


def _bracketed(extras: Collection[str]) -> str:
    return f"[{','.join(sorted(extras))}]" if extras else ""


def _code() -> dict[str, Content]:
    """The files of this package, by their paths in a repository."""
    paths = (path for path in sorted(_PACKAGE.rglob("*")) if path.is_file() and "__pycache__" not in path.parts)
    return {f"{_PACKAGE.name}/{path.relative_to(_PACKAGE).as_posix()}": path for path in paths}


def _own_code(paths: Collection[str], read: object) -> Iterable[str]:
    """The files of this package in a Space, which an older push may have left."""
    return [path for path in paths if path.startswith(f"{_PACKAGE.name}/")]
