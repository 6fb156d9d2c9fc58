"""`xlgen push`: put a model, a data set, the metric or a page to try a model on the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..data.options import RowOptions
from .options import Command
from .rows import takes_row_options

if TYPE_CHECKING:
    from ..hub.push import PushReport

__all__ = ["push"]

push = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

# The token has no option: what stands on a command line stands in the shell's history and in the list of processes.
_TOKEN = "The token is that of HF_TOKEN or of `hf auth login`."

RepoId = Annotated[str, typer.Option(help="Repository, owner/name; created if it does not exist.")]
Private = Annotated[bool, typer.Option("--private", help="Make a new repository private; refuse a public one.")]
Revision = Annotated[str | None, typer.Option(help="Branch; created if it does not exist.", show_default="main")]
CreatePr = Annotated[bool, typer.Option("--create-pr", help="Open a pull request instead of a commit.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="List what would go up, and stop. Needs no network.")]
Message = Annotated[str | None, typer.Option(help="Message of the commit.", show_default="says what goes up")]
Description = Annotated[
    str | None, typer.Option(help="What the message of the commit has below its first line.", show_default="nothing")
]
License = Annotated[str | None, typer.Option("--license", help="Licence as the Hub spells it, such as apache-2.0.")]


@push.command("model", epilog=_TOKEN, cls=Command)
def _model(
    model: Annotated[Path, typer.Option(help="Folder of a trained model or adapter.")],
    repo_id: RepoId,
    scores: Annotated[
        Path | None, typer.Option(help="Test scores for the card, as `xlgen evaluate --output-file` writes them.")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="Name or Hub id of the data, for the card.", show_default="the training file's")
    ] = None,
    license_id: License = None,
    base_repo_id: Annotated[
        str | None,
        typer.Option(
            help="Repository of an adapter's base, owner/name.", show_default="that of the adapter, and -base"
        ),
    ] = None,
    with_code: Annotated[
        bool, typer.Option("--with-code", help="Add the code that loads it where xlgen-hf is not installed.")
    ] = False,
    tag: Annotated[
        list[str] | None, typer.Option(help="A further tag of the card; more than one with --tag A --tag B.")
    ] = None,
    language: Annotated[
        list[str] | None, typer.Option(help="Language of the texts as an ISO code, such as en, for the card.")
    ] = None,
    include: Annotated[
        list[str] | None, typer.Option(help="Of the model's files, only those that fit a pattern, such as '*.json'.")
    ] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="Leave out files that fit a pattern.")] = None,
    private: Private = False,
    revision: Revision = None,
    create_pr: CreatePr = False,
    message: Message = None,
    description: Description = None,
    dry_run: DryRun = False,
) -> None:
    """Put a model up in one commit: weights, configs, label space, clusters, processor and card.

    An adapter's base goes up before it, to a repository of its own.
    """
    from ..hub.push import push_model

    report = push_model(
        model, repo_id, base_repo_id=base_repo_id, scores=scores, dataset=dataset, license_id=license_id,
        with_code=with_code, tags=tag, language=language, allow_patterns=include, ignore_patterns=exclude,
        private=private, revision=revision, create_pr=create_pr, message=message, description=description,
        dry_run=dry_run,
    )  # fmt: skip
    if report.base is not None:
        _print_report(report.base)
    _print_report(report)


@push.command("dataset", epilog=_TOKEN, cls=Command)
@takes_row_options(leave_out=("id_column", "keep_columns", "vocabulary", "language"))
def _dataset(
    train_file: Annotated[str, typer.Option(help="Training rows: JSON Lines, CSV, Parquet or a folder.")],
    repo_id: RepoId,
    validation_file: Annotated[str | None, typer.Option(help="Validation rows.")] = None,
    test_file: Annotated[str | None, typer.Option(help="Test rows.")] = None,
    labels: Annotated[
        Path | None, typer.Option(help="Vocabulary, one name per line; it may hold labels that no row has.")
    ] = None,
    license_id: License = None,
    source: Annotated[str | None, typer.Option(help="Where texts and labels come from, for the card.")] = None,
    language: Annotated[str | None, typer.Option(help="Language of the texts as an ISO code, such as en.")] = None,
    private: Private = False,
    revision: Revision = None,
    create_pr: CreatePr = False,
    message: Message = None,
    description: Description = None,
    dry_run: DryRun = False,
    *,
    rows: RowOptions,
) -> None:
    """Put a data set up in one commit: Parquet files of each split, the label space, and a card with statistics."""
    from ..hub.datasets import push_dataset

    given = {"train": train_file, "validation": validation_file, "test": test_file}
    splits = {name: file for name, file in given.items() if file is not None}
    report = push_dataset(
        splits, repo_id, options=rows, vocabulary=labels, license_id=license_id, source=source, language=language,
        private=private, revision=revision, create_pr=create_pr, message=message, description=description,
        dry_run=dry_run,
    )  # fmt: skip
    _print_report(report)


@push.command("metric", epilog=_TOKEN, cls=Command)
def _metric(
    repo_id: Annotated[str, typer.Option(help="Space, owner/xmc_f1; created if it does not exist.")],
    private: Private = False,
    revision: Revision = None,
    create_pr: CreatePr = False,
    message: Message = None,
    description: Description = None,
    dry_run: DryRun = False,
) -> None:
    """Put the metric xmc_f1 up as a Space, from which `evaluate.load` loads it."""
    from ..hub.push import push_metric

    report = push_metric(
        repo_id, private=private, revision=revision, create_pr=create_pr, message=message, description=description,
        dry_run=dry_run,
    )  # fmt: skip
    _print_report(report)


@push.command("space", epilog=_TOKEN, cls=Command)
def _space(
    model: Annotated[str, typer.Option(help="Hub id of the model that the page is about, owner/name.")],
    repo_id: Annotated[str, typer.Option(help="Space, owner/name; created if it does not exist.")],
    requirement: Annotated[
        str | None,
        typer.Option(
            help="How the Space installs xlgen-hf, such as 'xlgen-hf[demo]==1.0'.",
            show_default="its code goes up with the page",
        ),
    ] = None,
    extra: Annotated[
        list[str] | None,
        typer.Option(help="An extra of xlgen-hf that the model needs, such as lora for an adapter."),
    ] = None,
    license_id: License = None,
    private: Private = False,
    revision: Revision = None,
    create_pr: CreatePr = False,
    message: Message = None,
    description: Description = None,
    dry_run: DryRun = False,
) -> None:
    """Put a Space up that runs `xlgen demo` for a model of the Hub."""
    from ..hub.spaces import push_space

    report = push_space(
        model, repo_id, requirement=requirement, extras=extra or (), license_id=license_id, private=private,
        revision=revision, create_pr=create_pr, message=message, description=description, dry_run=dry_run,
    )  # fmt: skip
    _print_report(report)


def _print_report(report: PushReport) -> None:
    from .console import print_table, results

    plan = report.plan
    title = f"{plan.repo_type} {plan.repo_id}, {plan.revision}{', private' if plan.private else ''}"
    rows = [(file.path, f"{file.size:,}") for file in plan.files]
    print_table(title, ("file", "bytes"), [*rows, ("all", f"{plan.size:,}")])
    if report.url is None:
        line = "Dry run: nothing was uploaded."
    elif report.changed:
        line = f"Uploaded as commit {report.commit} of {report.url}"
    else:
        line = f"Nothing has changed since commit {report.commit} of {report.url}"
    results().print(line, markup=False, soft_wrap=True)
