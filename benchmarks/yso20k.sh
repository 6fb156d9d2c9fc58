#!/usr/bin/env bash
# Train and score the variants on yso-20k: benchmarks/yso20k.sh DATA_DIR OUTPUT_DIR [VARIANT ...]
# DATA_DIR holds yso-titles (train.jsonl.gz, validation.jsonl.gz, test.jsonl.gz, labels.txt.gz). A run that was stopped goes on
# where it was: trainings resume from their last checkpoint, finished steps are skipped.
set -euo pipefail
data=$1 out=$2
shift 2
variants=("${@:-base bcl mcg}")
mkdir -p "$out"
[[ -e "$out/train.jsonl.gz" ]] || zcat "$data/train.jsonl.gz" | awk 'NR <= 20000' | gzip -n >"$out/train.jsonl.gz"
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-2} TOKENIZERS_PARALLELISM=false
jemalloc=$(find /usr/lib -name 'libjemalloc.so.2' -print -quit)
[[ -z "$jemalloc" ]] || export LD_PRELOAD=$jemalloc # fewer page faults

[[ -e "$out/clusters/label_clusters.json" ]] || xlgen cluster --train-file "$out/train.jsonl.gz" \
  --labels "$data/labels.txt.gz" --name-weight 0.5 --output-dir "$out/clusters"
for variant in ${variants[*]}; do
  [[ -e "$out/$variant/model.safetensors" ]] || /usr/bin/time -v -o "$out/$variant.train.time" \
    xlgen train --train-file "$out/train.jsonl.gz" --validation-file "$data/validation.jsonl.gz" \
    --labels "$data/labels.txt.gz" --clusters "$out/clusters" --variant "$variant" --output-dir "$out/$variant" \
    --dropout 0 --label-rows 0.3 --num_train_epochs "${EPOCHS:-2}" --eval_strategy no --save_strategy steps \
    --save_steps 200 --logging_steps 50
  settings=()
  [[ "$variant" != bcl ]] || settings=(--cluster-threshold 0.6) # the best of 0.15 to 0.75 on the validation rows
  [[ -e "$out/$variant.jsonl" ]] || /usr/bin/time -v -o "$out/$variant.predict.time" \
    xlgen predict --model "$out/$variant" "${settings[@]}" --input-file "$data/test.jsonl.gz" \
    --output-file "$out/$variant.jsonl"
  xlgen evaluate --predictions "$out/$variant.jsonl" --references "$data/test.jsonl.gz" \
    --train-file "$out/train.jsonl.gz" --output-file "$out/$variant.scores.json"
done
