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

if TYPE_CHECKING:
    from .clusters import LabelClusters
    from .configuration_xlgen import XLGenConfig
    from .data_collator import DataCollatorForXLGen
    from .hub import push_metric, push_model
    from .hub_datasets import push_dataset
    from .label_dropping import drop_labels
    from .label_trie import LabelTrie
    from .labels import LabelSpace
    from .lora import lora_config
    from .modeling_xlgen import XLGenForConditionalGeneration
    from .outputs import LabelPrediction
    from .pipeline import XLGenPipeline
    from .processing_xlgen import XLGenProcessor
    from .trainer import XLGenTrainer
    from .training_args import XLGenTrainingArguments

__version__ = "0.1.0"

__all__ = [
    "DataCollatorForXLGen",
    "LabelClusters",
    "LabelPrediction",
    "LabelSpace",
    "LabelTrie",
    "XLGenConfig",
    "XLGenForConditionalGeneration",
    "XLGenPipeline",
    "XLGenProcessor",
    "XLGenTrainer",
    "XLGenTrainingArguments",
    "__version__",
    "drop_labels",
    "lora_config",
    "push_dataset",
    "push_metric",
    "push_model",
]

# Public name -> the module that defines it; a test holds this table, the imports above and __all__ together.
_MODULES = {
    "DataCollatorForXLGen": "data_collator",
    "LabelClusters": "clusters",
    "LabelPrediction": "outputs",
    "LabelSpace": "labels",
    "LabelTrie": "label_trie",
    "XLGenConfig": "configuration_xlgen",
    "XLGenForConditionalGeneration": "modeling_xlgen",
    "XLGenPipeline": "pipeline",
    "XLGenProcessor": "processing_xlgen",
    "XLGenTrainer": "trainer",
    "XLGenTrainingArguments": "training_args",
    "drop_labels": "label_dropping",
    "lora_config": "lora",
    "push_dataset": "hub_datasets",
    "push_metric": "hub",
    "push_model": "hub",
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
