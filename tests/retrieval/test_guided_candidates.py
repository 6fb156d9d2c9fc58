"""Candidates beside clusters: BCL and MCG that read retrieved candidates, too, in every step of their life."""

from __future__ import annotations

import json

import pytest
import torch
from sources import Made, label_ids, make_rcl, make_retriever, sharpened
from tiny import VOCABULARY, make_clusters
from transformers import AutoTokenizer

from xlgen_hf.cli.main import main
from xlgen_hf.configuration_xlgen import XLGenConfig
from xlgen_hf.errors import ConfigurationError, ModelFolderError
from xlgen_hf.files.json_lines import write_jsonl
from xlgen_hf.loading import check_pair, load_model
from xlgen_hf.modeling_xlgen import XLGenForConditionalGeneration
from xlgen_hf.modules.candidate_pointer import NOTHING, spelled_candidates
from xlgen_hf.prediction.generator import Generator
from xlgen_hf.processing_xlgen import EncodedText, XLGenProcessor
from xlgen_hf.retrieval.candidate_inputs import CandidateInputs
from xlgen_hf.training.arguments import XLGenTrainingArguments
from xlgen_hf.training.collator import DataCollatorForXLGen, encode_dataset
from xlgen_hf.training.settings import TrainingSettings
from xlgen_hf.training.trainer import XLGenTrainer

TEXTS = ["a history of organ music", "printing", "modern piano"]
KINDS = [("bcl", "memory", "bert"), ("bcl", "tokens", "bert"), ("mcg", "tokens", "t5"), ("bcl", "memory", "llama")]


@pytest.fixture
def make(checkpoints, label_space):
    """A function that builds a model with clusters and candidates over the labels of the rows."""

    def make_from(variant="bcl", conditioning="memory", family="bert", **options) -> Made:
        conditioning = "tokens" if variant == "mcg" else conditioning
        retriever = make_retriever(checkpoints["bert"], label_space, lexical=True)
        given = {"variant": variant, "retriever": retriever, **options}
        return sharpened(make_rcl(checkpoints[family], label_space, conditioning, **given))

    return make_from


def _memory(made, texts):
    return Generator(*made).encode(texts).memory


# ------------------------------------------------------------------------------------------------ reading


@pytest.mark.parametrize(("variant", "conditioning", "family"), KINDS)
@torch.no_grad()
def test_names_of_candidates_are_read_and_clusters_are_no_part_of_them(make, variant, conditioning, family):
    made = make(variant, conditioning, family)
    encoded = made.processor.encode_texts(TEXTS)
    memory = _memory(made, encoded)
    spelled = made.processor.label_tokenizer.label_token_ids
    for row, text in enumerate(encoded):
        names = [[token for token in name if token != NOTHING] for name in memory.candidate_tokens[row].tolist()]
        assert [name for name in names if name] == [spelled[label] for label in text.candidates.labels]
    assert memory.candidate_logits.isfinite().sum(1).tolist() == [len(one.candidates.labels) for one in encoded]
    assert (memory.cluster_bits is None) == (variant == "mcg")


@pytest.mark.parametrize(("variant", "conditioning", "family"), KINDS)
@torch.no_grad()
def test_candidates_and_clusters_both_change_what_comes_next(make, variant, conditioning, family):
    made = make(variant, conditioning, family)
    (encoded,) = made.processor.encode_texts(TEXTS[:1])
    start = torch.tensor([[made.model.config.decoder_start_token_id]])

    def first_step(text, clusters):
        if variant == "mcg":
            memory = Generator(*made).run_encoder([text], [clusters], "labels").memory
        else:
            inputs = made.processor.pad([made.processor.build_input(text)], candidates=[text.candidates])
            bits = torch.zeros(1, made.model.config.num_clusters)
            bits[0, clusters] = 1
            memory = made.model.encode(**inputs, cluster_bits=bits)
        return made.model.decode_step(memory, start)[0]

    both = first_step(encoded, [0])
    assert not torch.allclose(both, first_step(EncodedText(encoded.token_ids), [0]), rtol=0, atol=1e-5)
    assert not torch.allclose(both, first_step(encoded, [1]), rtol=0, atol=1e-6)


def test_cluster_tokens_after_the_last_candidate_do_not_join_its_name():
    level, separator, end, cluster = 50, 40, 1, 43
    ids = torch.tensor([[7, level, 8, 9, cluster, cluster + 1, end], [7, level + 1, 8, end, 0, 0, 0]])
    mask = torch.tensor([[1] * 6 + [0], [1] * 3 + [0] * 4])
    places, names = spelled_candidates(ids, mask, range(level, level + 8), separator)
    assert places.tolist() == [[1], [1]]
    assert names[:, 0, :3].tolist() == [[8, 9, separator], [8, separator, NOTHING]]


