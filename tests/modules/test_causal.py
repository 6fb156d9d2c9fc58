"""Decoder-only backbones: prompts and labels in one stack of layers, with the interface of a seq2seq backbone."""

from __future__ import annotations

import pytest
import torch
from sources import make_rcl, make_retriever
from tiny import CAUSAL_FAMILIES, causal_config, make_causal_tokenizer, make_clusters
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    BertConfig,
    LogitsProcessorList,
    MambaConfig,
    T5Config,
)

from xlgen_hf.decoding.decoded_sets import DecodingOptions
from xlgen_hf.decoding.logits_process import LabelSetLogitsProcessor
from xlgen_hf.encoders.causal import is_causal
from xlgen_hf.errors import ConfigurationError
from xlgen_hf.loading import load_model
from xlgen_hf.modeling_xlgen import XLGenForConditionalGeneration
from xlgen_hf.prediction.generator import Generator
from xlgen_hf.processing_xlgen import XLGenProcessor

TEXTS = ["a history of church music", "modern art", "", "the piano " * 12]
VARIANTS = [("base", {}), ("bcl", {}), ("bcl", {"conditioning": "tokens"}), ("mcg", {})]
# What families differ in, see `causal_config`, lies in their layers, what variants differ in outside of these: one
# family has all variants, each of the others two, and each variant two families or three.
CASES = [
    (family, *VARIANTS[number])
    for family, numbers in {"llama": range(4), "qwen2": (0, 2), "gemma3": (1, 2), "gpt2": (0, 3)}.items()
    for number in numbers
]


@pytest.fixture
def make_causal(make_model):
    """A function that builds a decoder-only model whose weights matter, and its processor."""

    def make(family="llama", variant="base", **options):
        model, processor = make_model(family, variant, **options)
        torch.manual_seed(5)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.3 * torch.randn_like(parameter)
        return model, processor

    return make


def _batch(processor, model, sets=((0, 3), (2,), (1, 4, 5), (6,))):
    """Texts and targets as the collator makes them."""
    batch = dict(processor(TEXTS, return_tensors="pt", task="labels" if model.config.variant == "mcg" else None))
    targets = [processor.label_tokenizer.build_target(ids) for ids in sets]
    longest = max(map(len, targets))
    batch["labels"] = torch.tensor([t + [-100] * (longest - len(t)) for t in targets])
    if model.config.variant == "bcl":
        batch["cluster_bits"] = torch.tensor([[1.0, 0, 1], [0, 0, 1], [1, 1, 1], [0, 1, 0]])
    return batch


def _log_probs(model, batch):
    """Log-probability of each target token, 0 for padding, `(B, T)`."""
    target = batch["labels"]
    logits = model(**batch).logits
    columns = model.output_columns(target)
    return logits.log_softmax(-1).gather(2, columns[:, :, None])[:, :, 0].masked_fill(target < 0, 0)


def test_what_is_decoder_only():
    assert all(is_causal(causal_config(family)) for family in CAUSAL_FAMILIES)
    assert not is_causal(BertConfig()) and not is_causal(T5Config())


