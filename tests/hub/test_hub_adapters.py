"""Adapters on the Hub: where the base goes, what the adapter says of it, and what is refused."""

from __future__ import annotations

import json

import pytest
from tiny import Hub

from xlgen_hf.errors import ConfigurationError, HubError
from xlgen_hf.files.saving import replace_files
from xlgen_hf.hub.cards import BASE_TAG
from xlgen_hf.hub.push import PlannedFile, push_model
from xlgen_hf.modeling_xlgen import XLGenForConditionalGeneration
from xlgen_hf.training.lora import add_lora


@pytest.fixture
def adapter(make_model, tmp_path):
    """The folder of an adapter as a training leaves it, its base in `base/`."""
    model, processor = make_model("t5", "bcl")
    folder = tmp_path / "adapter"
    adapted = add_lora(model, processor, folder / "base", r=2)
    with replace_files(folder) as aside:
        adapted.save_pretrained(aside)
        adapted.config.save_pretrained(aside)
        processor.save_pretrained(aside)
    return folder


def settings_of(hub, name, branch="main"):
    content = json.loads(hub.file(name, "adapter_config.json", branch=branch))
    return content["base_model_name_or_path"], content["revision"]


def test_base_goes_up_first_and_is_named_with_its_commit(hub, adapter):
    before = (adapter / "adapter_config.json").read_bytes()
    report = push_model(adapter, "alice/tiny", license_id="mit")
    _, base = hub.history("alice/tiny-base")
    assert report.base.commit == base["oid"]
    assert report.base.plan.repo_id == "alice/tiny-base"
    assert settings_of(hub, "alice/tiny") == ("alice/tiny-base", base["oid"])
    assert {"model.safetensors", "config.json", "label_space.json"} <= set(base["files"])
    assert (adapter / "adapter_config.json").read_bytes() == before
    card = hub.file("alice/tiny", "README.md").decode()
    assert "library_name: peft" in card
    assert "| base model | alice/tiny-base |" in card
    assert "base_model: alice/tiny-base\nbase_model_relation: adapter\n" in card
    assert str(adapter) not in card
    of_base = hub.file("alice/tiny-base", "README.md").decode()
    assert f"- {BASE_TAG}\n" in of_base
    assert "before any training" in of_base
    assert "license: mit" in of_base
    again = push_model(adapter, "alice/tiny", license_id="mit")
    assert (again.changed, again.base.changed) == (False, False)


def test_dry_run_lists_the_base_as_well_and_asks_nobody(hub, adapter):
    planned = push_model(adapter, "alice/tiny", private=True, dry_run=True)
    assert hub.ask("requests") == []
    assert (planned.base.plan.repo_id, planned.base.plan.private) == ("alice/tiny-base", True)
    size = (adapter / "base" / "model.safetensors").stat().st_size
    assert PlannedFile("model.safetensors", size) in planned.base.plan.files
    done = push_model(adapter, "alice/tiny", private=True)
    assert (done.plan, done.base.plan) == (planned.plan, planned.base.plan)  # to the byte


def test_adapters_of_one_base_share_its_repository(hub, adapter):
    first = push_model(adapter, "alice/first", base_repo_id="acme/base")
    second = push_model(adapter, "alice/second", base_repo_id="acme/base")
    assert (first.base.changed, second.base.changed) == (True, False)
    assert settings_of(hub, "alice/first") == settings_of(hub, "alice/second") == ("acme/base", first.base.commit)
    assert hub.history("alice/first-base") is None


def test_older_adapter_keeps_its_base_when_another_takes_its_place(hub, adapter, make_model, tmp_path):
    first = push_model(adapter, "alice/tiny", revision="v1")
    config = adapter / "base" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "max_labels": 3}))
    second = push_model(adapter, "alice/tiny")
    assert settings_of(hub, "alice/tiny", "v1") == ("alice/tiny-base", first.base.commit)
    assert settings_of(hub, "alice/tiny") == ("alice/tiny-base", second.base.commit)
    requests = len(hub.ask("requests"))
    XLGenForConditionalGeneration.from_pretrained("alice/tiny", revision="v1")
    asked = hub.ask("requests")[requests:]
    assert any(first.base.commit in request for request in asked)
    assert not any(second.base.commit in request for request in asked)


def test_private_base_is_loaded_with_the_token_that_is_given(hub, adapter, tmp_path, monkeypatch):
    push_model(adapter, "alice/tiny", private=True)
    monkeypatch.delenv("HF_TOKEN")
    model = XLGenForConditionalGeneration.from_pretrained("alice/tiny", token=Hub.alice, cache_dir=tmp_path / "cache")
    assert model.config.variant == "bcl"
    assert (tmp_path / "cache" / "models--alice--tiny-base").is_dir()
    with pytest.raises(OSError, match=r"'alice/tiny' is not a folder here .* 401 Client Error"):
        XLGenForConditionalGeneration.from_pretrained("alice/tiny", cache_dir=tmp_path / "other")


