"""Commits to the Hub: files go up in one commit each, or not at all. No other module of the package writes to it."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypedDict

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import filter_repo_objects

from ..errors import ConfigurationError, HubError, XLGenError
from ..files.downloads import HTTP_ERRORS, without_tokens
from ..files.model_folder import matches
from .card_text import CARD_FILE

__all__ = [
    "Content",
    "DryRunPlan",
    "HubTarget",
    "Owned",
    "PlannedFile",
    "PushReport",
    "TargetOptions",
    "check_patterns",
    "fitting",
    "hub_errors",
    "prepare_repository",
    "push_files",
    "require_file",
]

logger = logging.getLogger(__name__)

_ATTEMPTS = 3  # commits that are tried
_PARENT_IS_NOT_HEAD = 412
Content = Path | bytes
_Operation = CommitOperationAdd | CommitOperationDelete
Owned = Callable[[Collection[str], Callable[[str], str]], Iterable[str]]
"""Picks out of files of a repository those that are this package's; the second argument gives the text of one."""


@dataclass(frozen=True)
class HubTarget:
    """Where something goes, and how.

    Attributes:
        repo_id: `owner/name`, or `name` alone for the user's own namespace.
        private: make the repository private where it does not exist yet; as the organisation has it if None. A public
            one that exists is refused if True.
        revision: branch; made from the main branch where it does not exist yet. The main branch if None.
        token: of a user with the right to write; by default, or if True, that of the environment or of
            `hf auth login`.
        create_pr: open a pull request against the branch instead of a commit to it.
        dry_run: only plan what would go; the Hub is not asked.
        message: message of the commit.
        description: what the message has below its first line, or the text of the pull request.
        allow_patterns: of the files that would go, only those that fit one of these; `*` also fits `/`.
        ignore_patterns: but for those that fit one of these. What is left out stays in the repository as it is.
    """

    repo_id: str
    private: bool | None = False
    revision: str | None = None
    token: str | bool | None = None
    create_pr: bool = False
    dry_run: bool = False
    message: str | None = None
    description: str | None = None
    allow_patterns: Sequence[str] | str | None = None
    ignore_patterns: Sequence[str] | str | None = None

    def chosen(self, paths: Iterable[str]) -> list[str]:
        """The paths that the patterns let through."""
        patterns = [
            one if one is None or isinstance(one, str) else list(one)
            for one in (self.allow_patterns, self.ignore_patterns)
        ]
        return list(filter_repo_objects(paths, allow_patterns=patterns[0], ignore_patterns=patterns[1]))

    def __repr__(self) -> str:
        """Everything but the token."""
        return f"HubTarget({self.repo_id!r}, revision={self.revision!r}, private={self.private})"


class TargetOptions(TypedDict, total=False):
    """The fields of [`HubTarget`] but the first, as options of a push."""

    private: bool | None
    revision: str | None
    token: str | bool | None
    create_pr: bool
    dry_run: bool
    message: str | None
    description: str | None
    allow_patterns: Sequence[str] | str | None
    ignore_patterns: Sequence[str] | str | None


@dataclass(frozen=True)
class PlannedFile:
    """A file that goes up.

    Attributes:
        path: its path in the repository.
        size: its bytes.
    """

    path: str
    size: int


