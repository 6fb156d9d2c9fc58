"""A checkpoint without the tokens that its texts do not need.

Most weights of a multilingual encoder are rows of its table of embeddings (96 of 118 million in multilingual
E5-small), and texts of one or two languages use a fraction of them. Kept are special and added tokens, those that the
given texts are cut into, and single characters or bytes, of which every other text can be made. The given texts are
cut into the same tokens as before: a token that goes was part of no result, so leaving it out changes no choice of the
longest match (WordPiece), the best path (Unigram) or the next merge (BPE).
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForTextEncoding,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from ..errors import CheckpointError, ConfigurationError
from ..files.atomic import follow_umask, save_errors, unfinished_folder
from ..files.leftovers import ABOUT_TRIMMED_FILE, TRIMMED_PREFIX
from ..files.serialization import JSON, read_json, write_json
from ..files.tokenizer_checks import try_tokenizer
from .causal import is_causal
from .checkpoints import checkpoint_errors, fetch_checkpoint
from .recipe import RECIPE_FILES, read_recipe

__all__ = ["trim_checkpoint"]

logger = logging.getLogger(__name__)

_TOKENIZER_FILE = "tokenizer.json"
_TOKENIZER_CONFIG_FILE = "tokenizer_config.json"
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_TOKENIZE_AT_ONCE = 10_000
_COMPARED_TEXTS = 2_000

_Layout = dict[str, JSON]


def trim_checkpoint(name: str, texts: Iterable[str], cache_dir: str | Path) -> str:
    """Write a checkpoint without the tokens that texts do not need; one that was written before is taken.

    Args:
        name: a folder, a name that an installed package carries, or a Hub id.
        texts: those whose tokens are kept: training texts, label names, prompts (the checkpoint's own are kept).
        cache_dir: where the smaller checkpoint is written.

    Returns:
        Its folder.

    Raises:
        CheckpointError: if the checkpoint cannot be loaded.
        ConfigurationError: if its tokenizer, or its model, is of a kind whose vocabulary cannot be trimmed.
    """
    path = Path(fetch_checkpoint(name))
    recipe = read_recipe(path)
    texts = [*texts, *(() if recipe is None else (recipe.query_prompt, recipe.passage_prompt))]
    with checkpoint_errors(name):
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
        tokenizer = try_tokenizer(path)
    if getattr(config, "sub_configs", None):
        raise _impossible(
            name, f"its config has parts ({', '.join(config.sub_configs)}), with vocabularies of their own"
        )
    layout = _layout_of(name, tokenizer)
    tokens = _tokens_of(layout)
    kept = _closed(layout, tokens, _used(tokenizer, texts) | _always_kept(layout, tokens, config))
    folder = Path(cache_dir) / f"{TRIMMED_PREFIX}{_digest(path, kept)}"
    if not folder.is_dir():
        with save_errors(folder), unfinished_folder(folder.parent) as aside:
            place = aside / folder.name
            _write_tokenizer(name, place, tokenizer, _renumbered(layout, kept), kept, texts[:_COMPARED_TEXTS])
            _write_model(name, path, place, config, kept)
            for file in (file for file in RECIPE_FILES if (path / file).is_file()):
                (place / file).parent.mkdir(exist_ok=True)
                shutil.copyfile(path / file, place / file)
            write_json(place / ABOUT_TRIMMED_FILE, {"checkpoint": name, "tokens": len(kept)})
            follow_umask(place)
            os.replace(place, folder)
    logger.info("Vocabulary of %s trimmed: %d of %d tokens are kept.", name, len(kept), len(tokens))
    return str(folder)


def _impossible(name: str, reason: str) -> ConfigurationError:
    return ConfigurationError(f"The vocabulary of {name!r} cannot be trimmed: {reason}. Leave --trim-vocabulary out.")


def _digest(path: Path, kept: list[int]) -> str:
    """Tell a trimmed checkpoint from others by the files that it was made of, and its tokens."""
    files = sorted(one for one in path.iterdir() if one.suffix in {".safetensors", ".json"})
    about = "|".join(f"{one.name}:{one.stat().st_size}:{one.stat().st_mtime_ns}" for one in files)
    return hashlib.blake2b(about.encode() + np.asarray(kept, dtype=np.int64).tobytes(), digest_size=16).hexdigest()


# ------------------------------------------------------------------------------------------------ tokens


def _layout_of(name: str, tokenizer: PreTrainedTokenizerBase) -> _Layout:
    """What a fast tokenizer's `tokenizer.json` holds."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise _impossible(name, f"its tokenizer, a {type(tokenizer).__name__}, has no {_TOKENIZER_FILE}")
    layout: _Layout = json.loads(backend.to_str())
    kind = _model_of(layout).get("type")
    if kind not in ("Unigram", "WordPiece", "BPE"):
        raise _impossible(name, f"its tokenizer is a {kind}, and neither Unigram nor WordPiece nor BPE")
    return layout


def _model_of(layout: _Layout) -> _Layout:
    model = layout["model"]
    assert isinstance(model, dict)
    return model


def _added(layout: _Layout) -> Iterator[_Layout]:
    added = layout["added_tokens"]
    assert isinstance(added, list)
    for token in added:
        assert isinstance(token, dict)
        yield token


def _tokens_of(layout: _Layout) -> dict[int, str]:
    """Id -> token, added ones included, in the order of the ids."""
    vocabulary = _model_of(layout)["vocab"]
    if isinstance(vocabulary, list):  # Unigram's pairs of token and score
        tokens = {number: str(pair[0]) for number, pair in enumerate(vocabulary) if isinstance(pair, list)}
    else:
        assert isinstance(vocabulary, dict)
        tokens = {number: token for token, number in vocabulary.items() if isinstance(number, int)}
    tokens |= {number: str(token["content"]) for token in _added(layout) if isinstance(number := token["id"], int)}
    return dict(sorted(tokens.items()))


def _used(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str]) -> set[int]:
    used: set[int] = set()
    texts = iter(texts)
    while chunk := list(islice(texts, _TOKENIZE_AT_ONCE)):
        for ids in tokenizer(chunk, truncation=False, padding=False, verbose=False)["input_ids"]:
            used.update(ids)
    return used


