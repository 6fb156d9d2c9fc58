"""The Hub: models, adapters and the metric go up in one commit each, with a card."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypedDict

from ..errors import ConfigurationError
from ..files.adapter_base import is_adapter
from ..files.model_folder import (
    ADAPTER_CONFIG_FILE,
    CONFIG_FILE,
    PROCESSOR_FILES,
    holds_index,
    matches,
    model_files,
    processor_files,
)
from ..files.resources import resource_folder
from ..files.saving import finish_interrupted_save
from .adapters import push_adapter, push_model_files
from .card_pictures import draw_pictures
from .card_text import CARD_FILE, CardLabels, label_card, merge_cards
from .cards import CardFacts, index_card, metric_card, model_card, read_score_file, read_scores
from .code import add_code
from .commits import (
    Content,
    DryRunPlan,
    HubTarget,
    PlannedFile,
    PushReport,
    TargetOptions,
    fitting,
    push_files,
    require_file,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = [
    "DryRunPlan",
    "HubTarget",
    "ModelOptions",
    "PlannedFile",
    "PushOptions",
    "PushReport",
    "Saves",
    "push_metric",
    "push_model",
    "push_processor",
]

_METRIC_FILES = ("*.py", "*.md", "requirements.txt")
_METRIC = "xmc_f1"


class Saves(Protocol):
    """A model or a processor: writes itself into a folder."""

    def save_pretrained(self, save_directory: str, **options: object) -> object:
        """Write all files into the folder."""


class ModelOptions(TypedDict, total=False):
    """The options of [`push_model`] that are about the model, see there."""

    base_repo_id: str | None
    with_code: bool
    scores: str | Path | Mapping[str, object] | None
    dataset: str | None
    license_id: str | None
    tags: Sequence[str] | str | None
    language: Sequence[str] | str | None
    max_shard_size: int | str | None


class PushOptions(ModelOptions, TargetOptions, total=False):
    """The options of [`push_model`] but the processor."""


def push_model(
    model: str | Path | Saves,
    repo_id: str,
    *,
    processor: Saves | None = None,
    base_repo_id: str | None = None,
    with_code: bool = False,
    scores: str | Path | Mapping[str, object] | None = None,
    dataset: str | None = None,
    license_id: str | None = None,
    tags: Sequence[str] | str | None = None,
    language: Sequence[str] | str | None = None,
    max_shard_size: int | str | None = None,
    **target: Unpack[TargetOptions],
) -> PushReport:
    """Put a model or an index up in one commit: weights, configs, label space, clusters, processor and card.

    The base of an adapter, where it is a folder here, goes up before the adapter, to a repository of its own; what is
    uploaded of the adapter names that repository and commit instead of the folder (see `xlgen_hf.hub.adapters`).

    Args:
        model: the folder of a trained model or adapter, of an index, label trees or a hybrid; or a model object.
        repo_id: `owner/name`.
        processor: the processor of a model object; a folder has its own.
        base_repo_id: where the base of an adapter goes; `repo_id` with `-base` after it if None. Adapters of the same
            base may share a repository.
        with_code: add the modules that load the model where this package is not installed, for `trust_remote_code`.
        scores: test scores for the card, or the JSON file of them that `xlgen evaluate --output-file` wrote. Where
            matplotlib is installed, the card also shows pictures of them, of the clusters and of the training.
        dataset: name or Hub id of the data that the scores and the training are about.
        license_id: licence of the weights, as the Hub spells it (`apache-2.0`).
        tags: further tags of the card.
        language: language of the texts, or several, as ISO codes, for the card.
        max_shard_size: maximum size of a file of weights (`"5GB"`) where a model object is given; larger weights go
            into several. A folder goes up as it is.
        **target: further fields of [`HubTarget`].

    Returns:
        The files and the commit.

    Raises:
        ModelFolderError: if the folder is not a complete model or index.
        ConfigurationError: if a model object comes without its processor, `base_repo_id` without an adapter whose
            base is a folder here, `max_shard_size` with a folder or an adapter, `with_code` with an adapter or an
            index, or the patterns leave no file.
        HubError: if the Hub refuses or cannot be reached.
    """
    place = HubTarget(repo_id, **target)
    scored = read_score_file(scores) if isinstance(scores, (str, Path)) else dict(scores or {})
    facts: CardFacts = {"scores": read_scores(scored), "dataset": dataset, "license_id": license_id}
    labels: CardLabels = {"tags": _listed(tags), "language": _listed(language)}
    if isinstance(model, (str, Path)):
        if max_shard_size is not None:
            raise ConfigurationError(
                f"max_shard_size={max_shard_size!r}, but the folder {model} goes up as it is. Leave it out, or save "
                "the model with model.save_pretrained(folder, max_shard_size=...) first."
            )
        return _push_folder(Path(model).expanduser(), place, base_repo_id, with_code, facts, labels, scored)
    if processor is None:
        raise ConfigurationError(
            "The model comes without its processor, and is of no use on the Hub alone; give processor=..."
        )
    labels["tags"] = [*labels["tags"], *_listed(getattr(model, "model_tags", None))]  # of `add_model_tags`
    with tempfile.TemporaryDirectory() as folder:
        if max_shard_size is None:
            model.save_pretrained(folder)
        else:
            model.save_pretrained(folder, max_shard_size=max_shard_size)
        processor.save_pretrained(folder)
        if max_shard_size is not None and is_adapter(folder):
            raise ConfigurationError(f"max_shard_size={max_shard_size!r}, but an adapter is one file. Leave it out.")
        return _push_folder(Path(folder), place, base_repo_id, with_code, facts, labels, scored)


def _listed(values: Sequence[str] | str | None) -> list[str]:
    return [values] if isinstance(values, str) else list(values or ())


def _push_folder(
    folder: Path,
    target: HubTarget,
    base_repo_id: str | None,
    with_code: bool,
    facts: CardFacts,
    labels: CardLabels,
    scored: Mapping[str, object],
) -> PushReport:
    finish_interrupted_save(folder)  # or files of two states would go up
    if is_adapter(folder):
        if with_code:
            raise ConfigurationError(
                "An adapter loads with peft and its base model, so its repository holds no code. Merge it first."
            )
        return push_adapter(folder, target, base_repo_id, facts, labels, _pictures(folder, target, scored))
    if base_repo_id is not None:
        raise ConfigurationError(f"base_repo_id={base_repo_id!r}, but {folder} is not an adapter. Leave it out.")
    files: dict[str, Content] = dict(model_files(folder))
    pictures = _pictures(folder, target, scored)
    files |= pictures
    if holds_index(folder):
        if with_code:
            raise ConfigurationError(f"{folder} holds an index, which loads with xlgen-hf alone; leave with_code out.")
        card, message = index_card(folder, target.repo_id, pictures=pictures, **facts), "Upload XLGen index"
    else:
        files |= add_code(folder, with_code=with_code)
        card = model_card(folder, target.repo_id, with_code=with_code, pictures=pictures, **facts)
        message = "Upload XLGen model"
    return push_model_files(files, target, message, label_card(card, **labels), folder)


def _pictures(folder: Path, target: HubTarget, scored: Mapping[str, object]) -> dict[str, bytes]:
    """The pictures of the card, as far as the target's patterns let them through."""
    drawn = draw_pictures(folder, target.repo_id.rpartition("/")[2], scored)
    return {path: drawn[path] for path in target.chosen(drawn)}


