"""What is healthy is silent: no warning of a library, of Python or of the package, in fresh processes."""

from __future__ import annotations

import json
import re
from pathlib import Path

from processes import run_fresh
from tiny import ROWS, Hub

from xlgen_hf.files.json_lines import write_jsonl

# Trains, resumes from an older checkpoint, predicts and pushes by commands; then predicts and generates in Python. One
# model after the other: what is said once in a process is said of the first.
DRIVER = """
import json, logging, shutil, sys, warnings
from pathlib import Path

# Libraries say it by their loggers too; what is said is printed once more, so that none can hide it.
class Tell(logging.Handler):
    def emit(self, record):
        sys.stderr.write(f"{record.levelname} of {record.name}: {record.getMessage()}\\n")
logging.getLogger().addHandler(Tell(logging.WARNING))

from xlgen_hf.cli.main import main

def use(train, others, folder):
    assert main(train) == 0
    (folder / "training_report.json").unlink()
    shutil.rmtree(max(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1])))
    assert main(train) == 0
    for argv in others:
        assert main(argv) == 0, argv

    from xlgen_hf.loading import load_model
    from xlgen_hf.pipeline import XLGenPipeline
    model, processor = load_model(str(folder))
    batch = processor(["art and music", "organ"], return_tensors="pt")
    for beams in (1, 2):
        model.generate(**batch, max_new_tokens=4, num_beams=beams)
    model.predict(["art"], processor, open_vocabulary=True)
    XLGenPipeline(model, processor)("art")

for train, others, folder in json.loads(sys.argv[1]):
    use(train, others, Path(folder))
"""
_NOISE = re.compile(r"warn|deprecat|error|traceback|critical", re.IGNORECASE)


# Backbone, variant and further options of each model.
MODELS = [
    ("bert", "bcl", ["--num-clusters", "3", "--decoder-layers", "1"]),
    ("t5", "rcl", ["--retriever-epochs", "0", "--lora", "--predict-with", "generator"]),
]


def _commands(place, checkpoint, variant, more):
    """The training of a model, what is done with it, and its folder."""
    folder = place / variant
    train = [
        "train", "--train-file", str(place / "rows.jsonl"), "--validation-file", str(place / "validation.jsonl"),
        "--backbone", checkpoint, "--variant", variant, "--output-dir", str(folder), "--use_cpu", "True",
        "--num_train_epochs", "2", "--keep-checkpoints", *more,
    ]  # fmt: skip
    predict = ["predict", "--model", str(folder), "--input-file", str(place / "texts.jsonl"), "--output-file"]
    others = [
        [*predict, str(place / f"{variant}.jsonl")],
        [*predict, str(place / f"{variant}-beams.jsonl"), "--num-beams", "2"],
        ["push", "model", "--model", str(folder), "--repo-id", f"acme/silent-{variant}"],
    ]
    return train, others, str(folder)


def test_training_resuming_predicting_and_pushing_are_silent(hub_process, checkpoints, tmp_path):
    hub_process.ask("clear")
    write_jsonl(tmp_path / "rows.jsonl", ROWS)
    write_jsonl(tmp_path / "texts.jsonl", [{"text": row["text"]} for row in ROWS])
    write_jsonl(tmp_path / "validation.jsonl", [{**row, "text": f"{row['text']} again"} for row in ROWS])
    commands = [_commands(tmp_path, checkpoints[family], variant, more) for family, variant, more in MODELS]
    environment = hub_process.environment(tmp_path / "home", Hub.alice)
    environment |= {"PYTHONPATH": str(Path(__file__).parents[1])}
    done = run_fresh(DRIVER, json.dumps(commands), environment=environment, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not [line for line in done.stderr.splitlines() if _NOISE.search(line) and not line.startswith("INFO: ")]
    assert "%|" not in done.stderr  # no progress bars where nobody watches