def _always_kept(layout: _Layout, tokens: Mapping[int, str], config: PreTrainedConfig) -> set[int]:
    """Special and added tokens, those that the config names, and the characters or bytes that all texts consist of."""
    model = _model_of(layout)
    kept = {number for token in _added(layout) if isinstance(number := token["id"], int)}
    kept.update(number for _, ids in _token_settings(config) for number in ids if number in tokens)
    if isinstance(unknown := model.get("unk_id"), int):
        kept.add(unknown)
    start, end = model.get("continuing_subword_prefix") or "", model.get("end_of_word_suffix") or ""
    for number, token in tokens.items():
        bare = token.removeprefix(str(start)).removesuffix(str(end)).strip("▁")
        if len(bare) <= 1 or _BYTE.fullmatch(token) or token == model.get("unk_token"):
            kept.add(number)
    return kept


def _closed(layout: _Layout, tokens: Mapping[int, str], kept: set[int]) -> list[int]:
    """Sorted ids of the tokens that are kept, with those that the merges to them go through."""
    ids = {token: number for number, token in tokens.items()}
    below: dict[str, list[tuple[str, str]]] = {}
    for left, right in _merges(layout):
        below.setdefault(left + right, []).append((left, right))
    waiting = list(kept)
    while waiting:
        for part in (part for pair in below.get(tokens[waiting.pop()], ()) for part in pair):
            if ids[part] not in kept:
                kept.add(ids[part])
                waiting.append(ids[part])
    return sorted(kept)


