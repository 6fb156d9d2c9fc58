"""Exported models: the graphs predict what the model predicts, and what they cannot do is refused by name."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from sources import TEXTS, make_rcl, make_trees, sharpened
from tiny import ROWS, VOCABULARY, make_clusters
from transformers import AutoModel, AutoModelForSeq2SeqLM, AutoTokenizer, pipeline

from xlgen_hf.cli.main import main
from xlgen_hf.decoding.decoded_sets import DecodingOptions
from xlgen_hf.errors import ConfigurationError, MissingExtraError, ModelFolderError
from xlgen_hf.exporting import export_folder, quantize_graphs
from xlgen_hf.files.json_lines import write_jsonl
from xlgen_hf.files.model_folder import is_exported, model_files
from xlgen_hf.labels.space import LabelSpace
from xlgen_hf.loading import load_model, load_predictor
from xlgen_hf.modeling_xlgen import XLGenForConditionalGeneration
from xlgen_hf.prediction.predictor import Predictor
from xlgen_hf.processing_xlgen import XLGenProcessor
from xlgen_hf.ranking.decisions import DecisionRule
from xlgen_hf.ranking.score_model import ScoreModel
from xlgen_hf.retrieval.model_sources import save_source_alone

pytest.importorskip("onnxscript", reason="the extra `export` is not installed")
if torch.__version__ < "2.13":
    pytest.skip("torch.onnx is too old", allow_module_level=True)

SPACE = LabelSpace.from_label_lists([row["labels"] for row in ROWS], VOCABULARY)


def _save(made, folder):
    model, processor = made
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


@pytest.fixture(scope="module")
def shallow(checkpoints, tmp_path_factory):
    """Checkpoints whose encoders have one layer, since tracing takes seconds for each; T5's decoder keeps its two."""
    root = tmp_path_factory.mktemp("shallow")
    loaders = {"bert": (AutoModel, "num_hidden_layers"), "t5": (AutoModelForSeq2SeqLM, "num_layers")}
    for family, (loader, name) in loaders.items():
        shutil.copytree(checkpoints[family], root / family)
        loader.from_pretrained(checkpoints[family], **{name: 1}).save_pretrained(root / family)
    return {**checkpoints, "bert": str(root / "bert"), "t5": str(root / "t5")}


@pytest.fixture(scope="module")
def folder(shallow, tmp_path_factory):
    """`model`, an RCL with its retriever, and what was exported of it: `float32`, and `int8`, made of that."""
    root = tmp_path_factory.mktemp("exported")
    _save(sharpened(make_rcl(shallow["bert"], SPACE)), root / "model")
    export_folder(str(root / "model"), root / "float32", "float32")
    shutil.copytree(root / "float32", root / "int8")
    quantize_graphs((root / "int8").rglob("*.onnx"))
    return root


@pytest.fixture
def copy(folder, tmp_path):
    """A copy of the exported model, to be damaged."""
    return shutil.copytree(folder / "float32", tmp_path / "copy")


def _check_same(expected, found):
    for one, other in zip(expected, found, strict=True):
        assert one.labels == other.labels
        np.testing.assert_allclose(one.scores, other.scores, rtol=1e-4, atol=1e-5)
        assert one.clusters == other.clusters


WAYS = {
    "own": {},
    "beams": {"decoding": DecodingOptions(num_beams=3)},
    "samples": {"decoding": DecodingOptions(num_samples=4)},
    "candidates": {"decoding": DecodingOptions(min_candidates=6)},
    "top_k": {"rule": DecisionRule("top_k", 7)},
}


@pytest.mark.parametrize("way", WAYS)
def test_graphs_predict_what_the_model_predicts(folder, way):
    """The search and its constraint are the same; retrieval, too, is a graph."""
    expected, found = (load_predictor(str(folder / name)).predict(TEXTS, **WAYS[way]) for name in ("model", "float32"))
    _check_same(expected, found)
    assert any(one.labels for one in found)


# Most of a start: the classes of models, torch's compiler, and what they bring along.
HEAVY = ("transformers.modeling_utils", "transformers.generation.utils", "torch._dynamo", "scipy.optimize", "sklearn")
START = f"""
import json, sys
from xlgen_hf.loading import load_predictor
(found,) = load_predictor(sys.argv[1]).predict(["a history of church music"])
print(json.dumps([found.labels, sorted({{*{HEAVY}}} & sys.modules.keys())]))
"""


