"""Speed and memory of the metric xmc_f1: 10^3 to 10^6 documents and labels, and scikit-learn on the same matrices.

    python benchmarks/bench_metric.py --output benchmarks/metric.json --table benchmarks/METRIC.md

Each measurement runs in a process of its own, so that its peak memory is its own. Five true and five predicted labels
a document, drawn from a Zipf distribution (exponent 1); in half of the documents two of the predicted labels are true
ones, so that there are hits to score.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

SIZES = (1_000, 10_000, 100_000, 1_000_000)
LABELS_EACH = 5
COMPARED = (100_000, 20_000)  # documents and labels of the comparison with scikit-learn


def draw_rows(generator, documents, labels):
    """Ids of shape (documents, 5); a row's ids differ."""
    chances = np.cumsum(1.0 / np.arange(1, labels + 1))
    chances /= chances[-1]
    rows = np.minimum(np.searchsorted(chances, generator.random((documents, LABELS_EACH))), labels - 1)
    while True:
        ordered = np.sort(rows, axis=1)
        again = (np.diff(ordered, axis=1) == 0).any(axis=1)
        if not again.any():
            return generator.permuted(rows, axis=1)
        rows[again] = generator.integers(labels, size=(int(again.sum()), LABELS_EACH))


def draw(documents, labels):
    """Predictions and references, shape (documents, 5), and training counts, shape (labels,)."""
    generator = np.random.default_rng(0)
    references = draw_rows(generator, documents, labels)
    predictions = draw_rows(generator, documents, labels)
    hits = generator.random(documents) < 0.5
    mixed = np.concatenate([references[hits, :2], predictions[hits, :3]], axis=1)
    unique = (np.diff(np.sort(mixed, axis=1), axis=1) != 0).all(axis=1)
    predictions[np.flatnonzero(hits)[unique]] = mixed[unique]
    train = np.bincount(draw_rows(generator, documents, labels).ravel(), minlength=labels)
    return predictions, references, train


def peak():
    """Greatest memory of this process so far, in MB."""
    status = Path("/proc/self/status")
    if status.is_file():  # unlike getrusage, it does not count the process that started this one
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return round(int(line.split()[1]) / 1024)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def timed(function):
    start, cpu = time.perf_counter(), time.process_time()
    result = function()
    return result, {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu}


def measure_core(documents, labels):
    """All scores from label ids."""
    from xlgen_hf.evaluation.scoring import score_ids

    predictions, references, train = draw(documents, labels)
    bounds = np.arange(0, documents * LABELS_EACH + 1, LABELS_EACH)
    rows = (bounds, predictions.ravel()), (bounds, references.ravel())
    options = {"num_labels": labels, "train_counts": train, "num_train_documents": documents}
    score_ids([[0]], [[0]], num_labels=1)  # loads scipy
    before = peak()
    scores, times = timed(lambda: score_ids(*rows, **options))
    return {**times, "peak_mb": peak(), "data_mb": before, "micro_f1": scores["micro_f1"]}


def measure_evaluate(documents, labels):
    """`evaluate.load(...).compute` from lists of strings, with the share of its parts."""
    import evaluate

    predictions, references, train = draw(documents, labels)
    names = np.array([f"label number {i}" for i in range(labels)], dtype=object)
    rows = {"predictions": names[predictions].tolist(), "references": names[references].tolist()}
    counts = dict(zip(names.tolist(), train.tolist(), strict=True))
    with tempfile.TemporaryDirectory() as cache:
        metric = evaluate.load(str(ROOT / "evaluate_metrics" / "xmc_f1"), cache_dir=cache)
        metric.compute(predictions=[["a"]], references=[["a"]])
        before = peak()
        parts = {}

        def run():
            _, parts["add_batch"] = timed(lambda: metric.add_batch(**rows))
            return metric.compute(train_label_counts=counts, num_train_documents=documents)

        scores, times = timed(run)
    parts["compute"] = {name: times[name] - parts["add_batch"][name] for name in times}
    return {**times, "parts": parts, "peak_mb": peak(), "data_mb": before, "micro_f1": scores["micro_f1"]}


