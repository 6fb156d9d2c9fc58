"""Baseline systems on small data: what they learn, what they leave behind, what they say when something is missing."""

from __future__ import annotations

import os
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset

from xlgen_hf.errors import ConfigurationError, LabelSpaceError, MissingExtraError, ModelFolderError
from xlgen_hf.experiments.systems.base import SystemData
from xlgen_hf.experiments.systems.frequency import MostFrequent
from xlgen_hf.experiments.systems.linear import MARKER_FILE, MODEL_FOLDER
from xlgen_hf.experiments.systems.linear_trees import SYSTEMS, NapkinXC, bonsai, parabel
from xlgen_hf.experiments.systems.pecos import PYTHON_VARIABLE, PecosXRLinear
from xlgen_hf.files.serialization import read_json, write_json
from xlgen_hf.labels.space import LabelSpace
from xlgen_hf.ranking.label_trees import TfidfSettings

WORDS = ("organ", "piano", "violin", "flute", "guitar", "drum")
IN_PROCESS = {"parabel": parabel, "bonsai": bonsai, "napkinxc": NapkinXC}


@pytest.fixture
def data(tmp_path):
    """Texts whose words are their labels, a label that no row has, a row without labels and one without features."""
    rows = [
        {"text": f"{one} and {other} in room {n}", "labels": [one, other]}
        for n in range(4)
        for one in WORDS
        for other in WORDS
        if one < other
    ]
    rows += [{"text": "nothing of note", "labels": []}, {"text": "?", "labels": ["organ"]}]
    train = Dataset.from_list(rows)
    # The vocabulary's label is an id of its own among those of training, so that columns and ids differ.
    space = LabelSpace.from_label_lists([row["labels"] for row in rows], ["unseen"])
    shuffled = LabelSpace([*space.names[:2], "unseen", *space.names[2:-1]], [9] * len(space))
    return SystemData(train, train.select(range(4)), shuffled, tmp_path / "system", seed=3)


def _best(scored, space, k=2):
    return [set(space.decode(scored.labels[begin : begin + k])) for begin in scored.start[:-1]]


@pytest.mark.parametrize("name", IN_PROCESS)
def test_learns_which_words_are_labels(data, name):
    system = IN_PROCESS[name]()
    system.fit(data)
    scored = system.score(["a piano and a flute", "the drum and the violin", "", "word unknown"])
    assert len(scored) == 4
    assert _best(scored, data.label_space)[:2] == [{"piano", "flute"}, {"drum", "violin"}]
    assert scored.scores.min() >= 0 and scored.scores.max() <= 1
    assert data.label_space.index["unseen"] not in scored.labels
    assert len(system.score([])) == 0


@pytest.mark.parametrize("name", IN_PROCESS)
def test_a_later_fit_reuses_the_model(data, name, caplog):
    first = IN_PROCESS[name]()
    first.fit(data)
    before = first.score(["organ and guitar", "flute"])
    files = {path: path.stat().st_mtime_ns for path in data.folder.rglob("*") if path.is_file()}
    again = IN_PROCESS[name]()
    with caplog.at_level("INFO"):
        again.fit(data)
    assert "Reusing the model" in caplog.text
    after = again.score(["organ and guitar", "flute"])
    assert (after.labels == before.labels).all()
    np.testing.assert_allclose(after.scores, before.scores, rtol=1e-5)
    assert {path: path.stat().st_mtime_ns for path in data.folder.rglob("*") if path.is_file()} == files
    assert not [path for path in files if path.suffix in (".pkl", ".pickle", ".joblib")]


def _marker(folder: Path) -> str:
    return read_json(folder / MARKER_FILE)["digest"]


@pytest.mark.parametrize("change", ["rows", "seed", "labels", "settings"])
def test_other_data_or_settings_train_from_scratch(data, change):
    system = parabel()
    system.fit(data)
    before = _marker(data.folder)
    (data.folder / MODEL_FOLDER / "left over").touch()
    if change == "rows":
        data = replace(data, train=data.train.select(range(20)))
    elif change == "seed":
        data = replace(data, seed=4)
    elif change == "labels":
        data = replace(data, label_space=data.label_space.extended(["another"]))
    else:
        system = replace(parabel(), features=TfidfSettings(longest_ngram=1))
    system.fit(data)
    assert _marker(data.folder) != before
    assert not (data.folder / MODEL_FOLDER / "left over").exists()


