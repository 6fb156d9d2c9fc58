"""float32 beside bfloat16: bench_dtype.py MODEL --texts rows.jsonl [--rounds 5] [--json F].

MODEL is a folder that `xlgen train` or `xlgen index` wrote. Both types predict the same texts in turns in one process:
CPU seconds of each round, their ratios, micro and macro F1, and how many texts get the same labels. Where there is an
encoder that retrieves, it embeds the texts in both types, too (cosines of the two embeddings); where there is a
generator, it takes steps of training (forward and backward in autocast, as `--bf16` has it).
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from xlgen_hf.data.rows import load_rows
from xlgen_hf.encoders.number_types import has_bfloat16
from xlgen_hf.evaluation.scoring import score_labels
from xlgen_hf.loading import holds_model, load_model, load_predictor
from xlgen_hf.retrieval.model_sources import load_source_alone
from xlgen_hf.retrieval.retriever import LabelRetriever

TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def in_turns(rounds: int, work: Callable[[str], object]) -> dict:
    """CPU seconds of each type, and ratios of the rounds: least, median, greatest."""
    seconds: dict[str, list[float]] = {name: [] for name in TYPES}
    for number in range(rounds + 1):
        for name, found in seconds.items():
            start = time.process_time()
            work(name)
            if number:  # the first round is for what is made once
                found.append(time.process_time() - start)
    ratios = [one / other for one, other in zip(*seconds.values(), strict=True)]
    return {**{name: spread(found) for name, found in seconds.items()}, "ratio": spread(ratios)}


def spread(values: list[float]) -> list[float]:
    return [round(value, 3) for value in (min(values), statistics.median(values), max(values))]


def predicting(name: str, texts: list[str], references: list[list[str]], rounds: int) -> dict:
    predictors = {kind: load_predictor(name, dtype=kind) for kind in TYPES}
    found: dict[str, list[list[str]]] = {}

    def predict(kind: str) -> None:
        found[kind] = [one.labels for one in predictors[kind].predict(texts)]

    report = in_turns(rounds, predict)
    for kind, labels in found.items():
        scores = score_labels(labels, references, k=())
        report[f"{kind}_f1"] = [round(float(scores[name]), 4) for name in ("micro_f1", "macro_f1")]
    same = [set(one) == set(other) for one, other in zip(*found.values(), strict=True)]
    return {**report, "texts_with_the_same_labels": round(float(np.mean(same)), 4)}


def embedding(retriever: LabelRetriever, texts: list[str], rounds: int) -> dict:
    found: dict[str, np.ndarray] = {}

    def embed(kind: str) -> None:
        retriever.encoder[0].to(TYPES[kind])
        found[kind] = retriever.embed(texts)

    report = in_turns(rounds, embed)
    cosines = (found["float32"] * found["bfloat16"]).sum(1)
    return {**report, "cosine_mean": round(float(cosines.mean()), 6), "cosine_least": round(float(cosines.min()), 6)}


def training(name: str, texts: list[str], rounds: int) -> dict:
    model, processor = load_model(name)
    batch = dict(processor(texts[:32], return_tensors="pt"))
    targets = [processor.label_tokenizer.build_target([row % 50, 50 + row % 40]) for row in range(32)]
    longest = max(map(len, targets))
    batch["labels"] = torch.tensor([target + [-100] * (longest - len(target)) for target in targets])
    model.train()

    def step(kind: str) -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=kind == "bfloat16"):
            loss = model(**batch).loss
        loss.backward()
        model.zero_grad()

    return in_turns(rounds, step)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--texts", required=True, help="rows, with labels")
    parser.add_argument("--rows", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = load_rows(options.texts, split="test", suspicions=False)
    texts, references = rows["text"][: options.rows], rows["labels"][: options.rows]
    report = {"texts": len(texts), "instructions": has_bfloat16("cpu"), "threads": torch.get_num_threads()}
    report["predict"] = predicting(options.model, texts, references, options.rounds)
    if holds_model(Path(options.model)):
        report["training_step"] = training(options.model, texts, options.rounds)
        source = load_model(options.model)[1].retriever
    else:
        source = load_source_alone(Path(options.model)).source
    if isinstance(source, LabelRetriever):
        report["embed"] = embedding(source, texts, options.rounds)
    print(json.dumps(report, indent=1))
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
