"""Updates of a model's folder without training: documents join its index, labels change, and all else follows."""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from datasets import Dataset

from ..data.concept_labels import IdForm
from ..data.options import RowOptions
from ..data.rows import RowSource, load_rows, row_ids
from ..encoders.loaded import own_device
from ..errors import ConfigurationError, DataError
from ..files.json_lines import digest
from ..files.outputs import change_folder
from ..files.serialization import JSON
from ..files.updates import UpdateRecord, read_updates, save_update
from ..files.updates import undo_update as undo_files
from ..hub.local_cards import write_local_card
from ..labels.changes import LabelChange, LabelEdits
from ..labels.space import LabelSpace
from ..labels.vocabulary import Vocabulary
from ..labels.vocabulary_edits import edit_vocabulary
from ..retrieval.index_updates import add_texts
from ..training.run_record import digest_of_rows
from .held import HeldParts, load_parts

__all__ = ["KEPT_UPDATES", "UnknownLabels", "undo_update", "update_model"]

logger = logging.getLogger(__name__)

UnknownLabels = Literal["error", "add", "leave-out"]
"""What becomes of labels of added rows that the model does not have."""
KEPT_UPDATES = 3
"""Updates that can be undone, unless a call says otherwise."""
_COMMAND = "xlgen update"
_SHOWN = 5


def update_model(
    folder: str | Path,
    edits: LabelEdits | None = None,
    *,
    rows: RowSource | None = None,
    options: RowOptions | None = None,
    unknown_labels: UnknownLabels = "error",
    keep_previous: int = KEPT_UPDATES,
    device: str | None = None,
) -> UpdateRecord | None:
    """Change labels and indexed documents of a model's folder, without training.

    Labels are renamed, merged, removed and added, then the rows join the index; a text that it has already gets the
    labels of its row. Label ids, counts, trie, clusters, label trees and vocabulary follow, and the change is written
    at one moment, with a journal by which [`undo_update`] takes it back.

    Args:
        folder: the folder of a model, an adapter, an index or label trees.
        edits: what to do to labels. Where there is a vocabulary, a label may be named by any name or the id of its
            concept.
        rows: documents with labels, as `load_rows` takes them; those without join an index that has such ones already.
        options: how the rows are read; they may name the concepts of the model's vocabulary in any way.
        unknown_labels: what becomes of labels of the rows that are not labels of the model: `error`, `add` makes them
            new ones, `leave-out` counts them.
        keep_previous: updates that can be undone from now on; their former files take room in the folder.
        device: where texts and names are embedded; on a GPU where there is one if None.

    Returns:
        The record of the journal; None where there was nothing to change.

    Raises:
        ConfigurationError: if there is no such folder, another process is writing into it, or it has no index that
            rows could join.
        DataError: if rows cannot be read, or name unknown labels.
        LabelSpaceError: if an edit cannot be done, or a name may mean several concepts.
        SaveError: if the disk is full, or the folder cannot be written. The folder is then as it was.
    """
    edits, options, folder = edits or LabelEdits(), options or RowOptions(), Path(folder)
    _check_arguments(unknown_labels, keep_previous)
    with change_folder(folder, command=_COMMAND):
        found = None if rows is None else load_rows(rows, options, split="train")
        request = _request(edits, found, options, unknown_labels)
        done = _already_done(folder, request)
        if done is not None:
            return done
        started = time.monotonic()
        parts = load_parts(folder)
        if parts.retriever is not None:
            parts.retriever.encoder[0].to(device or own_device())
        before = _sizes(parts)
        try:
            changes = _apply(parts, edits, found, options, unknown_labels)
        except DataError as err:
            raise DataError(str(err), file=str(rows) if isinstance(rows, (str, Path)) else None) from err
        if changes is None:
            return None
        changes |= {"before": before, "after": _sizes(parts)}
        with save_update(folder, request, changes, keep=keep_previous) as aside:
            parts.save(folder, aside)
            changes["seconds"] = round(time.monotonic() - started, 1)
        write_local_card(folder, draw=False)
        return read_updates(folder)[-1]


def undo_update(folder: str | Path) -> UpdateRecord:
    """Undo the last update of a model's folder that was not undone: its files are what they were before.

    Args:
        folder: the folder.

    Raises:
        ConfigurationError: if there is no such update, its former files were not kept, or another process is writing
            into the folder.
        SaveError: if the folder cannot be written.
    """
    with change_folder(folder, command=_COMMAND) as place:
        record = undo_files(place)
        write_local_card(place, draw=False)
    return record


