#!/usr/bin/env bash
# Do the bounds in setup.cfg hold? benchmarks/check_versions.sh lowest|highest [PYTHON]
# Installs the lowest or the highest versions that setup.cfg allows for a Python (3.10, or a path to one; python3 if none is
# given) into an environment of its own, prints the versions, and runs quick tests of each package. Needs `uv`. Takes some six
# minutes of two cores and up to 8 GB of disk, for PyPI's torch for Linux comes with CUDA; run it when a bound changes and before a release.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
which=${1:-}
python=${2:-python3}
case $which in
  lowest) resolution=lowest-direct ;; # of what setup.cfg names; what these need is the newest that suits them
  highest) resolution=highest ;;
  *) echo "usage: benchmarks/check_versions.sh lowest|highest [PYTHON]" >&2; exit 2 ;;
esac
command -v uv >/dev/null || { echo "uv is missing: pip install uv" >&2; exit 1; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
uv venv --quiet --python "$python" "$work/venv"
uv pip compile --quiet --python "$work/venv" --extra test --resolution "$resolution" setup.cfg --output-file "$work/versions.txt" >/dev/null
uv pip install --quiet --python "$work/venv" --requirement "$work/versions.txt"
"$work/venv/bin/python" --version
grep --extended-regexp '^(accelerate|datasets|huggingface-hub|numpy|onnxruntime|peft|scikit-learn|scipy|torch|transformers)==' "$work/versions.txt" | tr '\n' ' '
echo

# One thread each: two processes share the cores. The cache of Python files stays out of the checkout.
export OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$PWD
"$work/venv/bin/python" -m pytest -q -p no:cacheprovider -n "${PROCESSES:-2}" --dist worksteal \
  tests/test_modeling_xlgen.py tests/test_processing_xlgen.py tests/test_settings.py tests/decoding tests/encoders \
  tests/evaluation/test_scoring.py tests/hub/test_hub.py tests/labels tests/modules tests/ranking \
  tests/data/test_conversion.py tests/data/test_reading.py tests/data/test_vocabulary_files.py tests/files/test_schema.py \
  tests/training/test_causal_training.py tests/training/test_hyperparameter_search.py tests/training/test_lora.py \
  tests/training/test_retriever_training.py tests/cli/test_cli_predict.py
