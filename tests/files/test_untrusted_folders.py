"""Folders of others: whatever stands in them costs an error that names the file, never another exception."""

from __future__ import annotations

import copy
import json
import pickle
import resource
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from processes import run_forked
from safetensors.torch import load_file, save_file
from transformers import Qwen3Config

from xlgen_hf.configuration_xlgen import XLGenConfig
from xlgen_hf.errors import ModelFolderError, XLGenError
from xlgen_hf.files.model_checks import load_config
from xlgen_hf.labels.clusters import LabelClusters
from xlgen_hf.labels.space import LabelSpace, LabelSpaceError
from xlgen_hf.loading import load_model
from xlgen_hf.modeling_xlgen import XLGenForConditionalGeneration
from xlgen_hf.processing_xlgen import XLGenProcessor

JSON_FILES = [
    "config.json", "generation_config.json", "label_clusters.json", "label_space.json", "processor_config.json",
    "tokenizer.json", "tokenizer_config.json",
]  # fmt: skip
BINARY_FILES = ["model.safetensors", "label_clusters.safetensors"]
HOSTILE = [
    None, True, False, -1, 0, 1, 2, 7, 10**9, 10**18, 10**40, 0.5, 1e308, "", "x", "../../etc/passwd", "\ud800",
    "a" * 300, [], {}, [[]], [1, 2], ["a", "a"], [-1], {"a": {"b": []}}, ["\x00"],
]  # fmt: skip
quick = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
slow = settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(autouse=True)
def little_memory():
    """What would fill the memory of the machine ends the test instead."""
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (size + 2**30, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def test_a_bound_on_layers_may_exceed_their_number(tmp_path):
    """Qwen notes from which layer on attention is windowed, which models of few layers never reach."""
    backbone = Qwen3Config(vocab_size=20, hidden_size=8, num_hidden_layers=2, max_window_layers=28)
    XLGenConfig(backbone=backbone, variant="base").save_pretrained(tmp_path)
    assert load_config(tmp_path, most_layers=2).backbone.max_window_layers == 28
    with pytest.raises(ModelFolderError, match="num_hidden_layers=2; at most 1 fit the weights"):
        load_config(tmp_path, most_layers=1)


def test_experts_are_made_one_by_one(tmp_path):
    backbone = Qwen3Config(vocab_size=20, hidden_size=8, num_hidden_layers=2, num_experts=10**9)
    XLGenConfig(backbone=backbone, variant="base").save_pretrained(tmp_path)
    with pytest.raises(ModelFolderError, match="num_experts=1000000000; at most 10000 are allowed"):
        load_config(tmp_path)


@pytest.fixture
def folder(make_model, tmp_path):
    """A good folder."""
    model, processor = make_model("bert", "bcl")
    model.save_pretrained(tmp_path / "good")
    processor.save_pretrained(tmp_path / "good")
    return tmp_path / "good"


def _places(value, path=()):
    """Every place in a parsed JSON file, the file itself left out."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in items:
        yield (*path, key)
        yield from _places(below, (*path, key))


def _changed(content, data):
    """One or two places of a parsed file hold something else, or nothing."""
    content = copy.deepcopy(content)
    for _ in range(data.draw(st.integers(1, 2))):
        places = list(_places(content))
        if not places:
            return content
        # As many changes at the top as anywhere below, where a file may hold a whole vocabulary.
        top = [place for place in places if len(place) == 1]
        *above, last = data.draw(st.sampled_from(top) | st.sampled_from(places))
        parent = content
        for key in above:
            parent = parent[key]
        if data.draw(st.booleans()) and data.draw(st.booleans()):
            del parent[last]
        else:
            parent[last] = copy.deepcopy(data.draw(st.sampled_from(HOSTILE)))
    return content


def _with(folder, name, write):
    """A copy of a folder with one file changed."""
    other = folder.parent / "changed"
    shutil.rmtree(other, ignore_errors=True)
    shutil.copytree(folder, other)
    write(other / name)
    return other


def _loads_or_refuses(load, folder):
    """Load; None where the folder was refused by an error that names a file in it."""
    try:
        return load(folder)
    except XLGenError as err:
        assert str(folder) in str(err)
        return None


@given(data=st.data())
@quick
def test_any_label_space(folder, data):
    content = _changed(json.loads((folder / "label_space.json").read_text()), data)
    changed = _with(folder, "label_space.json", lambda path: path.write_text(json.dumps(content)))
    space = _loads_or_refuses(LabelSpace.load, changed)
    if space is not None:
        assert list(space.names) == content["names"]
        assert space.counts.tolist() == content["counts"]
        assert (space.decode_order, space.seed) == (content["decode_order"], content["seed"])
        assert space.order(range(len(space)), epoch=1, row=2)


@given(data=st.data())
@quick
def test_any_clusters(folder, data):
    content = _changed(json.loads((folder / "label_clusters.json").read_text()), data)
    changed = _with(folder, "label_clusters.json", lambda path: path.write_text(json.dumps(content)))
    clusters = _loads_or_refuses(LabelClusters.load, changed)
    if clusters is not None:
        good = LabelClusters.load(folder)
        assert np.array_equal(clusters.assignment, good.assignment)
        assert (clusters.names, clusters.metadata) == (content["names"], content["metadata"])


@given(data=st.data())
@quick
def test_any_config(folder, data):
    content = _changed(json.loads((folder / "config.json").read_text()), data)
    changed = _with(folder, "config.json", lambda path: path.write_text(json.dumps(content)))
    config = _loads_or_refuses(load_config, changed)
    if config is not None:
        assert config.variant == content.get("variant", "base")
        assert config.max_labels == content.get("max_labels", 30)


@given(data=st.data())
@slow
@pytest.mark.parametrize("name", JSON_FILES)
def test_any_change_of_a_json_file(folder, name, data):
    content = _changed(json.loads((folder / name).read_text()), data)
    changed = _with(folder, name, lambda path: path.write_text(json.dumps(content)))
    _loads_or_refuses(lambda place: load_model(str(place)), changed)


@given(data=st.data())
@slow
@pytest.mark.parametrize("name", [*BINARY_FILES, "label_space.json", "config.json"])
def test_any_damage_of_bytes(folder, name, data):
    content = bytearray((folder / name).read_bytes())
    head = min(len(content), 3_000)
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, head)) :]
    for _ in range(data.draw(st.integers(0, 4))):
        if content:
            content[data.draw(st.integers(0, min(head, len(content)) - 1))] = data.draw(st.integers(0, 255))
    changed = _with(folder, name, lambda path: path.write_bytes(bytes(content)))
    _loads_or_refuses(lambda place: load_model(str(place)), changed)


# ---------------------------------------------------------------------------------------------------- known attacks


def _edit(name, **changes):
    def edit(folder):
        path = folder / name
        content = json.loads(path.read_text())
        for key, value in changes.items():
            *above, last = key.split("__")
            parent = content
            for part in above:
                parent = parent[part]
            parent[last] = value
        path.write_text(json.dumps(content))

    return edit


def _write(name, text):
    return lambda folder: (folder / name).write_text(text)


def _index(names):
    def edit(folder):
        (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))

    return edit


def _weights(change):
    def edit(folder):
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return edit


HUGE = 10**12
_PARTS = [{"SpecialToken": {"id": "[NONE]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
_TEMPLATE = {"type": "TemplateProcessing", "single": _PARTS, "pair": _PARTS, "special_tokens": {}}
ATTACKS = {
    "deep JSON": (_write("config.json", "[" * 200_000), "config.json is not JSON"),
    "deep labels": (_write("label_space.json", '{"a":' * 200_000), "label_space.json is not JSON"),
    "NaN": (_write("config.json", '{"model_type": "xlgen", "predicted_rate": NaN}'), "NaN is not a JSON number"),
    "a list": (_write("config.json", "[]"), "config.json: it must be a JSON object"),
    "another model": (_edit("config.json", model_type="bert"), "model_type 'bert', where an XLGen model"),
    "no backbone": (_edit("config.json", backbone=None), "'backbone' must be the configuration"),
    "layers": (_edit("config.json", backbone__encoder__num_hidden_layers=HUGE), "num_hidden_layers=1000000000000; at"),
    "classes": (_edit("config.json", backbone__encoder__num_labels=HUGE), "num_labels=1000000000000; XLGen has no"),
    "width": (_edit("config.json", backbone__encoder__hidden_size=HUGE), "."),
    "positions": (_edit("config.json", backbone__encoder__max_position_embeddings=HUGE), "in the weights it is"),
    "vocabulary": (_edit("config.json", backbone__encoder__vocab_size=HUGE), "in the weights it is"),
    "clusters": (_edit("config.json", num_clusters=HUGE), "last cluster token is .*, outside of the vocabulary"),
    "output tokens": (_edit("config.json", num_output_tokens=HUGE), "num_output_tokens=1000000000000, of"),
    "separator": (_edit("config.json", separator_token_id=-3), "separator_token_id is -3, outside"),
    "code": (_edit("config.json", attn_implementation="evil/kernel"), "is code from the Hub, which is not run"),
    "code of a part": (
        _edit("config.json", backbone__attn_implementation={"": ["evil/kernel"]}),
        "is code from the Hub, which is not run",
    ),
    "code by another name": (
        _edit("config.json", _experts_implementation_internal="evil/kernel"),
        "is code from the Hub, which is not run",
    ),
    "variant": (_edit("config.json", variant="gpt"), "config.json: no configuration of an XLGen model"),
    "type": (_edit("config.json", max_labels="many"), "config.json: no configuration of an XLGen model"),
    "length": (
        _edit("processor_config.json", max_source_length=HUGE),
        "'max_source_length' is 1000000000000; it must be an integer",
    ),
    "clusters flag": (_edit("processor_config.json", clusters="yes"), "'clusters' is 'yes'; it must be true or false"),
    "seed": (_edit("label_space.json", seed=-1), "'seed' is -1; it must be an integer >= 0"),
    "half a character": (_edit("label_space.json", names=["\ud800"], counts=[1]), r"'\\ud800'; it must be a string"),
    "path in the index": (_index({"a": "../../etc/passwd.safetensors"}), "is not the name of a safetensors file"),
    "pickle in the index": (_index({"a": "pytorch_model.bin"}), "is not the name of a safetensors file"),
    "number in the index": (_index({"a": 3}), r"'weight_map\['a'\]' is 3; it must be a string"),
    "missing shard": (_index({"a": "model-7.safetensors"}), "model-7.safetensors is missing"),
    "empty index": (_index({}), "'weight_map' is empty"),
    "wrong shape": (_weights(lambda t: t.update({"cluster_head.weight": torch.zeros(2, 2)})), r"it is \(2, 2\)"),
    "a template that names no token": (
        _edit("tokenizer.json", post_processor=_TEMPLATE),
        "makes no tokenizer: no entry found for key",
    ),
    "other output tokens": (
        _weights(lambda t: t["output_token_ids"].add_(1)),
        "model and processor differ in label tokens",
    ),
    "NaN in weights": (
        _weights(lambda t: t["cluster_head.bias"].fill_(torch.nan)),
        "cluster_head.bias hold NaN",
    ),
    "no tokenizer": (_write("tokenizer.json", "{}"), "makes no tokenizer"),
    "fewer layers": (
        _edit("config.json", backbone__encoder__num_hidden_layers=2),
        "the model has no place for 16 ten",
    ),
    "more layers": (
        _edit("config.json", backbone__encoder__num_hidden_layers=4),
        "the weights lack 16 tensors, e.g. ",
    ),
    "longest input": (
        _edit("tokenizer_config.json", model_max_length="x"),
        "model_max_length is 'x'; it must be a numb",
    ),
    "tokenizer list": (_write("tokenizer_config.json", "[]"), "tokenizer_config.json: it must be a JSON object"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_known_attacks(folder, attack):
    edit, message = ATTACKS[attack]
    edit(folder)
    with pytest.raises(ModelFolderError, match=message) as caught:
        load_model(str(folder))
    assert str(folder) in str(caught.value)


def test_huge_numbers_cost_no_memory(folder):
    """All of them in one process, which may take half a gigabyte beyond what it has after a good load."""
    for number, name in enumerate(name for name in ATTACKS if ATTACKS[name][1]):
        other = folder.parent / f"bad-{number}"
        shutil.copytree(folder, other)
        ATTACKS[name][0](other)
    script = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from xlgen_hf.errors import ModelFolderError\n"
        "from xlgen_hf.loading import load_model\n"
        f"load_model({str(folder)!r})\n"
        "size = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (size + 2**29, size + 2**29))\n"
        f"for place in sorted(Path({str(folder.parent)!r}).glob('bad-*')):\n"
        "    try:\n"
        "        load_model(str(place))\n"
        "    except ModelFolderError as err:\n"
        "        assert not isinstance(err.__cause__, MemoryError), err\n"
        "        print('refused')\n"
    )
    done = run_forked(folder.parent, script)
    assert done.stdout.split() == ["refused"] * len(ATTACKS), done.stderr[-2000:]


class _Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.bin"])
def test_no_pickle_is_read(folder, tmp_path, name):
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps(_Bomb(tmp_path / "exploded")))
    for load in (XLGenForConditionalGeneration.from_pretrained, lambda place: load_model(str(place))):
        with pytest.raises(ModelFolderError, match=f"{name}, a pickle, which can run any code; it is not read"):
            load(folder)
    with pytest.raises(XLGenError, match="use_safetensors=False would read a pickle"):
        XLGenForConditionalGeneration.from_pretrained(folder, use_safetensors=False)
    for other in ("training_args.bin", "optimizer.pt", "rng_state.pth"):
        (folder / other).write_bytes(pickle.dumps(_Bomb(tmp_path / "exploded")))
    (folder / name).unlink()
    with pytest.raises(ModelFolderError, match=r"has its weights in training_args\.bin, a pickle"):
        XLGenForConditionalGeneration.from_pretrained(folder)
    assert not (tmp_path / "exploded").exists()


def test_missing_files_are_named(folder):
    for name in ("model.safetensors", "config.json", "label_space.json", "label_clusters.json",
                 "label_clusters.safetensors", "processor_config.json", "tokenizer_config.json"):  # fmt: skip
        other = _with(folder, name, Path.unlink)
        with pytest.raises(ModelFolderError, match=name.replace(".", r"\.")):
            load_model(str(other))


def test_half_a_character_is_refused_in_a_new_label_space():
    with pytest.raises(LabelSpaceError, match=r"holds '\\ud800', half a character. Read the data as UTF-8"):
        LabelSpace.from_label_lists([["a", "b\ud800"]])


def test_processor_alone_is_checked_too(folder):
    (folder / "tokenizer.json").write_text("[1]")
    with pytest.raises(ModelFolderError, match=r"tokenizer\.json: it must be a JSON object"):
        XLGenProcessor.from_pretrained(folder)
