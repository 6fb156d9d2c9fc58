"""Settings are defined once: what derives from the definitions has the same names, defaults and ranges."""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlgen_hf.configuration_xlgen import XLGenConfig
from xlgen_hf.errors import ConfigurationError
from xlgen_hf.labels.space import LabelSpace
from xlgen_hf.settings import (
    ClusterSettings,
    Definition,
    LabelSettings,
    ModelSettings,
    Setting,
    check_value,
    default_conditioning,
    definitions,
    setting,
)
from xlgen_hf.training.arguments import XLGenTrainingArguments
from xlgen_hf.training.settings import TrainingSettings
from xlgen_hf.training.trainer_settings import TrainerSettings

TABLES = (LabelSettings, ClusterSettings, ModelSettings, TrainingSettings, TrainerSettings)
VARIANTS = ("base", "bcl", "mcg", "rcl")


@pytest.mark.parametrize("table", TABLES)
def test_every_setting_is_described_and_its_default_is_allowed(table):
    own = [name for name in definitions(table) if name in table.__annotations__]
    described = inspect.getdoc(table)  # without the indentation, which Python 3.13 no longer keeps
    assert own
    for name in own:
        definition = definitions(table)[name]
        check_value(definition, definition.default)
        assert definition.about.endswith(".") and "%" not in definition.about  # argparse would read a format
        assert set(definition.about.variants) <= set(VARIANTS)
        assert f"\n    {name}: " in described or f", {name}" in described, name


def test_the_config_has_the_defaults_of_the_table():
    fields = {field.name: field for field in dataclasses.fields(XLGenConfig)}
    for name, definition in definitions(ModelSettings).items():
        depends_on_variant = name == "cluster_loss_weight"  # and what makes a model gives it one
        assert fields[name].default == (1.0 if depends_on_variant else definition.default), name


def test_a_setting_has_one_default_wherever_it_stands():
    found: dict[str, set[Any]] = {}
    for table in TABLES:
        for name, definition in definitions(table).items():
            found.setdefault(name, set()).add(definition.default)
    assert {name for name, defaults in found.items() if len(defaults) > 1} == {
        "max_labels"
    }  # of the rows, in training
    assert LabelSpace(["a"], [1]).decode_order == TrainingSettings().decode_order == "freq_backward"
    assert XLGenConfig().cluster_threshold == TrainingSettings().cluster_threshold == 0.25


def test_trainer_arguments_have_the_defaults_of_the_table(tmp_path):
    fields = {field.name: field for field in dataclasses.fields(XLGenTrainingArguments)}
    for name, definition in definitions(TrainerSettings).items():
        assert fields[name].default == definition.default, name
        assert str(fields[name].metadata["help"]) == str(definition.about)
    assert next(iter(fields)) == "output_dir"  # still the one that may be given without its name


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("chosen", [None, "memory", "tokens"])
def test_conditioning_is_resolved_in_one_place(variant, chosen, tmp_path):
    expected = chosen or ("tokens" if variant == "rcl" else "memory")
    config = XLGenConfig(variant=variant, num_clusters=3, conditioning=chosen)
    assert config.conditioning == expected
    config.save_pretrained(tmp_path)
    assert XLGenConfig.from_pretrained(tmp_path).conditioning == expected
    assert default_conditioning(variant) == ("tokens" if variant == "rcl" else "memory")
    if variant in ("bcl", "rcl"):
        assert TrainingSettings(variant=variant, conditioning=chosen).model_options()["conditioning"] == expected


def test_types_of_a_config_file_follow_from_the_annotations(tmp_path):
    types = XLGenConfig.json_types()
    assert set(types) == set(XLGenConfig.__annotations__) - {"backbone"}
    assert set(types["cluster_threshold"]) == {int, float}
    assert set(types["first_cluster_token_id"]) == {int, type(None)}
    assert set(types["eos_token_id"]) == {int, list, type(None)}
    assert set(types["fresh_modules"]) == {list, type(None)}
    assert (types["copy_candidates"], types["variant"]) == ((bool,), (str,))
    XLGenConfig(variant="rcl", num_input_candidates=4).save_pretrained(tmp_path)
    content = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert {name for name in types if name in content} >= set(definitions(ModelSettings))
    assert all(type(content[name]) in kinds for name, kinds in types.items() if name in content)


NUMBERS = [
    definition
    for table in TABLES
    for definition in definitions(table).values()
    if {int, float} & set(definition.kinds) and not definition.choices
]


@given(st.sampled_from(NUMBERS), st.one_of(st.integers(-(10**9), 10**10), st.floats(allow_nan=True)))
def test_numbers_are_accepted_exactly_within_their_range(definition: Definition, value: float):
    about = definition.about
    bounds = [
        about.minimum is None or value >= about.minimum,
        about.maximum is None or value <= about.maximum,
        about.above is None or value > about.above,
        about.below is None or value < about.below,
    ]
    fits = all(bounds) and math.isfinite(value) and (float in definition.kinds or isinstance(value, int))
    if fits:
        check_value(definition, value)
    else:
        with pytest.raises(ConfigurationError, match=rf"^{definition.name}=.*; it must be (a number|an integer)"):
            check_value(definition, value)


@dataclasses.dataclass
class _Example:
    share: float = setting(0.5, help="A share.", minimum=0, maximum=1)
    rate: float = setting(1.0, help="A rate.", above=0)
    layers: int | None = setting(None, help="Layers.", minimum=1)
    kind: str | Path | None = setting(None, help="A folder.")
    flag: bool = setting(False, help="A flag.")
    plain: int = 3


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("share", 1.5, "share=1.5; it must be a number between 0 and 1."),
        ("share", True, "share=True; it must be a number between 0 and 1."),
        ("share", "0.5", "share='0.5'; it must be a number between 0 and 1."),
        ("share", None, "share=None; it must be a number between 0 and 1."),
        ("rate", 0, "rate=0; it must be a number > 0."),
        ("layers", 0, "layers=0; it must be an integer >= 1."),
        ("layers", 1.0, "layers=1.0; it must be an integer >= 1."),
        ("kind", 3, "kind=3; it must be a path."),
        ("flag", 1, "flag=1; it must be true or false."),
    ],
)
def test_what_is_allowed_is_said(name, value, message):
    with pytest.raises(ConfigurationError, match=f"^{re.escape(message)}$"):
        check_value(definitions(_Example)[name], value)


def test_a_field_that_is_no_setting_is_passed_over():
    assert list(definitions(_Example)) == ["share", "rate", "layers", "kind", "flag"]
    assert isinstance(definitions(_Example)["share"].about, Setting)
    for name, value in (("share", 1), ("layers", None), ("kind", Path("x")), ("kind", "x"), ("flag", True)):
        check_value(definitions(_Example)[name], value)


@pytest.mark.parametrize(("variant", "chosen", "expected"), [("bcl", None, 1), ("mcg", None, 0.3), ("mcg", 0.7, 0.7)])
def test_the_variant_decides_the_weight_of_the_cluster_loss(make_model, variant, chosen, expected):
    settings = TrainingSettings(variant=variant, cluster_loss_weight=chosen)
    assert settings.model_options()["cluster_loss_weight"] == expected
    given = {} if chosen is None else {"cluster_loss_weight": chosen}
    assert make_model("t5", variant, **given)[0].config.cluster_loss_weight == expected
