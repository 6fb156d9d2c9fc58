from __future__ import annotations

import gzip
import json
import re

import pytest
from datasets import Dataset

from xlgen_hf import RowOptions
from xlgen_hf.cli.main import main
from xlgen_hf.data.predictions import write_predictions
from xlgen_hf.errors import ConfigurationError, DataError
from xlgen_hf.evaluation.evaluate import run_evaluate
from xlgen_hf.evaluation.scoring import score_labels
from xlgen_hf.plots.scores import PLOT_SHOTS, plot_shot_buckets

TRAIN = [["cats"], ["cats", "dogs"], ["birds"], ["cats", "fish"]]
REFERENCES = [["cats", "dogs"], ["snails"], ["birds", "fish"], []]
PREDICTIONS = [["cats"], ["snails", "birds"], ["fish", "cats"], ["newts"]]


def write_rows(path, rows):
    opened = gzip.open(path, "wt", encoding="utf-8") if path.suffix == ".gz" else path.open("w", encoding="utf-8")
    with opened as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return path


@pytest.fixture(name="files")
def _files(tmp_path):
    texts = [{"text": "a title", "labels": labels} for labels in REFERENCES]
    scored = [{"labels": labels, "scores": [0.75] * len(labels), "clusters": []} for labels in PREDICTIONS]
    return {
        "predictions": write_rows(tmp_path / "predictions.jsonl", scored),
        "references": write_rows(tmp_path / "test.jsonl.gz", texts),
        "train_file": write_rows(tmp_path / "train.jsonl", [{"text": "t", "labels": labels} for labels in TRAIN]),
    }


def arguments(files, *more):
    options = [part for name, path in files.items() for part in (f"--{name.replace('_', '-')}", str(path))]
    return ["evaluate", *options, *map(str, more)]


def test_scores_are_those_of_the_metric(files, tmp_path):
    scores = run_evaluate(**files, output_file=tmp_path / "scores.json", k=[1, 2])
    calibration = {"expected_calibration_error": 0.25, "mean_score": 0.75}  # 3 of 6 labels are true
    expected = score_labels(PREDICTIONS, REFERENCES, train_references=TRAIN, k=[1, 2]) | calibration
    assert {
        name: value for name, value in scores.items() if not re.search("_at_coverage_|risk_coverage|reliability", name)
    } == expected
    assert scores["example_f1_at_coverage_50"] == pytest.approx(scores["example_f1"])  # all are equally sure
    assert scores["example_f1_risk_coverage_area"] == pytest.approx(1 - scores["example_f1"])
    assert json.loads((tmp_path / "scores.json").read_text(encoding="utf-8")) == scores


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl.gz"])
def test_predictions_in_other_formats(files, tmp_path, suffix):
    write_rows(files["predictions"], [{"labels": row} for row in PREDICTIONS])
    expected = run_evaluate(**files)
    assert "expected_calibration_error" not in expected
    files["predictions"] = tmp_path / f"others{suffix}"
    if suffix == ".csv":
        files["predictions"].write_text("labels\n" + "\n".join("|".join(row) for row in PREDICTIONS), encoding="utf-8")
    elif suffix == ".parquet":
        Dataset.from_dict({"labels": PREDICTIONS}).to_parquet(files["predictions"])
    else:
        write_rows(files["predictions"], [{"labels": row} for row in PREDICTIONS])
    assert run_evaluate(**files) == expected


@pytest.mark.parametrize("written", ["#", "|"])
def test_predictions_may_have_the_separator_of_the_references_or_their_own(tmp_path, written):
    """The fault: those with the given separator were read as one label each, and scored 0."""
    rows = [(["a", "b"], [0.9, 0.5]), (["c"], [0.5])]
    lines = [f"{written.join(labels)},{written.join(map(str, scores))}" for labels, scores in rows]
    (tmp_path / "predictions.csv").write_text("\n".join(["labels,scores", *lines]), encoding="utf-8")
    (tmp_path / "test.csv").write_text("text,labels\nx,a#b\ny,c", encoding="utf-8")
    options = RowOptions(label_separator="#")
    scores = run_evaluate(tmp_path / "predictions.csv", tmp_path / "test.csv", rows=options)
    assert scores["micro_f1"] == 1.0


