"""The model: families, variants, losses, saving, tied weights."""

from __future__ import annotations

import logging

import pytest
import torch
from transformers import AutoConfig, AutoModelForSeq2SeqLM, AutoProcessor

from xlgen_hf.configuration_xlgen import XLGenConfig
from xlgen_hf.decoding.decoded_sets import DecodingOptions
from xlgen_hf.errors import CheckpointError, ConfigurationError
from xlgen_hf.modeling_xlgen import XLGenForConditionalGeneration
from xlgen_hf.modules.conditioning import append_cluster_tokens, choose_bits
from xlgen_hf.prediction.generator import Generator
from xlgen_hf.processing_xlgen import XLGenProcessor

FAMILIES = ["t5", "bart", "bert", "modernbert"]
TEXTS = ["a history of church music", "modern art", "", "the piano " * 60]


def _batch(processor, model, texts=("art and music", "organ")):
    batch = dict(processor(list(texts), return_tensors="pt"))
    targets = [processor.label_tokenizer.build_target([0, 3]), processor.label_tokenizer.build_target([2])]
    longest = max(map(len, targets))
    batch["labels"] = torch.tensor([t + [-100] * (longest - len(t)) for t in targets])
    if model.config.variant == "bcl":
        batch["cluster_bits"] = torch.tensor([[1.0, 0, 1], [0, 0, 1]])
    return batch


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("variant", ["base", "bcl", "mcg"])
def test_predictions_survive_a_reload(make_model, tmp_path, family, variant):
    model, processor = make_model(family, variant)
    decoding = DecodingOptions(max_labels=4)
    before = model.predict(TEXTS, processor, batch_size=2, decoding=decoding)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again = AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
    assert isinstance(again, XLGenForConditionalGeneration)
    assert isinstance(AutoProcessor.from_pretrained(tmp_path), XLGenProcessor)
    assert isinstance(AutoConfig.from_pretrained(tmp_path), XLGenConfig)
    loaded = XLGenProcessor.from_pretrained(tmp_path)
    assert loaded.label_tokenizer.label_token_ids == processor.label_tokenizer.label_token_ids
    after = again.predict(TEXTS, loaded, batch_size=2, decoding=decoding)
    assert [one.labels for one in after] == [one.labels for one in before]
    assert [one.clusters for one in after] == [one.clusters for one in before]
    for one, other in zip(after, before, strict=True):  # where weights lie in memory moves the last digits of sums
        assert one.scores == pytest.approx(other.scores, rel=1e-4)
    assert not list(tmp_path.glob("*.bin"))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_prediction_is_a_valid_set(make_model, family):
    model, processor = make_model(family, "bcl")
    for beams in (1, 3):
        decoding = DecodingOptions(num_beams=beams, min_labels=2, max_labels=4)
        for prediction in model.predict(TEXTS, processor, decoding=decoding):
            assert 2 <= len(prediction.labels) <= 4
            assert len(set(prediction.labels)) == len(prediction.labels)
            assert set(prediction.labels) <= set(processor.label_space.names)
            assert prediction.scores == sorted(prediction.scores, reverse=True)
            assert all(0 <= score <= 1 for score in prediction.scores)
            assert 1 <= len(prediction.clusters) <= 3


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("restrict", [True, False])
def test_restricted_output_is_a_slice_of_the_full_one(make_model, family, restrict):
    model, processor = make_model(family, restrict_output=restrict)
    batch = _batch(processor, model)
    with torch.no_grad():
        logits = model(**batch).logits
        full = model.backbone(**{k: v for k, v in batch.items() if k != "labels"}, decoder_input_ids=(
            model.prepare_decoder_input_ids_from_labels(batch["labels"])
        )).logits  # fmt: skip
    expected = full[..., model.output_token_ids] if restrict else full
    torch.testing.assert_close(logits, expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_loss_is_the_mean_over_counted_tokens(make_model, family):
    model, processor = make_model(family)
    batch = _batch(processor, model)
    with torch.no_grad():
        output = model(**batch)
    log_probs = output.logits.log_softmax(-1)
    picked = [
        log_probs[row, step, model.output_token_ids.tolist().index(token)]
        for row, target in enumerate(batch["labels"].tolist())
        for step, token in enumerate(target)
        if token != -100
    ]
    torch.testing.assert_close(output.loss, -torch.stack(picked).mean())


def test_padding_changes_nothing(make_model):
    model, processor = make_model("bert", "bcl", cluster_source="gold")
    alone = processor(["organ"], return_tensors="pt")
    padded = processor(["organ", "a history of church music in the church"], return_tensors="pt")
    bits = torch.tensor([[1.0, 0, 1], [1, 1, 1]])
    with torch.no_grad():
        one = model.encode(alone["input_ids"], alone["attention_mask"], cluster_bits=bits[:1])
        two = model.encode(padded["input_ids"], padded["attention_mask"], cluster_bits=bits)
    torch.testing.assert_close(one.cluster_logits[0], two.cluster_logits[0])  # the cluster head sees no padding
    width = alone["input_ids"].shape[1]
    torch.testing.assert_close(one[0][0, :width], two[0][0, :width])


def test_bits_change_the_generation_loss(make_model):
    model, processor = make_model("t5", "bcl")
    batch = _batch(processor, model)
    with torch.no_grad():
        one = model(**batch).generation_loss
        other = model(**{**batch, "cluster_bits": torch.tensor([[0.0, 1, 0], [1, 1, 0]])}).generation_loss
    assert not torch.isclose(one, other)


@pytest.mark.parametrize("family", ["t5", "bert"])
def test_cluster_tokens_stand_before_the_end_of_each_text(make_model, family):
    model, processor = make_model(family, "bcl", conditioning="tokens")
    texts = ["organ", "a history of church music"]
    batch = processor(texts, return_tensors="pt")
    bits = torch.tensor([[1.0, 0, 1], [0, 1, 0]])
    ids, mask = append_cluster_tokens(model.config, batch["input_ids"], batch["attention_mask"], bits)
    expected = [
        processor.build_input(text, clusters)
        for text, clusters in zip(processor.encode_texts(texts), [[0, 2], [1]], strict=True)
    ]
    assert [row[keep.bool()].tolist() for row, keep in zip(ids, mask, strict=True)] == expected


def test_predicted_bits_hold_at_least_one_cluster_and_at_most_the_limit(make_model):
    model, _ = make_model("bert", "bcl", max_clusters=2)
    logits = torch.tensor([[-5.0, -4.0, -6.0], [5.0, 4.0, 6.0], [5.0, -4.0, -6.0]])
    assert model.predict_bits(logits).tolist() == [[0, 1, 0], [1, 0, 1], [1, 0, 0]]


def test_mixed_bits_are_gold_or_predicted_row_by_row(make_model):
    model, _ = make_model("bert", "bcl", cluster_source="mixed")
    gold = torch.tensor([[0.0, 0, 1]]).repeat(64, 1)
    logits = torch.tensor([[9.0, -9, -9]]).repeat(64, 1)
    model.train()
    chosen = {tuple(row) for row in choose_bits(model, logits, gold).tolist()}
    assert chosen == {(0, 0, 1), (1, 0, 0)}
    model.eval()
    assert torch.equal(choose_bits(model, logits, gold), gold)


def test_total_loss_weighs_the_cluster_loss(make_model):
    model, processor = make_model("t5", "bcl", cluster_loss_weight=0.5)
    with torch.no_grad():
        output = model(**_batch(processor, model))
        torch.testing.assert_close(output.loss, output.generation_loss + 0.5 * output.cluster_loss)
        model.cluster_loss_scale = 0.1
        annealed = model(**_batch(processor, model))
        torch.testing.assert_close(annealed.loss, output.generation_loss + 0.05 * output.cluster_loss)


@pytest.mark.parametrize("family", FAMILIES)
def test_embeddings_stay_tied_through_training_and_saving(make_model, tmp_path, family):
    model, processor = make_model(family, "mcg")
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(**_batch(processor, model)).loss.backward()
    optimizer.step()
    model.save_pretrained(tmp_path)
    again = XLGenForConditionalGeneration.from_pretrained(tmp_path)
    for one in (model, again):
        assert one.get_input_embeddings().weight is one.get_output_embeddings().weight
        assert one.get_decoder().get_input_embeddings().weight is one.get_input_embeddings().weight
    assert torch.equal(again.get_input_embeddings().weight, model.get_input_embeddings().weight)


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable` is deprecated")  # its successor is not in 5.20
@pytest.mark.parametrize("family", FAMILIES)
def test_gradient_checkpointing_gives_the_same_gradients(make_model, family):
    model, processor = make_model(family, "bcl", cluster_source="gold", dropout=0.0)
    model.train()
    batch = _batch(processor, model)
    model(**batch).loss.backward()
    plain = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    model.gradient_checkpointing_enable()
    model(**batch).loss.backward()
    for name, gradient in plain.items():
        torch.testing.assert_close(dict(model.named_parameters())[name].grad, gradient)


def test_warm_start_takes_the_layers_of_the_encoder(make_model, checkpoints):
    from transformers import BertModel

    model, _ = make_model("bert")
    encoder = BertModel.from_pretrained(checkpoints["bert"])
    layer, donor = model.backbone.decoder.bert.encoder.layer[0], encoder.encoder.layer[-1]
    assert torch.equal(layer.attention.self.query.weight, donor.attention.self.query.weight)
    assert torch.equal(layer.crossattention.self.key.weight, donor.attention.self.key.weight)
    assert torch.equal(
        model.backbone.encoder.encoder.layer[0].output.dense.weight, encoder.encoder.layer[0].output.dense.weight
    )
    assert model.is_fresh("backbone.decoder.bert.encoder.layer.0.attention.self.query.weight")
    assert not model.is_fresh("backbone.encoder.embeddings.word_embeddings.weight")


def test_float16_t5_warns(make_model, caplog):
    with caplog.at_level(logging.WARNING, logger="xlgen_hf"):
        make_model("t5", dtype=torch.float16)
    assert "bfloat16" in caplog.text


def test_generate_works_as_in_transformers(make_model):
    model, processor = make_model("t5", "bcl")
    model.eval()
    batch = processor(["art", "music history"], return_tensors="pt")
    new = {"max_new_tokens": 4, "do_sample": False}
    greedy = model.generate(**batch, **new, num_beams=1)
    with torch.no_grad():
        logits = model(**batch, decoder_input_ids=greedy[:, :-1]).logits
    for found, best in zip(greedy[:, 1:].tolist(), logits.argmax(-1).tolist(), strict=True):
        end = found.index(processor.eos_token_id) + 1 if processor.eos_token_id in found else len(found)
        assert found[:end] == best[:end]  # each token is the likeliest after those before it
    beams = model.generate(batch["input_ids"], **new, num_beams=2, num_return_sequences=2).tolist()
    assert len({tuple(row) for row in beams[:2]}) == len({tuple(row) for row in beams[2:]}) == 2


def test_unknown_target_tokens_are_refused(make_model):
    model, processor = make_model("bert")
    batch = _batch(processor, model)
    batch["labels"][0, 0] = processor.tokenizer.unk_token_id
    with pytest.raises(ValueError, match="occur in no label"):
        model(**batch)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "bcl", "cluster_treshold": 0.1}, "Unknown options"),
        ({"variant": "bcl", "cluster_threshold": 1.5}, "between 0 and 1"),
        ({"max_clusters": 0}, "max_clusters=0; it must be an integer >= 1"),
        ({"dtype": "bfloat16"}, r"dtype='bfloat16'; it must be a torch\.dtype, such as torch\.bfloat16"),
        ({"min_labels": 5, "max_labels": 3}, "min_labels=5"),
        ({"cluster_loss_weight": -1.0}, "cluster_loss_weight=-1.0; it must be a number >= 0"),
    ],
)
def test_bad_settings_are_refused(make_model, options, message):
    with pytest.raises(ConfigurationError, match=message):
        make_model("t5", **options)


def test_variant_without_clusters_is_refused(make_model, checkpoints):
    _, processor = make_model("t5")
    with pytest.raises(ConfigurationError, match="needs label clusters"):
        XLGenForConditionalGeneration.from_backbone(checkpoints["t5"], processor, variant="bcl")


def test_unknown_checkpoint_is_refused(make_model, tmp_path):
    _, processor = make_model("t5")
    with pytest.raises(CheckpointError, match="nowhere"):
        XLGenForConditionalGeneration.from_backbone(str(tmp_path / "nowhere"), processor)


def test_sets_that_are_truncated_are_counted(make_model, caplog):
    model, processor = make_model("t5")
    processor.max_target_length = 4
    with caplog.at_level(logging.WARNING, logger="xlgen_hf"):
        model.predict(["art", "music"], processor, decoding=DecodingOptions(min_labels=5))
    assert "2 of 2 label sets were truncated" in caplog.text


def test_predict_takes_no_single_string(make_model):
    model, processor = make_model("t5")
    with pytest.raises(TypeError, match="list of texts"):
        model.predict("art", processor)


@pytest.mark.parametrize("family", ["t5", "bert"])
def test_one_greedy_search_gives_the_sets_of_all_lower_bounds(make_model, family):
    model, processor = make_model(family)
    with torch.no_grad():  # make the end token likely, so that bounds matter
        model.get_output_embeddings().weight[processor.eos_token_id] *= 20

    def decoded(min_labels):
        generator = Generator(model, processor, DecodingOptions(min_labels=min_labels, max_labels=6))
        return generator.decode(generator.encode(processor.encode_texts(TEXTS)))

    highest = decoded(4)
    for bound in (1, 2, 3):
        direct = decoded(bound)
        assert [one.with_bounds(bound).labels for one in highest] == [one.labels for one in direct]


def test_a_processor_longer_than_the_positions_is_refused(make_model, checkpoints):
    _, processor = make_model("bert")
    processor.max_source_length = 500
    with pytest.raises(ConfigurationError, match="has positions for 128"):
        XLGenForConditionalGeneration.from_backbone(checkpoints["bert"], processor)
