"""What every speed comparison works on: texts, targets and an untrained T5 of the size of t5-small."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from xlgen_hf.labels.clusters import LabelClusters
from xlgen_hf.labels.space import LabelSpace
from xlgen_hf.modeling_xlgen import XLGenForConditionalGeneration
from xlgen_hf.processing_xlgen import XLGenProcessor
from xlgen_hf.quickstart import SAMPLE

__all__ = ["Task", "make_backbone", "make_model", "make_task"]

_VOCABULARY = 32_128
_CLUSTERS = 32
_SAMPLE_FILE = SAMPLE / "train.jsonl.gz"


@dataclass
class Task:
    """Rows of the bundled sample; a text of `titles` titles has the labels of the first of them."""

    texts: list[str]
    labels: list[list[str]]

    @property
    def rows(self) -> list[dict[str, object]]:
        """The rows as `load_rows` reads them."""
        return [{"text": text, "labels": labels} for text, labels in zip(self.texts, self.labels, strict=True)]


def make_task(count: int, titles: int) -> Task:
    """The first rows of the sample."""
    from xlgen_hf import load_rows

    rows = load_rows(_SAMPLE_FILE)
    texts = rows["text"][: count * titles]
    joined = [" ".join(texts[start : start + titles]) for start in range(0, count * titles, titles)]
    return Task(joined, rows["labels"][: count * titles : titles])


def make_backbone(folder: Path, titles: list[str]) -> Path:
    """A T5 with random weights in a folder, with a tokenizer that knows the words of the titles."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=16_000, special_tokens=["<pad>", "</s>", "<unk>"], show_progress=False)
    tokenizer.train_from_iterator(titles, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=_VOCABULARY, d_model=512, d_kv=64, d_ff=2048, num_layers=6, num_heads=8, decoder_start_token_id=0
    )
    T5ForConditionalGeneration(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def make_model(
    backbone: Path, space: LabelSpace, variant: str, lengths: tuple[int, int]
) -> tuple[XLGenForConditionalGeneration, XLGenProcessor]:
    """An untrained model of ours on a backbone; its clusters are drawn."""
    from transformers import AutoTokenizer

    random = np.random.default_rng(0)
    clusters = LabelClusters(
        np.concatenate([np.arange(_CLUSTERS), random.integers(0, _CLUSTERS, len(space) - _CLUSTERS)]),
        np.eye(_CLUSTERS, dtype=np.float32),
        [f"cluster {number}" for number in range(_CLUSTERS)],
    )
    processor = XLGenProcessor(
        AutoTokenizer.from_pretrained(backbone), space, None if variant == "base" else clusters, *lengths
    )
    torch.manual_seed(0)
    model = XLGenForConditionalGeneration.from_backbone(str(backbone), processor, variant=variant)
    return model, processor


def write_tensors(path: Path, processor: XLGenProcessor, task: Task) -> None:
    """Token ids, targets and clusters as JSON, for a process that has no xlgen_hf."""
    ids = [processor.label_space.encode(labels) for labels in task.labels]
    content = {
        "inputs": [processor.build_input(text) for text in processor.encode_texts(task.texts)],
        "targets": [processor.label_tokenizer.build_target(processor.label_space.order(one)) for one in ids],
        "clusters": [processor.clusters.clusters_of(one) for one in ids],
        "num_clusters": processor.clusters.num_clusters,
        "vocabulary": len(processor.tokenizer),
    }
    path.write_text(json.dumps(content), encoding="utf-8")
