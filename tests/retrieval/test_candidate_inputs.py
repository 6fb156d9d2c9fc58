"""Candidates that a model reads with a text: which ones, in which order, and what there is room for."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from sources import ROW_TEXTS, Made, label_ids, make_rcl, make_retriever, rows_of, with_weights
from tiny import ROWS

from xlgen_hf.configuration_xlgen import NUM_LEVELS
from xlgen_hf.errors import ConfigurationError, ModelFolderError
from xlgen_hf.labels.space import LabelSpace
from xlgen_hf.labels.spelling import plain_token_ids
from xlgen_hf.labels.tokens import TruncationReport
from xlgen_hf.processing_xlgen import XLGenProcessor
from xlgen_hf.retrieval.candidate_inputs import CandidateInputs
from xlgen_hf.training.collator import DataCollatorForXLGen, encode_dataset

TEXTS = ["a history of organ music", "printing", "modern piano"]
CONDITIONING = ("tokens", "memory")


@pytest.fixture
def make(checkpoints, label_space):
    """A function that builds an RCL over the labels of the rows."""

    def make_from(conditioning="tokens", number=3, family="bert", space=None, **options) -> Made:
        return make_rcl(checkpoints[family], space or label_space, conditioning, number, **options)

    return make_from


def _level_tokens(processor):
    return range(processor.label_tokenizer.first_level_token_id, len(processor.tokenizer))


def _spelled_candidates(processor, text, encoded):
    """Labels and levels of the candidates in the tokens of an input."""
    labels = processor.label_tokenizer
    levels = _level_tokens(processor)
    assert len(levels) == NUM_LEVELS
    ids = processor.build_input(encoded)
    plain = plain_token_ids(processor.tokenizer, [text])[0][: len(encoded.token_ids)]
    assert ids[: 1 + len(plain)] == [ids[0], *plain]
    behind = ids[1 + len(plain) : -1]
    starts = [place for place, token in enumerate(behind) if token in levels]
    names = [behind[a + 1 : b] for a, b in zip(starts, [*starts[1:], len(behind)], strict=True)]
    found = [labels.trie.label_of([*name, labels.separator_token_id]) for name in names]
    return found, [behind[place] - levels[0] for place in starts]


@pytest.mark.parametrize("conditioning", CONDITIONING)
def test_the_best_candidates_are_selected_in_order(make, conditioning):
    processor = make(conditioning).processor
    found = rows_of(processor.candidates.find(TEXTS))
    levels = np.array(processor.candidates.levels)
    for one, row in zip(processor.encode_texts(TEXTS), found, strict=True):
        assert one.candidates.labels == [label for label, _ in row] and len(row) == 3
        assert one.candidates.levels == [int((levels <= score).sum()) for _, score in row]
        assert one.candidates.levels == sorted(one.candidates.levels, reverse=True)


def test_candidates_are_spelled_after_the_text(make):
    processor = make().processor
    for text, one in zip(TEXTS, processor.encode_texts(TEXTS), strict=True):
        assert one.token_ids == plain_token_ids(processor.tokenizer, [text])[0]
        assert _spelled_candidates(processor, text, one) == (one.candidates.labels, one.candidates.levels)


def test_vectors_of_candidates_go_beside_the_tokens(make):
    processor = make("memory").processor
    encoded = processor.encode_texts(TEXTS)
    inputs = processor(TEXTS, return_tensors="pt")
    assert inputs["candidate_ids"].tolist() == [one.candidates.labels for one in encoded]
    for one, ids in zip(encoded, inputs["input_ids"].tolist(), strict=True):
        assert min(ids) >= 0
        assert processor.build_input(one) == processor.build_input(one.token_ids)
    assert "candidate_ids" not in make("tokens").processor(TEXTS)


def test_a_training_row_does_not_see_its_own_labels(make, rows):
    processor = with_weights(make("memory", 2), name_weight=0.0, lexical_name_weight=0.0).processor
    (own,) = [row for row in rows if row["text"] == "printing"]
    label = processor.label_space.encode(own["labels"])[0]
    assert label in processor.encode_texts(["printing"])[0].candidates.labels
    assert label not in processor.encode_texts(["printing"], training=True)[0].candidates.labels
    trained = encode_dataset(rows, processor, training=True)
    evaluated = encode_dataset(rows, processor)
    assert trained["text_ids"][:] == evaluated["text_ids"][:]
    for of_training, of_evaluation, text in zip(
        trained["candidate_ids"], evaluated["candidate_ids"], rows["text"], strict=True
    ):
        assert of_training == processor.encode_texts([text], training=True)[0].candidates.labels
        assert of_evaluation == processor.encode_texts([text])[0].candidates.labels
    assert trained["candidate_ids"][:] != evaluated["candidate_ids"][:]


def test_candidates_leave_half_of_the_room_to_the_text(make):
    processor = make("tokens", 8).processor
    processor.max_source_length = 24
    text = "history of the organ music in the church and art and piano and more art"
    (one,) = processor.encode_texts([text])
    assert len(one.token_ids) >= 11
    assert one.candidates.labels and len(processor.build_input(one)) <= 24
    vectors = make("memory", 8).processor
    vectors.max_source_length = 24
    (one,) = vectors.encode_texts([text])
    assert len(one.candidates.labels) == 8  # vectors take no room of the text's
    assert len(vectors.build_input(one)) <= 24


def test_candidates_that_do_not_fit_are_counted(make, caplog):
    processor = make("tokens", 8).processor
    report = TruncationReport()
    processor.encode_texts(TEXTS, report)
    assert (report.candidates, report.candidates_lost) == (24, 0)
    report.log("These rows")
    assert not caplog.text
    processor.max_source_length = 16
    report = TruncationReport()
    encoded = processor.encode_texts(TEXTS, report)
    kept = sum(token in _level_tokens(processor) for one in encoded for token in processor.build_input(one))
    assert report.candidates_lost == 24 - kept > 0
    report.log("These rows")
    assert f"{24 - kept} of 24 retrieved candidates" in caplog.text


def test_a_candidate_that_is_too_long_is_left_out_alone(checkpoints):
    """Its name takes all of the room; those after it fit."""
    long = "organ music in the church and art and piano and more art and printing and history " * 3
    space = LabelSpace.from_label_lists([row["labels"] for row in ROWS], [long.strip()])
    processor = with_weights(make_rcl(checkpoints["bert"], space, number=11), lexical_name_weight=100.0).processor
    best = processor.candidates.find([long]).labels.tolist()
    assert best[0] == space.encode([long.strip()])[0] and len(best) == 9
    report = TruncationReport()
    (one,) = processor.encode_texts([long], report)
    assert one.candidates.labels[0] == best[1]
    assert report.candidates_lost >= 1
    lengths = processor.label_tokenizer.name_lengths
    room = (64 - 2) // 2
    expected = []
    for label in best:
        if lengths[label] + 1 <= room:
            room -= lengths[label] + 1
            expected.append(label)
    assert one.candidates.labels == expected and len(expected) > 1


@pytest.mark.parametrize("conditioning", CONDITIONING)
def test_a_plain_text_has_no_candidates(make, conditioning):
    """Token ids alone make an input as well; what a text retrieves stays with its encoding."""
    processor = make(conditioning).processor
    (one,) = processor.encode_texts(TEXTS[:1])
    plain = processor.build_input(one.token_ids)
    assert plain == [plain[0], *one.token_ids, plain[-1]]
    padded = processor.pad([plain])
    assert set(padded) == {"input_ids", "attention_mask"}


@pytest.mark.parametrize("conditioning", CONDITIONING)
def test_new_labels_can_be_candidates(make, conditioning):
    model, processor = with_weights(make(conditioning), name_weight=100.0)
    assert processor.add_labels(["modern piano"]) == ["modern piano"]
    model.fit_output(processor)
    assert len(processor.label_space) - 1 in processor.candidates.find(["modern piano"]).labels
    assert model.predict(["modern piano"], processor)[0].labels


def test_batches_pad_candidates(make, rows):
    model, processor = make("memory")
    encoded = list(encode_dataset(rows, processor))
    encoded[0]["candidate_ids"], encoded[0]["candidate_levels"] = encoded[0]["candidate_ids"][:1], [0]
    batch = DataCollatorForXLGen(processor, "rcl")(encoded)
    assert batch["candidate_ids"].shape == (len(rows), 3)
    assert batch["candidate_ids"][0, 1:].tolist() == [-1, -1]
    assert (batch["candidate_ids"][1:] >= 0).all()
    assert (batch["input_ids"] >= 0).all()
    assert (batch["input_ids"][batch["attention_mask"] == 0] == processor.pad_token_id).all()
    memory = model.encode(**{name: batch[name] for name in ("input_ids", "attention_mask", "candidate_ids")})
    assert memory.attention_mask[:, -3:].tolist() == [[1, 0, 0], *[[1, 1, 1]] * (len(rows) - 1)]
    assert torch.isfinite(model(**batch).loss)


# ------------------------------------------------------------------------------------------------ levels, settings


def test_levels_are_filled_alike(checkpoints, label_space):
    retriever = make_retriever(checkpoints["bert"], label_space)
    made = CandidateInputs.fit(retriever, ROW_TEXTS, num_input_candidates=4, progress=False)
    scores = retriever.rank_training_texts(ROW_TEXTS, 4).scores
    counts = np.bincount(np.searchsorted(made.levels, scores, side="right"), minlength=NUM_LEVELS)
    assert counts.max() - counts.min() <= 2
    assert sum(map(len, label_ids(label_space))) and len(made.levels) == NUM_LEVELS - 1


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("levels", (1.0, 0.5), "levels="),
        ("levels", (float("nan"),) * (NUM_LEVELS - 1), "ascending scores are needed"),
        ("num_input_candidates", 0, "num_input_candidates=0; it must be an integer from 1 to 1000"),
        ("num_input_candidates", 2.0, r"num_input_candidates=2\.0"),
        ("conditioning", "magic", "conditioning='magic'; choose one of"),
    ],
)
def test_impossible_settings_are_refused(make, field, value, message):
    known = make().processor.candidates
    fields = {
        "retriever": known.retriever,
        "num_input_candidates": 3,
        "conditioning": "tokens",
        "levels": known.levels,
        field: value,
    }
    with pytest.raises(ConfigurationError, match=message):
        CandidateInputs(**fields)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("levels", [1.0, 0.5], "'levels' has 2 items; it must be a list of 7 items"),
        ("levels", [*range(NUM_LEVELS - 2), -1], "'levels' has -1 after 5; it must be ascending"),
        ("levels", ["a"] * (NUM_LEVELS - 1), r"'levels\[0\]' is 'a'; it must be a number"),
        ("num_input_candidates", 10**9, "'num_input_candidates' is 1000000000"),
        ("conditioning", "magic", "'conditioning' is 'magic'; it must be one of"),
        ("more", 1, "'more' is not a field"),
    ],
)
def test_damaged_settings_are_refused(make, tmp_path, field, value, message):
    make().processor.save_pretrained(tmp_path)
    path = tmp_path / "processor_config.json"
    content = json.loads(path.read_text())
    content["candidates"][field] = value
    path.write_text(json.dumps(content))
    with pytest.raises(ModelFolderError, match=message):
        XLGenProcessor.from_pretrained(tmp_path)


def test_a_retriever_must_be_there_and_for_the_same_labels(make, label_space, tmp_path):
    processor = make().processor
    with pytest.raises(ConfigurationError, match="The retriever is for 10 labels, the label space has 11"):
        XLGenProcessor(processor.tokenizer, label_space.extended(["x"]), None, 64, 64, processor.candidates)
    processor.save_pretrained(tmp_path)
    (tmp_path / "retriever" / "retriever.json").unlink()
    with pytest.raises(ModelFolderError, match="the model reads candidates that a retriever finds"):
        XLGenProcessor.from_pretrained(tmp_path)
