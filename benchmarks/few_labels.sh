#!/usr/bin/env bash
# Few labels with many rows: benchmarks/few_labels.sh TIBKAT_DIR OUTPUT_DIR
# TIBKAT_DIR holds train.jsonl.gz, validation.jsonl.gz and test.jsonl.gz. English titles and abstracts with the 60 most frequent subjects,
# whose names are German: 6,000 training, 600 validation and 1,500 test rows. A linear SVM (one against the rest, scikit-learn, its
# threshold from validation rows) beside label trees, an index of the frozen encoder, and the hybrid of both. Prints a line for each.
set -euo pipefail
data=$1 out=$2
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-2} TOKENIZERS_PARALLELISM=false
mkdir -p "$out"
python - "$data" "$out" <<'PYTHON'
import collections, gzip, json, sys
import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import f1_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import MultiLabelBinarizer
from sklearn.svm import LinearSVC

data, out = sys.argv[1:]
sizes = {"train": 6_000, "validation": 600, "test": 1_500}
rows = {name: [json.loads(line) for line in gzip.open(f"{data}/{name}.jsonl.gz", "rt", encoding="utf-8")] for name in sizes}
english = {name: [row for row in part if row["language"] == "en"] for name, part in rows.items()}
counts = collections.Counter(label for row in english["train"] for label in row["labels"])
wanted = {label for label, _ in counts.most_common(60)}
taken = {}
for name, part in english.items():
    found = [{"text": row["text"], "labels": [one for one in row["labels"] if one in wanted]} for row in part]
    taken[name] = [row for row in found if row["labels"]][: sizes[name]]
    with open(f"{out}/{name}.jsonl", "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in taken[name])

words, names = TfidfVectorizer(sublinear_tf=True, min_df=2), MultiLabelBinarizer()
texts = {name: [row["text"] for row in part] for name, part in taken.items()}
x = {"train": words.fit_transform(texts["train"]), **{name: words.transform(texts[name]) for name in ("validation", "test")}}
names.fit([row["labels"] for row in taken["train"]])
y = {name: names.transform([row["labels"] for row in part]) for name, part in taken.items()}
svm = OneVsRestClassifier(LinearSVC()).fit(x["train"], y["train"])
scores = {name: svm.decision_function(x[name]) for name in ("validation", "test")}
least = max(np.linspace(-1, 0.5, 31), key=lambda value: f1_score(y["validation"], scores["validation"] > value, average="micro"))
micro, macro = (f1_score(y["test"], scores["test"] > least, average=kind) for kind in ("micro", "macro"))
best = y["test"][np.arange(len(y["test"])), scores["test"].argmax(1)].mean()
print(f"svm micro_f1 {micro:.4f} macro_f1 {macro:.4f} precision_at_1 {best:.4f}", flush=True)
PYTHON

rows=(--train-file "$out/train.jsonl" --validation-file "$out/validation.jsonl")

scores() { # NAME
  xlgen predict --model "$out/$1" --input-file "$out/test.jsonl" --output-file "$out/$1.jsonl" --overwrite > /dev/null
  xlgen evaluate --predictions "$out/$1.jsonl" --references "$out/test.jsonl" --train-file "$out/train.jsonl" --output-file "$out/$1.json" \
    --overwrite > /dev/null
  python -c 'import json, sys
scores = json.load(open(f"{sys.argv[1]}.json", encoding="utf-8"))
shown = ("micro_f1", "macro_f1", "precision_at_1")
print(sys.argv[1].rpartition("/")[2], *(f"{name} {scores[name]:.4f}" for name in shown), flush=True)' "$out/$1"
}

[[ -e "$out/bonsai/score_model.json" ]] || xlgen index "${rows[@]}" --method bonsai --output-dir "$out/bonsai" > /dev/null
scores bonsai
[[ -e "$out/index/score_model.json" ]] || xlgen index "${rows[@]}" --epochs 0 --dtype auto --output-dir "$out/index" > /dev/null
scores index
[[ -e "$out/hybrid/score_model.json" ]] || xlgen hybrid --model "$out/index" --linear bonsai "${rows[@]}" --output-dir "$out/hybrid" > /dev/null
scores hybrid
