"""A flat copy of modules of a package, as transformers' `trust_remote_code` wants it.

transformers fetches the modules that a module imports, and follows only `from .name import ...`. So packages are
flattened (`labels/space.py` becomes `labels_space.py`). Imports are found and rewritten by their positions in the
syntax tree; all other lines, comments and docstrings included, stay as they are.

What a copy leaves out is replaced where it is imported: a constant by its value, a class or function by a stand-in
that raises an `ImportError` when it is used (`absent.py`). The same goes for libraries that only some models need,
because transformers refuses a module when any library that it imports is missing. Imports that only type checkers or
annotations of functions read are dropped.
"""

from __future__ import annotations

import ast
import copy
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple, TypeGuard

__all__ = ["FIRST_LINE", "PackageCopy"]

FIRST_LINE = "# Copied from xlgen-hf by `xlgen push model --with-code`, which also replaces and removes it: "
"""How a module of a copy begins; the module's path in the package follows."""

_ABSENT = "absent.py"
_STAND_INS = Path(__file__).with_name(_ABSENT)
_ROOT = Path(__file__).parents[2]
# Libraries that every model needs; transformers says what to install where one is missing.
_NEEDED = {"huggingface_hub", "numpy", "safetensors", "scipy", "torch", "tqdm", "transformers"}
_PIP_NAMES = {"sklearn": "scikit-learn"}
_LINE_WIDTH = 119

Import = ast.Import | ast.ImportFrom


class _Module(NamedTuple):
    """A module of the package: its name there, `labels.space`, its text and its syntax tree."""

    name: str
    source: str
    tree: ast.Module


class PackageCopy:
    """Copies modules of a package, and what these import of it.

    Args:
        package: the package's folder.
        is_left_out: whether a module, named as in `labels.space`, stays out of the copy.
    """

    def __init__(self, package: Path, is_left_out: Callable[[str], bool]) -> None:
        self.package = package
        self.is_left_out = is_left_out

    def files(self, entries: Iterable[str]) -> dict[str, str]:
        """The copy: name of the file -> its content.

        Args:
            entries: modules that the copy is for, named as in `labels.space`.

        Raises:
            ValueError: if a module imports in a way that a flat copy cannot have.
        """
        copied = {_ABSENT: _with_first_line(_STAND_INS, _ROOT, _STAND_INS.read_text(encoding="utf-8"))}
        waiting = list(entries)
        while waiting:
            module = self._read(waiting.pop())
            name = f"{_flat(module.name)}.py"
            if name not in copied:
                copied[name] = self._rewritten(module)
                waiting += self._imported(module)
        return dict(sorted(copied.items()))

    def _read(self, name: str) -> _Module:
        return _read(name, self._path(name))

    def _path(self, name: str) -> Path:
        return self.package.joinpath(*name.split(".")).with_suffix(".py")

    def _imported(self, module: _Module) -> Iterator[str]:
        """The modules from which the copy of a module imports."""
        for statement in _imports(module.tree):
            if _is_own(statement) and _kept_names(module, statement):
                target = self._target(module, statement)
                if not self.is_left_out(target):
                    yield target

    def _target(self, module: _Module, statement: ast.ImportFrom) -> str:
        """The module that an import reads, named as in `labels.space`."""
        parents = module.name.split(".")[: -statement.level]
        target = ".".join([*parents, statement.module or ""])
        if not self._path(target).is_file():
            raise ValueError(
                f"{self._path(module.name)}, line {statement.lineno}: transformers follows only imports of names out "
                "of modules; write `from .module import name`."
            )
        return target

    def _rewritten(self, module: _Module) -> str:
        """The text of a module in the copy."""
        texts: dict[ast.stmt, str] = {node: "" for node in ast.walk(module.tree) if _is_for_type_checkers(node)}
        for statement in _imports(module.tree):
            if _is_own(statement):
                texts[statement] = self._own_import(module, statement)
            elif not _is_always_there(statement):
                texts[statement] = _guarded_import(statement)
        if any("absent(" in text for text in texts.values()):
            first = module.tree.body[1]
            texts[first] = texts.get(first, ast.unparse(first)) + f"\n\nfrom .{_ABSENT[:-3]} import absent"
        return _with_first_line(self._path(module.name), self.package.parent, _with_texts(module.source, texts))

    def _own_import(self, module: _Module, statement: ast.ImportFrom) -> str:
        """What the copy has where a module imports from the package."""
        target, names = self._target(module, statement), _kept_names(module, statement)
        if not self.is_left_out(target):
            return _import_line(target, [ast.unparse(alias) for alias in names])
        return "\n".join(f"{alias.asname or alias.name} = {self._replacement(target, alias.name)}" for alias in names)

    def _replacement(self, target: str, name: str) -> str:
        """What a name stands for where the module that defines it is left out: its value, or a stand-in."""
        for statement in self._read(target).tree.body:
            if isinstance(statement, ast.ClassDef | ast.FunctionDef) and statement.name == name:
                return f"absent({json.dumps(name)})"
        try:
            return repr(self._constant(target, name))
        except ValueError as err:
            raise ValueError(
                f"{self._path(target)} is left out of the copy, and {name!r}, which copied modules import from it, is "
                "not a class, a function or a constant there. Move it, or have the module copied."
            ) from err

    def _constant(self, target: str, name: str) -> object:
        """The value of a constant of a module, which may be made of further ones.

        Raises:
            ValueError: if it is anything else.
        """
        module = self._read(target)
        for statement in module.tree.body:
            if isinstance(statement, ast.Assign) and [ast.unparse(one) for one in statement.targets] == [name]:
                names = {node.id for node in ast.walk(statement.value) if isinstance(node, ast.Name)}
                values = {other: self._constant(target, other) for other in names}
                return ast.literal_eval(_Filled(values).visit(copy.deepcopy(statement.value)))
            if _is_own(statement) and name in [alias.name for alias in statement.names]:
                return self._constant(self._target(module, statement), name)
        raise ValueError(name)


