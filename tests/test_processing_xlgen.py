"""The processor: texts and labels of every kind to token ids, and what is lost on the way."""

from __future__ import annotations

import json
import logging

import pytest
from tiny import make_bert_tokenizer, make_clusters, make_t5_tokenizer

from xlgen_hf.errors import ConfigurationError, ModelFolderError
from xlgen_hf.labels.concepts import Concept
from xlgen_hf.labels.space import LabelSpace
from xlgen_hf.labels.tokens import TruncationReport
from xlgen_hf.labels.vocabulary import Vocabulary
from xlgen_hf.processing_xlgen import XLGenProcessor


def _processor(names=("art", "music", "church music"), tokenizer=None, **options):
    space = LabelSpace(names, [1] * len(names))
    return XLGenProcessor(tokenizer or make_bert_tokenizer(), space, **options)


def test_a_label_is_its_tokens_and_a_separator():
    processor = _processor()
    tokens = processor.tokenizer.convert_ids_to_tokens(processor.label_tokenizer.label_token_ids[2])
    assert tokens == ["church", "music", "<xlgen:sep>"]


@pytest.mark.parametrize(
    "name", ["<xlgen:sep>", "a <xlgen:sep> b", "[SEP]", "[CLS] art", "<xlgen:c0>", "</s>", "<pad>"]
)
@pytest.mark.parametrize("make_tokenizer", [make_bert_tokenizer, make_t5_tokenizer])
def test_names_and_texts_that_look_like_special_tokens_are_plain_text(name, make_tokenizer):
    space = LabelSpace([name, "art"], [1, 1])
    processor = XLGenProcessor(make_tokenizer(), space, make_clusters(space, count=2))
    special = {*processor.label_tokenizer.added_token_ids, *processor.tokenizer.all_special_ids} - {
        processor.tokenizer.unk_token_id
    }
    *tokens, end = processor.label_tokenizer.label_token_ids[0]
    assert end == processor.label_tokenizer.separator_token_id
    assert not special & set(tokens)
    assert not special & set(processor.encode_texts([f"about {name} and art"])[0].token_ids)


def test_names_the_tokenizer_does_not_tell_apart_get_a_number(caplog):
    names = ["Art", "art", "ART", "music"]
    processor = _processor(names)
    with caplog.at_level(logging.WARNING, logger="xlgen_hf"):
        tokens = [
            processor.tokenizer.convert_ids_to_tokens(ids[:-1]) for ids in processor.label_tokenizer.label_token_ids
        ]
    assert tokens[0] == ["art"]
    assert len({tuple(t) for t in tokens}) == 4
    assert "does not tell 2 of 4 label names" in caplog.text
    assert [processor.label_tokenizer.trie.label_of(ids) for ids in processor.label_tokenizer.label_token_ids] == [
        0,
        1,
        2,
        3,
    ]


def test_a_name_that_tokenizes_to_nothing_can_still_be_predicted(caplog):
    names = ["art", "\u200b\u200bx", "\u00adhidden", "漢字"]
    processor = _processor(names)
    with caplog.at_level(logging.WARNING, logger="xlgen_hf"):
        sequences = processor.label_tokenizer.label_token_ids
    assert all(len(ids) >= 2 for ids in sequences)
    assert len({tuple(ids) for ids in sequences}) == len(names)


def test_many_names_of_unknown_letters_stay_apart():
    names = [chr(0x4E00 + i) for i in range(300)]
    processor = _processor(names)
    assert len({tuple(ids) for ids in processor.label_tokenizer.label_token_ids}) == 300
    assert max(map(len, processor.label_tokenizer.label_token_ids)) < 310


def test_inputs_hold_task_text_and_clusters_in_order():
    space = LabelSpace(["art", "music"], [1, 1])
    processor = XLGenProcessor(make_bert_tokenizer(), space, make_clusters(space, count=2))
    ids = processor.build_input(processor.encode_texts(["modern art"])[0], [1, 0], "labels")
    tokens = processor.tokenizer.convert_ids_to_tokens(ids)
    assert tokens == ["[CLS]", "<xlgen:labels>", "modern", "art", "<xlgen:c1>", "<xlgen:c0>", "[SEP]"]


