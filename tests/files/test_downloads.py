"""Downloads from a Hub that fails now and then: all files of one commit, or an error that says what was not given."""

from __future__ import annotations

import logging

import pytest
import torch
from huggingface_hub import HfApi, constants

from xlgen_hf.encoders.checkpoints import fetch_checkpoint
from xlgen_hf.encoders.loaded import load_encoder
from xlgen_hf.errors import CheckpointError, HubError
from xlgen_hf.files import downloads
from xlgen_hf.files.model_folder import download_patterns
from xlgen_hf.hub.push import push_model
from xlgen_hf.loading import load_model
from xlgen_hf.modeling_xlgen import XLGenForConditionalGeneration
from xlgen_hf.processing_xlgen import XLGenProcessor

SERVER_ERROR = {"kind": "status", "status": 500}


@pytest.fixture
def push(hub, make_model, tmp_path):
    """Pushes the model in a version of which all parts tell."""
    model, processor = make_model("t5", "bcl")

    def make(version):
        with torch.no_grad():
            model.cluster_head.bias.fill_(version)
        processor.max_source_length = 30 + version
        model.save_pretrained(tmp_path / "model")
        processor.save_pretrained(tmp_path / "model")
        return push_model(tmp_path / "model", "acme/tiny").commit

    make.folder = tmp_path / "model"
    return make


def _version(model, processor):
    """The version of both."""
    versions = {int(model.cluster_head.bias[0]), processor.max_source_length - 30}
    assert len(versions) == 1, versions
    return versions.pop()


@pytest.mark.parametrize(
    ("method", "path", "fault"),
    [
        ("GET", "/api/models/acme/tiny", SERVER_ERROR),
        ("GET", "/api/models/acme/tiny", {"kind": "cut"}),
        ("GET", "/api/models/acme/tiny/tree/", SERVER_ERROR),
        ("GET", "/api/models/acme/tiny/tree/", {"kind": "half"}),
        ("HEAD", "/resolve/.*/config.json", SERVER_ERROR),
        ("GET", "/resolve/.*/config.json", SERVER_ERROR),
        ("GET", "/resolve/.*/label_space.json", {"kind": "cut"}),
        ("GET", "/resolve/.*/tokenizer.json", {"kind": "half"}),
        ("GET", "/resolve/.*/model.safetensors", {"kind": "half"}),
        ("GET", "/resolve/.*/model.safetensors", {"kind": "status", "status": 429}),
    ],
)
def test_a_fault_that_passes(hub, push, method, path, fault):
    push(1)
    hub.fault(method, path, **fault)
    assert _version(*load_model("acme/tiny")) == 1


def test_model_and_processor_are_of_one_commit(hub, push, monkeypatch):
    """Somebody pushes while the files are loaded."""
    push(1)
    snapshot = downloads.snapshot_download

    def with_a_push(*args, **kwargs):
        folder = snapshot(*args, **kwargs)
        if len(hub.history("acme/tiny")) < 5:
            push(len(hub.history("acme/tiny")))
        return folder

    monkeypatch.setattr(downloads, "snapshot_download", with_a_push)
    assert _version(*load_model("acme/tiny")) == 1
    assert _version(*load_model("acme/tiny")) == 2
    processor = XLGenProcessor.from_pretrained("acme/tiny", revision=hub.history("acme/tiny")[1]["oid"])
    model = XLGenForConditionalGeneration.from_pretrained("acme/tiny", revision=hub.history("acme/tiny")[1]["oid"])
    assert _version(model, processor) == 1
    assert model.name_or_path == "acme/tiny"


def test_a_push_between_question_and_download_is_not_loaded_by_half(hub, push, monkeypatch):
    """The commit that was asked for is the one that comes."""
    first = push(1)
    ask = HfApi.model_info

    def with_a_push(*args, **options):
        answer = ask(*args, **options)
        monkeypatch.setattr(HfApi, "model_info", ask)
        push(2)
        return answer

    monkeypatch.setattr(HfApi, "model_info", with_a_push)
    assert downloads.download("acme/tiny", ["config.json"], {}).name == first
    assert len(hub.history("acme/tiny")) == 3  # the second push came in between


def test_an_older_copy_in_the_cache_is_not_taken_for_the_newest(hub, push):
    push(1)
    assert _version(*load_model("acme/tiny")) == 1
    push(2)
    hub.fault("GET", "/api/models/acme/tiny", times=1, **SERVER_ERROR)
    assert _version(*load_model("acme/tiny")) == 2


