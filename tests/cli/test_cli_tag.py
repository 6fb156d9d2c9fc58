"""`xlgen tag`: answers for people, as JSON, from the command line and from stdin."""

from __future__ import annotations

import io
import json
import re

import pytest
from tiny import ROWS

from xlgen_hf.cli.main import main
from xlgen_hf.loading import load_predictor
from xlgen_hf.prediction.predictor import Predictor
from xlgen_hf.ranking.confidence import ConfidenceModel
from xlgen_hf.ranking.decisions import DecisionRule
from xlgen_hf.ranking.score_model import ScoreModel
from xlgen_hf.retrieval.candidate_inputs import CandidateInputs
from xlgen_hf.retrieval.model_sources import save_source_alone
from xlgen_hf.retrieval.retriever import LabelRetriever

TEXTS = ["organ music", "modern art"]


@pytest.fixture
def retriever(checkpoints, label_space):
    ids = [label_space.encode(row["labels"]) for row in ROWS]
    texts = [row["text"] for row in ROWS]
    return LabelRetriever.fit(label_space, texts, ids, checkpoints["bert"], lexical=True, progress=False)


@pytest.fixture
def index(retriever, label_space, tmp_path):
    save_source_alone(tmp_path / "index", label_space, "retrieval", retriever, ScoreModel())
    return str(tmp_path / "index")


def test_a_text_is_answered_readably(index, capsys):
    assert main(["tag", TEXTS[0], "--model", index, "--top-k", "2"]) == 0
    shown = capsys.readouterr()
    lines = shown.out.splitlines()
    found = load_predictor(index).predict(TEXTS[:1], rule=DecisionRule("top_k", 2))[0]
    assert "Loading" not in shown.err
    of_labels = [line for line in lines if not line.startswith("   ")]
    for line, label, score in zip(of_labels, found.labels, found.scores, strict=True):
        assert line.split("  ")[1:3] == [f"{score:.2f}", label]
        assert "name " in line and "training row" in line
    assert re.fullmatch(r"        words: .*organ.*", lines[1])
    assert re.fullmatch(r"        training texts: \d \(\d\.\d\d\), .*", lines[2])


def test_a_text_without_labels_has_no_first_label(retriever, label_space, tmp_path, capsys):
    curve = {"slope": 1.0, "intercept": 0.0}
    model = ScoreModel(rule=DecisionRule("threshold", 1.0), confidence=ConfidenceModel(curve, curve))
    save_source_alone(tmp_path / "index", label_space, "retrieval", retriever, model)
    assert main(["tag", "zzz", "--model", str(tmp_path / "index")]) == 0
    assert capsys.readouterr().out == "  no label\n"


def test_stdin_gives_a_text_per_line(index, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join([TEXTS[0], "", TEXTS[1]]) + "\n"))
    assert main(["tag", "--model", index, "--top-k", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    blank = lines.index("")
    assert (lines[0], lines[blank + 1]) == (TEXTS[0], TEXTS[1])
    assert sum(line.startswith("  0.") for line in lines) == 2


def test_a_mark_before_the_texts_of_stdin_is_not_a_part_of_them(index, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(f"\ufeff{TEXTS[0]}\r\n"))
    assert main(["tag", "--model", index, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["text"] == TEXTS[0]


def test_stdin_in_another_encoding_is_one_line(index, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("Käse\n".encode("cp1252")), encoding="utf-8"))
    assert main(["tag", "--model", index]) == 2
    shown = capsys.readouterr()
    assert "The texts on stdin are not UTF-8 (invalid continuation byte). Convert them" in shown.err
    assert shown.err.count("\n") == 1 and shown.out == ""


def test_the_type_of_numbers_can_be_chosen(index, capsys):
    for name, expected in (("bfloat16", 0), ("auto", 0), ("float32", 0), ("float16", 2)):
        assert main(["tag", TEXTS[0], "--model", index, "--top-k", "2", "--dtype", name]) == expected
        shown = capsys.readouterr()
        assert len(shown.out.splitlines()) > 1 if expected == 0 else "'float16' is not one of 'auto'" in shown.err


def test_json_has_all_evidence(index, capsys):
    assert main(["tag", *TEXTS, "--model", index, "--json", "--threshold", "0.2"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    predictor = load_predictor(index)
    counts = dict(zip(predictor.label_space.names, predictor.label_space.counts.tolist(), strict=True))
    assert [row["text"] for row in rows] == TEXTS
    for row in rows:
        assert min(row["scores"]) >= 0.2
        assert [evidence["training_rows"] for evidence in row["evidence"]] == [counts[one] for one in row["labels"]]
        assert [evidence["label"] for evidence in row["evidence"]] == row["labels"]
        for evidence in row["evidence"]:
            assert set(evidence["scores"]) == {"retrieval", "neighbors", "names", "lexical_neighbors", "lexical_names"}
            for match in evidence["names"]:
                assert match["words"] == [row["text"][begin:end] for begin, end in match["spans"]]
            assert all(set(one) == {"id", "similarity", "share"} for one in evidence["documents"])


def test_a_model_that_reads_candidates_says_what_retrieval_found(make_model, retriever, tmp_path, capsys):
    model, processor = make_model("bert", "base")
    candidates = CandidateInputs.fit(retriever, [row["text"] for row in ROWS], num_input_candidates=4, progress=False)
    processor.candidates = candidates
    predictor = Predictor.from_model(model.eval(), processor)
    (answer,) = predictor.predict(TEXTS[:1], rule=DecisionRule("top_k", 8), evidence=True)
    found = candidates.find(TEXTS[:1])
    known = dict(zip(found.labels.tolist(), found.scores.tolist(), strict=True))
    for evidence in answer.evidence:
        score = known.get(processor.label_space.index[evidence.label])
        assert score is None or evidence.scores["retrieval"] == pytest.approx(score, abs=1e-4)
    assert any(evidence.scores["retrieval"] for evidence in answer.evidence)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["x", "--top-k", "2", "--threshold", "0.5"], 1, "--top-k and --threshold exclude each other; choose one."),
        (["x", "--threshold", "high"], 1, "--threshold high: give a number from 0 to 1, or auto."),
        (["x", "--threshold", "auto"], 1, "the model has no threshold for 'micro'"),
        ([], 2, "There is no text on stdin; give one per line."),
    ],
)
def test_what_cannot_be_answered_is_one_line(index, capsys, monkeypatch, arguments, code, message):
    monkeypatch.setattr("sys.stdin", io.StringIO("\n"))
    assert main(["tag", *arguments, "--model", index]) == code
    shown = capsys.readouterr()
    assert message in shown.err and shown.err.count("\n") == 1 and shown.out == ""
