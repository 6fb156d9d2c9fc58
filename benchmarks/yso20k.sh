#!/usr/bin/env bash
# Train the variants on yso-20k and compare all systems, with whole and with halved label lists: benchmarks/yso20k.sh DATA_DIR OUTPUT_DIR
# DATA_DIR holds yso-titles (train.jsonl.gz, validation.jsonl.gz, test.jsonl.gz, labels.txt.gz). A run that was stopped goes on
# where it was: trainings resume from their last checkpoint, finished steps are skipped.
set -euo pipefail
data=$1 out=$2
mkdir -p "$out"
[[ -e "$out/train.jsonl.gz" ]] || zcat "$data/train.jsonl.gz" | awk 'NR <= 20000' | gzip -n >"$out/train.jsonl.gz"
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-2} TOKENIZERS_PARALLELISM=false
jemalloc=$(find /usr/lib -name 'libjemalloc.so.2' -print -quit)
[[ -z "$jemalloc" ]] || export LD_PRELOAD=$jemalloc # fewer page faults
rows=(--train-file "$out/train.jsonl.gz" --validation-file "$data/validation.jsonl.gz" --labels "$data/labels.txt.gz")

train() { # NAME OPTION ...
  local name=$1
  shift
  [[ -e "$out/$name/training_report.json" ]] || /usr/bin/time -v -o "$out/$name.train.time" \
    xlgen train "${rows[@]}" --output-dir "$out/$name" --dropout 0 --eval_strategy no --save_strategy steps --save_steps 200 "$@"
}

[[ -e "$out/clusters/label_clusters.json" ]] || xlgen cluster --train-file "$out/train.jsonl.gz" \
  --labels "$data/labels.txt.gz" --name-weight 0.5 --output-dir "$out/clusters"
[[ -e "$out/index/score_model.json" ]] || xlgen index "${rows[@]}" --output-dir "$out/index"
paper=(--decode-order freq_forward --num_train_epochs 2) # the paper's order of labels
train base --variant base "${paper[@]}"
train bcl --variant bcl --clusters "$out/clusters" "${paper[@]}"
train mcg --variant mcg --clusters "$out/clusters" "${paper[@]}"
train rcl --variant rcl --retriever "$out/index" --num-input-candidates 12 --num_train_epochs 1
train base-pu --variant base --drop-labels 0.5 "${paper[@]}"
train bcl-pu --variant bcl --name-weight 0.5 --drop-labels 0.5 "${paper[@]}"
train mcg-pu --variant mcg --name-weight 0.5 --drop-labels 0.5 "${paper[@]}"
train rcl-pu --variant rcl --drop-labels 0.5 --num-input-candidates 12 --num_train_epochs 1
# BCL conditions on the clusters above 0.6, the best of 0.15 to 0.75 on the validation rows (chosen with whole label lists).
for name in bcl bcl-pu; do
  [[ ! -e "$out/${name}06" ]] || continue
  cp -r "$out/$name" "$out/${name}06"
  sed -i 's/"cluster_threshold": [0-9.]*/"cluster_threshold": 0.6/' "$out/${name}06/config.json"
done

compare=(xlgen experiment "${rows[@]}" --test-file "$data/test.jsonl.gz" --output-dir "$out/experiment" --pu-seed 42)
models=(--model "full.xlgen-base=$out/base" --model "full.xlgen-bcl=$out/bcl06" --model "full.xlgen-mcg=$out/mcg"
  --model "full.xlgen-rcl=$out/rcl" --model "pu.xlgen-base=$out/base-pu" --model "pu.xlgen-bcl=$out/bcl-pu06"
  --model "pu.xlgen-mcg=$out/mcg-pu" --model "pu.xlgen-rcl=$out/rcl-pu")
cheap=most-frequent,parabel,bonsai,dense-retrieval dear=dense-retrieval-trained,retrieval,xlgen-base,xlgen-bcl,xlgen-mcg,xlgen-rcl,hybrid
"${compare[@]}" --seeds 0,1,2 --systems "$cheap"
"${compare[@]}" --seeds 0 --systems "$dear" "${models[@]}"
"${compare[@]}" --report-only --systems "$cheap,$dear" "${models[@]}"
