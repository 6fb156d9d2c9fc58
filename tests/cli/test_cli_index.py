"""`xlgen index`: folders that predict by themselves, by the command line and from Python."""

from __future__ import annotations

import csv
import json
import logging
import re
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from tiny import ROWS, VOCABULARY

from xlgen_hf.cli.main import main
from xlgen_hf.errors import ConfigurationError
from xlgen_hf.files.json_lines import write_jsonl
from xlgen_hf.files.training_report import read_report
from xlgen_hf.labels.space import LabelSpace
from xlgen_hf.loading import load_predictor
from xlgen_hf.ranking.label_trees import LabelTrees
from xlgen_hf.retrieval.approximate import make_approximate
from xlgen_hf.retrieval.retriever import LabelRetriever

TEXTS = ["a history of church music", "modern art", "", "never heard of it", "organ"]
SEEN = {label for row in ROWS for label in row["labels"]}
SOURCES = {"retrieval": LabelRetriever, "bonsai": LabelTrees, "parabel": LabelTrees}


@pytest.fixture
def files(tmp_path):
    """Rows, texts and a vocabulary."""
    write_jsonl(tmp_path / "rows.jsonl", ROWS)
    write_jsonl(tmp_path / "texts.jsonl", [{"text": text} for text in TEXTS])
    (tmp_path / "labels.txt").write_text("\n".join(VOCABULARY), encoding="utf-8")
    return tmp_path


@pytest.fixture
def make_index(files, checkpoints):
    """A function that makes an index of a kind in the folder `index`."""

    def make(method: str, *options: str, validation: bool = True) -> Path:
        if method != "retrieval":
            pytest.importorskip("omikuji", reason="the extra `baselines` is not installed")
        given = ["--validation-file", str(files / "rows.jsonl")] if validation else []
        given += ["--encoder", checkpoints["bert"], "--epochs", "0"] if method == "retrieval" else []
        arguments = ["index", "--train-file", str(files / "rows.jsonl"), "--labels", str(files / "labels.txt")]
        arguments += ["--method", method, "--output-dir", str(files / "index"), *given, *options]
        assert main(arguments) == 0
        return files / "index"

    return make


def _predict(files: Path, *options: str) -> list[dict]:
    out = files / "out.jsonl"
    arguments = ["predict", "--model", str(files / "index"), "--input-file", str(files / "texts.jsonl")]
    assert main([*arguments, "--output-file", str(out), "--overwrite", *options]) == 0
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == len(TEXTS)
    for row in rows:
        assert len(row["labels"]) == len(row["scores"]) == len(set(row["labels"]))
        assert row["scores"] == sorted(row["scores"], reverse=True)
        assert all(0 <= score <= 1 for score in row["scores"])
    return rows


@pytest.mark.parametrize("method", SOURCES)
def test_an_index_predicts_by_itself(files, make_index, method):
    folder = make_index(method)
    predictor = load_predictor(str(folder))
    assert type(predictor.source) is SOURCES[method]
    rows = _predict(files)
    found = predictor.predict(TEXTS)
    assert [row["labels"] for row in rows] == [one.labels for one in found]
    assert [score for row in rows for score in row["scores"]] == pytest.approx(
        [s for one in found for s in one.scores]
    )
    known = predictor.predict([row["text"] for row in ROWS])
    right = sum(len(set(one.labels) & set(row["labels"])) for one, row in zip(known, ROWS, strict=True))
    assert right > 0.5 * sum(len(row["labels"]) for row in ROWS)


@pytest.mark.parametrize("method", SOURCES)
def test_validation_rows_choose_rule_thresholds_and_calibration(files, make_index, method):
    without = load_predictor(str(make_index(method, validation=False))).score_model
    assert (without.calibrator, dict(without.thresholds)) == (None, {})
    assert all(len(row["labels"]) == 5 for row in _predict(files))  # without such rows
    assert main(["predict", "--model", str(files / "index"), "--input-file", str(files / "texts.jsonl"),
                 "--threshold", "auto"]) == 1  # fmt: skip

    predictor = load_predictor(str(make_index(method, "--overwrite")))
    chosen = predictor.score_model
    assert chosen.calibrator is not None and chosen.rule is not None
    assert set(chosen.thresholds) == {"micro", "macro", "example"}
    expected = predictor.predict(TEXTS, rule=chosen.rule)
    assert [row["labels"] for row in _predict(files)] == [one.labels for one in expected]
    for row in _predict(files, "--threshold", "auto", "--objective", "macro"):
        assert row["scores"][1:] == [score for score in row["scores"][1:] if score >= chosen.thresholds["macro"]]
        assert row["labels"]  # a threshold that was tuned keeps a text's best label


