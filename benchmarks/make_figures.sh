#!/usr/bin/env bash
# Draws the figures of the documentation from the bundled sample: benchmarks/make_figures.sh WORK_DIR
# About ten minutes on one core; a run that was stopped continues. The picture of `xlgen demo` needs the extras `browser`
# and `demo`, and Chromium. `variants.svg` is drawn by hand; those of the results are what `xlgen experiment` draws.
set -euo pipefail
mkdir -p "$1"
root=$(cd "$(dirname "$0")/.." && pwd) && cd "$1"
sample=$root/xlgen_hf/samples/yso
export TOKENIZERS_PARALLELISM=false
[[ -e train.jsonl ]] || { zcat "$sample/train.jsonl.gz" || true; } | head -2000 > train.jsonl
for split in validation test; do zcat "$sample/$split.jsonl.gz" > $split.jsonl; done
zcat "$sample/labels.txt.gz" > labels.txt
xlgen() { python -m xlgen_hf "$@"; }
rows=(--train-file train.jsonl --validation-file validation.jsonl --labels labels.txt)
short=(--per-device-train-batch-size 32 --max-source-length 64 --max-target-length 64 --decoder-layers 1 --dropout 0
  --learning-rate 3e-4 --fresh-learning-rate 1.5e-3 --save-strategy no --decision-beams 1)

xlgen cluster --train-file train.jsonl --labels labels.txt --num-clusters 32 --output-dir clusters --plot label_clusters.png --overwrite
xlgen train --variant bcl "${rows[@]}" --num-clusters 32 --num-train-epochs 4 "${short[@]}" --output-dir bcl
[[ -e retrieval.jsonl ]] || {
  xlgen index "${rows[@]}" --epochs 0 --output-dir index
  xlgen predict --model index --input-file test.jsonl --output-file retrieval.jsonl
}
xlgen train --variant rcl "${rows[@]}" --retriever index --generation-loss-weight 0 --num-input-candidates 12 \
  --num-train-epochs 2 "${short[@]}" --output-dir rcl
[[ -e xlgen-rcl.jsonl ]] || xlgen predict --model rcl --input-file test.jsonl --output-file xlgen-rcl.jsonl
xlgen evaluate --predictions xlgen-rcl.jsonl --baseline retrieval.jsonl --references test.jsonl --train-file train.jsonl \
  --output-file scores.json --plot scores.png --overwrite
cp label_clusters.png scores.png scores_reliability.png scores_risk_coverage.png "$root/docs/images/"
cp bcl/images/training.png "$root/docs/images/training.png"
python "$root/benchmarks/draw_demo.py" --model index --model rcl --output "$root/docs/images/demo.png"