def push_processor(
    processor: Saves, repo_id: str, *, tags: Sequence[str] | str | None = None, **target: Unpack[TargetOptions]
) -> PushReport:
    """Put tokenizer, label space, clusters and score model into the repository of their model, in one commit.

    Args:
        processor: the model's processor.
        repo_id: `owner/name` of a repository that holds an XLGen model or adapter.
        tags: further tags of the card, which stays as it is otherwise.
        **target: further fields of [`HubTarget`].

    Returns:
        The files and the commit.

    Raises:
        HubError: if the repository holds no model, or the Hub refuses or cannot be reached.
    """
    place, listed = HubTarget(repo_id, **target), _listed(tags)
    if not place.dry_run:
        require_file(place, "model", (CONFIG_FILE, ADAPTER_CONFIG_FILE), "Push the model with its processor instead.")
    with tempfile.TemporaryDirectory() as folder:
        processor.save_pretrained(folder)
        return push_files(
            dict(processor_files(Path(folder))), replace(place, message=place.message or "Upload XLGen processor"),
            "model", card=(lambda there: label_card(there or "", tags=listed, language=[])) if listed else None,
            owned=fitting(*PROCESSOR_FILES),
        )  # fmt: skip


def push_metric(repo_id: str, metric: str = _METRIC, **target: Unpack[TargetOptions]) -> PushReport:
    """Put a metric up as a Space, from which `evaluate.load(repo_id)` loads it where this package is not installed.

    Args:
        repo_id: `owner/name`; the name must be that of the metric, by which `evaluate` finds its file.
        metric: a folder of `evaluate_metrics`.
        **target: further fields of [`HubTarget`].

    Returns:
        The files and the commit.

    Raises:
        ConfigurationError: if there is no such metric, or the repository has another name.
        HubError: if the Hub refuses or cannot be reached.
    """
    place = HubTarget(repo_id, **target)
    folder = resource_folder("evaluate_metrics") / metric
    if not (folder / f"{metric}.py").is_file():
        known = sorted(path.parent.name for path in folder.parent.glob("*/requirements.txt"))
        raise ConfigurationError(f"There is no metric {metric!r}; choose one of {known}.")
    if repo_id.rpartition("/")[2] != metric:
        raise ConfigurationError(
            f"{repo_id!r}: evaluate looks for a file with the name of the Space, so the Space must be called "
            f"{metric!r}."
        )
    files: dict[str, Content] = {
        path.name: path
        for path in sorted(folder.iterdir())
        if path.is_file() and matches(path.name, _METRIC_FILES) and path.name != CARD_FILE
    }
    card = metric_card(folder, repo_id)
    return push_files(
        files, replace(place, message=place.message or f"Upload metric {metric}"), "space",
        card=lambda there: merge_cards(card, there), owned=fitting(),
    )  # fmt: skip
