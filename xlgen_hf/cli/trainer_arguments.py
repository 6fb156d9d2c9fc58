"""From options and further words of a command line to the arguments of the trainer."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import NoReturn

from transformers import HfArgumentParser

from ..errors import ConfigurationError
from ..training.arguments import XLGenTrainingArguments
from .options import UsageProblem, no_such_option

__all__ = ["argument_names", "named_arguments", "parse_arguments"]

_TRAINS = "the command trains, and scores validation rows where there are some"
_OF_SCRIPTS = {
    "resume_from_checkpoint": "the same command continues the run in its folder by itself",
    **dict.fromkeys(("do_train", "do_eval", "do_predict"), _TRAINS),
}
"""Arguments that transformers only hands on to scripts -> what holds here instead."""


class _Parser(HfArgumentParser):
    """Tells what is wrong in a line, where argparse prints a usage of more than a hundred."""

    def error(self, message: str) -> NoReturn:
        raise UsageProblem(f"Invalid {message[0].lower()}{message[1:]}.")


def argument_names() -> list[str]:
    """Names of all arguments of the trainer."""
    return [one.name for one in fields(XLGenTrainingArguments) if one.init]


def parse_arguments(
    output_dir: Path,
    words: Iterable[str],
    options: Iterable[str],
    *,
    has_validation: bool,
    values: Mapping[str, object] | None = None,
    given: Collection[str] = (),
) -> XLGenTrainingArguments:
    """Make the arguments of the trainer.

    With validation rows each epoch ends with an evaluation and a checkpoint, and the best one is kept, unless the user
    says otherwise.

    Args:
        output_dir: folder of the training.
        words: what is left of the command line when its own options are read: `--max_grad_norm 0.5` ...
        options: the command's own options, to suggest where a word is unknown.
        has_validation: whether there are validation rows.
        values: arguments that the command has options for.
        given: which of these the user chose.

    Raises:
        ConfigurationError: if a value is not allowed, or this machine cannot do what is asked for.
        UsageProblem: if a word is unknown, abbreviated, or not of the right type.
    """
    words = list(words)
    chosen = _named(words) | set(given)
    values = dict(values or {})
    if has_validation and "eval_strategy" not in chosen:
        values["eval_strategy"] = "epoch"
    if has_validation and not chosen & {"eval_strategy", "save_strategy", "load_best_model_at_end"}:
        values["load_best_model_at_end"] = True
    parser = _Parser(XLGenTrainingArguments, allow_abbrev=False, add_help=False)
    parser.set_defaults(**values, output_dir=str(output_dir))
    args, unknown = parser.parse_args_into_dataclasses(words, return_remaining_strings=True, look_for_args_file=False)
    if unknown and not unknown[0].startswith("-"):
        raise UsageProblem(f"Got unexpected argument {unknown[0]!r}.")
    if unknown:
        raise no_such_option(unknown[0], [*options, *(f"--{name.replace('_', '-')}" for name in argument_names())])
    result: XLGenTrainingArguments = args
    _check_effect(result, _named(words), has_validation=has_validation)
    return result


def _check_effect(args: XLGenTrainingArguments, named: set[str], *, has_validation: bool) -> None:
    """Refuse arguments of scripts, which the command does not read, and evaluations without validation rows."""
    useless = sorted(named & set(_OF_SCRIPTS))
    if useless:
        raise ConfigurationError(f"--{useless[0]} has no effect here: {_OF_SCRIPTS[useless[0]]}. Leave it out.")
    if not has_validation and (args.eval_on_start or args.eval_strategy != "no"):
        wants = "--eval_on_start" if args.eval_on_start else "--eval_strategy"
        raise ConfigurationError(f"{wants} needs validation rows; give --validation-file.")


def named_arguments(args: XLGenTrainingArguments, words: Iterable[str]) -> dict[str, object]:
    """The values of the arguments that words of a command line name, as plain values."""
    values = {name: getattr(args, name) for name in argument_names() if name in _named(words)}
    plain = (bool, int, float, str, list, dict, type(None))
    found = {name: getattr(value, "value", value) for name, value in values.items()}
    return {name: value if type(value) in plain else str(value) for name, value in found.items()}


def _named(words: Iterable[str]) -> set[str]:
    """Names of arguments that words name; `--no_tune_decisions` names `tune_decisions`."""
    named = {word.partition("=")[0].lstrip("-").replace("-", "_") for word in words if word.startswith("--")}
    return named | {name.removeprefix("no_") for name in named}
