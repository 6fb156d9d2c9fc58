"""`xlgen experiment` on tiny rows: cells in processes of their own, failures, interrupts, numbers of the report."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from datasets import Dataset
from processes import COMMAND, Forked
from tiny import ROWS, VOCABULARY

from xlgen_hf.cli.main import main
from xlgen_hf.errors import ConfigurationError
from xlgen_hf.evaluation.scoring import score_ids, score_labels
from xlgen_hf.experiments.cell import PREDICTIONS, SPEC, CellSpec
from xlgen_hf.experiments.cell import main as run_cell_process
from xlgen_hf.experiments.data import ExperimentData
from xlgen_hf.experiments.plan import Plan, plan_cells
from xlgen_hf.experiments.run import read_result
from xlgen_hf.experiments.scoring import ScoringSpace, choose_decision
from xlgen_hf.experiments.systems.base import SystemData
from xlgen_hf.experiments.systems.registry import SystemOptions, make_system, system_names
from xlgen_hf.experiments.systems.retrieval import DenseRetrieval
from xlgen_hf.files.json_lines import write_jsonl
from xlgen_hf.files.serialization import read_json, write_json
from xlgen_hf.labels.space import LabelSpace
from xlgen_hf.ranking.scored_labels import ScoredLabels
from xlgen_hf.ranking.thresholds import balanced_weights, best_within, score_rules

TEST_ROWS = [*ROWS[:5], {"text": "art history", "labels": ["art history", "never heard of"]}]


@pytest.fixture
def files(tmp_path):
    """Rows of three splits, and a vocabulary."""
    write_jsonl(tmp_path / "data" / "train.jsonl", ROWS * 3)
    write_jsonl(tmp_path / "data" / "validation.jsonl", ROWS)
    write_jsonl(tmp_path / "data" / "test.jsonl", TEST_ROWS)
    (tmp_path / "labels.txt").write_text("\n".join(VOCABULARY), encoding="utf-8")
    return tmp_path


CELL = "import sys; from xlgen_hf.experiments.cell import main; sys.exit(main(sys.argv[1:]))"


class _ForkedCell:
    """A cell whose process is forked, as far as `subprocess.Popen` is asked for it."""

    def __init__(self, command: list[str], *, stdin: int, stdout, stderr: int, start_new_session: bool) -> None:
        assert command[1:3] == ["-m", "xlgen_hf.experiments.cell"]
        self.stdin, self._log = stdin, stdout
        self._process = Forked(Path(stdout.name).parent, CELL, *(word for word in command[3:] if word != "--attached"))

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._log.write(self._process.stderr.read_bytes())

    def wait(self) -> int:
        return self._process.wait(280)


@pytest.fixture
def forked_cells(monkeypatch):
    """Cells are forked, which spares the import of all libraries for each; without it they are started."""
    forked = SimpleNamespace(Popen=_ForkedCell, PIPE=subprocess.PIPE, STDOUT=subprocess.STDOUT)
    monkeypatch.setattr("xlgen_hf.experiments.run.subprocess", forked)


def _options(checkpoints, **more) -> SystemOptions:
    training = {"backbone": checkpoints["bert"], "decoder_layers": 1, "num_clusters": 3, **more}
    return SystemOptions(training, {"max_steps": 2, "use_cpu": True, "save_strategy": "no"})


def _arguments(folder: Path, backbone: str, *more: str) -> list[str]:
    return [
        "experiment", "--data", str(folder / "data"), "--labels", str(folder / "labels.txt"),
        "--output-dir", str(folder / "out"), "--settings", "full", "--backbone", backbone, "--set", "decoder_layers=1",
        "--set", "num_clusters=3", "--use_cpu", "--eval_strategy", "no", *more,
    ]  # fmt: skip


def _prepare(files, folder: str) -> tuple[Path, ExperimentData]:
    sources = dict.fromkeys(("train", "validation", "test"), str(files / "data"))
    return files / folder, ExperimentData.prepare(sources, str(files / "labels.txt"), files / folder / "data")


def _run_here(root: Path, spec: CellSpec) -> dict:
    """A cell in this process, which spares the import of all libraries."""
    write_json(root / "cells" / spec.name / SPEC, asdict(spec))
    assert run_cell_process([str(root / "cells" / spec.name / SPEC)]) == 0
    return read_result(root, spec)


def test_a_cell_has_the_scores_of_the_metric_and_a_seed_gives_them_again(files, checkpoints):
    results = []
    for name in ("one", "two"):
        root, data = _prepare(files, name)
        plan = Plan(["xlgen-bcl"], ["full"], options=_options(checkpoints))
        spec = plan_cells(plan, data.facts["digest"])[0][0]
        results.append(_run_here(root, spec))
        predicted = (root / "cells" / spec.name / PREDICTIONS).read_text(encoding="utf-8").splitlines()
    assert results[0] | {"cost": 0} == results[1] | {"cost": 0}
    rows = [json.loads(line) for line in predicted]
    assert (files / "one" / "cells" / spec.name / PREDICTIONS).read_text(encoding="utf-8").splitlines() == predicted
    true, train = ([row["labels"] for row in part] for part in (TEST_ROWS, ROWS * 3))
    decided = score_labels([row["labels"] for row in rows], true, train_references=train, k=())
    ranked = score_labels([row["candidates"] for row in rows], true, train_references=train, oracle=True)
    scores = results[0]["scores"]
    for name in ("micro_f1", "macro_f1", "0_shot_macro_f1", "0_shot_micro_f1", "1_shot_macro_f1", "0_shot_labels"):
        assert scores[name] == pytest.approx(decided[name]), name
    for name in ("precision_at_1", "precision_at_5", "psp_at_3", "ndcg_at_5", "oracle_micro_f1", "oracle_macro_f1"):
        assert scores[name] == pytest.approx(ranked[name]), name
    assert scores["0_shot_labels"] == 2
    cost = results[0]["cost"]
    assert cost["fit_from_scratch"] and cost["fit_seconds"] > 0 and cost["predict_memory"] >= cost["memory_before"]


def test_searches_share_a_training(files, checkpoints):
    root, data = _prepare(files, "one")
    plan = Plan(["xlgen-base"], ["full"], options=_options(checkpoints), ablations=["decoding"])
    plan = replace(plan, ablation_system="xlgen-base")
    cells, rows = plan_cells(plan, data.facts["digest"])
    assert len({spec.model_folder for spec in cells}) == 1
    assert [row.value for row in rows if row.is_default] == ["5 beams, union"]
    assert _run_here(root, cells[0])["cost"]["fit_from_scratch"]
    greedy = next(spec for spec in cells if "greedy" in spec.name)
    assert not _run_here(root, greedy)["cost"]["fit_from_scratch"]
    assert len(list((root / "models").iterdir())) == 1


def test_a_trained_model_is_taken_where_it_was_trained_on_the_same_rows(files, checkpoints, capsys):
    root, data = _prepare(files, "one")
    more = {"retriever_epochs": 0, "num_input_candidates": 3}
    plan = Plan(["xlgen-rcl"], ["full"], options=_options(checkpoints, **more))
    trained = plan_cells(plan, data.facts["digest"])[0][0]
    first = _run_here(root, trained)
    models = {f"{setting}.xlgen-rcl": str(root / "models" / trained.model_folder) for setting in ("full", "pu")}
    plan = replace(plan, systems=["xlgen-rcl", "hybrid"], settings=["full", "pu"], models=models)
    taken, of_dropped, hybrid, _ = sorted(
        plan_cells(plan, data.facts["digest"])[0], key=lambda spec: (spec.system == "hybrid", spec.setting)
    )
    again = _run_here(root, taken)
    assert again["scores"] == first["scores"] and not again["cost"]["fit_from_scratch"]
    assert _run_here(root, hybrid)["scores"]["candidate_recall"] >= first["scores"]["candidate_recall"]
    write_json(root / "cells" / of_dropped.name / SPEC, asdict(of_dropped))
    assert run_cell_process([str(root / "cells" / of_dropped.name / SPEC)]) == 1
    assert "was made from other rows" in capsys.readouterr().err
    index = {"retriever": models["full.xlgen-rcl"], "num_input_candidates": 3}  # it knows the labels that PU drops
    of_index = Plan(["xlgen-rcl"], ["pu"], options=_options(checkpoints, **index))
    (of_dropped,) = plan_cells(of_index, data.facts["digest"])[0]
    write_json(root / "cells" / of_dropped.name / SPEC, asdict(of_dropped))
    assert run_cell_process([str(root / "cells" / of_dropped.name / SPEC)]) == 1
    assert "was made from other rows" in capsys.readouterr().err
    with pytest.raises(ConfigurationError, match=r"No cell takes a model for 'full\.bonsai'"):
        replace(plan, models={"full.bonsai": "x"})


def test_dense_retrieval_is_a_system(files, checkpoints, tmp_path):
    data = _prepare(files, "one")[1]
    system = DenseRetrieval(checkpoints["bert"])
    with pytest.raises(ConfigurationError, match="not fitted"):
        system.score(["art"])
    system.fit(SystemData(data.train, data.validation, data.label_space, tmp_path / "dense"))
    found = system.score(["printing", "modern art"])
    labels = [set(found.labels[a:b].tolist()) for a, b in zip(found.start, found.start[1:], strict=False)]
    assert labels == [set(range(len(data.label_space)))] * 2  # all are ranked, the nearest training text's at the top
    best = [data.label_space.names[found.labels[start]] for start in found.start[:-1]]
    assert best[0] == "printing (output)" and best[1] in ("art", "modern art")


def test_a_failing_system_is_reported_and_the_others_finish(files, checkpoints, forked_cells, capsys):
    pytest.importorskip("matplotlib", reason="the extra `plot` is not installed")
    systems = ("--systems", "xlgen-mcg,xlgen-base", "--max_steps", "2", "--set", "mcg.decoder_layers=9")
    arguments = _arguments(files, checkpoints["bert"], *systems)
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert "full.xlgen-mcg.seed0 failed" in error
    assert "decoder_layers=9; the encoder has 3" in error
    out = files / "out"
    found = read_json(out / "results.json")
    assert [one["cell"] for one in found["failed"]] == found["missing"] == ["full.xlgen-mcg.seed0"]
    done = out / "cells" / "full.xlgen-base.seed0" / "result.json"
    result = read_json(done)
    mean = found["summary"]["full"]["xlgen-base"]["scores"]["micro_f1"]
    assert mean == {"mean": result["scores"]["micro_f1"], "sd": None, "values": [result["scores"]["micro_f1"]]}
    report = (out / "report.md").read_text(encoding="utf-8")
    assert "## Cells that failed" in report and found["data"]["digest"] in report and "decoder_layers=9" in report
    assert f"| XLGen-base | 1 | {result['scores']['micro_f1']:.3f} |" in report
    assert {path.suffix for path in out.glob("figure_1_overall.*")} == {".png", ".svg"}

    when = done.stat().st_mtime_ns
    assert main([*arguments, "--report-only"]) == 0  # nothing is run, nothing fails
    assert read_json(out / "results.json")["missing"] == ["full.xlgen-mcg.seed0"]
    assert "## Cells that were not run" in (out / "report.md").read_text(encoding="utf-8")
    assert done.stat().st_mtime_ns == when


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGINT to send")
def test_an_interrupted_run_goes_on(files, checkpoints, forked_cells):
    """The first run is a process of its own, which starts its cells; the one that goes on forks them."""
    cells = ("--systems", "most-frequent,xlgen-bcl", "--seeds", "0", "--no-figures")
    steps = ("--max_steps", "150", "--logging_steps", "1", "--save_strategy", "steps", "--save_steps", "50")
    arguments = _arguments(files, checkpoints["bert"], *cells, *steps)
    process = Forked(files, COMMAND, *arguments)
    done, second = (files / "out" / "cells" / f"full.{name}.seed0" for name in ("most-frequent", "xlgen-bcl"))
    process.wait_for("Step 2 of", second / "log.txt")
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130, process.stderr.read_text()
    assert (done / "result.json").is_file()
    assert not (second / "result.json").exists()
    assert "saving a checkpoint" in (second / "log.txt").read_text()

    when = (done / "result.json").stat().st_mtime_ns
    assert main(arguments) == 0
    assert (done / "result.json").stat().st_mtime_ns == when
    assert "Resuming from" in (second / "log.txt").read_text()
    assert not read_json(second / "result.json")["cost"]["fit_from_scratch"]
    summary = read_json(files / "out" / "results.json")["summary"]["full"]
    assert list(summary) == ["most-frequent", "xlgen-bcl"]
    assert "fit_seconds" not in summary["xlgen-bcl"]["cost"]  # half of it was in the run that was stopped


ENDLESS = """
import os, signal, sys, time
os.dup2(os.open(sys.argv[2], os.O_RDONLY), 0)
signal.signal(signal.SIGINT, signal.SIG_IGN)  # as it is in the background of a shell
from xlgen_hf.experiments import cell

