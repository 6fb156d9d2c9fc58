"""Vocabularies from files: SKOS, JSON Lines, tables, lists of names; what is repaired, refused and reported."""

from __future__ import annotations

import json
import logging
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xlgen_hf.data.vocabulary_files import read_vocabulary, write_vocabulary
from xlgen_hf.errors import ConfigurationError, DataError, MissingExtraError
from xlgen_hf.labels.concepts import Concept
from xlgen_hf.labels.vocabulary import Vocabulary

TURTLE = """
@prefix skos: <http://www.w3.org/2004/02/skos/core#> .
@prefix owl: <http://www.w3.org/2002/07/owl#> .
@prefix e: <http://example.org/> .
e:1 a skos:Concept ; skos:prefLabel "mercury"@en , "Merkur"@de ; skos:related e:2 .
e:2 a skos:Concept ; skos:prefLabel "mercury"@en ; skos:altLabel "quicksilver"@en ; skos:hiddenLabel "quiksilver"@en ;
    skos:broader e:4 , e:9 ; skos:definition "a metal"@en , "a poison"@en ; skos:notation "13.8" .
e:3 a skos:Concept ; skos:prefLabel "planet"@EN , "planets"@en ; skos:narrower e:1 ; skos:broader e:4 .
e:4 a skos:Concept ; skos:prefLabel "things"@en ; skos:broader e:3 ; skos:altLabel e:3 .
e:5 a skos:Concept ; skos:altLabel "without a name"@en .
e:6 a skos:Concept ; skos:prefLabel "old"@en ; owl:deprecated true .
e:7 a skos:Collection ; skos:prefLabel "a collection"@en .
"""


def write(path, content):
    path.write_text(content, encoding="utf-8")
    return path


def test_skos(tmp_path, caplog):
    pytest.importorskip("pyoxigraph", reason="the extra `skos` is not installed")
    found = read_vocabulary(write(tmp_path / "v.ttl", TURTLE), "en")
    e = "http://example.org/"
    assert [one.id for one in found] == [e + number for number in "1234"]
    assert found.labels[e + "1"] == "mercury (planet)" and found.labels[e + "2"] == "mercury (things)"
    assert found.concepts[e + "1"] == Concept(
        e + "1", {"de": "Merkur", "en": "mercury"}, {}, (e + "3",), (e + "2",), {}, ""
    )
    assert found.concepts[e + "2"] == Concept(
        e + "2", {"en": "mercury"}, {"en": ("quicksilver", "quiksilver")}, (e + "4",), (), {"en": "a metal a poison"},
        "13.8",
    )  # fmt: skip
    assert found.concepts[e + "3"].aliases == {"en": ("planets",)}
    for part in (
        rf"several preferred names in one language.*: 1, e.g. {e}3 \(row 8\)",
        rf"without a preferred name.*: 1, e.g. {e}5 \(row 10\)",
        rf"marked as deprecated.*: 1, e.g. {e}6 \(row 11\)",
        rf"references to concepts that the vocabulary does not have.*: 1, e.g. {e}9 in {e}2 \(row 6\)",
        rf"loops of broader concepts.*: 1, e.g. {e}3 \(row 8\), {e}4 \(row 9\)",
        rf"values that are not texts.*: 1, e.g. {e}3 of {e}4 \(row 9\)",
        r"names that several concepts share: 1.*mercury \(planet\)",
    ):
        assert _logged(caplog, part), part


_REPLACED = """
@prefix skos: <http://www.w3.org/2004/02/skos/core#> .
@prefix dct: <http://purl.org/dc/terms/> .
@prefix owl: <http://www.w3.org/2002/07/owl#> .
@prefix e: <http://e/> .
e:1 a skos:Concept ; skos:prefLabel "baking"@en ; dct:replaces e:5 , e:2 .
e:2 a skos:Concept ; skos:prefLabel "bread"@en .
e:3 a skos:Concept ; skos:prefLabel "loaves"@en ; owl:deprecated true ; dct:isReplacedBy e:2 .
e:4 dct:isReplacedBy e:3 , e:1 .
e:6 dct:isReplacedBy e:7 .
e:7 dct:isReplacedBy e:6 .
"""


