from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from xlgen_hf.errors import DataError
from xlgen_hf.evaluation.scoring import LabelScorer, score_ids, score_labels
from xlgen_hf.files import resources
from xlgen_hf.files.resources import load_metric_module, resource_folder

LABELS = ["a", "b", "c", "d"]
PREDICTIONS = [[0, 1], [2], []]
REFERENCES = [[0], [2, 3], [1]]


def named(rows):
    return [[LABELS[label] for label in row] for row in rows]


def test_ids_and_labels_have_the_same_scores():
    counts = np.array([5, 1, 2, 0])
    by_id = score_ids(PREDICTIONS, REFERENCES, num_labels=4, train_counts=counts, num_train_documents=6)
    by_name = score_labels(
        named(PREDICTIONS),
        named(REFERENCES),
        train_label_counts=dict(zip(LABELS, counts.tolist(), strict=True)),
        num_train_documents=6,
    )
    assert by_id == by_name


def test_scores_worked_out_by_hand():
    scores = score_ids(PREDICTIONS, REFERENCES, num_labels=4, train_counts=np.array([5, 1, 2, 0]), k=())
    assert scores["micro_precision"] == pytest.approx(2 / 3)
    assert scores["micro_recall"] == pytest.approx(2 / 4)
    assert scores["micro_f1"] == pytest.approx(4 / 7)
    assert scores["macro_f1"] == pytest.approx((1 + 0 + 1 + 0) / 4)
    assert scores["0_shot_macro_f1"] == 0.0
    assert scores["0_shot_labels"] == 1.0
    assert scores["1_shot_macro_f1"] == 0.0
    assert scores["mean_labels_predicted"] == 1.0
    assert scores["novel_label_rate"] == 0.0
    assert not any("_at_" in name for name in scores)


def test_what_is_asked_for_is_returned():
    without_training = score_ids(PREDICTIONS, REFERENCES, num_labels=4, k=[2])
    assert not any("shot" in name or name.startswith("ps") or "novel" in name for name in without_training)
    assert {name for name in without_training if "_at_" in name} == {
        f"{name}_at_2" for name in ("precision", "recall", "f1", "ndcg", "coverage")
    }
    with_training = score_ids(PREDICTIONS, REFERENCES, num_labels=4, k=[2], train_counts=np.arange(4), shots=["2+"])
    assert {"psp_at_2", "psndcg_at_2", "novel_label_rate", "2+_shot_macro_f1"} <= set(with_training)


def test_bad_rows_are_data_errors():
    with pytest.raises(DataError, match=r"predictions, row 2 \(index 1\): label id 9 is outside 0..3"):
        score_ids([[0], [9]], [[0], [1]], num_labels=4)
    with pytest.raises(DataError, match=r"references, row 1 \(index 0\): expected a list of labels, got 'a'"):
        score_labels([["a"]], ["a"])


def test_several_sets_are_scored_as_each_alone():
    """A label that one set has and training lacks is not among the labels without training documents of another."""
    training = {"train_references": [["a", "b"], ["a"], ["c"]], "broader": {"a": ["top"], "x": ["a"], "y": ["b"]}}
    sets = [([["x", "a"]], [["x", "b"]]), ([["c"], []], [["a"], ["y"]]), ([["a", "c"]], [["a"]])]
    scorer = LabelScorer(**training)
    for predictions, references in [*sets, sets[0]]:
        found = scorer.score(predictions, references, k=[1, 2], per_label=True)
        assert found == score_labels(predictions, references, k=[1, 2], per_label=True, **training)
    assert scorer.score(*sets[0])["0_shot_labels"] == 1.0
    with pytest.raises(DataError, match=r"predictions, row 1 \(index 0\): expected a list of labels, got 'a'"):
        scorer.score(["a"], [["a"]])
    with pytest.raises(DataError, match=r"train_references is empty"):
        LabelScorer(train_references=[])


def test_the_core_is_loaded_once_from_the_metric_folder():
    core = load_metric_module("xmc_f1", "xmc_report")
    assert core is load_metric_module("xmc_f1", "xmc_report")
    assert core.__file__ == str(resource_folder("evaluate_metrics") / "xmc_f1" / "xmc_report.py")
    assert core.match_labels is load_metric_module("xmc_f1", "xmc_scores").match_labels


def test_scoring_needs_neither_evaluate_nor_torch():
    program = (
        "import sys; from xlgen_hf.evaluation.scoring import score_labels; score_labels([['a']], [['a']]);"
        " print(sorted({'torch', 'transformers', 'evaluate', 'datasets', 'pyarrow'} & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


@pytest.fixture
def other_package(tmp_path):
    """The folder of a package without resources, and the function of it that finds these."""
    folder = tmp_path / "package"
    (folder / "files").mkdir(parents=True)
    path = Path(shutil.copy(resources.__file__, folder / "files"))
    spec = importlib.util.spec_from_file_location("resources_of_another_package", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return folder, module.resource_folder


def test_missing_resources_are_named(other_package):
    with pytest.raises(FileNotFoundError, match=r"no_such\.py is missing"):
        load_metric_module("xmc_f1", "no_such")
    folder, find = other_package
    with pytest.raises(FileNotFoundError, match=rf"The folder cards is missing; looked for {folder}/cards and "):
        find("cards")


def test_resources_in_the_package_come_first(other_package):
    folder, find = other_package
    for name in ("beside", "both"):
        (folder.parent / name).mkdir()
    (folder / "both").mkdir()
    assert find("beside") == folder.parent / "beside"
    assert find("both") == folder / "both"
