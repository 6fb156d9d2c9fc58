#!/usr/bin/env bash
# The whole of yso-titles (158,255 training rows): benchmarks/yso_full.sh DATA_DIR YSO20K_DIR OUTPUT_DIR
# YSO20K_DIR is the output of yso20k.sh: its retrieval encoder embeds the rows here. Training starts from an RCL of yso-20k
# whose candidates come from embeddings alone.
# A run that was stopped continues.
set -euo pipefail
data=$1 small=$2 out=$3
mkdir -p "$out"
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-2} TOKENIZERS_PARALLELISM=false
jemalloc=$(find /usr/lib -name 'libjemalloc.so.2' -print -quit)
[[ -z "$jemalloc" ]] || export LD_PRELOAD=$jemalloc # fewer page faults
rows=(--train-file "$data/train.jsonl.gz" --validation-file "$data/validation.jsonl.gz" --labels "$data/labels.txt.gz")

few=(--train-file "$small/train.jsonl.gz" --validation-file "$data/validation.jsonl.gz" --labels "$data/labels.txt.gz")

[[ -e "$out/index20k/score_model.json" ]] || \
  xlgen index "${few[@]}" --encoder "$small/index/retriever" --epochs 0 --no-lexical --output-dir "$out/index20k"
[[ -e "$out/rcl20k/training_report.json" ]] || \
  xlgen train "${few[@]}" --variant rcl --retriever "$out/index20k" --num-input-candidates 12 --num_train_epochs 1 \
  --decode-order freq_forward --output-dir "$out/rcl20k" --dropout 0 --eval_strategy no --save_strategy steps --save_steps 200
[[ -e "$out/index/score_model.json" ]] || /usr/bin/time -v -o "$out/index.time" \
  xlgen index "${rows[@]}" --encoder "$small/index/retriever" --epochs 0 --no-lexical --output-dir "$out/index"
[[ -e "$out/rcl/training_report.json" ]] || /usr/bin/time -v -o "$out/rcl.time" \
  xlgen train "${rows[@]}" --variant rcl --retriever "$out/index" --num-input-candidates 12 --start-from "$out/rcl20k" \
  --decode-order freq_forward --max_steps 300 --output-dir "$out/rcl" --dropout 0 --eval_strategy no --save_strategy steps --save_steps 100
xlgen experiment "${rows[@]}" --test-file "$data/test.jsonl.gz" --output-dir "$out/experiment" --settings full --seeds 0 \
  --systems bonsai,dense-retrieval,xlgen-rcl --model "full.xlgen-rcl=$out/rcl"