@torch.no_grad()
def test_targets_of_clusters_copy_no_candidate(make):
    made = make("mcg", "tokens", "t5")
    config, memory = made.model.config, _memory(made, made.processor.encode_texts(TEXTS[:1]))
    without = _memory(made, made.processor.encode_texts(TEXTS[:1]))
    without.candidate_tokens = torch.full_like(memory.candidate_tokens, NOTHING)
    for start, copies in ((config.decoder_start_token_id, True), (config.cluster_start_token_id, False)):
        first, other = (made.model.decode_step(one, torch.tensor([[start]]))[0] for one in (memory, without))
        assert torch.allclose(first, other, rtol=0, atol=1e-6) != copies


@pytest.mark.parametrize(("variant", "conditioning"), [("bcl", "memory"), ("bcl", "tokens"), ("mcg", "tokens")])
def test_a_text_gives_room_to_the_tokens_of_clusters_alone(make, make_model, tmp_path, variant, conditioning):
    made = make(variant, conditioning, "bert" if variant == "bcl" else "t5")
    made.processor.save_pretrained(tmp_path)
    for processor in (made.processor, XLGenProcessor.from_pretrained(tmp_path)):
        processor.candidates = None
        (encoded,) = processor.encode_texts(["music " * 99])
        free = processor.max_source_length - len(processor.build_input(encoded))
        assert free == (0 if conditioning == "memory" else 1 + made.model.config.num_clusters)


def test_hidden_candidates_leave_the_clusters_vectors_in_place(make):
    made = make("bcl", "memory", candidate_threshold=0.99)  # above what an untrained head says: all are hidden
    encoded = made.processor.encode_texts(TEXTS)
    memory = _memory(made, encoded)
    assert (memory.candidate_tokens == NOTHING).all()
    active = memory.cluster_bits.sum(1).int()
    for row, text in enumerate(encoded):
        unread = len(made.processor.build_input(EncodedText(text.token_ids)))
        assert memory.attention_mask[row].sum() == unread + active[row]


# ------------------------------------------------------------------------------------------------ training


@pytest.mark.parametrize("variant", ["bcl", "mcg"])
def test_targets_of_the_head_are_the_labels_of_the_row(make, rows, variant):
    made = make(variant)
    encoded = list(encode_dataset(rows, made.processor, training=True))
    batch = DataCollatorForXLGen(made.processor, variant, clusters_only_rate=1.0)(encoded)
    per_text = 3 if variant == "mcg" else 1
    assert len(batch["input_ids"]) == len(batch["candidate_targets"]) == len(batch["candidate_scores"])
    for row, feature in enumerate(encoded):
        expected = [int(label in feature["label_ids"]) for label in feature["candidate_ids"]]
        for place in range(per_text):
            found = batch["candidate_targets"][row * per_text + place]
            wanted = expected if place < 2 else []  # a row of clusters alone reads no candidate
            assert found[: len(expected)].tolist() == (wanted or [-100] * len(expected))
    output = made.model.train()(**{name: value for name, value in batch.items() if name != "texts"})
    assert output.candidate_logits[batch["candidate_targets"] != -100].isfinite().all()
    assert all(loss.item() > 0 for loss in (output.generation_loss, output.cluster_loss, output.candidate_loss))


@pytest.mark.parametrize(("variant", "conditioning", "family"), KINDS)
def test_trained_saved_and_loaded_it_predicts_the_same(make, rows, tmp_path, variant, conditioning, family):
    made = make(variant, conditioning, family)
    arguments = XLGenTrainingArguments(str(tmp_path / "run"), max_steps=2, per_device_train_batch_size=4)
    trainer = XLGenTrainer(
        made.model, arguments, processing_class=made.processor, train_dataset=rows, eval_dataset=rows
    )
    trainer.train()
    trainer.save_model(str(tmp_path / "model"))
    before = made.model.eval().predict(TEXTS, trainer.processing_class)
    model, processor = load_model(str(tmp_path / "model"))
    assert model.config.variant == variant and model.config.has_candidates and model.config.candidate_head
    after = model.predict(TEXTS, processor)
    assert [one.labels for one in before] == [one.labels for one in after]
    assert [one.clusters for one in before] == [one.clusters for one in after] and before[0].clusters


