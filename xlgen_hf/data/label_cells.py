"""Cells that hold all labels of a row: JSON lists, lists as Python and numpy print them, names with a separator."""

from __future__ import annotations

import ast
import html
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence

__all__ = [
    "COMMAS",
    "DEFAULT_SEPARATOR",
    "PLAIN_SEPARATORS",
    "SEMICOLONS",
    "CellError",
    "join_labels",
    "looks_joined",
    "recognise_separator",
    "split_cell",
]

SEMICOLONS = (";", "\uff1b", "\u061b")
"""The semicolon, and those of Chinese and Japanese, and of Arabic."""

PLAIN_SEPARATORS = ("|", *SEMICOLONS, "\n", "\t")
"""Separators that hardly any label name holds."""

COMMAS = (",", "\uff0c", "\u3001", "\u060c")
"""The comma, and those of Chinese and Japanese (two), and of Arabic: they separate labels, and stand in names, too."""

DEFAULT_SEPARATOR = "|"

_PLAIN_FRACTION = 0.02  # of the cells that hold a plain separator, at the least
_COMMA_FRACTION = 0.2
_JOINED_FRACTION = 0.4
_LITERAL = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
_PRINTED = re.compile(rf"[\[({{](?:\s*{_LITERAL}(?:\s*,)?)*\s*[\])}}]", re.DOTALL)
_LITERALS = re.compile(_LITERAL, re.DOTALL)
_PRINTED_NUMBERS = re.compile(r"\[\s*-?\d{1,19}(?:\s+-?\d{1,19})*\s*\]")  # 64 bits
_QUOTE = re.compile("[\"'`\u201c\u201d\u201e\u00ab\u00bb\u2018\u201a]")  # not U+2019, which is an apostrophe, too
_LIST_START = re.compile(r"\[\s*(?:[-+.]*\d|[\[({<\]])")
_SHORTENED = re.compile(r"(?:^|[\s\[,])(?:\.{3,}|\u2026)(?:$|[\s\],])")
_GROUP = re.compile(r"\[([^\[\]]*)\]")
_ELEMENT = re.compile(r"true|false|none|null|nat|[-+]?(?:nan|inf|[.\d]\S*)", re.IGNORECASE)
_SHOWN = 80


class CellError(ValueError):
    """A cell cannot be read as labels; the message says why."""


def split_cell(cell: str, separator: str) -> list[object]:
    """The labels of a cell: a JSON list, a list as Python prints it, or names with a separator between them.

    A cell in square brackets without a quote may be names, such as `[s.n.]` or `[Anon.]; history [old]`. `[a, b]` is
    none of these: it may be a list without quotes, or one name.

    Args:
        cell: the cell; white space around it and around the names does not count.
        separator: what stands between names; `""` takes the cell as one name.

    Returns:
        The labels; of a JSON list its elements, whatever they are.

    Raises:
        CellError: if the cell looks like a list and is not one.
    """
    cell = cell.strip()
    if cell.startswith("[") and cell.endswith("]"):
        return _parse_list(cell, separator)
    if cell.startswith(("(", "{")) and _is_printed(cell):
        return _literals(cell)
    return _names(cell, separator)


def _names(cell: str, separator: str) -> list[object]:
    if not separator:
        return [cell] if cell else []
    return [name for part in cell.split(separator) if (name := part.strip())]


def _is_printed(cell: str) -> bool:
    """Whether the cell is a tuple, set or list as Python or numpy print them: string literals and nothing else."""
    return len(cell) > 1 and _PRINTED.fullmatch(cell) is not None and _LITERALS.search(cell) is not None


def _literals(cell: str) -> list[object]:
    try:
        return [ast.literal_eval(literal) for literal in _LITERALS.findall(cell)]
    except (SyntaxError, ValueError) as err:  # an escape that is not one, such as \x
        raise CellError(f"The labels {cell[:_SHOWN]!r} are not a list that can be read: {err}.") from err


