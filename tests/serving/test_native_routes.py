"""The package's own interface: the answers of `xlgen predict`, options by the same names, errors that help."""

from __future__ import annotations

import inspect
import json

import pytest
from pydantic import ValidationError

from xlgen_hf.cli.main import main
from xlgen_hf.cli.predict import predict
from xlgen_hf.files.json_lines import write_jsonl
from xlgen_hf.labels.concepts import Concept
from xlgen_hf.labels.vocabulary import Vocabulary
from xlgen_hf.loading import load_predictor
from xlgen_hf.serving.annif import Documents, IndexedDocument
from xlgen_hf.serving.requests import PredictOptions, PredictRequest, ScoreRequest

TEXTS = ["a history of church music", "modern art", "the piano"]


def predicted_by_command(folder, tmp_path, *options):
    write_jsonl(tmp_path / "texts.jsonl", [{"text": text} for text in TEXTS])
    out = tmp_path / "out.jsonl"
    arguments = ["predict", "--model", str(folder), "--input-file", str(tmp_path / "texts.jsonl")]
    assert main([*arguments, "--output-file", str(out), "--overwrite", *options]) == 0
    return [json.loads(line) for line in out.read_text().splitlines()]


OPTIONS = [
    ({}, []),
    ({"top_k": 4}, ["--top-k", "4"]),
    ({"threshold": 0.1}, ["--threshold", "0.1"]),
    ({"num_beams": 3, "pool": "union"}, ["--num-beams", "3", "--pool", "union"]),
    ({"num_samples": 3, "pool": "vote", "seed": 5, "temperature": 2.0},
     ["--num-samples", "3", "--pool", "vote", "--seed", "5", "--temperature", "2"]),
    ({"cluster": ["cluster 1"], "min_labels": 2, "max_labels": 3, "ordered": True},
     ["--cluster", "cluster 1", "--min-labels", "2", "--max-labels", "3", "--ordered"]),
    ({"open_vocabulary": True}, ["--open-vocabulary"]),
    ({"evidence": True}, ["--evidence"]),
]  # fmt: skip


def test_answers_are_those_of_the_command(client, folder, tmp_path):
    for options, words in OPTIONS:
        answer = client.post("/v1/predict", json={"texts": TEXTS, **options})
        assert answer.status_code == 200, answer.text
        expected = predicted_by_command(folder, tmp_path, *words)
        found = answer.json()
        assert found["model"] == "tiny"
        for one, row in zip(found["predictions"], expected, strict=True):
            assert one["scores"] == pytest.approx(row["scores"], abs=1e-5)
            assert {**one, "scores": 0, "novel_labels": 0} == {**row, "scores": 0, "novel_labels": 0}
            assert [new["label"] for new in one["novel_labels"]] == [new["label"] for new in row["novel_labels"]]


def test_options_are_called_as_those_of_the_command():
    assert set(PredictOptions.model_fields) <= set(inspect.signature(predict).parameters)


def test_labels_that_texts_have_already(client, folder):
    given = [["music", "history"], []]
    expected = load_predictor(str(folder)).predict(TEXTS[:2], given=given)
    found = client.post("/v1/predict", json={"texts": TEXTS[:2], "given": given}).json()["predictions"]
    assert [one["labels"] for one in found] == [one.labels for one in expected]
    assert not {"music", "history"} & set(found[0]["labels"])
    for one, other in zip(found, expected, strict=True):
        assert one["scores"] == pytest.approx(other.scores, abs=1e-5)


def test_allowed_labels(client):
    answer = client.post("/v1/predict", json={"text": "art", "top_k": 5, "allow": ["music", "art"], "deny": ["art"]})
    assert answer.json()["predictions"][0]["labels"] == ["music"]