def _merges(layout: _Layout) -> list[tuple[str, str]]:
    merges = _model_of(layout).get("merges") or []
    assert isinstance(merges, list)
    pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in merges)
    return [(str(pair[0]), str(pair[1])) for pair in pairs if isinstance(pair, list)]


def _renumbered(layout: _Layout, kept: Sequence[int]) -> _Layout:
    """A tokenizer with the kept tokens alone, numbered from 0 in their order."""
    new = {old: number for number, old in enumerate(kept)}
    model = dict(_model_of(layout))
    vocabulary = model["vocab"]
    if isinstance(vocabulary, list):
        model["vocab"] = [pair for number, pair in enumerate(vocabulary) if number in new]
        if isinstance(unknown := model.get("unk_id"), int):
            model["unk_id"] = new[unknown]
    else:
        assert isinstance(vocabulary, dict)
        found = {token: number for token, number in vocabulary.items() if isinstance(number, int) and number in new}
        model["vocab"] = {token: new[number] for token, number in found.items()}
        if "merges" in model:
            model["merges"] = [
                [left, right] for left, right in _merges(layout) if {left, right, left + right} <= set(found)
            ]
    added = [{**token, "id": new[number]} for token in _added(layout) if isinstance(number := token["id"], int)]
    post_processor = _with_new_ids(layout.get("post_processor"), new)
    changed: _Layout = {"model": model, "added_tokens": list(added), "post_processor": post_processor}
    return {**layout, **changed, "padding": None, "truncation": None}


def _with_new_ids(node: JSON, new: Mapping[int, int]) -> JSON:
    """A post-processor with new numbers: `"ids": [2]` of a template, or `"sep": ["</s>", 2]`."""
    if isinstance(node, list):
        if len(node) == 2 and isinstance(node[0], str) and isinstance(node[1], int):
            return [node[0], new[node[1]]]
        return [_with_new_ids(one, new) for one in node]
    if isinstance(node, dict):
        ids = node.get("ids")
        kept = {key: _with_new_ids(value, new) for key, value in node.items()}
        if isinstance(ids, list):
            kept["ids"] = [new[number] for number in ids if isinstance(number, int)]
        return kept
    return node


# ------------------------------------------------------------------------------------------------ files


def _write_tokenizer(
    name: str,
    place: Path,
    tokenizer: PreTrainedTokenizerBase,
    layout: _Layout,
    kept: Sequence[int],
    texts: Sequence[str],
) -> None:
    """Write a tokenizer of another vocabulary, and check that texts are still cut into the same tokens."""
    tokenizer.save_pretrained(place)
    for other in {*tokenizer.vocab_files_names.values(), "added_tokens.json"} - {_TOKENIZER_FILE}:
        (place / other).unlink(missing_ok=True)
    (place / _TOKENIZER_FILE).write_text(json.dumps(layout, ensure_ascii=False), encoding="utf-8")
    settings = read_json(place / _TOKENIZER_CONFIG_FILE)
    assert isinstance(settings, dict)
    decoder = settings.get("added_tokens_decoder")
    if isinstance(decoder, dict):
        new = {str(old): str(number) for number, old in enumerate(kept)}
        settings["added_tokens_decoder"] = {new[old]: token for old, token in decoder.items()}
        write_json(place / _TOKENIZER_CONFIG_FILE, settings)
    smaller = try_tokenizer(place)
    before, after = (tokens_of(texts) for tokens_of in (_cutter(tokenizer), _cutter(smaller)))
    if before != after:
        text = next(text for text, old, new_one in zip(texts, before, after, strict=True) if old != new_one)
        raise _impossible(name, f"its tokenizer cuts texts otherwise once it is smaller, such as {text[:60]!r}")


def _cutter(tokenizer: PreTrainedTokenizerBase) -> Callable[[Sequence[str]], list[list[str]]]:
    def cut(texts: Sequence[str]) -> list[list[str]]:
        ids = tokenizer(list(texts), truncation=False, padding=False, verbose=False)["input_ids"] if texts else []
        return [tokenizer.convert_ids_to_tokens(one) for one in ids]

    return cut