def test_a_fit_that_was_interrupted_starts_from_scratch(data):
    parabel().fit(data)
    (data.folder / MARKER_FILE).unlink()
    (data.folder / MODEL_FOLDER / "settings.json").write_text("half")
    system = parabel()
    system.fit(data)
    assert _best(system.score(["piano and flute"]), data.label_space) == [{"piano", "flute"}]


def test_a_damaged_model_is_named_and_trained_again(data, caplog):
    parabel().fit(data)
    (data.folder / MODEL_FOLDER / "settings.json").write_text("no JSON")
    system = parabel()
    system.fit(data)
    assert "The model is trained again: Omikuji cannot read the model in" in caplog.text
    assert _best(system.score(["piano and flute"]), data.label_space) == [{"piano", "flute"}]


def test_a_marker_of_another_version_trains_from_scratch(data):
    parabel().fit(data)
    marker = read_json(data.folder / MARKER_FILE)
    write_json(data.folder / MARKER_FILE, marker | {"version": 0})
    parabel().fit(data)
    assert read_json(data.folder / MARKER_FILE) == marker


def test_omikuji_writes_nothing_where_results_go(data, capfd):
    system = parabel()
    system.fit(data)
    system.score(["piano"])
    assert capfd.readouterr().out == ""


def test_top_k_limits_candidates(data):
    system = replace(parabel(), top_k=2)
    system.fit(data)
    assert np.diff(system.score(["piano and flute", "drum"]).start).tolist() == [2, 2]


@pytest.mark.parametrize("name", IN_PROCESS)
def test_learns_from_many_rows_without_labels(data, name):
    """Words of theirs lower the scores."""
    text, scores = "an organ and a piano in the attic", {}
    for number in (0, 8):
        rows = [*data.train.to_list(), *number * [{"text": "organ and piano in the attic", "labels": []}]]
        system = IN_PROCESS[name]()
        system.fit(replace(data, train=Dataset.from_list(rows)))
        scores[number] = float(system.score([text]).scores.max())
    assert scores[8] < scores[0]


@pytest.mark.parametrize("make", [MostFrequent, parabel])
def test_score_needs_fit(make):
    with pytest.raises(ConfigurationError, match="call fit before score"):
        make().score(["a text"])


def test_rows_must_teach_something(data):
    empty = Dataset.from_list([{"text": "? !", "labels": ["organ"]}])
    with pytest.raises(ConfigurationError, match="1 training texts give no features"):
        parabel().fit(replace(data, train=empty))
    with pytest.raises(LabelSpaceError, match="'harp' is none of the 7 labels"):
        parabel().fit(replace(data, train=Dataset.from_list([{"text": "the harp", "labels": ["harp"]}] * 2)))


def test_the_most_frequent_labels_have_their_shares():
    rows = Dataset.from_list([{"text": "x", "labels": labels} for labels in (["b"], ["b", "a"], ["c", "b"], ["a"])])
    space = LabelSpace(["b", "a", "c", "unseen"], [3, 2, 1, 0])
    system = MostFrequent()
    system.fit(SystemData(rows, rows, space, Path("unused")))
    scored = system.score(["one", "another"])
    assert scored.labels.tolist() == [0, 1, 2] * 2
    assert scored.scores.tolist() == [0.75, 0.5, 0.25] * 2
    few = MostFrequent(1)
    few.fit(SystemData(rows, rows, space, Path("unused")))
    assert few.score(["one"]).labels.tolist() == [0]
    with pytest.raises(ConfigurationError, match="num_labels=0"):
        MostFrequent(0)
    with pytest.raises(ConfigurationError, match="None of the 1 training rows has a label"):
        few.fit(SystemData(Dataset.from_dict({"text": ["x"], "labels": [[]]}), rows, space, Path("unused")))


def test_every_registered_system_has_the_interface():
    assert list(SYSTEMS) == ["most-frequent", "parabel", "bonsai", "napkinxc", "pecos"]
    for make in SYSTEMS.values():
        system = make()
        assert callable(system.fit) and callable(system.score)
        assert make() is not system


# ---------------------------------------------------------------------------------------------------- PECOS

