"""Speed of constrained decoding: python benchmarks/bench_decoding.py (constraint|shares|trie) [options].

Every figure is a ratio, or a fraction, of CPU seconds on one thread, measured in one run, so that other work on the
machine and its speed cancel out. `--json F` adds the figures to a file.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from transformers import LogitsProcessorList, T5Config, T5ForConditionalGeneration

from xlgen_hf.data.rows import load_rows
from xlgen_hf.decoding.constraints import LabelSetConstraint
from xlgen_hf.decoding.decoded_sets import DecodingOptions
from xlgen_hf.decoding.logits_process import LabelSetLogitsProcessor
from xlgen_hf.labels.trie import LabelTrie
from xlgen_hf.modeling_xlgen import XLGenForConditionalGeneration
from xlgen_hf.processing_xlgen import XLGenProcessor

_SEPARATOR, _END, _SUBWORDS = 32_100, 1, 32_000


def synthetic_labels(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and lengths of `count` different labels: one to five tokens, frequent ones more often, and a number."""
    random = np.random.default_rng(seed)
    words = random.integers(1, 6, count)
    lengths = words + 3
    start = np.cumsum(lengths) - lengths
    tokens = np.zeros(lengths.sum(), dtype=np.int32)
    is_word = np.ones(len(tokens), dtype=bool)
    for offset, value in enumerate((np.arange(count) % 1000, np.arange(count) // 1000, _SEPARATOR)):
        tokens[start + words + offset] = value if np.isscalar(value) else value + 10
        is_word[start + words + offset] = False
    tokens[is_word] = 10 + random.zipf(1.3, int(words.sum())) % _SUBWORDS
    return tokens, lengths


def cpu_seconds(run: Callable[[], Any]) -> float:
    """CPU seconds of a call."""
    start = time.process_time()
    run()
    return time.process_time() - start


def ratio_of_rounds(one: Callable[[], Any], other: Callable[[], Any], rounds: int) -> float:
    """Median, over rounds, of the time of `one` in that of `other`, the two in turns."""
    one(), other()
    return float(np.median([cpu_seconds(one) / cpu_seconds(other) for _ in range(rounds)]))


def bench_trie(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Build, save and load tries."""
    rows = []
    for count in args.labels:
        tokens, lengths = synthetic_labels(count)
        start = time.process_time()
        trie = LabelTrie.from_flat(tokens, lengths)
        built = time.process_time() - start
        with TemporaryDirectory() as folder:
            trie.save(folder)
            start = time.process_time()
            LabelTrie.load(folder, num_tokens=_SEPARATOR + 1)
            loaded = time.process_time() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        row = {"labels": count, "nodes": trie.num_nodes, "build_s": built, "load_s": loaded, "MB": trie.nbytes / 1e6}
        rows.append({**row, "process_peak_GB": peak})
        print(rows[-1], flush=True)
    return rows


def bench_constraint(args: argparse.Namespace) -> list[dict[str, Any]]:
    """The constraint in `generate` of transformers: a T5 of the size of t5-small, 16 texts, 4 beams."""
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=32_128, d_model=512, d_kv=64, d_ff=2048, num_layers=6, num_heads=8, decoder_start_token_id=0
    )
    model = T5ForConditionalGeneration(config).eval()
    inputs = {"input_ids": torch.randint(10, _SUBWORDS, (16, 32)), "attention_mask": torch.ones(16, 32).long()}

    def generate(trie: LabelTrie | None) -> None:
        processors = LogitsProcessorList()
        if trie is not None:  # so many labels that both run for all steps
            processors.append(LabelSetLogitsProcessor(trie, _END, min_labels=99, max_labels=99, num_beams=4))
        with torch.no_grad():
            model.generate(
                **inputs, logits_processor=processors, num_beams=4, do_sample=False, min_new_tokens=args.steps,
                max_new_tokens=args.steps,
            )  # fmt: skip

    rows = []
    for count in args.labels:
        trie = LabelTrie.from_flat(*synthetic_labels(count))
        ratio = ratio_of_rounds(lambda trie=trie: generate(trie), lambda: generate(None), args.rounds)
        rows.append({"labels": count, "constrained_in_unconstrained": ratio})
        print(rows[-1], flush=True)
    return rows


def _load(args: argparse.Namespace) -> tuple[XLGenForConditionalGeneration, XLGenProcessor, list[str]]:
    model = XLGenForConditionalGeneration.from_pretrained(args.model).eval()
    return (
        model,
        XLGenProcessor.from_pretrained(args.model),
        load_rows(args.texts, split="test")["text"][: args.number],
    )


class _Clock:
    """CPU seconds that parts of a model take, without those of parts inside them."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._open: list[list[Any]] = []

    def wrap(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            self._open.append([time.process_time(), 0.0])
            try:
                return call(*args, **kwargs)
            finally:
                start, inside = self._open.pop()
                spent = time.process_time() - start
                self.seconds[name] = self.seconds.get(name, 0.0) + spent - inside
                if self._open:
                    self._open[-1][1] += spent

        return timed


def bench_shares(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Documents per CPU second of `predict`, and who spends the time."""
    model, processor, texts = _load(args)
    model.predict(texts[:64], processor)
    rows = []
    for beams in (1, 5):
        clock = _Clock()
        parts = [
            (model.get_encoder(), "forward", "encoder"),
            (model.get_decoder(), "forward", "decoder"),
            (model.get_output_embeddings(), "forward", "output layer"),
            *((LabelSetConstraint, name, "constraint") for name in ("best_children", "may_end", "advance")),
        ]
        before = [(owner, name, owner.__dict__.get(name)) for owner, name, _ in parts]
        for owner, name, part in parts:
            setattr(owner, name, clock.wrap(part, getattr(owner, name)))
        decoding = DecodingOptions(num_beams=beams)
        total = cpu_seconds(lambda decoding=decoding: model.predict(texts, processor, decoding=decoding))
        for owner, name, original in before:
            delattr(owner, name) if original is None else setattr(owner, name, original)
        row: dict[str, Any] = {"beams": beams, "texts": len(texts), "texts_per_cpu_second": len(texts) / total}
        row |= {part: seconds / total for part, seconds in clock.seconds.items()}
        rows.append({**row, "rest": 1 - sum(clock.seconds.values()) / total})
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Run one benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    benches = {"trie": bench_trie, "constraint": bench_constraint, "shares": bench_shares}
    parser.add_argument("bench", choices=benches)
    parser.add_argument("--labels", type=int, nargs="+", default=[1000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", help="folder of a trained model")
    parser.add_argument("--texts", help="rows to predict")
    parser.add_argument("--number", type=int, default=512)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    found = benches[args.bench](args)
    if args.json is not None:
        known = json.loads(args.json.read_text(encoding="utf-8")) if args.json.exists() else {}
        args.json.write_text(json.dumps({**known, args.bench: found}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