WRONG = [
    ({}, 422, "Give `text`, or `texts` with at least one text"),
    ({"texts": []}, 422, "Give `text`, or `texts`"),
    ({"text": "a", "texts": ["a"]}, 422, "Give `text`, or `texts`"),
    ({"text": 3}, 422, "text: Input should be a valid string"),
    ({"text": "\ud800"}, 422, "text: Value error, half of a surrogate pair at position 0"),
    ({"text": "a", "num_beam": 3}, 422, "num_beam: Extra inputs are not permitted"),
    ({"text": "a", "num_beams": True}, 422, "num_beams: Input should be a valid integer"),
    ({"text": "a", "num_beams": 0}, 422, "num_beams=0; it must be an integer from 1 to 1000"),
    ({"text": "a", "num_beams": 21}, 422, "num_beams=21; at most 20 on this server"),
    ({"text": "a", "max_labels": 10**30}, 422, "at most 100 on this server"),
    ({"text": "a", "seed": 2**64}, 422, "seed: Input should be less than or equal to"),
    ({"text": "a", "temperature": float("nan")}, 422, "temperature=nan; it must be a finite number of at least 0.001"),
    ({"text": "a", "top_k": 1000}, 422, "top_k=1000; at most 100 on this server"),
    ({"text": "a", "top_k": 2, "threshold": 0.5}, 422, "top_k and threshold exclude each other"),
    ({"text": "a", "threshold": 2}, 422, "threshold 2.0: give a number from 0 to 1, or auto"),
    ({"text": "a", "threshold": "auto"}, 422, "threshold auto: the model has no threshold for 'micro'"),
    ({"text": "a", "allow": ["zebra"]}, 422, "allow: 'zebra' is none of the 10 labels"),
    ({"text": "a", "deny": ["\udc00"]}, 422, "deny.0: Value error, half of a surrogate pair"),
    ({"text": "a", "output_language": "en"}, 422, "output_language en: the model has no vocabulary"),
    ({"text": "a", "model": "other"}, 404, "There is no model 'other'; choose one of tiny"),
    ({"texts": ["a", "b"], "given": [["music"]]}, 422, "2 texts come with given labels for 1; one list for each"),
    ({"text": "a", "given": ["music"]}, 422, "given.0: Input should be a valid list"),
    ({"texts": ["a"] * 257}, 413, "257 texts; at most 256"),
    ({"texts": ["a", "b" * 100_001]}, 413, "Text 2 has 100001 characters; at most 100000"),
]


def test_what_is_wrong_is_refused_with_the_reason(client):
    for body, status, told in WRONG:
        answer = client.post("/v1/predict", content=json.dumps(body), headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.json()["status"]) == (status, status), (told, answer.text)
        assert told in answer.json()["detail"]
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("kind", "given", "faults"),
    [
        (PredictRequest, {"text": "a", "given": [1, 2]}, ["given.0"]),
        (PredictRequest, {"text": "a", "given": [[], [1, 2], 3]}, ["given.1.0"]),
        (PredictRequest, {"texts": ["a", 1, 2]}, ["texts.1"]),
        (PredictRequest, {"text": "a", "allow": [1, 2], "deny": [3, 4]}, ["allow.0", "deny.0"]),
        (PredictRequest, {str(number): 1 for number in range(100)}, [""]),
        (ScoreRequest, {"text": "a", "candidates": ["a"], "given": [1, 2]}, ["given.0"]),
        (Documents, {"documents": [1, 2]}, ["documents.0"]),
        (IndexedDocument, {"text": "a", "subjects": [1, 2]}, ["subjects.0"]),
    ],
)
def test_faults_do_not_add_up(kind, given, faults):
    """A body has room for a million, and to list them would take a minute in which nobody is answered."""
    with pytest.raises(ValidationError, match=r"Input should be|100 names; this request has top_k, ") as raised:
        kind.model_validate(given)
    assert [".".join(map(str, one["loc"])) for one in raised.value.errors()] == faults


def test_faults_of_documents_to_learn_do_not_add_up(client):
    assert client.post("/v1/projects/tiny/learn", json=[1, 2]).json()["detail"].count("Input should be") == 1


