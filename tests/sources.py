"""Models and sources of candidates that tests share, made from the tiny rows: retrievers, label trees, hybrids."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from copies import made_once
from tiny import ROWS, VOCABULARY, make_clusters
from transformers import AutoTokenizer

from xlgen_hf.labels.space import LabelSpace
from xlgen_hf.modeling_xlgen import XLGenForConditionalGeneration
from xlgen_hf.prediction.predictor import Predictor
from xlgen_hf.processing_xlgen import XLGenProcessor
from xlgen_hf.ranking.label_trees import LabelTrees
from xlgen_hf.retrieval.candidate_inputs import CandidateInputs
from xlgen_hf.retrieval.retriever import LabelRetriever
from xlgen_hf.training.label_trees import fit_label_trees
from xlgen_hf.training.tuning import fuse_sources

TEXTS = ["a history of organ music", "printing", "modern piano", "", "church and art and the organ " * 4]
"""New texts, one of the training rows, an empty one and a long one."""

ROW_TEXTS = [str(row["text"]) for row in ROWS]


class Made(NamedTuple):
    """A model and its processor."""

    model: XLGenForConditionalGeneration
    processor: XLGenProcessor


def label_ids(space: LabelSpace) -> list[list[int]]:
    """Label ids of the rows."""
    return [space.encode(row["labels"]) for row in ROWS]


def large_space(size: int = 40) -> LabelSpace:
    """The labels of the rows, and names of two words that no row has: more than any search of one text holds."""
    words = ["music", "history", "art", "organ", "piano", "church", "modern", "printing"]
    names = [f"{one} {other}" for one in words for other in words if one != other]
    known = [row["labels"] for row in ROWS]
    names = [name for name in [*VOCABULARY, *names] if all(name not in labels for labels in known)]
    rows = LabelSpace.from_label_lists(known)
    return LabelSpace.from_label_lists(known, list(dict.fromkeys(names))[: size - len(rows)])


def make_untrained(checkpoint: str, variant: str, space: LabelSpace, **options) -> Made:
    """An untrained model of a variant without candidates, and its processor."""
    clusters = None if variant == "base" else make_clusters(space, encoder=checkpoint)
    processor = XLGenProcessor(AutoTokenizer.from_pretrained(checkpoint), space, clusters, 64, 64)
    torch.manual_seed(1)
    options = {"decoder_layers": 1, **options}
    return Made(
        XLGenForConditionalGeneration.from_backbone(checkpoint, processor, variant=variant, **options), processor
    )


def make_retriever(checkpoint: str, space: LabelSpace, **options) -> LabelRetriever:
    """An index of the rows, by an encoder that is not trained."""
    return made_once(_new_retriever, checkpoint, space, **options)


def _new_retriever(checkpoint: str, space: LabelSpace, **options) -> LabelRetriever:
    return LabelRetriever.fit(space, ROW_TEXTS, label_ids(space), checkpoint, **{"progress": False, **options})


def make_trees(space: LabelSpace) -> LabelTrees:
    """Label trees of the rows."""
    return fit_label_trees(space, ROW_TEXTS, label_ids(space), threads=1)


def make_rcl(checkpoint: str, space: LabelSpace, conditioning: str = "tokens", number: int = 3, **options) -> Made:
    """An untrained RCL, or another variant with candidates beside its clusters, and its processor.

    Args:
        checkpoint: folder of its backbone.
        space: its labels.
        conditioning: how candidates reach the decoder; of `bcl`, how clusters do.
        number: of candidates in its input.
        options: `variant`, `retriever` (by default one of the rows), `lengths` of inputs and targets, and settings.
    """
    if "retriever" in options:  # it stays the one that others may hold
        return _new_rcl(checkpoint, space, conditioning, number, **options)
    return made_once(_new_rcl, checkpoint, space, conditioning, number, **options)


def _new_rcl(
    checkpoint: str,
    space: LabelSpace,
    conditioning: str,
    number: int,
    *,
    variant: str = "rcl",
    retriever: LabelRetriever | None = None,
    lengths: tuple[int, int] = (64, 64),
    **options,
) -> Made:
    retriever = retriever or make_retriever(checkpoint, space, lexical=True)
    if variant == "bcl":  # it chooses how clusters are read; candidates beside them are tokens
        options, conditioning = {"conditioning": conditioning, **options}, "tokens"
    candidates = CandidateInputs.fit(
        retriever, ROW_TEXTS, num_input_candidates=number, conditioning=conditioning, progress=False
    )
    clusters = None if variant == "rcl" else make_clusters(space)
    processor = XLGenProcessor(AutoTokenizer.from_pretrained(checkpoint), space, clusters, *lengths, candidates)
    torch.manual_seed(1)
    options = {"decoder_layers": 1, "max_labels": 5, **options}
    return Made(
        XLGenForConditionalGeneration.from_backbone(checkpoint, processor, variant=variant, **options), processor
    )


def with_weights(made: Made, **weights) -> Made:
    """The same model, its retriever weighing as these fields of [`RetrievalSettings`] say."""
    finder = made.processor.candidates.retriever
    changed = finder.with_settings(replace(finder.settings, **weights))
    candidates = replace(made.processor.candidates, retriever=changed)
    old = made.processor
    lengths = (old.max_source_length, old.max_target_length)
    return Made(made.model, XLGenProcessor(old.tokenizer, old.label_space, None, *lengths, candidates))


def sharpened(made: Made) -> Made:
    """Random models are indifferent: larger output weights make their choices differ clearly."""
    with torch.no_grad():
        made.model.get_output_embeddings().weight.mul_(6)
    made.model.eval()
    return made


def fused(made: Made, trees: LabelTrees | None = None, *, retriever: LabelRetriever | None = None, number=4) -> Made:
    """A hybrid of the model, its own retriever or the given one, and label trees if there are some."""
    sources = {"retrieval": retriever or made.processor.retriever}
    sources |= {} if trees is None else {"label_trees": trees}
    ids = label_ids(made.processor.label_space)
    score_model = fuse_sources(Predictor.from_model(*made), sources, ROW_TEXTS, ids, candidates_per_source=number)
    return Made(made.model, made.processor.with_score_model(score_model))


def rows_of(scored) -> list[list[tuple[int, float]]]:
    """Label ids and scores of each text, best first."""
    pairs = list(zip(scored.labels.tolist(), scored.scores.tolist(), strict=True))
    bounds: Sequence[int] = scored.start.tolist()
    return [pairs[first:last] for first, last in itertools.pairwise(bounds)]
