"""Vocabularies in SKOS, as Turtle, RDF/XML, JSON-LD or N-Triples."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote
from xml.sax.saxutils import unescape

from ..errors import DataError, MissingExtraError
from ..files.atomic import atomic_path
from ..labels.vocabulary import Vocabulary
from .raw_concepts import ConceptReader, RawConcept, Tagged
from .text_files import open_binary

if TYPE_CHECKING:
    from rdflib import Graph, URIRef
    from rdflib.term import Node

__all__ = ["SKOS_FORMATS", "read_skos", "write_skos"]

_PARSERS = {
    ".ttl": "turtle", ".rdf": "xml", ".xml": "xml", ".owl": "xml", ".jsonld": "json-ld", ".nt": "nt",
}  # fmt: skip
SKOS_FORMATS = tuple(_PARSERS)
"""Ends of the names of SKOS files."""

_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[^\s<>\"{}|\\^`\x00-\x20]+")
_MADE_URI = "urn:xlgen:concept:"  # + an id that is not a URI
_NO_BASE = "http://relative.invalid/"  # what a URI without a base begins with; without it rdflib takes the folder
_XL = "http://www.w3.org/2008/05/skos-xl#"  # names as nodes of their own, with the text in `literalForm`
_SUBJECT = re.compile(rb"\s*(?:<([^>\s]+)>|([\w.-]*):([\w.-]+))(?:\s|$)")  # of a statement in Turtle or N-Triples
_ABOUT = re.compile(rb"""\brdf:about\s*=\s*(?:"([^"]+)"|'([^']+)')""")
_NOT_TEXT = "values that are not texts, and are left out"


def _require_rdflib() -> None:
    if find_spec("rdflib") is None:
        raise MissingExtraError("rdflib", "skos")


def _format_of(path: Path) -> str:
    return _PARSERS[Path(path.name.lower().removesuffix(".gz")).suffix]


# ---------------------------------------------------------------------------------------------------- reading


def read_skos(path: Path, reader: ConceptReader) -> Iterator[RawConcept]:
    """The concepts of a SKOS file, sorted by id: names, aliases (hidden names too), relations, definitions.

    `skos:narrower` says the same as `skos:broader` from the other side. Names may be those of SKOS-XL. Ids without a
    base in the file stay as they are. Nothing is fetched from the network: a context of JSON-LD must be in the file.

    Args:
        path: the file.
        reader: where values that cannot be used are reported.

    Raises:
        DataError: if it cannot be parsed, or holds no `skos:Concept`.
        MissingExtraError: if rdflib is not installed.
    """
    _require_rdflib()
    from rdflib import RDF, SKOS, URIRef

    with open_binary(path) as file:
        content = file.read()
    graph = _parsed(content, path)
    uris = sorted({one for one in graph.subjects(RDF.type, SKOS.Concept) if isinstance(one, URIRef)})
    if not uris:
        raise DataError("There is no skos:Concept in the file.", file=path)
    broader: dict[Node, list[str]] = {}
    for parent, child in graph.subject_objects(SKOS.narrower):
        broader.setdefault(child, []).append(_id_of(parent))
    lines = _lines(content, path, {prefix: str(uri) for prefix, uri in graph.namespaces()})
    for uri in uris:
        yield _concept(graph, uri, lines.get(_id_of(uri)), sorted(broader.get(uri, [])), reader)


def _parsed(content: bytes, path: Path) -> Graph:
    """The triples of a file."""
    from rdflib import Graph

    if _format_of(path) == "json-ld":
        _refuse_remote_context(content, path)
    try:
        return Graph().parse(data=content, format=_format_of(path), publicID=_NO_BASE)
    except Exception as err:  # each of rdflib's parsers raises classes of its own, some of them Exception itself
        reason = " ".join(str(err).split())[:300] or type(err).__name__
        raise DataError(f"Not valid {_format_of(path)}: {reason}", file=path) from err


def _lines(content: bytes, path: Path, namespaces: Mapping[str, str]) -> dict[str, int]:
    """Id -> the line, from 1, on which a file begins to describe it, where that can be seen: not in JSON-LD.

    rdflib keeps no lines. A prefixed name with escapes, or an id that follows from a base, has none here.
    """
    found: dict[str, int] = {}
    kind, is_begin = _format_of(path), True
    for number, line in enumerate(content.splitlines() if kind != "json-ld" else (), 1):
        if kind == "xml":
            ids = [unescape((double or single).decode("utf-8", "replace")) for double, single in _ABOUT.findall(line)]
        else:
            subject = _SUBJECT.match(line) if is_begin else None
            ids = [] if subject is None else [_expanded(subject, namespaces)]
            said = line.strip()
            if said and not said.startswith(b"#"):
                is_begin = said.endswith(b".") or said.lower().startswith((b"prefix ", b"base "))
        for one in ids:
            found.setdefault(one, number)
    return found


