"""Pushes to a Hub on loopback with the unmodified client; `test_hub_processes.py` has the way back."""

from __future__ import annotations

import io
import json
import logging
import os
import shutil
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from datasets import Dataset, Features
from huggingface_hub import HfApi
from tiny import ROWS, VOCABULARY, Hub

from xlgen_hf import RowOptions
from xlgen_hf.data.rows import FEATURES
from xlgen_hf.errors import ConfigurationError, HubError, ModelFolderError
from xlgen_hf.files.json_lines import write_jsonl
from xlgen_hf.files.saving import replace_files
from xlgen_hf.hub.card_text import BEGIN, END
from xlgen_hf.hub.datasets import push_dataset
from xlgen_hf.hub.push import HubTarget, PlannedFile, push_metric, push_model
from xlgen_hf.labels.space import LabelSpace
from xlgen_hf.loading import load_model, load_predictor
from xlgen_hf.modeling_xlgen import XLGenForConditionalGeneration
from xlgen_hf.processing_xlgen import XLGenProcessor

MODEL_PATHS = {
    ".gitattributes", "README.md", "config.json", "generation_config.json", "label_clusters.json",
    "label_clusters.safetensors", "label_space.json", "label_trie.safetensors", "model.safetensors",
    "processor_config.json", "score_model.json", "tokenizer.json", "tokenizer_config.json",
}  # fmt: skip


@pytest.fixture
def folder(make_model, tmp_path):
    """A model folder as a training leaves it, with what is nobody else's business beside the model."""
    model, processor = make_model("bert", "bcl")
    place = tmp_path / "model"
    model.save_pretrained(place)
    processor.save_pretrained(place)
    (place / "checkpoint-3").mkdir()
    for name in ("checkpoint-3/model.safetensors", "optimizer.pt", "training_args.json", ".env", "run.log", "x.bin"):
        (place / name).write_text("private")
    return place


# ---------------------------------------------------------------------------------------------------- models


def test_model_goes_up_in_one_commit(hub, folder):
    report = push_model(folder, "alice/tiny")
    start, commit = hub.history("alice/tiny")
    assert start["files"] == [".gitattributes"]
    assert set(commit["files"]) == MODEL_PATHS
    assert (report.commit, report.changed) == (commit["oid"], True)
    assert report.url == f"{hub.url}/alice/tiny"


def test_a_card_that_cannot_be_read_is_named(hub, folder):
    (folder / "README.md").write_bytes("# Schlagwörter".encode("latin-1"))
    with pytest.raises(ModelFolderError, match=r"README\.md is not UTF-8 .* Save it as UTF-8, then push again"):
        push_model(folder, "alice/tiny", dry_run=True)


def test_a_model_in_a_folder_of_a_repository(hub, folder):
    """The fault: the processor of the repository's root came back, and the model was looked for in the wrong place."""
    push_model(folder, "alice/tiny")
    below = folder.parent / "below"
    shutil.copytree(folder, below / "v2")
    settings = json.loads((below / "v2" / "processor_config.json").read_text())
    (below / "v2" / "processor_config.json").write_text(json.dumps({**settings, "max_source_length": 33}))
    HfApi().upload_folder(repo_id="alice/tiny", folder_path=below, allow_patterns=["v2/*.json", "v2/*.safetensors"])
    for name in ("alice/tiny", str(below)):
        assert XLGenProcessor.from_pretrained(name, subfolder="v2").max_source_length == 33
        assert load_model(name, subfolder="v2")[1].max_source_length == 33
        assert load_predictor(name, subfolder="v2").source.processor.max_source_length == 33
        assert XLGenForConditionalGeneration.from_pretrained(name, subfolder="v2").config.variant == "bcl"
    assert XLGenProcessor.from_pretrained("alice/tiny").max_source_length == settings["max_source_length"]


def test_pushing_again_uploads_only_what_changed(hub, folder):
    first = push_model(folder, "alice/tiny")
    again = push_model(folder, "alice/tiny")
    assert (again.commit, again.changed) == (first.commit, False)
    requests = hub.ask("requests")
    assert sum(request.startswith("PUT /_lfs/") for request in requests) == 3  # three safetensors files, once each
    (folder / "generation_config.json").unlink()
    settings = json.loads((folder / "processor_config.json").read_text())
    (folder / "processor_config.json").write_text(json.dumps({**settings, "max_source_length": 32}))
    assert push_model(folder, "alice/tiny").changed
    *_, last = hub.history("alice/tiny")
    assert set(last["files"]) == MODEL_PATHS - {"generation_config.json"}
    assert json.loads(hub.file("alice/tiny", "processor_config.json"))["max_source_length"] == 32
    assert sum(request.startswith("PUT /_lfs/") for request in hub.ask("requests")) == 3


