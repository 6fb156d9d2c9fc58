"""`xlgen update`: change labels and indexed documents of a model without training."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..data.options import RowOptions
from .options import Device, UsageProblem
from .rows import takes_row_options

if TYPE_CHECKING:
    from ..files.updates import UpdateRecord
    from ..labels.changes import LabelEdits

__all__ = ["update"]

_NUMBERS = {
    "labels": "labels", "unseen_labels": "labels without documents", "concepts": "concepts of the vocabulary",
    "documents": "documents in the index",
}  # fmt: skip
_ROWS = {
    "added": "documents that are new", "corrected": "documents that got other labels",
    "unchanged": "documents that were there with these labels", "repeated": "rows whose text comes again later",
    "without_labels": "rows without labels, left out",
}  # fmt: skip
_LABELS = ("renamed", "merged", "removed", "added")


@takes_row_options(leave_out=("keep_columns",))
def update(
    model: Annotated[
        Path, typer.Option(help="Folder of a model, adapter, hybrid, index or label trees; it is changed in place.")
    ],
    add_rows: Annotated[
        str | None,
        typer.Option(
            help="Rows that join the index. A text that it has already gets the labels of its row; rows without labels"
            " join an index that has such rows already.",
            rich_help_panel="Documents",
        ),
    ] = None,
    unknown_labels: Annotated[
        Literal["error", "add", "leave-out"],
        typer.Option(help="What becomes of labels of rows that the model does not have.", rich_help_panel="Documents"),
    ] = "error",
    rename: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OLD=NEW",
            help='A label gets another name. Names with = may need \'["OLD", "NEW"]\'.',
            rich_help_panel="Labels",
        ),
    ] = None,
    merge: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OLD=NEW", help="A label becomes another one; its documents go there.", rich_help_panel="Labels"
        ),
    ] = None,
    remove: Annotated[
        list[str] | None,
        typer.Option(metavar="LABEL", help="A label is no longer predicted.", rich_help_panel="Labels"),
    ] = None,
    add_labels: Annotated[
        Path | None,
        typer.Option(
            help="New labels: one name per line, or a file that `xlgen predict --stage-novel` wrote (.jsonl).",
            rich_help_panel="Labels",
        ),
    ] = None,
    min_count: Annotated[
        int,
        typer.Option(min=1, help="Texts that a staged label needs, of a .jsonl file.", rich_help_panel="Labels"),
    ] = 1,
    undo: Annotated[bool, typer.Option("--undo", help="Undo the last update; again for the one before.")] = False,
    keep_previous: Annotated[
        int, typer.Option(min=0, help="Updates that can be undone; their former files stay in the folder.")
    ] = 3,
    device: Device = None,
    *,
    rows: RowOptions,
) -> None:
    """Change labels and documents of a model at one moment, without training; print what changed.

    In this order: --rename, --merge, --remove, --add-labels, --add-rows. Each may be given more than once but the
    last two. With --model alone the updates of the folder are listed.

    \b
    xlgen update --model my-index --add-rows corrections.jsonl
    xlgen update --model my-index --merge "cats=cat" --rename "dogs=dog"
    """  # noqa: D301  \b keeps the lines of the example apart
    asked = any((add_rows, rename, merge, remove, add_labels))
    if undo and asked:
        raise UsageProblem("--undo stands alone: it takes the last update back, and changes nothing else.")
    if not asked and not undo:
        _print_journal(model)
        return
    from ..updating.update import undo_update, update_model

    if undo:
        record = undo_update(model)
        typer.echo(f"Update {record['number']} of {record['time']} is undone.")
        return
    edits = _edits(model, rename, merge, remove, add_labels, min_count)
    found = update_model(
        model,
        edits,
        rows=add_rows,
        options=rows,
        unknown_labels=unknown_labels,
        keep_previous=keep_previous,
        device=device,
    )
    if found is None:
        typer.echo("Nothing changed: labels and documents are as they were.")
        return
    _print_changes(found)


def _edits(
    model: Path,
    rename: list[str] | None,
    merge: list[str] | None,
    remove: list[str] | None,
    add_labels: Path | None,
    min_count: int,
) -> LabelEdits:
    from ..files.saving import current_folder
    from ..labels.changes import LabelEdits, split_pair
    from ..labels.space import LabelSpace
    from ..labels.vocabulary import Vocabulary
    from ..updating.staged import read_new_labels

    folder = current_folder(model)
    new_names: set[str] = set()

    @cache
    def space() -> LabelSpace:  # which takes a while to read, and rows alone ask for no label
        return LabelSpace.load(folder)

    @cache
    def vocabulary() -> Vocabulary | None:  # the same, and few names hold the sign
        return Vocabulary.load(folder, space().names)

    def is_known(name: str) -> bool:
        if name in new_names or name in space():
            return True
        concepts = vocabulary()
        return concepts is not None and bool(concepts.find(name))

    renamed = [split_pair(one, "--rename", is_known, both_known=False) for one in rename or ()]
    new_names.update(new for _, new in renamed)
    return LabelEdits(
        renamed,
        [split_pair(one, "--merge", is_known, both_known=True) for one in merge or ()],
        remove or (),
        [] if add_labels is None else read_new_labels(add_labels, min_count),
    )


def _print_changes(record: UpdateRecord) -> None:
    """What an update changed, in numbers."""
    from .console import print_table

    changes = record["changes"]
    before, after = changes.get("before"), changes.get("after")
    lines: list[tuple[object, ...]] = []
    if isinstance(before, dict) and isinstance(after, dict):
        lines = [(shown, before.get(name), after.get(name)) for name, shown in _NUMBERS.items() if name in before]
    print_table(f"Update {record['number']}, {changes.get('seconds')} seconds", ("", "before", "after"), lines)
    for kind in _LABELS:
        found = changes.get(kind)
        if isinstance(found, list) and found:
            typer.echo(f"labels {kind}: {len(found):,}")
    of_rows = changes.get("rows")
    if isinstance(of_rows, dict):
        for name, shown in _ROWS.items():
            if of_rows.get(name):
                typer.echo(f"{shown}: {of_rows[name]:,}")
        unknown = of_rows.get("unknown_labels")
        if isinstance(unknown, dict) and unknown:
            typer.echo(f"labels of rows that the model did not have: {len(unknown):,}")
    typer.echo("`xlgen update --undo` takes it back.")


def _print_journal(model: Path) -> None:
    from ..errors import ConfigurationError
    from ..files.saving import current_folder
    from ..files.updates import read_updates
    from .console import print_table

    if not model.is_dir():
        raise ConfigurationError(f"There is no folder {str(model)!r} to change.")
    records = read_updates(current_folder(model))
    if not records:
        typer.echo(f"{model} has not been updated. Give what to change, see 'xlgen update --help'.")
        return
    lines = []
    for one in records:
        changes, rows = one["changes"], one["changes"].get("rows")
        labels = [f"{len(found)} {kind}" for kind in _LABELS if isinstance(found := changes.get(kind), list) and found]
        documents = [f"{rows.get(kind)} {kind}" for kind in ("added", "corrected")] if isinstance(rows, dict) else []
        lines.append((one["number"], one["time"], ", ".join(labels), ", ".join(documents), one["undone"] or ""))
    print_table(None, ("update", "time", "labels", "documents", "undone"), lines)
