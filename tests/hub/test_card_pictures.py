"""Pictures of cards: drawn where there is data, linked where they are, and in the way of no training or push."""

from __future__ import annotations

import importlib.util
import json
import logging

import numpy as np
import pytest

from xlgen_hf.evaluation.details import score_details
from xlgen_hf.hub import card_pictures
from xlgen_hf.hub.card_pictures import PICTURES, draw_pictures, pictures_in
from xlgen_hf.hub.local_cards import write_local_card
from xlgen_hf.hub.push import push_model
from xlgen_hf.labels.clusters import LabelClusters, LabelMap
from xlgen_hf.ranking.reliability import reliability_table
from xlgen_hf.ranking.risk_coverage import risk_coverage

pytest.importorskip("matplotlib", reason="the extra `plot` is not installed")

HISTORY = [
    {"step": step, "epoch": step / 5, "loss": 6.0 / step, "generation_loss": 5.0 / step} for step in range(1, 6)
]
BUCKETS = {
    f"{bucket}_shot_{part}": value
    for bucket in ("0", "1", "2+")
    for part, value in {"labels": 3, "support": 4, "micro_f1": 0.5, "macro_f1": 0.25}.items()
}
SCORED = {
    "micro_f1": 0.5, "macro_f1": 0.25, **BUCKETS, "baselines": {"most frequent": {"macro_f1": 0.1, **BUCKETS}},
    **score_details(
        reliability_table(np.array([0.2, 0.9]), np.array([0, 1])),
        {"example_f1": risk_coverage(np.array([0.2, 0.9]), np.array([0.0, 1.0]))},
    ),
}  # fmt: skip
_, SHOTS, RELIABILITY, RISK, _ = PICTURES
OF_THE_FOLDER = [PICTURES[0], PICTURES[4]]


@pytest.fixture
def folder(make_model, tmp_path):
    """A model with clusters on a map and the losses of its training."""
    model, processor = make_model("bert", "bcl")
    place = tmp_path / "model"
    model.save_pretrained(place)
    processor.save_pretrained(place)
    clusters = LabelClusters.load(place)
    positions = np.random.default_rng(0).normal(size=(len(clusters.assignment), 2)).astype(np.float32)
    clusters.label_map = LabelMap(np.arange(len(clusters.assignment)), positions)
    clusters.save(place)
    write_history(place, HISTORY)
    return place


def write_history(folder, history):
    report = {"format_version": 1, "variant": "bcl", "history": history}
    (folder / "training_report.json").write_text(json.dumps(report))


def test_a_trained_folder_shows_its_clusters_and_its_training(folder):
    write_local_card(folder)
    assert pictures_in(folder) == OF_THE_FOLDER
    card = (folder / "README.md").read_text(encoding="utf-8")
    for path in PICTURES:
        assert (f"]({path})" in card) == (path in OF_THE_FOLDER)
    for path in OF_THE_FOLDER:
        assert (folder / path).read_bytes().startswith(b"\x89PNG") and (folder / path).stat().st_size < 100_000


def test_pictures_of_before_go_where_there_is_nothing_to_draw(folder):
    write_local_card(folder)
    write_history(folder, HISTORY[:2])  # a training too short for a curve
    write_local_card(folder)
    assert pictures_in(folder) == OF_THE_FOLDER[:1]
    assert "training.png" not in (folder / "README.md").read_text(encoding="utf-8")


def test_a_card_that_is_only_written_again_keeps_its_pictures(folder):
    write_local_card(folder)
    before = {path: (folder / path).stat().st_mtime_ns for path in OF_THE_FOLDER}
    write_local_card(folder, draw=False)
    assert {path: (folder / path).stat().st_mtime_ns for path in OF_THE_FOLDER} == before
    assert f"]({OF_THE_FOLDER[1]})" in (folder / "README.md").read_text(encoding="utf-8")


def test_no_room_for_pictures(folder, caplog):
    (folder / "images").write_text("a file of the user's")
    write_local_card(folder)
    assert "The card goes without pictures: " in caplog.text
    assert (folder / "README.md").is_file() and (folder / "images").read_text() == "a file of the user's"


def test_without_matplotlib_there_are_none(folder, monkeypatch):
    monkeypatch.setattr(
        card_pictures, "find_spec", lambda name: None if name == "matplotlib" else importlib.util.find_spec(name)
    )
    write_local_card(folder)
    assert pictures_in(folder) == [] and "](images/" not in (folder / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("scored", "missing"),
    [
        ({"reliability": {"low": [0.1]}}, RELIABILITY),
        ({"reliability": {**SCORED["reliability"], "count": [1]}}, RELIABILITY),
        ({"risk_coverage": {"f1": {**SCORED["risk_coverage"]["example_f1"], "risk": [7.0, 0.1]}}}, RISK),
        ({"baselines": {"other": {"macro_f1": 1.0}}}, SHOTS),  # of other buckets
    ],
)
def test_what_cannot_be_drawn_is_left_out_with_a_warning(folder, caplog, scored, missing):
    drawn = draw_pictures(folder, "tiny", {**SCORED, **scored})
    assert missing not in drawn and set(OF_THE_FOLDER) <= set(drawn)
    assert f"The card goes without {missing}, which could not be drawn: " in caplog.text


def test_damaged_files_stop_neither_training_nor_push(folder, caplog):
    (folder / "label_clusters.json").write_text("{")
    with caplog.at_level(logging.WARNING):
        assert list(draw_pictures(folder, "tiny")) == OF_THE_FOLDER[1:]
    assert "The card goes without images/label_clusters.png" in caplog.text


def test_a_push_takes_pictures_of_the_scores_along(hub, folder):
    push_model(folder, "alice/tiny", scores=SCORED)
    *_, commit = hub.history("alice/tiny")
    assert set(PICTURES) <= set(commit["files"])
    card = hub.file("alice/tiny", "README.md").decode()
    assert [path for path in PICTURES if f"]({path})" in card] == list(PICTURES)
    assert hub.file("alice/tiny", SHOTS).startswith(b"\x89PNG")
    push_model(folder, "alice/tiny", ignore_patterns="*risk*", scores={**SCORED, "reliability": None})
    *_, last = hub.history("alice/tiny")
    assert RELIABILITY not in last["files"]  # it belonged to the other scores
    assert f"]({RISK})" not in hub.file("alice/tiny", "README.md").decode()
