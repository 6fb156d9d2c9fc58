"""Tests use public names of the package."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
KNOWN = {("modules/test_backbones.py", "_attn_implementation_internal")}  # of transformers: what it has for it


def test_tests_use_public_names():
    """A private name may change with any line around it; it is one also in a string for `monkeypatch`."""
    found = {
        (path.relative_to(TESTS).as_posix(), name)
        for path in TESTS.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        for name in private_names(node)
    }
    assert found == KNOWN


def private_names(node: ast.AST) -> Iterator[str]:
    """Private names of the package, or of an object of it, that a node of a test uses."""
    if isinstance(node, ast.Constant) and re.fullmatch(r"xlgen_hf[\w.]*\._\w+", str(node.value)):
        yield node.value.rpartition(".")[2]
    elif isinstance(node, ast.Attribute) and is_private(node.attr) and ast.unparse(node.value) not in ("self", "cls"):
        yield node.attr
    elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("getattr", "setattr")):
        names = (one.value for one in node.args[1:2] if isinstance(one, ast.Constant))
        yield from (name for name in names if isinstance(name, str) and is_private(name))
    elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("xlgen_hf"):
        yield from (alias.name for alias in node.names if is_private(alias.name))


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


@pytest.mark.parametrize(
    "source",
    [
        "monkeypatch.setattr('xlgen_hf.data.rows._MOST', 3)", "monkeypatch.setattr(rows, '_MOST', 3)", "rows._MOST",
        "from xlgen_hf.data.rows import _MOST",
    ],
)  # fmt: skip
def test_private_names_are_seen_however_they_are_used(source):
    assert [name for node in ast.walk(ast.parse(source)) for name in private_names(node)] == ["_MOST"]
    public = ast.walk(ast.parse(source.replace("_MOST", "MOST")))
    assert not [name for node in public for name in private_names(node)]
