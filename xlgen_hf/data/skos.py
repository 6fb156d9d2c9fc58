"""Vocabularies in SKOS, as Turtle, RDF/XML, JSON-LD or N-Triples."""

from __future__ import annotations

import gzip
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import quote, unquote

from ..errors import ConfigurationError, DataError, MissingExtraError
from ..files.atomic import atomic_path
from ..labels.concepts import Concept
from ..labels.vocabulary import Vocabulary
from .raw_concepts import ConceptReader, RawConcept, Tagged
from .skos_lines import RdfLines, json_ld_lines
from .text_files import iter_lines

if TYPE_CHECKING:
    from pyoxigraph import BlankNode, Literal, NamedNode, Quad, RdfFormat, Triple

    _Node: TypeAlias = NamedNode | BlankNode | Literal | Triple

__all__ = ["SKOS_FORMATS", "read_skos", "write_skos"]

_FORMATS = {
    ".ttl": "Turtle", ".rdf": "RDF/XML", ".xml": "RDF/XML", ".owl": "RDF/XML", ".jsonld": "JSON-LD",
    ".nt": "N-Triples",
}  # fmt: skip
SKOS_FORMATS = tuple(_FORMATS)
"""Ends of the names of SKOS files."""

_MADE_URI = "urn:xlgen:concept:"  # + an id that is not a URI
_NO_BASE = "http://relative.invalid/"  # what a URI without a base begins with
_TYPE = "http://www.w3.org/1999/02/22-rdf-syntax-ns#type"
_DEPRECATED = "http://www.w3.org/2002/07/owl#deprecated"
_SKOS = "http://www.w3.org/2004/02/skos/core#"
_CONCEPT = f"{_SKOS}Concept"
_NARROWER = f"{_SKOS}narrower"
_NOTATION = f"{_SKOS}notation"
_DCT = "http://purl.org/dc/terms/"
_REPLACES = f"{_DCT}replaces"
_REPLACED_BY = f"{_DCT}isReplacedBy"
_PREFIXES = {"skos": _SKOS, "dct": _DCT}
_XL = "http://www.w3.org/2008/05/skos-xl#"  # names as nodes of their own, with the text in `literalForm`
_FORM = f"{_XL}literalForm"
_NAMES = {"prefLabel": "names", "altLabel": "aliases", "hiddenLabel": "aliases"}
_XL_NAMES = {_XL + name: field for name, field in _NAMES.items()}
_TEXTS = {_SKOS + name: field for name, field in _NAMES.items()} | {
    f"{_SKOS}definition": "definitions", _NOTATION: "notation",
}  # fmt: skip
_IDS = {_SKOS + name: name for name in ("broader", "related")}
_USED = frozenset({_TYPE, _DEPRECATED, _NARROWER, _REPLACES, _REPLACED_BY, _FORM, *_XL_NAMES, *_TEXTS, *_IDS})
_NOT_TEXT = "values that are not texts, and are left out"
_REMOTE = re.compile(r'"@(?:context|import)"\s*:\s*(?:\[\s*)?"([^"]+)"')  # a context that is not in the file


def _require_parser() -> None:
    if find_spec("pyoxigraph") is None:
        raise MissingExtraError("pyoxigraph", "skos")


def _format_of(path: Path) -> str:
    return _FORMATS[Path(path.name.lower().removesuffix(".gz")).suffix]


def _rdf_format(path: Path) -> RdfFormat:
    from pyoxigraph import RdfFormat

    name = _format_of(path).upper().replace("-", "_").replace("/", "_")
    found: RdfFormat = getattr(RdfFormat, name)
    return found


# ---------------------------------------------------------------------------------------------------- reading


def read_skos(path: Path, reader: ConceptReader) -> Iterator[RawConcept]:
    """The concepts of a SKOS file, sorted by id: names, aliases (hidden names too), relations, definitions.

    `skos:narrower` says the same as `skos:broader` from the other side, `dct:isReplacedBy` the same as `dct:replaces`.
    Names may be those of SKOS-XL. Ids without a base in the file stay as they are. Nothing is fetched from the
    network: a context of JSON-LD must be in the file. The file is read statement by statement; only what concepts are
    made of is kept, in the order of the file.

    Args:
        path: the file.
        reader: where values that cannot be used are reported.

    Raises:
        DataError: if it cannot be parsed, or holds no `skos:Concept`.
        MissingExtraError: if pyoxigraph is not installed.
    """
    _require_parser()
    subjects = _Subjects()
    if _format_of(path) == "JSON-LD":
        _read_json_ld(path, subjects)
    else:
        _read_statements(path, subjects)
    if not subjects.concepts:
        raise DataError("There is no skos:Concept in the file.", file=path)
    yield from subjects.described(reader)


