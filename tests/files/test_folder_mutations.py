"""Damage to folders of every kind; `benchmarks/fuzz_folders.py` is the long campaign of it."""

from __future__ import annotations

import logging
import shutil
from contextlib import suppress

import pytest
from data.mutations import seeded
from files.folder_mutations import damaged_folder, files_of, make_folders

from xlgen_hf.errors import CheckpointError, ModelFolderError, XLGenError
from xlgen_hf.loading import load_predictor

TEXT = "a history of organ music"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return make_folders(tmp_path_factory.mktemp("folders"))


@pytest.mark.parametrize("kind", ["adapter", "hybrid", "label trees", "retriever", "sharded"])
def test_damaged_folders_predict_or_are_refused_by_name(folders, tmp_path, kind, caplog):
    caplog.set_level(logging.CRITICAL)
    names = files_of(folders[kind])
    for number in range(12):
        chance = seeded(7, kind, number)
        damaged_folder(folders[kind], chance.choice(names), tmp_path / "damaged", chance)
        try:
            predictor = load_predictor(str(tmp_path / "damaged"))
        except XLGenError as err:
            assert str(tmp_path / "damaged") in str(err)
            continue
        with suppress(CheckpointError):  # an encoder that computes infinity says so when it first does
            assert len(predictor.predict([TEXT])) == 1


def test_an_index_without_its_source_is_refused(folders, tmp_path):
    """The fault: there was nothing to unpack."""
    folder = tmp_path / "damaged"
    shutil.copytree(folders["retriever"], folder)
    (folder / "retriever" / "retriever.json").unlink()
    with pytest.raises(ModelFolderError, match="damaged lacks the files of a retriever and of label trees"):
        load_predictor(str(folder))
