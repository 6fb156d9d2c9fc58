"""Annif's interface: the routes of its description, and what `learn` keeps."""

from __future__ import annotations

import json

import pytest

from xlgen_hf.data.options import RowOptions
from xlgen_hf.data.rows import load_rows
from xlgen_hf.errors import ConfigurationError, DataError, SaveError
from xlgen_hf.labels.concepts import Concept
from xlgen_hf.labels.vocabulary import Vocabulary
from xlgen_hf.serving.corrections import CorrectionsFile

PROJECT = "/v1/projects/tiny"


@pytest.fixture
def named_folder(folder, make_model):
    """The folder of a model whose labels are concepts."""
    _, processor = make_model("bert", "bcl", min_labels=1)
    concepts = [
        Concept(f"urn:{number}", {"en": name, "fi": f"{name} (fi)"}, notation=str(number))
        for number, name in enumerate(processor.label_space.names)
    ]
    Vocabulary(concepts, "en").save(folder)
    return folder


def test_projects(client):
    (project,) = client.get("/v1/projects").json()["projects"]
    assert project == client.get(PROJECT).json()
    assert (project["project_id"], project["language"], project["is_trained"]) == ("tiny", "und", True)
    assert project["vocab"] == {"vocab_id": "tiny", "languages": ["und"], "size": 10, "loaded": True}
    missing = client.get("/v1/projects/other")
    assert (missing.status_code, missing.json()["detail"]) == (404, "There is no model 'other'; choose one of tiny.")
    assert set(client.get("/v1/").json()) == {"title", "version"}


def test_suggestions(client):
    form = {"text": "a history of church music", "limit": 3, "metadata_title": "x"}
    results = client.post(f"{PROJECT}/suggest", data=form).json()["results"]
    (expected,) = client.post("/v1/predict", json={"text": form["text"], "top_k": 3}).json()["predictions"]
    assert [(one["label"], one["score"]) for one in results] == list(
        zip(expected["labels"], expected["scores"], strict=True)
    )
    assert all(one["uri"] == one["label"] and one["notation"] is None for one in results)
    middle = results[1]["score"]
    above = client.post(f"{PROJECT}/suggest", data={**form, "threshold": middle}).json()["results"]
    assert [one["score"] for one in above] == [one["score"] for one in results if one["score"] >= middle]
    assert len(client.post(f"{PROJECT}/suggest", data={"text": "art"}).json()["results"]) == 10
    assert client.post(f"{PROJECT}/suggest", data={"text": "art", "limit": 0}).json() == {"results": []}


def test_batches(client):
    documents = [{"text": "the piano", "document_id": "d1", "metadata": {"title": "x"}}, {"text": "modern art"}]
    found = client.post(f"{PROJECT}/suggest-batch", json={"documents": documents}, params={"limit": 2}).json()
    assert [one["document_id"] for one in found] == ["d1", None]
    for one, document in zip(found, documents, strict=True):
        alone = client.post(f"{PROJECT}/suggest", data={"text": document["text"], "limit": 2}).json()["results"]
        assert [hit["label"] for hit in one["results"]] == [hit["label"] for hit in alone]
    assert client.post(f"{PROJECT}/suggest-batch", json={"documents": []}).json() == []


def test_concepts(serve, named_folder):
    client = serve(names={"tiny": str(named_folder)})
    assert client.get(PROJECT).json()["vocab"]["languages"] == ["en", "fi"]
    (one,) = client.post(f"{PROJECT}/suggest", data={"text": "art", "limit": 1, "language": "fi"}).json()["results"]
    assert one["label"].endswith("(fi)")
    assert one["uri"] == f"urn:{one['notation']}"


def test_every_listed_language_may_be_asked_for(client):
    for language in client.get(PROJECT).json()["vocab"]["languages"]:
        answer = client.post(f"{PROJECT}/suggest", data={"text": "art", "limit": 1, "language": language})
        assert len(answer.json()["results"]) == 1


def test_wrong_requests(client):
    wrong = [
        ("suggest", {"data": {"limit": 1}}, "text: Field required"),
        ("suggest", {"data": {"text": "a", "limit": -1}}, "limit: Input should be greater than or equal to 0"),
        ("suggest", {"data": {"text": "a", "threshold": 2}}, "threshold: Input should be less than or equal to 1"),
        ("suggest", {"data": {"text": "a", "language": "en"}}, "output_language en: the model has no vocabulary"),
        ("suggest-batch", {"json": {"documents": [{}]}}, "documents.0.text: Field required"),
        ("learn", {"json": [{"text": "a"}]}, "0.subjects: Field required"),
    ]
    for path, body, told in wrong:
        answer = client.post(f"{PROJECT}/{path}", **body)
        assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")
        assert told in answer.json()["detail"]


def test_learn_keeps_rows_for_updates(serve, named_folder, tmp_path):
    path = tmp_path / "corrections.jsonl"
    path.write_text('{"text": "before", "labels": ["art"]}')  # whose end somebody has cut
    client = serve(names={"tiny": str(named_folder)}, corrections={"tiny": str(path)})
    concept = client.get("/v1/labels", params={"query": "piano"}).json()[0]["id"]
    subjects = [
        {"uri": concept, "label": "Klavier"}, {"uri": "urn:new", "label": " rye\nbread"},
        {"uri": "art"}, {"uri": "art"},
    ]  # fmt: skip
    assert client.post(f"{PROJECT}/learn", json=[{"text": "Käse\n", "subjects": subjects}]).status_code == 204
    assert client.post(f"{PROJECT}/learn", json=[{"text": "x", "subjects": []}]).status_code == 204
    assert [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] == [
        {"text": "before", "labels": ["art"]},
        {"text": "Käse\n", "labels": ["piano", "rye bread", "art"]},
        {"text": "x", "labels": []},
    ]
    rows = load_rows(str(path), RowOptions(), split="train", require_labels=False)
    assert rows["labels"][1] == ["piano", "rye bread", "art"]
    unknown = client.post(f"{PROJECT}/learn", json=[{"text": "x", "subjects": [{"uri": "urn:new"}]}])
    assert (unknown.status_code, "send its `label` too" in unknown.json()["detail"]) == (400, True)
    empty = client.post(f"{PROJECT}/learn", json=[{"text": " ", "subjects": [{"uri": "art"}]}])
    assert (empty.status_code, "A document has no text" in empty.json()["detail"]) == (400, True)
    assert len(path.read_text(encoding="utf-8").splitlines()) == 3


def test_learn_without_a_file(client):
    answer = client.post(f"{PROJECT}/learn", json=[])
    assert (answer.status_code, "--corrections-file" in answer.json()["detail"]) == (403, True)


def test_files_of_corrections(tmp_path):
    with pytest.raises(ConfigurationError, match=r"the name must end in \.jsonl"):
        CorrectionsFile(tmp_path / "corrections.csv")
    with pytest.raises(SaveError, match="No such file or directory"):
        CorrectionsFile(tmp_path / "missing" / "corrections.jsonl")
    file = CorrectionsFile(tmp_path / "corrections.jsonl")
    file.append([{"text": "a", "labels": ["b"]}])
    before = file.path.read_bytes()
    with pytest.raises(DataError, match="holds half of a character"):
        file.append([{"text": "a", "labels": ["b"]}, {"text": "a", "labels": ["\ud800"]}])
    assert file.path.read_bytes() == before
