"""Time and memory of commands by the number of rows: bench_commands.py [--rows 10000 100000 1000000] [--words 100].

The made-up rows of `bench_reading.py` (4.75 labels a row of 500,000 in a long tail), as JSON Lines. For each number of
rows `xlgen index --epochs 0` without character n-grams, `xlgen predict` of 1,000 other rows with that index, `xlgen
cluster`, and `xlgen index` with n-grams up to `--most-spelled` rows; each in a process of its own, one thread. Prints
JSON: CPU seconds of the command, start included, and its peaks of memory in MB: all that is resident, and that without
pages of mapped files, which the system can take back.

The encoder is a BERT without layers: random vectors of MiniLM's tokens, 384 numbers each, and their mean. So it shows
the work beside an encoder, and memory. `--encoder sentence-transformers/all-MiniLM-L6-v2` takes a real one.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench_reading import make_rows, write

_TOKENIZER_OF = "sentence-transformers/all-MiniLM-L6-v2"
_TEXTS = 1_000
_POLL = 0.1
_ENCODER = """
import sys, torch
from transformers import AutoTokenizer, BertConfig, BertModel
from xlgen_hf.encoders.checkpoints import fetch_checkpoint

torch.manual_seed(0)
tokenizer = AutoTokenizer.from_pretrained(fetch_checkpoint(sys.argv[1]))
config = BertConfig(
    vocab_size=len(tokenizer), hidden_size=384, num_hidden_layers=0, num_attention_heads=6, intermediate_size=8
)
BertModel(config, add_pooling_layer=False).save_pretrained(sys.argv[2])
tokenizer.save_pretrained(sys.argv[2])
"""


def make_encoder(folder: Path) -> None:
    """Write the encoder without layers."""
    subprocess.run([sys.executable, "-c", _ENCODER, _TOKENIZER_OF, str(folder)], check=True, stderr=subprocess.DEVNULL)


def run(command: Sequence[str]) -> dict[str, float]:
    """CPU seconds and memory of a command of the package."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    with tempfile.TemporaryFile() as messages:
        process = subprocess.Popen([sys.executable, *command], env=environment, stdout=messages, stderr=messages)
        most = 0
        while True:
            finished, status, used = os.wait4(process.pid, os.WNOHANG)
            if finished:
                break
            most = max(most, _held(process.pid))
            time.sleep(_POLL)
        if status:
            messages.seek(0)
            raise SystemExit(f"{' '.join(command)} failed:\n{messages.read().decode()}")
    cpu = used.ru_utime + used.ru_stime
    return {"cpu_seconds": round(cpu, 1), "peak_mb": used.ru_maxrss // 1000, "without_files_mb": most // 1000}


def _held(process: int) -> int:
    """Memory that a process holds now, without pages of files, in KB; 0 once it has ended."""
    lines = Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("RssAnon:")), 0)


def measure(folder: Path, count: int, options: argparse.Namespace) -> dict[str, object]:
    """All commands over so many rows."""
    rows, texts = folder / "rows.jsonl", folder / "texts.jsonl"
    write(rows, count, options.words)
    with texts.open("w", encoding="utf-8") as file:
        for row in make_rows(_TEXTS, options.words):
            file.write(json.dumps({"text": f"a text: {row['text']}"}) + "\n")
    train = ["--train-file", str(rows), "--encoder", options.encoder or str(folder / "encoder")]
    index = ["index", *train, "--epochs", "0", "--search", options.search, "--output-dir"]
    predict = ["predict", "--model", str(folder / "index"), "--input-file", str(texts), "--device", "cpu"]
    commands = {
        "index": [*index, str(folder / "index"), "--no-lexical"],
        "predict": [*predict, "--output-file", str(folder / "found.jsonl")],
        "cluster": ["cluster", *train, "--device", "cpu", "--output-dir", str(folder / "clusters")],
        "index with n-grams": [*index, str(folder / "spelled")],
        "predict with n-grams": [*predict, "--output-file", str(folder / "spelled.jsonl")],
    }
    commands["predict with n-grams"][2] = str(folder / "spelled")
    found: dict[str, object] = {"rows": count}
    for name, command in commands.items():
        if name in options.commands and ("n-grams" not in name or count <= options.most_spelled):
            found[name] = run(["-m", "xlgen_hf", *command])
            print(json.dumps({"rows": count, name: found[name]}), file=sys.stderr, flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--words", type=int, default=100)
    parser.add_argument("--encoder")
    parser.add_argument("--search", choices=("exact", "approximate"), default="exact")
    parser.add_argument("--most-spelled", type=int, default=100_000)
    every = ["index", "predict", "cluster", "index with n-grams", "predict with n-grams"]
    parser.add_argument("--commands", nargs="+", choices=every, default=every)
    options = parser.parse_args()
    for count in options.rows:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            if not options.encoder:
                make_encoder(folder / "encoder")
            print(json.dumps(measure(folder, count, options)), flush=True)
            shutil.rmtree(folder / "index", ignore_errors=True)


if __name__ == "__main__":
    main()
