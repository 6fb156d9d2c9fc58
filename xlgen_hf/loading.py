"""Loading: a model with its processor, or whatever predicts, and the check that files belong together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from .errors import ConfigurationError, ModelFolderError
from .files.model_folder import PROCESSOR_FILE, holds_index, is_exported
from .files.saving import local_model, read_folder
from .prediction.predictor import Predictor
from .ranking.score_model import ScoreModel
from .retrieval.model_sources import load_source_alone
from .retrieval.retriever import LabelRetriever

if TYPE_CHECKING:  # torch and transformers, which an exported index does without, and starts in a third of the time
    import torch

    from .encoders.number_types import NumberType
    from .modeling_xlgen import XLGenForConditionalGeneration
    from .modules.exported import GraphModel
    from .processing_xlgen import XLGenProcessor

__all__ = ["check_pair", "holds_model", "load_model", "load_predictor"]

_AnyModel: TypeAlias = "XLGenForConditionalGeneration | GraphModel"
_Model = TypeVar("_Model", bound="XLGenForConditionalGeneration | GraphModel")


def load_model(
    name: str,
    *,
    device: str | None = None,
    dtype: NumberType | None = None,
    predict_with: str | None = None,
    **hub_options: object,
) -> tuple[XLGenForConditionalGeneration, XLGenProcessor]:
    """Load a trained model, or an adapter merged into its base, and its processor.

    Args:
        name: a folder, or a Hub id.
        device: where the model, and an encoder that retrieves for it, go; they stay on the CPU if None.
        dtype: what the model, and an encoder that retrieves for it, compute in: `float32`, `bfloat16`, or `auto`,
            which is bfloat16 where the device has instructions for it; as they were saved if None.
        predict_with: `generator` or `candidate_head`, if it is to predict with another part than validation rows
            chose. Calibration, thresholds and fusion, which were made for that one, are left out then.
        hub_options: `revision`, `token`, `cache_dir`, `force_download` and `local_files_only` of huggingface_hub, and
            `variant` of transformers, for weights that `save_pretrained(..., variant="fp16")` saved, and `subfolder`,
            in which the model is.

    Raises:
        ConfigurationError: if the model has not learned to predict with that part.
        ModelFolderError: if files are damaged, or do not belong together.
        MissingExtraError: if it is an adapter and peft is not installed.
    """
    place = local_model(name, dict(hub_options))  # model and processor of one commit
    hub_options.pop("subfolder", None)  # which is in the place
    load = partial(_load_whole, hub_options=hub_options)
    pair = read_folder(place, lambda folder: _load_pair(load, folder, name, device, dtype))
    return pair if predict_with is None else _predicting_with(*pair, predict_with)


def _predicting_with(model: _Model, processor: XLGenProcessor, predict_with: str) -> tuple[_Model, XLGenProcessor]:
    """A model that predicts with another part; what was tuned for the one before is left out."""
    if predict_with == model.config.predicts_with:
        return model, processor
    if predict_with == "generator" and model.config.generation_loss_weight == 0:
        raise ConfigurationError(
            "predict_with='generator': only the candidate head of this model was trained (generation_loss_weight=0)."
        )
    model.config.predicts_with = predict_with
    model.config.validate_xlgen()
    return model, processor.with_score_model(ScoreModel())


def _load_pair(
    load: Callable[[Path], _Model], folder: Path, name: str, device: str | None, dtype: NumberType | None
) -> tuple[_Model, XLGenProcessor]:
    if holds_index(folder):
        raise ModelFolderError(
            f"{name} holds an index or label trees, where a model is needed that `xlgen train` wrote; "
            "load_predictor, `xlgen predict` and `xlgen tag` take both."
        )
    from .processing_xlgen import XLGenProcessor

    processor = XLGenProcessor.from_pretrained(folder)
    model = load(folder)
    model.name_or_path = str(name)
    check_pair(model, processor, name)
    _compute_in(dtype, device, model, processor.retriever)
    return model, processor


def _model_class() -> type[XLGenForConditionalGeneration]:
    from .modeling_xlgen import XLGenForConditionalGeneration  # half of the time of a start; graphs need none of it

    return XLGenForConditionalGeneration


def _load_whole(folder: Path, hub_options: Mapping[str, object]) -> XLGenForConditionalGeneration:
    of_base = {key: value for key, value in hub_options.items() if key != "revision"}  # which is the adapter's
    return _model_class().from_pretrained(folder, **of_base).eval()


def _load_predicting(folder: Path, hub_options: Mapping[str, object]) -> _AnyModel:
    """A model as far as predicting needs it."""
    if not is_exported(folder):
        return _load_whole(folder, hub_options)
    from .modules.exported import GraphModel, load_exported  # which needs onnxruntime

    return load_exported(partial(GraphModel, whole_class=_model_class), folder, hub_options)


def load_predictor(
    name: str,
    *,
    device: str | None = None,
    dtype: NumberType | None = None,
    predict_with: str | None = None,
    **hub_options: object,
) -> Predictor:
    """Load whatever predicts labels: an XLGen model or adapter, a retriever, or label trees.

    Args:
        name: a folder, or a Hub id.
        device: where the model, and an encoder that retrieves, go; they stay on the CPU if None.
        dtype, predict_with, hub_options: see [`load_model`].

    Raises:
        ModelFolderError: if it is not one of these folders, or its files are damaged or do not belong together.
        MissingExtraError: if it needs a package that is not installed.
    """
    place = local_model(name, dict(hub_options))
    hub_options.pop("subfolder", None)  # which is in the place

    def load(folder: Path) -> Predictor:
        if not holds_index(folder):
            pair = _load_pair(partial(_load_predicting, hub_options=hub_options), folder, name, device, dtype)
            return Predictor.from_model(*(pair if predict_with is None else _predicting_with(*pair, predict_with)))
        if predict_with is not None:
            raise ConfigurationError(f"predict_with={predict_with!r}: {name} holds no model, but an index.")
        return _load_source(folder, device, dtype)

    return read_folder(place, load)


def _load_source(folder: Path, device: str | None, dtype: NumberType | None) -> Predictor:
    label_space, _, source, score_model, vocabulary = load_source_alone(folder)
    if isinstance(source, LabelRetriever):
        _compute_in(dtype, device, None, source)
    return Predictor(label_space, source, score_model, vocabulary=vocabulary)


def _compute_in(
    dtype: NumberType | None, device: str | None, model: torch.nn.Module | None, retriever: LabelRetriever | None
) -> None:
    """Let a model, and an encoder that retrieves, compute in another type of numbers, on another device."""
    wanted: list[torch.dtype | str] = [] if device is None else [device]
    if dtype is not None:
        from .encoders.number_types import number_type

        wanted.insert(0, number_type(dtype, device or "cpu"))
    for part in (model, None if retriever is None else retriever.encoder[0]):
        if part is not None:
            for where in wanted:
                part.to(where)


def holds_model(folder: Path) -> bool:
    """Whether a folder holds a model or an adapter, not an index or label trees alone.

    Args:
        folder: the folder.
    """
    return (folder / PROCESSOR_FILE).is_file()


def check_pair(model: _AnyModel, processor: XLGenProcessor, name: str) -> None:
    """Check that a model and a processor have the same tokens, labels and clusters.

    Args:
        model: the model.
        processor: the processor.
        name: where they come from, for the message.

    Raises:
        ModelFolderError: if they have not.
    """
    config = model.config
    output_tokens = model.output_token_ids.tolist() if config.num_output_tokens is not None else None
    pairs: dict[str, tuple[object, object]] = {
        "separator token": (config.separator_token_id, processor.label_tokenizer.separator_token_id),
        "end token": (config.eos_token_id, processor.eos_token_id),
        "label tokens": (
            output_tokens,
            None if output_tokens is None else processor.label_tokenizer.output_token_ids(),
        ),
    }
    found = processor.candidates
    pairs["candidates"] = (config.has_candidates, found is not None)
    as_tokens = found is not None and found.conditioning == "tokens"
    level = processor.label_tokenizer.first_level_token_id if as_tokens else None
    pairs["first level token"] = (config.first_level_token_id, level)
    if found is not None and config.variant == "rcl":
        pairs["conditioning"] = (config.conditioning, found.conditioning)
        if config.has_label_vectors:
            pairs["number of labels"] = (config.num_label_vectors, len(processor.label_space))
    if config.has_clusters:
        clusters = processor.clusters
        pairs["number of clusters"] = (config.num_clusters, None if clusters is None else clusters.num_clusters)
        pairs["first cluster token"] = (
            config.first_cluster_token_id,
            processor.label_tokenizer.first_cluster_token_id,
        )
    different = [what for what, (of_model, of_processor) in pairs.items() if of_model != of_processor]
    if len(processor.tokenizer) > config.vocab_size:
        different.append("vocabulary")
    if different:
        raise ModelFolderError(
            f"{name}: model and processor differ in {', '.join(different)}; they are not of one training. Save them "
            "into one folder again."
        )
