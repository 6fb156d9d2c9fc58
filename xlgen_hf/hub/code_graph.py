"""What some names of a package use, name by name and method by method, found in its syntax trees."""

from __future__ import annotations

import ast
import copy
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple, TypeGuard

__all__ = [
    "CodeGraph",
    "Import",
    "Module",
    "bound_name",
    "is_for_the_package",
    "is_own",
    "names_read",
    "read_module",
    "walk",
]

Import = ast.Import | ast.ImportFrom
_ALWAYS = ""  # stands for what of a module runs whatever is used of it


class Module(NamedTuple):
    """A module of the package: its name there, `labels.space`, its text and its syntax tree."""

    name: str
    source: str
    tree: ast.Module


class CodeGraph:
    """The definitions of a package that some of its names use.

    Methods of a class without bases, and without classes that it is a base of, count as used where anything that is
    used reads an attribute of that name, or holds the name as a string. Of all other classes, and of those among the
    entries, every method counts as used, for libraries and users may call it, unless it is left out.

    Args:
        package: the package's folder.
        left_out: packages, modules, and definitions in them, named as in `labels.space.LabelSpace` or
            `labels.space.LabelSpace.save`, that count as unused whatever uses them.
        entries: module -> names of it that are used.

    Raises:
        ValueError: if something that is left out is not there.
    """

    def __init__(self, package: Path, left_out: Collection[str], entries: Mapping[str, Collection[str]]) -> None:
        self.package = package
        self.left_out = left_out
        self.entries = entries
        self.used: dict[str, set[str]] = {}
        """Module -> the names of it that are used; methods as `LabelSpace.save`."""
        self._attributes: set[str] = set()
        self._optional: set[tuple[str, str]] = set()  # methods of classes that are used
        self._constants: set[tuple[str, str]] = set()  # of modules of which nothing else may be used
        for name in left_out:
            self._check_is_there(name)
        self._follow([(module, name) for module, names in entries.items() for name in names])

    def _follow(self, waiting: list[tuple[str, str]]) -> None:
        while waiting:
            module, name = waiting.pop()
            if module not in self.used and self._is_constant(module, name):
                self._constants.add((module, name))
            else:
                names = self.used.setdefault(module, set())
                for new in {_ALWAYS, name} - names:
                    names.add(new)
                    waiting += self._uses(self.read(module), new)
            if not waiting:
                waiting += [(m, n) for m, n in self._constants if n not in self.used.get(m, {n})]
                waiting += [(m, n) for m, n in self._optional if self._is_called(n) and n not in self.used[m]]

    def _check_is_there(self, left_out: str) -> None:
        """Refuse the name of what was renamed or moved: it would be copied, and nobody would notice."""
        parts = left_out.split(".")
        end = next((end for end in range(len(parts), 0, -1) if self.path(".".join(parts[:end])).is_file()), None)
        if end is None and self.package.joinpath(*parts).is_dir():
            return
        found: list[ast.stmt] = [] if end is None else self.read(".".join(parts[:end])).tree.body
        for name in parts[end or 0 :]:
            of_name = [one for one in found if name in _bound_names(one)]
            if not of_name:
                found = []
                break
            found = getattr(of_name[0], "body", []) or of_name
        if not found:
            raise ValueError(f"{left_out} is left out of the code for models, and there is no such thing.")

    def _is_called(self, method: str) -> bool:
        return method.partition(".")[2] in self._attributes

    def is_left_out(self, name: str) -> bool:
        """Whether a definition stays out: it, its class, its module or its package."""
        parts = name.split(".")
        return any(".".join(parts[:end]) in self.left_out for end in range(1, len(parts) + 1))

    def read(self, name: str) -> Module:
        """A module by its name."""
        return read_module(name, self.path(name))

    def path(self, name: str) -> Path:
        """The file of a module."""
        return self.package.joinpath(*name.split(".")).with_suffix(".py")

    def target(self, module: Module, statement: ast.ImportFrom) -> str:
        """The module that an import of another one reads.

        Raises:
            ValueError: if it imports a module whole.
        """
        parents = module.name.split(".")[: -statement.level]
        target = ".".join([*parents, statement.module or ""])
        if not self.path(target).is_file():
            raise ValueError(
                f"{self.path(module.name)}, line {statement.lineno}: transformers follows only imports of names out "
                "of modules; write `from .module import name`."
            )
        return target

    def constant(self, target: str, name: str) -> object:
        """The value of a constant of a module, which may be made of further ones.

        Raises:
            ValueError: if it is anything else.
        """
        module = self.read(target)
        for statement in _bound(module).get(name, ()):
            if isinstance(statement, ast.Assign):
                values = {other: self.constant(target, other) for other in names_read(statement.value)}
                return ast.literal_eval(_Filled(values).visit(copy.deepcopy(statement.value)))
            if is_own(statement):
                return self.constant(self.target(module, statement), name)
        raise ValueError(name)

    def _is_constant(self, module: str, name: str) -> bool:
        try:
            self.constant(module, name)
        except ValueError:
            return False
        return True

    def keeps(self, module: Module, statement: ast.stmt) -> bool:
        """Whether something at the top of a module is used, or imports libraries."""
        if isinstance(statement, ast.ImportFrom) and statement.module == "__future__":
            return True
        if isinstance(statement, Import) and not is_own(statement):  # types of libraries help the reader
            return True
        names = set(_bound_names(statement))
        return not _is_not_copied(statement) and (not names or bool(names & self.used[module.name]))

    def unused_methods(self, module: Module) -> list[ast.FunctionDef]:
        """Methods that are not used, of the classes of a module that are."""
        used = self.used[module.name]
        classes = [one for one in module.tree.body if isinstance(one, ast.ClassDef) and one.name in used]
        return [
            method
            for one in classes
            for method in self._methods(module.name, one)
            if f"{one.name}.{method.name}" not in used
        ]

    def _methods(self, module: str, node: ast.ClassDef) -> list[ast.FunctionDef]:
        """The methods of a class that may be unused."""
        is_base = node.name in _bases(self.package)
        is_alone = not node.bases and not is_base and node.name not in self.entries.get(module, ())
        return [
            one
            for one in node.body
            if isinstance(one, ast.FunctionDef)
            and (self.is_left_out(f"{module}.{node.name}.{one.name}") or (is_alone and not one.name.startswith("__")))
        ]

    def _uses(self, module: Module, name: str) -> Iterator[tuple[str, str]]:
        """Modules and names of them that a name of a module uses."""
        bound = _bound(module)
        for statement in self._statements(module, name):
            methods = self._methods(module.name, statement) if isinstance(statement, ast.ClassDef) else []
            for method in methods:
                if not self.is_left_out(f"{module.name}.{name}.{method.name}"):
                    self._optional.add((module.name, f"{name}.{method.name}"))
            self._attributes |= _attributes(statement, methods)
            for other in names_read(statement, methods):
                if other in bound and other != name and not self.is_left_out(f"{module.name}.{other}"):
                    yield module.name, other
            for own in filter(is_own, walk(statement, methods)):
                target = self.target(module, own)
                for alias in own.names:
                    is_meant = own is not statement or bound_name(alias) == name
                    if is_meant and not self.is_left_out(f"{target}.{alias.name}"):
                        yield target, alias.name

    def _statements(self, module: Module, name: str) -> list[ast.stmt]:
        """What binds a name at the top of a module, or a method of a class."""
        top, dot, method = name.partition(".")
        found = _bound(module).get(top, [])
        if not dot:
            return found
        classes = [one for one in found if isinstance(one, ast.ClassDef)]
        return [one for node in classes for one in self._methods(module.name, node) if one.name == method]


