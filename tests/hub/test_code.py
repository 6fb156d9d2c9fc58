"""Code in a model's repository: what is copied, how, and that the model runs where this package is not installed."""

from __future__ import annotations

import ast
import json
import re
import sys
from pathlib import Path

import pytest
from huggingface_hub import HfApi, snapshot_download
from processes import run_fresh
from sources import Made, fused, make_retriever, sharpened

import xlgen_hf
from xlgen_hf.errors import ModelFolderError
from xlgen_hf.hub.code import add_code, code_files
from xlgen_hf.hub.push import push_model
from xlgen_hf.labels.concepts import Concept
from xlgen_hf.labels.vocabulary import Vocabulary
from xlgen_hf.loading import load_model
from xlgen_hf.ranking.decisions import DecisionRule
from xlgen_hf.training.build import prepare_model
from xlgen_hf.training.settings import TrainingSettings

PACKAGE = Path(xlgen_hf.__file__).parent
TEXTS = ["a history of church music", "modern art", ""]
TASK = "extreme-multilabel-classification"
# Libraries that running a model without retrieval must not need.
UNNEEDED = ("xlgen_hf", "datasets", "evaluate", "matplotlib", "pandas", "peft", "sklearn", "threadpoolctl", "typer")


@pytest.fixture
def make_folder(make_model, checkpoints, label_space, rows, tmp_path):
    """A function that writes an untrained model of a variant into a folder."""

    def make(variant: str, *, with_vocabulary: bool = False, **options) -> Path:
        if variant == "rcl":
            settings = TrainingSettings(
                backbone=checkpoints["bert"], variant="rcl", vocabulary=["art history"], retriever_epochs=0,
                num_input_candidates=3, max_source_length=64, max_target_length=64,
            )  # fmt: skip
            model, processor = prepare_model(settings, rows, rows, cache_dir=tmp_path / "cache")
        elif variant == "hybrid":
            retriever = make_retriever(checkpoints["bert"], label_space, lexical=True)
            hybrid = fused(sharpened(Made(*make_model("bert", max_labels=5))), None, retriever=retriever, number=4)
            model, processor = hybrid.model, hybrid.processor
        else:
            model, processor = make_model("bert", variant, **options)
        if with_vocabulary:
            processor.vocabulary = Vocabulary(
                [Concept(f"x:{name}", {"": name}) for name in processor.label_space.names]
            )
        folder = tmp_path / variant
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        return folder

    return make


def run_without_package(script: str, environment: dict[str, str], missing: tuple[str, ...] = ("xlgen_hf",)) -> list:
    """Run a script in a fresh process where imports of some packages fail: the JSON of its last line."""
    environment, home = {**environment, "PYTHONPATH": ""}, Path(environment["HF_HOME"])
    done = run_fresh(f"import json, sys\n{script}", environment=environment, folder=home, missing=missing)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def predicted(folder: Path, **options) -> list[dict]:
    model, processor = load_model(str(folder))
    return [one.to_dict() for one in model.predict(TEXTS, processor, **options)]


def ranked(folder: Path, **options) -> list[list[dict]]:
    return [
        [{"label": label, "score": score} for label, score in zip(one["labels"], one["scores"], strict=True)]
        for one in predicted(folder, **options)
    ]


# ---------------------------------------------------------------------------------------------------- running

PREDICT = f"""
from transformers import AutoModelForSeq2SeqLM, AutoProcessor
found = []
for name in sys.argv[1:] or NAMES:
    for first in ("model", "processor"):
        loaded = {{}}
        for what in (first, "processor", "model"):
            auto = AutoModelForSeq2SeqLM if what == "model" else AutoProcessor
            loaded[what] = loaded.get(what) or auto.from_pretrained(name, trust_remote_code=True)
        found.append([one.to_dict() for one in loaded["model"].predict({TEXTS!r}, loaded["processor"])])
print(json.dumps(found))
"""
BEST = f"""
from transformers import pipeline
best = pipeline({TASK!r}, model=NAMES[-1], trust_remote_code=True, device="cpu")({TEXTS!r}, top_k=5)
print(json.dumps([*found, best]))
"""
EVIDENCE = f"""
from huggingface_hub import snapshot_download
copied = snapshot_download(NAMES[-1], local_dir="copied")
model = AutoModelForSeq2SeqLM.from_pretrained(copied, trust_remote_code=True)
processor = AutoProcessor.from_pretrained(copied, trust_remote_code=True)
found.append([one.to_dict() for one in model.predict({TEXTS!r}, processor, evidence=True)])
"""
PIPELINE = f"""
from transformers import pipeline
by_pipeline = [pipeline({TASK!r}, model=name, trust_remote_code=True, device="cpu")({TEXTS!r}) for name in NAMES]
"""