def test_files_that_people_added_stay(hub, folder):
    from huggingface_hub import HfApi

    push_model(folder, "alice/tiny")
    HfApi().upload_file(path_or_fileobj=b"print()", path_in_repo="demo.py", repo_id="alice/tiny")
    push_model(folder, "alice/tiny", scores={"micro_f1": 0.5})
    *_, last = hub.history("alice/tiny")
    assert set(last["files"]) == {*MODEL_PATHS, "demo.py"}
    assert b"model-index" in hub.file("alice/tiny", "README.md")


def test_dry_run_lists_files_and_asks_nobody(hub, folder):
    report = push_model(folder, "alice/tiny", dry_run=True, private=True, revision="draft")
    plan = report.plan
    assert {file.path for file in plan.files} == MODEL_PATHS - {".gitattributes"}
    assert PlannedFile("model.safetensors", (folder / "model.safetensors").stat().st_size) in plan.files
    assert plan.size == sum(file.size for file in plan.files)
    assert (plan.repo_id, plan.repo_type, plan.revision, plan.private) == ("alice/tiny", "model", "draft", True)
    assert (report.url, report.commit, report.changed) == (None, None, False)
    assert hub.ask("requests") == []


def test_a_model_whose_save_was_interrupted_goes_up_whole(hub, folder, make_model, monkeypatch):
    """The fault: some files of the new model and the rest of the old one."""
    rename = os.replace

    def dying(source, target):  # when config.json is in its place
        if Path(target) == folder / "label_space.json":
            raise KeyboardInterrupt("died here")
        rename(source, target)

    other = make_model("bert", "bcl", LabelSpace.from_label_lists([["music", "art"], ["art"]]))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt, match="died here"):
        patch.setattr(os, "replace", dying)
        with replace_files(folder) as aside:
            for one in other:
                one.save_pretrained(aside)
    push_model(folder, "alice/tiny")
    model, processor = load_model("alice/tiny")
    assert processor.label_space.names == other[1].label_space.names
    assert all(value.equal(other[0].state_dict()[name]) for name, value in model.state_dict().items())


def test_model_object_brings_its_processor(hub, make_model):
    model, processor = make_model("t5", "base")
    with pytest.raises(ConfigurationError, match="without its processor"):
        model.push_to_hub("alice/object")
    report = model.push_to_hub("alice/object", processor=processor, commit_message="First", license_id="mit")
    _, commit = hub.history("alice/object")
    assert commit["title"] == "First"
    assert {"model.safetensors", "label_space.json", "README.md"} <= set(commit["files"])
    assert report.changed
    assert b"license: mit" in hub.file("alice/object", "README.md")


def test_trainer_pushes_model_and_processor_in_one_commit(hub, make_model, tmp_path):
    from xlgen_hf.training.arguments import XLGenTrainingArguments
    from xlgen_hf.training.trainer import XLGenTrainer

    model, processor = make_model("bert", "bcl")
    args = XLGenTrainingArguments(str(tmp_path / "out"), use_cpu=True, hub_model_id="acme/trained")
    trainer = XLGenTrainer(model, args, processing_class=processor, train_dataset=Dataset.from_list(ROWS))
    report = trainer.push_to_hub(private=True)
    assert report.plan.private
    assert len(hub.history("acme/trained")) == 2
    assert set(hub.history("acme/trained")[1]["files"]) == MODEL_PATHS


def test_branch_and_pull_request(hub, folder):
    push_model(folder, "acme/tiny")
    push_model(folder, "acme/tiny", revision="v2", scores={"micro_f1": 0.25}, message="Scores")
    assert [commit["title"] for commit in hub.history("acme/tiny")] == ["initial", "Upload XLGen model"]
    assert [commit["title"] for commit in hub.history("acme/tiny", branch="v2")][1:] == [
        "Upload XLGen model",
        "Scores",
    ]
    report = push_model(folder, "acme/tiny", create_pr=True, dataset="acme/titles")
    assert "/discussions/" in report.url
    assert len(hub.history("acme/tiny")) == 2
    before = hub.history("acme/tiny", branch="v2")
    push_model(folder, "acme/tiny", create_pr=True, revision="v2", message="For v2")
    assert hub.history("acme/tiny", branch="v2") == before
    *_, parent, request = hub.history("acme/tiny", branch="refs/pr/3")
    assert (parent["oid"], request["title"]) == (before[-1]["oid"], "For v2")


