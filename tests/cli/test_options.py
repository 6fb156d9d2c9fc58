"""Options of all commands: how they may be spelled, where they stand in the help, and what is said of a wrong one."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
import torch
import typer

from xlgen_hf.cli import main
from xlgen_hf.cli.options import Command
from xlgen_hf.settings import definitions
from xlgen_hf.training.settings import TrainingSettings
from xlgen_hf.training.trainer_settings import TrainerSettings

NAMES = [command.name for command in main.COMMANDS]


def _commands():
    """Every command with the words that ask for it, those of groups too."""
    for name in NAMES:
        command = typer.main.get_command(main.build_app([name])).commands[name]
        if hasattr(command, "commands"):
            yield from ((f"{name} {part}".split(), one) for part, one in command.commands.items())
        else:
            yield [name], command


COMMANDS = list(_commands())
IDS = [" ".join(words) for words, _ in COMMANDS]


@pytest.mark.parametrize(("words", "command"), COMMANDS, ids=IDS)
def test_every_option_is_read_with_dashes_and_with_underscores(words, command, capsys):
    assert isinstance(command, Command)
    for spelled in (str, lambda name: name.replace("-", "_")):
        given = []
        for param in (one for one in command.params if one.param_type_name == "option"):
            for name in (*param.opts, *param.secondary_opts):
                given += [f"--{spelled(name[2:])}"] if param.is_flag else [f"--{spelled(name[2:])}", "--x"]
        assert main.main([*words, "--help", *given]) == 0  # an unknown option would be refused before the help
        assert capsys.readouterr().out.startswith(f"Usage: xlgen {' '.join(words)}")


@pytest.mark.parametrize(("words", "command"), COMMANDS, ids=IDS)
def test_a_typing_error_is_answered_by_what_was_meant(words, command, capsys):
    longest = max((name for param in command.params for name in param.opts), key=len)
    required = [word for param in command.params if param.required for word in (param.opts[0], "x")]
    assert main.main([*words, *required, longest[:-2] + longest[-1], "1"]) == 2
    error = capsys.readouterr().err
    assert f"No such option: {longest[:-2] + longest[-1]}" in error
    assert longest in error.partition("Did you mean ")[2]
    assert error.count("\n") == 1


def test_every_setting_has_an_option_with_its_default():
    train = dict(zip(IDS, (command for _, command in COMMANDS), strict=True))["train"]
    params = {param.name: param for param in train.params}
    for table in (TrainingSettings, TrainerSettings):
        for name, definition in definitions(table).items():
            assert params[name].default == definition.default, name
            assert params[name].rich_help_panel == definition.about.group
            assert str(definition.about) in params[name].help
    cluster = {param.name: param for param in dict(zip(IDS, (c for _, c in COMMANDS), strict=True))["cluster"].params}
    for name in ("num_clusters", "name_weight", "decode_order", "labels"):
        assert cluster[name].default == params[name].default
    assert cluster["encoder"].default == params["backbone"].default


def test_train_help_says_which_variant_for_what_and_groups_the_options(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    assert main.main(["train", "--help"]) == 0
    shown = capsys.readouterr().out
    first_screen = "\n".join(shown.splitlines()[:24])
    for variant in ("rcl", "bcl", "mcg", "base"):
        assert re.search(rf"^    {variant} +\w", first_screen, re.MULTILINE)
    titles = re.findall(r"^(\w.*):$", shown, re.MULTILINE)
    for title in (
        "Data",
        "Model",
        "Backbone",
        "Retrieved candidates (rcl; bcl and mcg with --candidates)",
        "Label clusters (bcl, mcg)",
        "LoRA",
        "Training",
    ):
        assert title in titles
    assert titles[-1] == "Options"
    words = " ".join(shown.replace("\\", "").split())  # older versions of typer escape brackets
    assert "Learning rate of pretrained parameters. [default: 0.0002" in words


def test_help_is_as_wide_as_the_terminal(capsys, monkeypatch):
    widths = []
    for columns in (80, 140):
        monkeypatch.setenv("COLUMNS", str(columns))
        assert main.main(["train", "--help"]) == 0
        widths.append(max(map(len, capsys.readouterr().out.splitlines())))
    assert widths[0] <= 80 < 110 < widths[1] <= 140


@pytest.fixture
def flags():
    """Run a command with flags and a number; gives what it got."""
    got = {}
    app = typer.Typer()

    def command(
        bf16: bool = False,
        only: bool = typer.Option(False, "--only"),
        some_number: int = 1,
    ) -> None:
        got.update(bf16=bf16, only=only, some_number=some_number)

    app.command("x", cls=Command)(command)

    def run(*words):
        typer.main.get_command(app).main(list(words), standalone_mode=False)
        return dict(got)

    return run


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--bf16"], {"bf16": True}),
        (["--bf16", "True"], {"bf16": True}),
        (["--bf16=yes"], {"bf16": True}),
        (["--bf16", "False"], {"bf16": False}),
        (["--no-bf16", "false"], {"bf16": True}),
        (["--no_bf16"], {"bf16": False}),
        (["--only", "False"], {"only": False}),
        (["--only", "true", "--some_number", "3"], {"only": True, "some_number": 3}),
        (["--some_number=4"], {"some_number": 4}),
    ],
)
def test_flags_may_have_a_value(flags, words, expected):
    got = flags(*words)
    assert {name: got[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("words", "flag", "folder"),
    [
        (["--yes", "1"], True, "1"),
        (["--yes=no", "no"], False, "no"),
        (["true", "--yes"], True, "true"),
        (["--", "--yes"], False, "--yes"),
    ],
)
def test_arguments_are_no_values_of_flags(words, flag, folder):
    """The fault: `xlgen clean --yes 1` cleaned the present folder instead of the folder 1."""
    got = {}
    app = typer.Typer()

    def command(folder: str = typer.Argument("."), yes: bool = typer.Option(False, "--yes/--no-yes")) -> None:
        got.update(folder=folder, yes=yes)

    app.command("x", cls=Command)(command)
    typer.main.get_command(app).main(words, standalone_mode=False)
    assert got == {"folder": folder, "yes": flag}


def test_of_two_values_the_one_that_does_not_count_is_named(flags, capsys):
    assert flags("--some-number", "4", "--some_number=4")["some_number"] == 4
    assert not capsys.readouterr().err
    assert flags("--some-number=4", "--some_number", "5")["some_number"] == 5
    assert capsys.readouterr().err == "xlgen: --some_number is given more than once; '5' counts, and '4' does not.\n"


def test_a_flag_with_another_value_is_refused(flags):
    with pytest.raises(typer.BadParameter, match="'--bf16': 'maybe' is neither true nor false"):
        flags("--bf16=maybe")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("device", ["cuda", "cuda:1", "foo"])
def test_a_device_that_is_not_there_is_refused_in_a_line(capsys, tmp_path, device):
    arguments = ["cluster", "--train-file", "x.jsonl", "--output-dir", str(tmp_path / "out"), "--device", device]
    assert main.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(
        f"xlgen: error: Invalid value for '--device': '{device}' cannot be used here; choose one of cpu"
    )
    assert error.count("\n") == 1


def _complete(line: str) -> list[str]:
    asked = {"_XLGEN_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}
    done = subprocess.run(
        [sys.executable, "-m", "xlgen_hf"], env={**os.environ, **asked}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_the_shell_completes_commands_options_and_choices():
    assert set(_complete("xlgen ")) == set(NAMES)
    assert _complete("xlgen train --learn") == ["--learning-rate"]
    assert _complete("xlgen train --variant ") == ["base", "bcl", "mcg", "rcl"]
    assert "--repo-id" in _complete("xlgen push model --re")


def test_completion_can_be_installed(capsys):
    assert main.main(["--help"]) == 0
    assert "--install-completion" in capsys.readouterr().out
