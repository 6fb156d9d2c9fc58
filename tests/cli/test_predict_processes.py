"""`xlgen predict` in several processes: each text once, in order, one file, continued by any number of them."""

from __future__ import annotations

import json

import pytest
from processes import run_two

from xlgen_hf.cli import predict as command
from xlgen_hf.cli.main import main
from xlgen_hf.cli.processes import Processes, check_alone, working_together
from xlgen_hf.errors import ConfigurationError
from xlgen_hf.files.json_lines import BlockFolder, PartialOutput, write_jsonl
from xlgen_hf.prediction.predictor import Predictor

WORDS = "a history of church music modern art the piano organ printing".split()


@pytest.fixture
def folder(make_model, tmp_path):
    """A saved model, and texts of several lengths."""
    model, processor = make_model("bert", "bcl")
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    texts = [" ".join(WORDS[(row + place) % len(WORDS)] for place in range(1 + row % 7)) for row in range(50)]
    write_jsonl(tmp_path / "texts.jsonl", [{"id": row, "text": text} for row, text in enumerate(texts)])
    return tmp_path


def _arguments(folder, name):
    return [
        "predict", "--model", str(folder / "model"), "--input-file", str(folder / "texts.jsonl"),
        "--output-file", str(folder / name), "--id-column", "id", "--device", "cpu",
    ]  # fmt: skip


def test_two_processes_write_what_one_does(folder):
    lines = (folder / "texts.jsonl").read_text(encoding="utf-8").splitlines()
    (folder / "texts.jsonl").write_text("\n".join((lines * 21)[: command.CHUNK_SIZE + 6]), encoding="utf-8")
    assert main(_arguments(folder, "one.jsonl")) == 0
    expected = (folder / "one.jsonl").read_bytes()
    run_two(folder, *_arguments(folder, "two.jsonl"))  # those of torchrun train in `training/test_processes.py`
    assert (folder / "two.jsonl").read_bytes() == expected
    assert [path.name for path in folder.glob("*two.jsonl*")] == ["two.jsonl"]


class _Told(Processes):
    """One of several processes whose others have already done what it waits for."""

    def told(self, number: int = 0) -> int:
        return number


def _write_as(monkeypatch, folder, name, processes):
    """Let one of several processes do its share, as if the others did theirs at other times."""

    class Joined:
        def __enter__(self):
            return processes

        def __exit__(self, *error):
            return None

    monkeypatch.setattr(command, "working_together", lambda name: Joined())
    return main(_arguments(folder, name))


def test_blocks_that_processes_left_are_not_predicted_again(folder, monkeypatch):
    """Whatever the number of processes is that continues: here three of them did a part, and one goes on alone."""
    monkeypatch.setattr(command, "CHUNK_SIZE", 8)
    assert main(_arguments(folder, "one.jsonl")) == 0
    with monkeypatch.context() as patch:  # the first process claims the output, and is killed at once
        patch.setattr(command, "write_share", lambda *parts: (_ for _ in ()).throw(KeyboardInterrupt))
        assert _write_as(patch, folder, "out.jsonl", _Told(0, 3)) == 130
    assert _write_as(monkeypatch, folder, "out.jsonl", _Told(1, 3)) == 0
    assert not (folder / "out.jsonl").exists()
    blocks = BlockFolder(folder / "out.jsonl")
    assert [first for first in range(0, 50, 8) if first in blocks] == [8, 32]
    seen, predict = [], Predictor.predict

    def counted(self, texts, *args, **kwargs):
        seen.append(len(texts))
        return predict(self, texts, *args, **kwargs)

    monkeypatch.setattr(Predictor, "predict", counted)
    assert _write_as(monkeypatch, folder, "out.jsonl", Processes()) == 0
    assert seen == [8, 8, 8, 8, 2]
    assert (folder / "out.jsonl").read_bytes() == (folder / "one.jsonl").read_bytes()
    assert not blocks.folder.exists()


def test_blocks_of_another_run_are_neither_used_nor_lost(tmp_path):
    path, rows = tmp_path / "out.jsonl", [{"labels": ["a"]}, {"labels": ["b"]}]
    with PartialOutput(path, {"beams": 1}, 1, rows=2) as output:
        output.blocks.write(1, rows[1:])
    with pytest.raises(ConfigurationError, match=r"left by a run with other settings.*beams is 2, was 1"):
        PartialOutput(path, {"beams": 2}, 1, rows=2)
    with PartialOutput(path, {"beams": 1}, 1, rows=2) as output:
        assert 1 in output.blocks
        assert output.blocks.read(1) == rows[1:]
    with PartialOutput(path, {"beams": 2}, 1, rows=2, overwrite=True) as output:
        assert 1 not in output.blocks
        output.append(rows)
        output.finish()
    assert [json.loads(line) for line in path.read_text().splitlines()] == rows
    assert [one.name for one in tmp_path.iterdir()] == ["out.jsonl"]


def test_several_processes_do_not_print(folder, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    arguments = _arguments(folder, "out.jsonl")
    place = arguments.index("--output-file")
    assert main([*arguments[:place], *arguments[place + 2 :]]) == 1
    assert "Several processes cannot print together; give --output-file" in capsys.readouterr().err
    with pytest.raises(ConfigurationError, match="one after the other"):
        check_alone("one after the other")


def test_processes_that_do_not_find_each_other_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    message = r"WORLD_SIZE=2 says that 2 processes share the work, .*torchrun --nproc_per_node 2 -m xlgen_hf predict"
    with pytest.raises(ConfigurationError, match=message), working_together("predict"):
        raise AssertionError


def test_one_process_is_alone(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with working_together("predict") as processes:
        assert (processes.rank, processes.count, processes.is_first) == (0, 1, True)
        assert processes.told(7) == 7
