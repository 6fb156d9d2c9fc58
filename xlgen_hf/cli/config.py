"""`--config`: options of a command from a YAML file, and the file that a run leaves of its own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Optional

import typer

from .options import UsageProblem, no_such_option

__all__ = ["CONFIG_FILE", "Config", "more_words", "write_config"]

CONFIG_FILE = "train_config.yaml"
_MORE = "xlgen_hf.cli.config"  # where a context keeps the trainer's arguments of the file
_HEADER = "# What this model was trained with; `xlgen train --config` reads it.\n"


def _read_config(context: typer.Context, path: Path | None) -> Path | None:
    """Take the values of a file as defaults of the options, before these are read."""
    if path is None:
        return None
    declared = {param.name: param for param in context.command.params}
    values: dict[str, object] = {}
    more: dict[str, object] = {}
    for key, value in _load(path).items():
        name = str(key).replace("-", "_")
        if name in declared and name != "config":
            multiple = getattr(declared[name], "multiple", False)
            if isinstance(value, dict) or (isinstance(value, list) and not multiple):
                raise UsageProblem(f"{path}: {key!r} must be a single value, not {value!r}.")
            values[name] = value
        else:
            more[str(key)] = value
    _check_more(path, more, [str(name) for name in declared if name not in ("config", "help")])
    context.default_map = {**(context.default_map or {}), **values}
    context.meta[_MORE] = {key.replace("-", "_"): value for key, value in more.items()}
    return path


def _load(path: Path) -> dict[object, object]:
    import yaml

    class Loader(yaml.SafeLoader):
        """Refuses a key that is there twice, of which YAML takes the last."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[object, object]:
            keys = [self.construct_object(key, deep=True) for key, _ in node.value]
            twice = next((key for number, key in enumerate(keys) if key in keys[:number]), None)
            if twice is not None:
                raise UsageProblem(f"{path}: {twice!r} is there twice; leave one of them out.")
            return super().construct_mapping(node, deep=deep)

    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader)
    except (OSError, UnicodeDecodeError) as err:
        raise UsageProblem(f"--config {path} cannot be read: {getattr(err, 'strerror', None) or err}.") from err
    except yaml.YAMLError as err:
        raise UsageProblem(f"--config {path} is not YAML: {' '.join(str(err).split())}.") from err
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UsageProblem(f"--config {path} must hold lines such as `num_train_epochs: 3`.")
    return content


def _check_more(path: Path, more: Mapping[str, object], declared: list[str]) -> None:
    """Refuse keys that are neither an option of the command nor an argument of the trainer."""
    if not more:
        return
    from .trainer_arguments import argument_names

    known = argument_names()
    for key in more:
        if key.replace("-", "_") not in known:
            error = no_such_option(key.replace("_", "-"), [name.replace("_", "-") for name in (*declared, *known)])
            raise UsageProblem(f"{path}: {str(error.message).replace('No such option', 'no such setting')}")


Config = Annotated[
    Optional[Path],  # noqa: UP045  typer reads it at run time
    typer.Option(
        help="YAML file with any of these options, e.g. `num_train_epochs: 3`. The command line has precedence.",
        callback=_read_config,
        is_eager=True,
        rich_help_panel="Data",
    ),
]


def more_words(context: typer.Context) -> list[str]:
    """The trainer's arguments of the file that the command has no options for, as words of a command line."""
    words = []
    for name, value in context.meta.get(_MORE, {}).items():
        values = value if isinstance(value, list) else [value]
        if value is not None:
            words += [f"--{name}", *(json.dumps(one) if isinstance(one, dict) else str(one) for one in values)]
    return words


def write_config(folder: Path, values: Mapping[str, object]) -> None:
    """Keep the values of a run, without tokens, as a file for `--config`.

    Args:
        folder: where [`CONFIG_FILE`] goes.
        values: values by the names of options; those that are None are left out.
    """
    import yaml

    from ..files.atomic import atomic_path

    kept = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in values.items()
        if value is not None and not name.endswith("token")
    }
    with atomic_path(folder / CONFIG_FILE) as aside:
        aside.write_text(_HEADER + yaml.safe_dump(kept, sort_keys=False, allow_unicode=True), encoding="utf-8")
