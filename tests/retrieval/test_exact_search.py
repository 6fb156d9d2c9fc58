"""Exact search in blocks: the same as a plain sort of all similarities, whatever the blocks, and ties by place."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from xlgen_hf.retrieval import search
from xlgen_hf.retrieval.search import BestColumns, Names, nearest, nearest_above_0


def sorted_columns(values, size):
    """The plain way: all values sorted, of equal ones the first."""
    columns = np.argsort(-values, axis=1, kind="stable")[:, :size]
    return columns, np.take_along_axis(values, columns, axis=1)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(1, 60), st.integers(0, 7), st.integers(1, 9))
def test_the_best_columns_are_those_of_a_sort_whatever_the_blocks(seed, rows, width, size, step):
    """With many equal values, and ones that never count."""
    random = np.random.default_rng(seed)
    values = random.integers(-2, 3, size=(rows, width)).astype(np.float32)
    values[random.random(values.shape) < 0.2] = -np.inf
    best = BestColumns(rows, size)
    for first in range(0, width, step):
        block = values[:, first : first + step]
        best.add(block, np.arange(first, first + block.shape[1]))
    columns, found = best.found()
    expected, greatest = sorted_columns(values, size)
    there = greatest > -np.inf
    np.testing.assert_array_equal(columns[:, : there.shape[1]][there], expected[there])
    np.testing.assert_array_equal(found[:, : there.shape[1]][there], greatest[there])
    assert (found[:, : there.shape[1]][~there] == -np.inf).all() and (found[:, there.shape[1] :] == -np.inf).all()


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of a few vectors, so that few vectors are many blocks."""
    monkeypatch.setattr(search, "VECTORS_AT_ONCE", 16)
    monkeypatch.setattr(search, "PRODUCTS_AT_ONCE", 32 * 10)


@pytest.mark.parametrize("order", ["random", "worst first", "all equal"])
def test_the_nearest_vectors_are_those_of_a_sort(small_blocks, order):
    random = np.random.default_rng(0)
    vectors = random.normal(size=(500, 8)).astype(np.float16)
    queries = random.normal(size=(10, 8)).astype(np.float32)
    if order == "worst first":  # what is nearest comes last: nothing can be left out early
        vectors = vectors[np.argsort(vectors.astype(np.float32) @ queries[0])]
    if order == "all equal":
        vectors[:] = vectors[0]
    hidden = csr_matrix(random.random((10, 500)) < 0.05)
    plain = queries @ vectors.astype(np.float32).T
    plain[hidden.nonzero()] = -np.inf
    columns, values = nearest(queries, vectors, 20, hidden)
    expected, greatest = sorted_columns(plain, 20)
    np.testing.assert_allclose(values, greatest, atol=1e-5)
    if order == "all equal":
        expected = sorted_columns(np.where(plain > -np.inf, np.float32(0), -np.inf), 20)[0]
    np.testing.assert_array_equal(columns, expected)


def test_further_names_count_whatever_the_blocks(small_blocks):
    """Most labels have none, one has 70; a block of labels takes those of its labels a few at a time."""
    random = np.random.default_rng(0)
    further = np.sort(np.concatenate([np.full(70, 5), random.integers(0, 50, 60)]))
    vectors = random.normal(size=(50 + len(further), 8)).astype(np.float16)
    queries = random.normal(size=(3, 8)).astype(np.float32)
    plain = queries @ vectors.astype(np.float32).T
    best = plain[:, :50].copy()
    for column, label in enumerate(further.tolist()):
        best[:, label] = np.maximum(best[:, label], plain[:, 50 + column])
    found = np.concatenate([block.copy() for _, block in Names(vectors, further).blocks(queries)], axis=1)
    np.testing.assert_allclose(found, best.clip(0, 1), atol=1e-5)


@pytest.mark.parametrize("kind", [np.float16, np.float32])
def test_products_are_the_same_with_and_without_torch(monkeypatch, kind):
    """Every finite number of 16 bits is the same in 32, those below the least exponent too."""
    bits = np.arange(2**16, dtype=np.uint16).view(np.float16)
    vectors = bits[np.isfinite(bits)].reshape(-1, 16).astype(kind)
    queries = np.eye(16, dtype=np.float32)
    found = []
    for loaded in (torch, None):
        monkeypatch.setitem(sys.modules, "torch", loaded)
        blocks = [(first, products.copy()) for first, products in search.similarity_blocks(queries, vectors)]
        found.append(np.concatenate([products for _, products in blocks], axis=1))
    np.testing.assert_array_equal(found[0], vectors.T.astype(np.float32))
    np.testing.assert_array_equal(found[1], found[0])


def test_sparse_similarities_count_above_0():
    rows = np.array([[0.5, 0, 0.9, 0.5, 0.1], [0, 0, 0, 0, 0.2]], dtype=np.float32)
    hidden = csr_matrix(np.array([[0, 0, 1, 0, 0], [0, 0, 0, 0, 0]], dtype=bool))
    columns, values = nearest_above_0(iter(rows.copy()), 2, 2, hidden)
    assert columns.tolist() == [[0, 3], [4, 0]]
    assert values.tolist() == [[0.5, 0.5], [np.float32(0.2), -np.inf]]


def test_the_best_name_of_a_label_counts_in_every_block(small_blocks):
    random = np.random.default_rng(1)
    further = np.sort(random.integers(0, 100, 60)).astype(np.int32)
    vectors = random.normal(size=(160, 8)).astype(np.float16)
    queries = random.normal(size=(10, 8)).astype(np.float32)
    names = Names(vectors, further)
    found = np.concatenate([block.copy() for _, block in names.blocks(queries)], axis=1)
    whole = queries @ vectors.astype(np.float32).T
    expected = names.of_labels(whole.copy()).clip(0, 1)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    best = [max(whole[0, label], *whole[0, 100:][further == label], -1) for label in range(100)]
    np.testing.assert_allclose(expected[0], np.clip(best, 0, 1), atol=1e-6)
    entry, rows = names.rows(np.arange(100))
    pairs = names.pairs(queries, np.zeros(len(rows), int), rows)
    np.testing.assert_allclose([pairs[entry == label].max() for label in range(100)], expected[0], atol=1e-5)
