"""The metric as `evaluate` loads it, and its card and page."""

from __future__ import annotations

import ast
import doctest
import importlib.util
import re
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import datasets
import evaluate
import numpy as np
import pyarrow as pa
import pytest
import yaml
from processes import CONTEXT

from xlgen_hf.evaluation.scoring import score_labels
from xlgen_hf.files.resources import resource_folder

FOLDER = resource_folder("evaluate_metrics") / "xmc_f1"
PREDICTIONS = [["a", "b"], ["c", "d", "e"], [], ["Überlänge", "a"]]
REFERENCES = [["a"], ["e", "c"], ["f"], []]
TRAIN = [["a"], ["a", "c"], ["b"], ["g", "d"], ["a"]]


@pytest.fixture(scope="module", name="metric")
def _metric(tmp_path_factory):
    return evaluate.load(str(FOLDER), cache_dir=str(tmp_path_factory.mktemp("metric")))


def rounded(scores):
    return {name: round(value, 12) for name, value in scores.items()}


# ----------------------------------------------------------------------------------------------- ways to use it


def test_equals_the_scores_of_the_package(metric):
    options = {"train_references": TRAIN, "k": [1, 4], "shots": [0, 1, "1-3"], "oracle": True, "per_label": True}
    scores = metric.compute(predictions=PREDICTIONS, references=REFERENCES, **options)
    assert scores == score_labels(PREDICTIONS, REFERENCES, **options)
    assert {"micro_f1", "macro_f1_all", "0_shot_macro_f1", "1-3_shot_labels", "psp_at_4"} <= set(scores)


def test_counts_and_training_references_are_equal(metric):
    counts = {"a": 3, "c": 1, "b": 1, "g": 1, "d": 1}
    rows = {"predictions": PREDICTIONS, "references": REFERENCES}
    by_counts = metric.compute(**rows, train_label_counts=counts, num_train_documents=len(TRAIN))
    assert by_counts == metric.compute(**rows, train_references=TRAIN)


def test_a_wrong_option_loses_no_documents(metric):
    metric.add_batch(predictions=PREDICTIONS, references=REFERENCES)
    wrong = {
        "k must hold": {"k": [0]}, "is not a bucket": {"shots": ["x"]}, "it must be a number": {"propensity_b": -1},
        "bootstrap must be 0 or at least 2": {"bootstrap": 1},
        "a label with a count": {"train_label_counts": {"a": -1}},
        "num_train_documents is 0": {"num_train_documents": 0}, "seed=-1": {"seed": -1},
        "broader must": {"broader": []},
        "below the greatest": {"train_label_counts": {"a": 9}, "num_train_documents": 3},
        "not both": {"train_label_counts": {"a": 9}, "train_references": [["a"]]},
    }  # fmt: skip
    for message, options in wrong.items():
        with pytest.raises(ValueError, match=message):
            metric.compute(**options)
    with pytest.raises(TypeError, match=r"xmc_f1 has no options \['shot'\]"):
        metric.compute(shot=[1])
    assert metric.compute() == metric.compute(predictions=PREDICTIONS, references=REFERENCES)


def test_documents_are_added_by_either_name(metric):
    metric.add(predictions=["a"], references=["a", "b"])
    metric.add(prediction=["c"], reference=["c"])
    assert metric.compute()["precision_at_1"] == 1.0
    combined = evaluate.combine([metric])
    combined.add(predictions=["a"], references=["a"])
    assert combined.compute()["micro_f1"] == 1.0


def test_labels_without_training_documents_need_a_propensity(metric):
    rows = {"predictions": [["a"]], "references": [["a", "z"]], "num_train_documents": 500}
    with pytest.raises(ValueError, match=r"propensity_b=0 gives labels without training documents, of which there"):
        metric.compute(**rows, train_label_counts={"a": 20, "z": 0}, propensity_b=0)
    assert metric.compute(**rows, train_label_counts={"a": 20, "z": 1}, propensity_b=0)["psp_at_1"] > 0


def test_columns_of_arrow_of_every_kind_of_list():
    rows = [["a", "b"], ["c", "a"]]
    kinds = (pa.list_(pa.string()), pa.large_list(pa.string()), pa.list_(pa.string(), 2))
    found = [score_labels(pa.chunked_array([pa.array(rows, kind)]), rows) for kind in kinds]
    assert found[0] == found[1] == found[2] and found[0]["micro_f1"] == 1


