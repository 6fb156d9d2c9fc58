"""What requests say, and what is then done with their texts; options are called as those of `xlgen predict`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from starlette.exceptions import HTTPException

from ..decoding.decoded_sets import DecodingOptions
from ..errors import ConfigurationError
from ..prediction.generator import Generator
from ..prediction.options import chosen_labels, chosen_rule
from ..prediction.predictor import Predictor
from ..prediction.results import LabelPrediction
from .settings import ServingSettings

__all__ = [
    "PredictOptions",
    "PredictRequest",
    "PredictRow",
    "Score",
    "ScoreRequest",
    "ScoreRow",
    "Text",
    "check_texts",
]


def _check_characters(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as err:  # JSON can escape what is not a character
        raise ValueError(f"half of a surrogate pair at position {err.start}, which is not a character") from err
    return text


Text = Annotated[str, AfterValidator(_check_characters)]
"""A text or a name of a request."""

_Integer = Annotated[int, Field(strict=True)]
_Number = Annotated[float, Field(strict=True)]
_Names = Annotated[tuple[Text, ...], Field(fail_fast=True)]  # a fault for each of a million elements takes a minute
_NamesOfTexts = Annotated[tuple[_Names, ...], Field(fail_fast=True)]
PredictRow: TypeAlias = tuple[str, tuple[str, ...]]
"""A text, and the labels that it has already."""
ScoreRow: TypeAlias = tuple[str, tuple[str, ...], tuple[str, ...]]
"""A text, its candidates, and the labels that it is known to have."""


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _few_names(cls, given: object) -> object:
        """Refuse more names than there are fields at once, not by a fault for each."""
        if isinstance(given, dict) and len(given) > len(cls.model_fields):
            raise ValueError(f"{len(given)} names; this request has {', '.join(cls.model_fields)}")
        return given


class PredictOptions(_Request):
    """How labels are predicted; requests with equal options are answered together."""

    top_k: _Integer | None = Field(default=None, description="Predict this many labels for each text.")
    threshold: _Number | Literal["auto"] | None = Field(
        default=None,
        description="Predict the labels with at least this score, from 0 to 1; `auto` takes the tuned threshold.",
    )
    objective: Literal["micro", "macro", "example"] | None = Field(
        default=None, description="What `auto` is best for; micro by default."
    )
    expected_f1: bool = Field(default=False, description="Predict as many labels as promise the highest F1.")
    num_beams: _Integer | None = Field(default=None, description="Beams per text; 1 is greedy search.")
    num_samples: _Integer = Field(default=0, description="Label sets to sample per text, instead of searching.")
    temperature: _Number = Field(default=1.0, description="Of the samples.")
    pool: Literal["best", "average", "vote", "union"] | None = Field(
        default=None, description="How beams or samples become one set."
    )
    seed: _Integer = Field(default=0, ge=0, le=2**63 - 1, description="Of the samples.")
    ordered: bool = Field(default=False, description="Keep to the label order of training.")
    min_labels: _Integer | None = Field(default=None, description="Minimum number of labels per text.")
    max_labels: _Integer | None = Field(default=None, description="Maximum number of labels per text.")
    allow: _Names | None = Field(default=None, description="Names of the labels to choose from.")
    deny: _Names | None = Field(default=None, description="Names of labels never to predict.")
    cluster: _Names = Field(default=(), description="Choose from the labels of these clusters alone.")
    branch: _Names = Field(default=(), description="Choose from these concepts and those below them alone.")
    without_branch: _Names = Field(default=(), description="Never predict these concepts and those below them.")
    output_language: Text | None = Field(default=None, description="Language of the predicted labels, such as en.")
    with_parents: bool = Field(default=False, description="Add the broader concepts of each label.")
    concepts: bool = Field(
        default=False, description="Add each label as a concept: id, label, language, score, and ids of broader ones."
    )
    open_vocabulary: bool = Field(default=False, description="Also look for names that are not labels yet.")
    evidence: bool = Field(default=False, description="Add what speaks for each label.")
    abstain_below: _Number | None = Field(
        default=None, ge=0, le=1, description="Mark texts whose expected F1 is lower for a person, in `abstain`."
    )

    @property
    def is_shared(self) -> bool:
        """Whether texts of several requests may run together: a sample depends on those drawn before it."""
        return not self.num_samples

    def length(self, row: PredictRow) -> int:
        """Length of a row's text."""
        return len(row[0])

    def check(self, settings: ServingSettings) -> None:
        """Refuse what would take too long, or too much memory.

        Raises:
            ConfigurationError: if an option is above its limit.
        """
        labels, beams = settings.max_top_k, settings.max_beams
        limits = {
            "top_k": labels,
            "min_labels": labels,
            "max_labels": labels,
            "num_beams": beams,
            "num_samples": beams,
        }
        for name, limit in limits.items():
            if (getattr(self, name) or 0) > limit:
                raise ConfigurationError(f"{name}={getattr(self, name)}; at most {limit} on this server.")

    @property
    def decoding(self) -> DecodingOptions | None:
        """How to search; None where no option says anything."""
        wanted = DecodingOptions(
            num_beams=self.num_beams,
            num_samples=self.num_samples,
            temperature=self.temperature,
            pool=self.pool,
            seed=self.seed,
            min_labels=self.min_labels,
            max_labels=self.max_labels,
            ordered=self.ordered,
        )
        return None if wanted == DecodingOptions(seed=self.seed) else wanted

    def run(self, predictor: Predictor, rows: Sequence[PredictRow], batch_size: int) -> list[LabelPrediction]:
        """Predict texts; of those that have labels already further ones.

        Raises:
            ConfigurationError: if options are not allowed, exclude each other, or do not fit the model.
            LabelSpaceError: if a label or concept is unknown.
        """
        texts, given = zip(*rows, strict=True)
        return predictor.predict(
            texts,
            decoding=self.decoding,
            rule=chosen_rule(
                predictor,
                top_k=self.top_k,
                threshold=self.threshold,
                objective=self.objective,
                expected_f1=self.expected_f1,
            ),
            allowed=chosen_labels(
                predictor,
                allow=self.allow,
                deny=self.deny,
                cluster=self.cluster,
                branch=self.branch,
                without_branch=self.without_branch,
            ),
            open_vocabulary=self.open_vocabulary,
            evidence=self.evidence,
            abstain_below=self.abstain_below,
            output_language=self.output_language,
            with_parents=self.with_parents,
            concepts=self.concepts,
            given=given if any(given) else None,
            batch_size=batch_size,
        )