@pytest.mark.parametrize("form", ["ttl", "csv", "jsonl"])
def test_ids_of_concepts_that_are_gone_lead_to_what_replaced_them(tmp_path, form):
    if form == "ttl":
        pytest.importorskip("pyoxigraph", reason="the extra `skos` is not installed")
        found = read_vocabulary(write(tmp_path / "v.ttl", _REPLACED))
        write_vocabulary(tmp_path / "again.rdf", found)
        assert read_vocabulary(tmp_path / "again.rdf").concepts == found.concepts
    elif form == "csv":
        lines = ["uri,label,replaces", "http://e/1,baking,http://e/5|http://e/2|http://e/4",
                 "http://e/2,bread,http://e/3|http://e/4"]  # fmt: skip
        found = read_vocabulary(write(tmp_path / "v.csv", "\n".join(lines)))
    else:
        lines = ['{"id": "http://e/1", "label": "baking", "replaces": ["http://e/5", "http://e/4"]}',
                 '{"id": "http://e/2", "label": "bread", "replaces": ["http://e/3"]}',
                 '{"id": "http://e/3"}', '{"id": "http://e/4", "isReplacedBy": "http://e/3"}']  # fmt: skip
        found = read_vocabulary(write(tmp_path / "v.jsonl", "\n".join(lines)))
        write_vocabulary(tmp_path / "again.jsonl", found)
        assert read_vocabulary(tmp_path / "again.jsonl").concepts == found.concepts
    assert len(found) == 2
    assert found.find("http://e/2") == ("http://e/2",) == found.find("http://e/3")  # a concept stands for itself
    assert found.find("<http://e/5>") == ("http://e/1",)
    assert found.find("http://e/4") == ("http://e/1", "http://e/2")  # was divided
    assert found.find("http://e/6") == ()


_ABOUT_3 = """<?xml version="1.0"?>
<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:skos="http://www.w3.org/2004/02/skos/core#">
<skos:Concept rdf:about='http://e/?a=1&amp;b=3'><skos:altLabel xml:lang="en">x</skos:altLabel></skos:Concept>
<skos:Concept rdf:about="http://e/1"><skos:prefLabel xml:lang="en">y</skos:prefLabel></skos:Concept>
</rdf:RDF>"""
_LATIN_3 = (
    _ABOUT_3.replace('<?xml version="1.0"?>', "<?xml version='1.0' encoding='ISO-8859-1'?>")
    .replace(">y<", ">\xfc<")
    .replace("http://e/?a=1&amp;b=", "http://e/?a=1&#38;b=")
)
_JSON_LD = """{"@context": {"skos": "http://www.w3.org/2004/02/skos/core#", "uri": "@id",
  "e": {"@id": "http://e/?a=1&b=", "@prefix": true},
  "related": {"@id": "skos:related", "@type": "@id"}},
"@graph": [
  {"@type": "skos:Concept", "uri": "e:1", "skos:prefLabel": {"@value": "\\"}{", "@language": "en"},
   "skos:related": {"@id": "e:3"}},
  {"@type": "skos:Concept",
   "skos:altLabel": "x",
   "uri": "e:3"}]}"""
_THIRD = "<http://e/?a=1&b=\\u0033> a skos:Concept .\n"
_NAMED = "PREFIX skos: <http://www.w3.org/2004/02/skos/core#>\nPREFIX : <http://e/?a=1&b=>\n\n"


