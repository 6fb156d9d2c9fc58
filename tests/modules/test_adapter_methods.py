"""The methods of peft: what its own loader loads, the package loads with the same predictions, or refuses by name."""

from __future__ import annotations

import json
import warnings

import peft
import pytest
import torch
from peft import AutoPeftModelForSeq2SeqLM, PeftModel, get_peft_model

from xlgen_hf.decoding.decoded_sets import DecodingOptions
from xlgen_hf.errors import ConfigurationError, ModelFolderError
from xlgen_hf.loading import load_model
from xlgen_hf.modeling_xlgen import XLGenForConditionalGeneration
from xlgen_hf.modules.adapters import check_adapter
from xlgen_hf.training.lora import lora_config

TEXTS = ["a history of church music", "modern art", "the piano " * 20]
FEW = DecodingOptions(max_labels=2)
LAYERS = {"t5": ["q", "v", "wo"], "bert": ["query", "value"], "llama": ["q_proj", "v_proj", "down_proj"]}
STACK = {"t5": "block", "bert": "layer", "llama": "layers"}
SEQ = {"task_type": "SEQ_2_SEQ_LM"}


def _settings(family: str) -> dict[str, peft.PeftConfig]:
    layers = LAYERS[family]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that the projection of VeRA follows from a seed
        seeded = peft.VeraConfig(r=4, save_projection=False, target_modules=layers, **SEQ)
    where = {**SEQ, "target_modules": layers}
    feedforward = [name for name in layers if name in ("wo", "down_proj")]
    lora = {
        "bias=all": {"bias": "all"},
        "bias=lora_only": {"bias": "lora_only"},
        "patterns": {"rank_pattern": {layers[0]: 2}, "alpha_pattern": {layers[1]: 3}},
        "dora": {"use_dora": True},
        "rslora": {"use_rslora": True},
        "whole module": {"modules_to_save": ["cluster_head"]},
        "rows": {"trainable_token_indices": [5, 6]},
        "expression": {"target_modules": rf".*\.({'|'.join(layers)})$"},
        "all-linear": {"target_modules": "all-linear"},
        "some layers": {"layers_to_transform": [0], "layers_pattern": STACK[family]},
        "but for": {"exclude_modules": [layers[0]]},
    }
    return {name: peft.LoraConfig(r=4, **{**where, **more}) for name, more in lora.items()} | {
        "adalora": peft.AdaLoraConfig(init_r=4, target_r=2, total_step=10, **where),
        "ia3": peft.IA3Config(feedforward_modules=feedforward, **where),
        "vera": peft.VeraConfig(r=4, **where),
        "vera without projection": seeded,
        "loha": peft.LoHaConfig(r=4, **where),
        "lokr": peft.LoKrConfig(r=4, **where),
        "oft": peft.OFTConfig(oft_block_size=4, **where),
    }


class _Found:
    """What a model predicts, and the logits that it computes; equal where only rounding differs."""

    def __init__(self, model, processor):
        self.labels = [one.labels for one in model.predict(TEXTS, processor, decoding=FEW)]
        ids = torch.tensor([[3, 7, 9, 12], [5, 4, 11, 2]])
        starts = torch.full((2, 1), model.config.start_token)
        with torch.no_grad():
            logits = model(input_ids=ids, decoder_input_ids=torch.cat([starts, ids], 1)).logits
        self.logits = logits[logits.isfinite()]  # -inf where no label goes on

    def __eq__(self, other):
        return self.labels == other.labels and torch.allclose(self.logits, other.logits, rtol=1e-4, atol=1e-4)

    __hash__ = None


def _shake(model, seed=3):
    """Give everything that an adapter trains weights that matter."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.3 * torch.randn_like(parameter)


@pytest.fixture
def base(make_model, made, tmp_path_factory):
    """A function that gives a model of a family, loaded anew from its folder, and its processor."""

    def make(family="t5"):
        model, processor = make_model(family, "bcl")
        if family not in made:
            made[family] = tmp_path_factory.mktemp("base")
            model.save_pretrained(made[family])
            processor.save_pretrained(made[family])
        return XLGenForConditionalGeneration.from_pretrained(made[family]), processor

    return make


@pytest.fixture
def plain(base, made):
    """A function that gives what the model of a family predicts without an adapter."""

    def find(family):
        key = f"plain {family}"
        if key not in made:
            made[key] = _Found(*base(family))
        return made[key]

    return find


def _saved(model, settings, folder, seed=3):
    """An adapter whose weights matter, in a folder; the model of peft that has it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of peft, that patterns are ignored where modules are listed
        adapted = get_peft_model(model, settings).eval()
    _shake(adapted, seed)
    adapted.save_pretrained(folder)
    return adapted


