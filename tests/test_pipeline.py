"""The pipeline: how it is found, what it takes and what it gives."""

from __future__ import annotations

import subprocess
import sys

import pytest
from datasets import Dataset
from transformers import T5ForConditionalGeneration, pipeline
from transformers.pipelines.pt_utils import KeyDataset

from xlgen_hf.errors import ConfigurationError, DataError, ModelFolderError
from xlgen_hf.pipeline import TASK, XLGenPipeline
from xlgen_hf.training.lora import add_lora

TEXTS = ["a history of church music", "modern art", "", "the piano " * 40, "organ"]


@pytest.fixture
def saved(make_model, tmp_path):
    """A folder with a model, and what the model predicts."""
    model, processor = make_model("bert", "bcl")
    model.config.min_labels = 3
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    return str(tmp_path / "model"), model.predict(TEXTS, processor)


def _rows(predictions):
    return [
        [{"label": label, "score": score} for label, score in zip(one.labels, one.scores, strict=True)]
        for one in predictions
    ]


def _same(found, expected):
    assert [[row["label"] for row in rows] for rows in found] == [[row["label"] for row in rows] for rows in expected]
    for rows, others in zip(found, expected, strict=True):
        assert [row["score"] for row in rows] == pytest.approx([row["score"] for row in others], abs=1e-5)


def test_every_kind_of_input(saved):
    folder, predicted = saved
    expected = _rows(predicted)
    classify = pipeline(TASK, model=folder, device="cpu")
    assert isinstance(classify, XLGenPipeline)
    one = classify(TEXTS[0])
    assert isinstance(one, list)
    assert set(one[0]) == {"label", "score"}
    assert len(one) >= 3
    _same([one], expected[:1])
    data = Dataset.from_dict({"text": TEXTS})
    for batch_size in (1, 2, 64):
        for texts in (TEXTS, tuple(TEXTS), data["text"], [{"text": text} for text in TEXTS]):
            found = classify(texts, batch_size=batch_size)
            assert isinstance(found, list)
            _same(found, expected)
        for texts in ((text for text in TEXTS), KeyDataset(data, "text"), data):
            found = classify(texts, batch_size=batch_size)
            assert iter(found) is found
            _same(list(found), expected)
    assert classify([]) == []


def test_generators_are_read_as_they_are_needed(saved):
    read = []

    def texts():
        for text in TEXTS:
            read.append(text)
            yield text

    results = pipeline(TASK, model=saved[0], device="cpu", batch_size=2)(texts())
    assert read == []
    next(results)
    assert read == TEXTS[:2]


def test_top_k_and_threshold(saved):
    folder, predicted = saved
    expected = _rows(predicted)
    classify = pipeline(TASK, model=folder, device="cpu", top_k=1)
    _same(classify(TEXTS), [rows[:1] for rows in expected])
    _same(classify(TEXTS, top_k=2), [rows[:2] for rows in expected])
    most = classify(TEXTS, top_k=6)  # more than the model's own sets
    assert all(len(rows) == 6 for rows in most)
    plain = pipeline(TASK, model=folder, device="cpu")
    middle = sorted(row["score"] for rows in most for row in rows)[3 * len(most)] - 1e-6
    kept = plain(TEXTS, threshold=middle)
    for rows, others in zip(kept, most, strict=True):
        _same([rows[:6]], [[row for row in others if row["score"] >= middle]])
    assert sum(map(len, kept)) < sum(map(len, most))
    _same(plain(TEXTS, top_k=6, threshold=middle), [rows[:6] for rows in kept])
    assert all(len(rows) <= 1 for rows in plain(TEXTS, min_labels=0, max_labels=1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"top_k": 0}, "top_k=0; a whole number from 1 on"),
        ({"top_k": "3"}, "top_k='3'; a whole number"),
        ({"threshold": 1.5}, "threshold=1.5; a score from 0 to 1"),
        ({"batch_size": -1}, "batch_size=-1; a whole number from 1 on"),
        ({"topk": 3}, r"Unknown settings \['topk'\]; choose from"),
    ],
)
def test_settings_out_of_range_are_refused(saved, settings, message):
    classify = pipeline(TASK, model=saved[0], device="cpu")
    with pytest.raises(ConfigurationError, match=message):
        classify(TEXTS, **settings)


def test_inputs_that_are_no_texts_are_refused(saved):
    classify = pipeline(TASK, model=saved[0], device="cpu")
    with pytest.raises(DataError, match="'7' is a int; a text, or a row with `text`"):
        classify(["a", 7])
    with pytest.raises(DataError, match="'None' is a NoneType"):
        classify({"title": "a"})
    with pytest.raises(DataError, match="A float was given; texts are needed"):
        classify(1.5)


def test_model_and_processor_as_objects(make_model, checkpoints, tmp_path):
    model, processor = make_model("t5")
    classify = pipeline(TASK, model=model, processor=processor, device="cpu")
    _same(classify(TEXTS), _rows(model.predict(TEXTS, processor)))
    classify.save_pretrained(tmp_path)
    _same(pipeline(TASK, model=str(tmp_path), device="cpu")(TEXTS), classify(TEXTS))
    with pytest.raises(ConfigurationError, match="was not loaded from anywhere; give its processor"):
        pipeline(TASK, model=model, device="cpu")
    with pytest.raises(ConfigurationError, match="needs an XLGen model, not a T5ForConditionalGeneration"):
        XLGenPipeline(T5ForConditionalGeneration.from_pretrained(checkpoints["t5"]))


def test_adapter_folders_serve_too(make_model, tmp_path):
    model, processor = make_model("bert", "bcl")
    adapted = add_lora(model, processor, tmp_path / "run" / "base", r=2)
    adapted.save_pretrained(tmp_path / "run")
    processor.save_pretrained(tmp_path / "run")
    expected = _rows(adapted.eval().predict(TEXTS, processor))
    _same(pipeline(TASK, model=str(tmp_path / "run"), device="cpu")(TEXTS), expected)  # config of the base
    model.config.save_pretrained(tmp_path / "run")
    _same(pipeline(TASK, model=str(tmp_path / "run"), device="cpu")(TEXTS), expected)  # its own


def test_processor_of_another_model_is_refused(saved, make_model, tmp_path):
    _, processor = make_model("bert", "base")
    processor.save_pretrained(saved[0])
    with pytest.raises(ModelFolderError, match="model and processor differ in pieces of labels, number of clusters"):
        pipeline(TASK, model=saved[0], device="cpu")


@pytest.mark.parametrize("imports", [
    "import xlgen_hf\nfrom transformers import pipeline",
    "from transformers import pipeline\nimport xlgen_hf",
    "import transformers, xlgen_hf\npipeline = transformers.pipeline",
])  # fmt: skip
def test_task_is_known_in_any_order_of_the_imports(saved, imports):
    folder, predicted = saved
    script = (
        f"{imports}\nimport sys\n"
        f"print(pipeline({TASK!r}, model={folder!r}, device='cpu')({TEXTS[0]!r})[0]['label'])\n"
        "print(sum('WaitForPipelines' in type(finder).__name__ for finder in sys.meta_path))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.splitlines() == [predicted[0].labels[0], "0"], done.stderr


def test_import_alone_brings_nothing_heavy():
    script = "import xlgen_hf, sys; print(*sorted({'torch', 'transformers', 'datasets'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "", done.stderr
