"""Making XLGen known to transformers without importing it: as soon as its pipelines are imported, ours joins them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

__all__ = ["register"]

_PIPELINES = "transformers.pipelines"


class _WaitForPipelines(MetaPathFinder):
    """Lets the module of transformers' pipelines be found as usual, and ours be imported once that has run."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of that one module; no answer for any other."""
        if fullname != _PIPELINES:
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.loader is None:
            return spec
        run = spec.loader.exec_module

        def run_and_register(module: ModuleType) -> None:
            run(module)
            import_module(f"{__package__}.pipeline")

        spec.loader.exec_module = run_and_register  # type: ignore[method-assign]
        return spec


def register() -> None:
    """Make XLGen's names known to what is imported of transformers now, and its pipeline once pipelines are."""
    if "transformers" in sys.modules:  # its Auto classes learn XLGen's names when the model's module is imported
        import_module(f"{__package__}.modeling_xlgen")
    if _PIPELINES in sys.modules:
        import_module(f"{__package__}.pipeline")
    elif not any(isinstance(finder, _WaitForPipelines) for finder in sys.meta_path):
        sys.meta_path.insert(0, _WaitForPipelines())