SCORES = [[0.9], [0.8, 0.1], [0.7, 0.2], [0.3]]  # true are 0.9, 0.8, 0.7


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_calibration_of_scores(files, tmp_path, suffix):
    rows = [{"labels": labels, "scores": scores} for labels, scores in zip(PREDICTIONS, SCORES, strict=True)]
    path = files["predictions"] = tmp_path / f"scored{suffix}"
    Dataset.from_list(rows).to_parquet(path) if suffix == ".parquet" else write_rows(path, rows)
    scores = run_evaluate(**files)
    true = {0.9: 1, 0.8: 1, 0.1: 0, 0.7: 1, 0.2: 0, 0.3: 0}  # six decisions, so that each has a bin of its own
    expected = sum(abs(score - hit) for score, hit in true.items()) / 6
    assert scores["expected_calibration_error"] == pytest.approx(expected)
    assert scores["mean_score"] == pytest.approx(0.5)


def test_calibration_is_printed_with_what_it_is_about(files, capsys):
    assert main(arguments(files)) == 0
    out = capsys.readouterr().out
    assert "of the predicted labels only; the file has none of others" in out
    assert re.search(r"mean score\s+0\.750", out)
    assert re.search(r"expected calibration error\s+0\.250", out)


def test_scores_that_are_no_probabilities(files, caplog):
    write_rows(files["predictions"], [{"labels": row, "scores": [7.5] * len(row)} for row in PREDICTIONS])
    assert "expected_calibration_error" not in run_evaluate(**files)
    assert re.search(r"predictions\.jsonl: `scores` are outside \[0, 1\]", caplog.text)


def test_no_labels_have_no_calibration(files):
    write_rows(files["predictions"], [{"labels": [], "scores": []}] * len(PREDICTIONS))
    assert "expected_calibration_error" not in run_evaluate(**files)


def test_draws_the_reliability_of_scores(files, tmp_path):
    pytest.importorskip("matplotlib", reason="the extra `plot` is not installed")
    run_evaluate(**files, plot=tmp_path / "b.svg")
    picture = (tmp_path / "b_reliability.svg").read_text(encoding="utf-8")
    for text in ("predictions.jsonl", "Expected calibration error 0.250", "6 decisions", "perfectly calibrated"):
        assert text in picture
    write_rows(files["predictions"], [{"labels": row} for row in PREDICTIONS])
    run_evaluate(**files, plot=tmp_path / "c.svg")
    assert not (tmp_path / "c_reliability.svg").exists()


def test_other_systems_are_scored_and_drawn_next_to_these(files, tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="the extra `plot` is not installed")
    others = tmp_path / "baseline"
    others.mkdir()
    same_name = write_rows(others / "predictions.jsonl", [{"labels": row} for row in REFERENCES])
    nothing = write_rows(others / "nothing.jsonl", [{"labels": []} for _ in REFERENCES])
    more = ("--baseline", same_name, "--baseline", nothing)
    saved = ("--plot", tmp_path / "b.svg", "--output-file", tmp_path / "scores.json")
    assert main(arguments(files, *more, *saved)) == 0
    out = capsys.readouterr().out
    assert re.search(r"baseline/predictions\s+1\.000\s+1\.000", out) and re.search(r"nothing\s+0\.000\s+0\.000", out)
    scores = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))
    assert {name: found["micro_f1"] for name, found in scores["baselines"].items()} == {
        "baseline/predictions": 1.0, "nothing": 0.0,
    }  # fmt: skip
    alone = run_evaluate(**files, shots=PLOT_SHOTS)
    assert {name: value for name, value in scores.items() if name != "baselines"} == alone
    assert {len(alone["reliability"][name]) for name in ("low", "high", "mean_score", "accuracy", "count")} == {1}
    assert "baseline/predictions" in (tmp_path / "b.svg").read_text(encoding="utf-8")
    with pytest.raises(ConfigurationError, match="have the same name; rename one"):
        run_evaluate(**files, baselines=[same_name, same_name])
    with pytest.raises(DataError, match=r"1 predictions for the 4 rows of .*; give one for each row"):
        run_evaluate(**files, baselines=[write_rows(others / "short.jsonl", [{"labels": []}])])


