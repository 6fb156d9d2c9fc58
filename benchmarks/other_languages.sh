#!/usr/bin/env bash
# Systems on Finnish questions and Swedish titles: benchmarks/other_languages.sh CORPORA_DIR OUTPUT_DIR
# CORPORA_DIR is a clone of the GitHub repository NatLibFi/Annif-corpora. A run that was stopped continues.
set -euo pipefail
corpora=$1 out=$2
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-2} TOKENIZERS_PARALLELISM=false
jemalloc=$(find /usr/lib -name 'libjemalloc.so.2' -print -quit)
[[ -z "$jemalloc" ]] || export LD_PRELOAD=$jemalloc # fewer page faults
[[ -e "$out/data/swedish/labels.txt" ]] || python "$(dirname "$0")/annif_data.py" "$corpora" "$out/data"
for language in finnish swedish; do
  data=$out/data/$language
  xlgen experiment --data "$data" --labels "$data/labels.txt" --output-dir "$out/$language" --settings full --seeds 0 \
    --systems bonsai,dense-retrieval,retrieval,xlgen-rcl,hybrid --no-figures --num_train_epochs 1 \
    --set dropout=0 --set decoder_layers=1 --set num_input_candidates=12
done
