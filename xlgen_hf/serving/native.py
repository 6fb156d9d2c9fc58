"""The routes of this package's own interface."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from ..prediction.encoding import ModelSource
from ..prediction.results import LabelPrediction
from .metrics import CONTENT_TYPE_LATEST
from .models import ServedModel
from .requests import PredictRequest, Score, ScoreRequest, check_texts
from .service import TheService

__all__ = ["FoundLabel", "ModelInfo", "Predictions", "Scores", "router"]

router = APIRouter()


class Predictions(BaseModel):
    """Predictions in the order of the texts, with the fields that `xlgen predict` writes."""

    model: str
    predictions: list[LabelPrediction]


class Scores(BaseModel):
    """Scores in the order of the texts and of their candidates."""

    model: str
    scores: list[list[float]]


class ModelInfo(BaseModel):
    """A model of the server."""

    id: str
    labels: int
    variant: str | None
    languages: list[str]
    clusters: int
    loaded: datetime
    takes_corrections: bool


class FoundLabel(BaseModel):
    """A label, the id of its concept, and the number of its training rows."""

    label: str
    id: str | None
    training_rows: int


@router.post("/v1/predict", response_model=Predictions, tags=["prediction"])
async def predict(request: PredictRequest, service: TheService) -> Response:
    """Predict the labels of one or more texts; options are those of `xlgen predict`."""
    model, rows = service.model(request.model), request.rows
    check_texts([text for text, _ in rows], service.settings)
    request.options.check(service.settings)
    found = await model.batcher.submit(request.options, rows)
    return JSONResponse({"model": model.id, "predictions": [one.to_dict() for one in found]})


@router.post("/v1/score", tags=["prediction"])
async def score(request: ScoreRequest, service: TheService) -> Scores:
    """Score labels that are given for one or more texts; needs a model with a generator."""
    model = service.model(request.model)
    check_texts(request.all_texts, service.settings)
    rows = request.rows(service.settings.max_top_k)
    return Scores(model=model.id, scores=await model.batcher.submit(Score(), rows))


@router.get("/v1/models", tags=["models"])
async def models(service: TheService) -> list[ModelInfo]:
    """The models; the first one answers requests that name none."""
    return [_info(model) for model in service.models.values()]


def _info(model: ServedModel) -> ModelInfo:
    loaded = model.current
    predictor = loaded.predictor
    return ModelInfo(
        id=model.id,
        labels=len(predictor.label_space),
        variant=str(predictor.source.model.config.variant) if isinstance(predictor.source, ModelSource) else None,
        languages=[] if predictor.vocabulary is None else list(predictor.vocabulary.languages),
        clusters=len(predictor.cluster_names),
        loaded=loaded.time,
        takes_corrections=model.corrections is not None,
    )


@router.get("/v1/labels", tags=["models"])
async def labels(
    service: TheService,
    query: Annotated[str, Query(max_length=200)] = "",
    model: str | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 20,
) -> list[FoundLabel]:
    """Labels that a word may mean: those that begin with it or hold it, frequent ones first."""
    loaded = service.model(model).current
    space = loaded.predictor.label_space
    found = await asyncio.to_thread(loaded.find_labels, query, limit)
    return [
        FoundLabel(
            label=space.names[label],
            id=loaded.concept_of(space.names[label]),
            training_rows=int(space.counts[label]),
        )
        for label in found
    ]


@router.head("/health", include_in_schema=False)  # as some load balancers and monitors ask
@router.get("/health", tags=["server"])
async def health(request: Request) -> dict[str, str]:
    """Whether the server answers; it needs no API key."""
    if any(task.done() for task in request.app.state.tasks):
        raise HTTPException(503, "A part of the server has ended; its log says why. Restart it.")
    return {"status": "ok"}


@router.get("/metrics", tags=["server"])
async def metrics(service: TheService) -> Response:
    """Numbers for Prometheus."""
    return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)
