"""`xlgen train`: fine-tune a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from ..training.arguments import XLGenTrainingArguments

__all__ = ["train", "training_arguments"]

# Options that are fields of the model's config, by the same name.
_LORA_OPTIONS = ("lora", "lora_rank", "lora_alpha", "quantize")
_MODEL_OPTIONS = (
    "cluster_source", "cluster_threshold", "cluster_loss_weight", "cluster_loss_annealing", "copy_candidates",
)  # fmt: skip


def train(
    context: typer.Context,
    train_file: Annotated[
        str, typer.Option(help="Training rows: JSON Lines, CSV, Parquet, a folder or a Hub data set.")
    ],
    output_dir: Annotated[Path, typer.Option(help="Folder for checkpoints and the trained model.")],
    validation_file: Annotated[
        str | None, typer.Option(help="Rows that choose the checkpoint and the least number of labels.")
    ] = None,
    backbone: Annotated[
        str, typer.Option(help="Seq2seq checkpoint (T5, BART ...), or an encoder that gets a shallow decoder.")
    ] = "sentence-transformers/all-MiniLM-L6-v2",
    variant: Annotated[
        Literal["base", "bcl", "mcg", "rcl"],
        typer.Option(help="Model: alone, with bit or token clusters, or with retrieved candidate labels."),
    ] = "bcl",
    start_from: Annotated[
        str | None, typer.Option(help="Trained model, of any variant, to start from in place of the bare backbone.")
    ] = None,
    labels: Annotated[
        str | None, typer.Option(help="Vocabulary, a name a line or a Hub data set; may hold labels never seen.")
    ] = None,
    clusters: Annotated[
        Path | None, typer.Option(help="Folder that `xlgen cluster` wrote.", show_default="made from the rows")
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(help="Embeds texts for clusters or retrieval.", show_default="the backbone")
    ] = None,
    num_clusters: Annotated[
        int | None, typer.Option(min=1, help="Number of clusters.", show_default="square root of the labels")
    ] = None,
    name_weight: Annotated[float, typer.Option(min=0, max=1, help="Share of label names in label embeddings.")] = 0.0,
    decode_order: Annotated[
        Literal["freq_forward", "freq_backward", "alphabet", "shuffle"],
        typer.Option(help="Order of a text's labels: most frequent first (the paper's) or last, by name, or random."),
    ] = "freq_backward",
    decoder_layers: Annotated[int, typer.Option(min=1, help="Decoder layers that an encoder backbone gets.")] = 2,
    dropout: Annotated[
        float | None, typer.Option(min=0, max=0.99, help="Dropout.", show_default="the checkpoint's own")
    ] = None,
    drop_labels: Annotated[
        float, typer.Option(min=0, max=1, help="Share of each training row's labels to drop (PU experiment).")
    ] = 0.0,
    label_rows: Annotated[
        float, typer.Option(min=0, help="Rows made of label names for each training row; they teach rare labels.")
    ] = 0.3,
    retriever: Annotated[
        Path | None, typer.Option(help="rcl: folder that `xlgen index` wrote.", show_default="made from the rows")
    ] = None,
    retriever_epochs: Annotated[
        float, typer.Option(min=0, help="rcl: epochs that the encoder of a new retriever is trained for.")
    ] = 1.0,
    lexical: Annotated[bool, typer.Option(help="rcl: let spelling count in a new retriever.")] = True,
    num_candidates: Annotated[int, typer.Option(min=1, help="rcl: labels that retrieval finds for a text.")] = 16,
    conditioning: Annotated[
        Literal["memory", "tokens"] | None,
        typer.Option(
            help="Clusters or candidates as vectors in the memory, or as tokens in the input.",
            show_default="memory; rcl: tokens",
        ),
    ] = None,
    copy_candidates: Annotated[
        bool, typer.Option(help="rcl with tokens: copy pieces of labels from the candidates.")
    ] = True,
    cluster_source: Annotated[
        Literal["gold", "predicted", "mixed"], typer.Option(help="bcl: clusters that training conditions on.")
    ] = "mixed",
    cluster_threshold: Annotated[
        float, typer.Option(min=0.001, max=0.999, help="bcl: probability from which a cluster is predicted.")
    ] = 0.25,
    cluster_loss_weight: Annotated[float, typer.Option(min=0, help="Weight of the cluster loss.")] = 1.0,
    cluster_loss_annealing: Annotated[bool, typer.Option(help="Divide that weight by the epoch's number.")] = False,
    max_source_length: Annotated[int, typer.Option(min=8, help="Most tokens of an input.")] = 256,
    max_target_length: Annotated[int, typer.Option(min=8, help="Most tokens of a target.")] = 256,
    lora: Annotated[
        bool, typer.Option("--lora", help="Train a LoRA adapter; its base stays in `base/` of the output folder.")
    ] = False,
    lora_rank: Annotated[int, typer.Option(min=1, help="LoRA: rank.")] = 16,
    lora_alpha: Annotated[float, typer.Option(min=0.001, help="LoRA: scale of the changes, times the rank.")] = 32.0,
    quantize: Annotated[
        Literal["4bit", "8bit"] | None, typer.Option(help="LoRA: bits of the base; needs a GPU and bitsandbytes.")
    ] = None,
    cpu_threads: Annotated[int | None, typer.Option(min=1, help="Threads on a CPU.", show_default="all cores")] = None,
) -> None:
    """Fine-tune a model; further options are arguments of the trainer (--num_train_epochs 3 --learning_rate 1e-4 ...).

    The same command resumes a run that was interrupted.
    """
    import torch

    from ..data.rows import load_label_names, load_rows
    from ..training.run import train_model
    from ..training.settings import TrainingSettings

    if cpu_threads is not None:
        torch.set_num_threads(cpu_threads)
    args = training_arguments(output_dir, context.args, has_validation=validation_file is not None)
    settings = TrainingSettings(
        sources={"train": train_file} | ({} if validation_file is None else {"validation": validation_file}),
        backbone=backbone,
        variant=variant,
        start_from=start_from,
        vocabulary=None if labels is None else load_label_names(labels),
        clusters=clusters,
        encoder=encoder,
        num_clusters=num_clusters,
        name_weight=name_weight,
        decode_order=decode_order,
        decoder_layers=decoder_layers,
        dropout=dropout,
        drop_labels=drop_labels,
        label_rows=label_rows,
        retriever=retriever,
        retriever_epochs=retriever_epochs,
        lexical=lexical,
        num_candidates=num_candidates,
        max_source_length=max_source_length,
        max_target_length=max_target_length,
        model_options={
            **{name: context.params[name] for name in _MODEL_OPTIONS},
            "conditioning": conditioning or ("tokens" if variant == "rcl" else "memory"),
        },
        **{name: context.params[name] for name in _LORA_OPTIONS},
    )
    validation = None if validation_file is None else load_rows(validation_file, split="validation")
    _, _, scores = train_model(settings, args, load_rows(train_file, split="train"), validation)
    if args.process_index == 0:
        _print_result(output_dir, scores)


def training_arguments(output_dir: Path, words: list[str], *, has_validation: bool) -> XLGenTrainingArguments:
    """Parse what is left of the command line into arguments of the trainer.

    With validation rows each epoch ends with an evaluation and a checkpoint, and the best one is kept; the words may
    say otherwise.
    """
    from dataclasses import fields
    from difflib import get_close_matches

    from transformers import HfArgumentParser

    from ..errors import ConfigurationError
    from ..training.arguments import XLGenTrainingArguments

    given = {word.partition("=")[0].lstrip("-").replace("-", "_") for word in words if word.startswith("--")}
    defaults: dict[str, Any] = {"save_strategy": "epoch", "save_total_limit": 2}
    if has_validation:
        defaults |= {"eval_strategy": "epoch"}
    if has_validation and not given & {"eval_strategy", "save_strategy"}:
        defaults |= {"load_best_model_at_end": True}
    for name, value in defaults.items():
        if name not in given:
            words = [*words, f"--{name}", str(value)]
    parser = HfArgumentParser(XLGenTrainingArguments)
    args, unknown = parser.parse_args_into_dataclasses(
        ["--output_dir", str(output_dir), *words], return_remaining_strings=True, look_for_args_file=False
    )
    if unknown:
        near = get_close_matches(unknown[0].lstrip("-"), [field.name for field in fields(args)], n=3)
        hint = f" Did you mean one of {['--' + name for name in near]}?" if near else ""
        raise ConfigurationError(f"Neither an option of this command nor an argument of the trainer: {unknown}.{hint}")
    return args


def _print_result(output_dir: Path, scores: dict[str, float]) -> None:
    from .console import print_table, results

    if scores:
        names = ("micro_f1", "macro_f1", "0_shot_macro_f1", "1_shot_macro_f1")
        print_table("Validation rows", ("score", "value"), [(name, scores.get(f"eval_{name}")) for name in names])
    results().print(f"Model written to {output_dir}", markup=False, soft_wrap=True)
