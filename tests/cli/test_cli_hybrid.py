"""`xlgen hybrid`: a model fused with an index of a folder and with label trees, and how many labels it predicts."""

from __future__ import annotations

import json
import shutil

import pytest
from sources import make_untrained
from tiny import ROWS

from xlgen_hf.cli.main import main
from xlgen_hf.decoding.decoded_sets import DecodingOptions
from xlgen_hf.files.json_lines import write_jsonl
from xlgen_hf.labels.space import LabelSpace
from xlgen_hf.loading import load_predictor
from xlgen_hf.ranking.decisions import DecisionRule
from xlgen_hf.retrieval.retriever import LabelRetriever

TEXTS = ["a history of church music", "modern art", "", "never heard of it", "organ"]
VOCABULARY = [
    f"{kind} {thing}" for kind in ("old", "new", "grand") for thing in ("music", "art", "piano", "organ", "church")
]


@pytest.fixture(scope="module")
def originals(checkpoints, tmp_path_factory):
    """A model without a retriever, an index for it, and the rows of both; 23 labels, 15 of them without rows."""
    folder = tmp_path_factory.mktemp("originals")
    write_jsonl(folder / "rows.jsonl", ROWS)
    write_jsonl(folder / "texts.jsonl", [{"text": text} for text in TEXTS])
    (folder / "labels.txt").write_text("\n".join(VOCABULARY), encoding="utf-8")
    space = LabelSpace.from_label_lists([row["labels"] for row in ROWS], VOCABULARY)
    model, processor = make_untrained(checkpoints["bert"], "bcl", space, max_labels=4)
    model.save_pretrained(folder / "model")
    processor.save_pretrained(folder / "model")
    assert main(["index", "--train-file", str(folder / "rows.jsonl"), "--labels", str(folder / "labels.txt"),
                 "--validation-file", str(folder / "rows.jsonl"), "--encoder", checkpoints["bert"], "--epochs", "0",
                 "--output-dir", str(folder / "index")]) == 0  # fmt: skip
    return folder


@pytest.fixture
def files(originals, tmp_path):
    """A copy of the model, its index and the rows."""
    return shutil.copytree(originals, tmp_path, dirs_exist_ok=True)


def _hybrid(files, *options: str) -> int:
    """The exit code of the command, with few candidates per source."""
    return main(["hybrid", "--model", str(files / "model"), "--validation-file", str(files / "rows.jsonl"),
                 "--output-dir", str(files / "hybrid"), "--candidates-per-source", "3", *options])  # fmt: skip


def _predict(files, *options: str) -> list[dict]:
    out = files / "out.jsonl"
    arguments = ["predict", "--model", str(files / "hybrid"), "--input-file", str(files / "texts.jsonl")]
    assert main([*arguments, "--output-file", str(out), "--overwrite", *options]) == 0
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("trees", [False, True])
def test_a_hybrid_gives_as_many_labels_as_asked_for_or_as_there_are(files, trees):
    options = ["--linear", "bonsai", "--train-file", str(files / "rows.jsonl")] if trees else []
    if trees:
        pytest.importorskip("omikuji", reason="the extra `baselines` is not installed")
    assert _hybrid(files, "--retriever", str(files / "index"), *options) == 0
    predictor = load_predictor(str(files / "hybrid"))
    assert set(predictor.score_model.sources) == {"retrieval", *(["label_trees"] if trees else [])}
    count = len(predictor.label_space)
    assert count == 23

    own = _predict(files)
    assert all(row["labels"] for row in own)  # a tuned threshold leaves the best label
    assert [row["labels"] for row in own] == [one.labels for one in predictor.predict(TEXTS)]
    searches = (None, *(() if trees else (DecodingOptions(num_beams=3), DecodingOptions(max_labels=2))))
    for decoding in searches:
        for k in (1, 20, 99):
            for prediction in predictor.predict(TEXTS, decoding=decoding, rule=DecisionRule("top_k", k)):
                assert len(prediction.labels) == len(set(prediction.labels)) == min(k, count)
                assert prediction.scores == sorted(prediction.scores, reverse=True)
    found = predictor.predict(TEXTS, rule=DecisionRule("top_k", 20))
    assert [row["labels"] for row in _predict(files, "--top-k", "20")] == [one.labels for one in found]
    (files / "few.txt").write_text("\n".join(VOCABULARY[:3]), encoding="utf-8")
    for row in _predict(files, "--top-k", "20", "--allow", str(files / "few.txt")):
        assert set(row["labels"]) == set(VOCABULARY[:3])


