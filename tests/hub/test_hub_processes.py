"""The command line and a test Hub from end to end: each user is a fresh process with an empty home folder.

One user after another works on the same Hub, so the steps are fixtures of the module, and the tests look at what they
left. Starting a process costs seconds, so a process does all that its user does.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from processes import run_fresh
from tiny import ROWS, VOCABULARY, Hub, make_clusters
from transformers import AutoTokenizer

from xlgen_hf.files.json_lines import write_jsonl
from xlgen_hf.labels.space import LabelSpace
from xlgen_hf.modeling_xlgen import XLGenForConditionalGeneration
from xlgen_hf.processing_xlgen import XLGenProcessor

ROOT = Path(__file__).parents[2]
WRONG = "hf_wrongSecretToken"
MARK = "=> exit code"
VOCABULARY_FILE = b"word\n" * 300_000  # more than the test Hub takes in a commit itself
# Runs the command lines that stand in its argument, then the script beside them.
DRIVER = f"""
import json, sys
from xlgen_hf.cli.main import main
for argv in json.loads(sys.argv[1]):
    print({MARK!r}, main(argv), flush=True)
exec(sys.argv[2])
"""


class User:
    """A user with a token, a home folder and a machine of their own."""

    def __init__(self, hub: Hub, folder: Path, name: str, token: str | None) -> None:
        self.home = folder / f"home-{name}"
        self.home.mkdir()
        self.environment = hub.environment(self.home, token) | {"PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT)}
        self.output = ""

    def run(self, *commands: list[str], script: str = "", driver: str = DRIVER) -> SimpleNamespace:
        """Run command lines and a script: exit code and output of each command, the script's last line."""
        done = run_fresh(
            driver, json.dumps(commands), script, environment=self.environment, folder=self.home, together=True
        )
        self.output += done.stdout
        assert done.returncode == 0, done.stdout[-3000:]
        *parts, rest = done.stdout.split(MARK)
        tails = [part.lstrip().partition("\n") for part in (*parts[1:], rest)] if parts else []
        codes, behind = [int(code) for code, _, _ in tails], [text for _, _, text in tails]
        outputs = [parts[0], *behind[:-1]] if parts else []
        last = (behind[-1] if behind else rest).strip().splitlines()[-1:]
        return SimpleNamespace(codes=codes, outputs=outputs, value=json.loads(last[0]) if script else None)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("hub-processes")


@pytest.fixture(scope="module")
def the_hub(hub_process):
    hub_process.ask("clear")
    return hub_process


@pytest.fixture(scope="module")
def files(place, checkpoints):
    """Rows, a vocabulary, and the folder of a model with a file too large for a commit."""
    write_jsonl(place / "rows.jsonl", ROWS)
    (place / "labels.txt").write_text("\n".join(VOCABULARY), encoding="utf-8")
    space = LabelSpace.from_label_lists([row["labels"] for row in ROWS], VOCABULARY)
    tokenizer = AutoTokenizer.from_pretrained(checkpoints["bert"])
    processor = XLGenProcessor(tokenizer, space, make_clusters(space), max_source_length=64, max_target_length=64)
    model = XLGenForConditionalGeneration.from_backbone(
        checkpoints["bert"], processor, variant="bcl", decoder_layers=1
    )
    for name in ("model", "draft"):
        model.save_pretrained(place / name)
        processor.save_pretrained(place / name)
    (place / "model" / "vocab.txt").write_bytes(VOCABULARY_FILE)
    settings = json.loads((place / "draft" / "processor_config.json").read_text())
    (place / "draft" / "processor_config.json").write_text(json.dumps({**settings, "max_source_length": 32}))
    return place


