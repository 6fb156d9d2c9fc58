"""`xlgen experiment`: the article's experiments, for all systems, as one report."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..data.options import RowOptions
from ..settings import BATCH_SIZE, DEFAULT_BACKBONE, Pool
from .options import Labels, Overwrite, option_names
from .rows import takes_row_options

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..experiments.cell import CellSpec
    from ..experiments.plan import AblationRow, Plan
    from ..experiments.run import CellFailure

__all__ = ["experiment"]

logger = logging.getLogger(__name__)

_DATA, _SYSTEMS, _ABLATIONS, _XLGEN = "Data and report", "Systems", "Ablations", "XLGen"
_SPLITS = ("train", "validation", "test")


@takes_row_options(leave_out=("id_column", "keep_columns", "vocabulary", "language"))
def experiment(
    context: typer.Context,
    output_dir: Annotated[
        Path,
        typer.Option(
            file_okay=False, help="Folder for cells, models, results.json and report.md.", rich_help_panel=_DATA
        ),
    ],
    train_file: Annotated[str | None, typer.Option(help="Training rows.", rich_help_panel=_DATA)] = None,
    validation_file: Annotated[
        str | None, typer.Option(help="Rows that all decisions are chosen on.", rich_help_panel=_DATA)
    ] = None,
    test_file: Annotated[str | None, typer.Option(help="Rows that are scored.", rich_help_panel=_DATA)] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="A folder or Hub data set with train, validation and test, instead of files.", rich_help_panel=_DATA
        ),
    ] = None,
    labels: Labels = None,
    pu_rate: Annotated[
        float, typer.Option(help="Fraction of labels that pu drops, between 0 and 1.", rich_help_panel=_DATA)
    ] = 0.5,
    pu_seed: Annotated[
        int,
        typer.Option(min=0, max=2**32 - 1, help="Seed of that draw, the same for all cells.", rich_help_panel=_DATA),
    ] = 0,
    systems: Annotated[
        list[str] | None,
        typer.Option(
            help="Systems, repeated or with commas.", show_default="all that are installed", rich_help_panel=_SYSTEMS
        ),
    ] = None,
    settings: Annotated[
        str,
        typer.Option(help="full; pu drops --pu-rate of each training row's labels.", rich_help_panel=_SYSTEMS),
    ] = "full,pu",
    seeds: Annotated[
        str, typer.Option(help="Seeds of systems that take minutes.", rich_help_panel=_SYSTEMS)
    ] = "0,1,2",
    model_seeds: Annotated[
        str, typer.Option(help="Seeds of systems that train a network.", rich_help_panel=_SYSTEMS)
    ] = "0",
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="Trained model to take instead of training one: full.xlgen-rcl=FOLDER; repeated.",
            rich_help_panel=_SYSTEMS,
        ),
    ] = None,
    ablations: Annotated[
        str,
        typer.Option(
            help="What is varied on XLGen: order, clusters, bits, conditioning, label-rows, decoding, with commas.",
            rich_help_panel=_ABLATIONS,
        ),
    ] = "",
    ablation_system: Annotated[
        str, typer.Option(help="The variant of XLGen that is varied.", rich_help_panel=_ABLATIONS)
    ] = "xlgen-bcl",
    cluster_numbers: Annotated[
        str, typer.Option(help="Numbers of clusters of the ablation.", rich_help_panel=_ABLATIONS)
    ] = "10,30,100",
    backbone: Annotated[
        str | None,
        typer.Option(help="Seq2seq checkpoint or encoder.", show_default=DEFAULT_BACKBONE, rich_help_panel=_XLGEN),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Option of `xlgen train`, e.g. label_rows=0.3 or, for BCL alone, bcl.num_clusters=50; repeated.",
            rich_help_panel=_XLGEN,
        ),
    ] = None,
    num_beams: Annotated[int, typer.Option(min=1, help="Beams of XLGen's search.", rich_help_panel=_XLGEN)] = 5,
    num_samples: Annotated[
        int, typer.Option(min=0, help="Sets to sample instead of beams.", rich_help_panel=_XLGEN)
    ] = 0,
    pool: Annotated[Pool, typer.Option(help="How their sets become one.", rich_help_panel=_XLGEN)] = "union",
    batch_size: Annotated[
        int, typer.Option(min=1, help="Texts in a batch of the search.", rich_help_panel=_XLGEN)
    ] = BATCH_SIZE,
    figures: Annotated[bool, typer.Option(help="Draw the article's figures.", rich_help_panel=_DATA)] = True,
    report_only: Annotated[
        bool,
        typer.Option("--report-only", help="Run nothing; report on the cells that are done.", rich_help_panel=_DATA),
    ] = False,
    overwrite: Overwrite = False,
    *,
    rows: RowOptions,
) -> None:
    """Train, tune and score all systems alike; further options are arguments of XLGen's trainer.

    Each cell, a system on a setting with a seed, runs in a process of its own. The same command runs what is missing.
    """
    from ..experiments.data import ExperimentData, PositiveUnlabelled
    from ..experiments.plan import Plan, plan_cells
    from ..experiments.run import run_cells
    from ..experiments.systems.registry import SystemOptions, system_names
    from ..files.outputs import claim_folder
    from ..plots.style import check_picture

    if figures:
        check_picture(output_dir / "figure.png")
    search = {"num_samples": num_samples} if num_samples else {"num_beams": num_beams}
    training = _settings(set_ or []) | ({} if backbone is None else {"backbone": backbone})
    options = SystemOptions(training, _arguments(context), {**search, "pool": pool}, batch_size)
    chosen = _words(systems or [])
    plan = Plan(
        chosen or system_names(),
        _words([settings]),  # type: ignore[arg-type]
        _numbers(seeds, "--seeds"),
        _numbers(model_seeds, "--model-seeds"),
        _words([ablations]),  # type: ignore[arg-type]
        ablation_system,
        _numbers(cluster_numbers, "--cluster-numbers"),
        options,
        PositiveUnlabelled(pu_rate, pu_seed),
        _models(model or []),
    )
    sources = _sources(data, train_file, validation_file, test_file)
    with claim_folder(output_dir, command="xlgen experiment", overwrite=overwrite):
        prepared = ExperimentData.prepare(sources, labels, output_dir / "data", rows, replace=not report_only)
        cells, ablation_rows = plan_cells(plan, prepared.facts["digest"])
        failures = [] if report_only else run_cells(cells, output_dir)
        _report(plan, cells, ablation_rows, output_dir, failures, figures=figures)
    _end(failures, named=bool(chosen))


def _words(texts: Iterable[str]) -> list[str]:
    """The words that stand between commas; an empty text has none, but commas alone are a mistake."""
    given = list(texts)
    found = list(dict.fromkeys(word.strip() for text in given for word in text.split(",") if word.strip()))
    if not found and any(given):
        raise typer.BadParameter(f"{', '.join(map(repr, given))} names nothing.")
    return found


def _numbers(text: str, option: str) -> list[int]:
    try:
        numbers = [int(word) for word in _words([text])]
    except ValueError as err:
        raise typer.BadParameter(f"{text!r} is not a list of integers such as 0,1,2.", param_hint=option) from err
    if not numbers or min(numbers) < 0 or max(numbers) >= 2**32:
        raise typer.BadParameter(
            f"{text!r}; it must be one or more integers from 0 to {2**32 - 1}.", param_hint=option
        )
    return numbers


def _settings(words: Iterable[str]) -> dict[str, object]:
    """`name=value` -> value as JSON, where it is such, a string elsewhere."""
    from ..errors import ConfigurationError

    found = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise ConfigurationError(f"--set {word!r}; write name=value, such as label_rows=0.3.")
        try:
            found[name.replace("-", "_")] = json.loads(value)
        except json.JSONDecodeError:  # a plain word
            found[name.replace("-", "_")] = value
    return found


def _models(words: Iterable[str]) -> dict[str, str]:
    """`setting.system=folder` -> folder by setting and system."""
    from ..errors import ConfigurationError

    pairs = [word.partition("=") for word in words]
    for name, _, folder in pairs:
        if not folder:
            raise ConfigurationError(
                f"--model {name!r}; write setting.system=folder, such as full.xlgen-rcl=my-model."
            )
    return {name: str(Path(folder).resolve()) for name, _, folder in pairs}


def _arguments(context: typer.Context) -> dict[str, object]:
    """Arguments of the trainer that differ from their defaults, as JSON holds them."""
    from ..errors import ConfigurationError
    from ..training.arguments import XLGenTrainingArguments
    from .trainer_arguments import parse_arguments

    for word in context.args:
        if word.startswith("--") and word[2:].replace("-", "_").startswith(("hub_", "push_to_hub")):
            raise ConfigurationError(  # a token on the command line would stand in the report
                f"{word.partition('=')[0]}: the models of an experiment are not put on the Hub. Push one with `xlgen "
                "push model`."
            )
    folder = Path("unused")
    given = parse_arguments(folder, context.args, option_names(context), has_validation=True).to_dict()
    defaults = XLGenTrainingArguments(output_dir=str(folder)).to_dict()
    if given["seed"] != defaults["seed"]:
        raise ConfigurationError(f"--seed {given['seed']}: give the seeds of the cells with --model-seeds.")
    return {name: value for name, value in given.items() if value != defaults[name]}


def _sources(data: str | None, *files: str | None) -> dict[str, str]:
    from ..errors import ConfigurationError

    given = {split: file for split, file in zip(_SPLITS, files, strict=True) if file is not None}
    if data is not None and not given:
        return dict.fromkeys(_SPLITS, data)
    if data is None and len(given) == len(_SPLITS):
        return given
    raise ConfigurationError(
        f"Give --data alone, or --train-file, --validation-file and --test-file together; got "
        f"{', '.join(['data'] * (data is not None) + [f'{split}-file' for split in given]) or 'none of them'}."
    )


def _report(
    plan: Plan,
    cells: list[CellSpec],
    rows: list[AblationRow],
    folder: Path,
    failures: list[CellFailure],
    *,
    figures: bool,
) -> None:
    from ..experiments.plots import plot_figures, system_title
    from ..experiments.report import write_report
    from ..experiments.results import RESULTS, collect_results
    from ..files.serialization import write_json
    from ..files.training_report import score_of
    from .console import print_table, results

    found = collect_results(plan, cells, rows, folder, failures, ["xlgen", *sys.argv[1:]])
    write_json(folder / RESULTS, found)
    path = write_report(found, folder, plot_figures(found, folder) if figures else ())
    names = ("micro_f1", "macro_f1", "0_shot_macro_f1", "1_shot_macro_f1")
    for setting, systems in found["summary"].items():
        table = [
            (system_title(name), *(score_of(means, score) for score in names))
            for name, one in systems.items()
            for means in [
                {score: value["mean"] for score, value in one["scores"].items() if value["mean"] is not None}
            ]
        ]
        print_table(f"Setting {setting}, means over seeds", ("system", *names), table)
    results().print(f"Report written to {path}", markup=False, soft_wrap=True)


def _end(failures: list[CellFailure], *, named: bool) -> None:
    """Tell what failed; a package that is missing is a failure where its system was asked for by name."""
    failed = [one for one in failures if named or not one.missing_extra]
    for one in failures:
        if one not in failed:
            logger.warning("%s left out: %s", one.cell, one.reason)
    for one in failed:
        logger.error("%s failed, see %s: %s", one.cell, one.log, one.reason)
    if failed:
        raise typer.Exit(1)
