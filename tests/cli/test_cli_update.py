"""`xlgen update` and what feeds it: printed numbers, the journal, staged labels, and what is refused."""

from __future__ import annotations

import json

import pytest
from sources import make_retriever
from tiny import ROWS

from xlgen_hf.cli.main import main
from xlgen_hf.errors import ConfigurationError, DataError, ModelFolderError
from xlgen_hf.files.json_lines import write_jsonl
from xlgen_hf.labels.concepts import Concept
from xlgen_hf.labels.space import LabelSpace
from xlgen_hf.labels.vocabulary import Vocabulary
from xlgen_hf.loading import load_predictor
from xlgen_hf.prediction.results import LabelPrediction, NovelLabel
from xlgen_hf.prediction.staging import StagedLabels
from xlgen_hf.ranking.score_model import ScoreModel
from xlgen_hf.retrieval.model_sources import save_source_alone
from xlgen_hf.updating.staged import read_new_labels


@pytest.fixture
def index(checkpoints, label_space, tmp_path):
    retriever = make_retriever(checkpoints["bert"], label_space)
    save_source_alone(tmp_path / "index", label_space, "retrieval", retriever, ScoreModel())
    return tmp_path / "index"


def _prediction(*novel: tuple[str, float]) -> LabelPrediction:
    return LabelPrediction([], [], novel_labels=[NovelLabel(name, score, "music") for name, score in novel])


def test_the_numbers_are_printed_and_the_journal_is_listed(index, tmp_path, capsys):
    rows = tmp_path / "rows.jsonl"
    new = [{"text": "a harp", "labels": ["music"]}, {"text": ROWS[0]["text"], "labels": ["music"]}]
    rows.write_text("".join(json.dumps(row) + "\n" for row in new))
    command = ["update", "--model", str(index)]
    assert main([*command, "--add-rows", str(rows), "--rename", "art=fine art", "--merge", "organ=piano"]) == 0
    shown = capsys.readouterr().out
    for line in ("labels renamed: 1", "labels merged: 1", "documents that are new: 1", "got other labels: 1"):
        assert line in shown
    assert main([*command, "--remove", "modern art", "--remove", "piano"]) == 0
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert "1 added, 1 corrected" in shown and "2 removed" in shown
    assert main([*command, "--undo"]) == 0
    assert "Update 2 of" in capsys.readouterr().out
    assert "piano" in LabelSpace.load(index)
    assert main([*command, "--add-rows", str(rows)]) == 0
    assert "Nothing changed" in capsys.readouterr().out


def test_evidence_names_added_documents_until_they_are_taken_back(checkpoints, tmp_path):
    folder, new = tmp_path / "index", tmp_path / "new.jsonl"
    write_jsonl(tmp_path / "rows.jsonl", [{"id": f"row-{place}", **row} for place, row in enumerate(ROWS)])
    write_jsonl(new, [{"id": "corrected by Ada", "text": "zither concerts in spring", "labels": ["music"]}])
    write_jsonl(tmp_path / "texts.jsonl", [{"text": "zither concerts in spring", "subjects": ["art"]}])
    index = ["index", "--train-file", str(tmp_path / "rows.jsonl"), "--id-column", "id", "--epochs", "0"]
    assert main([*index, "--encoder", checkpoints["bert"], "--output-dir", str(folder)]) == 0

    def documents(*options: str) -> set[str]:
        out = tmp_path / "out.jsonl"
        predict = ["predict", "--model", str(folder), "--input-file", str(tmp_path / "texts.jsonl"), "--evidence"]
        assert main([*predict, "--output-file", str(out), "--overwrite", *options]) == 0
        (row,) = (json.loads(line) for line in out.read_text(encoding="utf-8").splitlines())
        return {one["id"] for reason in row["evidence"] for one in reason["documents"]}

    before = documents()
    assert before <= {f"row-{place}" for place in range(len(ROWS))}
    update = ["update", "--model", str(folder)]
    assert main([*update, "--add-rows", str(new), "--id-column", "id"]) == 0
    assert "corrected by Ada" in documents() and "corrected by Ada" in documents("--keep-column", "subjects")
    new.write_text('{"text": "a zither", "labels": ["art"]}\n', encoding="utf-8")
    assert main([*update, "--add-rows", str(new)]) == 0
    assert list(load_predictor(str(folder)).source.document_names.ids)[-2:] == ["corrected by Ada", "10"]
    for _ in range(2):
        assert main([*update, "--undo"]) == 0
    assert documents() == before and len(load_predictor(str(folder)).source.document_names) == len(ROWS)


