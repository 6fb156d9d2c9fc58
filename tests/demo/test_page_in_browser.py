"""The page in Chromium: what people see, press and type, on a phone, in the dark, without a mouse, with bad intent.

It needs Chromium and the extra `browser`. `CHROMIUM` names another browser than that on the PATH, `AXE_CORE` the file
`axe.min.js` of axe-core, which checks names, roles and contrast, and `SCREENSHOTS` a folder for pictures of the pages.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hostile import HOSTILE
from processes import COMMAND, Forked
from sources import make_rcl, make_retriever, make_untrained
from tiny import ROWS, VOCABULARY

from xlgen_hf.cli.main import main
from xlgen_hf.demo import rendering
from xlgen_hf.demo.asking import Answer
from xlgen_hf.demo.rendering import framed, isolated, render_answers
from xlgen_hf.labels.space import LabelSpace
from xlgen_hf.loading import load_predictor
from xlgen_hf.prediction.evidence import LabelEvidence
from xlgen_hf.prediction.results import LabelPrediction
from xlgen_hf.ranking.score_model import ScoreModel
from xlgen_hf.retrieval.evidence import NameEvidence
from xlgen_hf.retrieval.model_sources import save_source_alone

playwright = pytest.importorskip("playwright.sync_api", reason="the extra `browser` is not installed")
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
AXE = os.environ.get("AXE_CORE", "")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
SIZES = {"wide": {"width": 1280, "height": 900}, "phone": {"width": 360, "height": 740}}


@pytest.fixture(scope="module")
def demo(checkpoints, tmp_path_factory):
    """The address of a running page of two indexes, one of whose labels means harm, and its file of corrections."""
    folder = tmp_path_factory.mktemp("demo")
    for name, more in (("plain", []), ("odd", [HOSTILE])):
        space = LabelSpace.from_label_lists([row["labels"] for row in ROWS], [*VOCABULARY, *more])
        retriever = make_retriever(checkpoints["bert"], space, lexical=True)
        save_source_alone(folder / name, space, "retrieval", retriever, ScoreModel())
    models = ["--model", folder / "plain", "--model", folder / "odd"]
    with running(folder, *models, "--corrections", folder / "corrections.jsonl") as address:
        yield address, folder / "corrections.jsonl"


@pytest.fixture(scope="module")
def guided(checkpoints, tmp_path_factory):
    """The address of a running page of models that clusters and candidates guide."""
    folder = tmp_path_factory.mktemp("guided")
    space = LabelSpace.from_label_lists([row["labels"] for row in ROWS], VOCABULARY)
    made = {name: make_untrained(checkpoints["bert"], name, space, min_labels=2) for name in ("bcl", "mcg")}
    for name, (model, processor) in {**made, "rcl": make_rcl(checkpoints["bert"], space)}.items():
        model.save_pretrained(folder / name)
        processor.save_pretrained(folder / name)
    models = [part for name in ("bcl", "mcg", "rcl") for part in ("--model", folder / name)]
    with running(folder, *models) as address:
        yield address


@contextmanager
def running(folder, *options):
    """The address of a running page, which says nothing but that until it is told to end."""
    process = Forked(folder, COMMAND, "demo", *options, "--port", "0")
    try:
        process.wait_for("in a browser")
        said = process.stderr.read_text()
        yield re.search(r"http://\S+", said)[0]
        assert process.stderr.read_text() == said  # a page that is used says nothing
        assert re.fullmatch(r"xlgen: open http://\S+ in a browser\n", said)
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 0
    finally:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)


@pytest.fixture(scope="module")
def chromium():
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def browse(chromium, demo):
    """A function that opens the page; at the end nothing went wrong in it, and nobody else was asked."""
    contexts, wrong = [], []

    def begin(scheme="light", size=SIZES["wide"], address=demo[0]):
        context = chromium.new_context(color_scheme=scheme, viewport=size)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda one: wrong.append(one.text) if one.type in ("error", "warning") else None)
        page.on("pageerror", lambda err: wrong.append(str(err)))
        page.on("dialog", lambda one: (wrong.append(f"dialog {one.message}"), one.dismiss()))
        page.on("request", lambda one: wrong.append(one.url) if is_foreign(one.url, address) else None)
        page.goto(address)
        page.get_by_label("Text", exact=True).wait_for()
        return page

    yield begin
    for context in contexts:
        context.close()
    assert not wrong


def is_foreign(url: str, address: str) -> bool:
    return not url.startswith((f"{address}/", "data:", "blob:"))


def predict(page, text: str) -> None:
    page.get_by_label("Text", exact=True).fill(text)
    page.get_by_role("button", name="Predict").click()
    page.locator(".xl-answer, .xl-notice").first.wait_for()


def tab_to(page, where: str, wanted: str, key: str = "Tab") -> None:
    """Press the Tab key until what is focused is the wanted part."""
    for _ in range(80):
        page.keyboard.press(key)
        if (page.evaluate(where) or "").strip() == wanted:
            return
    pytest.fail(f"{key} does not lead to {wanted!r}")


def look_at(page, name: str) -> None:
    """The page fits, axe-core has nothing to say, and a picture is kept where `SCREENSHOTS` names a folder."""
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)
    if not AXE:
        pytest.skip("axe-core is not there: AXE_CORE names no axe.min.js")
    page.add_script_tag(content=Path(AXE).read_text(encoding="utf-8"))
    found = page.evaluate("axe.run()")
    assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found["violations"]] == []


every_screen = pytest.mark.parametrize(
    ("scheme", "size"), [(scheme, size) for scheme in ("light", "dark") for size in ("wide", "phone")]
)


@every_screen
def test_it_fits_and_can_be_read(browse, scheme, size):
    page = browse(scheme, SIZES[size])
    predict(page, "a history of organ music")
    page.get_by_text("Options").click()
    page.get_by_label("Number of labels, at most").first.wait_for()
    assert page.locator("body.dark").count() == (scheme == "dark")
    assert page.locator(".xl-text mark").count()
    look_at(page, f"index-{scheme}-{size}")


@every_screen
def test_what_guided_the_models(browse, guided, scheme, size):
    page = browse(scheme, SIZES[size], guided)
    predict(page, "a history of organ music")
    page.locator(".xl-answer").nth(2).wait_for()
    assert page.locator(".xl-model").all_inner_texts() == ["bcl", "mcg", "rcl"]
    shown = []
    for answer in page.locator(".xl-answer").all():
        guides = answer.locator(".xl-guides")
        title = guides.locator("summary").inner_text()
        guides.locator("summary").focus()
        page.keyboard.press("Enter")
        guides.locator("li").first.wait_for()
        chips = guides.locator("li").all_inner_texts()
        assert title.endswith(f"({len(chips)})") and all(chips)
        shown.append((title.partition(" (")[0], chips))
    (clusters, of_bcl), (also_clusters, of_mcg), (candidates, of_rcl) = shown
    assert clusters == also_clusters == "Clusters that guided the model"
    assert {name.partition(" ")[0] for name in of_bcl + of_mcg} == {"cluster"}
    labels = {label for row in ROWS for label in row["labels"]} | set(VOCABULARY)
    assert candidates == "Candidates that the model read" and set(of_rcl) <= labels
    look_at(page, f"guided-{scheme}-{size}")


def test_new_labels_have_a_score_by_every_model(browse, guided):
    """Whether a model would choose a label or not, who typed it in sees what the model thinks of it."""
    page = browse(address=guided)
    page.get_by_role("button", name="Options").click()
    page.get_by_label("New labels").fill("organ history\nmodern")
    predict(page, "a history of organ music")
    page.locator(".xl-answer").nth(2).wait_for()
    assert page.locator(".xl-alert").count() == 0
    for answer in page.locator(".xl-answer").all():
        scores = {
            label.locator(".xl-name").first.inner_text(): float(label.locator(".xl-score").first.inner_text())
            for label in answer.locator(".xl-label").all()
        }
        assert {"organ history", "modern"} <= scores.keys()
        assert all(0 <= score <= 1 for score in scores.values())
    look_at(page, "new-labels")


def test_without_a_mouse_from_a_text_to_a_correction(browse, demo, tmp_path):
    page = browse()
    page.get_by_label("Text", exact=True).focus()
    page.keyboard.type("modern organ music")
    tab_to(page, "document.activeElement.innerText", "Predict")
    page.keyboard.press("Enter")
    page.locator(".xl-label").first.wait_for()
    label = page.locator(".xl-name").first.inner_text()
    tab_to(page, "document.activeElement.dataset.label", label)
    page.keyboard.press("Space")
    assert page.locator(f'.xl-accept input[data-label="{label}"]:checked').count() == 2  # of both models
    tab_to(page, "document.activeElement.innerText", "Save the accepted labels")
    page.keyboard.press("Enter")
    page.get_by_text(f"Saved: {label}.").wait_for()
    assert json.loads(demo[1].read_text().splitlines()[-1]) == {"text": "modern organ music", "labels": [label]}
    index = shutil.copytree(demo[1].with_name("plain"), tmp_path / "index")
    assert main(["update", "--model", str(index), "--add-rows", str(demo[1])]) == 0
    assert load_predictor(str(index)).source.same_texts(["modern organ music"]).nnz == 1


def test_missing_labels_are_those_of_one_text(browse, demo):
    page = browse()
    predict(page, "a history of rye bread")
    missing = page.get_by_label("Labels that are missing")
    missing.click()
    missing.press_sequentially("rye")
    missing.press("Enter")
    saving = page.get_by_role("button", name="Save the accepted labels")
    for _ in range(2):  # of equal texts the last row counts, so the second must have the label as well
        saving.click()
        page.get_by_text("Saved: rye.").wait_for()
        page.get_by_role("button", name="Predict").click()
        page.get_by_text("Saved: rye.").wait_for(state="detached")
    predict(page, "organ music")
    page.locator('.xl-text:has-text("organ music")').first.wait_for()
    page.locator(".xl-accept input").first.check(force=True)
    saving.click()
    page.get_by_text("Saved: ").wait_for()
    first, second, other = [json.loads(line) for line in demo[1].read_text().splitlines()[-3:]]
    assert first == second == {"text": "a history of rye bread", "labels": ["rye"]}
    assert other["text"] == "organ music" and len(other["labels"]) == 1 and "rye" not in other["labels"]


def test_marks_belong_to_the_label_that_is_looked_at(browse):
    page = browse()
    predict(page, "a history of organ music")
    assert page.locator("mark.xl-strong").count() == 0
    card = page.locator(".xl-label").first
    card.locator("summary").focus()
    places = page.locator("mark.xl-strong").evaluate_all("marks => marks.map(one => one.dataset.places.split(' '))")
    assert places and all("0" in one for one in places)


def test_marks_stay_while_one_scrolls_the_text_to_them(browse):
    page = browse()
    predict(page, "a history of organ music" + "\n" * 50 + "organ music")
    strong = page.locator("mark.xl-strong")
    text, labels = page.locator(".xl-text").first, page.locator(".xl-answer").first.locator(".xl-label")
    marks = page.locator(".xl-answer").first.locator("mark[data-places]").evaluate_all(
        "marks => marks.map(one => one.dataset.places.split(' '))"
    )  # fmt: skip
    assert text.evaluate("box => box.scrollHeight > 2 * box.clientHeight")
    counts = [sum(str(place) in one for one in marks) for place in range(labels.count())]
    most = counts.index(max(counts))
    assert most > 1 and counts[most] > counts[0] > 0  # labels are between it and the text
    labels.first.locator("summary").focus()
    page.keyboard.press("Shift+Tab")
    assert page.evaluate("document.activeElement.className") == "xl-text" and strong.count() == counts[0]
    labels.nth(most).locator("summary").focus()
    page.keyboard.press("Enter")
    tab_to(page, "document.activeElement.className", "xl-text", "Shift+Tab")
    assert strong.count() == counts[most]
    labels.first.hover()
    assert strong.count() == counts[0]
    text.hover()
    assert strong.count() == counts[most]
    predict(page, "organ music")
    page.wait_for_function("document.querySelector('.xl-text').innerText === 'organ music'")
    labels.first.hover()
    shown = strong.count()
    text.hover()
    assert strong.count() == shown > 0


def test_directions_of_text(chromium):
    """Names and texts have the directions of their own letters, and the rest of a message stays where it is."""
    reasons = [LabelEvidence("خبز", 0.5, {}, {}, [NameEvidence("خبز", "lexical", 0.5, 0.6, [(6, 9)], ["خبز"])], [])]
    answer = Answer("m", LabelPrediction(["خبز (طعام)"], [0.5], evidence=reasons))
    message = framed(f"Saved: {isolated('evil' + chr(0x202E) + 'label')}; <i>music</i> <b>of the world</b>.")
    page = chromium.new_page()
    style = Path(rendering.__file__).with_name("page.css").read_text(encoding="utf-8")
    shown = render_answers("نص عن خبز (2024).\nBread (2024).", [answer], review=True)
    page.set_content(f"<style>{style}</style>{message}{shown}")
    begins = [page.locator(f".xl-notice {part}").bounding_box()["x"] for part in ("bdi", "i", "b")]
    assert begins == sorted(begins)
    directions = {part: page.locator(part).evaluate("one => getComputedStyle(one).direction") for part in (
        ".xl-text", ".xl-name bdi", ".xl-model bdi"
    )}  # fmt: skip
    assert directions == {".xl-text": "rtl", ".xl-name bdi": "rtl", ".xl-model bdi": "ltr"}
    page.close()


def test_hostile_texts_and_labels_do_nothing(browse):
    page = browse()
    predict(page, HOSTILE)
    page.get_by_text("Options").click()
    page.get_by_label("Number of labels, at most").first.fill("11")
    predict(page, f"{HOSTILE} music")
    page.locator(".xl-name", has_text="onerror").wait_for()
    assert page.locator(".xl-name", has_text="onerror").inner_text() == HOSTILE
    assert page.locator(".xl img, .xl script").count() == 0


def test_what_is_offered_is_for_all_letters_that_were_typed_during_a_search(browse):
    page, held, searches = browse(), [], "**/queue/join*"
    page.get_by_text("Options").click()
    box = page.get_by_label("Only these labels")
    box.click()
    page.route(searches, lambda route: route.continue_() if held else held.append(route))
    with page.expect_request(searches):
        box.press_sequentially("x")
    box.press("Backspace")
    box.press_sequentially("piano")
    with page.expect_request(searches):  # the next search begins when the labels with an x have come: none
        held[0].continue_()
    page.get_by_role("option", name="piano").click()


def test_options_and_files(browse, tmp_path):
    page = browse()
    (tmp_path / "a.txt").write_text("the history of art")
    page.locator("input[type=file]").set_input_files(tmp_path / "a.txt")
    page.get_by_text("a.txt was read.").wait_for()
    box = page.get_by_label("Text", exact=True)
    assert box.input_value() == "the history of art"
    assert box.evaluate("one => getComputedStyle(one).unicodeBidi") == "plaintext"  # by its own letters
    page.get_by_text("Options").click()
    box = page.get_by_label("Only these labels")
    box.click()
    box.press_sequentially("pian")
    page.get_by_role("option", name="piano").click()
    page.get_by_role("button", name="Predict").click()
    page.locator(".xl-label").first.wait_for()
    assert set(page.locator(".xl-name").all_inner_texts()) == {"piano"}
    (tmp_path / "b.pdf").write_bytes(b"%PDF-1.4 broken")
    page.locator("input[type=file]").set_input_files(tmp_path / "b.pdf")
    page.get_by_text("b.pdf: The file cannot be read as .pdf").wait_for()