def test_a_cutoff_far_above_all_ranks_takes_no_memory(metric):
    rows = {"predictions": PREDICTIONS, "references": REFERENCES}
    near, far = (metric.compute(**rows, k=[k]) for k in (9, 10**12))
    assert near["ndcg_at_9"] == far[f"ndcg_at_{10**12}"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_label_counts": [1, 2]}, "train_label_counts is a list; a dictionary of label to count is needed"),
        ({"train_references": []}, "train_references is empty"),
    ],
)
def test_training_data_of_the_wrong_kind(metric, options, message):
    with pytest.raises(ValueError, match=message):
        metric.compute(predictions=PREDICTIONS, references=REFERENCES, **options)


def test_labels_of_the_vocabulary_belong_to_the_label_space(metric):
    rows = {"predictions": PREDICTIONS, "references": REFERENCES, "num_train_documents": 9}
    plain = metric.compute(**rows, train_label_counts={"a": 3})
    more = metric.compute(**rows, train_label_counts={"a": 3, "in no document": 0})
    assert {name for name in plain if plain[name] != more[name]} == {"0_shot_macro_f1_harmonic"}


@pytest.mark.parametrize("keep_in_memory", [False, True])
def test_documents_can_be_added_step_by_step(metric, keep_in_memory, tmp_path):
    expected = metric.compute(predictions=PREDICTIONS, references=REFERENCES)
    other = evaluate.load(str(FOLDER), keep_in_memory=keep_in_memory, cache_dir=str(tmp_path))
    other.add_batch(predictions=PREDICTIONS[:2], references=REFERENCES[:2])
    other.add(prediction=PREDICTIONS[2], reference=REFERENCES[2])
    other.add_batch(predictions=PREDICTIONS[3:], references=REFERENCES[3:])
    assert other.compute() == expected
    assert other.compute(predictions=PREDICTIONS, references=REFERENCES) == expected


def test_other_forms_of_rows(metric):
    expected = metric.compute(predictions=PREDICTIONS, references=REFERENCES)
    tuples = tuple(map(tuple, PREDICTIONS)), tuple(map(tuple, REFERENCES))
    arrays = [[np.array(row, dtype=str) for row in rows] for rows in (PREDICTIONS, REFERENCES)]
    columns = datasets.Dataset.from_dict({"p": PREDICTIONS, "r": REFERENCES})
    for predictions, references in (tuples, arrays, (columns["p"], columns["r"])):
        assert metric.compute(predictions=predictions, references=references) == expected


def test_combines_with_others(metric):
    combined = evaluate.combine({"first": metric, "second": evaluate.load(str(FOLDER), keep_in_memory=True)})
    scores = combined.compute(predictions=PREDICTIONS, references=REFERENCES)
    expected = metric.compute(predictions=PREDICTIONS, references=REFERENCES)
    assert {name.removeprefix("second_") for name in scores if name.startswith("second_")} == set(expected)
    assert scores["first_micro_f1"] == scores["second_micro_f1"] == expected["micro_f1"]


def _run_process(process_id, folder, cache_dir):
    patience = {"timeout": 240}  # seconds that a process waits for the others
    shared = {"num_process": 2, "experiment_id": "two", "cache_dir": cache_dir, **patience}
    metric = evaluate.load(folder, process_id=process_id, **shared)
    part = slice(process_id, None, 2)
    metric.add_batch(predictions=PREDICTIONS[part], references=REFERENCES[part])
    return metric.compute(train_references=TRAIN)


def test_two_processes(metric, tmp_path):
    arguments = (str(FOLDER), str(tmp_path))
    with ProcessPoolExecutor(1, mp_context=CONTEXT) as pool:
        second = pool.submit(_run_process, 1, *arguments)
        first = _run_process(0, *arguments)
        assert second.result() is None
    expected = metric.compute(predictions=PREDICTIONS, references=REFERENCES, train_references=TRAIN)
    assert rounded(first) == rounded(expected)


def test_the_table_of_labels(metric):
    options = {"train_references": TRAIN, "per_label": True}
    table = metric.compute(predictions=PREDICTIONS, references=REFERENCES, **options)["per_label"]
    rows = {row[0]: dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)}
    assert set(rows) == {"a", "b", "c", "d", "e", "f", "Überlänge"}
    assert rows["a"] == {
        "label": "a",
        "train_count": 3,
        "support": 1,
        "predicted": 2,
        "true_positives": 1,
        "precision": 0.5,
        "recall": 1.0,
        "f1": 2 / 3,
    }