def _parse_list(cell: str, separator: str) -> list[object]:
    try:
        parsed = json.loads(cell)
    except (ValueError, RecursionError):
        parsed = None
    if isinstance(parsed, list):
        return parsed
    if _is_printed(cell):
        return _literals(cell)
    if _PRINTED_NUMBERS.fullmatch(cell):
        return [int(number) for number in cell[1:-1].split()]
    names = _names(cell, separator)
    if names and _may_be_names(cell) and all(_is_name(str(name)) for name in names):
        return names
    cut = " numpy printed it shortened; write the whole list." if " ... " in cell else ""
    example = separator or DEFAULT_SEPARATOR
    raise CellError(
        f"The labels {cell[:_SHOWN]!r} look like a list but cannot be read as one.{cut} "
        f'Write ["a", "b"], or a{example}b.'
    )


def _may_be_names(cell: str) -> bool:
    """Whether nothing in a cell that begins with a square bracket speaks for a list of strings or numbers."""
    return not (_QUOTE.search(cell) or _LIST_START.match(cell) or _SHORTENED.search(cell))


def _is_name(part: str) -> bool:
    """Whether a part of such a cell is a name: its brackets are pairs, and there is more than lists in them."""
    outside = _GROUP.sub("", part)
    if "[" in outside or "]" in outside:
        return False
    if any(map(str.isalnum, outside)):
        return True
    signs = (*COMMAS, *PLAIN_SEPARATORS)
    return not any(
        all(map(_ELEMENT.fullmatch, inside.split())) or any(sign in inside for sign in signs)
        for inside in _GROUP.findall(part)
    )


def join_labels(labels: Sequence[str], separator: str = DEFAULT_SEPARATOR) -> str:
    """Labels as a cell that `split_cell` reads back, whatever separator is recognised: names joined, or a JSON list.

    Args:
        labels: label names.
        separator: what to put between them.
    """
    if _joins_safely(labels, separator):
        return separator.join(labels)
    return json.dumps(list(labels), ensure_ascii=False)


def _joins_safely(labels: Sequence[str], separator: str) -> bool:
    doubtful = {*PLAIN_SEPARATORS, separator}
    if len(labels) == 1 or not any(sign in separator for sign in PLAIN_SEPARATORS):
        doubtful |= {*COMMAS}
    return all(
        name == name.strip() and name[0] not in "[({" and not any(sign in name for sign in doubtful) for name in labels
    )


def recognise_separator(cells: Iterable[str]) -> str | None:
    """What stands between the labels of a cell, None where nothing speaks for a separator.

    `|`, `;` (also as written in Chinese, Japanese and Arabic), a line break or a tab is taken where it stands in at
    least 2 % of the cells, the most frequent of them; a comma (of these scripts, too) only where it stands in a fifth
    of the cells and its parts occur at the beginning of some cells and later in others, which the parts of "history,
    general" or "Bach, Johann" do not.

    Args:
        cells: a sample of the cells.
    """
    filled = [text for cell in cells if (text := cell.strip()) and not _looks_like_list(text)]
    if not filled:
        return None
    counts = {sign: sum(sign in _without_entities(cell) for cell in filled) for sign in PLAIN_SEPARATORS}
    best = max(counts, key=counts.__getitem__)
    if counts[best] >= max(_PLAIN_FRACTION * len(filled), 1):
        return best
    commas = Counter(sign for cell in filled for sign in COMMAS if sign in cell)
    for sign, count in commas.most_common():
        if count >= _COMMA_FRACTION * len(filled) and looks_joined(filled, sign):
            return sign
    return None


def _looks_like_list(cell: str) -> bool:
    """Whether a cell says nothing about separators, since it may be a list, or one name in brackets."""
    if cell.startswith("["):
        return _GROUP.fullmatch(cell) is not None or not _may_be_names(cell)
    return cell.startswith("(")


def _without_entities(cell: str) -> str:
    return html.unescape(cell) if "&" in cell and ";" in cell else cell


def looks_joined(names: Iterable[str], separator: str) -> bool:
    """Whether parts between separators occur on their own: at the beginning of some names, later in others."""
    first: Counter[str] = Counter()
    later: Counter[str] = Counter()
    for name in names:
        begin, *rest = [part.strip() for part in name.split(separator) if part.strip()] or [""]
        first[begin] += 1
        later.update(rest)
    both = sum(first[part] + later[part] for part in first.keys() & later.keys())
    return bool(later) and both >= _JOINED_FRACTION * (first.total() + later.total())
