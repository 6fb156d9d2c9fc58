"""`xlgen serve` as a process: Annif's published client, a model that changes, signals, kills, and its command line."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import threading
import time
import urllib.error
import urllib.request
from contextlib import closing, suppress

import pytest
import torch
from fastapi import FastAPI
from processes import COMMAND, Forked

from xlgen_hf.cli.main import main
from xlgen_hf.errors import ConfigurationError
from xlgen_hf.loading import load_predictor
from xlgen_hf.modeling_xlgen import XLGenForConditionalGeneration
from xlgen_hf.prediction.predictor import Predictor
from xlgen_hf.serving.app import open_socket, run_server

TEXTS = ["a history of church music", "modern art", "the piano", "organ music in the church", "art and music"] * 4


@pytest.fixture
def start(folder, tmp_path):
    """A function that starts a server, and gives it with the address that it answers at."""
    started = []

    def make(*options, place=None):
        here = place or tmp_path
        process = Forked(
            here, COMMAND, "serve", "--model", f"tiny={folder}", "--port", "0", "--reload-seconds", "0.1", *options
        )
        started.append(process)
        process.wait_for("serving tiny at")
        return process, re.search(r"http://\S+(?=,)", process.stderr.read_text())[0]

    yield make
    for process in started:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)


def post(address, body):
    request = urllib.request.Request(
        f"{address}/v1/predict", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)["predictions"]


def metrics_of(address):
    with urllib.request.urlopen(f"{address}/metrics", timeout=30) as answer:
        return answer.read().decode()


def labels_of(address, text):
    (one,) = post(address, {"text": text})
    return one["labels"]


def test_annifs_own_client_works_unchanged(start, folder, tmp_path):
    annif_client = pytest.importorskip("annif_client", reason="the extra `test` brings annif-client")
    import requests

    process, address = start("--corrections-file", tmp_path / "corrections.jsonl")
    client = annif_client.AnnifClient(f"{address}/v1/")
    assert "Annif" in client.api_info["title"]
    assert [one["project_id"] for one in client.projects] == ["tiny"]
    assert client.get_project("tiny")["language"] == "und"
    (expected,) = post(address, {"text": TEXTS[0], "top_k": 2})
    found = client.suggest("tiny", TEXTS[0], limit=2, threshold=0.0)
    assert [one["label"] for one in found] == expected["labels"]
    batch = client.suggest_batch("tiny", [{"text": TEXTS[0], "document_id": "d1"}, {"text": TEXTS[1]}], limit=2)
    assert [one["label"] for one in batch[0]["results"]] == expected["labels"]
    assert [one["document_id"] for one in batch] == ["d1", None]
    learned = client.learn("tiny", [{"text": "rye", "subjects": [{"uri": "art", "label": "art"}]}])
    assert learned.status_code == 204
    assert json.loads((tmp_path / "corrections.jsonl").read_text()) == {"text": "rye", "labels": ["art"]}
    with pytest.raises(ValueError, match="There is no model 'other'"):
        client.suggest("other", "x")
    with pytest.raises(requests.HTTPError, match="400"):
        client.suggest("tiny", "x", limit=-1)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 0
    log = process.stderr.read_text()
    assert "stopped." in log
    assert not any(text in log for text in (*TEXTS, "rye"))


def test_a_changed_model_is_loaded_while_the_former_one_answers(start, folder, make_model):
    process, address = start()
    before = labels_of(address, TEXTS[0])
    model = XLGenForConditionalGeneration.from_pretrained(folder)
    _, processor = make_model("bert", "bcl", min_labels=1)
    torch.manual_seed(7)
    with torch.no_grad():
        for value in model.parameters():
            value.normal_()
    after = Predictor.from_model(model.eval(), processor).predict([TEXTS[0]])[0].labels
    assert after != before
    failed, answers, stop = [], set(), threading.Event()

    def ask():
        while not stop.is_set():
            try:
                answers.add(tuple(labels_of(address, TEXTS[0])))
            except OSError as err:
                failed.append(err)

    asking = threading.Thread(target=ask)
    asking.start()
    model.save_pretrained(folder)
    process.wait_for("The model 'tiny' changed, and was loaded again")
    assert labels_of(address, TEXTS[0]) == after
    stop.set()
    asking.join(60)
    assert not failed
    assert answers <= {tuple(before), tuple(after)}
    (folder / "config.json").write_text("{}")
    process.wait_for("The changed model 'tiny' cannot be loaded; the former one goes on")
    assert labels_of(address, TEXTS[0]) == after


def test_what_runs_is_finished_at_sigterm(start, folder):
    process, address = start("--batch-size", "1")
    expected = [one.labels for one in load_predictor(str(folder)).predict(TEXTS)]
    answers = {}

    def ask(number):
        answers[number] = post(address, {"texts": TEXTS, "threshold": 0.0 if number else None})

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    while 'xlgen_waiting_texts{model="tiny"} 0.0' in metrics_of(address):
        time.sleep(0.002)
    process.send_signal(signal.SIGTERM)
    for thread in threads:
        thread.join(60)
    assert process.wait() == 0
    assert [one["labels"] for one in answers[0]] == expected
    assert all(len(answers[number]) == len(TEXTS) for number in range(3))
    with pytest.raises(urllib.error.URLError, match="refused"):
        labels_of(address, TEXTS[0])


def test_the_last_answers_say_that_their_connections_close():
    app, said = FastAPI(), []

    @app.get("/first")
    async def first() -> None:
        pass

    @app.get("/last")
    async def last() -> None:
        signal.raise_signal(signal.SIGINT)

    def ask():
        with closing(http.client.HTTPConnection("127.0.0.1", listener.getsockname()[1], timeout=60)) as connection:
            for path in ("/first", "/last"):
                connection.request("GET", path)
                with connection.getresponse() as answer:
                    said.append((answer.status, answer.read(), answer.headers["Connection"]))

    asking = threading.Thread(target=ask)
    with open_socket("127.0.0.1", 0) as listener:
        run_server(app, listener, timeout=1, started=asking.start)
    asking.join(60)
    assert said == [(200, b"null", None), (200, b"null", "close")]


def test_an_address_that_cannot_be_listened_at(caplog):
    with pytest.raises(ConfigurationError, match=r"a\.\.b, port 0, cannot be used: .*label empty or too long"):
        open_socket("a..b", 0)
    with open_socket("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        app, started = FastAPI(), []
        with pytest.raises(ConfigurationError, match=rf"127\.0\.0\.1, port {port}, cannot be used: Address already"):
            second = open_socket("127.0.0.1", port)  # which Linux allows until the first one listens
            first.listen()
            run_server(app, second, timeout=1, started=lambda: started.append(1))
    assert not started and not caplog.records


def wait_for_waiting(address, number):
    while f'xlgen_waiting_texts{{model="tiny"}} {number}.0' not in metrics_of(address):
        time.sleep(0.01)


def test_who_leaves_frees_the_queue(start):
    process, address = start("--batch-size", "1")
    long = {"texts": TEXTS * 2, "num_beams": 20}
    busy = [threading.Thread(target=post, args=(address, long)) for _ in range(2)]
    for thread in busy:
        thread.start()
    wait_for_waiting(address, len(TEXTS) * 2)  # the one runs, the other waits
    body = json.dumps({"text": "art"})
    head = f"POST /v1/predict HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2]))) as connection:
        connection.sendall(f"{head}\r\n\r\n{body}".encode())
        wait_for_waiting(address, len(TEXTS) * 2 + 1)
    process.wait_for("POST /v1/predict 499")
    wait_for_waiting(address, len(TEXTS) * 2)
    for thread in busy:
        thread.join(60)


def test_kills_and_restarts_give_no_wrong_answer(start, folder, tmp_path):
    expected = dict(zip(TEXTS, (one.labels for one in load_predictor(str(folder)).predict(TEXTS)), strict=True))
    answered = wrong = 0
    for number in range(2):
        (tmp_path / str(number)).mkdir()
        process, address = start(place=tmp_path / str(number))
        killer = threading.Timer(0.3, os.kill, (process.pid, signal.SIGKILL))
        try:
            while True:
                for text, labels in expected.items():
                    wrong += labels_of(address, text) != labels
                    answered += 1
                    if killer.ident is None:  # it begins with the first answer, which a busy machine takes long for
                        killer.start()
        except OSError:  # cut, or refused: never half an answer
            pass
        assert process.wait() == -signal.SIGKILL
    assert answered and not wrong


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--model", "{folder}"], "Two models would have the id 'model'; name one of them, as ID="),
        (["--model", "a b={folder}"], "a b="),
        (["--corrections-file", "x.csv"], "x.csv: the name must end in .jsonl"),
        (["--model", "b={folder}", "--corrections-file", "x.jsonl"], "say whose, as ID=FILE with one of model, b"),
        (["--timeout", "0"], "'0'; it must be a number > 0"),
        (["--predict-with", "candidate_head"], "candidate_head"),
        (["--api-key-file", "/nonexistent/keys"], "/nonexistent/keys"),
        (["--host", "203.0.113.1"], "203.0.113.1, port 0, cannot be used: Cannot assign requested address"),
    ],
)
def test_command_lines_that_cannot_be(folder, capsys, options, told):
    words = [word.format(folder=folder) for word in options]
    assert main(["serve", "--port", "0", "--model", str(folder), *words]) in (1, 2)
    assert told in capsys.readouterr().err
