"""Cards: what they say, what they leave out, and what of a person's text survives."""

from __future__ import annotations

import json

import pytest
import yaml
from huggingface_hub import ModelCard, ModelCardData
from hypothesis import example, given, settings
from hypothesis import strategies as st

from xlgen_hf import push_model
from xlgen_hf.data.rows import rows_sha256
from xlgen_hf.errors import ConfigurationError, ModelFolderError
from xlgen_hf.hub.card_text import BEGIN, END, compose_card, escape, merge_cards, render, split_card
from xlgen_hf.hub.cards import metric_card, model_card, read_score_file, read_scores, tail_histogram
from xlgen_hf.labels.concepts import Concept
from xlgen_hf.labels.space import LabelSpace
from xlgen_hf.labels.vocabulary import Vocabulary

REPORT = {
    "format_version": 1,
    "backbone": "google-t5/t5-small",
    "variant": "bcl",
    "parameters": 60_506_624,
    "data": {
        "train": {"rows": 8, "labels_per_row": 2.125, "sha256": "ab" * 32, "source": "acme/titles"},
        "validation": {"rows": 2, "labels_per_row": 2.5, "sha256": "cd" * 32, "source": "val|1.jsonl"},
    },
    "arguments": {"learning_rate": 0.0002, "seed": 3, "optim": "adamw_torch"},
    "decision": {"min_labels": 2, "source": "micro F1 on the validation rows"},
    "scores": {"eval_micro_f1": 0.41, "eval_macro_f1": 0.2, "eval_0_shot_labels": 0, "eval_runtime": 3.0},
    "examples": [{"text": "a | b\n# c", "labels": ["x|y"], "predicted": [["<b>", 0.75], ["z", 0.5]]}],
    "best_checkpoint": True,
    "seconds": 90.0,
    "peak_memory": 3 * 2**30,
    "hardware": "2 threads of a x86_64 CPU",
}
SCORES = {
    "micro_f1": 0.51234, "macro_f1": 0.3, "precision_at_1": 0.7, "0_shot_labels": 4, "0_shot_support": 9,
    "0_shot_micro_f1": 0.2, "0_shot_macro_f1": 0.1, "1_shot_labels": 0, "1_shot_support": 0, "1_shot_macro_f1": 0.0,
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """The files of a model that its card reads."""
    (tmp_path / "config.json").write_text(json.dumps({"variant": "bcl", "backbone": {"model_type": "t5"}}))
    LabelSpace(["music", "art", "rare", "never"], [120, 5, 1, 0]).save(tmp_path)
    return tmp_path


def test_card_of_a_trained_model(folder):
    (folder / "training_report.json").write_text(json.dumps(REPORT))
    card = model_card(folder, "acme/tiny", scores=SCORES, license_id="mit")
    for expected in (
        "| started from | google-t5/t5-small |",
        "4 labels, of which 1 never occur in the training documents.",
        "| 100 or more | 1 |",
        "| micro F1 | 0.5123 |",
        "| 0 | 4 | 9 | 0.2000 | 0.1000 |",
        "### Validation rows",
        "These rows also chose the checkpoint and the decision",
        "| micro F1 | 0.4100 |",
        "* `min_labels` = 2",
        "Chosen by micro F1 on the validation rows.",
        r"| a &#124; b \# c | x&#124;y | &lt;b&gt; (0.75); z (0.50) |",
        r"| validation | val&#124;1.jsonl | 2 | 2.50 | `" + "cd" * 32 + "` |",
        "| `learning_rate` | 0.0002 |",
        "| training time | 1.5 minutes |",
        "| peak memory of the process | 3.00 GiB |",
        'XLGenProcessor.from_pretrained("acme/tiny")',
        "jung-etal-2023-cluster",
    ):
        assert expected in card
    assert "trust_remote_code" not in card
    data = ModelCard(card).data
    assert (data.base_model, data.datasets, data.license) == ("google-t5/t5-small", ["acme/titles"], "mit")
    assert (data.library_name, data.pipeline_tag, data.model_name) == ("xlgen-hf", "text-classification", "tiny")
    assert {(r.metric_name, r.metric_value, r.dataset_type, r.dataset_split) for r in data.eval_results} == {
        ("Micro F1", 0.5123, "acme/titles", "test"),
        ("Macro F1 (labels of the references)", 0.3, "acme/titles", "test"),
        ("Macro F1 of labels without training documents", 0.1, "acme/titles", "test"),
        ("P@1", 0.7, "acme/titles", "test"),
    }


def test_card_of_a_model_with_a_vocabulary(folder):
    assert "vocabulary" not in model_card(folder, "acme/tiny")
    Vocabulary([Concept(f"c:{name}", {"en": name}) for name in ("music", "art")]).save(folder)
    assert "2 of them are concepts of a vocabulary, with which predictions hold their `ids`" in model_card(
        folder, "a/b"
    )


def test_what_is_not_known_is_left_out(folder):
    card = model_card(folder, "acme/tiny")
    for absent in (
        "## Scores",
        "## Training",
        "## Cost",
        "## Predictions",
        "### Decision",
        "started from",
        "model-index",
    ):
        assert absent not in card
    assert "## Labels" in card
    assert "## Intended use and limits" in card
    metadata, _ = split_card(card)
    assert not {"base_model", "datasets", "license", "metrics"} & set(metadata)


@pytest.mark.parametrize("backbone", ["/home/me/t5", "t5/"])
def test_validation_scores_stand_in_where_there_are_no_others(folder, backbone):
    (folder / "training_report.json").write_text(json.dumps({**REPORT, "backbone": backbone}))
    data = ModelCard(model_card(folder, "acme/tiny", dataset="my titles")).data
    assert {(r.dataset_split, r.dataset_name, r.dataset_type) for r in data.eval_results} == {
        ("validation", "my titles", "unpublished")
    }
    assert data.base_model is None
    assert data.datasets is None


def test_damaged_files_are_named(folder):
    (folder / "training_report.json").write_text("[]")
    with pytest.raises(ModelFolderError, match=r"training_report.json: it must be an object with the fields"):
        model_card(folder, "acme/tiny")
    with pytest.raises(ModelFolderError, match="it must be a JSON object"):
        read_score_file(folder / "training_report.json")
    with pytest.raises(ConfigurationError, match=r"scores='none\.json': there is no such file; `xlgen evaluate --out"):
        push_model(folder, "acme/tiny", scores="none.json", dry_run=True)
    (folder / "config.json").write_text("3")
    with pytest.raises(ModelFolderError, match=r"config.json: it must be a JSON object"):
        model_card(folder, "acme/tiny")
    assert read_scores({"micro_f1": 0.5, "per_label": {}, "name": "x", "flag": True}) == {"micro_f1": 0.5}


def test_card_of_the_metric_holds_its_own_card():
    from xlgen_hf.files.resources import resource_folder

    card = metric_card(resource_folder("evaluate_metrics") / "xmc_f1", "acme/xmc_f1")
    metadata, body = split_card(card)
    assert (metadata["sdk"], metadata["app_file"]) == ("gradio", "app.py")
    assert 'evaluate.load("acme/xmc_f1")' in body
    assert "## Metric description" in body


def test_histogram_holds_every_label_once():
    assert tail_histogram([5000, 1000, 100, 10, 6, 5, 4, 3, 2, 1, 1, 0]) == [
        ("0", 1), ("1", 2), ("2 to 4", 3), ("5 to 9", 2), ("10 to 99", 1), ("100 or more", 3),
    ]  # fmt: skip


# ---------------------------------------------------------------------------------------------------- text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a|b", "a&#124;b"),
        ("x\r\n| y |\u2028z", "x &#124; y &#124; z"),
        ("<script>&amp;", "&lt;script&gt;&amp;amp;"),
        ("[link](http://x)", r"\[link\]\(http\://x\)"),
        ("`code` *b* _i_ ~s~", r"\`code\` \*b\* \_i\_ \~s\~"),
        (END, r"&lt;\!-- xlgen\: generated up to here. --&gt;"),
        ("right\u202eleft\x00", "right left"),
        ("1. first", r"1\. first"),
        ("- first", r"\- first"),
        ("---", r"\---"),
        ("0.5", "0.5"),
        ("x" * 400, "x" * 300 + " …"),
    ],
)
def test_escape(text, shown):
    assert escape(text) == shown


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=60))
@example("\x85")
@example("\xa0")
@example("one\u2028two")
def test_no_text_of_the_data_breaks_a_table_or_the_metadata(text):
    line = escape(text)
    assert not set(line) & set("\n\r|<>\x0b\x0c\x85\u2028\u2029")
    card = compose_card({"title": text, "tags": [text]}, text, f"| {line} |")
    metadata, body = split_card(card)
    if text:
        assert metadata["title"] == text
    assert body.count(BEGIN) == body.count(END) == 1
    assert merge_cards(card, card) == card


