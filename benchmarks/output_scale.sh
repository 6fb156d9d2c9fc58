#!/usr/bin/env bash
# How large the logits of a new decoder are, whose output layer is the encoder's word embeddings: benchmarks/output_scale.sh OUTPUT_DIR [SCALE ...]
# An XLGen-base on the quickstart's sample, one decoder layer, one epoch, greedy search, seed 0, from states that are the same but for the gain of the
# layer norm before the output layer: times each SCALE. Prints a line for each; a run that was stopped continues.
set -euo pipefail
out=$1
shift
data=$(cd "$(dirname "$0")/../xlgen_hf/samples/yso" && pwd)
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-2} TOKENIZERS_PARALLELISM=false
jemalloc=$(find /usr/lib -name 'libjemalloc.so.2' -print -quit)
[[ -z "$jemalloc" ]] || export LD_PRELOAD=$jemalloc # fewer page faults
mkdir -p "$out"
shared=(--train-file "$data/train.jsonl.gz" --validation-file "$data/validation.jsonl.gz" --labels "$data/labels.txt.gz" --variant base --dtype auto
  --decoder-layers 1 --dropout 0 --max-source-length 128 --max-target-length 64 --decision-beams 1 --seed 0 --eval_strategy no --save_strategy no --use_cpu)

[[ -e "$out/start/training_report.json" ]] || xlgen train "${shared[@]}" --max_steps 1 --learning_rate 1e-12 --output-dir "$out/start"
for scale in "${@:-1}"; do
  [[ -e "$out/from-$scale" ]] || python - "$out/start" "$scale" "$out/from-$scale" <<'PYTHON'
import shutil, sys
import torch
from xlgen_hf import load_model
start, scale, made = sys.argv[1:]
model, processor = load_model(start)
with torch.no_grad():
    model.backbone.decoder.cls.predictions.transform.LayerNorm.weight.mul_(float(scale))
model.save_pretrained(made)
processor.save_pretrained(made)
PYTHON
  [[ -e "$out/$scale/training_report.json" ]] || xlgen train "${shared[@]}" --start-from "$out/from-$scale" --num_train_epochs 1 --output-dir "$out/$scale"
  [[ -e "$out/$scale/test.json" ]] || {
    xlgen predict --model "$out/$scale" --input-file "$data/test.jsonl.gz" --output-file "$out/$scale/test.jsonl" --overwrite
    xlgen evaluate --predictions "$out/$scale/test.jsonl" --references "$data/test.jsonl.gz" --train-file "$data/train.jsonl.gz" \
      --output-file "$out/$scale/test.json"
  }
  python -c 'import json, sys
scores = json.load(open(f"{sys.argv[1]}/test.json", encoding="utf-8"))
shown = ("micro_f1", "macro_f1", "0_shot_macro_f1", "1_shot_macro_f1", "precision_at_1")
print(sys.argv[1].rpartition("/")[2], *(f"{name} {scores[name]:.4f}" for name in shown))' "$out/$scale"
done
