"""Label trees: what they rank, among which labels, and the folder that keeps them."""

from __future__ import annotations

import json
from dataclasses import replace
from unicodedata import normalize

import numpy as np
import pytest
from sources import ROW_TEXTS, TEXTS, make_trees, rows_of

from xlgen_hf.errors import ConfigurationError, ModelFolderError
from xlgen_hf.files.serialization import read_tensors, write_tensors
from xlgen_hf.labels.changes import LabelChange, LabelEdits
from xlgen_hf.labels.space import LabelSpace
from xlgen_hf.ranking.label_trees import LabelTrees, TfidfSettings
from xlgen_hf.ranking.scored_labels import ScoredLabels
from xlgen_hf.training.label_trees import fit_label_trees


@pytest.fixture
def trees(label_space):
    return make_trees(label_space)


@pytest.fixture(scope="module")
def deep_trees():
    """Trees of 60 labels, of which a beam of 1 ends in some."""
    labels = [f"label {number}" for number in range(60)]
    space = LabelSpace.from_label_lists([[name] for name in labels])
    texts = [f"{name} and word{number} or word{number % 7}" for number, name in enumerate(labels)]
    fitted = fit_label_trees(space, texts, [space.encode([name]) for name in labels], "parabel", threads=1)
    return replace(fitted, beam_size=1), texts


def test_they_rank_labels_that_training_had(trees, label_space):
    everything = trees.rank(["organ music"], 99)
    seen = {label for label, count in enumerate(label_space.counts) if count}
    assert set(everything.labels.tolist()) == seen and len(seen) < len(label_space)
    assert (np.diff(everything.scores) <= 0).all()
    assert 0 <= everything.scores.min() <= everything.scores.max() <= 1
    assert not everything.chosen.any()
    best = trees.rank(["organ music in the church", "printing"], 1)
    assert label_space.decode(best.labels.tolist())[1] == "printing (output)"


def test_there_may_be_no_texts_and_no_labels(trees):
    assert len(trees.rank([], 4)) == 0
    nothing = trees.rank(["xyzzy", "organ music"], 4, np.array([], dtype=int))
    assert nothing.start.tolist() == [0, 0, 0]
    unseen = trees.rank(["xyzzy"], 4, np.array([8, 9]))  # labels that no row has
    assert unseen.start.tolist() == [0, 0]


@pytest.mark.parametrize("k", [1, 3, 99])
def test_they_rank_what_is_allowed(trees, k):
    everything = rows_of(trees.rank(TEXTS, 99))
    allowed = np.array([1, 4, 6])
    for row, whole in zip(rows_of(trees.rank(TEXTS, k, allowed)), everything, strict=True):
        expected = [pair for pair in whole if pair[0] in allowed][:k]
        assert [label for label, _ in row] == [label for label, _ in expected]


