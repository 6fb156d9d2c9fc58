"""`xlgen index` in several processes: they embed texts and names together, and the index is that of one process."""

from __future__ import annotations

import pytest
from processes import run_two
from tiny import ROWS

from xlgen_hf.cli.main import main
from xlgen_hf.encoders import embedding
from xlgen_hf.encoders.embedding import embed_share, embed_texts
from xlgen_hf.encoders.loaded import LoadedEncoder
from xlgen_hf.files.json_lines import write_jsonl


def _arguments(folder, checkpoint, name, *more):
    return [
        "index", "--train-file", str(folder / "rows.jsonl"), "--encoder", str(checkpoint), "--dtype", "float32",
        "--output-dir", str(folder / name), *more,
    ]  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """Rows of more than one shard."""
    count = embedding.SHARD_TEXTS + 30
    rows = [{**ROWS[row % len(ROWS)], "text": f"{ROWS[row % len(ROWS)]['text']} {row % 97}"} for row in range(count)]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    return tmp_path


@pytest.mark.parametrize("more", [("--epochs", "0"), ("--epochs", "0.05", "--trim-vocabulary")])
def test_two_processes_make_the_index_of_one(checkpoints, folder, more):
    one, two = (_arguments(folder, checkpoints["bert"], name, *more) for name in ("one", "two"))
    assert main(one) == 0
    run_two(folder, *two)
    parts = {path.relative_to(folder / "one") for path in (folder / "one").rglob("*") if path.is_file()}
    assert {path.relative_to(folder / "two") for path in (folder / "two").rglob("*") if path.is_file()} == parts
    for part in parts:
        if part.suffix == ".safetensors":
            assert (folder / "two" / part).read_bytes() == (folder / "one" / part).read_bytes(), part
    before = (folder / "two" / "score_model.json").stat().st_mtime_ns
    (folder / "again").mkdir()
    run_two(folder / "again", *two)  # it is finished: nobody waits for anything
    assert (folder / "two" / "score_model.json").stat().st_mtime_ns == before


def test_shares_are_all_that_there_is_to_embed(checkpoints, tmp_path, monkeypatch):
    monkeypatch.setattr(embedding, "SHARD_TEXTS", 3)
    texts, encoder = [row["text"] for row in ROWS], str(checkpoints["bert"])
    expected = embed_texts(texts, encoder, progress=False)
    for part in (1, 0):
        embed_share(texts, encoder, (part, 2), tmp_path)
    shards = [path.name for path in tmp_path.rglob("shard-*")]
    assert len(shards) == -(-len(texts) // 3) > 1
    again = "something is computed again"
    monkeypatch.setattr(LoadedEncoder, "computing", lambda *arguments: pytest.fail(again))
    assert (embed_texts(texts, encoder, cache_dir=tmp_path, progress=False) == expected).all()


def test_label_trees_are_made_by_one(folder, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    arguments = ["index", "--train-file", str(folder / "rows.jsonl"), "--method", "bonsai"]
    assert main([*arguments, "--output-dir", str(folder / "trees")]) == 1
    assert "Several processes cannot make label trees together" in capsys.readouterr().err
