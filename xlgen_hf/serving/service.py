"""What the routes of a server work with."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from fastapi import Depends, Request
from starlette.exceptions import HTTPException

from ..errors import ConfigurationError
from ..prediction.predictor import Predictor
from .corrections import CorrectionsFile
from .metrics import Metrics
from .models import ServedModel
from .settings import ServingSettings

__all__ = ["Service", "TheService", "named_models"]

_ID = re.compile(r"[\w.-]{1,100}")
_NAMED = re.compile(r"([\w.-]{1,100})=(.+)")


@dataclass
class Service:
    """Models, limits and numbers of a server.

    Attributes:
        models: the models by their ids, the one that requests mean by default first.
        settings: limits.
        metrics: what is counted.
    """

    models: dict[str, ServedModel]
    settings: ServingSettings
    metrics: Metrics

    @classmethod
    def load(
        cls,
        names: Mapping[str, str],
        load: Callable[[str], Predictor],
        settings: ServingSettings,
        corrections: Mapping[str, str] | None = None,
    ) -> Service:
        """Load models.

        Args:
            names: folder or Hub id of each model by its id.
            load: loads a predictor, as `load_predictor` does.
            settings: limits.
            corrections: files for corrections by the id of the model; those without one take none.
        """
        metrics = Metrics()
        files = {model_id: CorrectionsFile(path) for model_id, path in (corrections or {}).items()}
        models = {
            model_id: ServedModel(model_id, name, load, settings, metrics, files.get(model_id))
            for model_id, name in names.items()
        }
        return cls(models, settings, metrics)

    def model(self, model_id: str | None) -> ServedModel:
        """The model with an id; the first one if None.

        Raises:
            HTTPException: 404.
        """
        found = next(iter(self.models.values())) if model_id is None else self.models.get(model_id)
        if found is None:
            known = ", ".join(self.models)
            raise HTTPException(404, f"There is no model {model_id!r}; choose one of {known}.")
        return found


def named_models(given: Sequence[str]) -> dict[str, str]:
    """Folders and Hub ids by the ids that requests use.

    Args:
        given: each `ID=NAME`, or a name alone, whose last part is then the id.

    Raises:
        ConfigurationError: if an id is duplicate, or has other characters than letters, digits, `_`, `.` and `-`.
    """
    models: dict[str, str] = {}
    for one in given:
        named = None if Path(one).is_dir() else _NAMED.fullmatch(one)
        model_id, name = named.groups() if named else (Path(one).resolve().name, one)
        if not _ID.fullmatch(model_id):
            raise ConfigurationError(f"{one}: give the model an id of letters, digits, _, . and -, as ID={one}.")
        if model_id in models:
            raise ConfigurationError(f"Two models would have the id {model_id!r}; name one of them, as ID={one}.")
        models[model_id] = name
    return models


def _service_of(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


TheService = Annotated[Service, Depends(_service_of)]
"""The service of the app, for the parameter of a route."""
