"""Folders of experiments: what is not of an experiment stays, and results of other rows, folders or models do not."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from tiny import ROWS, VOCABULARY

from xlgen_hf.cli.main import main
from xlgen_hf.errors import ConfigurationError
from xlgen_hf.experiments.plan import Plan, plan_cells
from xlgen_hf.experiments.systems.base import SystemData
from xlgen_hf.experiments.systems.linear_trees import bonsai
from xlgen_hf.experiments.systems.registry import SystemOptions
from xlgen_hf.files.json_lines import write_jsonl
from xlgen_hf.labels.space import LabelSpace


def _rows(folder, rows=ROWS):
    for split in ("train", "validation", "test"):
        write_jsonl(folder / f"{split}.jsonl", rows)
    return folder


def _run(data, output, *more):
    return main(["experiment", "--data", str(data), "--output-dir", str(output), "--settings", "full", *more])


def test_a_folder_of_rows_is_not_taken_for_that_of_an_experiment(tmp_path, capsys):
    """The fault: `--overwrite` removed the user's own folder `data`, with all that was in it."""
    rows = _rows(tmp_path / "data")
    (rows / "notes.txt").write_text("mine", encoding="utf-8")
    assert _run(rows, tmp_path, "--systems", "most-frequent", "--overwrite") != 0
    assert "data holds something else than the rows of an experiment" in capsys.readouterr().err
    assert {path.name for path in rows.iterdir()} == {"train.jsonl", "validation.jsonl", "test.jsonl", "notes.txt"}


def test_a_report_of_other_rows_is_refused(tmp_path, capsys):
    """The fault: it replaced the rows, and the results by a report without any."""
    one, other = _rows(tmp_path / "one"), _rows(tmp_path / "other", ROWS[:3])
    arguments = ["--systems", "most-frequent", "--no-figures", "--seeds", "0"]
    assert _run(one, tmp_path / "out", *arguments, "--report-only") != 0
    assert "holds no cells of these rows" in capsys.readouterr().err
    assert _run(one, tmp_path / "out", *arguments, "--overwrite") == 0
    before = (tmp_path / "out" / "results.json").read_bytes()
    scores = json.loads(before)["summary"]["full"]["most-frequent"]["scores"]
    assert [scores[f"0_shot_{name}"]["mean"] for name in ("labels", "macro_f1")] == [0, None]  # nothing to score
    assert _run(other, tmp_path / "out", *arguments, "--report-only", "--overwrite") != 0
    assert "holds no cells of these rows" in capsys.readouterr().err
    assert (tmp_path / "out" / "results.json").read_bytes() == before


def test_what_stands_in_a_folder_decides_the_result(tmp_path):
    """The fault: a model that was trained again in the same folder had the scores of the one before."""
    (tmp_path / "model").mkdir()
    plan = Plan(["xlgen-rcl"], ["full"], models={"full.xlgen-rcl": str(tmp_path / "model")})
    digests = []
    for text in ("one", "two, longer"):
        (tmp_path / "model" / "config.json").write_text(text, encoding="utf-8")
        digests.append(plan_cells(plan, "a")[0][0].digest)
    assert digests[0] != digests[1]


def test_settings_that_do_not_fit_are_refused_before_a_cell_runs():
    options = SystemOptions({"cluster_source": "gold", "predicted_rate": 0.3})
    with pytest.raises(ConfigurationError, match=r"predicted_rate=0\.3 has no effect"):
        plan_cells(Plan(["xlgen-bcl"], ["full"], options=options), "a")


def test_numbers_of_clusters_are_varied_beside_given_clusters():
    """The fault: every cell of the ablation failed, since given clusters have a number of their own."""
    options = SystemOptions({"clusters": "my-clusters"})
    cells, _ = plan_cells(Plan(["xlgen-bcl"], ["full"], ablations=["clusters"], options=options), "a")
    assert {cell.options.settings("bcl").clusters for cell in cells} == {"my-clusters", None}


def test_a_model_for_a_system_that_is_not_compared_is_refused():
    with pytest.raises(ConfigurationError, match=r"No cell takes a model for 'full\.xlgen-rcl'"):
        Plan(["bonsai", "xlgen-base"], ["full"], models={"full.xlgen-rcl": "folder"})


@pytest.mark.parametrize("words", [["--settings", ","], ["--systems", ","]])
def test_commas_alone_are_no_list(tmp_path, capsys, words):
    """The fault: the report of no setting replaced a good one, and no system stood for all."""
    assert _run(_rows(tmp_path / "data"), tmp_path / "out", *words) == 2
    assert "',' names nothing" in capsys.readouterr().err


def test_no_system_takes_a_model():
    with pytest.raises(ConfigurationError, match="none of these systems is a network"):
        Plan(["bonsai"], ["full"], models={"full.xlgen-rcl": "folder"})


def test_damaged_label_trees_are_trained_again(tmp_path, rows, caplog):
    """The fault: the fit asked for the removal of the folder, and again after that."""
    pytest.importorskip("omikuji")
    space = LabelSpace.from_label_lists([row["labels"] for row in ROWS], VOCABULARY)
    data = SystemData(rows, rows, space, tmp_path, 0)
    made = bonsai()
    made.fit(data)
    for step in ("damaged", "removed"):
        if step == "damaged":
            next(path for path in (tmp_path / "model").rglob("*") if path.is_file()).write_bytes(b"")
        else:
            shutil.rmtree(tmp_path / "model")
        again = bonsai()
        again.fit(data)
        assert np.isfinite(again.score(["music"]).scores).all()
    assert caplog.text.count("The model is trained again: Omikuji cannot read") == 1
