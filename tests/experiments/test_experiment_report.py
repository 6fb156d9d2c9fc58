"""The claims and the figures of an experiment, from made-up numbers."""

from __future__ import annotations

import pytest

from xlgen_hf.experiments.claims import check_claims
from xlgen_hf.experiments.plots import plot_figures
from xlgen_hf.experiments.report import make_report
from xlgen_hf.experiments.systems.registry import kind_of

SCORES = ("micro_f1", "macro_f1", "0_shot_macro_f1", "1_shot_macro_f1")


def _moments(mean, sd=None):
    return {"mean": mean, "sd": sd, "values": [mean]}


def _system(values, sd=None):
    scores = {name: _moments(value, sd) for name, value in zip(SCORES, values, strict=True)}
    scores |= {"0_shot_labels": _moments(3.0), "1_shot_labels": _moments(4.0)}
    decision = {"kind": "threshold", "value": 0.25, "validation_micro_f1": 0.5, "calibrated": True}
    return {"seeds": [0], "decisions": [decision], "scores": scores, "cost": {"fit_seconds": _moments(1234.56)}}


def _results(full, pu=None, ablations=(), sd=None):
    summary = {"full": {name: _system(values, sd) for name, values in full.items()}}
    if pu is not None:
        summary["pu"] = {name: _system(values, sd) for name, values in pu.items()}
    return {
        "xlgen_hf": "0", "command": ["xlgen", "experiment", "--labels", "a b"], "environment": None,
        "data": {"digest": "abc", "rows": {"train": 9}, "sources": {"train": "rows"}, "labels": 5, "unseen_labels": 1},
        "options": {},
        "settings": {} if pu is None else {"pu": {"rate": 0.5, "seed": 0}}, "systems": {n: kind_of(n) for n in full},
        "summary": summary, "ablations": list(ablations), "failed": [], "missing": [],
    }  # fmt: skip


def _row(ablation, value, score):
    scores = {name: _moments(score) for name in SCORES}
    return {
        "ablation": ablation, "value": value, "system": "xlgen-bcl", "is_default": False, "seeds": [0],
        "scores": scores, "cost": {},
    }  # fmt: skip


FULL = {
    "bonsai": (0.20, 0.10, 0.0, 0.02),
    "xlgen-base": (0.18, 0.11, 0.03, 0.05),
    "xlgen-bcl": (0.19, 0.12, 0.03, 0.04),
}


def _verdicts(results):
    return {claim.text: claim.verdict for claim in check_claims(results)}


def test_claims_follow_from_the_numbers():
    pu = {"bonsai": (0.1, 0.05, 0, 0), "xlgen-base": (0.1, 0.09, 0, 0)}
    rows = [_row("order", "freq_forward", 0.3), _row("order", "shuffle", 0.2)]
    rows += [_row("decoding", "greedy", 0.3), _row("decoding", "5 beams, union", 0.2)]
    found = {text.split(":")[0]: verdict for text, verdict in _verdicts(_results(FULL, pu, rows)).items()}
    assert list(found.values()) == [
        "holds",  # tail, against classifiers
        "holds in part",  # overall: micro lost, macro won
        "holds in part",  # BCL: 0-shot equal, 1-shot lost
        "not measured",  # MCG
        "holds in part",  # the better of both: 1-shot lost
        "holds",  # order
        "does not hold",  # decoding
        "holds",  # PU
        "not measured",  # MCG under PU
        "holds",  # kept
    ]


def test_evidence_has_the_numbers_and_the_noise():
    tail = check_claims(_results(FULL, sd=0.2))[0]
    expected = "xlgen-base 0.050, bonsai 0.020 (+0.030; not more than the standard deviation over seeds, 0.200)"
    assert expected in tail.evidence[1]
    assert "(+0.030)" in check_claims(_results(FULL))[0].evidence[1]


def test_nothing_measured_decides_nothing():
    assert set(_verdicts(_results({})).values()) == {"not measured"}
    empty = _results(FULL)
    for one in empty["summary"]["full"].values():
        one["scores"]["0_shot_macro_f1"] = _moments(None)  # the test rows have no such label
    assert "0-shot macro F1: not measured." in check_claims(empty)[0].evidence


def test_a_figure_shows_what_was_measured_of_it(tmp_path):
    pytest.importorskip("matplotlib")
    results = _results(FULL)
    for one in results["summary"]["full"].values():
        one["scores"]["1_shot_macro_f1"] = _moments(None)  # the test rows have no such label
    assert "figure_2_long_tail.png" in [path.name for path in plot_figures(results, tmp_path)]


@pytest.mark.parametrize(("pool", "verdict"), [("union", "holds"), ("best", "does not hold")])
def test_the_own_search_of_a_plan_counts_by_its_pool(pool, verdict):
    """The fault: the row of a plan's own search, which fuses decodings, counted as a single one."""
    rows = [_row("decoding", "as elsewhere", 0.6), _row("decoding", "5 beams, best", 0.4)]
    rows += [_row("decoding", "5 beams, vote", 0.5)]
    results = _results(FULL, ablations=rows) | {"options": {"search": {"num_beams": 3, "pool": pool}}}
    assert _verdicts(results)["Several decodings fused are better than a single one."] == verdict


def test_claims_say_how_many_labels_were_dropped():
    results = _results(FULL, FULL) | {"settings": {"pu": {"rate": 0.1, "seed": 0}}}
    claims = [text for text in _verdicts(results) if "dropped" in text]
    assert len(claims) == 3
    assert all("10% of the training labels" in text for text in claims)


def test_the_report_shows_numbers_and_spread():
    report = make_report(_results(FULL, sd=0.01), ["figure_1_overall.png"])
    assert "| Bonsai | 1 | 0.200 ± 0.010 | 0.100 ± 0.010 |" in report
    assert "xlgen experiment --labels 'a b'" in report
    assert "Long tail (3 0-shot, 4 1-shot labels in the test rows)" in report
    assert "| Bonsai | 1,234.6 | - |" in report
    assert "score of at least 0.2500" in report
    assert "![figure_1_overall.png](figure_1_overall.png)" in report


@pytest.mark.parametrize("count", [1, 4, 12])
def test_figures_of_few_and_many_systems(tmp_path, count):
    pytest.importorskip("matplotlib", reason="the extra `plot` is not installed")
    names = [*FULL, *(f"system {number}" for number in range(9))][:count]
    pictures = plot_figures(_results(dict.fromkeys(names, (0.1, 0.2, 0.3, 0.4)), sd=0.01), tmp_path)
    assert [path.name for path in pictures] == ["figure_1_overall.png", "figure_2_long_tail.png"]  # PU not measured
    for path in pictures:
        assert path.stat().st_size > 1000
        drawn = path.with_suffix(".svg").read_text(encoding="utf-8")
        assert "Bonsai" in drawn and ("system 8" in drawn) == (count == 12)
