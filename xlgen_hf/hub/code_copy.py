"""A flat copy of a part of a package, as transformers' `trust_remote_code` wants it.

transformers fetches the modules that a module imports, and follows only `from .name import ...`. So packages are
flattened (`labels/space.py` becomes `labels_space.py`). A copy is for some names of some modules. It holds what these
use, name by name: other definitions are left out, and modules without any that is used. What is kept stays as it is
written, with comments and docstrings; imports are rewritten at their positions in the syntax tree.

A definition may be left out whatever uses it. Where it is imported it is replaced: a constant by its value, a class
or function by a stand-in that raises an `ImportError` when it is used (`absent.py`). The same goes for libraries that
only some models need, because transformers refuses a module when any library that it imports is missing, and for
constants of modules of which nothing else is used.
"""

from __future__ import annotations

import ast
import copy
import json
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple, TypeGuard

__all__ = ["FIRST_LINE", "PackageCopy"]

FIRST_LINE = "# Copied from xlgen-hf by `xlgen push model --with-code`, which also replaces and removes it: "
"""How a module of a copy begins; the module's path in the package follows."""

_ABSENT = "absent.py"
_STAND_INS = Path(__file__).with_name(_ABSENT)
# Libraries that every model needs; transformers says what to install where one is missing.
_NEEDED = {"huggingface_hub", "numpy", "safetensors", "scipy", "torch", "tqdm", "transformers"}
_PIP_NAMES = {"sklearn": "scikit-learn"}
_LINE_WIDTH = 119
_ALWAYS = ""  # stands for what of a module runs whatever is used of it

Import = ast.Import | ast.ImportFrom


class _Module(NamedTuple):
    """A module of the package: its name there, `labels.space`, its text and its syntax tree."""

    name: str
    source: str
    tree: ast.Module