def test_persons_text_stays_outside_the_generated_part():
    old = compose_card({"license": "mit", "tags": ["own"], "model-index": [1]}, "mine", "old numbers")
    old = old.replace("# mine", "# Mine\n\nBefore.") + "\nAfter.\n"
    new = compose_card({"tags": ["xlgen"], "library_name": "xlgen-hf"}, "tiny", "new numbers")
    metadata, body = split_card(merge_cards(new, old))
    assert metadata == {"license": "mit", "tags": ["own", "xlgen"], "library_name": "xlgen-hf"}
    assert body == f"\n# Mine\n\nBefore.\n\n{BEGIN}\n\nnew numbers\n\n{END}\n\nAfter.\n"


def test_card_without_a_generated_part_gets_one():
    new = compose_card({"tags": ["xlgen"]}, "tiny", "numbers")
    merged = merge_cards(new, "My own card.\r\n\r\nSecond line.\r\n")
    assert merged.endswith(f"{END}\n\nMy own card.\n\nSecond line.\n")
    template = ModelCard.from_template(ModelCardData(library_name="peft")).content
    for nothing in (None, "", "  \n", template, f"{template}\n### Framework versions\n\n- PEFT 0.21.2.dev0\n"):
        assert merge_cards(new, nothing) == new
    # The fault: whoever left one of the template's gaps lost all that he had written.
    filled = template.replace("[More Information Needed]", "By our librarians.", 1)
    assert "- Berlin 2024" in merge_cards(new, f"{template}\n- Berlin 2024\n")
    assert "By our librarians." in merge_cards(new, filled) and "numbers" in merge_cards(new, filled)


