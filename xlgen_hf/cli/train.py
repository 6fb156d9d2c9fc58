"""`xlgen train`: fine-tune a model."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..data.options import RowOptions
from ..settings import check_effect, definitions, from_values, no_effect
from ..training.settings import TrainingSettings
from ..training.trainer_settings import TrainerSettings
from .config import Config, more_words, write_config
from .options import CpuThreads, Labels, Overwrite, given_names, limit_threads, option_names, takes_settings
from .rows import chosen_vocabulary, takes_row_options, warn_of_shared_texts

if TYPE_CHECKING:
    from ..training.arguments import XLGenTrainingArguments

__all__ = ["train"]

_SHOWN = ("micro_f1", "macro_f1", "0_shot_macro_f1", "1_shot_macro_f1")


@takes_row_options(leave_out=("keep_columns",))
@takes_settings(TrainingSettings, TrainerSettings)
def train(
    context: typer.Context,
    train_file: Annotated[
        str,
        typer.Option(
            help="Training rows: JSON Lines, CSV, Parquet, a folder or a Hub data set.", rich_help_panel="Data"
        ),
    ],
    output_dir: Annotated[
        Path,
        typer.Option(file_okay=False, help="Folder for checkpoints and the trained model.", rich_help_panel="Data"),
    ],
    validation_file: Annotated[
        str | None,
        typer.Option(help="Rows that choose checkpoint, search, calibration and thresholds.", rich_help_panel="Data"),
    ] = None,
    labels: Labels = None,
    config: Config = None,
    cpu_threads: CpuThreads = None,
    overwrite: Overwrite = False,
    *,
    rows: RowOptions,
    **values: object,
) -> None:
    """Fine-tune a model on texts and their labels.

    The same command continues a run that was interrupted. Every other argument of
    transformers' trainer is an option too, such as --max_grad_norm 0.5.

    \b
    --variant: which model for what
      rcl   The default, and the best of the four in all benchmarks so far. It
            reads candidate labels that retrieval finds for a text, also labels
            that no training row has. Label names must mean something.
      bcl   Generates labels guided by predicted clusters of labels, as in the
            article. Needs no index.
      mcg   Generates clusters, then labels, as in the article. Slower than bcl.
      base  Generates labels from the text alone: the baseline of the others.
    """  # noqa: D301  \b keeps the lines of the table apart
    from accelerate import PartialState

    from ..data.rows import load_rows
    from ..training.run import train_model

    limit_threads(cpu_threads)
    own = {name: value for name, value in values.items() if name in definitions(TrainingSettings)}
    sources = {"train": train_file} | ({} if validation_file is None else {"validation": validation_file})
    vocabulary = chosen_vocabulary(labels, rows)
    settings = from_values(
        TrainingSettings, {**own, "vocabulary": vocabulary, "sources": sources, "id_column": rows.id_column}
    )
    settings.check_effect(given_names(context))
    settings.check_folders()
    settings = settings.resolved()
    settings.check_effect(given_names(context))
    args, further = _arguments(context, output_dir, values, has_validation=validation_file is not None)
    validation = None if validation_file is None else load_rows(validation_file, rows, split="validation")
    train_rows = load_rows(train_file, rows, split="train")
    if args.process_index == 0:
        warn_of_shared_texts({"train": train_rows, "validation": validation}, train_file, rows)
    effective = _effective(context, settings, further)
    with _claim(output_dir, args, overwrite=overwrite):
        _, _, scores = train_model(
            settings, args, train_rows, validation, on_start=lambda: write_config(output_dir, effective)
        )
    if args.process_index == 0:
        _print_result(output_dir, scores)
    PartialState().destroy_process_group()  # where there is one


def _claim(output_dir: Path, args: XLGenTrainingArguments, *, overwrite: bool) -> AbstractContextManager[object]:
    """Keep others from writing into the folder; of several processes the one that writes does it for all."""
    from ..files.outputs import claim_folder
    from ..training.run_record import RECORD_FILE

    if not args.should_save:
        return nullcontext()
    begun = (output_dir / RECORD_FILE).is_file()  # by Python code; whether it is the same run is checked there
    return claim_folder(output_dir, command="xlgen train", overwrite=overwrite or begun)


def _arguments(
    context: typer.Context, output_dir: Path, values: dict[str, object], *, has_validation: bool
) -> tuple[XLGenTrainingArguments, dict[str, object]]:
    """The arguments of the trainer, and the values of those that were named or follow from the validation rows."""
    from .trainer_arguments import named_arguments, parse_arguments

    own = {name: values[name] for name in definitions(TrainerSettings)}
    given = given_names(context)
    check_effect(TrainerSettings, {**own, **{name: values[name] for name in ("variant", "candidates")}}, given)
    if "bf16" in given and not own["bf16"]:
        own["dtype"] = "float32"  # on a GPU, too
    words = [*more_words(context), *context.args]
    args = parse_arguments(
        output_dir, words, option_names(context), has_validation=has_validation, values=own, given=given
    )
    named = named_arguments(args, [*words, "--eval_strategy", "--load_best_model_at_end"])
    args.dtype = None if args.fp16 else "bfloat16" if args.bf16 else "float32"  # for who repeats it elsewhere
    return args, {**named, "dtype": args.dtype}


def _effective(context: typer.Context, settings: TrainingSettings, further: dict[str, object]) -> dict[str, object]:
    """What decides the run, by the names of options: without settings that have no effect in it."""
    values = {**context.params, **settings.model_options(), **further, "config": None, "overwrite": None}
    values |= {"lora": settings.lora, "encoder": settings.encoder}
    known = {**definitions(TrainingSettings), **definitions(TrainerSettings)}
    return {
        name: value for name, value in values.items() if name not in known or no_effect(known[name], values) is None
    }


def _print_result(output_dir: Path, scores: dict[str, float]) -> None:
    from ..files.training_report import score_of
    from .console import print_table, print_written

    if scores:
        found = {name.removeprefix("eval_"): value for name, value in scores.items()}
        print_table("Validation rows", ("score", "value"), [(name, score_of(found, name)) for name in _SHOWN])
    print_written(output_dir, "Model")
