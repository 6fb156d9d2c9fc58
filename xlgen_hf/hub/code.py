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

from ..files.model_folder import LABEL_TREES_FOLDER, RETRIEVER_FOLDER
from ..files.schema import read_object
from ..labels.trie import LABEL_TRIE_FILE
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


# Feature of a model -> what stays out of the copy for a model without it: packages, modules, and definitions in them.
# All else is copied as far as something that is copied uses it. A stand-in says of what is left out where to get it.
_PACKAGE = ""  # what no copy has: starting, training, changing, saving or pushing a model is not running it
_LEFT_OUT: dict[str, tuple[str, ...]] = {
    _PACKAGE: (
        "configuration_xlgen.XLGenConfig._check_settings",
        "configuration_xlgen.XLGenConfig._refuse_uses_of_the_head",
        "configuration_xlgen.XLGenConfig.has_cluster_tokens",
        "configuration_xlgen.XLGenConfig.json_types",
        "encoders.exported",
        "files.atomic.lock_folder",
        "files.schema.Fields.write",
        "files.tensor_schema.Tensors.write",
        "hub.push_mixin.PushModelMixin.push_to_hub",
        "hub.push_mixin.PushProcessorMixin.push_to_hub",
        "labels.clusters.LabelClusters.relabelled",
        "labels.clusters.LabelMap.relabelled",
        "labels.space.LabelSpace.decode_ranks",
        "labels.space.LabelSpace.encode_known",
        "labels.tokens.LabelTokenizer.with_aliases",
        "labels.trie.LabelTrie.aliases",
        "labels.trie.LabelTrie.greatest_below",
        "decoding.constraints.LabelSetConstraint._last_rank",
        "decoding.decoded_sets.DecodedSet.without",
        "ranking.scored_labels.ScoredLabels.first",
        "ranking.scored_labels.ScoredLabels.without",
        "modeling_xlgen.XLGenForConditionalGeneration.from_backbone",
        "modeling_xlgen.XLGenForConditionalGeneration.is_fresh",
        "modeling_xlgen.XLGenForConditionalGeneration.prepare_decoder_input_ids_from_labels",
        "modeling_xlgen.XLGenForConditionalGeneration.resize_token_embeddings",
        "modules.adapters",
        "modules.auto_classes",
        "modules.backbone.load_backbone",
        "modules.backbone.longest_sequence",
        "modules.dry_run",
        "modules.exported",
        "modules.losses",
        "modules.output_layer.RestrictedOutputMixin.fit_output",
        "modules.output_layer.RestrictedOutputMixin.output_positions",
        "modules.output_layer.RestrictedOutputMixin.sharing_weights",
        "modules.persistence.ModelFilesMixin.disable_adapters",
        "modules.persistence.ModelFilesMixin.enable_adapters",
        "modules.persistence.ModelFilesMixin.forget_untied",
        "modules.persistence.ModelFilesMixin.load_adapter",
        "modules.persistence.ModelFilesMixin.save_pretrained",
        "modules.persistence.ModelFilesMixin.set_adapter",
        "modules.seq2seq.find_start_token",
        "pipeline.XLGenPipeline.save_pretrained",
        "prediction.generator.Generator._begin_after",
        "prediction.predictor.Predictor.rank",
        "prediction.ranked_texts.Ranking.given_ids",
        "processing_xlgen.XLGenProcessor._sources",
        "processing_xlgen.XLGenProcessor._take_sources",
        "processing_xlgen.XLGenProcessor.add_labels",
        "processing_xlgen.XLGenProcessor.relabel",
        "processing_xlgen.XLGenProcessor.save_pretrained",
        "processing_xlgen.XLGenProcessor.spell_aliases",
        "processing_xlgen.XLGenProcessor.take_retriever",
    ),
    "beams": ("decoding.decoded_sets._pooled", "decoding.search.beam_search"),
    "calibrator": ("ranking.calibration.ScoreCalibrator",),
    "calibrated scores": ("ranking.decisions.expected_f1_sizes",),
    "branches of a cache": ("decoding.prompt_cache",),
    "causal": ("modules.causal", "modules.conditioning._encode_prompt"),
    "clusters": ("labels.clusters.LabelClusters", "labels.tokens.LabelTokenizer.cluster_token_ids"),
    "confidence": ("prediction.results.add_confidence", "ranking.confidence.ConfidenceModel"),
    "fusion": (
        "prediction.predictor.Predictor.ranking_for",
        "prediction.predictor.candidate_values",
        "ranking.fusion.Fusion",
    ),
    "label trees": ("ranking.label_trees.LabelTrees",),
    "mcg": (
        "labels.tokens.LabelTokenizer.cluster_trie",
        "labels.tokens.LabelTokenizer.task_token_id",
        "prediction.generator.Generator._generate_clusters",
    ),
    "open vocabulary": ("prediction.open_vocabulary", "prediction.predictor._novel_labels"),
    "predicted clusters": (
        "modules.conditioning.ConditionedEncoderMixin.predict_bits",
        "modules.conditioning._with_clusters",
        "prediction.encoding._active_clusters",
    ),
    "retriever": (
        "encoders.embedding.embed_texts",
        "modules.candidate_head",
        "modules.candidate_pointer",
        "modules.conditioning.ConditionedEncoderMixin.candidate_weights",
        "modules.conditioning._candidate_vectors",
        "modules.conditioning._find_candidates",
        "modules.output_layer._copy_candidates",
        "prediction.candidate_ranker.CandidateRanker",
        "prediction.encoding.Encoded.candidate_head_scores",
        "prediction.encoding.Encoded.ranked_candidates",
        "prediction.evidence",
        "prediction.generator.Generator.add_input_candidates",
        "prediction.predictor.Predictor._explain",
        "prediction.predictor.Predictor._further_names",
        "processing_xlgen._load_candidates",
        "retrieval.candidate_inputs.CandidateInputs",
        "retrieval.evidence.retrieval_evidence",
        "retrieval.retriever.LabelRetriever",
        "settings.Setting.holds",
        "settings.Setting.range_text",
    ),
    "scores of any label": (  # by teacher forcing, of candidates that others found
        "decoding.teacher_forcing",
        "labels.space.LabelSpace.encode",
        "labels.space.LabelSpace.order",
        "prediction.generator.Generator._as_far_as_fits",
        "prediction.generator.Generator._fitting",
        "prediction.generator.Generator._teacher_forced",
        "prediction.generator.Generator.features",
        "prediction.generator.Generator.score",
        "prediction.generator.Generator.score_texts",
        "prediction.prediction_mixin.PredictionMixin.score",
    ),
    "tied embeddings": ("modules.seq2seq.embedding_tie",),
    "labels to spell": ("labels.tokens.LabelTokenizer._spelled",),
    "trie to build": ("labels.trie._build",),
    "vectors in the memory": ("modules.conditioning._joined",),
    "vocabulary": (
        "labels.trie.LabelTrie.siblings",
        "labels.vocabulary.Vocabulary",
        "prediction.results.form_of_answers",
    ),
}


