#!/usr/bin/env bash
# The article's question on the quickstart's sample: base, BCL and MCG, each with and without retrieved candidates.
#   [MODELS="base bcl ..."] benchmarks/sample_variants.sh OUTPUT_DIR [SEED ...]
# One decoder layer, one epoch and greedy search each. A run that was stopped continues. Prints a line for each model.
set -euo pipefail
out=$1
shift
sample=$(cd "$(dirname "$0")/../xlgen_hf/samples/yso" && pwd)
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-2} TOKENIZERS_PARALLELISM=false
jemalloc=$(find /usr/lib -name 'libjemalloc.so.2' -print -quit)
[[ -z "$jemalloc" ]] || export LD_PRELOAD=$jemalloc # fewer page faults
rows=(--train-file "$sample/train.jsonl.gz" --validation-file "$sample/validation.jsonl.gz" --labels "$sample/labels.txt.gz")
shared=(--decoder-layers 1 --dropout 0 --max-source-length 128 --max-target-length 64 --num_train_epochs 1 --decision-beams 1 --eval_strategy no --save_strategy no --dtype auto --use_cpu)

mkdir -p "$out"
[[ -e "$out/index/score_model.json" ]] || xlgen index "${rows[@]}" --epochs 0 --output-dir "$out/index"

model() { # NAME SEED OPTION ...
  local folder=$out/$1-$2 seed=$2
  shift 2
  [[ -e "$folder/training_report.json" ]] || xlgen train "${rows[@]}" "${shared[@]}" --seed "$seed" "$@" --output-dir "$folder"
  [[ -e "$folder/test.json" ]] || {
    xlgen predict --model "$folder" --input-file "$sample/test.jsonl.gz" --output-file "$folder/test.jsonl" --overwrite
    xlgen evaluate --predictions "$folder/test.jsonl" --references "$sample/test.jsonl.gz" --train-file "$sample/train.jsonl.gz" \
      --output-file "$folder/test.json"
  }
  python - "$folder" <<'PYTHON'
import json, sys
scores = json.load(open(f"{sys.argv[1]}/test.json", encoding="utf-8"))
shown = ("micro_f1", "macro_f1", "0_shot_macro_f1", "1_shot_macro_f1", "precision_at_1")
print(sys.argv[1].rpartition("/")[2], *(f"{name} {scores[name]:.4f}" for name in shown if name in scores), flush=True)
PYTHON
}

for seed in "${@:-0}"; do
  for name in ${MODELS:-base bcl mcg rcl bcl-candidates mcg-candidates}; do # rcl is base with candidates
    options=(--variant "${name%-candidates}")
    [[ $name != *-candidates ]] || options+=(--candidates)
    [[ $name != rcl && $name != *-candidates ]] || options+=(--retriever "$out/index" --num-input-candidates 12)
    model "$name" "$seed" "${options[@]}"
  done
done