def test_long_and_odd_labels_survive(metric):
    labels = ["x" * 100_000, "line\nbreak", " space ", "🏷️", "ⅷ", "a|b"]
    scores = metric.compute(predictions=[labels], references=[labels[::-1]])
    assert scores["micro_f1"] == 1.0
    assert scores["mean_labels_predicted"] == len(labels)


# ----------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        (
            [["a"], "xyz"],
            [["a"], ["b"]],
            r"predictions, row 2 \(index 1\): expected a list of labels, got 'xyz' \(str\)",
        ),
        ([["a"], ["b"]], [["a"], "xyz"], r"references, row 2 \(index 1\): expected a list of labels"),
        (["a"], [["a"]], r"predictions, row 1 \(index 0\): expected a list of labels, got 'a'"),
        ("a", [["a"]], "predictions must be a list with one list of labels for each document, got 'a'"),
        ([["a"], None], [["a"], ["b"]], r"predictions, row 2 .* got None"),
        ([["a"], ["b", None]], [["a"], ["b"]], r"predictions, row 2 .* labels that are strings, got None"),
        ([["a"], [1, 2]], [["a"], ["b"]], r"predictions, row 2 .* labels that are strings, got 1 \(int\)"),
        ([["a"], [["b"]]], [["a"], ["b"]], r"predictions, row 2 .* labels that are strings, got \['b'\] \(list\)"),
        ([["a"], {"b": 1}], [["a"], ["b"]], r"predictions, row 2 .* expected a list of labels, got \{'b': 1\}"),
        ([["a"], ["b", ""]], [["a"], ["b"]], r"predictions, row 2 .* a label is the empty string"),
        ([["a"]], [["a"], ["b"]], "1 predictions for 2 references"),
        ([["a"]], None, "references must be a list .* got None"),
        ([], [], "no documents to score"),
    ],
)
def test_bad_rows_are_explained(metric, predictions, references, message):
    with pytest.raises(ValueError, match=message):
        metric.compute(predictions=predictions, references=references)
    with pytest.raises(ValueError, match=message):
        score_labels(predictions, references)
    assert metric.compute(predictions=[["a"]], references=[["a"]])["micro_f1"] == 1.0


def test_rows_are_counted_over_batches(tmp_path):
    metric = evaluate.load(str(FOLDER), cache_dir=str(tmp_path))
    metric.add_batch(predictions=PREDICTIONS, references=REFERENCES)
    with pytest.raises(ValueError, match=r"predictions, row 6 \(index 5\): expected a list"):
        metric.add_batch(predictions=[["a"], "b"], references=[["a"], ["b"]])
    with pytest.raises(ValueError, match=r"references, row 5 \(index 4\): expected a list"):
        metric.add(prediction=["a"], reference="b")
    assert metric.compute() == score_labels(PREDICTIONS, REFERENCES)


def test_nulls_in_an_arrow_column_are_explained():
    column = datasets.Dataset.from_dict({"rows": [["a"], None, ["b"]]}).with_format("arrow")["rows"][:]
    with pytest.raises(ValueError, match=r"references, row 2 \(index 1\): expected a list of labels, got None"):
        score_labels([["a"], ["a"], ["a"]], column)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_references": [["a"], "b"]}, r"train_references, row 2 \(index 1\): expected a list"),
        ({"train_label_counts": {"a": -1}}, "'a': -1 is not a label with a count"),
        ({"train_label_counts": {"a": 0.5}}, "'a': 0.5 is not a label with a count"),
        ({"train_label_counts": {"a": 1}, "train_references": [["a"]]}, "not both"),
        ({"train_label_counts": {"a": 5}, "num_train_documents": 2}, "not below the greatest training count, 5"),
        ({"k": ["x"]}, "k must hold whole numbers"),
        ({"shots": ["few"]}, "'few' is not a bucket"),
        ({"propensity_b": -1.0}, r"propensity_b=-1\.0; it must be a number >= 0"),
        ({"propensity_a": float("nan")}, "propensity_a=nan; it must be a number >= 0"),
    ],
)
def test_bad_options_are_explained(metric, options, message):
    with pytest.raises(ValueError, match=message):
        metric.compute(predictions=[["a"]], references=[["a"]], **options)


def test_unknown_options_are_refused(metric):
    with pytest.raises(TypeError, match="cutoff"):
        metric.compute(predictions=[["a"]], references=[["a"]], cutoff=1)


# ----------------------------------------------------------------------------------------------- card, page, files


def test_the_examples_of_the_docstring_run(metric, monkeypatch):
    monkeypatch.chdir(FOLDER.parent)  # where `evaluate.load("xmc_f1")` finds this folder
    results = doctest.testmod(sys.modules[type(metric).__module__])
    assert results.attempted > 3
    assert results.failed == 0