@pytest.mark.parametrize(
    ("name", "content", "row"),
    [
        ("v.rdf", _ABOUT_3, 3),
        ("v.rdf", _LATIN_3, 3),
        ("v.jsonld", _JSON_LD, 9),
        ("v.jsonld", _JSON_LD.replace('"uri": "e:3"', '"@id": "http://e/?a=1&b=3"'), 9),
        ("v.jsonld", _JSON_LD.replace('"e:3"}]', '"?a=1&b=3"}]').replace('"@id",', '"@id", "@base": "http://e/",'), 9),
        ("v.ttl", f'{_NAMED}# x.\n:3 a\n  skos:Concept .\n:1 a skos:Concept ; skos:prefLabel "y"@en .\n', 6),
        ("v.ttl", f'{_NAMED}:1 a skos:Concept ; skos:prefLabel "y" ; skos:related\n:3 .\n\n:3 a skos:Concept .\n', 7),
        ("v.ttl", f'{_NAMED}# {"x" * 300_000}\n:1 a skos:Concept ; skos:prefLabel "y" .\n{_THIRD}', 6),
    ],
)
def test_the_line_of_a_concept_in_skos(tmp_path, caplog, name, content, row):
    pytest.importorskip("pyoxigraph", reason="the extra `skos` is not installed")
    (tmp_path / name).write_text(content, encoding="latin-1" if "ISO-8859-1" in content else "utf-8")
    (name,) = read_vocabulary(tmp_path / name).labels.values()
    assert name in ("y", "\xfc", '"}{')
    assert _logged(caplog, rf"without a preferred name.*: 1, e.g. http://e/\?a=1&b=3 \(row {row}\)"), caplog.text


def _logged(caplog, pattern):
    import re

    return any(re.search(pattern, record.getMessage()) for record in caplog.records)


def test_names_of_skos_xl(tmp_path):
    pytest.importorskip("pyoxigraph", reason="the extra `skos` is not installed")
    xl = "@prefix xl: <http://www.w3.org/2008/05/skos-xl#> ."
    named = """
    e:8 a skos:Concept ; xl:prefLabel e:n1 ; xl:altLabel [ xl:literalForm "Hg"@en ] .
    e:n1 a xl:Label ; xl:literalForm "quicksilver"@en .
    e:4 xl:prefLabel [ xl:literalForm "things"@en ] .
    """
    found = read_vocabulary(write(tmp_path / "v.ttl", f"{xl}{TURTLE}{named}"), "en").concepts
    assert found["http://example.org/8"].names == {"en": "quicksilver"}
    assert found["http://example.org/8"].aliases == {"en": ("Hg",)}
    assert found["http://example.org/4"].names == {"en": "things"} and not found["http://example.org/4"].aliases


def test_relative_ids_do_not_name_the_folder_of_the_file(tmp_path, monkeypatch):
    pytest.importorskip("pyoxigraph", reason="the extra `skos` is not installed")
    content = TURTLE.replace("e:1 ", "<one> ").replace("e:2 ", "<two> ")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        found = read_vocabulary(write(tmp_path / name / "v.ttl", content), "en").concepts
        assert list(found)[2:] == ["one", "two"] and found["one"].related == ("two",)
    write_vocabulary(tmp_path / "again.rdf", Vocabulary(found.values(), "en"))
    assert read_vocabulary(tmp_path / "again.rdf", "en").concepts.keys() == found.keys()
    based = read_vocabulary(write(tmp_path / "v.ttl", f"@base <http://other.org/> .{content}"), "en").concepts
    assert "http://other.org/one" in based


def test_skos_needs_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyoxigraph", None)
    with pytest.raises(MissingExtraError, match=r"`pyoxigraph` is not installed.*xlgen-hf\[skos\]"):
        read_vocabulary(write(tmp_path / "v.ttl", TURTLE), "en")


_ENTITIES = """<!DOCTYPE r [<!ENTITY a "http://e/">
<!ENTITY b "{}">]>
<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="&b;"/></rdf:RDF>"""


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("v.ttl", "e:1 a", "v.ttl.*row 1: Not valid Turtle: .*e: has not been declared"),
        ("v.rdf", "<rdf", "v.rdf.*row 1: Not valid RDF/XML"),
        ("v.nt", "<http://a> <http://b> <http://c> .\n", "There is no skos:Concept in the file"),
        ("v.jsonld", "{", r"v.jsonld.*row 1: Not valid JSON-LD"),
        ("v.jsonld", '{"@graph": [\n{"@id": "http://e/1",\n}]}', r"v.jsonld.*row 3: Not valid JSON-LD"),
        ("v.jsonld", '{"@context": [{}, "http://example.org/c"]}', "Not valid JSON-LD: .*remote context"),
        ("v.ttl", '<a> <b> <c> .\n\n<a> <b> "c" <d> .', "v.ttl.*row 3: Not valid Turtle"),
        ("v.ttl", b"<a> <b> <c> .\n<a> <b> '\xff' .", "v.ttl.*row 2: The file is not UTF-8"),
        ("v.xml", '<?xml version="1.0" encoding="martian"?>', "v.xml.*row 1: 'martian', .* is not known"),
        ("v.xml", _ENTITIES.format("&a;&a;"), "v.xml.*row 2: An entity is defined by another one"),
        ("v.xml", _ENTITIES.format("b").replace("</rdf:RDF>", "\n</a>"), "v.xml.*row 4: Not valid RDF/XML"),
        ("v.jsonld", '{"@graph": [{"@context": ["http://example.org/c"]}]}', "elsewhere, at 'http://example.org/c'"),
        ("v.jsonld", '{"@context": {"@import": "c.jsonld"}}', "The context is elsewhere, at 'c.jsonld'"),
    ],
)
def test_skos_that_cannot_be_read(tmp_path, name, content, message):
    pytest.importorskip("pyoxigraph", reason="the extra `skos` is not installed")
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=message):
        read_vocabulary(tmp_path / name)


