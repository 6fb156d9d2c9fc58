"""Adapters on the Hub: the base has a repository of its own, which the adapter names by id and commit.

So the Hub's other adapters do it, and peft loads them without this package's help. The base goes up first; then the
adapter, with `base_model_name_or_path` and `revision` of `adapter_config.json` set to where the base is. The commit
keeps an adapter whole that remains when a later training puts another base into the same repository. The local
folder stays as it is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from huggingface_hub import HfApi

from ..errors import ConfigurationError, HubError, ModelFolderError
from ..files.adapter_base import AdapterBase, base_of
from ..files.model_folder import ADAPTER_CONFIG_FILE, MODEL_FILES, model_files
from ..files.saving import finish_interrupted_save
from ..files.schema import read_object
from ..files.training_report import read_report
from .card_pictures import PICTURES
from .card_text import CARD_FILE, CardLabels, label_card, merge_cards
from .cards import BASE_TAG, CardFacts, adapter_card, base_card
from .code import add_code, code_in_repository
from .commits import (
    Content,
    HubTarget,
    PushReport,
    check_patterns,
    fitting,
    hub_errors,
    prepare_repository,
    push_files,
)

__all__ = ["push_adapter", "push_model_files"]

_SUFFIX = "-base"
_UNKNOWN_COMMIT = "0" * 40  # of a dry run; as long as the one that goes up, so that sizes are right
_NOT_CONTENT = {".gitattributes", CARD_FILE}


def push_adapter(
    folder: Path,
    target: HubTarget,
    base_repo_id: str | None,
    facts: CardFacts,
    labels: CardLabels,
    pictures: Mapping[str, bytes],
) -> PushReport:
    """Put an adapter up, and before it the base, where that is a folder here.

    Args:
        folder: the adapter's folder.
        target: the adapter's repository. The base goes whole to the branch of the same name, and is private where the
            adapter is.
        base_repo_id: the base's repository; that of the adapter with `-base` after its name if None.
        facts: for the cards.
        labels: for the adapter's card.
        pictures: of the adapter's card.

    Returns:
        What went up of the adapter, and as its `base` what went up of that.

    Raises:
        ConfigurationError: if `base_repo_id` is the adapter's repository, or the base is on the Hub already.
        ModelFolderError: if adapter or base are not whole.
        HubError: if the Hub refuses or cannot be reached, the base's repository holds something else, or is private
            while the adapter's is not.
    """
    files: dict[str, Content] = {**model_files(folder), **add_code(folder, with_code=False), **pictures}
    base, pushed = base_of(folder), None
    if base.is_folder:
        check_patterns(files, target)
        if not target.dry_run:  # what is wrong with the adapter's repository is told before anything goes up
            target = prepare_repository(target, "model")
        place = _base_target(target, base_repo_id)
        pushed = _push_base(Path(base.name), place, read_report(folder).get("backbone"), facts["license_id"])
        base = AdapterBase(pushed.plan.repo_id, pushed.commit or _UNKNOWN_COMMIT)
        files[ADAPTER_CONFIG_FILE] = _config_with_base(folder, base)
    elif base_repo_id is not None:
        raise ConfigurationError(
            f"base_repo_id={base_repo_id!r}, but the adapter's base is on the Hub already, as {base.name!r}. Leave "
            "base_repo_id out."
        )
    card = adapter_card(folder, target.repo_id, base_model=base.name, pictures=pictures, **facts)
    card = label_card(card, **labels)
    return replace(push_model_files(files, target, "Upload XLGen adapter", card, folder), base=pushed)


def push_model_files(
    files: dict[str, Content], target: HubTarget, message: str, card: str, folder: Path
) -> PushReport:
    """Make files the content of a model's repository; what people wrote around its card stays.

    Args:
        files: path in the repository -> a file here, or content.
        target: the repository.
        message: message of the commit where the target has none.
        card: the card, as generated.
        folder: the model's folder, whose card is taken where the repository has none.

    Raises:
        HubError: if the Hub refuses or cannot be reached.
    """
    local = folder / CARD_FILE
    old = _text_of(local) if local.is_file() else None
    return push_files(
        files, replace(target, message=target.message or message), "model",
        card=lambda there: merge_cards(card, there or old), owned=_model_and_code,
    )  # fmt: skip


def _text_of(card: Path) -> str:
    try:
        return card.read_text(encoding="utf-8")
    except UnicodeDecodeError as err:
        raise ModelFolderError(f"{card} is not UTF-8 ({err}). Save it as UTF-8, then push again.") from err


def _model_and_code(paths: Collection[str], read: Callable[[str], str]) -> Iterator[str]:
    yield from fitting(*MODEL_FILES, *PICTURES)(paths, read)
    yield from code_in_repository(paths, read)


def _base_target(adapter: HubTarget, repo_id: str | None) -> HubTarget:
    """The base's repository, there and as private as the adapter's; only planned in a dry run."""
    repo_id = f"{adapter.repo_id}{_SUFFIX}" if repo_id is None else repo_id
    if repo_id == adapter.repo_id:
        raise ConfigurationError(
            f"base_repo_id={repo_id!r} is the adapter's own repository, and peft looks for a base elsewhere. Give "
            f"another one, or leave it out for {repo_id + _SUFFIX!r}."
        )
    target = replace(
        adapter, repo_id=repo_id, message=None, description=None, allow_patterns=None, ignore_patterns=None
    )
    if adapter.dry_run:
        return target
    target = prepare_repository(target, "model")
    if target.private and not adapter.private:
        raise HubError(
            f"The base's repository {target.repo_id} is private and the adapter's, {adapter.repo_id}, is not, so "
            "nobody else could load the adapter. Make both private or both public, or give another base_repo_id; "
            "nothing was uploaded."
        )
    with hub_errors(target, "model"):
        there = HfApi(token=target.token).model_info(target.repo_id, revision=target.revision)
    content = {file.rfilename for file in there.siblings or ()} - _NOT_CONTENT
    tags = (there.card_data.to_dict().get("tags") if there.card_data else None) or ()
    if content and BASE_TAG not in tags:
        raise HubError(
            f"The repository {target.repo_id} is there and holds something else than the base of adapters (its card "
            f"lacks the tag {BASE_TAG}). Give another base_repo_id; nothing was uploaded."
        )
    return target


def _push_base(folder: Path, target: HubTarget, backbone: str | None, license_id: str | None) -> PushReport:
    finish_interrupted_save(folder)
    files: dict[str, Content] = {**model_files(folder), **add_code(folder, with_code=False)}
    card = base_card(folder, target.repo_id, backbone=backbone, license_id=license_id)
    return push_model_files(files, target, "Upload base of XLGen adapters", card, folder)


def _config_with_base(folder: Path, base: AdapterBase) -> bytes:
    """The adapter's settings with the base on the Hub, in the form in which peft writes them."""
    content = {**read_object(folder / ADAPTER_CONFIG_FILE), "base_model_name_or_path": base.name}
    content["revision"] = base.revision
    return json.dumps(content, indent=2, sort_keys=True).encode()
