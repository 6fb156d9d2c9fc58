"""Training that starts from a trained XLGen model, of the same or another variant, instead of its bare backbone."""

from __future__ import annotations

import logging

import torch

from ..encoders.exported import refuse_exported
from ..errors import ConfigurationError
from ..loading import load_model
from ..modeling_xlgen import XLGenForConditionalGeneration
from ..processing_xlgen import XLGenProcessor

__all__ = ["start_from"]

logger = logging.getLogger(__name__)

_OF_LABELS = ("output_token_ids", "label_vectors")  # follow from the labels, not from training
_OF_CLUSTERS = "cluster_"


@torch.no_grad()
def start_from(model: XLGenForConditionalGeneration, processor: XLGenProcessor, name: str) -> None:
    """Take over the weights of a trained model as far as both have them.

    What is tied to tokens goes by the token, so that the variants' own tokens may differ; parts for clusters are taken
    where both have the same clusters.

    Args:
        model: the new model; its weights are changed.
        processor: its processor.
        name: folder or Hub id of a trained model with the same backbone.

    Raises:
        ConfigurationError: if the backbones differ, or the trained model is exported.
        ModelFolderError: if the trained model cannot be loaded.
    """
    trained, trained_processor = load_model(name)
    refuse_exported(trained.backbone, name)
    same_clusters = _cluster_names(processor) == _cluster_names(trained_processor)
    rows = _common_tokens(processor, trained_processor, same_clusters=same_clusters)
    own, given = model.state_dict(), trained.state_dict()
    sizes = (model.config.vocab_size, trained.config.vocab_size)
    taken = 0
    for key, value in own.items():
        if key in _OF_LABELS or (key.startswith(_OF_CLUSTERS) and not same_clusters) or key not in given:
            continue
        source = given[key].to(value)
        if (value.shape[:1], source.shape[:1]) == ((sizes[0],), (sizes[1],)) and value.shape[1:] == source.shape[1:]:
            value[rows[0]] = source[rows[1]]
        elif value.shape == source.shape:
            value.copy_(source)
        else:
            continue
        taken += 1
    missing = [key for key in own if key.startswith("backbone.") and key not in given]
    if missing or not taken:
        raise ConfigurationError(
            f"{name} has another backbone: {len(missing)} weights of this one are not in it, e.g. {missing[:2]}. "
            "Start from a model of the same backbone and number of decoder layers."
        )
    logger.info("%d of %d tensors start from %s.", taken, len(own), name)


def _cluster_names(processor: XLGenProcessor) -> list[str] | None:
    return None if processor.clusters is None else processor.clusters.names


def _common_tokens(
    one: XLGenProcessor, other: XLGenProcessor, *, same_clusters: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids of the tokens that both vocabularies have, in the one and in the other; of clusters if they are the same."""
    first, second = one.tokenizer.get_vocab(), other.tokenizer.get_vocab()
    common = sorted(first.keys() & second.keys())
    if not same_clusters and one.clusters is not None:
        own = set(one.label_tokenizer.cluster_token_ids(range(one.clusters.num_clusters)))
        common = [token for token in common if first[token] not in own]
    return torch.tensor([first[token] for token in common]), torch.tensor([second[token] for token in common])