def test_values_of_skos_are_in_the_order_of_the_file(tmp_path):
    pytest.importorskip("pyoxigraph", reason="the extra `skos` is not installed")
    added = 'e:4 skos:narrower e:2 .\ne:2 skos:broader e:3 ; skos:altLabel "azoth"@en .\n'
    found = read_vocabulary(write(tmp_path / "v.ttl", TURTLE + added), "en").concepts["http://example.org/2"]
    assert found.broader == ("http://example.org/4", "http://example.org/3")
    assert found.aliases["en"] == ("quicksilver", "quiksilver", "azoth")


def test_a_language_that_skos_cannot_name(tmp_path):
    pytest.importorskip("pyoxigraph", reason="the extra `skos` is not installed")
    with pytest.raises(ConfigurationError, match=r"v.ttl: a language of the concept 1 is not a tag.*Write .jsonl"):
        write_vocabulary(tmp_path / "v.ttl", Vocabulary([Concept("1", {"q": "x"})]))
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------------------------------------------- JSON Lines


def test_json_lines_as_people_write_them(tmp_path, caplog):
    lines = [
        {"id": 1, "label": " music ", "altLabel": ["art of sound"], "group": "x"},
        {
            "uri": "2",
            "prefLabel": {"de": ["Orgel", "Kirchenorgel"], "pt-BR": "órgão"},
            "broader": "1",
            "related": None,
        },
        {"identifier": "3", "label_de": "Klavier", "alias": {"en": ["piano", "piano"]}, "definition": "loud and soft"},
        {"id": "4", "altLabel": "no name"},
        {"id": "5", "label_de": "Flöte", "parents": ["1", "4"]},
    ]
    path = write(tmp_path / "v.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    found = read_vocabulary(path, "de")
    assert list(found) == [
        Concept("1", {"": "music"}, {"": ("art of sound",)}),
        Concept("2", {"de": "Orgel", "pt-br": "órgão"}, {"de": ("Kirchenorgel",)}, ("1",)),
        Concept("3", {"de": "Klavier"}, {"en": ("piano",)}, definition={"": "loud and soft"}),
        Concept("5", {"de": "Flöte"}, broader=("1",)),
    ]
    for part in (
        r"several preferred names in one language.*: 1, e.g. 2 \(row 2\)",
        r"without a preferred name.*: 1, e.g. 4 \(row 4\)",
        r"fields that are not read: 1, e.g. 'group' \(row 1\)",
        r"does not have.*: 1, e.g. 4 in 5 \(row 5\)",
        r"without a name in the language 'de': 1 of 4.*'music' of 1",
    ):
        assert _logged(caplog, part), part


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": "1", "label": "b"}', "row 2: Duplicate id '1'; the first is in row 1"),
        ('{"label": "b"}', "row 2: A concept has no id"),
        ('{"id": "2", "label": 1.5}', "row 2: 'label' is 1.5; a text"),
        ('{"id": "2", "names": {"d e": "b"}}', "row 2: 'd e' of the concept '2' is not the tag of a language"),
        ("[]", "row 2: An object with an id and names is expected"),
        ("{", "row 2: Not valid JSON"),
        ('{"id": "2", "label": "a (1)"}\n{"id": "3", "label": "a"}', "v.jsonl: Several concepts are called 'a'"),
    ],
)
def test_lines_that_cannot_be_used(tmp_path, line, message):
    path = write(tmp_path / "v.jsonl", '{"id": "1", "label": "a"}\n' + line + "\n")
    with pytest.raises(DataError, match=message):
        read_vocabulary(path)


