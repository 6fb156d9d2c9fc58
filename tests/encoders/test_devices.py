"""Where encoders compute: on the device that is asked for, else on that of the process, as models do."""

from __future__ import annotations

import pytest
import torch
from sources import make_rcl, make_retriever
from transformers import PreTrainedModel, pipeline

from xlgen_hf.encoders.loaded import load_encoder, own_device
from xlgen_hf.errors import ConfigurationError
from xlgen_hf.labels.changes import LabelEdits
from xlgen_hf.loading import load_model, load_predictor
from xlgen_hf.pipeline import TASK
from xlgen_hf.ranking.score_model import ScoreModel
from xlgen_hf.retrieval.model_sources import save_source_alone
from xlgen_hf.training.arguments import XLGenTrainingArguments
from xlgen_hf.training.retriever import fit_retriever
from xlgen_hf.training.trainer import XLGenTrainer
from xlgen_hf.updating.update import update_model


@pytest.mark.parametrize(
    ("gpus", "number", "expected"),
    [(0, None, "cpu"), (0, "1", "cpu"), (1, None, "cuda"), (4, None, "cuda"), (4, "2", "cuda:2"), (2, "3", "cuda:1")],
)
def test_each_process_of_a_machine_has_a_gpu_of_its_own(monkeypatch, gpus, number, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if number is not None:
        monkeypatch.setenv("LOCAL_RANK", number)
    assert own_device() == expected


def test_a_loaded_encoder_is_where_it_is_wanted(checkpoints):
    assert load_encoder(checkpoints["bert"], device="cpu")[0].device.type == "cpu"
    with pytest.raises(ConfigurationError, match="device='nowhere' cannot be used"):
        load_encoder(checkpoints["bert"], device="nowhere")


def test_an_index_is_embedded_on_the_device_of_the_process(checkpoints, rows, label_space, tmp_path, monkeypatch):
    arguments = (label_space, rows, None, checkpoints["bert"], tmp_path)
    with pytest.raises(ConfigurationError, match="device='given' cannot be used"):
        fit_retriever(*arguments, device="given")
    monkeypatch.setattr("xlgen_hf.training.retriever.own_device", lambda: "its own")
    with pytest.raises(ConfigurationError, match="device='its own' cannot be used"):
        fit_retriever(*arguments)
    assert fit_retriever(*arguments, device="cpu").encoder[0].device.type == "cpu"


@pytest.fixture
def moved(monkeypatch):
    """What is moved where, in place of moving it."""
    places: list[tuple[str, str]] = []

    def move(model, where):
        places.append((type(model).__name__, str(where)))
        return model

    monkeypatch.setattr(PreTrainedModel, "to", move)
    return places


@pytest.fixture
def index(checkpoints, label_space, tmp_path):
    retriever = make_retriever(checkpoints["bert"], label_space)
    save_source_alone(tmp_path / "index", label_space, "retrieval", retriever, ScoreModel())
    return tmp_path / "index"


@pytest.fixture
def made(checkpoints, label_space):
    return make_rcl(checkpoints["bert"], label_space)


def test_loading_takes_the_encoder_to_the_device_of_the_model(made, index, tmp_path, moved):
    made.model.save_pretrained(tmp_path / "model")
    made.processor.save_pretrained(tmp_path / "model")
    both = [("XLGenForConditionalGeneration", "cuda:1"), ("BertModel", "cuda:1")]
    for load in (load_predictor, load_model):
        moved.clear()
        load(str(tmp_path / "model"), device="cuda:1")
        assert moved == both
    moved.clear()
    load_predictor(str(index), device="cuda:1")
    assert moved == both[1:]
    moved.clear()
    load_predictor(str(index))
    assert not moved


@pytest.mark.parametrize("workers", [0, 2])
def test_a_trainer_takes_the_encoder_to_its_device(made, rows, tmp_path, moved, workers):
    """Or to the CPU: workers of a data loader may look for candidates, and a forked process cannot use a GPU."""
    args = XLGenTrainingArguments(str(tmp_path), use_cpu=True, dataloader_num_workers=workers)
    XLGenTrainer(made.model, args, processing_class=made.processor, train_dataset=rows)
    assert [where for what, where in moved if what == "BertModel"] == ["cpu"]


def test_a_pipeline_takes_the_encoder_to_its_device(made, moved):
    pipeline(TASK, model=made.model, processor=made.processor, device="cpu")
    assert ("BertModel", "cpu") in moved


def test_an_update_embeds_on_the_device_of_the_process(index, monkeypatch, moved):
    monkeypatch.setattr("xlgen_hf.updating.update.own_device", lambda: "its own")
    edits = LabelEdits([("piano", "grand piano")], [], [], [])
    update_model(index, edits)
    assert moved == [("BertModel", "its own")]
    update_model(index, LabelEdits([("organ", "church organ")], [], [], []), device="given")
    assert moved[1:] == [("BertModel", "given")]
