"""The house rules that a program can hold: who may import whom, sizes, and public names.

Everything is read from the source, so imports inside of functions and for type checkers count like all others.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "xlgen_hf"

# Packages and modules of the root, from the ground up: each may import only what stands before it.
ORDER = (
    "errors", "version", "settings", "configuration_xlgen", "files", "encoders", "labels", "ranking", "data",
    "plots", "hub", "retrieval", "processing_xlgen", "decoding", "modules", "prediction", "modeling_xlgen", "loading",
    "exporting", "pipeline", "evaluation", "training", "updating", "serving", "demo", "experiments", "quickstart",
    "cli", "_registration", "__init__", "__main__",
)  # fmt: skip
MOST_LINES_OF_FILE = 500
MOST_LINES_OF_FUNCTION = 40  # of its body, docstring not counted
MOST_ANY = 150  # times that the word stands in the code, imports and docstrings included
# Programs of their own, which know nothing of the package.
WORKERS = {"demo.document_worker", "experiments.systems.pecos_worker"}

# What breaks a rule and is being mended: the tests fail, too, when an entry no longer does.
KNOWN_UPWARDS: set[str] = set()
KNOWN_HEAVY: set[str] = set()
KNOWN_LONG: set[str] = set()

# What loading a model and predicting with it must not import: libraries that fit, read data or draw.
HEAVY = {"datasets", "evaluate", "matplotlib", "pandas", "peft", "pyarrow", "scipy.cluster", "sklearn", "typer"}
# Modules of this package that it must not import either.
FITTING = (
    "cli", "data", "demo", "evaluation", "experiments", "hub.cards", "hub.commits", "labels.clustering", "quickstart",
    "serving", "training",
)  # fmt: skip


class Import(NamedTuple):
    """An import of something of the package by one of its modules.

    Attributes:
        module, target: the modules, named as in `labels.space`.
        names: what is imported of the target; empty where it is imported whole.
        line: number of the line in the module's file.
    """

    module: str
    target: str
    names: tuple[str, ...]
    line: int

    @property
    def edge(self) -> str:
        return f"{self.module} imports {self.target}"

    @property
    def place(self) -> str:
        return f"{path_of(self.module).relative_to(ROOT)}:{self.line}"


def path_of(module: str) -> Path:
    return PACKAGE.joinpath(*module.split(".")).with_suffix(".py")


@cache
def modules() -> dict[str, ast.Module]:
    """All modules by name: `labels.space`, `labels.__init__`, `__init__`."""
    paths = sorted(path for path in PACKAGE.rglob("*.py"))
    names = [".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in paths]
    return {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in zip(names, paths, strict=True)}


@cache
def imports() -> tuple[Import, ...]:
    return tuple(found for module, tree in modules().items() for found in imports_of(module, tree))


def imports_of(module: str, tree: ast.Module) -> Iterator[Import]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            target = absolute(module, "." * node.level + (node.module or ""))
            if target is not None:
                yield from import_from(module, target, node)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                target = absolute(module, alias.name)
                if target is not None:
                    yield Import(module, target, (), node.lineno)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            target = absolute(module, imported_by_call(node.args[0]))
            if target is not None:
                yield Import(module, target, (), node.lineno)


def import_from(module: str, target: str, node: ast.ImportFrom) -> Iterator[Import]:
    """`from .labels import space` imports a module, `from .labels.space import LabelSpace` a name of one."""
    names = []
    for alias in node.names:
        inside = join(target, alias.name)
        whole = [name for name in (inside, f"{inside}.__init__") if name in modules()]
        names += [] if whole else [alias.name]
        yield from (Import(module, name, (), node.lineno) for name in whole)
    if names:
        yield Import(module, target if target in modules() else join(target, "__init__"), tuple(names), node.lineno)


def join(package: str, name: str) -> str:
    return ".".join(filter(None, [package, name]))


def imported_by_call(argument: ast.expr) -> str:
    """What `import_module` imports, of a constant or of an f-string that begins with the module's own package."""
    if isinstance(argument, ast.Constant):
        return str(argument.value)
    return ast.unparse(argument).removeprefix("f'{__package__}").rstrip("'")


def absolute(module: str, target: str) -> str | None:
    """Name of an imported module within the package; None for one of another package."""
    level = len(target) - len(target.lstrip("."))
    if level:
        return ".".join([*module.split(".")[:-level], *filter(None, target[level:].split("."))])
    first, _, rest = target.partition(".")
    return rest if first == "xlgen_hf" else None


