"""Trainings with hardly any rows: they end well, or say what is wrong before any step."""

from __future__ import annotations

import pytest
from datasets import Dataset
from tiny import ROWS

from xlgen_hf.errors import ConfigurationError
from xlgen_hf.training.arguments import XLGenTrainingArguments
from xlgen_hf.training.build import prepare_model
from xlgen_hf.training.lora import lora_config
from xlgen_hf.training.run import train_model
from xlgen_hf.training.settings import TrainingSettings
from xlgen_hf.training.warm_start import start_from


@pytest.fixture
def settings(checkpoints):
    """A function that makes settings with tiny checkpoints."""

    def make(variant: str, **more: object) -> TrainingSettings:
        options = {"backbone": checkpoints["t5"], "variant": variant, "max_source_length": 128, **more}
        return TrainingSettings(**options, **({} if variant == "base" else {"encoder": checkpoints["bert"]}))

    return make


def _arguments(folder, **more):
    return XLGenTrainingArguments(str(folder), **{"use_cpu": True, "max_steps": 1, "save_strategy": "no", **more})


@pytest.mark.parametrize("number", [1, 2])
def test_one_validation_row_is_enough(settings, tmp_path, number):
    rows = Dataset.from_list(ROWS)
    rcl = settings("rcl", retriever_epochs=0)
    model, _, scores = train_model(rcl, _arguments(tmp_path), rows, rows.select(range(number)))
    assert model.config.predicts_with in ("generator", "candidate_head")
    assert 0 <= scores["eval_micro_f1"] <= 1


@pytest.mark.parametrize("length", [{"max_steps": 5}, {"max_steps": -1, "num_train_epochs": 1}])
def test_a_batch_that_is_never_full(settings, tmp_path, length):
    args = _arguments(tmp_path, dataloader_drop_last=True, per_device_train_batch_size=64, **length)
    with pytest.raises(ConfigurationError, match=r"leaves no batch: there are .* a step takes 64"):
        train_model(settings("base"), args, Dataset.from_list(ROWS))


def test_adapters_train_the_tokens_of_levels_beside_those_of_clusters(settings, tmp_path):
    mcg = settings("mcg", candidates=True, retriever_epochs=0, num_clusters=3)
    model, processor = prepare_model(mcg, Dataset.from_list(ROWS), seed=0, cache_dir=tmp_path)
    (rows,) = lora_config(model, r=2).trainable_token_indices.values()
    assert rows == processor.label_tokenizer.added_token_ids
    assert {*model.config.level_token_ids} <= {*rows}


@pytest.mark.parametrize("same", [True, False])
def test_tokens_of_clusters_are_taken_with_their_clusters_alone(settings, tmp_path, same):
    rows = Dataset.from_list(ROWS)
    first, second = settings("mcg", num_clusters=3), settings("mcg", num_clusters=3 if same else 2)
    trained, processor = prepare_model(first, rows, seed=0, cache_dir=tmp_path)
    (token,) = processor.label_tokenizer.cluster_token_ids([0])
    trained.get_input_embeddings().weight.data[[token, 5]] = 7
    for part in (trained, processor):
        part.save_pretrained(tmp_path / "trained")
    model, processor = prepare_model(second, rows, seed=0, cache_dir=tmp_path)
    start_from(model, processor, str(tmp_path / "trained"))
    (token,) = processor.label_tokenizer.cluster_token_ids([0])
    weights = model.get_input_embeddings().weight
    assert (weights[5] == 7).all()
    assert bool((weights[token] == 7).all()) is same