def _check_arguments(unknown_labels: str, keep_previous: int) -> None:
    if unknown_labels not in get_args(UnknownLabels):
        raise ConfigurationError(f"unknown_labels={unknown_labels!r}; choose one of {get_args(UnknownLabels)}.")
    if type(keep_previous) is not int or keep_previous < 0:
        raise ConfigurationError(f"keep_previous={keep_previous!r}; it must be an integer >= 0.")


# ---------------------------------------------------------------------------------------------------- the request


def _request(edits: LabelEdits, rows: Dataset | None, options: RowOptions, unknown_labels: str) -> str:
    """What tells an update from others: what was asked for, and the rows themselves, wherever they were read."""
    content = [json.dumps(vars(edits), default=list), repr(options), unknown_labels]
    if rows is not None:
        content.append(digest_of_rows(rows))
        if options.id_column is not None:
            content += map(str, rows[options.id_column])
    return digest(content)


def _already_done(folder: Path, request: str) -> UpdateRecord | None:
    """The last update, if it is this one: its command was killed after it, or is given again."""
    records = [one for one in read_updates(folder) if one["undone"] is None]
    if not records or records[-1]["request"] != request:
        return None
    logger.info("%s holds this update already, as number %d; nothing is done.", folder, records[-1]["number"])
    write_local_card(folder, draw=False)
    return records[-1]


def _with_concepts(edits: LabelEdits, parts: HeldParts) -> LabelEdits:
    """Edits of labels that were named as concepts; new names that a concept has already are left out."""
    vocabulary, space = parts.vocabulary, parts.label_space
    if vocabulary is None:
        return edits
    named = {name: None for name in edits.added if name not in space and vocabulary.find(name)}
    new = [name for name in edits.added if name not in named]
    if named:
        logger.warning(
            "New labels that are names of concepts, which have a label: %d, e.g. %r. They are left out.",
            *(len(edits.added) - len(new), next(iter(named))),
        )
    old_names = vocabulary.labels_of((old for old, _ in edits.renamed), space, unclear=False)
    renamed = zip(old_names, edits.renamed, strict=True)
    known = space if not edits.renamed else {*space.names, *(new_name for _, new_name in edits.renamed)}
    merged = [vocabulary.labels_of(pair, known, unclear=False) for pair in edits.merged]
    return LabelEdits(
        [(old, new_name) for old, (_, new_name) in renamed],
        [(old, other) for old, other in merged],
        vocabulary.labels_of(edits.removed, known, unclear=False),
        new,
    )


# ---------------------------------------------------------------------------------------------------- doing it


@dataclass(frozen=True)
class _Rows:
    """Rows that join the index.

    Attributes:
        texts, labels: of those that are taken.
        ids: what evidence calls these.
        unknown: labels that the model does not have, with the number of rows.
        new: those of them that become labels.
        without_labels: rows that are left out.
    """

    texts: list[str]
    labels: list[list[str]]
    ids: list[str]
    unknown: Counter[str]
    new: list[str]
    without_labels: int


def _apply(
    parts: HeldParts, edits: LabelEdits, found: Dataset | None, options: RowOptions, unknown_labels: UnknownLabels
) -> dict[str, JSON] | None:
    """Change the parts; what changed, by name, or None for nothing."""
    space, retriever = parts.label_space, parts.retriever
    if found is not None and retriever is None:
        raise ConfigurationError(
            "The model has no retriever, so documents cannot join it: its weights hold what it has learned. Train it "
            "again with them, or fuse it with an index (`xlgen index`, `xlgen hybrid`), which takes documents."
        )
    edits = _with_concepts(edits, parts)
    documents = None if retriever is None else retriever.labels
    change = edits.change(space, documents)
    vocabulary = parts.vocabulary
    if vocabulary is not None and edits:
        vocabulary = edit_vocabulary(vocabulary, edits)
    rows = None
    if found is not None and retriever is not None:
        numbered = retriever.named_documents.last_number
        learns_none = bool((retriever.labels.getnnz(axis=1) == 0).any())
        rows = _joining_rows(found, options, vocabulary, change.after, unknown_labels, numbered, learns_none)
    if rows is not None and rows.new:
        edits = replace(edits, added=[*edits.added, *rows.new])
        change = edits.change(space, documents)
    changes = _label_numbers(edits, change)
    change.report_ambiguous_names()
    if not change.is_nothing:
        parts.relabel(change)
        parts.vocabulary = vocabulary
    if rows is not None:
        changes["rows"] = numbers = _add_rows(parts, rows)
        if change.is_nothing and not numbers["added"] and not numbers["corrected"]:
            return None
    return changes if rows is not None or not change.is_nothing else None


