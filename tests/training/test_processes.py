"""Several processes: the losses, decisions and predictions of one, each row once, and one voice."""

from __future__ import annotations

import json
import os
import re

import pytest
import torch
from accelerate.commands.launch import launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env
from processes import Forked, free_port, run_fresh, run_two
from safetensors.torch import load_file
from tiny import ROWS, VOCABULARY
from transformers.modeling_outputs import ModelOutput

from xlgen_hf.cli.main import main
from xlgen_hf.errors import ConfigurationError
from xlgen_hf.files.json_lines import write_jsonl
from xlgen_hf.training.arguments import XLGenTrainingArguments
from xlgen_hf.training.collator import DataCollatorForXLGen, ShareCollator, encode_dataset
from xlgen_hf.training.evaluating import EvaluatedRows, share_of
from xlgen_hf.training.losses import LOSSES, LossSums, loss_sums
from xlgen_hf.training.run import train_model
from xlgen_hf.training.settings import TrainingSettings
from xlgen_hf.training.trainer import XLGenTrainer


@pytest.fixture
def files(tmp_path):
    """25 training rows, so that of two processes with 3 rows each, one has none in the last batch; 13 to validate."""
    rows = [{**row, "text": f"{row['text']} {'art ' * (number + 1)}"} for number in range(4) for row in ROWS][:25]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    write_jsonl(tmp_path / "validation.jsonl", [*ROWS, *ROWS[:5]])
    (tmp_path / "labels.txt").write_text("\n".join(VOCABULARY), encoding="utf-8")
    return tmp_path


def _arguments(files, checkpoint, variant, name, batch_size):
    return [
        "train", "--train-file", str(files / "rows.jsonl"), "--validation-file", str(files / "validation.jsonl"),
        "--labels", str(files / "labels.txt"), "--backbone", checkpoint, "--variant", variant, "--num-clusters", "3",
        "--output-dir", str(files / name), "--label-rows", "0", "--dropout", "0", "--use_cpu", "True",
        "--keep-checkpoints",
        "--num_train_epochs", "2", "--logging_steps", "1", "--learning_rate", "1e-2", "--fresh_learning_rate", "1e-2",
        "--per_device_train_batch_size", str(batch_size), "--per_device_eval_batch_size", "4",
        *(["--decoder-layers", "1", "--cluster-source", "gold"] if variant == "bcl" else []),
    ]  # fmt: skip


def _curve(folder):
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    names = ("loss", "generation_loss", "cluster_loss", "grad_norm", "eval_loss", "eval_micro_f1")
    return [(entry["step"], name, entry[name]) for entry in history for name in names if name in entry]


# Reads its arguments as torchrun does, and runs its agent; the processes are forked instead of started with `-m`.
TORCHRUN = """
import sys, warnings
from torch.distributed.launcher.api import elastic_launch
from torch.distributed.run import config_from_args, parse_args
warnings.simplefilter("always")
from xlgen_hf.cli import train
from xlgen_hf.cli.main import main
from xlgen_hf.training import run
config, _, _ = config_from_args(parse_args(sys.argv[1:]))
config.start_method = "fork"
place = sys.argv.index("xlgen_hf")
codes = elastic_launch(config, main)(sys.argv[place + 1 :])
sys.exit(max(codes.values()))
"""