def test_the_head_learns_which_candidates_apply(make, rows):
    made = make("bcl")
    encoded = made.processor.encode_texts([str(text) for text in rows["text"]])
    truth = label_ids(made.processor.label_space)

    def gap():
        logits = _memory(made, encoded).candidate_logits.sigmoid()
        is_true = [
            [label in labels for label in text.candidates.labels] for text, labels in zip(encoded, truth, strict=True)
        ]
        pairs = [
            (float(score), known)
            for values, row in zip(logits, is_true, strict=True)
            for score, known in zip(values, row, strict=False)
        ]
        right = [score for score, known in pairs if known]
        wrong = [score for score, known in pairs if not known]
        return sum(right) / len(right) - sum(wrong) / len(wrong)

    with torch.no_grad():
        before = gap()
    optimizer = torch.optim.AdamW(made.model.parameters(), lr=3e-3)
    collator = DataCollatorForXLGen(made.processor, "bcl")
    batch = collator(list(encode_dataset(rows, made.processor, training=True)))
    for _ in range(60):
        made.model.train()(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    made.model.eval()
    with torch.no_grad():
        assert gap() > before + 0.1


def test_the_head_alone_predicts_with_clusters_learned_beside_it(make, rows):
    made = make("bcl", generation_loss_weight=0.0)
    assert made.model.config.predicts_with == "candidate_head"
    batch = DataCollatorForXLGen(made.processor, "bcl")(list(encode_dataset(rows, made.processor, training=True)))
    output = made.model.train()(**batch)
    output.loss.backward()
    expected = output.candidate_loss + made.model.config.cluster_loss_weight * output.cluster_loss
    assert output.loss.item() == pytest.approx(expected.item()) and output.logits is None
    assert made.model.cluster_head.weight.grad.abs().sum() > 0
    made.model.eval()
    predicted = made.model.predict(TEXTS, made.processor)
    found = made.processor.candidates.find(TEXTS)
    names = made.processor.label_space.names
    offered = [{names[label] for label in found.labels[found.text == row]} for row in range(len(TEXTS))]
    assert all(set(one.labels[:3]) == labels for one, labels in zip(predicted, offered, strict=True))


# ------------------------------------------------------------------------------------------------ what is refused


def test_base_with_candidates_is_rcl(make, checkpoints):
    processor = make().processor
    with pytest.raises(ConfigurationError, match=r"no use for the processor's candidates; choose 'rcl'"):
        XLGenForConditionalGeneration.from_backbone(checkpoints["bert"], processor, variant="base")
    with pytest.raises(ConfigurationError, match=r"candidates=True has no effect .* Choose variant bcl or mcg"):
        TrainingSettings(variant="base", candidates=True)
    with pytest.raises(ConfigurationError, match="variant='base' with candidates is variant='rcl'"):
        XLGenConfig(variant="base", first_level_token_id=7)


def test_mcg_needs_its_decoder(make):
    with pytest.raises(ConfigurationError, match="variant='mcg' generates clusters before it reads them"):
        make("mcg", family="t5", generation_loss_weight=0.0)


def test_clusters_beside_candidates_as_vectors_are_refused(checkpoints, label_space):
    retriever = make_rcl(checkpoints["bert"], label_space).processor.retriever
    candidates = CandidateInputs.fit(retriever, ["music"], conditioning="memory", progress=False)
    tokenizer = AutoTokenizer.from_pretrained(checkpoints["bert"])
    processor = XLGenProcessor(tokenizer, label_space, make_clusters(label_space), 64, 64, candidates)
    with pytest.raises(ConfigurationError, match="'bcl' reads candidates as tokens; those of the processor are vec"):
        XLGenForConditionalGeneration.from_backbone(checkpoints["bert"], processor, variant="bcl")


def test_a_pair_of_which_one_has_candidates_is_refused(make, make_model):
    guided = make("bcl")
    model, processor = make_model("bert", "bcl")
    for one, other in ((guided.model, processor), (model, guided.processor)):
        with pytest.raises(ModelFolderError, match=r"model and processor differ in .*candidates, first level token"):
            check_pair(one, other, "a folder")


@pytest.mark.parametrize(
    ("options", "used"),
    [({}, False), ({"candidates": True}, True), ({"candidates": True, "num_input_candidates": 4}, True)],
)
def test_settings_of_candidates_are_those_of_rcl(options, used):
    settings = TrainingSettings(variant="bcl", **options)
    assert settings.reads_candidates == used
    assert ("candidate_loss_weight" in settings.model_options()) == used
    assert ("num_input_candidates" in settings.published()) == used
    with pytest.raises(ConfigurationError, match=r"num_input_candidates=4 has no effect with variant='bcl'"):
        TrainingSettings(variant="bcl", num_input_candidates=4)


def test_commands_train_and_fuse_a_guided_model(checkpoints, rows, tmp_path, capsys):
    data = tmp_path / "train.jsonl"
    write_jsonl(data, rows)
    names = tmp_path / "labels.txt"
    names.write_text("\n".join(VOCABULARY))
    run = ["--train-file", str(data), "--validation-file", str(data), "--labels", str(names)]
    small = [
        "--max_steps",
        "2",
        "--per_device_train_batch_size",
        "4",
        "--eval_strategy",
        "no",
        "--save_strategy",
        "no",
    ]
    assert main(["train", *run, "--variant", "bcl", "--candidates", "--retriever-epochs", "0", "--backbone",
                 checkpoints["bert"], "--num-input-candidates", "3", "--num-clusters", "3", "--max-source-length",
                 "64", "--output-dir", str(tmp_path / "bcl"), *small]) == 0  # fmt: skip
    assert main(["hybrid", "--model", str(tmp_path / "bcl"), "--validation-file", str(data), "--output-dir",
                 str(tmp_path / "hybrid")]) == 0  # fmt: skip
    capsys.readouterr()
    assert main(["predict", "--model", str(tmp_path / "hybrid"), "--input-file", str(data)]) == 0
    predicted = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(predicted) == len(rows) and all(row["labels"] for row in predicted)
    assert main(["train", *run, "--variant", "bcl", "--num-input-candidates", "3", "--output-dir",
                 str(tmp_path / "no")]) != 0  # fmt: skip
    assert "num_input_candidates=3 has no effect with variant='bcl'" in capsys.readouterr().err
