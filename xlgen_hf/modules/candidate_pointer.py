"""XLGen-RCL: copies the next token of a label from the candidates in the input, as far as they go on like that."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["NOTHING", "CandidatePointer", "next_tokens", "spelled_candidates"]

NOTHING = -1  # fills up names, and stands where a candidate does not go on


class CandidatePointer(nn.Module):
    """Mixes the generator's distribution of the next token with one that is copied from candidate labels.

    A candidate can be copied from while what has been spelled of the current label is its beginning, and as long as it
    is not among the labels spelled before. Its weight among those that can is a softmax over the match of decoder
    state and candidate, and the candidate's rank; a gate on the decoder state says how much is copied at all.

    Args:
        width: of decoder states and memory, `H`.
        num_input_candidates: maximum number of candidates of a text.

    Source: the mixture of generating and copying is See et al., "Get To The Point: Summarization with
    Pointer-Generator Networks", ACL 2017; copying along the spelling of listed phrases follows Sun et al.,
    "Tree-Constrained Pointer Generator for End-to-End Contextual Speech Recognition", ASRU 2021.
    """

    def __init__(self, width: int, num_input_candidates: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, width)
        self.rank_weight = nn.Embedding(num_input_candidates, 1)
        self.gate = nn.Linear(width, 1)

    @torch.no_grad()
    def reset(self) -> None:
        """Start from a copy as probable as a generated token, and from candidates that count by their rank alone."""
        for parameter in (*self.query.parameters(), *self.gate.parameters()):
            parameter.zero_()
        weight = self.rank_weight.weight
        weight.copy_(-torch.arange(1, len(weight) + 1, device=weight.device).log()[:, None])

    def forward(
        self,
        logits: torch.Tensor,
        states: torch.Tensor,
        keys: torch.Tensor,
        following: torch.Tensor,
        columns: torch.Tensor,
        weights: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Log-probabilities of the next token.

        Args:
            logits: of the generator, `(N, T, R)`.
            states: the decoder's last hidden states, `(N, T, H)`.
            keys: memory of each candidate, `(N, K, H)`.
            following: next token by each candidate, -1 where it does not go on, `(N, T, K)`; see [`next_tokens`].
            columns: its column in the logits, anything where there is none, `(N, T, K)`.
            weights: logarithms of further weights of the candidates, `(N, K)`; all alike if None.

        Returns:
            Log-probabilities of the mixture, `(N, T, R)`, float32.
        """
        log_probs = logits.float().log_softmax(-1)
        goes_on = following != NOTHING
        match = self.query(states) @ keys.transpose(1, 2) / keys.shape[-1] ** 0.5
        match = match + self.rank_weight(torch.arange(keys.shape[1], device=keys.device))[:, 0]
        if weights is not None:
            match = match + weights[:, None]
        match = match.float().masked_fill(~goes_on, torch.finfo(torch.float).min)
        gate = self.gate(states)[:, :, 0].float().masked_fill(~goes_on.any(-1), -torch.inf)
        copied = match.softmax(-1) * goes_on * gate.sigmoid()[:, :, None]
        # Candidates may share their next token: their copies add up, and one of them stands for all.
        same = (following[..., :, None] == following[..., None, :]) & goes_on[..., None, :]
        together = (same * copied[..., None, :]).sum(-1)
        is_first = goes_on & ~same.tril(-1).any(-1)
        mixed = log_probs - nn.functional.softplus(gate)[:, :, None]
        columns = columns.masked_fill(~is_first, 0)
        generated = mixed.gather(-1, columns)
        sums = torch.logaddexp(generated, together.clamp(min=1e-30).log())
        return mixed.scatter_add(-1, columns, (sums - generated).masked_fill(~is_first, 0.0))


@torch.no_grad()
def spelled_candidates(
    input_ids: torch.Tensor, mask: torch.Tensor, levels: range, separator: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the candidates in inputs: a token for their level, then the tokens of their name.

    Args:
        input_ids: the inputs, `(B, S)`.
        mask: 1 where a token is that is no special one at the end, `(B, S)`.
        levels: the tokens for levels.
        separator: token that ends a label; all tokens of names are below it.

    Returns:
        Where each candidate's level stands, 0 where there is none, `(B, K)`, and the tokens of its name, the separator
        last, padded with -1, `(B, K, P)`. At least one candidate wide.
    """
    is_level = (input_ids >= levels.start) & (input_ids < levels.stop) & (mask > 0)
    number = is_level.cumsum(1) - 1
    # Clusters may stand after the candidates; their tokens come after the separator, those of names before it.
    inside = (number >= 0) & (mask > 0) & ((input_ids < separator) | is_level)
    position = torch.arange(input_ids.shape[1], device=input_ids.device).expand_as(input_ids)
    start = position.masked_fill(~is_level, 0).cummax(1).values
    offset = position - start - 1  # of a token in its name
    most = max(int(number.max()) + 1, 1)
    longest = max(int(offset.masked_fill(~inside, 0).max()) + 1, 1)
    places = input_ids.new_zeros(len(input_ids), most)
    row, column = is_level.nonzero(as_tuple=True)
    places[row, number[row, column]] = column
    names = input_ids.new_full((len(input_ids), most, longest + 1), NOTHING)
    row, column = (inside & ~is_level).nonzero(as_tuple=True)
    names[row, number[row, column], offset[row, column]] = input_ids[row, column]
    length = (names != NOTHING).sum(-1, keepdim=True)
    return places, names.scatter(-1, length, torch.where(length > 0, separator, NOTHING))


@torch.no_grad()
def next_tokens(tokens: torch.Tensor, names: torch.Tensor, separator: int) -> torch.Tensor:
    """What each candidate would have next, after each beginning of the decoder's tokens.

    Args:
        tokens: what the decoder was given, the start token first, `(N, T)`.
        names: see [`spelled_candidates`], `(N, K, P)`.
        separator: token that ends a label.

    Returns:
        The next token, `(N, T, K)`; -1 where the candidate does not begin as the label that is being spelled, or is
        among the labels spelled before.
    """
    found = []
    count = torch.zeros(names.shape[:2], dtype=torch.long, device=names.device)  # tokens that agree so far
    agrees = torch.ones_like(count, dtype=torch.bool)
    spelled = torch.zeros_like(agrees)
    for step, token in enumerate(tokens.T):
        if step:
            expected = names.gather(2, count.clamp(max=names.shape[2] - 1)[:, :, None])[:, :, 0]
            agrees = agrees & (expected == token[:, None])
            between = (token == separator)[:, None]
            spelled = spelled | (agrees & between)
            agrees = agrees | between
            count = (count + 1).masked_fill(between, 0)
        following = names.gather(2, count.clamp(max=names.shape[2] - 1)[:, :, None])[:, :, 0]
        found.append(following.masked_fill(~agrees | spelled, NOTHING))
    return torch.stack(found, dim=1)