def floor(module: str) -> int:
    return ORDER.index(module.split(".")[0] or "__init__")


def check_exactly(found: Iterable[tuple[str, str]], known: set[str], rule: str) -> None:
    """Fail on offences that are not known, and on known ones that are mended.

    Args:
        found: offences, each as it stands among the known ones, and with its place as it is reported.
        known: those that are being mended.
        rule: what they offend.
    """
    offences = dict(found)
    new = [report for offence, report in offences.items() if offence not in known]
    mended = sorted(known - set(offences))
    assert not new, "\n".join([rule, *new])
    assert not mended, f"These are mended; take them out of the list of known offenders: {mended}"


# ---------------------------------------------------------------------------------------------------- imports


def test_every_module_has_a_floor():
    unknown = sorted({module.split(".")[0] for module in modules()} - set(ORDER))
    assert not unknown, f"{unknown} stand nowhere in the order of packages; CONTRIBUTING.md tells how it goes."


def test_imports_run_down():
    """From a package to those before it, or within it; imports in functions and for type checkers are no exception."""
    upwards = [
        (found.edge, f"{found.place} imports {found.target}, which stands above {found.module.split('.')[0]}")
        for found in imports()
        if floor(found.target) > floor(found.module)
    ]
    check_exactly(upwards, KNOWN_UPWARDS, "Imports that run back up:")


def test_no_modules_import_each_other():
    edges: dict[str, set[str]] = {}
    for found in imports():
        if found.edge not in KNOWN_UPWARDS:
            edges.setdefault(found.module, set()).add(found.target)
    circles = list(find_circles(edges))
    assert not circles, "Modules that import each other:\n" + "\n".join(" -> ".join(circle) for circle in circles)


def find_circles(edges: dict[str, set[str]]) -> Iterator[list[str]]:
    """A circle for every import that closes one, depth first."""
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> Iterator[list[str]]:
        if module in path:
            yield [*path[path.index(module) :], module]
        elif module not in done:
            for target in sorted(edges.get(module, ())):
                yield from visit(target, [*path, module])
            done.add(module)

    for module in sorted(edges):
        yield from visit(module, [])


def test_metrics_and_workers_stand_alone():
    """`evaluate` copies the folder of a metric, and PECOS runs in a Python of its own: neither has this package."""
    for path in [*(ROOT / "evaluate_metrics").rglob("*.py"), *map(path_of, WORKERS)]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if is_import(node):
                assert "xlgen_hf" not in ast.unparse(node), f"{path.relative_to(ROOT)}:{node.lineno}"
    assert not [found for found in imports() if found.module in WORKERS]


# ---------------------------------------------------------------------------------------------------- weight


def test_what_predicts_imports_nothing_heavy():
    """What is imported when a model or a pipeline is, lets libraries wait that only some models and fitting need."""
    heavy = []
    for module in imported_at_once("modeling_xlgen", "pipeline"):
        assert not module.startswith(FITTING), f"Importing a model imports {module}."
        for node in at_once(modules()[module]):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                names = [] if node.level else [node.module or ""]
            for library in HEAVY & {part for name in names for part in (name, name.split(".")[0])}:
                what = f"imports {library}"
                heavy.append((f"{module} {what}", f"{path_of(module).relative_to(ROOT)}:{node.lineno} {what}"))
    check_exactly(heavy, KNOWN_HEAVY, "Import inside of the function that needs it, or move what fits elsewhere:")


def imported_at_once(*start: str) -> set[str]:
    """Modules that importing some modules imports."""
    found: set[str] = set()
    waiting = list(start)
    while waiting:
        module = waiting.pop()
        if module not in found:
            found.add(module)
            tree = ast.Module(list(at_once(modules()[module])), [])
            waiting += [one.target for one in imports_of(module, tree)]
    return found


