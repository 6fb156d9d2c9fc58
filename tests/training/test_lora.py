"""LoRA: what is trained, that adapter and merged model are the same, and the way from training to every loader."""

from __future__ import annotations

import json
import shutil

import peft
import pytest
import torch
from peft import AutoPeftModelForSeq2SeqLM, get_peft_model
from safetensors.torch import load_file, save_file
from tiny import ROWS, VOCABULARY, make_t5_tokenizer
from transformers import AutoModelForSeq2SeqLM, AutoProcessor, T5ForConditionalGeneration

from xlgen_hf.cli.main import main
from xlgen_hf.configuration_xlgen import XLGenConfig
from xlgen_hf.decoding.decoded_sets import DecodingOptions
from xlgen_hf.errors import ConfigurationError, MissingExtraError, ModelFolderError
from xlgen_hf.files.adapter_base import AdapterBase, base_of
from xlgen_hf.files.json_lines import write_jsonl
from xlgen_hf.files.model_folder import REPORT_FILE
from xlgen_hf.files.training_report import read_report
from xlgen_hf.modeling_xlgen import XLGenForConditionalGeneration
from xlgen_hf.modules import adapters
from xlgen_hf.processing_xlgen import XLGenProcessor
from xlgen_hf.training import lora
from xlgen_hf.training.arguments import XLGenTrainingArguments
from xlgen_hf.training.lora import add_lora, lora_config, save_settings
from xlgen_hf.training.trainer import XLGenTrainer

FAMILIES = ["t5", "bart", "bert", "modernbert"]
TEXTS = ["a history of church music", "modern art", "", "the piano " * 20]
FEW = DecodingOptions(max_labels=4)
SUFFIXES = {
    "t5": {"q", "k", "v", "o", "wi", "wo"},
    "bart": {"q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"},
    "bert": {"query", "key", "value", "dense"},
    "modernbert": {"Wqkv", "Wi", "Wo"},
}


def _batch(processor, variant):
    batch = dict(processor(["art and music", "organ"], return_tensors="pt"))
    targets = [processor.label_tokenizer.build_target([0, 3]), processor.label_tokenizer.build_target([2])]
    longest = max(map(len, targets))
    batch["labels"] = torch.tensor([t + [-100] * (longest - len(t)) for t in targets])
    if variant == "bcl":
        batch["cluster_bits"] = torch.tensor([[1.0, 0, 1], [0, 0, 1]])
    return batch


def _shake(model, scale=0.3):
    """Give everything that an adapter trains weights that matter (a fresh LoRA changes nothing)."""
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += scale * torch.randn_like(parameter)


