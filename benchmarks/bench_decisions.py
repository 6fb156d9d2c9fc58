"""What searches, decision rules and ensembles do to the scores of trained models.

    python benchmarks/bench_decisions.py MODEL [MODEL ...] --validation F --test F --cache D --json F

Every text is decoded once for each search; what was decoded stays in the cache folder. Calibration, thresholds and
cut-offs come from the validation rows of the same search. ECE: calibration error of the calibrated test candidates.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np

from xlgen_hf.data.rows import load_rows
from xlgen_hf.decoding.decoded_sets import DecodingOptions
from xlgen_hf.evaluation.scoring import score_ids
from xlgen_hf.files.json_lines import digest
from xlgen_hf.files.serialization import read_tensors, write_tensors
from xlgen_hf.loading import load_model
from xlgen_hf.prediction.generator import Generator
from xlgen_hf.prediction.predictor import Predictor
from xlgen_hf.processing_xlgen import XLGenProcessor
from xlgen_hf.ranking.decisions import DecisionRule, Objective
from xlgen_hf.ranking.fitting import fit_calibrator
from xlgen_hf.ranking.reliability import expected_calibration_error
from xlgen_hf.ranking.scored_labels import Combination, ScoredLabels, combine
from xlgen_hf.ranking.thresholds import tune_threshold, tuned_threshold

SEARCHES = {
    "greedy": DecodingOptions(num_beams=1, min_candidates=12),
    "5 beams": DecodingOptions(num_beams=5),
    "10 samples": DecodingOptions(num_samples=10),
}
CUTS = range(1, 11)
COLUMNS = ("micro_f1", "macro_f1", "0_shot_macro_f1", "1_shot_macro_f1")


def decode(name: str, search: str, rows: Any, cache: Path) -> ScoredLabels:
    """Uncalibrated candidates of texts, from the cache where they are there."""
    path = cache / f"{Path(name).name}-{search.replace(' ', '-')}-{digest(rows['text'])[:12]}.safetensors"
    if not path.exists():
        model, processor = load_model(name)
        predictor = Predictor(processor.label_space, Generator(model, processor))
        scored = predictor.rank(rows["text"][:], decoding=SEARCHES[search], progress=True)
        kept = {part: getattr(scored, part) for part in ("start", "labels", "scores")}
        write_tensors(path, {**kept, "chosen": scored.chosen.astype(np.uint8)})
    tensors = read_tensors(path)
    return ScoredLabels(**{**tensors, "chosen": tensors["chosen"].astype(bool)})


class Bench:
    """Scores of one label space, on validation and test rows.

    Args:
        processor: gives the label space.
        validation, test: the rows.
    """

    def __init__(self, processor: XLGenProcessor, validation: Any, test: Any) -> None:
        space = processor.label_space
        self.counts = space.counts
        self.references = [[space.encode_known(labels)[0] for labels in rows["labels"]] for rows in (validation, test)]
        self.unknown = sum(len(space.encode_known(labels)[1]) for labels in test["labels"])

    def scores(self, scored: ScoredLabels, part: int) -> dict[str, float]:
        """The metric on the chosen labels; `part` is 0 for validation, 1 for test."""
        sets = [labels for labels, _ in scored.sets()]
        return score_ids(sets, self.references[part], num_labels=len(self.counts), train_counts=self.counts, k=())

    def calibrated(self, validation: ScoredLabels, test: ScoredLabels) -> list[ScoredLabels]:
        """Both with the calibration that the validation rows give."""
        calibrator = fit_calibrator(validation, self.references[0], self.counts)
        return [calibrator.transform(part, self.counts) for part in (validation, test)]

    def rules(self, validation: ScoredLabels) -> Iterator[tuple[str, DecisionRule]]:
        """Each rule, with what validation rows say about it."""
        yield "own", DecisionRule()
        cut = max(CUTS, key=lambda k: self.scores(DecisionRule("top_k", k).apply(validation), 0)["micro_f1"])
        yield f"top {cut}", DecisionRule("top_k", cut)
        for objective in get_args(Objective):
            threshold = tune_threshold(validation, self.references[0], objective)[0]
            yield f"threshold for {objective} F1", tuned_threshold(threshold)
        yield "expected F1", DecisionRule("expected_f1")

    def table(self, who: str, validation: ScoredLabels, test: ScoredLabels) -> list[dict[str, Any]]:
        """Test scores of each rule."""
        error = expected_calibration_error(test.scores, test.correct(self.references[1]))
        rows = []
        for name, rule in self.rules(validation):
            found = self.scores(rule.apply(test), 1)
            rows.append({"who": who, "rule": name, **{key: found[key] for key in COLUMNS}, "ece": error})
            print(json.dumps(rows[-1]), flush=True)
        return rows


def run(
    models: Sequence[str], searches: Sequence[str], validation: Any, test: Any, cache: Path
) -> list[dict[str, Any]]:
    """All searches of all models alone, then together."""
    bench = Bench(XLGenProcessor.from_pretrained(models[0]), validation, test)
    if bench.unknown:
        print(f"{bench.unknown} reference labels are in no label space; they are left out.")
    members: dict[tuple[str, str], list[ScoredLabels]] = {}
    rows = []
    for name in models:
        for search in searches:
            raw = [decode(name, search, part, cache) for part in (validation, test)]
            members[name, search] = bench.calibrated(raw[0], raw[1])
            before = expected_calibration_error(raw[1].scores, raw[1].correct(bench.references[1]))
            rows += bench.table(f"{Path(name).name}, {search}", *members[name, search])
            rows[-1]["ece_before"] = before
    groups = {
        f"{Path(name).name}, all searches": [(name, s) for s in searches] for name in models if len(searches) > 1
    }
    groups |= {f"all models, {search}": [(name, search) for name in models] for search in searches if len(models) > 1}
    for who, keys in groups.items():
        for how in get_args(Combination):
            fused = [combine([members[key][part] for key in keys], how) for part in (0, 1)]
            rows += bench.table(f"{who}: {how}", *fused)
    return rows


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--validation", required=True)
    parser.add_argument("--test", required=True)
    parser.add_argument("--searches", nargs="+", choices=SEARCHES, default=list(SEARCHES))
    parser.add_argument("--number", type=int, help="rows of either part")
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--json", type=Path, required=True)
    args = parser.parse_args()
    args.cache.mkdir(parents=True, exist_ok=True)
    parts = [load_rows(args.validation, split="validation"), load_rows(args.test, split="test")]
    if args.number is not None:
        parts = [part.select(range(min(args.number, len(part)))) for part in parts]
    rows = run(args.models, args.searches, parts[0], parts[1], args.cache)
    args.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
