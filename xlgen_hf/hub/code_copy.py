"""A flat copy of a part of a package, as transformers' `trust_remote_code` wants it.

transformers fetches the files that a file imports, and follows only `from .name import ...`. So all modules of a
package become one file (`labels/space.py` a section of `xlgen_labels.py`, see `code_merge`); a module of the root
stays a file. A copy is for some names of some modules. It holds what these use (`code_graph`): other definitions are
left out, and modules without any that is used. What is kept stays as it is written, with comments, for whoever reads
it before trusting it; imports are rewritten at their positions in the syntax tree, and what runs in the package alone
is dropped. Docstrings of what is public keep their first paragraph, those of what is private go: they are for those
who write programs with the package; the head of each file names the version that has them.

In place of a method, a class or a function that is left out and yet bound to a name, there is a stand-in that raises
an `ImportError` when it is used (`absent.py`). The same goes for libraries that only some models need, because
transformers refuses a file when any library that it imports is missing. A constant is replaced by its value.
"""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from ..version import __version__
from .code_graph import (
    CodeGraph,
    Import,
    Module,
    bound_name,
    is_for_the_package,
    is_own,
    names_read,
    read_module,
    walk,
)
from .code_merge import Part, import_line, merged, stand_ins

__all__ = ["FIRST_LINE", "copied_files"]

FIRST_LINE = "# Copied from xlgen-hf by `xlgen push model --with-code`, which also replaces and removes it: "
"""How a file of a copy begins; the path of its module or package follows."""

_ABSENT = "absent.py"
_STAND_INS = Path(__file__).with_name(_ABSENT)
# Libraries that every model needs; transformers says what to install where one is missing.
_NEEDED = {"huggingface_hub", "numpy", "safetensors", "scipy", "torch", "tqdm", "transformers"}
_PIP_NAMES = {"sklearn": "scikit-learn"}
_HEADING = "# ----"  # how a comment begins that is the heading of a section

_Texts = dict[ast.stmt, str]


def copied_files(package: Path, entries: Mapping[str, Collection[str]], left_out: Collection[str]) -> dict[str, str]:
    """Copy a part of a package.

    Args:
        package: the package's folder.
        entries: module, named as in `labels.space` -> names of it that the copy is for.
        left_out: packages, modules, and definitions in them, named as in `labels.space.LabelSpace` or
            `labels.space.LabelSpace.save`, that stay out of the copy whatever uses them.

    Returns:
        Name of the file -> its content, sorted.

    Raises:
        ValueError: if a module imports in a way that a flat copy cannot have, two modules of a package define one name
            in different ways, or something that is left out is not there.
    """
    graph = CodeGraph(package, left_out, entries)
    files: dict[str, list[str]] = {}
    for name in _from_the_ground_up(graph):
        files.setdefault(_file(name), []).append(name)
    copied = {f"{file}.py": _text(graph, names) for file, names in files.items()}
    absent = read_module(_ABSENT[:-3], _STAND_INS)
    copied[_ABSENT] = _head(_STAND_INS, Path(__file__).parents[2])
    copied[_ABSENT] += _with_texts(absent, _docstrings(absent, absent.tree.body))
    return dict(sorted(copied.items()))


def _from_the_ground_up(graph: CodeGraph) -> list[str]:
    """The modules that are used, each after those of its package that it imports at its top."""
    ordered: list[str] = []

    def add(name: str) -> None:
        module = graph.read(name)
        for statement in filter(is_own, module.tree.body):
            target = graph.target(module, statement)
            if graph.keeps(module, statement) and target in graph.used and _file(target) == _file(name):
                add(target)
        if name not in ordered:
            ordered.append(name)

    for name in sorted(graph.used):
        add(name)
    return ordered


def _text(graph: CodeGraph, names: Sequence[str]) -> str:
    """The text of a file: a module of the package's root, or those of one of its packages."""
    root = graph.package.parent
    parts = [
        Part(graph.path(name).relative_to(root).as_posix(), _rewritten(graph, graph.read(name))) for name in names
    ]
    of_package = "." in names[0]
    return _head(graph.path(names[0]).parent if of_package else graph.path(names[0]), root) + merged(parts)


def _head(path: Path, root: Path) -> str:
    place = path.relative_to(root).as_posix()
    return f"{FIRST_LINE}{place}\n# Version {__version__}; its docstrings say more: arguments, results, errors.\n"


def _file(name: str) -> str:
    """The file of a module: its own for those of the root, one for all of a package."""
    return f"xlgen_{name.partition('.')[0]}" if "." in name else name


def _rewritten(graph: CodeGraph, module: Module) -> str:
    """The text of a module in the copy."""
    kept = [statement for statement in module.tree.body if graph.keeps(module, statement)]
    texts: _Texts = {statement: "" for statement in module.tree.body if statement not in kept}
    methods = graph.unused_methods(module)
    texts |= _stand_ins_of_definitions(texts, set().union(*(names_read(one, methods) for one in kept)))
    texts |= _stand_ins_of_methods(kept, methods) | _docstrings(module, kept, methods)
    for statement in (one for top in kept for one in walk(top, methods)):
        if is_own(statement):
            aliases = statement.names
            if statement in kept:
                aliases = [alias for alias in aliases if bound_name(alias) in graph.used[module.name]]
            texts[statement] = _own_import(graph, module, graph.target(module, statement), aliases)
        elif isinstance(statement, Import) and not _is_always_there(statement) and not _is_in_try(statement, kept):
            texts[statement] = _guarded_import(statement)
        texts |= {
            one: "" for one in ast.iter_child_nodes(statement) if isinstance(one, ast.If) and is_for_the_package(one)
        }
    if any("absent" in text for text in texts.values()):
        first = module.tree.body[1]
        texts[first] = f"{texts.get(first) or ast.unparse(first)}\nfrom .{_ABSENT[:-3]} import absent"
    return _with_texts(module, texts)


