"""The journal of updates: only what an update left is taken back, and only that is removed."""

from __future__ import annotations

from xlgen_hf.files.saving import replace_files
from xlgen_hf.files.updates import PREVIOUS_FOLDER, read_updates, save_update, undo_update


def _save(folder, **files):
    with replace_files(folder) as aside:
        _write(aside, files)


def _update(folder, **files):
    with save_update(folder, request="", changes={}, keep=2) as aside:
        _write(aside, files)


def _write(folder, files):
    for name, text in files.items():
        (folder / f"{name}.json").write_text(text, encoding="utf-8")


def _texts(folder):
    return {path.stem: path.read_text(encoding="utf-8") for path in folder.glob("*.json")}


def test_an_undone_update_puts_nothing_of_another_model_back(tmp_path):
    """The fault: former weights of a model that stood in the folder before came back, without a word."""
    _save(tmp_path, config="a", label_space="a", processor_config="a")
    _update(tmp_path, config="a updated", label_space="a updated")
    _save(tmp_path, config="b", label_space="b", processor_config="b")
    assert not read_updates(tmp_path)  # an ordinary save
    _update(tmp_path, label_space="b updated")
    assert undo_update(tmp_path)["number"] == 1
    assert _texts(tmp_path) == {"config": "b", "label_space": "b", "processor_config": "b"}


def test_what_is_no_update_stays_in_the_folder_of_former_files(tmp_path):
    """The fault: a file there, as file managers leave them, ended an update that had succeeded with an error."""
    _save(tmp_path, label_space="a")
    _update(tmp_path, label_space="b")
    (tmp_path / PREVIOUS_FOLDER / ".DS_Store").write_text("x", encoding="utf-8")
    for text in "cde":
        _update(tmp_path, label_space=text)
    assert {path.name for path in (tmp_path / PREVIOUS_FOLDER).iterdir()} == {".DS_Store", "3", "4"}
    assert not list(tmp_path.glob(".xlgen-unfinished-*"))
