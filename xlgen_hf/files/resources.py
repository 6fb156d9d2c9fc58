"""Folders that belong to the package but hold no part of it: the evaluate metrics and the hub cards.

They lie in the package when it was installed from a wheel, and next to it in a checkout. Nothing here imports them as
packages: an editable install and a checkout that is not installed have no import name for them.
"""

from __future__ import annotations

import importlib
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

__all__ = ["load_metric_module", "resource_folder"]

_PACKAGE = Path(__file__).parent.parent


@cache
def resource_folder(name: str) -> Path:
    """Find `evaluate_metrics` or `hub_cards`.

    Raises:
        FileNotFoundError: if the installation lacks the folder.
    """
    places = [_PACKAGE / name, _PACKAGE.parent / name]
    for place in places:
        if place.is_dir():
            return place
    raise FileNotFoundError(
        f"The folder {name} is missing; looked for {' and '.join(map(str, places))}. Install xlgen-hf again."
    )


@cache
def load_metric_module(metric: str, module: str) -> ModuleType:
    """Import a helper file of a metric folder, so that the package and the metric share one implementation.

    Args:
        metric: a folder of `evaluate_metrics`.
        module: a Python file in it, without its ending.

    Raises:
        FileNotFoundError: if there is no such metric or file.
    """
    folder = resource_folder("evaluate_metrics") / metric
    if not (folder / f"{module}.py").is_file():
        raise FileNotFoundError(f"{folder / module}.py is missing. Install xlgen-hf again.")
    parent = f"{__package__}._metric_{metric}"
    if parent not in sys.modules:  # a package without a file of its own gives the helpers their relative imports
        package = ModuleType(parent)
        package.__path__ = [str(folder)]
        sys.modules[parent] = package
    return importlib.import_module(f"{parent}.{module}")
