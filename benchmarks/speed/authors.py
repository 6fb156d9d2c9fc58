"""Runs in the authors' environment: authors.py CHECKOUT TASK BATCH_SIZE STEPS prints CPU seconds of their code.

Their model, and their own loops, on tensors padded as theirs are: inputs to 500 tokens, their default, targets to 90,
what their script gives for EUR-Lex. Generation ends after STEPS tokens.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
from types import SimpleNamespace

import torch

logging.disable(logging.WARNING)
CHECKOUT, TASK, BATCH_SIZE, STEPS = sys.argv[1:5]
SOURCE, TARGET = 500, 90
sys.path.insert(0, os.path.join(CHECKOUT, "xlgen"))
torch.set_num_threads(1)

from model import T5ForClusterXMLGeneration  # noqa: E402
from torch.utils.data import TensorDataset  # noqa: E402
from trainer import Trainer  # noqa: E402
from transformers import T5Config  # noqa: E402


def padded(rows: list[list[int]], length: int) -> torch.Tensor:
    """Rows cut and padded with 0 to a length."""
    return torch.tensor([(row + [0] * length)[:length] for row in rows])


def main() -> None:
    with open(TASK, encoding="utf-8") as file:
        task = json.load(file)
    clusters, count = task["num_clusters"], len(task["inputs"])
    config = T5Config(
        vocab_size=max(task["vocabulary"], 32_128), d_model=512, d_kv=64, d_ff=2048, num_layers=6, num_heads=8,
        decoder_start_token_id=0, use_cluster=True, train_decoder_cluster=False, cluster_size=clusters,
        input_cluster_length=0,
    )  # fmt: skip
    torch.manual_seed(0)
    model = T5ForClusterXMLGeneration(config)
    model.parallelize = lambda: None  # which asks for a GPU
    inputs, targets = padded(task["inputs"], SOURCE), padded(task["targets"], TARGET)
    bits = torch.zeros(count, clusters)
    for row, of_text in enumerate(task["clusters"]):
        bits[row, of_text] = 1
    before = padded([[0, *row] for row in task["targets"]], TARGET)
    labels = targets.masked_fill(targets == 0, -100)
    mask = inputs.ne(0).long()
    data = TensorDataset(
        inputs, mask, before, labels, before.ne(0).long().index_fill(1, torch.tensor([0]), 1), mask, bits,
        torch.zeros(count, 1).long(), mask.sum(1),
    )  # fmt: skip
    args = argparse.Namespace(
        ignore_index=0, no_cuda=True, train_batch_size=int(BATCH_SIZE), max_steps=-1, num_train_epochs=1,
        gradient_accumulation_steps=1, weight_decay=0.0, learning_rate=2e-4, adam_epsilon=1e-8, warmup_steps=0,
        logging_steps=10_000, save_steps=10_000, annealing=False, max_grad_norm=1.0, max_out_seq_len=TARGET,
    )  # fmt: skip
    data_args = SimpleNamespace(label_type="bcl", decode_order="freq_forward", cluster_noise_ratio=0, use_cluster=True)
    trainer = Trainer([args, SimpleNamespace(), data_args], model=model, tokenizer=None, train_dataset=data)
    trainer.save_model = lambda: None
    start = time.process_time()
    trainer.train()
    seconds = {"train": time.process_time() - start}
    model.eval()
    start = time.process_time()
    with torch.no_grad():  # as their `evaluate`: an encoder run for the clusters, then generation of each batch
        for first in range(0, count, int(BATCH_SIZE)):
            rows = slice(first, first + int(BATCH_SIZE))
            model(
                input_ids=inputs[rows], attention_mask=mask[rows], decoder_input_ids=before[rows],
                bce_attention_mask=mask[rows], output_cluster_predict_only=True,
            )  # fmt: skip
            model.generate(
                input_ids=inputs[rows], attention_mask=mask[rows], decoder_start_token_id=0, bos_token_id=0,
                pad_token_id=0, eos_token_id=1, max_length=int(STEPS) + 1, min_length=int(STEPS), num_beams=5,
                early_stopping=True,
            )  # fmt: skip
    print(json.dumps({**seconds, "predict": time.process_time() - start}))


main()