@pytest.mark.parametrize("method", ["retrieval", "bonsai"])
@pytest.mark.parametrize(("labels", "least"), [([], 0), (["never seen"], 1)])
def test_texts_are_left_without_labels_where_rows_have_none(files, make_index, method, labels, least):
    """The fault: rows of which no label is known to the index counted as rows without labels."""
    write_jsonl(files / "validation.jsonl", [*ROWS, *({"text": "never heard of it", "labels": labels},) * 8])
    folder = make_index(method, "--validation-file", str(files / "validation.jsonl"), validation=False)
    rule = load_predictor(str(folder)).score_model.rule
    assert (rule.kind, rule.min_labels) == ("threshold", least)


@pytest.mark.parametrize("method", SOURCES)
def test_rules_and_labels_to_choose_from(files, make_index, method):
    folder = make_index(method)
    space = LabelSpace.load(folder)
    candidates = space.names if method == "retrieval" else [name for name in space.names if name in SEEN]
    for k in (1, 4):
        assert all(len(row["labels"]) == k for row in _predict(files, "--top-k", str(k)))
    everything = _predict(files, "--top-k", "999")
    if method != "parabel":  # it leaves out labels whose only rows have no feature
        assert all(set(row["labels"]) == set(candidates) for row in everything)
    assert all(set(row["labels"]) <= set(candidates) for row in everything)
    assert _predict(files, "--threshold", "0") == everything
    few = candidates[-3:]
    (files / "few.txt").write_text("\n".join(few), encoding="utf-8")
    for row, every in zip(_predict(files, "--allow", str(files / "few.txt"), "--top-k", "2"), everything, strict=True):
        assert row["labels"] == [name for name in every["labels"] if name in few][:2]


def test_a_beam_that_is_too_narrow_is_widened(files, make_index):
    folder = make_index("bonsai")
    trees = load_predictor(str(folder)).source
    wide = trees.rank(TEXTS, 8)
    trees.beam_size = 1
    narrow = trees.rank(TEXTS, 8)
    assert np.diff(narrow.start).tolist() == np.diff(wide.start).tolist() == [len(SEEN)] * len(TEXTS)


def test_another_method_replaces_the_index(files, make_index):
    folder = make_index("bonsai")
    make_index("retrieval", "--overwrite")
    assert not (folder / "label_trees").exists()
    assert type(load_predictor(str(folder)).source) is LabelRetriever
    make_index("bonsai", "--overwrite")
    assert not (folder / "retriever").exists()
    assert type(load_predictor(str(folder)).source) is LabelTrees


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--num-beams", "3"], "num_beams=3: that is for a generator's search; this model has none"),
        (["--open-vocabulary"], "Only a generator spells names that are not labels"),
        (["--cluster", "music"], "has no clusters"),
        (["--cluster-threshold", "0.3"], "has no generator"),
    ],
)
def test_options_of_a_generator_are_refused(files, make_index, capsys, options, message):
    make_index("retrieval")
    arguments = ["predict", "--model", str(files / "index"), "--input-file", str(files / "texts.jsonl")]
    assert main([*arguments, *options]) == 1
    assert message in capsys.readouterr().err


def test_new_labels_join_a_retriever_by_their_names(files, make_index):
    make_index("retrieval")
    (files / "new.txt").write_text("organ printing\nmusic\n", encoding="utf-8")
    (files / "allowed.txt").write_text("organ printing\n", encoding="utf-8")
    added = ("--add-labels", str(files / "new.txt"))
    assert all(
        row["labels"] == ["organ printing"] for row in _predict(files, *added, "--allow", str(files / "allowed.txt"))
    )
    space = LabelSpace.load(files / "index")
    assert all(
        set(row["labels"]) == {*space.names, "organ printing"} for row in _predict(files, *added, "--top-k", "99")
    )