def test_long_texts_are_truncated_and_counted(caplog):
    processor = _processor(max_source_length=16)
    report = TruncationReport()
    encoded = processor.encode_texts(["art " * 20_000, "art", ""], report)
    assert [len(one.token_ids) for one in encoded] == [14, 1, 0]
    assert len(processor.build_input(encoded[0])) == 16
    with caplog.at_level(logging.WARNING, logger="xlgen_hf"):
        report.log("Test data")
    assert "Test data: 1 of 3 texts (33.33 %) were truncated." in caplog.text


def test_labels_that_do_not_fit_are_left_out_whole_and_counted(caplog):
    processor = _processor(max_target_length=7)
    report = TruncationReport()
    target = processor.label_tokenizer.build_target([0, 1, 2], report)
    assert processor.tokenizer.convert_ids_to_tokens(target) == [
        "art", "<xlgen:sep>", "music", "<xlgen:sep>", "[SEP]",
    ]  # fmt: skip
    assert (report.labels, report.labels_lost) == (3, 1)
    with caplog.at_level(logging.WARNING, logger="xlgen_hf"):
        report.log("Test data")
    assert "1 of 3 labels (33.33 %) did not fit" in caplog.text


def test_nothing_lost_nothing_said(caplog):
    report = TruncationReport()
    processor = _processor()
    processor.encode_texts(["art"], report)
    processor.label_tokenizer.build_target([0], report)
    report.log("Test data")
    assert caplog.text == ""


def test_call_pads(checkpoints):
    batch = _processor()(["modern art", "music"], return_tensors="pt")
    assert batch["input_ids"].shape == (2, 4)
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]
    assert _processor()([])["input_ids"] == []
    with pytest.raises(TypeError, match="unexpected keyword"):
        _processor()(["art"], padding=True)


def test_clusters_of_another_label_space_are_refused(label_space):
    with pytest.raises(ConfigurationError, match=r"clusters are for 1\d labels, the label space has 3"):
        _processor(clusters=make_clusters(label_space))


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("processor_config.json", "{}", "processor_class is None, where an XLGen model has"),
        ("processor_config.json", "{", "is not JSON"),
        (
            "processor_config.json",
            {"max_source_length": "many"},
            "'max_source_length' is 'many'; it must be an integer",
        ),
        ("label_space.json", None, "label_space.json is missing"),
        ("label_space.json", b"\xff\xfe", "is not JSON in UTF-8"),
    ],
)
def test_broken_folders_are_refused(tmp_path, file, content, message):
    _processor().save_pretrained(tmp_path)
    path = tmp_path / file
    if content is None:
        path.unlink()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, dict):
        path.write_text(json.dumps({**json.loads(path.read_text()), **content}))
    else:
        path.write_text(content)
    with pytest.raises(ModelFolderError, match=message):
        XLGenProcessor.from_pretrained(tmp_path)


def test_a_folder_of_another_model_is_refused(checkpoints):
    with pytest.raises(ModelFolderError, match=r"processor_config\.json is missing"):
        XLGenProcessor.from_pretrained(checkpoints["t5"])


def test_a_vocabulary_is_saved_with_the_labels_and_goes_with_them(tmp_path):
    names = ("art", "music")
    vocabulary = Vocabulary([Concept("c1", {"en": "art", "de": "Kunst"}), Concept("c2", {"en": "music"})], "en")
    _processor(names, vocabulary=vocabulary).save_pretrained(tmp_path)
    loaded = XLGenProcessor.from_pretrained(tmp_path)
    assert loaded.vocabulary is not None and list(loaded.vocabulary) == list(vocabulary)
    loaded.add_labels(["pottery"])
    loaded.save_pretrained(tmp_path)
    assert XLGenProcessor.from_pretrained(tmp_path).vocabulary is not None
    _processor(names).save_pretrained(tmp_path)
    assert XLGenProcessor.from_pretrained(tmp_path).vocabulary is None
    assert not list(tmp_path.glob("vocabulary*"))
