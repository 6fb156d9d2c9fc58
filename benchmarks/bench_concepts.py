"""Which keys of a concept help retrieval: aliases, names in other languages, definitions (as names, or as documents).

    python benchmarks/bench_concepts.py --train F --validation F --vocabulary F --language de --encoder E

The encoder stays as it is. The first half of the validation rows chooses how similarities are weighed, the second half
scores. Embeddings are kept in --cache, so that a run that was stopped continues. With --parents a part of the scores
of broader concepts is added to those of labels; the first half chooses how much.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from xlgen_hf import Vocabulary, load_rows, read_vocabulary
from xlgen_hf.encoders.embedding import embed_texts, recipe_of
from xlgen_hf.encoders.loaded import load_encoder
from xlgen_hf.labels.space import LabelSpace
from xlgen_hf.ranking.scored_labels import ScoredLabels
from xlgen_hf.retrieval.index_parts import fingerprints_of, label_matrix
from xlgen_hf.retrieval.lexical import LexicalIndex
from xlgen_hf.retrieval.retriever import LabelRetriever, RetrievalSettings
from xlgen_hf.retrieval.tuning import tune_retriever

KEYS = ("aliases", "languages", "definitions", "documents")
PARENTS = (0.0, 0.05, 0.1, 0.2, 0.4)  # of the scores of broader concepts, that labels get
DEPTH = 50  # candidates of a text
CONDITIONS = ((), ("aliases",), ("languages",), ("aliases", "languages"), ("definitions",), ("documents",))


class Named(NamedTuple):
    """Texts of labels: their label ids, the texts, their embeddings."""

    labels: list[int]
    texts: list[str]
    vectors: np.ndarray


def keys_of(vocabulary: Vocabulary, space: LabelSpace) -> dict[str, list[tuple[int, str]]]:
    """The further texts of labels by kind: aliases in the labels' language, all names in others, definitions."""
    found: dict[str, list[tuple[int, str]]] = {kind: [] for kind in KEYS[:3]}
    for label, number in sorted(space.index.items(), key=lambda pair: pair[1]):
        concept = vocabulary.concepts[vocabulary.ids[label]]
        own = [name for name in dict.fromkeys(concept.aliases.get(vocabulary.language, ())) if name != label]
        foreign = [
            name for language, names in concept.aliases.items() for name in names if language != vocabulary.language
        ]
        known = {label, *own}
        others = [name for name in dict.fromkeys([*foreign, *concept.names.values()]) if name not in known]
        found["aliases"] += [(number, name) for name in own]
        found["languages"] += [(number, name) for name in others]
    found["definitions"] = vocabulary.further_names(space.index, names=False, other_languages=False, definitions=True)
    return found


