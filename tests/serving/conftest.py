"""A service of tiny models, in this process."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from xlgen_hf.loading import load_predictor
from xlgen_hf.serving.app import create_app
from xlgen_hf.serving.service import Service
from xlgen_hf.serving.settings import ServingSettings


@pytest.fixture
def folder(make_model, tmp_path):
    """A saved model."""
    model, processor = make_model("bert", "bcl", min_labels=1)
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def serve(folder):
    """A function that makes a service of the model with some settings, and a client of its app, which runs."""
    clients = []

    def make(*, load=load_predictor, corrections=None, app_options=None, names=None, **settings):
        limits = ServingSettings(**{"reload_seconds": 0.0, "parallel_batches": 1, **settings})
        service = Service.load(names or {"tiny": str(folder)}, load, limits, corrections)
        client = TestClient(create_app(service, **(app_options or {})))
        client.__enter__()
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.__exit__(None, None, None)


@pytest.fixture
def client(serve):
    """A client of the model's service."""
    return serve()
