"""Annif's REST interface, so that its clients work unchanged: a model is a project.

Source: the OpenAPI description of Annif 1.x (`annif/openapi/annif.yaml` of github.com/NatLibFi/Annif).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Form, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

from ..prediction.predictor import Predictor
from ..prediction.results import LabelPrediction
from ..version import __version__
from .models import ServedModel
from .problems import ANNIF_PATHS
from .requests import PredictOptions, Text, check_texts
from .service import Service, TheService

__all__ = [
    "Document",
    "Documents",
    "IndexedDocument",
    "Question",
    "Subject",
    "Suggestion",
    "Suggestions",
    "SuggestionsOfDocument",
    "router",
]

router = APIRouter(tags=["Annif"])

_UNDETERMINED = "und"  # the language of labels without a vocabulary, ISO 639
_Limit = Annotated[int, Field(ge=0, description="Maximum number of suggestions.")]
_Threshold = Annotated[float, Field(ge=0, le=1, description="Minimum score of a suggestion.")]


class Suggestion(BaseModel):
    """A subject for a text."""

    uri: str
    label: str
    notation: str | None
    score: float


class Suggestions(BaseModel):
    """Subjects for a text, the best first."""

    results: list[Suggestion]


class SuggestionsOfDocument(Suggestions):
    """Subjects for a document of a batch."""

    document_id: str | None


class Question(BaseModel):
    """A form with a text; Annif's `metadata_...` may be there and says nothing to these models."""

    model_config = ConfigDict(extra="ignore")

    text: Text
    limit: _Limit = 10
    threshold: _Threshold = 0.0
    language: Text | None = None


class Document(BaseModel):
    """A text of a batch; Annif's metadata may be there and says nothing to these models."""

    text: Text
    document_id: Text | None = None


class Documents(BaseModel):
    """A batch."""

    documents: Annotated[list[Document], Field(fail_fast=True)]


class Subject(BaseModel):
    """A subject that a person chose."""

    uri: Text
    label: Text | None = None


class IndexedDocument(BaseModel):
    """A text with its right subjects."""

    text: Text
    subjects: Annotated[list[Subject], Field(fail_fast=True)]


@router.get("/v1/")
async def info() -> dict[str, str]:
    """Name and version of the interface."""
    return {"title": "xlgen-hf, Annif REST API", "version": __version__}


@router.get(ANNIF_PATHS)
async def projects(service: TheService) -> dict[str, list[dict[str, object]]]:
    """The models, as projects."""
    return {"projects": [_project(model) for model in service.models.values()]}


@router.get(ANNIF_PATHS + "/{project_id}")
async def project(project_id: str, service: TheService) -> dict[str, object]:
    """A model, as a project."""
    return _project(service.model(project_id))


@router.post(ANNIF_PATHS + "/{project_id}/suggest")
async def suggest(project_id: str, question: Annotated[Question, Form()], service: TheService) -> Suggestions:
    """Suggest subjects for a text."""
    model = service.model(project_id)
    (found,) = await _suggest(model, service, [question.text], question.limit, question.threshold, question.language)
    return Suggestions(results=found)


@router.post(ANNIF_PATHS + "/{project_id}/suggest-batch")
async def suggest_batch(
    project_id: str,
    body: Documents,
    service: TheService,
    limit: Annotated[_Limit, Query()] = 10,
    threshold: Annotated[_Threshold, Query()] = 0.0,
    language: str | None = None,
) -> list[SuggestionsOfDocument]:
    """Suggest subjects for several texts."""
    model = service.model(project_id)
    texts = [document.text for document in body.documents]
    found = await _suggest(model, service, texts, limit, threshold, language)
    return [
        SuggestionsOfDocument(results=results, document_id=document.document_id)
        for results, document in zip(found, body.documents, strict=True)
    ]


@router.post(ANNIF_PATHS + "/{project_id}/learn", status_code=204)
async def learn(
    project_id: str, body: Annotated[list[IndexedDocument], Field(fail_fast=True)], service: TheService
) -> Response:
    """Keep documents with their right subjects, as rows for `xlgen update --add-rows`."""
    model = service.model(project_id)
    if model.corrections is None:
        raise HTTPException(
            403, f"{project_id!r} takes no corrections; start the server with --corrections-file to collect them."
        )
    check_texts([document.text for document in body], service.settings)
    if not all(document.text.strip() for document in body):
        raise HTTPException(400, "A document has no text, so nothing can be learned of it; leave it out.")
    predictor = model.current.predictor
    rows = [
        {"text": document.text, "labels": list(dict.fromkeys(_label_of(predictor, one) for one in document.subjects))}
        for document in body
    ]
    await asyncio.to_thread(model.corrections.append, rows)
    return Response(status_code=204)


def _project(model: ServedModel) -> dict[str, object]:
    loaded, vocabulary = model.current, model.current.predictor.vocabulary
    languages = [_UNDETERMINED] if vocabulary is None else [vocabulary.language, *vocabulary.languages]
    return {
        "project_id": model.id,
        "name": model.id,
        "language": languages[0],
        "backend": {"backend_id": "xlgen"},
        "vocab": {
            "vocab_id": model.id,
            "languages": list(dict.fromkeys(languages)),
            "size": len(loaded.predictor.label_space),
            "loaded": True,
        },
        "vocab_language": languages[0],
        "is_trained": True,
        "modification_time": loaded.time.isoformat(),
    }


async def _suggest(
    model: ServedModel, service: Service, texts: Sequence[str], limit: int, threshold: float, language: str | None
) -> list[list[Suggestion]]:
    check_texts(texts, service.settings)
    if not texts or not limit:
        return [[] for _ in texts]
    if model.current.predictor.vocabulary is None and language == _UNDETERMINED:
        language = None  # the one that such a project lists
    options = PredictOptions(top_k=min(limit, service.settings.max_top_k), output_language=language)
    found = await model.batcher.submit(options, [(text, ()) for text in texts])
    return [_suggestions(model.current.predictor, one, threshold) for one in found]


def _suggestions(predictor: Predictor, prediction: LabelPrediction, threshold: float) -> list[Suggestion]:
    """The labels of a prediction as subjects; without a vocabulary a label's URI is the label."""
    concepts = {} if predictor.vocabulary is None else predictor.vocabulary.concepts
    ids = prediction.ids or [None] * len(prediction.labels)
    return [
        Suggestion(
            uri=label if one is None else one,
            label=label,
            notation=(concepts[one].notation or None) if one in concepts else None,
            score=score,
        )
        for label, score, one in zip(prediction.labels, prediction.scores, ids, strict=True)
        if score >= threshold
    ]


def _label_of(predictor: Predictor, subject: Subject) -> str:
    """The label that a subject means: of its concept, of its name, or a new one."""
    known = {} if predictor.vocabulary is None else predictor.vocabulary.labels
    if subject.uri in known:
        return known[subject.uri]
    if subject.uri in predictor.label_space:
        return subject.uri
    name = subject.label or ""
    if name in predictor.label_space:
        return name
    if name.strip():
        return " ".join(name.split())  # a new one, as the page saves it
    raise HTTPException(400, f"{subject.uri!r} is not a subject of the model; send its `label` too.")
