"""What the Auto classes of transformers find for an XLGen model."""

from __future__ import annotations

from typing import NoReturn

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoProcessor,
    PreTrainedModel,
)

from ..configuration_xlgen import XLGenConfig
from ..errors import ConfigurationError
from ..processing_xlgen import XLGenProcessor

__all__ = ["register_auto_classes"]


class _NotALanguageModel:
    """What `AutoModelForCausalLM` finds: an error that says what loads the model."""

    config_class = XLGenConfig

    @classmethod
    def from_pretrained(cls, name: object, *args: object, **options: object) -> NoReturn:
        """Refuse.

        Raises:
            ConfigurationError: always.
        """
        raise ConfigurationError(
            f"{name} is an XLGen model, also where its backbone is a decoder-only language model: it reads a text and "
            "a label set apart, and continues no other text. Load it with AutoModelForSeq2SeqLM, or with "
            "xlgen_hf.load_model; the language model in it is model.backbone."
        )

    @classmethod
    def _from_config(cls, config: XLGenConfig, **options: object) -> NoReturn:
        cls.from_pretrained(f"This {type(config).__name__}")


def register_auto_classes(model_class: type[PreTrainedModel]) -> None:
    """Let the Auto classes load XLGen models.

    Args:
        model_class: class of the models.
    """
    AutoConfig.register(XLGenConfig.model_type, XLGenConfig, exist_ok=True)
    AutoModel.register(XLGenConfig, model_class, exist_ok=True)
    AutoModelForSeq2SeqLM.register(XLGenConfig, model_class, exist_ok=True)
    AutoModelForCausalLM.register(XLGenConfig, _NotALanguageModel, exist_ok=True)
    AutoProcessor.register(XLGenConfig, XLGenProcessor, exist_ok=True)
