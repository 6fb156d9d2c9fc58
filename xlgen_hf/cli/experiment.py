"""`xlgen experiment`: the article's experiments, for all systems, as one report."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..experiments.plan import Plan
    from ..experiments.run import CellFailure

__all__ = ["experiment"]

logger = logging.getLogger(__name__)

_SPLITS = ("train", "validation", "test")


def experiment(
    context: typer.Context,
    output_dir: Annotated[Path, typer.Option(help="Folder for cells, models, results.json and report.md.")],
    train_file: Annotated[str | None, typer.Option(help="Training rows.")] = None,
    validation_file: Annotated[str | None, typer.Option(help="Rows that all decisions are chosen on.")] = None,
    test_file: Annotated[str | None, typer.Option(help="Rows that are scored.")] = None,
    data: Annotated[
        str | None, typer.Option(help="A folder or Hub data set with train, validation and test, in place of files.")
    ] = None,
    labels: Annotated[
        str | None, typer.Option(help="Vocabulary, a name a line or a Hub data set; may hold labels never seen.")
    ] = None,
    systems: Annotated[
        list[str] | None,
        typer.Option(help="Systems, repeated or with commas.", show_default="all that are installed"),
    ] = None,
    settings: Annotated[str, typer.Option(help="full; pu drops half of each training row's labels.")] = "full,pu",
    seeds: Annotated[str, typer.Option(help="Seeds of systems that take minutes.")] = "0,1,2",
    model_seeds: Annotated[str, typer.Option(help="Seeds of systems that train a network.")] = "0",
    ablations: Annotated[
        str,
        typer.Option(
            help="What is varied on XLGen: order, clusters, bits, conditioning, label-rows, decoding, with commas."
        ),
    ] = "",
    ablation_system: Annotated[str, typer.Option(help="The variant of XLGen that is varied.")] = "xlgen-bcl",
    cluster_numbers: Annotated[str, typer.Option(help="Numbers of clusters of the ablation.")] = "10,30,100",
    pu_rate: Annotated[float, typer.Option(help="Share of labels that pu drops, between 0 and 1.")] = 0.5,
    pu_seed: Annotated[int, typer.Option(help="Seed of that draw, the same for all cells.")] = 0,
    backbone: Annotated[
        str | None, typer.Option(help="Seq2seq checkpoint or encoder.", show_default="all-MiniLM-L6-v2")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Setting of XLGen's training, e.g. label_rows=0.3 or, for BCL alone, bcl.num_clusters=50."
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="Trained model to take in place of training one: full.xlgen-rcl=FOLDER; repeated."),
    ] = None,
    num_beams: Annotated[int, typer.Option(min=1, help="Beams of XLGen's search.")] = 5,
    num_samples: Annotated[int, typer.Option(min=0, help="Sets to draw in place of beams.")] = 0,
    pool: Annotated[str, typer.Option(help="How their sets become one: best, average, vote, union.")] = "union",
    batch_size: Annotated[int, typer.Option(min=1, help="Texts in a batch of the search.")] = 64,
    figures: Annotated[bool, typer.Option(help="Draw the article's figures.")] = True,
    report_only: Annotated[
        bool, typer.Option("--report-only", help="Run nothing; report on the cells that are done.")
    ] = False,
) -> None:
    """Train, tune and score all systems alike; further options are arguments of XLGen's trainer.

    Each cell, a system on a setting with a seed, runs in a process of its own. The same command runs what is missing.
    """
    from ..evaluation.plots import check_picture
    from ..experiments.data import ExperimentData, PositiveUnlabelled
    from ..experiments.plan import Plan, plan_cells
    from ..experiments.run import run_cells
    from ..experiments.systems.registry import SystemOptions, system_names

    if figures:
        check_picture(output_dir / "figure.png")
    search = {"num_samples": num_samples} if num_samples else {"num_beams": num_beams}
    training = _settings(set_ or []) | ({} if backbone is None else {"backbone": backbone})
    options = SystemOptions(training, _arguments(context.args), {**search, "pool": pool}, batch_size)
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
    rows = ExperimentData.prepare(sources, labels, output_dir / "data")
    cells, ablation_rows = plan_cells(plan, rows.facts["digest"])
    failures = [] if report_only else run_cells(cells, output_dir)
    _report(plan, cells, ablation_rows, output_dir, failures, figures=figures)
    _end(failures, named=bool(chosen))


def _words(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(word.strip() for text in texts for word in text.split(",") if word.strip()))


def _numbers(text: str, option: str) -> list[int]:
    try:
        numbers = [int(word) for word in _words([text])]
    except ValueError as err:
        raise typer.BadParameter(f"{text!r} is no list of whole numbers such as 0,1,2.", param_hint=option) from err
    if not numbers or min(numbers) < 0:
        raise typer.BadParameter(f"{text!r}; at least one number from 0 on is needed.", param_hint=option)
    return numbers


def _settings(words: Iterable[str]) -> dict[str, Any]:
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


def _arguments(words: list[str]) -> dict[str, Any]:
    """Arguments of the trainer that differ from their defaults, as JSON holds them."""
    from ..errors import ConfigurationError
    from ..training.arguments import XLGenTrainingArguments
    from .train import training_arguments

    folder = Path("unused")
    given = training_arguments(folder, words, has_validation=True).to_dict()
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


def _report(plan: Plan, cells: Any, rows: Any, folder: Path, failures: list[CellFailure], *, figures: bool) -> None:
    from ..experiments.plots import plot_figures, system_title
    from ..experiments.report import write_report
    from ..experiments.results import RESULTS, collect_results
    from ..files.serialization import write_json
    from .console import print_table, results

    found = collect_results(plan, cells, rows, folder, failures, ["xlgen", *sys.argv[1:]])
    write_json(folder / RESULTS, found)
    path = write_report(found, folder, plot_figures(found, folder) if figures else ())
    names = ("micro_f1", "macro_f1", "0_shot_macro_f1", "1_shot_macro_f1")
    for setting, systems in found["summary"].items():
        table = [
            (system_title(name), *(one["scores"][score]["mean"] for score in names)) for name, one in systems.items()
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
