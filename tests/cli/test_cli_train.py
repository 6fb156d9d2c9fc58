"""`xlgen train`: from the command line and a configuration file to settings and arguments."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from tiny import ROWS, VOCABULARY

from xlgen_hf.cli.main import main
from xlgen_hf.files.json_lines import write_jsonl
from xlgen_hf.training import run


@pytest.fixture
def files(tmp_path):
    """Training rows, vocabulary and an output folder."""
    write_jsonl(tmp_path / "rows.jsonl", ROWS)
    (tmp_path / "labels.txt").write_text("\n".join(VOCABULARY), encoding="utf-8")
    return tmp_path


@pytest.fixture
def train(files, monkeypatch, capsys):
    """Run the command as far as the training; gives the exit code, and settings and arguments or the error."""
    taken = {}

    def take(settings, args, train_rows, validation_rows=None, *, on_start):
        taken.update(settings=settings, args=args, rows=(train_rows, validation_rows))
        on_start()
        return None, None, {}

    monkeypatch.setattr(run, "train_model", take)

    def call(*words, needed=True):
        taken.clear()
        given = ["--train-file", str(files / "rows.jsonl"), "--output-dir", str(files / "out")] if needed else []
        code = main(["train", *given, "--use-cpu", *map(str, words)])
        return code, (taken["settings"], taken["args"]) if code == 0 else capsys.readouterr().err

    call.taken = taken
    return call


def test_the_recommended_variant_and_our_defaults(train, files):
    _, (settings, args) = train("--validation-file", files / "rows.jsonl", "--labels", files / "labels.txt")
    assert settings.variant == "rcl" and settings.vocabulary == VOCABULARY
    assert settings.sources == {split: str(files / "rows.jsonl") for split in ("train", "validation")}
    assert (args.learning_rate, args.num_train_epochs, args.per_device_train_batch_size) == (2e-4, 5, 32)
    assert (args.eval_strategy, args.save_strategy, args.load_best_model_at_end) == ("epoch", "epoch", True)
    assert (args.save_total_limit, args.report_to, args.output_dir) == (2, [], str(files / "out"))
    _, (_, args) = train()
    assert (args.eval_strategy, args.load_best_model_at_end) == ("no", False)
    _, (_, args) = train("--validation-file", files / "rows.jsonl", "--eval_strategy", "steps", "--eval_steps", "7")
    assert (args.eval_strategy, args.eval_steps, args.load_best_model_at_end) == ("steps", 7, False)


def test_options_reach_settings_and_arguments(train):
    _, (settings, args) = train(
        "--variant", "bcl", "--cluster_threshold", "0.4", "--no-cluster-loss-annealing", "--max_labels", "9",
        "--learning_rate", "1e-3", "--max-grad-norm", "0.5", "--lr_scheduler_type", "cosine",
        "--fp16_full_eval", "False", "--seed", "7", "--no_tune_decisions",
    )  # fmt: skip
    assert (settings.variant, settings.cluster_threshold, settings.max_labels) == ("bcl", 0.4, 9)
    assert (args.learning_rate, args.max_grad_norm, args.lr_scheduler_type, args.seed) == (1e-3, 0.5, "cosine", 7)
    assert not args.tune_decisions and not args.fp16_full_eval


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--learning_rate", "abc"], 2, "Invalid value for '--learning-rate': 'abc'; it must be a number >= 0."),
        (["--fresh-learning-rate", "0"], 2, "'--fresh-learning-rate': '0'; it must be a number > 0."),
        (["--num-clusters", "1.5"], 2, "Invalid value for '--num-clusters': '1.5'; it must be an integer >= 1."),
        (["--variant", "bcll"], 2, "Invalid value for '--variant': 'bcll' is not one of 'base', 'bcl', 'mcg', 'rcl'."),
        (["--num_train_epoch", "3"], 2, "No such option: --num_train_epoch. Did you mean --num-train-epochs"),
        (["--max_grad_nrm", "3"], 2, "No such option: --max_grad_nrm. Did you mean --max-grad-norm"),
        (["--epochs", "3"], 2, "No such option: --epochs. Did you mean --num-train-epochs? See 'xlgen train --help'."),
        (["--device", "cuda"], 2, "No such option: --device. Did you mean --use-cpu? See"),
        (["--retriever", str(Path(__file__).parent)], 1, "this folder is not one that it wrote. `xlgen index` makes"),
        (["--max_grad", "3"], 2, "No such option: --max_grad."),
        (["--retreiver", "x"], 2, "No such option: --retreiver. Did you mean --retriever"),
        (["--max_grad_norm", "abc"], 2, "--max_grad_norm/--max-grad-norm: invalid float value: 'abc'."),
        (["--lr_scheduler_type", "foo"], 2, "invalid choice: 'foo' (choose from"),
        (["--max_grad_norm"], 2, "--max_grad_norm/--max-grad-norm: expected one argument."),
        (["stray"], 2, "Got unexpected argument 'stray'."),
        (["--report_to", "nowhere"], 1, "report_to='nowhere'; it must be one of none, all"),
        (["--use_cpu", "--bf16", "True", "--fp16"], 1, "At most one of fp16 and bf16 can be True"),
        (["--dtype", "auto", "--bf16"], 1, "bf16=True has no effect with dtype='auto'. Leave dtype out, or leave"),
        (["--dtype", "float32", "--fp16"], 1, "dtype='float32' and fp16=True: both choose the type of numbers"),
        (["--dtype", "half"], 2, "'half' is not one of 'auto', 'float32', 'bfloat16'"),
        (["--variant", "bcl", "--retriever", "x"], 1, "retriever='x' has no effect with variant='bcl'"),
        (["--variant", "bcl", "--lexical"], 1, "lexical=True has no effect with variant='bcl'"),
        (["--cluster_noise", "0.2"], 1, "cluster_noise=0.2 has no effect with variant='rcl'. Choose variant mcg"),
        (["--variant", "bcl", "--soft_targets", "0.2"], 1, "soft_targets=0.2 has no effect with variant='bcl'"),
        (["--lora-rank", "16"], 1, "lora_rank=16 has no effect with lora=False"),
        (["--retriever", "nosuch"], 1, "retriever='nosuch': no such folder"),
        (["--variant", "mcg", "--clusters", "nosuch"], 1, "clusters='nosuch': no such folder"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_a_line(train, files, words, code, message):
    found, error = train(*words)
    assert found == code
    assert message in error and error.startswith("xlgen: error: ")
    assert error.count("\n") == 1
    assert not (files / "out").exists()


@pytest.mark.parametrize(
    ("words", "bf16"),
    [
        ([], False), (["--dtype", "bfloat16"], True), (["--dtype", "float32"], False), (["--no-bf16"], False),
        (["--bf16", "--use-cpu"], True),
    ],
)  # fmt: skip
def test_the_type_of_numbers_is_chosen_and_kept_for_a_repetition(train, files, words, bf16):
    _, (_, args) = train(*words)
    assert args.bf16 is bf16
    left = (files / "out" / "train_config.yaml").read_text(encoding="utf-8")
    assert f"dtype: {'bfloat16' if bf16 else 'float32'}" in left and "bf16:" not in left
    _, (_, again) = train("--config", files / "out" / "train_config.yaml", "--overwrite", needed=False)
    assert again.bf16 is bf16


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_bfloat16_without_a_gpu_is_explained(files, capsys):
    arguments = ["train", "--train-file", str(files / "rows.jsonl"), "--output-dir", str(files / "out"), "--bf16"]
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert "bf16: this machine has no GPU that computes in bfloat16. Leave bf16 (or dtype) out, or add" in error
    assert error.count("\n") == 1


def test_an_output_folder_that_is_a_file_is_refused(files, capsys):
    assert main(["train", "--train-file", "x", "--output-dir", str(files / "rows.jsonl")]) == 2
    assert "rows.jsonl' is a file." in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------------- --config


@pytest.fixture
def config(files):
    """A function that writes a configuration file."""

    def write(text: str):
        (files / "run.yaml").write_text(text, encoding="utf-8")
        return files / "run.yaml"

    return write


def test_a_file_gives_options_and_the_command_line_has_precedence(train, files, config):
    path = config(
        f"train-file: {files / 'rows.jsonl'}\noutput_dir: {files / 'out'}\nvariant: bcl\ncluster_threshold: 0.4\n"
        "learning_rate: 1e-3\nbf16: no\ntune_decisions: false\nmax_grad_norm: 0.5\nnum_train_epochs: 2\n"
    )
    _, (settings, args) = train("--config", path, "--cluster-threshold", "0.3", "--max_grad_norm", "0.7", needed=False)
    assert (settings.variant, settings.cluster_threshold) == ("bcl", 0.3)
    assert (args.learning_rate, args.max_grad_norm, args.num_train_epochs) == (1e-3, 0.7, 2)
    assert not args.tune_decisions and args.output_dir == str(files / "out")


def test_dictionaries_of_a_run_are_read_again(train, files):
    """The fault: what a run left was refused by `--config`."""
    _, (_, args) = train("--lr_scheduler_type", "cosine_with_restarts", "--lr_scheduler_kwargs", '{"num_cycles": 2}')
    _, (_, again) = train("--config", files / "out" / "train_config.yaml", needed=False)
    assert args.lr_scheduler_kwargs == again.lr_scheduler_kwargs == {"num_cycles": 2}


def test_what_a_run_leaves_repeats_it(train, files, monkeypatch):
    words = ["--variant", "mcg", "--cluster_noise", "0.3", "--max_grad_norm", "0.5", "--hub_token", "hf_secret"]
    _, (settings, args) = train("--validation-file", files / "rows.jsonl", *words)
    left = files / "out" / "train_config.yaml"
    text = left.read_text(encoding="utf-8")
    content = yaml.safe_load(text)
    assert "hf_secret" not in text and "hub_token" not in content
    assert {"variant": "mcg", "cluster_noise": 0.3, "max_grad_norm": 0.5, "seed": 42}.items() <= content.items()
    assert (content["eval_strategy"], content["load_best_model_at_end"]) == ("epoch", True)
    assert not {"retriever_epochs", "lexical", "config", "lora_rank", "help"} & set(content)
    _, (again, args_again) = train("--config", left, needed=False)
    assert replace(again, cluster_loss_weight=None) == settings, "what the variant decides is written, too"
    assert again.model_options() == settings.model_options()
    kept = {name: value for name, value in args.to_dict().items() if name != "hub_token"}
    assert {name: args_again.to_dict()[name] for name in kept} == kept
    assert yaml.safe_load(left.read_text(encoding="utf-8")) == content


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rat: 1", "no such setting: learning-rat. Did you mean learning-rate"),
        ("max_grad_nrm: 1", "no such setting: max-grad-nrm. Did you mean max-grad-norm"),
        ("config: x", "no such setting: config"),
        ("- a\n- b", "must hold lines such as `num_train_epochs: 3`"),
        ("a: [", "is not YAML"),
        ("learning_rate: abc", "Invalid value for '--learning-rate': 'abc'; it must be a number >= 0."),
        ("learning_rate: [1, 2]", "'learning_rate' must be a single value, not [1, 2]."),
        ("variant: bcll", "'bcll' is not one of"),
        ("variant: {a: 1}", "'variant' must be a single value, not {'a': 1}."),
        ("max_grad_norm: {a: 1}", "Invalid argument --max_grad_norm/--max-grad-norm: invalid float value"),
        ("max_steps: 1\nmax_steps: 2", "'max_steps' is there twice; leave one of them out."),
    ],
)
def test_a_wrong_file_is_explained(train, files, config, text, message):
    code, error = train("--config", config(text))
    assert code == 2
    assert message in error
    assert error.count("\n") == 1


def test_a_file_that_is_not_there(train):
    code, error = train("--config", "nosuch.yaml")
    assert (code, "--config nosuch.yaml cannot be read: No such file or directory." in error) == (2, True)


def test_an_option_of_the_file_without_effect_is_refused(train, config):
    code, error = train("--config", config("variant: bcl\nlexical: true"))
    assert (code, "lexical=True has no effect with variant='bcl'" in error) == (1, True)


def test_columns_of_any_name_are_read(train, files, config):
    (files / "own.csv").write_text("title;abstract;subjects\norgan;in churches;music|organ\n", encoding="utf-8")
    words = ["--labels-column", "subjects", "--text-column", "title", "--text_column", "abstract"]
    code, _ = train(*words, "--train-file", files / "own.csv")
    assert code == 0
    assert list(train.taken["rows"][0]) == [{"text": "organ in churches", "labels": ["music", "organ"]}]
    left = yaml.safe_load((files / "out" / "train_config.yaml").read_text(encoding="utf-8"))
    assert (left["text_column"], left["labels_column"]) == (["title", "abstract"], "subjects")
    code, _ = train("--config", files / "out" / "train_config.yaml", needed=False)
    assert train.taken["rows"][0]["text"] == ["organ in churches"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--eval_strategy", "steps"], "--eval_strategy needs validation rows; give --validation-file."),
        (["--eval_on_start", "true"], "--eval_on_start needs validation rows"),
        (["--resume_from_checkpoint", "nowhere"], "--resume_from_checkpoint has no effect here: the same command"),
        (["--do_train", "false"], "--do_train has no effect here: the command trains"),
        (
            ["--lr_scheduler_type", "cosine_with_min_lr"],
            "lr_scheduler_type='cosine_with_min_lr' with lr_scheduler_kwargs={}",
        ),
        (
            ["--lr_scheduler_kwargs", '{"nothing": 1}'],
            "lr_scheduler_type='linear' with lr_scheduler_kwargs={'nothing': 1}",
        ),
    ],
)
def test_what_would_fail_or_do_nothing_is_refused_at_once(train, words, message):
    code, error = train(*words)
    assert (code, message in error) == (1, True), error
