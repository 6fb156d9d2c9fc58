"""Time prediction and a training step of two checkouts in turns, in one run: the ratio of the second to the first.

Each round runs every checkout once, in a process of its own, on the same kind of models, texts and seeds; the table
gives the median of the ratios of the rounds and their range. Start-up and loading are not counted.

    python benchmarks/compare_speed.py OLD_CHECKOUT OLD_MODELS NEW_CHECKOUT NEW_MODELS --texts texts.jsonl

OLD_MODELS and NEW_MODELS are folders that `record_predictions.sh` made with each checkout.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys

_WORKER = """
import json, sys, time, torch
torch.set_num_threads(1)
from xlgen_hf.loading import load_model
folder, texts, kind = sys.argv[1:4]
texts = [json.loads(line)["text"] for line in open(texts, encoding="utf-8")]
model, processor = load_model(folder)
if kind == "predict":
    model.predict(texts[:64], processor)
    began = time.perf_counter()
    model.predict(texts, processor)
else:
    batch = dict(processor(texts[:32], return_tensors="pt"))
    spell = getattr(processor, "label_tokenizer", processor)
    targets = [spell.build_target([i % 50, 50 + i % 40]) for i in range(32)]
    longest = max(map(len, targets))
    batch["labels"] = torch.tensor([t + [-100] * (longest - len(t)) for t in targets])
    model.train()
    model(**batch).loss.backward()
    began = time.perf_counter()
    for _ in range(8):
        model(**batch).loss.backward()
print(time.perf_counter() - began)
"""


def seconds(checkout: str, folder: str, texts: str, kind: str) -> float:
    environment = {**os.environ, "PYTHONPATH": checkout, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", _WORKER, folder, texts, kind]
    # From within the checkout: Python looks for modules in the current folder before PYTHONPATH.
    done = subprocess.run(command, cwd=checkout, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkouts", nargs=4, metavar=("OLD_CHECKOUT", "OLD_MODELS", "NEW_CHECKOUT", "NEW_MODELS"))
    parser.add_argument("--texts", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--models", nargs="*", default=["bcl", "mcg", "rcl", "hybrid"])
    given = parser.parse_args()
    old, old_models, new, new_models = map(os.path.abspath, given.checkouts)
    texts = os.path.abspath(given.texts)
    found = {}
    print("| work | model | new / old, median of rounds | range |")
    print("|---|---|---|---|")
    for kind in ("predict", "step"):
        for model in given.models if kind == "predict" else [name for name in given.models if name in ("bcl", "mcg")]:
            ratios = [
                seconds(new, f"{new_models}/{model}", texts, kind) / seconds(old, f"{old_models}/{model}", texts, kind)
                for _ in range(given.rounds)
            ]
            found[f"{kind} {model}"] = ratios
            print(f"| {kind} | {model} | {statistics.median(ratios):.2f} | {min(ratios):.2f} - {max(ratios):.2f} |")
    print(json.dumps(found), file=sys.stderr)


if __name__ == "__main__":
    main()
