#!/usr/bin/env bash
# The whole of yso-titles (158,255 training rows): benchmarks/yso_full.sh DATA_DIR OUTPUT_DIR [HEAD_ROWS]
# An index of the frozen encoder, a candidate head that reads the first HEAD_ROWS training rows once (default: 20000), and the hybrid of both and
# Bonsai, each by today's defaults, beside Bonsai and dense retrieval of `xlgen experiment`. Prints a line for each; a run that was stopped continues.
set -euo pipefail
data=$1 out=$2 head_rows=${3:-20000}
mkdir -p "$out"
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-2} TOKENIZERS_PARALLELISM=false
jemalloc=$(find /usr/lib -name 'libjemalloc.so.2' -print -quit)
[[ -z "$jemalloc" ]] || export LD_PRELOAD=$jemalloc # fewer page faults
others=(--validation-file "$data/validation.jsonl.gz" --labels "$data/labels.txt.gz")
rows=(--train-file "$data/train.jsonl.gz" "${others[@]}")
[[ -e "$out/first.jsonl" ]] || zcat "$data/train.jsonl.gz" | awk -v rows="$head_rows" 'NR <= rows' >"$out/first.jsonl"

scores() { # NAME
  [[ -e "$out/$1.json" ]] || {
    xlgen predict --model "$out/$1" --input-file "$data/test.jsonl.gz" --dtype auto --output-file "$out/$1.jsonl" --overwrite
    xlgen evaluate --predictions "$out/$1.jsonl" --references "$data/test.jsonl.gz" --train-file "$data/train.jsonl.gz" --output-file "$out/$1.json"
  }
  python -c 'import json, sys
scores = json.load(open(f"{sys.argv[1]}.json", encoding="utf-8"))
shown = ("micro_f1", "macro_f1", "0_shot_macro_f1", "1_shot_macro_f1", "precision_at_1")
print(sys.argv[1].rpartition("/")[2], *(f"{name} {scores[name]:.4f}" for name in shown))' "$out/$1"
}

[[ -e "$out/index/training_report.json" ]] || xlgen index "${rows[@]}" --epochs 0 --dtype auto --output-dir "$out/index"
scores index
[[ -e "$out/head/training_report.json" ]] || xlgen train --retriever "$out/index" --generation-loss-weight 0 --num-input-candidates 24 \
  --train-file "$out/first.jsonl" "${others[@]}" --learning_rate 1e-4 --num_train_epochs 1 --label-rows 0 --dtype auto --use_cpu \
  --eval_strategy no --output-dir "$out/head"
scores head
[[ -e "$out/hybrid/score_model.json" ]] || xlgen hybrid --model "$out/head" --linear bonsai "${rows[@]:0:4}" --output-dir "$out/hybrid"
scores hybrid
xlgen experiment "${rows[@]}" --test-file "$data/test.jsonl.gz" --output-dir "$out/experiment" --settings full --seeds 0 --systems bonsai,dense-retrieval