def test_names_and_ids_that_hold_the_sign(checkpoints, label_space, tmp_path, capsys):
    """Concepts whose ids hold it can be renamed and merged; what may be read in two ways is refused."""
    folder = tmp_path / "index"
    concepts = [Concept(f"urn:?id={number}", {"en": name}) for number, name in enumerate(label_space.names)]
    vocabulary = Vocabulary(concepts)
    parts = (label_space, "retrieval", make_retriever(checkpoints["bert"], label_space), ScoreModel(), vocabulary)
    save_source_alone(folder, *parts)
    command, art, organ = ["update", "--model", str(folder)], vocabulary.ids["art"], vocabulary.ids["organ"]
    assert main([*command, "--rename", f"{art}=E=mc2", "--merge", f"{organ}=E=mc2"]) == 0
    names = load_predictor(str(folder)).label_space.names
    assert "E=mc2" in names and not {"art", "organ"} & {*names}
    assert main([*command, "--rename", "music=E", "--rename", "piano=mc2"]) == 0
    assert main([*command, "--rename", "E=mc2=energy"]) == 1
    told = capsys.readouterr().err
    assert "several ways to read it fit: 'E' and 'mc2=energy' or 'E=mc2' and 'energy'" in told
    assert main([*command, "--rename", '["E=mc2", "energy"]']) == 0
    assert {"E", "energy"} <= {*load_predictor(str(folder)).label_space.names}


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--undo", "--remove", "art"], 2, "--undo stands alone"),
        (["--rename", "art"], 1, "give a label, the sign ="),
        (["--remove", "drum"], 1, "'drum' is none of the 10 labels"),
        (["--add-labels", "nowhere.txt"], 1, "nowhere.txt"),
        (["--add-rows", "nowhere.jsonl"], 1, "nowhere.jsonl"),
        (["--undo"], 1, "has no update that could be undone"),
    ],
)
def test_what_is_refused(index, options, code, message, capsys):
    assert main(["update", "--model", str(index), *options]) == code
    assert message in capsys.readouterr().err


def test_a_folder_that_is_not_there(tmp_path, capsys):
    assert main(["update", "--model", str(tmp_path / "x")]) == 1
    assert "There is no folder" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------ staged labels


def test_novel_labels_collect(tmp_path, index, capsys):
    path = tmp_path / "novel.jsonl"
    staged = StagedLabels(path)
    staged.add(["a harp", "two harps"], [_prediction(("harp", 0.2), ("lyre", 0.1)), _prediction(("harp", 0.4))])
    staged.save()
    again = StagedLabels(path)
    again.add(["a harp", "a  third\nharp"], [_prediction(("harp", 0.3)), _prediction(("harp", 0.1))])
    again.save()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(one["label"], one["count"], one["score"], one["nearest"]) for one in lines] == [
        *(("harp", 3, 0.4, "music"), ("lyre", 1, 0.1, "music"))
    ]
    assert lines[0]["examples"] == ["a harp", "two harps", "a third harp"]
    assert read_new_labels(path) == ["harp", "lyre"] and read_new_labels(path, 2) == ["harp"]
    command = ["update", "--model", str(index), "--add-labels", str(path), "--min-count", "2"]
    assert main(command) == 0
    assert "labels added: 1" in capsys.readouterr().out
    assert "harp" in LabelSpace.load(index) and "lyre" not in LabelSpace.load(index)


def test_staged_files_that_cannot_be_used(tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("harp\n")
    assert read_new_labels(names) == ["harp"]
    with pytest.raises(ConfigurationError, match="has no counts, so min_count=2"):
        read_new_labels(names, 2)
    with pytest.raises(DataError, match="There is no such file"):
        read_new_labels(tmp_path / "nowhere.jsonl")
    damaged = tmp_path / "damaged.jsonl"
    damaged.write_text('{"label": "harp"}\n')
    with pytest.raises(ModelFolderError, match=r"damaged\.jsonl, line 1"):
        read_new_labels(damaged)
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(DataError, match="no label of at least 1 texts"):
        read_new_labels(tmp_path / "empty.jsonl")
