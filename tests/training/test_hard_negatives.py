"""Hard negatives: which names are near to a text, and which of them a step draws."""

from __future__ import annotations

import numpy as np

from xlgen_hf.encoders.loaded import load_encoder
from xlgen_hf.training.hard_negatives import draw_negatives, near_names
from xlgen_hf.training.retriever import ContrastiveSettings, train_encoder


def _unit(rows, seed):
    vectors = np.random.default_rng(seed).normal(size=(rows, 8)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_the_nearest_names_that_are_no_labels_are_found():
    texts, names = _unit(300, 0), _unit(40, 1)
    label_ids = [sorted({row % 40, (7 * row) % 40}) for row in range(300)]
    found = near_names(texts, names, label_ids, number=5)
    for row, labels in enumerate(label_ids):
        order = [int(name) for name in np.argsort(-(names @ texts[row])) if name not in labels]
        assert found[row].tolist() == order[:5]


def test_texts_with_fewer_other_names_have_gaps():
    found = near_names(_unit(2, 0), _unit(4, 1), [[0, 1, 3], [0, 1, 2, 3]], number=3)
    assert found.tolist() == [[2, -1, -1], [-1, -1, -1]]
    assert draw_negatives(found, 2, np.random.default_rng(0)).tolist() == [2]


def test_of_many_names_some_are_compared():
    texts, names = _unit(300, 0), _unit(400, 1)
    labels = [[row] for row in range(300)]
    found = near_names(texts, names, labels, number=3, compared=10, seed=4)
    assert np.array_equal(found, near_names(texts, names, labels, number=3, compared=10, seed=4))
    blocks = [set(found[:256].ravel().tolist()), set(found[256:].ravel().tolist())]
    assert all(len(block) <= 10 for block in blocks)  # each block of texts has drawn its own
    assert blocks[0] != blocks[1]
    assert all(row not in found[row] for row in range(300))


def test_as_many_are_drawn_as_there_are_and_are_wanted():
    near = np.array([[4, 5, 6, -1], [7, -1, -1, -1]], dtype=np.int32)
    for seed in range(20):
        drawn = draw_negatives(near, 2, np.random.default_rng(seed)).tolist()
        assert len(drawn) == 3 and len(set(drawn) & {4, 5, 6}) == 2 and 7 in drawn
    assert draw_negatives(near[:, :0], 2, np.random.default_rng(0)).tolist() == []


def test_they_change_what_an_encoder_learns_and_a_seed_repeats_it(checkpoints, rows, label_space, tmp_path):
    texts, ids = rows["text"][:], [label_space.encode(labels) for labels in rows["labels"]]

    def weights(number, folder):
        encoder = load_encoder(checkpoints["bert"])
        wanted = ContrastiveSettings(epochs=2, batch_size=2, learning_rate=1e-3, hard_negatives=number)
        train_encoder(encoder, label_space, texts, ids, tmp_path / folder, settings=wanted, seed=3)
        return np.concatenate([one.detach().numpy().ravel() for one in encoder[0].parameters()])

    once, again, without = weights(1, "a"), weights(1, "b"), weights(0, "c")
    assert np.array_equal(once, again)
    assert not np.array_equal(once, without)
