#!/usr/bin/env bash
# Soft targets from a hybrid: [DROP=0.5] benchmarks/hybrid_teacher.sh DATA_DIR OUTPUT_DIR [SEED]
# DATA_DIR has train.jsonl, validation.jsonl, test.jsonl and labels.txt; DROP is the fraction of each training row's labels that no model
# sees. Two hybrids (candidate head, its index of the frozen encoder, Bonsai), each of every second training row, score 50 labels for
# each row of the other half. Then four heads learn from all rows: from the lists alone (`lists`), with 0.3 of the retrieval score as the
# target of a candidate that its row lacks (`retrieval`), and with 0.3 or all of the hybrid's score (`hybrid-0.3`, `hybrid-1`).
# Prints a line for each; a run that was stopped continues.
set -euo pipefail
data=$1 out=$2 seed=${3:-0}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-2} TOKENIZERS_PARALLELISM=false
jemalloc=$(find /usr/lib -name 'libjemalloc.so.2' -print -quit)
[[ -z "$jemalloc" ]] || export LD_PRELOAD=$jemalloc # fewer page faults
mkdir -p "$out"
[[ -e "$out/half-1.jsonl" ]] || python - "$data" "$out" "${DROP:-0}" "$seed" <<'PYTHON'
import sys
from datasets import Dataset
from xlgen_hf.data.transforms import drop_labels
data, out, rate, seed = sys.argv[1:]
rows = Dataset.from_json(f"{data}/train.jsonl", keep_in_memory=True)
rows = drop_labels(rows, float(rate), int(seed))
for name, part in ("train", rows), *((f"half-{n}", rows.select(range(n, len(rows), 2))) for n in (0, 1)):
    part.to_json(f"{out}/{name}.jsonl", force_ascii=False)
PYTHON

validation=(--validation-file "$data/validation.jsonl")
head=("${validation[@]}" --labels "$data/labels.txt" --generation-loss-weight 0 --retriever-epochs 0 --num-input-candidates 12 --dropout 0 --max-source-length 128
  --num_train_epochs 1 --label-rows 0 --eval_strategy no --save_strategy no --dtype auto --use_cpu --seed "$seed")

for half in 0 1; do # each teaches the other half
  [[ -e "$out/head-$half/training_report.json" ]] || xlgen train --train-file "$out/half-$half.jsonl" "${head[@]}" --output-dir "$out/head-$half"
  [[ -e "$out/teacher-$half/score_model.json" ]] ||
    xlgen hybrid --model "$out/head-$half" --linear bonsai --train-file "$out/half-$half.jsonl" "${validation[@]}" --output-dir "$out/teacher-$half"
  [[ -e "$out/taught-$((1 - half)).jsonl" ]] ||
    xlgen predict --model "$out/teacher-$half" --input-file "$out/half-$((1 - half)).jsonl" --top-k 50 --dtype auto \
      --output-file "$out/taught-$((1 - half)).jsonl"
done

student() { # NAME SHARE TEACHER
  local folder=$out/$1
  [[ -e "$folder/training_report.json" ]] || TEACHER=$3 TAUGHT=$out python - train --train-file "$out/train.jsonl" "${head[@]}" \
    --soft-targets "$2" --output-dir "$folder" <<'PYTHON'
import json, os
from xlgen_hf.cli.main import run
from xlgen_hf.training.collator import DataCollatorForXLGen

if os.environ["TEACHER"] == "hybrid":
    halves = [[json.loads(line) for line in open(f"{os.environ['TAUGHT']}/taught-{half}.jsonl", encoding="utf-8")] for half in (0, 1)]
    taught = [dict(zip(one["labels"], one["scores"])) for one in (halves[row % 2][row // 2] for row in range(sum(map(len, halves))))]
    of_lists = DataCollatorForXLGen._candidate_targets

    def targets(self, text, feature):
        """The target of a candidate that the row lacks is a share of the teacher's score instead of the retriever's."""
        scores, names = taught[feature["row"]], self.processor.label_space.names
        right = set(feature["label_ids"])
        learned = [1.0 if label in right else self.soft_targets * scores.get(names[label], 0.0) for label in text.candidates.labels]
        return learned or of_lists(self, text, feature)

    DataCollatorForXLGen._candidate_targets = targets
run()
PYTHON
  [[ -e "$folder/test.json" ]] || {
    xlgen predict --model "$folder" --input-file "$data/test.jsonl" --output-file "$folder/test.jsonl" --overwrite >/dev/null
    xlgen evaluate --predictions "$folder/test.jsonl" --references "$data/test.jsonl" --train-file "$out/train.jsonl" --output-file "$folder/test.json" \
      >/dev/null
  }
  python -c 'import json, sys
scores = json.load(open(f"{sys.argv[1]}/test.json", encoding="utf-8"))
shown = ("micro_f1", "macro_f1", "0_shot_macro_f1", "1_shot_macro_f1", "precision_at_1")
print(sys.argv[1].rpartition("/")[2], *(f"{name} {scores[name]:.4f}" for name in shown), flush=True)' "$folder"
}

student lists 0 none
student retrieval 0.3 none
student hybrid-0.3 0.3 hybrid
student hybrid-1 1 hybrid
