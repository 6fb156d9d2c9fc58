"""Small model folders of every kind, and seeded damage to their files; shared by the test and the long campaign."""

from __future__ import annotations

import copy
import json
import os
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from data.mutations import damage
from safetensors.numpy import load_file, save_file
from sources import Made, fused, make_rcl, make_retriever, make_trees, sharpened
from tiny import MAKERS, ROWS, VOCABULARY, make_clusters
from transformers import AutoTokenizer

from xlgen_hf.labels.space import LabelSpace
from xlgen_hf.modeling_xlgen import XLGenForConditionalGeneration
from xlgen_hf.processing_xlgen import XLGenProcessor
from xlgen_hf.ranking.score_model import ScoreModel
from xlgen_hf.retrieval.model_sources import save_source_alone

HOSTILE = [
    None, True, False, -1, 0, 1, 2, 7, 1_000_000, 10**9, 10**18, 10**40, 0.5, -0.5, 1e308, "", "x", "../../etc/passwd",
    "\ud800", "a" * 300, [], {}, [[]], [1, 2], ["a", "a"], [-1], {"a": {"b": []}}, ["\x00"], "hf-internal/remote--x.y",
]  # fmt: skip
_TYPES = ["F32", "F16", "BF16", "F64", "I64", "I32", "U8", "BOOL", "F8_E4M3", "X", 3]


# ---------------------------------------------------------------------------------------------------- folders


def make_folders(root: Path) -> dict[str, Path]:
    """Kind -> folder of a good model of that kind."""
    checkpoints = {}
    for name, make in MAKERS.items():
        torch.manual_seed(0)
        make(root / "checkpoints" / name)
        checkpoints[name] = str(root / "checkpoints" / name)
    space = LabelSpace.from_label_lists([row["labels"] for row in ROWS], VOCABULARY)
    makers: dict[str, Callable[[Path], None]] = {
        "base": lambda folder: _save(_generator(checkpoints["t5"], space, "base"), folder),
        "bcl": lambda folder: _save(_generator(checkpoints["bert"], space, "bcl"), folder),
        "mcg": lambda folder: _save(_generator(checkpoints["bart"], space, "mcg"), folder),
        "sharded": lambda folder: _save(_generator(checkpoints["modernbert"], space, "bcl"), folder, size="30KB"),
        "hybrid": lambda folder: _save(_hybrid(checkpoints["bert"], space), folder),
        "adapter": lambda folder: _save_adapter(_generator(checkpoints["t5"], space, "bcl"), folder),
        "retriever": lambda folder: save_source_alone(
            folder, space, "retrieval", make_retriever(checkpoints["bert"], space, lexical=True), ScoreModel()
        ),
        "label trees": lambda folder: save_source_alone(folder, space, "label_trees", make_trees(space), ScoreModel()),
    }
    folders = {name: root / "good" / name for name in makers}
    for name, make_one in makers.items():
        make_one(folders[name])
    return folders


def _generator(checkpoint: str, space: LabelSpace, variant: str) -> Made:
    clusters = None if variant == "base" else make_clusters(space)
    processor = XLGenProcessor(AutoTokenizer.from_pretrained(checkpoint), space, clusters, 64, 64)
    torch.manual_seed(1)
    options = {"decoder_layers": 1, "max_labels": 5}
    return sharpened(
        Made(XLGenForConditionalGeneration.from_backbone(checkpoint, processor, variant=variant, **options), processor)
    )


def _hybrid(checkpoint: str, space: LabelSpace) -> Made:
    retriever = make_retriever(checkpoint, space, lexical=True)
    made = sharpened(make_rcl(checkpoint, space, retriever=retriever))
    return fused(made, make_trees(space), retriever=retriever)


def _save(made: Made, folder: Path, size: str = "1GB") -> None:
    made.model.save_pretrained(folder, max_shard_size=size)
    made.processor.save_pretrained(folder)


def _save_adapter(made: Made, folder: Path) -> None:
    import peft

    _save(made, folder / "base")
    made.model.name_or_path = str(folder / "base")
    config = peft.LoraConfig(task_type="SEQ_2_SEQ_LM", r=4, target_modules=["q", "v"], init_lora_weights="pissa")
    peft.get_peft_model(made.model, config).save_pretrained(folder)
    made.processor.save_pretrained(folder)


# ---------------------------------------------------------------------------------------------------- damage


def files_of(folder: Path) -> list[str]:
    """The files that are damaged, by their paths in the folder."""
    found = (path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file())
    return [name for name in found if not name.endswith("README.md")]


def damaged_folder(source: Path, name: str, folder: Path, chance: random.Random) -> str:
    """A copy of a folder with one file of it damaged; says how.

    Args:
        source: a good folder.
        name: the file.
        folder: the copy, which replaces what is there; files that are not damaged are links to those of the source.
        chance: decides on the damage.
    """
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, folder, copy_function=os.link)
    path = folder / name
    content = path.read_bytes()
    path.unlink()
    kinds = [_of_bytes, _of_the_file]
    kinds += {".json": [_of_json] * 5, ".safetensors": [_of_header, _of_header, _of_tensors]}.get(path.suffix, [])
    kind = chance.choice(kinds)
    kind(path, content, chance)
    return kind.__name__.removeprefix("_of_")


