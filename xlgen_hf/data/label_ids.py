"""Names of label ids: from a file of names, a table of ids and names, or an Annif vocabulary."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ..errors import DataError
from ..labels.concepts import short_id
from .delimited import DelimitedFile
from .field_names import ID_FIELDS, names_column, refuse_header
from .text_files import iter_lines, line_list
from .values import shown

__all__ = ["clean_id", "distinct_names", "read_label_ids"]

logger = logging.getLogger(__name__)

_NAME_KEYS = ("label", "name", "title", "prefLabel", "pref_label")
_SHOWN = 3


def clean_id(label_id: object) -> str:
    """A label id as a key: `<http://...>` without its angle brackets, a number as its digits."""
    text = str(label_id).strip()
    return text[1:-1] if text.startswith("<") and text.endswith(">") else text


def read_label_ids(path: str | Path) -> dict[str, str]:
    """Read the names of label ids.

    Args:
        path: `.txt`, one name per line, whose ids are line numbers from 0; `.tsv` or `.csv`, an id and a name per
            row (an Annif vocabulary, too); `.json`, an object id -> name (or name -> number), or a list of names;
            `.jsonl`, objects with an `id` or `uri` and a `label`, `name` or `title`. Each also with `.gz`.

    Returns:
        Id -> name. Ids that share a name get names of their own, see `distinct_names`.

    Raises:
        DataError: if the file cannot be read so; names file and row.
    """
    path = Path(path)
    name = path.name.lower().removesuffix(".gz")
    if name.endswith((".tsv", ".csv")):
        pairs = list(_table_pairs(path, is_tsv=name.endswith(".tsv")))
    elif name.endswith(".jsonl"):
        pairs = list(_json_line_pairs(path))
    elif name.endswith(".json"):
        pairs = _json_pairs(path)
    else:
        pairs = [(str(number), line) for number, line in enumerate(line_list(path))]
    if not pairs:
        raise DataError("There are no names of labels in the file.", file=path)
    ids = [clean_id(label_id) for label_id, _ in pairs]
    repeated = [label_id for label_id, count in Counter(ids).items() if count > 1]
    if repeated:
        raise DataError(f"Duplicate label ids: {repeated[:_SHOWN]}. Each id must have one name.", file=path)
    return dict(zip(ids, distinct_names(ids, [name for _, name in pairs], path), strict=True))


def distinct_names(ids: Sequence[str], names: Sequence[str], file: str | Path) -> list[str]:
    """Names that keep labels apart: where several labels share a name, each gets its id after it, in parentheses.

    Of an id that is a URI, only the last part is used, unless that is not enough. Empty names stay as they are.

    Args:
        ids: the labels' ids, each once.
        names: their names.
        file: where they come from, for the report in the log.

    Returns:
        The names in their order.

    Raises:
        DataError: if a name made so is the name of another label.
    """
    names = [name.strip() for name in names]
    counts = Counter(filter(None, names))
    shared = [name for name, count in counts.items() if count > 1]
    if not shared:
        return names
    short = [short_id(label_id) for label_id in ids]
    for suffixes in (short, ids):
        made = [
            f"{name} ({suffix})" if counts[name] > 1 else name for name, suffix in zip(names, suffixes, strict=True)
        ]
        if len(set(filter(None, made))) == sum(map(bool, made)):
            break
    else:
        raise DataError(f"Several labels share the name {shared[0]!r}; give them different names.", file=file)
    examples = [name for name, old in zip(made, names, strict=True) if old == shared[0]][:_SHOWN]
    logger.warning(
        "%s: names that several labels share: %d. The labels are kept apart by their ids, e.g. %s. Give them "
        "different names to tell a model how they differ.",
        file,
        len(shared),
        examples,
    )
    return made


def _table_pairs(path: Path, *, is_tsv: bool) -> Iterator[tuple[str, str]]:
    file = DelimitedFile(path)
    first = next(file.lines(), "")
    usual = "\t" if is_tsv else ";" if ";" in first and "," not in first else ","  # ; as in Excel of many countries
    records = file.records(file.declared_delimiter or usual, quotes=not is_tsv)
    filled = ((number, cells) for number, cells in records if any(cell.strip() for cell in cells))
    place = 1
    for row, (number, cells) in enumerate(filled):
        if len(cells) <= place:
            raise DataError("An id and a name are expected, with a delimiter between them.", file=path, row=number)
        if not row and cells[0].strip().lower() in ID_FIELDS:
            place = names_column(cells) or 1
            continue
        if not row:
            refuse_header(cells, path, number)
        yield cells[0], cells[place]


def _json_line_pairs(path: Path) -> Iterator[tuple[str, str]]:
    for number, line in iter_lines(path):
        if not line.strip():
            continue
        row = _parse(line, path, number)
        if not isinstance(row, dict):
            raise DataError("An object with an id and a label is expected.", file=path, row=number)
        label_id = next((row[key] for key in ID_FIELDS if row.get(key) is not None), None)
        name = next((row[key] for key in _NAME_KEYS if isinstance(row.get(key), str)), None)
        if label_id is None or name is None:
            raise DataError(
                f"An id (one of {', '.join(ID_FIELDS)}) and a name (one of {', '.join(_NAME_KEYS)}) are expected.",
                file=path,
                row=number,
            )
        yield str(label_id), name


def _json_pairs(path: Path) -> list[tuple[str, str]]:
    content = _parse("".join(line for _, line in iter_lines(path)), path, None)
    if isinstance(content, list):
        pairs: list[tuple[object, object]] = list(enumerate(content))
    elif isinstance(content, Mapping):
        numbered = content and all(type(value) is int for value in content.values())  # label2id
        pairs = [(value, key) if numbered else (key, value) for key, value in content.items()]
    else:
        pairs = []
    expected = "A JSON object id -> name, or a list of names, is expected"
    if not pairs:
        raise DataError(f"{expected}.", file=path)
    for label_id, name in pairs:
        if not isinstance(name, str):
            raise DataError(f"{expected}; the name of the id {label_id!r} is {shown(name)}.", file=path)
    return [(str(label_id), str(name)) for label_id, name in pairs]


def _parse(content: str, path: Path, number: int | None) -> object:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as err:  # ValueError: not JSON, or an integer of thousands of digits
        raise DataError(f"Not valid JSON: {err}.", file=path, row=number) from err