def test_a_hub_that_is_down_leaves_the_copy_in_the_cache(hub, push, caplog):
    push(1)
    load_model("acme/tiny")
    hub.fault("GET", "/api/", times=1000, **SERVER_ERROR)
    hub.fault("HEAD", "/", times=1000, **SERVER_ERROR)
    with caplog.at_level(logging.WARNING):
        assert _version(*load_model("acme/tiny")) == 1
    assert "'acme/tiny' is not a folder here and cannot be loaded from the Hub" in caplog.text
    assert "The copy in the cache is used" in caplog.text


@pytest.mark.parametrize(
    "load", [load_model, XLGenProcessor.from_pretrained, XLGenForConditionalGeneration.from_pretrained]
)
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({**SERVER_ERROR, "echo_token": True}, "500"),
        ({"kind": "cut"}, "disconnected|closed|peer|Remote|Protocol"),
        ({"kind": "status", "status": 401}, "401|token"),
        ({"kind": "status", "status": 404}, "404"),
    ],
)
def test_a_fault_that_lasts_is_named(hub, push, fault, message, load):
    push(1)
    hub.fault("GET", "/api/models/acme/tiny", times=1000, **fault)
    with pytest.raises(HubError, match=rf"^'acme/tiny' is not a folder here .*({message})") as caught:
        load("acme/tiny")
    assert hub.alice not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_download_that_never_comes_whole_is_named(hub, push):
    push(1)
    hub.fault("GET", "/resolve/.*/label_space.json", times=1000, kind="cut")
    with pytest.raises(HubError, match="'acme/tiny' is not a folder here and cannot be loaded from the Hub"):
        load_model("acme/tiny")


def test_a_hub_that_is_gone_is_named(hub, monkeypatch):
    monkeypatch.setattr(downloads, "WAITS", (0.0,))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(HubError, match=r"'acme/tiny' is not a folder here .* not in the cache either: load it once"):
        load_model("acme/tiny")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no/such/folder", "There is no folder 'no/such/folder', and it cannot be an id on the Hub"),
        ("../model", "There is no folder '../model', and it cannot be an id"),
        ("acme/none", "'acme/none' is not a folder here .* 404 Client Error. Repository Not Found"),
    ],
)
def test_names_that_lead_nowhere(hub, name, message):
    with pytest.raises(HubError, match=message):
        load_model(name)


def test_only_files_of_a_model_are_downloaded(hub, push):
    """Also where a repository holds what looks like an interrupted save, a pickle, or code."""
    push(1)
    for name in (".xlgen-finished/.save.json", ".xlgen-finished/config.json", "pytorch_model.bin", "evil.py"):
        HfApi().upload_file(path_or_fileobj=b"{}", path_in_repo=name, repo_id="acme/tiny")
    folder = downloads.download("acme/tiny", download_patterns(), {})
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {"config.json", "model.safetensors", "label_space.json", "tokenizer.json"} <= names
    assert not {name for name in names if name.startswith(".xlgen") or name.endswith((".bin", ".py"))}
    assert _version(*load_model("acme/tiny")) == 1


@pytest.mark.parametrize("how", ["revision", "_commit_hash"])
def test_the_commit_that_the_auto_classes_have_found_is_the_one_that_is_loaded(hub, push, how):
    first = push(1)
    if how == "revision" and not hasattr(HfApi, "resolve_revision"):
        pytest.skip("huggingface_hub names commits in another way")
    options = {how: HfApi().resolve_revision("acme/tiny") if how == "revision" else first}
    push(2)
    processor = XLGenProcessor.from_pretrained("acme/tiny", **options)
    assert _version(XLGenForConditionalGeneration.from_pretrained("acme/tiny", **options), processor) == 1


# ---------------------------------------------------------------------------------------------------- encoders


def test_an_encoder_of_the_hub(hub, checkpoints):
    """Config, tokenizer and weights of one commit; the embedding cache knows which."""
    api = HfApi()
    api.create_repo("alice/encoder")
    api.upload_folder(repo_id="alice/encoder", folder_path=checkpoints["bert"])
    hub.fault("GET", "/resolve/.*/config.json", **SERVER_ERROR)
    folder = fetch_checkpoint("alice/encoder")
    assert folder.endswith(hub.history("alice/encoder")[-1]["oid"])
    model, _ = load_encoder("alice/encoder")
    assert model.config.hidden_size == 16
    hub.fault("GET", "/api/", times=1000, kind="cut")
    with pytest.raises(CheckpointError, match=r"'alice/other' is not a folder .* No installed package carries it"):
        load_encoder("alice/other")