def test_prints_tables(files, capsys):
    assert main(arguments(files)) == 0
    out = capsys.readouterr().out
    scores = run_evaluate(**files)
    values = (scores["micro_precision"], scores["micro_recall"], scores["micro_f1"])
    assert re.search(r"\(micro\)\s+" + r"\s+".join(f"{value:.3f}" for value in values), out)
    assert re.search(r"PSnDCG\s+0\.\d{3}\s+0\.\d{3}\s+0\.\d{3}", out)
    assert re.search(r"^\s+0\s+1\s+1\s+0\.\d{3}\s+1\.000", out, re.MULTILINE)  # bucket, labels, support, F1
    assert re.search(r"unknown to training\s+0\.333", out)


def test_prints_no_value_for_an_empty_bucket(files, capsys):
    assert main(arguments(files, "--shots", "7")) == 0
    assert re.search(r"^\s+7\s+0\s+0\s+-\s+-\s+-", capsys.readouterr().out, re.MULTILINE)


def test_works_without_training_rows(files, capsys):
    del files["train_file"]
    assert main(arguments(files, "--k", "")) == 0
    out = capsys.readouterr().out
    assert "training" not in out
    assert "Ranking" not in out


def test_options_reach_the_metric(files, tmp_path, capsys):
    json_file, label_file = tmp_path / "scores.json", tmp_path / "labels.jsonl"
    more = ("--k", "2", "--shots", "1,1-3,2+", "--bootstrap", 20, "--seed", 3, "--oracle")
    assert main(arguments(files, *more, "--output-file", json_file, "--per-label-file", label_file)) == 0
    out = capsys.readouterr().out
    assert "oracle, cut at the true number" in out
    assert re.search(r"0\.\d{3} \[0\.\d{3}, [01]\.\d{3}\]", out)
    scores = json.loads(json_file.read_text(encoding="utf-8"))
    assert {"precision_at_2", "1-3_shot_macro_f1", "2+_shot_labels", "oracle_micro_f1", "micro_f1_ci_low"} <= set(
        scores
    )
    assert "per_label" not in scores
    rows = {row["label"]: row for row in map(json.loads, label_file.read_text(encoding="utf-8").splitlines())}
    assert rows["fish"] == {
        "label": "fish",
        "train_count": 1,
        "support": 1,
        "predicted": 1,
        "true_positives": 1,
        "precision": 1.0,
        "recall": 1.0,
        "f1": 1.0,
    }


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_draws_the_buckets(files, tmp_path, suffix):
    pytest.importorskip("matplotlib", reason="the extra `plot` is not installed")
    picture = tmp_path / f"buckets{suffix}"
    scores = run_evaluate(**files, plot=picture)
    assert picture.stat().st_size > 1000
    assert [name for name in scores if name.endswith("_shot_labels")] == [f"{shot}_shot_labels" for shot in PLOT_SHOTS]
    labels = {label for row in REFERENCES for label in row}
    assert sum(value for name, value in scores.items() if name.endswith("_shot_labels")) == len(labels)


def test_the_picture_says_what_it_shows(files, tmp_path):
    pytest.importorskip("matplotlib", reason="the extra `plot` is not installed")
    scores = run_evaluate(**files, shots=["0", "1"], bootstrap=5)
    for score in ("macro_f1", "micro_f1", "macro_f1_harmonic"):
        plot_shot_buckets({"one": scores, "two": scores}, tmp_path / "b.svg", score=score, title="Here")
        picture = (tmp_path / "b.svg").read_text(encoding="utf-8")
        values = (f"{scores[f'{shot}_shot_{score}']:.3f}" for shot in (0, 1))
        for text in ("Here", "one", "two", "1 label", "3 labels", *values):
            assert text in picture
        assert ("all labels" in picture) == (score in scores)


