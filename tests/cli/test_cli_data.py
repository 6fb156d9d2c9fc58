"""`xlgen inspect` and `xlgen convert`, and the options of rows that commands share."""

from __future__ import annotations

import json
import re

import pytest
import typer
from datasets import Dataset

from xlgen_hf import RowOptions, load_rows
from xlgen_hf.cli.main import main
from xlgen_hf.cli.rows import takes_row_options


@pytest.fixture(name="books")
def _books(tmp_path):
    lines = ["id;title;abstract;subjects;work"]
    lines += [f'{n};Title {n};About {n % 5};"topic {n % 3}; topic {n % 4}; all";w{n // 2}' for n in range(40)]
    path = tmp_path / "books.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


COLUMNS = ["--text-column", "title", "--text-column", "abstract", "--labels-column", "subjects"]


def test_inspect_a_file(books, tmp_path, capsys):
    report, plot = tmp_path / "report.json", tmp_path / "data.png"
    assert main(["inspect", str(books), *COLUMNS, "--output-file", str(report), "--plot", str(plot)]) == 0
    shown = capsys.readouterr()
    assert re.search(r"documents +40", shown.out)
    assert re.search(r"labels per document +mean 2\.\d+, 2 to 3", shown.out)
    assert "Published split: none of the four" in shown.out
    assert "Labels are separated by ';'" in shown.err
    content = json.loads(report.read_text(encoding="utf-8"))
    assert content["splits"]["train"]["documents"] == 40
    assert plot.stat().st_size > 1000
    again = ["inspect", str(books), *COLUMNS, "--output-file", str(report)]
    assert main(again) == 1
    assert "report.json exists already and is not replaced" in capsys.readouterr().err
    assert main([*again, "--overwrite"]) == 0


def test_inspect_splits_and_tokens(tmp_path, checkpoints, capsys):
    for name, texts in (("train", ["art and music", "art"]), ("test", ["Art!", "music"])):
        rows = [{"text": text, "labels": ["art"]} for text in texts]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    labels = tmp_path / "labels.txt"
    labels.write_text("art\nmusic\n")
    arguments = ["inspect", str(tmp_path), "--tokenizer", checkpoints["bert"], "--max-length", "4"]
    assert main([*arguments, "--labels", str(labels)]) == 0
    out = capsys.readouterr().out
    assert re.search(r"truncated texts +50\.0% +0\.0%", out)
    assert re.search(r"test +train +1", out)
    assert "Look at this (shared_texts): 1 of 2 texts of test are texts of train, too" in out
    assert "Labels in all: 2, of them in the vocabulary only: 1" in out
    files = [part for name in ("train", "test") for part in (f"--{name}-file", str(tmp_path / f"{name}.jsonl"))]
    assert main(["inspect", *files]) == 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 1, "Give one source, or --train-file"),
        (["x.jsonl", "--max-length", "5"], 1, "--max-length counts tokens; give --tokenizer"),
        (["x.jsonl", "--plot", "x.txt"], 1, "must end in .png"),
        (["x.jsonl", "--layout", "tall"], 2, "--layout"),
        (["none.jsonl"], 1, "none.jsonl: There is no such file"),
    ],
)
def test_inspect_explains(arguments, code, message, capsys):
    assert main(["inspect", *arguments]) == code
    assert message in capsys.readouterr().err


def test_convert_a_file(books, tmp_path, capsys):
    target = tmp_path / "rows.jsonl"
    assert main(["convert", str(books), str(target), *COLUMNS, "--id-column", "id", "--keep-columns", "work"]) == 0
    assert "Written to" in capsys.readouterr().out
    first = json.loads(target.read_text(encoding="utf-8").splitlines()[0])
    assert first == {"text": "Title 0 About 0", "labels": ["topic 0", "all"], "id": "0", "work": "w0"}
    assert main(["convert", str(books), str(target), *COLUMNS]) == 1
    assert "exists already" in capsys.readouterr().err
    assert main(["convert", str(books), str(target), *COLUMNS, "--overwrite"]) == 0


