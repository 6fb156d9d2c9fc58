"""Pictures of a card: drawn where matplotlib is installed, from what the files of the model and its scores say."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from ..files.score_details import check_details
from ..files.training_report import read_report
from ..labels.clusters import CLUSTERS_FILE, LabelClusters
from ..plots.clusters import plot_clusters
from ..plots.scores import plot_shot_buckets
from ..plots.training import plot_training
from ..plots.trust import plot_reliability, plot_risk_coverage
from ..ranking.reliability import ReliabilityTable
from ..ranking.risk_coverage import RiskCoverage
from .cards import read_scores

__all__ = ["PICTURES", "draw_pictures", "pictures_in"]

logger = logging.getLogger(__name__)

_FOLDER = "images"
PICTURES = tuple(
    f"{_FOLDER}/{name}.png"
    for name in ("label_clusters", "scores_by_shots", "reliability", "risk_coverage", "training")
)
"""The pictures that a card may show, by their paths from the card."""

_FEWEST_LOSSES = 5  # points of a curve that is worth a picture
_FEWEST_BUCKETS = 3  # of a bar chart
_Draw = Callable[[Path], object]


def draw_pictures(folder: Path, name: str, scores: Mapping[str, object] | None = None) -> dict[str, bytes]:
    """Draw what there is data for. What cannot be drawn is left out, with a warning: a card does without.

    Args:
        folder: the folder of a model or adapter.
        name: what the pictures call it.
        scores: scores on test rows, as `xlgen evaluate` writes them.

    Returns:
        Path from the card -> content. Empty where matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        logger.debug("matplotlib is not installed, so the card has no pictures.")
        return {}
    scored = scores or {}
    drawings: tuple[Callable[[], _Draw | None], ...] = (
        lambda: _clusters(folder),
        lambda: _shots(name, scored),
        lambda: _reliability(scored),
        lambda: _risk_coverage(scored),
        lambda: _training(folder),
    )
    found = {}
    with tempfile.TemporaryDirectory() as aside:
        for path, drawing in zip(PICTURES, drawings, strict=True):
            place = Path(aside) / Path(path).name
            try:
                draw = drawing()
                if draw is not None:
                    draw(place)
                    found[path] = place.read_bytes()
            except Exception as err:  # of our checks, of matplotlib, of its fonts: none is worth a failed training
                logger.warning("The card goes without %s, which could not be drawn: %s", path, err)
    return found


def pictures_in(folder: Path) -> list[str]:
    """Which pictures lie in the folder of a card."""
    return [path for path in PICTURES if (folder / path).is_file()]


def _clusters(folder: Path) -> _Draw | None:
    if not (folder / CLUSTERS_FILE).is_file():
        return None
    clusters = LabelClusters.load(folder)
    if clusters.label_map is None:
        return None
    title = f"{clusters.num_clusters} clusters of {len(clusters.assignment):,} labels"
    return lambda path: plot_clusters(clusters, path, title=title)


def _training(folder: Path) -> _Draw | None:
    history = read_report(folder).get("history", [])
    if sum("loss" in row for row in history) < _FEWEST_LOSSES:
        return None
    return lambda path: plot_training(history, path)


def _shots(name: str, scored: Mapping[str, object]) -> _Draw | None:
    scores = read_scores(scored)
    if sum(score.endswith("_shot_labels") for score in scores) < _FEWEST_BUCKETS:
        return None
    systems = {name: scores, **check_details(scored, "The scores").get("baselines", {})}
    return lambda path: plot_shot_buckets(systems, path, title="Test rows: macro F1 of rare and frequent labels")


def _reliability(scored: Mapping[str, object]) -> _Draw | None:
    details = check_details(scored, "The scores")
    if "reliability" not in details:
        return None
    lists = details["reliability"]
    table = ReliabilityTable(
        low=np.array(lists["low"]), high=np.array(lists["high"]), mean_score=np.array(lists["mean_score"]),
        accuracy=np.array(lists["accuracy"]), count=np.array(lists["count"]),
    )  # fmt: skip
    return lambda path: plot_reliability(table, path, title="Test rows: do scores come true?")


def _risk_coverage(scored: Mapping[str, object]) -> _Draw | None:
    curves = {
        name: RiskCoverage(
            coverage=np.array(lists["coverage"]), risk=np.array(lists["risk"]), best=np.array(lists["best"]),
            area=lists["area"], best_area=lists["best_area"],
        )
        for name, lists in check_details(scored, "The scores").get("risk_coverage", {}).items()
    }  # fmt: skip
    if not curves:
        return None
    return lambda path: plot_risk_coverage(
        curves, path, title="Test rows: what is left when people take the least sure"
    )