def test_pictures_that_cannot_be_drawn(files, tmp_path):
    pytest.importorskip("matplotlib", reason="the extra `plot` is not installed")
    scores = run_evaluate(**files)
    with pytest.raises(ConfigurationError, match=r"must end in \.png, \.svg, \.pdf"):
        plot_shot_buckets({"one": scores}, tmp_path / "b.bmp")
    with pytest.raises(ConfigurationError, match="There is no bar chart of 'accuracy'"):
        plot_shot_buckets({"one": scores}, tmp_path / "b.png", score="accuracy")
    with pytest.raises(ConfigurationError, match="hold no buckets"):
        plot_shot_buckets({"one": {"micro_f1": 1.0}}, tmp_path / "b.png")
    with pytest.raises(ConfigurationError, match="scored over different buckets"):
        plot_shot_buckets({"one": scores, "two": run_evaluate(**files, shots=[1])}, tmp_path / "b.png")
    with pytest.raises(ConfigurationError, match="give the training rows"):
        run_evaluate(files["predictions"], files["references"], plot=tmp_path / "b.png")
    assert not list(tmp_path.glob("*b.*"))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"labels": "cats"}, r"predictions\.jsonl, row 2: `labels` must be a list of label names"),
        ({"labels": ["cats", None]}, r"predictions\.jsonl, row 2: `labels` must be a list"),
        ({"labels": [1]}, r"predictions\.jsonl, row 2: `labels` must be a list"),
        ({"labels": None}, r"predictions\.jsonl, row 2: `labels` must be a list"),
        ({"label": ["cats"]}, r"predictions\.jsonl, row 2: There is no column 'labels'"),
        ("cats", r"predictions\.jsonl, row 2: The row is a str"),
        ({"labels": ["cats"], "scores": [0.5]}, r"row 2: Some rows have `scores`, others have none"),
        (
            {"labels": ["cats"], "scores": [0.5, 0.4]},
            r"row 2: `scores` must be a list of 1 numbers, one for each label",
        ),
        ({"labels": ["cats"], "scores": ["0.5"]}, r"row 2: `scores` must be a list of 1 numbers"),
        ({"labels": ["cats"], "scores": 0.5}, r"row 2: `scores` must be a list of 1 numbers"),
        ({"labels": ["cats"], "scores": [float("nan")]}, r"row 2: `scores` hold NaN, which is no number"),
    ],
)
def test_bad_predictions_name_file_and_row(files, row, message):
    write_rows(files["predictions"], [{"labels": ["cats"]}, row])
    with pytest.raises(DataError, match=message):
        run_evaluate(**files)


def test_other_numbers_of_rows(files, capsys):
    write_rows(files["predictions"], [{"labels": ["cats"]}])
    assert main(arguments(files)) == 1
    assert re.search(r"predictions\.jsonl: 1 predictions for the 4 rows of .*test\.jsonl\.gz", capsys.readouterr().err)


def test_missing_and_empty_files(files, tmp_path):
    with pytest.raises(DataError, match=r"nothing\.jsonl: There is no such file"):
        run_evaluate(tmp_path / "nothing.jsonl", files["references"])
    files["predictions"].write_text("", encoding="utf-8")
    with pytest.raises(DataError, match=r"predictions\.jsonl: There are no rows"):
        run_evaluate(**files)


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (("--k", "1,x"), 2, "not a list of integers"),
        (("--shots", "few"), 1, "'few' is not a bucket of training counts"),
    ],
)
def test_bad_options_are_explained(files, capsys, more, code, message):
    assert main(arguments(files, *more)) == code
    assert message in " ".join(capsys.readouterr().err.split())


# ---------------------------------------------------------------------------------------------------- groups and ids