def _joining_rows(
    found: Dataset,
    options: RowOptions,
    vocabulary: Vocabulary | None,
    known: LabelSpace,
    unknown_labels: UnknownLabels,
    numbered: int,
    learns_none: bool,
) -> _Rows:
    """The rows that the index takes; those that list no label only if it has learned from such rows."""
    texts: list[str] = found["text"][:]
    labels: list[list[str]] = found["labels"][:]
    without = {row for row, names in enumerate(labels) if learns_none and not names}
    if vocabulary is not None:
        leave_out = unknown_labels == "leave-out"
        labels = [vocabulary.labels_of(names, known, unclear=leave_out) for names in labels]
    counting = set({text: row for row, text in enumerate(texts)}.values())  # of equal texts the last
    unknown = Counter(name for row in sorted(counting) for name in labels[row] if name not in known)
    new = _new_labels(unknown, unknown_labels, vocabulary)
    taken = {*new, *(name for names in labels for name in names if name in known)}
    labels = [[name for name in names if name in taken] for names in labels]
    kept = [row for row, names in enumerate(labels) if names or row in without or row not in counting]
    ids = row_ids(found, options.id_column, numbered)
    of_kept = [texts[i] for i in kept], [labels[i] for i in kept], [ids[i] for i in kept]
    return _Rows(*of_kept, unknown, new, len(labels) - len(kept))


def _new_labels(unknown: Counter[str], choice: UnknownLabels, vocabulary: Vocabulary | None) -> list[str]:
    """Which unknown labels of rows become labels. Ids of concepts that the vocabulary does not have never do."""
    if unknown and choice == "error":
        shown = [f"{name!r} ({rows} row{'s' if rows > 1 else ''})" for name, rows in unknown.most_common(_SHOWN)]
        more = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
        raise DataError(
            f"Rows name labels that the model does not have: {', '.join(shown)}{more}. Add them (--add-labels, or "
            "--unknown-labels add for all of them), or leave them out (--unknown-labels leave-out)."
        )
    if choice == "leave-out" or vocabulary is None:
        return list(unknown) if choice == "add" else []
    ids = dict.fromkeys(filter(IdForm(vocabulary), unknown))
    if ids:
        logger.warning(
            "Ids in rows that the vocabulary does not have, and that are left out: %d (different ones: %d), e.g. %r.",
            sum(unknown[one] for one in ids), len(ids), next(iter(ids)),
        )  # fmt: skip
    return [name for name in unknown if name not in ids]


def _add_rows(parts: HeldParts, rows: _Rows) -> dict[str, JSON]:
    """Let rows join the index, and the counts follow."""
    assert parts.retriever is not None
    before = _column_sums(parts)
    label_ids = [parts.label_space.encode(one) for one in rows.labels]
    retriever, texts = add_texts(parts.retriever, rows.texts, label_ids, rows.ids)
    parts.take_retriever(retriever)
    change = LabelChange.with_counts(parts.label_space, _column_sums(parts) - before)
    if not change.is_nothing:
        parts.relabel(change)
    return {**texts._asdict(), "without_labels": rows.without_labels, "unknown_labels": dict(rows.unknown)}


def _column_sums(parts: HeldParts) -> np.ndarray:
    assert parts.retriever is not None
    return np.bincount(parts.retriever.labels.indices, minlength=len(parts.label_space)).astype(np.int64)


def _label_numbers(edits: LabelEdits, change: LabelChange) -> dict[str, JSON]:
    known = change.before.index
    return {
        "renamed": [list(pair) for pair in edits.renamed],
        "merged": [list(pair) for pair in edits.merged],
        "removed": list(dict.fromkeys(edits.removed)),
        "added": [name for name in dict.fromkeys(edits.added) if name not in known],
    }


def _sizes(parts: HeldParts) -> dict[str, JSON]:
    counts, retriever = parts.label_space.counts, parts.retriever
    sizes: dict[str, JSON] = {
        "labels": len(counts),
        "unseen_labels": int((counts == 0).sum()),
        "concepts": None if parts.vocabulary is None else len(parts.vocabulary),
        "documents": None if retriever is None else len(retriever.documents),
    }
    return {name: size for name, size in sizes.items() if size is not None}