def _same(first, second):
    assert [p.labels for p in first] == [p.labels for p in second]
    assert [p.clusters for p in first] == [p.clusters for p in second]
    for one, other in zip(first, second, strict=True):
        assert one.scores == pytest.approx(other.scores, abs=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_targets_of_each_family(make_model, family):
    model, _ = make_model(family, "bcl")
    config = lora_config(model, r=4, alpha=8, dropout=0.0)
    assert {name.rpartition(".")[2] for name in config.target_modules} == SUFFIXES[family]
    saved = set(config.modules_to_save)
    assert {"cluster_head", "cluster_embeddings"} <= saved
    assert not saved & set(config.target_modules)
    fresh = {
        n for n, p in model.named_parameters() if model.is_fresh(n) and p is not model.get_input_embeddings().weight
    }
    covered = {n for n in fresh if n.rpartition(".")[0] in saved}
    # What is left of the fresh parameters is the bias that BERT's output layer shares with its head.
    assert {n.rpartition(".")[2] for n in fresh - covered} <= {"bias"}
    assert len(fresh - covered) == (1 if family in ("bert", "modernbert") else 0)
    assert not any("pooler" in name for name in config.target_modules)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("restrict", [True, False])
def test_gradients_reach_all_that_is_trained(make_model, family, restrict):
    model, processor = make_model(family, "bcl", conditioning="tokens", restrict_output=restrict)
    adapted = get_peft_model(model, lora_config(model, r=2, dropout=0.0)).train()
    _shake(adapted)
    adapted(**_batch(processor, "bcl")).loss.backward()
    without = [n for n, p in adapted.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    # T5's and BART's decoder reads no padding; all the rest moves.
    assert not [n for n in without if "token_type" not in n and "pooler" not in n]
    (rows,) = (p for n, p in adapted.named_parameters() if "trainable_tokens_delta" in n)
    assert len(rows) == len(processor.label_tokenizer.added_token_ids)
    separator = rows.grad[0]
    assert separator.any()
    frozen = [n for n, p in adapted.named_parameters() if not p.requires_grad and "base_layer.weight" in n]
    assert frozen


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("variant", "restrict"), [("base", True), ("bcl", True), ("mcg", False)])
def test_merged_model_predicts_what_the_adapter_does(make_model, tmp_path, family, variant, restrict):
    model, processor = make_model(family, variant, restrict_output=restrict)
    plain = model.predict(TEXTS, processor, decoding=FEW)
    adapted = add_lora(model, processor, tmp_path / "base", r=4, alpha=16).eval()
    _same(adapted.predict(TEXTS, processor, decoding=FEW), plain)  # a fresh adapter changes nothing
    if family in ("bert", "modernbert"):
        with torch.no_grad():  # the bias that peft's wrapper of the output layer leaves out
            adapted.get_base_model().backbone.decoder.cls.predictions.bias.normal_()
    _shake(adapted)
    predicted = adapted.predict(TEXTS, processor, decoding=FEW)
    assert predicted != plain
    with adapted.disable_adapter():
        disabled = adapted.predict(TEXTS, processor, decoding=FEW)
    assert disabled != predicted
    merged = adapted.merge_and_unload()
    assert type(merged) is XLGenForConditionalGeneration
    _same(merged.predict(TEXTS, processor, decoding=FEW), predicted)
    merged.save_pretrained(tmp_path / "merged")
    _same(XLGenForConditionalGeneration.from_pretrained(tmp_path / "merged").predict(TEXTS, processor, decoding=FEW),
          predicted)  # fmt: skip


def test_output_layer_of_its_own_has_rows_of_its_own(checkpoints, label_space, tmp_path):
    """T5 v1.1 and FLAN-T5: the rows of new tokens are not those of the input."""
    own = T5ForConditionalGeneration.from_pretrained(checkpoints["t5"])
    own.lm_head.weight = torch.nn.Parameter(torch.randn_like(own.lm_head.weight))
    own.all_tied_weights_keys.pop("lm_head.weight")
    own.save_pretrained(tmp_path / "untied")
    make_t5_tokenizer().save_pretrained(tmp_path / "untied")
    processor = XLGenProcessor(make_t5_tokenizer(), label_space, max_source_length=64, max_target_length=64)
    model = XLGenForConditionalGeneration.from_backbone(str(tmp_path / "untied"), processor)
    assert model.get_output_embeddings().weight is not model.get_input_embeddings().weight
    adapted = add_lora(model, processor, tmp_path / "base", r=4).eval()
    assert set(adapted.peft_config["default"].trainable_token_indices) == {"backbone.shared", "backbone.lm_head"}
    _shake(adapted)
    predicted = adapted.predict(TEXTS, processor, decoding=FEW)
    adapted.save_pretrained(tmp_path / "adapter")
    loaded = XLGenForConditionalGeneration.from_pretrained(tmp_path / "adapter")
    _same(loaded.predict(TEXTS, processor, decoding=FEW), predicted)
    ids = processor.label_tokenizer.added_token_ids
    assert not torch.equal(loaded.get_output_embeddings().weight[ids], loaded.get_input_embeddings().weight[ids])
    _same(adapted.merge_and_unload().predict(TEXTS, processor, decoding=FEW), predicted)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"r": 0}, "r=0; a rank from 1 to the model's width, 16"),
        ({"r": 17}, "r=17; a rank from 1 to"),
        ({"alpha": 0}, "alpha=0; it must be positive"),
        ({"dropout": 1.0}, r"dropout=1.0; a share in \[0, 1\)"),
    ],
)
def test_settings_out_of_range_are_refused(make_model, settings, message):
    with pytest.raises(ConfigurationError, match=message):
        lora_config(make_model("t5")[0], **settings)