class Experiment:
    """Rows and embeddings, and the retrievers that can be made of them."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.vocabulary = read_vocabulary(arguments.vocabulary, arguments.language)
        read = (load_rows(path, vocabulary=self.vocabulary) for path in (arguments.train, arguments.validation))
        self.train, self.validation = read
        self.space = LabelSpace.from_label_lists(self.train["labels"], list(self.vocabulary.labels.values()))
        self.recipe = recipe_of(arguments.encoder, arguments.query_prompt, arguments.passage_prompt)
        self.encoder = load_encoder(arguments.encoder, self.recipe)
        self.settings = RetrievalSettings(max_length=arguments.max_length)
        self.cache = arguments.cache
        self.documents = self.embed(self.train["text"][:])
        self.queries = self.embed(self.validation["text"][:], "query")
        self.names = self.embed(self.space.names)
        self.named = {}
        for kind, pairs in keys_of(self.vocabulary, self.space).items():
            if kind in arguments.keys or (kind == "definitions" and "documents" in arguments.keys):
                texts = [text for _, text in pairs]
                self.named[kind] = Named([label for label, _ in pairs], texts, self.embed(texts))
                print(f"{len(pairs)} {kind}", flush=True)

    def embed(self, texts: Sequence[str], side: str = "passage") -> np.ndarray:
        """Embeddings, which the cache keeps."""
        if not texts:
            return np.empty((0, self.names.shape[1]), np.float32)
        return embed_texts(
            texts, self.encoder, recipe=self.recipe, side=side, max_length=self.settings.max_length,
            cache_dir=self.cache,
        )  # fmt: skip

    def retriever(self, keys: Sequence[str]) -> LabelRetriever:
        """A retriever in which these keys count."""
        chosen = [self.named[kind] for kind in keys if kind != "documents"]
        labels = np.array([label for one in chosen for label in one.labels], dtype=np.int32)
        order = np.argsort(labels, kind="stable")
        further = [text for one in chosen for text in one.texts]
        vectors = np.concatenate(
            [self.names, np.concatenate([self.names[:0], *(one.vectors for one in chosen)])[order]]
        )
        texts, ids = self.train["text"][:], [self.space.encode(row) for row in self.train["labels"]]
        documents = self.documents
        if "documents" in keys:
            defined = self.named["definitions"]
            texts, ids = [*texts, *defined.texts], [*ids, *([label] for label in defined.labels)]
            documents = np.concatenate([documents, defined.vectors])
        lexical = LexicalIndex.fit(texts, [*self.space.names, *(further[place] for place in order)])
        matrix = label_matrix(ids, len(self.space))
        return LabelRetriever(
            self.encoder, documents, vectors, matrix, fingerprints_of(texts), self.settings, lexical, self.recipe,
            labels[order],
        )  # fmt: skip

    def scores(self, keys: Sequence[str], parents: Sequence[float] = PARENTS[:1]) -> dict[str, float]:
        """Weigh on the first half of the validation rows, score on the second."""
        half, made = len(self.validation) // 2, self.retriever(keys)
        made.embed = lambda texts, **_: self.queries[:half]  # they are known
        texts = self.validation["text"][:]
        references = [self.space.encode_known(labels)[0] for labels in self.validation["labels"]]
        tuned = tune_retriever(made, texts[:half], references[:half])
        scored = []
        for part in (slice(half), slice(half, None)):
            found = tuned.find(self.queries[part], DEPTH, texts=texts[part], settings=tuned.settings)
            scored.append(found.weigh(tuned.settings, tuned.labels, DEPTH))
        weights = {one: best_f1(self.with_parents(scored[0], one), references[:half]) for one in parents}
        weight = max(weights, key=weights.__getitem__)
        shown = {"weight of parents": weight, **{f"first half, {one}": f1 for one, f1 in weights.items()}}
        return {
            name: round(float(value), 4)
            for name, value in (
                *(shown.items() if len(parents) > 1 else ()),
                *self.measured(self.with_parents(scored[1], weight), references[half:]).items(),
            )
        }

    def with_parents(self, scored: ScoredLabels, weight: float) -> ScoredLabels:
        """The candidates with a part of the highest score among their broader concepts added to theirs."""
        if not weight:
            return scored
        known = self.vocabulary.broader_labels()
        broader = [[self.space.index[one] for one in known.get(name, ())] for name in self.space.names]
        rows = []
        for begin, end in pairwise(scored.start.tolist()):
            labels, scores = scored.labels[begin:end].tolist(), scored.scores[begin:end].tolist()
            of = dict(zip(labels, scores, strict=True))
            more = [max((of.get(one, 0.0) for one in broader[label]), default=0.0) for label in labels]
            added = (np.array(scores) + weight * np.array(more)) / (1 + weight)
            rows.append((labels, added, np.zeros(len(labels), bool)))
        return ScoredLabels.from_rows(rows)

    def measured(self, scored: ScoredLabels, true: Sequence[Sequence[int]]) -> dict[str, float]:
        """Recall, the best F1 of all cuts, and recall of rare labels."""
        correct, rank, total = scored.correct(true), scored.rank, sum(map(len, true))
        shown = {f"recall@{k}": correct[rank < k].sum() / total for k in (5, 20, 50)}
        shown["best micro F1"] = best_f1(scored, true)
        for name, low, high in (("0-shot", 0, 0), ("1-4-shot", 1, 4)):
            rare = [[label for label in row if low <= self.space.counts[label] <= high] for row in true]
            number = sum(map(len, rare))
            shown[f"{name} recall@20"] = scored.correct(rare)[rank < 20].sum() / max(number, 1)
            shown[f"{name} occurrences"] = number
        return shown


def best_f1(scored: ScoredLabels, true: Sequence[Sequence[int]]) -> float:
    """Micro F1 of the best number of labels, the same for all texts."""
    correct, rank, total = scored.correct(true), scored.rank, sum(map(len, true))
    return max(float(2 * correct[rank < k].sum() / ((rank < k).sum() + total)) for k in range(1, 11))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Rows, vocabulary and encoder."""
    for name in ("train", "validation", "vocabulary", "language", "encoder"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--query-prompt")
    parser.add_argument("--passage-prompt")
    parser.add_argument("--max-length", type=int, default=64)
    parser.add_argument("--cache", type=Path, default=Path("bench-concepts-cache"))


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--keys", nargs="*", default=list(KEYS), choices=KEYS)
    parser.add_argument("--parents", action="store_true", help="try parts of the scores of broader concepts")
    parser.add_argument("--all-keys", action="store_true", help="only all --keys together")
    arguments = parser.parse_args()
    experiment = Experiment(arguments)
    parents = PARENTS if arguments.parents else PARENTS[:1]
    for keys in [arguments.keys] if arguments.all_keys else CONDITIONS:
        if set(keys) <= set(arguments.keys):
            print(json.dumps({"keys": keys, **experiment.scores(keys, parents)}), flush=True)


if __name__ == "__main__":
    main()
