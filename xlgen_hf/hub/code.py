"""The code in a model's repository, with which it loads where this package is not installed (`trust_remote_code`).

It holds what running the model needs and no more: a model without a retriever brings no modules of retrieval.
`code_copy` makes the copy; here is what of the package goes into it, what the configs say of it, and which files of a
repository are such code.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
)

from ..files.schema import read_object
from .code_copy import FIRST_LINE, copied_files

__all__ = ["add_code", "code_files", "code_in_repository"]

_CONFIG_FILE = "config.json"
_PROCESSOR_FILE = "processor_config.json"
_SCORE_MODEL_FILE = "score_model.json"
_AUTO_MAP = {
    "AutoConfig": "configuration_xlgen.XLGenConfig",
    "AutoModel": "modeling_xlgen.XLGenForConditionalGeneration",
    "AutoModelForSeq2SeqLM": "modeling_xlgen.XLGenForConditionalGeneration",
    "AutoProcessor": "processing_xlgen.XLGenProcessor",
}
_PIPELINES = {
    "extreme-multilabel-classification": {
        "impl": "pipeline.XLGenPipeline",
        "pt": ["AutoModelForSeq2SeqLM"],
        "type": "text",
    }
}
# File -> what it says of code.
_SETTINGS: dict[str, dict[str, object]] = {
    _CONFIG_FILE: {"auto_map": _AUTO_MAP, "custom_pipelines": _PIPELINES},
    _PROCESSOR_FILE: {"auto_map": {"AutoProcessor": _AUTO_MAP["AutoProcessor"]}},
}
# What users of a repository with code have in their hands.
_ENTRIES = {
    "configuration_xlgen": ["XLGenConfig"],
    "modeling_xlgen": ["XLGenForConditionalGeneration"],
    "pipeline": ["XLGenPipeline"],
    "prediction.results": ["LabelPrediction"],
    "processing_xlgen": ["XLGenProcessor"],
}


def _is_there(name: str) -> Callable[[Path], bool]:
    return lambda folder: (folder / name).exists()


def _scores_by(part: str) -> Callable[[Path], bool]:
    """Whether a model's scores are made by a part of its score model."""

    def has_part(folder: Path) -> bool:
        path = folder / _SCORE_MODEL_FILE
        return path.is_file() and read_object(path).get(part) is not None

    return has_part


def _has_causal_backbone(folder: Path) -> bool:
    """Whether a model's backbone is a decoder-only language model."""
    backbone = read_object(folder / _CONFIG_FILE).get("backbone")
    family = backbone.get("model_type") if isinstance(backbone, dict) else None
    return family in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and family not in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES


def _has_open_vocabulary(folder: Path) -> bool:
    return read_object(folder / _CONFIG_FILE).get("num_output_tokens") is None


# What stays out of a copy unless a model needs it: packages, modules, and definitions in them. Starting, pushing or
# changing a model is not running it. All else is copied as far as something that is copied uses it.
_NEEDED_BY: dict[str, Callable[[Path], bool]] = {
    "files.schema.Fields.write": lambda folder: False,
    "files.tensor_schema.Tensors.write": lambda folder: False,
    "hub.push_mixin.PushModelMixin.push_to_hub": lambda folder: False,
    "hub.push_mixin.PushProcessorMixin.push_to_hub": lambda folder: False,
    "modeling_xlgen.XLGenForConditionalGeneration.from_backbone": lambda folder: False,
    "modeling_xlgen.XLGenForConditionalGeneration.is_fresh": lambda folder: False,
    "modules.output_layer.RestrictedOutputMixin.fit_output": lambda folder: False,
    "modules.persistence.ModelFilesMixin.disable_adapters": lambda folder: False,
    "modules.persistence.ModelFilesMixin.enable_adapters": lambda folder: False,
    "modules.persistence.ModelFilesMixin.load_adapter": lambda folder: False,
    "modules.persistence.ModelFilesMixin.save_pretrained": lambda folder: False,
    "modules.persistence.ModelFilesMixin.set_adapter": lambda folder: False,
    "pipeline.XLGenPipeline.save_pretrained": lambda folder: False,
    "processing_xlgen.XLGenProcessor.add_labels": lambda folder: False,
    "processing_xlgen.XLGenProcessor.relabel": lambda folder: False,
    "processing_xlgen.XLGenProcessor.take_retriever": lambda folder: False,
    "processing_xlgen.XLGenProcessor.save_pretrained": lambda folder: False,
    "labels.clusters.LabelClusters": _is_there("label_clusters.json"),
    "modules.auto_classes": lambda folder: False,
    "modules.adapters": lambda folder: False,
    "modules.backbone.load_backbone": lambda folder: False,
    "modules.backbone.longest_sequence": lambda folder: False,
    "modules.causal": _has_causal_backbone,
    "decoding.prompt_cache": _has_causal_backbone,
    "encoders.exported": lambda folder: False,
    "modules.exported": lambda folder: False,
    "modules.dry_run": lambda folder: False,
    "modules.seq2seq.find_start_token": lambda folder: False,
    "encoders.embedding.embed_texts": _is_there("retriever"),
    "modules.candidate_head": _is_there("retriever"),
    "modules.candidate_pointer": _is_there("retriever"),
    "labels.vocabulary.Vocabulary": _is_there("vocabulary.json"),
    "prediction.candidate_ranker.CandidateRanker": _is_there("retriever"),
    "prediction.evidence": _is_there("retriever"),
    "prediction.open_vocabulary": _has_open_vocabulary,
    "ranking.calibration.ScoreCalibrator": _scores_by("calibrator"),
    "ranking.confidence.ConfidenceModel": _scores_by("confidence"),
    "ranking.fusion.Fusion": _scores_by("fusion"),
    "ranking.label_trees.LabelTrees": _is_there("label_trees"),
    "retrieval.candidate_inputs.CandidateInputs": _is_there("retriever"),
    "retrieval.evidence.retrieval_evidence": _is_there("retriever"),
    "retrieval.retriever.LabelRetriever": _is_there("retriever"),
}