# One family has all methods; the others those that treat their layers in ways of their own.
_OF_ALL = ("adalora", "all-linear", "bias=all", "dora", "ia3", "rows", "some layers")
CASES = [(family, name) for family in LAYERS for name in _settings(family) if family == "t5" or name in _OF_ALL]


@pytest.mark.parametrize(("family", "name"), CASES)
def test_what_peft_loads_is_loaded_with_the_same_predictions(base, plain, tmp_path, family, name):
    model, processor = base(family)
    adapted = _saved(model, _settings(family)[name], tmp_path / "adapter")
    check_adapter(adapted)
    expected = _Found(adapted, processor)
    assert expected != plain(family)
    processor.save_pretrained(tmp_path / "adapter")
    loaded, _ = load_model(str(tmp_path / "adapter"))
    assert type(loaded) is XLGenForConditionalGeneration
    assert _Found(loaded, processor) == expected
    if family == "t5":
        of_peft = AutoPeftModelForSeq2SeqLM.from_pretrained(str(tmp_path / "adapter")).eval()
        assert _Found(of_peft, processor) == expected
        loaded.save_pretrained(tmp_path / "merged")
        again = XLGenForConditionalGeneration.from_pretrained(tmp_path / "merged")
        assert _Found(again, processor) == expected


def test_adalora_whose_ranks_were_pruned(base, tmp_path):
    model, processor = base()
    adapted = get_peft_model(model, _settings("t5")["adalora"]).eval()
    _shake(adapted)
    adapted.peft_config["default"].rank_pattern = {
        f"{name}.lora_E": [True, False, True, False]
        for name, layer in adapted.get_base_model().named_modules()
        if hasattr(layer, "lora_E")
    }
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_E" in name:
                parameter[[1, 3]] = 0  # as pruning leaves them
    expected = _Found(adapted, processor)
    adapted.save_pretrained(tmp_path / "adapter")
    loaded = XLGenForConditionalGeneration.from_pretrained(tmp_path / "adapter")
    assert _Found(loaded, processor) == expected


def test_an_output_layer_of_its_own_can_be_adapted(base, tmp_path):
    """Llama's; the fault: its base computed chosen rows inside of the adapter, which computed all."""
    model, processor = base("llama")
    adapted = _saved(model, peft.LoraConfig(r=4, target_modules=["lm_head"], **SEQ), tmp_path / "adapter")
    check_adapter(adapted)
    expected = _Found(adapted, processor)
    loaded = XLGenForConditionalGeneration.from_pretrained(tmp_path / "adapter")
    assert _Found(loaded, processor) == expected


# ---------------------------------------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("family", "settings", "message"),
    [
        ("t5", peft.HRAConfig(r=4, target_modules=["q"], **SEQ), "'HRA' is not a method .* choose one"),
        ("t5", peft.LoraConfig(target_modules=["q"], init_lora_weights="pissa_niter_4", **SEQ),
         "init_lora_weights='pissa_niter_4' has changed the base"),
        ("t5", peft.LoraConfig(target_modules=["q"], lora_bias=True, **SEQ), "lora_bias=True is not what"),
        ("t5", peft.LoraConfig(target_modules=["q"], r=17, **SEQ), "r=17, above the base's width of 16"),
        ("t5", peft.LoraConfig(target_modules=["q"], rank_pattern={"q": 99}, **SEQ), r"rank_pattern\['q'\]=99, above"),
        ("t5", peft.LoraConfig(target_modules=["q"], alpha_pattern={".*q": 4}, **SEQ), "'.*q', a regular expression"),
        ("t5", peft.LoraConfig(target_modules=["q", "shared"], **SEQ), "backbone.shared shares its weights with"),
        ("t5", peft.LoraConfig(target_modules=["lm_head"], **SEQ), "backbone.lm_head shares its weights with"),
        ("t5", peft.LoraConfig(target_modules=["q"], modules_to_save=["shared"], **SEQ), "backbone.shared shares its"),
        ("bert", peft.LoraConfig(target_modules=["query"], modules_to_save=["decoder"], **SEQ),
         "modules_to_save names layers inside of others"),
    ],
)  # fmt: skip
def test_what_could_not_be_loaded_is_refused_before_training(base, family, settings, message):
    adapted = get_peft_model(base(family)[0], settings)
    with pytest.raises(ConfigurationError, match=f"^The adapter 'default': .*{message}.* refused now"):
        check_adapter(adapted)


