"""Loading of a model together with its processor, and the check that they belong together."""

from __future__ import annotations

from typing import Any

from .errors import ModelFolderError
from .modeling_xlgen import XLGenForConditionalGeneration
from .processing_xlgen import XLGenProcessor

__all__ = ["check_pair", "load_model"]


def load_model(
    name: str, *, device: str | None = None, **hub_options: Any
) -> tuple[XLGenForConditionalGeneration, XLGenProcessor]:
    """Load a trained model, or an adapter merged into its base, and its processor.

    Args:
        name: a folder, or a Hub id.
        device: where the model goes; it stays on the CPU if None.
        hub_options: `revision`, `token`, `cache_dir`, `force_download` and `local_files_only` of huggingface_hub.

    Raises:
        ModelFolderError: if files are damaged, or do not belong together.
        MissingExtraError: if it is an adapter and peft is not installed.
    """
    processor = XLGenProcessor.from_pretrained(name, **hub_options)
    model = XLGenForConditionalGeneration.from_pretrained(name, **hub_options).eval()
    check_pair(model, processor, name)
    return (model if device is None else model.to(device)), processor


def check_pair(model: XLGenForConditionalGeneration, processor: XLGenProcessor, name: str) -> None:
    """Check that a model and a processor have the same tokens, labels and clusters.

    Args:
        model: the model.
        processor: the processor.
        name: where they come from, for the message.

    Raises:
        ModelFolderError: if they have not.
    """
    config = model.config
    pieces = model.label_pieces.tolist() if config.num_label_pieces is not None else None
    pairs: dict[str, tuple[Any, Any]] = {
        "separator token": (config.separator_token_id, processor.separator_token_id),
        "end token": (config.eos_token_id, processor.eos_token_id),
        "pieces of labels": (pieces, None if pieces is None else processor.output_token_ids()),
    }
    if config.variant == "rcl":
        found = processor.candidates
        pairs["conditioning"] = (config.conditioning, None if found is None else found.conditioning)
        if config.has_label_vectors:
            pairs["number of labels"] = (config.num_label_vectors, len(processor.label_space))
    if config.has_clusters:
        clusters = processor.clusters
        pairs["number of clusters"] = (config.num_clusters, None if clusters is None else clusters.num_clusters)
        pairs["first cluster token"] = (config.first_cluster_token_id, processor.first_cluster_token_id)
    different = [what for what, (of_model, of_processor) in pairs.items() if of_model != of_processor]
    if len(processor.tokenizer) > config.vocab_size:
        different.append("vocabulary")
    if different:
        raise ModelFolderError(
            f"{name}: model and processor differ in {', '.join(different)}; they are not of one training. Save them "
            "into one folder again."
        )
