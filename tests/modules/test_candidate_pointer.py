"""Copying from candidates: what can be copied when, against a plain reading of the rule, and the mixture."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xlgen_hf.modules.candidate_pointer import NOTHING, CandidatePointer, next_tokens, spelled_candidates

SEPARATOR, END, START = 9, 2, 1
LEVELS = range(20, 28)

names = st.lists(st.integers(3, 5), min_size=1, max_size=3)


def _padded(candidates):
    longest = max(map(len, candidates)) + 1
    return torch.tensor([[[*name, SEPARATOR, *[NOTHING] * (longest - 1 - len(name))] for name in candidates]])


def _expected(tokens, candidates):
    """The rule, label by label."""
    spelled, begun = [], []
    for token in tokens[1:]:
        if token == SEPARATOR:
            spelled.append(begun)
            begun = []
        else:
            begun = [*begun, token]
    found = []
    for name in candidates:
        goes_on = [*name, SEPARATOR][: len(begun)] == begun and len(begun) <= len(name) and name not in spelled
        found.append([*name, SEPARATOR][len(begun)] if goes_on else NOTHING)
    return found


@settings(max_examples=200, deadline=None)
@given(st.lists(names, min_size=1, max_size=5, unique_by=tuple), st.lists(names, max_size=4), names)
def test_candidates_go_on_where_they_begin_like_the_label_that_is_spelled(candidates, labels, begun):
    tokens = [START, *(token for label in labels for token in (*label, SEPARATOR)), *begun]
    found = next_tokens(torch.tensor([tokens]), _padded(candidates), SEPARATOR)[0]
    assert found.shape == (len(tokens), len(candidates))
    for length in range(1, len(tokens) + 1):
        assert found[length - 1].tolist() == _expected(tokens[:length], candidates)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(10, 15), st.lists(names, max_size=4)), min_size=1, max_size=4))
def test_candidates_are_read_from_the_input(rows):
    inputs = [[0, text, *(t for i, name in enumerate(found) for t in (LEVELS[i], *name)), END] for text, found in rows]
    longest = max(map(len, inputs))
    ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in inputs])
    mask = torch.tensor([[1] * (len(row) - 1) + [0] * (longest - len(row) + 1) for row in inputs])  # no END
    places, names = spelled_candidates(ids, mask, LEVELS, SEPARATOR)
    for row, (_, found) in enumerate(rows):
        spelled = [[t for t in name if t != NOTHING] for name in names[row].tolist()]
        assert [name for name in spelled if name] == [[*name, SEPARATOR] for name in found]
        assert ids[row, places[row, : len(found)]].tolist() == list(LEVELS[: len(found)])


def _pointer(width=4, number=3):
    torch.manual_seed(0)
    pointer = CandidatePointer(width, number)
    for parameter in pointer.parameters():
        torch.nn.init.normal_(parameter)
    return pointer


def test_a_mixture_is_a_distribution_and_favours_what_is_copied():
    pointer = _pointer()
    logits, states, keys = torch.randn(2, 5, 11), torch.randn(2, 5, 4), torch.randn(2, 3, 4)
    following = torch.tensor([[3, 3, NOTHING], [NOTHING] * 3, [4, 5, 6], [7, 7, 7], [NOTHING, 10, 0]]).expand(
        2, -1, -1
    )
    mixed = pointer(logits, states, keys, following, following.clamp(min=0))
    torch.testing.assert_close(mixed.exp().sum(-1), torch.ones(2, 5))
    plain = logits.log_softmax(-1)
    torch.testing.assert_close(mixed[:, 1], plain[:, 1])  # nothing to copy
    # Whatever the weights of the candidates, a token that all of them share gets the whole gate.
    gate = pointer.gate(states)[:, 3, 0].sigmoid()
    torch.testing.assert_close(mixed[:, 3, 7].exp(), gate + (1 - gate) * plain[:, 3, 7].exp())
    torch.testing.assert_close(mixed[:, 3, 0], (1 - gate).log() + plain[:, 3, 0])


def test_gradients_are_those_of_the_formula():
    """Shared tokens, candidates that do not go on, and rows without any: no gradient is lost or counted twice."""
    pointer = _pointer().double()
    logits, states, keys = (torch.randn(*s, dtype=torch.double) for s in ((1, 3, 6), (1, 3, 4), (1, 3, 4)))
    following = torch.tensor([[[2, 2, NOTHING], [NOTHING] * 3, [1, 3, 1]]])

    def plain(logits, states):
        probability = logits.softmax(-1)
        rows = []
        for step in range(3):
            row = following[0, step]
            kept = [k for k in range(3) if row[k] != NOTHING]
            if not kept:
                rows.append(probability[0, step])
                continue
            match = (keys[0] @ pointer.query(states[0, step])) / 2 + pointer.rank_weight.weight[:, 0]
            weight, gate = match[kept].softmax(0), pointer.gate(states[0, step]).sigmoid()
            copied = torch.zeros(6, dtype=torch.double).index_add(0, row[kept], weight)
            rows.append((1 - gate) * probability[0, step] + gate * copied)
        return torch.stack(rows)[None].log()

    def mixed(logits, states):
        return pointer(logits, states, keys, following, following.clamp(min=0)).double()

    of_both = []
    for function in (mixed, plain):
        inputs = [one.clone().requires_grad_() for one in (logits, states)]
        pointer.zero_grad()
        out = function(*inputs)
        (out * torch.arange(out.numel()).view_as(out).cos()).sum().backward()
        of_both.append([out.detach(), *(one.grad for one in inputs), *(p.grad.clone() for p in pointer.parameters())])
    for one, other in zip(*of_both, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