def test_bad_commands_are_explained(files, make_index, make_model, capsys):
    arguments = ["index", "--train-file", str(files / "rows.jsonl"), "--method", "bonsai"]
    assert main([*arguments, "--output-dir", str(files / "index"), "--epochs", "2"]) == 1
    assert "--epochs has no effect with --method bonsai" in capsys.readouterr().err
    make_model("bert")[1].save_pretrained(files / "model")
    assert main([*arguments, "--output-dir", str(files / "model")]) == 1
    assert "holds a trained model; choose another folder" in capsys.readouterr().err


def test_search_is_approximate_where_the_index_is_large(files, make_index, monkeypatch, caplog, capsys):
    pytest.importorskip("faiss", reason="the extra `faiss` is not installed")
    with caplog.at_level(logging.INFO):
        folder = make_index("retrieval", "--search", "approximate")
    assert "Search stays exact: there are fewer than 20000 training texts, and label names" in caplog.text
    assert not load_predictor(str(folder)).source.lists
    small = json.loads((folder / "retriever" / "retriever.json").read_text())
    assert "approximate" not in small
    expected = _predict(files)
    monkeypatch.setattr("xlgen_hf.training.retriever.make_approximate", partial(make_approximate, fewest=4))
    shutil.rmtree(folder)
    with caplog.at_level(logging.INFO):
        make_index("retrieval", "--search", "approximate")
    assert re.search(r"Approximate search of \d+ training texts finds \d+\.\d % of the \d+ nearest", caplog.text)
    facts = json.loads((folder / "retriever" / "retriever.json").read_text())["approximate"]
    assert all(0.9 < one["recall"] <= 1 for one in facts.values())
    assert set(facts) == {"documents", "names"}
    assert len(_predict(files)) == len(expected)
    before = (folder / "training_report.json").stat().st_mtime_ns
    make_index("retrieval", "--search", "approximate")  # it is there already
    assert (folder / "training_report.json").stat().st_mtime_ns == before
    arguments = ["index", "--train-file", str(files / "rows.jsonl"), "--output-dir", str(files / "other")]
    assert main([*arguments, "--method", "bonsai", "--search", "approximate"]) == 1
    assert "--search has no effect with --method bonsai" in capsys.readouterr().err
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main([*arguments, "--search", "approximate"]) == 1
    assert "`faiss` is not installed. Install it with: pip install 'xlgen-hf[faiss]'" in capsys.readouterr().err


def test_an_index_is_a_member_of_an_ensemble(files, make_index, make_model):
    folder = make_index("retrieval")
    space = LabelSpace.load(folder)
    model, processor = make_model("bert", space=space)
    model.save_pretrained(files / "model")
    processor.save_pretrained(files / "model")
    rows = _predict(files, "--model", str(files / "model"), "--ensemble", "union", "--top-k", "3")
    assert all(len(row["labels"]) == 3 for row in rows)


def test_a_finished_index_is_not_made_again(files, make_index, caplog):
    folder = make_index("retrieval")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    with caplog.at_level("INFO"):
        make_index("retrieval")
    assert "holds the finished result of this command; there is nothing to do" in caplog.text
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()} == before
    make_index("retrieval", "--seed", "1", "--overwrite")
    assert (folder / "score_model.json").stat().st_mtime_ns != before[folder / "score_model.json"]


@pytest.mark.parametrize("method", ["retrieval", "bonsai"])
def test_a_time_is_told_where_it_is_that_of_all_the_work(make_index, method):
    folder = make_index(method, *(["--epochs", "1"] if method == "retrieval" else []))
    assert read_report(folder)["seconds"] is not None
    (folder / "training_report.json").unlink()  # which is written last, so that a kill may have been before it
    make_index(method, *(["--epochs", "1"] if method == "retrieval" else []))
    known = method != "retrieval"  # whose embeddings the second run found in its cache
    seconds = read_report(folder)["seconds"]
    assert (seconds is not None) == known
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert ("| training time |" in card) == bool(seconds)  # trees of a few rows take no tenth of a second


@pytest.mark.parametrize("method", SOURCES)
def test_an_index_has_its_card(make_index, method):
    card = (make_index(method) / "README.md").read_text(encoding="utf-8")
    assert 'load_predictor("index")' in card and "| validation | rows.jsonl |" in card
    assert ("Label trees" in card) == (method != "retrieval")