def _read_statements(path: Path, subjects: _Subjects) -> None:
    """Take the statements of a file in the order in which they are there."""
    from pyoxigraph import parse

    lines = RdfLines(path, is_xml=_format_of(path) == "RDF/XML")
    with _syntax_errors(path, lines):
        for quad in parse(lines, _rdf_format(path), base_iri=_NO_BASE, lenient=True):  # type: ignore[arg-type]
            subjects.take(quad, lines.number)


def _read_json_ld(path: Path, subjects: _Subjects) -> None:
    """Take the statements of JSON-LD, which the parser gives when it has read everything."""
    from pyoxigraph import parse

    text = "".join(line for _, line in iter_lines(path))
    remote = _REMOTE.search(text)
    if remote:
        raise DataError(
            f"The context is elsewhere, at {remote[1]!r}, and nothing is fetched. Put it into the file.",
            file=path,
            row=text.count("\n", 0, remote.start()) + 1,
        )
    with _syntax_errors(path):
        statements = parse(text.encode("utf-8"), _rdf_format(path), base_iri=_NO_BASE, lenient=True)
        for quad in statements:
            subjects.take(quad, None)
    subjects.set_rows(json_ld_lines(text, statements.prefixes, statements.base_iri or _NO_BASE))


@contextmanager
def _syntax_errors(path: Path, lines: RdfLines | None = None) -> Iterator[None]:
    """Turn what the parser raises into an error that names the file and the line."""
    try:
        yield
    except SyntaxError as err:
        row = err.lineno or (lines.number if lines else None)
        raise DataError(f"Not valid {_format_of(path)}: {err.msg}.", file=path, row=row) from err


class _Subjects:
    """What a file says of its subjects, as far as concepts are made of it.

    Attributes:
        concepts: ids of the subjects that are concepts.
    """

    def __init__(self) -> None:
        from pyoxigraph import BlankNode, Literal, Triple

        self.concepts: set[str] = set()
        self._blank, self._literal, self._triple = BlankNode, Literal, Triple
        self._raw: dict[str, RawConcept] = {}
        self._parents: dict[str, list[str]] = {}  # of a concept that others have among their narrower ones
        self._named: dict[str, list[tuple[str, str]]] = {}  # field of a concept, and the node that holds a name
        self._forms: dict[str, list[Tagged]] = {}  # texts of nodes that hold names
        self._replaced: list[tuple[str, str]] = []  # what is gone, and what stands for it
        self._not_texts: dict[str, list[str]] = {}  # what stands where a text is expected

    def take(self, quad: Quad, row: int | None) -> None:
        """Keep what a statement says.

        Args:
            quad: the statement.
            row: the line that it is on.
        """
        predicate = quad.predicate.value
        if predicate not in _USED:
            return
        subject, value = self._id_of(quad.subject), quad.object
        if predicate in _TEXTS or predicate == _FORM:
            self._take_text(subject, predicate, value, row)
        elif predicate == _NARROWER:
            self._parents.setdefault(self._id_of(value), []).append(subject)
        elif predicate in (_REPLACES, _REPLACED_BY):
            pair = (self._id_of(value), subject)
            self._replaced.append(pair if predicate == _REPLACES else pair[::-1])
        elif predicate in _XL_NAMES:
            self._named.setdefault(subject, []).append((_XL_NAMES[predicate], self._id_of(value)))
        elif predicate == _TYPE:
            if isinstance(quad.subject, self._blank) or self._id_of(value) != _CONCEPT:
                return
            self._known(subject, row)
            self.concepts.add(subject)
        elif predicate == _DEPRECATED:
            self._known(subject, row).deprecated |= self._id_of(value).lower() in ("true", "1")
        else:
            self._add(subject, _IDS[predicate], self._id_of(value), row)

    def _take_text(self, subject: str, predicate: str, value: _Node, row: int | None) -> None:
        if not isinstance(value, self._literal):
            self._not_texts.setdefault(subject, []).append(self._id_of(value))
            return
        text = (sys.intern(value.language or ""), value.value)
        if predicate == _FORM:
            self._forms.setdefault(subject, []).append(text)
        elif predicate == _NOTATION:
            raw = self._known(subject, row)
            raw.notation = raw.notation or text[1]
        else:
            self._add(subject, _TEXTS[predicate], text, row)

    def _known(self, subject: str, row: int | None) -> RawConcept:
        raw = self._raw.get(subject)
        if raw is None:
            raw = self._raw[subject] = RawConcept(subject, row)
        return raw

    def _add(self, subject: str, name: str, value: str | Tagged, row: int | None) -> None:
        """Put a value to the others of a field; tuples, for there may be a million concepts."""
        raw = self._known(subject, row)
        setattr(raw, name, (*getattr(raw, name), value))

    def _id_of(self, node: _Node) -> str:
        """The id that a node stands for."""
        if isinstance(node, self._blank):
            return f"_:{node.value}"
        uri = str(node) if isinstance(node, self._triple) else node.value.removeprefix(_NO_BASE)
        return sys.intern(unquote(uri.removeprefix(_MADE_URI)) if uri.startswith(_MADE_URI) else uri)

    def set_rows(self, rows: Mapping[str, int]) -> None:
        """Say which line describes what.

        Args:
            rows: URI -> line, from 1.
        """
        for uri, row in rows.items():
            raw = self._raw.get(uri.removeprefix(_NO_BASE))
            if raw is not None:
                raw.row = row

    def described(self, reader: ConceptReader) -> Iterator[RawConcept]:
        """The concepts, sorted by id, each once; what belongs to one is in the order of the file.

        Args:
            reader: where values that are not texts are reported.
        """
        for gone, instead in self._replaced:
            reader.note_replaced(gone, instead)
        for concept_id in sorted(self.concepts):
            raw = self._raw.pop(concept_id)
            named = self._named.pop(concept_id, ())
            for name, node in named:
                for text in self._forms.get(node, ()):
                    setattr(raw, name, (*getattr(raw, name), text))
            for node in (concept_id, *(node for _, node in named)):
                for value in self._not_texts.get(node, ()):
                    reader.note(_NOT_TEXT, f"{value} of {concept_id}", raw.row)
            raw.broader = (*raw.broader, *self._parents.pop(concept_id, ()))
            yield raw


