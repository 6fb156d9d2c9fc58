"""README and documentation: every command line parses, every block of Python names what exists, figures are measured.

`benchmarks/run_docs.sh` runs the blocks that are marked, the notebooks, and the build of the pages.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import shlex
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from doc_blocks import ROOT, Block, blocks_of, pages

import xlgen_hf
from xlgen_hf.cli.config import more_words
from xlgen_hf.cli.main import COMMANDS, build_app
from xlgen_hf.cli.options import given_names, option_names
from xlgen_hf.cli.trainer_arguments import argument_names, parse_arguments
from xlgen_hf.settings import definitions
from xlgen_hf.training.settings import TrainingSettings

DOCS = ROOT / "docs"
NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))
ALL_TEXTS = [*pages(), *(ROOT / name for name in ("CONTRIBUTING.md", "SECURITY.md", "benchmarks/README.md"))]
ALL_TEXTS.append(ROOT / "hub_cards/README.md")
# What a notebook imports from its own kernel, which the extra `docs` installs and `test` does not, and Ray, in a
# recipe.
OTHER_MODULES = {"IPython", "ray"}
# Options of other programs that the texts name.
OTHER_OPTIONS = {"--module", "--cpu", "--multi_gpu", "--node_rank", "--nproc_per_node", "--shutdown-timeout"}
GENERATED = {f"reference/commands/xlgen-{command.name}.md" for command in COMMANDS}


def all_blocks(language: str) -> list[Block]:
    return [block for page in pages() for block in blocks_of(page) if block.language == language]


# ---------------------------------------------------------------------------------------------------- command lines


def command_lines(code: str) -> Iterator[list[str]]:
    """Arguments of each `xlgen` in lines of shell, however it is started."""
    for line in re.split(r"\n|&&", code.replace("\\\n", " ")):
        words = shlex.split(line, comments=True)
        for start in ("xlgen", "venv/bin/xlgen", "xlgen_hf"):
            if start in words[:1] or (start == "xlgen_hf" and start in words):
                yield words[words.index(start) + 1 :]


def parsed(arguments: list[str]) -> typer.Context:
    """The context of a command line, read by the program's own parser; raises what the program would report."""
    command: Any = typer.main.get_command(build_app(arguments))
    name = "xlgen"
    while hasattr(command, "commands"):
        first, *arguments = arguments
        assert first in command.commands, f"{name} has no command {first!r}"
        command, name = command.commands[first], f"{name} {first}"
    context: typer.Context = command.make_context(name, arguments)
    words = [*more_words(context), *context.args]
    if words:
        parse_arguments(Path("out"), words, option_names(context), has_validation=True)
    if name == "xlgen train":
        known = definitions(TrainingSettings)
        given = {name: value for name, value in context.params.items() if name in known}
        TrainingSettings(**given).check_effect(given_names(context))
    return context


@pytest.fixture
def shown_files(tmp_path, monkeypatch):
    """A working folder with the files that pages show."""
    for page in pages():
        for block in blocks_of(page):
            if block.title:
                (tmp_path / block.title).write_text(block.code, encoding="utf-8")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("block", all_blocks("bash"), ids=lambda block: block.place)
def test_command_lines_parse(block, shown_files):
    for arguments in command_lines(block.code):
        parsed(arguments)


def test_there_are_command_lines_of_every_command():
    shown = {arguments[0] for block in all_blocks("bash") for arguments in command_lines(block.code)}
    assert shown >= {command.name for command in COMMANDS}


def test_a_wrong_command_line_does_not_parse():
    (arguments,) = command_lines("torchrun -m xlgen_hf train --train-file a --output-dir b --num_train_epoch 3")
    with pytest.raises(typer.BadParameter, match="No such option: --num_train_epoch"):
        parsed(arguments)


def every_option() -> set[str]:
    found = {f"--{name}" for name in argument_names()} | {"--help", "--verbose", "--version", "--install-completion"}
    for command in COMMANDS:
        known: Any = typer.main.get_command(build_app([command.name]))
        for one in (known.commands[command.name], *getattr(known.commands[command.name], "commands", {}).values()):
            found |= {option for param in one.params for option in (*param.opts, *param.secondary_opts)}
    return found