def test_private_repository_is_for_its_owner(hub, folder, tmp_path):
    push_model(folder, "alice/secret", private=True)
    found = XLGenProcessor.from_pretrained("alice/secret", token=Hub.alice, cache_dir=tmp_path / "alice")
    assert found.label_space.names == XLGenProcessor.from_pretrained(folder).label_space.names
    answers = {False: "401 Client Error", Hub.bob: "404 Client Error", "hf_wrongSecretToken": "Invalid credentials"}
    for number, (token, answer) in enumerate(answers.items()):  # each with a cache of its own
        with pytest.raises(OSError, match=rf"'alice/secret' is not a folder here .*{answer}"):
            XLGenProcessor.from_pretrained("alice/secret", token=token, cache_dir=tmp_path / str(number))


def test_public_repository_is_not_taken_for_a_private_one(hub, folder):
    push_model(folder, "alice/open")
    with pytest.raises(HubError, match="exists and is public, but private=True"):
        push_model(folder, "alice/open", private=True, scores={"micro_f1": 0.5})
    assert len(hub.history("alice/open")) == 2


@pytest.mark.parametrize(
    ("token", "name", "message"),
    [
        (Hub.bob, "acme/tiny", "may not write there"),
        (Hub.alice, "others/tiny", "may not write there"),
        (Hub.read_only, "alice/tiny", "may only read"),
        ("hf_wrongSecretToken", "alice/tiny", "Give the token of a user who may write there"),
        (Hub.alice, "alice/a b", "An id is `owner/name`"),
    ],
)
def test_refusals_say_what_to_do(hub, folder, token, name, message, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_anotherSecretToken")
    with pytest.raises(HubError, match=message) as caught:
        push_model(folder, name, token=token)
    assert token not in str(caught.value)
    assert hub.history(name) is None


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("config.json", r"config.json is missing"),
        ("label_space.json", r"label_space.json is missing"),
        ("processor_config.json", r"processor_config.json is missing"),
        ("model.safetensors", r"lacks the weights \['model.safetensors'\]; pickled weights are never uploaded"),
    ],
)
def test_half_a_model_is_refused(hub, folder, missing, message):
    (folder / missing).unlink()
    with pytest.raises(ModelFolderError, match=message):
        push_model(folder, "alice/half")
    assert hub.ask("requests") == []


def test_lost_shard_and_missing_folder_are_refused(folder, tmp_path):
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelFolderError, match=r"lacks the weights \['model-00001-of-00002.safetensors'\]"):
        push_model(folder, "alice/half", dry_run=True)
    with pytest.raises(ModelFolderError, match="There is no folder"):
        push_model(tmp_path / "nothing", "alice/half", dry_run=True)


# ---------------------------------------------------------------------------------------------------- faults


@pytest.mark.parametrize(
    ("method", "path", "fault", "is_absorbed"),
    [
        ("POST", "/commit/", {"kind": "status", "status": 500}, False),
        ("POST", "/commit/", {"kind": "status", "status": 429}, False),
        ("POST", "/commit/", {"kind": "cut"}, True),
        ("PUT", "/_lfs/", {"kind": "cut"}, True),
        ("POST", "/objects/batch", {"kind": "status", "status": 503}, True),
        ("POST", "/preupload/", {"kind": "half"}, True),
        ("POST", "/commit/", {"kind": "slow", "seconds": 0.3}, True),
    ],
)
def test_passing_fault_ends_in_one_commit(hub, folder, method, path, fault, is_absorbed):
    """Once answered wrongly, then rightly: client or package try again, or the user does; never half a commit."""
    hub.fault(method, path, **fault)
    if not is_absorbed:
        with pytest.raises(HubError, match=r"Pushing the model 'alice/tiny' failed"):
            push_model(folder, "alice/tiny")
        assert len(hub.history("alice/tiny")) == 1
    push_model(folder, "alice/tiny")
    assert [len(commit["files"]) for commit in hub.history("alice/tiny")] == [1, len(MODEL_PATHS)]