@pytest.fixture
def environment(hub, tmp_path):
    (tmp_path / "home").mkdir()
    return hub.environment(tmp_path / "home")


def test_model_runs_where_the_package_is_missing(hub, make_folder, environment):
    """So do models with retrieval, which need a library more; whichever of model and processor is loaded first."""
    folders = {
        "alice/mcg": make_folder("mcg", with_vocabulary=True),
        "alice/hybrid": make_folder("hybrid"),
        "alice/rcl": make_folder("rcl"),
    }
    for name, folder in folders.items():
        push_model(folder, name, with_code=True)
    script = f"NAMES = {list(folders)}\n{PREDICT}{EVIDENCE}{BEST}"
    expected = [predicted(folder) for folder in folders.values() for _ in range(2)]
    expected.append(predicted(folders["alice/rcl"], evidence=True))
    assert expected[-1][0]["evidence"][0]["documents"]  # of a folder there was none
    expected.append(ranked(folders["alice/rcl"], rule=DecisionRule("top_k", 5)))  # scores candidates of the input
    assert all(one["ids"] == [f"x:{label}" for label in one["labels"]] for one in expected[0])
    assert run_without_package(script, environment) == expected


SAVE = """
def explain(text):
    model.predict([text], processor, evidence=True)

def search(text):
    pipeline("extreme-multilabel-classification", model=NAMES[1], trust_remote_code=True)([text], num_beams=2)

def score(text):
    model.score([text], [["music"]], processor)

def train(text):
    batch = processor([text], "pt")
    model(**batch, labels=batch["input_ids"][:, :1])

errors = []
saving = (model.save_pretrained, processor.save_pretrained, model.push_to_hub, model.from_backbone)
for do in (*saving, explain, search, score, train):
    try:
        do("somewhere")
    except ImportError as err:
        errors.append(str(err))
"""


def test_pipeline_and_the_snippet_of_the_card_run_and_the_rest_says_what_it_needs(hub, make_folder, environment):
    """A pipeline of the repository and one of a folder; in the same process, which costs seconds, the snippet."""
    folder, of_pipeline = make_folder("base"), make_folder("bcl", min_labels=2)
    push_model(folder, "alice/base", with_code=True)
    push_model(of_pipeline, "alice/bcl", with_code=True)
    local = snapshot_download("alice/bcl", local_dir=environment["HF_HOME"] + "/local")
    snippet = hub.file("alice/base", "README.md").decode().split("```python\n")[2].split("```")[0]
    predict = f"[one.to_dict() for one in model.predict({TEXTS!r}, processor)]"
    script = f"NAMES = {['alice/bcl', str(local)]}\n{PIPELINE}\n{snippet}\n{SAVE}\n"
    best = f"pipeline({TASK!r}, model=NAMES[1], trust_remote_code=True)({TEXTS!r}, top_k=4)"
    script += f"print(json.dumps([{predict}, errors, by_pipeline, {best}]))\n"
    found, errors, by_pipeline, best = run_without_package(script, environment, UNNEEDED)
    assert found == predicted(folder)
    assert by_pipeline == [ranked(of_pipeline)] * 2
    assert best == ranked(of_pipeline, rule=DecisionRule("top_k", 4))
    assert [error.split()[0] for error in errors] == [
        "save_pretrained", "save_pretrained", "push_to_hub", "from_backbone", "explain", "beam_search", "score",
        "prepare_decoder_input_ids_from_labels",
    ]  # fmt: skip
    assert all(error.endswith("run `pip install xlgen-hf`.") for error in errors)