# Stands where libpecos would, with its calls' names and a trivial model (a label's score is the cosine of text and the
# mean of its rows), so that the protocol of files and processes is tried; it is no test of PECOS itself.
_STAND_IN = {
    "__init__.py": "",
    "xmc/__init__.py": """
        class LabelEmbeddingFactory:
            @staticmethod
            def create(targets, features, method):
                assert method == "pifa" and targets.dtype == features.dtype == "float32"
                return targets.T @ features
        class Indexer:
            @staticmethod
            def gen(embeddings, indexer_type, seed, threads):
                assert indexer_type == "hierarchicalkmeans" and seed == 3 and threads >= 1
                return embeddings
    """,
    "xmc/xlinear/__init__.py": "",
    "xmc/xlinear/model.py": """
        from pathlib import Path
        import numpy as np
        from scipy.sparse import csr_matrix, load_npz, save_npz
        class XLinearModel:
            def __init__(self, weights):
                self.weights = weights
            @classmethod
            def train(cls, features, targets, C, Cp, Cn, threads):
                assert features.shape[0] == targets.shape[0] and Cp == Cn
                return cls(C.multiply(1 / np.sqrt(C.multiply(C).sum(1)).clip(1e-9)))
            def save(self, folder):
                save_npz(Path(folder) / "weights.npz", csr_matrix(self.weights))
            @classmethod
            def load(cls, folder, is_predict_only):
                return cls(load_npz(Path(folder) / "weights.npz"))
            def predict(self, features, beam_size, only_topk, threads):
                scores = (features @ self.weights.T).toarray()
                cut = np.sort(scores, axis=1)[:, -min(only_topk, scores.shape[1])][:, None]
                return csr_matrix(np.where(scores >= cut, scores, 0))
    """,
}


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """A Python, this one started by a script, that finds the stand-in as `pecos`."""
    for name, source in _STAND_IN.items():
        path = tmp_path / "site" / "pecos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(source))
    # The caller isolates the process (-I), so that PYTHONPATH does not lead here; the script brings the folder in.
    code = (
        f"import runpy, sys; sys.path.insert(0, {str(tmp_path / 'site')!r}); words = sys.argv[2:]\n"
        "if words[0] == '-c': exec(words[1])\n"
        "else: sys.argv = words; runpy.run_path(words[0], run_name='__main__')\n"
    )
    (tmp_path / "start.py").write_text(code)
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{tmp_path / "start.py"}" "$@"\n')
    python.chmod(0o755)
    monkeypatch.setenv(PYTHON_VARIABLE, str(python))
    return python


def _check_pecos(data, system):
    system.fit(data)
    scored = system.score(["a piano and a flute", "the drum and the violin"])
    assert _best(scored, data.label_space) == [{"piano", "flute"}, {"drum", "violin"}]
    assert data.label_space.index["unseen"] not in scored.labels


@pytest.mark.skipif(os.name == "nt", reason="the stand-in is a shell script")
def test_matrices_go_to_the_other_python_and_back(data, stand_in, monkeypatch, caplog):
    _check_pecos(data, PecosXRLinear())
    monkeypatch.delenv(PYTHON_VARIABLE)
    with caplog.at_level("INFO"):
        _check_pecos(data, PecosXRLinear(python=str(stand_in)))
    assert "Reusing the model" in caplog.text
    (data.folder / MODEL_FOLDER / "weights.npz").unlink()
    system = PecosXRLinear(python=str(stand_in))
    system.fit(data)
    with pytest.raises(ModelFolderError, match=r"PECOS cannot use the model in .*weights.npz"):
        system.score(["piano"])


@pytest.mark.skipif(os.name == "nt", reason="the stand-in is a shell script")
def test_what_pecos_says_when_it_cannot_train_is_reported(data, stand_in):
    with pytest.raises(ConfigurationError, match="PECOS cannot train: AssertionError"):
        PecosXRLinear().fit(replace(data, seed=4))  # the stand-in takes seed 3 alone


@pytest.mark.skipif(PYTHON_VARIABLE not in os.environ, reason=f"{PYTHON_VARIABLE} names no Python with libpecos")
def test_pecos_itself(data):
    _check_pecos(data, PecosXRLinear())


def test_without_a_python_for_pecos(data, monkeypatch):
    monkeypatch.delenv(PYTHON_VARIABLE, raising=False)
    with pytest.raises(MissingExtraError, match=f"`libpecos` is not installed. {PYTHON_VARIABLE} is not set"):
        PecosXRLinear().fit(data)
    with pytest.raises(ConfigurationError, match=r"'/no/python', given as the Python .* is not a program"):
        PecosXRLinear(python="/no/python").fit(data)
    with pytest.raises(MissingExtraError, match="No module named 'pecos'"):
        PecosXRLinear(python=sys.executable).fit(data)
