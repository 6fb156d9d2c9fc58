"""What `mkdocs build` adds to the pages: the reference of the command line, figures of the benchmarks, plain names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import griffe
import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from xlgen_hf.cli.main import COMMANDS, build_app

_ROOT = Path(__file__).parents[1]
_COMMANDS_FOLDER = "reference/commands"
FIGURES = {
    f"images/{name}.png": f"benchmarks/yso20k-experiment/{name}.png"
    for name in ("figure_1_overall", "figure_2_long_tail", "figure_3_pu")
}
"""Path in the documentation -> path in the repository."""

_OPTION = re.compile(r"(?<![\w-])(--[a-z][\w-]*)")
_CROSS_REFERENCE = re.compile(r"\[(`[^`\]]+`)\](?![\[(])")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each command, and the figures."""
    for name in (command.name for command in COMMANDS):
        files.append(File.generated(config, f"{_COMMANDS_FOLDER}/xlgen-{name}.md", content=command_page(name)))
    for path, source in FIGURES.items():
        files.append(File.generated(config, path, abs_src_path=str(_ROOT / source)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Take the figures from the site; in a checkout the pages link to where they are in the repository."""
    for path, source in FIGURES.items():
        markdown = markdown.replace(f"](../{source})", f"]({path})")
    return markdown


def command_page(name: str) -> str:
    """The reference of a command, made of what its `--help` is made of."""
    program = typer.main.get_command(build_app([name]))
    command = program.commands[name]  # type: ignore[attr-defined]
    return "\n".join(_command_lines(command, f"xlgen {name}", "#"))


def _command_lines(command: Any, path: str, heading: str) -> list[str]:
    context = command.make_context(path, [], resilient_parsing=True)
    lines = [f"{heading} `{path}`", "", *_help_lines(command.help or "")]
    lines += ["", "```console", f"$ {path} {' '.join(command.collect_usage_pieces(context))}", "```", ""]
    groups: dict[str, list[tuple[str, str]]] = {}
    for param in command.get_params(context):
        record = param.get_help_record(context)
        if record is not None and "--help" not in record[0]:
            groups.setdefault(getattr(param, "rich_help_panel", None) or "Options", []).append(record)
    for title in sorted(groups, key=lambda title: title == "Options"):
        lines += ["", f"{heading}# {title}", "", "| option | meaning |", "|---|---|"]
        lines += [f"| `{_line(option)}` | {_plain(_line(meaning))} |" for option, meaning in groups[title]]
    lines += ["", command.epilog or ""]
    for sub in getattr(command, "commands", {}).values():
        lines += ["", *_command_lines(sub, f"{path} {sub.name}", heading + "#")]
    return lines


def _help_lines(text: str) -> list[str]:
    r"""The text of a help page; paragraphs that click keeps as they are (after a line with \b) are a block of code."""
    lines: list[str] = []
    for paragraph in text.split("\n\n"):
        kept = paragraph.startswith("\b\n")
        lines += ["```text", paragraph[2:], "```", ""] if kept else [_plain(paragraph), ""]
    return lines


def _plain(text: str) -> str:
    """Text in which options are code, and nothing outside of code is taken for HTML or for a cell of a table."""
    parts = text.split("`")  # every second one is code already
    parts[::2] = [_OPTION.sub(r"`\1`", part.replace("<", "&lt;").replace("|", "\\|")) for part in parts[::2]]
    return "`".join(parts)


def _line(text: str) -> str:
    return " ".join(text.split())


class PlainNames(griffe.Extension):
    """Shows [`name`] in docstrings as `name`."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change the docstring of an object."""
        if obj.docstring is not None:
            obj.docstring.value = _CROSS_REFERENCE.sub(r"\1", obj.docstring.value)