class _Filled(ast.NodeTransformer):
    """Puts values for the names in an expression."""

    def __init__(self, values: dict[str, object]) -> None:
        self.values = values

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return ast.parse(repr(self.values[node.id]), mode="eval").body


@cache
def read_module(name: str, path: Path) -> Module:
    """A module by its name in the package and its file."""
    source = path.read_text(encoding="utf-8")
    return Module(name, source, ast.parse(source, str(path)))


@cache
def _bases(package: Path) -> frozenset[str]:
    """Names of all classes of a package from which others are derived."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in package.rglob("*.py")]
    classes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    return frozenset(ast.unparse(base).rpartition(".")[2] for node in classes for base in node.bases)


@cache
def _bound(module: Module) -> dict[str, list[ast.stmt]]:
    """Name -> the statements at the top of a module that bind it; under `_ALWAYS` what is more than a definition."""
    found: dict[str, list[ast.stmt]] = {}
    for statement in module.tree.body:
        if not _is_not_copied(statement):
            for name in _bound_names(statement) or [_ALWAYS]:
                found.setdefault(name, []).append(statement)
    return found


def _is_not_copied(statement: ast.stmt) -> bool:
    is_for_type_checkers = isinstance(statement, ast.If) and ast.unparse(statement.test) == "TYPE_CHECKING"
    return is_for_type_checkers or is_for_the_package(statement)


def is_for_the_package(node: ast.AST) -> bool:
    """Whether something runs in the package alone: `if __package__ == "xlgen_hf": ...`."""
    return isinstance(node, ast.If) and ast.unparse(node.test).startswith("__package__ == ") and not node.orelse


def _bound_names(statement: ast.stmt) -> list[str]:
    """Names that a definition binds; none of a statement that does more."""
    if isinstance(statement, Import):
        return [bound_name(alias) for alias in statement.names]
    if isinstance(statement, ast.ClassDef | ast.FunctionDef):
        return [statement.name]
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    if isinstance(statement, ast.AnnAssign):
        targets = [statement.target]
    names = [node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)]
    return names if all(isinstance(target, ast.Name | ast.Tuple) for target in targets) else []


def bound_name(alias: ast.alias) -> str:
    """The name that an import gives to what it imports."""
    return alias.asname or alias.name.partition(".")[0]


def is_own(statement: ast.AST) -> TypeGuard[ast.ImportFrom]:
    """Whether a statement imports from the package."""
    return isinstance(statement, ast.ImportFrom) and statement.level > 0


def walk(node: ast.AST, skipped: Collection[ast.AST] = (), *, annotations: bool | None = None) -> Iterator[ast.AST]:
    """A node and all below it.

    Args:
        node: where to begin.
        skipped: nodes to leave out with all below them.
        annotations: True for those in annotations that nothing reads when the code runs alone, False for all but
            those, None for all.
    """
    waiting = [(node, False, False)]
    while waiting:
        one, are_read, is_annotation = waiting.pop()
        if one in skipped or is_for_the_package(one):
            continue
        if annotations is None or is_annotation == annotations:
            yield one
        are_read = (are_read or _reads_annotations(one)) and not isinstance(one, ast.FunctionDef)
        for field, value in ast.iter_fields(one):
            below = is_annotation or field == "returns" or (field == "annotation" and not are_read)
            children = value if isinstance(value, list) else [value]
            waiting += [(child, are_read, below) for child in children if isinstance(child, ast.AST)]


def _reads_annotations(node: ast.AST) -> bool:
    """Whether a class is made of what its annotations stand for: a config, by `strict`, or a table of settings."""
    if not isinstance(node, ast.ClassDef):
        return False
    values = [
        one.value.func for one in node.body if isinstance(one, ast.AnnAssign) and isinstance(one.value, ast.Call)
    ]
    called = {one.id for one in (*node.decorator_list, *values) if isinstance(one, ast.Name)}
    return bool(called & {"strict", "setting"})


def names_read(node: ast.AST, skipped: Collection[ast.AST] = ()) -> set[str]:
    """Names that code reads when it runs."""
    return {one.id for one in walk(node, skipped, annotations=False) if isinstance(one, ast.Name)}


def _attributes(node: ast.AST, skipped: Collection[ast.AST]) -> set[str]:
    """Names of attributes that code reads, those in strings included."""
    found = set()
    for one in walk(node, skipped):
        if isinstance(one, ast.Attribute):
            found.add(one.attr)
        elif isinstance(one, ast.Constant) and isinstance(one.value, str) and one.value.isidentifier():
            found.add(one.value)
    return found