@pytest.fixture(scope="module")
def owner(the_hub, files):
    """Alice, who puts data sets, a model, the metric and a private model up."""
    user = User(the_hub, files, "owner", Hub.alice)
    rows, model = str(files / "rows.jsonl"), str(files / "model")
    titles = ["push", "dataset", "--train-file", rows, "--validation-file", rows, "--test-file", rows]
    push = ["push", "model", "--repo-id"]
    user.done = user.run(
        [*titles, "--labels", str(files / "labels.txt"), "--repo-id", "acme/titles", "--license", "cc0-1.0"],
        ["push", "dataset", "--train-file", rows, "--repo-id", "alice/secret-titles", "--private"],
        [*push, "acme/tiny", "--model", model],
        [*push, "acme/tiny", "--model", model],
        [*push, "acme/tiny", "--model", str(files / "draft"), "--revision", "draft"],
        [*push, "alice/secret", "--model", model, "--private"],
        ["push", "metric", "--repo-id", "acme/xmc_f1"],
    )
    user.requests = the_hub.ask("requests")
    return user


@pytest.fixture(scope="module")
def trainer(the_hub, files, owner, checkpoints):
    """Alice on another machine, who trains an adapter on the Hub's data set and puts it up for the organisation."""
    user = User(the_hub, files, "trainer", Hub.alice)
    adapter = str(user.home / "adapter")
    train = [
        "train", "--lora", "--train-file", "acme/titles", "--validation-file", "acme/titles", "--labels",
        "acme/titles", "--backbone", checkpoints["t5"], "--variant", "bcl", "--num-clusters", "3", "--lora-rank", "4",
        "--output-dir", adapter, "--use_cpu", "--num_train_epochs", "6", "--learning_rate", "0.3",
        "--per_device_train_batch_size", "2",
    ]  # fmt: skip
    push = ["push", "model", "--model", adapter, "--repo-id", "acme/adapter", "--private"]
    predict = ["predict", "--input-file", "acme/titles", "--output-file"]
    user.local, user.base = user.home / "local.jsonl", user.home / "base.jsonl"
    user.done = user.run(
        train,
        [*predict, str(user.local), "--model", adapter],
        [*predict, str(user.base), "--model", f"{adapter}/base"],
        [*push, "--dry-run"],
        push,
        push,
    )
    user.settings = json.loads((user.home / "adapter" / "adapter_config.json").read_text())
    (user.home / "adapter").rename(user.home / "moved")  # so that nobody finds the base by its old path
    return user


# Everything that loads the adapter by its id; what each of them predicts.
LOADERS = f"""
from peft import AutoPeftModelForSeq2SeqLM
from transformers import AutoModelForSeq2SeqLM
from xlgen_hf import XLGenForConditionalGeneration, XLGenProcessor
from xlgen_hf.loading import load_model
model, processor = load_model("acme/adapter")
models = [model] + [
    loader.from_pretrained("acme/adapter").eval()
    for loader in (XLGenForConditionalGeneration, AutoModelForSeq2SeqLM, AutoPeftModelForSeq2SeqLM)
]
texts = {[row["text"] for row in ROWS]!r}
found = [[one.to_dict() for one in model.predict(texts, processor)] for model in models]
print(json.dumps([[type(model).__name__ for model in models], found]))
"""


@pytest.fixture(scope="module")
def member(the_hub, files, trainer):
    """A member of the organisation, who uses the adapter and the private model."""
    user = User(the_hub, files, "member", Hub.alice)
    predict = ["predict", "--input-file", "acme/titles", "--output-file"]
    user.predicted = user.home / "predicted.jsonl"
    user.done = user.run(
        [*predict, str(user.predicted), "--model", "acme/adapter"],
        [*predict, str(user.home / "secret.jsonl"), "--model", "alice/secret"],
        script=LOADERS,
    )
    return user


# What a card tells its reader to run, what it says, another branch, and a file that went over LFS.
READER = """
import hashlib
from pathlib import Path
from huggingface_hub import DatasetCard, ModelCard, hf_hub_download
from xlgen_hf.loading import load_model
card = ModelCard.load("acme/tiny")
exec(card.text.split("```python\\n")[1].split("```")[0])
lengths = [load_model("acme/tiny", revision=revision)[1].max_source_length for revision in ("main", "draft")]
large = hashlib.sha256(Path(hf_hub_download("acme/tiny", "vocab.txt")).read_bytes()).hexdigest()
data = [card.data.library_name, DatasetCard.load("acme/titles").data.license]
print(json.dumps([prediction.to_dict(), lengths, large, data]))
"""


