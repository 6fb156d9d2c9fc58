"""An index that changes: labels renamed, merged and removed, texts added and corrected."""

from __future__ import annotations

import numpy as np
import pytest
from sources import ROW_TEXTS, label_ids, make_retriever, rows_of
from tiny import ROWS

from xlgen_hf.labels.changes import LabelChange, LabelEdits
from xlgen_hf.labels.concepts import Concept
from xlgen_hf.labels.space import LabelSpace
from xlgen_hf.labels.vocabulary import Vocabulary
from xlgen_hf.labels.vocabulary_edits import edit_vocabulary
from xlgen_hf.prediction.predictor import Predictor
from xlgen_hf.ranking.decisions import DecisionRule
from xlgen_hf.retrieval.documents import DocumentNames
from xlgen_hf.retrieval.index_updates import NewTexts, add_texts
from xlgen_hf.retrieval.retriever import LabelRetriever

LEXICAL = pytest.mark.parametrize("lexical", [False, True], ids=["", "lexical"])


def _named(retriever, space, texts):
    return [{space.names[label]: score for label, score in row} for row in rows_of(retriever.rank(texts, len(space)))]


def _made(checkpoints, rows, names, lexical):
    """An index that is made of rows from scratch, and its label space."""
    space = LabelSpace.from_label_lists([row["labels"] for row in rows], names)
    ids = [space.encode(row["labels"]) for row in rows]
    texts = [row["text"] for row in rows]
    return LabelRetriever.fit(space, texts, ids, checkpoints["bert"], lexical=lexical, progress=False), space


@LEXICAL
def test_new_ids_change_no_score(checkpoints, label_space, lexical):
    retriever = make_retriever(checkpoints["bert"], label_space, lexical=lexical)
    change = LabelChange.with_counts(label_space, np.arange(len(label_space)) ** 2)
    assert change.after.names != label_space.names
    found = retriever.relabelled(change)
    for before, after in zip(
        _named(retriever, label_space, ROW_TEXTS), _named(found, change.after, ROW_TEXTS), strict=True
    ):
        assert after == pytest.approx(before, abs=1e-6)


def test_edits_are_what_an_index_of_edited_rows_is(checkpoints, label_space):
    retriever = make_retriever(checkpoints["bert"], label_space)
    edits = LabelEdits([("art", "fine art")], [("organ", "piano")], ["printing (output)"], ["drum"])
    change = edits.change(label_space, retriever.labels)
    found = retriever.relabelled(change)
    names = {"art": "fine art", "organ": "piano"}
    rows = [{**row, "labels": [names.get(name, name) for name in row["labels"]]} for row in ROWS]
    rows = [row for row in rows if row["labels"] != ["printing (output)"]]  # whose only label is gone
    fresh, space = _made(checkpoints, rows, change.after.names, False)
    assert set(space.names) == set(change.after.names)
    assert dict(zip(space.names, space.counts, strict=True)) == dict(
        zip(change.after.names, change.after.counts, strict=True)
    )
    assert found.documents.shape == fresh.documents.shape
    before, after = _named(fresh, space, ROW_TEXTS), _named(found, change.after, ROW_TEXTS)
    for expected, scores in zip(before, after, strict=True):
        # The name of the label that was merged is a further name of the other one.
        assert {name: score for name, score in scores.items() if name != "piano"} == pytest.approx(
            {name: score for name, score in expected.items() if name != "piano"}, abs=1e-5
        )
        assert scores["piano"] >= expected["piano"] - 1e-6


@LEXICAL
def test_further_names_follow_their_labels(checkpoints, label_space, lexical, tmp_path):
    further = [(label_space.index["organ"], "pipes"), (label_space.index["art"], "painting")]
    retriever = LabelRetriever.fit(
        label_space, ROW_TEXTS, label_ids(label_space), checkpoints["bert"], lexical=lexical, further=sorted(further),
        progress=False,
    )  # fmt: skip
    edits = LabelEdits(merged=[("organ", "church music")], removed=["art"])
    change = edits.change(label_space, retriever.labels)
    found = retriever.relabelled(change)
    assert change.after.decode(found.further.tolist()) == ["church music", "church music"]
    embedded = [retriever.embed([name], side="passage")[0] for name in ("organ", "pipes")]
    np.testing.assert_allclose(sorted(found.names[-2:].tolist()), sorted(map(list, embedded)), atol=5e-4)  # 16 bits
    found.save(tmp_path)
    again = LabelRetriever.load(tmp_path, num_labels=len(change.after))
    for before, after in zip(_named(found, change.after, ROW_TEXTS), _named(again, change.after, ROW_TEXTS)):  # noqa: B905
        assert after == pytest.approx(before, abs=3e-3)