def test_a_loop_is_reported_with_its_lines(tmp_path, caplog):
    path = write(
        tmp_path / "v.jsonl", '{"id": "1", "label": "a", "broader": "2"}\n\n{"id": "2", "label": "b", "broader": "1"}'
    )
    assert read_vocabulary(path).branch("1") == {"1", "2"}
    assert _logged(caplog, r"loops of broader concepts, .*: 1, e.g. 1 \(row 1\), 2 \(row 3\)")


# ---------------------------------------------------------------------------------------------------- tables, names


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("v.tsv", "<http://e/1>\tmusic\t78\n<http://e/2>\t\"organ\n", [
            Concept("http://e/1", {"": "music"}, notation="78"), Concept("http://e/2", {"": '"organ'}),
        ]),
        ("v.csv", 'uri,notation,label_en,label_fi\nhttp://e/1,78,"music, art",\nhttp://e/2,,organ,urut\n', [
            Concept("http://e/1", {"en": "music, art"}, notation="78"),
            Concept("http://e/2", {"en": "organ", "fi": "urut"}),
        ]),
        ("v.csv", "name_en;id;alias_en;broader\nmusic;1;tunes|sounds|a, b;\norgan;2;;1\n", [
            Concept("1", {"en": "music"}, {"en": ("tunes", "sounds", "a, b")}),
            Concept("2", {"en": "organ"}, {}, ("1",)),
        ]),
        ("v.txt", "music\n\norgan\n", [Concept("music", {"": "music"}), Concept("organ", {"": "organ"})]),
    ],
)  # fmt: skip
def test_tables_and_names(tmp_path, name, content, expected):
    path = write(tmp_path / name, content)
    assert list(read_vocabulary(path, "en" if "en" in expected[0].names else None)) == expected


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("v.csv", "id,colour\n1,red\n", r"no column of names such as label or label_en, only \['id', 'colour'\]"),
        (
            "v.csv",
            "code,name\n1,Cats\n",
            r"row 1: The row looks like a header, \['code', 'name'\], whose",
        ),
        ("v.csv", "label_id,label\n1,Cats\n", r"row 1: The row looks like a header, \['label_id', 'label'\], whose"),
        ("v.tsv", "label_en\tcode\nCats\t1\n", r"row 1: The row looks like a header, \['label_en', 'code'\], whose"),
        ("v.csv", "id,label\n1,a,b\n", "row 2: The row has 3 cells, the header 2"),
        ("v.csv", 'id,label\n1,"a\n', "Not valid CSV"),
        ("v.tsv", "http://e/1\n", "row 1: A URI, a name and perhaps a notation are expected"),
        ("v.tsv", "", "The file is empty"),
        ("v.tsv", "http://e/1\t \n", "no concept with a preferred name"),
        ("v.pdf", "x", "must end in one of .ttl, .rdf"),
        ("v.txt", "", "no concept"),
    ],
)
def test_tables_that_cannot_be_read(tmp_path, name, content, message):
    with pytest.raises(DataError, match=message):
        read_vocabulary(write(tmp_path / name, content))


@pytest.mark.parametrize("first_id", ["http://e/1", "<http://e/1>", "urn:1", "a1", "4"])
def test_a_concept_may_be_called_as_a_column_is(tmp_path, first_id):
    found = read_vocabulary(write(tmp_path / "v.tsv", f"{first_id}\ttitle\nurn:2\tlabel\n"))
    assert [one.names[""] for one in found] == ["title", "label"]


def test_names_in_indonesian_are_reported(tmp_path, caplog):
    """A column `label_id` could hold ids as well."""
    found = read_vocabulary(write(tmp_path / "v.csv", "id,label_id,label_en\n1,Kucing,Cats\n2,Anjing,Dogs\n"), "en")
    assert [one.names for one in found] == [{"id": "Kucing", "en": "Cats"}, {"id": "Anjing", "en": "Dogs"}]
    assert "read as Indonesian (@id says so, too); rename them if they hold ids: 1, e.g. 'label_id'" in caplog.text
    caplog.clear()
    read_vocabulary(write(tmp_path / "v.csv", "id,label@id,label_en\n1,Kucing,Cats\n"), "en")
    assert "Indonesian" not in caplog.text


