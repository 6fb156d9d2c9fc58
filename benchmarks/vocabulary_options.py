r"""What a vocabulary gives generators: small models, trained with each option and without, on validation rows.

    python benchmarks/vocabulary_options.py --train F --validation F --vocabulary F --language de --encoder E \
        --output O

Rows keep the most frequent labels that have a further name, and the first words of their texts; the vocabulary keeps
these concepts and all above them. Per variant there is one model without an option, and one for each of them; all of a
variant share their rows, clusters (but with `hierarchy`, which has those of the tree, as many) and seeds. Nothing is
tuned: greedy search. A run that was stopped continues. O gets `scores.jsonl`, one line per model.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from transformers import AutoModel, AutoTokenizer

from xlgen_hf import Vocabulary, load_rows, read_vocabulary, write_vocabulary

OPTIONS = {"none": (), "alias-spellings": ("--alias-spellings",), "alias-rows": ("--alias-rows",), "hierarchy": ()}
SCORES = ("micro_f1", "macro_f1", "hierarchical_f1")


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    for name in ("train", "validation", "vocabulary", "encoder"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--language", help="of the labels")
    parser.add_argument("--passage-prompt", default="")
    parser.add_argument("--variants", nargs="+", default=["bcl"], choices=("base", "bcl", "mcg"))
    parser.add_argument("--options", nargs="+", default=list(OPTIONS), choices=OPTIONS)
    parser.add_argument("--seeds", nargs="+", default=["0"])
    parser.add_argument("--labels", type=int, default=1000, help="labels that rows keep")
    parser.add_argument("--words", type=int, default=30, help="words of a text that count")
    parser.add_argument("--train-rows", type=int, default=3000)
    parser.add_argument("--validation-rows", type=int, default=1000)
    parser.add_argument("--epochs", default="2")
    parser.add_argument("--batch-size", default="16")
    parser.add_argument("--layers", type=int, help="first layers of the encoder that the backbone has; all by default")
    parser.add_argument("--tokens", default="64", help="tokens of a text that count")
    parser.add_argument("--where", nargs=2, metavar=("COLUMN", "VALUE"), help="rows that count, e.g. language de")
    return parser.parse_args()


def frequent(rows: Iterable[Sequence[str]], vocabulary: Vocabulary, number: int) -> set[str]:
    """The most frequent labels that have a further name."""
    named = {label for label, _ in vocabulary.further_names({label: at for at, label in enumerate(vocabulary.ids)})}
    names = list(vocabulary.ids)
    with_names = {names[at] for at in named}
    counts = Counter(label for labels in rows for label in labels if label in with_names)
    return {label for label, _ in counts.most_common(number)}


def prepare(arguments: argparse.Namespace) -> None:
    """Write train.jsonl, validation.jsonl and vocabulary.jsonl, unless they are there."""
    output = arguments.output
    if (output / "vocabulary.jsonl").is_file():
        return
    output.mkdir(parents=True, exist_ok=True)
    vocabulary = read_vocabulary(arguments.vocabulary, arguments.language)
    keep: set[str] = set()
    for split, number in (("train", arguments.train_rows), ("validation", arguments.validation_rows)):
        rows = load_rows(getattr(arguments, split), vocabulary=vocabulary, keep_columns=(arguments.where or [])[:1])
        if arguments.where:
            column, value = arguments.where
            rows = rows.filter(lambda row: row[column] == value)  # noqa: B023
        keep = keep or frequent(rows["labels"][:], vocabulary, arguments.labels)
        lines = []
        for text, labels in zip(rows["text"][:], rows["labels"][:], strict=True):
            kept = [vocabulary.ids[label] for label in labels if label in keep]
            if kept and len(lines) < number:
                lines.append({"text": " ".join(text.split()[: arguments.words]), "labels": kept})
        dump = "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines)
        (output / f"{split}.jsonl").write_text(dump, encoding="utf-8")
        total = sum(len(line["labels"]) for line in lines)
        print(f"{split}: {len(lines)} rows, {total / len(lines):.2f} labels a row")
    ids = {vocabulary.ids[label] for label in keep}
    above = {parent for one in ids for parent in vocabulary.parents(one)}
    kept = [concept for concept in vocabulary if concept.id in ids | above]
    write_vocabulary(output / "vocabulary.jsonl", Vocabulary(kept, vocabulary.language))
    print(f"vocabulary: {len(kept)} concepts, {len(above - ids)} of them only above the others")


class Models:
    """Trains and scores models on the rows of one folder."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        output = self.output = arguments.output
        self.vocabulary = ["--vocabulary", str(output / "vocabulary.jsonl")]
        if arguments.language:
            self.vocabulary += ["--language", arguments.language]
        self.rows = ["--train-file", str(output / "train.jsonl"), *self.vocabulary]
        self.has_tree = '"broader"' in (output / "vocabulary.jsonl").read_text(encoding="utf-8")

    def run(self, *command: str | Path) -> None:
        """Run a command of the package."""
        subprocess.run([sys.executable, "-m", "xlgen_hf", *map(str, command)], check=True)

    def clusters(self, by: str) -> Path:
        """The folder of the clusters, made at its first use."""
        folder = self.output / f"clusters-{by}"
        if not (folder / "label_clusters.json").is_file():
            encoder = ["--encoder", self.arguments.encoder, "--passage-prompt", self.arguments.passage_prompt]
            self.run("cluster", *self.rows, *encoder, "--cluster-by", by, "--output-dir", folder)
        return folder

    def backbone(self) -> Path:
        """The encoder, or a copy of its first layers."""
        if not self.arguments.layers:
            return Path(self.arguments.encoder)
        folder = self.output / "backbone"
        if not (folder / "config.json").is_file():
            model = AutoModel.from_pretrained(self.arguments.encoder)
            model.encoder.layer = model.encoder.layer[: self.arguments.layers]
            model.config.num_hidden_layers = self.arguments.layers
            AutoTokenizer.from_pretrained(self.arguments.encoder).save_pretrained(folder)
            model.save_pretrained(folder)
        return folder

    def trained(self, variant: str, option: str, seed: str) -> tuple[Path, float]:
        """A model's folder, and the CPU seconds that its training took (0 if it was there)."""
        folder = self.output / f"{variant}-{option}-{seed}"
        clusters = self.clusters("hierarchy" if option == "hierarchy" else "embeddings")
        settings = (
            f"--variant {variant} --backbone {self.backbone()} --trim-vocabulary --decoder-layers 1 "
            f"--num-train-epochs {self.arguments.epochs} --per-device-train-batch-size {self.arguments.batch_size} "
            f"--max-source-length {self.arguments.tokens} --max-target-length 64 --dropout 0 --bf16 --use-cpu "
            f"--eval-strategy no --save-strategy no --seed {seed} --clusters {clusters} --output-dir {folder}"
        )
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        if not (folder / "training_report.json").is_file():
            self.run("train", *self.rows, *settings.split(), *OPTIONS[option])
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return folder, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    def score(self, folder: Path) -> dict[str, float]:
        """Scores on the validation rows."""
        references, predictions, scores = (
            self.output / "validation.jsonl", folder / "predictions.jsonl", folder / "scores.json",
        )  # fmt: skip
        files = ["--input-file", references, "--output-file", predictions]
        self.run("predict", "--model", folder, *files, "--num-beams", "1", "--overwrite")
        files = ["--predictions", predictions, "--references", references, "--output-file", scores]
        self.run("evaluate", *files, *self.rows, *(["--hierarchical"] if self.has_tree else []))
        found = json.loads(scores.read_text(encoding="utf-8"))
        return {name: round(found[name], 4) for name in SCORES if name in found}


def main() -> None:
    """Prepare the rows, then train and score the models that have no scores yet."""
    arguments = parse_arguments()
    prepare(arguments)
    models = Models(arguments)
    file = arguments.output / "scores.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    done = {(line["variant"], line["option"], line["seed"]) for line in map(json.loads, lines)}
    for seed in arguments.seeds:
        for variant in arguments.variants:
            for option in arguments.options:
                if (variant, option, seed) in done:
                    continue
                folder, seconds = models.trained(variant, option, seed)
                line = {"variant": variant, "option": option, "seed": seed, "cpu_seconds": round(seconds)}
                line |= models.score(folder)
                with file.open("a", encoding="utf-8") as out:
                    out.write(f"{json.dumps(line)}\n")
                print(line, flush=True)


if __name__ == "__main__":
    main()
