"""Downloads from the Hub: all files of a repository from one commit, and again where a connection breaks."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import TypedDict, TypeVar, cast

from huggingface_hub import HfApi, constants, get_token, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

from ..errors import HubError, XLGenError
from .atomic import reason_of

__all__ = ["HTTP_ERRORS", "HUB_OPTIONS", "HubOptions", "download", "hub_options", "without_tokens"]

logger = logging.getLogger(__name__)


class HubOptions(TypedDict, total=False):
    """The options of `from_pretrained` that are about the Hub, as huggingface_hub takes them."""

    revision: str
    token: str | bool
    cache_dir: str | Path
    force_download: bool
    local_files_only: bool


HUB_OPTIONS = frozenset(HubOptions.__annotations__)  # their names

# The client raises the errors of its HTTP library for a connection that breaks; their base is a base of its own error,
# by whichever name that library is installed.
HTTP_ERRORS: tuple[type[Exception], ...] = tuple(
    base for base in HfHubHTTPError.__bases__ if issubclass(base, Exception) and base is not OSError
)
_CAUGHT: tuple[type[Exception], ...] = (*HTTP_ERRORS, OSError, ValueError, RuntimeError)
WAITS = (0.5, 2.0)  # seconds before a second and a third attempt
_COMMIT = re.compile(r"[0-9a-f]{40}")
_INTERNAL = 500
_TOO_MANY = 429

_Answer = TypeVar("_Answer")


def hub_options(options: Mapping[str, object]) -> HubOptions:
    """Those of the options of a `from_pretrained` call that are about the Hub.

    The Auto classes have asked the Hub for the commit already, and code of the repository may be of it. transformers
    before 5.24 names it in an option of its own, later ones in an attribute of `revision`.
    """
    found = {key: value for key, value in options.items() if key in HUB_OPTIONS and value is not None}
    commit = options.get("_commit_hash") or getattr(found.get("revision"), "resolved", None)
    if commit is not None:
        found["revision"] = commit
    return cast("HubOptions", found)


def download(repo_id: str, patterns: Iterable[str], options: HubOptions) -> Path:
    """Bring files of one commit of a repository here, or find them in the cache.

    Args:
        repo_id: the repository.
        patterns: of the files, as `fnmatch` takes them.
        options: see [`HubOptions`].

    Returns:
        A folder of the Hub's cache, whose name is the commit.

    Raises:
        HubError: if there is no such repository or revision, or the Hub cannot be reached and the files are not here.
    """
    if __package__ == "xlgen_hf.files":
        return _of_one_commit(repo_id, list(patterns), options)
    # A copy of the code comes from the repository itself: transformers has found that, and says what is wrong there.
    return Path(snapshot_download(repo_id, allow_patterns=list(patterns), **options))


def _of_one_commit(repo_id: str, wanted: list[str], options: HubOptions) -> Path:
    commit = _commit_of(repo_id, options)
    folder = _attempts(lambda: snapshot_download(repo_id, allow_patterns=wanted, **options), repo_id, options)
    if commit is not None and Path(folder).name != commit:
        # Either somebody pushed in between, or the Hub failed the second time and the client took an older copy.
        pinned: HubOptions = {**options, "revision": commit}
        folder = _attempts(lambda: snapshot_download(repo_id, allow_patterns=wanted, **pinned), repo_id, options)
    return Path(folder)


def _commit_of(repo_id: str, options: HubOptions) -> str | None:
    """The commit that a branch or tag is at; None where only the cache can tell."""
    revision = options.get("revision")
    if options.get("local_files_only") or constants.HF_HUB_OFFLINE or _COMMIT.fullmatch(str(revision)):
        return None
    api = HfApi(token=options.get("token"))
    try:
        return _attempts(lambda: api.model_info(repo_id, revision=revision).sha, repo_id, options)
    except HubError as err:
        if _is_refusal(err.__cause__):
            raise
        logger.warning("%s The copy in the cache is used, if there is one.", err)
        return None


def _attempts(ask: Callable[[], _Answer], repo_id: str, options: HubOptions) -> _Answer:
    for wait in (*WAITS, None):
        try:
            return ask()
        except XLGenError:
            raise
        except _CAUGHT as err:
            if wait is None or not _may_pass(err):
                raise _error(err, repo_id, options) from err
            logger.info("The Hub did not give %s (%s); trying again in %s s.", repo_id, type(err).__name__, wait)
            time.sleep(wait)
    raise AssertionError("the last attempt returns or raises")


def _chain(err: BaseException | None) -> Iterable[BaseException]:
    while err is not None:
        yield err
        err = err.__cause__ or err.__context__


def _status(err: BaseException | None) -> int | None:
    for one in _chain(err):
        status = getattr(getattr(one, "response", None), "status_code", None)
        if isinstance(status, int):
            return status
    return None


def _may_pass(err: Exception) -> bool:
    """Whether another attempt may succeed: the Hub is in trouble, or the connection broke."""
    chain = list(_chain(err))
    if any(isinstance(one, (OfflineModeIsEnabled, HFValidationError)) for one in chain):
        return False
    status = _status(err)
    if status is not None:
        return status >= _INTERNAL or status == _TOO_MANY
    cut = any(isinstance(one, HTTP_ERRORS) for one in chain)
    return cut or (isinstance(err, OSError) and "onsistency check failed" in str(err))


def _is_refusal(err: BaseException | None) -> bool:
    """Whether the Hub answered, and the answer was no."""
    status = _status(err)
    return isinstance(err, HFValidationError) or (status is not None and status < _INTERNAL and status != _TOO_MANY)


def _error(err: Exception, repo_id: str, options: HubOptions) -> HubError:
    token = options.get("token")
    near = _similar_folder(Path(repo_id))
    advice = "" if near is None else f" Did you mean the folder {near}?"
    if isinstance(err, HFValidationError):
        return HubError(
            f"There is no folder {repo_id!r}, and it cannot be an id on the Hub, which is `owner/name`.{advice}"
        )
    if isinstance(err, OSError) and err.errno is not None:
        answer = reason_of(err)
    else:
        answer = " ".join(str(err).split())[:500] or type(err).__name__
    hint = {
        401: " There is no such repository, or it is private: give the token of a user who may read it.",
        403: " The token's user may not read it.",
        404: " Check the id and the revision; a private repository looks like one that does not exist.",
    }.get(_status(err) or 0, "")
    if not hint and isinstance(err, LocalEntryNotFoundError):
        hint = " It is not in the cache either: load it once with a connection, or give a folder."
    message = f"{repo_id!r} is not a folder here and cannot be loaded from the Hub: {answer}{hint}{advice}"
    return HubError(without_tokens(message, token if isinstance(token, str) else None))


def _similar_folder(folder: Path) -> Path | None:
    """A folder with a name like that of one that is not there."""
    try:
        names = [path.name for path in folder.parent.iterdir() if path.is_dir()]
    except OSError:
        return None
    near = get_close_matches(folder.name, names, n=1, cutoff=0.8)
    return folder.parent / near[0] if near else None


def without_tokens(text: str, token: str | None) -> str:
    """A text with the given token, and that of the environment, replaced by `***`."""
    for secret in {token, get_token()} - {None, ""}:
        text = text.replace(str(secret), "***")
    return text