def test_a_start_imports_no_classes_of_models(folder):
    name = str(folder / "float32")
    (expected,) = load_predictor(name).predict(["a history of church music"])
    done = subprocess.run([sys.executable, "-c", START, name], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [list(expected.labels), []]


# Nothing of these is needed to predict with an index that was exported.
SPARED = ("torch", "transformers", "huggingface_hub", "sklearn", "pandas", "scipy.stats", "jinja2", "yaml")
TAG = f"""
import json, sys
from xlgen_hf.cli.main import main
code = main(["tag", "--json", "--model", sys.argv[1], *sys.argv[2:]])
print(json.dumps([code, sorted({{*{SPARED}}} & sys.modules.keys())]))
"""


def test_an_exported_index_predicts_without_torch_and_transformers(folder, tmp_path):
    """As it predicts in a process that has torch, which then computes the search."""
    retriever = XLGenProcessor.from_pretrained(folder / "model").retriever
    save_source_alone(tmp_path / "index", SPACE, "retrieval", retriever, ScoreModel())
    export_folder(str(tmp_path / "index"), tmp_path / "exported", "float32")
    expected = load_predictor(str(tmp_path / "exported")).predict(TEXTS, evidence=True)
    done = subprocess.run(
        [sys.executable, "-c", TAG, str(tmp_path / "exported"), *TEXTS], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    *found, last = map(json.loads, done.stdout.splitlines())
    assert last == [0, []]
    for one, other in zip(expected, found, strict=True):
        assert list(one.labels) == other["labels"]
        np.testing.assert_allclose(one.scores, other["scores"], atol=1e-4)  # JSON has 4 digits
        words = [[name.words for name in label.names] for label in one.evidence]
        assert words == [[name["words"] for name in label["names"]] for label in other["evidence"]]


@pytest.mark.parametrize(("said", "expected"), [(None, "1"), ("0", "0")])
def test_the_runtime_does_not_report_to_its_makers_unless_the_user_says_so(said, expected):
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    environment |= {} if said is None else {"ORT_DISABLE_TELEMETRY": said}
    shown = "'onnxruntime' in sys.modules, os.environ['ORT_DISABLE_TELEMETRY']"
    code = f"import os, sys, xlgen_hf.encoders.exported; print({shown})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.split() == ["False", expected]  # it is set before the import that reads it


def test_free_spelling_and_losses_are_those_of_the_whole_model(folder):
    """What predicts has no classes of transformers' models; what only they can do is done by them."""
    predictor, (model, processor) = load_predictor(str(folder / "float32")), load_model(str(folder / "float32"))
    whole = Predictor.from_model(model, processor)
    found, expected = (one.predict(TEXTS, open_vocabulary=True) for one in (predictor, whole))
    assert [one.novel_labels for one in found] == [one.novel_labels for one in expected]
    encoded = processor.pad([processor.build_input(text) for text in processor.encode_texts(TEXTS)])
    targets = torch.tensor([processor.label_tokenizer.build_target(SPACE.encode(["music", "art"]))] * len(TEXTS))
    part = predictor.source.model
    assert torch.equal(part.generate(**encoded, max_new_tokens=8), model.generate(**encoded, max_new_tokens=8))
    with torch.no_grad():
        assert torch.equal(part(**encoded, labels=targets).loss, model(**encoded, labels=targets).loss)


def test_one_text_and_batches_give_the_same(folder):
    predictor = load_predictor(str(folder / "float32"))
    _check_same([predictor.predict([text])[0] for text in TEXTS], predictor.predict(TEXTS))


def test_losses(folder):
    """The decoder runs over several tokens."""
    models = [load_model(str(folder / name)) for name in ("model", "float32")]
    processor = models[0][1]
    encoded = processor.pad([processor.build_input(text) for text in processor.encode_texts(TEXTS)])
    targets = torch.tensor([processor.label_tokenizer.build_target(SPACE.encode(["music", "art"]))] * len(TEXTS))
    with torch.no_grad():
        losses = [float(model(**encoded, labels=targets).loss) for model, _ in models]
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)


def test_int8_is_smaller_and_near(folder):
    weights = [folder / name / "onnx" / "encoder.onnx" for name in ("float32", "int8")]
    assert b"MatMulInteger" in weights[1].read_bytes() and b"MatMulInteger" not in weights[0].read_bytes()
    models = [load_model(str(folder / name)) for name in ("model", "int8")]
    names = [list(SPACE.names)] * len(TEXTS)
    scores = [np.array(model.score(TEXTS, names, processor)) for model, processor in models]
    assert 0 < np.abs(scores[0] - scores[1]).max() < 0.1


@pytest.mark.parametrize(("family", "variant"), [("t5", "mcg"), ("bart", "bcl")])
def test_other_families_and_variants(shallow, tmp_path, family, variant):
    """T5 counts positions by the cache; BART adds a bias after its output layer; MCG searches twice."""
    tokenizer = AutoTokenizer.from_pretrained(shallow[family])
    processor = XLGenProcessor(tokenizer, SPACE, make_clusters(SPACE), max_source_length=64, max_target_length=64)
    torch.manual_seed(1)
    model = XLGenForConditionalGeneration.from_backbone(shallow[family], processor, variant=variant)
    _save((model, processor), tmp_path / "model")
    export_folder(str(tmp_path / "model"), tmp_path / "exported", "float32")
    exported, its_processor = load_model(str(tmp_path / "exported"))
    _check_same(model.predict(TEXTS, processor), exported.predict(TEXTS, its_processor))


def test_an_index_is_exported(folder, tmp_path):
    _, processor = load_model(str(folder / "model"))
    save_source_alone(tmp_path / "index", SPACE, "retrieval", processor.retriever, ScoreModel())
    assert main(["export", "--model", str(tmp_path / "index"), "--output-dir",
                 str(tmp_path / "exported")]) == 0  # fmt: skip
    index, exported = (load_predictor(str(tmp_path / name)).source for name in ("index", "exported"))
    vectors = [source.embed(TEXTS[:3]) for source in (index, exported)]
    assert 0 < np.abs(vectors[0] - vectors[1]).max() < 0.05  # of length 1; the precision is int8
    assert not (tmp_path / "exported" / "retriever" / "model.safetensors").exists()


def test_auto_classes_and_the_pipeline(folder):
    """They pass options of their own, such as `dtype="auto"`."""
    expected = load_predictor(str(folder / "float32")).predict(TEXTS[:2])
    loaded = pipeline("extreme-multilabel-classification", model=str(folder / "float32"), device="cpu")
    assert [[one["label"] for one in labels] for labels in loaded(TEXTS[:2])] == [one.labels for one in expected]
    assert isinstance(AutoModelForSeq2SeqLM.from_pretrained(folder / "float32"), XLGenForConditionalGeneration)


def test_command_and_prediction(folder, tmp_path, capsys):
    """What `xlgen predict` writes with the exported model."""
    write_jsonl(tmp_path / "texts.jsonl", [{"text": text} for text in TEXTS])
    written = []
    for name in ("model", "float32"):
        out = tmp_path / f"{name}.jsonl"
        assert main(["predict", "--model", str(folder / name), "--input-file", str(tmp_path / "texts.jsonl"),
                     "--output-file", str(out)]) == 0  # fmt: skip
        written.append([json.loads(line)["labels"] for line in out.read_text(encoding="utf-8").splitlines()])
    assert written[0] == written[1]


# ------------------------------------------------------------------------------------------------ the folder


def test_a_model_saved_into_the_folder_replaces_the_graphs(folder, copy):
    assert {"export.json", "onnx/step.onnx", "retriever/onnx/encoder.onnx"} <= set(model_files(copy))
    _save(load_model(str(folder / "model")), copy)
    assert not is_exported(copy) and not (copy / "onnx").exists() and not is_exported(copy / "retriever")
    assert "model.safetensors" in model_files(copy)


@pytest.mark.parametrize("name", ["onnx/encoder.onnx", "onnx/step.onnx", "retriever/onnx/encoder.onnx"])
def test_missing_and_damaged_graphs(copy, name):
    path = copy / name
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(
        ModelFolderError, match=rf"{path.name} cannot be run by onnxruntime: .* Run `xlgen export` again"
    ):
        load_predictor(str(copy))
    path.unlink()
    with pytest.raises(ModelFolderError, match=f"{path.name} is missing. Run `xlgen export` again"):
        load_predictor(str(copy))


def test_graphs_of_another_model(copy):
    shutil.copy(copy / "onnx" / "cross.onnx", copy / "onnx" / "step.onnx")
    with pytest.raises(ModelFolderError, match=r"step\.onnx does not belong to this model: it reads memory"):
        load_model(str(copy))


def test_no_other_file_is_read(copy, tmp_path):
    """A graph may ask for weights in files anywhere."""
    import onnx

    path = copy / "onnx" / "step.onnx"
    graph = onnx.load(path)
    onnx.save(graph, path, save_as_external_data=True, location="step.data", size_threshold=0)
    with pytest.raises(ModelFolderError, match=r"step\.onnx cannot be run by onnxruntime"):
        load_model(str(copy))


def test_weights_that_do_not_fit(copy):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"num_input_candidates": 10**9}))
    with pytest.raises(ModelFolderError, match="cannot be loaded: "):
        load_model(str(copy))