DAMAGE = """
from pathlib import Path
from transformers import AutoModelForSeq2SeqLM, AutoProcessor, pipeline
folder, told = Path(NAMES[0]), []
for file, content in DAMAGED:
    whole = (folder / file).read_bytes()
    (folder / file).write_bytes(whole[:100] if content is None else content.encode())
    try:
        for auto in (AutoModelForSeq2SeqLM, AutoProcessor):
            auto.from_pretrained(folder, trust_remote_code=True)
        pipeline("extreme-multilabel-classification", model=str(folder), trust_remote_code=True, device="cpu")
        told.append(["nothing", "nothing"])
    except Exception as err:
        told.append([type(err).__name__, str(err)])
    (folder / file).write_bytes(whole)
print(json.dumps(told))
"""


def test_code_names_what_is_damaged(make_folder, environment):
    """A file that is cut short (None), or holds something else."""
    folder = make_folder("bcl")
    for name, content in add_code(folder, with_code=True).items():
        (folder / name).write_bytes(content)
    config = json.loads((folder / "config.json").read_text())
    other_token = json.dumps({**config, "separator_token_id": config["separator_token_id"] + 1})
    other_size = json.dumps({**config, "num_output_tokens": 3})
    damaged = {
        ("model.safetensors", None): f"{folder} cannot be loaded: .*header",
        ("tokenizer.json", None): r"tokenizer.json is not JSON in UTF-8",
        ("tokenizer.json", "{}"): r"tokenizer.json or tokenizer_config.json makes no tokenizer",
        ("label_space.json", "{}"): r"label_space.json: format_version is missing",
        ("label_clusters.safetensors", None): r"label_clusters.safetensors is not a safetensors file",
        ("label_clusters.json", "[]"): r"label_clusters.json: it must be an object with the fields",
        ("config.json", other_token): "model and processor differ in separator token",
        ("config.json", other_size): f"{folder} cannot be loaded",
    }
    script = f"NAMES = {[str(folder)]}\nDAMAGED = {list(damaged)}\n{DAMAGE}"
    told = run_without_package(script, environment)
    for (kind, message), expected in zip(told, damaged.values(), strict=True):
        assert kind == "ModelFolderError", message
        assert re.search(expected, message)


def test_pipeline_of_the_package_needs_no_trust(hub, make_folder):
    """Where the package is imported, its own pipeline serves a repository with code too."""
    from transformers import pipeline

    folder = make_folder("bcl")
    push_model(folder, "alice/bcl", with_code=True)
    classify = pipeline(TASK, model="alice/bcl", device="cpu")
    assert type(classify) is xlgen_hf.XLGenPipeline
    assert classify(TEXTS) == ranked(folder)


# ---------------------------------------------------------------------------------------------------- repositories


def test_configs_name_the_code_as_long_as_it_is_there(hub, make_folder):
    folder = make_folder("bcl")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoConfig": "other.Config"}}))
    push_model(folder, "alice/coded", with_code=True)
    *_, commit = hub.history("alice/coded")
    assert set(code_files(folder)) <= set(commit["files"])
    config = json.loads(hub.file("alice/coded", "config.json"))
    assert config["auto_map"]["AutoConfig"] == "configuration_xlgen.XLGenConfig"
    assert config["custom_pipelines"][TASK]["impl"] == "pipeline.XLGenPipeline"
    push_model(folder, "alice/coded")
    *_, commit = hub.history("alice/coded")
    assert not [name for name in commit["files"] if name.endswith(".py")]
    assert not {"auto_map", "custom_pipelines"} & set(json.loads(hub.file("alice/coded", "config.json")))
    assert "auto_map" not in json.loads(hub.file("alice/coded", "processor_config.json"))


def test_code_that_a_model_no_longer_needs_is_removed(hub, make_folder):
    push_model(make_folder("rcl"), "alice/tiny", with_code=True)
    HfApi().upload_file(path_or_fileobj=b"\xff# mine", path_in_repo="labels_mine.py", repo_id="alice/tiny")
    folder = make_folder("base")
    push_model(folder, "alice/tiny", with_code=True)
    *_, commit = hub.history("alice/tiny")
    assert {name for name in commit["files"] if name.endswith(".py")} == {*code_files(folder), "labels_mine.py"}