@pytest.fixture(scope="module")
def visitor(the_hub, files, trainer):
    """Somebody without a token."""
    user = User(the_hub, files, "visitor", None)
    predict = ["predict", "--input-file", "acme/titles", "--model"]
    the_hub.fault("GET", "/acme/tiny/resolve/.*/model.safetensors", "half")  # the download breaks off, and goes on
    user.done = user.run(
        [*predict, "acme/tiny"], [*predict, "alice/secret"], [*predict, "acme/adapter"],
        ["push", "model", "--model", str(files / "model"), "--repo-id", "acme/tiny"], script=READER,
    )  # fmt: skip
    return user


# Without this package: data set, label space and metric, as their cards say.
STRANGER = """
import json, sys
sys.modules["xlgen_hf"] = None
from datasets import load_dataset
from huggingface_hub import RepoCard, hf_hub_download
found = {name: part.to_list() for name, part in load_dataset("acme/titles").items()}
labels = load_dataset("acme/titles", "label_space", split="train").to_list()
card = RepoCard.load(hf_hub_download("acme/xmc_f1", "README.md", repo_type="space"), ignore_metadata_errors=True)
exec(card.text.split("```python\\n")[1].split("```")[0])
print(json.dumps([found, labels, card.data.to_dict()["sdk"]]))
"""


@pytest.fixture(scope="module")
def stranger(the_hub, files, owner):
    user = User(the_hub, files, "stranger", None)
    user.environment["PYTHONPATH"] = ""
    user.done = user.run(script="all of it is in the driver", driver=STRANGER)
    return user


REFUSED = """
from xlgen_hf.data.rows import load_label_names, load_rows
errors = []
for load, name in ((load_rows, "alice/secret-titles"), (load_label_names, "alice/secret-titles")):
    try:
        load(name)
    except ValueError as err:
        errors.append(str(err))
print(json.dumps(errors))
"""


@pytest.fixture(scope="module", params=[("wrong", WRONG), ("bob", Hub.bob)], ids=["wrong token", "no member"])
def refused(request, the_hub, files, owner):
    """Somebody with a token that is wrong, and somebody who is no member."""
    name, token = request.param
    user = User(the_hub, files, name, token)
    user.name = name
    push = ["push", "dataset", "--train-file", str(files / "rows.jsonl"), "--repo-id"]
    user.done = user.run([*push, "acme/titles"], [*push, "acme/new-titles"], script=REFUSED)
    return user


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def without_token(user: User) -> bool:
    """Whether no token stands in what a user's processes printed, or left in the home folder."""
    tokens = (Hub.alice, Hub.bob, WRONG)
    left = (path.read_bytes() for path in user.home.rglob("*") if path.is_file())
    return not any(token in user.output for token in tokens) and not any(
        token.encode() in content for content in left for token in tokens
    )


def test_owner_pushes_everything(owner, the_hub):
    assert owner.done.codes == [0] * 7, owner.output
    assert "Uploaded as commit" in owner.done.outputs[2]
    assert "Nothing has changed since commit" in owner.done.outputs[3]
    assert [commit["title"] for commit in the_hub.history("acme/tiny")] == ["initial", "Upload XLGen model"]
    assert len(the_hub.history("acme/tiny", branch="draft")) == 3
    assert len(the_hub.history("acme/xmc_f1", "space")) == 2
    assert "model alice/secret, main, private" in owner.done.outputs[5]
    # Pushed three times, to two repositories.
    assert owner.requests.count(f"PUT /_lfs/{hashlib.sha256(VOCABULARY_FILE).hexdigest()}") == 1
    assert without_token(owner)


