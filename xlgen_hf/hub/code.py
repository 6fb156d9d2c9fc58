"""The modules that a model needs where this package is not installed, as transformers' `trust_remote_code` wants them.

They go up flat, beside the weights. transformers refuses to load them where a package that they import is missing, so
imports of packages that only making clusters needs are made optional.
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

from ..errors import ModelFolderError
from ..files.serialization import read_json

__all__ = ["add_code", "code_files"]

_ENTRIES = ("configuration_xlgen", "modeling_xlgen", "processing_xlgen")
_AUTO_MAP = {
    "AutoConfig": "configuration_xlgen.XLGenConfig",
    "AutoModelForSeq2SeqLM": "modeling_xlgen.XLGenForConditionalGeneration",
    "AutoProcessor": "processing_xlgen.XLGenProcessor",
}
_PROCESSOR_MAP = {"AutoProcessor": _AUTO_MAP["AutoProcessor"]}
_RELATIVE = re.compile(r"^\s*from\s+\.(\w+)\s+import", re.MULTILINE)
# Top-level imports, one line or in brackets, of what prediction does not need.
_OPTIONAL = re.compile(
    r"^(?:from (?:sklearn|scipy|threadpoolctl)[\w.]* import (?:\([^)]*\)|[^\n(]*)|import threadpoolctl[^\n]*)\n",
    re.MULTILINE,
)
_PACKAGE = Path(__file__).parent


@cache
def code_files() -> tuple[str, ...]:
    """Names of the modules that a repository with code holds: the entries, and what they import of this package."""
    found: dict[str, None] = {}
    waiting = list(_ENTRIES)
    while waiting:
        module = waiting.pop()
        if module not in found:
            found[module] = None
            waiting += _RELATIVE.findall((_PACKAGE / f"{module}.py").read_text(encoding="utf-8"))
    return tuple(f"{module}.py" for module in sorted(found))


def add_code(folder: Path, *, with_code: bool) -> dict[str, bytes]:
    """The files of a model's folder that differ between a repository with and one without code.

    Args:
        folder: the model's folder.
        with_code: whether the repository holds code. Without it, what the configs say of code is left out: a model
            that came from a repository with code still says so.

    Returns:
        Name -> content: configs, and with code the modules.

    Raises:
        ModelFolderError: if a config is no JSON object.
    """
    files = {}
    for name, entries in (("config.json", _AUTO_MAP), ("processor_config.json", _PROCESSOR_MAP)):
        if (folder / name).is_file():
            files[name] = _with_auto_map(folder / name, entries if with_code else None)
    if with_code:
        for name in code_files():
            files[name] = _optional_imports((_PACKAGE / name).read_text(encoding="utf-8")).encode()
    return files


def _with_auto_map(path: Path, entries: dict[str, str] | None) -> bytes:
    content: Any = read_json(path)
    if not isinstance(content, dict):
        raise ModelFolderError(f"{path}: an object is expected, not {type(content).__name__}.")
    if entries is None and "auto_map" not in content:
        return path.read_bytes()
    content.pop("auto_map", None)
    if entries is not None:
        content["auto_map"] = entries
    return (json.dumps(content, ensure_ascii=False, indent=2) + "\n").encode()


def _optional_imports(source: str) -> str:
    """Put imports that prediction does not need into a `try` block, which transformers does not look into."""

    def guarded(match: re.Match[str]) -> str:
        lines = "".join(f"    {line}\n" for line in match.group(0).splitlines())
        return f"try:\n{lines}except ImportError:\n    pass\n"

    return _OPTIONAL.sub(guarded, source)