class _Filled(ast.NodeTransformer):
    """An expression with values in place of names."""

    def __init__(self, values: dict[str, object]) -> None:
        self.values = values

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return ast.parse(repr(self.values[node.id]), mode="eval").body


@cache
def _read(name: str, path: Path) -> _Module:
    source = path.read_text(encoding="utf-8")
    return _Module(name, source, ast.parse(source, str(path)))


def _with_first_line(path: Path, root: Path, text: str) -> str:
    return f"{FIRST_LINE}{path.relative_to(root).as_posix()}\n{text}"


def _flat(name: str) -> str:
    return name.replace(".", "_")


# ------------------------------------------------------------------------------------------------ reading


def _imports(node: ast.AST) -> Iterator[Import]:
    """Imports at any level, but for those that only type checkers read, and those that may fail already."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Import):
            yield child
        elif not isinstance(child, ast.Try) and not _is_for_type_checkers(child):
            yield from _imports(child)


def _is_for_type_checkers(node: ast.AST) -> TypeGuard[ast.If]:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and not node.orelse


def _is_own(statement: ast.stmt) -> TypeGuard[ast.ImportFrom]:
    return isinstance(statement, ast.ImportFrom) and statement.level > 0


def _kept_names(module: _Module, statement: ast.ImportFrom) -> list[ast.alias]:
    """The names of an import, but for those at the top of a module that only annotations read."""
    dropped = set() if statement.col_offset else _only_annotating(module)
    return [alias for alias in statement.names if (alias.asname or alias.name) not in dropped]


@cache
def _only_annotating(module: _Module) -> frozenset[str]:
    """Names that stand only in annotations of arguments, results and local variables.

    Annotations of fields do not count: `dataclass` and `strict` read them.
    """
    running: set[str] = set()
    annotating: set[str] = set()

    def visit(node: ast.AST, names: set[str], in_function: bool) -> None:
        if isinstance(node, ast.Name):
            names.add(node.id)
        in_function = in_function or isinstance(node, ast.FunctionDef)
        for field, value in ast.iter_fields(node):
            is_annotation = field == "returns" or (field == "annotation" and in_function)
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    visit(child, annotating if is_annotation else names, in_function)

    visit(module.tree, running, in_function=False)
    return frozenset(annotating - running)


def _is_always_there(statement: Import) -> bool:
    return {_library(name) for name in _modules(statement)} <= _NEEDED | sys.stdlib_module_names


def _modules(statement: Import) -> list[str]:
    if isinstance(statement, ast.ImportFrom):
        return [statement.module or ""]
    return [alias.name for alias in statement.names]


def _library(module: str) -> str:
    return module.partition(".")[0]


# ------------------------------------------------------------------------------------------------ writing


def _import_line(target: str, names: list[str]) -> str:
    if not names:
        return ""
    line = f"from .{_flat(target)} import {', '.join(names)}"
    if len(line) <= _LINE_WIDTH:
        return line
    listed = "".join(f"    {name},\n" for name in names)
    return f"from .{_flat(target)} import (\n{listed})"


def _guarded_import(statement: Import) -> str:
    """An import that may fail: the error comes where what it brings is used, and says what to install."""
    library = _library(_modules(statement)[0])
    lines = []
    for alias in statement.names:
        name = alias.asname or _library(alias.name)
        lines.append(f"    {name} = absent({json.dumps(name)}, {json.dumps(_PIP_NAMES.get(library, library))})")
    return "\n".join(["try:", f"    {ast.unparse(statement)}", "except ImportError:", *lines])


def _with_texts(source: str, texts: dict[ast.stmt, str]) -> str:
    """A module's text with some of its statements replaced, or dropped where the text is empty."""
    lines = source.splitlines(keepends=True)
    for statement in sorted(texts, key=lambda one: one.lineno, reverse=True):
        indent = " " * statement.col_offset
        new = [f"{indent}{line}".rstrip() + "\n" for line in texts[statement].splitlines()]
        lines[statement.lineno - 1 : statement.end_lineno] = new
    return "".join(lines)
