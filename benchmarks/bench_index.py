"""Search of an index beside the plain way: bench_index.py [--labels 100000] [--documents 100000] [--json F].

The plain way is the whole matrix of similarities in 32 bits, and its greatest columns by a partition of each row.
Both search the same made-up index (embeddings in clusters, or like those of a model folder with `--like`, each with a
little noise; words of the bundled sample for spelling), in turns, in one process; what the encoder does is no part of
it. Then each loads and searches in a process of its own, for its memory. Prints JSON: CPU milliseconds a text (least,
median, greatest round), ratios of the rounds, how many texts have other labels, and resident memory, of which pages of
the mapped file can be taken back. With `--approximate` exact search takes the place of the plain way, and approximate
search that of exact search; prints as well how long its lists took, and which fraction of the labels are the same.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix

from xlgen_hf.data.rows import load_rows
from xlgen_hf.files.serialization import map_tensors, write_tensors
from xlgen_hf.quickstart import SAMPLE
from xlgen_hf.retrieval.approximate import make_approximate
from xlgen_hf.retrieval.lexical import LexicalIndex
from xlgen_hf.retrieval.near_lists import NearLists
from xlgen_hf.retrieval.retriever import LabelRetriever
from xlgen_hf.retrieval.weighing import RetrievalSettings, RetrievedCandidates

_WIDTH = 384
_DEPTH = 50


# ------------------------------------------------------------------------------------------------ the index


def vectors_like(real: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    """Mixtures of real vectors: one of them, part of another, and noise."""
    found = np.empty((count, real.shape[1]), dtype=np.float16)
    for first in range(0, count, 10_000):
        size = min(10_000, count - first)
        one, other = (real[random.integers(0, len(real), size)].astype(np.float32) for _ in range(2))
        mixed = one + 0.5 * random.random((size, 1)) * other
        mixed += random.normal(0, 0.3 / real.shape[1] ** 0.5, mixed.shape)
        found[first : first + size] = mixed / np.linalg.norm(mixed, axis=1, keepdims=True)
    return found


def real_vectors(place: Path) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings of texts and of names: of the folder of an index, or of a file of numpy (`documents`, `names`)."""
    if place.is_dir():
        stored = map_tensors(place / "retriever" / "retriever.safetensors")[0]
    else:
        stored = np.load(place)
    return stored["documents"], stored["names"]


def made_up_texts(count: int, words: tuple[int, int], random: np.random.Generator) -> list[str]:
    """Texts of the words of the bundled sample's titles, as frequent as they are there."""
    vocabulary = np.array(
        [word for row in load_rows(SAMPLE, split="train", suspicions=False) for word in row["text"].split()]
    )
    lengths = random.integers(*words, count)
    picked = vocabulary[random.integers(0, len(vocabulary), int(lengths.sum()))]
    return [" ".join(part) for part in np.split(picked, np.cumsum(lengths)[:-1])]


def make_index(folder: Path, options: argparse.Namespace) -> None:
    random = np.random.default_rng(0)
    if options.like:
        of_texts, of_names = real_vectors(options.like)
        real = np.concatenate([of_texts, of_names])
    else:
        real = random.normal(size=(2_000, _WIDTH)).astype(np.float32)
        real /= np.linalg.norm(real, axis=1, keepdims=True)
    lengths = 1 + random.poisson(3.0, options.documents)
    tensors = {
        "documents": vectors_like(real, options.documents, random),
        "names": vectors_like(real, options.labels, random),
        "label_start": np.concatenate([[0], np.cumsum(lengths)]),
        "label_ids": (random.random(int(lengths.sum())) ** 3 * options.labels).astype(np.int32),
        "queries": vectors_like(real, options.texts, random),
    }
    texts = made_up_texts(options.texts, (6, 14), random) if options.spelling else []
    if options.spelling:
        names = made_up_texts(options.labels, (1, 4), random)
        tensors |= LexicalIndex.fit(made_up_texts(options.documents, (6, 14), random), names).tensors()
    write_tensors(folder / "index.safetensors", tensors)
    (folder / "texts.json").write_text(json.dumps(texts), encoding="utf-8")


# ------------------------------------------------------------------------------------------------ the two ways


