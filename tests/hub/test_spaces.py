"""Spaces that run the page of a model."""

from __future__ import annotations

import ast
from importlib.metadata import PackageNotFoundError

import pytest

from xlgen_hf.cli.main import main
from xlgen_hf.errors import ConfigurationError, HubError
from xlgen_hf.hub import spaces
from xlgen_hf.hub.card_text import split_card
from xlgen_hf.hub.push import push_model
from xlgen_hf.hub.spaces import push_space
from xlgen_hf.training.lora import add_lora


@pytest.fixture
def known(hub, make_model):
    """A Hub with a model."""
    model, processor = make_model("bert", "base")
    model.push_to_hub("alice/tiny", processor=processor)
    return hub


def test_a_page_goes_up_with_the_code_that_it_needs(known, capsys):
    command = ["push", "space", "--model", "alice/tiny", "--repo-id", "acme/try-tiny", "--license", "apache-2.0"]
    assert main(command) == 0
    assert "space acme/try-tiny" in capsys.readouterr().out
    files = set(known.history("acme/try-tiny", "space")[-1]["files"])
    assert {"README.md", "app.py", "requirements.txt", "xlgen_hf/cli/demo.py", "xlgen_hf/demo/page.css",
            "xlgen_hf/py.typed", "xlgen_hf/samples/yso/test.jsonl.gz"} <= files  # fmt: skip
    assert not any("__pycache__" in path for path in files)
    metadata, body = split_card(known.file("acme/try-tiny", "README.md", "space").decode())
    assert (metadata["sdk"], metadata["app_file"], metadata["models"]) == ("gradio", "app.py", ["alice/tiny"])
    assert "# Labels by tiny" in body and "xlgen demo --model alice/tiny" in body
    needed = known.file("acme/try-tiny", "requirements.txt", "space").decode().splitlines()
    names = {line.split(">")[0].split("<")[0].split("=")[0] for line in needed}
    assert {"torch", "transformers", "gradio"} <= names
    assert not names & {"pytest", "mkdocs", "peft", "xlgen-hf"}
    assert main(command) == 0
    assert "Nothing has changed" in capsys.readouterr().out


def test_the_program_of_a_space_is_a_command_that_runs(known):
    push_space("alice/tiny", "acme/try-tiny")
    program = ast.parse(known.file("acme/try-tiny", "app.py", "space"))
    (call,) = [node for node in ast.walk(program) if isinstance(node, ast.Call) and ast.unparse(node.func) == "main"]
    from test_docs import parsed

    given = parsed(ast.literal_eval(call.args[0])).params
    assert (given["model"], given["host"], given["port"]) == (["alice/tiny"], "0.0.0.0", 7860)
    assert given["corrections"] is None


def test_an_installed_package_may_be_named_instead(known):
    push_space("alice/tiny", "acme/try-tiny")
    push_space("alice/tiny", "acme/try-tiny", requirement="xlgen-hf[demo,lora] == 1.0")
    assert set(known.history("acme/try-tiny", "space")[-1]["files"]) == {
        ".gitattributes", "README.md", "app.py", "requirements.txt"
    }  # fmt: skip
    assert known.file("acme/try-tiny", "requirements.txt", "space") == b"xlgen-hf[demo,lora] == 1.0\n"


def test_text_that_people_write_stays(known):
    push_space("alice/tiny", "acme/try-tiny", requirement="a")
    card = known.file("acme/try-tiny", "README.md", "space").decode()
    from huggingface_hub import HfApi

    HfApi().upload_file(
        path_or_fileobj=f"{card}\nMine.\n".encode(), path_in_repo="README.md", repo_id="acme/try-tiny",
        repo_type="space",
    )  # fmt: skip
    push_space("alice/tiny", "acme/try-tiny", requirement="b")
    assert "Mine." in known.file("acme/try-tiny", "README.md", "space").decode()


def test_extras_that_a_model_needs(known):
    report = push_space("alice/tiny", "acme/try-tiny", extras=["lora"])
    assert report.plan.repo_type == "space"
    assert "\npeft" in known.file("acme/try-tiny", "requirements.txt", "space").decode()


def test_the_space_of_an_adapter_has_peft(hub, make_model, tmp_path):
    model, processor = make_model("t5", "base")
    push_model(add_lora(model, processor, tmp_path / "base", r=2), "alice/adapter", processor=processor)
    push_space("alice/adapter", "acme/try-adapter")
    assert "\npeft" in hub.file("acme/try-adapter", "requirements.txt", "space").decode()


def test_what_cannot_run_is_refused(known, monkeypatch):
    with pytest.raises(HubError, match="alice/none"):
        push_space("alice/none", "acme/try-none")
    with pytest.raises(ConfigurationError, match=r"no extras \['nothing'\]"):
        push_space("alice/tiny", "acme/try-tiny", extras=["nothing"], dry_run=True)
    with pytest.raises(ConfigurationError, match=r"belong into the requirement"):
        push_space("alice/tiny", "acme/try-tiny", extras=["lora"], requirement="a", dry_run=True)

    def requires(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(spaces, "requires", requires)
    with pytest.raises(ConfigurationError, match="xlgen-hf is not installed"):
        push_space("alice/tiny", "acme/try-tiny", dry_run=True)