def test_what_goes_into_a_hybrid_must_fit(files, capsys):
    assert _hybrid(files) == 1
    assert "has no retriever; give --retriever" in capsys.readouterr().err
    assert _hybrid(files, "--retriever", str(files / "index"), "--linear", "bonsai") == 1
    assert "--linear and --train-file go together" in capsys.readouterr().err
    LabelSpace(["some", "other", "labels"], [1, 1, 1]).save(files / "index")
    assert _hybrid(files, "--retriever", str(files / "index")) == 1
    assert "is for other labels (3) than the model's (23)" in capsys.readouterr().err
    assert not (files / "hybrid").exists()


@pytest.mark.parametrize("alone", [True, False])
def test_label_trees_of_a_folder_are_a_source(files, capsys, alone):
    pytest.importorskip("omikuji", reason="the extra `baselines` is not installed")
    assert main(["index", "--train-file", str(files / "rows.jsonl"), "--labels", str(files / "labels.txt"),
                 "--method", "bonsai", "--output-dir", str(files / "trees")]) == 0  # fmt: skip
    options = ["--retriever", str(files / "trees"), *([] if alone else ["--retriever", str(files / "index")])]
    assert _hybrid(files, *options) == 0
    names = {"label_trees"} if alone else {"label_trees", "retrieval"}
    assert set(load_predictor(str(files / "hybrid")).score_model.sources) == names
    assert all(len(row["labels"]) == 5 for row in _predict(files, "--top-k", "5"))
    assert "(a hybrid)" in (files / "hybrid" / "README.md").read_text(encoding="utf-8")
    linear = ["--linear", "bonsai", "--train-file", str(files / "rows.jsonl")]
    assert _hybrid(files, *options, *linear, "--overwrite") == 1
    assert "--linear makes label trees; leave --retriever" in capsys.readouterr().err
    arguments = ["train", "--train-file", str(files / "rows.jsonl"), "--labels", str(files / "labels.txt")]
    assert main([*arguments, "--retriever", str(files / "trees"), "--output-dir", str(files / "rcl")]) == 1
    assert "holds label trees, where a retriever is needed" in capsys.readouterr().err


def test_label_trees_of_the_rows_from_before_an_update(files, caplog):
    pytest.importorskip("omikuji", reason="the extra `baselines` is not installed")
    index = str(files / "index")
    assert main(["update", "--model", index, "--rename", "organ=pipe organ", "--remove", "piano"]) == 0
    assert _hybrid(files, "--model", index, "--linear", "bonsai", "--train-file", str(files / "rows.jsonl")) == 0
    assert "left out of the label trees: 2, e.g. 'organ'." in caplog.text
    trees = load_predictor(str(files / "hybrid")).score_model.sources["label_trees"]
    space = load_predictor(index).label_space
    known = {label for row in ROWS for label in row["labels"]} - {"organ", "piano"}
    assert {space.names[label] for label in trees.labels} == known


