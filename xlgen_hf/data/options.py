"""How rows are to be read: one description that Python, every command and its help share."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from ..errors import ConfigurationError
from ..settings import from_values

if TYPE_CHECKING:
    from ..labels.vocabulary import Vocabulary

__all__ = ["DEFAULT_LABELS", "DEFAULT_TEXT", "Layout", "RowOptions", "shown_names"]

DEFAULT_TEXT = "text"
DEFAULT_LABELS = "labels"

Layout = Literal["auto", "rows", "long", "one-hot"]

_SHOWN_NAMES = 12  # names of columns that an error spells out
_ESCAPES = {"\\t": "\t", "\\n": "\n", "tab": "\t", "newline": "\n"}


@dataclass(frozen=True)
class RowOptions:
    r"""Which columns to read, and how.

    Args:
        text_column: the columns with the texts, joined in this order, empty cells left out; a string is one column.
            By default `text`.
        text_separator: text between the joined columns.
        labels_column: the column with the labels: lists of strings, class numbers with their names in the metadata,
            or cells that hold all labels of a row. By default `labels`.
        label_separator: text between two labels of a cell; white space around the labels is removed. By default it is
            recognised (`|`, `;` of any script, line break, tab, or a comma where the parts occur on their own) and
            reported. `""` takes each cell as one label. Where a row has a list of labels, it splits each of them.
        label_names: a file with the names of label ids: one name per line (the ids are line numbers from 0), or
            `.tsv`, `.csv`, `.json`, `.jsonl` with an id and a name for each.
        vocabulary: concepts that rows name by id, by preferred name in any language, by alias or by notation: a
            [`Vocabulary`], or a file that `read_vocabulary` reads. They become the vocabulary's labels; names that
            are ambiguous and unknown ids are left out, all of it is counted and reported.
        language: language of the vocabulary's labels; it need not be given where all names have the same.
        id_column: the column that identifies a row; it is kept.
        keep_columns: further columns to keep.
        layout: `rows` (one row per text), `long` (one row per text and label; rows of one text, or of one id, become
            one), `one-hot` (one column of 0 and 1 per label), or `auto`, which recognises them and reports it.
        encoding: encoding of text files. By default UTF-8, UTF-16 and, in tables and plain text, cp1252 are recognised
            and reported.
        delimiter: text between the cells of CSV. By default it is recognised.

    Raises:
        ConfigurationError: if the layout or the encoding does not exist, the delimiter is not one character, or the
            vocabulary is given together with names of label ids, or its language without it.
    """

    text_column: tuple[str, ...] = field(
        default=(),
        metadata={"help": f"Column of the texts, by default `{DEFAULT_TEXT}`; several are joined in the given order."},
    )
    text_separator: str = field(default=" ", metadata={"help": "Text between joined columns."})
    labels_column: str | None = field(
        default=None, metadata={"help": f"Column of the labels, by default `{DEFAULT_LABELS}`."}
    )
    label_separator: str | None = field(
        default=None, metadata={"help": "Text between two labels of a cell, such as ';'; by default recognised."}
    )
    label_names: str | Path | None = field(
        default=None,
        metadata={"help": "Names of label ids: a name per line (the ids are 0, 1, ...), or a table of ids and names."},
    )
    vocabulary: str | Path | Vocabulary | None = field(
        default=None,
        metadata={
            "help": "Concepts that the labels name, by id or any name: SKOS (.ttl, .rdf, .jsonld), .jsonl, .csv, .tsv."
        },
    )
    language: str | None = field(
        default=None, metadata={"help": "Language of the vocabulary's names that become labels, such as de."}
    )
    id_column: str | None = field(default=None, metadata={"help": "Column that identifies a row; it is kept."})
    keep_columns: tuple[str, ...] = field(
        default=(), metadata={"help": "Further columns to keep; several with commas, or the option again."}
    )
    layout: Layout = field(
        default="auto",
        metadata={"help": "rows: a row per text; long: a row per text and label; one-hot: a 0/1 column per label."},
    )
    encoding: str | None = field(default=None, metadata={"help": "Encoding of text files; by default recognised."})
    delimiter: str | None = field(default=None, metadata={"help": "Sign between CSV cells; by default recognised."})

    def __post_init__(self) -> None:
        """Bring what is given into one form, and check it."""
        for name in ("text_column", "keep_columns"):
            given = getattr(self, name)
            object.__setattr__(self, name, (given,) if isinstance(given, str) else tuple(given or ()))
        for name in ("text_separator", "label_separator", "delimiter"):
            given = getattr(self, name)
            object.__setattr__(self, name, _ESCAPES.get(given, given))
        if self.layout not in get_args(Layout):
            raise ConfigurationError(f"layout={self.layout!r}; choose one of {', '.join(get_args(Layout))}.")
        if self.id_column is not None and self.id_column == self.labels:
            raise ConfigurationError(f"id_column={self.id_column!r} is the column of the labels; name another one.")
        if self.delimiter is not None and len(self.delimiter) != 1:
            raise ConfigurationError(f"delimiter={self.delimiter!r}; it must be one character, such as ';' or '\\t'.")
        if self.encoding is not None:
            _check_encoding(self.encoding)
        if self.vocabulary is not None and self.label_names is not None:
            raise ConfigurationError("vocabulary and label_names both say what labels are called; give one of them.")
        if self.language is not None and (self.vocabulary is None or not isinstance(self.vocabulary, (str, Path))):
            raise ConfigurationError(
                f"language={self.language!r} has no effect without a file for vocabulary; give one, or leave it out."
            )

    @property
    def texts(self) -> tuple[str, ...]:
        """The columns of the text."""
        return self.text_column or (DEFAULT_TEXT,)

    @property
    def labels(self) -> str:
        """The column of the labels."""
        return self.labels_column or DEFAULT_LABELS

    def needed(self, available: Sequence[str]) -> list[str]:
        """The columns to read of those that a table has: all of them where one is missing.

        Labels may be one-hot columns then, and an error names what is there.
        """
        wanted = {*self.texts, self.labels, *([] if self.id_column is None else [self.id_column])}
        for name in self.keep_columns:
            wanted |= {name} if name in available else {part.strip() for part in name.split(",")}
        if not wanted <= set(available) or self.layout == "one-hot":
            return list(available)
        return [name for name in available if name in wanted]

    def changed(self, **changes: object) -> RowOptions:
        """These options with some changed.

        Raises:
            TypeError: if there is no such option; names the nearest one.
        """
        known = [one.name for one in fields(self)]
        for name in changes:
            if name not in known:
                near = get_close_matches(name, known, n=1)
                hint = f" Did you mean {near[0]!r}?" if near else f" Choose from {', '.join(known)}."
                raise TypeError(f"There is no reading option {name!r}.{hint}")
        return from_values(RowOptions, {**{name: getattr(self, name) for name in known}, **changes})


def _check_encoding(name: str) -> None:
    try:
        codecs.lookup(name)
    except LookupError as err:
        raise ConfigurationError(
            f"encoding={name!r} is not known to Python. Common ones are utf-8, utf-16, cp1252, latin-1, gb18030."
        ) from err


def shown_names(names: Iterable[str]) -> str:
    """Names for a message, sorted, at most a dozen of them."""
    ordered = sorted(map(str, names))
    more = f" and {len(ordered) - _SHOWN_NAMES:,} more" if len(ordered) > _SHOWN_NAMES else ""
    return f"{ordered[:_SHOWN_NAMES]}{more}"
