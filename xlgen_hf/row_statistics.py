"""Facts about rows of text and labels, for reports and cards."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from datasets import Dataset

__all__ = ["row_facts", "rows_sha256"]


def rows_sha256(rows: Dataset) -> str:
    """SHA-256 of rows in their order, each a line of JSON `{"text": ..., "labels": [...]}` in UTF-8.

    It does not depend on the format or file that the rows came from, so it tells whether two people used one split.
    """
    digest = hashlib.sha256()
    for row in rows:
        line = json.dumps({"text": row["text"], "labels": row["labels"]}, ensure_ascii=False)
        digest.update(line.encode("utf-8") + b"\n")
    return digest.hexdigest()


def row_facts(rows: Dataset, source: str | None = None) -> dict[str, Any]:
    """Number of rows, mean number of labels, and hash.

    Args:
        rows: rows with `text` and `labels`.
        source: where they come from; left out if None.
    """
    labels = sum(map(len, rows["labels"]))
    facts: dict[str, Any] = {"rows": len(rows), "labels_per_row": labels / max(len(rows), 1)}
    return facts | {"sha256": rows_sha256(rows), "source": source}