def test_a_model_with_an_adapter_is_refused(make_model):
    model, _ = make_model("t5")
    with pytest.raises(ConfigurationError, match="PeftModelForSeq2SeqLM was given; LoRA starts from"):
        lora_config(get_peft_model(model, lora_config(model)))


def test_missing_peft_names_the_extra(make_model, monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(adapters, "import_module", missing)
    with pytest.raises(MissingExtraError, match=r"`peft` is not installed.*xlgen-hf\[lora\]"):
        lora_config(make_model("t5")[0])


def test_quantized_base_is_refused_where_it_cannot_be(monkeypatch):
    lora.check_quantization(None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigurationError, match="quantize='4bit' needs a GPU"):
        lora.check_quantization("4bit")
    with pytest.raises(ConfigurationError, match="quantize='2bit'; choose '4bit', '8bit' or None"):
        lora.check_quantization("2bit")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(lora.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"`bitsandbytes` is not installed.*xlgen-hf\[quantize\]"):
        lora.check_quantization("8bit")


# ---------------------------------------------------------------------------------------------------- training


def test_trainer_gives_all_parts_of_an_adapter_the_rate_of_fresh_ones(make_model, rows, tmp_path):
    model, processor = make_model("bert", "bcl", cluster_loss_annealing=True)
    adapted = add_lora(model, processor, tmp_path / "base", r=2)
    args = XLGenTrainingArguments(str(tmp_path / "run"), num_train_epochs=2, use_cpu=True, save_strategy="no")
    trainer = XLGenTrainer(adapted, args, processing_class=processor, train_dataset=rows)
    trainer.create_optimizer()
    assert {
        group["initial_lr"] if "initial_lr" in group else group["lr"] for group in trainer.optimizer.param_groups
    } == {args.fresh_learning_rate}
    counted = sum(p.numel() for group in trainer.optimizer.param_groups for p in group["params"])
    assert counted == adapted.get_nb_trainable_parameters()[0] < model.num_parameters()
    before = {n: p.detach().clone() for n, p in adapted.named_parameters()}
    trainer.train()
    assert adapted.get_base_model().cluster_loss_scale == 0.5  # annealed on the model itself
    for name, parameter in adapted.named_parameters():
        if not parameter.requires_grad:
            assert torch.equal(parameter, before[name]), name
        elif "lora_B" in name:
            assert not torch.equal(parameter, before[name]), name


def _arguments(folder, backbone, *more):
    return [
        "train", "--train-file", str(folder / "rows.jsonl"), "--validation-file", str(folder / "rows.jsonl"),
        "--labels", str(folder / "labels.txt"), "--backbone", backbone, "--output-dir", str(folder / "model"),
        "--decoder-layers", "1", "--use_cpu", "--lora", "--lora-rank", "4", *more,
    ]  # fmt: skip


@pytest.fixture
def files(tmp_path):
    write_jsonl(tmp_path / "rows.jsonl", ROWS)
    (tmp_path / "labels.txt").write_text("\n".join(VOCABULARY), encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(("family", "variant"), [("bert", "bcl"), ("t5", "mcg")])
def test_from_training_to_every_loader(files, checkpoints, capsys, family, variant):
    train = _arguments(
        files, checkpoints[family], "--variant", variant, "--num-clusters", "3", "--num_train_epochs", "3"
    )
    assert main(train) == 0
    folder = files / "model"
    names = {path.name for path in folder.iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "config.json", "label_space.json", "base"} <= names
    assert not {"model.safetensors", "training_args.bin", "checkpoint-3"} & names
    assert "A LoRA adapter of an XLGen model" in (folder / "README.md").read_text(encoding="utf-8")
    texts = [row["text"] for row in ROWS]
    processor = XLGenProcessor.from_pretrained(folder)
    adapted = AutoPeftModelForSeq2SeqLM.from_pretrained(str(folder)).eval()
    expected = adapted.predict(texts, processor)
    assert adapted.config.min_labels == json.loads((folder / "config.json").read_text())["min_labels"]
    for loaded in (
        XLGenForConditionalGeneration.from_pretrained(folder),
        AutoModelForSeq2SeqLM.from_pretrained(folder),
    ):
        assert type(loaded) is XLGenForConditionalGeneration
        _same(loaded.predict(texts, processor), expected)
    assert isinstance(AutoProcessor.from_pretrained(folder), XLGenProcessor)

    capsys.readouterr()
    predict = ["predict", "--input-file", str(files / "rows.jsonl"), "--model"]
    assert main([*predict, str(folder)]) == 0
    by_adapter = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["labels"] for row in by_adapter] == [one.labels for one in expected]
    merged = files / "merged"
    assert main(["merge", "--model", str(folder), "--output-dir", str(merged)]) == 0
    assert read_report(merged) == read_report(folder) and "## Training" in (merged / "README.md").read_text()
    assert not (merged / "adapter_config.json").exists()
    capsys.readouterr()
    assert main([*predict, str(merged)]) == 0
    by_merged = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["labels"] for row in by_merged] == [row["labels"] for row in by_adapter]
    for one, other in zip(by_merged, by_adapter, strict=True):
        assert one["scores"] == pytest.approx(other["scores"], abs=1e-5)
    assert main(["merge", "--model", str(merged), "--output-dir", str(files / "again")]) == 1
    assert "is not an adapter, so there is nothing to merge" in capsys.readouterr().err