def test_base_is_as_private_as_the_adapter(hub, adapter):
    from huggingface_hub import HfApi

    HfApi(endpoint=hub.url).create_repo("alice/secret", private=True)
    report = push_model(adapter, "alice/secret")  # private without being asked to be
    assert (report.plan.private, report.base.plan.private) == (True, True)
    with pytest.raises(HubError, match="alice/secret-base is private and the adapter's, alice/open, is not"):
        push_model(adapter, "alice/open", base_repo_id="alice/secret-base")
    HfApi(endpoint=hub.url).create_repo("alice/public")
    with pytest.raises(HubError, match="alice/public exists and is public, but private=True"):
        push_model(adapter, "alice/hidden", base_repo_id="alice/public", private=True)
    for name in ("alice/open", "alice/hidden"):
        assert len(hub.history(name)) == 1


def test_base_that_is_on_the_hub_stays_where_it_is(hub, adapter):
    push_model(adapter, "alice/tiny")
    named = hub.file("alice/tiny", "adapter_config.json")
    (adapter / "adapter_config.json").write_bytes(named)
    (adapter / "base").rename(adapter.parent / "moved")
    report = push_model(adapter, "acme/copy")
    assert report.base is None
    assert hub.file("acme/copy", "adapter_config.json") == named
    assert "base_model: alice/tiny-base\n" in hub.file("acme/copy", "README.md").decode()
    with pytest.raises(ConfigurationError, match="the adapter's base is on the Hub already, as 'alice/tiny-base'"):
        push_model(adapter, "acme/other", base_repo_id="acme/base")


def test_pull_request_names_the_commit_of_the_bases_one(hub, adapter):
    report = push_model(adapter, "acme/tiny", create_pr=True)
    assert "/discussions/" in report.url
    assert "/discussions/" in report.base.url
    assert settings_of(hub, "acme/tiny", "refs/pr/1") == ("acme/tiny-base", report.base.commit)
    assert len(hub.history("acme/tiny")) == len(hub.history("acme/tiny-base")) == 1


def test_model_of_peft_is_pushed_as_it_is(hub, make_model, tmp_path):
    model, processor = make_model("t5", "base")
    adapted = add_lora(model, processor, tmp_path / "base", r=2)
    report = push_model(adapted, "alice/object", processor=processor)
    assert settings_of(hub, "alice/object") == ("alice/object-base", report.base.commit)


def test_other_models_are_not_overwritten_by_a_base(hub, adapter, tmp_path):
    push_model(adapter / "base", "alice/model")  # a model like any other: pushed for itself
    before = hub.history("alice/model")
    with pytest.raises(HubError, match=f"alice/model is there and holds something else .* the tag {BASE_TAG}"):
        push_model(adapter, "alice/tiny", base_repo_id="alice/model")
    assert hub.history("alice/model") == before
    assert len(hub.history("alice/tiny")) == 1


def test_patterns_and_messages_are_the_adapters_own(hub, adapter):
    report = push_model(adapter, "alice/tiny", allow_patterns="adapter_*", message="Mine")
    assert {file.path for file in report.plan.files} == {"adapter_config.json", "adapter_model.safetensors"}
    assert "model.safetensors" in {file.path for file in report.base.plan.files}
    assert (hub.history("alice/tiny")[-1]["title"], hub.history("alice/tiny-base")[-1]["title"]) == (
        "Mine", "Upload base of XLGen adapters",
    )  # fmt: skip
    with pytest.raises(ConfigurationError, match=r"allow_patterns='none_\*' .* leave none of the files"):
        push_model(adapter, "alice/other", allow_patterns="none_*")
    assert hub.history("alice/other") is None and hub.history("alice/other-base") is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base_repo_id": "alice/tiny"}, "base_repo_id='alice/tiny' is the adapter's own repository"),
        ({"with_code": True}, "An adapter loads with peft .* Merge it first"),
    ],
)
def test_settings_that_do_not_fit_an_adapter(adapter, options, message):
    with pytest.raises(ConfigurationError, match=message):
        push_model(adapter, "alice/tiny", dry_run=True, **options)


def test_whole_model_has_no_base(adapter):
    with pytest.raises(ConfigurationError, match=r"base_repo_id='a/b', but .*base is not an adapter"):
        push_model(adapter / "base", "alice/tiny", base_repo_id="a/b", dry_run=True)