class _Texts(_Request):
    model: Text | None = Field(default=None, description="Id of the model; the first one by default.")
    text: Text | None = Field(default=None, description="One text; instead of `texts`.")
    texts: _Names | None = Field(default=None, description="One or more texts; instead of `text`.")

    @property
    def all_texts(self) -> tuple[str, ...]:
        """The texts, however they were given.

        Raises:
            ConfigurationError: if there are none, or they were given in both ways.
        """
        given = self.texts if self.text is None else (self.text,)
        if not given or (self.text is not None and self.texts is not None):
            raise ConfigurationError("Give `text`, or `texts` with at least one text.")
        return given


class PredictRequest(_Texts, PredictOptions):
    """Texts to predict, and how."""

    given: _NamesOfTexts | None = Field(
        default=None, description="Labels that each text has already: further ones are predicted, going by these."
    )

    @property
    def rows(self) -> list[PredictRow]:
        """A row for each text.

        Raises:
            ConfigurationError: if the numbers of texts and given labels differ.
        """
        texts = self.all_texts
        given = ((),) * len(texts) if self.given is None else self.given
        if len(given) != len(texts):
            raise ConfigurationError(f"{len(texts)} texts come with given labels for {len(given)}; one list for each.")
        return list(zip(texts, given, strict=True))

    @property
    def options(self) -> PredictOptions:
        """How, without the texts."""
        return PredictOptions(**{name: getattr(self, name) for name in PredictOptions.model_fields})


class ScoreRequest(_Texts):
    """Texts with labels to score."""

    candidates: _Names | _NamesOfTexts = Field(
        description="Names of labels to score: a list for all texts, or a list for each text."
    )
    given: _NamesOfTexts | None = Field(
        default=None, description="Labels that each text is known, or was predicted, to have."
    )

    def rows(self, most: int) -> list[ScoreRow]:
        """A row for each text.

        Args:
            most: most candidates of a text.

        Raises:
            ConfigurationError: if the numbers of texts, candidates and given labels differ, or are too high.
        """
        texts = self.all_texts
        for_each = [one for one in self.candidates if not isinstance(one, str)]
        candidates = for_each or [tuple(map(str, self.candidates))] * len(texts)
        given = self.given or ((),) * len(texts)
        if not len(texts) == len(candidates) == len(given):
            raise ConfigurationError(
                f"{len(texts)} texts come with candidates for {len(candidates)} and given labels for {len(given)}."
            )
        longest = max(map(len, candidates))
        if longest > most:
            raise ConfigurationError(f"A text has {longest} candidates; at most {most} on this server.")
        return list(zip(texts, candidates, given, strict=True))


class Score(_Request):
    """Scores candidate labels by teacher forcing, without a search."""

    @property
    def is_shared(self) -> bool:
        """Whether texts of several requests may run together."""
        return True

    def length(self, row: ScoreRow) -> int:
        """Length of a row's text."""
        return len(row[0])

    def run(self, predictor: Predictor, rows: Sequence[ScoreRow], batch_size: int) -> list[list[float]]:
        """Score the candidates of texts.

        Raises:
            ConfigurationError: if the model has no generator.
            LabelSpaceError: if a label is unknown.
        """
        if not isinstance(predictor.source, Generator):
            raise ConfigurationError("Only a generator scores labels that it is given; this model has none.")
        texts, candidates, given = zip(*rows, strict=True)
        return predictor.source.score_texts(texts, candidates, given, batch_size)


def check_texts(texts: Sequence[str], settings: ServingSettings) -> None:
    """Refuse too many texts, and texts that are too long.

    Raises:
        HTTPException: 413.
    """
    if len(texts) > settings.max_texts:
        raise HTTPException(413, f"{len(texts)} texts; at most {settings.max_texts} in a request. Send several.")
    for number, text in enumerate(texts, start=1):
        if len(text) > settings.max_characters:
            raise HTTPException(
                413, f"Text {number} has {len(text)} characters; at most {settings.max_characters}. Shorten it."
            )
