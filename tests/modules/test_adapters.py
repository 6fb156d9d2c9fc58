"""Adapters of peft: loaded and merged they compute what they did in training, however they were initialised."""

from __future__ import annotations

import json

import peft
import pytest
import torch

from xlgen_hf.errors import ModelFolderError
from xlgen_hf.modeling_xlgen import XLGenForConditionalGeneration

INITS = [True, False, "gaussian", "orthogonal", "mica", "pissa", "olora"]


def _logits(model):
    ids = torch.tensor([[3, 7, 9, 12], [5, 4, 11, 2]])
    with torch.no_grad():
        return model(input_ids=ids, decoder_input_ids=ids).logits.clamp(min=-99)  # -inf where no label goes on


def _adapter(make_model, folder, init, **settings):
    """An adapter whose weights have moved, saved as peft saves it; gives its logits and those of the base."""
    model, processor = make_model("t5", "bcl")
    model.save_pretrained(folder / "base")
    processor.save_pretrained(folder / "base")
    before = _logits(model)
    model.name_or_path = str(folder / "base")
    config = peft.LoraConfig(
        task_type="SEQ_2_SEQ_LM", r=4, target_modules=["q", "v"], init_lora_weights=init, **settings
    )
    adapted = peft.get_peft_model(model, config)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, value in adapted.named_parameters():
            if "lora_" in name:
                value += 0.1 * torch.randn_like(value)
    adapted.eval().save_pretrained(folder / "adapter")
    return _logits(adapted), before


@pytest.mark.parametrize("init", INITS)
def test_every_initialisation_loads_as_it_was_trained(make_model, tmp_path, init):
    """The fault: PiSSA and OLoRA take their start out of the base, and loading left it in."""
    expected, of_base = _adapter(make_model, tmp_path, init)
    assert (expected - of_base).abs().max() > 1e-3
    loaded = XLGenForConditionalGeneration.from_pretrained(tmp_path / "adapter")
    torch.testing.assert_close(_logits(loaded), expected, rtol=0, atol=1e-4)
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["init_lora_weights"] == init


@pytest.mark.parametrize("settings", [{"use_dora": True}, {"use_rslora": True, "lora_alpha": 3}])
def test_settings_that_change_what_is_computed(make_model, tmp_path, settings):
    expected, _ = _adapter(make_model, tmp_path, "pissa", **settings)
    loaded = XLGenForConditionalGeneration.from_pretrained(tmp_path / "adapter")
    torch.testing.assert_close(_logits(loaded), expected, rtol=0, atol=1e-4)


def test_an_initialisation_from_data_leaves_the_base_as_it_is(make_model, tmp_path):
    """EVA: what it drew from is not there any more, and not needed."""
    expected, _ = _adapter(make_model, tmp_path, True)
    path = tmp_path / "adapter" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"init_lora_weights": "eva"}))
    loaded = XLGenForConditionalGeneration.from_pretrained(tmp_path / "adapter")
    torch.testing.assert_close(_logits(loaded), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("init", "message"),
    [
        ("corda", "init_lora_weights='corda' has changed the base in a way that cannot be repeated"),
        ("loftq", "init_lora_weights='loftq' has changed the base"),
        ("lora_ga", "init_lora_weights='lora_ga' has changed the base"),
        ("pissa_niter_16", "init_lora_weights='pissa_niter_16' has changed the base"),
        ("spiral", "'init_lora_weights' is 'spiral'; it must be"),
        (["pissa"], r"'init_lora_weights' is \['pissa'\]; it must be"),
    ],
)
def test_initialisations_that_cannot_be_repeated_are_refused(make_model, tmp_path, init, message):
    _adapter(make_model, tmp_path, True)
    path = tmp_path / "adapter" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"init_lora_weights": init}))
    with pytest.raises(ModelFolderError, match=f"^{path}: {message}"):
        XLGenForConditionalGeneration.from_pretrained(tmp_path / "adapter")


def test_loading_an_adapter_leaves_its_files_alone(make_model, tmp_path):
    _adapter(make_model, tmp_path, "pissa")
    """So it does the generator of random numbers."""
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    state = torch.get_rng_state()
    XLGenForConditionalGeneration.from_pretrained(tmp_path / "adapter")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert torch.equal(torch.get_rng_state(), state)
