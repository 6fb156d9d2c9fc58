"""Generative extreme multi-label classification with cluster guidance on the Hugging Face stack.

The public names are imported when they are first used, so `import xlgen_hf` is instant. The Auto classes of
transformers know XLGen's folders as soon as `xlgen_hf.XLGenForConditionalGeneration` was touched, or at once where
transformers was imported before this package. `transformers.pipeline` knows the task
`extreme-multilabel-classification` in any order of the imports.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._registration import register
from .version import __version__

if TYPE_CHECKING:
    from .configuration_xlgen import XLGenConfig
    from .data.options import RowOptions
    from .data.rows import load_rows
    from .data.transforms import drop_labels
    from .data.vocabulary_files import read_vocabulary, write_vocabulary
    from .decoding.decoded_sets import DecodingOptions
    from .hub.datasets import push_dataset
    from .hub.push import push_metric, push_model
    from .hub.spaces import push_space
    from .labels.changes import LabelEdits
    from .labels.clustering import fit_clusters
    from .labels.clusters import LabelClusters
    from .labels.concepts import Concept
    from .labels.space import LabelSpace
    from .labels.trie import LabelTrie
    from .labels.vocabulary import Vocabulary
    from .loading import load_model, load_predictor
    from .modeling_xlgen import XLGenForConditionalGeneration
    from .pipeline import XLGenPipeline
    from .plots.clusters import plot_clusters
    from .plots.scores import plot_shot_buckets
    from .plots.training import plot_training
    from .plots.trust import plot_reliability, plot_risk_coverage
    from .prediction.evidence import LabelEvidence
    from .prediction.predictor import Predictor
    from .prediction.results import LabelPrediction, PredictedConcept
    from .processing_xlgen import XLGenProcessor
    from .ranking.decisions import DecisionRule
    from .ranking.reliability import reliability_table
    from .ranking.risk_coverage import risk_coverage
    from .retrieval.retriever import LabelRetriever
    from .training.arguments import XLGenTrainingArguments
    from .training.collator import DataCollatorForXLGen
    from .training.lora import add_lora, lora_config
    from .training.trainer import XLGenTrainer
    from .updating.update import undo_update, update_model

__all__ = [
    "Concept",
    "DataCollatorForXLGen",
    "DecisionRule",
    "DecodingOptions",
    "LabelClusters",
    "LabelEdits",
    "LabelEvidence",
    "LabelPrediction",
    "LabelRetriever",
    "LabelSpace",
    "LabelTrie",
    "PredictedConcept",
    "Predictor",
    "RowOptions",
    "Vocabulary",
    "XLGenConfig",
    "XLGenForConditionalGeneration",
    "XLGenPipeline",
    "XLGenProcessor",
    "XLGenTrainer",
    "XLGenTrainingArguments",
    "__version__",
    "add_lora",
    "drop_labels",
    "fit_clusters",
    "load_model",
    "load_predictor",
    "load_rows",
    "lora_config",
    "plot_clusters",
    "plot_reliability",
    "plot_risk_coverage",
    "plot_shot_buckets",
    "plot_training",
    "push_dataset",
    "push_metric",
    "push_model",
    "push_space",
    "read_vocabulary",
    "reliability_table",
    "risk_coverage",
    "undo_update",
    "update_model",
    "write_vocabulary",
]

# Public name -> the module that defines it; a test holds this table, the imports above and __all__ together.
_MODULES = {
    "Concept": "labels.concepts",
    "DataCollatorForXLGen": "training.collator",
    "DecisionRule": "ranking.decisions",
    "DecodingOptions": "decoding.decoded_sets",
    "LabelClusters": "labels.clusters",
    "LabelEdits": "labels.changes",
    "LabelEvidence": "prediction.evidence",
    "LabelPrediction": "prediction.results",
    "LabelRetriever": "retrieval.retriever",
    "LabelSpace": "labels.space",
    "LabelTrie": "labels.trie",
    "PredictedConcept": "prediction.results",
    "Predictor": "prediction.predictor",
    "RowOptions": "data.options",
    "Vocabulary": "labels.vocabulary",
    "XLGenConfig": "configuration_xlgen",
    "XLGenForConditionalGeneration": "modeling_xlgen",
    "XLGenPipeline": "pipeline",
    "XLGenProcessor": "processing_xlgen",
    "XLGenTrainer": "training.trainer",
    "XLGenTrainingArguments": "training.arguments",
    "add_lora": "training.lora",
    "drop_labels": "data.transforms",
    "fit_clusters": "labels.clustering",
    "load_model": "loading",
    "load_predictor": "loading",
    "load_rows": "data.rows",
    "lora_config": "training.lora",
    "plot_clusters": "plots.clusters",
    "plot_reliability": "plots.trust",
    "plot_risk_coverage": "plots.trust",
    "plot_shot_buckets": "plots.scores",
    "plot_training": "plots.training",
    "push_dataset": "hub.datasets",
    "push_metric": "hub.push",
    "push_space": "hub.spaces",
    "push_model": "hub.push",
    "read_vocabulary": "data.vocabulary_files",
    "reliability_table": "ranking.reliability",
    "risk_coverage": "ranking.risk_coverage",
    "undo_update": "updating.update",
    "update_model": "updating.update",
    "write_vocabulary": "data.vocabulary_files",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_MODULES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


register()