@pytest.mark.parametrize(
    ("package", "extra", "call"),
    [("onnxruntime", "onnx", "load"), ("onnxscript", "export", "export"), ("onnx", "export", "export")],
)
def test_missing_packages_are_named(folder, tmp_path, monkeypatch, package, extra, call):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"`{package}` is not installed. .*xlgen-hf\[{extra}\]"):
        if call == "load":
            load_model(str(folder / "float32"))
        else:
            export_folder(str(folder / "model"), tmp_path / "new", "float32")
    assert not (tmp_path / "new").exists()


def test_an_old_torch_is_named(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "__version__", type(torch.__version__)("2.6.0"))
    with pytest.raises(MissingExtraError, match=r"`torch >= 2\.13` is not installed\. .*xlgen-hf\[export\]"):
        export_folder(str(folder / "model"), tmp_path / "new", "float32")


# ------------------------------------------------------------------------------------------------ what is refused


def test_an_exported_model_only_predicts(folder, tmp_path):
    model, processor = load_model(str(folder / "float32"))
    with pytest.raises(ConfigurationError, match=r"An exported model only predicts. Train the model that it was"):
        model.train()
    with pytest.raises(ConfigurationError, match=r"An exported model is not saved again. Copy its folder"):
        model.save_pretrained(tmp_path / "new")
    for moved in ({"device": "meta"}, {"dtype": torch.float16}):
        with pytest.raises(ConfigurationError, match="computes on the CPU, in what it was exported with"):
            model.to(**moved)
    with pytest.raises(ConfigurationError, match="dtype has no effect on the exported model"):
        XLGenForConditionalGeneration.from_pretrained(folder / "float32", dtype=torch.bfloat16)
    assert model.predict(TEXTS[:1], processor)[0].labels  # as before
    assert not (tmp_path / "new").exists()


