"""Predictions with the candidate head: a source of its own, a scorer of others' candidates, a part of hybrids."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from sources import ROW_TEXTS, TEXTS, Made, label_ids, make_rcl, make_retriever, make_trees, rows_of, sharpened

from xlgen_hf.cli.main import main
from xlgen_hf.decoding.decoded_sets import DecodingOptions
from xlgen_hf.errors import ConfigurationError
from xlgen_hf.files.json_lines import write_jsonl
from xlgen_hf.files.model_folder import model_files
from xlgen_hf.loading import load_model, load_predictor
from xlgen_hf.prediction.candidate_ranker import CandidateRanker
from xlgen_hf.prediction.generator import Generator
from xlgen_hf.prediction.predictor import Predictor
from xlgen_hf.ranking import fitting
from xlgen_hf.ranking.decisions import DecisionRule
from xlgen_hf.ranking.scored_labels import ScoredLabels
from xlgen_hf.ranking.sources import PARTS
from xlgen_hf.training.arguments import XLGenTrainingArguments
from xlgen_hf.training.evaluating import ragged
from xlgen_hf.training.run import train_model
from xlgen_hf.training.settings import TrainingSettings
from xlgen_hf.training.trainer import XLGenTrainer
from xlgen_hf.training.tuning import fuse_sources, tune_model

HEAD_ALONE = {"generation_loss_weight": 0.0}


@pytest.fixture(autouse=True)
def few_rows_are_enough(monkeypatch):
    """The validation rows of these tests are few."""
    monkeypatch.setattr(fitting, "MIN_RIGHT_CANDIDATES", 2)


@pytest.fixture
def make(checkpoints, label_space):
    """A function that builds an RCL whose head has random weights."""

    def make_from(number=4, family="bert", **options) -> Made:
        retriever = make_retriever(checkpoints[family], label_space, lexical=True)
        made = make_rcl(checkpoints[family], label_space, "tokens", number, retriever=retriever, **options)
        torch.manual_seed(5)
        for parameter in made.model.candidate_head.parameters():
            torch.nn.init.normal_(parameter)
        return sharpened(made)

    return make_from


def _head_scores(made, texts):
    """Label id -> probability of each text, as the model itself gives them, one text after the other."""
    found = []
    for text in texts:
        encoded = Generator(*made).encode(made.processor.encode_texts([text]))
        labels = encoded.texts[0].candidates.labels
        values = encoded.memory.candidate_logits[0].sigmoid().tolist()
        found.append(dict(zip(labels, values, strict=False)))
    return found


# ------------------------------------------------------------------------------------------------ source


def test_it_ranks_the_candidates_of_the_input(make):
    made = make()
    for row, expected in zip(rows_of(CandidateRanker(*made).rank(TEXTS)), _head_scores(made, TEXTS), strict=True):
        assert dict(row) == pytest.approx(expected, abs=1e-5)
        assert [score for _, score in row] == sorted((score for _, score in row), reverse=True)


def test_further_labels_come_in_the_order_of_retrieval(make):
    made = make()
    size = len(made.processor.label_space)
    short, long = (CandidateRanker(*made).rank(TEXTS, k) for k in (0, size))
    retrieved = rows_of(made.processor.retriever.rank(TEXTS, size))
    for first, whole, order in zip(rows_of(short), rows_of(long), retrieved, strict=True):
        assert whole[: len(first)] == first and len(whole) == size
        known = {label for label, _ in first}
        assert [label for label, _ in whole[len(first) :]] == [label for label, _ in order if label not in known]


def test_it_keeps_to_the_allowed_labels(make):
    made, allowed = make(**HEAD_ALONE), np.array([1, 4, 9])
    found = Predictor.from_model(*made).predict(TEXTS, rule=DecisionRule("top_k", 5), allowed=allowed)
    names = set(made.processor.label_space.decode(allowed))
    assert all(set(one.labels) == names for one in found)


@pytest.mark.parametrize("rule", [DecisionRule("threshold", 0.3, min_labels=1), DecisionRule("expected_f1")])
def test_a_rule_that_promises_a_label_finds_an_allowed_one(make, rule):
    """The fault: where none of the labels to choose from was in the input, nothing was predicted."""
    made = make(**HEAD_ALONE)
    read = {label for text in rows_of(CandidateRanker(*made).rank(TEXTS)) for label, _ in text}
    allowed = np.array([label for label in range(len(made.processor.label_space)) if label not in read])
    found = Predictor.from_model(*made).predict(TEXTS, rule=rule, allowed=allowed)
    assert all(len(one.labels) == 1 for one in found)


def test_a_model_without_generation_predicts_without_its_decoder(make):
    made = make(**HEAD_ALONE)
    made.model.get_decoder().register_forward_pre_hook(lambda *given: pytest.fail("the decoder ran"))
    predictor = Predictor.from_model(*made)
    assert isinstance(predictor.source, CandidateRanker)
    for one, expected in zip(predictor.predict(TEXTS), _head_scores(made, TEXTS), strict=True):
        best = sorted(expected.values(), reverse=True)[: len(one.labels)]
        assert one.scores[: len(best)] == pytest.approx(best, abs=1e-5)
    again = predictor.predict(TEXTS, batch_size=2)
    assert [one.labels for one in again] == [one.labels for one in predictor.predict(TEXTS)]
    with pytest.raises(ConfigurationError, match="a generator's search; this model predicts with its candidate head"):
        predictor.predict(TEXTS, decoding=DecodingOptions(num_beams=3))
    with pytest.raises(ConfigurationError, match="Only a generator spells names"):
        predictor.predict(TEXTS, open_vocabulary=True)


def test_new_labels_can_join(make):
    made = make(**HEAD_ALONE)
    former = Predictor.from_model(*made)
    before = former.predict(TEXTS, evidence=True)
    predictor = former.with_labels(["organ music"])
    assert isinstance(predictor.source, CandidateRanker)
    assert "organ music" in predictor.predict(["organ music"], rule=DecisionRule("top_k", 5))[0].labels
    assert former.predict(TEXTS, evidence=True) == before
    assert "organ music" not in made.processor.label_space


# ------------------------------------------------------------------------------------------------ scorer


def test_it_scores_the_candidates_of_others(make):
    made = make()
    candidates = ScoredLabels.from_rows(([7, 2, 0, 5, 9], [0.5] * 5, [False] * 5) for _ in TEXTS)
    scores = Generator(*made).features(TEXTS, candidates, ["candidate_head"])
    assert set(scores) == {"candidate_head"}
    rows = np.split(scores["candidate_head"], candidates.start[1:-1])
    labels = np.split(candidates.labels, candidates.start[1:-1])
    for values, ids, known in zip(rows, labels, _head_scores(made, TEXTS), strict=True):
        expected = [known.get(label, min(known.values())) for label in ids.tolist()]
        assert values.tolist() == pytest.approx(expected, abs=1e-5)
    assert set(Generator(*made).features(TEXTS, candidates)) == {"candidate_head", "teacher_forced"}


# ------------------------------------------------------------------------------------------------ hybrids


@pytest.mark.parametrize("head_alone", [False, True])
def test_a_hybrid_weighs_the_head_with_its_other_parts(make, head_alone):
    made = make(**HEAD_ALONE if head_alone else {})
    predictor = Predictor.from_model(*made)
    sources = {"retrieval": made.processor.retriever, "label_trees": make_trees(made.processor.label_space)}
    ids = label_ids(made.processor.label_space)
    features = None if head_alone else ["candidate_head"]
    score_model = fuse_sources(predictor, sources, ROW_TEXTS, ids, candidates_per_source=3, features=features)
    assert "candidate_head" in score_model.fusion.weights
    hybrid = Predictor.from_model(made.model, made.processor.with_score_model(score_model))
    found = hybrid.rank(TEXTS)
    assert ("teacher_forced" in found.parts) is False
    own = rows_of(predictor.source.rank(TEXTS))
    others = [rows_of(one.rank(TEXTS, 3)) for one in sources.values()]
    for text, known in enumerate(_head_scores(made, TEXTS)):
        mine = found.text == text
        labels = found.labels[mine].tolist()
        assert set(labels) == {label for rows in (own, *others) for label, _ in rows[text]}
        expected = [known.get(label, min(known.values())) for label in labels]
        assert found.parts["candidate_head"][mine].tolist() == pytest.approx(expected, abs=1e-5)


# ------------------------------------------------------------------------------------------------ head or generator


def _micro_f1(sets, references):
    hits = sum(len(set(one) & set(other)) for one, other in zip(sets, references, strict=True))
    return 2 * hits / max(sum(map(len, sets)) + sum(map(len, references)), 1)


def _tuned(made, references, **options):
    batches = [made.processor.encode_texts(ROW_TEXTS)]
    score = partial(_micro_f1, references=references)
    return tune_model(made.model, made.processor, batches, references, score, num_beams=2, **options)


def test_validation_rows_choose_between_head_and_generator(make):
    made = make()
    made.model.candidate_head.reset()  # it repeats what retrieval says, while the generator is random
    truth = label_ids(made.processor.label_space)
    of_head = _tuned(made, truth)
    assert made.model.config.predicts_with == "candidate_head" and of_head.fusion is not None
    generated = [one.labels for one in Generator(*made).decoded(ROW_TEXTS)]
    of_generator = _tuned(made, generated)
    assert made.model.config.predicts_with == "generator"
    assert of_generator.fusion is None and of_generator.calibrator is not None


def test_few_validation_rows_weigh_nothing(make, monkeypatch):
    monkeypatch.setattr(fitting, "MIN_RIGHT_CANDIDATES", 100)
    made = make()
    tuned = _tuned(made, label_ids(made.processor.label_space), predict_with="candidate_head")
    assert tuned.fusion is None and tuned.calibrator is not None and tuned.rule.kind != "own"
    predictor = Predictor.from_model(made.model, made.processor.with_score_model(tuned))
    assert any(one.labels for one in predictor.predict(ROW_TEXTS))


def test_what_predicts_can_be_named(make, checkpoints):
    made = make()
    made.model.candidate_head.reset()
    truth = label_ids(made.processor.label_space)
    for _ in range(2):  # whatever the model predicted with before
        assert _tuned(made, truth, predict_with="candidate_head").fusion is not None
        assert made.model.config.predicts_with == "candidate_head"
        assert _tuned(made, truth, predict_with="generator").fusion is None
        assert made.model.config.predicts_with == "generator"
    headless = make_rcl(checkpoints["bert"], made.processor.label_space, candidate_loss_weight=0.0)
    with pytest.raises(ConfigurationError, match="predicts_with='candidate_head' needs a candidate head"):
        _tuned(headless, truth, predict_with="candidate_head")
    alone = make(**HEAD_ALONE)
    assert _tuned(alone, truth).fusion is not None and alone.model.config.predicts_with == "candidate_head"


def test_a_loaded_model_can_predict_with_its_other_part(make, tmp_path):
    made = make()
    made.model.candidate_head.reset()
    score_model = _tuned(made, label_ids(made.processor.label_space))
    made.model.save_pretrained(tmp_path)
    made.processor.with_score_model(score_model).save_pretrained(tmp_path)
    assert isinstance(load_predictor(str(tmp_path)).source, CandidateRanker)
    same = load_predictor(str(tmp_path), predict_with="candidate_head")
    assert same.score_model.fusion is not None
    other = load_predictor(str(tmp_path), predict_with="generator")
    assert isinstance(other.source, Generator) and other.score_model.fusion is None
    assert other.predict(TEXTS, decoding=DecodingOptions(num_beams=3))[0].labels
    with pytest.raises(ConfigurationError, match=r"predicts_with='classifier'; it must be one of generator, cand"):
        load_model(str(tmp_path), predict_with="classifier")
    alone = make(**HEAD_ALONE)
    alone.model.save_pretrained(tmp_path / "alone")
    alone.processor.save_pretrained(tmp_path / "alone")
    with pytest.raises(ConfigurationError, match="only the candidate head of this model was trained"):
        load_model(str(tmp_path / "alone"), predict_with="generator")


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"variant": "base"}, "candidate_head"),
        ({"variant": "rcl", "conditioning": "memory"}, "candidate_head"),
        ({"variant": "rcl", "candidate_loss_weight": 0.0}, "candidate_head"),
        ({"variant": "mcg", "candidates": True}, "candidate_head"),
        ({"variant": "rcl", "generation_loss_weight": 0.0}, "generator"),
    ],
)
def test_a_part_that_is_not_trained_is_refused_before_the_training(checkpoints, rows, tmp_path, settings, part):
    args = XLGenTrainingArguments(str(tmp_path), predict_with=part)
    with pytest.raises(ConfigurationError, match=f"predict_with='{part}': these settings do not train it"):
        train_model(TrainingSettings(backbone=checkpoints["bert"], **settings), args, rows, rows)


@pytest.mark.parametrize(
    "settings",
    [
        {"variant": "base"},
        {"variant": "rcl", "conditioning": "memory"},
        {"variant": "rcl", "candidate_loss_weight": 0.0},
    ],
)
def test_targets_of_a_head_that_is_not_trained_are_refused(checkpoints, rows, tmp_path, settings):
    args = XLGenTrainingArguments(str(tmp_path), soft_targets=0.3)
    with pytest.raises(
        ConfigurationError, match=r"soft_targets=0\.3 has no effect: these settings train no candidate"
    ):
        train_model(TrainingSettings(backbone=checkpoints["bert"], **settings), args, rows, rows)


# ------------------------------------------------------------------------------------------------ a model's life


@pytest.mark.parametrize("family", ["bert", "t5"])
def test_trained_alone_saved_and_loaded_it_predicts_the_same(make, rows, tmp_path, family):
    made = make(family=family, **HEAD_ALONE)
    arguments = XLGenTrainingArguments(str(tmp_path / "run"), max_steps=3, per_device_train_batch_size=4)
    before = {name: value.clone() for name, value in made.model.state_dict().items()}
    trainer = XLGenTrainer(
        made.model, arguments, processing_class=made.processor, train_dataset=rows, eval_dataset=rows
    )
    trainer.train()
    trainer.tune_decisions()
    scores = trainer.evaluate()
    assert 0 <= scores["eval_micro_f1"] <= 1 and scores["eval_loss"] > 0
    trainer.save_model(str(tmp_path / "model"))
    score_model = trainer.processing_class.score_model
    assert score_model.rule.kind != "own" and not score_model.sources
    assert {"candidate_head", "retrieval", "retrieval_rank", *PARTS} <= set(score_model.fusion.weights)
    evaluated = ragged(trainer.predict(rows).predictions)
    predicted = made.model.eval().predict(rows["text"][:], trainer.processing_class)
    space = made.processor.label_space
    assert [set(row) for row in evaluated] == [set(space.encode(one.labels)) for one in predicted]
    changed = {name for name, value in made.model.state_dict().items() if not torch.equal(value, before[name])}
    assert any(name.startswith("candidate_head.") for name in changed)
    assert any("encoder." in name for name in changed)
    assert not any("crossattention" in name or "EncDecAttention" in name for name in changed)
    assert "retriever/retriever.json" in model_files(tmp_path / "model")
    model, processor = load_model(str(tmp_path / "model"))
    assert model.config.predicts_with == "candidate_head" and model.config.generation_loss_weight == 0
    first, second = (
        one.predict(TEXTS, two) for one, two in ((made.model.eval(), trainer.processing_class), (model, processor))
    )
    for one, other in zip(first, second, strict=True):
        assert one.labels == other.labels
        assert one.scores == pytest.approx(other.scores, abs=2e-2)  # the index is kept in 16 bits


def test_commands_train_the_head_alone_and_fuse_it(checkpoints, rows, tmp_path, capsys):
    data = tmp_path / "train.jsonl"
    write_jsonl(data, rows)
    small = ["--max_steps", "2", "--per_device_train_batch_size", "4", "--eval_strategy", "no"]
    head, hybrid = str(tmp_path / "head"), str(tmp_path / "hybrid")
    assert main(["train", "--train-file", str(data), "--validation-file", str(data), "--variant", "rcl",
                 "--backbone", checkpoints["bert"], "--retriever-epochs", "0", "--num-input-candidates", "4",
                 "--generation-loss-weight", "0", "--output-dir", head, *small]) == 0  # fmt: skip
    fuse = ["hybrid", "--model", head, "--validation-file", str(data), "--output-dir", hybrid]
    assert main([*fuse, "--candidates-per-source", "4"]) == 0
    model, processor = load_model(hybrid)
    assert "candidate_head" in processor.score_model.fusion.weights
    assert all(one.labels for one in model.predict(ROW_TEXTS, processor))
    capsys.readouterr()
    wrong = ["--predict-with", "generator", "--candidate-scores", "candidate_head"]
    assert main([*fuse, *wrong, "--overwrite"]) == 1
    assert "only the candidate head of this model was trained" in capsys.readouterr().err


def test_commands_fuse_a_generator_by_the_scores_of_its_head(make, rows, tmp_path):
    made, data = make(), tmp_path / "train.jsonl"
    write_jsonl(data, rows)
    made.model.save_pretrained(tmp_path / "both")
    made.processor.save_pretrained(tmp_path / "both")
    hybrid = str(tmp_path / "hybrid")
    fuse = ["hybrid", "--model", str(tmp_path / "both"), "--validation-file", str(data), "--output-dir", hybrid]
    assert main([*fuse, "--predict-with", "generator", "--candidate-scores", "candidate_head"]) == 0
    _, processor = load_model(hybrid)
    assert {"generated", "candidate_head"} <= set(processor.score_model.fusion.weights)
    assert "teacher_forced" not in processor.score_model.fusion.weights
