"""The constraint against brute force, and what it lets through in a search."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xlgen_hf.decoding.logits_process import LabelNamesLogitsProcessor, LabelSetLogitsProcessor, split_labels
from xlgen_hf.labels.trie import LabelTrie

START, END, SEPARATOR, VOCABULARY = 0, 1, 2, 7
LABELS = st.lists(
    st.lists(st.integers(3, 6), min_size=1, max_size=3).map(lambda tokens: (*tokens, SEPARATOR)),
    min_size=1,
    max_size=8,
    unique=True,
)


def _allowed(labels, prefix, low, high):
    """Tokens that may follow `prefix`, by the definition: some set of low to high labels goes on that way."""
    high, low = min(high, len(labels)), min(low, len(labels))
    if END in prefix:
        return {END}
    used, rest = [], tuple(prefix)
    while SEPARATOR in rest:
        cut = rest.index(SEPARATOR) + 1
        used.append(rest[:cut])
        rest = rest[cut:]
    allowed = set()
    if len(used) < high:
        free = [label for label in labels if label not in used]
        allowed = {label[len(rest)] for label in free if label[: len(rest)] == rest}
    if not rest and len(used) >= low:
        allowed.add(END)
    return allowed


@settings(deadline=None, max_examples=150)
@given(LABELS, st.integers(0, 3), st.integers(1, 4), st.integers(1, 3), st.integers(0, 2**16))
def test_allows_exactly_what_leads_to_a_set(labels, low, high, beams, seed):
    """Rows grow at random, beams change places as in a beam search, and the mask always is the brute-force one."""
    low = min(low, high)
    random = np.random.default_rng(seed)
    constraint = LabelSetLogitsProcessor(LabelTrie(labels), END, min_labels=low, max_labels=high, num_beams=beams)
    rows = [[START] for _ in range(2 * beams)]
    for _ in range(16):
        masked = constraint(torch.tensor(rows), torch.zeros(len(rows), VOCABULARY))
        allowed = [set(torch.isfinite(row).nonzero().flatten().tolist()) for row in masked]
        assert allowed == [_allowed(labels, row[1:], low, high) for row in rows]
        grown = []
        for text in range(2):
            for _ in range(beams):
                parent = text * beams + int(random.integers(beams))
                grown.append([*rows[parent], int(random.choice(sorted(allowed[parent])))])
        rows = grown


@settings(deadline=None, max_examples=150)
@given(LABELS, st.integers(0, 8), st.integers(0, 3), st.integers(0, 2**16))
def test_with_ranks_allows_exactly_what_leads_to_a_set(labels, low, further, seed):
    """By the definition: all sets of the right sizes, in the one order; the minimum is within reach to the end."""
    random = np.random.default_rng(seed)
    ranks, low = random.permutation(len(labels)), min(low, len(labels))
    high = max(low + further, 1)
    in_order = [labels[label] for label in np.argsort(ranks)]
    sets = [some for size in range(low, high + 1) for some in itertools.combinations(in_order, size)]
    sequences = [[START, *itertools.chain(*some), END] for some in sets]
    constraint = LabelSetLogitsProcessor(LabelTrie(labels), END, min_labels=low, max_labels=high, ranks=ranks)
    rows = [[START] for _ in range(4)]
    for _ in range(max(map(len, sequences)) - 1):
        masked = constraint(torch.tensor(rows), torch.zeros(len(rows), VOCABULARY))
        allowed = [set(torch.isfinite(row).nonzero().flatten().tolist()) for row in masked]
        for row, found in zip(rows, allowed, strict=True):
            expected = {one[len(row)] for one in sequences if one[: len(row)] == row and len(one) > len(row)}
            assert found == ({END} if END in row[1:] else expected)
        rows = [[*row, int(random.choice(sorted(found)))] for row, found in zip(rows, allowed, strict=True)]


@settings(deadline=None)
@given(LABELS, st.integers(1, 4), st.integers(0, 2**16))
def test_greedy_search_always_ends_in_a_set(labels, high, seed):
    generator = torch.Generator().manual_seed(seed)
    constraint = LabelSetLogitsProcessor(LabelTrie(labels), END, min_labels=1, max_labels=high)
    tokens = torch.tensor([[START], [START]])
    for _ in range(4 * high + 1):
        scores = constraint(tokens, torch.randn(2, VOCABULARY, generator=generator))
        tokens = torch.cat([tokens, scores.argmax(1, keepdim=True)], dim=1)
    assert (tokens[:, -1] == END).all()
    sequences, trie = tokens[:, 1:].numpy(), LabelTrie(labels)
    for sequence, spans in zip(sequences, split_labels(sequences, SEPARATOR), strict=True):
        found = [trie.label_of(sequence[first : last + 1].tolist()) for first, last in spans]
        assert None not in found
        assert 1 <= len(found) <= high
        assert len(set(found)) == len(found)


def test_used_up_branch_is_closed():
    """Two labels below token 3: once both are used, 3 is no way to go."""
    labels = [(3, 4, SEPARATOR), (3, 5, SEPARATOR), (6, SEPARATOR)]
    constraint = LabelSetLogitsProcessor(LabelTrie(labels), END, min_labels=3, max_labels=3)
    row = [START]
    for token in (3, 4, SEPARATOR, 3):
        constraint(torch.tensor([row]), torch.zeros(1, VOCABULARY))
        row.append(token)
    masked = constraint(torch.tensor([row]), torch.zeros(1, VOCABULARY))
    assert torch.isfinite(masked[0]).nonzero().flatten().tolist() == [5]
    for token in (5, SEPARATOR):
        row.append(token)
        masked = constraint(torch.tensor([row]), torch.zeros(1, VOCABULARY))
    assert torch.isfinite(masked[0]).nonzero().flatten().tolist() == [6]


def test_padding_after_the_end_is_no_label():
    """Rows that ended before others are padded by `generate`, here with a token that labels are spelled with."""
    labels = [(3, SEPARATOR), (3, 4, SEPARATOR), (6, SEPARATOR)]
    constraint = LabelSetLogitsProcessor(LabelTrie(labels), END, min_labels=1, max_labels=2)
    rows = [[START], [START]]
    for tokens in [(6, 3), (SEPARATOR, 4), (END, SEPARATOR), (3, 6), (SEPARATOR, SEPARATOR), (3, END), (SEPARATOR, 3)]:
        masked = constraint(torch.tensor(rows), torch.zeros(2, VOCABULARY))
        allowed = [set(torch.isfinite(row).nonzero().flatten().tolist()) for row in masked]
        assert allowed == [_allowed(labels, row[1:], 1, 2) for row in rows]
        rows = [[*row, token] for row, token in zip(rows, tokens, strict=True)]


def test_scores_of_allowed_tokens_are_untouched():
    constraint = LabelSetLogitsProcessor(LabelTrie([(3, SEPARATOR), (4, SEPARATOR)]), END)
    scores = torch.randn(1, VOCABULARY)
    before = scores.clone()
    masked = constraint(torch.tensor([[START]]), scores)
    assert torch.equal(scores, before)
    assert torch.equal(masked[0, 3:5], before[0, 3:5])


def test_ranks_leave_each_set_one_sequence():
    """Labels may only rise in rank: 4, the label of rank 0, is no way to go behind another one."""
    labels = [(4, SEPARATOR), (3, 4, SEPARATOR), (3, 5, SEPARATOR)]
    constraint = LabelSetLogitsProcessor(LabelTrie(labels), END, min_labels=1, ranks=np.array([0, 1, 2]))
    allowed = []
    row = [START]
    for token in (3, 5, SEPARATOR, END):
        masked = constraint(torch.tensor([row]), torch.zeros(1, VOCABULARY))
        allowed.append(torch.isfinite(masked[0]).nonzero().flatten().tolist())
        row.append(token)
    assert allowed == [[3, 4], [4, 5], [SEPARATOR], [END]]  # behind the last rank a set ends


def test_open_names_are_not_empty_and_end_between_labels():
    constraint = LabelNamesLogitsProcessor(SEPARATOR, END, torch.tensor([3, 4]), min_labels=1)
    allowed = []
    for row in ([START], [START, 4], [START, 4, SEPARATOR], [START, 4, SEPARATOR, END]):
        masked = constraint(torch.tensor([row]), torch.zeros(1, VOCABULARY))
        allowed.append(torch.isfinite(masked[0]).nonzero().flatten().tolist())
    assert allowed == [[3, 4], [SEPARATOR, 3, 4], [END, 3, 4], [END]]


def test_unfinished_labels_are_no_labels():
    assert split_labels(np.array([[3, 2, 4, 5, 2, 1], [5, 2, 3, 2, 4, 5]]), SEPARATOR) == [
        [(0, 1), (2, 4)],
        [(0, 1), (2, 3)],
    ]