def test_new_labels_of_known_tokens_alone(folder):
    known = load_predictor(str(folder / "float32")).with_labels(["organ history"])
    assert len(known.label_space) == len(SPACE) + 1
    with pytest.raises(ConfigurationError, match="tokens that no label had when the model was exported"):
        load_predictor(str(folder / "float32")).with_labels(["zebra"])


def test_commands_that_train_or_save_again(folder, tmp_path, capsys):
    write_jsonl(tmp_path / "rows.jsonl", ROWS)
    (tmp_path / "labels.txt").write_text("\n".join(VOCABULARY), encoding="utf-8")
    exported, rows, out = str(folder / "float32"), str(tmp_path / "rows.jsonl"), str(tmp_path / "new")
    calls = [
        ["export", "--model", exported, "--output-dir", out],
        ["hybrid", "--model", exported, "--validation-file", rows, "--output-dir", out],
        ["train", "--train-file", rows, "--labels", str(tmp_path / "labels.txt"), "--retriever", exported,
         "--output-dir", out],
    ]  # fmt: skip
    for call in calls:
        assert main(call) == 1
        assert f"{exported} is exported" in " ".join(capsys.readouterr().err.split())


def test_what_cannot_be_exported(checkpoints, tmp_path):
    save_source_alone(tmp_path / "trees", SPACE, "label_trees", make_trees(SPACE), ScoreModel())
    with pytest.raises(ConfigurationError, match="holds neither a model nor a retriever"):
        export_folder(str(tmp_path / "trees"), tmp_path / "new", "float32")
    tokenizer = AutoTokenizer.from_pretrained(checkpoints["llama"])
    processor = XLGenProcessor(tokenizer, SPACE, max_source_length=64, max_target_length=64)
    _save(
        (XLGenForConditionalGeneration.from_backbone(checkpoints["llama"], processor), processor), tmp_path / "llama"
    )
    with pytest.raises(ConfigurationError, match=r"decoder-only \(type 'llama'\); graphs are made of seq2seq"):
        export_folder(str(tmp_path / "llama"), tmp_path / "new", "float32")
    assert not (tmp_path / "new").exists()