def _of_bytes(path: Path, content: bytes, chance: random.Random) -> None:
    path.write_bytes(damage(content, chance))


def _of_the_file(path: Path, content: bytes, chance: random.Random) -> None:
    """Missing, empty, a folder, a link to nothing or to itself, or what another file holds."""
    kind = chance.randrange(6)
    if kind == 1:
        path.touch()
    elif kind == 2:
        path.mkdir()
    elif kind == 3:
        path.symlink_to(chance.choice(["nothing", path.name, "/dev/null"]))
    elif kind == 4:
        others = [other for other in path.parent.iterdir() if other.is_file()]
        path.write_bytes(chance.choice(others).read_bytes() if others else b"")
    elif kind == 5:
        path.write_bytes(content + content)


def _of_json(path: Path, content: bytes, chance: random.Random) -> None:
    changed = json.loads(content)
    for _ in range(chance.choice((1, 1, 2, 4))):
        _change(changed, chance)
    path.write_text(json.dumps(changed), encoding="utf-8")


def _of_header(path: Path, content: bytes, chance: random.Random) -> None:
    """Names, types, shapes and places of tensors are changed, and the numbers stay."""
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    entry = header[chance.choice([name for name in header if name != "__metadata__"])]
    kind = chance.randrange(5)
    if kind == 0:
        entry["dtype"] = chance.choice(_TYPES)
    elif kind == 1:
        entry["shape"] = chance.choice([[], [1], [-1], [2**40, 2**40], entry["shape"][::-1], [*entry["shape"], 1]])
    elif kind == 2:
        entry["data_offsets"] = chance.choice([[0, 0], [0, 2**62], [5, 1], [-1, 3], []])
    elif kind == 3:
        _change(header, chance)
    else:
        name = chance.choice(list(header))
        header[chance.choice(["", "x", "a" * 300, name + ".weight", "../x"])] = header.pop(name)
    head = json.dumps(header).encode()
    length = chance.choice((len(head), len(head), len(head), 0, 2**63, len(content)))
    path.write_bytes(struct.pack("<Q", length) + head + content[8 + struct.unpack("<Q", content[:8])[0] :])


def _of_tensors(path: Path, content: bytes, chance: random.Random) -> None:
    """A good file with other numbers, types or shapes, or without a tensor."""
    path.write_bytes(content)
    tensors = dict(load_file(path))
    path.unlink()
    name = chance.choice(list(tensors))
    value = tensors[name]
    kind = chance.randrange(6)
    if kind == 0:
        del tensors[name]
    elif kind == 1 and value.size:
        value = value.copy()
        low, high = (-1e30, 1e30) if value.dtype.kind == "f" else (-5, 10**6)
        numbers = [np.nan, np.inf, low, high] if value.dtype.kind == "f" else [low, high, 0, 1]
        value.reshape(-1)[chance.randrange(value.size)] = np.array(chance.choice(numbers)).astype(value.dtype)
        tensors[name] = value
    elif kind == 2:
        tensors[name] = value.astype(chance.choice([np.float16, np.float64, np.int64, np.int8, np.bool_]))
    elif kind == 3:
        tensors[name] = value[..., :-1] if value.ndim else value.reshape(1)
    elif kind == 4:
        tensors[name] = np.concatenate([value, value]) if value.ndim else value.reshape(1, 1)
    else:
        tensors["more"] = np.zeros(3, np.float32)
    metadata = {"format": "pt"}
    save_file({key: np.ascontiguousarray(one) for key, one in tensors.items()}, path, metadata=metadata)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in parsed JSON, the whole left out."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, below in items for place in ((*path, key), *places(below, (*path, key)))]


def _change(content: Any, chance: random.Random) -> None:
    """One place of parsed JSON holds something else, or nothing; as often at the top as anywhere below."""
    found = places(content)
    if not found:
        return
    top = [place for place in found if len(place) == 1]
    *above, last = chance.choice(chance.choice((top, found)))
    parent = content
    for key in above:
        parent = parent[key]
    kind = chance.randrange(8)
    if kind == 0:
        del parent[last]
    elif kind == 1 and isinstance(parent, dict):
        parent[chance.choice(["x", "auto_map", "_name_or_path", "", str(last) + "_"])] = copy.deepcopy(parent[last])
    elif kind == 2:
        other: Any = content
        for key in chance.choice(found):
            other = other[key]
        parent[last] = copy.deepcopy(other)
    elif kind == 3 and type(parent[last]) in (int, float):
        parent[last] = chance.choice([-parent[last], parent[last] + 1, parent[last] - 1, parent[last] * 1000])
    else:
        parent[last] = copy.deepcopy(chance.choice(HOSTILE))
