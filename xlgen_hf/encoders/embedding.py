"""Document embeddings: an encoder's last hidden states, pooled, cached on disk in resumable shards."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypedDict

import numpy as np
import torch
from tqdm import tqdm
from transformers import AutoConfig, PreTrainedConfig, PreTrainedTokenizerBase

from ..configuration_xlgen import hidden_size
from ..errors import CheckpointError, ConfigurationError, DataError, ModelFolderError
from ..files.leftovers import ABOUT_EMBEDDINGS_FILE, EMBEDDINGS_PREFIX
from ..files.model_checks import check_loaded, try_tokenizer
from ..files.schema import Fields, integer, string
from ..files.tensor_schema import Tensors, tensor
from ..settings import BATCH_SIZE
from .causal import refuse_causal
from .checkpoints import checkpoint_errors, fetch_checkpoint
from .recipe import EmbeddingRecipe, Pooling, Side, read_recipe
from .token_vectors import TokenVectors

if TYPE_CHECKING:  # the classes of models take half of the time of a start, and an exported encoder needs none
    from transformers import PreTrainedModel

__all__ = [
    "SHARD_TEXTS",
    "Encoder",
    "embed_texts",
    "hash_of_weights",
    "load_encoder",
    "masked_mean",
    "pool",
    "recipe_of",
]

logger = logging.getLogger(__name__)

Encoder: TypeAlias = "str | tuple[PreTrainedModel, PreTrainedTokenizerBase]"
"""A checkpoint name, or a loaded model with its tokenizer."""

SHARD_TEXTS = 2048
"""Texts whose embeddings are written at once: about 10 s of MiniLM on one core."""

_CACHE_VERSION = 2


class _About(TypedDict):
    encoder: str
    texts: int


_ABOUT = Fields[_About]({"encoder": string(), "texts": integer(minimum=0)}, format_version=_CACHE_VERSION)
_SHARD = Tensors({"embeddings": tensor(np.float32, "N", "H")})
_TOKENIZE_AT_ONCE = 10_000
_INSTEAD_OF_CAUSAL = (
    "Use an encoder such as sentence-transformers/all-MiniLM-L6-v2, or a causal checkpoint that was trained for "
    "embeddings and says so in a 1_Pooling/config.json (lasttoken)."
)
# Families that number positions from after the padding id: that many rows of the position table are not positions.
_POSITIONS_AFTER_PADDING = {"camembert", "data2vec-text", "longformer", "mpnet", "roberta", "xlm-roberta"}


def load_encoder(name: str, recipe: EmbeddingRecipe | None = None) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load an encoder that can be trained and saved on its own, and its tokenizer.

    Args:
        name: a folder, a name that an installed package carries, or a Hub id; of a T5 the encoder alone is taken.
        recipe: how its embeddings are made; as the checkpoint says if None.

    Raises:
        CheckpointError: if it cannot be loaded, is a causal language model that nothing says to pool by the last
            token, or is a seq2seq model whose family has no model of the encoder alone.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_TEXT_ENCODING_MAPPING

    source = _EncoderSource.open(name, recipe)
    if source.config.is_encoder_decoder and type(source.config) not in MODEL_FOR_TEXT_ENCODING_MAPPING:
        raise CheckpointError(
            f"{name!r} is a seq2seq model of type {source.config.model_type!r}, whose encoder cannot be saved on its "
            "own. Give an encoder checkpoint, such as sentence-transformers/all-MiniLM-L6-v2, or a T5."
        )
    return source.load().eval(), source.tokenizer


def recipe_of(encoder: Encoder, query_prompt: str | None = None, passage_prompt: str | None = None) -> EmbeddingRecipe:
    """How an encoder's embeddings are made: as its checkpoint says, else the mean of all tokens without prompts.

    Args:
        encoder: a checkpoint name, or a loaded model, of which nothing more is known.
        query_prompt, passage_prompt: prompts instead of the checkpoint's own; those if None.

    Raises:
        CheckpointError: if there is no such checkpoint, or its embeddings need steps that this library does not know.
    """
    own = read_recipe(fetch_checkpoint(encoder)) if isinstance(encoder, str) else None
    return (own or EmbeddingRecipe()).with_prompts(query_prompt, passage_prompt)


def embed_texts(
    texts: Sequence[str],
    encoder: Encoder,
    *,
    recipe: EmbeddingRecipe | None = None,
    side: Side = "passage",
    max_length: int = 256,
    batch_size: int = BATCH_SIZE,
    normalize: bool = True,
    cache_dir: str | Path | None = None,
    device: str | torch.device | None = None,
    progress: bool = True,
    token_vectors: TokenVectors | None = None,
    reported: set[int] | None = None,
) -> np.ndarray:
    """Embed texts by an encoder's last hidden states over each text's own tokens, pooled as its checkpoint says.

    Args:
        texts: `N` texts. One without any token (possible only where the tokenizer adds no special tokens) gets a row
            of zeros, and a warning.
        encoder: any encoder checkpoint, or any seq2seq checkpoint, of which just the encoder is used: a folder, a name
            that an installed package carries, a Hub id; or a loaded model with its tokenizer.
        recipe: how embeddings are made; see [`recipe_of`] if None.
        side: whose prompt is put before the texts: that of queries, or that of passages.
        max_length: tokens of a text that are read, prompt and special tokens included; capped by what the model can
            take. Texts that lose tokens are counted in the log.
        batch_size: texts that are encoded at once; texts of like length go together.
        normalize: scale each row to length 1.
        cache_dir: keep embeddings in a folder below, named by a hash of the token ids and the weights. They are
            written as they come, so that an interrupted run continues where it stopped.
        device: where to compute; by default the device of a loaded model, else a GPU where there is one. A loaded
            model is moved there.
        progress: show a progress bar on stderr where that is a terminal.
        token_vectors: is filled with the hidden states of the tokens that are computed, none out of the cache.
        reported: lengths at which cut texts were counted in the log before; they are not counted again. Texts that are
            embedded batch by batch share one, which is filled.

    Returns:
        Embeddings in the order of `texts`, `(N, H)`, float32.

    Raises:
        CheckpointError: if the encoder cannot be loaded or computes values that are not finite.
        ConfigurationError: if `max_length` or `batch_size` leave nothing to compute, or there is no such device.
        DataError: if a text is not a string, or not valid Unicode.
    """
    _check_arguments(texts, max_length, batch_size)
    source = _EncoderSource.open(encoder, recipe)
    prompt = source.recipe.prompt(side)
    tokens = _tokenize([prompt + text for text in texts] if prompt else texts, source, max_length, reported)
    if token_vectors is not None:
        token_vectors.locate(texts, source.tokenizer, prompt, tokens.lengths)
    run = _Run(source, tokens, batch_size, device, _cache_folder(cache_dir, source, tokens), progress, token_vectors)
    embeddings = run.embeddings()
    if normalize:
        length = np.linalg.norm(embeddings, axis=1, keepdims=True)
        embeddings /= np.where(length > 0, length, 1)
    return embeddings


def pool(hidden: torch.Tensor, mask: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    """One vector for each text out of its hidden states.

    Args:
        hidden: `(B, S, H)`, padded on the right.
        mask: 1 where a token of the text is, else 0, `(B, S)`.
        pooling: see [`EmbeddingRecipe`].

    Returns:
        `(B, H)`, of the type of `hidden`.
    """
    if pooling == "mean":
        return masked_mean(hidden, mask)
    if pooling == "max":
        return hidden.masked_fill(mask[:, :, None] == 0, -torch.inf).amax(1)
    if pooling == "cls":
        return hidden[:, 0]
    return hidden[torch.arange(len(hidden), device=hidden.device), mask.sum(1) - 1]


def masked_mean(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean of hidden states over the positions that a mask keeps.

    Args:
        hidden: `(B, S, H)`.
        mask: 1 where a position counts, else 0, `(B, S)`.

    Returns:
        `(B, H)`, of the type of `hidden`; zeros for a row without any position.
    """
    weight = mask.to(hidden.dtype)[:, :, None]
    return (hidden * weight).sum(1) / weight.sum(1).clamp(min=1)


