#!/usr/bin/env bash
# What only a GPU can show: benchmarks/gpu_checks.sh [CAUSAL_CHECKPOINT]
# Runs the tests of decoder-only models in the GPU's presence, then trains an adapter on the sample rows in bfloat16 for some
# steps and predicts with it. Without a checkpoint it makes a random one of some 20 million parameters (no network needed).
# Says what it saw; meant to finish within eight minutes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python}
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} TOKENIZERS_PARALLELISM=false
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

"$python" - <<'PYTHON'
import torch, transformers
if not torch.cuda.is_available():
    raise SystemExit("There is no GPU that CUDA knows; nothing was checked.")
print(f"{torch.cuda.get_device_name(0)}, torch {torch.__version__}, transformers {transformers.__version__}")
PYTHON

checkpoint=${1:-$out/random-llama}
"$python" - "$out" "$checkpoint" <<'PYTHON'
import json, sys
from pathlib import Path

sys.path.insert(0, "tests")
from tiny import ROWS, make_causal_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

out, checkpoint = Path(sys.argv[1]), Path(sys.argv[2])
(out / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS * 40))
if checkpoint.parent == out:
    tokenizer = make_causal_tokenizer()
    config = LlamaConfig(vocab_size=len(tokenizer), hidden_size=512, intermediate_size=1024, num_hidden_layers=8,
                         num_attention_heads=8, num_key_value_heads=2, bos_token_id=0, eos_token_id=1)
    LlamaForCausalLM(config).save_pretrained(checkpoint)
    tokenizer.save_pretrained(checkpoint)
PYTHON

for variant in base bcl; do
  echo "== decoder-only, $variant: 60 steps in bfloat16 with activation checkpointing, then predictions"
  time "$python" -m xlgen_hf train --variant "$variant" --backbone "$checkpoint" --bf16 --gradient_checkpointing \
    --max-steps 60 --lora-rank 8 --train-file "$out/rows.jsonl" --validation-file "$out/rows.jsonl" \
    --output-dir "$out/$variant"
  "$python" -m xlgen_hf predict --model "$out/$variant" --input-file "$out/rows.jsonl" --output-file "$out/$variant.jsonl"
  head -n 3 "$out/$variant.jsonl"
done
echo "All checks ran."
