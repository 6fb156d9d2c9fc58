"""The options of `push_to_hub` that users of transformers know: each has its effect, wherever it is given."""

from __future__ import annotations

import inspect
import json

import pytest
import torch
from datasets import Dataset
from huggingface_hub import HfApi
from tiny import ROWS, Hub
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM
from transformers.utils import PushToHubMixin

from xlgen_hf.cli.main import main
from xlgen_hf.errors import ConfigurationError, HubError, ModelFolderError
from xlgen_hf.hub.card_text import split_card
from xlgen_hf.hub.push import push_model
from xlgen_hf.loading import load_model
from xlgen_hf.modeling_xlgen import XLGenForConditionalGeneration
from xlgen_hf.processing_xlgen import XLGenProcessor
from xlgen_hf.training.arguments import XLGenTrainingArguments
from xlgen_hf.training.lora import add_lora
from xlgen_hf.training.trainer import XLGenTrainer


def _card(hub, name="alice/tiny"):
    return split_card(hub.file(name, "README.md").decode())[0]


@pytest.fixture
def pair(make_model):
    return make_model("t5", "base")


def _trainer(model, processor, folder):
    args = XLGenTrainingArguments(str(folder), use_cpu=True, hub_model_id="alice/tiny")
    return XLGenTrainer(model, args, processing_class=processor, train_dataset=Dataset.from_list(ROWS))


# ---------------------------------------------------------------------------------------------------- standard options


def test_no_option_of_transformers_is_unknown(hub, pair):
    """A new release may add one; then this says so."""
    model, processor = pair
    options = {
        "commit_message": "First", "commit_description": "Why.", "private": True, "token": True, "revision": "main",
        "create_pr": False, "max_shard_size": "1MB", "tags": ["a"],
    }  # fmt: skip
    assert set(inspect.signature(PushToHubMixin.push_to_hub).parameters) - {"self", "repo_id"} == set(options)
    assert model.push_to_hub("alice/tiny", processor=processor, **options).plan.private
    processor.push_to_hub("alice/tiny", **options)


@pytest.mark.parametrize("source", ["model", "processor", "trainer"])
def test_message_description_tags_and_request(hub, pair, tmp_path, source):
    model, processor = pair
    model.push_to_hub("alice/tiny", processor=processor)
    processor.max_source_length = 32
    options = {"commit_message": "Mine", "commit_description": "Why.\n\nAnd how.", "tags": ["library", "mine"]}
    push = {
        "model": lambda **more: model.push_to_hub("alice/tiny", processor=processor, **more),
        "processor": lambda **more: processor.push_to_hub("alice/tiny", **more),
        "trainer": lambda **more: _trainer(model, processor, tmp_path / "out").push_to_hub(**more),
    }[source]
    push(**options)
    *_, before, commit = hub.history("alice/tiny")
    assert (commit["title"], commit["description"]) == ("Mine", "Why.\n\nAnd how.")
    assert set(before["files"]) <= set(commit["files"])
    assert {"xlgen", "library", "mine"} <= set(_card(hub)["tags"])
    assert json.loads(hub.file("alice/tiny", "processor_config.json"))["max_source_length"] == 32
    report = push(create_pr=True, token=Hub.alice, tags="one more")
    assert "/discussions/" in report.url
    assert hub.history("alice/tiny")[-1] == commit
    assert "one more" in split_card(hub.file("alice/tiny", "README.md", branch="refs/pr/1").decode())[0]["tags"]


def test_tags_of_the_model_and_languages_are_on_the_card(hub, pair):
    model, processor = pair
    model.add_model_tags(["of-the-model"])
    model.push_to_hub("alice/tiny", processor=processor, tags="mine", language=["en", "fi"])
    assert {"of-the-model", "mine"} <= set(_card(hub)["tags"])
    assert _card(hub)["language"] == ["en", "fi"]
    model.push_to_hub("alice/tiny", processor=processor)
    assert {"of-the-model", "mine"} <= set(_card(hub)["tags"])


def test_tags_of_an_adapter(hub, pair, tmp_path):
    model, processor = pair
    adapted = add_lora(model, processor, tmp_path / "base", r=2)
    push_model(adapted, "alice/tiny", processor=processor, tags=["mine"], description="Why.")
    assert "mine" in _card(hub)["tags"]
    assert "mine" not in _card(hub, "alice/tiny-base")["tags"]
    assert hub.history("alice/tiny")[-1]["description"] == "Why."
    with pytest.raises(ConfigurationError, match="max_shard_size='1MB', but an adapter is one file"):
        push_model(adapted, "alice/tiny", processor=processor, max_shard_size="1MB")


def test_weights_in_several_files(hub, pair, tmp_path):
    model, processor = pair
    model.push_to_hub("alice/tiny", processor=processor)
    model.push_to_hub("alice/tiny", processor=processor, max_shard_size="10KB")
    files = hub.history("alice/tiny")[-1]["files"]
    assert "model.safetensors" not in files
    assert "model.safetensors.index.json" in files
    assert sum(name.startswith("model-0") for name in files) > 2
    loaded, _ = load_model("alice/tiny")
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items())
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    with pytest.raises(ConfigurationError, match=r"max_shard_size='1KB', but the folder .* goes up as it is"):
        push_model(tmp_path, "alice/tiny", max_shard_size="1KB")


