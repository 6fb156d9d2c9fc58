"""Evidence of retrieval: it adds up to the score, and names the words, names and texts that led to a label."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sources import ROW_TEXTS, TEXTS, label_ids, make_retriever

from xlgen_hf.ranking.sources import PARTS, TextBatch
from xlgen_hf.retrieval.documents import DocumentNames
from xlgen_hf.retrieval.evidence import retrieval_evidence

FURTHER = [(0, "Musik"), (0, "tunes"), (3, "Orgel"), (7, "pipe organ of a church")]
NAMES = DocumentNames.of([f"d{number}" for number in range(len(ROW_TEXTS))], ROW_TEXTS, 5)


@pytest.fixture(params=["all parts", "embeddings alone"])
def retriever(request, checkpoints, label_space):
    lexical = request.param == "all parts"
    options = {"further": FURTHER, "document_names": NAMES} if lexical else {}
    made = make_retriever(checkpoints["bert"], label_space, lexical=lexical, **options)
    return made.with_settings(replace(made.settings, neighbors=4), lexical=lexical)


def _explained(retriever, label_space, texts=TEXTS, k=50, further=FURTHER, given=()):
    batch = TextBatch(texts, given=given, explained=True)
    found = retriever.rank(batch, k)
    names = [*label_space.names, *(name for _, name in further)]
    return found, retrieval_evidence(retriever, batch, found.text, found.labels, names.__getitem__)


@pytest.mark.parametrize("given", [(), [[place, 3] for place in range(len(TEXTS))]], ids=["", "given labels"])
def test_scores_and_parts_are_those_of_the_ranking(retriever, label_space, given):
    found, evidence = _explained(retriever, label_space, given=given)
    assert not given or (found.scores != _explained(retriever, label_space)[0].scores).any()
    assert len(evidence) == len(found.labels)
    for name, values in {"retrieval": found.scores, **found.parts}.items():
        np.testing.assert_allclose([one.scores[name] for one in evidence], values, atol=1e-6)
    assert set(evidence[0].scores) == {"retrieval", *PARTS}


def test_a_ranking_that_will_be_explained_is_the_same(retriever):
    plain, explained = (retriever.rank(TextBatch(TEXTS, explained=one), 9) for one in (False, True))
    assert plain.labels.tolist() == explained.labels.tolist()
    np.testing.assert_allclose(plain.scores, explained.scores, atol=1e-6)


def test_documents_have_the_label_and_explain_their_part(retriever, label_space):
    found, evidence = _explained(retriever, label_space)
    having = label_ids(label_space)
    named = [f"d{number}" for number in range(len(ROW_TEXTS))]
    if retriever.document_names is None:
        named = [str(number) for number in range(1, len(ROW_TEXTS) + 1)]
    for label, one in zip(found.labels.tolist(), evidence, strict=True):
        shares = [document.share for document in one.documents]
        assert shares == sorted(shares, reverse=True) and sum(shares) <= 1 + 1e-6 and len(shares) <= 3
        for document in one.documents:
            number = named.index(document.id)
            assert label in having[number] and set(document.similarity) <= {"embedding", "lexical"}
            assert document.beginning == (None if retriever.document_names is None else ROW_TEXTS[number][:5])
        if sum(label in ids for ids in having) <= 3:  # all of them are there
            left_out = 1 - sum(shares) - sum(match.share for match in one.names)
            assert -1e-6 <= left_out <= 2 * 0.05  # names that count for less than a twentieth
    printing = next(one for one, text, label in zip(evidence, found.text, found.labels, strict=True)
                    if text == 1 and label_space.names[label] == "printing (output)")  # fmt: skip
    assert printing.documents[0].similarity["embedding"] == pytest.approx(1, abs=1e-2)  # the text itself is indexed


def test_words_that_match_are_found(checkpoints, label_space):
    further = [(label_space.index["printing (output)"], "Druckwerk")]
    retriever = make_retriever(checkpoints["bert"], label_space, lexical=True, further=further)
    text = "Druckwerk,  and CHURCH music"
    found, evidence = _explained(retriever, label_space, [text], further=further)
    of_label = {label_space.names[label]: one for label, one in zip(found.labels, evidence, strict=True)}
    church = next(one for one in of_label["church music"].names if one.by == "lexical")
    assert church.words == ["CHURCH music"] and church.spans == [(16, 28)] and church.name == "church music"
    alias = next(one for one in of_label["printing (output)"].names if one.by == "lexical")
    assert (alias.name, alias.words, alias.similarity > 0.5) == ("Druckwerk", ["Druckwerk"], True)
    for one in evidence:
        assert one.names == sorted(one.names, key=lambda match: -match.share)
        for match in one.names:
            assert match.words == [text[begin:end] for begin, end in match.spans]
            assert 0.05 <= match.share <= 1 + 1e-6


@pytest.mark.parametrize("texts", [[], [""], ["?!"], ["本" * 600, "a\ud7ff\n" * 30]])
def test_texts_without_words_are_explained(retriever, label_space, texts):
    _, evidence = _explained(retriever, label_space, texts, 3)
    assert len(evidence) == 3 * len(texts)


def test_a_long_text_is_explained_in_time(retriever, label_space):
    """The words of its first 20,000 characters."""
    text = "music and art " * 20_000
    _, (one, *_) = _explained(retriever, label_space, [text], 3)
    assert all(end <= 20_000 for match in one.names for _, end in match.spans)