def _torchrun(files, arguments):
    """Outputs of the command line in two processes of torchrun."""
    options = ["--nproc_per_node", "2", "--master_port", free_port(), "-m", "xlgen_hf"]
    done = run_fresh(TORCHRUN, *options, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def _accelerate(files, arguments):
    """Outputs of the command line in two processes with the environment that `accelerate launch` gives them.

    They are forked: three more imports of all libraries would take as long as twenty other tests.
    """
    launch = ["--multi_gpu", "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no"]
    launch += ["--dynamo_backend", "no", "--num_cpu_threads_per_process", "1", "--main_process_port", free_port()]
    given = launch_command_parser().parse_args([*launch, "-m", "xlgen_hf"])
    environment = {**prepare_multi_gpu_env(given), "MASTER_PORT": str(given.main_process_port)}
    return run_two(files, *arguments, **environment)


@pytest.mark.parametrize(("launch", "family", "variant"), [(_torchrun, "bert", "bcl"), (_accelerate, "t5", "mcg")])
def test_two_processes_do_what_one_does(files, checkpoints, launch, family, variant):
    stdout, stderr = launch(files, _arguments(files, checkpoints[family], variant, "two", 3))
    assert main(_arguments(files, checkpoints[family], variant, "one", 6)) == 0

    one, two = _curve(files / "one"), _curve(files / "two")
    assert [entry[:2] for entry in two] == [entry[:2] for entry in one]
    assert [entry[2] for entry in two] == pytest.approx([entry[2] for entry in one], rel=2e-3, abs=2e-4)
    weights = [load_file(files / name / "model.safetensors") for name in ("one", "two")]
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, atol=2e-3, rtol=2e-2)
    reports = [json.loads((files / name / "training_report.json").read_text()) for name in ("one", "two")]
    assert reports[1]["decision"] == reports[0]["decision"]
    for name in ("eval_micro_f1", "eval_macro_f1", "eval_mean_labels_reference"):
        assert reports[1]["scores"][name] == pytest.approx(reports[0]["scores"][name])
    assert [one["predicted"][0][0] for one in reports[1]["examples"]] == [
        one["predicted"][0][0] for one in reports[0]["examples"]
    ]

    # One voice: each step once, one table, and no warning of a library.
    assert re.findall(r"INFO: (Step \d+) of", stderr) == [f"Step {step}" for step in range(1, 11)]
    assert stdout.count("Model written to") == stdout.count("micro_f1") == 1
    assert not [line for line in stderr.splitlines() if "warn" in line.lower()]
    checkpoint = {path.name for path in (files / "two" / "checkpoint-10").iterdir()}
    assert {"rng_state_0.pth", "rng_state_1.pth", "model.safetensors", "checkpoint.json"} <= checkpoint

    # One process with batches of the same size is the same run, and that one is complete.
    before = (files / "two" / "training_report.json").stat().st_mtime_ns
    assert main(_arguments(files, checkpoints[family], variant, "two", 6)) == 0
    assert (files / "two" / "training_report.json").stat().st_mtime_ns == before


# ---------------------------------------------------------------------------------------------------- parts


def test_the_shares_of_a_batch_add_up(make_model, rows):
    _, processor = make_model("t5", "bcl")
    encoded = list(encode_dataset(rows, processor))
    collator = DataCollatorForXLGen(processor, "bcl")
    whole = collator(encoded[:5])
    shares = [ShareCollator(collator, process, 2)(encoded[:5]) for process in range(2)]
    assert [len(share["labels"]) for share in shares] == [3, 2]
    for process, share in enumerate(shares):
        for number, row in enumerate(range(process, 5, 2)):
            kept = share["labels"][number][share["labels"][number] != -100]
            assert torch.equal(kept, whole["labels"][row][whole["labels"][row] != -100])
            assert torch.equal(share["cluster_bits"][number], whole["cluster_bits"][row])


def test_a_process_without_rows_adds_nothing(make_model, rows):
    _, processor = make_model("t5", "mcg")
    encoded = list(encode_dataset(rows, processor))
    collator = DataCollatorForXLGen(processor, "mcg", clusters_only_rate=0)
    alone = ShareCollator(collator, 1, 2)(encoded[:1])
    assert (alone["labels"] == -100).all()
    assert alone["input_ids"].shape[0] == 2
    sums = loss_sums(ModelOutput(generation_loss=torch.tensor(0.0), cluster_loss=torch.tensor(0.0)), alone)
    assert sums.counts.tolist() == [0, 0, 0]


