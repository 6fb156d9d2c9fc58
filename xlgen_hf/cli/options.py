"""How options of commands look and are read: made from settings, by dashes or underscores, in groups of the help."""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from functools import wraps
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, Optional

import typer
from typer.core import TyperCommand, TyperOption

from ..errors import ConfigurationError
from ..settings import Definition, PredictsWith, check_value, definitions
from .console import print_message

__all__ = [
    "Command",
    "CpuThreads",
    "DType",
    "Device",
    "Host",
    "Labels",
    "Overwrite",
    "Port",
    "PredictWith",
    "UsageProblem",
    "given_names",
    "given_settings",
    "limit_threads",
    "no_such_option",
    "option_names",
    "takes_settings",
]

_OTHERS = "Options"  # title of the options without a group
# What other programs call an option -> its name here.
_OTHER_NAMES = {
    "--batch-size": "--per-device-train-batch-size",
    "--device": "--use-cpu",
    "--epochs": "--num-train-epochs",
    "--lr": "--learning-rate",
    "--model": "--backbone",
}
_NOT_OF_THE_RESULT = frozenset(("config", "cpu_threads", "output_dir", "overwrite"))  # options
_NAMES_WIDTH = 36  # columns of the help for the names of options
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


class UsageProblem(typer.BadParameter):
    """A command line that is wrong; the message says all there is to say."""

    def format_message(self) -> str:
        """The message alone."""
        return str(self.message)


class Command(TyperCommand):
    """A command that reads options as people write them: `--train_file` too, and `--bf16 True` as well as `--bf16`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Spell the options as they are declared, and parse them."""
        has_arguments = any(param.param_type_name == "argument" for param in self.params)
        return super().parse_args(ctx, _respell(args, self._options(), flags_take_words=not has_arguments))

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the options in groups, those without a group last."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                groups.setdefault(getattr(param, "rich_help_panel", None) or _OTHERS, []).append(record)
        for title in sorted(groups, key=lambda title: title == _OTHERS):
            with formatter.section(title):
                formatter.write_dl(groups[title], col_max=_NAMES_WIDTH)

    def _options(self) -> dict[str, TyperOption]:
        declared = [param for param in self.params if isinstance(param, TyperOption)]
        return {name: one for one in declared for name in (*one.opts, *one.secondary_opts)}


def _respell(words: Iterable[str], options: Mapping[str, TyperOption], *, flags_take_words: bool) -> list[str]:
    """Options with dashes, and flags without the value that may follow them; other words stay as they are.

    Of two values of an option that takes one the last one counts, as everywhere, and the other one is named.

    Args:
        words: the command line.
        options: by their spellings.
        flags_take_words: whether `--flag true` is a flag and its value; else the word is an argument.
    """
    left = deque(words)
    done: list[str] = []
    values: dict[str | None, str] = {}
    while left:
        word = left.popleft()
        name, equals, value = word.partition("=")
        option = options.get(name.replace("_", "-")) if word.startswith("--") else None
        if word == "--":
            return [*done, word, *left]
        if option is None:
            done.append(word)
        elif not option.is_flag:
            done.append(name.replace("_", "-") + equals + value)
            if not equals and left:
                done.append(value := left.popleft())  # the option's value, whatever it looks like
            former, values[option.name] = values.get(option.name, value), value
            if former != value and not option.multiple:
                print_message(f"{name} is given more than once; {value!r} counts, and {former!r} does not.")
        else:
            if flags_take_words and not equals and left and left[0].lower() in (*_TRUE, *_FALSE):
                value = left.popleft()
            done += _flag(name.replace("_", "-"), value, option)
    return done


def _flag(name: str, value: str, option: TyperOption) -> list[str]:
    """A flag that has the meaning of a flag with a value."""
    if not value or value.lower() in _TRUE:
        return [name]
    if value.lower() not in _FALSE:
        raise UsageProblem(f"Invalid value for '{name}': {value!r} is neither true nor false.")
    return (option.secondary_opts if name in option.opts else option.opts)[:1]


# ---------------------------------------------------------------------------------------------------- from settings