class PackageCopy:
    """Copies a part of a package.

    Args:
        package: the package's folder.
        is_left_out: whether a definition, named as in `labels.space.LabelSpace`, stays out of the copy.
    """

    def __init__(self, package: Path, is_left_out: Callable[[str], bool]) -> None:
        self.package = package
        self.is_left_out = is_left_out

    def files(self, entries: Mapping[str, Collection[str]]) -> dict[str, str]:
        """The copy: name of the file -> its content.

        Args:
            entries: module -> names of it that the copy is for.

        Raises:
            ValueError: if a module imports in a way that a flat copy cannot have.
        """
        used = self._used([(module, name) for module, names in entries.items() for name in names])
        copied = {f"{_flat(module)}.py": self._rewritten(self._read(module), used) for module in used}
        copied[_ABSENT] = _first_line(_STAND_INS, Path(__file__).parents[2]) + _STAND_INS.read_text(encoding="utf-8")
        return dict(sorted(copied.items()))

    def _used(self, waiting: list[tuple[str, str]]) -> dict[str, set[str]]:
        """Module -> names of it that some names, given with their modules, use directly or indirectly."""
        used: dict[str, set[str]] = {}
        constants: set[tuple[str, str]] = set()
        while waiting:
            module, name = waiting.pop()
            if module not in used and self._is_constant(module, name):
                constants.add((module, name))
            else:
                names = used.setdefault(module, set())
                for new in {_ALWAYS, name} - names:
                    names.add(new)
                    waiting += self._uses(self._read(module), new)
            if not waiting:  # the constants of modules that are copied for other reasons
                waiting = [(module, name) for module, name in constants if name not in used.get(module, {name})]
        return used

    def _is_constant(self, module: str, name: str) -> bool:
        try:
            self._constant(module, name)
        except ValueError:
            return False
        return True

    def _read(self, name: str) -> _Module:
        return _read(name, self._path(name))

    def _path(self, name: str) -> Path:
        return self.package.joinpath(*name.split(".")).with_suffix(".py")

    def _uses(self, module: _Module, name: str) -> Iterator[tuple[str, str]]:
        """Modules and names of them that a name of a module uses."""
        bound = _bound(module)
        for statement in bound.get(name, ()):
            for other in _names(statement)[0]:
                if other in bound and other != name:
                    yield module.name, other
            for own in filter(_is_own, _imports(statement)):
                target = self._target(module, own)
                for alias in own.names:
                    is_meant = own is not statement or _bound_name(alias) == name
                    if is_meant and not self.is_left_out(f"{target}.{alias.name}"):
                        yield target, alias.name

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

    def _rewritten(self, module: _Module, used: dict[str, set[str]]) -> str:
        """The text of a module in the copy."""
        kept = [statement for statement in module.tree.body if _is_kept(module, statement, used[module.name])]
        texts = {statement: "" for statement in module.tree.body if statement not in kept}
        for statement in (one for top in kept for one in _imports(top)):
            if _is_own(statement):
                aliases = statement.names
                if statement in kept:
                    aliases = [alias for alias in aliases if _bound_name(alias) in used[module.name]]
                texts[statement] = self._own_import(self._target(module, statement), aliases, used)
            elif not _is_always_there(statement) and not _is_in_try(statement, kept):
                texts[statement] = _guarded_import(statement)
        if any("absent(" in text for text in texts.values()):
            first = module.tree.body[1]
            texts[first] = f"{texts.get(first) or ast.unparse(first)}\n\nfrom .{_ABSENT[:-3]} import absent"
        return _first_line(self._path(module.name), self.package.parent) + _with_texts(module, texts)

    def _own_import(self, target: str, aliases: list[ast.alias], used: dict[str, set[str]]) -> str:
        """What the copy has where a module imports from another one of the package."""
        copied = [alias for alias in aliases if alias.name in used.get(target, ())]
        lines = [_import_line(target, [ast.unparse(alias) for alias in copied])] if copied else []
        for alias in aliases:
            if alias not in copied:
                lines.append(f"{_bound_name(alias)} = {self._replacement(target, alias.name)}")
        return "\n".join(lines)

    def _replacement(self, target: str, name: str) -> str:
        """What a name stands for where the module that defines it is left out: its value, or a stand-in."""
        for statement in self._read(target).tree.body:
            if isinstance(statement, ast.ClassDef | ast.FunctionDef) and statement.name == name:
                return f"absent({json.dumps(name)})"
        try:
            return repr(self._constant(target, name))
        except ValueError as err:
            raise ValueError(
                f"{self._path(target)}: {name!r} is left out of the copy and used there, and it is not a class, a "
                "function or a constant, for which there is something to put in its place."
            ) from err

    def _constant(self, target: str, name: str) -> object:
        """The value of a constant of a module, which may be made of further ones.

        Raises:
            ValueError: if it is anything else.
        """
        module = self._read(target)
        for statement in _bound(module).get(name, ()):
            if isinstance(statement, ast.Assign):
                values = {other: self._constant(target, other) for other in _names(statement.value)[0]}
                return ast.literal_eval(_Filled(values).visit(copy.deepcopy(statement.value)))
            if _is_own(statement):
                return self._constant(self._target(module, statement), name)
        raise ValueError(name)


class _Filled(ast.NodeTransformer):
    """Puts values in place of the names in an expression."""

    def __init__(self, values: dict[str, object]) -> None:
        self.values = values

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return ast.parse(repr(self.values[node.id]), mode="eval").body


@cache
def _read(name: str, path: Path) -> _Module:
    source = path.read_text(encoding="utf-8")
    return _Module(name, source, ast.parse(source, str(path)))


def _first_line(path: Path, root: Path) -> str:
    return f"{FIRST_LINE}{path.relative_to(root).as_posix()}\n"


def _flat(name: str) -> str:
    return name.replace(".", "_")


# ------------------------------------------------------------------------------------------------ reading


@cache
def _bound(module: _Module) -> dict[str, list[ast.stmt]]:
    """Name -> the statements at the top of a module that bind it; under `_ALWAYS` what is more than a definition."""
    found: dict[str, list[ast.stmt]] = {}
    for statement in module.tree.body:
        if not _is_for_type_checkers(statement):
            for name in _bound_names(statement) or [_ALWAYS]:
                found.setdefault(name, []).append(statement)
    return found


def _is_for_type_checkers(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.If) and ast.unparse(statement.test) == "TYPE_CHECKING"


def _bound_names(statement: ast.stmt) -> list[str]:
    """Names that a definition binds; none of a statement that does more."""
    if isinstance(statement, Import):
        return [_bound_name(alias) for alias in statement.names]
    if isinstance(statement, ast.ClassDef | ast.FunctionDef):
        return [statement.name]
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    if isinstance(statement, ast.AnnAssign):
        targets = [statement.target]
    names = [node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)]
    return names if all(isinstance(target, ast.Name | ast.Tuple) for target in targets) else []