def test_patterns_choose_among_the_files_of_a_model(hub, pair, tmp_path):
    model, processor = pair
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    (tmp_path / "notes.txt").write_text("private")
    push_model(tmp_path, "alice/tiny", ignore_patterns=["*.safetensors", "README.md"])
    first = set(hub.history("alice/tiny")[-1]["files"])
    assert {"config.json", "label_space.json"} <= first
    assert not any(name.endswith((".safetensors", ".md", ".txt")) for name in first)
    push_model(tmp_path, "alice/tiny", allow_patterns="*.safetensors")
    second = set(hub.history("alice/tiny")[-1]["files"])
    assert second - first == {"model.safetensors", "label_trie.safetensors"}
    (tmp_path / "generation_config.json").unlink()
    push_model(tmp_path, "alice/tiny", ignore_patterns="generation_*")
    assert set(hub.history("alice/tiny")[-1]["files"]) == {*second, "README.md"}
    with pytest.raises(ConfigurationError, match=r"allow_patterns=\['\*\.txt'\] .* leave none of the files"):
        push_model(tmp_path, "alice/tiny", allow_patterns=["*.txt"])


def test_a_processor_goes_to_its_model_alone(hub, pair):
    _, processor = pair
    with pytest.raises(HubError, match="'alice/tiny' failed: 404 Client Error"):
        processor.push_to_hub("alice/tiny")
    HfApi(endpoint=hub.url).create_repo("alice/empty")
    with pytest.raises(HubError, match=r"alice/empty holds none of .*Push the model with its processor instead"):
        processor.push_to_hub("alice/empty")
    assert hub.history("alice/tiny") is None
    plan = processor.push_to_hub("alice/tiny", dry_run=True).plan
    assert "label_space.json" in {file.path for file in plan.files}
    assert "model.safetensors" not in {file.path for file in plan.files}


def test_saving_does_not_push_half_a_model(pair, tmp_path):
    model, processor = pair
    with pytest.raises(ConfigurationError, match=r"without its processor\. Call model\.push_to_hub"):
        model.save_pretrained(tmp_path, push_to_hub=True)
    with pytest.raises(ConfigurationError, match="Push model and processor together"):
        processor.save_pretrained(tmp_path, push_to_hub=True)


def test_the_command_has_the_options(hub, pair, tmp_path, capsys):
    model, processor = pair
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    command = ["push", "model", "--model", str(tmp_path), "--repo-id", "alice/tiny"]
    assert main([*command, "--message", "M", "--description", "D", "--tag", "a", "--tag", "b", "--language", "fi",
                 "--exclude", "generation_*"]) == 0  # fmt: skip
    commit = hub.history("alice/tiny")[-1]
    assert (commit["title"], commit["description"]) == ("M", "D")
    assert "generation_config.json" not in commit["files"]
    assert {"a", "b"} <= set(_card(hub)["tags"])
    assert _card(hub)["language"] == ["fi"]
    assert "generation_config" not in capsys.readouterr().out


# ---------------------------------------------------------------------------------------------------- variants


def test_weights_of_another_precision(hub, pair, tmp_path):
    model, processor = pair
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    half = XLGenForConditionalGeneration.from_pretrained(tmp_path).half()
    half.save_pretrained(tmp_path, variant="fp16")
    names = {path.name for path in tmp_path.iterdir()}
    assert {"model.safetensors", "model.fp16.safetensors"} <= names
    loaded, _ = load_model(str(tmp_path), variant="fp16")
    assert torch.equal(loaded.get_input_embeddings().weight, half.get_input_embeddings().weight)
    # The config is that of the last save, and says float16; transformers goes by it, too.
    whole = XLGenForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.float32)
    assert torch.equal(whole.get_input_embeddings().weight, model.get_input_embeddings().weight)
    push_model(tmp_path, "alice/tiny")
    before = len(hub.ask("requests"))
    again = XLGenForConditionalGeneration.from_pretrained("alice/tiny", variant="fp16")
    assert torch.equal(again.get_input_embeddings().weight, half.get_input_embeddings().weight)
    asked = [request for request in hub.ask("requests")[before:] if "/resolve/" in request]
    assert any(request.endswith("model.fp16.safetensors") for request in asked)
    assert not any(request.endswith("/model.safetensors") for request in asked)
    half.save_pretrained(tmp_path, variant="fp16", max_shard_size="10KB")
    (tmp_path / "model.fp16.safetensors").unlink(missing_ok=True)
    in_parts, _ = load_model(str(tmp_path), variant="fp16")
    assert torch.equal(in_parts.get_input_embeddings().weight, half.get_input_embeddings().weight)
    with pytest.raises(
        ModelFolderError, match=r"no weights of the variant 'bf16'; of other variants it has \['model\.fp16"
    ):
        load_model(str(tmp_path), variant="bf16")
    with pytest.raises(ConfigurationError, match=r"variant='\.\./x'; give a name"):
        load_model(str(tmp_path), variant="../x")
    model.save_pretrained(tmp_path)
    assert not list(tmp_path.glob("model.fp16*"))  # of weights that are gone


# ---------------------------------------------------------------------------------------------------- Auto classes


@pytest.mark.parametrize("family", ["t5", "llama"])
def test_auto_classes(make_model, tmp_path, family):
    model, processor = make_model(family)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    for auto in (AutoModel, AutoModelForSeq2SeqLM):
        assert type(auto.from_pretrained(tmp_path)) is XLGenForConditionalGeneration
    with pytest.raises(ConfigurationError, match=r"is an XLGen model, also .* Load it with AutoModelForSeq2SeqLM"):
        AutoModelForCausalLM.from_pretrained(tmp_path)
    with pytest.raises(ConfigurationError, match="This XLGenConfig is an XLGen model"):
        AutoModelForCausalLM.from_config(model.config)
    assert XLGenProcessor.from_pretrained(tmp_path).label_space.names == processor.label_space.names
