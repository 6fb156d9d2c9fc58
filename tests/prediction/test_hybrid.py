"""Hybrids: scores of a generator, of retrieval and of label trees fused, in one model folder."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from sources import ROW_TEXTS, TEXTS, Made, fused, label_ids, make_rcl, make_retriever, make_trees, rows_of, sharpened

from xlgen_hf.decoding.decoded_sets import DecodingOptions
from xlgen_hf.errors import ConfigurationError, ModelFolderError
from xlgen_hf.files.model_folder import model_files
from xlgen_hf.loading import load_model, load_predictor
from xlgen_hf.prediction.generator import Generator
from xlgen_hf.prediction.predictor import Predictor
from xlgen_hf.ranking.decisions import DecisionRule
from xlgen_hf.ranking.score_model import SCORE_MODEL_FILE, ScoreModel
from xlgen_hf.ranking.sources import PARTS
from xlgen_hf.ranking.thresholds import tuned_threshold
from xlgen_hf.training.tuning import fuse_sources

NUMBER = 4  # labels that each source brings
TREES = pytest.mark.parametrize("trees", [False, True], ids=["", "with trees"])


@pytest.fixture
def make(make_model, checkpoints, label_space):
    """A function that makes a hybrid: of a model without a retriever of its own, or of RCL."""

    def make_hybrid(trees=False, kind="base") -> Made:
        retriever = make_retriever(checkpoints["bert"], label_space, lexical=True)
        if kind == "rcl":
            made = make_rcl(checkpoints["bert"], label_space, retriever=retriever)
        else:
            made = Made(*make_model("bert", kind, max_labels=5))
        found = make_trees(label_space) if trees else None
        return fused(sharpened(made), found, retriever=retriever, number=NUMBER)

    return make_hybrid


def _save(made, folder):
    made.model.save_pretrained(folder)
    made.processor.save_pretrained(folder)


# ------------------------------------------------------------------------------------------------ scores


@TREES
def test_a_hybrid_scores_the_candidates_of_all(make, trees):
    made = make(trees)
    score_model = made.processor.score_model
    assert set(score_model.sources) == {"retrieval", *(["label_trees"] if trees else [])}
    scored = Predictor.from_model(*made).rank(ROW_TEXTS)
    ranked = [Generator(*made).rank(ROW_TEXTS), *(one.rank(ROW_TEXTS, NUMBER) for one in score_model.sources.values())]
    for row, *others in zip(rows_of(scored), *map(rows_of, ranked), strict=True):
        assert {label for label, _ in row} == {label for other in others for label, _ in other}
    assert ((scored.scores > 0) & (scored.scores < 1)).all()
    # Fitted and applied on the same rows it ranks right candidates before wrong ones more often than either source.
    correct = scored.correct(label_ids(made.processor.label_space))
    assert scored.scores[correct].mean() > scored.scores[~correct].mean()


@TREES
def test_scores_are_made_of_what_every_source_and_scorer_says(make, trees):
    made = make(trees, "rcl")
    space, score_model = made.processor.label_space, made.processor.score_model
    scored = Predictor.from_model(*made).rank(TEXTS)
    sources = {"generated": Generator(*made).rank(TEXTS)}
    sources |= {name: one.rank(TEXTS, NUMBER) for name, one in score_model.sources.items()}
    for name, ranked in sources.items():
        known = {(text, label): score for text, row in enumerate(rows_of(ranked)) for label, score in row}
        found = zip(scored.text.tolist(), scored.labels.tolist(), scored.parts[name], strict=True)
        assert {(text, label): value for text, label, value in found} == pytest.approx(
            {key: known.get(key, 0.0) for key in zip(scored.text.tolist(), scored.labels.tolist(), strict=True)},
            abs=1e-6,
        )
        assert scored.parts[name].any()
    assert set(PARTS) <= set(scored.parts)
    own = [space.decode(one.labels) for one in Generator(*made).decoded(TEXTS)]
    names = [space.decode([label for label, _ in row]) for row in rows_of(scored)]
    forced = made.model.score(TEXTS, names, made.processor, given=own)
    np.testing.assert_allclose(scored.parts["teacher_forced"], [one for row in forced for one in row], atol=1e-6)


def test_the_fusion_is_applied_as_it_was_learned(make):
    """A rule does not change what the fusion weighs: it has learned from what the search ends with."""
    made = make(kind="rcl")
    predictor = Predictor.from_model(*made)
    ranked = rows_of(predictor.rank(TEXTS))
    for decoding in (None, DecodingOptions(min_candidates=9)):
        assert rows_of(predictor.rank(TEXTS, decoding=decoding)) == ranked
    for rule in (DecisionRule("threshold", 0.0), tuned_threshold(0.3)):
        _same_as_ranked(predictor.predict(TEXTS, rule=rule), ranked, made)


@pytest.mark.parametrize("rule", [DecisionRule("top_k", 3), DecisionRule("expected_f1")])
def test_rules_that_rank_take_the_most_probable(make, rule):
    """Favouring rare labels is for thresholds; it would put less probable labels first."""
    made = make(kind="rcl")
    fusion = made.processor.score_model.fusion
    adjusted, plain = (
        Predictor.from_model(
            made.model, made.processor.with_score_model(replace(made.processor.score_model, fusion=one))
        )
        for one in (replace(fusion, logit_adjustment=3.0, slope=0.5, shift=1.0), fusion.most_probable())
    )
    ranked = rows_of(plain.rank(TEXTS))
    assert rows_of(adjusted.rank(TEXTS)) != ranked
    _same_as_ranked(adjusted.predict(TEXTS, rule=rule), ranked, made)


def _same_as_ranked(predictions, ranked, made):
    names = made.processor.label_space.names
    for one, row in zip(predictions, ranked, strict=True):
        assert one.labels == [names[label] for label, _ in row][: len(one.labels)]
        assert one.scores == pytest.approx([score for _, score in row][: len(one.scores)], abs=1e-6)


def test_batches_and_order_change_nothing(make):
    made = make(True, "rcl")
    together = made.model.predict(TEXTS, made.processor)
    for texts, size in ((TEXTS, 1), (TEXTS[::-1], 2)):
        found = made.model.predict(texts, made.processor, batch_size=size)
        for one, other in zip(found, together if texts == TEXTS else together[::-1], strict=True):
            assert one.labels == other.labels
            assert one.scores == pytest.approx(other.scores, abs=1e-4)


@TREES
@pytest.mark.parametrize("kind", ["base", "rcl"])
def test_a_hybrid_keeps_to_the_allowed_labels(make, trees, kind):
    made = make(trees, kind)
    assert made.model.predict([], made.processor) == []
    allowed = np.array([1, 4, 9])
    names = set(made.processor.label_space.decode(allowed))
    for one in made.model.predict(TEXTS, made.processor, allowed=allowed):
        assert one.labels and set(one.labels) <= names
    for one in made.model.predict(TEXTS, made.processor, allowed=allowed, rule=DecisionRule("top_k", 5)):
        assert set(one.labels) == names


def test_clusters_and_novel_names_come_with_a_hybrid_too(make):
    made = make(kind="bcl")
    found = made.model.predict(TEXTS, made.processor, open_vocabulary=True)
    plain = made.model.predict(TEXTS, made.processor.with_score_model(ScoreModel()), open_vocabulary=True)
    assert [one.clusters for one in found] == [one.clusters for one in plain] and any(one.clusters for one in found)
    assert [one.novel_labels for one in found] == [one.novel_labels for one in plain]


def test_as_many_labels_as_promise_the_highest_f1(make):
    made = make()
    found = made.model.predict(TEXTS, made.processor, rule=DecisionRule("expected_f1"))
    ranked = made.model.predict(TEXTS, made.processor, rule=DecisionRule("top_k", 20))
    for one, every in zip(found, ranked, strict=True):
        assert one.labels and one.labels == every.labels[: len(one.labels)]


# ------------------------------------------------------------------------------------------------ fitting


def test_a_hybrid_needs_right_and_wrong_candidates(make):
    made = make()
    sources = dict(made.processor.score_model.sources)
    with pytest.raises(ConfigurationError, match="candidates are wrong"):
        fuse_sources(Predictor.from_model(*made), sources, ROW_TEXTS, [[] for _ in ROW_TEXTS])


def test_its_rule_and_thresholds_are_tuned_on_the_rows(make):
    made = make(kind="rcl")
    score_model = made.processor.score_model
    assert score_model.rule.kind == "threshold" and score_model.rule.min_labels == 1
    assert set(score_model.thresholds) == {"micro", "macro", "example"}
    known = made.model.predict(ROW_TEXTS, made.processor)
    own = made.model.predict(ROW_TEXTS, made.processor, rule=score_model.rule)
    assert [one.labels for one in known] == [one.labels for one in own]
    assert all(one.labels for one in known)


def test_fitting_keeps_the_calibrator_and_leaves_the_processor_as_it_is(make):
    made = make()
    before = made.processor.score_model
    again = fuse_sources(
        Predictor.from_model(*made),
        dict(before.sources),
        ROW_TEXTS,
        label_ids(made.processor.label_space),
        candidates_per_source=2,
    )
    assert again.calibrator is before.calibrator
    assert again.fusion.candidates_per_source == 2
    assert made.processor.score_model is before


# ------------------------------------------------------------------------------------------------ folders


@TREES
@pytest.mark.parametrize("kind", ["bcl", "rcl"])
def test_a_hybrid_is_saved_and_loaded_as_one_folder(make, tmp_path, trees, kind):
    made, folder = make(trees, kind), tmp_path / "model"
    _save(made, folder)
    loaded = Made(*load_model(str(folder)))
    old, new = made.processor.score_model, loaded.processor.score_model
    assert (new.fusion, new.rule, new.thresholds, new.calibrator) == (old.fusion, old.rule, old.thresholds, None)
    assert set(new.sources) == set(old.sources)
    if kind == "rcl":  # input and fusion share one retriever
        assert new.sources["retrieval"] is loaded.processor.candidates.retriever is loaded.processor.retriever
    before, after = (rows_of(Predictor.from_model(*one).rank(TEXTS)) for one in (made, loaded))
    for row, again in zip(before, after, strict=True):
        assert dict(again) == pytest.approx(dict(row), abs=2e-2)  # the index is kept in 16 bits
    assert load_predictor(str(folder)).predict(TEXTS) == loaded.model.predict(TEXTS, loaded.processor)
    files = {"score_model.json", "retriever/retriever.safetensors"}
    if trees:
        files |= {
            "label_trees/label_trees.json",
            "label_trees/label_trees.safetensors",
            "label_trees/trees/tree0.cbor",
        }
    assert files <= set(model_files(folder))


@TREES
def test_new_labels_join_all_of_it(make, trees):
    made = make(trees, "rcl")
    assert made.processor.add_labels(["modern piano"]) == ["modern piano"]
    made.model.fit_output(made.processor)
    sources = made.processor.score_model.sources
    assert sources["retrieval"] is made.processor.candidates.retriever
    assert len(sources["retrieval"]) == len(made.processor.label_space)
    (found,) = made.model.predict(["modern piano"], made.processor, rule=DecisionRule("top_k", 99))
    assert len(found.labels) == len(made.processor.label_space) and "modern piano" in found.labels


def test_what_an_older_hybrid_left_does_not_stay(make, tmp_path):
    made = make(True)
    _save(made, tmp_path)
    plain = made.processor.with_score_model(ScoreModel())
    plain.save_pretrained(tmp_path)
    assert load_model(str(tmp_path))[1].score_model == ScoreModel()
    assert not any(name.startswith(("retriever/", "label_trees/")) for name in model_files(tmp_path))
    assert made.processor.score_model.sources  # the processor itself is as it was


@pytest.mark.parametrize("missing", ["retriever", "label_trees"])
def test_a_hybrid_that_lacks_a_source_is_refused(make, tmp_path, missing):
    _save(make(True), tmp_path)
    (tmp_path / missing).rename(tmp_path / "elsewhere")
    name = {"retriever": "retrieval"}.get(missing, missing)
    with pytest.raises(ModelFolderError, match=rf"{SCORE_MODEL_FILE}: the fusion weighs \['{name}'\]"):
        load_model(str(tmp_path))


def test_weights_of_what_no_source_gives_are_refused(make, tmp_path):
    _save(make(), tmp_path)
    path = tmp_path / SCORE_MODEL_FILE
    content = json.loads(path.read_text())
    content["fusion"]["weights"]["log_horoscope"] = 1.0
    path.write_text(json.dumps(content))
    model, processor = load_model(str(tmp_path))
    with pytest.raises(ConfigurationError, match=r"weighs \['horoscope'\], which no source of this model gives"):
        model.predict(TEXTS, processor)
