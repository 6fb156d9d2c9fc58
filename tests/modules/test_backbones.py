"""Families of backbones: each works from building to loading, or is refused before training with the reason."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from families import make_checkpoint
from sources import make_rcl, make_retriever
from tiny import ROWS, make_bart_tokenizer
from transformers import AutoTokenizer, BertConfig, PreTrainedModel, RobertaConfig

from xlgen_hf.configuration_xlgen import XLGenConfig
from xlgen_hf.errors import CheckpointError, ConfigurationError
from xlgen_hf.modeling_xlgen import XLGenForConditionalGeneration
from xlgen_hf.modules.backbone import longest_sequence
from xlgen_hf.modules.candidate_pointer import NOTHING
from xlgen_hf.modules.conditioning import append_cluster_tokens
from xlgen_hf.modules.dry_run import check_decoding, dry_run
from xlgen_hf.prediction.generator import Generator
from xlgen_hf.processing_xlgen import XLGenProcessor

TEXTS = ["a history of church music in the church", "printing"]


@pytest.fixture
def build(label_space, tmp_path):
    """A function that builds an untrained model and its processor from a tiny checkpoint of a family."""

    def make(family: str, **options):
        folder = tmp_path / family
        if not folder.exists():
            make_checkpoint(family, folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        processor = XLGenProcessor(tokenizer, label_space, max_source_length=64, max_target_length=64)
        torch.manual_seed(1)
        options = {"decoder_layers": 1, **options}
        return XLGenForConditionalGeneration.from_backbone(str(folder), processor, **options), processor

    return make


def targets_of(processor: XLGenProcessor) -> torch.Tensor:
    """Targets of the first rows, padded with -100."""
    space = processor.label_space
    rows = [processor.label_tokenizer.build_target(space.encode(row["labels"])) for row in ROWS[: len(TEXTS)]]
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[-100] * (longest - len(row))] for row in rows])


@torch.no_grad()
def log_probs_by_steps(model, processor, labels):
    """What decoding token by token gives for targets, with the start token of the search."""
    memory, cache, found = model.encode(**processor(TEXTS, return_tensors="pt")), None, []
    start = torch.full((len(labels), 1), model.config.decoder_start_token_id)
    tokens = torch.cat([start, labels.clamp(min=0)], dim=1)
    for length in range(1, labels.shape[1] + 1):
        log_probs, cache = model.decode_step(memory, tokens[:, :length], cache)
        found.append(log_probs)
    return torch.stack(found, dim=1)


WORKING = (
    "t5gemma2", "t5gemma", "longt5", "longt5-tglobal", "switch", "m2m_100", "nllb-legacy", "nllb-moe", "mbart",
    "mbart50", "blenderbot", "led", "mvp", "pegasus_x", "bigbird_pegasus", "albert", "rembert", "longformer", "xlnet",
)  # fmt: skip


@pytest.mark.parametrize("family", WORKING)
def test_a_family_trains_searches_and_loads(build, tmp_path, family):
    model, processor = build(family)
    labels, batch = targets_of(processor), processor(TEXTS, return_tensors="pt")
    model.train()(**batch, labels=labels).loss.backward()
    assert all(
        any(one.grad is not None for one in part.parameters()) for part in (model.get_encoder(), model.get_decoder())
    )
    model.eval()
    with torch.no_grad():
        forced = model(**batch, labels=labels).logits
    counted = labels != -100
    stepwise = log_probs_by_steps(model, processor, labels)
    torch.testing.assert_close(stepwise[counted], forced.log_softmax(-1)[counted], atol=2e-5, rtol=0)
    (predicted,) = model.predict(TEXTS[:1], processor)
    model.save_pretrained(tmp_path / "saved")
    processor.save_pretrained(tmp_path / "saved")
    loaded = XLGenForConditionalGeneration.from_pretrained(tmp_path / "saved")
    again = XLGenProcessor.from_pretrained(tmp_path / "saved")
    with torch.no_grad():
        logits = loaded(**again(TEXTS, return_tensors="pt"), labels=labels).logits
    torch.testing.assert_close(logits, forced, atol=1e-5, rtol=0)
    assert loaded.predict(TEXTS[:1], again)[0].labels == predicted.labels


@pytest.mark.parametrize(
    ("family", "error", "message"),
    [
        ("marian-separate", ConfigurationError, "separate vocabularies for texts and targets"),
        ("fsmt", ConfigurationError, "separate vocabularies for texts and targets"),
        ("prophetnet", ConfigurationError, r"'prophetnet'.*disagree by 0\.\d+ in log-probability"),
        ("canine", ConfigurationError, "no matrix of word embeddings"),
        ("t5-encoder", CheckpointError, "only part of a 't5' model: its decoder is missing"),
    ],
)
def test_what_cannot_work_is_refused_with_the_reason(build, family, error, message):
    with pytest.raises(error, match=rf"(?s){message}.*Use a T5, BART"):
        build(family)


def test_half_of_a_seq2seq_checkpoint_is_refused(build, tmp_path):
    make_checkpoint("t5-encoder", tmp_path / "t5-encoder")
    path = tmp_path / "t5-encoder" / "config.json"  # as sentence-t5 has it
    path.write_text(json.dumps({**json.loads(path.read_text()), "is_encoder_decoder": True}))
    with pytest.raises(CheckpointError, match=r"only part of a 't5' model: decoder\..* is missing"):
        build("t5-encoder")


def test_an_encoder_that_reads_padding_is_reported(build, caplog):
    build("fnet")
    assert "'fnet') reads padding: a text's hidden states change by" in caplog.text
    caplog.clear()
    build("bert")
    assert "reads padding" not in caplog.text


# ---------------------------------------------------------------------------------------------------- the dry run


def test_the_dry_run_leaves_no_trace(build):
    model, processor = build("bigbird_pegasus")
    model.train()
    states = torch.get_rng_state(), np.random.get_state()[1].copy()
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    check_decoding(model, processor, "it")
    assert model.training
    assert torch.equal(states[0], torch.get_rng_state())
    np.testing.assert_array_equal(states[1], np.random.get_state()[1])
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


def test_the_dry_run_finds_a_mask_that_lets_positions_see_what_follows(build):
    """Masks for `sdpa` are boolean; LED adds them to its scores."""
    model, processor = build("led")
    assert dry_run(model, processor).steps.holds
    for module in model.backbone.modules():
        if isinstance(module, PreTrainedModel):
            module.config._attn_implementation_internal = "sdpa"
    with pytest.raises(ConfigurationError, match=r"'it' \(type 'led'\) cannot be the backbone: .* disagree by \d"):
        check_decoding(model, processor, "it")


def test_the_dry_run_names_what_fails(build):
    model, processor = build("bart")
    model.backbone.model.decoder.layers[0].fc1 = torch.nn.Linear(3, 3)
    with pytest.raises(
        ConfigurationError, match=r"a first pass over two short texts fails \(RuntimeError: (addmm: )?mat1"
    ):
        check_decoding(model, processor, "it")


@pytest.mark.parametrize("family", ["t5", "bart", "bert", "t5gemma2"])
def test_backbones_may_be_bfloat16(build, family):
    model, processor = build(family, dtype=torch.bfloat16)
    assert model.predict(TEXTS, processor)


# ---------------------------------------------------------------------------------------------------- framing, start


@pytest.mark.parametrize(
    ("family", "before", "after", "start"),
    [
        ("mbart", [], ["</s>", "en_XX"], "de_DE"),
        ("mbart50", [], ["</s>", "en_XX"], "de_DE"),
        ("m2m_100", ["eng_Latn"], ["</s>"], "deu_Latn"),
        ("nllb-legacy", [], ["</s>", "eng_Latn"], "deu_Latn"),
        ("bart", ["<s>"], ["</s>"], "</s>"),
        ("t5", [], ["</s>"], "<pad>"),
        ("t5gemma2", ["<s>"], ["</s>"], "<s>"),
        ("bert", ["[CLS]"], ["[SEP]"], "[CLS]"),
    ],
)
def test_texts_are_framed_and_targets_begin_as_in_pretraining(build, family, before, after, start):
    model, processor = build(family)
    tokenizer = processor.tokenizer
    ids = processor(TEXTS[1])["input_ids"][0]
    assert tokenizer.convert_ids_to_tokens(ids[: len(before)]) == before
    assert tokenizer.convert_ids_to_tokens(ids[-len(after) :]) == after
    assert ids == tokenizer(TEXTS[1])["input_ids"]
    expected = tokenizer.convert_tokens_to_ids(start)
    labels = targets_of(processor)
    shifted = model.prepare_decoder_input_ids_from_labels(labels)
    assert shifted[:, 0].tolist() == [expected] * len(labels)
    assert shifted[0, 1:].tolist() == [token if token != -100 else processor.pad_token_id for token in labels[0, :-1]]
    assert model.config.decoder_start_token_id == model.generation_config.decoder_start_token_id == expected


@pytest.mark.parametrize("family", ["mbart", "nllb-legacy", "t5", "bert", "xlnet"])  # one token after a text, or two
@torch.no_grad()
def test_what_ends_a_text_is_no_part_of_a_candidate(checkpoints, label_space, tmp_path, family):
    make_checkpoint(family, tmp_path / family)
    retriever = make_retriever(checkpoints["bert"], label_space, lexical=True)
    model, processor = make_rcl(str(tmp_path / family), label_space, "tokens", retriever=retriever)
    texts = processor.encode_texts(TEXTS)
    found = Generator(model, processor).encode(texts).memory.candidate_tokens.tolist()
    for row, text in zip(found, texts, strict=True):
        names = [[token for token in tokens if token != NOTHING] for tokens in row]
        spelled = processor.label_tokenizer.label_token_ids
        assert [tokens for tokens in names if tokens] == [spelled[label] for label in text.candidates.labels]


@pytest.mark.parametrize("length", [0, 1, 2, None])
def test_clusters_stand_before_what_ends_a_text(length):
    ids, bits = [[5, 6, 7, 2], [8, 9, 2]], torch.tensor([[0, 1], [1, 1]])
    config = XLGenConfig(num_end_tokens=length, first_cluster_token_id=20, pad_token_id=0, eos_token_id=2)
    padded = torch.tensor([ids[0], [*ids[1], 0]])
    made, mask = append_cluster_tokens(config, padded, (padded > 0).long(), bits)
    end = 1 if length is None else length
    pairs = zip(ids, [[21], [20, 21]], strict=True)
    expected = [[*row[: len(row) - end], *new, *row[len(row) - end :]] for row, new in pairs]
    assert [row[keep].tolist() for row, keep in zip(made, mask > 0, strict=True)] == expected


def test_clusters_stand_before_what_ends_a_text_wherever_its_padding_is():
    """The fault: after padding on the left, clusters took the place of words, and the end was lost."""
    config = XLGenConfig(num_end_tokens=1, first_cluster_token_id=20, pad_token_id=0, eos_token_id=2)
    bits = torch.tensor([[0.0, 1.0], [1.0, 1.0]])
    padded = torch.tensor([[5, 6, 7, 2], [0, 8, 9, 2]])
    for mask in (padded > 0, (padded > 0).long(), (padded > 0).float()):
        made, kept = append_cluster_tokens(config, padded, mask, bits)
        assert [row[keep > 0].tolist() for row, keep in zip(made, kept, strict=True)] == [
            [5, 6, 7, 21, 2],
            [8, 9, 20, 21, 2],
        ]


def test_the_order_of_a_texts_clusters_does_not_depend_on_other_texts():
    """The fault: the largest number of clusters in a batch decided in which order the tokens of all of them came."""
    config = XLGenConfig(num_end_tokens=1, first_cluster_token_id=100, pad_token_id=0, eos_token_id=2)
    bits = (
        torch.rand(20, 64, generator=torch.Generator().manual_seed(0)) < torch.linspace(0.02, 0.5, 20)[:, None]
    ).float()
    ids = torch.tensor([[5, 6, 2]]).expand(20, -1)
    together, mask = append_cluster_tokens(config, ids, torch.ones_like(ids), bits)
    for row in range(20):
        alone, _ = append_cluster_tokens(config, ids[:1], torch.ones_like(ids[:1]), bits[row : row + 1])
        clusters = bits[row].nonzero()[:, 0].tolist()
        assert together[row][mask[row] > 0].tolist() == alone[0].tolist()[: 3 + len(clusters)]
        assert alone[0].tolist() == [5, 6, *(100 + cluster for cluster in clusters or []), 2] or not clusters


def test_a_language_that_was_chosen_is_kept_in_the_folder(build, tmp_path):
    make_checkpoint("mbart", tmp_path / "mbart")
    _, processor = build("mbart")
    processor.tokenizer.src_lang = "fr_XX"
    expected = XLGenProcessor(processor.tokenizer, processor.label_space)(TEXTS)["input_ids"]
    processor.save_pretrained(tmp_path / "saved")
    assert XLGenProcessor.from_pretrained(tmp_path / "saved")(TEXTS)["input_ids"] == expected


def test_generation_settings_of_another_task_are_not_taken_over(build, tmp_path):
    make_checkpoint("bart", tmp_path / "bart")
    settings = {"min_length": 5, "no_repeat_ngram_size": 3, "forced_bos_token_id": 0, "num_beams": 4}
    path = tmp_path / "bart" / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))
    model, processor = build("bart")
    kept = model.generation_config.to_diff_dict()
    assert not set(settings) & set(kept)
    assert kept["eos_token_id"] == processor.eos_token_id


def test_what_a_family_does_not_save_is_not_trained(build):
    model, processor = build("marian")
    model.train()(**processor(TEXTS, return_tensors="pt"), labels=targets_of(processor)).loss.backward()
    assert model.backbone.model.encoder.embed_positions.weight.grad is None
    assert model.backbone.model.encoder.embed_tokens.weight.grad is not None


@pytest.mark.parametrize(("config", "tokens"), [(RobertaConfig, 64), (BertConfig, 66)])
def test_positions_that_are_set_aside_take_no_tokens(config, tokens):
    made = config(max_position_embeddings=66, pad_token_id=1)
    assert longest_sequence(made, make_bart_tokenizer()) == tokens