def test_code_of_the_former_layout_is_removed(hub, make_folder):
    """When its modules lay in one folder, repositories had other files: all of them go, and nothing else does."""
    folder = make_folder("base")
    push_model(folder, "alice/old")
    former = ("_io.py", "label_trie.py", "labels.py", "retrieval.py", "search.py", "modeling_xlgen.py")
    for name in (*former, "demo.py", "handler/labels.py"):
        HfApi().upload_file(path_or_fileobj=b"'''Some module.'''\n", path_in_repo=name, repo_id="alice/old")
    push_model(folder, "alice/old", with_code=True)
    *_, commit = hub.history("alice/old")
    modules = {name for name in commit["files"] if name.endswith(".py")}
    assert modules == {*code_files(folder), "demo.py", "handler/labels.py"}


def test_modules_of_people_that_share_a_name_with_former_ones_stay(hub, make_folder):
    folder = make_folder("base")
    push_model(folder, "alice/own", with_code=True)
    for name in ("labels.py", "search.py"):
        HfApi().upload_file(path_or_fileobj=b"print()", path_in_repo=name, repo_id="alice/own")
    for with_code in (True, False):
        push_model(folder, "alice/own", with_code=with_code)
        *_, commit = hub.history("alice/own")
        assert {"labels.py", "search.py"} <= set(commit["files"])
    assert "modeling_xlgen.py" not in commit["files"]


# ---------------------------------------------------------------------------------------------------- the copy


@pytest.fixture
def folder_of(tmp_path):
    """A function that makes a folder with some of a model's files, as far as the code that it needs goes by them."""

    def make(*names: str, **config) -> Path:
        (tmp_path / "config.json").write_text(json.dumps({"num_output_tokens": 5, **config}))
        for name in names:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(json.dumps({"calibrator": [], "fusion": {}}))
        return tmp_path

    return make


@pytest.fixture
def files_for(folder_of, made):
    """A function that gives the code for such a folder."""

    def copies(*names: str, **config) -> dict[str, str]:
        key = (names, *config.items())
        if key not in made:
            made[key] = code_files(folder_of(*names, **config))
        return made[key]

    return copies


RETRIEVER = "retriever/retriever.json"
TRIE = "label_trie.safetensors"  # which every model has that `xlgen train` made
# Lines of the code of a base model: about half of what they were when modules were copied whole. The last 70 keep the
# bounds of sets that are generated in order or pooled, and count texts that are cut.
BASE = 4_610
EVERYTHING = (
    "label_clusters.json", RETRIEVER, "score_model.json", "label_trees/label_trees.json", "vocabulary.json",
)  # fmt: skip


@pytest.mark.parametrize("names", [(), EVERYTHING[:1], EVERYTHING[:2], EVERYTHING])
def test_copies_are_closed_and_flat(files_for, names):
    """Every import of the package leads to a file of the copy; no other import can fail for want of a library."""
    files = files_for(*names)
    allowed = {"huggingface_hub", "numpy", "safetensors", "scipy", "torch", "tqdm", "transformers"}
    for name, source in files.items():
        for statement in imports_outside_of_try(ast.parse(source)):
            if isinstance(statement, ast.ImportFrom) and statement.level:
                assert statement.level == 1, name
                assert f"{statement.module}.py" in files, name
                there = bound_names(ast.parse(files[f"{statement.module}.py"]))
                assert {alias.name for alias in statement.names} <= there, name
            else:
                modules = [statement.module] if isinstance(statement, ast.ImportFrom) else None
                modules = modules or [alias.name for alias in statement.names]
                assert {module.split(".")[0] for module in modules} <= allowed | sys.stdlib_module_names, name


def bound_names(tree) -> set[str]:
    """The names of a file."""
    found = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found.update(alias.asname or alias.name for alias in node.names)
    return found


def imports_outside_of_try(tree):
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif not isinstance(node, ast.Try):
            yield from imports_outside_of_try(node)


