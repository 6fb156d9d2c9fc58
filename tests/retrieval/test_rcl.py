"""XLGen-RCL: how a model reads, scores and copies retrieved candidates, in every step of its life."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from sources import Made, make_rcl, make_retriever, rows_of, sharpened
from tiny import VOCABULARY
from transformers import LogitsProcessorList

from xlgen_hf.cli.main import main
from xlgen_hf.decoding.decoded_sets import DecodingOptions
from xlgen_hf.decoding.logits_process import LabelSetLogitsProcessor, split_labels
from xlgen_hf.errors import ConfigurationError
from xlgen_hf.files.json_lines import write_jsonl
from xlgen_hf.files.model_folder import model_files
from xlgen_hf.hub.cards import model_card
from xlgen_hf.loading import load_model
from xlgen_hf.modeling_xlgen import XLGenForConditionalGeneration
from xlgen_hf.prediction.generator import Generator
from xlgen_hf.processing_xlgen import EncodedText, XLGenProcessor
from xlgen_hf.ranking.decisions import DecisionRule
from xlgen_hf.ranking.score_model import ScoreModel
from xlgen_hf.retrieval.model_sources import save_source_alone
from xlgen_hf.training.arguments import XLGenTrainingArguments
from xlgen_hf.training.build import prepare_model
from xlgen_hf.training.settings import TrainingSettings
from xlgen_hf.training.trainer import XLGenTrainer

TEXTS = ["a history of organ music", "printing", "modern piano"]
CONDITIONING = ("tokens", "memory")


@pytest.fixture
def make(checkpoints, label_space):
    """A function that builds an RCL over the labels of the rows."""

    def make_from(conditioning="tokens", number=3, family="bert", **options) -> Made:
        return make_rcl(checkpoints[family], label_space, conditioning, number, **options)

    return make_from


def _decoded(made, decoding, k=0, allowed=None):
    return Generator(*made, decoding).decoded(TEXTS, k, allowed)


def _memory(made, texts=TEXTS):
    return Generator(*made).encode(made.processor.encode_texts(texts)).memory


# ------------------------------------------------------------------------------------------------ reading


@pytest.mark.parametrize("conditioning", CONDITIONING)
@torch.no_grad()
def test_candidates_change_what_the_decoder_sees(make, conditioning):
    made = make(conditioning)
    (encoded,) = made.processor.encode_texts(TEXTS[:1])
    start = torch.tensor([[made.model.config.decoder_start_token_id]])
    outputs = [
        made.model.decode_step(Generator(*made).encode([one]).memory, start)[0]
        for one in (encoded, EncodedText(encoded.token_ids))
    ]
    assert not torch.allclose(*outputs, rtol=0, atol=1e-5)


@torch.no_grad()
def test_vectors_do_not_reach_the_encoder(make):
    made = make("memory")
    inputs = made.processor(TEXTS[:1], return_tensors="pt")
    length = inputs["input_ids"].shape[1]
    inputs["candidate_ids"] = torch.tensor([[0, 1]])
    first = made.model.encode(**inputs)
    inputs["candidate_ids"] = torch.tensor([[3, 4]])
    second = made.model.encode(**inputs)
    assert first.attention_mask.all() and first.last_hidden_state.shape[1] == length + 2
    assert not torch.allclose(first.last_hidden_state[0, length:], second.last_hidden_state[0, length:])
    torch.testing.assert_close(first.last_hidden_state[:, :length], second.last_hidden_state[:, :length])


# ------------------------------------------------------------------------------------------------ scores


@pytest.mark.parametrize("search", [{"num_beams": 1}, {"num_beams": 3, "pool": "union"}])
@pytest.mark.parametrize("conditioning", CONDITIONING)
def test_candidates_of_the_input_are_scored_too(make, conditioning, search):
    model, processor = made = sharpened(make(conditioning, 6))
    candidates = [one.candidates.labels for one in processor.encode_texts(TEXTS)]
    names = [processor.label_space.decode(labels) for labels in candidates]
    plain = _decoded(made, DecodingOptions(**search))
    more = _decoded(made, DecodingOptions(min_candidates=1, **search))
    given = [processor.label_space.decode(one.labels) for one in plain]
    forced = model.score(TEXTS, names, processor, given=given)
    for before, after, labels, values in zip(plain, more, candidates, forced, strict=True):
        assert after.labels == before.labels
        greater = {
            label: max(value, before.candidates.get(label, 0)) for label, value in zip(labels, values, strict=True)
        }
        assert set(after.candidates) == {*before.candidates, *labels}
        assert after.candidates == pytest.approx(before.candidates | greater, abs=1e-6)
    assert any(len(after.candidates) > len(before.candidates) for before, after in zip(plain, more, strict=True))
    some = np.array(sorted({label for labels in candidates for label in labels})[:2])
    for one in _decoded(made, DecodingOptions(min_candidates=1, **search), allowed=some):
        assert set(one.candidates) <= set(some.tolist())


def test_more_labels_than_a_decoder_has_places_for_can_be_given(make):
    """Several samples together hold more than one target can; a label that does not fit is left out alone."""
    model, processor = make()
    processor.max_target_length = 16
    everything = processor.label_space.names
    scores = model.score(TEXTS[:1], [everything], processor, given=[everything])[0]
    assert len(scores) == len(everything) and all(0 <= score <= 1 for score in scores)
    spelled = processor.label_tokenizer.label_token_ids
    open_labels = processor.label_tokenizer.open_labels().tolist()
    room = 16 - max(len(spelled[label]) for label in open_labels)
    fitting = []
    for label in processor.label_space.order(range(len(everything))):
        if len(spelled[label]) <= room:
            room -= len(spelled[label])
            fitting.append(label)
    assert 0 < len(fitting) < len(everything)
    same = model.score(TEXTS[:1], [everything], processor, given=[processor.label_space.decode(fitting)])[0]
    assert scores == pytest.approx(same)


def test_a_given_label_that_never_fits_takes_no_other_along(make):
    model, processor = sharpened(make())
    long = "organ music in the church and art and piano and more art and printing and history " * 4
    processor.add_labels([long.strip()])
    model.fit_output(processor)
    wanted = [["music", "art"]]
    with_long = model.score(TEXTS[:1], wanted, processor, given=[["organ", long.strip(), "history"]])
    assert with_long == model.score(TEXTS[:1], wanted, processor, given=[["organ", "history"]])
    assert with_long != model.score(TEXTS[:1], wanted, processor)
    assert model.score(TEXTS[:1], [[long.strip()]], processor) == [[0.0]]


# ------------------------------------------------------------------------------------------------ copying


@pytest.mark.parametrize("family", ["bert", "t5", "modernbert"])
@torch.no_grad()
def test_an_untrained_model_copies_the_first_candidate(make, family):
    """The gate opened wide, all that is generated comes from the candidates, the best one first."""
    made = make(family=family)
    torch.nn.init.constant_(made.model.candidate_pointer.gate.bias, 50.0)
    found = rows_of(made.processor.candidates.find(TEXTS))
    for row, one in zip(found, _decoded(made, DecodingOptions(min_labels=3, max_labels=3)), strict=True):
        assert one.labels[0] == row[0][0]
        assert set(one.labels) == {label for label, _ in row}


def _generate(model, processor, memory, **options):
    constraint = LabelSetLogitsProcessor(
        processor.label_tokenizer.trie,
        processor.eos_token_id,
        min_labels=2,
        max_labels=3,
        num_beams=options["num_beams"],
    )
    return model.generate(
        encoder_outputs=memory,
        attention_mask=memory.attention_mask,
        logits_processor=LogitsProcessorList([constraint]),
        do_sample=False,
        max_new_tokens=40,
        return_dict_in_generate=True,
        **options,
    )


@torch.no_grad()
def test_generate_copies_as_the_search_does(make):
    model, processor = made = sharpened(make())
    labels = processor.label_tokenizer
    sequences = _generate(model, processor, _memory(made), num_beams=1).sequences[:, 1:].numpy()
    expected = [
        [labels.trie.label_of(row[a : b + 1].tolist()) for a, b in spans]
        for row, spans in zip(sequences, split_labels(sequences, labels.separator_token_id), strict=True)
    ]
    decoded = _decoded(made, DecodingOptions(min_labels=2, max_labels=3))
    assert [one.labels for one in decoded] == expected


@torch.no_grad()
def test_beams_of_generate_copy_from_their_own_candidates(make):
    """Scores of its beams are the teacher-forced ones of their sequences."""
    model, processor = made = sharpened(make())
    found = _generate(model, processor, _memory(made), num_beams=3, length_penalty=0.0, output_scores=True)
    for text, sequence, score in zip(TEXTS, found.sequences[:, 1:], found.sequences_scores, strict=True):
        length = int((sequence == processor.eos_token_id).nonzero()[0]) + 1
        target = sequence[None, :length]
        log_probs = model(encoder_outputs=_memory(made, [text]), labels=target).logits.log_softmax(-1)
        columns = model.output_positions(target)[:, :, None]
        assert float(log_probs.gather(2, columns).sum()) == pytest.approx(float(score), abs=1e-3)


@torch.no_grad()
def test_steps_with_a_cache_equal_one_pass(make):
    model, processor = made = sharpened(make())
    memory = _memory(made, TEXTS[:1])
    target = torch.tensor([processor.label_tokenizer.build_target([0, 2, 1])])
    whole = model(encoder_outputs=memory, labels=target).logits.log_softmax(-1)
    tokens, cache = model.prepare_decoder_input_ids_from_labels(target), None
    for step in range(target.shape[1]):
        log_probs, cache = model.decode_step(memory, tokens[:, : step + 1], cache)
        torch.testing.assert_close(log_probs, whole[:, step], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(whole.exp().sum(-1), torch.ones(1, target.shape[1]))


def test_copying_can_be_left_out(make):
    model, processor = make(copy_candidates=False)
    assert not hasattr(model, "candidate_pointer")
    assert _memory(make(copy_candidates=False)).candidate_tokens is None
    assert all(one.labels for one in model.predict(TEXTS, processor))


# ------------------------------------------------------------------------------------------------ a model's life


@pytest.mark.parametrize("family", ["bert", "t5"])
@pytest.mark.parametrize("conditioning", CONDITIONING)
def test_trained_saved_and_loaded_it_predicts_the_same(make, rows, tmp_path, conditioning, family):
    made = make(conditioning, family=family)
    arguments = XLGenTrainingArguments(
        str(tmp_path / "run"), max_steps=3, per_device_train_batch_size=4, predict_with="generator"
    )
    trainer = XLGenTrainer(
        made.model, arguments, processing_class=made.processor, train_dataset=rows, eval_dataset=rows
    )
    trainer.train()
    trainer.tune_decisions()
    trainer.save_model(str(tmp_path / "model"))
    assert trainer.processing_class.score_model.calibrator is not None
    before = made.model.eval().predict(TEXTS, trainer.processing_class)
    model, processor = load_model(str(tmp_path / "model"))
    assert model.config.variant == "rcl"
    assert processor.score_model == trainer.processing_class.score_model
    after = model.predict(TEXTS, processor)
    assert [one.labels for one in before] == [one.labels for one in after]
    for one, other in zip(before, after, strict=True):
        assert one.scores == pytest.approx(other.scores, abs=2e-2)  # the index is kept in 16 bits
    files = model_files(tmp_path / "model")
    assert {"retriever/model.safetensors", "retriever/retriever.json", "retriever/tokenizer.json"} <= set(files)


def test_training_can_start_from_another_variant(make_model, checkpoints, rows, tmp_path):
    model, processor = make_model("bert", "bcl", cluster_threshold=0.3)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)

    def start(decoder_layers):
        settings = TrainingSettings(
            backbone=checkpoints["bert"], variant="rcl", vocabulary=VOCABULARY, retriever_epochs=0,
            max_source_length=64, max_target_length=64, start_from=str(tmp_path), decoder_layers=decoder_layers,
        )  # fmt: skip
        return Made(*prepare_model(settings, rows, rows, cache_dir=tmp_path / "cache"))

    made = start(1)
    ours, theirs = made.model.state_dict(), model.state_dict()
    layer = "backbone.encoder.encoder.layer.0.output.dense.weight"
    assert torch.equal(ours[layer], theirs[layer])
    tokens, others = made.processor.tokenizer.get_vocab(), processor.tokenizer.get_vocab()
    embeddings = [one.get_input_embeddings().weight for one in (made.model, model)]
    for token in ("music", "<xlgen:sep>"):
        assert torch.equal(embeddings[0][tokens[token]], embeddings[1][others[token]])
    with pytest.raises(ConfigurationError, match="has another backbone"):
        start(2)


@pytest.mark.parametrize("case", ["some rows", "further labels", "dropped labels"])
def test_some_of_the_rows_of_an_index_train_a_model_of_its_labels(checkpoints, rows, label_space, tmp_path, case):
    retriever = make_retriever(checkpoints["bert"], label_space, lexical=True)
    save_source_alone(tmp_path / "index", label_space, "retrieval", retriever, ScoreModel())
    settings = TrainingSettings(
        backbone=checkpoints["bert"], variant="rcl", retriever=str(tmp_path / "index"), max_source_length=64,
        max_target_length=64, decoder_layers=1, num_input_candidates=3,
        vocabulary=["never heard of"] if case == "further labels" else None,
        drop_labels=0.5 if case == "dropped labels" else 0.0,
    )  # fmt: skip
    some = rows.select(range(2))
    if case != "some rows":  # an index of all labels of the rows would tell what was dropped
        lacking = "It lacks 1 of these, e.g. 'never heard of'" if case == "further labels" else "for other labels"
        with pytest.raises(ConfigurationError, match=lacking):
            prepare_model(settings, some, cache_dir=tmp_path / "cache")
        return
    model, processor = prepare_model(settings, some, cache_dir=tmp_path / "cache")
    assert processor.label_space.names == label_space.names
    assert processor.label_space.counts.tolist() == label_space.counts.tolist()
    assert sum(map(len, rows["labels"][:2])) < label_space.counts.sum()
    assert len(model.eval().predict(TEXTS, processor, rule=DecisionRule("top_k", 3))[0].labels) == 3


def test_variant_and_candidates_belong_together(make, checkpoints, label_space):
    made = make()
    with pytest.raises(ConfigurationError, match="has no use for the processor's candidates; choose 'rcl'"):
        XLGenForConditionalGeneration.from_backbone(checkpoints["bert"], made.processor, variant="base")
    plain = XLGenProcessor(made.processor.tokenizer, label_space, None, 64, 64)
    with pytest.raises(ConfigurationError, match="with a processor without candidates; it needs them"):
        XLGenForConditionalGeneration.from_backbone(checkpoints["bert"], plain, variant="rcl")


def test_commands_train_fuse_and_predict(checkpoints, rows, tmp_path, capsys):
    data = tmp_path / "train.jsonl"
    write_jsonl(data, rows)
    run = ["--train-file", str(data), "--validation-file", str(data)]
    small = [
        *("--max_steps", "2", "--per_device_train_batch_size", "4"),
        *("--eval_strategy", "no", "--save_strategy", "no"),
    ]
    assert main(["index", *run, "--encoder", checkpoints["bert"], "--epochs", "0", "--output-dir",
                 str(tmp_path / "index")]) == 0  # fmt: skip
    assert main(["train", *run, "--variant", "rcl", "--backbone", checkpoints["bert"], "--retriever",
                 str(tmp_path / "index"), "--num-input-candidates", "3", "--max-source-length", "64",
                 "--max-target-length", "64", "--output-dir", str(tmp_path / "rcl"), *small]) == 0  # fmt: skip
    assert main(["hybrid", "--model", str(tmp_path / "rcl"), "--validation-file", str(data), "--output-dir",
                 str(tmp_path / "hybrid")]) == 0  # fmt: skip
    card = model_card(tmp_path / "hybrid", "me/hybrid")
    assert "fused with those of retrieval" in card and "- xlgen-hybrid" in card
    assert "Validation rows" not in card  # the weights were learned on them
    assert "fused with" not in model_card(tmp_path / "rcl", "me/rcl")
    capsys.readouterr()
    assert main(["predict", "--model", str(tmp_path / "hybrid"), "--input-file", str(data)]) == 0
    predicted = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(predicted) == len(rows) and all(row["labels"] for row in predicted)
    assert main(["hybrid", "--model", str(tmp_path / "rcl"), "--retriever", str(tmp_path / "index"),
                 "--validation-file", str(data), "--output-dir", str(tmp_path / "no")]) == 1  # fmt: skip
    assert f"leave --retriever {tmp_path / 'index'} out" in capsys.readouterr().err
    again = ["hybrid", "--model", str(tmp_path / "rcl"), "--validation-file", str(data), "--output-dir",
             str(tmp_path / "hybrid"), "--overwrite", "--linear", "bonsai"]  # fmt: skip
    fewer = tmp_path / "fewer.jsonl"
    write_jsonl(fewer, rows.select(range(5)))
    for file, is_reported in ((fewer, True), (data, False)):
        assert main([*again, "--train-file", str(file)]) == 0
        assert ("not the rows that the model was trained on" in capsys.readouterr().err) == is_reported
        assert "and of linear label trees" in model_card(tmp_path / "hybrid", "me/hybrid")
    assert main(again[:-2]) == 0
    assert not (tmp_path / "hybrid" / "label_trees").exists()
    assert "label trees" not in model_card(tmp_path / "hybrid", "me/hybrid")


@pytest.mark.parametrize("epochs", [0, 5])
def test_a_retriever_that_training_makes_computes_in_the_type_of_the_training(checkpoints, rows, tmp_path, epochs):
    settings = TrainingSettings(
        backbone=checkpoints["bert"], variant="rcl", max_source_length=64, max_target_length=64, decoder_layers=1,
        num_input_candidates=3, retriever_epochs=epochs,
    )  # fmt: skip
    made = [
        prepare_model(settings, rows, cache_dir=tmp_path / dtype, dtype=dtype)[1].retriever
        for dtype in ("float32", "bfloat16")
    ]
    single, half = (retriever.documents for retriever in made)
    assert not np.array_equal(single, half)
    np.testing.assert_allclose(single, half, atol=0.05)
    weights = [next(iter(retriever.encoder[0].parameters())) for retriever in made]
    assert all(one.dtype == torch.float32 for one in weights)
    assert torch.equal(*weights) == (epochs == 0)
