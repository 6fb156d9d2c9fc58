"""Vocabularies as people have them: SKOS, JSON Lines, tables, lists of names; read, reported on, and written."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from ..errors import ConfigurationError, DataError, LabelSpaceError
from ..files.json_lines import write_jsonl
from ..labels.vocabulary import Vocabulary
from .options import RowOptions
from .raw_concepts import ConceptReader, RawConcept
from .skos import SKOS_FORMATS, read_skos, write_skos
from .text_files import iter_lines
from .vocabulary_fields import FieldReader
from .vocabulary_tables import read_table

__all__ = ["VOCABULARY_FORMATS", "read_vocabulary", "vocabulary_of", "write_vocabulary"]

logger = logging.getLogger(__name__)

VOCABULARY_FORMATS = (*SKOS_FORMATS, ".jsonl", ".csv", ".tsv", ".txt")
"""Ends of the names of vocabulary files; each may be followed by `.gz`."""

_SHOWN = 3  # names that a report spells out


def read_vocabulary(path: str | Path, language: str | None = None) -> Vocabulary:
    """Read a vocabulary; what was repaired or left out is reported in the log, with concept and line.

    | name of the file | what it holds |
    |---|---|
    | `.ttl`, `.rdf`, `.xml`, `.owl`, `.jsonld`, `.nt` | SKOS; needs the extra `skos` |
    | `.jsonl` | an object per line, with `id`, `names` (by language) and what else a [`Concept`] has |
    | `.csv`, `.tsv` | columns such as `uri`, `label_en`, `label_de`, `alias_en`, `broader`, `notation`; several values of a cell with `|` between them; without a header, as Annif has it: URI, name, notation |
    | `.txt` | a name per line, which is its id as well |

    Each also with `.gz`. Concepts without any preferred name are left out, as are SKOS concepts that are marked as
    deprecated. Of several preferred names in one language the first counts, the others are aliases.

    Args:
        path: the file.
        language: language of the labels; the only one, or that of the `label` of all lines of JSON Lines, if None.

    Raises:
        ConfigurationError: if the language is not that of any name, or is to be chosen.
        DataError: if the file cannot be read, an id is missing or duplicate, or there is no concept.
        MissingExtraError: if it is SKOS, and pyoxigraph is not installed.
    """  # noqa: E501  a table row
    path = Path(path).expanduser()
    reader = ConceptReader(path)
    concepts = list(reader.concepts(_raw_concepts(path, reader)))
    labels = reader.labels if language is None and len(reader.labels) == len(concepts) else None
    try:
        found = Vocabulary(concepts, language or reader.language_of_labels(concepts, labels), labels=labels)
    except LabelSpaceError as err:
        raise DataError(str(err), file=path) from err
    reader.report(found)
    _report_names(found, path)
    return found


def _raw_concepts(path: Path, reader: ConceptReader) -> Iterator[RawConcept]:
    name = path.name.lower().removesuffix(".gz")
    if name.endswith(SKOS_FORMATS):
        return read_skos(path, reader)
    if name.endswith(".jsonl"):
        return _read_json_lines(path, reader)
    if name.endswith((".csv", ".tsv")):
        return read_table(path, reader)
    if name.endswith(".txt"):
        lines = ((number, line.rstrip("\r\n")) for number, line in iter_lines(path, guess=True))
        return (RawConcept(line, number, names=[("", line)]) for number, line in lines if line.strip())
    raise DataError(
        f"The name of a vocabulary must end in one of {', '.join(VOCABULARY_FORMATS)}, each also with .gz.", file=path
    )


def _read_json_lines(path: Path, reader: ConceptReader) -> Iterator[RawConcept]:
    fields = FieldReader(path, reader)
    for number, line in iter_lines(path):
        if not line.strip():
            continue
        try:
            content = json.loads(line)
        except (ValueError, RecursionError) as err:
            raise DataError(f"Not valid JSON: {err}.", file=path, row=number) from err
        if not isinstance(content, dict):
            raise DataError("An object with an id and names is expected.", file=path, row=number)
        yield fields.concept(content, number)


def _report_names(found: Vocabulary, path: Path) -> None:
    """Log which concepts are called otherwise than by a name of their own in the chosen language."""
    others = found.named_otherwise()
    if others:
        logger.warning(
            "%s: concepts without a name in the language %r: %d of %d. Their labels are names in another one, e.g. %r"
            " of %s.",
            path, found.language, len(others), len(found), found.labels[others[0]], others[0],
        )  # fmt: skip
    shared = found.same_names()
    if shared:
        examples = [[found.labels[one] for one in ids] for ids in list(shared.values())[:_SHOWN]]
        logger.warning(
            "%s: names that several concepts share: %d. The concepts stay apart as labels, e.g. %s.",
            path, len(shared), examples,
        )  # fmt: skip


def vocabulary_of(options: RowOptions) -> Vocabulary | None:
    """The vocabulary of reading options, if any; a file is read once however many rows are read with it.

    Raises:
        ConfigurationError, DataError, MissingExtraError: see [`read_vocabulary`].
    """
    given = options.vocabulary
    if given is None or isinstance(given, Vocabulary):
        return given
    path = Path(given).expanduser()
    info = path.stat() if path.is_file() else None
    return _read_once(path, options.language, None if info is None else (info.st_mtime_ns, info.st_size, info.st_ino))


@lru_cache(maxsize=1)
def _read_once(path: Path, language: str | None, state: tuple[int, ...] | None) -> Vocabulary:
    """[`read_vocabulary`]; `state` tells whether the file has changed since."""
    return read_vocabulary(path, language)


def write_vocabulary(path: str | Path, vocabulary: Vocabulary) -> None:
    """Write a vocabulary as JSON Lines, with the labels, or as SKOS, whose labels follow from the names.

    An id that is not a URI is written into SKOS as `urn:xlgen:concept:` and the id, which reading takes off again.

    Args:
        path: `.jsonl` or the name of a SKOS file, see [`read_vocabulary`]; compressed if it ends in `.gz`.
        vocabulary: what is written.

    Raises:
        ConfigurationError: if the name says no format that can be written, or a language is not one that RDF can name.
        MissingExtraError: if it is SKOS, and pyoxigraph is not installed.
        SaveError: if the file cannot be written.
    """
    name = str(path).lower().removesuffix(".gz")
    if name.endswith(".jsonl"):
        write_jsonl(path, vocabulary.lines())
    elif name.endswith(SKOS_FORMATS):
        write_skos(Path(path), vocabulary)
    else:
        raise ConfigurationError(
            f"{path}: a vocabulary is written to a file whose name ends in one of {', '.join(SKOS_FORMATS)}, .jsonl."
        )