def test_adapter_is_trained_on_a_data_set_of_the_hub_and_goes_up_with_its_base(trainer, the_hub):
    assert trainer.done.codes == [0] * 6, trainer.output
    plan, pushed, again = trainer.done.outputs[3:]
    for output in (plan, pushed):
        assert output.index("model acme/adapter-base, main, private") < output.index(
            "model acme/adapter, main, private"
        )
        assert output.count("model.safetensors") == 2  # of the base, and adapter_model.safetensors
    assert "Dry run: nothing was uploaded." in plan
    assert again.count("Nothing has changed since commit") == 2
    _, base = the_hub.history("acme/adapter-base")
    assert "model.safetensors" in base["files"]
    files = the_hub.history("acme/adapter")[-1]["files"]
    assert {"adapter_model.safetensors", "config.json", "label_space.json", "training_report.json"} <= set(files)
    assert not {name for name in files if name == "model.safetensors" or name.startswith("base/")}
    settings = json.loads(the_hub.file("acme/adapter", "adapter_config.json"))
    assert (settings["base_model_name_or_path"], settings["revision"]) == ("acme/adapter-base", base["oid"])
    local = {"base_model_name_or_path": str(trainer.home / "adapter" / "base"), "revision": None}
    assert trainer.settings == settings | local  # the folder itself stays as training left it
    card = the_hub.file("acme/adapter", "README.md").decode()
    assert "base_model: acme/adapter-base\nbase_model_relation: adapter\n" in card
    assert "datasets:\n- acme/titles\n" in card
    assert str(trainer.home.parent) not in card + json.dumps(settings)
    assert without_token(trainer)


def test_adapter_from_the_hub_predicts_what_the_local_one_did(member, trainer):
    assert member.done.codes == [0, 0], member.output
    expected = rows_of(trainer.local)
    assert rows_of(member.predicted) == expected
    names, predictions = member.done.value
    assert names == ["XLGenForConditionalGeneration"] * 3 + ["PeftModelForSeq2SeqLM"]
    for found in predictions[:3]:
        assert found == expected
    assert [one["labels"] for one in predictions[3]] == [one["labels"] for one in expected]
    for one, other in zip(predictions[3], expected, strict=True):  # in place of a merged matrix, a sum of two products
        assert one["scores"] == pytest.approx(other["scores"], abs=1e-4)
    base = rows_of(trainer.base)
    assert [one["labels"] for one in base] != [one["labels"] for one in expected]
    assert len(rows_of(member.home / "secret.jsonl")) == len(ROWS)
    assert without_token(member)


def test_visitor_uses_what_is_public(visitor, files):
    assert visitor.done.codes == [0, 1, 1, 1], visitor.output
    expected = XLGenForConditionalGeneration.from_pretrained(files / "model").predict(
        [row["text"] for row in ROWS], XLGenProcessor.from_pretrained(files / "model")
    )
    found = [json.loads(line) for line in visitor.done.outputs[0].splitlines() if line.startswith("{")]
    assert found == [one.to_dict() for one in expected]
    prediction, lengths, large, data = visitor.done.value
    assert set(prediction) >= {"labels", "scores"}
    assert lengths == [64, 32]
    assert large == hashlib.sha256(VOCABULARY_FILE).hexdigest()
    assert data == ["xlgen-hf", "cc0-1.0"]
    for name, output in zip(("alice/secret", "acme/adapter"), visitor.done.outputs[1:3], strict=True):
        assert "401 Client Error" in output
        assert f"{name!r} is not a folder here and cannot be loaded from the Hub" in output
        assert "Traceback" not in output
    assert "Give the token of a user who may write there" in visitor.done.outputs[3]


def test_data_set_and_metric_serve_without_the_package(stranger):
    found, labels, sdk = stranger.done.value
    assert found == dict.fromkeys(("train", "validation", "test"), ROWS)
    counts = {row["label"]: row["train_documents"] for row in labels}
    assert counts["music"] == 4
    assert {name for name, count in counts.items() if count == 0} == set(VOCABULARY)
    assert sdk == "gradio"
    assert "\n0.5\n" in stranger.output


def test_refusals(refused, the_hub):
    assert refused.done.codes == [1, 1], refused.output
    hint = {"wrong": "Give the token of a user who may write there", "bob": "may not write there"}[refused.name]
    for output in refused.done.outputs:
        assert hint in output
        assert "Traceback" not in output
    rows, labels = refused.done.value
    assert "alice/secret-titles: There is no such file or folder, and no data set of this name can be loaded" in rows
    assert "alice/secret-titles: There is no such file, and no data set of this name with a configuration" in labels
    assert the_hub.history("acme/new-titles", "dataset") is None
    assert len(the_hub.history("acme/titles", "dataset")) == 2
    assert without_token(refused)