def takes_settings(
    *kinds: type, group: str | None = None, leave_out: Iterable[str] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command an option for each setting of some dataclasses.

    Args:
        kinds: the dataclasses. A setting that several have gets one option.
        group: heading that the options stand under in the help; each setting's own if None.
        leave_out: names of settings that get no option.

    Returns:
        A decorator for a function with a parameter for each of its own options, and further ones, by name or as
        `**values`, for those of the settings.
    """
    left_out = set(leave_out)
    known = {name: one for kind in kinds for name, one in _own_first(kind) if name not in left_out}

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(function, eval_str=True)
        declared = signature.parameters.values()
        own = [one for one in declared if one.kind is not inspect.Parameter.VAR_KEYWORD and one.name not in known]
        added = [_parameter(one, group) for one in known.values()]

        @wraps(function)
        def command(**values: object) -> None:
            function(**values)

        parameters = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in own] + added
        command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {one.name: one.annotation for one in parameters}
        return command

    return decorate


def _own_first(kind: type) -> list[tuple[str, Definition]]:
    """The settings of a dataclass as it declares them, before those that it inherits."""
    own = [name for name in vars(kind)["__annotations__"] if name in definitions(kind)]
    return [(name, definitions(kind)[name]) for name in dict.fromkeys([*own, *definitions(kind)])]


def _parameter(definition: Definition, group: str | None) -> inspect.Parameter:
    about = definition.about
    kind: Any = Literal.__getitem__(definition.choices) if definition.choices else _kind(definition.kinds)
    told = group is None and about.variants and not about.group.endswith(f"({', '.join(about.variants)})")
    limits = f" ({about.range_text})" if about.above is not None or about.below is not None else ""
    option = typer.Option(
        help=f"{', '.join(about.variants)}: {about}{limits}" if told else f"{about}{limits}",
        min=about.minimum,
        max=about.maximum,
        metavar=None if definition.choices or kind is bool else f"<{kind.__name__.lower()}>",
        show_default=about.default_text or True,
        rich_help_panel=group or about.group,
        parser=_number_reader(definition) if kind in (int, float) else None,
    )
    hint = kind | None if NoneType in definition.kinds else kind
    return inspect.Parameter(
        definition.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=definition.default,
        annotation=Annotated[hint, option],
    )


def _kind(kinds: Iterable[type]) -> type:
    """The type that a word of the command line is read as, where a setting may have several."""
    known = set(kinds)
    return next(kind for kind in (Path, bool, int, float, str) if kind in known)


def _number_reader(definition: Definition) -> Callable[[object], object]:
    """What turns a word into a number of the setting's range, and says what is allowed where it cannot."""

    def read(word: object) -> object:
        try:
            value = word if word is None else (float if float in definition.kinds else int)(str(word))
            check_value(definition, value)
        except (ConfigurationError, ValueError) as err:
            name = definition.name.replace("_", "-")
            raise UsageProblem(f"Invalid value for '--{name}': {word!r}; it must be {definition.allowed}.") from err
        return value

    return read


# ---------------------------------------------------------------------------------------------------- what was given


def given_names(context: typer.Context) -> set[str]:
    """Names of the options that stand on the command line or in its `--config` file."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return {name for name, source in sources.items() if source is not None and source.name != "DEFAULT"}


def given_settings(context: typer.Context) -> dict[str, object]:
    """The options that decide what a command writes, as they were given: what a used folder is compared with."""
    return {name: context.params[name] for name in sorted(given_names(context) - _NOT_OF_THE_RESULT)}


def option_names(context: typer.Context) -> list[str]:
    """The options of a command as they are written."""
    declared = [param for param in context.command.params if isinstance(param, TyperOption)]
    return [name for one in declared for name in (*one.opts, *one.secondary_opts)]


def no_such_option(name: str, known: Iterable[str]) -> UsageProblem:
    """The error about an unknown option.

    Args:
        name: the option as it was written.
        known: all options of the command.
    """
    written = name.partition("=")[0].replace("_", "-")
    known = list(dict.fromkeys(known))
    other = _OTHER_NAMES.get(written)
    near = [other] if other in known else get_close_matches(written, known, n=3)
    return UsageProblem(f"No such option: {name}." + (f" Did you mean {' or '.join(near)}?" if near else ""))


def _usable_device(name: str | None) -> str | None:
    """Refuse a device that torch cannot compute on."""
    if name in (None, "cpu"):
        return name
    import torch

    try:
        torch.empty(0, device=name)
    except (AssertionError, NotImplementedError, RuntimeError) as err:
        there = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
        there += ["mps"] if torch.backends.mps.is_available() else []
        allowed = ", ".join(there)
        raise UsageProblem(
            f"Invalid value for '--device': {name!r} cannot be used here; choose one of {allowed}."
        ) from err
    return name


# ---------------------------------------------------------------------------------------------------- shared options

Labels = Annotated[
    Optional[str],  # noqa: UP045  typer reads it at run time
    typer.Option(
        help="Vocabulary: a file with one name per line, or a Hub data set. It may hold labels that no row has.",
        rich_help_panel="Data",
    ),
]
Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        help="Write into a folder that holds something else; what is there stays, but for files of the same names.",
        rich_help_panel="Data",
    ),
]
Device = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        help="Where to compute, e.g. cpu or cuda:0.", show_default="a GPU where there is one", callback=_usable_device
    ),
]
PredictWith = Annotated[
    Optional[PredictsWith],  # noqa: UP045
    typer.Option(help="Predict with this part of the model.", show_default="what validation rows chose"),
]
DType = Annotated[
    Optional[Literal["auto", "float32", "bfloat16"]],  # noqa: UP045
    typer.Option(
        help="Type of numbers to compute in; auto is bfloat16 where the GPU or CPU has instructions for it (faster;"
        " a few labels may differ), else float32.",
        show_default="as the model was saved",
    ),
]
CpuThreads = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(min=1, help="Number of CPU threads.", show_default="all cores"),
]
Host = Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 for all of the machine's.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="Port to listen at; 0 for a free one.")]


def limit_threads(number: int | None) -> None:
    """Let torch compute with a number of CPU threads; as many as it likes if None."""
    if number is not None:
        import torch

        torch.set_num_threads(number)
