"""`--vocabulary` from training rows to predicted concepts: what index, train and predict make of it."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import pytest
from tiny import ROWS

from xlgen_hf.cli.main import main
from xlgen_hf.data.rows import load_rows
from xlgen_hf.data.vocabulary_files import read_vocabulary, write_vocabulary
from xlgen_hf.decoding.decoded_sets import DecodingOptions
from xlgen_hf.errors import ConfigurationError
from xlgen_hf.files.json_lines import write_jsonl
from xlgen_hf.files.model_folder import MODEL_FILES, files_of_model, matches
from xlgen_hf.labels.clusters import LabelClusters
from xlgen_hf.labels.concepts import Concept
from xlgen_hf.labels.space import LabelSpace
from xlgen_hf.labels.vocabulary import Vocabulary, vocabulary_labels
from xlgen_hf.loading import load_predictor
from xlgen_hf.processing_xlgen import XLGenProcessor
from xlgen_hf.ranking.decisions import DecisionRule
from xlgen_hf.training import run
from xlgen_hf.training.build import prepare_model
from xlgen_hf.training.run_record import describe_run
from xlgen_hf.training.settings import TrainingSettings

NAMES = sorted({label for row in ROWS for label in row["labels"]})
GERMAN = {"music": "Musik", "organ": "Orgel", "history": "Geschichte", "church music": "Kirchenmusik"}
BROADER = {"church music": "music", "organ": "church music", "modern art": "art"}
VOCABULARY = Vocabulary(
    [
        Concept(
            f"c:{name}".replace(" ", "-"),
            {"en": name, **({"de": GERMAN[name]} if name in GERMAN else {})},
            broader=tuple(f"c:{BROADER[name]}".replace(" ", "-") for _ in (1,) if name in BROADER),
        )
        for name in [*NAMES, "pottery"]
    ],
    "en",
)


@pytest.fixture
def files(tmp_path):
    """Rows that name concepts by id or in German, texts, and the vocabulary."""
    rows = [
        {**row, "labels": [GERMAN.get(name, f"c:{name}".replace(" ", "-")) for name in row["labels"]]} for row in ROWS
    ]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    write_jsonl(tmp_path / "texts.jsonl", [{"text": "organ music"}, {"text": "pottery"}])
    write_vocabulary(tmp_path / "vocabulary.jsonl", VOCABULARY)
    return tmp_path


@pytest.fixture
def index(files, checkpoints):
    def make(*options: str) -> int:
        return main([
            "index", "--train-file", str(files / "rows.jsonl"), "--vocabulary", str(files / "vocabulary.jsonl"),
            "--language", "en", "--encoder", checkpoints["bert"], "--epochs", "0", "--output-dir",
            str(files / "index"), *options,
        ])  # fmt: skip

    return make


def predict(files, *options: str) -> list[dict]:
    out = files / "out.jsonl"
    words = ["predict", "--model", str(files / "index"), "--input-file", str(files / "texts.jsonl"), "--overwrite"]
    assert main([*words, "--output-file", str(out), "--top-k", "4", *options]) == 0
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]


def test_answers_are_concepts(files, index):
    assert index() == 0
    predictor = load_predictor(str(files / "index"))
    assert predictor.vocabulary is not None and list(predictor.vocabulary) == list(VOCABULARY)
    assert set(predictor.label_space.names) == set(VOCABULARY.ids)
    kept = [name for name in files_of_model(files / "index") if "vocabulary" in name]
    assert kept == ["vocabulary.json", "vocabulary.jsonl"] and all(matches(name, MODEL_FILES) for name in kept)

    plain = predict(files)
    for row in plain:
        assert row["ids"] == [VOCABULARY.ids[label] for label in row["labels"]] and "parents" not in row
    german = predict(files, "--output-language", "de", "--with-parents")
    for row, before in zip(german, plain, strict=True):
        assert row["ids"] == before["ids"] and row["scores"] == before["scores"]
        assert row["labels"] == [GERMAN.get(label, label) for label in before["labels"]]
        for label, parents in zip(before["labels"], row["parents"], strict=True):
            above = [BROADER[label]] if label in BROADER else []
            assert parents == [{"id": VOCABULARY.ids[one], "label": GERMAN.get(one, one)} for one in above]


def test_branches(files, index):
    assert index() == 0
    branch = {"music", "church music", "organ"}
    for row in predict(files, "--branch", "Musik"):
        assert set(row["labels"]) == branch
    for row in predict(files, "--branch", "c:music", "--without-branch", "c:church-music"):
        assert row["labels"] == ["music"]
    for row in predict(files, "--without-branch", "music"):
        assert not set(row["labels"]) & branch


def test_labels_to_choose_from_may_be_named_as_concepts(files, index):
    assert index() == 0
    (files / "some.txt").write_text("c:organ\nMusik\nart\n", encoding="utf-8")
    for row in predict(files, "--allow", str(files / "some.txt")):
        assert set(row["labels"]) == {"organ", "music", "art"}
    for row in predict(files, "--deny", str(files / "some.txt"), "--top-k", "20"):
        assert set(row["labels"]) == {*VOCABULARY.ids} - {"organ", "music", "art"}


def test_new_labels_have_no_concept(files, index):
    assert index() == 0
    (files / "new.txt").write_text("organ music\n", encoding="utf-8")
    options = ["--add-labels", str(files / "new.txt"), "--top-k", "20"]
    found = predict(files, *options)[0]
    place = found["labels"].index("organ music")
    assert [number for number, one in enumerate(found["ids"]) if one is None] == [place]
    german = predict(files, *options, "--output-language", "de", "--with-parents")[0]
    assert german["labels"][place] == "organ music" and german["parents"][place] == []


def test_labels_as_concepts(files, index, capsys):
    assert index() == 0
    (files / "new.txt").write_text("organ music\n", encoding="utf-8")
    plain = predict(files, "--add-labels", str(files / "new.txt"), "--top-k", "20")
    options = ["--add-labels", str(files / "new.txt"), "--top-k", "20", "--output-language", "de", "--concepts"]
    german = predict(files, *options)
    for row, before in zip(german, plain, strict=True):
        assert "concepts" not in before and "parents" not in row
        expected = [
            {
                "id": concept,
                "label": GERMAN.get(label, label),
                "language": None if concept is None else "de" if label in GERMAN else "en",
                "score": score,
                "broader": [VOCABULARY.ids[BROADER[label]]] if label in BROADER else [],
            }
            for concept, label, score in zip(before["ids"], before["labels"], before["scores"], strict=True)
        ]
        assert row["concepts"] == expected and [one["label"] for one in expected] == row["labels"]
    predictor = load_predictor(str(files / "index")).with_labels(["organ music"])
    found = predictor.predict(
        ["organ music", "pottery"], rule=DecisionRule("top_k", 20), output_language="de", concepts=True
    )
    assert [one.to_dict()["concepts"] for one in found] == [row["concepts"] for row in german]
    capsys.readouterr()
    assert main(["tag", "organ music", "--model", str(files / "index"), "--json"]) == 0
    (one, *_) = (tagged := json.loads(capsys.readouterr().out))["concepts"]
    assert one["id"] == tagged["ids"][0] and one["language"] == "en"


def test_labels_of_a_model_without_a_vocabulary_are_concepts_without_ids(files, checkpoints):
    words = ["index", "--train-file", str(files / "rows.jsonl"), "--encoder", checkpoints["bert"], "--epochs", "0"]
    assert main([*words, "--output-dir", str(files / "index")]) == 0
    for row in predict(files, "--concepts"):
        assert row["concepts"] == [
            {"id": None, "label": label, "language": None, "score": score, "broader": []}
            for label, score in zip(row["labels"], row["scores"], strict=True)
        ]
    one = load_predictor(str(files / "index"))
    with pytest.raises(ConfigurationError, match="with_parents: the model has no vocabulary; train it, or index"):
        one.predict(["organ"], with_parents=True, concepts=True)


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_files_with_concepts_are_read_back(files, index, ending):
    assert index() == 0
    out, scores = files / f"out.{ending}", files / "scores.json"
    words = ["predict", "--model", str(files / "index"), "--input-file", str(files / "rows.jsonl"), "--top-k", "3"]
    assert main([*words, "--output-file", str(out), "--output-language", "de", "--with-parents", "--concepts"]) == 0
    if ending == "csv":
        with out.open(encoding="utf-8", newline="") as file:
            (row, *_) = csv.DictReader(file)
        assert json.loads(row["concepts"])[0]["label"] == row["labels"].split("|")[0]
        assert list(row)[-3:] == ["ids", "concepts", "parents"]
    known = ["--vocabulary", str(files / "vocabulary.jsonl"), "--language", "en"]
    words = ["evaluate", "--references", str(files / "rows.jsonl"), "--output-file", str(scores), *known]
    assert main([*words, "--predictions", str(out)]) == 0
    assert json.loads(scores.read_text())["micro_f1"] > 0


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_answers_in_another_language_are_scored_as_the_same(files, index, ending):
    """By their concepts: the German name of one may be the English one of another, or that of two."""
    concepts = {one.id: one for one in VOCABULARY}
    for one, german in (("c:art", "music"), ("c:music", "art"), ("c:organ", "Tasten"), ("c:piano", "Tasten")):
        concepts[one] = replace(concepts[one], names={**concepts[one].names, "de": german})
    write_vocabulary(files / "vocabulary.jsonl", Vocabulary(concepts.values(), "en"))
    rows = [{**row, "labels": [VOCABULARY.ids[name] for name in row["labels"]]} for row in ROWS]
    write_jsonl(files / "rows.jsonl", rows)
    assert index() == 0
    known = ["--vocabulary", str(files / "vocabulary.jsonl"), "--language", "en"]
    scores = []
    for language in ("en", "de"):
        words = ["predict", "--model", str(files / "index"), "--input-file", str(files / "rows.jsonl"), "--top-k", "3"]
        out = str(files / f"{language}.{ending}")
        assert main([*words, "--output-language", language, "--output-file", out]) == 0
        words = ["evaluate", "--references", str(files / "rows.jsonl"), "--output-file", str(files / "scores.json")]
        assert main([*words, *known, "--predictions", out, "--overwrite"]) == 0
        scores.append(json.loads((files / "scores.json").read_text()))
    assert scores[0] == scores[1] and scores[0]["micro_f1"] > 0


def test_ids_of_predictions_that_do_not_fit(files, capsys):
    write_jsonl(files / "out.jsonl", [{"labels": ["art"], "ids": ["c:art"]}, {"labels": ["art"], "ids": "c:art"}])
    write_jsonl(files / "true.jsonl", [{"labels": ["art"]}] * 2)
    words = ["evaluate", "--predictions", str(files / "out.jsonl"), "--references", str(files / "true.jsonl")]
    assert main(words) == 0
    assert main([*words, "--vocabulary", str(files / "vocabulary.jsonl"), "--language", "en"]) == 1
    assert "`ids` must be a list of 1 ids of concepts, one or null for each label, got" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--output-language", "fi"], "no name in the language 'fi'"),
        (["--branch", "nothing"], "'nothing' names no concept"),
        (["--branch", "art", "--without-branch", "art"], "--allow, --deny, --cluster and branches leave no label"),
    ],
)
def test_what_cannot_be_asked_for(files, index, options, message, capsys):
    assert index() == 0
    words = ["predict", "--model", str(files / "index"), "--input-file", str(files / "texts.jsonl"), *options]
    assert main(words) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("option", [["--output-language", "de"], ["--with-parents"], ["--branch", "c:art"]])
def test_a_model_without_a_vocabulary_says_so(files, checkpoints, option, capsys):
    words = ["index", "--train-file", str(files / "rows.jsonl"), "--encoder", checkpoints["bert"], "--epochs", "0"]
    assert main([*words, "--output-dir", str(files / "index")]) == 0
    assert all("ids" not in row for row in predict(files))
    words = ["predict", "--model", str(files / "index"), "--input-file", str(files / "texts.jsonl"), *option]
    assert main(words) == 1
    assert "the model has no vocabulary" in capsys.readouterr().err.replace("The", "the")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--labels", "x.txt"], "--labels and --vocabulary both say"),
        (["--label-names", "x.txt"], "vocabulary and label_names both say"),
    ],
)
def test_options_of_index_that_contradict_each_other(index, options, message, capsys):
    assert index(*options) == 1
    assert message in capsys.readouterr().err


def test_other_names_count_unless_they_are_not_wanted(files, index, checkpoints):
    concepts = [replace(one, aliases={"en": (f"all {one.names['en']}",)}) for one in VOCABULARY]
    write_vocabulary(files / "vocabulary.jsonl", Vocabulary(concepts, "en"))
    aliases = [f"all {one}" for one in VOCABULARY.ids]
    for options, expected in (
        ([], [*aliases, *GERMAN.values()]),
        (["--no-other-languages"], aliases),
        (["--no-aliases"], [*GERMAN.values()]),
        (["--no-aliases", "--no-other-languages"], []),
    ):
        assert index(*options, "--overwrite") == 0
        source = load_predictor(str(files / "index")).source
        found = [] if source.further_names is None else list(source.further_names)
        assert sorted(found) == sorted(expected) and len(source.further) == len(expected), options

    vocabulary = read_vocabulary(files / "vocabulary.jsonl", "en")
    rows = load_rows(files / "rows.jsonl", vocabulary=vocabulary)
    for own, others, number in ((None, False, len(aliases)), (False, None, len(GERMAN)), (False, False, 0)):
        settings = TrainingSettings(
            backbone=checkpoints["t5"], encoder=checkpoints["bert"], retriever_epochs=0, vocabulary=vocabulary,
            aliases=own, other_languages=others,
        )  # fmt: skip
        _, processor = prepare_model(settings, rows, cache_dir=files / "cache")
        assert len(processor.retriever.further) == number


def test_definitions_count_as_names(files, index, capsys):
    concepts = [replace(one, definition={"en": f"what {one.names['en']} is"}) for one in VOCABULARY]
    write_vocabulary(files / "vocabulary.jsonl", Vocabulary(concepts, "en"))
    assert index("--definitions") == 0
    source = load_predictor(str(files / "index")).source
    assert len(source.further) == len(concepts) + len(GERMAN) and "what pottery is" in list(source.further_names)

    words = ["--train-file", str(files / "rows.jsonl"), "--output-dir", str(files / "other"), "--definitions"]
    assert main(["index", *words]) == 1
    assert "--definitions has no effect without concepts" in capsys.readouterr().err
    assert main(["train", *words]) == 1
    assert "definitions=True: only a vocabulary has definitions" in capsys.readouterr().err


@pytest.mark.parametrize(("option", "what"), [("aliases", "aliases"), ("other_languages", "other languages")])
def test_other_names_need_a_vocabulary(files, checkpoints, option, what, capsys):
    written = f"--{option.replace('_', '-')}"
    words = ["--train-file", str(files / "rows.jsonl"), "--output-dir", str(files / "other"), written]
    assert main(["index", *words, "--encoder", checkpoints["bert"]]) == 1
    assert f"{written} has no effect without concepts; give --vocabulary" in capsys.readouterr().err
    assert main(["train", *words, "--use-cpu"]) == 1
    assert f"{option}=True: only a vocabulary has {what}" in capsys.readouterr().err


def test_training_takes_the_vocabulary(files, monkeypatch):
    taken = {}

    def take(settings, args, train_rows, validation_rows=None, *, on_start):
        taken.update(settings=settings, args=args, rows={"train": train_rows})
        return None, None, {}

    monkeypatch.setattr(run, "train_model", take)
    words = ["train", "--train-file", str(files / "rows.jsonl"), "--output-dir", str(files / "model"), "--use-cpu"]
    words += ["--vocabulary", str(files / "vocabulary.jsonl"), "--language", "de", "--aliases"]
    assert main(words) == 0
    vocabulary = taken["settings"].vocabulary
    assert isinstance(vocabulary, Vocabulary) and vocabulary.language == "de" and taken["settings"].aliases
    assert set(taken["rows"]["train"]["labels"][0]) == {"Musik", "Geschichte", "Kirchenmusik"}
    before = describe_run(taken["settings"], taken["args"], taken["rows"])
    assert main([*words[:-2], "en", "--aliases"]) == 0
    assert describe_run(taken["settings"], taken["args"], taken["rows"])["labels"] != before["labels"]


@pytest.mark.parametrize("command", ["inspect", "convert"])
def test_other_commands_read_concepts(files, command, capsys):
    options = ["--vocabulary", str(files / "vocabulary.jsonl"), "--language", "de"]
    words = {"inspect": ["inspect", "--train-file", str(files / "rows.jsonl")],
             "convert": ["convert", str(files / "rows.jsonl"), str(files / "rows.csv")]}[command]  # fmt: skip
    assert main([*words, *options]) == 0
    if command == "convert":
        assert "Musik|Geschichte|Kirchenmusik" in (files / "rows.csv").read_text(encoding="utf-8")
    else:
        assert "of them in the vocabulary only: 1" in capsys.readouterr().out


def test_clusters_by_the_hierarchy(files, checkpoints, capsys):
    out = files / "clusters"
    words = ["--train-file", str(files / "rows.jsonl"), "--cluster-by", "hierarchy"]
    concepts = ["--vocabulary", str(files / "vocabulary.jsonl"), "--language", "en"]
    encoder = ["--encoder", checkpoints["bert"], "--num-clusters", "4"]
    assert main(["cluster", *words, *concepts, *encoder, "--output-dir", str(out)]) == 0
    space, clusters = LabelSpace.load(out), LabelClusters.load(out)
    of_label = {name: clusters.assignment[label] for name, label in space.index.items()}
    assert (
        of_label["music"] == of_label["church music"] == of_label["organ"] != of_label["art"] == of_label["modern art"]
    )
    assert clusters.metadata["made_by"] == "hierarchy"

    assert main(["cluster", *words, *encoder, "--output-dir", str(files / "other")]) == 1
    assert "--cluster-by hierarchy needs concepts; give --vocabulary" in capsys.readouterr().err
    assert main(["train", *words, "--variant", "bcl", "--output-dir", str(files / "other")]) == 1
    assert "cluster_by='hierarchy': only a vocabulary has a hierarchy" in capsys.readouterr().err
    assert main(["train", *words, *concepts, "--output-dir", str(files / "other")]) == 1
    assert "cluster_by='hierarchy' has no effect with variant='rcl'" in capsys.readouterr().err


def test_a_model_spells_aliases(files, checkpoints):
    """From the settings of a training to a saved model: an alias decodes to its concept, also after a change."""
    vocabulary = read_vocabulary(files / "vocabulary.jsonl", "en")
    settings = TrainingSettings(
        backbone=checkpoints["t5"], variant="base", vocabulary=vocabulary, alias_spellings=True, max_labels=30
    )
    rows = load_rows(files / "rows.jsonl", vocabulary=vocabulary)
    model, processor = prepare_model(settings, rows, cache_dir=files / "cache")
    model.save_pretrained(files / "model")
    processor.save_pretrained(files / "model")
    predictor = load_predictor(str(files / "model"))
    loaded = XLGenProcessor.from_pretrained(files / "model")
    for given in (processor, loaded):
        trie = given.label_tokenizer.trie
        spelled = given.label_tokenizer.tokenizer("orgel", add_special_tokens=False)["input_ids"]
        found = trie.label_of([*spelled, given.label_tokenizer.separator_token_id])
        assert len(trie) == len(vocabulary) and given.label_space.names[found] == "organ"
    for beams in (1, 4):
        options = DecodingOptions(num_beams=beams, min_labels=4)
        for one in predictor.predict(["organ music", "pottery"], decoding=options):
            assert len(one.labels) == len(set(one.labels)) >= 4
    scores = predictor.predict(["organ music"], rule=DecisionRule("top_k", 20))[0]
    assert sorted(scores.labels) == sorted(vocabulary.ids)


def test_training_makes_the_clusters_of_the_command(files, checkpoints):
    """`xlgen train --cluster-by hierarchy` reaches the clusters of the model."""
    vocabulary = read_vocabulary(files / "vocabulary.jsonl", "en")
    settings = TrainingSettings(
        backbone=checkpoints["t5"], variant="bcl", vocabulary=vocabulary, cluster_by="hierarchy", num_clusters=4,
        encoder=checkpoints["bert"],
    )  # fmt: skip
    rows = load_rows(files / "rows.jsonl", vocabulary=vocabulary)
    _, processor = prepare_model(settings, rows, cache_dir=files / "cache")
    assert processor.clusters.metadata["made_by"] == "hierarchy"


def test_label_rows_call_concepts_by_other_names(files, checkpoints, capsys):
    """As the trainer gets them: with other names half of the time, the labels as ever."""
    vocabulary = read_vocabulary(files / "vocabulary.jsonl", "en")
    settings = TrainingSettings(variant="base", vocabulary=vocabulary, alias_rows=True, label_rows=20.0)
    space = LabelSpace.from_label_lists([], vocabulary_labels(vocabulary))
    found = run.with_label_rows(load_rows(files / "rows.jsonl", vocabulary=vocabulary), space, settings, 0)
    texts = " : ".join(row["text"] for row in found if row["label_side"]).split(" : ")
    assert texts.count("Musik") > 10 and texts.count("music") > 10 and "pottery" in texts

    words = ["train", "--train-file", str(files / "rows.jsonl"), "--output-dir", str(files / "other"), "--alias-rows"]
    assert main(words) == 1
    assert "alias_rows=True: only a vocabulary has aliases" in capsys.readouterr().err
    assert main([*words, "--label-rows", "0"]) == 1
    assert "alias_rows=True has no effect with label_rows=0" in capsys.readouterr().err


def test_the_index_of_a_training_has_the_ids_of_rows(files, checkpoints, capsys):
    settings = TrainingSettings(
        backbone=checkpoints["t5"], encoder=checkpoints["bert"], retriever_epochs=0, id_column="nr"
    )
    rows = [{"nr": f"r{number}", **row} for number, row in enumerate(ROWS)]
    write_jsonl(files / "numbered.jsonl", rows)
    read = load_rows(files / "numbered.jsonl", id_column="nr")
    _, processor = prepare_model(settings, read, cache_dir=files / "cache")
    assert list(processor.retriever.document_names.ids) == [row["nr"] for row in rows]
    with_rows = run.with_label_rows(read, processor.label_space, settings, 0)
    assert len(with_rows) > len(rows) and with_rows.column_names == ["text", "labels", "label_side"]

    words = ["train", "--train-file", str(files / "numbered.jsonl"), "--output-dir", str(files / "other")]
    assert main([*words, "--id-column", "nr", "--variant", "bcl"]) == 1
    assert "id_column='nr' has no effect: this training makes no index" in capsys.readouterr().err
