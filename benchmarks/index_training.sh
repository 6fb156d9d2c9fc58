#!/usr/bin/env bash
# How long and with which temperature and batch the encoder of an index learns: benchmarks/index_training.sh DATA_DIR OUTPUT_DIR [NAME OPTION ...]
# DATA_DIR has train.jsonl, validation.jsonl, test.jsonl and labels.txt. Without a NAME all indexes of the table are made, else that
# one with further options of `xlgen index`. Prints a line for each; a run that was stopped continues.
set -euo pipefail
data=$1 out=$2
shift 2
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-2} TOKENIZERS_PARALLELISM=false
jemalloc=$(find /usr/lib -name 'libjemalloc.so.2' -print -quit)
[[ -z "$jemalloc" ]] || export LD_PRELOAD=$jemalloc # fewer page faults
mkdir -p "$out"

index() { # NAME OPTION ...
  local folder=$out/$1 name=$1
  shift
  xlgen index --train-file "$data/train.jsonl" --validation-file "$data/validation.jsonl" --labels "$data/labels.txt" --dtype auto "$@" \
    --output-dir "$folder" 2>> "$folder.log" >> "$folder.log"
  scores() { # FILE OPTION ...
    local found=$folder/$1
    shift
    xlgen predict --model "$folder" --input-file "$data/test.jsonl" --dtype auto "$@" --output-file "$found.jsonl" --overwrite > /dev/null
    xlgen evaluate --predictions "$found.jsonl" --references "$data/test.jsonl" --train-file "$data/train.jsonl" --k 5,20 \
      --output-file "$found.json" --overwrite > /dev/null
  }
  [[ -e "$folder/own.json" ]] || scores own
  [[ -e "$folder/first20.json" ]] || scores first20 --top-k 20
  python - "$folder" "$name" <<'PYTHON'
import json, re, sys
folder, name = sys.argv[1:]
own, first = (json.load(open(f"{folder}/{part}.json", encoding="utf-8")) for part in ("own", "first20"))
kept = re.findall(r"kept as it was after (\S+) of (\S+) epochs", open(f"{folder}.log", encoding="utf-8").read())
shown = [f"{key} {own[key]:.4f}" for key in ("micro_f1", "macro_f1", "0_shot_macro_f1", "1_shot_macro_f1")]
shown += [f"{key} {value:.4f}" for key, value in first.items() if key in ("f1_at_5", "ndcg_at_20", "0_shot_recall_at_20")]
print(name, f"epochs {'/'.join(kept[-1])}" if kept else "", *shown, flush=True)
PYTHON
}

if (($#)); then
  index "$@"
  exit
fi
index frozen --epochs 0
index epoch
index three --epochs 3
index cool --temperature 0.02
index warm --temperature 0.1
index small --batch-size 32
index large --batch-size 128
