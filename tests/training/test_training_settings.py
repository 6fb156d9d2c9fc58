"""Settings of a training: what they refuse when they are made, and what becomes of them."""

from __future__ import annotations

import dataclasses
import re

import pytest

from xlgen_hf.errors import ConfigurationError
from xlgen_hf.settings import definitions, no_effect
from xlgen_hf.training.settings import TrainingSettings
from xlgen_hf.training.trainer_settings import TrainerSettings


def test_the_recommended_variant_is_the_default():
    assert TrainingSettings().variant == "rcl"
    assert TrainingSettings().backbone == "sentence-transformers/all-MiniLM-L6-v2"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"variant": "bcl", "retriever": "x"}, "retriever='x' has no effect with variant='bcl'. Choose variant rcl"),
        ({"variant": "base", "num_clusters": 3}, "num_clusters=3 has no effect with variant='base'. Choose variant"),
        ({"variant": "base", "conditioning": "tokens"}, "conditioning='tokens' has no effect with variant='base'"),
        ({"cluster_threshold": 0.4}, "cluster_threshold=0.4 has no effect with variant='rcl'. Choose variant bcl"),
        ({"variant": "mcg", "copy_candidates": False}, "copy_candidates=False has no effect with variant='mcg'"),
        ({"variant": "base", "encoder": "x"}, "encoder='x' has no effect with variant='base'"),
        ({"retriever": "x", "lexical": False}, "lexical=False has no effect with retriever='x'. Leave retriever out"),
        ({"retriever": "x", "encoder": "y"}, "encoder='y' has no effect with retriever='x'"),
        ({"variant": "bcl", "clusters": "x", "name_weight": 0.5}, "name_weight=0.5 has no effect with clusters='x'"),
        ({"variant": "bcl", "cluster_source": "gold", "predicted_rate": 0.2}, "Choose cluster_source='mixed'"),
        ({"lora": False, "lora_rank": 4}, "lora_rank=4 has no effect with lora=False. Choose lora=True"),
        ({"lora": False, "quantize": "4bit"}, "quantize='4bit' has no effect with lora=False"),
        ({"variant": "bcll"}, "variant='bcll'; it must be one of base, bcl, mcg, rcl"),
        ({"dropout": 1.0}, "dropout=1.0; it must be a number >= 0 and < 1"),
        ({"num_input_candidates": 0}, "num_input_candidates=0; it must be an integer between 1 and 1000"),
        ({"lora": True, "lora_alpha": 0}, "lora_alpha=0; it must be a number > 0"),
        ({"lora": True, "quantize": "2bit"}, "quantize='2bit'; it must be one of 4bit, 8bit"),
        ({"min_labels": 4, "max_labels": 3}, "min_labels=4 is greater than max_labels=3"),
        ({"label_rows": -1}, "label_rows=-1; it must be a number >= 0"),
    ],
)  # fmt: skip
def test_settings_are_checked_when_made(given, message):
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        TrainingSettings(**given)


def test_a_default_that_was_given_is_refused_where_it_has_no_effect():
    settings = TrainingSettings(variant="bcl")
    settings.check_effect(["variant", "num_clusters", "cluster_threshold"])
    with pytest.raises(ConfigurationError, match="lexical=True has no effect with variant='bcl'"):
        settings.check_effect(["lexical"])


@pytest.mark.parametrize("variant", ["base", "bcl", "mcg", "rcl"])
def test_every_setting_can_be_given_where_it_has_an_effect(variant):
    """What the table says of variants and of other settings is what is checked."""
    for name, definition in definitions(TrainingSettings).items():
        about = definition.about
        if variant not in (about.variants or [variant]) or name == "variant":
            continue
        value = {str: "x", bool: not definition.default}.get(definition.kinds[0])
        if definition.choices:
            value = next(choice for choice in definition.choices if choice != definition.default)
        value = (definition.default or 0) + 1 if value is None else value
        value = {"dropout": 0.5, "candidate_threshold": 0.5, "predicted_rate": 1.0, "name_weight": 1.0}.get(
            name, value
        )
        value = 0.75 if about.maximum == 1 else value
        settings = TrainingSettings(**{"variant": variant, **about.needs, name: value})
        assert no_effect(definition, vars(settings)) is None


def test_what_a_card_may_show(tmp_path):
    settings = TrainingSettings(variant="bcl", clusters=tmp_path, start_from=str(tmp_path), backbone=str(tmp_path))
    published = settings.published()
    assert str(tmp_path) not in str(published)
    assert published["cluster_threshold"] == 0.25 and published["conditioning"] == "memory"
    assert not {"num_clusters", "lexical", "retriever_epochs", "lora_rank", "dropout", "max_labels"} & set(published)


def test_folders_are_checked_before_any_work(tmp_path):
    (tmp_path / "other").mkdir()
    with pytest.raises(ConfigurationError, match=r"retriever='nosuch': no such folder\. `xlgen index` makes one"):
        TrainingSettings(retriever="nosuch").check_folders()
    with pytest.raises(ConfigurationError, match=r"clusters='nosuch': no such folder\. `xlgen cluster` makes one"):
        TrainingSettings(variant="mcg", clusters="nosuch").check_folders()
    with pytest.raises(ConfigurationError, match=r"has no label_clusters\.json; it is not one that `xlgen cluster`"):
        TrainingSettings(variant="mcg", clusters=tmp_path / "other").check_folders()


def test_settings_do_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign to field 'variant'"):
        TrainingSettings().variant = "bcl"  # type: ignore[misc]


def test_options_of_a_variant_are_those_that_it_uses():
    assert "cluster_source" not in TrainingSettings().model_options()
    assert set(TrainingSettings(variant="base").model_options()) == {"min_labels", "max_labels"}
    assert TrainingSettings(variant="mcg").model_options()["max_clusters"] == 8


def test_trainer_settings_and_training_settings_share_no_name():
    assert not set(definitions(TrainerSettings)) & set(definitions(TrainingSettings))