def _check_arguments(texts: Sequence[str], max_length: int, batch_size: int) -> None:
    if isinstance(texts, str):
        raise DataError(f"One string is given where a list of texts is expected: {texts[:60]!r}. Write [text].")
    for row, text in enumerate(texts, 1):
        if not isinstance(text, str):
            raise DataError(f"The text is {type(text).__name__} {str(text)[:60]!r}; a string is expected.", row=row)
        try:
            text.encode()
        except UnicodeEncodeError as err:
            message = f"The text {text[:60]!r} is not valid Unicode: half of a surrogate pair."
            raise DataError(message, row=row) from err
    if batch_size < 1:
        raise ConfigurationError(f"batch_size={batch_size}; at least 1 is needed.")
    if max_length < 1:
        raise ConfigurationError(f"max_length={max_length}; at least 1 is needed.")


# ---------------------------------------------------------------------------------------------------- encoder


@dataclass
class _EncoderSource:
    """An encoder that is loaded only once it has something to compute, and what its cache is recognized by."""

    name: str
    config: PreTrainedConfig
    tokenizer: PreTrainedTokenizerBase
    recipe: EmbeddingRecipe
    path: str = ""
    model: PreTrainedModel | None = None

    @classmethod
    def open(cls, encoder: Encoder, recipe: EmbeddingRecipe | None = None) -> _EncoderSource:
        if not isinstance(encoder, str):
            model, tokenizer = encoder
            return cls(type(model).__name__, model.config, tokenizer, recipe or EmbeddingRecipe(), model=model)
        path = fetch_checkpoint(encoder)
        recipe = recipe_of(path) if recipe is None else recipe
        with checkpoint_errors(encoder):
            config = AutoConfig.from_pretrained(path, trust_remote_code=False)
            tokenizer = try_tokenizer(Path(path))
        if not config.is_encoder_decoder and recipe.pooling != "last":
            refuse_causal(encoder, config, _INSTEAD_OF_CAUSAL)
        return cls(encoder, config, tokenizer, recipe, path=path)

    def max_positions(self) -> int:
        """Count the tokens that the model can take."""
        limit = min(self.tokenizer.model_max_length, getattr(self.config, "max_position_embeddings", None) or 2**31)
        if self.config.model_type in _POSITIONS_AFTER_PADDING:
            limit = min(limit, self.config.max_position_embeddings - self.config.pad_token_id - 1)
        return limit

    def identity(self) -> str:
        """Tell these weights from others: by a loaded model's values, a folder's files, a Hub id's commit."""
        if self.model is not None:
            return hash_of_weights(_encoder_of(self.model))
        folder = Path(self.path)
        if folder.parent.name == "snapshots":  # the Hub's cache, which names the folder after the commit
            return f"{self.name}@{folder.name}"
        files = sorted(p for p in folder.iterdir() if p.suffix in {".safetensors", ".bin"} or p.name == "config.json")
        return "|".join(f"{p.name}:{p.stat().st_size}:{p.stat().st_mtime_ns}" for p in files)

    def load(self) -> PreTrainedModel:
        """Load the encoder alone, with weights in float32; one that came loaded stays as it is."""
        if self.model is not None:
            return _encoder_of(self.model)
        from transformers import AutoModel, AutoModelForSeq2SeqLM, AutoModelForTextEncoding
        from transformers.models.auto.modeling_auto import MODEL_FOR_TEXT_ENCODING_MAPPING

        options: dict[str, object] = {"dtype": torch.float32, "trust_remote_code": False, "use_safetensors": True}
        kind = AutoModelForSeq2SeqLM if self.config.is_encoder_decoder else AutoModel
        if type(self.config) in MODEL_FOR_TEXT_ENCODING_MAPPING:  # T5 and its kin: the decoder is not even read
            kind = AutoModelForTextEncoding
        with checkpoint_errors(self.name):
            model, info = kind.from_pretrained(self.path, output_loading_info=True, **options)
            check_loaded(Path(self.path), model, info, but_for="pooler")  # what a pooler gives is not used
        return model.get_encoder() if kind is AutoModelForSeq2SeqLM else model


