"""Training of decoder-only backbones: it learns, adapters are saved and loaded, and the program trains one."""

from __future__ import annotations

import pytest
import torch
from datasets import Dataset
from tiny import ROWS
from transformers import pipeline

from xlgen_hf.cli.main import main
from xlgen_hf.files.json_lines import write_jsonl
from xlgen_hf.hub.cards import adapter_card
from xlgen_hf.labels.space import LabelSpace
from xlgen_hf.loading import load_model
from xlgen_hf.pipeline import TASK
from xlgen_hf.training.arguments import XLGenTrainingArguments
from xlgen_hf.training.lora import add_lora, lora_config
from xlgen_hf.training.settings import TrainingSettings
from xlgen_hf.training.trainer import XLGenTrainer

TEXTS = ["a history of church music", "modern art", "organ"]
TWENTY = [ROWS[number % len(ROWS)] for number in range(20)]
ADAPTED = {
    "llama": {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"},
    "gpt2": {"c_attn", "c_proj", "c_fc"},
}


def _same(first, second):
    for one, other in zip(first, second, strict=True):
        assert (one.labels, one.clusters) == (other.labels, other.clusters)
        assert one.scores == pytest.approx(other.scores, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize(("family", "variant"), [("llama", "base"), ("llama", "bcl"), ("gpt2", "mcg")])
def test_thirty_steps_learn_twenty_rows(make_model, tmp_path, family, variant):
    space = LabelSpace.from_label_lists([row["labels"] for row in ROWS])
    model, processor = make_model(family, variant, space, dropout=0.0)
    args = XLGenTrainingArguments(
        str(tmp_path), max_steps=30, per_device_train_batch_size=20, learning_rate=0.02, fresh_learning_rate=0.02,
        warmup_steps=2, logging_steps=10, save_strategy="no", use_cpu=True, seed=1,
    )  # fmt: skip
    trainer = XLGenTrainer(model, args, processing_class=processor, train_dataset=Dataset.from_list(TWENTY))
    trainer.train()
    losses = [log["generation_loss"] for log in trainer.state.log_history if "generation_loss" in log]
    assert losses[-1] < 0.75 * losses[0]


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("variant", ["base", "bcl"])
def test_adapter_is_saved_and_loaded(make_model, tmp_path, family, variant):
    model, processor = make_model(family, variant)
    assert {name.rpartition(".")[2] for name in lora_config(model, r=4).target_modules} == ADAPTED[family]
    adapted = add_lora(model, processor, tmp_path / "base", r=4, alpha=16)
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter += 0.3 * torch.randn_like(parameter)
    predicted = adapted.eval().predict(TEXTS, processor)
    adapted.save_pretrained(tmp_path / "adapter")
    processor.save_pretrained(tmp_path / "adapter")
    loaded, loaded_processor = load_model(str(tmp_path / "adapter"))
    _same(loaded.predict(TEXTS, loaded_processor), predicted)


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable` is deprecated")
def test_adapter_learns_with_activation_checkpointing(make_model, tmp_path):
    model, processor = make_model("llama", "bcl", dropout=0.0)
    adapted = add_lora(model, processor, tmp_path / "base", r=4, dropout=0.0)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    adapted.gradient_checkpointing_enable()
    batch = dict(processor(TEXTS[:1], return_tensors="pt"))
    batch["labels"] = torch.tensor([processor.label_tokenizer.build_target([0, 3])])
    batch["cluster_bits"] = torch.tensor([[1.0, 0, 1]])
    adapted.train()(**batch).loss.backward()
    without = [
        name for name, p in adapted.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())
    ]
    assert not without


def test_lora_is_the_default(checkpoints):
    assert TrainingSettings(variant="base", backbone=checkpoints["llama"]).resolved().lora is True
    assert TrainingSettings(variant="base", backbone=checkpoints["llama"], lora=False).resolved().lora is False
    assert TrainingSettings(variant="base", backbone=checkpoints["t5"]).resolved().lora is False


def test_clusters_are_made_with_an_encoder(checkpoints):
    resolved = TrainingSettings(variant="bcl", backbone=checkpoints["llama"]).resolved()
    assert resolved.encoder == "sentence-transformers/all-MiniLM-L6-v2"
    assert TrainingSettings(variant="base", backbone=checkpoints["llama"]).resolved().encoder is None
    assert TrainingSettings(variant="bcl", backbone=checkpoints["t5"]).resolved().encoder is None


def test_the_program(checkpoints, tmp_path):
    write_jsonl(tmp_path / "rows.jsonl", ROWS)
    folder = tmp_path / "model"
    arguments = [
        "train", "--variant", "bcl", "--backbone", checkpoints["qwen2"], "--encoder", checkpoints["bert"],
        "--train-file", str(tmp_path / "rows.jsonl"), "--output-dir", str(folder), "--max-steps", "2",
        "--num-clusters", "2", "--lora-rank", "4", "--use-cpu",
    ]  # fmt: skip
    assert main(arguments) == 0
    assert (folder / "adapter_config.json").is_file()
    model, processor = load_model(str(folder))
    predicted = model.predict(TEXTS, processor)
    assert main(["predict", "--model", str(folder), "--input-file", str(tmp_path / "rows.jsonl"),
                 "--output-file", str(tmp_path / "predicted.jsonl")]) == 0  # fmt: skip
    results = pipeline(TASK, model=str(folder), device="cpu")(TEXTS)
    assert [[one["label"] for one in result] for result in results] == [one.labels for one in predicted]
    card = adapter_card(folder, "me/tiny", base_model="me/base")
    assert "library_name: peft" in card
