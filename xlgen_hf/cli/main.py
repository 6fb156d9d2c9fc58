"""The program `xlgen`. Only the command that is asked for is imported, so `--help` answers at once."""

from __future__ import annotations

import atexit
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from types import FrameType
from typing import Annotated, NamedTuple, NoReturn

import typer

from ..errors import Terminated, XLGenError
from ..version import __version__
from . import options
from .console import print_error, print_message, setup_logging
from .processes import process_count

__all__ = ["COMMANDS", "Command", "build_app", "main", "run"]

logger = logging.getLogger(__name__)

_NAME = "xlgen"
_COMPLETE = "_XLGEN_COMPLETE"  # set by the shell that asks how a command line may go on
# `ClickException` of click, of which typer has a copy of its own from 0.26 on.
_ProgramError: type[Exception] = typer.BadParameter.__mro__[2]
_WIDEST = 1_000  # columns of the help: those of the terminal
_CONTINUES = "The same command continues where this run stopped."


class Command(NamedTuple):
    """A command of the program.

    Attributes:
        name: its name; the module of this package with that name holds a function with that name, or a group of
            commands.
        help: what it does, in a line.
        takes_more: whether it takes options that it does not declare, found in `typer.Context.args`.
        again: what to do after an interrupt.
    """

    name: str
    help: str
    takes_more: bool = False
    again: str = "Run the same command again."


COMMANDS = (
    Command("quickstart", "Train, score and try a model on bundled real data, in minutes on a CPU."),
    Command("inspect", "Look at a data set: sizes, long tail, duplicates, leakage, lengths."),
    Command("convert", "Convert rows between formats, split them, remove labels."),
    Command("cluster", "Group the labels of a training set into clusters.", again=_CONTINUES),
    Command("index", "Index training texts and label names for retrieval (XLGen-RCL, hybrids).", again=_CONTINUES),
    Command("train", "Fine-tune a model on your texts and labels.", takes_more=True, again=_CONTINUES),
    Command("hybrid", "Fuse a trained model with retrieval and label trees."),
    Command("merge", "Merge a LoRA adapter and its base into a model of its own."),
    Command("export", "Write a model or index as ONNX graphs, which predict faster on a CPU."),
    Command(
        "predict",
        "Predict the labels of texts.",
        again="With --output-file the same command continues where this run stopped.",
    ),
    Command("update", "Change labels and indexed documents of a model without training; undo it."),
    Command("tag", "Label a text, or a few, and show what speaks for each label."),
    Command("serve", "Serve models over HTTP, with Annif's interface too."),
    Command("demo", "Open a page in the browser to try models on, and to correct them."),
    Command("evaluate", "Score predictions: micro and macro F1, few-shot labels."),
    Command(
        "experiment",
        "Run the article's experiments for all systems, as one report.",
        takes_more=True,
        again="The same command runs what is missing.",
    ),
    Command("clean", "List and remove caches and left-over checkpoints."),
    Command("push", "Put a model, a data set, the metric or a page to try a model on the Hub."),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program.

    Args:
        argv: arguments without the program's name; by default those of the process.

    Returns:
        The exit code: 0, 1 where the data or the settings do not allow it, 2 where the command line is wrong, 130
        after Ctrl-C and 143 after SIGTERM.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        with _sigterm_interrupts():
            _invoke(arguments)
    except (SystemExit, typer.Exit) as stop:
        code = stop.code if isinstance(stop, SystemExit) else stop.exit_code
        return code if isinstance(code, int) else int(code is not None)
    except KeyboardInterrupt as stop:
        print_message(f"{'terminated' if isinstance(stop, Terminated) else 'interrupted'}. {_again(arguments)}")
        return 143 if isinstance(stop, Terminated) else 130
    except BrokenPipeError:  # the reader of the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except _ProgramError as err:
        return _report(err)
    except (XLGenError, OSError) as err:
        logger.debug("Where it happened:", exc_info=True)
        print_error(str(err))
        return 1
    return 0


def run() -> None:
    """Run the program and end the process; what the installed `xlgen` calls."""
    codes: list[int] = []
    if process_count() > 1:
        atexit.register(_end_at_once, codes)  # the first that is registered runs last
    codes.append(main())
    sys.exit(codes[0])


def _end_at_once(codes: Sequence[int]) -> None:
    """End the process before Python takes its modules apart.

    `DistributedDataParallel` keeps the threads of a process group alive after `destroy_process_group`. One that still
    has a tensor to release then meets an interpreter that has ended, and aborts the process when all work is done.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(codes[0] if codes else 1)


def _invoke(arguments: list[str]) -> None:
    if _COMPLETE in os.environ:  # typer answers the shell, and ends the process
        build_app(_line_to_complete())(prog_name=_NAME)
    program = typer.main.get_command(build_app(arguments))
    # Not by calling the program: that would turn every interrupt into exit code 130, and errors into many lines.
    with program.make_context(_NAME, list(arguments)) as context:
        program.invoke(context)


def _line_to_complete() -> list[str]:
    line = os.environ.get("_TYPER_COMPLETE_ARGS") or os.environ.get("COMP_WORDS", "")
    return line.split()[1:]


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """Let SIGTERM end the work as Ctrl-C does, so that nothing is left half written."""
    if threading.current_thread() is not threading.main_thread():  # which alone may handle signals
        yield
        return
    previous = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise Terminated


def _again(arguments: Sequence[str]) -> str:
    wanted = _wanted(arguments)
    return next((command.again for command in COMMANDS if command.name == wanted), "")


def _report(err: Exception) -> int:
    """Print what is wrong with a command line."""
    message = err.format_message()  # type: ignore[attr-defined]
    near = getattr(err, "possibilities", None)
    if near:  # of an unknown option
        message = f"{err.message.rstrip('.')}. Did you mean {' or '.join(near)}?"  # type: ignore[attr-defined]
    context = getattr(err, "ctx", None)
    if message.startswith("Usage:"):  # the help, where nothing else was asked for
        sys.stderr.write(message.rstrip() + "\n")
    elif message:
        message = message.replace("Value error, ", "", 1)  # which newer releases of typer put before their own text
        end = "" if message.rstrip().endswith("?") else "."
        hint = f" See '{context.command_path} --help'." if context is not None else ""
        print_error(f"{message.rstrip().rstrip('.')}{end}{hint}")
    code: int = err.exit_code  # type: ignore[attr-defined]
    return code


def build_app(arguments: Sequence[str]) -> typer.Typer:
    """The program for one command line.

    Args:
        arguments: the command line. The command in it is imported, the others are just listed.
    """
    app = typer.Typer(
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": _WIDEST},
    )
    app.callback(help="Generative extreme multi-label classification with cluster guidance.")(_options)
    wanted = _wanted(arguments)
    for command in COMMANDS:
        function = _function_of(command) if command.name == wanted else _not_imported
        if isinstance(function, typer.Typer):
            app.add_typer(function, name=command.name, help=command.help)
            continue
        more = {"allow_extra_args": True, "ignore_unknown_options": True} if command.takes_more else None
        app.command(command.name, short_help=command.help, context_settings=more, cls=options.Command)(function)
    return app


def _wanted(arguments: Sequence[str]) -> str | None:
    return next((argument for argument in arguments if not argument.startswith("-")), None)


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