# ---------------------------------------------------------------------------------------------------- round trips

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp")), min_size=1, max_size=8).map(
    str.strip
).filter(bool)  # fmt: skip
LANGUAGE = st.sampled_from(["", "de", "en", "pt-br"])


@st.composite
def vocabularies(draw) -> Vocabulary:
    ids = draw(st.lists(TEXT.filter(lambda one: not one.startswith("<")), min_size=1, max_size=5, unique=True))
    if draw(st.booleans()):
        ids = [f"http://example.org/{number}" for number in range(len(ids))]
    others = st.lists(st.sampled_from(ids), unique=True, max_size=3).map(tuple)
    concepts = []
    for one in sorted(ids):
        names = {"en": f"{draw(TEXT)} {one}", **draw(st.dictionaries(LANGUAGE, TEXT, max_size=3))}
        aliases = draw(st.dictionaries(LANGUAGE, st.sets(TEXT, min_size=1, max_size=3), max_size=2))
        kept = {language: tuple(sorted(of - {names.get(language)})) for language, of in aliases.items()}
        concepts.append(
            Concept(
                one,
                names,
                {language: of for language, of in kept.items() if of},
                draw(others),
                draw(others),
                draw(st.dictionaries(LANGUAGE, TEXT, max_size=2)),
                draw(st.just("") | TEXT),
            )
        )
    return Vocabulary(concepts, "en")


@settings(max_examples=25, deadline=None)
@given(vocabularies())
@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz", "ttl", "rdf", "jsonld", "nt.gz"])
def test_what_is_written_is_read_again(tmp_path_factory, ending, vocabulary):
    if "jsonl" not in ending.split("."):
        pytest.importorskip("pyoxigraph", reason="the extra `skos` is not installed")
    logging.disable(logging.WARNING)
    try:
        path = tmp_path_factory.mktemp("v") / f"v.{ending}"
        write_vocabulary(path, vocabulary)
        again = read_vocabulary(path, "en")
        assert sorted(again, key=lambda one: one.id) == list(vocabulary)
        assert again.labels == vocabulary.labels
        if "jsonl" in ending.split("."):
            assert read_vocabulary(path).labels == vocabulary.labels
    finally:
        logging.disable(logging.NOTSET)


def test_a_label_that_was_written_is_read_without_a_language(tmp_path):
    before = Vocabulary(
        [Concept("1", {"de": "a", "en": "b"}), Concept("2", {"de": "a", "en": "c"}), Concept("3", {"en": "d"})], "de"
    )
    write_vocabulary(tmp_path / "v.jsonl", before)
    after = read_vocabulary(tmp_path / "v.jsonl")
    assert after.labels == {"1": "a (1)", "2": "a (2)", "3": "d"} and after.language in ("de", "en")
    with pytest.raises(ConfigurationError, match=r"ends in one of \.ttl"):
        write_vocabulary(tmp_path / "v.csv", before)


@pytest.mark.parametrize("name", ["v.csv", "v.tsv", "v.txt"])
def test_tables_of_spreadsheets_in_a_western_encoding(tmp_path, name):
    content = {"v.csv": "uri;label_de\n1;V\xf6gel", "v.tsv": "1\tV\xf6gel", "v.txt": "V\xf6gel"}[name]
    (tmp_path / name).write_bytes(content.encode("cp1252"))
    assert [*read_vocabulary(tmp_path / name).labels.values()] == ["V\xf6gel"]


def test_the_language_that_a_message_proposes_has_a_name(tmp_path):
    lines = [{"id": "1", "label": "a"}, {"id": "2", "names": {"en": "b"}}]
    write(tmp_path / "v.jsonl", "\n".join(map(json.dumps, lines)))
    with pytest.raises(ConfigurationError, match=r"\(language='en', --language en\)"):
        read_vocabulary(tmp_path / "v.jsonl")
