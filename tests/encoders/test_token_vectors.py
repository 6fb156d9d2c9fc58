"""Hidden states of tokens that are kept while texts are embedded, and where the tokens stand."""

from __future__ import annotations

import numpy as np
import pytest
from tokenizers.processors import TemplateProcessing

from xlgen_hf.encoders.embedding import embed_texts
from xlgen_hf.encoders.loaded import load_encoder
from xlgen_hf.encoders.recipe import EmbeddingRecipe
from xlgen_hf.encoders.token_vectors import TokenVectors

TEXTS = ["organ music", "", "a history of church music and the art of the organ", "printing"]


@pytest.mark.parametrize("prompt", ["", "music: "])
def test_tokens_stand_where_they_stand(checkpoints, prompt):
    encoder, kept = load_encoder(checkpoints["bert"]), TokenVectors()
    recipe = EmbeddingRecipe(query_prompt=prompt)
    found = embed_texts(TEXTS, encoder, recipe=recipe, side="query", batch_size=2, token_vectors=kept)
    for number, text in enumerate(TEXTS):
        products, spans = kept.products(number, found)
        assert [text[begin:end] for begin, end in spans] == text.split()
        assert products.shape == (len(found), len(spans))
    again = embed_texts(TEXTS, encoder, recipe=recipe, side="query", batch_size=2)
    assert np.array_equal(found, again)


def test_products_of_tokens_add_up_to_those_of_means(checkpoints):
    """Without special tokens, for which no word stands."""
    encoder, kept = load_encoder(checkpoints["bert"]), TokenVectors()
    encoder[1].backend_tokenizer.post_processor = TemplateProcessing(single="$A", special_tokens=[])
    found = embed_texts(TEXTS[2:3], encoder, normalize=False, token_vectors=kept)
    products, spans = kept.products(0, found)
    assert len(spans) == len(TEXTS[2].split())
    np.testing.assert_allclose(products.mean(), found[0] @ found[0], rtol=1e-5)


def test_a_long_text_has_the_tokens_that_are_read(checkpoints):
    kept = TokenVectors()
    found = embed_texts(TEXTS, load_encoder(checkpoints["bert"]), max_length=6, token_vectors=kept)
    products, spans = kept.products(2, found)
    assert [TEXTS[2][begin:end] for begin, end in spans] == TEXTS[2].split()[:4]
    assert np.isfinite(products).all()


def test_without_states_there_are_no_tokens():
    products, spans = TokenVectors().products(0, np.zeros((3, 16)))
    assert products.shape == (3, 0) and spans.shape == (0, 2)