@pytest.mark.parametrize(
    ("method", "path", "fault", "message"),
    [
        ("POST", "/commit/", {"kind": "status", "status": 500}, "Nothing was committed"),
        ("POST", "/commit/", {"kind": "status", "status": 429}, "slow down"),
        ("POST", "/commit/", {"kind": "cut"}, "Nothing was committed"),
        ("PUT", "/_lfs/", {"kind": "cut"}, "Nothing was committed"),
        ("PUT", "/_lfs/", {"kind": "status", "status": 500}, "Nothing was committed"),
        ("POST", "/preupload/", {"kind": "status", "status": 500}, "Nothing was committed"),
        ("GET", "/api/models/alice", {"kind": "status", "status": 500}, "Nothing was committed"),
    ],
)
def test_lasting_fault_leaves_the_repository_as_it_was(hub, folder, method, path, fault, message):
    push_model(folder, "alice/tiny")
    before = hub.history("alice/tiny")
    model, processor = folder / "config.json", folder / "processor_config.json"
    model.write_text(model.read_text().replace('"min_labels": 1', '"min_labels": 2'))
    processor.write_text(processor.read_text().replace("64", "32"))
    (folder / "label_clusters.safetensors").write_bytes(os.urandom(200))
    hub.fault(method, path, times=100, **fault)
    with pytest.raises(HubError, match=message):
        push_model(folder, "alice/tiny")
    assert hub.history("alice/tiny") == before


def test_commit_whose_answer_is_lost_is_not_made_twice(hub, folder):
    push_model(folder, "alice/tiny")
    hub.fault("POST", "/commit/", "lost")
    report = push_model(folder, "alice/tiny", scores={"micro_f1": 0.5})
    assert [commit["oid"] for commit in hub.history("alice/tiny")][-1] == report.commit
    assert report.changed
    assert len(hub.history("alice/tiny")) == 3


def test_commit_of_others_in_between_is_kept(hub, folder, monkeypatch):
    from huggingface_hub import HfApi

    push_model(folder, "alice/tiny")
    commit, other = HfApi.create_commit, iter([b"theirs"])

    def interrupted(self, *args, **kwargs):
        if content := next(other, None):
            commit(self, "alice/tiny", [_addition("theirs.txt", content)], commit_message="Theirs")
        return commit(self, *args, **kwargs)

    monkeypatch.setattr(HfApi, "create_commit", interrupted)
    push_model(folder, "alice/tiny", scores={"micro_f1": 0.5}, message="Mine")
    history = hub.history("alice/tiny")
    assert [commit["title"] for commit in history][-2:] == ["Theirs", "Mine"]
    assert "theirs.txt" in history[-1]["files"]


def _addition(path, content):
    from huggingface_hub import CommitOperationAdd

    return CommitOperationAdd(path, content)


def test_hub_that_is_gone(folder, monkeypatch, hub):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(HubError, match=r"Pushing the model 'alice/tiny' failed: .*Nothing was committed"):
        push_model(folder, "alice/tiny")


def test_token_is_in_no_error_no_log_and_no_file(hub, folder, caplog):
    """Not even where the server quotes it."""
    for name in ("xlgen_hf", "huggingface_hub"):
        caplog.set_level(logging.DEBUG, name)
    hub.fault("POST", "/commit/", "status", status=400, times=100, echo_token=True)
    with pytest.raises(HubError, match=r"injected for Bearer \*\*\*") as caught:
        push_model(folder, "alice/tiny", token=Hub.alice)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    assert Hub.alice not in caplog.text
    assert Hub.alice not in repr(HubTarget("alice/tiny", token=Hub.alice))
    for path in folder.rglob("*"):
        assert not path.is_file() or Hub.alice.encode() not in path.read_bytes()


# ---------------------------------------------------------------------------------------------------- data sets


