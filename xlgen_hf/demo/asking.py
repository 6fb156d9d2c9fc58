"""What somebody asks on the page, and what the models answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from weakref import WeakKeyDictionary

from pydantic import ValidationError
from starlette.exceptions import HTTPException

from ..errors import ConfigurationError, XLGenError
from ..prediction.predictor import Predictor
from ..prediction.results import LabelPrediction
from ..serving.batching import QueueFullError
from ..serving.guard import log_error
from ..serving.models import ServedModel
from ..serving.requests import PredictOptions, PredictRow, Text, check_texts
from ..serving.service import Service
from ..serving.settings import ServingSettings

__all__ = ["Answer", "Question", "ask"]

logger = logging.getLogger(__name__)

_MOST_NEW_LABELS = 100
_UNEXPECTED = "Something went wrong; the log of the server says where."


@dataclass(frozen=True)
class Question:
    """What somebody asks.

    Attributes:
        text: the text.
        number: most labels; None leaves number and scores to the model's own decision.
        threshold: lowest score of a label, in [0, 1], where `number` is given.
        allow: labels to choose from; all if there is none.
        branch: concepts to choose from, with those below them.
        new_labels: names that are labels for this question alone.
        abstain_below: expected F1 below which a person should look at the text, in [0, 1]; 0 asks no model.
    """

    text: str
    number: int | None = None
    threshold: float = 0.0
    allow: tuple[str, ...] = ()
    branch: tuple[str, ...] = ()
    new_labels: tuple[str, ...] = ()
    abstain_below: float = 0.0

    @property
    def about_new_labels(self) -> _Options:
        """The options that ask for the scores of the new labels, whichever labels a model chooses."""
        return _Options(top_k=len(self.new_labels), allow=self.new_labels, new_labels=self.new_labels)

    def options(self, model: ServedModel) -> _Options:
        """The options for a model; a bound on the expected F1 goes to those that estimate it."""
        estimates = model.current.predictor.score_model.confidence is not None
        return _Options(
            top_k=self.number,
            allow=self.allow or None,
            branch=self.branch,
            evidence=True,
            abstain_below=self.abstain_below if estimates and self.abstain_below else None,
            new_labels=self.new_labels,
        )


@dataclass(frozen=True)
class Answer:
    """What a model answers.

    Attributes:
        model_id: the model.
        prediction: its labels; None where there was a problem.
        problem: what was wrong, and what to do.
        not_chosen: scores of the new labels that are not among its labels, highest first.
    """

    model_id: str
    prediction: LabelPrediction | None = None
    problem: str = ""
    not_chosen: dict[str, float] = field(default_factory=dict)


class _Options(PredictOptions):
    """Options of a prediction, with labels that are there for it alone."""

    new_labels: tuple[Text, ...] = ()

    def check(self, settings: ServingSettings) -> None:
        """Refuse too much, and more new labels than can be asked for their scores.

        Raises:
            ConfigurationError: if an option is above its limit.
        """
        most = min(_MOST_NEW_LABELS, settings.max_top_k)
        if len(self.new_labels) > most:
            raise ConfigurationError(
                f"{len(self.new_labels)} new labels; at most {most} on this server. Leave some out."
            )
        super().check(settings)

    def run(self, predictor: Predictor, rows: Sequence[PredictRow], batch_size: int) -> list[LabelPrediction]:
        """Predict texts with the new labels as well."""
        if self.new_labels:
            predictor = _with_labels(predictor, self.new_labels)
        return super().run(predictor, rows, batch_size)


_extended: WeakKeyDictionary[Predictor, tuple[tuple[str, ...], Predictor]] = WeakKeyDictionary()


def _with_labels(predictor: Predictor, names: tuple[str, ...]) -> Predictor:
    """A predictor with new labels; the last one of each model is kept, for further questions with the same ones."""
    known, extended = _extended.get(predictor, ((), predictor))
    if known != names:
        extended = predictor.with_labels(names)
        if extended is not predictor:  # which would keep itself alive here
            _extended[predictor] = (names, extended)
    return extended


async def ask(service: Service, question: Question) -> list[Answer]:
    """Ask all models at the same time.

    Args:
        service: the models.
        question: the question.

    Returns:
        An answer of each model, in their order; what fails is the problem of that model's answer.
    """
    return list(await asyncio.gather(*(_ask(service, model, question) for model in service.models.values())))


async def _ask(service: Service, model: ServedModel, question: Question) -> Answer:
    settings = service.settings
    try:
        check_texts([question.text], settings)
        options = question.options(model)
        options.check(settings)
        answer = model.batcher.submit(options, [(question.text, ())])
        (found,) = await asyncio.wait_for(answer, settings.timeout)
        found = _above(found, question.threshold if question.number else 0.0)
        not_chosen = {}
        if question.new_labels:  # who gives a label wants to know what a model thinks of it
            answer = model.batcher.submit(question.about_new_labels, [(question.text, ())])
            (scored,) = await asyncio.wait_for(answer, settings.timeout)
            scores = dict(zip(scored.labels, scored.scores, strict=True))
            not_chosen = {name: score for name, score in scores.items() if name not in found.labels}
    except Exception as err:
        return Answer(model.id, problem=_problem(err, settings.timeout))
    return Answer(model.id, found, not_chosen=not_chosen)


def _above(prediction: LabelPrediction, threshold: float) -> LabelPrediction:
    """A prediction without the labels below a score."""
    kept = [place for place, score in enumerate(prediction.scores) if score >= threshold]
    return replace(
        prediction,
        labels=[prediction.labels[place] for place in kept],
        scores=[prediction.scores[place] for place in kept],
        ids=prediction.ids and [prediction.ids[place] for place in kept],
        evidence=prediction.evidence and [prediction.evidence[place] for place in kept],
    )


def _problem(err: Exception, timeout: float) -> str:
    """What somebody reads of an error; of one that nobody expects the log has the place, not the message."""
    if isinstance(err, HTTPException):
        return str(err.detail)
    if isinstance(err, ValidationError):
        return "; ".join(f"{fault['loc'][0]}: {fault['msg']}" for fault in err.errors())
    if isinstance(err, (XLGenError, QueueFullError)):
        return str(err)
    if isinstance(err, asyncio.TimeoutError):
        return f"No answer within {timeout:g} s; ask about a shorter text, or try again later."
    log_error(err)
    return _UNEXPECTED