def test_the_trained_encoder_leaves_no_checkpoint(make_index, capsys):
    folder = make_index("retrieval", "--epochs", "1")
    assert list(folder.rglob("checkpoint-*")) == []
    assert "It also holds caches of" in capsys.readouterr().out


def test_texts_in_two_splits_are_warned_about(files, make_index, caplog):
    make_index("retrieval")  # its validation rows are its training rows
    assert "8 of 8 texts of validation are texts of train, too" in caplog.text


@pytest.mark.parametrize("copies", [1, 30])
def test_many_rows_of_a_label_make_label_trees_worth_while(files, make_index, caplog, copies):
    write_jsonl(files / "rows.jsonl", [{**row, "id": str(copy)} for copy in range(copies) for row in ROWS])
    with caplog.at_level("INFO"):
        make_index("retrieval", "--id-column", "id", validation=False)
    assert ("--linear bonsai` fuses both" in caplog.text) == (copies > 1)


def test_a_trimmed_vocabulary_predicts_the_same_from_a_smaller_folder(files, make_index):
    """Texts that were indexed are cut as before, so nothing changes for them."""
    write_jsonl(files / "rows.jsonl", ROWS[:3])
    (files / "labels.txt").write_text("\n".join(sorted({label for row in ROWS[:3] for label in row["labels"]})))
    write_jsonl(files / "texts.jsonl", [{"text": ROWS[number % 3]["text"]} for number in range(len(TEXTS))])
    make_index("retrieval")
    whole, size = _predict(files), (files / "index" / "retriever" / "model.safetensors").stat().st_size
    make_index("retrieval", "--trim-vocabulary", "--overwrite")
    assert _predict(files) == whole
    assert (files / "index" / "retriever" / "model.safetensors").stat().st_size < size


def test_embeddings_may_be_computed_in_bfloat16(files, make_index):
    """They are nearly the same, and the encoder is kept as it is."""
    number = len(LabelSpace.load(make_index("retrieval")))
    plain = LabelRetriever.load(files / "index" / "retriever", num_labels=number)
    make_index("retrieval", "--dtype", "bfloat16", "--overwrite")
    half = LabelRetriever.load(files / "index" / "retriever", num_labels=number)
    assert not np.array_equal(plain.names, half.names)
    np.testing.assert_allclose((plain.names * half.names).sum(1), 1, atol=0.01)
    weights = [one.encoder[0].state_dict() for one in (plain, half)]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    assert weights[1][next(iter(weights[1]))].dtype == torch.float32


def test_training_rows_have_their_ids_or_numbers(files, make_index):
    """Few rows without labels are not indexed, and count in the numbers of the others."""
    indexed = 3 * ROWS
    rows = [{"text": "nothing", "labels": [], "id": None}]
    rows += [{**row, "id": f"doc {number}"} for number, row in enumerate(indexed)]
    write_jsonl(files / "rows.jsonl", rows)
    names = load_predictor(str(make_index("retrieval"))).source.document_names
    assert list(names.ids) == [str(number) for number in range(2, len(rows) + 1)] and names.beginnings is None
    names = load_predictor(str(make_index("retrieval", "--id-column", "id", "--overwrite"))).source.document_names
    assert list(names.ids) == [f"doc {number}" for number in range(len(indexed))]
    names = load_predictor(str(make_index("retrieval", "--keep-beginnings", "9", "--overwrite"))).source.document_names
    assert names.ids[0] == "2" and list(names.beginnings) == [row["text"][:9] for row in indexed]