def test_a_small_k_gives_the_first_of_a_large_one_past_the_beam_too(deep_trees):
    trees, texts = deep_trees
    seen = len(trees.labels)
    rows = {k: rows_of(trees.rank(texts[:5], k)) for k in (1, 5, seen // 2, seen, 10 * seen)}
    for few, many in zip(rows.values(), list(rows.values())[1:], strict=False):
        assert all(row == more[: len(row)] for row, more in zip(few, many, strict=True))
    for k, found in rows.items():
        assert {len(row) for row in found} == {min(k, seen)}
        assert all(len({label for label, _ in row}) == len(row) for row in found)
        assert all([score for _, score in row] == sorted((score for _, score in row), reverse=True) for row in found)


def test_allowed_labels_are_found_past_the_beam(deep_trees):
    trees, texts = deep_trees
    far = trees.rank(texts[:1], len(trees.labels)).labels[-3:]
    found = trees.rank(texts[:1], 2, far)
    assert set(found.labels.tolist()) <= set(far.tolist()) and len(found.labels) == 2


def test_new_labels_change_nothing_and_are_remembered(trees, label_space, tmp_path):
    change = LabelChange.with_names(label_space, ["zither"])
    grown = trees.relabelled(change)
    grown.save(tmp_path)
    loaded = LabelTrees.load(tmp_path, num_labels=len(change.after))
    assert change.after.decode(loaded.added.tolist()) == ["zither"] and not trees.added.size
    edits = LabelEdits(removed=["zither"]).change(change.after)
    assert not loaded.relabelled(edits).added.size
    assert grown.labels.tolist() == trees.labels.tolist()
    assert rows_of(grown.rank(ROW_TEXTS, 5)) == rows_of(trees.rank(ROW_TEXTS, 5))


@pytest.mark.parametrize("pair", [("zither", "organ"), ("organ", "zither")])
def test_a_new_label_that_is_merged_with_a_trained_one_is_ranked(trees, label_space, pair):
    change = LabelChange.with_names(label_space, ["zither", "harp"])
    merged = LabelEdits(merged=[pair]).change(change.after)
    changed = trees.relabelled(change).relabelled(merged)
    assert merged.after.decode(changed.added.tolist()) == ["harp"]
    assert merged.after.index[pair[1]] in changed.labels


def test_merged_and_removed_labels_leave_the_columns(trees, label_space, tmp_path):
    edits = LabelEdits(merged=[("organ", "music")], removed=["piano"], renamed=[("art", "fine art")])
    change = edits.change(label_space)
    names = change.after.names
    changed = trees.relabelled(change)
    changed.save(tmp_path)
    loaded = LabelTrees.load(tmp_path, num_labels=len(names))
    for before, after in zip(rows_of(trees.rank(ROW_TEXTS, 99)), rows_of(loaded.rank(ROW_TEXTS, 99)), strict=True):
        best = {}
        for label, score in before:
            name = {"organ": "music", "art": "fine art"}.get(label_space.names[label], label_space.names[label])
            if name != "piano":
                best[name] = max(score, best.get(name, 0.0))
        assert {names[label]: score for label, score in after} == pytest.approx(best)


def test_they_survive_a_reload(trees, label_space, tmp_path):
    trees.save(tmp_path / "trees")
    again = LabelTrees.load(tmp_path / "trees", num_labels=len(label_space))
    before, after = trees.rank(TEXTS, 3), again.rank(TEXTS, 3)
    np.testing.assert_array_equal(after.labels, before.labels)
    np.testing.assert_allclose(after.scores, before.scores, atol=1e-6)
    assert (again.settings, again.beam_size) == (trees.settings, trees.beam_size)
    assert isinstance(before, ScoredLabels)


# ------------------------------------------------------------------------------------------------ training


def test_rows_that_teach_nothing_are_left_out(label_space, caplog):
    """One text in 31 without labels is a gap in the data."""
    texts, ids = ["organ music", "printing", "", *["organ"] * 28], [[0], [], [1], *[[0]] * 28]
    found = fit_label_trees(label_space, texts, ids, threads=1)
    assert found.labels.tolist() == [0, 1]
    assert "printing" not in found.vectorizer.vocabulary_
    assert "1 of 31 training texts have no labels; they are left out." in caplog.text


def test_many_texts_without_labels_show_what_has_none(label_space, caplog):
    """The fault: trees that knew texts with labels alone were as sure of one in a text about something else."""
    texts, ids = ["organ music", "old prints"] * 20, [[0], [1]] * 20
    of_labels = fit_label_trees(label_space, texts, ids, threads=1)
    others = ["music of old birds", "birds in prints"] * 20
    found = fit_label_trees(label_space, [*texts, *others], [*ids, *[[]] * 40], threads=1)
    assert "40 of 80 training texts have no labels; they show the label trees what has none." in caplog.text
    text = ["birds and music of the organ", "birds and old music"]
    organ, birds = found.rank(text, 2), of_labels.rank(text, 2)
    assert organ.scores[organ.text == 1].max() < 0.2 < birds.scores[birds.text == 1].max()
    assert organ.scores[organ.text == 0].max() > organ.scores[organ.text == 1].max()


@pytest.mark.parametrize(("texts", "ids"), [(["", ""], [[0], [1]]), (["organ"], [[]])])
def test_without_a_single_feature_there_is_nothing_to_learn(label_space, texts, ids):
    with pytest.raises(ConfigurationError, match="training texts give no features"):
        fit_label_trees(label_space, texts, ids, threads=1)


# ------------------------------------------------------------------------------------------------ damaged folders


@pytest.fixture
def folder(trees, tmp_path):
    trees.save(tmp_path / "trees")
    return tmp_path / "trees"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("terms"), "'terms' is missing"),
        (lambda c: c.update(format_version=2), "format_version 2; this release reads 1"),
        (lambda c: c["settings"].update(min_df="1"), r"'settings\.min_df' is '1'; it must be an integer"),
        (
            lambda c: c["settings"].update(beam_size=0),
            r"'settings\.beam_size' is 0; it must be an integer >= 1 and <=",
        ),
        (
            lambda c: c["settings"].update(beam_size=10**9),
            "beam_size' is 1000000000; it must be an integer",
        ),
        (
            lambda c: c["settings"].update(longest_ngram=11),
            "longest_ngram' is 11; it must be an integer",
        ),
        (lambda c: c["settings"].update(n_trees=7), "holds 3 trees where 7 were saved"),
        (lambda c: c.update(terms=[1, 2]), r"'terms\[0\]' is 1; it must be a string"),
        (lambda c: c["terms"].__setitem__(0, c["terms"][1]), "more than once"),
        (lambda c: c["terms"].append("one more"), "tensor 'idf' is float32"),
    ],
)
def test_damaged_settings_are_refused(folder, label_space, change, message):
    path = folder / "label_trees.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ModelFolderError, match=message):
        LabelTrees.load(folder, num_labels=len(label_space))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("idf"), "tensor 'idf' is missing"),
        (lambda t: t.update(idf=t["idf"] * np.float32("nan")), "tensor 'idf' holds NaN or infinity"),
        (lambda t: t.update(labels=t["labels"].astype(np.int32)), "tensor 'labels' is int32"),
        (lambda t: t.update(labels=t["labels"] - 2), "tensor 'labels' holds -2; its values must be >= -1"),
        (lambda t: t.update(labels=t["labels"][:0]), "C is 0, and must be at least 1"),
    ],
)
def test_damaged_tensors_are_refused(folder, label_space, change, message):
    tensors = read_tensors(folder / "label_trees.safetensors")
    change(tensors)
    write_tensors(folder / "label_trees.safetensors", tensors)
    with pytest.raises(ModelFolderError, match=message):
        LabelTrees.load(folder, num_labels=len(label_space))


