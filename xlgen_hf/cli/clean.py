"""`xlgen clean`: list and remove caches and checkpoints that runs left."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["clean"]


def clean(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="FOLDER",
            help="Where to look, with all folders below.",
            show_default="the current folder",
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Remove what is listed; without it nothing is removed.")] = False,
    unfinished: Annotated[
        bool, typer.Option("--unfinished", help="Also checkpoints of unfinished runs, which cannot continue then.")
    ] = False,
) -> None:
    """List caches and left-over checkpoints with their sizes; --yes removes them.

    Models, indexes, predictions and files of other programs are never touched, and links are not followed.
    """
    from ..errors import ConfigurationError
    from ..files.leftovers import find_leftovers, remove_leftovers, size_text
    from .console import print_table, results

    roots = folders or [Path()]
    missing = [root for root in roots if not root.is_dir()]
    if missing:
        raise ConfigurationError(f"There is no folder {str(missing[0])!r} to clean.")
    found = {one.path.resolve(): (one, root) for root in roots for one in find_leftovers(root)}
    kept = [one for one, _ in found.values() if one.is_needed and not unfinished]
    removable = [pair for pair in found.values() if pair[0] not in kept]
    lines: list[tuple[str, str, str]] = [(str(one.path), one.kind, size_text(one.size)) for one, _ in removable]
    lines += [(str(one.path), "checkpoint of an unfinished run, kept", size_text(one.size)) for one in kept]
    if lines:
        print_table(None, ("folder", "what", "size"), lines)
    total = size_text(sum(one.size for one, _ in removable))
    if not removable:
        message = "Nothing to remove."
    elif yes:
        for one, root in removable:
            remove_leftovers([one], root)
        message = f"Removed {total}."
    else:
        message = f"{total} can be removed; nothing was. Give --yes to remove them."
    if kept:
        message += " --unfinished also removes the checkpoints of unfinished runs."
    results().print(message, markup=False, soft_wrap=True)