@pytest.fixture(name="grouped")
def _grouped(tmp_path, files):
    """References without texts, with ids, languages and subjects."""
    more = [
        {"id": 1, "language": "en", "fields": ["x", "y"]},
        {"id": 2, "language": "de", "fields": ["x"]},
        {"id": 3, "language": "en", "fields": []},
        {"id": 4, "language": None, "fields": ["y"]},
    ]
    rows = [{"labels": labels, **of_row} for labels, of_row in zip(REFERENCES, more, strict=True)]
    files["references"] = write_rows(tmp_path / "references.jsonl", rows)
    return files


def test_references_need_no_texts(files, grouped):
    assert run_evaluate(**grouped)["micro_f1"] == pytest.approx(score_labels(PREDICTIONS, REFERENCES)["micro_f1"])


def test_groups_are_scored_with_their_own_intervals(grouped):
    scores = run_evaluate(**grouped, by=["language", "fields"], bootstrap=20)
    groups = scores["groups"]
    assert {name: {value: one["texts"] for value, one in group.items()} for name, group in groups.items()} == {
        "language": {"en": 2, "(none)": 1, "de": 1},
        "fields": {"x": 2, "y": 2, "(none)": 1},
    }
    chosen = [0, 2]
    expected = score_labels(
        [PREDICTIONS[row] for row in chosen],
        [REFERENCES[row] for row in chosen],
        train_references=TRAIN,
        k=(1, 3, 5),
        shots=(0, 1),
        bootstrap=20,
    )
    found = dict(groups["language"]["en"])
    assert found.pop("texts") == 2
    assert found == expected
    assert "micro_f1_ci_low" in found


def test_groups_are_printed_and_written(grouped, tmp_path, capsys):
    output = tmp_path / "scores.json"
    assert main(arguments(grouped, "--by", "language", "--output-file", output, "--bootstrap", "10")) == 0
    out = capsys.readouterr().out
    assert re.search(r"Texts by language", out)
    assert re.search(r"en +2 +0\.\d{3} \[", out)
    assert set(json.loads(output.read_text(encoding="utf-8"))["groups"]["language"]) == {"en", "de", "(none)"}


def test_a_field_with_too_many_values(tmp_path, grouped):
    rows = [{"labels": ["a"], "language": str(number)} for number in range(201)]
    grouped["references"] = write_rows(tmp_path / "references.jsonl", rows)
    grouped["predictions"] = write_rows(tmp_path / "many.jsonl", [{"labels": ["a"]}] * 201)
    with pytest.raises(ConfigurationError, match="'language' has 201 values, such as"):
        run_evaluate(**grouped, by=["language"])
    with pytest.raises(DataError, match="no column 'country'"):
        run_evaluate(**grouped, by=["country"])


def test_predictions_are_matched_by_id(tmp_path, grouped):
    expected = run_evaluate(**grouped)
    rows = [{"id": str(number), "labels": labels} for number, labels in enumerate(PREDICTIONS, 1)]
    grouped["predictions"] = write_rows(tmp_path / "others.jsonl", rows[::-1])
    found = run_evaluate(**grouped, rows=RowOptions(id_column="id"))
    assert found["micro_f1"] == expected["micro_f1"]
    assert found["macro_f1"] == expected["macro_f1"]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_rows_in_another_order_are_reported(tmp_path, grouped, caplog, suffix):
    """Without --id-column the order counts, and wrong scores would look like a weak model."""
    rows = [{"id": str(number), "labels": labels} for number, labels in enumerate(PREDICTIONS, 1)]
    for order, told in ((rows, False), (rows[::-1], True)):
        caplog.clear()
        grouped["predictions"] = tmp_path / f"predictions{suffix}"
        write_predictions(grouped["predictions"], order)
        run_evaluate(**grouped)
        assert ("row 1 is called 4 here and 1 in" in caplog.text) == told == ("Add --id-column id" in caplog.text)


