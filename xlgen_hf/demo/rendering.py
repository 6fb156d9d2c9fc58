"""HTML of what models answer. Whatever a model, a file or a person brought is text in it, never markup."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from html import escape as escape_html
from itertools import pairwise

from ..prediction.evidence import SCORE_NAMES, LabelEvidence
from ..prediction.results import LabelPrediction
from .asking import Answer

__all__ = ["escape", "framed", "isolated", "notice", "render_answers"]

_READ = 20_000  # characters of a text that are shown: those that are searched for matching words
_LEAST = 0.005  # score that reads as 0.00
_PLACES = {
    "generated": "what the model generated",
    "retrieval": "what retrieval found",
    "label_trees": "what label trees found",
    "candidate_head": "what the candidate head ranked",
    "input": "the candidates that the model read",
}
_TEMPLATE = str.maketrans({"$": "&#36;", "{": "&#123;", "}": "&#125;", "`": "&#96;"})  # what gradio's templates read


def escape(value: object) -> str:
    """Anything as text of HTML, or as the value of an attribute in quotes."""
    return escape_html(str(value)).translate(_TEMPLATE)


def isolated(value: object) -> str:
    """A name or text within other text: it has a direction of its own, and turns nothing around it."""
    return f"<bdi>{escape(value)}</bdi>"


def notice(message: str, kind: str = "status") -> str:
    """A message.

    Args:
        message: the message; "" for none.
        kind: `status`, or `alert` for what went wrong; how screen readers announce it.
    """
    return framed(escape(message), kind) if message else ""


def framed(html: str, kind: str = "status") -> str:
    """A message whose names are [`isolated`].

    Args:
        html: the message, escaped.
        kind: see [`notice`].
    """
    return f'<p class="xl-notice xl-{kind}" role="{kind}">{html}</p>'


def render_answers(text: str, answers: Sequence[Answer], *, review: bool) -> str:
    """All answers, side by side where there is room.

    Args:
        text: the text that was asked about.
        answers: those of the models.
        review: whether labels can be accepted and rejected.
    """
    shown = (_answer(number, text, one, review) for number, one in enumerate(answers))
    return f'<div class="xl-answers">{"".join(shown)}</div>'


def _answer(number: int, text: str, answer: Answer, review: bool) -> str:
    head = f'<h2 class="xl-model" id="xl-model-{number}">{isolated(answer.model_id)}</h2>'
    found = answer.prediction
    body = notice(answer.problem, "alert") if found is None else _prediction(f"xl-{number}", text, answer, review)
    if found is not None:  # for those who do not see that something appeared
        body = (
            f'<p class="xl-hidden" role="status">{len(found.labels)} labels by {isolated(answer.model_id)}</p>{body}'
        )
    return f'<section class="xl-answer" aria-labelledby="xl-model-{number}">{head}{body}</section>'


def _prediction(prefix: str, text: str, answer: Answer, review: bool) -> str:
    found = answer.prediction
    assert found is not None
    evidence = found.evidence or []
    cards = (_card(_Card(prefix, place, found, review), evidence) for place in range(len(found.labels)))
    labels = f'<ol class="xl-labels">{"".join(cards)}</ol>' if found.labels else notice(_NONE)
    return "".join([_trust(found), _marked(text, evidence), labels, _not_chosen(answer.not_chosen), _guides(found)])


def _not_chosen(scores: Mapping[str, float]) -> str:
    """New labels that the model would not predict, with what they score."""
    rows = "".join(
        f'<li class="xl-label"><span class="xl-name">{isolated(name)}</span><span class="xl-score">{score:.2f}</span>'
        f"{_bar(score)}</li>"
        for name, score in scores.items()
    )
    return (
        f'<h3 class="xl-below">New labels that were not chosen</h3><ul class="xl-labels">{rows}</ul>' if rows else ""
    )


_NONE = (
    "No label was found for this text. Ask for a number of labels with a lower score, or allow more labels, under "
    "“Options”."
)


# ---------------------------------------------------------------------------------------------------- a label


@dataclass(frozen=True)
class _Card:
    """A predicted label of an answer: the answer's prefix of ids, and the label's place."""

    prefix: str
    place: int
    found: LabelPrediction
    review: bool

    @property
    def label(self) -> str:
        return self.found.labels[self.place]

    @property
    def id(self) -> str:
        return f"{self.prefix}-{self.place}"


def _card(card: _Card, evidence: Sequence[LabelEvidence]) -> str:
    score, ids = card.found.scores[card.place], card.found.ids
    concept = ids[card.place] if ids else None
    shown = "" if concept is None else f'<span class="xl-id">{isolated(concept)}</span>'
    is_open = " open" if card.place == 0 else ""
    reasons = _reasons(evidence[card.place]) if evidence else ""
    return (
        f'<li class="xl-label" data-place="{card.place}"><details{is_open}><summary>'
        f'<span class="xl-name">{isolated(card.label)}</span><span class="xl-score">{score:.2f}</span>'
        f"{_bar(score)}</summary>{shown}{reasons}</details>{_buttons(card) if card.review else ''}</li>"
    )


def _bar(score: float) -> str:
    width = 100 * min(max(score, 0), 1)
    return f'<span class="xl-bar" aria-hidden="true"><span style="width:{width:.1f}%"></span></span>'


def _buttons(card: _Card) -> str:
    """Buttons of which one at most is chosen; equal labels of other models follow, see `page.js`."""
    choices = "".join(
        f'<label class="xl-choice xl-{value}"><input type="radio" name="{card.id}" value="{value}"'
        f' data-label="{escape(card.label)}"><span>{shown}</span></label>'
        for value, shown in (("accept", "Accept"), ("reject", "Reject"))
    )
    return f'<fieldset class="xl-review"><legend class="xl-hidden">{isolated(card.label)}</legend>{choices}</fieldset>'


def _reasons(evidence: LabelEvidence) -> str:
    rows = evidence.training_rows
    seen = "No training row has this label." if not rows else f"{rows:,} training row{'s' if rows > 1 else ''}."
    parts = [
        _scores(evidence.scores),
        _list("Matching words", _matches(evidence)),
        _list("Training texts like it", _documents(evidence)),
        _list("Guided by the cluster", map(isolated, evidence.clusters)),
        _list("Place among the candidates", _places(evidence.places)),
        f'<p class="xl-seen">{seen}</p>',
    ]
    return f'<div class="xl-reasons">{"".join(parts)}</div>'


def _scores(scores: Mapping[str, float]) -> str:
    rows = "".join(
        f"<li><span>{shown}</span><span>{scores[name]:.2f}</span>{_bar(scores[name])}</li>"
        for name, shown in SCORE_NAMES.items()
        if scores.get(name, 0.0) >= _LEAST
    )
    return f'<h3>What the sources say</h3><ul class="xl-sources">{rows}</ul>' if rows else ""


def _list(title: str, rows: Iterable[str]) -> str:
    shown = "".join(f"<li>{row}</li>" for row in rows)
    return f"<h3>{title}</h3><ul>{shown}</ul>" if shown else ""


def _matches(evidence: LabelEvidence) -> Iterable[str]:
    """Names of the label that the text matches, each once, with the words that do."""
    words: dict[str, dict[str, None]] = {}
    for one in evidence.names:
        words.setdefault(one.name, {}).update(dict.fromkeys(" ".join(word.split()) for word in one.words))
    for name, matched in words.items():
        alias = "" if name == evidence.label else f" as “{isolated(name)}”"
        if matched:
            yield f"{', '.join(f'<mark>{isolated(word)}</mark>' for word in matched)}{alias}"
        elif alias:
            yield f"the name “{isolated(name)}”"


def _documents(evidence: LabelEvidence) -> Iterable[str]:
    for one in evidence.documents:
        beginning = "" if one.beginning is None else f" {isolated(one.beginning)} …"
        yield f"<b>{isolated(one.id)}</b>{beginning} <span>similarity {max(one.similarity.values()):.2f}</span>"


def _places(places: Mapping[str, int]) -> Iterable[str]:
    return (f"number {place} of {_PLACES.get(name) or isolated(name)}" for name, place in places.items())


# ---------------------------------------------------------------------------------------------------- a text


def _trust(found: LabelPrediction) -> str:
    """How far the prediction can be trusted, where the model knows."""
    if found.expected_f1 is None or found.best_label_probability is None:
        return ""
    best = f"; the first label is right with probability {found.best_label_probability:.2f}" if found.labels else ""
    shown = f"Expected F1 {found.expected_f1:.2f}{best}."
    return (
        notice(f"A person should look at this text. {shown}", "alert")
        if found.abstain
        else f'<p class="xl-trust">{shown}</p>'
    )


def _guides(found: LabelPrediction) -> str:
    """What guided the model: clusters, and the candidates that it read, those that it predicted set off."""
    chosen = set(found.labels)
    clusters = _chips("Clusters that guided the model", found.clusters, set())
    return clusters + _chips("Candidates that the model read", found.candidates or [], chosen)


def _chips(title: str, names: Sequence[str], chosen: Set[str]) -> str:
    if not names:
        return ""
    kinds = ("", ' class="xl-chosen"')
    rows = "".join(f"<li{kinds[name in chosen]}>{isolated(name)}</li>" for name in names)
    head = f"<summary>{title} ({len(names)})</summary>"
    return f'<details class="xl-guides">{head}<ul class="xl-chips">{rows}</ul></details>'


def _marked(text: str, evidence: Sequence[LabelEvidence]) -> str:
    """The text with marks where words match names of labels; each mark has the places of its labels."""
    spans = [
        (begin, end, place)
        for place, of_label in enumerate(evidence)
        for name in of_label.names
        for begin, end in name.spans
    ]
    if not spans:
        return ""
    shown = text[:_READ]
    borders = sorted({0, len(shown), *(border for begin, end, _ in spans for border in (begin, end))})
    parts = []
    for begin, end in pairwise(borders):
        places = sorted({place for first, last, place in spans if first <= begin and end <= last})
        part = escape(shown[begin:end])
        parts.append(f'<mark data-places="{" ".join(map(str, places))}">{part}</mark>' if places else part)
    more = "" if len(text) <= _READ else " …"
    return (
        '<div class="xl-text" dir="auto" tabindex="0" role="group"'
        ' aria-label="The text, with words that match marked">'
        f"{''.join(parts)}{more}</div>"
    )
