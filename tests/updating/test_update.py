"""Updates of model folders of every kind: what follows, what is refused, and that all of it can be undone."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from processes import run_forked
from sources import ROW_TEXTS, Made, fused, label_ids, make_rcl, make_retriever, make_trees, rows_of, sharpened
from tiny import ROWS

from xlgen_hf.errors import ConfigurationError, DataError, LabelSpaceError
from xlgen_hf.files.json_lines import write_jsonl
from xlgen_hf.files.model_folder import EXPORT_FILE, RETRIEVER_FOLDER
from xlgen_hf.files.outputs import sole_writer
from xlgen_hf.files.saving import read_folder
from xlgen_hf.files.updates import PREVIOUS_FOLDER, read_updates
from xlgen_hf.labels.changes import LabelEdits
from xlgen_hf.labels.space import LabelSpace
from xlgen_hf.loading import load_model, load_predictor
from xlgen_hf.prediction.generator import Generator
from xlgen_hf.ranking.decisions import DecisionRule
from xlgen_hf.ranking.score_model import ScoreModel
from xlgen_hf.retrieval.model_sources import load_index, load_indexed_sources, save_source_alone
from xlgen_hf.retrieval.retriever import LabelRetriever
from xlgen_hf.updating.update import undo_update, update_model

NEW = [
    {"text": "an organ concert", "labels": ["organ", "music"]},
    {"text": "printing", "labels": ["art", "printing (output)"]},  # corrects one of the rows
    {"text": "history of music", "labels": ["music history"]},  # a label that no row had
]
EDITS = LabelEdits([("piano", "grand piano")], [("organ", "church music")], ["modern art"], ["harp", "music"])
KINDS = ["base", "bcl", "mcg", "rcl", "rcl memory", "hybrid", "hybrid of rcl"]


def _save(made, folder: Path) -> Path:
    made.model.save_pretrained(folder)
    made.processor.save_pretrained(folder)
    return folder


@pytest.fixture
def index(checkpoints, label_space, tmp_path) -> Path:
    retriever = make_retriever(checkpoints["bert"], label_space, lexical=True)
    save_source_alone(tmp_path / "index", label_space, "retrieval", retriever, ScoreModel())
    return tmp_path / "index"


@pytest.fixture
def make_folder(make_model, checkpoints, label_space, made, tmp_path, tmp_path_factory):
    """A function that gives a folder with a model of some kind."""

    def make_new(kind: str) -> Made:
        checkpoint = checkpoints["bert"]
        if kind.startswith("rcl"):
            return make_rcl(checkpoint, label_space, "memory" if "memory" in kind else "tokens")
        if kind == "hybrid of rcl":
            return fused(sharpened(make_rcl(checkpoint, label_space)), make_trees(label_space))
        if kind == "hybrid":
            retriever = make_retriever(checkpoint, label_space, lexical=True)
            return fused(sharpened(Made(*make_model("bert", "base", max_labels=5))), retriever=retriever)
        new = Made(*make_model("bert", kind, max_labels=5))
        if new.processor.clusters is not None:
            new.processor.clusters.metadata["encoder"] = checkpoint
        return new

    def make(kind: str) -> Path:
        if kind not in made:
            made[kind] = _save(make_new(kind), tmp_path_factory.mktemp("model"))
        return shutil.copytree(made[kind], tmp_path / "model")

    return make


def _state(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and PREVIOUS_FOLDER not in path.parts and path.name not in ("README.md", "updates.jsonl")
    }


def _counts(folder: Path) -> dict[str, int]:
    space = LabelSpace.load(folder)
    return dict(zip(space.names, space.counts.tolist(), strict=True))


def _edited_counts() -> dict[str, int]:
    """Counts of the rows after the edits, and of the labels that no row has."""
    names = {"piano": "grand piano", "organ": "church music"}
    rows = [{names.get(label, label) for label in row["labels"]} for row in ROWS]
    space = LabelSpace.from_label_lists(map(sorted, rows), ["music history", "art history", "harp"])
    counts = dict(zip(space.names, space.counts.tolist(), strict=True))
    del counts["modern art"]
    return counts


# ------------------------------------------------------------------------------------------------ what follows


def test_rows_join_an_index(index):
    record = update_model(index, rows=NEW)
    assert record["changes"]["rows"] == {
        **{"added": 2, "corrected": 1, "unchanged": 0, "repeated": 0, "without_labels": 0, "unknown_labels": {}}
    }
    assert record["changes"]["before"] == {"labels": 10, "unseen_labels": 2, "documents": 8}
    assert record["changes"]["after"] == {"labels": 10, "unseen_labels": 1, "documents": 10}
    rows = {row["text"]: row["labels"] for row in [*ROWS, *NEW]}
    expected = LabelSpace.from_label_lists(rows.values(), ["art history"])
    assert _counts(index) == dict(zip(expected.names, expected.counts.tolist(), strict=True))
    predictor = load_predictor(str(index))
    found = predictor.predict([row["text"] for row in NEW], rule=DecisionRule("top_k", 2))
    assert [set(row["labels"]) <= set(one.labels) for row, one in zip(NEW, found, strict=True)] == [True] * 3
    assert "documents added: 2, documents corrected: 1" in (index / "README.md").read_text().replace("\n", " ")


@pytest.mark.parametrize("kind", KINDS)
def test_labels_of_a_model_change_and_come_back(make_folder, kind):
    folder = make_folder(kind)
    before, weights = _state(folder), load_model(str(folder))[0].state_dict()
    record = update_model(folder, EDITS)
    has_documents = kind in ("rcl", "rcl memory", "hybrid", "hybrid of rcl")
    expected = _edited_counts()
    if not has_documents:
        expected["church music"] = 4  # a text with both of the merged labels cannot be told
    assert _counts(folder) == expected
    assert record["changes"]["added"] == ["harp"] and record["changes"]["renamed"] == [["piano", "grand piano"]]
    model, processor = load_model(str(folder))  # which compares the two
    assert set(processor.label_tokenizer.output_token_ids()) <= set(range(len(processor.tokenizer)))
    found = load_predictor(str(folder)).predict(ROW_TEXTS, rule=DecisionRule("top_k", len(expected)))
    assert all(set(one.labels) == set(expected) for one in found)
    of_labels = {"output_token_ids", "label_vectors"}
    for name, value in model.state_dict().items():
        assert name in of_labels or value.equal(weights[name]), name
    if kind == "rcl memory":
        np.testing.assert_allclose(model.label_vectors, processor.retriever.names[: len(expected)], atol=1e-2)
    undo_update(folder)
    assert _state(folder) == before


@pytest.mark.parametrize("kind", ["rcl", "hybrid", "hybrid of rcl"])
def test_rows_join_a_model(make_folder, kind):
    folder = make_folder(kind)
    weights = (folder / "model.safetensors").stat().st_ino
    update_model(folder, rows=NEW)
    assert _counts(folder)["music history"] == 1
    model, processor = load_model(str(folder))
    assert len(processor.retriever.documents) == len(ROWS) + 2
    assert processor.candidates is None or processor.candidates.retriever is processor.retriever
    assert processor.score_model.sources.get("retrieval", processor.retriever) is processor.retriever
    found = rows_of(processor.retriever.rank([NEW[2]["text"]], 1))[0]
    assert processor.label_space.names[found[0][0]] == "music history"
    assert (folder / "model.safetensors").stat().st_ino == weights  # the model itself is not written again
    assert len(Generator(model, processor).rank(ROW_TEXTS)) == len(ROWS)


def test_merged_names_still_lead_to_the_label(index):
    update_model(index, LabelEdits(merged=[("printing (output)", "art history")]))
    predictor = load_predictor(str(index))
    similar = predictor.source.embed(["printing (output)"]) @ predictor.source.names.T
    assert predictor.label_space.names[int(predictor.source.further[0])] == "art history"
    assert similar[0, -1] == pytest.approx(1, abs=1e-2)


def test_label_trees_alone(label_space, tmp_path):
    folder = tmp_path / "trees"
    save_source_alone(folder, label_space, "label_trees", make_trees(label_space), ScoreModel())
    before = _state(folder)
    update_model(folder, EDITS)
    names = load_predictor(str(folder)).predict(ROW_TEXTS, rule=DecisionRule("top_k", 20))
    assert {name for one in names for name in one.labels} == {
        *("music", "history", "art", "church music", "grand piano", "printing (output)")
    }
    with pytest.raises(ConfigurationError, match="no retriever, so documents cannot join it"):
        update_model(folder, rows=NEW)
    undo_update(folder)
    assert _state(folder) == before


# ------------------------------------------------------------------------------------------------ rows


def test_rows_without_labels_join_an_index_of_such_rows(index, checkpoints, label_space, tmp_path):
    empty = [{"text": "a drum", "labels": []}]
    assert update_model(index, rows=empty) is None
    texts, ids = zip(("nothing", []), *((row["text"], label_space.encode(row["labels"])) for row in ROWS), strict=True)
    retriever = LabelRetriever.fit(label_space, texts, ids, checkpoints["bert"], progress=False)
    save_source_alone(tmp_path / "other", label_space, "retrieval", retriever, ScoreModel())
    assert update_model(tmp_path / "other", rows=empty)["changes"]["rows"]["added"] == 1


def test_unknown_labels_of_rows(index):
    rows = [{"text": "a harp", "labels": ["harp", "music"]}, {"text": "drums", "labels": ["drum"]}]
    with pytest.raises(DataError, match=r"do not|does not have: 'harp' \(1 row\), 'drum' \(1 row\)\. Add them"):
        update_model(index, rows=rows)
    assert not read_updates(index)
    record = update_model(index, rows=rows, unknown_labels="leave-out")
    assert record["changes"]["rows"]["added"] == record["changes"]["rows"]["without_labels"] == 1
    assert record["changes"]["rows"]["unknown_labels"] == {"harp": 1, "drum": 1}
    record = update_model(index, rows=rows, unknown_labels="add")
    assert record["changes"]["added"] == ["harp", "drum"]
    assert record["changes"]["rows"]["corrected"] == record["changes"]["rows"]["added"] == 1
    assert _counts(index)["drum"] == 1
    rows = [{"text": "a zither", "labels": ["music", "zither"]}, {"text": "a zither", "labels": ["music"]}]
    record = update_model(index, rows=rows)  # the last of equal texts counts
    assert record["changes"]["rows"]["unknown_labels"] == {}
    assert record["changes"]["rows"]["repeated"] == 1 and "zither" not in LabelSpace.load(index)
    with pytest.raises(ConfigurationError, match="unknown_labels='x'; choose one of"):
        update_model(index, rows=rows, unknown_labels="x")


def test_a_model_without_a_retriever_takes_no_rows(make_folder):
    with pytest.raises(ConfigurationError, match="no retriever, so documents cannot join it"):
        update_model(make_folder("bcl"), rows=NEW)


# ------------------------------------------------------------------------------------------------ journal


def test_labels_that_look_alike_are_reported_and_a_label_is_removed_once(index, caplog):
    rows = [{"text": "a text", "labels": ["MUSIC"]}]
    with caplog.at_level("WARNING", logger="xlgen_hf"):
        record = update_model(index, LabelEdits(removed=["art", "art"]), rows=rows, unknown_labels="add")
    assert "Label names that differ only in case" in caplog.text and "'music', 'MUSIC'" in caplog.text
    assert record["changes"]["removed"] == ["art"]


def test_updates_are_undone_one_by_one(index):
    states = [_state(index)]
    for number, edits in enumerate([EDITS, LabelEdits(added=["drum"]), LabelEdits(removed=["art"])], 1):
        assert update_model(index, edits, keep_previous=2)["number"] == number
        states.append(_state(index))
    assert sorted(path.name for path in (index / PREVIOUS_FOLDER).iterdir()) == ["2", "3"]
    for number in (3, 2):
        assert undo_update(index)["number"] == number
        assert _state(index) == states[number - 1]
    with pytest.raises(ConfigurationError, match=r"Update 1 .* cannot be undone: the files from before it were not"):
        undo_update(index)
    assert [one["undone"] is None for one in read_updates(index)] == [True, False, False]
    assert not (index / PREVIOUS_FOLDER).exists()
    assert update_model(index, LabelEdits(added=["drum"]))["number"] == 4
    assert "updates\n2" in (index / "README.md").read_text()


def test_a_card_that_cannot_be_written_undoes_nothing_twice(index, caplog):
    """The fault: the command had undone an update and failed, and who repeated it undid the one before as well."""
    states = [_state(index)]
    for edits in (EDITS, LabelEdits(added=["drum"])):
        update_model(index, edits)
        states.append(_state(index))
    (index / "README.md").unlink()
    (index / "README.md").mkdir()  # an error like that of a full disk
    assert undo_update(index)["number"] == 2
    assert _state(index) == states[1]
    assert "README.md stays as it is: Nothing was saved" in caplog.text
    assert update_model(index, LabelEdits(added=["drum"]))["number"] == 3


def test_nothing_to_undo(index):
    with pytest.raises(ConfigurationError, match="has no update that could be undone"):
        undo_update(index)
    with pytest.raises(ConfigurationError, match=r"There is no folder .* to change"):
        undo_update(index / "nowhere")


def test_a_repeated_command_does_nothing(index, tmp_path):
    first = update_model(index, EDITS)
    state = _state(index)
    assert update_model(index, EDITS) == first and _state(index) == state
    undo_update(index)
    assert update_model(index, EDITS)["number"] == 2


def test_new_rows_in_the_same_place_are_another_update(index, tmp_path):
    """A folder of rows keeps its name while its rows change."""
    place = tmp_path / "rows"
    place.mkdir()
    numbers = []
    for part in (NEW[:1], NEW[:1], NEW[2:]):
        write_jsonl(place / "train.jsonl", part)
        numbers.append(update_model(index, rows=place)["number"])
    assert numbers == [1, 1, 2]


def test_what_changes_nothing_writes_nothing(index):
    state = _state(index)
    assert update_model(index) is None
    assert update_model(index, LabelEdits(added=["music"]), rows=ROWS) is None
    assert _state(index) == state and not read_updates(index)


def test_files_that_stay_are_not_kept_twice(index):
    update_model(index, LabelEdits(added=["drum"]))
    name = "retriever/model.safetensors"
    assert os.path.samefile(index / name, index / PREVIOUS_FOLDER / "1" / name)
    assert not os.path.samefile(index / "label_space.json", index / PREVIOUS_FOLDER / "1" / "label_space.json")


def test_links_are_not_followed(index, tmp_path):
    elsewhere = tmp_path / "elsewhere.json"
    (index / "label_space.json").rename(elsewhere)
    (index / "label_space.json").symlink_to(elsewhere)
    with pytest.raises(ConfigurationError, match=r"label_space\.json is a link, which an update does not follow"):
        update_model(index, EDITS)


def test_another_save_ends_the_journal(index, checkpoints, label_space):
    update_model(index, EDITS)
    retriever = make_retriever(checkpoints["bert"], label_space)
    save_source_alone(index, label_space, "retrieval", retriever, ScoreModel())
    with pytest.raises(ConfigurationError, match="has no update that could be undone"):
        undo_update(index)


# ------------------------------------------------------------------------------------------------ trouble


@pytest.mark.parametrize(
    "edits",
    [LabelEdits(removed=["drum"]), LabelEdits(merged=[("art", "art")]), LabelEdits(renamed=[("art", "music")])],
)
def test_what_cannot_be_done_leaves_all_as_it_was(index, edits):
    state = _state(index)
    with pytest.raises(LabelSpaceError, match=r"'drum' is none|merged into itself|another label"):
        update_model(index, edits)
    assert _state(index) == state and not read_updates(index)


def test_one_process_at_a_time(index):
    with (
        sole_writer(index, command="xlgen update"),
        pytest.raises(ConfigurationError, match="is being written by process"),
    ):
        update_model(index, EDITS)


# Updates a folder with a limit to the size of a file, for which every write beyond it fails as on a full disk.
LIMITED = """
import resource, sys
from xlgen_hf.errors import SaveError
from xlgen_hf.labels.changes import LabelEdits
from xlgen_hf.updating.update import update_model