def _bound_name(alias: ast.alias) -> str:
    return alias.asname or _library(alias.name)


def _library(module: str) -> str:
    return module.partition(".")[0]


@cache
def _names(tree: ast.AST) -> tuple[frozenset[str], frozenset[str]]:
    """Names that code reads when it runs, and those in annotations of arguments, results and local variables.

    Annotations of fields count as read: `dataclass` and `strict` look at them.
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

    visit(tree, running, in_function=False)
    return frozenset(running), frozenset(annotating)


def _imports(node: ast.AST) -> Iterator[Import]:
    """A statement itself, if it is an import, or the imports in it."""
    return (child for child in ast.walk(node) if isinstance(child, Import))


def _is_own(statement: ast.AST) -> TypeGuard[ast.ImportFrom]:
    return isinstance(statement, ast.ImportFrom) and statement.level > 0


def _is_always_there(statement: Import) -> bool:
    return {_library(name) for name in _modules(statement)} <= _NEEDED | sys.stdlib_module_names


def _modules(statement: Import) -> list[str]:
    if isinstance(statement, ast.ImportFrom):
        return [statement.module or ""]
    return [alias.name for alias in statement.names]


def _is_in_try(statement: Import, tops: Iterable[ast.stmt]) -> bool:
    """Whether an import may fail already."""
    tries = (node for top in tops for node in ast.walk(top) if isinstance(node, ast.Try))
    return any(statement in ast.walk(node) for node in tries)


def _is_kept(module: _Module, statement: ast.stmt, used: set[str]) -> bool:
    """Whether a statement at the top of a module is in the copy."""
    if _is_for_type_checkers(statement):
        return False
    if isinstance(statement, ast.ImportFrom) and statement.module == "__future__":
        return True
    names = set(_bound_names(statement))
    if isinstance(statement, Import) and not _is_own(statement):  # types of libraries help the reader
        used = used | _names(module.tree)[1]
    return not names or bool(names & used)


# ------------------------------------------------------------------------------------------------ writing


def _import_line(target: str, names: list[str]) -> str:
    line = f"from .{_flat(target)} import {', '.join(names)}"
    if len(line) <= _LINE_WIDTH:
        return line
    listed = "".join(f"    {name},\n" for name in names)
    return f"from .{_flat(target)} import (\n{listed})"


def _guarded_import(statement: Import) -> str:
    """An import that may fail: the error comes where what it brings is used, and says what to install."""
    library = _library(_modules(statement)[0])
    lines = []
    for name in map(_bound_name, statement.names):
        lines.append(f"    {name} = absent({json.dumps(name)}, {json.dumps(_PIP_NAMES.get(library, library))})")
    return "\n".join(["try:", f"    {ast.unparse(statement)}", "except ImportError:", *lines])


def _with_texts(module: _Module, texts: dict[ast.stmt, str]) -> str:
    """A module's text with some of its statements replaced, or dropped where the text is empty."""
    lines = module.source.splitlines(keepends=True)
    for statement in sorted(texts, key=lambda one: one.lineno, reverse=True):
        first, last = _lines_of(module, statement, lines, dropped=not texts[statement])
        indent = " " * statement.col_offset
        lines[first:last] = [f"{indent}{line}".rstrip() + "\n" for line in texts[statement].splitlines()]
    return "".join(lines)


def _lines_of(module: _Module, statement: ast.stmt, lines: list[str], *, dropped: bool) -> tuple[int, int]:
    """Where a statement's lines begin and end; one that is dropped takes what describes it along."""
    first, last = statement.lineno - 1, statement.end_lineno or statement.lineno
    if not dropped:
        return first, last
    first = min([first, *(one.lineno - 1 for one in getattr(statement, "decorator_list", ()))])
    while first > 0 and lines[first - 1].startswith("#"):
        first -= 1
    after = [one for one in module.tree.body if one.lineno > last][:1]
    if isinstance(statement, ast.Assign) and after and _is_text(after[0]):
        last = after[0].end_lineno or last
    if last == len(lines) or not lines[last].strip():  # one of the gaps before and after goes as well
        while first > 0 and not lines[first - 1].strip():
            first -= 1
    return first, last


def _is_text(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
