#!/usr/bin/env bash
# The article's question: base, BCL and MCG, each with and without retrieved candidates.
#   [DATA=DIR] [ROWS=N] [DROP=0.5] [MODELS="base bcl ..."] benchmarks/variants.sh OUTPUT_DIR [SEED ...]
# DATA holds train.jsonl.gz, validation.jsonl.gz, test.jsonl.gz and labels.txt.gz (default: the quickstart's sample); the first ROWS rows
# are trained on (default: all). DROP is the fraction of each training row's labels that neither the models nor their indexes see.
# One decoder layer, one epoch and greedy search each. A run that was stopped continues. Prints a line for each model.
set -euo pipefail
out=$1
shift
data=$(cd "${DATA:-$(dirname "$0")/../xlgen_hf/samples/yso}" && pwd)
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-2} TOKENIZERS_PARALLELISM=false
jemalloc=$(find /usr/lib -name 'libjemalloc.so.2' -print -quit)
[[ -z "$jemalloc" ]] || export LD_PRELOAD=$jemalloc # fewer page faults
mkdir -p "$out"
train=$data/train.jsonl.gz
if [[ -n "${ROWS:-}" ]]; then
  train=$out/train.jsonl
  zcat "$data/train.jsonl.gz" | awk -v rows="$ROWS" 'NR <= rows' >"$train"
fi
rows=(--train-file "$train" --validation-file "$data/validation.jsonl.gz" --labels "$data/labels.txt.gz" --dtype auto)
shared=(--drop-labels "${DROP:-0}" --decoder-layers 1 --dropout 0 --max-source-length 128 --max-target-length 64 --num_train_epochs 1 --decision-beams 1
  --eval_strategy no --save_strategy no --use_cpu)

model() { # NAME SEED OPTION ...
  local folder=$out/$1-$2 seed=$2
  shift 2
  [[ -e "$folder/training_report.json" ]] || xlgen train "${rows[@]}" "${shared[@]}" --seed "$seed" "$@" --output-dir "$folder"
  [[ -e "$folder/test.json" ]] || {
    xlgen predict --model "$folder" --input-file "$data/test.jsonl.gz" --output-file "$folder/test.jsonl" --overwrite
    xlgen evaluate --predictions "$folder/test.jsonl" --references "$data/test.jsonl.gz" --train-file "$train" --output-file "$folder/test.json"
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
    if [[ $name == rcl || $name == *-candidates ]]; then
      options+=(--num-input-candidates 12)
      if [[ -n "${DROP:-}" ]]; then
        options+=(--retriever-epochs 0) # an index of its own, of the labels that are left
      else
        [[ -e "$out/index/score_model.json" ]] || xlgen index "${rows[@]}" --epochs 0 --output-dir "$out/index"
        options+=(--retriever "$out/index")
      fi
    fi
    model "$name" "$seed" "${options[@]}"
  done
done