for limit in map(int, sys.argv[2:]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        update_model(sys.argv[1], LabelEdits(added=["drum"]))
    except SaveError as err:
        print(err)
"""


def test_a_full_disk_leaves_all_as_it_was(index, tmp_path):
    state = _state(index)
    limits = (300, 5_000, 40_000)
    done = run_forked(tmp_path, LIMITED, index, *limits)
    assert done.stdout.count(f"{index}: File too large") == len(limits), done.stderr
    assert _state(index) == state and not read_updates(index)
    assert [path.name for path in index.rglob(".xlgen-*")] == []
    assert update_model(index, EDITS)["number"] == 1


# Updates a folder, or takes the update back, and is killed before a change of the disk; prints how many it made, else.
KILLED = """
import json, os, signal, sys
from xlgen_hf.labels.changes import LabelEdits
from xlgen_hf.updating.update import undo_update, update_model

folder, moment, edits, rows = sys.argv[1], int(sys.argv[2]), *map(json.loads, sys.argv[3:])
done = 0

def count(event, arguments):
    global done
    writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
    if writes or event in ("os.rename", "os.link", "os.symlink", "os.mkdir", "os.remove", "os.rmdir"):
        done += 1
        if done == moment:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(count)
if edits is None:
    undo_update(folder)
else:
    update_model(folder, LabelEdits(*edits), rows=rows)
print(done)
"""
MOMENTS = 6
JOINING = NEW[1:]  # rows whose labels stay


def _killed(folder: Path, place: Path, edits: LabelEdits | None) -> Iterator[Path]:
    """Copies of a folder whose update, or undoing, was killed at moments from the first change to the last one."""
    words = [json.dumps(edits and list(vars(edits).values())), json.dumps(JOINING)]
    done = run_forked(place, KILLED, shutil.copytree(folder, place / "whole"), 0, *words)
    assert done.returncode == 0, done.stderr
    for moment in np.linspace(1, int(done.stdout), MOMENTS).astype(int).tolist():
        copied = shutil.copytree(folder, place / f"killed-{moment}")
        assert run_forked(place, KILLED, copied, moment, *words).returncode == -signal.SIGKILL
        yield copied


def _seen(folder: Path) -> tuple[dict[str, int], list[bool]]:
    """What readers find: counts of labels, and for each update whether it is in force."""
    load_predictor(str(folder)).predict(ROW_TEXTS[:1])  # checks all files
    return read_folder(folder, lambda place: (_counts(place), [one["undone"] is None for one in read_updates(place)]))


def test_an_update_that_is_killed_is_whole_or_not_there(index, tmp_path):
    done = shutil.copytree(index, tmp_path / "done")
    update_model(done, EDITS, rows=JOINING)
    before, after, expected = _seen(index), _seen(done), _state(done)
    found = []
    for folder in _killed(index, tmp_path, EDITS):
        found.append(_seen(folder))
        assert found[-1] in (before, after)
        assert update_model(folder, EDITS, rows=JOINING)["number"] == 1  # the same command again
        assert _seen(folder) == after and _state(folder) == expected
        assert {path.name for path in folder.rglob(".xlgen*")} == {PREVIOUS_FOLDER}
        undo_update(folder)
        assert _state(folder) == _state(index)
    assert before in found and after in found


def test_a_training_reads_an_index_whose_update_was_killed(index, label_space, tmp_path, monkeypatch):
    """The fault: new labels with the former documents; an error only where their numbers differed."""
    done = shutil.copytree(index, tmp_path / "done")
    update_model(done, EDITS, rows=JOINING)
    rename = os.replace

    def dying(source, target):  # when the first file is in its place, label_space.json
        if Path(target) == index / "label_trie.safetensors" or Path(target).parent == index / RETRIEVER_FOLDER:
            raise KeyboardInterrupt("died here")
        rename(source, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt, match="died here"):
        patch.setattr(os, "replace", dying)
        update_model(index, EDITS, rows=JOINING)
    assert _counts(index) == _counts(done) and (index / ".xlgen-finished").is_dir()
    space = LabelSpace.load(done)
    for load in (load_index, lambda *arguments: load_indexed_sources(*arguments)["retrieval"]):
        found, expected = load(index, space), load(done, space)
        assert found.documents.tolist() == expected.documents.tolist()
        assert (found.labels != expected.labels).nnz == 0


def test_undoing_that_is_killed_is_whole_or_not_there(index, tmp_path):
    first = _state(index)
    update_model(index, EDITS, rows=JOINING)
    found = []
    for folder in _killed(index, tmp_path, None):
        found.append(_seen(folder)[1])
        if found[-1] == [True]:
            undo_update(folder)
        assert update_model(folder, LabelEdits(added=["drum"]))["number"] == 2  # puts all in its place
        undo_update(folder)
        assert _state(folder) == first and not list(folder.rglob(".xlgen*"))
    assert [True] in found and [False] in found


def test_an_adapter_takes_what_its_base_can_spell(make_model, tmp_path):
    from peft import LoraConfig, get_peft_model

    model, processor = make_model("bert", "base")
    model.save_pretrained(tmp_path / "base")
    processor.save_pretrained(tmp_path / "base")
    model.name_or_path = str(tmp_path / "base")
    adapted = get_peft_model(model, LoraConfig(task_type="SEQ_2_SEQ_LM", r=2, target_modules=["query"]))
    adapted.peft_config["default"].base_model_name_or_path = str(tmp_path / "base")
    adapted.save_pretrained(tmp_path / "adapter")
    processor.save_pretrained(tmp_path / "adapter")
    state = _state(tmp_path / "adapter")
    with pytest.raises(ConfigurationError, match=r"its base cannot spell these labels. Merge both \(`xlgen merge`\)"):
        update_model(tmp_path / "adapter", LabelEdits(added=["xyz"]))
    assert _state(tmp_path / "adapter") == state
    update_model(tmp_path / "adapter", LabelEdits(renamed=[("art", "art art")]))
    assert "art art" in load_model(str(tmp_path / "adapter"))[1].label_space


def test_label_ids_of_documents_are_those_of_the_space(index, label_space):
    update_model(index, rows=NEW)
    predictor = load_predictor(str(index))
    rows = [sorted(predictor.label_space.decode(row.indices.tolist())) for row in predictor.source.labels]
    known = [sorted(label_space.decode(ids)) for ids in label_ids(label_space)]
    assert rows[:6] == known[:6]
    assert rows[-1] == ["music history"]


def test_an_exported_index_is_refused(index):
    (index / RETRIEVER_FOLDER / EXPORT_FILE).write_text("{}")
    with pytest.raises(ConfigurationError, match="was exported, so that it only predicts"):
        update_model(index, EDITS)
