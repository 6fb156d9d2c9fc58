from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest

import xlgen_hf
from xlgen_hf.cli import console, main
from xlgen_hf.errors import ConfigurationError, DataError

HEAVY = {"torch", "transformers", "datasets", "numpy", "scipy", "sklearn", "evaluate", "accelerate"}


def run(*arguments, module="xlgen_hf"):
    return subprocess.run([sys.executable, "-m", module, *arguments], capture_output=True, text=True, timeout=120)


def test_help_imports_nothing_heavy():
    """Each in turn in one process: what one of them imports is found after it."""
    lines = [["--version"], ["--help"], ["-h"], *([command.name, "--help"] for command in main.COMMANDS)]
    script = (
        "import json, sys\n"
        "from xlgen_hf.cli.main import main\n"
        f"for arguments in {lines!r}:\n"
        "    code = main(arguments)\n"
        "    modules = sorted(name for name in sys.modules if '.' not in name)\n"
        "    print('\\n' + json.dumps([code, modules]) + '\\n=>')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    outputs = done.stdout.split("=>\n")[:-1]
    assert len(outputs) == len(lines), done.stderr
    for arguments, output in zip(lines, outputs, strict=True):
        code, modules = json.loads(output.splitlines()[-1])
        assert code == 0, done.stderr
        assert not HEAVY & set(modules), arguments
        name = "" if len(arguments) == 1 else f"{arguments[0]} "
        first = f"xlgen {xlgen_hf.__version__}\n" if arguments == ["--version"] else f"Usage: xlgen {name}"
        assert output.startswith(first)


def test_help_lists_every_command():
    done = run("--help")
    assert done.returncode == 0
    for command in main.COMMANDS:
        assert re.search(rf"^  {command.name} +\w", done.stdout, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Usage: xlgen"),
        (["clustr"], "No such command 'clustr'"),
        (["clustr"], "Did you mean 'cluster'"),
        (["--verbos"], "No such option: --verbos. Did you mean --verbose"),
        (["cluster"], "Missing option '--train-file'"),
        (
            ["cluster", "--train-file", "x", "--output-dir", "y", "--num-clusters", "none"],
            "Invalid value for '--num-clusters'",
        ),
        (["predict", "--num_beans", "3"], "No such option: --num_beans. Did you mean --num-beams"),
        (
            ["experiment", "--output-dir", "x", "--no-figures", "--num_train_epoks", "1"],
            "Did you mean --num-train-epochs",
        ),
    ],
)
def test_wrong_command_line_ends_with_2(arguments, message, capsys):
    assert main.main(arguments) == 2
    shown = capsys.readouterr()
    assert message in shown.err and shown.out == ""
    assert shown.err.count("\n") == 1 or arguments == []


def test_bad_data_ends_with_1_and_one_line(tmp_path, capsys):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "x", "labels": 5}\n')
    assert main.main(["cluster", "--train-file", str(path), "--output-dir", str(tmp_path / "out")]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(f"xlgen: error: {path}, row 1: The label 5 is an int")
    assert shown.err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ConfigurationError("no such variant"), 1, "xlgen: error: no such variant\n"),
        (DataError("bad", file="f", row=3), 1, "xlgen: error: f, row 3: bad\n"),
        (PermissionError(13, "Permission denied", "/x"), 1, "xlgen: error: [Errno 13] Permission denied: '/x'\n"),
        (None, 0, ""),
    ],
)
def test_exit_codes(monkeypatch, capsys, error, code, message):
    def command():
        if error is not None:
            raise error

    monkeypatch.setattr("xlgen_hf.cli.evaluate.evaluate", command)
    assert main.main(["evaluate"]) == code
    assert capsys.readouterr().err == message


def test_programming_errors_keep_their_traceback(monkeypatch):
    def command():
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("xlgen_hf.cli.evaluate.evaluate", command)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        main.main(["evaluate"])


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals to send")
@pytest.mark.parametrize(("number", "code", "word"), [("SIGINT", 130, "interrupted"), ("SIGTERM", 143, "terminated")])
@pytest.mark.parametrize(
    ("name", "again"),
    [
        ("evaluate", "Run the same command again."),
        ("experiment", "The same command runs what is missing."),
        ("predict", "With --output-file the same command continues where this run stopped."),
    ],
)
def test_signals_end_with_their_code_and_say_how_to_continue(monkeypatch, capsys, number, code, word, name, again):
    def command():
        os.kill(os.getpid(), getattr(signal, number))
        time.sleep(10)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(f"xlgen_hf.cli.{name}.{name}", command)
    assert main.main([name]) == code
    assert capsys.readouterr().err == f"xlgen: {word}. {again}\n"
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_command_in_a_thread_leaves_signals_alone(monkeypatch):
    codes = []
    monkeypatch.setattr("xlgen_hf.cli.evaluate.evaluate", lambda: None)
    thread = threading.Thread(target=lambda: codes.append(main.main(["evaluate"])))
    thread.start()
    thread.join(timeout=60)
    assert codes == [0]


@pytest.mark.parametrize(("processes", "last_steps"), [("1", "taken apart\n"), ("2", "")])
def test_one_of_several_processes_ends_without_the_last_steps_of_python(processes, last_steps):
    """There threads of a process group abort the process; what is registered for the end still runs."""
    script = """
import atexit, sys
from xlgen_hf.cli import main as program
class Last:
    def __del__(self):
        sys.stdout.write("taken apart\\n")
last = Last()
def work():  # loads libraries that have something to do at the end
    atexit.register(sys.stdout.write, "registered\\n")
    return 2
program.main = work
program.run()
"""
    environment = os.environ | {"WORLD_SIZE": processes}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, env=environment)
    assert (done.returncode, done.stdout) == (2, f"registered\n{last_steps}"), done.stderr


def test_a_closed_pipe_ends_without_a_word():
    command = f"{sys.executable} -m xlgen_hf train --help | head -c 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("U", "")


def test_table_goes_to_stdout_and_messages_to_stderr(capsys):
    console.print_table("Scores [bold]", ("system", "micro F1"), [("a [b]", 0.12345), ("c", None), ("d", 7)])
    console.print_error("bad [x]")
    shown = capsys.readouterr()
    assert shown.err == "xlgen: error: bad [x]\n"
    lines = [line.split() for line in shown.out.splitlines() if line.strip()]
    assert lines[0] == ["Scores", "[bold]"]
    assert lines[-3:] == [["a", "[b]", "0.123"], ["c", "-"], ["d", "7"]]


def test_logging_goes_to_stderr_of_the_moment(capsys):
    import logging

    logger = logging.getLogger("xlgen_hf")
    before = (logger.handlers[:], logger.level)
    try:
        console.setup_logging()
        console.setup_logging()
        logging.getLogger("xlgen_hf.data.rows").info("read %d rows", 3)
        logging.getLogger("xlgen_hf.data.rows").debug("not shown")
        assert capsys.readouterr().err == "INFO: read 3 rows\n"
        console.setup_logging(verbose=True)
        logging.getLogger("xlgen_hf.data.rows").debug("shown")
        assert capsys.readouterr().err.endswith("DEBUG xlgen_hf.data.rows: shown\n")
    finally:
        logger.handlers[:], _ = before[0], logger.setLevel(before[1])