class Ours:
    """The search of the package, over mapped tensors."""

    def __init__(self, folder: Path, settings: RetrievalSettings) -> None:
        tensors = map_tensors(folder / "index.safetensors")[0]
        number, width = len(tensors["documents"]), len(tensors["names"])
        ids, start = tensors["label_ids"], tensors["label_start"]
        labels = csr_matrix((np.ones(len(ids), np.float32), ids, start), shape=(number, width))
        lexical = LexicalIndex.from_tensors(tensors, number, width)
        self.queries = tensors["queries"].astype(np.float32)
        self.texts = json.loads((folder / "texts.json").read_text()) or None
        parts = (tensors["documents"], tensors["names"], labels, np.arange(number))
        self.index = LabelRetriever(None, *parts, settings, lexical)

    def rank(self, queries: np.ndarray, texts: list[str] | None):
        found = self.index.find(queries, _DEPTH, texts=texts, settings=self.index.settings)
        return found.weigh(self.index.settings, self.index.labels, _DEPTH)


class Plain(Ours):
    """The plain way: all in 32 bits, every similarity, the greatest columns of the whole matrix."""

    def __init__(self, folder: Path, settings: RetrievalSettings) -> None:
        super().__init__(folder, settings)
        index = self.index
        self.documents, self.names = (values.astype(np.float32) for values in (index.documents, index.names))
        self.spelled = None
        if index.lexical is not None:
            both = [index.lexical.documents.matrix(), index.lexical.names.matrix()]
            self.spelled = [*both, *(one.T.tocsr() for one in both)]
            self.spelled.append(self.spelled[3].power(2))

    def rank(self, queries: np.ndarray, texts: list[str] | None):
        step = max(1, 20_000_000 // (len(self.documents) + len(self.names)))
        starts = range(0, len(queries), step)
        blocks = [self._block(queries[i : i + step], texts and texts[i : i + step]) for i in starts]
        return RetrievedCandidates.joined(blocks).weigh(self.index.settings, self.index.labels, _DEPTH)

    def _block(self, queries: np.ndarray, texts: list[str] | None) -> RetrievedCandidates:
        settings, labels, count = self.index.settings, self.index.labels, len(self.names)
        near = [best_columns(queries @ self.documents.T, settings.neighbors)]
        of_names = [(queries @ self.names.T).clip(0, 1)]
        if texts is not None and self.spelled is not None:
            _, _, of_documents, by_run, shares = self.spelled
            spelled = self.index.lexical.encode(texts)
            cosine = (spelled @ of_documents).toarray().clip(0, 1)
            near.append(best_columns(np.where(cosine > 0, cosine, -np.inf), settings.neighbors))
            held = spelled.copy()
            held.data = np.ones_like(held.data)
            of_names.append((spelled @ by_run).multiply(held @ shares).toarray().clip(0, 1))
        row = np.arange(len(queries))
        nearest = best_columns(settings.weigh_names(of_names), _DEPTH)[0]
        keys = [np.repeat(row, _DEPTH) * count + nearest.reshape(-1)]
        for documents, _ in near:
            of_near = labels[documents.reshape(-1)]
            owner = np.repeat(np.repeat(row, documents.shape[1]), np.diff(of_near.indptr))
            keys.append(owner * count + of_near.indices)
        text, found = np.divmod(np.unique(np.concatenate(keys)), count)
        return RetrievedCandidates(text, found, [one[text, found] for one in of_names], near)


class Lists(Ours):
    """Approximate search, with lists that lie next to the index."""

    def __init__(self, folder: Path, settings: RetrievalSettings) -> None:
        super().__init__(folder, settings)
        place = folder / "lists.safetensors"
        if not place.exists():
            started = time.process_time()
            lists = make_approximate(self.index, fewest=1000).lists
            facts = {name: one.facts for name, one in lists.items()}
            write_tensors(
                place, {part: array for name, one in lists.items() for part, array in one.tensors(name).items()}
            )
            (folder / "lists.json").write_text(json.dumps([facts, time.process_time() - started]), encoding="utf-8")
        tensors = {**map_tensors(place)[0], "documents": self.index.documents, "names": self.index.names}
        facts, self.seconds = json.loads((folder / "lists.json").read_text())
        self.index = self.index.with_lists(
            {name: NearLists.from_tensors(tensors, name, one) for name, one in facts.items()}
        )


WAYS = {"plain": Plain, "ours": Ours, "exact": Ours, "approximate": Lists}


def best_columns(values: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The greatest columns of each row, of equal ones the first, by a partition of the whole matrix."""
    least = -np.partition(-values, size - 1, axis=1)[:, size - 1, None]
    chosen = values >= least
    if chosen.sum() > size * len(values):
        equal = values == least
        room = size - (chosen & ~equal).sum(axis=1, keepdims=True)
        chosen &= ~equal | (np.cumsum(equal, axis=1, dtype=np.int32) <= room)
    columns = chosen.nonzero()[1].reshape(len(values), size)
    found = np.take_along_axis(values, columns, axis=1)
    order = np.lexsort((columns, -found), axis=1)
    return np.take_along_axis(columns, order, axis=1), np.take_along_axis(found, order, axis=1)


# ------------------------------------------------------------------------------------------------ measuring


def differing(one, other) -> int:
    """Texts whose labels are not the same, but for the order of scores that differ by less than 1e-4."""
    number = 0
    for first, last in zip(one.start[:-1], one.start[1:], strict=True):
        part = slice(first, last)
        apart = set(one.labels[part]) ^ set(other.labels[part])
        close = np.abs(one.scores[part] - other.scores[part]).max(initial=0) < 1e-4
        of_apart = [score for label, score in zip(one.labels[part], one.scores[part], strict=True) if label in apart]
        number += not close or any(score - one.scores[last - 1] > 1e-4 for score in of_apart)
    return number


def resident(folder: Path, way: str, settings: RetrievalSettings, queue: multiprocessing.Queue) -> None:
    """Memory of a process that loads and searches."""

    def now() -> dict[str, int]:
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return {name: int(status[name].split()[0]) // 1000 for name in ("RssAnon", "RssFile", "VmHWM")}

    before = now()
    made = WAYS[way](folder, settings)
    made.rank(made.queries[:64], made.texts and made.texts[:64])
    queue.put({name: value - before[name] for name, value in now().items()})


def measure(folder: Path, options: argparse.Namespace) -> dict:
    settings = RetrievalSettings()
    first, second = options.ways
    ways = {name: WAYS[name](folder, settings) for name in options.ways}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    alone: dict[str, list[float]] = {name: [] for name in ways}
    found = {}
    queries, texts = ways[second].queries, ways[second].texts
    for number in range(options.rounds + 1):
        for name, way in ways.items():
            start = time.process_time()
            found[name] = way.rank(queries, texts)
            middle = time.process_time()
            for place in range(5):
                way.rank(queries[place : place + 1], texts and texts[place : place + 1])
            if number:  # the first round makes what is made once
                seconds[name].append((middle - start) / len(queries) * 1000)
                alone[name].append((time.process_time() - middle) / 5 * 1000)
    report = {"labels": options.labels, "documents": options.documents, "texts": len(queries)}
    for kind, times in (("batch", seconds), ("one_text", alone)):
        ratios = [one / other for one, other in zip(times[first], times[second], strict=True)]
        report[f"{kind}_ms"] = {name: spread(values) for name, values in times.items()}
        report[f"{kind}_ratio"] = spread(ratios)
    report["texts_that_differ"] = differing(found[first], found[second])
    if isinstance(made := ways[second], Lists):
        one, other = (np.split(found[name].labels, found[name].start[1:-1]) for name in options.ways)
        report["same_labels"] = float(np.mean([np.isin(*pair).mean() for pair in zip(one, other, strict=True)]))
        report["lists"] = {
            name: {**lists.facts, "of": len(lists.centroids)} for name, lists in made.index.lists.items()
        }
        report["cpu_seconds_to_make"] = round(made.seconds, 1)
    return report


def spread(values: list[float]) -> list[float]:
    return [round(value, 2) for value in (min(values), statistics.median(values), max(values))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=int, default=100_000)
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--texts", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--spelling", action="store_true", help="index character n-grams, too")
    parser.add_argument("--like", type=Path, help="a folder that `xlgen index` wrote, for its embeddings")
    parser.add_argument("--approximate", action="store_true", help="compare approximate with exact search")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    options.ways = ("exact", "approximate") if options.approximate else ("plain", "ours")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        make_index(folder, options)
        report = measure(folder, options)
        spawn = multiprocessing.get_context("spawn")
        for way in options.ways:
            queue = spawn.Queue()
            process = spawn.Process(target=resident, args=(folder, way, RetrievalSettings(), queue))
            process.start()
            report[f"{way}_memory_mb"] = queue.get()
            process.join()
    print(json.dumps(report, indent=1))
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
