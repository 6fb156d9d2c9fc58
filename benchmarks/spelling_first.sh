#!/usr/bin/env bash
# A decoder that learns to spell before it reads texts: [MODELS="names denoised longer"] benchmarks/spelling_first.sh DATA_DIR OUTPUT_DIR [SEED]
# DATA_DIR has train.jsonl, validation.jsonl, test.jsonl and labels.txt. First an epoch of rows made of label names alone (`names`: each name
# twice, and up to four labels of each training row) or of texts that are restored from three quarters of their words (`denoised`), then an
# epoch of the texts; beside them 1.7 epochs of the texts (`longer`), which takes as long as names and texts.
# XLGen-base, one decoder layer, greedy search. Prints a line for each; a run that was stopped continues.
set -euo pipefail
data=$1 out=$2 seed=${3:-0}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-2} TOKENIZERS_PARALLELISM=false
jemalloc=$(find /usr/lib -name 'libjemalloc.so.2' -print -quit)
[[ -z "$jemalloc" ]] || export LD_PRELOAD=$jemalloc # fewer page faults
mkdir -p "$out"
python - "$data" "$out" <<'PYTHON'
import json, random, sys
data, out = sys.argv[1:]
random.seed(0)
names = open(f"{data}/labels.txt", encoding="utf-8").read().splitlines()
train = [json.loads(line) for line in open(f"{data}/train.jsonl", encoding="utf-8")]
sets = [row["labels"] for row in train]
named = [[name] for name in names] * 2 + [random.sample(labels, min(len(labels), 4)) for labels in sets if labels]
random.shuffle(named)

def noised(text):
    words = text.split()
    return " ".join(words[place] for place in sorted(random.sample(range(len(words)), -(-3 * len(words) // 4))))

def write(name, rows):
    with open(f"{out}/{name}.jsonl", "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)

write("names", ({"text": "; ".join(labels), "labels": labels} for labels in named))
write("denoised", ({"text": noised(row["text"]), "labels": [row["text"]]} for row in train))
PYTHON

shared=(--variant base --decoder-layers 1 --dropout 0 --max-source-length 128 --max-target-length 64 --decision-beams 1
  --eval_strategy no --save_strategy no --use_cpu)
texts=(--labels "$data/labels.txt" --train-file "$data/train.jsonl" --validation-file "$data/validation.jsonl" --seed "$seed")

model() { # NAME OPTION ...
  local folder=$out/$1
  shift
  [[ -e "$folder/training_report.json" ]] || xlgen train "${shared[@]}" "$@" --output-dir "$folder"
}

scores() { # NAME
  [[ -e "$out/$1/test.json" ]] || {
    xlgen predict --model "$out/$1" --input-file "$data/test.jsonl" --output-file "$out/$1/test.jsonl" --overwrite
    xlgen evaluate --predictions "$out/$1/test.jsonl" --references "$data/test.jsonl" --train-file "$data/train.jsonl" \
      --output-file "$out/$1/test.json"
  }
  python -c 'import json, sys
scores = json.load(open(f"{sys.argv[1]}/test.json", encoding="utf-8"))
shown = ("micro_f1", "macro_f1", "0_shot_macro_f1", "1_shot_macro_f1", "precision_at_1")
print(sys.argv[1].rpartition("/")[2], *(f"{name} {scores[name]:.4f}" for name in shown))' "$out/$1"
}

for name in ${MODELS:-names denoised longer}; do
  if [[ $name == longer ]]; then
    model longer "${texts[@]}" --num_train_epochs 1.7
    scores longer
    continue
  fi
  model "$name" --train-file "$out/$name.jsonl" --label-rows 0 --num_train_epochs 1 # `denoised` has texts as its labels
  model "$name-then-texts" "${texts[@]}" --start-from "$out/$name" --num_train_epochs 1
  scores "$name-then-texts"
done
