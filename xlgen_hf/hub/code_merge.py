"""Modules as one file: what they import together at its head, as far as it is used, then what each of them defines."""

from __future__ import annotations

import ast
import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

__all__ = ["LINE_WIDTH", "Part", "import_line", "merged", "stand_ins"]

LINE_WIDTH = 119
_Import = ast.Import | ast.ImportFrom


class Part(NamedTuple):
    """A module: its place in the repository, and its text, rewritten for the copy."""

    place: str
    text: str


def merged(parts: Sequence[Part]) -> str:
    """One file of some modules, each of which reads what those before it define, without importing it.

    Each has a section; its docstring is the comment of that. What two of them define alike stays once.

    Raises:
        ValueError: if two of them define one name in different ways.
    """
    trees = [ast.parse(part.text) for part in parts]
    imports = [node for tree in trees for node in tree.body if isinstance(node, _Import)]
    defined: dict[str, tuple[str, Part]] = {}
    absent: set[str] = set()
    sections = []
    for part, tree in zip(parts, trees, strict=True):
        dropped = [tree.body[0]]
        for node in tree.body[1:]:
            names = _absent_names(node)
            absent.update(names)
            if names or _is_repeated(node, part, defined) or isinstance(node, _Import):
                dropped.append(node)
        sections.append(_section(part, ast.get_docstring(tree) or "", dropped))
    used = {one.id for tree in trees for one in ast.walk(tree) if isinstance(one, ast.Name)}
    lines = list(_import_lines(imports, used))
    head = ["from __future__ import annotations", *(["", *lines] if lines else [])]
    head += ["", stand_ins(sorted(absent))] if absent else []
    return "\n".join(head) + "\n" + "".join(sections)


def _is_repeated(node: ast.stmt, part: Part, defined: dict[str, tuple[str, Part]]) -> bool:
    """Whether a module before defines the same names in the same way; notes what is new."""
    known = []
    for name, source in _definitions(node):
        before, other = defined.setdefault(name, (source, part))
        if other is not part and before != source:
            raise ValueError(
                f"{part.place} and {other.place} both define {name!r}, and a copy of the code has them in one file. "
                "Rename one."
            )
        known.append(other is not part)
    return bool(known) and all(known)


def _definitions(node: ast.stmt) -> Iterator[tuple[str, str]]:
    """What a statement at the top of a module binds: name, and how."""
    if isinstance(node, ast.ImportFrom):
        yield from ((alias.asname or alias.name, f"{node.module}.{alias.name}") for alias in node.names)
    elif isinstance(node, ast.Import):
        yield from ((alias.asname or alias.name.partition(".")[0], ast.unparse(alias)) for alias in node.names)
    else:
        yield from ((name, ast.unparse(node)) for name in _names(node))


def _names(node: ast.stmt) -> Iterator[str]:
    """Names that a statement at the top of a module binds."""
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        yield node.name
    elif isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        names = (one for target in targets for one in ast.walk(target) if isinstance(one, ast.Name))
        yield from (one.id for one in names if isinstance(one.ctx, ast.Store))
    elif isinstance(node, ast.Try):  # an import that may fail
        yield from (name for one in node.handlers for inner in one.body for name in _names(inner))


def _section(part: Part, docstring: str, dropped: Iterable[ast.stmt]) -> str:
    """What a module defines, after a heading and its docstring as a comment."""
    gone = {number for node in dropped for number in range(node.lineno, (node.end_lineno or node.lineno) + 1)}
    lines: list[str] = []
    for number, line in enumerate(part.text.splitlines(), start=1):
        if number not in gone and (line or lines[-2:] != ["", ""]):
            lines.append(line)
    body = "\n".join(lines).strip("\n")
    rule = "-" * (LINE_WIDTH - len(part.place) - 3)
    comment = "\n".join(f"# {line}".rstrip() for line in docstring.splitlines())
    return f"\n\n# {rule} {part.place}\n{comment}\n\n\n{body}\n" if body else ""


# ------------------------------------------------------------------------------------------------ imports


def _import_lines(imports: Iterable[_Import], used: Collection[str]) -> Iterator[str]:
    """The imports of several modules, each name once: of libraries what is used, then those of files of the copy."""
    plain, named, own = set(), set(), set()
    for node in imports:
        for alias in node.names:
            name = ast.unparse(alias)
            if isinstance(node, ast.ImportFrom) and node.level:
                own.add(("." * node.level + (node.module or ""), name))
            elif (alias.asname or alias.name.partition(".")[0]) not in used:
                continue
            elif isinstance(node, ast.ImportFrom):
                named.add((node.module or "", name))
            else:
                plain.add(f"import {name}")
    yield from sorted(plain)
    yield from _grouped(sorted(named))
    yield from ["", *_grouped(sorted(own))] if own else []


def _grouped(pairs: Iterable[tuple[str, str]]) -> Iterator[str]:
    for module, of_module in groupby(pairs, key=lambda pair: pair[0]):
        yield import_line(module, [name for _, name in of_module])


def import_line(module: str, names: Sequence[str]) -> str:
    """An import, on as many lines as it takes."""
    line = f"from {module} import {', '.join(names)}"
    if len(line) <= LINE_WIDTH:
        return line
    rows: list[str] = []
    for name in names:
        if rows and len(rows[-1]) + len(name) + 2 < LINE_WIDTH:
            rows[-1] += f" {name},"
        else:
            rows.append(f"    {name},")
    return "\n".join([f"from {module} import (", *rows, ")"])


# ------------------------------------------------------------------------------------------------ stand-ins


def stand_ins(names: Sequence[str], indent: int = 0) -> str:
    """Assignments of stand-ins, as many on a line as fit."""
    lines: list[str] = []
    first = 0
    for end in range(1, len(names) + 1):
        line = _stand_in_line(names[first:end])
        if lines and end - first > 1 and len(line) + indent <= LINE_WIDTH:
            lines[-1] = line
        else:
            first = end - 1
            lines.append(_stand_in_line(names[first:end]))
    return "\n".join(lines)


def _stand_in_line(names: Sequence[str]) -> str:
    if len(names) == 1:
        return f"{names[0]} = absent({json.dumps(names[0])})"
    return f"{', '.join(names)} = map(absent, ({', '.join(map(json.dumps, names))}))"


def _absent_names(node: ast.stmt) -> list[str]:
    """The names that [`stand_ins`] assigned; none for anything else."""
    if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
        if "absent" in {one.id for one in ast.walk(node.value) if isinstance(one, ast.Name)}:
            return list(_names(node))
    return []
