"""The options that say how rows are read, for every command that reads rows; made of the fields of `RowOptions`."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import Field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from ..data.options import Layout, RowOptions
from ..settings import from_values

if TYPE_CHECKING:
    from datasets import Dataset

    from ..labels.vocabulary import Vocabulary

__all__ = ["ROWS_PANEL", "chosen_vocabulary", "takes_row_options", "warn_of_shared_texts"]

logger = logging.getLogger(__name__)

ROWS_PANEL = "Columns and formats"
"""Where the help lists these options."""

_TYPES: dict[str, object] = {"layout": Layout, "label_names": Path | None, "vocabulary": Path | None}


def takes_row_options(
    command: Callable[..., None] | None = None, *, leave_out: Collection[str] = ()
) -> Callable[..., Any]:
    """Give a command the options of `RowOptions`; it gets them as one value, its parameter `rows`.

    Args:
        command: a function with a parameter `rows: RowOptions`, besides those that typer makes options of.
        leave_out: fields of `RowOptions` that mean nothing to the command, such as `keep_columns`.

    Returns:
        The command for typer; without `command`, a decorator that makes it.
    """
    if command is None:
        return functools.partial(takes_row_options, leave_out=leave_out)
    chosen = [field for field in fields(RowOptions) if field.name not in leave_out]
    hints = get_type_hints(command, include_extras=True)
    own = [
        parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY)
        for name, parameter in inspect.signature(command).parameters.items()
        if name != "rows"
    ]

    def run(**given: object) -> None:
        options = {field.name: given.pop(field.name) for field in chosen}
        chosen_options = {name: value for name, value in options.items() if value is not None}
        command(**given, rows=from_values(RowOptions, chosen_options))

    parameters = [*own, *map(_parameter, chosen)]
    functools.update_wrapper(run, command)
    del run.__dict__["__wrapped__"]  # else typer looks at the parameters of the command itself
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters} | {"return": None}
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return run


def warn_of_shared_texts(splits: Mapping[str, Dataset | None], train_file: str, options: RowOptions) -> None:
    """Warn of texts that training shares with validation rows, and with test rows in the same folder.

    Args:
        splits: rows by split, those of training first; None where there are none.
        train_file: where the training rows come from.
        options: how rows are read.
    """
    from ..data.rows import load_rows, source_splits
    from ..data.suspicion import log_split_suspicions
    from ..errors import DataError

    given = {name: part for name, part in splits.items() if part is not None}
    if "test" not in given and Path(train_file).expanduser().is_dir():
        try:
            if "test" in source_splits(train_file, options):
                given["test"] = load_rows(train_file, options, split="test", require_labels=False)
        except DataError as err:
            logger.warning("The test rows are not compared with the training rows: %s", err)
    log_split_suspicions(given)


def chosen_vocabulary(labels: str | Path | None, rows: RowOptions) -> Vocabulary | list[str] | None:
    """What the label space holds besides the labels of the rows: concepts, or names; None for nothing.

    Args:
        labels: the option `--labels`.
        rows: the options of the rows, with their vocabulary.

    Raises:
        ConfigurationError: if both are given.
        DataError: if the file cannot be read.
    """
    from ..data.rows import load_label_names
    from ..data.vocabulary_files import vocabulary_of
    from ..errors import ConfigurationError

    if labels is None:
        return vocabulary_of(rows)
    if rows.vocabulary is not None:
        raise ConfigurationError("--labels and --vocabulary both say what can be predicted; give one of them.")
    return load_label_names(labels)


def _parameter(field: Field[object]) -> inspect.Parameter:
    many = field.default == ()
    kind: object = (
        list[str] | None if many else _TYPES.get(field.name, str if isinstance(field.default, str) else str | None)
    )
    shown: bool | str = "recognised" if field.name == "layout" else False
    option = typer.Option(
        help=field.metadata["help"],
        rich_help_panel=ROWS_PANEL,
        show_default=shown,
        metavar="<str>" if many else None,
    )
    return inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None if many else field.default,
        annotation=Annotated[kind, option],
    )
