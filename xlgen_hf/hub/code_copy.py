"""A flat copy of a part of a package, as transformers' `trust_remote_code` wants it.

transformers fetches the modules that a module imports, and follows only `from .name import ...`. So packages are
flattened (`labels/space.py` becomes `labels_space.py`). A copy is for some names of some modules. It holds what these
use (`code_graph`): other definitions are left out, and modules without any that is used. What is kept stays as it is
written, with comments, for whoever reads it before trusting it; imports are rewritten at their positions in the syntax
tree. Docstrings end before their sections on arguments, results and errors, which are for those who write programs
with the package; the head of each file names the version that has them.

In place of a method, a class or a function that is left out and yet bound to a name, there is a stand-in that raises
an `ImportError` when it is used (`absent.py`). The same goes for libraries that only some models need, because
transformers refuses a module when any library that it imports is missing. A constant is replaced by its value.
"""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path

from ..version import __version__
from .code_graph import CodeGraph, Import, Module, bound_name, is_own, walk

__all__ = ["FIRST_LINE", "copied_files"]

FIRST_LINE = "# Copied from xlgen-hf by `xlgen push model --with-code`, which also replaces and removes it: "
"""How a module of a copy begins; the module's path in the package follows."""

_ABSENT = "absent.py"
_STAND_INS = Path(__file__).with_name(_ABSENT)
# Libraries that every model needs; transformers says what to install where one is missing.
_NEEDED = {"huggingface_hub", "numpy", "safetensors", "scipy", "torch", "tqdm", "transformers"}
_PIP_NAMES = {"sklearn": "scikit-learn"}
_LINE_WIDTH = 119
_SECTIONS = ("Args:", "Raises:", "Returns:", "Yields:")

_Texts = dict[ast.stmt, str]


def copied_files(
    package: Path, entries: Mapping[str, Collection[str]], is_left_out: Callable[[str], bool]
) -> dict[str, str]:
    """Copy a part of a package.

    Args:
        package: the package's folder.
        entries: module, named as in `labels.space` -> names of it that the copy is for.
        is_left_out: whether a definition, named as in `labels.space.LabelSpace` or `labels.space.LabelSpace.save`,
            stays out of the copy whatever uses it.

    Returns:
        Name of the file -> its content, sorted.

    Raises:
        ValueError: if a module imports in a way that a flat copy cannot have.
    """
    graph = CodeGraph(package, is_left_out, entries)
    copied = {f"{_flat(name)}.py": _rewritten(graph, graph.read(name)) for name in graph.used}
    copied[_ABSENT] = _head(_STAND_INS, Path(__file__).parents[2]) + _STAND_INS.read_text(encoding="utf-8")
    return dict(sorted(copied.items()))


def _head(path: Path, root: Path) -> str:
    place = path.relative_to(root).as_posix()
    return (
        f"{FIRST_LINE}{place}\n# Version {__version__}; its docstrings also describe arguments, results and errors.\n"
    )


def _flat(name: str) -> str:
    return name.replace(".", "_")


def _rewritten(graph: CodeGraph, module: Module) -> str:
    """The text of a module in the copy."""
    kept = [statement for statement in module.tree.body if graph.keeps(module, statement)]
    texts: _Texts = {statement: "" for statement in module.tree.body if statement not in kept}
    methods = graph.unused_methods(module)
    texts |= {method: f"{method.name} = {_stand_in(method.name)}" for method in methods}
    for statement in (one for top in kept for one in walk(top, methods)):
        if isinstance(statement, ast.ClassDef | ast.FunctionDef):
            texts |= _short_docstring(module, statement)
        elif is_own(statement):
            aliases = statement.names
            if statement in kept:
                aliases = [alias for alias in aliases if bound_name(alias) in graph.used[module.name]]
            texts[statement] = _own_import(graph, graph.target(module, statement), aliases)
        elif isinstance(statement, Import) and not _is_always_there(statement) and not _is_in_try(statement, kept):
            texts[statement] = _guarded_import(statement)
    if any("absent(" in text for text in texts.values()):
        first = module.tree.body[1]
        texts[first] = f"{texts.get(first) or ast.unparse(first)}\n\nfrom .{_ABSENT[:-3]} import absent"
    return _head(graph.path(module.name), graph.package.parent) + _with_texts(module, texts)