@LEXICAL
def test_added_texts_are_found_at_once(checkpoints, label_space, lexical):
    first, more = ROWS[:5], ROWS[5:]
    retriever, space = _made(checkpoints, first, label_space.names, lexical)
    ids = [space.encode(row["labels"]) for row in more]
    found, report = add_texts(retriever, [row["text"] for row in more], ids)
    assert report == NewTexts(added=3, corrected=0, unchanged=0, repeated=0)
    fresh, _ = _made(checkpoints, ROWS, label_space.names, lexical)
    assert found.documents == pytest.approx(fresh.documents, abs=1e-6)
    scores, expected = (_named(found, space, ROW_TEXTS), _named(fresh, label_space, ROW_TEXTS))
    for one, other in zip(scores, expected, strict=True):
        assert one == pytest.approx(other, abs=1e-5)
    assert len(retriever.documents) == 5  # the one that it was made from stays


def test_a_text_that_is_there_is_corrected(checkpoints, label_space):
    retriever = make_retriever(checkpoints["bert"], label_space)
    space = label_space
    rows = [
        ("printing", ["art"]),
        ("art and music", ["art", "music"]),  # as it is, in another order
        ("a new text", ["organ"]),
        ("printing", ["art", "printing (output)"]),  # the last one counts
    ]
    found, report = add_texts(retriever, [text for text, _ in rows], [space.encode(names) for _, names in rows])
    assert report == NewTexts(added=1, corrected=1, unchanged=1, repeated=1)
    assert len(found.documents) == len(ROWS) + 1
    names = [set(space.decode(row.indices.tolist())) for row in found.labels]
    assert names == [*({*row["labels"]} for row in ROWS[:6]), {"art", "printing (output)"}, {"art", "modern art"},
                     {"organ"}]  # fmt: skip
    again, report = add_texts(found, [text for text, _ in rows], [space.encode(names) for _, names in rows])
    assert report == NewTexts(0, 0, 3, 1) and len(again.documents) == len(found.documents)


@pytest.mark.parametrize("known", [None, DocumentNames.of("abcdefgh", ROW_TEXTS, 9)], ids=["numbers", "names"])
def test_documents_have_ids(checkpoints, label_space, known, tmp_path):
    retriever = make_retriever(checkpoints["bert"], label_space, document_names=known)
    ids = list(known.ids) if known else [str(number) for number in range(1, len(ROWS) + 1)]
    texts, labels = ["a new text", "printing", "another text"], [label_space.encode(["organ"])] * 3
    named, _ = add_texts(retriever, texts, labels, ["x", "y", "z"])  # the second one is there already
    assert list(named.document_names.ids) == [*ids, "x", "z"]
    numbered, _ = add_texts(named, ["a third one"], labels[:1])
    assert list(numbered.document_names.ids) == [*ids, "x", "z", str(len(ROWS) + 3)]
    beginnings = numbered.document_names.beginnings
    assert beginnings is None if known is None else list(beginnings)[-3:] == ["a new tex", "another t", "a third o"]
    change = LabelEdits(removed=["organ"]).change(label_space, numbered.labels)
    found = numbered.relabelled(change)
    kept = [
        name for name, row in zip(ids, ROWS, strict=True) if row["labels"] != ["organ"] and row["text"] != texts[1]
    ]
    assert list(found.document_names.ids) == kept
    found.save(tmp_path)
    assert list(LabelRetriever.load(tmp_path, num_labels=len(change.after)).document_names.ids) == kept


def test_evidence_names_what_was_merged(checkpoints, label_space, tmp_path):
    concepts = [Concept(id=name, names={"en": name, "de": f"{name} (de)"}) for name in label_space.names]
    vocabulary = Vocabulary(concepts, "en")
    further = vocabulary.further_names(label_space.index)
    retriever = make_retriever(checkpoints["bert"], label_space, lexical=True, further=further)
    edits = LabelEdits(merged=[("church music", "organ")])
    change = edits.change(label_space, retriever.labels)
    retriever.relabelled(change).save(tmp_path)
    found = LabelRetriever.load(tmp_path, num_labels=len(change.after))
    names = ["organ (de)", "church music (de)", "church music"]
    here = found.further == change.after.index["organ"]
    called = [name for name, one in zip(found.further_names, here, strict=True) if one]
    assert sorted(called) == sorted(names)
    predictor = Predictor(change.after, found, vocabulary=edit_vocabulary(vocabulary, edits))
    for text in names:
        (one,) = predictor.predict([text], rule=DecisionRule("top_k", 10), evidence=True)
        (reason,) = (reason for reason in one.evidence if reason.label == "organ")
        assert {match.name for match in reason.names} == {text}


def test_no_texts_change_nothing(checkpoints, label_space):
    retriever = make_retriever(checkpoints["bert"], label_space, lexical=True)
    found, report = add_texts(retriever, [], [])
    assert report == NewTexts(0, 0, 0, 0)
    assert np.shares_memory(found.documents, retriever.documents)