def test_data_set_goes_up_in_shards(hub, tmp_path):
    write_jsonl(tmp_path / "test.jsonl", [{"text": "new music", "labels": ["new", "music"]}])
    splits = {
        "train": Dataset.from_list(ROWS),
        "validation": Dataset.from_list(ROWS[:2]),
        "test": tmp_path / "test.jsonl",
    }
    options = {"vocabulary": VOCABULARY, "license_id": "cc-by-4.0", "source": "library | titles", "language": "en"}
    push_dataset(splits, "acme/titles", shard_bytes=200, **options)
    assert len(hub.history("acme/titles", "dataset")) == 2
    files = hub.history("acme/titles", "dataset")[1]["files"]
    assert sum(path.startswith("data/train-") for path in files) > 1

    def read(part):
        shards = sorted(path for path in files if path.startswith(part))
        tables = [pyarrow.parquet.read_table(io.BytesIO(hub.file("acme/titles", path, "dataset"))) for path in shards]
        return pyarrow.concat_tables(tables)

    assert read("data/train-").to_pylist() == ROWS
    assert read("data/validation-").to_pylist() == ROWS[:2]
    assert read("data/test-").to_pylist() == [{"text": "new music", "labels": ["new", "music"]}]
    assert Features.from_arrow_schema(read("data/test-").schema) == FEATURES
    counts = {row["label"]: row["train_documents"] for row in read("label_space/").to_pylist()}
    assert counts["music"] == 4
    assert {name for name, count in counts.items() if count == 0} == {*VOCABULARY, "new"}
    card = hub.file("acme/titles", "README.md", "dataset").decode()
    assert "license: cc-by-4.0" in card
    assert "Source: library &#124; titles" in card
    again = push_dataset(splits, "acme/titles", shard_bytes=200, **options)
    assert not again.changed
    push_dataset(splits, "acme/titles", **options)
    assert "data/train-00000-of-00001.parquet" in hub.history("acme/titles", "dataset")[2]["files"]
    assert sum(path.startswith("data/train-") for path in hub.history("acme/titles", "dataset")[2]["files"]) == 1


def test_ids_and_kept_columns_go_up_with_a_data_set(hub):
    rows = [{**row, "id": number, "year": 1900 + number} for number, row in enumerate(ROWS)]
    options = RowOptions(id_column="id", keep_columns="year")
    push_dataset({"train": Dataset.from_list(rows)}, "acme/numbered", options=options)
    file = hub.file("acme/numbered", "data/train-00000-of-00001.parquet", "dataset")
    assert pyarrow.parquet.read_table(io.BytesIO(file)).to_pylist() == rows


def test_rows_of_a_data_set_are_checked():
    from xlgen_hf.errors import DataError

    with pytest.raises(ConfigurationError, match=r"splits=\['dev'\]; give train"):
        push_dataset({"dev": Dataset.from_list(ROWS)}, "alice/titles", dry_run=True)
    rows = Dataset.from_list([{"text": "a", "labels": ["b"]}, {"text": "c", "labels": [" "]}])
    with pytest.raises(DataError, match="the given rows, row 2: There is a label without visible text"):
        push_dataset({"train": rows}, "alice/titles", dry_run=True)
    plan = push_dataset({"train": Dataset.from_list(ROWS)}, "alice/titles", dry_run=True).plan
    assert [file.path for file in plan.files] == [
        "README.md",
        "data/train-00000-of-00001.parquet",
        "label_space/train-00000-of-00001.parquet",
    ]


# ---------------------------------------------------------------------------------------------------- the metric


def test_metric_that_is_there_is_not_uploaded_again(hub):
    assert push_metric("acme/xmc_f1").changed
    assert not push_metric("acme/xmc_f1").changed
    assert len(hub.history("acme/xmc_f1", "space")) == 2


def test_space_of_another_name_is_refused():
    with pytest.raises(ConfigurationError, match="the Space must be called 'xmc_f1'"):
        push_metric("acme/f1", dry_run=True)
    with pytest.raises(ConfigurationError, match=r"There is no metric 'f1'; choose one of \['xmc_f1'\]"):
        push_metric("acme/f1", metric="f1", dry_run=True)


# ---------------------------------------------------------------------------------------------------- cards


def test_text_of_people_survives_a_push(hub, folder):
    from huggingface_hub import HfApi

    push_model(folder, "alice/tiny")
    card = hub.file("alice/tiny", "README.md").decode()
    mine = card.replace("# tiny\n", "# My model\n\nWhat I think of it.\n").replace(
        "tags:\n", "license: mit\ntags:\n- own\n"
    )
    mine += "\nFunded by nobody.\n"
    HfApi().upload_file(path_or_fileobj=mine.encode(), path_in_repo="README.md", repo_id="alice/tiny")
    push_model(folder, "alice/tiny", scores={"micro_f1": 0.4321})
    after = hub.file("alice/tiny", "README.md").decode()
    assert "# My model\n\nWhat I think of it.\n" in after
    assert after.endswith(f"{END}\n\nFunded by nobody.\n")
    assert "0.4321" in after.split(BEGIN)[1].split(END)[0]
    assert "license: mit" in after
    assert "- own\n" in after
    assert after.count(BEGIN) == after.count(END) == 1
