"""Clusters by the tree of broader concepts: whole branches, bounded in size and number, whatever the tree is like."""

from __future__ import annotations

import logging
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xlgen_hf.errors import ConfigurationError
from xlgen_hf.labels.concepts import Concept
from xlgen_hf.labels.hierarchy import branch_clusters
from xlgen_hf.labels.space import LabelSpace
from xlgen_hf.labels.vocabulary import Vocabulary


def cluster(broader, number, further=()):
    """Clusters of the concepts `0 ... n - 1` with these broader ones, the rest in the order of the ids."""
    vocabulary = Vocabulary(Concept(f"c{one}", {"": f"n{one}"}, broader=above) for one, above in enumerate(broader))
    space = LabelSpace.from_label_lists([[f"n{one}" for one in range(len(broader))]], further)
    found = branch_clusters(
        vocabulary, space, number, lambda labels, count: np.arange(len(labels)) * count // len(labels)
    )
    return found[[space.index[f"n{one}"] for one in range(len(broader))]], found


def above(*numbers):
    return tuple(f"c{one}" for one in numbers)


def test_branches_are_clusters():
    # 0 over 1 (over 3, 4) and 2 (over 5, 6); 7 over 8, 9
    tree = [(), above(0), above(0), above(1), above(1), above(2), above(2), (), above(7), above(7)]
    of_concept, _ = cluster(tree, 4)
    groups = {tuple(np.flatnonzero(of_concept == one).tolist()) for one in set(of_concept.tolist())}
    assert {(1, 3, 4), (2, 5, 6), (7, 8, 9)} <= groups


def test_siblings_stay_together_where_one_is_too_small_for_a_cluster():
    flat = [(), *[above(0)] * 30]
    of_concept, _ = cluster(flat, 5)
    assert 4 <= len(set(of_concept.tolist())) <= 5 and np.bincount(of_concept).max() <= 10


def test_loops_several_parents_and_unknown_ones():
    looped = [above(1), above(2), above(0), above(3), above(4, 0), above(99), above(5, 1)]
    of_concept, _ = cluster(looped, 2)
    assert len(set(of_concept.tolist())) <= 2
    assert of_concept[5] == of_concept[6]


def test_a_deep_chain_and_a_wide_tree_take_no_time():
    number = 20_000
    started = time.monotonic()
    chain, _ = cluster([(), *(above(one) for one in range(number - 1))], 141)
    wide, _ = cluster([(), *[above(0)] * (number - 1)], 141)
    assert time.monotonic() - started < 20
    for found in (chain, wide):
        assert 100 < len(set(found.tolist())) <= 141 and np.bincount(found).max() < 300
    assert (np.abs(np.diff(chain)) > 0).sum() < 141  # stretches of the chain


def test_what_has_no_tree_gets_its_fraction_of_the_clusters(caplog):
    tree = [(), *[above(0)] * 19, *[()] * 20]
    with caplog.at_level(logging.INFO, "xlgen_hf.labels.hierarchy"):
        of_concept, found = cluster(tree, 8, further=[f"further {one}" for one in range(40)])
    # Two clusters of 9 are cut off below the top, which is left with one concept below it.
    assert "Labels that are clustered by their broader concepts: 18 of 80" in caplog.text
    assert len(found) == 80 and len(set(found.tolist())) <= 8
    sizes = np.bincount(found)
    assert sorted(sizes[of_concept[1:20]].tolist())[:18] == [9] * 18


def test_without_a_hierarchy_there_is_nothing_to_cluster_by():
    with pytest.raises(ConfigurationError, match="No concept of the vocabulary has a broader one"):
        cluster([(), ()], 1)


@settings(max_examples=150, deadline=None)
@given(st.data(), st.integers(2, 30))
def test_any_tree_gives_at_most_the_wanted_clusters(data, size):
    places = st.lists(st.integers(0, size - 1), max_size=2, unique=True)
    broader = [above(*data.draw(places)) for _ in range(size)]
    if not any(set(one) - {f"c{place}"} for place, one in enumerate(broader)):
        return
    number = data.draw(st.integers(1, size))
    _, found = cluster(broader, number, ["without a concept"])
    used = set(found.tolist())
    assert used == set(range(len(used))) and len(used) <= number
    assert np.array_equal(found, cluster(broader, number, ["without a concept"])[1])