def measure_serialization(documents, labels):
    """The step from lists of strings to the arrow file and back, as `evaluate` does it and as the metric does it."""
    import datasets
    import evaluate

    predictions, references, _ = draw(documents, labels)
    names = np.array([f"label number {i}" for i in range(labels)], dtype=object)
    rows = {"predictions": names[predictions].tolist(), "references": names[references].tolist()}
    labels_type = datasets.List(datasets.Value("string"))

    class Plain(evaluate.Metric):
        def _info(self):
            return evaluate.MetricInfo(
                description="",
                citation="",
                inputs_description="",
                features=datasets.Features({"predictions": labels_type, "references": labels_type}),
            )

        def _compute(self, predictions, references):
            return {"rows": len(predictions)}

    results = {}
    with tempfile.TemporaryDirectory() as cache:
        plain = Plain(cache_dir=cache)
        _, results["plain_evaluate"] = timed(lambda: plain.compute(**rows))
        metric = evaluate.load(str(ROOT / "evaluate_metrics" / "xmc_f1"), cache_dir=cache)
        module = sys.modules[type(metric).__module__]
        module.score_labels = lambda predictions, references, **options: {"rows": len(predictions)}
        _, results["xmc_f1_with_checks"] = timed(lambda: metric.compute(**rows))
    return results


def measure_scikit_learn(documents, labels):
    """Best of five: scikit-learn's micro, macro and samples F1, and the same three and more from the core."""
    from scipy import sparse
    from sklearn.metrics import f1_score

    from xlgen_hf.evaluation.scoring import score_ids

    predictions, references, train = draw(documents, labels)
    bounds = np.arange(0, documents * LABELS_EACH + 1, LABELS_EACH)

    def indicator(rows):
        ones = np.ones(rows.size, dtype=np.int64)
        matrix = sparse.csr_matrix((ones, rows.ravel(), bounds), shape=(documents, labels))
        matrix.sort_indices()
        return matrix

    predicted, true = indicator(predictions), indicator(references)
    pairs = (predicted.indptr, predicted.indices), (true.indptr, true.indices)
    everything = {"train_counts": train, "num_train_documents": documents}
    runs = {
        "scikit_learn_three_f1": lambda: [
            f1_score(true, predicted, average=average, zero_division=0) for average in ("micro", "macro", "samples")
        ],
        "core_set_scores": lambda: score_ids(*pairs, num_labels=labels, k=()),
        "core_set_scores_from_matrices": lambda: score_ids(predicted, true, num_labels=labels, k=()),
        "core_with_ranking": lambda: score_ids(*pairs, num_labels=labels),
        "core_all_scores": lambda: score_ids(*pairs, num_labels=labels, **everything),
    }
    best = {}
    for _ in range(5):
        for name, run in runs.items():
            seconds = timed(run)[1]["seconds"]
            best[name] = min(seconds, best.get(name, seconds))
    theirs, scores = runs["scikit_learn_three_f1"](), runs["core_set_scores"]()
    assert np.allclose([theirs[0], theirs[2]], [scores["micro_f1"], scores["example_f1"]], rtol=0, atol=1e-12)
    reference = best["scikit_learn_three_f1"]
    return {"seconds": best, "times_faster": {name: reference / seconds for name, seconds in best.items()}}


MEASUREMENTS = {
    "core": measure_core,
    "evaluate": measure_evaluate,
    "serialization": measure_serialization,
    "scikit_learn": measure_scikit_learn,
}