@pytest.mark.parametrize("kind", ["PromptTuningConfig", "PrefixTuningConfig", "PromptEncoderConfig"])
def test_prompts_are_refused_before_training(base, kind):
    model, _ = base()
    sizes = {"num_layers": 2, "token_dim": 16, "num_attention_heads": 2, "num_transformer_submodules": 1}
    adapted = get_peft_model(model, getattr(peft, kind)(num_virtual_tokens=2, **sizes, **SEQ))
    with pytest.raises(ConfigurationError, match=r"puts learned vectors in front of the text .* choose one of"):
        check_adapter(adapted)


def test_a_folder_of_prompts_is_refused(base, tmp_path):
    _saved(base()[0], _settings("t5")["ia3"], tmp_path / "adapter")
    path = tmp_path / "adapter" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"peft_type": "PREFIX_TUNING"}))
    with pytest.raises(ModelFolderError, match="peft_type='PREFIX_TUNING' puts learned vectors"):
        XLGenForConditionalGeneration.from_pretrained(tmp_path / "adapter")


# ---------------------------------------------------------------------------------------------------- several


@pytest.fixture
def two(base, plain, tmp_path):
    """Two adapters of one base; the base, processor, and the predictions without, with the first, with the second."""

    def make(family):
        model, processor = base(family)
        expected = [plain(family)]
        for number, name in enumerate(("first", "second")):
            fresh, _ = base(family)
            adapted = _saved(fresh, lora_config(fresh, r=4), tmp_path / name, seed=number)
            expected.append(_Found(adapted, processor))
        assert expected[0] != expected[1] != expected[2]
        return model, processor, *expected

    return make


@pytest.mark.parametrize("family", LAYERS)
def test_adapters_of_peft_are_switched(two, tmp_path, family):
    """The fault: rows of the output layer were kept that the adapter before had made."""
    model, processor, plain, first, second = two(family)
    adapted = PeftModel.from_pretrained(model, str(tmp_path / "first"), adapter_name="first").eval()
    adapted.load_adapter(str(tmp_path / "second"), adapter_name="second")
    assert _Found(adapted, processor) == first
    adapted.set_adapter("second")
    assert _Found(adapted, processor) == second
    with adapted.disable_adapter():
        assert _Found(adapted, processor) == plain
    adapted.set_adapter("first")
    assert _Found(adapted, processor) == first


@pytest.mark.parametrize("family", LAYERS)
def test_adapters_in_the_layers_are_switched(two, tmp_path, family):
    """As transformers has it, whose own methods leave out the rows of new tokens."""
    model, processor, plain, first, second = two(family)
    model.load_adapter(tmp_path / "first", "first")
    model.load_adapter(tmp_path / "second", "second")
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert _Found(model, processor) == first
    model.set_adapter("second")
    assert _Found(model, processor) == second
    model.disable_adapters()
    assert _Found(model, processor) == plain
    model.enable_adapters()
    assert _Found(model, processor) == second


def test_mistakes_with_adapters_in_the_layers(two, tmp_path):
    model, *_ = two("t5")
    with pytest.raises(ConfigurationError, match=r"The model has no adapters\. Load one with load_adapter"):
        model.disable_adapters()
    model.load_adapter(tmp_path / "first", "first")
    with pytest.raises(ConfigurationError, match="has an adapter 'first' already"):
        model.load_adapter(tmp_path / "second", "first")
    with pytest.raises(ConfigurationError, match=r"no adapter \['third'\]; it has \['first'\]"):
        model.set_adapter("third")
    with pytest.raises(ConfigurationError, match=r"load_adapter has no options \['hotswap'\]"):
        model.load_adapter(tmp_path / "second", "second", hotswap=True)
    path = tmp_path / "second" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"init_lora_weights": "pissa"}))
    with pytest.raises(ModelFolderError, match="init_lora_weights='pissa' takes a part of the base"):
        model.load_adapter(tmp_path / "second", "second")