def test_an_index_learns_from_many_rows_without_labels(files, make_index):
    """What is near to them scores lower than where they are left out, and they keep names of their own."""
    text = {"text": "the history of modern printing"}
    write_jsonl(files / "texts.jsonl", [text])
    scores = {}
    for number in (0, 2):
        write_jsonl(files / "rows.jsonl", [*ROWS, *number * [{**text, "labels": []}]])
        predictor = load_predictor(str(make_index("retrieval", "--no-lexical", "--overwrite", validation=False)))
        found = predictor.source.rank([text["text"]], 20)
        scores[number] = dict(zip(found.labels.tolist(), found.parts["neighbors"].tolist(), strict=True))
        assert list(predictor.source.named_documents.ids) == [str(n + 1) for n in range(len(ROWS) + number)]
    assert max(scores[2].values()) < max(scores[0].values())


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
@pytest.mark.parametrize("method", SOURCES)
def test_evidence_is_written_in_every_format(files, make_index, method, suffix):
    make_index(method)
    out = files / f"out{suffix}"
    arguments = ["predict", "--model", str(files / "index"), "--input-file", str(files / "texts.jsonl"), "--evidence"]
    assert main([*arguments, "--output-file", str(out)]) == 0
    if suffix == ".jsonl":
        found = [json.loads(line)["evidence"] for line in out.read_text(encoding="utf-8").splitlines()]
    elif suffix == ".csv":
        with out.open(encoding="utf-8", newline="") as file:
            found = [json.loads(row["evidence"]) for row in csv.DictReader(file)]
    else:
        found = pq.read_table(out).column("evidence").to_pylist()
    expected = load_predictor(str(files / "index")).predict(TEXTS, evidence=True)
    assert [[one["label"] for one in of_text] for of_text in found] == [one.labels for one in expected]
    assert {one["places"][name] for of_text in found for one in of_text for name in one["places"]} >= {1, 2}
    assert any(one["names"] and one["documents"] for of_text in found for one in of_text) == (method == "retrieval")


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_texts_for_a_person_are_marked_in_every_format(files, make_index, capsys, suffix):
    folder = make_index("retrieval", "--no-lexical")  # with n-grams each row finds itself, and all are as sure
    out = files / f"out{suffix}"
    arguments = ["predict", "--model", str(folder), "--input-file", str(files / "texts.jsonl")]
    predictor = load_predictor(str(folder))
    expected = [one.expected_f1 for one in predictor.predict(TEXTS)]
    bound = sorted(expected)[2]
    assert main([*arguments, "--output-file", str(out), "--abstain-below", str(bound)]) == 0
    if suffix == ".jsonl":
        rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    elif suffix == ".csv":
        with out.open(encoding="utf-8", newline="") as file:
            names = ("expected_f1", "best_label_probability", "abstain")
            rows = [{name: json.loads(row[name].lower()) for name in names} for row in csv.DictReader(file)]
    else:
        rows = pq.read_table(out).to_pylist()
    assert [row["expected_f1"] for row in rows] == pytest.approx(expected)
    assert [row["abstain"] for row in rows] == [value < bound for value in expected]
    assert 0 < sum(row["abstain"] for row in rows) < len(rows)
    assert all(0 <= row["best_label_probability"] <= 1 for row in rows)
    assert "abstain" not in predictor.predict(TEXTS)[0].to_dict()
    capsys.readouterr()
    assert main(["tag", TEXTS[0], "--model", str(folder)]) == 0
    assert "expected F1 0." in capsys.readouterr().out
    rows_file = str(files / "rows.jsonl")
    assert main([*arguments[:3], "--input-file", rows_file, "--output-file", str(out), "--overwrite"]) == 0
    assert main(["evaluate", "--predictions", str(out), "--references", rows_file]) == 0
    assert "The least sure texts left to people" in capsys.readouterr().out


def test_no_text_is_marked_where_nothing_is_known(files, make_index, capsys):
    folder = make_index("retrieval", validation=False)
    predictor = load_predictor(str(folder))
    (found,) = predictor.predict(TEXTS[:1])
    assert (found.expected_f1, found.best_label_probability, found.abstain) == (None, None, None)
    with pytest.raises(ConfigurationError, match=r"none can be marked for a person\. Train it, or make the index"):
        predictor.predict(TEXTS, abstain_below=0.5)
    with pytest.raises(ConfigurationError, match=r"abstain_below=1\.5; it must be a number from 0 to 1"):
        predictor.predict(TEXTS, abstain_below=1.5)
    arguments = ["predict", "--input-file", str(files / "texts.jsonl"), *["--model", str(folder)] * 2]
    for option in (["--abstain-below", "0.5"], ["--evidence"]):
        assert main([*arguments, *option]) == 1
        assert f"{option[0]} works with one --model, not with an ensemble." in capsys.readouterr().err
