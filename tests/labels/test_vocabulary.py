"""Vocabularies: labels of concepts, what a name may mean, the hierarchy, and the files in a model's folder."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xlgen_hf.errors import ConfigurationError, LabelSpaceError, ModelFolderError
from xlgen_hf.labels.concepts import Concept
from xlgen_hf.labels.vocabulary import Vocabulary, vocabulary_labels

URI = "http://example.org/"


def make_vocabulary(language: str = "en") -> Vocabulary:
    return Vocabulary(
        [
            Concept("planet", {"en": "planets", "de": "Planeten"}, notation="52.1"),
            Concept("metal", {"en": "metals"}, {"en": ("metallic elements",)}),
            Concept(URI + "1", {"en": "mercury", "de": "Merkur"}, broader=("planet",), related=(URI + "2",)),
            Concept(URI + "2", {"en": "mercury", "de": "Quecksilber"}, {"en": ("quicksilver", "hg")}, ("metal",)),
            Concept("hg", {"en": "hydrogen gas"}, definition={"en": "a gas"}),
        ],
        language,
    )


def test_concepts_of_one_name_stay_apart():
    assert list(make_vocabulary().labels.values()) == [
        "planets", "metals", "mercury (planets)", "mercury (metals)", "hydrogen gas",
    ]  # fmt: skip
    german = make_vocabulary("DE")
    assert german.labels[URI + "1"] == "Merkur" and german.labels["metal"] == "metals"
    assert german.named_otherwise() == ["metal", "hg"]
    assert make_vocabulary().same_names() == {"mercury": [URI + "1", URI + "2"]} and not german.same_names()


def test_the_language_of_a_label_is_that_of_its_name():
    german = make_vocabulary().in_language("DE")
    assert [german.language_of(one) for one in german.concepts] == ["de", "en", "de", "de", "en"]
    assert german.in_language("en").labels == make_vocabulary().labels
    assert german.in_language("en") is german.in_language("EN") and german.in_language("de") is german
    assert make_vocabulary().language_of(URI + "1") == "en"  # mercury (planets)
    unnamed = Vocabulary([Concept("1", {"": "bank"}), Concept("2", {"": "river"})], labels={"1": "bank", "2": "other"})
    assert unnamed.language_of("1") is None and unnamed.language_of("2") is None
    with pytest.raises(LabelSpaceError, match="'3' is not the id of a concept"):
        unnamed.language_of("3")


def test_varieties_of_a_language_count_as_the_language():
    concepts = [
        Concept("1", {"en": "cooking", "de": "Kochen"}),
        Concept("2", {"de": "Recht", "en-us": "law"}),
        Concept("3", {"de": "Farbe", "en-gb": "colour", "en-us": "color"}),
    ]
    assert list(Vocabulary(concepts, "en").labels.values()) == ["cooking", "law", "color"]  # the more frequent variety
    assert list(Vocabulary(concepts, "en-GB").labels.values()) == ["cooking", "law", "colour"]
    assert not Vocabulary(concepts, "en").named_otherwise()
    german = Vocabulary(concepts[1:], "de")
    assert german.in_language("en").language == "en-us" and german.in_language("en") is german.in_language("en-US")
    with pytest.raises(ConfigurationError, match="no name in the language 'e'"):
        german.in_language("e")


def test_no_concept_is_above_itself():
    vocabulary = Vocabulary([Concept("1", {"en": "a"}, broader=("1", "2")), Concept("2", {"en": "b"})])
    assert vocabulary.parents("1") == ["2"]
    with pytest.raises(LabelSpaceError, match="'3' is not the id of a concept"):
        vocabulary.parents("3")


def test_the_last_part_of_an_id_and_then_the_id_tell_concepts_apart():
    same = [Concept(one, {"en": "bank"}) for one in ("http://a/1", "http://b/1", "http://b/2#x")]
    assert list(Vocabulary(same).labels.values()) == ["bank (http://a/1)", "bank (http://b/1)", "bank (x)"]
    with pytest.raises(LabelSpaceError, match=r"Several concepts are called 'bank'.*Give them different names"):
        Vocabulary([Concept("1", {"en": "bank"}), Concept("2", {"en": "bank"}), Concept("3", {"en": "bank (1)"})])


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("mercury (planets)", (URI + "1",)),  # a label
        (URI + "2", (URI + "2",)),
        (f"<{URI}2>", (URI + "2",)),
        ("Quecksilber", (URI + "2",)),
        ("quicksilver", (URI + "2",)),
        ("52.1", ("planet",)),
        ("hg", ("hg",)),  # an id before an alias
        ("mercury", (URI + "1", URI + "2")),
        ("tin", ()),
    ],
)
def test_what_a_name_means(name, found):
    assert make_vocabulary().find(name) == found


@pytest.mark.parametrize("language", ["de", "fi"])
def test_answers_in_another_language_are_understood_again(language):
    """Also where concepts share a name in that language, or have none in it."""
    concepts = [*make_vocabulary(), Concept("auto", {"de": "Mercury", "fi": "mercury"}, broader=("planet",))]
    vocabulary = Vocabulary(concepts, language)
    for other in vocabulary.languages:
        answers = vocabulary.in_language(other).labels
        found = {one: vocabulary.find(label) for one, label in answers.items() if label not in vocabulary.ids}
        assert found == {one: (one,) for one in found}
        assert {"mercury (planets)", "mercury (metals)"} <= {*answers.values()} or other != "en"


def test_a_language_in_which_concepts_cannot_be_told_apart_is_passed_over():
    names = {"1": "bank", "2": "bank", "3": "bank (1)"}
    vocabulary = Vocabulary([Concept(one, {"de": one, "en": name}) for one, name in names.items()], "de")
    assert vocabulary.find("bank (1)") == ("3",) and vocabulary.find("bank") == ("1", "2")


def test_one_concept_of_a_name():
    assert make_vocabulary().find_one("Merkur") == URI + "1"
    with pytest.raises(LabelSpaceError, match=r"'mercury' may be one of the concepts .*give the id"):
        make_vocabulary().find_one("mercury")
    with pytest.raises(LabelSpaceError, match="'tin' names no concept"):
        make_vocabulary().find_one("tin")


def test_branches_end_where_the_hierarchy_has_a_loop():
    parents = {"a": ("c",), "b": ("a", "x"), "c": ("b",), "d": ("d", "c"), "e": ()}
    found = Vocabulary([Concept(one, {"": one}, broader=above) for one, above in parents.items()])
    assert found.branch("b") == {"a", "b", "c", "d"} and found.branch("d") == {"d"} and found.branch("e") == {"e"}
    assert found.loops() == [["a", "b", "c"], ["d"]]
    assert found.parents("b") == ["a"]
    with pytest.raises(LabelSpaceError, match="'x' is not the id of a concept"):
        found.branch("x")


def test_what_a_vocabulary_must_be():
    with pytest.raises(ConfigurationError, match=r"several languages: 'en', 'de'\. Choose .*--language en"):
        Vocabulary(make_vocabulary())
    with pytest.raises(ConfigurationError, match="no name in the language 'fi'; choose one of 'en', 'de'"):
        make_vocabulary("fi")
    with pytest.raises(LabelSpaceError, match="'a' is the id of two concepts"):
        Vocabulary([Concept("a", {"": "x"}), Concept("a", {"": "y"})])
    with pytest.raises(LabelSpaceError, match="'a' is a concept without a name"):
        Vocabulary([Concept("a", {})])
    with pytest.raises(LabelSpaceError, match="at least one concept"):
        Vocabulary([])
    with pytest.raises(LabelSpaceError, match="2 concepts come with 1 different labels"):
        Vocabulary([Concept("a", {"": "x"}), Concept("b", {"": "y"})], labels={"a": "x", "b": "x"})


def test_further_names_are_those_that_are_not_the_label():
    found = make_vocabulary()
    ids = {label: number for number, label in enumerate(sorted(found.ids))}
    assert [(sorted(found.ids)[label], name) for label, name in found.further_names(ids)] == [
        ("mercury (metals)", "mercury"), ("mercury (metals)", "Quecksilber"), ("mercury (metals)", "quicksilver"),
        ("mercury (metals)", "hg"), ("mercury (planets)", "mercury"), ("mercury (planets)", "Merkur"),
        ("metals", "metallic elements"), ("planets", "Planeten"),
    ]  # fmt: skip
    own = found.further_names(ids, other_languages=False)
    assert [name for _, name in own] == ["mercury", "quicksilver", "hg", "mercury", "metallic elements"]
    other = found.further_names(ids, names=False)
    assert [name for _, name in other] == ["Quecksilber", "Merkur", "Planeten"]
    german = found.in_language("de")  # in which metals have no name, and their aliases are in the label's language
    ids = {label: number for number, label in enumerate(sorted(german.ids))}
    assert [name for _, name in german.further_names(ids, other_languages=False)] == ["metallic elements"]
    assert vocabulary_labels(found) == list(found.labels.values()) and vocabulary_labels(["a"]) == ["a"]


def test_definitions_are_those_in_the_language_of_the_labels_where_there_are_some():
    defined = [
        Concept("1", {"en": "a", "de": "A"}, definition={"de": "Erster", "en": "first"}),
        Concept("2", {"en": "b"}, {"en": ("B",)}, definition={"fi": "toinen"}),
        Concept("3", {"en": "c"}),
    ]
    found = Vocabulary(defined, "en")
    ids = {"a": 5, "b": 7, "c": 9}
    alone = found.further_names(ids, names=False, other_languages=False, definitions=True)
    assert alone == [(5, "first"), (7, "toinen")]
    assert found.further_names(ids, definitions=True) == [(5, "A"), (5, "first"), (7, "B"), (7, "toinen")]
    assert found.further_names(ids, names=False, other_languages=False) == []


# ---------------------------------------------------------------------------------------------------- files


def test_saved_and_loaded(tmp_path):
    assert Vocabulary.load(tmp_path, ["a"]) is None
    before = make_vocabulary("de")
    before.save(tmp_path)
    after = Vocabulary.load(tmp_path, [*before.ids, "a label without a concept"])
    assert after is not None
    assert list(after) == list(before) and after.labels == before.labels and after.language == "de"


def _change(line, **values):
    return {**line, **values}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: lines[:-1], "it has 4 concepts; vocabulary.json says 5"),
        (lambda lines: [*lines[:-1], lines[0]], "'planet' is the id of two concepts"),
        (lambda lines: [_change(lines[0], names=["x"]), *lines[1:]], "line 1: 'names' is .'x'.; it must be an object"),
        (lambda lines: [*lines[:-1], _change(lines[-1], label="other")], "'other', which is not a label of the model"),
        (lambda lines: [*lines[:-1], _change(lines[-1], related=["no"])], "'hg' refers to 'no', which is not"),
        (lambda lines: [*lines[:-1], _change(lines[-1], more=1)], "line 5: 'more' is not a field of it"),
    ],
)
def test_damaged_files_are_refused(tmp_path, change, message):
    vocabulary = make_vocabulary()
    vocabulary.save(tmp_path)
    path = tmp_path / "vocabulary.jsonl"
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    path.write_text("".join(json.dumps(line) + "\n" for line in change(lines)), encoding="utf-8")
    with pytest.raises(ModelFolderError, match=message):
        Vocabulary.load(tmp_path, vocabulary.ids)


def test_lines_that_are_not_json_are_named(tmp_path):
    make_vocabulary().save(tmp_path)
    path = tmp_path / "vocabulary.jsonl"
    path.write_text(path.read_text(encoding="utf-8") + "{\n", encoding="utf-8")
    with pytest.raises(ModelFolderError, match=r"vocabulary.jsonl is not JSON Lines in UTF-8: line 6"):
        Vocabulary.load(tmp_path, make_vocabulary().ids)
    path.unlink()
    with pytest.raises(ModelFolderError, match=r"vocabulary.jsonl is missing"):
        Vocabulary.load(tmp_path, make_vocabulary().ids)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=3)
    | st.sampled_from([URI + "1", "\ud800", "planets"]),
    lambda inside: (
        st.lists(inside, max_size=2) | st.dictionaries(st.sampled_from(["en", "de", "id"]), inside, max_size=2)
    ),
    max_leaves=4,
)


@settings(max_examples=100, deadline=None)
@given(
    st.integers(0, 4),
    st.sampled_from(["id", "label", "names", "aliases", "broader", "related", "definition", "x"]),
    JSON,
)
def test_any_change_of_a_line_loads_or_is_refused(tmp_path_factory, number, field, value):
    folder = tmp_path_factory.mktemp("vocabulary")
    vocabulary = make_vocabulary()
    vocabulary.save(folder)
    path = folder / "vocabulary.jsonl"
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    lines[number][field] = value
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    try:
        found = Vocabulary.load(folder, vocabulary.ids)
    except ModelFolderError as err:
        assert "vocabulary.jsonl" in str(err)
    else:
        assert found is not None and len(found) == 5 and set(found.ids) <= set(vocabulary.ids)
        assert found.find("planets") and found.branch("planet")