def test_no_json(client):
    answer = client.post("/v1/predict", content=b'{"text": "secret', headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert "secret" not in answer.text
    body = json.dumps({"text": "Käse", "top_k": 1}, ensure_ascii=False)
    for kind in ("text/plain", "text/json", "application/x-www-form-urlencoded"):  # the last is that of `curl -d`
        answer = client.post("/v1/predict", content=body.encode(), headers={"Content-Type": kind})
        assert answer.status_code == 422
        assert "send the header `Content-Type: application/json`" in answer.json()["detail"]
    answer = client.post("/v1/predict", content=body.encode("latin-1"), headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["detail"]) == (
        400,
        "The body is JSON in another encoding than UTF-8; send it in UTF-8.",
    )
    assert client.post("/v1/nothing").json()["status"] == 404
    assert client.get("/v1/predict").json()["status"] == 405


def test_scores(client, folder):
    source = load_predictor(str(folder)).source
    names = [["music", "art"], ["piano"]]
    expected = source.score_texts(TEXTS[:2], names, [["history"], []])
    answer = client.post("/v1/score", json={"texts": TEXTS[:2], "candidates": names, "given": [["history"], []]})
    assert answer.json()["model"] == "tiny"
    for row, values in zip(answer.json()["scores"], expected, strict=True):
        assert row == pytest.approx(values, abs=1e-6)
    (alone,) = client.post("/v1/score", json={"text": TEXTS[0], "candidates": names[0]}).json()["scores"]
    assert alone == pytest.approx(source.score_texts(TEXTS[:1], names[:1])[0], abs=1e-6)


def test_scores_that_cannot_be(client):
    wrong = [
        ({"texts": ["a", "b"], "candidates": [["art"]]}, "2 texts come with candidates for 1"),
        ({"text": "a", "candidates": ["zebra"]}, "'zebra' is none of the 10 labels"),
        ({"text": "a", "candidates": ["art"] * 101}, "A text has 101 candidates; at most 100"),
        ({"text": "a"}, "candidates: Field required"),
        ({"text": "a", "candidates": ["art", ["music"]]}, "candidates.1: Input should be a valid string"),
    ]
    for body, told in wrong:
        answer = client.post("/v1/score", json=body)
        assert (answer.status_code, told in answer.json()["detail"]) == (422, True), answer.text


def test_models_and_labels(make_model, serve, folder, tmp_path):
    model, processor = make_model("bert", "base")
    concepts = [
        Concept(
            f"urn:{number}",
            {"en": name, "fi": f"{name} (fi)"},
            {"en": (f"known as {name}", f"ältere Form von {name}")},
        )
        for number, name in enumerate(processor.label_space.names)
    ]
    model.save_pretrained(tmp_path / "second")
    processor.save_pretrained(tmp_path / "second")
    Vocabulary(concepts, "en").save(tmp_path / "second")
    client = serve(names={"tiny": str(folder), "second": str(tmp_path / "second")})
    first, second = client.get("/v1/models").json()
    assert (first["id"], first["labels"], first["variant"], first["clusters"]) == ("tiny", 10, "bcl", 3)
    assert (second["id"], second["variant"], second["languages"]) == ("second", "base", ["en", "fi"])
    found = client.get("/v1/labels", params={"query": "MUSIC", "limit": 3}).json()
    assert [one["label"] for one in found] == ["music", "music history", "church music"]
    assert (found[0]["id"], found[0]["training_rows"]) == (None, 4)
    (one, *_) = client.get("/v1/labels", params={"query": "piano (fi)", "model": "second"}).json()
    assert (one["label"], one["id"]) == ("piano", f"urn:{processor.label_space.index['piano']}")
    typed_in_part = ("PIANO (F", "known as pian", "wn as piano", "ältere form von pi", "altere form von PIANO")
    for typed in typed_in_part:  # names in other languages, and aliases
        found = client.get("/v1/labels", params={"query": typed, "model": "second"}).json()
        assert [one["label"] for one in found] == ["piano"]
    body = {"text": "a piano", "model": "second", "output_language": "fi", "with_parents": True}
    (answer,) = client.post("/v1/predict", json=body).json()["predictions"]
    assert all(label.endswith("(fi)") for label in answer["labels"])
    assert answer["parents"] == [[] for _ in answer["labels"]] and "concepts" not in answer
    (answer,) = client.post("/v1/predict", json={**body, "concepts": True}).json()["predictions"]
    ranked = zip(answer["ids"], answer["labels"], answer["scores"], strict=True)
    assert answer["concepts"] == [
        {"id": one, "label": label, "language": "fi", "score": score, "broader": []} for one, label, score in ranked
    ]
    assert client.get("/v1/labels", params={"limit": 0}).status_code == 422


def test_openapi_and_metrics(client):
    client.post("/v1/predict", json={"text": "a"})
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/v1/predict", "/v1/score", "/v1/models", "/v1/labels", "/health", "/metrics"} <= set(paths)
    text = client.get("/metrics").text
    assert 'xlgen_requests_total{path="/v1/predict",status="200"} 1.0' in text
    assert 'xlgen_batch_texts_count{model="tiny"} 1.0' in text
    assert "process_resident_memory_bytes" in text
    assert client.get("/health").json() == {"status": "ok"}
    assert client.head("/health").status_code == 200  # as load balancers and monitors ask