@pytest.mark.parametrize(
    ("name", "content", "options"),
    [
        ("long.csv", "id,text,labels\n1,x,a\n1,x,b\n2,y,b\n", {}),
        ("other.csv", "id;text;subjects\n1;x;a|b\n2;y;b\n".encode("utf-16"),
         {"delimiter": ";", "encoding": "utf-16", "labels_column": "subjects"}),
        ("columns.csv", "id,text,a,b\n1,x,1,1\n2,y,0,1\n", {"layout": "one-hot"}),
        ("train.jsonl", '{"id": 1, "labels": ["a", "b"]}\n{"id": 2, "labels": ["b"]}\n', {}),
    ],
)  # fmt: skip
def test_references_in_a_form_of_their_own_are_in_order(tmp_path, caplog, name, content, options):
    """The look at their ids reads them as they are, and predictions as they were written."""
    references, predictions = tmp_path / name, tmp_path / "predictions.csv"
    references.write_bytes(content if isinstance(content, bytes) else content.encode())
    write_predictions(predictions, [{"id": 1, "labels": ["a", "b"]}, {"id": 2, "labels": ["b"]}])
    assert run_evaluate(predictions, references, rows=RowOptions(**options))["micro_f1"] == 1
    assert "the order of the rows counts" not in caplog.text


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([1, 2, 3, 3], "The id '3' has several predictions"),
        ([1, 2, 3, 5], r"1 of the 4 ids of .* have no prediction, e.g. \['4'\]"),
        ([1, 2, 3, 4, 9], "There is a prediction for '9', which no reference has"),
    ],
)
def test_ids_that_do_not_match(tmp_path, grouped, ids, message):
    rows = [{"id": number, "labels": ["cats"]} for number in ids]
    grouped["predictions"] = write_rows(tmp_path / "others.jsonl", rows)
    with pytest.raises(DataError, match=message):
        run_evaluate(**grouped, rows=RowOptions(id_column="id"))


def test_an_id_of_several_references_is_refused(tmp_path, grouped):
    references = [{"id": number, "labels": ["cats"]} for number in (1, 2, 2)]
    grouped["references"] = write_rows(tmp_path / "twice.jsonl", references)
    predictions = [{"id": number, "labels": ["cats"]} for number in (1, 2, 3)]
    grouped["predictions"] = write_rows(tmp_path / "others.jsonl", predictions)
    with pytest.raises(DataError, match=r"twice\.jsonl: The id '2' is that of several rows"):
        run_evaluate(**grouped, rows=RowOptions(id_column="id"))


def test_scores_that_are_not_in_order_are_counted(files, caplog):
    rows = [{"labels": labels, "scores": sorted(scores)} for labels, scores in zip(PREDICTIONS, SCORES, strict=True)]
    write_rows(files["predictions"], rows)
    run_evaluate(**files)
    assert "predictions.jsonl: the scores of 2 of 4 rows rise somewhere. Ranking scores take the labels" in caplog.text


def test_look_alikes_between_predictions_and_references(tmp_path, files, caplog):
    write_rows(files["predictions"], [{"labels": ["Cats"]}] * 4)
    run_evaluate(**files)
    assert "look the same and count as different labels, e.g. 'Cats' and 'cats'; they differ in case" in caplog.text


def test_ids_of_references_need_a_vocabulary(tmp_path, files, caplog):
    write_rows(files["references"], [{"text": "a", "labels": ["http://example.org/1", "cats"]}] * 4)
    run_evaluate(**files)
    assert (
        "1 true labels are ids, e.g. 'http://example.org/1', and no predicted label is one: they count as missed"
        in caplog.text
    )
    caplog.clear()
    write_rows(files["predictions"], [{"labels": ["http://example.org/1"]}] * 4)
    run_evaluate(**files)
    assert not caplog.text


def test_existing_files_are_replaced_only_when_asked(files, tmp_path, capsys):
    output = tmp_path / "scores.json"
    output.write_text("precious")
    assert main(arguments(files, "--output-file", output)) == 1
    assert "scores.json exists already and is not replaced" in capsys.readouterr().err
    assert output.read_text() == "precious"
    assert main(arguments(files, "--output-file", output, "--overwrite")) == 0
    assert "micro_f1" in json.loads(output.read_text(encoding="utf-8"))
    with pytest.raises(ConfigurationError, match=r"scores\.json exists already"):
        run_evaluate(**files, per_label_file=output)
