"""Keys, sizes, times and full queues: what is refused, how clients learn it, and that logs hold nothing of texts."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from contextlib import nullcontext

import pytest
import torch
from starlette.exceptions import HTTPException

from xlgen_hf.errors import ConfigurationError
from xlgen_hf.loading import load_predictor
from xlgen_hf.prediction.predictor import Predictor
from xlgen_hf.serving.guard import API_KEY_VARIABLE, Guard, read_api_keys
from xlgen_hf.serving.metrics import Metrics
from xlgen_hf.serving.privacy import answering
from xlgen_hf.serving.settings import ServingSettings

SECRET = "zebra crossing"


class Gate:
    """Loads a predictor that waits, once the gate is shut, until it is opened, and keeps what it was asked."""

    def __init__(self) -> None:
        self.open, self.calls, self.cpu_threads = threading.Event(), [], []
        self.open.set()

    def load(self, name: str) -> Predictor:
        predictor = load_predictor(name)
        predict = predictor.predict

        def waiting(texts, **options):
            self.cpu_threads.append(torch.get_num_threads())
            self.calls.append(list(texts))
            assert self.open.wait(60)
            if any("fail" in text for text in texts):
                raise RuntimeError(f"what is wrong with {texts}")
            return predict(texts, **options)

        predictor.predict = waiting
        return predictor

    def wait_for_calls(self, number: int) -> None:
        while len(self.calls) < number:
            time.sleep(0.005)


@pytest.fixture
def gate():
    gate = Gate()
    yield gate
    gate.open.set()


class Posts:
    """Requests in threads of their own."""

    def __init__(self, client) -> None:
        self.client, self.threads, self.answers = client, [], {}

    def start(self, text: str, **options) -> None:
        def post():
            self.answers[text] = self.client.post("/v1/predict", json={"text": text, **options})

        self.threads.append(threading.Thread(target=post))
        self.threads[-1].start()

    def wait(self):
        for thread in self.threads:
            thread.join(60)
        return self.answers


def wait_for_texts(client, number: int) -> None:
    """Wait until so many texts wait for the model."""
    while client.app.state.service.models["tiny"].batcher.waiting < number:
        time.sleep(0.005)


# ---------------------------------------------------------------------------------------------------- batches


def at_work(client, gate) -> Posts:
    """Posts of clients, of which the first is being answered until the gate opens."""
    gate.open.clear()
    gate.calls.clear()
    posts = Posts(client)
    posts.start("music")
    gate.wait_for_calls(1)
    return posts


def test_what_arrives_together_runs_together(serve, gate):
    client = serve(load=gate.load)
    single = {text: client.post("/v1/predict", json={"text": text}).json() for text in ("art", "organ", "the piano")}
    posts = at_work(client, gate)
    for text in single:
        posts.start(text)
    wait_for_texts(client, 3)
    posts.start("a church", top_k=2)  # other options: not with them
    wait_for_texts(client, 4)
    gate.open.set()
    answers = posts.wait()
    assert [sorted(call) for call in gate.calls] == [["music"], ["art", "organ", "the piano"], ["a church"]]
    for text, expected in single.items():
        (one,), (alone,) = answers[text].json()["predictions"], expected["predictions"]
        assert one["labels"] == alone["labels"]
        assert one["scores"] == pytest.approx(alone["scores"], abs=1e-5)
    assert len(answers["a church"].json()["predictions"][0]["labels"]) == 2


def test_a_batch_has_texts_of_like_length_as_far_as_they_are_read(serve, gate, monkeypatch):
    monkeypatch.setattr("xlgen_hf.serving.grouping.FIRST_GUESS", 100.0)
    client = serve(load=gate.load)
    posts = at_work(client, gate)
    for number, text in enumerate(["a" * 1000, "art", "b" * 5000, "organ", "c" * 9000]):
        posts.start(text)
        wait_for_texts(client, number + 1)
    gate.open.set()
    posts.wait()
    assert [[text[0] for text in call] for call in gate.calls] == [["m"], ["a", "b", "c"], ["a", "o"]]


def test_clients_that_ask_again_at_once_are_in_the_next_batch(serve, gate, monkeypatch):
    monkeypatch.setattr("xlgen_hf.serving.batching.PATIENCE", 1000.0)
    client = serve(load=gate.load)
    posts = at_work(client, gate)
    posts.start("art")
    wait_for_texts(client, 1)
    gate.open.set()
    posts.threads[0].join()
    posts.start("organ")
    posts.wait()
    assert [sorted(call) for call in gate.calls] == [["music"], ["art", "organ"]]


@pytest.fixture
def four_cores():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def test_batches_run_at_the_same_time_and_share_the_cores(serve, gate, four_cores):
    client = serve(load=gate.load, parallel_batches=2)
    gate.cpu_threads.clear()
    posts = at_work(client, gate)
    posts.start("art")
    gate.wait_for_calls(2)
    posts.start("organ")
    wait_for_texts(client, 1)
    gate.open.set()
    assert {answer.status_code for answer in posts.wait().values()} == {200}
    assert gate.calls == [["music"], ["art"], ["organ"]]
    assert gate.cpu_threads[:2] == [4, 2]  # the first one had nobody beside it


def test_a_model_that_is_loaded_again_has_all_cores(serve, folder, four_cores):
    loaded_with = []

    def load(name):
        loaded_with.append(torch.get_num_threads())
        return load_predictor(name)

    client = serve(load=load, parallel_batches=4, reload_seconds=0.05)
    predict_at_once = Posts(client)
    for text in ("art", "organ", "music", "the piano"):
        predict_at_once.start(text)
    predict_at_once.wait()
    torch.set_num_threads(1)  # as a batch leaves it behind
    load_predictor(str(folder)).source.model.save_pretrained(folder)
    while len(loaded_with) < 2:
        time.sleep(0.01)
    assert loaded_with == [4, 4]


def test_samples_run_alone(serve, gate):
    client = serve(load=gate.load)
    options = {"num_samples": 2, "seed": 3}
    expected = client.post("/v1/predict", json={"text": "art", **options}).json()
    gate.open.clear()
    gate.calls.clear()
    posts = Posts(client)
    for number, text in enumerate(["music", "organ", "art"]):
        posts.start(text, **options)
        if number == 0:
            gate.wait_for_calls(1)
    wait_for_texts(client, 2)
    gate.open.set()
    assert posts.wait()["art"].json() == expected
    assert sorted(gate.calls) == [["art"], ["music"], ["organ"]]


def test_one_that_fails_does_not_take_others_with_it(serve, gate, caplog):
    client = serve(load=gate.load)
    posts = at_work(client, gate)
    posts.start("art")
    posts.start(f"fail {SECRET}")
    wait_for_texts(client, 2)
    with caplog.at_level(logging.INFO, logger="xlgen_hf"):
        gate.open.set()
        answers = posts.wait()
    assert answers["art"].status_code == answers["music"].status_code == 200
    failed = answers[f"fail {SECRET}"]
    assert (failed.status_code, "the log of the server says where" in failed.json()["detail"]) == (500, True)
    assert "RuntimeError, raised in:" in caplog.text and "test_guard.py" in caplog.text
    assert "POST /v1/predict 500" in caplog.text
    assert SECRET not in caplog.text + failed.text


# ---------------------------------------------------------------------------------------------------- limits


def test_full_queue(serve, gate):
    client = serve(load=gate.load, queue_size=2, max_texts=2)
    posts = at_work(client, gate)
    posts.start("art")
    wait_for_texts(client, 1)
    refused = client.post("/v1/predict", json={"texts": ["organ", "piano"]})
    assert refused.status_code == 429
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert "The queue is full; try again in" in refused.json()["detail"]
    gate.open.set()
    assert {answer.status_code for answer in posts.wait().values()} == {200}
    assert client.post("/v1/predict", json={"texts": ["organ", "piano"]}).status_code == 200


def test_too_many_requests_at_once(serve, gate):
    client = serve(load=gate.load, max_requests=1)
    posts = at_work(client, gate)
    refused = client.post("/v1/predict", json={"text": "art"})
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert client.get("/health").status_code == 200
    assert client.get("/v1/labels", params={"query": "a"}).status_code == 429  # a search takes time, too
    gate.open.set()
    assert posts.wait()["music"].status_code == 200
    counted = client.get("/metrics").text  # what is refused counts for the route that it would have had
    assert 'xlgen_requests_total{path="/v1/predict",status="429"} 1.0' in counted and 'path="other"' not in counted


@pytest.mark.parametrize("whole", [True, False])
def test_a_deadline_after_the_answer_has_begun(whole):
    """The fault: a whole answer was called late, logged with a traceback, and not counted."""
    metrics, sent = Metrics(), []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"all of it", "more_body": not whole})
        time.sleep(0.1)  # the loop is held up, as by another thread that loads a model
        await asyncio.sleep(60)

    async def send(message):
        sent.append(message["type"])

    waiting = [{"type": "http.request", "body": b"{}", "more_body": False}]

    async def receive():
        return waiting.pop() if waiting else await asyncio.Event().wait()

    guard = Guard(app, settings=ServingSettings(timeout=0.05), metrics=metrics)
    scope = {"type": "http", "path": "/v1/predict", "method": "POST", "headers": []}
    with nullcontext() if whole else pytest.raises(HTTPException, match="No answer within"):
        asyncio.run(guard(scope, receive, send))
    assert sent == ["http.response.start", "http.response.body"]
    assert 'status="200"} 1.0' in metrics.text().decode()


def test_timeout(serve, gate):
    client = serve(load=gate.load, timeout=0.3)
    posts = at_work(client, gate)
    late = client.post("/v1/predict", json={"text": "art"})
    assert (late.status_code, late.headers["retry-after"]) == (503, "1")
    assert "No answer within 0.3 s" in late.json()["detail"]
    assert client.app.state.service.models["tiny"].batcher.waiting == 0  # it has left the queue
    gate.open.set()
    assert posts.wait()["music"].status_code == 503
    while client.post("/v1/predict", json={"text": "organ"}).status_code != 200:  # what runs is finished first
        time.sleep(0.05)
    assert ["art"] not in gate.calls


def test_large_bodies(serve):
    client = serve(max_body_mb=1, max_characters=10_000_000)
    large = b'{"text": "' + b"a" * 1_000_000 + b'"}'
    answer = client.post("/v1/predict", content=large, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["detail"]) == (
        413, "The body is too large; at most 1 MB. Send several requests.",
    )  # fmt: skip
    parts = (large[start : start + 100_000] for start in range(0, len(large), 100_000))  # of a length not declared
    assert client.post("/v1/predict", content=parts).status_code == 413


def test_settings_are_checked():
    with pytest.raises(ConfigurationError, match="timeout=0; it must be a number > 0"):
        ServingSettings(timeout=0)
    with pytest.raises(ConfigurationError, match="max_texts=256 is greater than queue_size=9; lower the one or raise"):
        ServingSettings(queue_size=9)


# ---------------------------------------------------------------------------------------------------- keys, CORS


def test_api_keys(serve):
    client = serve(app_options={"api_keys": ["first-key", "second-key"]})
    body = {"text": "art"}
    for headers in ({}, {"X-API-Key": "first"}, {"Authorization": "Basic first-key"}, {"X-API-Key": "ключ"}):
        headers = {name: value.encode() for name, value in headers.items()}
        answer = client.post("/v1/predict", json=body, headers=headers)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    for headers in ({"X-API-Key": "first-key"}, {"Authorization": "Bearer second-key"}):
        assert client.post("/v1/predict", json=body, headers=headers).status_code == 200
    assert client.get("/v1/models").status_code == client.get("/metrics").status_code == 401
    assert client.get("/health").status_code == client.get("/openapi.json").status_code == 200


def test_keys_come_from_a_file_and_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv(API_KEY_VARIABLE, raising=False)
    assert read_api_keys(None) == ()
    path = tmp_path / "keys"
    path.write_text("first-key\n\nsecond-key\n")
    monkeypatch.setenv(API_KEY_VARIABLE, "third-key\n")
    assert read_api_keys(path) == ("first-key", "second-key", "third-key")
    monkeypatch.setenv(API_KEY_VARIABLE, "")
    with pytest.raises(ConfigurationError, match="An API key must have at least 8 characters"):
        read_api_keys(None)
    path.write_text("\n")
    with pytest.raises(ConfigurationError, match="keys holds no API key; write one per line"):
        read_api_keys(path)


def test_cors_is_off_unless_asked(serve):
    page, other = {"Origin": "https://a.example"}, {"Origin": "https://b.example"}
    assert "access-control-allow-origin" not in serve().get("/v1/models", headers=page).headers
    client = serve(app_options={"allow_origins": ["https://a.example"], "api_keys": ["first-key"]})
    refused = client.get("/v1/models", headers=page)
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, "https://a.example")
    assert "access-control-allow-origin" not in client.get("/v1/models", headers=other).headers
    asked = {**page, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "X-API-Key"}
    assert client.options("/v1/predict", headers=asked).status_code == 200


def test_logs_hold_nothing_of_requests(serve, tmp_path, caplog):
    client = serve(corrections={"tiny": tmp_path / "corrections.jsonl"})
    predict = {
        "text": [{"text": SECRET}, {"text": 1, "model": SECRET}, {"text": "art", "model": SECRET}],
        "options": [
            {"text": SECRET, name: value}
            for name, value in {
                "allow": [SECRET], "deny": [SECRET], "cluster": [SECRET], "branch": [SECRET], SECRET: 1,
                "without_branch": [SECRET], "output_language": SECRET, "given": [[SECRET]], "objective": SECRET,
            }.items()
        ],
    }  # fmt: skip
    document = {"text": SECRET, "document_id": SECRET, "metadata": {SECRET: SECRET}}
    subjects = ([{"uri": SECRET, "label": SECRET}], [{"uri": SECRET}])
    with caplog.at_level(logging.DEBUG):
        for body in [*predict["text"], *predict["options"]]:
            client.post("/v1/predict", json=body, headers={"X-API-Key": SECRET})
        client.post("/v1/predict", content=f'{{"text": "{SECRET}')
        client.post("/v1/score", json={"text": SECRET, "candidates": [SECRET], "given": [[SECRET]]})
        client.get("/v1/labels", params={"query": SECRET, "model": SECRET})
        client.get(f"/{SECRET}")
        client.post(f"/v1/projects/{SECRET}/suggest", data={"text": SECRET})
        client.post("/v1/projects/tiny/suggest", data={"text": SECRET, "language": SECRET, "limit": SECRET})
        client.post("/v1/projects/tiny/suggest-batch", json={"documents": [document]})
        for labels in subjects:
            client.post("/v1/projects/tiny/learn", json=[{**document, "subjects": labels}])
    of_client = ("httpx", "httpcore")  # which log the addresses that they ask for
    lines = [one.getMessage() for one in caplog.records if not one.name.startswith(of_client)]
    assert sum(line.startswith(("POST /", "GET /", "POST other", "GET other")) for line in lines) == 21
    assert any(line.startswith("Given labels that the model does not have, ") and ": 1," in line for line in lines)
    assert not [line for line in lines if "zebra" in line]


def test_records_of_other_times_keep_their_values(client, caplog):
    record = logging.getLogRecordFactory()
    with answering():
        hidden = record("a", logging.INFO, "", 1, "%d of %s, %(x)s", ({"x": "y", "n": 2},), None)
        logging.getLogger("lib").error("%d of %s, %.1f%% %r", 3, SECRET, 1.5, [SECRET], exc_info=ValueError(SECRET))
    logging.getLogger("lib").error("%d of %s", 3, "model")
    assert hidden.args == {"x": "(hidden)", "n": 2}
    assert [one.getMessage() for one in caplog.records] == ["3 of (hidden), 1.5% '(hidden)'", "3 of model"]
    assert SECRET not in caplog.text
