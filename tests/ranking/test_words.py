"""Words of texts in any script, and what their pieces add up to."""

from __future__ import annotations

from unicodedata import normalize

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlgen_hf.ranking.words import folded, strongest_words, weights_of_words, words_of


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Cheese-making, in the Alps!", ["Cheese", "making", "in", "the", "Alps"]),
        ("Ääniä (käännös) 1990-luvulla", ["Ääniä", "käännös", "1990", "luvulla"]),
        ("e\u0301cole", ["e\u0301cole"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("日本の音楽 2020", ["日", "本", "の", "音", "楽", "2020"]),
        ("", []),
        (" \n ", []),
    ],
)
def test_words_of_scripts(text, words):
    assert [text[begin:end] for begin, end in words_of(text)] == words


@pytest.mark.parametrize("letter", ["\u1e96", "\u01f0", "\u1e97", "\u00e4", "\u1fb3", "\uac01"])
def test_neither_case_nor_unicode_form_matters(letter):
    """The fault: some capitals have no composed form, as that of \u1e96, and stayed apart from their small letters."""
    forms = [normalize(form, one) for form in ("NFC", "NFD") for one in (letter, letter.title())]
    assert {folded(one) for one in forms} == {letter}


@given(st.text(max_size=12))
def test_folded_texts_are_folded(text):
    assert folded(folded(text)) == folded(normalize("NFD", text)) == folded(normalize("NFC", text)) == folded(text)


@given(st.data())
def test_pieces_count_for_the_words_that_they_lie_in(data):
    size = data.draw(st.integers(1, 30))
    place = st.tuples(st.integers(0, size - 1), st.integers(1, 5)).map(lambda one: (one[0], sum(one)))
    spans = np.array(data.draw(st.lists(place, min_size=1, max_size=9)))
    values = np.random.default_rng(0).normal(size=(2, len(spans)))
    words = words_of("a bcd, ef  ghijklm n o pqrs tuv")
    expected = [
        [
            sum(
                value * max(0, min(end, last) - max(begin, first)) / (end - begin)
                for value, (begin, end) in zip(row, spans, strict=True)
            )
            for first, last in words
        ]
        for row in values
    ]
    np.testing.assert_allclose(weights_of_words(spans, values, words), expected, atol=1e-12)


def test_strong_words_that_follow_each_other_are_one_span():
    text = "palm  oil, or oil of palms"
    words = words_of(text)
    found = strongest_words(np.array([4.0, 2.1, 0.0, 1.9, -1.0, 2.0]), words, text, 0.5)
    assert [text[begin:end] for begin, end in found] == ["palm  oil", "palms"]
    assert strongest_words(np.array([-1.0, 0, 0, 0, 0, 0]), words, text, 0.5) == []
    assert strongest_words(np.zeros(0), words[:0], "", 0.5) == []
