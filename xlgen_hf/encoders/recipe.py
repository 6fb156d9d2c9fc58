"""How a checkpoint's embeddings are made: pooling and prompts, as sentence-transformers notes them in its files."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from ..errors import CheckpointError, ConfigurationError
from ..files.schema import read_object
from ..files.serialization import read_json

__all__ = ["RECIPE_FILES", "EmbeddingRecipe", "Pooling", "Side", "read_recipe"]

Pooling = Literal["mean", "cls", "last", "max"]
Side = Literal["query", "passage"]

_MODULES_FILE = "modules.json"
_POOLING_FOLDER = "1_Pooling"
_PROMPTS_FILE = "config_sentence_transformers.json"
RECIPE_FILES = (_MODULES_FILE, f"{_POOLING_FOLDER}/config.json", _PROMPTS_FILE)
"""Files of a checkpoint that say how its embeddings are made."""

_POOLINGS: dict[str, Pooling] = {
    "mean": "mean", "cls": "cls", "lasttoken": "last", "max": "max",
    "pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls", "pooling_mode_lasttoken": "last",
    "pooling_mode_max_tokens": "max",
}  # fmt: skip
_HARMLESS = {"Transformer", "Pooling", "Normalize", "Dropout"}
_PASSAGES = ("document", "passage", "corpus")  # names under which the prompt of what is searched is noted
_LONGEST_PROMPT = 2000


@dataclass(frozen=True)
class EmbeddingRecipe:
    """How texts become embeddings.

    Attributes:
        pooling: what of the last hidden states is taken: the mean over a text's tokens, those of its first (`cls`) or
            last token, or the largest value of each dimension.
        query_prompt: put before texts that are searched for, which are those to predict labels for.
        passage_prompt: put before what is searched: training texts, and label names.
    """

    pooling: Pooling = "mean"
    query_prompt: str = ""
    passage_prompt: str = ""

    def __post_init__(self) -> None:
        """Check the values."""
        if self.pooling not in get_args(Pooling):
            raise ConfigurationError(f"pooling={self.pooling!r}; choose one of {', '.join(get_args(Pooling))}.")
        for name in ("query_prompt", "passage_prompt"):
            value = getattr(self, name)
            if not isinstance(value, str) or len(value) > _LONGEST_PROMPT:
                raise ConfigurationError(
                    f"{name}={str(value)[:60]!r}; it must be a text of at most {_LONGEST_PROMPT} characters."
                )

    @property
    def is_symmetric(self) -> bool:
        """Whether a text has one embedding, on whichever side it stands."""
        return self.query_prompt == self.passage_prompt

    def prompt(self, side: Side) -> str:
        """The prompt of a side."""
        return self.query_prompt if side == "query" else self.passage_prompt

    def with_prompts(self, query_prompt: str | None, passage_prompt: str | None) -> EmbeddingRecipe:
        """The same with other prompts, as far as they are given."""
        query = self.query_prompt if query_prompt is None else query_prompt
        passage = self.passage_prompt if passage_prompt is None else passage_prompt
        return replace(self, query_prompt=query, passage_prompt=passage)


def read_recipe(folder: str | Path) -> EmbeddingRecipe | None:
    """Read how a checkpoint's embeddings are made.

    Lengths are not part of it: XLGen compares embeddings by their cosine, whether a checkpoint scales them or not.

    Args:
        folder: the checkpoint's folder.

    Returns:
        The recipe; None where the checkpoint has no `modules.json`.

    Raises:
        CheckpointError: if a step is needed that this library does not know.
        ModelFolderError: if a file is damaged.
    """
    folder = Path(folder)
    if not (folder / _MODULES_FILE).is_file():
        return None
    content = read_json(folder / _MODULES_FILE)
    listed = content if isinstance(content, list) else [None]
    modules = [module for module in listed if isinstance(module, dict)]
    if len(modules) < len(listed):
        raise CheckpointError(f"{folder / _MODULES_FILE} must be a list of modules.")
    for module in modules:
        kind, path = str(module.get("type")).rpartition(".")[2], str(module.get("path", ""))
        is_known = kind in _HARMLESS and path == {"Transformer": "", "Pooling": _POOLING_FOLDER}.get(kind, path)
        if not is_known:
            raise CheckpointError(
                f"The embeddings of {str(folder)!r} need its module {path or kind!r} of type {kind!r}, which XLGen "
                "does not have. Choose an encoder with a Transformer, a Pooling and no layers of its own after it, "
                "such as sentence-transformers/all-MiniLM-L6-v2 or intfloat/multilingual-e5-small."
            )
    pooling, prompts = _read_pooling(folder), _read_prompts(folder)
    if any(prompts) and not pooling.get("include_prompt", True):
        raise CheckpointError(
            f"The embeddings of {str(folder)!r} leave the tokens of their prompt out, which XLGen does not do. Choose "
            "another encoder."
        )
    try:
        return EmbeddingRecipe(_pooling_of(pooling, folder), *prompts)
    except ConfigurationError as err:
        raise CheckpointError(f"{folder / _PROMPTS_FILE}: {err}") from err


def _read_pooling(folder: Path) -> dict[str, Any]:
    path = folder / _POOLING_FOLDER / "config.json"
    return read_object(path) if path.is_file() else {}


def _pooling_of(content: dict[str, Any], folder: Path) -> Pooling:
    """The pooling of a `1_Pooling/config.json` of any version."""
    modes = content.get("pooling_mode") or [
        name for name, on in content.items() if name.startswith("pooling_mode_") and on
    ]
    given = [str(mode) for mode in modes] if isinstance(modes, list) else [str(modes)]
    known = [_POOLINGS[mode] for mode in given or ["mean"] if mode in _POOLINGS]
    if len(given) > 1 or not known:
        raise CheckpointError(
            f"The embeddings of {str(folder)!r} are pooled by {', '.join(given)}; XLGen has one of "
            f"{', '.join(get_args(Pooling))}. Choose another encoder."
        )
    return known[0]


def _read_prompts(folder: Path) -> tuple[str, str]:
    """The prompts of queries and passages; the default one where a side has none."""
    path = folder / _PROMPTS_FILE
    content = read_object(path) if path.is_file() else {}
    prompts = content.get("prompts")
    prompts = prompts if isinstance(prompts, dict) else {}
    default = prompts.get(str(content.get("default_prompt_name")), "")
    query, passage = (
        next((prompts[name] for name in names if prompts.get(name) is not None), default)
        for names in (("query",), _PASSAGES)
    )
    if not isinstance(query, str) or not isinstance(passage, str):
        raise CheckpointError(f"{path}: the prompts of queries and passages must be texts.")
    return query, passage