def test_options_in_the_text_exist():
    known = {option.replace("_", "-") for option in every_option() | OTHER_OPTIONS}
    for page in pages():
        text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        named = {option for code in re.findall(r"`([^`\n]+)`", text) for option in re.findall(r"--[a-z][\w-]*", code)}
        assert {option for option in named if option.replace("_", "-") not in known} == set(), page


# ---------------------------------------------------------------------------------------------------- Python


def check_python(code: str, place: str) -> None:
    """Check that what is imported exists, and that calls of this package's names have arguments of theirs."""
    tree = ast.parse(code, place)
    ours: dict[str, Any] = {"xlgen_hf": xlgen_hf}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in {alias.name for alias in node.names} - OTHER_MODULES:
                import_module(name)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] not in OTHER_MODULES:
            module = import_module(node.module or "")
            for alias in node.names:
                value = getattr(module, alias.name)
                if node.module and node.module.split(".")[0] == "xlgen_hf":
                    ours[alias.asname or alias.name] = value
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ours:
            getattr(ours[node.value.id], node.attr)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ours:
            check_keywords(ours[node.func.id], node, place)


def check_keywords(function: Any, call: ast.Call, place: str) -> None:
    parameters = inspect.signature(function).parameters
    if not any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values()):
        unknown = {keyword.arg for keyword in call.keywords if keyword.arg} - set(parameters)
        assert unknown == set(), f"{place}: {function.__name__} has no {unknown}"


@pytest.mark.parametrize("block", all_blocks("python"), ids=lambda block: block.place)
def test_python_names_exist(block):
    check_python(block.code, block.place)


def test_python_of_wrong_names_is_found():
    with pytest.raises(AttributeError, match="load_everything"):
        check_python("from xlgen_hf import load_everything", "here")
    with pytest.raises(AssertionError, match=r"no \{'kinds'\}"):
        check_python("from xlgen_hf import DecisionRule\nDecisionRule(kinds='own')", "here")


def test_reference_has_every_public_name():
    text = (DOCS / "reference/python.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^::: xlgen_hf\.(\w+)$", text, re.MULTILINE)) == sorted(
        set(xlgen_hf.__all__) - {"__version__"}
    )


# ---------------------------------------------------------------------------------------------------- notebooks


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_ran_and_can_run(path, shown_files):
    cells = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert [output for cell in cells for output in cell["outputs"] if output["output_type"] == "error"] == []
    code = ["".join(cell["source"]) for cell in cells]
    shell = [cell for cell in code if cell.startswith("%%bash")]
    for arguments in command_lines("\n".join(shell)):
        parsed(arguments[: arguments.index(">")] if ">" in arguments else arguments)
    check_python("\n".join(cell for cell in code if cell not in shell), path.name)
    assert shell


# ---------------------------------------------------------------------------------------------------- links, figures


def named_pages(entry: Any) -> Iterator[str]:
    if isinstance(entry, str):
        yield entry
    else:
        for part in entry.values() if isinstance(entry, dict) else entry:
            yield from named_pages(part)


def test_navigation_has_every_page():
    config = re.sub(r"!!python\S*", "", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    there = {path.relative_to(DOCS).as_posix() for path in (*DOCS.rglob("*.md"), *NOTEBOOKS)}
    assert set(named_pages(yaml.safe_load(config)["nav"])) == there | GENERATED


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        if "://" in target:
            continue
        path = page.parent / target
        listed = page.parent == DOCS / "reference/commands" and path.relative_to(DOCS).as_posix() in GENERATED
        assert path.exists() or listed, f"{page.name} links to {target}, which a checkout lacks"


@pytest.mark.parametrize("page", ALL_TEXTS, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_paths_in_the_text_exist(page):
    paths = re.findall(r"`((?:xlgen_hf|benchmarks|tests|docs|evaluate_metrics)/[\w./-]+)`", page.read_text("utf-8"))
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_scores_in_the_text_were_measured():
    """Every score of three digits stands in a report or a README of the benchmarks."""
    reports = [*(ROOT / "benchmarks").rglob("*.md")]
    measured = {number for path in reports for number in re.findall(r"\b0\.\d{3}\b", path.read_text("utf-8"))}
    for page in pages():
        shown = set(re.findall(r"\b0\.\d{3}\b", page.read_text("utf-8")))
        assert shown - measured == set(), page


def test_readme_fits_on_two_screens():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 110