@pytest.mark.parametrize("family", CAUSAL_FAMILIES)
@torch.no_grad()
def test_scores_are_those_of_the_language_model(make_causal, family):
    """Prompt, separator, labels: what the plain model gives for them one text at a time, over the label tokens."""
    model, processor = make_causal(family)
    plain = AutoModelForCausalLM.from_config(model.config.backbone).eval()
    plain.resize_token_embeddings(model.config.vocab_size, mean_resizing=False)
    plain.load_state_dict(model.backbone.state_dict())
    batch = _batch(processor, model)
    found = _log_probs(model, batch)
    start = processor.label_tokenizer.separator_token_id
    for row, target in enumerate(batch["labels"]):
        target = target[target >= 0]
        prompt = batch["input_ids"][row][batch["attention_mask"][row] > 0]
        ids = torch.cat([prompt, torch.tensor([start]), target[:-1]])[None]
        logits = plain(input_ids=ids).logits[0, len(prompt) :, model.output_token_ids].log_softmax(-1)
        expected = logits.gather(1, model.output_columns(target)[:, None])[:, 0]
        torch.testing.assert_close(found[row, : len(target)], expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize(("family", "variant", "options"), CASES)
@torch.no_grad()
def test_teacher_forced_scores_are_those_of_the_search(make_causal, family, variant, options):
    model, processor = make_causal(family, variant, **options)
    generator = Generator(model, processor)
    encoded = generator.encode(processor.encode_texts(TEXTS))
    for beams in (1, 3):
        search = DecodingOptions(num_beams=beams, max_labels=3)
        sets = generator.search(encoded, search)
        best = [[label for label in row if label >= 0] for row in sets.labels[:, 0].tolist()]
        spelled = [
            [token for label in labels for token in processor.label_tokenizer.label_token_ids[label]]
            for labels in best
        ]
        targets = [[*tokens, processor.eos_token_id] for tokens in spelled]
        longest = max(map(len, targets))
        labels = torch.tensor([tokens + [-100] * (longest - len(tokens)) for tokens in targets])
        forced = _log_probs(model, {"encoder_outputs": encoded.memory, "labels": labels}).sum(1)
        torch.testing.assert_close(torch.tensor(sets.score[:, 0]), forced, atol=1e-4, rtol=1e-4)
        scores = generator.score(encoded, [labels[-1:] for labels in best], [labels[:-1] for labels in best])
        ordered = [processor.label_space.order(labels) == labels for labels in best]
        for row, (score,) in enumerate(scores):
            if ordered[row]:  # `score` puts the given labels into decode order
                last = sets.log_probs[row, 0, len(best[row]) - 1]
                assert score == pytest.approx(float(torch.tensor(last).exp()), rel=1e-3)


@pytest.mark.parametrize(("family", "variant", "options"), CASES)
def test_padding_may_stand_on_either_side(make_causal, family, variant, options):
    model, processor = make_causal(family, variant, **options)
    batch = _batch(processor, model)
    expected = _log_probs(model, batch)
    size = batch["input_ids"].shape[1]
    left = {**batch, "input_ids": batch["input_ids"].clone(), "attention_mask": batch["attention_mask"].clone()}
    for row, length in enumerate(batch["attention_mask"].sum(1).tolist()):
        for name in ("input_ids", "attention_mask"):
            left[name][row] = batch[name][row].roll(size - length)
    torch.testing.assert_close(_log_probs(model, left), expected)
    alone = {name: value[1:2] for name, value in batch.items()}
    alone["input_ids"] = alone["input_ids"][:, : alone["attention_mask"].sum()]
    alone["attention_mask"] = alone["attention_mask"][:, : alone["attention_mask"].sum()]
    torch.testing.assert_close(_log_probs(model, alone), expected[1:2], atol=2e-5, rtol=1e-4)


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_(enable|disable)` is deprecated")
@pytest.mark.parametrize(("family", "variant", "options"), CASES)
def test_with_and_without_a_cache(make_causal, family, variant, options):
    """Training reads prompt and labels at once, the search keeps what it has read."""
    model, processor = make_causal(family, variant, cluster_source="gold", dropout=0.0, **options)
    batch = _batch(processor, model)
    with torch.no_grad():
        kept = model(**batch)
    at_once = model(**batch)
    torch.testing.assert_close(at_once.loss, kept.loss)
    model.gradient_checkpointing_enable()
    model.train()
    again = model(**batch)
    torch.testing.assert_close(again.loss, kept.loss)
    again.loss.backward()
    checkpointed = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    model.gradient_checkpointing_disable()
    model.zero_grad()
    model(**batch).loss.backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(checkpointed[name], parameter.grad, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize(("family", "variant", "options"), CASES)
@pytest.mark.parametrize("restrict", [True, False])
def test_gradients_reach_every_parameter(make_causal, family, variant, options, restrict):
    model, processor = make_causal(family, variant, restrict_output=restrict, **options)
    model.train()
    model(**_batch(processor, model)).loss.backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not without


@torch.no_grad()
def test_beams_share_what_is_kept_of_their_prompt(make_causal):
    model, processor = make_causal("llama")
    memory = Generator(model, processor).encode(processor.encode_texts(TEXTS)).memory
    beams = memory.select(torch.arange(len(TEXTS)).repeat_interleave(5))
    assert beams.last_hidden_state.shape[0] == 20
    pairs = zip(beams.prompt.self_attention_cache.layers, memory.prompt.self_attention_cache.layers, strict=True)
    for of_beams, of_texts in pairs:
        assert of_beams.rows == 20 and of_texts.rows == 4
        assert of_beams.prompts[0] is of_texts.prompts[0]


@pytest.mark.parametrize("num_beams", [1, 3])
@pytest.mark.parametrize("family", ["llama", "gemma3"])
@torch.no_grad()
def test_generate(make_causal, family, num_beams):
    """Transformers' own generation: scores as by teacher forcing, greedily the sets of the search."""
    model, processor = make_causal(family, "bcl")
    processed = processor(TEXTS[:2], return_tensors="pt")
    only_sets = LabelSetLogitsProcessor(
        processor.label_tokenizer.trie, processor.eos_token_id, min_labels=1, max_labels=3, num_beams=num_beams
    )
    found = model.generate(
        **processed, logits_processor=LogitsProcessorList([only_sets]), num_beams=num_beams, do_sample=False,
        max_new_tokens=30, length_penalty=0.0, output_scores=True, return_dict_in_generate=True,
    )  # fmt: skip
    sequences = found.sequences[:, 1:]
    ended = (sequences == processor.eos_token_id).cumsum(1)
    labels = sequences.masked_fill((ended > 1) | ((ended == 1) & (sequences != processor.eos_token_id)), -100)
    if num_beams > 1:
        forced = _log_probs(model, {**processed, "labels": labels}).sum(1)
        torch.testing.assert_close(found.sequences_scores, forced, atol=1e-4, rtol=1e-4)
        return
    decoded = Generator(model, processor, DecodingOptions(num_beams=1, max_labels=3)).decoded(TEXTS[:2])
    spelled = processor.label_tokenizer.label_token_ids
    for row, one in zip(labels.tolist(), decoded, strict=True):
        tokens = [token for label in one.labels for token in spelled[label]]
        assert [token for token in row if token >= 0] == [*tokens, processor.eos_token_id]


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("conditioning", ["tokens", "memory"])
@torch.no_grad()
def test_retrieved_candidates(checkpoints, label_space, family, conditioning):
    """As tokens of the prompt, copied from and judged by the head, or as vectors after it."""
    retriever = make_retriever(checkpoints["bert"], label_space, lexical=True)
    model, processor = make_rcl(checkpoints[family], label_space, conditioning, retriever=retriever)
    torch.manual_seed(5)
    for parameter in model.parameters():
        parameter += 0.3 * torch.randn_like(parameter)
    generator = Generator(model, processor)
    encoded = generator.encode(processor.encode_texts(TEXTS))
    sets = generator.search(encoded, DecodingOptions(num_beams=1, max_labels=2))
    firsts = sets.labels[:, 0, 0].tolist()
    scores = generator.score(encoded, [[label] for label in firsts], [[] for _ in firsts])
    for (score,), log_prob in zip(scores, sets.log_probs[:, 0, 0], strict=True):
        assert score == pytest.approx(float(torch.tensor(log_prob).exp()), rel=1e-3)
    if conditioning == "tokens":
        assert encoded.memory.candidate_logits.shape[0] == len(TEXTS)
        tokens = encoded.memory.candidate_tokens[0, 0]
        assert tokens[tokens >= 0].tolist() in processor.label_tokenizer.label_token_ids
    assert len(model.predict(TEXTS, processor)) == len(TEXTS)


def test_candidates_cannot_be_hidden_from_a_prompt(checkpoints, label_space):
    retriever = make_retriever(checkpoints["bert"], label_space, lexical=True)
    with pytest.raises(ConfigurationError, match=r"candidate_threshold=0.1 hides candidates after the text was read"):
        make_rcl(checkpoints["llama"], label_space, retriever=retriever, candidate_threshold=0.1)


def test_open_vocabulary(make_causal):
    model, processor = make_causal("qwen2")
    with_novel = model.predict(TEXTS, processor, open_vocabulary=True)
    assert [one.labels for one in with_novel] == [one.labels for one in model.predict(TEXTS, processor)]


@pytest.mark.parametrize(("family", "variant", "options"), CASES)
def test_saved_model_is_the_same(make_causal, tmp_path, family, variant, options):
    model, processor = make_causal(family, variant, **options)
    predicted = model.predict(TEXTS, processor)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded, loaded_processor = load_model(str(tmp_path))
    for one, other in zip(loaded.predict(TEXTS, loaded_processor), predicted, strict=True):
        assert (one.labels, one.clusters) == (other.labels, other.clusters)
        assert one.scores == pytest.approx(other.scores, rel=1e-4)
    assert type(loaded.backbone) is type(model.backbone)
    auto = AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
    assert type(auto) is XLGenForConditionalGeneration


@pytest.mark.parametrize("family", CAUSAL_FAMILIES)
def test_bfloat16(make_causal, family):
    model, processor = make_causal(family, "bcl")
    model = model.to(torch.bfloat16)
    batch = _batch(processor, model)
    loss = model.train()(**batch).loss
    loss.backward()
    assert torch.isfinite(loss)
    assert model.eval().predict(TEXTS, processor)


def test_new_labels_need_no_training(make_causal):
    model, processor = make_causal("llama")
    processor.add_labels(["organ history"])
    model.fit_output(processor)
    scores = model.score(["a history of the organ"], [["organ history"]], processor)
    assert 0 < scores[0][0] <= 1


def test_tokens_of_the_tokenizer_count(checkpoints, label_space):
    """A chat model's config lists several end tokens, and no padding."""
    tokenizer = make_causal_tokenizer()
    processor = XLGenProcessor(tokenizer, label_space, max_source_length=64, max_target_length=64)
    assert processor.pad_token_id == tokenizer.eos_token_id
    model = XLGenForConditionalGeneration.from_backbone(checkpoints["llama"], processor)
    config = model.config
    assert (config.eos_token_id, config.pad_token_id) == (processor.eos_token_id, processor.pad_token_id)
    assert config.decoder_start_token_id == processor.label_tokenizer.separator_token_id
    assert model.generation_config.eos_token_id == processor.eos_token_id
    assert not model.generation_config.do_sample


def test_positions_hold_prompt_and_labels(checkpoints, label_space):
    tokenizer = AutoTokenizer.from_pretrained(checkpoints["gpt2"])
    processor = XLGenProcessor(
        tokenizer, label_space, make_clusters(label_space), max_source_length=128, max_target_length=64
    )
    message = r"inputs of 128 and targets of 64 tokens one after the other, with what guides them 195, .* for 192"
    with pytest.raises(ConfigurationError, match=message):
        XLGenForConditionalGeneration.from_backbone(checkpoints["gpt2"], processor, variant="bcl")


def test_recurrent_models_are_refused(label_space, tmp_path):
    tokenizer = make_causal_tokenizer()
    config = MambaConfig(vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, state_size=4)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    processor = XLGenProcessor(tokenizer, label_space, max_source_length=64, max_target_length=64)
    with pytest.raises(ConfigurationError, match=r"\(mamba\) has layers of the kind LinearAttentionLayer"):
        XLGenForConditionalGeneration.from_backbone(str(tmp_path), processor)