def test_convert_splits_by_group(books, tmp_path):
    arguments = ["--split", "0.8,0.1,0.1", "--group-column", "work", "--to", "parquet"]
    assert main(["convert", str(books), str(tmp_path / "out"), *COLUMNS, *arguments]) == 0
    parts = {name: load_rows(tmp_path / "out", split=name) for name in ("train", "validation", "test")}
    assert {name: len(part) for name, part in parts.items()} == {"train": 32, "validation": 4, "test": 4}
    works = [{int(text.split()[1]) // 2 for text in part["text"][:]} for part in parts.values()]
    assert not works[0] & works[1] and not works[0] & works[2] and not works[1] & works[2]
    assert parts["train"].column_names == ["text", "labels"]


def test_convert_removes_labels(books, tmp_path):
    unwanted = tmp_path / "unwanted.txt"
    unwanted.write_text("all\n")
    target = str(tmp_path / "pecos")
    options = ["--to", "pecos", "--remove-labels", str(unwanted), "--min-count", "19"]
    assert main(["convert", str(books), target, *COLUMNS, *options]) == 0
    names = (tmp_path / "pecos" / "output-items.txt").read_text().split("\n")
    assert set(filter(None, names)) == {"topic 0", "topic 1", "topic 2"}
    assert main(["convert", target, str(tmp_path / "half.csv"), "--drop-fraction", "0.5", "--seed", "3"]) == 0
    before, after = load_rows(target), load_rows(tmp_path / "half.csv")
    assert sum(map(len, after["labels"][:])) < sum(map(len, before["labels"][:]))


def test_convert_all_splits_of_a_folder(tmp_path):
    rows = Dataset.from_dict({"text": ["a\tb", "c"], "labels": [["x"], ["y"]]})
    rows.to_json(tmp_path / "train.jsonl")
    rows.to_json(tmp_path / "dev.jsonl")
    arguments = ["convert", str(tmp_path), str(tmp_path / "annif"), "--to", "annif"]
    assert main(arguments) == 1
    assert main([*arguments, "--join-lines"]) == 0
    assert load_rows(tmp_path / "annif", split="validation")["text"][:] == ["a b", "c"]
    assert main(["convert", str(tmp_path), str(tmp_path / "one.csv"), "--source-split", "train"]) == 0
    assert load_rows(tmp_path / "one.csv")["text"][:] == ["a\tb", "c"]


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (["--to", "xml"], 1, "There is no format 'xml'"),
        (["--split", "a,b"], 2, "'a,b' is not a list of fractions"),
        (["--split", "0.5,0.2,0.2,0.1"], 1, "--split has 4 fractions; give as many different --split-names"),
        (["--split", "0.5,0.6"], 1, "that sum to 1"),
        (["--split", "0.5,0.5", "--group-column", "author"], 1, "There is no column 'author'"),
    ],
)
def test_convert_explains(books, tmp_path, more, code, message, capsys):
    assert main(["convert", str(books), str(tmp_path / "out"), *COLUMNS, *more]) == code
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------------------------------------------- shared options


def run(command, *arguments):
    app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(command)
    app(args=list(arguments), standalone_mode=False)


def test_commands_get_one_value_of_all_row_options():
    seen = []

    @takes_row_options
    def command(name: str, count: int = 3, *, rows: RowOptions) -> None:
        """Do something."""
        seen.append((name, count, rows))

    run(command, "x", "--text-column", "a", "--text-column", "b", "--label-separator", ";", "--layout", "long")
    assert seen == [("x", 3, RowOptions(text_column=("a", "b"), label_separator=";", layout="long"))]
    run(command, "x", "--label-separator", "", "--count", "4")
    assert seen[1] == ("x", 4, RowOptions(label_separator=""))
    run(command, "x")
    assert seen[2] == ("x", 3, RowOptions())
    assert command.__doc__ == "Do something."


def test_options_can_be_left_out(capsys):
    @takes_row_options(leave_out=("id_column", "keep_columns"))
    def command(*, rows: RowOptions) -> None:
        """Do something."""

    with pytest.raises(Exception, match="No such option"):
        run(command, "--id-column", "x")
    run(command, "--encoding", "utf-8")