def test_copies_hold_what_the_model_needs(files_for):
    """And neither what trains or pushes models, nor what other models need."""
    plain = modules(files_for(TRIE))
    clustered = modules(files_for(TRIE, "label_clusters.json"))
    assert clustered - plain == {"labels/clusters.py"}
    everything = modules(files_for(*EVERYTHING, num_output_tokens=None))
    assert everything >= clustered | {"ranking/fusion.py", "ranking/label_trees.py", "prediction/open_vocabulary.py"}
    assert everything >= {"retrieval/retriever.py", "retrieval/lexical.py", "encoders/embedding.py"}
    of_some = {
        "decoding/teacher_forcing.py",
        "labels/vocabulary.py",
        "prediction/evidence.py",
        "ranking/calibration.py",
    }
    assert everything >= of_some
    assert not clustered & {"ranking/fusion.py", "retrieval/lexical.py", "retrieval/retriever.py", *of_some}
    assert not [name for name, source in files_for(TRIE).items() if "sklearn" in source]
    of_others = ("cli/", "data/", "evaluation/", "experiments/", "hub/", "serving/", "training/", "quickstart")
    assert [name for name in everything if name.startswith(of_others)] == ["hub/push_mixin.py"]


def modules(files: dict[str, str]) -> set[str]:
    """The modules of the package that a copy has something of."""
    return {place for source in files.values() for place, _ in sections(source)}


def sections(source: str) -> list[tuple[str, str]]:
    """Module and text of each section of a file."""
    parts = re.split(r"(?m)^# -+ xlgen_hf/(.*)$", source)[1:]
    return list(zip(parts[::2], parts[1::2], strict=True))


@pytest.mark.parametrize(
    ("names", "config", "most_files", "most_lines"),
    [
        ((), {}, 17, BASE),
        (("label_clusters.json",), {"variant": "bcl"}, 17, BASE + 290),
        (("label_clusters.json",), {"variant": "mcg"}, 17, BASE + 260),
        ((RETRIEVER,), {"variant": "rcl"}, 17, BASE + 3_780),
        (EVERYTHING, {"num_output_tokens": None}, 17, BASE + 5_140),
    ],
)
def test_copies_stay_small(files_for, names, config, most_files, most_lines):
    """Whoever adds lines that running any model needs finds them here; CONTRIBUTING.md has the table."""
    files = files_for(TRIE, *names, **config)
    assert len(files) <= most_files
    assert sum(source.count("\n") for source in files.values()) <= most_lines


def test_copies_are_lines_of_the_source(files_for):
    """Imports apart, and with comments and docstrings, for whoever reads the code before trusting it.

    Of the docstrings of what is public, all but the first paragraph is left out.
    """
    for name, source in files_for(TRIE, "label_clusters.json").items():
        version = source.splitlines()[1]
        assert version.startswith(f"# Version {xlgen_hf.__version__};")
        for place, text in sections(source):
            original = (PACKAGE / place).read_text(encoding="utf-8")
            lines = iter(map(without_quotes, original.splitlines()))
            docstring = ast.get_docstring(ast.parse(original)).split("\n\n")[0]
            comment = "".join(f"\n# {line}" for line in docstring.splitlines())
            assert text.startswith(comment), place
            kept = map(without_quotes, without_imports(text.removeprefix(comment)))
            odd = [line for line in kept if line not in lines]  # which reads on behind each that is found
            assert not odd, place
        for node in ast.parse(source).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                assert ast.get_docstring(node) or node.name.startswith("_"), f"{name}: {node.name}"


def without_quotes(line: str) -> str:
    return line.rstrip().removesuffix('"""').rstrip()


def without_imports(source: str) -> list[str]:
    """Lines of a module outside of imports and what replaces these."""
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        is_import = isinstance(node, ast.Import | ast.ImportFrom)
        is_guard = isinstance(node, ast.Try) and isinstance(node.body[0], ast.Import | ast.ImportFrom)
        is_stand_in = isinstance(node, ast.Assign) and (
            "absent" in ast.unparse(node.value)
            or (isinstance(node.value, ast.Constant | ast.UnaryOp | ast.Tuple) and node.lineno < 60)
        )
        if is_import or is_guard or is_stand_in:
            lines[node.lineno - 1 : node.end_lineno] = [""] * (node.end_lineno - node.lineno + 1)
    return [line for line in lines if line.strip()]


def test_config_that_is_not_an_object_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ModelFolderError, match=r"config.json: it must be a JSON object, not \[\]"):
        add_code(tmp_path, with_code=False)
