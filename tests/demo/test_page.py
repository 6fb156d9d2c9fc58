"""The page as it is served: what people send it, what it writes, and what it must not do."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import time
import urllib.request
from contextlib import suppress

import pytest
from hostile import HOSTILE
from processes import COMMAND, Forked

from xlgen_hf.cli.main import main
from xlgen_hf.demo.choices import example_texts
from xlgen_hf.demo.documents import readable_endings
from xlgen_hf.loading import load_predictor
from xlgen_hf.serving.corrections import CorrectionsFile

TEXT = "a history of organ music"
OPTIONS = ("as the model decides", 5, 0.0, [], [], "", 0.0)
CHOSEN = ("by number and score", 3, 0.0, [], [], "", 0.0)


@pytest.fixture
def corrections(tmp_path):
    return CorrectionsFile(tmp_path / "corrections.jsonl")


def rows_of(file):
    return [json.loads(line) for line in file.path.read_text().splitlines()]


# ---------------------------------------------------------------------------------------------------- asking


def test_a_text_gets_labels(open_page, index):
    client, page = open_page(index)
    html, asked = client.portal.call(page.predict, TEXT, *CHOSEN)
    assert asked == TEXT
    assert html.count('class="xl-label"') == 3
    assert "xl-review" not in html


def test_a_model_of_the_hub_answers_beside_a_folder(open_page, index, model, hub):
    assert main(["push", "model", "--model", str(model), "--repo-id", "alice/organ"]) == 0
    client, page = open_page("alice/organ", index, "named=alice/organ")
    html, _ = client.portal.call(page.predict, TEXT, *CHOSEN)
    assert list(page.service.models) == ["organ", "index", "named"]
    assert html.count('class="xl-label"') == 9
    assert len(example_texts(["alice/organ", index])) > 1  # those of the sample: no card has any


@pytest.mark.parametrize("text", ["", " \n", None])
def test_no_text_is_said(open_page, index, text):
    client, page = open_page(index)
    html, asked = client.portal.call(page.predict, text, *OPTIONS)
    assert "There is no text" in html and asked == ""


def test_hostile_texts_are_texts(open_page, index, model):
    client, page = open_page(index, model)
    for text in (HOSTILE, "\ud800 half", "\0\x1b[31m", "a" * 100_000):
        html, asked = client.portal.call(page.predict, text, *CHOSEN)
        assert asked and "<img" not in html and "xl-alert" not in html
    html, asked = client.portal.call(page.predict, "a" * 1_000_000, *CHOSEN)
    assert html.count("at most 100000. Shorten it.") == 2 and asked == ""
    html, _ = client.portal.call(page.predict, TEXT, *CHOSEN[:3], [HOSTILE], [], f"{HOSTILE}\n\nnew", 0.0)
    assert "xl-alert" in html and "<img" not in html


def test_a_file_is_read_and_removed(open_page, index, tmp_path):
    client, page = open_page(index, max_characters=20)
    for content, text, message in (
        ("rye bread", "rye bread", "was read."),
        ("rye bread and oats and more", "rye bread and oats a", "Only its first 20 characters were taken."),
        ("", "what was there", "has no text"),
    ):
        file = tmp_path / "uploads" / f"{HOSTILE.replace('/', '')}.txt"
        file.write_text(content)
        found, html = client.portal.call(page.read, str(file), "what was there")
        assert found == text and message in html and "<img" not in html
        assert not file.exists()


# ---------------------------------------------------------------------------------------------------- corrections


def save(client, page, *given):
    return client.portal.call(page.save, *given)


def test_accepted_labels_are_saved_and_xlgen_update_takes_them(open_page, index, corrections, capsys):
    client, page = open_page(index, corrections=corrections)
    html, asked = client.portal.call(page.predict, "modern church organ", *CHOSEN)
    assert html.count("Accept") == 3
    decisions = json.dumps({"organ": "accept", "art": "reject", "church music": "accept"})
    saved = save(client, page, asked, ["organ", " new label "], decisions)
    assert "Saved: <bdi>organ</bdi>; <bdi>church music</bdi>; <bdi>new label</bdi>." in saved
    assert (
        "Not a label of every model yet: <bdi>new label</bdi> (&#96;xlgen update --unknown-labels add&#96;)" in saved
    )
    save(client, page, 'zwei\nZeilen 面包 "x"', [], json.dumps({"art": "accept"}))
    assert "Saved: no label is right." in save(client, page, "zwei", [], json.dumps({"art": "reject"}))
    assert rows_of(corrections) == [
        {"text": "modern church organ", "labels": ["organ", "church music", "new label"]},
        {"text": 'zwei\nZeilen 面包 "x"', "labels": ["art"]},
        {"text": "zwei", "labels": []},
    ]
    command = ["update", "--model", str(index), "--add-rows", str(corrections.path), "--unknown-labels", "add"]
    assert main(command) == 0
    assert "documents that are new: 2" in capsys.readouterr().out
    (found,) = load_predictor(str(index)).predict(["modern church organ"])
    assert set(found.labels) & {"organ", "church music", "new label"}


def test_another_text_takes_its_own_missing_labels(open_page, index, corrections):
    client, _ = open_page(index, corrections=corrections)
    kept, emptied, asked = {"__type__": "update"}, [], ""
    for text, missing in (("an organ", emptied), ("an organ", kept), ("a piano", emptied), ("", emptied)):
        answers, asked, added, message = call(client, "Predict", [asked, text, *CHOSEN])["data"]
        assert (added, message) == (missing, "")
        assert answers.count('class="xl-label"') == (3 if text else 0)


def test_a_text_is_saved_however_long_ago_the_answer_was(open_page, index, corrections):
    client, _ = open_page(index, corrections=corrections)
    asked = call(client, "Predict", ["", "an organ", *CHOSEN])["data"][1]
    other, _ = open_page(index, corrections=corrections)  # which knows nothing of that
    saved = call(other, "Save the accepted labels", [asked, [], json.dumps({"organ": "accept"})])["data"]
    assert "Saved: <bdi>organ</bdi>." in saved[0]
    assert rows_of(corrections) == [{"text": "an organ", "labels": ["organ"]}]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("", ["a"], "{}"), "press “Predict” first"),
        ((TEXT, [], "{}"), "No label was accepted, rejected or added"),
        ((TEXT, ["  "], '{"": "accept", " ": "accept"}'), "No label was accepted, rejected or added"),
        ((TEXT, ["a"], "[]"), "load the page again"),
        ((TEXT, ["a"], '{"organ": {"$where": 1}}'), "load the page again"),
        ((TEXT, ["a"], '{"organ": "maybe"}'), "load the page again"),
        ((TEXT, ["a"], "{"), "load the page again"),
        ((TEXT, ["a" * 501], "{}"), "At most 1000 labels of 500 characters"),
        ((TEXT, list(map(str, range(1001))), "{}"), "At most 1000 labels of 500 characters"),
    ],
)
def test_what_is_not_a_correction_is_refused(open_page, index, corrections, given, message):
    client, page = open_page(index, corrections=corrections)
    assert message in save(client, page, *given)
    assert rows_of(corrections) == []


def test_without_a_file_nothing_is_written(open_page, index):
    client, page = open_page(index)
    assert "takes no corrections" in save(client, page, TEXT, ["art"], "{}")
    assert "Save the accepted labels" not in client.get("/config").text


def test_a_file_that_cannot_be_written_is_said(open_page, index, corrections, tmp_path):
    client, page = open_page(index, corrections=corrections)
    corrections.path.unlink()
    corrections.path.mkdir()
    assert "Nothing was saved to" in save(client, page, TEXT, ["art"], "{}")


def test_rows_of_many_people_are_whole(open_page, index, corrections):
    client, page = open_page(index, corrections=corrections)

    async def all_at_once():
        await asyncio.gather(*(page.save(f"{number} {'x' * 3000}", ["art"], "{}") for number in range(100)))

    client.portal.call(all_at_once)
    assert sorted(int(row["text"].split()[0]) for row in rows_of(corrections)) == list(range(100))


# ---------------------------------------------------------------------------------------------------- the server


def call(client, button, data, event="click"):
    """Press a button as a browser does, and return what comes back."""
    config = client.get("/config").json()
    shown = (one for one in config["components"] if button in (one["props"].get("value"), one["props"].get("label")))
    pressed = next(one["id"] for one in shown)
    place = next(one["id"] for one in config["dependencies"] if [pressed, event] in one["targets"])
    body = {"data": data, "fn_index": place, "session_hash": "s"}
    assert client.post("/gradio_api/queue/join", json=body).status_code == 200
    events = client.get("/gradio_api/queue/data", params={"session_hash": "s"}).text
    done = [json.loads(line[6:]) for line in events.splitlines() if "process_completed" in line]
    return done[0]["output"]


def test_the_button_asks_the_models(open_page, index):
    client, _ = open_page(index)
    out = call(client, "Predict", [TEXT, *CHOSEN])
    assert out["data"][0].count('class="xl-label"') == 3


def test_the_page_needs_nobody_else(open_page, index):
    client, _ = open_page(index, examples=[HOSTILE])
    answer = client.get("/")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy and "http" not in policy
    assert "content-security-policy" not in client.get("/docs").headers
    config = json.loads(re.search(r"window.gradio_config = (.*?);</script>", answer.text)[1])
    assert config["analytics_enabled"] is False
    assert "https://" not in client.get("/theme.css").text
    assert "<img" not in answer.text


def test_only_files_that_were_uploaded_are_read_and_removed(open_page, index, tmp_path):
    client, _ = open_page(index)
    (tmp_path / "mine.txt").write_text("mine")
    button = f"Open {' or '.join(readable_endings())}"
    for path in (tmp_path / "mine.txt", tmp_path / "uploads" / ".." / "mine.txt"):
        file = {"path": str(path), "meta": {"_type": "gradio.FileData"}}
        assert "mine" not in json.dumps(call(client, button, [file, ""], "upload").get("data"))
    assert (tmp_path / "mine.txt").exists()
    (path,) = client.post("/gradio_api/upload", files={"files": ("a.txt", b"rye")}).json()
    file = {"path": path, "meta": {"_type": "gradio.FileData"}}
    assert call(client, button, [file, ""], "upload")["data"][0] == "rye"
    assert not list((tmp_path / "uploads").rglob("*.txt"))


@pytest.mark.parametrize("path", ["/etc/passwd", "setup.cfg", "../../etc/passwd", "{index}/label_space.json"])
def test_other_files_are_not_given_out(open_page, index, path):
    client, _ = open_page(index)
    answer = client.get(f"/gradio_api/file={path.format(index=index)}")
    assert answer.status_code in (403, 404)


def test_files_that_are_too_large_are_refused(open_page, index, tmp_path):
    client, _ = open_page(index, max_body_mb=1)
    answer = client.post("/gradio_api/upload", files={"files": ("a.txt", b"a" * 1_100_000)})
    assert answer.status_code == 413
    fine = client.post("/gradio_api/upload", files={"files": ("a.txt", b"a" * 900_000)})
    assert fine.status_code == 200 and str(tmp_path / "uploads") in fine.json()[0]


def test_an_open_page_does_not_keep_the_server_from_ending(index, tmp_path):
    pytest.importorskip("gradio", reason="the extra `demo` is not installed")
    process = Forked(tmp_path, COMMAND, "demo", "--model", index, "--port", "0", "--timeout", "1")
    try:
        process.wait_for("in a browser")
        said = process.stderr.read_text()
        (address,) = re.findall(r"http://\S+", said)
        with urllib.request.urlopen(f"{address}/gradio_api/heartbeat/s") as page:
            assert page.readline() == b"data: ALIVE\n"
            process.send_signal(signal.SIGTERM)
            assert process.wait() == 0
        assert process.stderr.read_text() == said
    finally:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)


def test_a_changed_model_is_loaded_again(open_page, index, label_space):
    client, page = open_page(index, reload_seconds=0.05)
    command = ["update", "--model", str(index), "--rename", "piano=grand piano"]
    assert main(command) == 0
    model = page.service.models["index"]
    end = time.monotonic() + 20
    while "grand piano" not in model.current.predictor.label_space and time.monotonic() < end:
        time.sleep(0.05)
    html, _ = client.portal.call(page.predict, "the grand piano", "by number and score", 10, 0.0, [], [], "", 0.0)
    assert "grand piano" in html
