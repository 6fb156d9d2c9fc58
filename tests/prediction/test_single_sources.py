"""A retriever alone and label trees alone predict like any model, from Python and from the folders that keep them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sources import ROW_TEXTS, TEXTS, fused, label_ids, make_rcl, make_retriever, make_trees
from tiny import ROWS

from xlgen_hf.cli.main import main
from xlgen_hf.decoding.decoded_sets import DecodingOptions
from xlgen_hf.errors import ConfigurationError, ModelFolderError
from xlgen_hf.files.json_lines import write_jsonl
from xlgen_hf.labels.space import LabelSpace
from xlgen_hf.loading import load_predictor
from xlgen_hf.prediction.predictor import Predictor
from xlgen_hf.ranking.decisions import DecisionRule
from xlgen_hf.ranking.fitting import ranked_model
from xlgen_hf.ranking.fusion import Fusion
from xlgen_hf.ranking.label_trees import LabelTrees
from xlgen_hf.ranking.score_model import SCORE_MODEL_FILE, ScoreModel
from xlgen_hf.ranking.thresholds import tuned_threshold
from xlgen_hf.retrieval.model_sources import save_source_alone
from xlgen_hf.retrieval.retriever import LabelRetriever

KINDS = {"retrieval": LabelRetriever, "label_trees": LabelTrees}


@pytest.fixture
def make_source(checkpoints, label_space):
    def make(kind):
        if kind == "label_trees":
            return make_trees(label_space)
        return make_retriever(checkpoints["bert"], label_space, lexical=True)

    return make


@pytest.fixture
def score(label_space):
    """A function that fits a score model of a source on the rows."""

    def fit(source) -> ScoreModel:
        found = Predictor(label_space, source).rank(ROW_TEXTS, 50)
        return ranked_model(found, label_ids(label_space), label_space.counts)

    return fit


@pytest.mark.parametrize("kind", KINDS)
def test_what_it_ranks_is_what_it_predicts(make_source, label_space, kind):
    source = make_source(kind)
    predictor = Predictor(label_space, source)
    ranked = source.rank(TEXTS, 50)
    for number, one in enumerate(predictor.predict(TEXTS, rule=DecisionRule("top_k", 3))):
        best = ranked.take([number])
        assert one.labels == label_space.decode(best.labels[:3].tolist())
        assert one.scores == pytest.approx(best.scores[:3].tolist())
        assert (one.clusters, one.novel_labels) == ([], [])
    assert predictor.predict([]) == []


@pytest.mark.parametrize("kind", KINDS)
def test_without_validation_rows_5_labels_are_predicted(make_source, label_space, tmp_path, kind):
    save_source_alone(tmp_path, label_space, kind, make_source(kind), ScoreModel())
    predictor = load_predictor(str(tmp_path))
    assert predictor.score_model.rule == DecisionRule("top_k", 5)
    assert (predictor.score_model.calibrator, dict(predictor.score_model.thresholds)) == (None, {})
    for texts in (TEXTS, TEXTS[:1]):
        assert [len(one.labels) for one in predictor.predict(texts)] == [5] * len(texts)
    few = predictor.predict(TEXTS, allowed=np.array([0, 3]))
    assert all(set(one.labels) == set(label_space.decode([0, 3])) for one in few)


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_predicts_as_what_was_saved(make_source, score, label_space, tmp_path, kind):
    source = make_source(kind)
    score_model = score(source)
    assert score_model.calibrator is not None and set(score_model.thresholds) == {"micro", "macro", "example"}
    save_source_alone(tmp_path, label_space, kind, source, score_model)
    predictor, before = load_predictor(str(tmp_path)), Predictor(label_space, source, score_model)
    assert isinstance(predictor.source, KINDS[kind])
    assert predictor.score_model == score_model
    assert predictor.label_space.names == label_space.names
    known = predictor.predict(ROW_TEXTS)
    assert [one.labels for one in known] == [one.labels for one in before.predict(ROW_TEXTS)]
    right = sum(len(set(one.labels) & set(row["labels"])) for one, row in zip(known, ROWS, strict=True))
    assert right > 0.7 * sum(len(one.labels) for one in known)  # it has seen these rows


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_calibrated_and_thresholds_tuned(make_source, score, label_space, kind):
    source = make_source(kind)
    score_model = score(source)
    predictor = Predictor(label_space, source, score_model)
    ranked = predictor.rank(ROW_TEXTS, 50)
    raw = score_model.calibrator.transform(source.rank(ROW_TEXTS, 50), label_space.counts)
    assert ranked.labels.tolist() == raw.labels.tolist()
    np.testing.assert_allclose(ranked.scores, raw.scores)
    correct = ranked.correct(label_ids(label_space))
    assert ranked.scores.mean() == pytest.approx(correct.mean(), abs=0.02)  # isotonic, on the same rows
    for threshold in score_model.thresholds.values():
        for one in predictor.predict(TEXTS, rule=tuned_threshold(threshold)):
            assert one.labels and all(score >= threshold for score in one.scores[1:])
    own = [one.labels for one in predictor.predict(TEXTS)]
    assert own == [one.labels for one in predictor.predict(TEXTS, rule=score_model.rule)]
    assert predictor.predict(TEXTS, rule=DecisionRule("expected_f1"))  # calibrated scores are probabilities


@pytest.mark.parametrize("kind", KINDS)
def test_the_command_line_predicts_with_the_folder(make_source, score, label_space, tmp_path, kind):
    source = make_source(kind)
    folder, out = tmp_path / "index", tmp_path / "out.jsonl"
    save_source_alone(folder, label_space, kind, source, score(source))
    write_jsonl(tmp_path / "texts.jsonl", [{"text": text} for text in TEXTS])
    predictor = load_predictor(str(folder))
    thresholds = predictor.score_model.thresholds
    requests = {
        (): None,
        ("--top-k", "3"): DecisionRule("top_k", 3),
        ("--threshold", "auto"): tuned_threshold(thresholds["micro"]),
        ("--threshold", "auto", "--objective", "macro"): tuned_threshold(thresholds["macro"]),
        ("--threshold", "0.5"): DecisionRule("threshold", 0.5),
    }
    for options, rule in requests.items():
        assert main(["predict", "--model", str(folder), "--input-file", str(tmp_path / "texts.jsonl"),
                     "--output-file", str(out), *options]) == 0  # fmt: skip
        rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
        expected = predictor.predict(TEXTS, rule=rule)
        assert [row["labels"] for row in rows] == [one.labels for one in expected]
        out.unlink()


@pytest.mark.parametrize(("kind", "tokens"), [("retrieval", 256), ("label_trees", 0)])
def test_it_says_how_many_tokens_it_reads(make_source, label_space, make_model, kind, tokens):
    assert Predictor(label_space, make_source(kind)).tokens_read == tokens
    model, processor = make_model("bert", "bcl")
    assert Predictor.from_model(model.eval(), processor).tokens_read == processor.max_source_length == 64


def test_a_label_has_its_score_whichever_labels_are_allowed(make_source, label_space):
    weights = {"retrieval": 2.0, "relative_retrieval": 3.0, "retrieval_rank": 1.0}
    rule = DecisionRule("top_k", len(label_space))
    score_model = ScoreModel(fusion=Fusion(20, weights, -2.0, 0.0), rule=rule)
    predictor = Predictor(label_space, make_source("retrieval"), score_model)
    whole = [dict(zip(one.labels, one.scores, strict=True)) for one in predictor.predict(TEXTS)]
    for allowed in ([3], [1, 4, 9]):
        names = set(label_space.decode(allowed))
        for one, scores in zip(predictor.predict(TEXTS, allowed=np.array(allowed)), whole, strict=True):
            assert set(one.labels) == names
            assert one.scores == pytest.approx([scores[label] for label in one.labels])


def test_wrong_inputs_are_named(make_source, label_space):
    predictor = Predictor(label_space, make_source("retrieval"))
    with pytest.raises(TypeError, match="Text 2 is None; a string is needed"):
        predictor.predict(["organs", None])
    with pytest.raises(ConfigurationError, match="batch_size=0; it must be an integer >= 1"):
        predictor.predict(TEXTS, batch_size=0)


@pytest.mark.parametrize("kind", KINDS)
def test_options_of_a_generator_are_refused(make_source, label_space, kind):
    predictor = Predictor(label_space, make_source(kind))
    with pytest.raises(ConfigurationError, match="num_beams=3: that is for a generator's search; this model has none"):
        predictor.predict(TEXTS, decoding=DecodingOptions(num_beams=3))
    with pytest.raises(ConfigurationError, match="Only a generator spells names"):
        predictor.predict(TEXTS, open_vocabulary=True)
    with pytest.raises(ConfigurationError, match="has no clusters"):
        predictor.labels_of_clusters(["music"])


@pytest.mark.parametrize(
    ("allowed", "message"),
    [
        ([], r"allowed holds no label; give ids"),
        ([True, False], r"allowed holds bool values; give ids"),
        ([0.0, 1.5], r"allowed holds float64 values; give ids"),
        ([0, -1], r"allowed holds -1; the ids of the \d+ labels are 0 to \d+"),
        ([0, 1000], r"allowed holds 1000; the ids of the \d+ labels are 0 to \d+"),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_id_is_refused(make_source, label_space, kind, allowed, message):
    predictor = Predictor(label_space, make_source(kind))
    for ask in (predictor.predict, predictor.rank):
        with pytest.raises(ConfigurationError, match=message):
            ask(TEXTS, allowed=np.array(allowed))


@pytest.mark.parametrize("kind", KINDS)
def test_new_labels_join(make_source, label_space, kind):
    predictor = Predictor(label_space, make_source(kind)).with_labels(["organ printing", "music"])
    assert predictor.label_space.names == (*label_space.names, "organ printing")
    found = {name for one in predictor.predict(TEXTS, rule=DecisionRule("top_k", 99)) for name in one.labels}
    assert ("organ printing" in found) == (kind == "retrieval")  # trees rank what they were trained on


# ------------------------------------------------------------------------------------------------ folders


def test_other_folders_are_refused(make_source, label_space, checkpoints, tmp_path):
    both = tmp_path / "both"
    save_source_alone(both, label_space, "retrieval", make_source("retrieval"), ScoreModel())
    make_source("label_trees").save(both / "label_trees")
    with pytest.raises(ModelFolderError, match=r"holds \['label_trees', 'retrieval'\] and nothing that weighs them"):
        load_predictor(str(both))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelFolderError, match="empty"):
        load_predictor(str(tmp_path / "empty"))
    other = tmp_path / "other"
    save_source_alone(other, label_space, "retrieval", make_source("retrieval"), ScoreModel())
    LabelSpace(["some", "others"], [1, 1]).save(other)
    with pytest.raises(ModelFolderError, match="10 label names are indexed, the label space has 2 labels"):
        load_predictor(str(other))


def test_a_fusion_without_its_sources_is_refused(make_source, label_space, checkpoints, tmp_path):
    hybrid = fused(make_rcl(checkpoints["bert"], label_space))
    save_source_alone(tmp_path, label_space, "retrieval", make_source("retrieval"), ScoreModel())
    hybrid.processor.score_model.save(tmp_path)
    with pytest.raises(ModelFolderError, match=rf"{SCORE_MODEL_FILE}: .*\['retrieval'\], which the folder does not"):
        load_predictor(str(tmp_path))


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_score_model_predicts_5_labels(make_source, label_space, tmp_path, kind):
    save_source_alone(tmp_path, label_space, kind, make_source(kind), ScoreModel())
    (tmp_path / SCORE_MODEL_FILE).unlink()
    assert [len(one.labels) for one in load_predictor(str(tmp_path)).predict(TEXTS)] == [5] * len(TEXTS)
