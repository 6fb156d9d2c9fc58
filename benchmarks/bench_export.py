"""What `xlgen export` gains and costs: time on one thread, and F1, beside the model and torch's own int8.

    python benchmarks/bench_export.py MODEL TEST_ROWS [--rounds 5] [--texts 256] [--singles 32] [--folder EXPORTED]

Exports MODEL in both precisions into EXPORTED, predicts the rows with each and prints a table in Markdown. In every
round each system predicts the same texts, one after the other, so that a machine that other work slows down slows all
of them; factors are medians over the rounds of the model's time by the system's, with their range.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from xlgen_hf import load_predictor, load_rows
from xlgen_hf.evaluation.scoring import score_labels
from xlgen_hf.exporting import export_folder
from xlgen_hf.prediction.encoding import ModelSource
from xlgen_hf.prediction.predictor import Predictor
from xlgen_hf.retrieval.retriever import LabelRetriever

_BATCH = 64


def torch_int8(name: str) -> Predictor:
    """The model with torch's dynamic quantization (deprecated in torch 2.10) of all linear layers but the output's."""
    predictor = load_predictor(name)
    source = predictor.source
    parts: list[nn.Module] = []
    if isinstance(source, ModelSource):
        parts.append(source.model.backbone)
        retriever = source.processor.retriever
    else:
        retriever = source if isinstance(source, LabelRetriever) else None
    parts += [] if retriever is None else [retriever.encoder[0]]
    for part in parts:
        output = part.get_output_embeddings() if part.config.is_encoder_decoder else None
        names = {name for name, one in part.named_modules() if isinstance(one, nn.Linear) and one is not output}
        torch.ao.quantization.quantize_dynamic(part, names, dtype=torch.qint8, inplace=True)
    return predictor


def seconds(predict: Callable[[], object]) -> float:
    start = time.perf_counter()
    predict()
    return time.perf_counter() - start


def factor(times: list[float], base: list[float], texts: int) -> str:
    """Milliseconds per text, the fastest round, and how many times faster than the model."""
    ratios = sorted(other / own for own, other in zip(times, base, strict=True))
    milliseconds = f"{1000 * min(times) / texts:.1f}"
    return f"{milliseconds} | {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("rows")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--texts", type=int, default=256, help="texts in batches, in each round")
    parser.add_argument("--singles", type=int, default=32, help="texts that are predicted alone, in each round")
    parser.add_argument("--folder", type=Path, help="where exported models are kept; a temporary folder by default")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows = load_rows(options.rows, split="test")
    texts, references = rows["text"][:], rows["labels"][:]
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        for precision in ("float32", "int8"):
            if not (folder / precision).exists():
                export_folder(options.model, folder / precision, precision)
        systems = {
            "torch, float32": load_predictor(options.model),
            "torch, int8 (`torch.ao`)": torch_int8(options.model),
            "`xlgen export --precision float32`": load_predictor(str(folder / "float32")),
            "`xlgen export --precision int8`": load_predictor(str(folder / "int8")),
        }
        measure(systems, texts, references, options)


def measure(
    systems: dict[str, Predictor], texts: list[str], references: list[list[str]], options: argparse.Namespace
) -> None:
    scores, sets = {}, {}
    for name, predictor in systems.items():
        sets[name] = [one.labels for one in predictor.predict(texts, batch_size=_BATCH)]
        scores[name] = score_labels(sets[name], references)
    together: dict[str, list[float]] = {name: [] for name in systems}
    alone: dict[str, list[float]] = {name: [] for name in systems}
    for _ in range(options.rounds):
        for name, predictor in systems.items():
            together[name].append(
                seconds(lambda one=predictor: one.predict(texts[: options.texts], batch_size=_BATCH))
            )
            alone[name].append(
                seconds(lambda one=predictor: [one.predict([text]) for text in texts[: options.singles]])
            )
    first = next(iter(systems))
    print("| | micro F1 | macro F1 | same sets | ms per text, alone | faster | ms per text, batches of 64 | faster |")
    print("|---|---|---|---|---|---|---|---|")
    for name in systems:
        same = sum(set(one) == set(other) for one, other in zip(sets[name], sets[first], strict=True)) / len(texts)
        times = (factor(alone[name], alone[first], min(options.singles, len(texts))),
                 factor(together[name], together[first], min(options.texts, len(texts))))  # fmt: skip
        print(
            f"| {name} | {scores[name]['micro_f1']:.4f} | {scores[name]['macro_f1']:.4f} | {same:.1%} | "
            f"{' | '.join(times)} |"
        )
    print(json.dumps({"alone": alone, "together": together}))


if __name__ == "__main__":
    main()