def test_training_continues_from_a_checkpoint(files, checkpoints):
    """A run in two parts ends as one in one part does, and an adapter is found again in a moved folder."""
    arguments = _arguments(
        files, checkpoints["t5"], "--variant", "base", "--eval_strategy", "no", "--save_strategy", "epoch",
        "--keep-checkpoints", "--no_tune_decisions", "--save_total_limit", "9",
    )  # fmt: skip
    assert main([*arguments, "--num_train_epochs", "2"]) == 0
    whole = load_file(files / "model" / "adapter_model.safetensors")
    for name in ("checkpoint-2", "adapter_model.safetensors", REPORT_FILE):  # the last says that a run is complete
        path = files / "model" / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert (files / "model" / "checkpoint-1" / "adapter_model.safetensors").is_file()
    assert main([*arguments, "--num_train_epochs", "2"]) == 0
    resumed = load_file(files / "model" / "adapter_model.safetensors")
    assert resumed.keys() == whole.keys()
    for name, value in whole.items():
        torch.testing.assert_close(resumed[name], value, rtol=0, atol=1e-6)
    moved = files / "moved"
    (files / "model").rename(moved)
    assert base_of(moved) == AdapterBase(str(moved / "base"))
    assert base_of(moved / "checkpoint-1") == AdapterBase(str(moved / "base"))
    first = XLGenForConditionalGeneration.from_pretrained(moved / "checkpoint-1")
    assert first.predict(["art"], XLGenProcessor.from_pretrained(moved))[0].labels
    shutil.rmtree(moved / "base")
    with pytest.raises(ModelFolderError, match=r"the adapter's base .* is not a folder here, and not a Hub id"):
        XLGenForConditionalGeneration.from_pretrained(moved)


def test_a_base_that_a_run_has_tuned_is_taken_as_it_was_before(make_model, tmp_path):
    model, processor = make_model("t5", "base")
    tuned = add_lora(model, processor, tmp_path / "base")
    tuned.config.num_beams, tuned.config.pool, tuned.config.min_labels = 5, "vote", 3
    save_settings(tuned, tmp_path / "base")
    model, processor = make_model("t5", "base")
    again = add_lora(model, processor, tmp_path / "base").config
    assert (again.num_beams, again.pool, again.min_labels) == (1, "best", 1)