def endless(folder):
    print("begun", flush=True)
    time.sleep(300)

cell.run_cell = endless
sys.exit(cell.main([sys.argv[1], "--attached"]))
"""


def test_a_cell_ends_with_the_process_that_started_it(tmp_path):
    """The fault: in the background of a shell it went on after the experiment was killed."""
    (tmp_path / "cells" / "one").mkdir(parents=True)
    os.mkfifo(tmp_path / "stdin")
    process = Forked(tmp_path, ENDLESS, tmp_path / "cells" / "one" / SPEC, tmp_path / "stdin")
    with (tmp_path / "stdin").open("wb"):
        process.wait_for("begun", process.stdout)
        time.sleep(0.5)  # it waits by now, so that what ends it has to end a wait
    # Closing it is what a SIGKILL of the starter does.
    assert process.wait(timeout=60) == 130
    assert not list((tmp_path / "cells").glob(".*"))


def test_pu_trains_on_fewer_labels_and_is_scored_by_the_whole_counts(files, checkpoints):
    root, data = _prepare(files, "one")
    plan = Plan(["xlgen-base"], ["full", "pu"], options=_options(checkpoints))
    full, pu = plan_cells(plan, data.facts["digest"])[0]
    kept = data.training_rows("pu", plan.pu)
    assert len(kept) == len(data.train) and sum(map(len, kept["labels"])) < sum(map(len, data.train["labels"]))
    assert full.model_folder.partition(".")[0] == "full"
    scores = _run_here(root, pu)["scores"]
    rows = map(json.loads, (root / "cells" / pu.name / PREDICTIONS).read_text(encoding="utf-8").splitlines())
    true, train = ([row["labels"] for row in part] for part in (TEST_ROWS, ROWS * 3))
    expected = score_labels([row["labels"] for row in rows], true, train_references=train, k=(), shots=["0", "2-4"])
    for name in ("macro_f1", "0_shot_labels", "2-4_shot_labels", "2-4_shot_macro_f1"):
        assert scores[name] == pytest.approx(expected[name]), name


def test_what_decides_a_result_decides_its_digest(checkpoints):
    plan = Plan(["xlgen-bcl"], ["full"], options=_options(checkpoints))
    one = plan_cells(plan, "a")[0][0]
    others = [
        plan_cells(plan, "b")[0][0],
        plan_cells(replace(plan, options=_options(checkpoints, num_clusters=4)), "a")[0][0],
        replace(one, seed=1),
    ]
    assert len({one.digest, *(spec.digest for spec in others)}) == 4
    assert replace(one, name="another").digest == one.digest


def test_ablations_take_the_main_cell_where_it_has_the_value(checkpoints):
    plan = Plan(["xlgen-bcl"], ["full"], options=_options(checkpoints), ablations=["order", "clusters", "bits"])
    cells, rows = plan_cells(plan, "a")
    assert {row.value for row in rows if row.is_default} == {"freq_backward", "3", "mixed"}
    assert {row.cells for row in rows if row.is_default} == {("full.xlgen-bcl.seed0",)}
    assert len(cells) == 1 + 3 + 3 + 2
    assert {row.value for row in rows if row.ablation == "clusters"} == {"3", "10", "30", "100"}


@pytest.mark.parametrize(("system", "own"), [("xlgen-bcl", "memory"), ("xlgen-rcl", "tokens")])
def test_label_rows_and_conditioning_are_varied(checkpoints, system, own):
    options = _options(checkpoints, label_rows=0.3)
    plan = Plan([system], ["full"], options=options, ablations=["conditioning", "label-rows"], ablation_system=system)
    cells, rows = plan_cells(plan, "a")
    assert {(row.value, row.is_default) for row in rows} == {
        (own, True), ({"memory", "tokens"}.difference([own]).pop(), False), ("0.0", False), ("0.3", True)
    }  # fmt: skip
    assert [cell.name.split(".")[2] for cell in cells].count("seed0") == 1
    without = next(cell for cell in cells if "label-rows-0.0" in cell.name)
    assert without.options.settings(system.removeprefix("xlgen-")).label_rows == 0.0


def test_an_ablation_varies_a_setting_of_its_variant_alone(checkpoints):
    options = _options(checkpoints, **{"bcl.num_clusters": 10, "bcl.label_rows": 0.3, "label_rows": 0.0})
    plan = Plan(["xlgen-bcl"], ["full"], options=options, ablations=["clusters", "label-rows"])
    cells, rows = plan_cells(plan, "a")
    trained = {cell.name: cell.options.settings("bcl") for cell in cells}
    assert {row.value: trained[row.cells[0]].num_clusters for row in rows if row.ablation == "clusters"} == {
        "10": 10, "30": 30, "100": 100
    }  # fmt: skip
    assert [(row.value, row.is_default) for row in rows if row.ablation == "label-rows"] == [
        ("0.0", False),
        ("0.3", True),
    ]
    assert trained["full.xlgen-bcl.label-rows-0.0.seed0"].label_rows == 0.0


def test_the_best_rule_is_found():
    random = np.random.default_rng(0)
    rows = [(random.permutation(30)[:12].tolist(), random.random(12).tolist(), [False] * 12) for _ in range(40)]
    scored = ScoredLabels.from_rows(rows)
    references = [random.permutation(30)[: random.integers(0, 6)].tolist() for _ in rows]
    found = score_rules(scored, references)
    best = best_within(found.micro, found.macro, 0.0)
    rule, f1 = found.rule(best), found.micro[best]

    def micro(sets):
        return score_ids(sets, references, num_labels=30, k=(), shots=())["micro_f1"]

    assert micro([labels for labels, _ in rule.apply(scored).sets()]) == pytest.approx(f1)
    ranked = [scored.labels[a:b].tolist() for a, b in zip(scored.start, scored.start[1:], strict=False)]
    assert f1 >= max(micro([row[:k] for row in ranked]) for k in range(1, 11)) - 1e-12


def test_plain_and_calibrated_scores_compete():
    """Rare labels have high scores, and are seldom right: scores by frequency tell them apart from the rest."""
    random = np.random.default_rng(0)
    counts = np.array([0, 1, 50, 50, 50, 50])
    right = random.random((300, 6)) < np.array([0.05, 0.05, 0.8, 0.8, 0.8, 0.8])
    misleading = [(list(range(6)), [0.9, 0.9, 0.3, 0.3, 0.3, 0.3], [False] * 6) for _ in right]
    references = [np.flatnonzero(row).tolist() for row in right]
    decision = choose_decision(ScoredLabels.from_rows(misleading), references, counts)
    assert decision.calibrator is not None and decision.micro_f1 > 0.8
    honest = [(list(range(6)), [0.05, 0.05, 0.8, 0.8, 0.8, 0.8], [False] * 6) for _ in right]
    assert choose_decision(ScoredLabels.from_rows(honest), references, counts).calibrator is None


def test_rare_labels_weigh_as_much_as_the_others():
    weights = balanced_weights([[0, 3], [1], [4, 3]], np.array([0, 1, 1, 7, 2, 0]))
    assert weights.tolist() == [1, 1, 1, 0.5, 0.5, 1]
    # Ids after those of the label space: labels of validation rows that training did not see and no vocabulary has.
    assert balanced_weights([[0, 5]], np.array([1, 0])).tolist() == [1, 1, 1, 1, 1, 1]
    assert balanced_weights([[]], np.array([1, 0])).tolist() == [1, 1]


def test_ids_of_a_setting_are_those_of_the_scores():
    full = LabelSpace.from_label_lists([["a", "b"], ["b", "c"]], ["d"])
    setting = LabelSpace.from_label_lists([["a"], ["c"]], ["d"])  # lost b
    space = ScoringSpace(full, setting, [["b", "x"]])
    scored = ScoredLabels.from_rows([([0, 1, 2], [0.9, 0.8, 0.7], [True] * 3)])
    assert [space.names[label] for label in space.take(scored).labels] == list(setting.names)
    counts = dict(zip(space.names, zip(space.full_counts, space.setting_counts, strict=True), strict=True))
    assert counts == {"b": (2, 0), "a": (1, 1), "c": (1, 1), "d": (0, 0), "x": (0, 0)}


def test_a_folder_of_another_training_is_not_taken_up(checkpoints, tmp_path, label_space):
    rows = Dataset.from_list(ROWS)
    data = SystemData(rows, rows, label_space, tmp_path / "model")
    make_system("xlgen-base", _options(checkpoints)).fit(data)
    with pytest.raises(ConfigurationError, match="holds a training with other settings"):
        make_system("xlgen-base", _options(checkpoints, decode_order="alphabet")).fit(data)


def test_settings_of_one_variant(checkpoints):
    options = _options(checkpoints, **{"label_rows": 0.5, "bcl.label_rows": 0.2, "bcl.cluster_source": "gold"})
    assert options.settings("base").label_rows == 0.5
    assert options.settings("bcl").label_rows == 0.2
    assert options.settings("bcl").cluster_source == "gold"
    assert SystemOptions(**json.loads(json.dumps(options.to_dict()))) == options
    assert {"xlgen-base", "xlgen-bcl", "xlgen-mcg"} <= set(system_names())


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--systems", "bonzai"], "There is no system 'bonzai'"),
        (
            ["--set", "label_rowz=1"],
            "'label_rowz' is not a setting of the training. Did you mean one of ['label_r",
        ),
        (["--set", "label_rows"], "write name=value"),
        (["--ablations", "colour"], "There is no ablation 'colour'"),
        (["--settings", "half"], "There is no setting 'half'"),
        (["--ablations", "clusters", "--ablation-system", "xlgen-base"], "mcg, not 'xlgen-base'"),
        (["--ablations", "conditioning", "--ablation-system", "xlgen-mcg"], "rcl, not 'xlgen-mcg'"),
        (["--seed", "7"], "give the seeds of the cells with --model-seeds"),
        (["--test-file", "x.jsonl"], "Give --data alone"),
        (["--hub_token", "hf_secret"], "error: --hub_token: the models of an experiment are not put on the Hub"),
        (["--push-to-hub", "True"], "error: --push-to-hub: the models of an experiment are not put on the Hub"),
        (["--pu-rate", "1"], "pu_rate=1.0; it must be a number > 0 and < 1"),
    ],
)
def test_bad_options_are_explained(files, checkpoints, capsys, more, message):
    assert main(_arguments(files, checkpoints["bert"], *more, "--no-figures")) == 1
    assert message in capsys.readouterr().err
    assert not (files / "out").exists()