@pytest.mark.parametrize("variant", ["base", "bcl", "mcg"])
def test_the_loss_of_shares_is_that_of_the_batch(make_model, rows, variant):
    model, processor = make_model("t5", variant, dropout=0.0, cluster_source="gold")
    encoded = list(encode_dataset(rows, processor))
    collator = DataCollatorForXLGen(processor, variant)
    shares = [ShareCollator(collator, process, 3)(encoded[:7]) for process in range(3)]
    with torch.no_grad():
        whole = model(**collator(encoded[:7]))
        sums = [loss_sums(model(**share), share) for share in shares]
    total = sum(one.counts for one in sums)
    means = [one.means(lambda _: total, processes=3) for one in sums]
    for name in LOSSES:
        if whole.get(name) is not None:
            torch.testing.assert_close(torch.stack([mean[name] for mean in means]).mean(), whole[name])


@pytest.mark.parametrize("processes", [1, 2, 5])
def test_each_row_is_evaluated_once_and_comes_back_in_its_place(processes, monkeypatch):
    found = [EvaluatedRows() for _ in range(processes)]
    for process, mine in enumerate(found):
        for row in share_of(13, process, processes):
            mine.predicted.append([row])
            mine.references.append([row, row + 1])
            mine.add(LossSums(torch.tensor([float(row), 0.0, 0.0]), torch.tensor([2.0, 0.0, 0.0])), 1)
    monkeypatch.setattr("xlgen_hf.training.evaluating.gather_object", lambda _: found)
    together = found[0].gathered()
    assert together.rows == 13
    assert together.predicted == [[row] for row in range(13)]
    assert together.references == [[row, row + 1] for row in range(13)]
    weights = dict.fromkeys(LOSSES, 1.0)
    assert together.loss(weights) == pytest.approx(sum(range(13)) / 26)
    assert EvaluatedRows().loss(weights) is None


# The first of two processes prepares for longer than a step may take.
PREPARING = """
import os, sys, time
from datetime import timedelta
from pathlib import Path
from torch import distributed
from xlgen_hf.training.arguments import XLGenTrainingArguments, first_process_first
folder, rank, port = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
group = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
os.environ.update(group, RANK=rank, LOCAL_RANK=rank)
(folder / f"started-{rank}").touch()
while len(list(folder.glob("started-*"))) < 2:
    time.sleep(0.01)
distributed.init_process_group("gloo", timeout=timedelta(seconds=3))  # on CPUs, ddp_timeout has no effect
args = XLGenTrainingArguments(str(folder), use_cpu=True)
(folder / f"waiting-{rank}").touch()
with first_process_first(args):
    if rank == "0":
        while len(list(folder.glob("waiting-*"))) < 2:
            time.sleep(0.01)
        time.sleep(5)
        (folder / "prepared").touch()
    assert (folder / "prepared").exists()
    (folder / f"done-{rank}").touch()
assert len(list(folder.glob("done-*"))) == 2
"""


def test_the_others_wait_until_the_first_process_has_prepared_the_model(tmp_path):
    port, started = free_port(), []
    for rank in ("0", "1"):
        (tmp_path / rank).mkdir()
        started.append(Forked(tmp_path / rank, PREPARING, tmp_path, rank, port))
    assert [process.wait() for process in started] == [0, 0], [one.stderr.read_text() for one in started]


# ---------------------------------------------------------------------------------------------------- refusals


def test_several_processes_without_a_group_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigurationError, match="WORLD_SIZE=2 says that 2 processes train together, but this one"):
        XLGenTrainingArguments(str(tmp_path), use_cpu=True)


def test_a_trainer_of_several_processes_without_a_group_is_refused(make_model, rows, tmp_path, monkeypatch):
    model, processor = make_model("t5")
    args = XLGenTrainingArguments(str(tmp_path), use_cpu=True)
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ConfigurationError, match="torchrun --nproc_per_node 3"):
        XLGenTrainer(model, args, processing_class=processor, train_dataset=rows)


def test_a_retriever_is_not_trained_by_several_processes(rows, tmp_path, monkeypatch):
    args = XLGenTrainingArguments(str(tmp_path), use_cpu=True)
    monkeypatch.setattr(XLGenTrainingArguments, "world_size", property(lambda self: 2))
    with pytest.raises(ConfigurationError, match="Several processes cannot train a retriever together"):
        train_model(TrainingSettings(backbone="nowhere", variant="rcl"), args, rows)
    assert not os.listdir(tmp_path)