def test_a_base_that_is_there_is_taken_in_the_type_of_the_model(make_model, tmp_path):
    """The fault: it was taken in float32, so a run in bfloat16 was resumed with weights of another type."""

    def start():
        model, processor = make_model("t5", "base")
        return add_lora(model.to(torch.bfloat16), processor, tmp_path / "base", r=2).state_dict()

    first, again = start(), start()
    assert {name: value.dtype for name, value in again.items()} == {name: value.dtype for name, value in first.items()}
    assert torch.bfloat16 in {value.dtype for value in again.values()}


def test_options_count_for_an_adapter_as_for_a_model(make_model, tmp_path):
    """The fault: fields of the config that a caller gave were those of the adapter's folder again."""
    model, processor = make_model("t5", "base", max_labels=7)
    adapted = add_lora(model, processor, tmp_path / "base")
    adapted.save_pretrained(tmp_path / "adapter")
    adapted.config.num_beams = 2
    save_settings(adapted, tmp_path / "adapter")

    def decoding(**options):
        config = XLGenForConditionalGeneration.from_pretrained(tmp_path / "adapter", **options).config
        return config.max_labels, config.num_beams

    assert decoding() == (7, 2)
    assert decoding(max_labels=3) == (3, 2)
    config = XLGenConfig.from_pretrained(tmp_path / "adapter", max_labels=4)
    assert decoding(config=config) == (4, 2)
    config.save_pretrained(tmp_path / "config")
    assert decoding(config=tmp_path / "config") == decoding(config=str(tmp_path / "config")) == (4, 2)
    assert decoding(config=config, num_beams=5) == (4, 5)
    auto = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "adapter", max_labels=3)
    assert (auto.config.max_labels, auto.config.num_beams) == (3, 2)
    loaded, info = XLGenForConditionalGeneration.from_pretrained(tmp_path / "adapter", output_loading_info=True)
    assert loaded.config.max_labels == 7
    assert not info["missing_keys"]


def test_base_of_other_settings_is_refused(make_model, label_space, tmp_path):
    model, processor = make_model("t5", "bcl")
    add_lora(model, processor, tmp_path, r=2)
    other, its_processor = make_model("t5", "base")
    with pytest.raises(ConfigurationError, match=r"holds the base of an adapter that differs in .*'variant'"):
        add_lora(other, its_processor, tmp_path, r=2)
    other, its_processor = make_model("bert", "bcl")
    with pytest.raises(ConfigurationError, match=r"differs in .*'backbone'"):
        add_lora(other, its_processor, tmp_path, r=2)


def test_base_of_another_checkpoint_of_the_same_sizes_is_refused(make_model, tmp_path):
    """The fault: an adapter was trained on the weights of the checkpoint before."""
    model, processor = make_model("t5", "base")
    add_lora(model, processor, tmp_path, r=2)
    other, _ = make_model("t5", "base")
    with torch.no_grad():
        other.get_submodule("backbone.encoder.block.0.layer.0.SelfAttention.q").weight += 1
    with pytest.raises(ConfigurationError, match=r"differs in \['pretrained weights'\]"):
        add_lora(other, processor, tmp_path, r=2)


def test_adapter_alone_is_small(make_model, tmp_path):
    model, processor = make_model("t5", "base")
    adapted = add_lora(model, processor, tmp_path / "base", r=2)
    adapted.save_pretrained(tmp_path / "adapter")
    tensors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert all("lora_" in name or "trainable_tokens" in name for name in tensors)
    assert {peft.__version__} == {
        json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["peft_version"]
    }


def test_command_line_refuses_what_does_not_go_together(files, checkpoints, capsys):
    plain = [word for word in _arguments(files, checkpoints["t5"]) if word not in ("--lora", "--lora-rank", "4")]
    assert main([*plain, "--quantize", "4bit"]) == 1
    assert "quantize='4bit' has no effect with lora=False. Choose lora=True" in capsys.readouterr().err
    assert main(_arguments(files, checkpoints["t5"], "--quantize", "4bit")) == 1
    assert "needs a GPU" in capsys.readouterr().err
    assert not (files / "model" / "base").exists()


# ---------------------------------------------------------------------------------------------------- hostile adapters


