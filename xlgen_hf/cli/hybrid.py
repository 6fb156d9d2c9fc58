"""`xlgen hybrid`: fuse the scores of a trained model, of retrieval and of label trees."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..data.blocks import each_value
from ..data.options import RowOptions
from ..settings import PredictsWith
from .options import CpuThreads, Overwrite, given_settings, limit_threads
from .rows import takes_row_options

if TYPE_CHECKING:
    from ..labels.space import LabelSpace
    from ..ranking.sources import SavedSource
    from ..training.hybrids import HybridBase
    from ..training.label_trees import TreeKind

__all__ = ["hybrid"]

logger = logging.getLogger(__name__)

_SHOWN = {"retrieval": "a retriever", "label_trees": "label trees"}


@takes_row_options(leave_out=("id_column", "keep_columns"))
def hybrid(
    context: typer.Context,
    model: Annotated[
        str, typer.Option(help="Folder of a trained model, an adapter, or an index, or its id on the Hub.")
    ],
    validation_file: Annotated[str, typer.Option(help="Rows that the weights are learned on; none of the training.")],
    output_dir: Annotated[Path, typer.Option(help="Folder for model, sources and weights.")],
    retriever: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder that `xlgen index` wrote, a retriever or label trees; may be given for each.",
            show_default="the model's own retriever (rcl)",
        ),
    ] = None,
    linear: Annotated[
        Literal["bonsai", "parabel"] | None,
        typer.Option(help="Label trees as a further source (extra baselines), made here from --train-file."),
    ] = None,
    train_file: Annotated[str | None, typer.Option(help="The training rows of model or index; for --linear.")] = None,
    candidates_per_source: Annotated[
        int | None,
        typer.Option(
            min=1, max=1000, help="Labels of a text that each source contributes.", show_default="20; 50 of an index"
        ),
    ] = None,
    predict_with: Annotated[
        PredictsWith | None,
        typer.Option(
            help="What of the model is fused: its generator, or its candidate head (rcl), which needs no decoder and"
            " is many times faster.",
            show_default="what the model predicts with",
        ),
    ] = None,
    candidate_scores: Annotated[
        Literal["all", "teacher_forced", "candidate_head"],
        typer.Option(
            help="How a generator scores what the other sources find: by teacher forcing, by its candidate head (no"
            " further work), or both where it has a head."
        ),
    ] = "all",
    cpu_threads: CpuThreads = None,
    overwrite: Overwrite = False,
    *,
    rows: RowOptions,
) -> None:
    """Write a folder that predicts, and is pushed, as any other; its scores are fused ones.

    A model is fused with an index, with label trees, or both. An index is fused with label trees alone: no network
    is trained.
    """
    from ..data.rows import load_rows
    from ..files.outputs import claim_folder, refuse_source
    from ..hub.local_cards import write_local_card
    from ..training.hybrids import load_base, write_hybrid
    from .console import print_written

    limit_threads(cpu_threads)
    for source in (model, *map(str, retriever or [])):
        refuse_source(output_dir, source)
    with claim_folder(output_dir, command="xlgen hybrid", settings=given_settings(context), overwrite=overwrite):
        base = load_base(model, predict_with, candidate_scores)
        sources = _given_sources(base, retriever or [], makes_trees=linear is not None)
        if rows.vocabulary is None and rows.label_names is None:
            rows = rows.changed(vocabulary=base.vocabulary)  # rows may name its concepts in any way
        validation = load_rows(validation_file, rows, split="validation")
        sources |= _label_trees(linear, train_file, rows, base.label_space)
        features = None if candidate_scores == "all" else [candidate_scores]
        write_hybrid(output_dir, base, sources, validation, candidates_per_source, features)
        write_local_card(output_dir)
    print_written(output_dir, "Model")


def _given_sources(base: HybridBase, folders: list[Path], *, makes_trees: bool) -> dict[str, SavedSource]:
    """The sources of folders; none that is there already."""
    from ..errors import ConfigurationError
    from ..retrieval.model_sources import load_indexed_sources

    sources: dict[str, SavedSource] = {}
    given = {name: f"{base.name} has {_SHOWN[name]} already" for name in base.sources}
    if makes_trees and "label_trees" in given:
        raise ConfigurationError(f"{given['label_trees']}; leave --linear out.")
    if makes_trees:
        given["label_trees"] = "--linear makes label trees"
    for folder in folders:
        for name, source in load_indexed_sources(folder, base.label_space).items():
            if name in given:
                raise ConfigurationError(f"{given[name]}; leave --retriever {folder} out.")
            given[name] = f"--retriever {folder} holds {_SHOWN[name]}"
            sources[name] = source
    if not base.sources and not sources and not makes_trees:
        raise ConfigurationError(f"{base.name} has no retriever; give --retriever, which `xlgen index` makes.")
    return sources


def _label_trees(
    name: TreeKind | None, train_file: str | None, options: RowOptions, space: LabelSpace
) -> dict[str, SavedSource]:
    """Label trees that are trained on the rows of a file, by the name of the source; none if none are wanted."""
    from ..data.rows import load_rows
    from ..errors import ConfigurationError
    from ..labels.space import LabelSpace
    from ..training.label_trees import fit_label_trees

    if (name is None) != (train_file is None):
        raise ConfigurationError("--linear and --train-file go together: label trees are trained on those rows.")
    if name is None or train_file is None:
        return {}
    rows = load_rows(train_file, options, split="train")
    counts = LabelSpace.from_label_lists(each_value(rows, "labels")).train_label_counts()
    if counts != space.train_label_counts():
        logger.warning(
            "%s: these are not the rows that the model was trained on (%d labels, the model saw %d). Label trees that "
            "saw the validation rows, or labels that the model's training dropped, get too much weight.",
            train_file, sum(counts.values()), int(space.counts.sum()),
        )  # fmt: skip
    encoded = [space.encode_known(labels) for labels in each_value(rows, "labels")]
    unknown = sorted({label for _, names in encoded for label in names})
    if unknown:  # `xlgen update` renames and removes labels, which the rows of the training still have
        logger.warning(
            "%s: labels that the model does not have are left out of the label trees: %d, e.g. %r. Correct those that "
            "are called otherwise by now.",
            train_file, len(unknown), unknown[0],
        )  # fmt: skip
    taught = [(text, ids) for text, (ids, names) in zip(rows["text"][:], encoded, strict=True) if ids or not names]
    return {"label_trees": fit_label_trees(space, [text for text, _ in taught], [ids for _, ids in taught], name)}
