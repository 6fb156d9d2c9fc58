from __future__ import annotations

import ast
import configparser
import json
import re
import shutil
import subprocess
import sys
import zipfile
from importlib import import_module
from pathlib import Path

import pytest
import yaml

import xlgen_hf

ROOT = Path(__file__).parent.parent
SHIPPED = ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", "xlgen_hf", "evaluate_metrics", "hub_cards")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy, since building leaves files in the tree."""
    place = tmp_path_factory.mktemp("wheel")
    copy = place / "checkout"
    copy.mkdir()
    for name in SHIPPED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(source, copy / name)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    done = subprocess.run([*command, "--wheel-dir", place, copy], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (path,) = place.glob("*.whl")
    return path


def files_of(folder, inside):
    return {
        f"{inside}/{path.relative_to(ROOT / folder).as_posix()}"
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"
    }


def test_wheel_has_every_file(wheel):
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    expected = files_of("xlgen_hf", "xlgen_hf")
    expected |= files_of("evaluate_metrics", "xlgen_hf/evaluate_metrics") | files_of("hub_cards", "xlgen_hf/hub_cards")
    assert packed == expected
    assert {"xlgen_hf/py.typed", "xlgen_hf/samples/yso/train.jsonl.gz", "xlgen_hf/samples/yso/README.md"} <= packed
    assert {"xlgen_hf/evaluate_metrics/xmc_f1/xmc_f1.py", "xlgen_hf/evaluate_metrics/xmc_f1/README.md"} <= packed


def test_wheel_metadata(wheel):
    archive = zipfile.ZipFile(wheel)
    folder = f"xlgen_hf-{xlgen_hf.__version__}.dist-info"
    metadata = archive.read(f"{folder}/METADATA").decode()
    assert "\nLicense: Apache-2.0\n" in metadata
    assert "Requires-Python: >=3.10" in metadata
    assert f"{folder}/licenses/LICENSE" in archive.namelist()
    assert "xlgen = xlgen_hf.cli.main:run" in archive.read(f"{folder}/entry_points.txt").decode()
    extras = {line.split()[1] for line in metadata.splitlines() if line.startswith("Provides-Extra")}
    assert {"offline", "test", "lora", "plot", "demo", "serve", "tensorboard", "baselines", "optuna"} <= extras


def test_installed_wheel_finds_its_resources(wheel, tmp_path):
    """What was installed, and no checkout beside it, scores by the metric that came with it."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    script = (
        "import json, xlgen_hf\n"
        "from xlgen_hf.files.resources import resource_folder\n"
        "from xlgen_hf.evaluation.scoring import score_labels\n"
        "score = score_labels([['a', 'b']], [['a', 'c']])['micro_f1']\n"
        "print(json.dumps([xlgen_hf.__file__, str(resource_folder('hub_cards')), score]))\n"
    )
    # Isolated (-I) and with the wheel's files first, so that nothing of the checkout is on the path.
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{script}"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    package, cards, score = json.loads(done.stdout)
    assert package == str(tmp_path / "xlgen_hf" / "__init__.py")
    assert cards == str(tmp_path / "xlgen_hf" / "hub_cards")
    assert score == pytest.approx(0.5)


def test_setup_lists_every_package():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    listed = set(setup["options"]["packages"].split())
    found = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "xlgen_hf").rglob("__init__.py")}
    assert listed == found | {"xlgen_hf.evaluate_metrics", "xlgen_hf.hub_cards"}


def test_extras_are_documented_and_bring_what_errors_say():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    extras = setup["options.extras_require"]
    page = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    table = {
        name
        for line in page.splitlines()
        if line.startswith("| `")
        for name in re.findall(r"`(\w+)`", line.split("|")[1])
    }
    assert set(extras) == table
    calls = [
        [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
        for path in (ROOT / "xlgen_hf").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "MissingExtraError"
    ]
    named = [values for values in calls if len(values) == 2 and values[1]]  # the others are made of variables
    assert ["optuna", "optuna"] in named
    assert not [(package, extra) for package, extra in named if package not in re.findall(r"[\w-]+", extras[extra])]


def test_figures_of_the_readme_are_absolute_as_soon_as_there_is_an_address():
    """A package index shows the README without the repository beside it. Today no public address is known."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    lines = setup["metadata"]["project_urls"].strip().splitlines()
    addresses = [line.partition("=")[2].strip() for line in lines if not line.startswith("Paper")]
    figures = re.findall(r"!\[[^\]]*\]\(([^)\s]+)\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert figures
    assert not addresses or all(figure.startswith("https://") for figure in figures), (
        f"setup.cfg names {addresses}: put the address of the files before the path of each figure in README.md"
    )


# What a user passes in or gets out.
PUBLIC = {
    "Concept", "DataCollatorForXLGen", "DecisionRule", "DecodingOptions", "LabelClusters", "LabelEdits",
    "LabelEvidence", "LabelPrediction", "LabelRetriever", "LabelSpace", "LabelTrie", "PredictedConcept", "Predictor",
    "RowOptions", "Vocabulary", "XLGenConfig", "XLGenForConditionalGeneration", "XLGenPipeline", "XLGenProcessor",
    "XLGenTrainer", "XLGenTrainingArguments", "__version__", "add_lora", "drop_labels", "fit_clusters", "load_model",
    "load_predictor", "load_rows", "lora_config", "plot_clusters", "plot_reliability", "plot_risk_coverage",
    "plot_shot_buckets", "plot_training", "push_dataset", "push_metric", "push_model", "push_space", "read_vocabulary",
    "reliability_table", "risk_coverage", "undo_update", "update_model", "write_vocabulary",
}  # fmt: skip


def names_for_type_checkers() -> dict[str, str]:
    """Public names -> the modules from which type checkers and editors read them."""
    tree = ast.parse((ROOT / "xlgen_hf" / "__init__.py").read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    return {alias.name: f"xlgen_hf.{node.module}" for node in block.body for alias in node.names}


def test_public_names():
    assert set(xlgen_hf.__all__) == PUBLIC
    assert set(dir(xlgen_hf)) >= PUBLIC
    with pytest.raises(AttributeError, match="module 'xlgen_hf' has no attribute 'XLGen'"):
        _ = xlgen_hf.XLGen


def test_type_checkers_see_the_same_names():
    modules = names_for_type_checkers()
    assert {*modules, "__version__"} == PUBLIC
    for name, path in modules.items():
        module = import_module(path)
        assert getattr(xlgen_hf, name) is getattr(module, name)
        assert name in module.__all__


def test_sample_is_small_and_whole():
    from xlgen_hf.data.rows import load_label_names, load_rows

    folder = ROOT / "xlgen_hf" / "samples" / "yso"
    assert sum(path.stat().st_size for path in folder.iterdir()) < 1_000_000
    splits = {split: load_rows(folder, split=split) for split in ("train", "validation", "test")}
    names = load_label_names(folder / "labels.txt.gz")
    used = {split: {label for labels in rows["labels"] for label in labels} for split, rows in splits.items()}
    assert set().union(*used.values()) == set(names)
    titles = [title for rows in splits.values() for title in rows["text"]]
    assert len(set(titles)) == len(titles)
    assert len(used["test"] - used["train"]) >= 60
    counts = {name: 0 for name in names}
    for labels in splits["train"]["labels"]:
        for label in labels:
            counts[label] += 1
    assert sum(counts[label] == 1 for label in used["test"]) >= 60


def test_contributing_names_files_that_exist():
    """Whoever follows it finds them, and no package of the house is missing in it."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    quoted = re.findall(r"`([\w./-]+)`", text)
    paths = [name for name in quoted if "/" in name or name.endswith((".py", ".md"))]
    places = (ROOT, ROOT / "xlgen_hf", ROOT / "xlgen_hf" / "experiments")
    missing = [name for name in paths if not any((place / name).exists() for place in places)]
    assert not missing
    packages = {f"{path.parent.name}/" for path in (ROOT / "xlgen_hf").glob("*/__init__.py")}
    modules = {path.name for path in (ROOT / "xlgen_hf").glob("[a-z]*.py")}
    assert packages | modules <= set(quoted)


def test_citation_names_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == xlgen_hf.__version__
    assert [author["family-names"] for author in citation["preferred-citation"]["authors"]] == [
        "Jung", "Kim", "Lee", "Kang",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "path", sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")), ids=lambda path: path.name
)
def test_issue_forms_are_those_of_github(path):
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    if path.name == "config.yml":
        assert form == {"blank_issues_enabled": True}
        return
    assert {"name", "description", "body"} <= set(form)
    for part in form["body"]:
        needed = "value" if part["type"] == "markdown" else "label"
        assert part["attributes"][needed]
