"""Which families of checkpoints can be backbones: a table of tiny random models, from building to loading.

    python benchmarks/check_families.py [FAMILY ...] > families.md

For each family of `tests/families.py` a tiny checkpoint with random weights is written, and then:

* built: `from_backbone`, with its dry run, as `base` and `bcl`;
* trained: one step of each variant lowers the loss on its batch;
* search: the largest difference between log-probabilities of teacher forcing and of decoding token by token, over
  three texts of different lengths, and greedy `generate` with the constraint finds the labels that `predict` finds;
* loaded: what is saved and loaded computes the same logits.

No network, no GPU; about a minute on one core. `docs/backbones.md` shows what it printed.
"""

from __future__ import annotations

import logging
import sys
import tempfile
from pathlib import Path

import datasets
import torch
import transformers
from transformers import AutoTokenizer, LogitsProcessorList, PreTrainedTokenizerBase

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from families import CAUSAL, ENCODERS, FAMILIES, SEQ2SEQ, make_checkpoint
from tiny import ROWS, VOCABULARY, make_clusters

from xlgen_hf.decoding.logits_process import LabelSetLogitsProcessor, split_labels
from xlgen_hf.errors import XLGenError
from xlgen_hf.labels.space import LabelSpace
from xlgen_hf.modeling_xlgen import XLGenForConditionalGeneration
from xlgen_hf.processing_xlgen import XLGenProcessor
from xlgen_hf.training.collator import DataCollatorForXLGen, encode_dataset

TEXTS = ["a history of church music in the church of the organ", "playing the piano", "printing"]
VARIANTS = ("base", "bcl")  # mcg and rcl differ in their inputs, which is not the backbone's matter
GROUPS = {"Seq2seq checkpoints": SEQ2SEQ, "Encoders, with a new decoder": ENCODERS, "Decoder-only checkpoints": CAUSAL}


class _Warnings(logging.Handler):
    """Keeps what the library warns of."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


def build(folder: str, space: LabelSpace, variant: str) -> tuple[XLGenForConditionalGeneration, XLGenProcessor]:
    """An untrained model of a checkpoint, and its processor."""
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
    clusters = None if variant == "base" else make_clusters(space)
    processor = XLGenProcessor(tokenizer, space, clusters, max_source_length=64, max_target_length=64)
    torch.manual_seed(1)
    model = XLGenForConditionalGeneration.from_backbone(folder, processor, variant=variant, decoder_layers=1)
    return model, processor


def train_step(model: XLGenForConditionalGeneration, processor: XLGenProcessor) -> bool:
    """Whether a small step along the gradient lowers the loss."""
    rows = encode_dataset(datasets.Dataset.from_list(ROWS[:4]), processor, training=True)
    batch = DataCollatorForXLGen(processor, variant=model.config.variant)(list(rows))
    model.train()
    model.config.backbone.use_cache = False
    losses = []
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    for _ in range(2):
        torch.manual_seed(0)  # the same dropout
        loss = model(**batch).loss
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    model.eval()
    return losses[1] < losses[0]


@torch.no_grad()
def search_difference(model: XLGenForConditionalGeneration, processor: XLGenProcessor) -> float:
    """Largest difference of log-probabilities between teacher forcing and decoding token by token."""
    space, spell = processor.label_space, processor.label_tokenizer
    targets = [spell.build_target(space.order(space.encode(row["labels"]))) for row in ROWS[: len(TEXTS)]]
    longest = max(map(len, targets))
    labels = torch.tensor([[*ids, *[-100] * (longest - len(ids))] for ids in targets])
    batch = processor(TEXTS, return_tensors="pt")
    expected = model(**batch, labels=labels).logits.log_softmax(-1)
    memory, cache, worst = model.encode(**batch), None, 0.0
    tokens = model.prepare_decoder_input_ids_from_labels(labels)
    for place in range(longest):
        found, cache = model.decode_step(memory, tokens[:, : place + 1], cache)
        counted = labels[:, place] != -100
        worst = max(worst, float((found - expected[:, place])[counted].abs().max()))
    return worst


def generates_what_it_predicts(model: XLGenForConditionalGeneration, processor: XLGenProcessor) -> bool:
    """Whether greedy `generate` with the constraint gives the labels of `predict`."""
    spell = processor.label_tokenizer
    constraint = LabelSetLogitsProcessor(
        spell.trie, processor.eos_token_id, min_labels=model.config.min_labels, max_labels=model.config.max_labels
    )
    batch = processor(TEXTS, return_tensors="pt")
    sequences = model.generate(
        **batch, logits_processor=LogitsProcessorList([constraint]), do_sample=False, num_beams=1, max_new_tokens=63
    )[:, 1:].numpy()
    found = [
        {spell.trie.label_of(row[first : last + 1].tolist()) for first, last in spans}
        for row, spans in zip(sequences, split_labels(sequences, spell.separator_token_id), strict=True)
    ]
    predicted = [set(processor.label_space.encode(one.labels)) for one in model.predict(TEXTS, processor)]
    return found == predicted


@torch.no_grad()
def loads_what_it_saves(model: XLGenForConditionalGeneration, processor: XLGenProcessor, folder: str) -> bool:
    """Whether a saved and loaded model gives the same logits."""
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    loaded, again = XLGenForConditionalGeneration.from_pretrained(folder), XLGenProcessor.from_pretrained(folder)
    labels = torch.tensor([processor.label_tokenizer.build_target([0, 1])] * len(TEXTS))
    logits = [
        one(**maker(TEXTS, return_tensors="pt"), labels=labels).logits
        for one, maker in ((model, processor), (loaded, again))
    ]
    return torch.equal(*logits) or bool(torch.allclose(*logits, atol=1e-5))


def check(name: str, folder: str) -> list[str]:
    """The cells of a family's row; that of what failed, if anything, tells the reason."""
    space = LabelSpace.from_label_lists([row["labels"] for row in ROWS], VOCABULARY)
    cells, worst = [name], 0.0
    make_checkpoint(name, Path(folder))
    try:
        made = [build(folder, space, variant) for variant in VARIANTS]
    except XLGenError as err:
        return [name, "refused", "", "", "", str(err).replace(repr(folder), "it")]
    cells += ["yes", "yes" if all(train_step(*one) for one in made) else "NO"]
    worst = max(search_difference(*one) for one in made)
    same = generates_what_it_predicts(*made[0])
    cells.append(f"{worst:.0e}" if same else f"{worst:.0e}, generate differs")
    cells.append(
        "yes" if all(loads_what_it_saves(*one, f"{folder}/saved-{n}") for n, one in enumerate(made)) else "NO"
    )
    return [*cells, ""]


def main(names: list[str]) -> None:
    """Print the tables of all families, or of some."""
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    handler = _Warnings()
    logging.getLogger("xlgen_hf").addHandler(handler)
    logging.getLogger("xlgen_hf").propagate = False
    for title, families in GROUPS.items():
        chosen = [name for name in families if name in names]
        if not chosen:
            continue
        print(f"\n### {title}\n\n| family | built | trained | search | loaded | reason or remark |")
        print("|---|---|---|---|---|---|")
        for name in chosen:
            handler.said.clear()
            with tempfile.TemporaryDirectory() as folder:
                try:
                    cells = check(name, folder)
                except Exception as err:  # the table shows what no refusal foresaw
                    cells = [name, "FAILS", "", "", "", f"{type(err).__name__}: {str(err)[:200]}"]
                remarks = {said for said in handler.said if "reads padding" in said}
                cells[-1] = cells[-1] or " ".join(sorted(remarks)).replace(repr(folder), "this checkpoint")
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or list(FAMILIES))