def _write_model(name: str, path: Path, place: Path, config: PreTrainedConfig, kept: Sequence[int]) -> None:
    """Write the model with the rows of the kept tokens alone."""
    with checkpoint_errors(name):
        model = _load(path, config)
    size = _num_embeddings(name, model)
    if kept[-1] >= size:
        raise CheckpointError(f"{name!r} has embeddings of {size} tokens, and its tokenizer has token {kept[-1]}.")
    _keep_rows(model, torch.as_tensor(kept))
    left = next((key for key, value in model.state_dict().items() if size in value.shape), None)
    if left is not None and len(kept) != size:
        raise _impossible(name, f"its weights {left} are of the whole vocabulary")
    _renumber_settings(model, kept)
    model.save_pretrained(place)


def _load(path: Path, config: PreTrainedConfig) -> PreTrainedModel:
    kind = AutoModel
    if any(architecture.endswith("EncoderModel") for architecture in config.architectures or ()):
        kind = AutoModelForTextEncoding
    elif config.is_encoder_decoder:
        kind = AutoModelForSeq2SeqLM
    elif is_causal(config):
        kind = AutoModelForCausalLM
    model: PreTrainedModel = kind.from_pretrained(path, dtype="auto", trust_remote_code=False, use_safetensors=True)
    return model


def _num_embeddings(name: str, model: PreTrainedModel) -> int:
    try:
        size: int = model.get_input_embeddings().num_embeddings
    except (NotImplementedError, AttributeError):
        raise _impossible(name, f"a {type(model).__name__} has no table of token embeddings") from None
    if getattr(model.config, "decoder_vocab_size", None) not in (None, size):
        raise _impossible(name, "texts and targets have separate vocabularies")
    return size


def _renumber_settings(model: PreTrainedModel, kept: Sequence[int]) -> None:
    """Put the new numbers of tokens into the settings of model and generation."""
    new = {old: number for number, old in enumerate(kept)}
    generation = model.generation_config if model.can_generate() else None
    for settings in (one for one in (model.config, generation) if one is not None):
        for key, ids in _token_settings(settings):
            mapped = [new[number] for number in ids if number in new]
            if mapped:
                setattr(settings, key, mapped if isinstance(getattr(settings, key), list) else mapped[0])
    if hasattr(model.config, "decoder_vocab_size"):
        model.config.decoder_vocab_size = len(kept)


def _keep_rows(model: PreTrainedModel, rows: torch.Tensor) -> None:
    """Keep rows of a model's tables of tokens, in their order."""
    output = model.get_output_embeddings()
    is_tied = output is None or output.weight is model.get_input_embeddings().weight
    inputs = model.get_input_embeddings().weight.detach()[rows].clone()
    outputs = None if is_tied else output.weight.detach()[rows].clone()
    biases = None if output is None or getattr(output, "bias", None) is None else output.bias.detach()[rows].clone()
    final = getattr(model, "final_logits_bias", None)  # BART's
    model.resize_token_embeddings(len(rows), mean_resizing=False)
    with torch.no_grad():
        model.get_input_embeddings().weight.copy_(inputs)
        if outputs is not None:
            model.get_output_embeddings().weight.copy_(outputs)
        if biases is not None:
            model.get_output_embeddings().bias.copy_(biases)
    if isinstance(final, torch.Tensor):
        model.final_logits_bias = final[:, rows]


def _token_settings(settings: object) -> list[tuple[str, list[int]]]:
    """Settings that are ids of tokens: name and the ids."""
    found = []
    for key, value in vars(settings).items():
        if key.endswith("_token_id"):
            ids = [number for number in (value if isinstance(value, list) else [value]) if isinstance(number, int)]
            if ids:
                found.append((key, ids))
    return found
