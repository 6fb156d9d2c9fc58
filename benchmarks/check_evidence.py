"""Whether evidence is true, and what it costs.

    python benchmarks/check_evidence.py MODEL --texts F --json F [--number 500] [--rounds 5]

True: of each text's best label, the words that evidence says match its name are removed, and as many other words,
drawn at random, several times. Where the evidence is true, the label's score falls further without the matching words.
Scores are those before calibration, whose curves have steps. Cost: CPU time of predictions with and without evidence,
in turns, on one thread.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from xlgen_hf.data.rows import load_rows
from xlgen_hf.loading import load_predictor
from xlgen_hf.prediction.evidence import LabelEvidence
from xlgen_hf.prediction.predictor import Predictor
from xlgen_hf.ranking.words import words_of

KINDS = {"embedding": ("embedding",), "lexical": ("lexical",), "both": ("embedding", "lexical")}
DRAWS = 3  # of other words


def matched_words(evidence: LabelEvidence, kinds: Sequence[str], words: np.ndarray) -> np.ndarray:
    """Which words of a text lie in a span of the label's names, `(W,)`, bool."""
    matched = np.zeros(len(words), dtype=bool)
    for name in evidence.names:
        for begin, end in name.spans if name.by in kinds else ():
            matched |= (words[:, 0] < end) & (words[:, 1] > begin)
    return matched


def without(text: str, words: np.ndarray) -> str:
    """A text without some words."""
    for begin, end in words[::-1].tolist():
        text = text[:begin] + text[end:]
    return " ".join(text.split())


def scores_of(predictor: Predictor, texts: Sequence[str], labels: Sequence[int]) -> np.ndarray:
    """The score of one label of each text, 0 where it is not even ranked."""
    found = predictor.rank(texts, len(predictor.label_space), progress=True)
    hit = found.labels == np.asarray(labels)[found.text]
    scores = np.zeros(len(texts))
    scores[found.text[hit]] = found.scores[hit]
    return scores


def check_truth(predictor: Predictor, texts: Sequence[str], number: int) -> dict[str, dict[str, float]]:
    """For each kind of match: the fraction of texts whose score falls further, and how far it falls."""
    random = np.random.default_rng(0)
    predictions = predictor.predict(texts, evidence=True, progress=True)
    report = {}
    for kind, by in KINDS.items():
        variants: list[str] = []
        labels: list[int] = []
        removed = 0
        for text, prediction in zip(texts, predictions, strict=True):
            words = words_of(text)
            evidence = prediction.evidence[0] if prediction.evidence else None
            matched = np.zeros(len(words), bool) if evidence is None else matched_words(evidence, by, words)
            count, others = int(matched.sum()), np.flatnonzero(~matched)
            if evidence is None or not 0 < count <= len(others) or len(labels) >= number * (2 + DRAWS):
                continue
            drawn = [np.sort(random.choice(others, count, replace=False)) for _ in range(DRAWS)]
            variants += [text, without(text, words[matched]), *(without(text, words[one]) for one in drawn)]
            labels += [predictor.label_space.index[evidence.label]] * (2 + DRAWS)
            removed += count
        if not labels:  # an index without character n-grams
            continue
        scores = scores_of(predictor, variants, labels).reshape(-1, 2 + DRAWS)
        falls = scores[:, :1] - scores[:, 1:]
        report[kind] = {
            "texts": len(scores),
            "words_removed": removed / len(scores),
            "falls_further": float((falls[:, 0] > falls[:, 1:].mean(axis=1)).mean()),
            "mean_score": float(scores[:, 0].mean()),
            "mean_fall_matched": float(falls[:, 0].mean()),
            "mean_fall_others": float(falls[:, 1:].mean()),
        }
        print(kind, report[kind], flush=True)
    return report


def measure_cost(predictor: Predictor, texts: Sequence[str], rounds: int, size: int) -> dict[str, object]:
    """CPU seconds per text without and with evidence: pairs of one batch each, one way first and then the other."""
    batches = [texts[begin : begin + size] for begin in range(0, len(texts) - size + 1, size)]
    predictor.predict(batches[0], evidence=True)
    pairs = []
    for number, batch in enumerate(batches * rounds):
        seconds = {}
        for evidence in (False, True) if number % 2 else (True, False):
            started = time.process_time()
            predictor.predict(batch, evidence=evidence)
            seconds[evidence] = time.process_time() - started
        pairs.append((seconds[False], seconds[True]))
    plain, explained = np.array(pairs).T / size
    ratios = explained / plain - 1
    return {
        "pairs": len(pairs),
        "plain": float(np.median(plain)),
        "explained": float(np.median(explained)),
        "extra": float(np.median(ratios)),
        "extra_quartiles": np.quantile(ratios, [0.25, 0.75]).round(4).tolist(),
    }


def main() -> None:
    """Check and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--texts", required=True)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--number", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=64, help="texts of a prediction whose cost is measured")
    parser.add_argument("--cost-alone", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    predictor = load_predictor(arguments.model)
    texts = load_rows(arguments.texts, split="test", require_labels=False)["text"][:]
    report: dict[str, object] = {
        "cost": measure_cost(predictor, texts[: arguments.number], arguments.rounds, arguments.batch_size)
    }
    if not arguments.cost_alone:
        predictor.score_model = replace(predictor.score_model, calibrator=None)
        report["truth"] = check_truth(predictor, texts, arguments.number)
    arguments.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