def _short_docstring(module: Module, definition: ast.ClassDef | ast.FunctionDef) -> _Texts:
    """A docstring without its sections, if it has any."""
    first = definition.body[0]
    if not _is_text(first):
        return {}
    lines = module.source.splitlines()[first.lineno - 1 : first.end_lineno]
    end = next((i for i, line in enumerate(lines) if line.strip() in _SECTIONS), None)
    if end is None:
        return {}
    kept = "\n".join(line[first.col_offset :] for line in lines[:end]).rstrip()
    quotes = lines[-1].rstrip()[-3:]
    return {first: kept + ("\n" if "\n" in kept else "") + quotes}


# ------------------------------------------------------------------------------------------------ imports


def _own_import(graph: CodeGraph, target: str, aliases: list[ast.alias]) -> str:
    """What the copy has where a module imports from another one of the package."""
    copied = [alias for alias in aliases if alias.name in graph.used.get(target, ())]
    lines = [_import_line(target, [ast.unparse(alias) for alias in copied])] if copied else []
    for alias in aliases:
        if alias not in copied:
            lines.append(f"{bound_name(alias)} = {_replacement(graph, target, alias.name)}")
    return "\n".join(lines)


def _import_line(target: str, names: list[str]) -> str:
    line = f"from .{_flat(target)} import {', '.join(names)}"
    if len(line) <= _LINE_WIDTH:
        return line
    listed = "".join(f"    {name},\n" for name in names)
    return f"from .{_flat(target)} import (\n{listed})"


def _replacement(graph: CodeGraph, target: str, name: str) -> str:
    """What a name stands for where the module that defines it lacks it in the copy: its value, or a stand-in."""
    for statement in graph.read(target).tree.body:
        if isinstance(statement, ast.ClassDef | ast.FunctionDef) and statement.name == name:
            return _stand_in(name)
    try:
        return repr(graph.constant(target, name))
    except ValueError as err:
        raise ValueError(
            f"{graph.path(target)}: {name!r} is left out of the copy and used there, and it is not a class, a "
            "function or a constant, for which there is something to put in its place."
        ) from err


def _stand_in(name: str) -> str:
    return f"absent({json.dumps(name)})"


def _is_always_there(statement: Import) -> bool:
    return {name.partition(".")[0] for name in _modules(statement)} <= _NEEDED | sys.stdlib_module_names


def _modules(statement: Import) -> list[str]:
    if isinstance(statement, ast.ImportFrom):
        return [statement.module or ""]
    return [alias.name for alias in statement.names]


def _is_in_try(statement: Import, tops: Iterable[ast.stmt]) -> bool:
    """Whether an import may fail already."""
    tries = (node for top in tops for node in ast.walk(top) if isinstance(node, ast.Try))
    return any(statement in ast.walk(node) for node in tries)


def _guarded_import(statement: Import) -> str:
    """An import that may fail: the error comes where what it brings is used, and says what to install."""
    library = _modules(statement)[0].partition(".")[0]
    lines = []
    for name in map(bound_name, statement.names):
        lines.append(f"    {name} = absent({json.dumps(name)}, {json.dumps(_PIP_NAMES.get(library, library))})")
    return "\n".join(["try:", f"    {ast.unparse(statement)}", "except ImportError:", *lines])


# ------------------------------------------------------------------------------------------------ lines


def _with_texts(module: Module, texts: _Texts) -> str:
    """A module's text with some of its statements replaced, or dropped where the text is empty."""
    lines = module.source.splitlines(keepends=True)
    for statement in sorted(texts, key=lambda one: one.lineno, reverse=True):
        first, last = _lines_of(module, statement, lines, dropped=not texts[statement])
        indent = " " * statement.col_offset
        lines[first:last] = [f"{indent}{line}".rstrip() + "\n" for line in texts[statement].splitlines()]
    return "".join(lines)


def _lines_of(module: Module, statement: ast.stmt, lines: list[str], *, dropped: bool) -> tuple[int, int]:
    """Where a statement's lines begin and end; one that is dropped takes what describes it along."""
    first, last = statement.lineno - 1, statement.end_lineno or statement.lineno
    first = min([first, *(one.lineno - 1 for one in getattr(statement, "decorator_list", ()))])
    if not dropped:
        return first, last
    while first > 0 and lines[first - 1].startswith("#"):
        first -= 1
    after = [one for one in module.tree.body if one.lineno > last][:1]
    if isinstance(statement, ast.Assign | ast.AnnAssign) and after and _is_text(after[0]):
        last = after[0].end_lineno or last
    if last == len(lines) or not lines[last].strip():  # one of the gaps before and after goes as well
        while first > 0 and not lines[first - 1].strip():
            first -= 1
    return first, last


def _is_text(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