@pytest.mark.parametrize(
    ("old", "message"),
    [
        ("---\ntags: [\n---\nText", "is no YAML"),
        ("---\n- a\n---\nText", "is a list; `key: value` lines are expected"),
        (f"{BEGIN}\ntext", "must have the line .* once"),
        (f"{END}\ntext\n{BEGIN}", "must have the line .* once"),
        (f"{BEGIN}\n{END}\n{BEGIN}\n{END}", "must have the line .* once"),
    ],
)
def test_damaged_cards_are_not_guessed_at(old, message):
    with pytest.raises(ConfigurationError, match=message):
        merge_cards(compose_card({}, "tiny", "numbers"), old)


def test_metadata_is_yaml_of_plain_values(folder):
    (folder / "training_report.json").write_text(json.dumps(REPORT))
    metadata, _ = split_card(model_card(folder, "acme/tiny", scores=SCORES))
    assert yaml.safe_load(yaml.safe_dump(metadata)) == metadata


def test_templates_refuse_what_they_do_not_know():
    from jinja2 import UndefinedError

    with pytest.raises(UndefinedError, match="repo_id"):
        render("metric.md", {"metric": "xmc_f1"})


def test_hash_of_rows_is_that_of_their_lines():
    import hashlib

    from datasets import Dataset

    lines = '{"text": "é", "labels": ["a", "b"]}\n{"text": "", "labels": []}\n'
    rows = Dataset.from_list([json.loads(line) for line in lines.splitlines()])
    assert rows_sha256(rows) == hashlib.sha256(lines.encode()).hexdigest()
