"""The program `xlgen`. Only the command that is asked for is imported, so `--help` answers at once."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Annotated, NamedTuple

import typer

from .. import __version__
from ..errors import XLGenError
from .console import print_error, setup_logging

__all__ = ["COMMANDS", "Command", "main", "run"]

logger = logging.getLogger(__name__)


class Command(NamedTuple):
    """A command of the program.

    Attributes:
        name: its name; the module of this package with that name holds a function with that name, or a group of
            commands.
        help: what it does, in a line.
        takes_more: whether it takes options that it does not declare, found in `typer.Context.args`.
    """

    name: str
    help: str
    takes_more: bool = False


COMMANDS = (
    Command("quickstart", "Train, score and try a model on bundled real data, in minutes on a CPU."),
    Command("inspect", "Look at a data set: sizes, long tail, duplicates, leakage, lengths."),
    Command("convert", "Convert rows between formats, split them, remove labels."),
    Command("cluster", "Group the labels of a training set into clusters."),
    Command("index", "Index training texts and label names for retrieval (XLGen-RCL, hybrids)."),
    Command("train", "Fine-tune a model on your texts and labels.", takes_more=True),
    Command("hybrid", "Fuse a trained model with retrieval and label trees."),
    Command("merge", "Merge a LoRA adapter and its base into a model of its own."),
    Command("predict", "Predict the labels of texts."),
    Command("evaluate", "Score predictions: micro and macro F1, few-shot labels."),
    Command("experiment", "Run the article's experiments for all systems, as one report.", takes_more=True),
    Command("push", "Put a model, a data set or the metric on the Hub."),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program.

    Args:
        argv: arguments without the program's name; by default those of the process.

    Returns:
        The exit code: 0, 1 where the data or the settings do not allow it, 2 where the command line is wrong.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        build_app(arguments)(args=arguments, prog_name="xlgen")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except KeyboardInterrupt:
        print_error("stopped.")
        return 130
    except (XLGenError, OSError) as err:
        logger.debug("Where it happened:", exc_info=True)
        print_error(str(err))
        return 1
    return 0


def run() -> None:
    """Run the program and end the process; what the installed `xlgen` calls."""
    sys.exit(main())


def build_app(arguments: Sequence[str]) -> typer.Typer:
    """The program for one command line.

    Args:
        arguments: the command line. The command in it is imported, the others are just listed.
    """
    app = typer.Typer(
        add_completion=False,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(help="Generative extreme multi-label classification with cluster guidance.")(_options)
    wanted = next((argument for argument in arguments if not argument.startswith("-")), None)
    for command in COMMANDS:
        function = _function_of(command) if command.name == wanted else _not_imported
        if isinstance(function, typer.Typer):
            app.add_typer(function, name=command.name, help=command.help)
            continue
        more = {"allow_extra_args": True, "ignore_unknown_options": True} if command.takes_more else None
        app.command(command.name, short_help=command.help, context_settings=more)(function)
    return app


def _function_of(command: Command) -> Callable[..., None] | typer.Typer:
    module = import_module(f".{command.name}", __package__)
    function: Callable[..., None] | typer.Typer = getattr(module, command.name)
    return function


def _not_imported() -> None:
    """Stand in for a command that this command line does not ask for."""


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"xlgen {__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, help="Print the version and end.", is_eager=True)
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what is done in detail.")] = False,
) -> None:
    setup_logging(verbose=verbose)
