"""How clusters guide a model after its training: a decoder that knows its task, and as many clusters as help."""

from __future__ import annotations

import pytest
import torch
from sources import Made, make_rcl, sharpened
from tiny import ROWS

from xlgen_hf.errors import ConfigurationError
from xlgen_hf.prediction.generator import Generator
from xlgen_hf.training.collator import DataCollatorForXLGen, encode_dataset
from xlgen_hf.training.tuning import tune_model

TEXTS = [row["text"] for row in ROWS]


def _clusters(made):
    """The number of clusters that each text's labels are guided by."""
    generator = Generator(*made)
    return [len(one.clusters) for one in generator.decoded(TEXTS)]


@pytest.mark.parametrize("family", ["t5", "bert"])
def test_targets_of_clusters_begin_with_a_token_of_their_own(make_model, family):
    model, processor = make_model(family, "mcg", dropout=0.0)
    own = processor.label_tokenizer.task_token_id("clusters")
    assert model.config.cluster_start_token_id == own != model.config.start_token
    batch = DataCollatorForXLGen(processor, "mcg")(list(encode_dataset(ROWS, processor, training=True)))
    with torch.no_grad():
        with_own = model(**batch)
        model.config.cluster_start_token_id = None
        with_other = model(**batch)
    assert not torch.equal(with_own.cluster_loss, with_other.cluster_loss)
    torch.testing.assert_close(with_own.generation_loss, with_other.generation_loss)


def test_clusters_are_searched_for_as_they_are_trained(make_model):
    made = sharpened(Made(*make_model("bert", "mcg")))
    generator, texts = Generator(*made), made.processor.encode_texts(TEXTS)
    seen = []
    step = made.model.decode_step
    made.model.decode_step = lambda memory, tokens, cache: (
        seen.append(tokens[0, 0].item()),
        step(memory, tokens, cache),
    )[1]
    generator.decode(generator.encode(texts))
    assert set(seen) == {made.model.config.cluster_start_token_id, made.model.config.start_token}


@pytest.mark.parametrize(("least", "most"), [(1, 8), (2, 8), (3, 3), (3, 2)])
def test_a_text_has_so_many_clusters(make_model, least, most):
    made = sharpened(Made(*make_model("bert", "mcg", min_clusters=least, max_clusters=most)))
    known = made.processor.clusters.num_clusters
    assert all(min(least, most, known) <= found <= most for found in _clusters(made))


def test_a_number_of_clusters_below_0_is_refused(make_model):
    with pytest.raises(ConfigurationError, match="min_clusters=-1; it must be an integer >= 0"):
        make_model("bert", "mcg", min_clusters=-1)


@pytest.mark.parametrize(
    ("variant", "name", "values"),
    [("mcg", "min_clusters", (1, 2, 3)), ("bcl", "cluster_threshold", (0.3, 0.25, 0.5, 0.75))],
)
@pytest.mark.parametrize("wanted", range(3))
def test_validation_rows_choose_how_clusters_guide(make_model, variant, name, values, wanted):
    options = {"cluster_threshold": 0.3} if variant == "bcl" else {}
    made = sharpened(Made(*make_model("bert", variant, **options)))
    tried = []

    def score(sets):
        tried.append(getattr(made.model.config, name))
        return 0.9 if tried[-1] == values[wanted] else 0.1

    references = [[0] for _ in TEXTS]
    tune_model(made.model, made.processor, [made.processor.encode_texts(TEXTS)], references, score, num_beams=1)
    assert tuple(dict.fromkeys(tried))[: len(values)] == values
    assert getattr(made.model.config, name) == values[wanted]


@pytest.mark.parametrize("helps", [True, False])
def test_validation_rows_choose_whether_the_head_weighs_what_is_copied(checkpoints, label_space, helps):
    made = sharpened(make_rcl(checkpoints["bert"], label_space, "tokens", 4))
    references = [[0] for _ in TEXTS]
    score = lambda sets: 0.9 if made.model.config.candidate_gate is helps else 0.1  # noqa: E731
    batches = [made.processor.encode_texts(TEXTS)]
    tune_model(made.model, made.processor, batches, references, score, num_beams=1, predict_with="generator")
    assert made.model.config.candidate_gate is helps


def test_without_clusters_nothing_is_chosen_about_them(make_model):
    made = sharpened(Made(*make_model("bert", "base")))
    before = (made.model.config.min_clusters, made.model.config.cluster_threshold)
    batches = [made.processor.encode_texts(TEXTS)]
    tune_model(made.model, made.processor, batches, [[0] for _ in TEXTS], lambda sets: 0.5, num_beams=1)
    assert (made.model.config.min_clusters, made.model.config.cluster_threshold) == before