def test_the_examples_of_the_card_run(monkeypatch):
    monkeypatch.chdir(FOLDER.parent)
    blocks = re.findall(r"```python\n(.*?)```", (FOLDER / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    example = doctest.DocTestParser().get_doctest("".join(blocks), {}, "README.md", None, 0)
    results = doctest.DocTestRunner().run(example)
    assert results.attempted > 8
    assert results.failed == 0


def test_the_card_and_the_docstring_describe_every_score(metric):
    scores = metric.compute(
        predictions=PREDICTIONS,
        references=REFERENCES,
        train_references=TRAIN,
        k=[3],
        shots=[1],
        bootstrap=2,
        oracle=True,
        per_label=True,
        broader={"a": ["b"]},
    )
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    for name in scores:
        if name.startswith("oracle_") or name.endswith(("_ci_low", "_ci_high")):
            continue
        written = name.replace("_at_3", "_at_k").replace("1_shot", "s_shot")
        assert f"`{written}`" in card
        assert re.search(rf"\b{written}\b", metric.inputs_description)


def test_the_card_is_valid_for_a_space():
    _, header, body = (FOLDER / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    fields = yaml.safe_load(header)
    assert fields["sdk"] == "gradio"
    assert fields["app_file"] == "app.py"
    assert (FOLDER / fields["app_file"]).is_file()
    assert re.fullmatch(r"\d+\.\d+\.\d+", fields["sdk_version"])
    assert {"evaluate", "metric"} <= set(fields["tags"])
    allowed = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
    assert {fields["colorFrom"], fields["colorTo"]} <= allowed
    for heading in ("Metric description", "How to use", "Output values", "Limitations and bias", "Citation"):
        assert f"## {heading}" in body


def test_the_metric_stands_alone():
    allowed = {"datasets", "evaluate", "numpy", "scipy"}
    required = {re.split(r"[<>=]", line)[0] for line in (FOLDER / "requirements.txt").read_text().split()}
    assert required == allowed
    for path in FOLDER.glob("xmc_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                assert node.level <= 1
                names = [node.module] if node.level == 0 else []
                assert node.level == 0 or (FOLDER / f"{node.module}.py").is_file()
            for name in names:
                package = name.split(".")[0]
                assert package in allowed | set(sys.stdlib_module_names)


@pytest.fixture(scope="module", name="app")
def _app():
    spec = importlib.util.spec_from_file_location("xmc_f1_app", FOLDER / "app.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_scores_text(app):
    scores = dict(app.score("a | b\n\nc\n", "a\nd\nc | e\n", "a | 3\n\nx|y | 1"))
    assert scores["micro_f1"] == pytest.approx(0.5714)
    assert scores["mean_labels_predicted"] == 1.0
    assert scores["0_shot_labels"] == 3.0
    assert "0_shot_labels" not in dict(app.score("a", "a", " \n"))


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (("a\nb", "a", ""), "2 predictions for 1 references"),
        (("a", "a", "a | 3\nb"), "Training counts, line 2: 'b' is not of the form"),
        (("", "", ""), "no documents to score"),
    ],
)
def test_the_page_explains_bad_text(app, texts, message):
    with pytest.raises(ValueError, match=message):
        app.score(*texts)


def test_the_page_can_be_built(app):
    pytest.importorskip("gradio", reason="the extra `demo` is not installed")
    labels = [block.label for block in app.build().blocks.values() if getattr(block, "label", None)]
    assert "References" in labels
    assert "Scores" in labels


def test_the_folder_holds_what_a_space_needs():
    files = {path.name for path in Path(FOLDER).iterdir() if path.is_file()}
    needed = {"README.md", "app.py", "requirements.txt", "xmc_f1.py"}
    assert needed | {"xmc_hierarchy.py", "xmc_inputs.py", "xmc_names.py", "xmc_report.py", "xmc_scores.py"} == files


def test_labels_that_look_like_true_ones_are_warned_about(metric, caplog):
    nfd = "Ku\u0308che"
    rows = {"predictions": [["Music", nfd], ["ar\u200bt", "new"]], "references": [["music", "Küche"], ["art"]]}
    scores = metric.compute(**rows)
    assert scores["micro_f1"] == 0
    assert "3 predicted labels look like a true label" in caplog.text and "'Music' and 'music'" in caplog.text
    caplog.clear()
    assert metric.compute(predictions=[["Music", "music"]], references=[["Music", "music"]])["micro_f1"] == 1
    assert "look like" not in caplog.text
