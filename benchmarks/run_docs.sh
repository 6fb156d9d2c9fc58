#!/usr/bin/env bash
# Run what the README and the documentation show: benchmarks/run_docs.sh [OUTPUT_DIR]
# The blocks marked with <!-- run --> in their order, the notebooks, and the build of the pages, with all warnings as errors.
# Needs the extras docs, offline, plot, lora and skos; no network. Minutes on two cores. It stops at the first failure.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
out=$(realpath -m "${1:-$(mktemp -d)}")
export HF_HUB_OFFLINE=1 NO_MKDOCS_2_WARNING=1 TOKENIZERS_PARALLELISM=false PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}

run() { # FOLDER PAGE ...: the marked blocks of pages, one after another
  local folder=$1 blocks block
  shift
  blocks=$(mktemp -d)
  mkdir -p "$folder"
  for page in "$@"; do
    python tests/doc_blocks.py "$blocks" "$page"
    for block in "$blocks"/*; do
      echo "== $page: $(basename "$block")"
      if [[ $block == *.py ]]; then (cd "$folder" && python "$block"); else (cd "$folder" && bash -euo pipefail "$block"); fi
    done
    rm -f "$blocks"/*
  done
}

run "$out/docs" docs/tutorial.md docs/guides/predicting.md docs/guides/evaluation.md docs/guides/processes.md docs/guides/vocabularies.md
mkdir -p "$out/readme"
cp "$out/docs/books.csv" "$out/docs/new-books.csv" "$out/readme"
run "$out/readme" README.md

echo "== notebooks"
jupyter nbconvert --to notebook --execute --output-dir "$out/notebooks" docs/notebooks/*.ipynb
echo "== pages"
mkdocs build --strict --quiet --site-dir "$out/site"
echo "All of it ran; the files are in $out."
