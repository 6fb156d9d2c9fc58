"""`xlgen predict`: decisions, restricted and new labels, ensembles, open vocabulary, and runs that were killed."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
import torch

from xlgen_hf.cli import predict as command
from xlgen_hf.cli.main import main
from xlgen_hf.data.options import RowOptions
from xlgen_hf.data.predictions import read_predictions
from xlgen_hf.decoding.decoded_sets import DecodingOptions
from xlgen_hf.files.json_lines import PartialOutput, write_jsonl
from xlgen_hf.modeling_xlgen import XLGenForConditionalGeneration
from xlgen_hf.prediction.predictor import Predictor
from xlgen_hf.processing_xlgen import XLGenProcessor
from xlgen_hf.ranking.calibration import ScoreCalibrator
from xlgen_hf.ranking.score_model import ScoreModel

TEXTS = ["a history of church music", "modern art", "the piano", "organ", "art and music"]


@pytest.fixture
def folder(make_model, checkpoints, tmp_path):
    """A saved model; its clusters remember the encoder that made them."""
    model, processor = make_model("bert", "bcl")
    processor.clusters.metadata["encoder"] = checkpoints["bert"]
    flat = [{"x": [0.0, 1.0], "y": [0.0, 1.0]}] * 5
    processor = processor.with_score_model(ScoreModel(ScoreCalibrator("isotonic", flat), thresholds={"micro": 0.5}))
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    write_jsonl(tmp_path / "texts.jsonl", [{"text": text} for text in TEXTS])
    return tmp_path


def _run(folder, *options, model="model"):
    """Predictions of the command."""
    out = folder / "out.jsonl"
    arguments = ["predict", "--model", str(folder / model), "--input-file", str(folder / "texts.jsonl")]
    assert main([*arguments, "--output-file", str(out), "--overwrite", *options]) == 0
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == len(TEXTS)
    assert {path.name for path in folder.iterdir()} & {"out.jsonl.partial", "out.jsonl.partial.json"} == set()
    return rows


def test_decisions(folder):
    own = _run(folder)
    assert all(len(row["labels"]) == 3 for row in _run(folder, "--top-k", "3"))
    for row in _run(folder, "--threshold", "auto"):
        assert row["scores"][1:] == [score for score in row["scores"][1:] if score >= 0.5]
    assert all(row["labels"] == row["scores"] == [] for row in _run(folder, "--threshold", "1"))  # it is strict
    ranked = _run(folder, "--threshold", "0")
    for row, some in zip(ranked, _run(folder, "--expected-f1"), strict=True):
        assert 1 <= len(some["labels"]) <= len(row["labels"])
        assert row["labels"][: len(some["labels"])] == some["labels"]
    assert _run(folder) == own


@pytest.mark.parametrize("search", [(), ("--num-beams", "3"), ("--num-samples", "2"), ("--max-labels", "1")])
def test_top_k_gives_as_many_labels_as_asked_for_or_as_there_are(folder, search):
    count = len(XLGenProcessor.from_pretrained(folder / "model").label_space)
    for k in (5, count + 1):
        for row in _run(folder, "--top-k", str(k), *search):
            assert len(row["labels"]) == len(set(row["labels"])) == min(k, count)
            assert row["scores"] == sorted(row["scores"], reverse=True)


def test_a_higher_threshold_leaves_the_best_cluster(folder):
    model = XLGenForConditionalGeneration.from_pretrained(folder / "model")
    torch.nn.init.zeros_(model.cluster_head.weight)
    torch.nn.init.zeros_(model.cluster_head.bias)  # each cluster has a probability of 0.5
    model.save_pretrained(folder / "model")
    assert all(len(row["clusters"]) == 1 for row in _run(folder, "--cluster-threshold", "0.6"))
    assert all(len(row["clusters"]) == 3 for row in _run(folder, "--cluster-threshold", "0.4"))


def test_labels_to_choose_from(folder):
    names = XLGenProcessor.from_pretrained(folder / "model").label_space.names
    (folder / "few.txt").write_text("\n".join(names[:3]), encoding="utf-8")
    few = ("--min-labels", "2", "--max-labels", "3")
    assert all(set(row["labels"]) <= set(names[:3]) for row in _run(folder, "--allow", str(folder / "few.txt"), *few))
    for row in _run(folder, "--deny", str(folder / "few.txt"), *few):
        assert not set(row["labels"]) & set(names[:3])
    for row in _run(folder, "--cluster", "cluster 1", *few):
        assert set(row["labels"]) <= set(names[1::3])


@pytest.mark.parametrize("family", ["bert", "t5"])
def test_new_labels_join_without_training(make_model, checkpoints, tmp_path, family):
    model, processor = make_model(family, "bcl")
    processor.clusters.metadata["encoder"] = checkpoints[family]
    few = DecodingOptions(min_labels=1, max_labels=3)
    before = model.predict(TEXTS, processor, decoding=few)
    count = len(processor.label_space)
    assert processor.add_labels(["art", "piano organ printing", "piano organ printing"]) == ["piano organ printing"]
    model.fit_output(processor)
    assert (
        len(processor.label_space)
        == len(processor.clusters.assignment)
        == len(processor.label_tokenizer.trie)
        == count + 1
    )
    new = model.predict(TEXTS, processor, allowed=np.array([count]))
    assert all(one.labels == ["piano organ printing"] for one in new)
    old = model.predict(TEXTS, processor, decoding=few, allowed=np.arange(count))
    if family == "bert":  # no new subword token: the distribution is the same
        assert [one.labels for one in old] == [one.labels for one in before]
    assert processor.add_labels(["art"]) == []
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again, loaded = XLGenForConditionalGeneration.from_pretrained(tmp_path), XLGenProcessor.from_pretrained(tmp_path)
    assert [one.labels for one in again.predict(TEXTS, loaded, allowed=np.array([count]))] == [
        one.labels for one in new
    ]


def test_new_labels_on_the_command_line(folder):
    (folder / "new.txt").write_text("piano organ\nart\n", encoding="utf-8")
    (folder / "allowed.txt").write_text("piano organ\n", encoding="utf-8")
    rows = _run(folder, "--add-labels", str(folder / "new.txt"), "--allow", str(folder / "allowed.txt"))
    assert all(row["labels"] == ["piano organ"] for row in rows)


def test_ensembles(folder, make_model):
    model, processor = make_model("t5", "base")
    model.save_pretrained(folder / "other")
    processor.save_pretrained(folder / "other")
    union = _run(folder, "--model", str(folder / "other"), "--ensemble", "union")
    alone = [_run(folder), _run(folder, model="other")]
    for row, one, other in zip(union, *alone, strict=True):
        assert set(row["labels"]) == {*one["labels"], *other["labels"]}
    average = _run(folder, "--model", str(folder / "model"))  # a model with itself
    assert [set(row["labels"]) for row in average] == [set(row["labels"]) for row in alone[0]]


def test_open_vocabulary_leaves_the_labels_as_they_are(folder):
    rows = _run(folder, "--open-vocabulary")
    assert [row["labels"] for row in rows] == [row["labels"] for row in _run(folder)]
    assert all(set(one) == {"label", "score", "nearest"} for row in rows for one in row["novel_labels"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--top-k", "2", "--expected-f1"], "exclude each other"),
        (["--threshold", "high"], "--threshold high: give a number"),
        (["--threshold", "nan"], "--threshold nan: give a number from 0 to 1, or auto"),
        (["--threshold", "1.5"], "--threshold 1.5: give a number from 0 to 1, or auto"),
        (["--min-labels", "9", "--max-labels", "2"], "min_labels=9, max_labels=2"),
        (["--threshold", "auto", "--objective", "macro"], r"no threshold for 'macro', only \['micro'\]"),
        (["--cluster", "cluster 9"], "'cluster 9' is none of the 3 clusters"),
        (["--cluster", "0"], r"'0' is none of the 3 clusters\. Their names are like \["),
        (["--num-beams", "2", "--num-samples", "2"], "choose one"),
        (["--pool", "union", "--num-beams", "1"], "pool='union' has nothing to pool"),
        (["--ensemble", "vote"], "--ensemble vote fuses several models"),
        (["--top-k", "2", "--objective", "macro"], "--objective macro chooses among the thresholds"),
    ],
)
def test_bad_options_are_explained(folder, capsys, options, message):
    arguments = ["predict", "--model", str(folder / "model"), "--input-file", str(folder / "texts.jsonl")]
    assert main([*arguments, *options]) == 1
    assert " ".join(capsys.readouterr().err.split()).find(message.replace("\\", "")) >= 0


# ------------------------------------------------------------------------------------------------ killed runs


@pytest.mark.parametrize("options", [(), ("--num-samples", "3")])
def test_a_killed_run_continues_without_losing_or_repeating_a_row(folder, monkeypatch, caplog, options):
    monkeypatch.setattr(command, "CHUNK_SIZE", 2)
    expected = _run(folder, *options)
    predict = Predictor.predict
    calls = []

    def counted(self, texts, *args, **kwargs):
        calls.append(texts)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return predict(self, texts, *args, **kwargs)

    monkeypatch.setattr(Predictor, "predict", counted)
    (folder / "out.jsonl").unlink()
    arguments = ["predict", "--model", str(folder / "model"), "--input-file", str(folder / "texts.jsonl")]
    assert main([*arguments, "--output-file", str(folder / "out.jsonl"), *options]) == 130
    assert not (folder / "out.jsonl").exists()
    with (folder / "out.jsonl.partial").open("a") as file:
        file.write('{"labels": ["broken off in the mid')
    calls[:] = [None, None]
    with caplog.at_level(logging.INFO):
        assert _run(folder, *options) == expected
    assert calls[2:] == [TEXTS[2:4], TEXTS[4:]]
    assert "Continuing after row 2" in caplog.text


@pytest.mark.parametrize("size", [2, 100])
def test_texts_that_are_cut_are_counted_whatever_is_written(folder, monkeypatch, caplog, capsys, size):
    monkeypatch.setattr(command, "CHUNK_SIZE", size)
    write_jsonl(folder / "texts.jsonl", [{"text": text} for text in (*TEXTS[:3], *["art and music " * 500] * 2)])
    _run(folder)
    assert "2 of 5 texts do not fit into max_source_length=" in caplog.text
    caplog.clear()
    assert main(["predict", "--model", str(folder / "model"), "--input-file", str(folder / "texts.jsonl")]) == 0
    assert "2 of 5 texts do not fit into max_source_length=" in caplog.text


def test_rows_of_a_model_that_has_changed_are_not_reused(folder, monkeypatch, capsys):
    monkeypatch.setattr(command, "CHUNK_SIZE", 2)
    arguments = ["predict", "--model", str(folder / "model"), "--input-file", str(folder / "texts.jsonl")]
    with monkeypatch.context() as patch:
        patch.setattr(PartialOutput, "finish", lambda self, *write: (_ for _ in ()).throw(KeyboardInterrupt))
        assert main([*arguments, "--output-file", str(folder / "out.jsonl")]) == 130
    path = folder / "model" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "min_labels": 5}))
    assert main([*arguments, "--output-file", str(folder / "out.jsonl")]) == 1
    error = capsys.readouterr().err
    assert "out.jsonl.partial was left by a run with other settings, model or texts: files is" in error
    assert "give --overwrite" in error
    assert all(len(row["labels"]) >= 5 for row in _run(folder))


def test_rows_with_other_ids_are_not_continued(folder, monkeypatch, capsys):
    """The fault: one file had the ids of before and those of now."""
    arguments = ["predict", "--model", str(folder / "model"), "--input-file", str(folder / "texts.jsonl")]
    arguments += ["--output-file", str(folder / "out.jsonl"), "--id-column", "id"]
    write_jsonl(folder / "texts.jsonl", ({"text": text, "id": number} for number, text in enumerate(TEXTS)))
    with monkeypatch.context() as patch:
        patch.setattr(PartialOutput, "finish", lambda self, *write: (_ for _ in ()).throw(KeyboardInterrupt))
        assert main(arguments) == 130
    write_jsonl(folder / "texts.jsonl", ({"text": text, "id": number + 1} for number, text in enumerate(TEXTS)))
    assert main(arguments) == 1
    assert "was left by a run with other settings, model or texts: column id is" in capsys.readouterr().err


def test_a_file_that_is_there_is_not_replaced(folder, capsys):
    """Refused before any work: the fault was that a file of training rows became one of predictions."""
    arguments = ["predict", "--model", str(folder / "model"), "--input-file", str(folder / "texts.jsonl")]
    before = (folder / "texts.jsonl").read_bytes()
    assert main([*arguments, "--output-file", str(folder / "texts.jsonl")]) == 1
    assert "texts.jsonl exists already and is not replaced" in capsys.readouterr().err
    assert (folder / "texts.jsonl").read_bytes() == before
    assert _run(folder) == _run(folder)


# ------------------------------------------------------------------------------------------------ joined answers


@pytest.mark.parametrize("name", ["out.csv", "out.tsv.gz", "out.parquet", "out.jsonl"])
def test_predictions_carry_columns_of_their_rows_in_any_format(folder, name):
    (folder / "own.csv").write_text("nr;title;lang\n7;church music;en\n8;modern art;de\n", encoding="utf-8")
    options = ["--text-column", "title", "--id-column", "nr", "--keep-columns", "lang"]
    arguments = ["predict", "--model", str(folder / "model"), "--input-file", str(folder / "own.csv")]
    assert main([*arguments, "--output-file", str(folder / name), *options]) == 0
    found = read_predictions(folder / name, RowOptions(id_column="nr"))
    assert list(map(str, found.ids)) == ["7", "8"]
    assert all(found.labels)
    assert [len(labels) for labels in found.labels] == [len(scores) for scores in found.scores]


def test_a_name_that_says_no_format_is_refused_before_a_model_is_loaded(folder, capsys):
    arguments = ["predict", "--model", "no-such-model", "--input-file", str(folder / "texts.jsonl")]
    assert main([*arguments, "--output-file", str(folder / "out.docx")]) == 1
    assert "must end in one of .jsonl" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("modell", "Did you mean the folder {}/model?"),
        ("texts.jsonl", "is a file, where the folder of a model is needed"),
    ],
)
def test_a_wrong_name_of_a_model_is_explained(folder, capsys, name, message):
    assert main(["predict", "--model", str(folder / name), "--input-file", str(folder / "texts.jsonl")]) == 1
    error = capsys.readouterr().err
    assert message.format(folder) in error and error.count("\n") == 1