def test_an_index_is_fused_with_label_trees_without_a_model(files, capsys):
    pytest.importorskip("omikuji", reason="the extra `baselines` is not installed")
    index = ["--model", str(files / "index")]  # the last one counts
    linear = ["--linear", "bonsai", "--train-file", str(files / "rows.jsonl")]
    assert _hybrid(files, *index, *linear) == 0
    predictor = load_predictor(str(files / "hybrid"))
    assert isinstance(predictor.source, LabelRetriever)
    assert set(predictor.score_model.sources) == {"label_trees"}
    assert {"retrieval", "neighbors", "names", "label_trees"} <= set(predictor.score_model.fusion.weights)
    found = predictor.predict(TEXTS, evidence=True)
    assert [row["labels"] for row in _predict(files)] == [one.labels for one in found]
    scores = {name for one in found for label in one.evidence for name in label.scores}
    assert {"names", "label_trees"} <= scores
    assert all(len(row["labels"]) == 20 for row in _predict(files, "--top-k", "20"))
    card = (files / "hybrid" / "README.md").read_text(encoding="utf-8")
    assert "fused with those of linear label" in card and "| kind | retrieval and label trees |" in card

    more = ["--retriever", str(files / "hybrid"), "--output-dir", str(files / "another")]
    assert _hybrid(files, *index, *more) == 1
    assert "has a retriever already; leave --retriever" in capsys.readouterr().err
    write_jsonl(files / "new.jsonl", [{"text": "an organ of reeds", "labels": ["grand organ"]}])
    assert main(["update", "--model", str(files / "hybrid"), "--add-rows", str(files / "new.jsonl"),
                 "--rename", "old music=ancient music"]) == 0  # fmt: skip
    after = load_predictor(str(files / "hybrid"))
    assert "ancient music" in after.label_space.names and set(after.score_model.sources) == {"label_trees"}
    assert "grand organ" in after.predict(["an organ of reeds"], rule=DecisionRule("top_k", 3))[0].labels


@pytest.mark.parametrize("base", ["model", "index"])
def test_a_hybrid_that_learns_its_weights_anew_keeps_its_label_trees(files, capsys, base):
    pytest.importorskip("omikuji", reason="the extra `baselines` is not installed")
    linear = ["--linear", "bonsai", "--train-file", str(files / "rows.jsonl")]
    retriever = ["--retriever", str(files / "index")] if base == "model" else []
    assert _hybrid(files, "--model", str(files / base), *retriever, *linear) == 0
    again = ["--model", str(files / "hybrid"), "--output-dir", str(files / "again")]
    assert _hybrid(files, *again, *linear) == 1
    assert "has label trees already; leave --linear out" in capsys.readouterr().err
    assert _hybrid(files, *again) == 0
    first, second = (load_predictor(str(files / name)).score_model for name in ("hybrid", "again"))
    assert "label_trees" in second.sources and set(first.sources) == set(second.sources)
    assert set(first.fusion.weights) == set(second.fusion.weights)


def test_an_index_needs_something_to_be_fused_with(files, capsys):
    index = ["--model", str(files / "index")]
    assert _hybrid(files, *index) == 1
    assert "Nothing to fuse with retrieval: an index needs label trees" in capsys.readouterr().err
    assert _hybrid(files, *index, "--predict-with", "generator") == 1
    assert "--predict-with is for models;" in capsys.readouterr().err
    assert _hybrid(files, *index, "--candidate-scores", "candidate_head") == 1
    assert "--candidate-scores is for models;" in capsys.readouterr().err


def test_label_trees_take_an_index_with_the_same_result(files):
    pytest.importorskip("omikuji", reason="the extra `baselines` is not installed")
    assert main(["index", "--train-file", str(files / "rows.jsonl"), "--labels", str(files / "labels.txt"),
                 "--method", "bonsai", "--output-dir", str(files / "trees")]) == 0  # fmt: skip
    found = []
    for model, other in (("index", "trees"), ("trees", "index")):
        options = ["--model", str(files / model), "--retriever", str(files / other), "--overwrite"]
        assert _hybrid(files, *options) == 0
        found.append([row["labels"] for row in _predict(files)])
    assert found[0] == found[1] and any(found[0])


def test_a_hybrid_predicts_by_expected_f1(files):
    assert _hybrid(files, "--retriever", str(files / "index")) == 0
    assert all(row["labels"] for row in _predict(files, "--expected-f1"))