def test_trees_of_another_label_space_or_training_are_refused(folder, label_space):
    with pytest.raises(ModelFolderError, match=r"its values must be <= 0 \(L-1\)"):
        LabelTrees.load(folder, num_labels=1)
    tensors = read_tensors(folder / "label_trees.safetensors")
    tensors["labels"] = tensors["labels"][:1]
    write_tensors(folder / "label_trees.safetensors", tensors)
    with pytest.raises(ModelFolderError, match="rank more columns than the 1 labels"):
        LabelTrees.load(folder, num_labels=len(label_space))


def test_damaged_trees_are_refused(folder, label_space):
    (folder / "trees" / "tree0.cbor").write_bytes(b"nonsense")
    with pytest.raises(ModelFolderError, match="cannot read the model in"):
        LabelTrees.load(folder, num_labels=len(label_space))


def test_scripts_without_spaces_have_words_of_characters_and_pairs_of_them():
    """The fault: a sentence in Japanese was one word, which no other text has."""
    find = TfidfSettings().vectorizer().build_analyzer()
    assert find("佐々木のCafé 2号。") == [
        "佐", "々", "木", "の", "café", "号", "佐 々", "々 木", "木 の", "の café", "café 号"
    ]  # fmt: skip
    assert {"機 械", "学 習"} <= {*find("機械学習入門")} & {*find("はじめての機械学習")}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("\u0907\u0924\u093f\u0939\u093e\u0938\u0964 A x_1", ["\u0907\u0924\u093f\u0939\u093e\u0938", "x_1"]),
        ("\u0627\u0644\u0644\u0651\u064f\u063a\u064e\u0629", ["\u0627\u0644\u0644\u0651\u064f\u063a\u064e\u0629"]),
        ("A\u0308pfel l\u0131\u0323", ["\u00e4pfel", "l\u0131\u0323"]),
    ],
)
def test_marks_belong_to_their_words(text, words):
    found = TfidfSettings(longest_ngram=1).vectorizer().build_analyzer()(text)
    assert found == [normalize("NFC", word) for word in words]
