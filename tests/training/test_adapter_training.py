"""Adapters of peft in the trainer: what it writes loads with the same predictions, or it is refused at the start."""

from __future__ import annotations

import peft
import pytest
from peft import get_peft_model

from xlgen_hf.errors import ConfigurationError
from xlgen_hf.loading import load_model
from xlgen_hf.modeling_xlgen import XLGenForConditionalGeneration
from xlgen_hf.training.arguments import XLGenTrainingArguments
from xlgen_hf.training.trainer import XLGenTrainer

TEXTS = ["a history of church music", "modern art"]
WHERE = {"task_type": "SEQ_2_SEQ_LM", "target_modules": ["q", "v", "wo"]}
SETTINGS = {
    "adalora": peft.AdaLoraConfig(init_r=4, target_r=2, total_step=10, **WHERE),
    "ia3": peft.IA3Config(feedforward_modules=["wo"], **WHERE),
    "vera": peft.VeraConfig(r=4, **WHERE),
    "lokr": peft.LoKrConfig(r=4, **WHERE),
    "oft": peft.OFTConfig(oft_block_size=4, **WHERE),
    "bias": peft.LoraConfig(r=2, bias="all", **WHERE),
}


@pytest.fixture
def make_trainer(make_model, rows, tmp_path):
    """A function that makes a trainer of a model, given what wraps the model."""

    def make(wrap):
        model, processor = make_model("t5")
        model.save_pretrained(tmp_path / "base")
        processor.save_pretrained(tmp_path / "base")
        model = wrap(XLGenForConditionalGeneration.from_pretrained(tmp_path / "base"))
        args = XLGenTrainingArguments(
            str(tmp_path / "run"), use_cpu=True, max_steps=2, fresh_learning_rate=0.05, disable_tqdm=True,
            save_strategy="no",
        )  # fmt: skip
        return XLGenTrainer(model, args, processing_class=processor, train_dataset=rows)

    return make


@pytest.mark.parametrize("name", SETTINGS)
def test_what_the_trainer_writes_loads_with_the_same_predictions(make_trainer, tmp_path, name):
    # The name of the adapter, after which peft calls a folder, is of no matter.
    trainer = make_trainer(lambda model: get_peft_model(model, SETTINGS[name], adapter_name="mine"))
    trainer.create_optimizer()
    fresh = max(group["params"] for group in trainer.optimizer.param_groups if group["lr"] == 0.05)
    assert len(fresh) >= len(trainer.model.get_base_model().backbone.encoder.block)
    trainer.train()
    trainer.save_model()
    trained = trainer.model.eval()
    expected = [(one.labels, one.scores) for one in trained.predict(TEXTS, trainer.processing_class)]
    model, processor = load_model(str(tmp_path / "run"))
    assert type(model) is XLGenForConditionalGeneration
    for one, (labels, scores) in zip(model.predict(TEXTS, processor), expected, strict=True):
        assert one.labels == labels
        assert one.scores == pytest.approx(scores, abs=1e-5)


def test_adapters_that_could_not_be_loaded_are_refused(make_trainer):
    with pytest.raises(ConfigurationError, match=r"peft_type='HRA' is not a method .* refused now"):
        make_trainer(lambda model: get_peft_model(model, peft.HRAConfig(r=4, **WHERE)))

    def in_its_layers(model):
        peft.inject_adapter_in_model(SETTINGS["bias"], model)  # as model.add_adapter does
        model.peft_config = {"default": SETTINGS["bias"]}
        return model

    with pytest.raises(ConfigurationError, match=r"has an adapter outside of a PeftModel .* peft\.get_peft_model"):
        make_trainer(in_its_layers)

    def both(model):
        adapted = get_peft_model(model, peft.LoraConfig(r=2, **WHERE))
        adapted.add_adapter("more", peft.LoraConfig(r=2, **WHERE))
        adapted.base_model.set_adapter(["default", "more"])
        return adapted

    with pytest.raises(ConfigurationError, match=r"\['default', 'more'\] are active; a training writes .* one"):
        make_trainer(both)
