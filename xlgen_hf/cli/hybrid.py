"""`xlgen hybrid`: fuse a trained model's scores with those of retrieval and label trees."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..data.blocks import each_value
from ..data.options import RowOptions
from ..settings import PredictsWith
from .options import CpuThreads, Overwrite, limit_threads
from .rows import takes_row_options

if TYPE_CHECKING:
    from ..labels.space import LabelSpace
    from ..modeling_xlgen import XLGenForConditionalGeneration
    from ..processing_xlgen import XLGenProcessor
    from ..ranking.sources import SavedSource
    from ..training.label_trees import TreeKind

__all__ = ["hybrid"]

logger = logging.getLogger(__name__)


@takes_row_options(leave_out=("id_column", "keep_columns"))
def hybrid(
    model: Annotated[str, typer.Option(help="Folder of a trained model or adapter, or its id on the Hub.")],
    validation_file: Annotated[str, typer.Option(help="Rows that the weights are learned on; none of the training.")],
    output_dir: Annotated[Path, typer.Option(help="Folder for model, retriever and weights.")],
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
    train_file: Annotated[str | None, typer.Option(help="The model's training rows; for --linear.")] = None,
    candidates_per_source: Annotated[
        int, typer.Option(min=1, max=1000, help="Labels of a text that each source contributes.")
    ] = 20,
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
    """Write a model folder that predicts, and is pushed, as any other; its scores are fused ones."""
    from ..data.rows import load_rows
    from ..files.model_checks import local_model
    from ..files.outputs import claim_folder
    from ..files.saving import replace_files
    from ..files.training_report import read_report, write_report
    from ..hub.local_cards import write_local_card
    from ..prediction.candidate_ranker import model_source
    from ..training.report import hybrid_report
    from ..training.tuning import fuse_sources
    from .console import print_written

    limit_threads(cpu_threads)
    with claim_folder(output_dir, command="xlgen hybrid", overwrite=overwrite):
        generator, processor = _load(model, predict_with, candidate_scores)
        rows = _with_concepts(rows, processor)
        sources = _sources(model, processor, retriever or [], makes_trees=linear is not None)
        validation = load_rows(validation_file, rows, split="validation")
        sources |= _label_trees(linear, train_file, rows, processor.label_space)
        score_model = fuse_sources(
            model_source(generator, processor),
            sources,
            validation["text"][:],
            [processor.label_space.encode_known(names)[0] for names in each_value(validation, "labels")],
            candidates_per_source=candidates_per_source,
            features=None if candidate_scores == "all" else [candidate_scores],
        )
        processor = processor.with_score_model(score_model)
        with replace_files(output_dir) as aside:
            generator.save_pretrained(aside)
            processor.save_pretrained(aside)
            if report := read_report(local_model(model, {})):
                write_report(aside, hybrid_report(report, generator, processor, validation))
        write_local_card(output_dir)
    print_written(output_dir, "Model")


def _with_concepts(rows: RowOptions, processor: XLGenProcessor) -> RowOptions:
    """Options with which rows may name the concepts of the model's vocabulary in any way."""
    chosen = rows.vocabulary is not None or rows.label_names is not None
    return rows if chosen else rows.changed(vocabulary=processor.vocabulary)


def _load(
    name: str, predict_with: str | None, candidate_scores: str
) -> tuple[XLGenForConditionalGeneration, XLGenProcessor]:
    """Model and processor; the config notes what of the model is fused."""
    from ..encoders.exported import refuse_exported
    from ..errors import ConfigurationError
    from ..loading import load_model

    model, processor = load_model(name, predict_with=predict_with)
    refuse_exported(model.backbone, name)
    config = model.config
    if candidate_scores == "candidate_head" and not config.candidate_head:
        raise ConfigurationError(
            "--candidate-scores candidate_head: the model has no candidate head. Choose teacher_forced, or train the "
            "model with --variant rcl and a --candidate-loss-weight above 0."
        )
    return model, processor


def _sources(
    model: str, processor: XLGenProcessor, folders: list[Path], *, makes_trees: bool
) -> dict[str, SavedSource]:
    """The sources that are there: the model's own retriever, and those of folders."""
    from ..errors import ConfigurationError
    from ..retrieval.model_sources import load_indexed_sources

    sources: dict[str, SavedSource] = {} if processor.retriever is None else {"retrieval": processor.retriever}
    given = {"retrieval": f"{model} has a retriever, which its input comes from"} if sources else {}
    if makes_trees:
        given["label_trees"] = "--linear makes label trees"
    for folder in folders:
        for name, source in load_indexed_sources(folder, processor.label_space).items():
            if name in given:
                raise ConfigurationError(f"{given[name]}; leave --retriever {folder} out.")
            given[name] = f"--retriever {folder} holds {'a retriever' if name == 'retrieval' else 'label trees'}"
            sources[name] = source
    if not sources and not makes_trees:
        raise ConfigurationError(f"{model} has no retriever; give --retriever, which `xlgen index` makes.")
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
    label_ids = [space.encode(labels) for labels in each_value(rows, "labels")]
    return {"label_trees": fit_label_trees(space, rows["text"][:], label_ids, name)}
