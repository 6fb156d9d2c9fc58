"""The pipeline: how it is found, what it takes and what it gives."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from datasets import Dataset
from processes import run_fresh
from transformers import T5ForConditionalGeneration, pipeline
from transformers.pipelines.pt_utils import KeyDataset

from xlgen_hf.decoding.decoded_sets import DecodingOptions
from xlgen_hf.errors import ConfigurationError, DataError, ModelFolderError
from xlgen_hf.labels.concepts import Concept
from xlgen_hf.labels.vocabulary import Vocabulary
from xlgen_hf.modeling_xlgen import XLGenForConditionalGeneration
from xlgen_hf.pipeline import TASK, XLGenPipeline
from xlgen_hf.processing_xlgen import XLGenProcessor
from xlgen_hf.ranking.calibration import Curve
from xlgen_hf.ranking.confidence import ConfidenceModel
from xlgen_hf.ranking.decisions import DecisionRule
from xlgen_hf.training.lora import add_lora

TEXTS = ["a history of church music", "modern art", "", "the piano " * 40, "organ"]


@pytest.fixture
def saved(make_model, made, tmp_path_factory):
    """A folder with a model, the same for all tests, and what the model predicts."""
    if "saved" not in made:
        folder = tmp_path_factory.mktemp("model")
        model, processor = make_model("bert", "bcl")
        model.config.min_labels = 3
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        made["saved"] = str(folder), model.predict(TEXTS, processor)
    return made["saved"]


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
    others = (tuple(TEXTS), data["text"], [{"text": text} for text in TEXTS])
    for texts, batch_size in [(TEXTS, 1), (TEXTS, 2), (TEXTS, 64), *((texts, 2) for texts in others)]:
        found = classify(texts, batch_size=batch_size)
        assert isinstance(found, list)
        _same(found, expected)
    lazy = [((text for text in TEXTS), 1), ((text for text in TEXTS), 64), (KeyDataset(data, "text"), 2), (data, 2)]
    for texts, batch_size in lazy:
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
    _same(classify(TEXTS, top_k=None), expected)  # takes back what the pipeline was made with
    most = classify(TEXTS, top_k=6)  # more than the model's own sets
    assert all(len(rows) == 6 for rows in most)
    plain = pipeline(TASK, model=folder, device="cpu")
    middle = sorted(row["score"] for rows in most for row in rows)[3 * len(most)] - 1e-6
    kept = plain(TEXTS, threshold=middle)
    for rows, others in zip(kept, most, strict=True):
        _same([rows[:6]], [[row for row in others if row["score"] >= middle]])
    assert sum(map(len, kept)) < sum(map(len, most))
    assert plain(TEXTS, threshold=1.0) == [[]] * len(TEXTS)  # a threshold is strict
    assert all(len(rows) > 6 for rows in plain(TEXTS, threshold=0))
    with pytest.raises(ConfigurationError, match="top_k and threshold exclude each other"):
        plain(TEXTS, top_k=6, threshold=middle)


def test_options_of_the_search_have_the_names_of_decoding_options(saved, make_model):
    folder, predicted = saved
    model, processor = XLGenForConditionalGeneration.from_pretrained(folder), XLGenProcessor.from_pretrained(folder)
    classify = pipeline(TASK, model=folder, device="cpu", min_labels=0, max_labels=2)
    few = DecodingOptions(min_labels=0, max_labels=2)
    _same(classify(TEXTS), _rows(model.predict(TEXTS, processor, decoding=few)))
    assert all(len(rows) <= 2 for rows in classify(TEXTS))
    _same(classify(TEXTS, num_beams=3), _rows(model.predict(TEXTS, processor, decoding=replace(few, num_beams=3))))
    _same(classify(TEXTS, decoding=DecodingOptions()), _rows(predicted))  # in place of those of the pipeline
    with pytest.raises(ConfigurationError, match=r"Give decoding=\.\.\. or \['num_beams'\], not both"):
        classify(TEXTS, decoding=few, num_beams=3)


def test_rules_and_labels_to_choose_from(saved):
    folder, _ = saved
    model, processor = XLGenForConditionalGeneration.from_pretrained(folder), XLGenProcessor.from_pretrained(folder)
    classify = pipeline(TASK, model=folder, device="cpu")
    for settings, rule in (
        ({"expected_f1": True}, DecisionRule("expected_f1")),
        ({"rule": DecisionRule("threshold", 0.9, min_labels=2)}, DecisionRule("threshold", 0.9, min_labels=2)),
        ({"top_k": 4}, DecisionRule("top_k", 4)),
        ({"expected_f1": False}, None),
    ):
        _same(classify(TEXTS, **settings), _rows(model.predict(TEXTS, processor, rule=rule)))
    allowed = np.array([1, 2, 3, 5])
    few = classify(TEXTS, allowed=allowed, max_labels=3)
    assert {row["label"] for rows in few for row in rows} <= set(processor.label_space.decode(allowed))
    assert all(1 <= len(rows) <= 3 for rows in few)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"top_k": 0}, "top_k=0; it must be an integer >= 1"),
        ({"top_k": "3"}, "top_k='3'; it must be an integer >= 1"),
        ({"top_k": float("inf")}, "top_k=inf; it must be an integer >= 1"),
        ({"threshold": 1.5}, "threshold=1.5; it must be a number from 0 to 1"),
        ({"threshold": float("nan")}, "threshold=nan; it must be a number from 0 to 1"),
        ({"threshold": False}, "threshold=False; it must be a number from 0 to 1"),
        ({"batch_size": -1}, "batch_size=-1; it must be an integer >= 1"),
        ({"max_labels": 2.5}, r"max_labels=2\.5; it must be an integer >= 1"),
        ({"num_samples": None}, "num_samples=None; it must be an integer from 0 to 1000"),
        ({"expected_f1": 1}, "expected_f1=1; it must be True or False"),
        ({"rule": "top_k"}, "rule='top_k'; it must be a DecisionRule"),
        ({"decoding": {"num_beams": 2}}, r"decoding=\{'num_beams': 2\}; it must be DecodingOptions"),
        ({"top_k": 3, "rule": DecisionRule()}, "rule and top_k exclude each other"),
        ({"topk": 3}, r"Unknown settings \['topk'\]; choose from"),
    ],
)
def test_settings_out_of_range_are_refused(saved, settings, message):
    classify = pipeline(TASK, model=saved[0], device="cpu")
    with pytest.raises(ConfigurationError, match=message):
        classify(TEXTS, **settings)


def test_inputs_that_are_no_texts_are_refused(saved):
    classify = pipeline(TASK, model=saved[0], device="cpu")
    with pytest.raises(DataError, match="7 is not a text; give a text, or a row with `text`"):
        classify(["a", 7])
    with pytest.raises(DataError, match=r"\{'title': 'a'\} is not a text"):
        classify({"title": "a"})
    with pytest.raises(DataError, match=r"1\.5 is not a text, a row, or an iterable of these"):
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
    folder = shutil.copytree(saved[0], tmp_path / "model")
    processor.save_pretrained(folder)
    with pytest.raises(ModelFolderError, match="model and processor differ in label tokens, number of clusters"):
        pipeline(TASK, model=str(folder), device="cpu")


@pytest.mark.parametrize("imports", [
    "import xlgen_hf\nxlgen_hf.XLGenForConditionalGeneration  # it registers now that it is needed\n"
    "from transformers import AutoConfig\nassert AutoConfig.for_model('xlgen')\nfrom transformers import pipeline",
    "from transformers import pipeline\nimport xlgen_hf",
    "import transformers, xlgen_hf, sys\nassert 'xlgen_hf.modeling_xlgen' in sys.modules  # it registers at once\n"
    "assert transformers.AutoConfig.for_model('xlgen')\npipeline = transformers.pipeline",
])  # fmt: skip
def test_task_is_known_in_any_order_of_the_imports(saved, imports):
    """A program that imports the package, then the pipelines, and nothing else is in `test_architecture.py`."""
    folder, predicted = saved
    script = (
        f"{imports}\nimport sys\n"
        f"print(pipeline({TASK!r}, model={folder!r}, device='cpu')({TEXTS[0]!r})[0]['label'])\n"
        "print(sum('WaitForPipelines' in type(finder).__name__ for finder in sys.meta_path))\n"
    )
    done = run_fresh(script)
    assert done.stdout.splitlines() == [predicted[0].labels[0], "0"], done.stderr


def test_import_alone_brings_nothing_heavy():
    heavy = {"torch", "transformers", "datasets", "xlgen_hf.modeling_xlgen"}
    script = f"import xlgen_hf, sys; print(*sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "", done.stderr


def test_evidence_and_texts_for_a_person(make_model):
    model, processor = make_model("bert", "bcl")
    tag = XLGenPipeline(model, processor)
    expected = model.predict(TEXTS[:2], processor, evidence=True)
    found = tag(TEXTS[:2], evidence=True)
    assert [[one["evidence"] for one in row] for row in found] == [
        [one.to_dict() for one in row.evidence] for row in expected
    ]
    with pytest.raises(ConfigurationError, match="does not know how far its predictions can be trusted"):
        tag(TEXTS[0], abstain_below=0.5)
    even: Curve = {"slope": 0.0, "intercept": 0.0}  # everything is expected to be half right
    confidence = ConfidenceModel(even, even)
    processor = processor.with_score_model(replace(processor.score_model, confidence=confidence))
    sure, unsure = (XLGenPipeline(model, processor, abstain_below=bound)(TEXTS[0]) for bound in (0.4, 0.6))
    assert {one["abstain"] for one in sure} == {False} and {one["abstain"] for one in unsure} == {True}
    assert "abstain" not in tag(TEXTS[0])[0] and "evidence" not in tag(TEXTS[0])[0]


def test_labels_as_concepts(make_model):
    model, processor = make_model("bert", "bcl")
    plain = XLGenPipeline(model, processor, top_k=4)
    (before,) = plain(TEXTS[:1])
    nothing = {"id": None, "language": None, "broader": []}
    assert plain(TEXTS[:1], concepts=True)[0] == [{**one, **nothing} for one in before]
    with pytest.raises(ConfigurationError, match="output_language fi: the model has no vocabulary"):
        plain(TEXTS[0], output_language="fi")
    names = processor.label_space.names
    processor.vocabulary = Vocabulary(
        [Concept(f"c:{name}", {"en": name, "fi": f"{name} (fi)"}, broader=("c:music",)) for name in names], "en"
    )
    above = {name: [] if name == "music" else ["c:music"] for name in names}
    assert plain(TEXTS[:1])[0] == [{**one, "id": f"c:{one['label']}"} for one in before]
    assert plain(TEXTS[:1], concepts=True, output_language="fi", with_parents=True)[0] == [
        {
            "label": f"{one['label']} (fi)", "score": one["score"], "id": f"c:{one['label']}", "language": "fi",
            "broader": above[one["label"]],
            "parents": [{"id": "c:music", "label": "music (fi)"} for _ in above[one["label"]]],
        }
        for one in before
    ]  # fmt: skip