def _encoder_of(model: PreTrainedModel) -> PreTrainedModel:
    return model.get_encoder() if model.config.is_encoder_decoder else model


def hash_of_weights(model: PreTrainedModel) -> str:
    """A digest of names, types and values of a model's weights; equal for equal weights, wherever they are."""
    digest = hashlib.blake2b()
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name}:{value.dtype}:{tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


@contextmanager
def _evaluating(model: PreTrainedModel) -> Iterator[None]:
    """Switch dropout off for a while, where it is on: to say so to every part takes longer than to embed a text."""
    trained = [part for part in model.modules() if part.training]
    for part in trained:
        part.training = False
    try:
        with torch.inference_mode():
            yield
    finally:
        for part in trained:
            part.training = True


# ---------------------------------------------------------------------------------------------------- tokens


@dataclass
class _Tokens:
    """Token ids of `N` texts, one after the other: text i has `ids[starts[i]:starts[i + 1]]`."""

    ids: np.ndarray
    starts: np.ndarray

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.starts)

    def padded(self, rows: np.ndarray, pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Give the token ids and the attention mask of some texts, both `(B, S)`."""
        lengths = self.lengths[rows]
        mask = np.arange(lengths.max())[None, :] < lengths[:, None]
        ids = np.full(mask.shape, pad_id, dtype=np.int64)
        ids[mask] = np.concatenate([self.ids[self.starts[row] : self.starts[row + 1]] for row in rows])
        return torch.from_numpy(ids), torch.from_numpy(mask.astype(np.int64))


def _tokenize(
    texts: Sequence[str], source: _EncoderSource, max_length: int, reported: set[int] | None = None
) -> _Tokens:
    tokenizer = source.tokenizer
    limit = min(max_length, source.max_positions())
    special = tokenizer.num_special_tokens_to_add()
    if limit <= special:
        raise ConfigurationError(
            f"max_length={max_length} leaves no room for text: {source.name} takes {source.max_positions()} tokens, "
            f"{special} of them special."
        )
    parts: list[np.ndarray] = []
    lengths: list[int] = []
    truncated = 0
    for start in range(0, len(texts), _TOKENIZE_AT_ONCE):
        chunk = list(texts[start : start + _TOKENIZE_AT_ONCE])
        ids = tokenizer(chunk, truncation=False, padding=False, verbose=False)["input_ids"]
        for row in (row for row, one in enumerate(ids) if len(one) > limit):
            ids[row] = tokenizer(chunk[row], truncation=True, max_length=limit)["input_ids"]
            truncated += 1
        lengths += map(len, ids)
        parts.append(np.fromiter((token for one in ids for token in one), dtype=np.int32))
    if truncated and limit not in (reported or ()):
        logger.warning("%d of %d texts are longer than %d tokens and were cut there.", truncated, len(texts), limit)
        if reported is not None:
            reported.add(limit)
    flat = np.concatenate(parts) if parts else np.empty(0, dtype=np.int32)
    return _Tokens(flat, np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64))


# ---------------------------------------------------------------------------------------------------- computing


def _cache_folder(cache_dir: str | Path | None, source: _EncoderSource, tokens: _Tokens) -> Path | None:
    """Name the folder of this job's shards after token ids (so tokenizer and `max_length` too) and weights."""
    if cache_dir is None:
        return None
    pooling = "" if source.recipe.pooling == "mean" else f":{source.recipe.pooling}"
    digest = hashlib.blake2b(f"{_CACHE_VERSION}:{SHARD_TEXTS}:{source.identity()}{pooling}".encode(), digest_size=16)
    digest.update(tokens.ids.data)
    digest.update(tokens.starts.data)
    folder = Path(cache_dir).expanduser() / f"{EMBEDDINGS_PREFIX}{digest.hexdigest()}"
    if not (folder / ABOUT_EMBEDDINGS_FILE).is_file():
        _ABOUT.write(folder / ABOUT_EMBEDDINGS_FILE, {"encoder": source.name, "texts": len(tokens)})
    return folder


@dataclass
class _Run:
    """One call's work, shard by shard in the order of text length."""

    source: _EncoderSource
    tokens: _Tokens
    batch_size: int
    device: str | torch.device | None
    folder: Path | None
    progress: bool
    token_vectors: TokenVectors | None = None

    def embeddings(self) -> np.ndarray:
        """Compute the missing shards, and put all rows into the order of the texts: `(N, H)`, float32."""
        width = self._width()
        found = np.zeros((len(self.tokens), width), dtype=np.float32)
        order = np.argsort(-self.tokens.lengths, kind="stable")  # longest first: what needs most memory fails at once
        order = order[self.tokens.lengths[order] > 0]
        if len(order) < len(found):
            logger.warning("%d texts have no tokens; their embeddings are zero.", len(found) - len(order))
        shards = [order[start : start + SHARD_TEXTS] for start in range(0, len(order), SHARD_TEXTS)]
        missing = []
        for number, rows in enumerate(shards):
            cached = self._read(number, (len(rows), width))
            if cached is None:
                missing.append(number)
            else:
                found[rows] = cached
        if missing:
            self._compute(shards, missing, found)
        return found

    def _width(self) -> int:
        """Find `H`, the size of the encoder's hidden states."""
        try:
            return hidden_size(self.source.config)
        except ConfigurationError as err:
            raise CheckpointError(f"{self.source.name}: {err}") from err

    def _path(self, number: int) -> Path | None:
        return None if self.folder is None else self.folder / f"shard-{number:05d}.safetensors"

    def _read(self, number: int, shape: tuple[int, int]) -> np.ndarray | None:
        """Read a finished shard `(rows, H)`; None where it has to be computed."""
        path = self._path(number)
        if path is None or not path.is_file():
            return None
        try:
            arrays, _ = _SHARD.read(path, dict(zip("NH", shape, strict=True)))
        except ModelFolderError as err:
            logger.warning("A part of the embedding cache is computed again: %s", err)
            return None
        return arrays["embeddings"]

    def _compute(self, shards: list[np.ndarray], missing: list[int], found: np.ndarray) -> None:
        """Fill `found` with the missing shards, and write them to the cache."""
        model = self.source.load()
        _move(model, self.device or (model.device if self.source.model is not None else _best_device()))
        total = sum(len(shards[number]) for number in missing)
        with (
            _evaluating(model),
            tqdm(total=total, unit="text", desc="Embedding", disable=None if self.progress else True) as bar,
        ):
            for number in missing:
                rows = shards[number]
                for start in range(0, len(rows), self.batch_size):
                    batch = rows[start : start + self.batch_size]
                    found[batch] = self._encode(model, batch)
                    bar.update(len(batch))
                if not np.isfinite(found[rows]).all():
                    raise CheckpointError(f"{self.source.name} computes NaN or infinity. Load it in float32.")
                self._write(number, found[rows])

    def _encode(self, model: PreTrainedModel, rows: np.ndarray) -> np.ndarray:
        pad_id = self.source.tokenizer.pad_token_id or 0  # without one any id will do: the mask hides it
        ids, mask = (value.to(model.device) for value in self.tokens.padded(rows, pad_id))
        hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state.float()  # (B, S, H)
        if self.token_vectors is not None:
            self.token_vectors.add(rows, hidden)
        return pool(hidden, mask, self.source.recipe.pooling).cpu().numpy()

    def _write(self, number: int, values: np.ndarray) -> None:
        path = self._path(number)
        if path is not None:
            _SHARD.write(path, {"embeddings": values})


def _move(model: torch.nn.Module, device: str | torch.device) -> None:
    try:
        wanted = torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as err:  # no such device, or a torch that was built without it
        raise ConfigurationError(f"device={str(device)!r} cannot be used: {str(err).splitlines()[0]}") from err
    if any(one.device != wanted for one in model.parameters()):
        model.to(device)


def _best_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