# Modules of the layout before packages, whose files do not say where they are from; one of its names is in no other.
_FORMER = (
    "_io adapter_base adapters backbone calibration candidate_inputs candidate_pointer candidate_scoring checkpoints "
    "clusters conditioning configuration_xlgen decisions decoded_sets decoding embedding errors hub_files hybrid "
    "label_sets label_trie labels lexical linear_ranker lora model_files modeling_xlgen open_vocabulary output_layer "
    "outputs prediction processing_xlgen processor_files push_mixin restricted_output retrieval retrieval_candidates "
    "retrieval_settings saving scored_labels search truncation"
)
_FORMER_FILES = {f"{name}.py" for name in _FORMER.split()}
_ONLY_FORMER = "label_trie.py"


def code_files(folder: Path) -> dict[str, str]:
    """The code that a model needs: name of the file -> its content.

    Args:
        folder: the model's folder.

    Raises:
        ModelFolderError: if its config is not a JSON object.
    """

    def is_left_out(name: str) -> bool:
        parts = name.split(".")
        for end in range(len(parts), 0, -1):  # its own entry, that of its module, that of its package
            needed = _NEEDED_BY.get(".".join(parts[:end]))
            if needed is not None:
                return not needed(folder)
        return False

    return copied_files(Path(__file__).parent.parent, _ENTRIES, is_left_out)


def add_code(folder: Path, *, with_code: bool) -> dict[str, bytes]:
    """The files of a model's folder that differ between a repository with and one without code.

    Args:
        folder: the model's folder.
        with_code: whether the repository holds code. Without it, what the configs say of code is left out: a model
            that came from a repository with code still says so.

    Returns:
        Name -> content: configs, and with code the modules.

    Raises:
        ModelFolderError: if a config is not a JSON object.
    """
    files = {
        name: _with_settings(folder / name, settings if with_code else {}, drop=set(settings))
        for name, settings in _SETTINGS.items()
        if (folder / name).is_file()
    }
    if with_code:
        files |= {name: source.encode() for name, source in code_files(folder).items()}
    return files


def code_in_repository(paths: Collection[str], read: Callable[[str], str]) -> Iterable[str]:
    """The files of a repository that are code of this package, of this layout or the one before packages.

    Args:
        paths: files of the repository that a push does not replace.
        read: gives the text of one.
    """
    if _ONLY_FORMER in paths:
        yield from _FORMER_FILES.intersection(paths)
    for path in paths:
        if "/" not in path and path.endswith(".py") and read(path).startswith(FIRST_LINE):
            yield path


def _with_settings(path: Path, settings: dict[str, object], drop: set[str]) -> bytes:
    content = read_object(path)
    if not settings and not drop.intersection(content):
        return path.read_bytes()
    kept = {key: value for key, value in content.items() if key not in drop}
    return (json.dumps({**kept, **settings}, ensure_ascii=False, indent=2) + "\n").encode()
