"""A page before tiny models, in this process."""

from __future__ import annotations

import pytest
from sources import make_retriever

from xlgen_hf.labels.concepts import Concept
from xlgen_hf.labels.vocabulary import Vocabulary
from xlgen_hf.ranking.score_model import ScoreModel
from xlgen_hf.retrieval.model_sources import save_source_alone


@pytest.fixture
def index(checkpoints, label_space, tmp_path):
    """The folder of an index."""
    folder = tmp_path / "index"
    retriever = make_retriever(checkpoints["bert"], label_space, lexical=True)
    save_source_alone(folder, label_space, "retrieval", retriever, ScoreModel())
    return folder


@pytest.fixture
def concept_index(checkpoints, label_space, tmp_path):
    """The folder of an index whose labels are concepts."""
    broader = {"church music": "music", "organ": "church music", "modern art": "art", "piano": "piano"}
    vocabulary = Vocabulary(
        [
            Concept(name, {"en": name}, broader=(broader[name],) if name in broader else ())
            for name in label_space.names
        ],
        "en",
    )
    retriever = make_retriever(checkpoints["bert"], label_space)
    save_source_alone(tmp_path / "concepts", label_space, "retrieval", retriever, ScoreModel(), vocabulary)
    return tmp_path / "concepts"


@pytest.fixture
def model(make_model, tmp_path):
    """The folder of a model that generates."""
    made, processor = make_model("bert", "bcl", min_labels=1)
    made.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def open_page(tmp_path):
    """A function that opens a page of models; a client of its application, and the page."""
    pytest.importorskip("gradio", reason="the extra `demo` is not installed")
    from fastapi.testclient import TestClient

    from xlgen_hf.demo.app import create_demo
    from xlgen_hf.demo.page import Page
    from xlgen_hf.loading import load_predictor
    from xlgen_hf.serving.service import Service, named_models
    from xlgen_hf.serving.settings import ServingSettings

    clients = []

    def make(*folders, corrections=None, examples=(), load=load_predictor, **settings):
        names = named_models(list(map(str, folders)))
        service = Service.load(names, load, ServingSettings(**{"reload_seconds": 0.0, **settings}))
        uploads = tmp_path / "uploads"
        uploads.mkdir(exist_ok=True)
        page = Page(service, "A page", uploads, examples, corrections)
        client = TestClient(create_demo(page), base_url="http://127.0.0.1")
        client.__enter__()
        clients.append(client)
        return client, page

    yield make
    for client in clients:
        client.__exit__(None, None, None)
