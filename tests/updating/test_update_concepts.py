"""Updates of a folder with a vocabulary: labels may be named by what their concepts are called, and ids live on."""

from __future__ import annotations

import pytest
from sources import make_retriever

from xlgen_hf.errors import DataError, LabelSpaceError
from xlgen_hf.labels.changes import LabelEdits
from xlgen_hf.labels.concepts import Concept
from xlgen_hf.labels.vocabulary import Vocabulary
from xlgen_hf.loading import load_predictor
from xlgen_hf.prediction.options import chosen_labels
from xlgen_hf.ranking.decisions import DecisionRule
from xlgen_hf.ranking.score_model import ScoreModel
from xlgen_hf.retrieval.model_sources import save_source_alone
from xlgen_hf.updating.update import undo_update, update_model


def test_concepts_follow(checkpoints, label_space, tmp_path):
    concepts = [Concept(f"c:{i}", {"en": name, "de": f"D {name}"}) for i, name in enumerate(label_space.names)]
    vocabulary = Vocabulary(concepts, "en")
    retriever = make_retriever(checkpoints["bert"], label_space)
    folder = tmp_path / "index"
    save_source_alone(folder, label_space, "retrieval", retriever, ScoreModel(), vocabulary)
    organ, piano = vocabulary.ids["organ"], vocabulary.ids["piano"]
    # Labels may be named by any name or id of their concepts, and so may rows; "D art" is one already.
    edits = LabelEdits([(piano, "grand piano")], [("D organ", "church music")], added=["D art", "harp"])
    rows = [{"text": "keys", "labels": [piano]}, {"text": "pipes", "labels": ["organ", "D art"]}]
    record = update_model(folder, edits, rows=rows)
    predictor = load_predictor(str(folder))
    assert predictor.vocabulary.labels[piano] == "grand piano" and organ not in predictor.vocabulary.concepts
    assert predictor.vocabulary.find("organ") == (predictor.vocabulary.ids["church music"],)
    assert record["changes"]["added"] == ["harp"]
    documents = [set(predictor.label_space.decode(row.indices.tolist())) for row in predictor.source.labels[-2:]]
    assert documents == [{"grand piano"}, {"church music", "art"}]
    found = predictor.predict(["keys"], rule=DecisionRule("top_k", 20))[0]
    assert dict(zip(found.labels, found.ids, strict=True))["grand piano"] == piano
    undo_update(folder)
    assert load_predictor(str(folder)).vocabulary.concepts == vocabulary.concepts


def test_a_name_that_several_concepts_have_is_refused(checkpoints, label_space, tmp_path):
    concepts = [Concept(f"c:{i}", {"en": name, "de": f"D {i // 2}"}) for i, name in enumerate(label_space.names)]
    folder = tmp_path / "index"
    retriever = make_retriever(checkpoints["bert"], label_space)
    save_source_alone(folder, label_space, "retrieval", retriever, ScoreModel(), Vocabulary(concepts, "en"))
    message = r"'D 0' may be one of the concepts \['c:0', 'c:1'\]; give the id"
    first, second = label_space.names[:2]
    for edits in (LabelEdits(removed=["D 0"]), LabelEdits(merged=[("D 0", "art")]), LabelEdits([("D 0", "new")])):
        with pytest.raises(LabelSpaceError, match=message):
            update_model(folder, edits)
    rows = [{"text": "unclear", "labels": ["D 0", "c:1"]}]
    for unknown in ("error", "add"):  # it would be a new label beside those that it may mean
        with pytest.raises(LabelSpaceError, match=message):
            update_model(folder, rows=rows, unknown_labels=unknown)
    record = update_model(folder, rows=rows, unknown_labels="leave-out")
    assert record["changes"]["rows"]["unknown_labels"] == {"D 0": 1}
    predictor = load_predictor(str(folder))
    assert predictor.label_space.decode(predictor.source.labels[-1].indices.tolist()) == [second]
    with pytest.raises(LabelSpaceError, match=message):
        chosen_labels(predictor, allow=["D 0"])
    assert chosen_labels(predictor, allow=["c:0"]).tolist() == [label_space.index[first]]


def test_the_id_of_a_merged_concept_leads_to_the_other(checkpoints, label_space, tmp_path):
    """Rows of a library go on naming a concept that was merged, and no URI becomes a label."""
    uri = "http://ex.org/{}"
    concepts = [Concept(uri.format(i), {"en": name}, notation=f"N{i}") for i, name in enumerate(label_space.names)]
    folder = tmp_path / "index"
    retriever = make_retriever(checkpoints["bert"], label_space)
    vocabulary = Vocabulary(concepts, "en")
    save_source_alone(folder, label_space, "retrieval", retriever, ScoreModel(), vocabulary)
    gone = vocabulary.concepts[vocabulary.ids["organ"]]
    update_model(folder, LabelEdits(merged=[("organ", "piano")]))
    update_model(folder, LabelEdits(merged=[("piano", "music")]))
    rows = [
        {"text": "by id", "labels": [gone.id]},
        {"text": "by notation", "labels": [gone.notation]},
        {"text": "by name", "labels": ["organ"]},
    ]
    update_model(folder, rows=rows)
    strange = [{"text": "unknown", "labels": [uri.format(999), "art", "harp"]}]
    with pytest.raises(DataError, match=r"'http://ex\.org/999' \(1 row\), 'harp'"):
        update_model(folder, rows=strange)
    record = update_model(folder, rows=strange, unknown_labels="add")
    assert record["changes"]["added"] == ["harp"]
    assert record["changes"]["rows"]["unknown_labels"] == {uri.format(999): 1, "harp": 1}
    found = load_predictor(str(folder))
    assert found.vocabulary.concepts[found.vocabulary.ids["music"]].replaces
    documents = [set(found.label_space.decode(row.indices.tolist())) for row in found.source.labels[-4:]]
    assert documents == [{"music"}] * 3 + [{"art", "harp"}]