def _expanded(subject: re.Match[bytes], namespaces: Mapping[str, str]) -> str:
    uri, prefix, name = (b"" if part is None else part for part in subject.groups())
    return uri.decode("utf-8", "replace") or namespaces.get(prefix.decode(), "") + name.decode("utf-8", "replace")


def _refuse_remote_context(content: bytes, path: Path) -> None:
    """Refuse JSON-LD that refers to a context elsewhere, which rdflib would fetch."""
    try:
        waiting = [json.loads(content)]
    except (ValueError, RecursionError) as err:
        raise DataError(f"Not valid JSON: {err}.", file=path) from err
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting += value
        elif isinstance(value, dict):
            contexts = value.get("@context", [])
            for context in contexts if isinstance(contexts, list) else [contexts]:
                remote = context.get("@import") if isinstance(context, dict) else context
                if isinstance(remote, str):
                    raise DataError(
                        f"The context is elsewhere, at {remote!r}, and nothing is fetched. Put it into the file.",
                        file=path,
                    )
            waiting += value.values()


def _concept(graph: Graph, uri: URIRef, row: int | None, broader: list[str], reader: ConceptReader) -> RawConcept:
    """One concept; what RDF has in no order is sorted."""
    from rdflib import OWL, SKOS, Literal, URIRef

    def ids(predicate: URIRef) -> list[str]:
        return sorted(_id_of(one) for one in graph.objects(uri, predicate))

    def texts(*predicates: URIRef) -> list[Tagged]:
        values = [one for predicate in predicates for one in graph.objects(uri, predicate)]
        for named in (URIRef(_XL + predicate.fragment) for predicate in predicates):
            for node in graph.objects(uri, named):
                values += graph.objects(node, URIRef(f"{_XL}literalForm"))
        found: set[Tagged] = set()
        for one in values:
            if isinstance(one, Literal):
                found.add((one.language or "", str(one)))
            else:
                reader.note(_NOT_TEXT, f"{one} of {_id_of(uri)}", row)
        return sorted(found)

    return RawConcept(
        _id_of(uri),
        row,
        texts(SKOS.prefLabel),
        texts(SKOS.altLabel, SKOS.hiddenLabel),
        texts(SKOS.definition),
        [*ids(SKOS.broader), *broader],
        ids(SKOS.related),
        "".join(text for _, text in texts(SKOS.notation)[:1]),
        deprecated=any(str(value).lower() in ("true", "1") for value in graph.objects(uri, OWL.deprecated)),
    )


def _id_of(node: Node) -> str:
    uri = str(node).removeprefix(_NO_BASE)
    return unquote(uri.removeprefix(_MADE_URI)) if uri.startswith(_MADE_URI) else uri


# ---------------------------------------------------------------------------------------------------- writing


def write_skos(path: Path, vocabulary: Vocabulary) -> None:
    """Write a vocabulary as SKOS, in the format that the name of the file says.

    Raises:
        MissingExtraError: if rdflib is not installed.
        SaveError: if the file cannot be written.
    """
    _require_rdflib()
    content = _graph(vocabulary).serialize(format=_format_of(path), encoding="utf-8")
    with atomic_path(path) as aside, aside.open("wb") as raw:
        if path.name.lower().endswith(".gz"):
            # No name and no time in the header: equal vocabularies give equal files.
            with gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as packed:
                packed.write(content)
        else:
            raw.write(content)


def _graph(vocabulary: Vocabulary) -> Graph:
    from rdflib import RDF, SKOS, Graph, Literal

    graph = Graph()
    graph.bind("skos", SKOS)
    for one in vocabulary:
        uri = _uri_of(one.id)
        graph.add((uri, RDF.type, SKOS.Concept))
        texts = [(SKOS.prefLabel, language, name) for language, name in one.names.items()]
        texts += [(SKOS.altLabel, language, alias) for language, of in one.aliases.items() for alias in of]
        texts += [(SKOS.definition, language, text) for language, text in one.definition.items()]
        for predicate, language, text in texts:
            graph.add((uri, predicate, Literal(text, lang=language or None)))
        for predicate, others in ((SKOS.broader, one.broader), (SKOS.related, one.related)):
            for other in others:
                graph.add((uri, predicate, _uri_of(other)))
        if one.notation:
            graph.add((uri, SKOS.notation, Literal(one.notation)))
    return graph


def _uri_of(concept_id: str) -> URIRef:
    from rdflib import URIRef

    is_uri = _URI.fullmatch(concept_id) and not concept_id.startswith(_MADE_URI)
    return URIRef(concept_id if is_uri else _MADE_URI + quote(concept_id, safe=""))
