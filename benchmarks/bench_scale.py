"""Time and memory until the first training step: bench_scale.py [--rows 10000 100000 1000000 1800000] [--words 100].

The made-up rows of `bench_reading.py` (4.75 labels a row of 500,000 in a long tail), as JSON Lines. For each number of
rows a process of its own reads them, makes label space and model (`--variant base` on MiniLM), encodes what the first
batch needs, and trains one step: with `--streaming`, and up to `--most-eager` rows without. Prints JSON: CPU seconds
of each stage on one thread, and the peak of resident memory after it, in MB.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import tempfile
import time
from pathlib import Path

import torch
from bench_reading import write


def measure(path: Path, folder: Path, streaming: bool, queue: multiprocessing.Queue) -> None:
    """Put the stages of a training's start into the queue."""
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    from xlgen_hf import load_rows
    from xlgen_hf.training.arguments import XLGenTrainingArguments
    from xlgen_hf.training.build import prepare_model
    from xlgen_hf.training.lazy_rows import LazyRows
    from xlgen_hf.training.report import peak_memory
    from xlgen_hf.training.run import with_label_rows
    from xlgen_hf.training.settings import TrainingSettings
    from xlgen_hf.training.trainer import XLGenTrainer

    stages: dict[str, object] = {}
    before = 0.0

    def done(name: str) -> None:
        nonlocal before
        now = time.process_time()
        stages[name] = {"cpu_seconds": round(now - before, 1), "peak_mb": round(peak_memory() / 1e6)}
        before = now

    done("imports")
    rows = load_rows(path)
    done("rows")
    settings = TrainingSettings(variant="base", label_rows=0.3)
    model, processor = prepare_model(settings, rows, cache_dir=folder / "cache")
    done("label space and model")
    args = XLGenTrainingArguments(str(folder), use_cpu=True, disable_tqdm=True, max_steps=1, save_strategy="no")
    to_learn = with_label_rows(rows, processor.label_space, settings, 0)
    lazy = LazyRows(to_learn, processor) if streaming else to_learn
    trainer = XLGenTrainer(model, args, processing_class=processor, train_dataset=lazy)
    batch = next(iter(trainer.get_train_dataloader()))
    done("first batch")
    trainer.compute_loss(trainer.model, batch).backward()
    done("first step")
    stages["batch"] = list(batch["input_ids"].shape)
    sizes = {"number of rows": len(rows), "number of labels": len(processor.label_space)}
    queue.put({**sizes, "streaming": streaming, **stages})


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000, 1_800_000])
    parser.add_argument("--words", type=int, default=100)
    parser.add_argument("--most-eager", type=int, default=100_000)
    options = parser.parse_args()
    processes = multiprocessing.get_context("spawn")
    for count in options.rows:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "rows.jsonl"
            write(path, count, options.words)
            for streaming in (True, False)[: 2 if count <= options.most_eager else 1]:
                queue: multiprocessing.Queue = processes.Queue()
                process = processes.Process(target=measure, args=(path, Path(folder), streaming, queue))
                process.start()
                print(json.dumps(queue.get()), flush=True)
                process.join()


if __name__ == "__main__":
    main()