def _stand_ins_of_methods(kept: Iterable[ast.stmt], methods: Collection[ast.FunctionDef]) -> _Texts:
    """Those of the methods of each class that are left out, together at the place of the first."""
    texts: _Texts = {}
    for definition in kept:
        unused = [one for one in getattr(definition, "body", ()) if one in methods]
        texts |= {one: "" for one in unused[1:]}
        texts |= {one: stand_ins([method.name for method in unused], indent=4) for one in unused[:1]}
    return texts


def _stand_ins_of_definitions(dropped: Iterable[ast.stmt], names: Collection[str]) -> _Texts:
    """Those of classes and functions of a module that are left out although it uses them."""
    kinds = ast.ClassDef | ast.FunctionDef
    return {one: stand_ins([one.name]) for one in dropped if isinstance(one, kinds) and one.name in names}


def _docstrings(module: Module, kept: Iterable[ast.stmt], methods: Collection[ast.AST] = ()) -> _Texts:
    """What stays of docstrings: the first paragraph of public ones, nothing of private ones."""
    texts = _short_docstring(module, module.tree)
    private = {below for top in kept if _is_private(top) for below in ast.walk(top)}
    for one in (below for top in kept for below in walk(top, methods)):
        if isinstance(one, ast.ClassDef | ast.FunctionDef):
            is_private = one in private or _is_private(one)
            texts |= _no_docstring(one) if is_private else _short_docstring(module, one)
    return texts


def _is_private(definition: ast.stmt) -> bool:
    """Whether a class or function is private, special methods included."""
    return isinstance(definition, ast.ClassDef | ast.FunctionDef) and definition.name.startswith("_")


def _no_docstring(definition: ast.ClassDef | ast.FunctionDef) -> _Texts:
    """A definition without its docstring, unless it consists of that."""
    first, *others = definition.body
    return {first: ""} if _is_text(first) and others else {}


def _short_docstring(module: Module, definition: ast.Module | ast.ClassDef | ast.FunctionDef) -> _Texts:
    """The first paragraph of a docstring."""
    first = definition.body[0]
    if not _is_text(first):
        return {}
    lines = module.source.splitlines()[first.lineno - 1 : first.end_lineno]
    end = next((i for i, line in enumerate(lines) if not line.strip()), None)
    if end is None:
        return {}
    kept = "\n".join(line[first.col_offset :] for line in lines[:end]).rstrip()
    quotes = lines[-1].rstrip()[-3:]
    return {first: kept + ("\n" if "\n" in kept else "") + quotes}


# ------------------------------------------------------------------------------------------------ imports


def _own_import(graph: CodeGraph, module: Module, target: str, aliases: list[ast.alias]) -> str:
    """What the copy has where a module imports from another one of the package."""
    copied = [alias for alias in aliases if alias.name in graph.used.get(target, ())]
    lines = [import_line(f".{_file(target)}", [ast.unparse(alias) for alias in copied])] if copied else []
    if _file(target) == _file(module.name):
        lines = [f"{alias.asname} = {alias.name}" for alias in copied if alias.asname]
    absent = []
    for alias in (one for one in aliases if one not in copied):
        value = _value(graph, target, alias.name)
        if value is None:
            absent.append(bound_name(alias))
        else:
            lines.append(f"{bound_name(alias)} = {value}")
    return "\n".join([*lines, *([stand_ins(absent)] if absent else [])])


def _value(graph: CodeGraph, target: str, name: str) -> str | None:
    """The value of a constant whose module is not copied; None for what has a stand-in instead."""
    for statement in graph.read(target).tree.body:
        if isinstance(statement, ast.ClassDef | ast.FunctionDef) and statement.name == name:
            return None
    try:
        return repr(graph.constant(target, name))
    except ValueError as err:
        raise ValueError(
            f"{graph.path(target)}: {name!r} is left out of the copy and used there, and it is not a class, a "
            "function or a constant, for which there is something to put in its place."
        ) from err


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
    return "".join(_without_empty_sections(lines))


def _without_empty_sections(lines: list[str]) -> list[str]:
    """The lines of a text without headings of which nothing is left."""
    kept: list[str] = []
    following = ""  # the next line that is not blank
    for line in reversed(lines):
        is_heading = line.lstrip().startswith(_HEADING)
        indent = len(line) - len(line.lstrip())
        ends = not following or following.lstrip().startswith(_HEADING) or not following.startswith(" " * indent)
        if is_heading and ends:
            while kept and not kept[-1].strip():
                kept.pop()
            continue
        kept.append(line)
        following = line if line.strip() else following
    while kept and not kept[0].strip():
        kept.pop(0)
    return kept[::-1]


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
    if _is_text(statement) and not lines[last].strip():  # a docstring, and the gap before what it describes
        return first, last + 1
    if last == len(lines) or not lines[last].strip():  # one of the gaps before and after goes as well
        while first > 0 and not lines[first - 1].strip():
            first -= 1
    return first, last


def _is_text(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