def _features(folder: Path) -> set[str]:
    """What a model has that needs code of its own, by the names of `_LEFT_OUT`."""
    config = read_object(folder / _CONFIG_FILE)
    score_model = read_object(path) if (path := folder / _SCORE_MODEL_FILE).is_file() else {}
    backbone, decision = config.get("backbone"), score_model.get("rule")
    rule = decision.get("kind") if isinstance(decision, dict) else None
    family = backbone.get("model_type") if isinstance(backbone, dict) else None
    is_causal = family in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and (
        family not in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES
    )
    variant, has_retriever = config.get("variant", "base"), (folder / RETRIEVER_FOLDER).exists()
    scores_any = has_retriever or score_model.get("fusion") is not None
    has = {
        **{part: score_model.get(part) is not None for part in ("calibrator", "confidence", "fusion")},
        "beams": config.get("num_beams", 1) != 1,
        "branches of a cache": is_causal or scores_any,
        "calibrated scores": any(score_model.get(part) is not None for part in ("calibrator", "fusion"))
        or rule == "expected_f1",
        "causal": is_causal,
        "clusters": (folder / "label_clusters.json").exists(),
        "label trees": (folder / LABEL_TREES_FOLDER).exists(),
        "mcg": variant == "mcg",
        "open vocabulary": config.get("num_output_tokens") is None,
        "predicted clusters": variant == "bcl",
        "retriever": has_retriever,
        "scores of any label": scores_any,
        "tied embeddings": config.get("tie_encoder_decoder") is True,
        "labels to spell": not (folder / LABEL_TRIE_FILE).exists(),
        "trie to build": variant == "mcg" or not (folder / LABEL_TRIE_FILE).exists(),
        "vectors in the memory": variant == "bcl" or has_retriever,
        "vocabulary": (folder / "vocabulary.json").exists(),
    }
    return {feature for feature, is_there in has.items() if is_there}


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
    features = _features(folder)
    left_out = {name for feature, names in _LEFT_OUT.items() if feature not in features for name in names}
    return copied_files(Path(__file__).parent.parent, _ENTRIES, left_out)


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
