"""The score model: what it holds, and the file that a model's folder keeps it in."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from xlgen_hf.errors import ConfigurationError, ModelFolderError
from xlgen_hf.ranking.calibration import ScoreCalibrator
from xlgen_hf.ranking.decisions import DecisionRule
from xlgen_hf.ranking.fusion import Fusion
from xlgen_hf.ranking.score_model import SCORE_MODEL_FILE, ScoreModel
from xlgen_hf.ranking.scored_labels import ScoredLabels
from xlgen_hf.ranking.thresholds import tuned_threshold

CALIBRATOR = ScoreCalibrator("platt", [{"slope": 2.0, "intercept": -0.5}] * 5)
FUSION = Fusion(20, {"retrieval": 1.5, "log_generated": 0.25}, -2.0, 0.3)
THRESHOLDS = {"micro": 0.25, "macro": 0.125, "example": 1.0}


class _Source:
    """A source of no labels."""

    def rank(self, texts, k, allowed=None):
        raise NotImplementedError

    def save(self, folder):
        raise NotImplementedError

    def relabelled(self, change):
        raise NotImplementedError


SOURCES = {"retrieval": _Source(), "label_trees": _Source()}


@pytest.mark.parametrize(
    "model",
    [
        ScoreModel(),
        ScoreModel(CALIBRATOR, thresholds=THRESHOLDS),
        ScoreModel(CALIBRATOR, rule=DecisionRule("top_k", 3)),
        ScoreModel(rule=DecisionRule("expected_f1")),
        ScoreModel(rule=DecisionRule("threshold", 0.5), thresholds={"micro": 0}),
        ScoreModel(CALIBRATOR, FUSION, tuned_threshold(0.25), THRESHOLDS, SOURCES),
        ScoreModel(None, FUSION, tuned_threshold(1.0), {}, {"retrieval": SOURCES["retrieval"]}),
    ],
)
def test_it_survives_a_reload(model, tmp_path):
    model.save(tmp_path)
    assert ScoreModel.load(tmp_path, SOURCES) == model
    assert set(json.loads((tmp_path / SCORE_MODEL_FILE).read_text())) == {
        *("format_version", "rule", "thresholds", "calibrator", "fusion")
    }


def test_it_cannot_be_changed():
    with pytest.raises(FrozenInstanceError, match="rule"):
        ScoreModel().rule = DecisionRule("top_k", 3)


def test_other_sources_change_nothing_else():
    model = ScoreModel(CALIBRATOR, FUSION, sources=SOURCES)
    others = {"retrieval": _Source(), "label_trees": _Source()}
    changed = model.with_sources(others)
    assert (changed.sources, model.sources) == (others, SOURCES)
    assert (changed.calibrator, changed.fusion) == (CALIBRATOR, FUSION)


def test_the_calibrator_makes_the_scores():
    scored = ScoredLabels.from_rows([([1, 0], [0.5, 0.25], [True, False])])
    counts = np.array([3, 1])
    calibrated = ScoreModel(CALIBRATOR).calibrate(scored, counts)
    assert calibrated.scores.tolist() == CALIBRATOR.transform(scored, counts).scores.tolist()
    assert calibrated.scores.tolist() == pytest.approx((1 / (1 + np.exp(0.5 - 2 * np.log([1, 1 / 3])))).tolist())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sources": SOURCES}, r"The sources \['label_trees', 'retrieval'\] need a fusion"),
        ({"thresholds": {"micro": 1.5}}, r"thresholds=\{'micro': 1\.5\}; numbers from 0 to 1"),
        ({"thresholds": {"micro": float("nan")}}, "numbers from 0 to 1"),
        ({"thresholds": {"best": 0.5}}, "for some of"),
    ],
)
def test_parts_that_do_not_fit_are_refused(fields, message):
    with pytest.raises(ConfigurationError, match=message):
        ScoreModel(**fields)


# ------------------------------------------------------------------------------------------------ damaged files

_HUGE = "a number that no float holds"


def _set(*path):
    """A change of the content: all but the last are keys, the last is the new value."""

    def change(content):
        *keys, last, value = path
        for key in keys:
            content = content[key]
        content[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("format_version", 9), "format_version 9; this release reads 1"),
        (_set("more", 1), "'more' is not a field"),
        (lambda c: c.pop("rule"), "'rule' is missing"),
        (_set("rule", []), "'rule' is .*; it must be an object"),
        (_set("rule", "kind", "best"), r"'rule\.kind' is 'best'; it must be one of"),
        (_set("rule", "value", 1.5), r"threshold=1\.5"),
        (_set("rule", "value", _HUGE), r"'rule\.value' is inf"),
        (_set("rule", "value", "0.5"), r"'rule\.value' is '0\.5'; it must be a number or null"),
        (_set("rule", "value", 10**400), r"'rule\.value' is 1000"),
        (_set("rule", "min_labels", "1"), r"'rule\.min_labels' is '1'"),
        (_set("rule", "more", 1), r"'rule\.more' is not a field"),
        (_set("thresholds", "micro", None), "it must be a number >= 0 and <= 1"),
        (_set("thresholds", "micro", _HUGE), "is inf; it must be a number >= 0 and <= 1"),
        (_set("thresholds", "micro", "0.5"), "is '0.5'; it must be a number >= 0 and <= 1"),
        (_set("thresholds", "micro", True), "is True; it must be a number >= 0 and <= 1"),
        (_set("thresholds", "best", 0.5), "'thresholds' is .*; it must be an object with names out of"),
        (_set("thresholds", None), "'thresholds' is None; it must be an object"),
        (_set("calibrator", []), r"'calibrator' is \[\]; it must be an object"),
        (_set("calibrator", "method", "x"), r"'calibrator\.method' is 'x'"),
        (_set("calibrator", "bounds", [3, 1]), r"'calibrator\.bounds' has 1 after 3"),
        (
            _set("calibrator", "maps", [{"slope": -1, "intercept": 0}] * 5),
            r"maps.* must be an object",
        ),
        (
            _set("calibrator", "maps", [{"slope": _HUGE, "intercept": 0}] * 5),
            r"maps.* must be an object",
        ),
        (
            _set("calibrator", "maps", [{"slope": 10**400, "intercept": 0}] * 5),
            r"maps.* must be an object",
        ),
        (_set("calibrator", "maps", [{"x": [0.0], "y": [_HUGE]}] * 5), r"maps.* must be an object"),
        (_set("fusion", {}), r"'fusion\.candidates_per_source' is missing"),
        (_set("fusion", "weights", []), r"'fusion\.weights' is \[\]; it must be an object"),
        (_set("fusion", "weights", {}), "at least one"),
        (_set("fusion", "weights", "retrieval", "1"), "is '1'; it must be a number"),
        (_set("fusion", "weights", "retrieval", 10**400), "is 1000"),
        (_set("fusion", "weights", "retrieval", _HUGE), "is inf; it must be a number"),
        (_set("fusion", "intercept", None), r"'fusion\.intercept' is None; it must be a number"),
        (_set("fusion", "candidates_per_source", 0), r"'fusion\.candidates_per_source' is 0"),
        (_set("fusion", "logit_adjustment", -0.1), r"'fusion\.logit_adjustment' is -0\.1; it must be a number >= 0"),
        (_set("fusion", "logit_adjustment", 10**400), "is 1000"),
        (_set("fusion", "sources", ["retrieval", "others"]), r"weighs \['others'\], which the folder does not hold"),
        (_set("fusion", "sources", [1]), r"'fusion\.sources\[0\]' is 1; it must be a string"),
        (_set("fusion", "sources", "retrieval"), r"'fusion\.sources' is 'retrieval'; it must be a list"),
        (_set("fusion", "more", 1), r"'fusion\.more' is not a field"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, change, message):
    ScoreModel(CALIBRATOR, FUSION, tuned_threshold(0.25), THRESHOLDS, SOURCES).save(tmp_path)
    path = tmp_path / SCORE_MODEL_FILE
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content).replace(json.dumps(_HUGE), "1e999"))  # which a reader takes for infinity
    with pytest.raises(ModelFolderError, match=rf"{SCORE_MODEL_FILE}: .*{message}"):
        ScoreModel.load(tmp_path, SOURCES)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "3", '{"format_version": 1}'])
def test_what_is_no_score_model_is_refused(tmp_path, content):
    (tmp_path / SCORE_MODEL_FILE).write_text(content)
    with pytest.raises(ModelFolderError, match=SCORE_MODEL_FILE):
        ScoreModel.load(tmp_path, {})


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ModelFolderError, match=SCORE_MODEL_FILE):
        ScoreModel.load(tmp_path, {})


def test_sources_that_are_not_weighed_are_left_out(tmp_path):
    ScoreModel(CALIBRATOR).save(tmp_path)
    assert ScoreModel.load(tmp_path, SOURCES).sources == {}
