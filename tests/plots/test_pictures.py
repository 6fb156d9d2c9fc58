"""Pictures by what their axes hold; how they look is judged by people, not by tests."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from xlgen_hf.errors import ConfigurationError
from xlgen_hf.labels.clusters import LabelClusters, LabelMap
from xlgen_hf.plots.clusters import plot_clusters
from xlgen_hf.plots.names import spread_out
from xlgen_hf.plots.scores import Panel, plot_panels, plot_shot_buckets
from xlgen_hf.plots.style import FILLS, sheet
from xlgen_hf.plots.training import plot_training
from xlgen_hf.plots.trust import plot_reliability, plot_risk_coverage
from xlgen_hf.ranking.reliability import reliability_table
from xlgen_hf.ranking.risk_coverage import risk_coverage

pytest.importorskip("matplotlib", reason="the extra `plot` is not installed")

HOSTILE = [
    "$x_1$ \\frac{",
    "a\nb\tc",
    "牛奶 / 乳制品",
    "حليب",
    "\N{BABY BOTTLE}\N{ZERO WIDTH JOINER}",
    "x" * 500,
    "%s {0}",
    "<b>&",
]
HISTORY = [
    {"step": 2, "epoch": 0.5, "loss": 5.0, "generation_loss": 4.0, "cluster_loss": 1.0},
    {"step": 4, "epoch": 1.0, "loss": 3.0, "generation_loss": 2.5, "cluster_loss": 0.5},
    {"step": 4, "epoch": 1.0, "eval_loss": 3.5, "eval_micro_f1": 0.2, "eval_macro_f1": 0.1},
    {"step": 8, "epoch": 2.0, "eval_loss": 3.0, "eval_micro_f1": 0.3, "eval_macro_f1": 0.2},
]
SCORES = {
    "0_shot_labels": 2, "0_shot_macro_f1": 0.0, "1_shot_labels": 0, "1_shot_macro_f1": 0.0, "2+_shot_labels": 30,
    "2+_shot_macro_f1": 0.4, "macro_f1": 0.3,
}  # fmt: skip


def make_clusters(names, per_cluster=4, **changes):
    count = len(names)
    assignment = np.arange(count * per_cluster) % count
    angle = 2 * np.pi * assignment / count
    positions = np.stack([np.cos(angle), np.sin(angle)], axis=1) + np.linspace(0, 0.01, len(angle))[:, None]
    label_map = LabelMap(np.arange(len(assignment)), positions.astype(np.float32))
    return LabelClusters(assignment, np.eye(count, dtype=np.float32), names, label_map=label_map)


def texts_of(axes):
    return [text.get_text() for text in axes.texts]


def labelled(axes):
    return {line.get_label(): line.get_xydata().tolist() for line in axes.lines}


def test_map_has_all_labels_and_the_names_of_clusters(tmp_path):
    figure = plot_clusters(
        make_clusters(["milk / cows", "tea", "wine / beer"]), tmp_path / "map.png", title="3 clusters"
    )
    (axes,) = figure.axes
    assert texts_of(axes) == ["milk", "tea", "wine"]
    assert [len(marks.get_offsets()) for marks in axes.collections] == [4, 4, 4]
    assert "A mark is a label (12)" in figure.get_supxlabel() and "named are all 3," in figure.get_supxlabel()
    assert (axes.get_xticks().size, figure.get_suptitle()) == (0, "3 clusters")


def test_neighbours_on_a_map_differ_in_more_than_the_hue(tmp_path):
    figure = plot_clusters(make_clusters([f"name {number}" for number in range(35)]), tmp_path / "map.png")
    looks = {
        (tuple(marks.get_facecolor()[0].round(2)), marks.get_paths()[0].vertices.round(3).tobytes())
        for marks in figure.axes[0].collections
    }
    assert len(looks) == 35


def test_names_that_find_no_room_are_left_out_and_counted(tmp_path):
    clusters = make_clusters([f"a long name {number}" for number in range(40)])
    crowded = LabelMap(clusters.label_map.labels, clusters.label_map.positions * np.float32([1, 0.01]))
    clusters.label_map = crowded
    crowded.positions[0] = (0, 5)  # makes the rest lie close
    figure = plot_clusters(clusters, tmp_path / "map.svg")
    (axes,) = figure.axes
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in axes.texts]
    assert 0 < len(boxes) < 40
    assert f"named are {len(boxes)} of 40" in figure.get_supxlabel()
    assert not any(box.count_overlaps(boxes[:number]) for number, box in enumerate(boxes))


def test_clusters_without_a_map(tmp_path):
    clusters = make_clusters(["a", "b"])
    clusters.label_map = None
    with pytest.raises(ConfigurationError, match="These clusters have no map"):
        plot_clusters(clusters, tmp_path / "map.png")


def test_training_has_a_panel_for_each_loss_and_one_for_scores(tmp_path):
    figure = plot_training(HISTORY, tmp_path / "curves.png")
    assert [axes.get_title("left") for axes in figure.axes] == [
        "Generation loss", "Cluster loss", "Scores of the validation rows",
    ]  # fmt: skip
    generation, clusters, scores = map(labelled, figure.axes)
    assert generation == {"training": [[0.5, 4], [1, 2.5]], "validation rows": [[1, 3.5], [2, 3]]}
    assert clusters == {"training": [[0.5, 1], [1, 0.5]]}
    assert scores == {"micro F1": [[1, 0.2], [2, 0.3]], "macro F1": [[1, 0.1], [2, 0.2]]}
    assert figure.get_supxlabel() == "Epoch: pass over the training rows (8 steps in all)"


def test_a_training_that_logged_too_little(tmp_path):
    with pytest.raises(ConfigurationError, match="no loss was logged twice"):
        plot_training(HISTORY[:1], tmp_path / "curves.png")
    with pytest.raises(ConfigurationError, match="no loss was logged twice"):
        plot_training(tmp_path, tmp_path / "curves.png")  # a folder without a report
    assert not list(tmp_path.iterdir())


def test_reliability(tmp_path):
    table = reliability_table(np.array([0.1, 0.1, 0.9, 0.9]), np.array([0, 0, 1, 0]), bins=2)
    (axes,) = plot_reliability(table, tmp_path / "reliability.png").axes
    assert labelled(axes)["labels of a bin"] == [[0.1, 0], [0.9, 0.5]]
    assert texts_of(axes) == ["Expected calibration error 0.250\n4 decisions"]
    assert "Mean score" in axes.get_xlabel() and "Fraction" in axes.get_ylabel()


def test_risk_coverage_names_the_curves_where_they_end(tmp_path):
    curve = risk_coverage(np.array([0.9, 0.5]), np.array([1.0, 0.0]))
    other = risk_coverage(np.array([0.9, 0.5]), np.array([1.0, 0.02]))
    figure = plot_risk_coverage({"example_f1": curve, "best_label": other}, tmp_path / "risk.png")
    (axes,) = figure.axes
    assert axes.lines[0].get_xydata().tolist() == [[0.5, 0], [1, 0.5]]
    assert texts_of(axes) == ["1 - F1 of a text\narea 0.250", "best label is wrong\narea 0.245"]
    figure.draw_without_rendering()
    first, second = (text.get_window_extent() for text in axes.texts)
    assert not first.overlaps(second)  # though the curves end at nearly the same height


def test_bars_of_systems_side_by_side(tmp_path):
    systems = {"_ours": SCORES, "the $baseline$": {**SCORES, "macro_f1": 0.1}}
    (axes,) = plot_shot_buckets(systems, tmp_path / "bars.png").axes
    assert [[bar.get_height() for bar in bars] for bars in axes.containers] == [[0, 0, 0.4, 0.3], [0, 0, 0.4, 0.1]]
    assert (
        len({bars[0].get_hatch() for bars in axes.containers})
        == len({bars[0].get_fc() for bars in axes.containers})
        == 2
    )
    assert [text.get_text() for text in axes.get_legend().texts] == [" _ours", "the $baseline$"]
    assert texts_of(axes)[:4] == ["0.000", "\N{EN DASH}", "0.400", "0.300"]
    assert [text.get_text() for text in axes.get_xticklabels()][2:] == ["2+\n30 labels", "all labels"]


def test_systems_whose_names_are_long_and_alike_are_all_drawn(tmp_path):
    systems = {f"{'a long name of a system ' * 3}{number}": SCORES for number in range(3)}
    (axes,) = plot_shot_buckets(systems, tmp_path / "bars.png").axes
    assert len(axes.containers) == 3


def test_panels_say_what_was_not_measured(tmp_path):
    panels = [Panel("Micro F1", [0.2, None], [0.01, None]), Panel("Macro F1", [0.1, 0.3], [None, None])]
    micro, macro = plot_panels(["a", "b"], FILLS[:2], panels, tmp_path / "panels.png", note="one seed").axes
    assert (texts_of(micro), texts_of(macro)) == (["0.200", "not measured"], ["0.100", "0.300"])


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_names_of_any_kind_neither_break_nor_warn(tmp_path, suffix):
    path = tmp_path / f"map{suffix}"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = plot_clusters(make_clusters(HOSTILE), path, title=HOSTILE[0])
        plot_shot_buckets(dict.fromkeys(HOSTILE, SCORES), tmp_path / f"bars{suffix}", title="$" + HOSTILE[2])
    assert path.stat().st_size > 1000
    names = texts_of(figure.axes[0])
    assert "$x_1$ \\frac{" in names and "a b c" in names and figure.get_suptitle() == "$x_1$ \\frac{"
    assert any(name.startswith("xxx") and len(name) <= 28 and name.endswith("…") for name in names)
    if suffix == ".svg":  # whoever looks at it has the fonts
        assert "牛奶" in names and "牛奶" in path.read_text(encoding="utf-8")


def test_unknown_characters_have_something_in_their_place(tmp_path):
    rare = "a\N{EGYPTIAN HIEROGLYPH A001}"
    with sheet(tmp_path / "a.png", 2, 2) as drawn:
        assert drawn.text(rare) == "a\N{REPLACEMENT CHARACTER}"
        assert drawn.text(rare, instead="cluster 7") == "cluster 7"
        assert drawn.text("a" * 50, 10) == "a" * 9 + "…"


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_equal_pictures_are_equal_files(tmp_path, suffix):
    for name in ("one", "two"):
        plot_training(HISTORY, tmp_path / f"{name}{suffix}", title="The same")
    assert (tmp_path / f"one{suffix}").read_bytes() == (tmp_path / f"two{suffix}").read_bytes()


def test_a_users_settings_of_matplotlib_are_of_no_effect_and_stay(tmp_path):
    import matplotlib as mpl

    plot_training(HISTORY, tmp_path / "one.png")
    with mpl.rc_context({"font.size": 30, "axes.facecolor": "black", "text.parse_math": True}):
        plot_training(HISTORY, tmp_path / "two.png")
        assert mpl.rcParams["font.size"] == 30
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_what_fails_leaves_the_earlier_picture(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"earlier")
    with pytest.raises(RuntimeError, match="while drawing"), sheet(path, 2, 2):
        raise RuntimeError("while drawing")
    assert path.read_bytes() == b"earlier" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [([], []), ([0.5], [0.5]), ([0.5, 0.5], [0.4, 0.6]), ([0.9, 0.1], [0.9, 0.1]), ([1, 1, 0], [0.8, 1, 0])],
)
def test_spread_out(wanted, expected):
    assert spread_out(wanted, 0.2, 0, 1) == pytest.approx(expected)


def test_spread_out_where_there_is_no_room():
    assert spread_out([0.5] * 11, 0.2, 0, 1) == pytest.approx(np.linspace(0, 1, 11))
