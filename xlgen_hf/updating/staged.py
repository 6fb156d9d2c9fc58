"""Names of new labels from a file: a list of names, or what predictions collected."""

from __future__ import annotations

from pathlib import Path

from ..data.rows import load_label_names
from ..errors import ConfigurationError, DataError
from ..prediction.staging import StagedLabels

__all__ = ["read_new_labels"]


def read_new_labels(path: str | Path, min_count: int = 1) -> list[str]:
    """The names of new labels.

    Args:
        path: one name per line, or, where the name ends in `.jsonl`, labels that `xlgen predict --stage-novel`
            collected; lines of it may be taken out first.
        min_count: texts that a collected label needs.

    Raises:
        ConfigurationError: if there is a `min_count` and the file is a list of names.
        DataError: if the file is missing or holds no name.
        ModelFolderError: if collected labels cannot be read.
    """
    path = Path(path)
    if path.suffix != ".jsonl":
        if min_count > 1:
            raise ConfigurationError(f"{path} has no counts, so min_count={min_count} has no effect on it.")
        return load_label_names(path)
    if not path.is_file():
        raise DataError("There is no such file.", file=path)
    names = [one["label"] for one in StagedLabels(path) if one["count"] >= min_count]
    if not names:
        raise DataError(f"There is no label of at least {min_count} texts.", file=path)
    return names