def at_once(tree: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Imports that run when the module is imported."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif not isinstance(node, ast.FunctionDef) and not ast.unparse(node).startswith("if TYPE_CHECKING:"):
            yield from at_once(node)


def test_one_package_draws():
    """All pictures have one style, since no other package can draw."""
    for module, tree in modules().items():
        names = {ast.unparse(node).split()[1].split(".")[0] for node in ast.walk(tree) if is_import(node)}
        assert module.startswith("plots.") or not names & {"matplotlib", "PIL"}, module


# Refuses what of this package's modules imports something heavy; what transformers imports is its own business.
PREDICT = """
import json, sys
from importlib.abc import MetaPathFinder

heavy, fitting, folder = json.loads(sys.argv[1])

class Refuse(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        frame = sys._getframe(1)
        while "importlib" in frame.f_code.co_filename:
            frame = frame.f_back
        if name in heavy and frame.f_globals["__name__"].startswith("xlgen_hf"):
            raise ImportError(f"{frame.f_globals['__name__']}:{frame.f_lineno} imports {name}")

sys.meta_path.insert(0, Refuse())
import xlgen_hf.loading  # an exported index is predicted with without the classes of models, half of a start
assert not {"transformers.modeling_utils", "transformers.generation.utils"} & sys.modules.keys()
from transformers import pipeline
ranked = pipeline("extreme-multilabel-classification", model=folder, device="cpu")("a history of art")
model = xlgen_hf.XLGenForConditionalGeneration.from_pretrained(folder)
processor = xlgen_hf.XLGenProcessor.from_pretrained(folder)
(prediction,) = model.predict(["a history of art"], processor)
names = tuple(f"xlgen_hf.{name}" for name in fitting)
imported = [name for name in sys.modules if name.startswith(names)]
imported += [type(finder).__name__ for finder in sys.meta_path if "WaitForPipelines" in type(finder).__name__]
print(json.dumps([prediction.labels, [row["label"] for row in ranked], imported]))
"""


def test_loading_and_predicting_need_nothing_heavy(make_model, tmp_path):
    model, processor = make_model("bert", "bcl", min_labels=2)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    (expected,) = model.predict(["a history of art"], processor)
    libraries = {known.rpartition(" ")[2] for known in KNOWN_HEAVY}
    arguments = json.dumps([sorted(HEAVY - libraries), FITTING, str(tmp_path)])
    done = subprocess.run([sys.executable, "-c", PREDICT, arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [list(expected.labels), list(expected.labels), []]


# ---------------------------------------------------------------------------------------------------- sizes


def test_files_and_functions_are_short():
    long = []
    for module, tree in modules().items():
        path = path_of(module)
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > MOST_LINES_OF_FILE:
            long.append((f"{module} is a long file", f"{path.relative_to(ROOT)} has {lines} lines"))
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = body_lines(node)
                if lines > MOST_LINES_OF_FUNCTION:
                    place = f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
                    long.append((f"{module} has a long function {node.name}", f"{place} has {lines} lines"))
    rule = f"A file has at most {MOST_LINES_OF_FILE} lines, the body of a function {MOST_LINES_OF_FUNCTION}:"
    check_exactly(long, KNOWN_LONG, rule)


def body_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    body = node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


# ---------------------------------------------------------------------------------------------------- names


def public_names(tree: ast.Module) -> set[str]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value))
    return set()


def test_public_names_are_listed():
    """Functions and classes without an underscore, and whatever another module imports, stand in `__all__`."""
    offences = []
    for module, tree in modules().items():
        for node in tree.body:
            is_public = isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
            if is_public and node.name not in public_names(tree) and module not in WORKERS:
                place = f"{path_of(module).relative_to(ROOT)}:{node.lineno}"
                offences.append((f"{module} defines {node.name}", f"{place} defines {node.name}"))
    for found in imports():
        for name in set(found.names) - public_names(modules()[found.target]):
            what = f"imports {name} of {found.target}"
            offences.append((f"{found.module} {what}", f"{found.place} {what}"))
    check_exactly(offences, set(), "Names that are missing in `__all__`, or should be private:")


def test_listed_names_exist():
    for module, tree in modules().items():
        defined = {getattr(node, "name", None) for node in tree.body}
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                defined.add(node.id)
            elif is_import(node):
                defined.update(alias.asname or alias.name for alias in node.names)
        missing = public_names(tree) - defined
        assert not missing, f"{path_of(module).relative_to(ROOT)}: __all__ lists {sorted(missing)}"


def is_import(node: ast.AST) -> bool:
    return isinstance(node, ast.Import | ast.ImportFrom)


# ---------------------------------------------------------------------------------------------------- types


def test_few_types_are_any():
    """`Any` switches the type checker off; `JSON`, protocols, a `TypedDict` and `object` do not."""
    found = {module: len(re.findall(r"\bAny\b", path_of(module).read_text(encoding="utf-8"))) for module in modules()}
    by_package: Counter[str] = Counter()
    for module, number in found.items():
        by_package[module.split(".")[0]] += number
    most = ", ".join(f"{package} {number}" for package, number in by_package.most_common(5) if number)
    total = sum(found.values())
    assert total < MOST_ANY, (
        f"`Any` stands {total} times in xlgen_hf, at most {MOST_ANY - 1} are allowed; most: {most}."
    )


def test_forms_and_types_of_files_have_the_same_fields():
    """A file's form says at run time what its `TypedDict` says to the type checker."""
    for module, tree in modules().items():
        classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
        for name, fields in forms_of(tree):
            if name in classes:
                place = f"{path_of(module).relative_to(ROOT)}: {name} and its form"
                assert fields_of(classes[name], classes) == fields, place


def forms_of(tree: ast.Module) -> Iterator[tuple[str, set[str]]]:
    """Type and fields of each `Fields[Type]({...})` whose fields are spelled out."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("Fields["):
            fields = node.args[0]
            if isinstance(fields, ast.Dict) and all(isinstance(key, ast.Constant) for key in fields.keys):
                yield (
                    ast.unparse(node.func)[len("Fields[") : -1],
                    {ast.literal_eval(key) for key in fields.keys if key},
                )


def fields_of(node: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> set[str]:
    own = {ast.unparse(one.target) for one in node.body if isinstance(one, ast.AnnAssign)}
    bases = [classes[ast.unparse(base)] for base in node.bases if ast.unparse(base) in classes]
    return own.union(*(fields_of(base, classes) for base in bases))


# ---------------------------------------------------------------------------------------------------- tests


def test_tests_mirror_the_packages():
    folders = {path.parent.name for path in (ROOT / "tests").glob("*/test_*.py")}
    assert folders <= {path.parent.name for path in PACKAGE.glob("*/__init__.py")}


# ---------------------------------------------------------------------------------------------------- this file


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("from ..cli.main import run", "cli.main"),
        ("from ..cli import main", "cli.main"),
        ("from .trie import LabelTrie", "labels.trie"),
        ("import xlgen_hf.cli.main", "cli.main"),
        ("from xlgen_hf import cli", "cli.__init__"),
        ("from .. import __version__", "__init__"),
        ("if TYPE_CHECKING:\n    from ..cli.main import run", "cli.main"),
        ("def f():\n    from ..cli.main import run", "cli.main"),
        ("import_module('xlgen_hf.cli.main')", "cli.main"),
        ("importlib.import_module('..cli.main', __package__)", "cli.main"),
        ("import_module(f'{__package__}.space')", "labels.space"),
    ],
)
def test_every_way_to_import_is_seen(source, target):
    (found,) = imports_of("labels.tokens", ast.parse(source))
    assert (found.target, found.line) == (target, source.count("\n") + 1)


def test_fields_of_a_form_and_of_its_type_are_found():
    tree = ast.parse("class A(TypedDict):\n    x: int\nclass B(A, total=False):\n    y: int\nF = Fields[B]({'x': 1})")
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    assert list(forms_of(tree)) == [("B", {"x"})]
    assert fields_of(classes["B"], classes) == {"x", "y"}


@pytest.mark.parametrize(
    "source", ["import torch", "from torch import nn", "import_module('peft')", "import_module(x)"]
)
def test_other_packages_are_not_of_interest(source):
    assert list(imports_of("labels.tokens", ast.parse(source))) == []


def test_a_circle_is_found():
    assert list(find_circles({"a": {"b"}, "b": {"c"}, "c": {"a"}})) == [["a", "b", "c", "a"]]
    assert list(find_circles({"a": {"b", "c"}, "b": {"c"}})) == []


def test_a_mended_offence_must_leave_the_list():
    offence = ("a imports b", "a.py:1 imports b, which stands above a")
    check_exactly([offence], {"a imports b"}, "Rule:")
    with pytest.raises(AssertionError, match=r"Rule:\s+a.py:1 imports b, which stands above a"):
        check_exactly([offence], set(), "Rule:")
    with pytest.raises(AssertionError, match=r"These are mended.*'a imports b'"):
        check_exactly([], {"a imports b"}, "Rule:")