# ---------------------------------------------------------------------------------------------------- writing


def write_skos(path: Path, vocabulary: Vocabulary) -> None:
    """Write a vocabulary as SKOS, in the format that the name of the file says.

    Raises:
        ConfigurationError: if it has a language that RDF cannot name.
        MissingExtraError: if pyoxigraph is not installed.
        SaveError: if the file cannot be written.
    """
    _require_parser()
    from pyoxigraph import serialize

    triples = (triple for concept in vocabulary for triple in _triples(concept, path))
    with atomic_path(path) as aside, aside.open("wb") as raw:
        if path.name.lower().endswith(".gz"):
            # No name and no time in the header: equal vocabularies give equal files.
            with gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as packed:
                serialize(triples, packed, _rdf_format(path), prefixes=_PREFIXES)  # type: ignore[arg-type]
        else:
            serialize(triples, raw, _rdf_format(path), prefixes=_PREFIXES)


def _triples(concept: Concept, path: Path) -> Iterator[Triple]:
    """What is said of a concept."""
    from pyoxigraph import Literal, NamedNode, Triple

    def texts(name: str, values: Iterable[Tagged]) -> Iterator[Triple]:
        for language, text in values:
            yield Triple(uri, NamedNode(_SKOS + name), Literal(text, language=language or None))

    uri = _uri_of(concept.id)
    yield Triple(uri, NamedNode(_TYPE), NamedNode(_CONCEPT))
    try:
        yield from texts("prefLabel", concept.names.items())
        yield from texts("altLabel", ((tag, alias) for tag, aliases in concept.aliases.items() for alias in aliases))
        yield from texts("definition", concept.definition.items())
    except ValueError as err:
        raise ConfigurationError(
            f"{path}: a language of the concept {concept.id} is not a tag that RDF allows, such as en or pt-BR"
            f" ({err}). Write .jsonl instead."
        ) from err
    for name, others in (("broader", concept.broader), ("related", concept.related)):
        for other in others:
            yield Triple(uri, NamedNode(_SKOS + name), _uri_of(other))
    for gone in concept.replaces:
        yield Triple(uri, NamedNode(_REPLACES), _uri_of(gone))
    if concept.notation:
        yield Triple(uri, NamedNode(_SKOS + "notation"), Literal(concept.notation))


def _uri_of(concept_id: str) -> NamedNode:
    from pyoxigraph import NamedNode

    if not concept_id.startswith(_MADE_URI):
        with suppress(ValueError):  # the id is not a URI
            return NamedNode(concept_id)
    return NamedNode(_MADE_URI + quote(concept_id, safe=""))
