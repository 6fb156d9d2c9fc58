#!/usr/bin/env bash
# Ablations of XLGen-BCL and XLGen-RCL on the quickstart's sample: benchmarks/sample_ablations.sh OUTPUT_DIR
# One epoch and one decoder layer per model; a run that was stopped continues.
set -euo pipefail
out=$1
sample=$(dirname "$0")/../xlgen_hf/samples/yso
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-2} TOKENIZERS_PARALLELISM=false
jemalloc=$(find /usr/lib -name 'libjemalloc.so.2' -print -quit)
[[ -z "$jemalloc" ]] || export LD_PRELOAD=$jemalloc # fewer page faults
run=(xlgen experiment --data "$sample" --labels "$sample/labels.txt.gz" --settings full --no-figures
  --set decoder_layers=1 --set dropout=0 --set max_source_length=128 --set max_target_length=64 --set bcl.num_clusters=30
  --set lexical=false --set decode_order=freq_forward --num_train_epochs 1 --learning_rate 3e-4 --fresh_learning_rate 1.5e-3)

"${run[@]}" --output-dir "$out/bcl" --systems xlgen-bcl --ablations label-rows,conditioning,bits,order,clusters,decoding
"${run[@]}" --output-dir "$out/rcl" --systems bonsai,dense-retrieval,dense-retrieval-trained,xlgen-rcl --seeds 0 \
  --ablation-system xlgen-rcl --ablations conditioning,label-rows
