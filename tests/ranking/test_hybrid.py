"""Hybrids: scores of generator, retrieval and label trees fused, in one model folder."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

from xlgen_hf.errors import ConfigurationError, ModelFolderError
from xlgen_hf.experiments.systems.base import SystemData
from xlgen_hf.experiments.systems.linear_trees import bonsai
from xlgen_hf.files.model_folder import model_files
from xlgen_hf.files.serialization import read_tensors, write_tensors
from xlgen_hf.loading import load_model
from xlgen_hf.ranking.decisions import DecisionRule
from xlgen_hf.ranking.fusion import _FEATURES, Hybrid
from xlgen_hf.ranking.label_trees import LabelTrees
from xlgen_hf.ranking.scored_labels import ScoredLabels
from xlgen_hf.ranking.thresholds import MICRO_F1_TOLERANCE, threshold_curves
from xlgen_hf.retrieval.retriever import LabelRetriever

TEXTS = ["a history of organ music", "printing", "modern piano"]


@pytest.fixture
def made(make_model):
    model, processor = make_model("bert")
    return SimpleNamespace(model=model, processor=processor)


@pytest.fixture
def linear(made, rows, tmp_path):
    trees = bonsai()
    trees.fit(SystemData(rows, rows, made.processor.label_space, tmp_path / "trees"))
    return trees.ranker


@pytest.fixture(params=[False, True], ids=["", "linear"])
def make_hybrid(request, made, linear, checkpoints, rows):
    space, texts = made.processor.label_space, rows["text"][:]
    ids = [space.encode(labels) for labels in rows["labels"]]
    retriever = LabelRetriever.fit(space, texts, ids, checkpoints["bert"], progress=False)
    generated = made.model.scored_labels(texts, made.processor)[1]
    made.processor.hybrid = Hybrid.fit(
        made.model,
        made.processor,
        retriever,
        texts,
        ids,
        generated,
        num_candidates=4,
        linear=linear if request.param else None,
    )
    return made, generated, ids


def test_a_hybrid_scores_the_candidates_of_all(make_hybrid, rows):
    made, generated, ids = make_hybrid
    hybrid, texts = made.processor.hybrid, rows["text"][:]
    fused = hybrid.score(made.model, made.processor, texts, made.processor.encode_texts(texts), generated)
    sources = [generated, hybrid.retriever.retrieve(texts, 4)]
    sources += [] if hybrid.linear is None else [hybrid.linear.rank(texts, 4)]
    for row in range(len(texts)):
        parts = [set(one.labels[one.start[row] : one.start[row + 1]].tolist()) for one in (fused, *sources)]
        assert parts[0] == set.union(*parts[1:])
    assert ((fused.scores > 0) & (fused.scores < 1)).all()
    # Fitted and applied on the same rows it ranks right candidates before wrong ones more often than either source.
    correct = fused.correct(ids)
    assert fused.scores[correct].mean() > fused.scores[~correct].mean()


def test_a_hybrid_keeps_to_the_allowed_labels(make_hybrid):
    made, _, _ = make_hybrid
    assert made.model.predict([], made.processor) == []
    allowed = np.array([1, 4])
    names = set(made.processor.label_space.decode(allowed))
    for one in made.model.predict(TEXTS, made.processor, labels=allowed, rule=DecisionRule("top_k", 5)):
        assert set(one.labels) == names


def test_a_hybrid_is_saved_loaded_and_pushed_as_one_folder(make_hybrid, tmp_path):
    made, _, _ = make_hybrid
    tmp_path = tmp_path / "model"
    made.model.save_pretrained(tmp_path)
    made.processor.save_pretrained(tmp_path)
    model, processor = load_model(str(tmp_path))
    before, after = (m.predict(TEXTS, p) for m, p in ((made.model, made.processor), (model, processor)))
    assert [one.labels for one in before] == [one.labels for one in after]
    old, new = made.processor.hybrid, processor.hybrid
    assert (new.rarity, new.threshold, new.intercept) == (old.rarity, old.threshold, old.intercept)
    assert new.weights.tolist() == old.weights.tolist()
    assert processor.thresholds == old.thresholds
    files = {"hybrid.json", "retriever/retriever.safetensors"}
    if processor.hybrid.linear is not None:
        files |= {"linear/linear.json", "linear/linear.safetensors", "linear/trees/tree0.cbor"}
    assert files <= set(model_files(tmp_path))
    assert processor.add_labels(["modern piano"])
    model.widen_output(processor)
    found = model.predict(["modern piano"], processor)[0]
    assert found.labels
    processor.hybrid = None
    processor.save_pretrained(tmp_path)
    assert load_model(str(tmp_path))[1].hybrid is None
    assert not any(name.startswith(("retriever/", "linear/")) for name in model_files(tmp_path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["weights"].pop("forced"), "a number for each of"),
        (lambda c: c.update(threshold="0.5"), "must be numbers"),
        (lambda c: c.update(num_candidates=0), "num_candidates=0"),
        (lambda c: c.update(rarity=-0.1), "rarity=-0.1; a finite number from 0 on"),
        (lambda c: c.update(threshold=10**400), "too large"),
        (lambda c: c["weights"].update(rank=10**400), "too large"),
        (lambda c: c.update(thresholds={"best": 0.5}), "for some of"),
        (lambda c: c.update(thresholds={"micro": None}), "must be numbers"),
        (lambda c: c.update(linear=1), "linear a bool"),
        (lambda c: c.update(format_version=1), "has format_version 1; 3 and the fields"),
        (lambda c: c.update(more=1), "has format_version 3; 3 and the fields"),
    ],
)
def test_a_damaged_hybrid_is_refused(make_hybrid, tmp_path, change, message):
    made, _, _ = make_hybrid
    made.processor.hybrid.save(tmp_path)
    path = tmp_path / "hybrid.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ModelFolderError, match=message):
        Hybrid.load(tmp_path, made.processor.hybrid.retriever)


def test_a_hybrid_needs_right_and_wrong_candidates(make_hybrid, rows):
    made, generated, _ = make_hybrid
    nothing = [[] for _ in rows]
    retriever = made.processor.hybrid.retriever
    made.processor.hybrid = None
    with pytest.raises(ConfigurationError, match="candidates are wrong"):
        Hybrid.fit(made.model, made.processor, retriever, rows["text"][:], nothing, generated)


@pytest.mark.parametrize("counts", [[0, 9, 9, 9, 9, 9], [9, 9, 9, 9, 9, 0]])
def test_rarity_lowers_what_training_saw_often(make_hybrid, counts):
    hybrid = make_hybrid[0].processor.hybrid
    candidates = ScoredLabels(np.array([0, 6]), np.arange(6), np.zeros(6), np.zeros(6, dtype=bool))
    scored = hybrid._scored(candidates, np.zeros((6, len(hybrid.weights))), np.array(counts), 0.3)
    assert scored.labels[0] == counts.index(0)
    logit = np.log(scored.scores / (1 - scored.scores))
    np.testing.assert_allclose(logit[0] - logit[1:], 0.3 * np.log(10))


@pytest.mark.parametrize("counts", [[0, 40, 40, 40], [40, 40, 40, 0]])
def test_rarity_is_chosen_for_the_rare_and_costs_little(make_hybrid, counts):
    """A label that is never seen is right as often as its scores say, the others far less often than theirs do."""
    hybrid = make_hybrid[0].processor.hybrid
    random = np.random.default_rng(0)
    rare = counts.index(0)
    right = random.random((400, 4)) < np.where(np.arange(4) == rare, 0.2, 0.25)
    references = [np.flatnonzero(row).tolist() for row in right]
    labels = np.tile(np.arange(4), 400)
    candidates = ScoredLabels(np.arange(0, 1601, 4), labels, np.zeros(1600), np.ones(1600, dtype=bool))
    features = np.zeros((1600, len(hybrid.weights)))
    features[:, 0] = np.where(labels == rare, 0.0, 1.0) + right.ravel() * 0.5 + random.random(1600) * 0.4
    hybrid.weights, hybrid.intercept = np.eye(len(hybrid.weights))[0], 0.0
    micro = {}
    for rarity in (0.0, None):
        if rarity is None:
            hybrid._favour_rare_labels(candidates, features, references, np.array(counts))
            assert hybrid.rarity > 0
            assert hybrid.thresholds["micro"] == pytest.approx(hybrid.threshold, abs=0.2)
        used = hybrid.rarity if rarity is None else rarity
        scored = hybrid._scored(candidates, features, np.array(counts), used)
        micro[rarity] = max(threshold_curves(scored, references, ("micro",))[1][0])
    chosen = DecisionRule("threshold", hybrid.threshold).apply(scored)
    hits = chosen.chosen & chosen.correct(references)
    f1 = 2 * hits.sum() / (chosen.chosen.sum() + right.sum())
    assert f1 >= (1 - MICRO_F1_TOLERANCE) * micro[0.0]
    assert (chosen.labels[hits] == rare).any()


def test_label_trees_are_a_feature_and_survive_a_reload(linear, made, tmp_path):
    everything = linear.rank(TEXTS, 3)
    linear.save(tmp_path / "linear")
    again = LabelTrees.load(tmp_path / "linear", num_labels=len(made.processor.label_space)).rank(TEXTS, 3)
    np.testing.assert_array_equal(again.labels, everything.labels)
    np.testing.assert_allclose(again.scores, everything.scores, atol=1e-6)
    (tmp_path / "linear" / "notes.txt").write_text("of the user")
    LabelTrees.remove(tmp_path / "linear")
    assert [path.name for path in (tmp_path / "linear").iterdir()] == ["notes.txt"]


def test_scores_of_label_trees_reach_the_features(make_hybrid, rows):
    made, generated, _ = make_hybrid
    hybrid, texts = made.processor.hybrid, rows["text"][:]
    candidates, features = hybrid._features(
        made.model, made.processor, texts, made.processor.encode_texts(texts), generated
    )
    column = dict(
        zip(
            zip(candidates.text.tolist(), candidates.labels.tolist(), strict=True),
            features[:, _FEATURES.index("linear")],
            strict=True,
        )
    )
    if hybrid.linear is None:
        assert not any(column.values())
        return
    ranked = hybrid.linear.rank(texts, hybrid.num_candidates)
    known = dict(zip(zip(ranked.text.tolist(), ranked.labels.tolist(), strict=True), ranked.scores, strict=True))
    assert any(known.values())
    assert {key: known.get(key, 0.0) for key in column} == pytest.approx(column)


def test_trees_of_an_older_hybrid_do_not_stay(make_hybrid, tmp_path):
    made, _, _ = make_hybrid
    made.processor.save_pretrained(tmp_path)
    made.processor.hybrid.linear = None
    made.processor.save_pretrained(tmp_path)
    made.model.save_pretrained(tmp_path)
    assert not (tmp_path / "linear").exists()
    assert load_model(str(tmp_path))[1].hybrid.linear is None


def test_label_trees_rank_what_is_allowed(linear, made):
    assert len(linear.rank([], 4)) == 0
    nothing = linear.rank(["xyzzy", "organ music"], 4, np.array([], dtype=int))
    assert nothing.start.tolist() == [0, 0, 0]
    everything = linear.rank(["organ music"], 99)
    assert (np.diff(everything.scores) <= 0).all()
    known = {label for label, count in enumerate(made.processor.label_space.counts) if count}
    assert set(everything.labels.tolist()) <= known


@pytest.fixture
def linear_folder(linear, made, tmp_path):
    linear.save(tmp_path / "linear")
    return tmp_path / "linear", len(made.processor.label_space)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("terms"), "format_version 1"),
        (lambda c: c["settings"].update(min_df="1"), "'settings' must hold"),
        (lambda c: c["settings"].update(beam_size=0), "beam_size=0; 1 to 10000"),
        (lambda c: c["settings"].update(n_trees=7), "holds 3 trees where 7 were saved"),
        (lambda c: c.update(terms=[1, 2]), "a list of strings"),
        (lambda c: c["terms"].__setitem__(0, c["terms"][1]), "stands twice"),
        (lambda c: c["terms"].append("one more"), "'idf' must hold"),
    ],
)
def test_damaged_label_trees_are_refused(linear_folder, change, message):
    folder, num_labels = linear_folder
    path = folder / "linear.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ModelFolderError, match=message):
        LabelTrees.load(folder, num_labels=num_labels)


def test_label_trees_of_another_label_space_are_refused(linear_folder):
    folder, num_labels = linear_folder
    with pytest.raises(ModelFolderError, match="different ids of the label space of 1 labels"):
        LabelTrees.load(folder, num_labels=1)
    tensors = read_tensors(folder / "linear.safetensors")
    tensors["labels"] = tensors["labels"][:1]
    write_tensors(folder / "linear.safetensors", tensors)
    with pytest.raises(ModelFolderError, match="rank column"):
        LabelTrees.load(folder, num_labels=num_labels).rank(["organ music and printing"], 99)
    (folder / "trees" / "tree0.cbor").write_bytes(b"nonsense")
    with pytest.raises(ModelFolderError, match="cannot read the model in"):
        LabelTrees.load(folder, num_labels=num_labels)
