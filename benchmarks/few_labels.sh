#!/usr/bin/env bash
# Few labels with many rows: benchmarks/few_labels.sh OUTPUT_DIR tibkat TIBKAT_DIR
#                            benchmarks/few_labels.sh OUTPUT_DIR domains TIBKAT_DIR
#                            benchmarks/few_labels.sh OUTPUT_DIR emotions GOEMOTIONS_DIR
#                            benchmarks/few_labels.sh OUTPUT_DIR packages [LANGUAGE]
# The rows are those of few_labels_rows.py. A linear SVM (one against the rest, scikit-learn, its threshold from validation rows) beside
# label trees, an index of the frozen encoder, and the hybrid of both. Prints a line for each.
set -euo pipefail
out=$1 source=$2
shift 2
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-2} TOKENIZERS_PARALLELISM=false
mkdir -p "$out"
if [[ $source == packages ]]; then
  python "$(dirname "$0")/few_labels_rows.py" packages "$out" "$@"
else
  python "$(dirname "$0")/few_labels_rows.py" "$source" "$1" "$out"
fi
python - "$out" <<'PYTHON'
import json, sys
import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import f1_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import MultiLabelBinarizer
from sklearn.svm import LinearSVC

splits = ("train", "validation", "test")
rows = {name: [json.loads(line) for line in open(f"{sys.argv[1]}/{name}.jsonl", encoding="utf-8")] for name in splits}
words, names = TfidfVectorizer(sublinear_tf=True, min_df=2), MultiLabelBinarizer()
texts = {name: [row["text"] for row in part] for name, part in rows.items()}
x = {"train": words.fit_transform(texts["train"]), **{name: words.transform(texts[name]) for name in ("validation", "test")}}
trained = {label for row in rows["train"] for label in row["labels"]}
names.fit([row["labels"] for row in rows["train"]])
known = {name: [[label for label in row["labels"] if label in trained] for row in part] for name, part in rows.items()}
y = {name: names.transform(part) for name, part in known.items()}
svm = OneVsRestClassifier(LinearSVC()).fit(x["train"], y["train"])
scores = {name: svm.decision_function(x[name]) for name in ("validation", "test")}
least = max(np.linspace(-1, 0.5, 31), key=lambda value: f1_score(y["validation"], scores["validation"] > value, average="micro"))
chosen = names.inverse_transform((scores["test"] > least).astype(int))
best = scores["test"].argmax(1)
keeps_best = all(known["validation"])  # each text keeps its best label, unless some have none
with open(f"{sys.argv[1]}/svm.jsonl", "w", encoding="utf-8") as file:
    for labels, first in zip(chosen, best):
        first = names.classes_[first]
        if not keeps_best and not labels:
            file.write('{"labels": []}\n')
            continue
        file.write(json.dumps({"labels": [first, *(one for one in labels if one != first)]}) + "\n")
PYTHON

rows=(--train-file "$out/train.jsonl" --validation-file "$out/validation.jsonl")

scores() { # NAME
  [[ ! -d "$out/$1" ]] || xlgen predict --model "$out/$1" --input-file "$out/test.jsonl" --output-file "$out/$1.jsonl" --overwrite > /dev/null
  xlgen evaluate --predictions "$out/$1.jsonl" --references "$out/test.jsonl" --train-file "$out/train.jsonl" --output-file "$out/$1.json" \
    --overwrite > /dev/null
  python -c 'import json, sys
scores = json.load(open(f"{sys.argv[1]}.json", encoding="utf-8"))
shown = ("micro_f1", "macro_f1", "precision_at_1")
print(sys.argv[1].rpartition("/")[2], *(f"{name} {scores[name]:.4f}" for name in shown), flush=True)' "$out/$1"
}

scores svm
[[ -e "$out/bonsai/score_model.json" ]] || xlgen index "${rows[@]}" --method bonsai --output-dir "$out/bonsai" > /dev/null
scores bonsai
[[ -e "$out/index/score_model.json" ]] || xlgen index "${rows[@]}" --epochs 0 --dtype auto --output-dir "$out/index" > /dev/null
scores index
[[ -e "$out/hybrid/score_model.json" ]] || xlgen hybrid --model "$out/index" --linear bonsai "${rows[@]}" --output-dir "$out/hybrid" > /dev/null
scores hybrid
