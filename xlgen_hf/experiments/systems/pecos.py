"""PECOS XR-Linear as a system: `libpecos` needs numpy 1, so it runs in a Python of its own and is handed files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix, load_npz, save_npz

from ...errors import ConfigurationError, MissingExtraError, ModelFolderError
from ...ranking.label_trees import Ranked
from .linear import LinearSystem

__all__ = ["PYTHON_VARIABLE", "PecosXRLinear"]

PYTHON_VARIABLE = "XLGEN_PECOS_PYTHON"
"""Environment variable with the path of a Python that has `libpecos`."""

_WORKER = Path(__file__).with_name("pecos_worker.py")
_ADVICE = (
    "It needs numpy 1 and so an environment of its own: python -m venv pecos; pecos/bin/pip install libpecos; "
    f"export {PYTHON_VARIABLE}=$PWD/pecos/bin/python"
)


@dataclass
class PecosXRLinear(LinearSystem):
    """PECOS XR-Linear: a tree of linear classifiers, labels being clustered by the features of their rows (PIFA).

    Training and each call of [`score`] run the script `pecos_worker.py` in the other Python; matrices go over as `npz`
    files of scipy, without pickle. Tried with libpecos 1.2.8, numpy 1.26, scipy 1.13 and scikit-learn 1.6 on
    Python 3.11 under Linux; with `pip install --no-deps`, torch and transformers may be missing.

    Attributes:
        python: path of a Python that has `libpecos`; where None, what the environment variable `XLGEN_PECOS_PYTHON`
            says.
        beam_size: nodes per level from which prediction continues, at least 1.
        cost: how much errors on training rows cost a node's classifier, above 0.

    Source: Yu et al., "PECOS: Prediction for Enormous and Correlated Output Spaces", JMLR 2022.
    """

    python: str | None = None
    beam_size: int = 10
    cost: float = 1.0
    _folder: Path = field(default=Path(), init=False, repr=False)

    def _settings(self) -> dict[str, object]:
        return super()._settings() | {"cost": self.cost}

    def _require(self) -> None:
        given = self.python or os.environ.get(PYTHON_VARIABLE)
        if not given:
            raise MissingExtraError("libpecos", "", advice=f"{PYTHON_VARIABLE} is not set. {_ADVICE}")
        if shutil.which(given) is None:
            raise ConfigurationError(f"{given!r}, given as the Python that has libpecos, is not a program. {_ADVICE}")
        done = subprocess.run([given, "-I", "-c", "import pecos"], capture_output=True, text=True, check=False)
        if done.returncode:
            raise MissingExtraError("libpecos", "", advice=f"{given} says: {_last_line(done.stderr)}. {_ADVICE}")

    def _train(self, features: csr_matrix, targets: csr_matrix, folder: Path, seed: int) -> None:
        with tempfile.TemporaryDirectory() as place:
            given, wanted = Path(place) / "features.npz", Path(place) / "targets.npz"
            save_npz(given, _as_float32(features))
            save_npz(wanted, _as_float32(targets))
            self._run("train", given, wanted, folder, seed=seed, threads=self.num_threads, cost=self.cost)

    def _load(self, folder: Path, seed: int) -> None:
        self._folder = folder

    def _predict(self, features: csr_matrix) -> Ranked:
        with tempfile.TemporaryDirectory() as place:
            given, ranked = Path(place) / "features.npz", Path(place) / "ranked.npz"
            save_npz(given, _as_float32(features))
            beam, threads = self.beam_size, self.num_threads
            self._run("predict", given, ranked, self._folder, beam_size=beam, top_k=self.top_k, threads=threads)
            found = csr_matrix(load_npz(ranked))
        cuts = found.indptr[1:-1]
        columns, scores = np.split(found.indices, cuts), np.split(found.data, cuts)
        return [(row.tolist(), values.tolist()) for row, values in zip(columns, scores, strict=True)]

    def _run(self, action: str, first: Path, second: Path, folder: Path, **settings: float) -> None:
        python = self.python or os.environ[PYTHON_VARIABLE]
        # Isolated (-I): neither the present folder nor PYTHONPATH brings modules of this process's Python.
        command = [python, "-I", str(_WORKER), action, str(first), str(second), str(folder), json.dumps(settings)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            said = _last_line(done.stderr)
            if action == "train":
                raise ConfigurationError(f"PECOS cannot train: {said}")
            raise ModelFolderError(f"PECOS cannot use the model in {folder}: {said}. Remove it to train again.")


def _as_float32(matrix: csr_matrix) -> csr_matrix:
    """With the number types that PECOS's C++ part takes."""
    matrix = matrix.astype(np.float32)
    matrix.sort_indices()
    matrix.indices = matrix.indices.astype(np.int32)
    return matrix


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "nothing"
