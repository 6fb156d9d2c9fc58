"""XLGen-RCL: retrieved candidates in the input, in every step of a model's life; and hybrids."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import LogitsProcessorList

from xlgen_hf.cli.main import main
from xlgen_hf.configuration_xlgen import NUM_LEVELS
from xlgen_hf.decoding.decoded_sets import DecodingOptions
from xlgen_hf.decoding.logits_process import LabelSetLogitsProcessor, split_labels
from xlgen_hf.errors import ConfigurationError, ModelFolderError
from xlgen_hf.files.json_lines import write_jsonl
from xlgen_hf.files.model_folder import model_files
from xlgen_hf.hub.cards import model_card
from xlgen_hf.labels.tokens import TruncationReport
from xlgen_hf.loading import load_model
from xlgen_hf.retrieval.candidate_inputs import CandidateInputs
from xlgen_hf.training.arguments import XLGenTrainingArguments
from xlgen_hf.training.build import prepare_model
from xlgen_hf.training.collator import DataCollatorForXLGen, encode_dataset
from xlgen_hf.training.settings import TrainingSettings
from xlgen_hf.training.trainer import XLGenTrainer

TEXTS = ["a history of organ music", "printing", "modern piano"]
CONDITIONING = ("tokens", "memory")


@pytest.fixture
def make_rcl(checkpoints, rows, tmp_path):
    def make(conditioning="tokens", number=3, family="bert", options=None, **more):
        settings = TrainingSettings(
            checkpoints[family],
            "rcl",
            vocabulary=["music history", "art history"],
            retriever_epochs=0,
            num_candidates=number,
            max_source_length=64,
            max_target_length=64,
            model_options={"conditioning": conditioning, **(options or {})},
            **more,
        )
        model, processor = prepare_model(settings, rows, rows, cache_dir=tmp_path / "cache")
        return SimpleNamespace(model=model, processor=processor)

    return make


@pytest.mark.parametrize("conditioning", CONDITIONING)
def test_candidates_stand_behind_the_text_best_first(make_rcl, conditioning):
    processor = make_rcl(conditioning).processor
    found = processor.candidates.find(TEXTS)
    for row, (text, ids) in enumerate(zip(TEXTS, processor.encode_texts(TEXTS), strict=True)):
        plain = plain_token_ids(processor.tokenizer, [text])[0]
        assert ids[: len(plain)] == plain
        behind, labels = ids[len(plain) :], found.labels[found.start[row] : found.start[row + 1]].tolist()
        if conditioning == "memory":
            assert [-1 - token for token in behind] == labels
            continue
        levels = set(processor.label_tokenizer.added_token_ids[-NUM_LEVELS:])
        starts = [place for place, token in enumerate(behind) if token in levels]
        spelled = [behind[a + 1 : b] for a, b in zip(starts, [*starts[1:], len(behind)], strict=True)]
        assert spelled == [processor.label_tokenizer.label_token_ids[label][:-1] for label in labels]
        assert [behind[place] for place in starts] == sorted((behind[place] for place in starts), reverse=True)


def test_a_training_row_does_not_see_its_own_labels(make_rcl, rows):
    processor = make_rcl("memory", 2).processor
    only = [row for row in rows if row["text"] == "printing"]
    label = processor.label_space.encode(only[0]["labels"])[0]
    settings = replace(processor.candidates.retriever.settings, name_weight=0.0)
    processor.candidates.retriever.settings = settings
    assert -1 - label in processor.encode_texts(["printing"])[0]
    assert -1 - label not in processor.encode_texts(["printing"], training=True)[0]
    trained = encode_dataset(rows, processor, training=True)
    evaluated = encode_dataset(rows, processor)
    assert trained["text_ids"][:] != evaluated["text_ids"][:]


def test_candidates_leave_half_of_the_room_to_the_text(make_rcl):
    processor = make_rcl("tokens", 8).processor
    processor.max_source_length = 24
    ids = processor.encode_texts(["history of the organ music in the church and art and piano and more art"])[0]
    first = next(place for place, token in enumerate(ids) if token in processor.label_tokenizer.added_token_ids)
    assert 10 <= first and len(ids) <= 22


def test_candidates_that_do_not_fit_are_counted(make_rcl, rows, caplog):
    processor = make_rcl("tokens", 8).processor
    report = TruncationReport()
    processor.encode_texts(TEXTS, report)
    assert (report.candidates, report.candidates_lost) == (24, 0)
    processor.max_source_length = 16
    report = TruncationReport()
    levels = set(processor.label_tokenizer.added_token_ids[-NUM_LEVELS:])
    kept = sum(token in levels for ids in processor.encode_texts(TEXTS, report) for token in ids)
    assert report.candidates_lost == 24 - kept > 0
    report.log("These rows")
    assert f"{24 - kept} of 24 retrieved candidates" in caplog.text


@pytest.mark.parametrize("conditioning", CONDITIONING)
def test_candidates_are_read_back(make_rcl, conditioning):
    processor = make_rcl(conditioning).processor
    found = processor.candidates.find(TEXTS)
    rows = [found.labels[a:b].tolist() for a, b in zip(found.start[:-1], found.start[1:], strict=True)]
    assert processor.input_candidates(processor.encode_texts(TEXTS)) == rows
    assert processor.input_candidates(plain_token_ids(processor.tokenizer, TEXTS)) == [[], [], []]


@pytest.mark.parametrize("search", [{"num_beams": 1}, {"num_beams": 3, "pool": "union"}])
@pytest.mark.parametrize("conditioning", CONDITIONING)
def test_candidates_of_the_input_are_scored_too(make_rcl, conditioning, search):
    model, processor = _sharpened(make_rcl(conditioning, 6))
    candidates = processor.input_candidates(processor.encode_texts(TEXTS))
    names = [processor.label_space.decode(labels) for labels in candidates]
    plain = model.decode(TEXTS, processor, DecodingOptions(**search))
    more = model.decode(TEXTS, processor, DecodingOptions(num_candidates=1, **search))
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
    for one in model.decode(TEXTS, processor, DecodingOptions(num_candidates=1, labels=some, **search)):
        assert set(one.candidates) <= set(some.tolist())


def test_more_labels_than_a_decoder_has_places_for_can_be_given(make_rcl):
    """Several samples together hold more than one target can; what does not fit is not given."""
    made = make_rcl()
    made.processor.max_target_length = 16
    everything = list(range(len(made.processor.label_space)))
    scores = made.model.score_ids(
        made.processor.encode_texts(TEXTS[:1]), [everything], made.processor, given=[everything]
    )[0]
    assert len(scores) == len(everything) and all(0 <= score <= 1 for score in scores)
    spelled = made.processor.label_tokenizer.label_token_ids
    ordered, room = made.processor.label_space.order(everything), 16 - max(map(len, spelled))
    fitting = [
        label for place, label in enumerate(ordered) if sum(len(spelled[one]) for one in ordered[: place + 1]) <= room
    ]
    assert 0 < len(fitting) < len(ordered)
    same = made.model.score_ids(made.processor.encode_texts(TEXTS[:1]), [everything], made.processor, given=[fitting])[
        0
    ]
    assert scores == pytest.approx(same)


@pytest.mark.parametrize("conditioning", CONDITIONING)
def test_candidates_change_what_the_decoder_sees(make_rcl, conditioning):
    made = make_rcl(conditioning)
    plain = made.plain_token_ids(processor.tokenizer, TEXTS[:1])[0]
    with_candidates = made.processor.encode_texts(TEXTS[:1])[0]
    start = torch.tensor([made.model.config.decoder_start_token_id])
    outputs = []
    for ids in (with_candidates, plain):
        memory, _ = made.model.encode_batch([ids], made.processor)
        outputs.append(made.model.decode_step(memory, start[None])[0])
    assert not torch.allclose(*outputs, atol=1e-4)


def test_vectors_do_not_reach_the_encoder(make_rcl):
    made = make_rcl("memory")
    plain = made.plain_token_ids(processor.tokenizer, TEXTS[:1])[0]
    first, second = (
        made.model.encode_batch([[*plain, *behind]], made.processor)[0] for behind in ([-1, -2], [-4, -5])
    )
    vectors = slice(1 + len(plain), 3 + len(plain))
    assert first.attention_mask.all()
    first, second = first.last_hidden_state, second.last_hidden_state
    assert not torch.allclose(first[0, vectors], second[0, vectors])
    first[0, vectors] = second[0, vectors]
    torch.testing.assert_close(first, second)


def _sharpened(made):
    with torch.no_grad():
        made.model.get_output_embeddings().weight.mul_(6)
    return made.model.eval(), made.processor


@pytest.mark.parametrize("family", ["bert", "t5", "modernbert"])
@torch.no_grad()
def test_an_untrained_model_copies_the_first_candidate(make_rcl, family):
    """The gate opened wide, all that is generated comes from the candidates, the best one first."""
    made = make_rcl(family=family)
    torch.nn.init.constant_(made.model.candidate_pointer.gate.bias, 50.0)
    found = made.processor.candidates.find(TEXTS)
    options = DecodingOptions(min_labels=3, max_labels=3)
    for row, one in enumerate(made.model.decode(TEXTS, made.processor, options)):
        assert one.labels[0] == found.labels[found.start[row]]
        assert set(one.labels) == set(found.labels[found.start[row] : found.start[row + 1]].tolist())


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
def test_generate_copies_as_the_search_does(make_rcl):
    model, processor = _sharpened(make_rcl())
    memory, _ = model.encode_batch(processor.encode_texts(TEXTS), processor)
    sequences = _generate(model, processor, memory, num_beams=1).sequences[:, 1:].numpy()
    expected = [
        [processor.label_tokenizer.trie.label_of(row[a : b + 1].tolist()) for a, b in spans]
        for row, spans in zip(
            sequences, split_labels(sequences, processor.label_tokenizer.separator_token_id), strict=True
        )
    ]
    decoded = model.decode(TEXTS, processor, DecodingOptions(min_labels=2, max_labels=3))
    assert [one.labels for one in decoded] == expected


@torch.no_grad()
def test_beams_of_generate_copy_from_their_own_candidates(make_rcl):
    """Scores of its beams are the teacher-forced ones of their sequences."""
    model, processor = _sharpened(make_rcl())
    texts = processor.encode_texts(TEXTS)
    memory, _ = model.encode_batch(texts, processor)
    found = _generate(model, processor, memory, num_beams=3, length_penalty=0.0, output_scores=True)
    for row, (sequence, score) in enumerate(zip(found.sequences[:, 1:], found.sequences_scores, strict=True)):
        length = int((sequence == processor.eos_token_id).nonzero()[0]) + 1
        alone, _ = model.encode_batch(texts[row : row + 1], processor)
        target = sequence[None, :length]
        log_probs = model(encoder_outputs=alone, labels=target).logits.log_softmax(-1)
        columns = model.piece_positions(target)[:, :, None]
        assert float(log_probs.gather(2, columns).sum()) == pytest.approx(float(score), abs=1e-3)


@torch.no_grad()
def test_steps_with_a_cache_equal_one_pass(make_rcl):
    model, processor = _sharpened(make_rcl())
    memory, _ = model.encode_batch(processor.encode_texts(TEXTS[:1]), processor)
    target = torch.tensor([processor.label_tokenizer.build_target([0, 2, 1])])
    whole = model(encoder_outputs=memory, labels=target).logits.log_softmax(-1)
    tokens, cache = model.prepare_decoder_input_ids_from_labels(target), None
    for step in range(target.shape[1]):
        log_probs, cache = model.decode_step(memory, tokens[:, : step + 1], cache)
        torch.testing.assert_close(log_probs, whole[:, step], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(whole.exp().sum(-1), torch.ones(1, target.shape[1]))


def test_copying_can_be_left_out(make_rcl):
    model = make_rcl(options={"copy_candidates": False}).model
    assert not hasattr(model, "candidate_pointer")
    assert model.predict(TEXTS, make_rcl(options={"copy_candidates": False}).processor)


@pytest.mark.parametrize("family", ["bert", "t5"])
@pytest.mark.parametrize("conditioning", CONDITIONING)
def test_trained_saved_and_loaded_it_predicts_the_same(make_rcl, rows, tmp_path, conditioning, family):
    made = make_rcl(conditioning, family=family)
    arguments = XLGenTrainingArguments(str(tmp_path / "run"), max_steps=3, per_device_train_batch_size=4)
    trainer = XLGenTrainer(
        made.model, arguments, processing_class=made.processor, train_dataset=rows, eval_dataset=rows
    )
    trainer.train()
    trainer.tune_decisions()
    trainer.save_model(str(tmp_path / "model"))
    before = made.model.eval().predict(TEXTS, made.processor)
    model, processor = load_model(str(tmp_path / "model"))
    assert model.config.variant == "rcl"
    after = model.predict(TEXTS, processor)
    assert [one.labels for one in before] == [one.labels for one in after]
    files = model_files(tmp_path / "model")
    assert {"retriever/model.safetensors", "retriever/retriever.json", "retriever/tokenizer.json"} <= set(files)


@pytest.mark.parametrize("conditioning", CONDITIONING)
def test_new_labels_can_be_candidates(make_rcl, conditioning):
    made = make_rcl(conditioning)
    finder = made.processor.candidates.retriever
    finder.settings = replace(finder.settings, name_weight=100.0)
    assert made.processor.add_labels(["modern piano"]) == ["modern piano"]
    made.model.widen_output(made.processor)
    found = made.processor.candidates.find(["modern piano"])
    assert len(made.processor.label_space) - 1 in found.labels
    assert made.model.predict(["modern piano"], made.processor, num_beams=2)


def test_collator_pads_candidates_like_tokens(make_rcl, rows):
    made = make_rcl("memory")
    batch = DataCollatorForXLGen(made.processor, "rcl")(list(encode_dataset(rows, made.processor)))
    assert (batch["input_ids"] < 0).any()
    assert (batch["input_ids"][batch["attention_mask"] == 0] == made.processor.pad_token_id).all()
    assert torch.isfinite(made.model(**batch).loss)


def test_training_can_start_from_another_variant(make_rcl, make_model, checkpoints, tmp_path):
    model, processor = make_model("bert", "bcl", cluster_threshold=0.3)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    made = make_rcl(start_from=str(tmp_path), decoder_layers=1)
    ours, theirs = made.model.state_dict(), model.state_dict()
    layer = "backbone.encoder.encoder.layer.0.output.dense.weight"
    assert torch.equal(ours[layer], theirs[layer])
    tokens, others = made.processor.tokenizer.get_vocab(), processor.tokenizer.get_vocab()
    embeddings = [one.get_input_embeddings().weight for one in (made.model, model)]
    for token in ("music", "<xlgen:sep>"):
        assert torch.equal(embeddings[0][tokens[token]], embeddings[1][others[token]])
    with pytest.raises(ConfigurationError, match="has another backbone"):
        make_rcl(start_from=str(tmp_path), decoder_layers=2)


def test_variant_and_candidates_belong_together(make_rcl, make_model, checkpoints):
    made = make_rcl()
    with pytest.raises(ConfigurationError, match="with a processor with candidates"):
        type(made.model).from_backbone(checkpoints["bert"], made.processor, variant="base")
    made.processor.candidates = None
    with pytest.raises(ConfigurationError, match="with a processor without candidates"):
        type(made.model).from_backbone(checkpoints["bert"], made.processor, variant="rcl")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("levels", [1.0, 0.5], "levels="),
        ("levels", ["a"] * (NUM_LEVELS - 1), "must be an object with"),
        ("num_candidates", 10**9, "num_candidates=1000000000"),
        ("conditioning", "magic", "conditioning='magic'"),
        ("more", 1, "must be an object with"),
    ],
)
def test_damaged_settings_of_candidates_are_refused(make_rcl, tmp_path, field, value, message):
    made = make_rcl()
    made.model.save_pretrained(tmp_path)
    made.processor.save_pretrained(tmp_path)
    path = tmp_path / "processor_config.json"
    content = json.loads(path.read_text())
    content["candidates"][field] = value
    path.write_text(json.dumps(content))
    with pytest.raises(ModelFolderError, match=message):
        load_model(str(tmp_path))


def test_levels_are_filled_alike(make_rcl, rows):
    processor = make_rcl().processor
    made = CandidateInputs.fit(processor.candidates.retriever, rows["text"][:], num_candidates=4, progress=False)
    scores = processor.candidates.retriever.retrieve(rows["text"][:], 4, leave_out=True).scores
    counts = np.bincount(np.searchsorted(made.levels, scores, side="right"), minlength=NUM_LEVELS)
    assert counts.max() - counts.min() <= 2


def test_commands_train_fuse_and_predict(checkpoints, rows, tmp_path, capsys):
    data = tmp_path / "train.jsonl"
    write_jsonl(data, rows)
    run = ["--train-file", str(data), "--validation-file", str(data)]
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
    assert main(["index", *run, "--encoder", checkpoints["bert"], "--epochs", "0", "--output-dir",
                 str(tmp_path / "index")]) == 0  # fmt: skip
    assert main(["train", *run, "--variant", "rcl", "--backbone", checkpoints["bert"], "--retriever",
                 str(tmp_path / "index"), "--num-candidates", "3", "--max-source-length", "64",
                 "--max-target-length", "64", "--output-dir", str(tmp_path / "rcl"), *small]) == 0  # fmt: skip
    assert main(["hybrid", "--model", str(tmp_path / "rcl"), "--validation-file", str(data), "--output-dir",
                 str(tmp_path / "hybrid")]) == 0  # fmt: skip
    card = model_card(tmp_path / "hybrid", "me/hybrid")
    assert "fused with those of dense retrieval" in card and "- xlgen-hybrid" in card
    assert "Validation rows" not in card  # the weights were learned on them
    assert "fused with" not in model_card(tmp_path / "rcl", "me/rcl")
    capsys.readouterr()
    assert main(["predict", "--model", str(tmp_path / "hybrid"), "--input-file", str(data)]) == 0
    predicted = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(predicted) == len(rows) and all(row["labels"] for row in predicted)
    assert main(["hybrid", "--model", str(tmp_path / "rcl"), "--retriever", str(tmp_path / "index"),
                 "--validation-file", str(data), "--output-dir", str(tmp_path / "no")]) == 1  # fmt: skip
    assert "leave --retriever out" in capsys.readouterr().err
    assert main(["predict", "--model", str(tmp_path / "hybrid"), "--input-file", str(data), "--expected-f1"]) == 1
    assert "needs scores that are probabilities" in capsys.readouterr().err
    again = ["hybrid", "--model", str(tmp_path / "rcl"), "--validation-file", str(data), "--output-dir",
             str(tmp_path / "hybrid"), "--linear", "bonsai"]  # fmt: skip
    assert main(again) == 1
    assert "--linear and --train-file go together" in capsys.readouterr().err
    fewer = tmp_path / "fewer.jsonl"
    write_jsonl(fewer, rows.select(range(5)))
    for file, is_told in ((fewer, True), (data, False)):
        assert main([*again, "--train-file", str(file)]) == 0
        assert ("not the rows that the model was trained on" in capsys.readouterr().err) == is_told
        assert "and of linear label trees" in model_card(tmp_path / "hybrid", "me/hybrid")
    assert main(again[:-2]) == 0
    assert not (tmp_path / "hybrid" / "linear").exists()
    assert "label trees" not in model_card(tmp_path / "hybrid", "me/hybrid")
    capsys.readouterr()
    assert (
        main(["predict", "--model", str(tmp_path / "hybrid"), "--input-file", str(data), "--threshold", "auto"]) == 0
    )
