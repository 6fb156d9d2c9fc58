#!/usr/bin/env bash
# Train small models of every kind on the bundled sample with fixed seeds, and record what they predict. Two checkouts are
# compared by `compare_predictions.py FOLDER_A FOLDER_B`.
# Usage: record_predictions.sh CHECKOUT OUTPUT_FOLDER [PYTHON]
set -euo pipefail
checkout=$(realpath "$1") output=$2 python=${3:-python3}
export PYTHONPATH=$checkout HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false
mkdir -p "$output" && cd "$output"
sample=$checkout/xlgen_hf/samples/yso
for part in train:2000 validation:300 test:200; do
  zcat "$sample/${part%:*}.jsonl.gz" | sed -n "1,${part#*:}p" >"${part%:*}.jsonl"
done
zcat "$sample/labels.txt.gz" >labels.txt

data=(--train-file train.jsonl --validation-file validation.jsonl --labels labels.txt)
steps=(--max_steps 40 --per_device_train_batch_size 16 --learning_rate 3e-4 --seed 7 --eval_strategy no
  --save_strategy no --use_cpu True --cpu-threads 1)
run() { if [[ ! -d $1 ]]; then echo "== $1"; "${@:2}" >"$1.log" 2>&1; fi; }
xlgen() { "$python" -m xlgen_hf "$@"; }
run bcl xlgen train "${data[@]}" --variant bcl --cluster-threshold 0.25 --output-dir bcl "${steps[@]}"
run mcg xlgen train "${data[@]}" --variant mcg --output-dir mcg "${steps[@]}"
run index xlgen index "${data[@]}" --output-dir index --epochs 1 --batch-size 32 --cpu-threads 1 --seed 7
run rcl xlgen train "${data[@]}" --variant rcl --retriever index --output-dir rcl "${steps[@]}"
run hybrid xlgen hybrid --model rcl --validation-file validation.jsonl --output-dir hybrid
run adapter xlgen train "${data[@]}" --variant bcl --cluster-threshold 0.25 --lora --output-dir adapter "${steps[@]}"
for model in bcl mcg rcl hybrid adapter; do
  for options in "own:" "top20:--top-k 20" "beams:--num-beams 4 --pool union --threshold auto"; do
    rm -f "p_${model}_${options%%:*}.jsonl"
    # shellcheck disable=SC2086  # options are several words
    xlgen predict --model "$model" --input-file test.jsonl --output-file "p_${model}_${options%%:*}.jsonl" \
      --device cpu ${options#*:} >/dev/null 2>&1
  done
done
