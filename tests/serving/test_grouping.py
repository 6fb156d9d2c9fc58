"""Which of the texts that wait run together."""

from __future__ import annotations

from itertools import pairwise, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xlgen_hf.serving.grouping import BatchCost, Sized, best_group

SIZES = st.lists(st.builds(Sized, st.integers(1, 9), st.integers(1, 5000)), min_size=1, max_size=8)


def texts(*lengths: int) -> list[Sized]:
    return [Sized(1, length) for length in lengths]


def test_like_lengths_run_together():
    waiting = texts(30, 40, 50, 900, 1000)
    assert best_group(waiting, first=1, most=64, overhead=100) == range(3)
    assert best_group(waiting, first=3, most=64, overhead=150) == range(3, 5)


def test_where_a_batch_costs_most_by_itself_unlike_lengths_do_too():
    assert best_group(texts(30, 40, 50, 900, 1000), first=0, most=64, overhead=100_000) == range(5)


def test_a_batch_has_room_for_so_many_rows():
    assert len(best_group(texts(*[50] * 16), first=10, most=8, overhead=1000)) == 8
    waiting = [Sized(1, 50), Sized(9, 50), Sized(1, 50)]
    assert best_group(waiting, first=1, most=8, overhead=1000) == range(1, 2)  # a request is not divided


def divisions(waiting: list[Sized]):
    """All ways to divide what waits into groups without gaps."""
    for cuts in product((False, True), repeat=len(waiting) - 1):
        ends = [at + 1 for at, cut in enumerate(cuts) if cut] + [len(waiting)]
        yield [range(begin, end) for begin, end in pairwise([0, *ends])]


@settings(deadline=None, max_examples=50)
@given(SIZES, st.integers(1, 20), st.floats(100, 100_000))
def test_the_groups_together_take_the_least_time(waiting, most, overhead):
    waiting = sorted(waiting, key=lambda one: one.length)

    def rows(group: range) -> int:
        return sum(waiting[at].rows for at in group)

    def cost(groups: list[range]) -> float:
        return sum(overhead + rows(group) * waiting[group[-1]].length for group in groups)

    allowed = [all(len(group) == 1 or rows(group) <= most for group in groups) for groups in divisions(waiting)]
    least = min(cost(groups) for groups, is_allowed in zip(divisions(waiting), allowed, strict=True) if is_allowed)
    found = list(dict.fromkeys(best_group(waiting, first, most, overhead) for first in range(len(waiting))))
    assert [at for group in found for at in group] == list(range(len(waiting)))
    assert cost(found) == pytest.approx(least)


def learn(cost: BatchCost, fixed: float, batches: int = 200) -> None:
    for number in range(batches):
        rows, length = number % 5 + 1, 100 * (number % 7 + 1)
        cost.learn(rows, length, fixed + 0.01 * rows + 0.001 * rows * length)


def test_costs_are_learned_and_learned_again():
    cost = BatchCost()
    learn(cost, 0.5)
    assert cost.overhead == pytest.approx(250)
    learn(cost, 2.0)
    assert cost.overhead == pytest.approx(1000)
    learn(cost, 1000.0)
    assert cost.overhead == 100_000


def test_a_guess_stays_where_nothing_can_be_learned():
    cost = BatchCost()
    for seconds in (0.1, 0.3) * 20:
        cost.learn(2, 100, seconds)  # one size alone says nothing about sizes
    assert cost.overhead == 1000