@dataclass(frozen=True)
class DryRunPlan:
    """What a push uploads.

    Attributes:
        repo_id: the repository.
        repo_type: `model`, `dataset` or `space`.
        revision: the branch.
        private: whether the repository is private; after a dry run, whether a new one would be.
        files: the files, by path.
    """

    repo_id: str
    repo_type: str
    revision: str
    private: bool
    files: tuple[PlannedFile, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


@dataclass(frozen=True)
class PushReport:
    """What a push did.

    Attributes:
        plan: the files.
        url: page of the repository, or of the pull request; None after a dry run.
        commit: the repository's newest commit; None after a dry run.
        changed: whether there was anything to commit.
        base: what the push of an adapter did with its base; None where that was no part of it.
    """

    plan: DryRunPlan
    url: str | None = None
    commit: str | None = None
    changed: bool = False
    base: PushReport | None = None


# ---------------------------------------------------------------------------------------------------- commits


def push_files(
    files: Mapping[str, Content],
    target: HubTarget,
    repo_type: str,
    *,
    card: Callable[[str | None], str] | None,
    owned: Owned,
) -> PushReport:
    """Make files the content of a repository, in one commit; files that have not changed are not uploaded again.

    Args:
        files: path in the repository -> a file here, or content.
        target: the repository.
        repo_type: `model`, `dataset` or `space`.
        card: makes the card out of the one in the repository, None where there is none; leaves it alone if None.
        owned: picks the files that the commit deletes, out of those in the repository that are not among `files`.
            Everything else in it stays.

    Raises:
        ConfigurationError: if the patterns of the target leave no file.
        HubError: if the Hub refuses or cannot be reached. No commit was made then, except where the connection broke
            while the Hub was answering; pushing again is right in either case.
    """
    plan = _plan(_with_card(files, card, None), target, repo_type)
    if target.dry_run:
        return PushReport(plan)
    with hub_errors(target, repo_type):
        api = HfApi(token=target.token)
        target = _prepare(api, target, repo_type)
        head, info = _commit(api, target, repo_type, files, card, owned)
    url = str(info.repo_url) if info.pr_url is None else info.pr_url
    plan = replace(plan, repo_id=target.repo_id, private=bool(target.private))
    return PushReport(plan, url, info.oid, changed=info.oid != head)


def check_patterns(files: Iterable[str], target: HubTarget) -> None:
    """Refuse patterns of a target that leave none of some files.

    Raises:
        ConfigurationError: if they do.
    """
    if not list(target.chosen(sorted(files))):
        raise ConfigurationError(
            f"allow_patterns={target.allow_patterns!r} and ignore_patterns={target.ignore_patterns!r} leave none of "
            f"the files {sorted(files)}."
        )


def _plan(files: Mapping[str, Content], target: HubTarget, repo_type: str) -> DryRunPlan:
    sizes = {
        path: len(content) if isinstance(content, bytes) else content.stat().st_size for path, content in files.items()
    }
    check_patterns(sizes, target)
    planned = tuple(PlannedFile(path, sizes[path]) for path in target.chosen(sorted(sizes)))
    return DryRunPlan(target.repo_id, repo_type, target.revision or "main", bool(target.private), planned)


def _with_card(
    files: Mapping[str, Content], card: Callable[[str | None], str] | None, old: str | None
) -> dict[str, Content]:
    return {**files, **({} if card is None else {CARD_FILE: card(old).encode()})}


def prepare_repository(target: HubTarget, repo_type: str) -> HubTarget:
    """Make a repository and its branch where they do not exist yet, and put nothing into them.

    Args:
        target: the repository.
        repo_type: `model`, `dataset` or `space`.

    Returns:
        The target with the whole id, and in `private` whether the repository is private.

    Raises:
        HubError: if the Hub refuses or cannot be reached, or the repository is public and must not be.
    """
    with hub_errors(target, repo_type):
        return _prepare(HfApi(token=target.token), target, repo_type)


def require_file(target: HubTarget, repo_type: str, names: Collection[str], advice: str) -> set[str]:
    """Refuse a repository that holds none of some files, or does not exist.

    Args:
        target: the repository.
        repo_type: `model`, `dataset` or `space`.
        names: the files, one of which is needed.
        advice: what to do otherwise.

    Returns:
        Those of the files that it holds.

    Raises:
        HubError: if there is none of the files, or the Hub refuses or cannot be reached.
    """
    with hub_errors(target, repo_type):
        api = HfApi(token=target.token)
        known = api.list_repo_files(target.repo_id, repo_type=repo_type, revision=target.revision)
    found = set(names) & set(known)
    if not found:
        raise HubError(f"The {repo_type} {target.repo_id} holds none of {sorted(names)}. {advice}")
    return found


def _prepare(api: HfApi, target: HubTarget, repo_type: str) -> HubTarget:
    sdk = "gradio" if repo_type == "space" else None
    try:
        there = api.repo_info(target.repo_id, repo_type=repo_type) if "/" in target.repo_id else None
    except RepositoryNotFoundError:
        there = None
    if there is None:
        made = api.create_repo(
            target.repo_id, repo_type=repo_type, private=target.private or None, space_sdk=sdk, exist_ok=True
        )
        target = replace(target, repo_id=made.repo_id)
        there = api.repo_info(target.repo_id, repo_type=repo_type)
    if target.private and not there.private:
        raise HubError(
            f"The {repo_type} {target.repo_id} exists and is public, but private=True. Make it private in its "
            "settings, or give another repo_id; nothing was uploaded."
        )
    if target.revision is not None:
        try:
            api.repo_info(target.repo_id, repo_type=repo_type, revision=target.revision)
        except RevisionNotFoundError:
            api.create_branch(target.repo_id, branch=target.revision, repo_type=repo_type, exist_ok=True)
    return replace(target, private=bool(there.private))


def _commit(
    api: HfApi,
    target: HubTarget,
    repo_type: str,
    files: Mapping[str, Content],
    card: Callable[[str | None], str] | None,
    owned: Owned,
) -> tuple[str | None, CommitInfo]:
    """Commit on top of the state that the card was merged with; the head before, and the commit.

    A commit names its parent, so one that is sent twice is made once. Where its answer is lost, or somebody else's
    commit comes in between, the next attempt looks again what is there: a commit that was made leaves nothing to do.
    """
    first = None
    for left in reversed(range(_ATTEMPTS)):
        there = api.repo_info(target.repo_id, repo_type=repo_type, revision=target.revision)
        first = first or there.sha
        known = set(api.list_repo_files(target.repo_id, repo_type=repo_type, revision=there.sha))
        read = partial(_read_file, api, target, repo_type, there.sha)
        whole = _with_card(files, card, read(CARD_FILE) if CARD_FILE in known and card is not None else None)
        operations: list[_Operation] = [
            CommitOperationAdd(path, _source(whole[path])) for path in target.chosen(whole)
        ]
        stale = set(owned(known - set(whole), read))
        operations += [CommitOperationDelete(path) for path in sorted(target.chosen(stale))]
        try:
            return first, _create_commit(api, target, repo_type, operations, there.sha)
        except HTTP_ERRORS as err:
            if not left or not _may_try_again(err, target):
                raise
            logger.info("The commit to %s was not answered, or others came before; trying again.", target.repo_id)
    raise AssertionError("the last attempt returns or raises")


def _may_try_again(err: Exception, target: HubTarget) -> bool:
    """Whether the repository has a new head, or the connection broke; a pull request would be opened twice."""
    if isinstance(err, HfHubHTTPError):
        return err.response.status_code == _PARENT_IS_NOT_HEAD
    return not target.create_pr


def _create_commit(
    api: HfApi, target: HubTarget, repo_type: str, operations: list[_Operation], parent: str | None
) -> CommitInfo:
    with warnings.catch_warnings():
        # The client warns of a file that a commit both adds and deletes; ours never does, but Spaces warn of README.
        warnings.simplefilter("ignore", UserWarning)
        return api.create_commit(
            target.repo_id, operations, commit_message=target.message or "Upload", repo_type=repo_type,
            commit_description=target.description, revision=target.revision, create_pr=target.create_pr,
            parent_commit=parent,
        )  # fmt: skip


def _read_file(api: HfApi, target: HubTarget, repo_type: str, revision: str | None, path: str) -> str:
    """The text of a file, with a mark for each byte that is not text."""
    with tempfile.TemporaryDirectory() as folder:  # the user's cache needs no copy of a file that is about to change
        local = api.hf_hub_download(target.repo_id, path, repo_type=repo_type, revision=revision, local_dir=folder)
        return Path(local).read_text(encoding="utf-8", errors="replace")


def _source(content: Content) -> str | bytes:
    return content if isinstance(content, bytes) else str(content)


def fitting(*patterns: str) -> Owned:
    """Picks the files that fit a pattern of [`matches`]."""
    return lambda paths, read: [path for path in paths if matches(path, patterns)]


# ---------------------------------------------------------------------------------------------------- errors

_CAUGHT: tuple[type[Exception], ...] = (*HTTP_ERRORS, HFValidationError, OSError, RuntimeError, ValueError)
_HINTS = {
    401: "Give the token of a user who may write there: HF_TOKEN, or `hf auth login`.",
    403: "The token's user may not write there, or the token may only read.",
    404: "Check the id; a private repository of others looks like one that does not exist.",
    429: "The Hub asks to slow down; try again in some minutes.",
}


@contextmanager
def hub_errors(target: HubTarget, repo_type: str) -> Iterator[None]:
    """Turn what the client raises into a `HubError` without a token in it.

    Args:
        target: what is pushed where.
        repo_type: `model`, `dataset` or `space`.
    """
    try:
        yield
    except XLGenError:
        raise
    except _CAUGHT as err:
        answer = " ".join(str(err).split()) or type(err).__name__
        message = f"Pushing the {repo_type} {target.repo_id!r} failed: {answer} {_hint(err)}"
        clean = without_tokens(message, target.token if isinstance(target.token, str) else None)
        # An error that quotes the token must not hang on ours either: tracebacks print the whole chain.
        raise HubError(clean) from (err if clean == message else None)


def _hint(err: BaseException) -> str:
    seen: BaseException | None = err
    while seen is not None:
        status = getattr(getattr(seen, "response", None), "status_code", None)
        if status in _HINTS:
            return _HINTS[status]
        seen = seen.__cause__ or seen.__context__
    if isinstance(err, HFValidationError):
        return "An id is `owner/name` of letters, digits, `-`, `_` and `.`."
    return "Nothing was committed, unless the answer itself was lost; pushing again is safe."