def in_own_process(name, documents, labels):
    command = [sys.executable, __file__, "--measure", name, "--documents", str(documents), "--labels", str(labels)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    result = json.loads(answer.stdout.splitlines()[-1])
    print(f"{name} {documents:,} x {labels:,}: {json.dumps(result)}", file=sys.stderr, flush=True)
    return {"documents": documents, "labels": labels, **result}


def machine():
    import evaluate
    import scipy
    import sklearn

    return {
        "cores": os.cpu_count(),
        "load_average_at_start": os.getloadavg()[0],
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "scikit_learn": sklearn.__version__,
        "evaluate": evaluate.__version__,
    }


def as_seconds(value):
    return f"{value:.3f} s" if value < 10 else f"{value:.1f} s"


def size_rows(results):
    """A table row for each size: time of the core, and time and parts of evaluate from strings."""
    yield "| documents x labels | core | peak memory | `evaluate` from strings | of that `add_batch` | peak memory |"
    yield "|---|---|---|---|---|---|"
    for core, whole in zip(results["core"], results["evaluate"], strict=True):
        cells = (
            f"{core['documents']:,} x {core['labels']:,}",
            f"{as_seconds(core['seconds'])} ({as_seconds(core['cpu_seconds'])} CPU)",
            f"{core['peak_mb']:,} MB",
            f"{as_seconds(whole['seconds'])} ({as_seconds(whole['cpu_seconds'])} CPU)",
            as_seconds(whole["parts"]["add_batch"]["seconds"]),
            f"{whole['peak_mb']:,} MB",
        )
        yield f"| {' | '.join(cells)} |"


def markdown(results, command):
    compared, serialized = results["scikit_learn"], results["serialization"]
    names = {
        "scikit_learn_three_f1": "scikit-learn: `f1_score` with micro, macro and samples",
        "core_set_scores": "core: micro, macro and example precision, recall and F1 (`k=()`)",
        "core_set_scores_from_matrices": "the same, given scipy matrices",
        "core_with_ranking": "core: the ranking scores at 1, 3, 5 too",
        "core_all_scores": "core: everything, with buckets and propensities",
    }
    lines = [
        "# Speed and memory of the metric",
        "",
        f"Made with `{command}`;",
        "the numbers are in `metric.json` beside this file. The top of the script says what is drawn and measured.",
        "Memory is the peak of the process, the input included. Wall times depend on what else runs on the machine",
        f"(load average {results['machine']['load_average_at_start']:.1f} on {results['machine']['cores']} cores at"
        " the start), CPU times much less.",
        "",
        *size_rows(results),
        "",
        f"{compared['documents']:,} documents x {compared['labels']:,} labels, the same sparse indicator matrices,"
        " best of five runs that take turns in one process:",
        "",
        "| | time | times faster |",
        "|---|---|---|",
        *(
            f"| {shown} | {1000 * compared['seconds'][name]:.0f} ms | {compared['times_faster'][name]:.1f} |"
            for name, shown in names.items()
        ),
        "",
        f"From {serialized['documents']:,} rows of strings to the arrow file and back, without scoring: plain"
        f" `evaluate` {as_seconds(serialized['plain_evaluate']['cpu_seconds'])} CPU, this metric"
        f" {as_seconds(serialized['xmc_f1_with_checks']['cpu_seconds'])} CPU with every row checked. It leaves out the"
        " pass that encodes rows one by one (they were checked in bulk), writes fewer and larger record batches, and"
        " reads the columns back as arrow arrays instead of lists of Python strings.",
    ]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="JSON file to write")
    parser.add_argument("--table", type=Path, help="Markdown file to write")
    parser.add_argument("--largest", type=int, default=SIZES[-1], help="leave out larger sizes")
    parser.add_argument("--measure", choices=MEASUREMENTS, help=argparse.SUPPRESS)
    parser.add_argument("--documents", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--labels", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(MEASUREMENTS[arguments.measure](arguments.documents, arguments.labels)))
        return
    sizes = [size for size in SIZES if size <= arguments.largest]
    results = {
        "machine": machine(),
        "core": [in_own_process("core", size, size) for size in sizes],
        "evaluate": [in_own_process("evaluate", size, size) for size in sizes],
        "serialization": in_own_process("serialization", min(100_000, sizes[-1]), min(100_000, sizes[-1])),
        "scikit_learn": in_own_process("scikit_learn", *COMPARED),
    }
    write(results, arguments)


def write(results, arguments):
    text = json.dumps(results, indent=1) + "\n"
    if arguments.output:
        arguments.output.write_text(text, encoding="utf-8")
    else:
        print(text)
    if arguments.table:
        command = f"python benchmarks/bench_metric.py --output {arguments.output} --table {arguments.table}"
        arguments.table.write_text(markdown(results, command), encoding="utf-8")


if __name__ == "__main__":
    main()