@pytest.fixture
def adapter(make_model, tmp_path):
    model, processor = make_model("t5", "bcl")
    add_lora(model, processor, tmp_path / "base", r=2).save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "IA3"}, "is not what XLGen's adapters have; make one without it"),
        ({"peft_type": ["LORA"]}, r"peft_type=\['LORA'\] is not a method that"),
        ({"rank_pattern": {"(a+)+": 2}}, r"rank_pattern has '\(a\+\)\+', a regular expression with repeats"),
        ({"rank_pattern": {"q": 10**9}}, r"rank_pattern\['q'\]=1000000000, above the base's width of 16"),
        ({"r": 10**9}, r"r=1000000000, above the base's width of 16"),
        ({"r": "2"}, "'r' is '2'; it must be an integer >= 1"),
        ({"r": None}, "'r' is None; it must be an integer >= 1"),
        ({"lora_alpha": float("1e300")}, r"'lora_alpha' is 1e\+300; it must be a number >= 0 and <= 1000000"),
        ({"target_modules": 3}, "'target_modules' is 3; it must be a list .* or a string"),
        ({"target_modules": ["../../etc/passwd"]}, "does not fit its base"),
        ({"modules_to_save": [1]}, r"'modules_to_save\[0\]' is 1; it must be a string"),
        ({"trainable_token_indices": {"backbone.shared": [10**12]}}, "row 1000000000000 of .* lies outside"),
        ({"trainable_token_indices": {"backbone.shared": [1, 1]}}, "has 1 more than once"),
        ({"layer_replication": [[0, 10**9]]}, "layer_replication=.* is not what XLGen's adapters have"),
        ({"megatron_config": {"a": 1}, "megatron_core": "os"}, "megatron_co.* is not what XLGen's adapters have"),
        ({"base_model_name_or_path": 3}, "'base_model_name_or_path' is 3; it must be a string"),
        ({"base_model_name_or_path": "/no/such/base"}, "is not a folder here, and not a Hub id"),
        ({"base_model_name_or_path": "a/b", "revision": "../../x"}, r"revision='../../x' is not a commit"),
        ({"base_model_name_or_path": "a/b", "revision": 1}, "'revision' is 1; it must be a string"),
    ],
)  # fmt: skip
def test_hostile_adapter_settings(adapter, changes, message):
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ModelFolderError, match=message) as caught:
        XLGenForConditionalGeneration.from_pretrained(adapter)
    assert "adapter_config.json" in str(caught.value)


def test_a_regular_expression_of_layers_is_not_run(adapter):
    """The file of weights says which layers there are."""
    path = adapter / "adapter_config.json"
    before = XLGenForConditionalGeneration.from_pretrained(adapter).state_dict()
    path.write_text(json.dumps(json.loads(path.read_text()) | {"target_modules": "(.*.*)*b(x+x+)+y"}))
    after = XLGenForConditionalGeneration.from_pretrained(adapter).state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_hostile_adapter_weights(adapter):
    path = adapter / "adapter_model.safetensors"
    tensors = load_file(path)
    name = next(iter(tensors))

    def refused(changed, message):
        save_file(changed, path)
        with pytest.raises(ModelFolderError, match=message):
            XLGenForConditionalGeneration.from_pretrained(adapter)

    refused(tensors | {name: tensors[name] * float("nan")}, "holds NaN or infinity")
    refused(tensors | {name: torch.zeros(3, 3)}, r"is \(3, 3\); .* fits the base")
    refused(tensors | {"more": torch.zeros(1)}, "1 weights are in one of them alone, e.g. more")
    refused({k: v for k, v in tensors.items() if k != name}, "1 weights are in one of them alone")
    path.write_bytes(b"\xff" * 100)
    with pytest.raises(ModelFolderError, match=r"adapter_model\.safetensors is not a safetensors file"):
        XLGenForConditionalGeneration.from_pretrained(adapter)
    path.unlink()
    torch.save(tensors, adapter / "adapter_model.bin")
    with pytest.raises(ModelFolderError, match=r"adapter_model.bin, a pickle, .* it is not read"):
        XLGenForConditionalGeneration.from_pretrained(adapter)
