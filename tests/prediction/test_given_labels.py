"""Texts that have labels already: only further ones are predicted, whatever predicts, and going by those."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sources import ROW_TEXTS, Made, fused, make_rcl, make_retriever, make_trees, rows_of, sharpened
from tiny import ROWS

from xlgen_hf.cli.main import main
from xlgen_hf.decoding.decoded_sets import DecodingOptions
from xlgen_hf.errors import ConfigurationError
from xlgen_hf.labels.concepts import Concept
from xlgen_hf.labels.vocabulary import Vocabulary
from xlgen_hf.prediction.ensemble import Ensemble
from xlgen_hf.prediction.generator import Generator
from xlgen_hf.prediction.predictor import Predictor
from xlgen_hf.ranking.decisions import DecisionRule
from xlgen_hf.ranking.score_model import ScoreModel
from xlgen_hf.ranking.sources import TextBatch
from xlgen_hf.retrieval.model_sources import save_source_alone

GIVEN = [row["labels"][:number] for row, number in zip(ROWS, [2, 1, 0, 2, 1, 1, 1, 0], strict=True)]
SEARCHES = {
    "greedy": DecodingOptions(num_beams=1),
    "filled up": DecodingOptions(num_beams=1, min_candidates=6),
    "beams": DecodingOptions(num_beams=3),
    "pooled": DecodingOptions(num_beams=3, pool="union"),
    "samples": DecodingOptions(num_samples=4, pool="average"),
    "in order": DecodingOptions(num_beams=2, ordered=True),
}


@pytest.fixture
def predictors(make_model, checkpoints, label_space, made):
    """Predictors of every kind, the same in all tests."""
    if made:
        return made
    retriever = make_retriever(checkpoints["bert"], label_space, lexical=True)
    models = {kind: sharpened(Made(*make_model("bert", kind, max_labels=5))) for kind in ("base", "bcl", "mcg")}
    models["rcl"] = sharpened(make_rcl(checkpoints["bert"], label_space))
    models["head"] = make_rcl(checkpoints["bert"], label_space, predicts_with="candidate_head", candidate_head=True)
    models["hybrid"] = fused(sharpened(make_rcl(checkpoints["bert"], label_space)), make_trees(label_space))
    made |= {kind: Predictor.from_model(*model) for kind, model in models.items()}
    made["index"] = Predictor(label_space, retriever)
    made["label trees"] = Predictor(label_space, make_trees(label_space))
    return made


def _names(predictions):
    return [one.labels for one in predictions]


def test_nothing_given_changes_nothing(predictors):
    for predictor in predictors.values():
        expected = predictor.predict(ROW_TEXTS)
        assert predictor.predict(ROW_TEXTS, given=[[] for _ in ROWS]) == expected
        some = predictor.predict(ROW_TEXTS, given=GIVEN)
        for row in (2, 7):  # without given labels
            assert some[row].labels == expected[row].labels
            assert some[row].scores == pytest.approx(expected[row].scores, abs=1e-4)


def test_only_further_labels_are_predicted(predictors, label_space):
    for kind, predictor in predictors.items():
        for rule in (None, DecisionRule("threshold", 0.0), DecisionRule("top_k", 3), DecisionRule("top_k", 20)):
            found = predictor.predict(ROW_TEXTS, given=GIVEN, rule=rule)
            for labels, given in zip(_names(found), GIVEN, strict=True):
                assert not set(labels) & set(given), kind
                assert len(set(labels)) == len(labels)
                if rule is not None and rule.kind == "top_k":
                    most = 8 if kind == "label trees" else len(label_space)
                    assert len(labels) == min(rule.num_labels, most - len(given)), kind


@pytest.mark.parametrize("rule", [None, DecisionRule("top_k", 3), DecisionRule("threshold", 0.3)])
def test_evidence_is_of_the_further_labels(predictors, rule):
    """What is decided by rule is decided in one place: one predictor of each kind of source for the other rules."""
    texts, given = ROW_TEXTS[:4], GIVEN[:4]
    for kind in predictors if rule is None else ("base", "hybrid", "index"):
        predictor = predictors[kind]
        plain = predictor.predict(texts, given=given, rule=rule, batch_size=3)
        for one, other in zip(
            plain, predictor.predict(texts, given=given, rule=rule, batch_size=3, evidence=True), strict=True
        ):
            assert [reason.label for reason in other.evidence] == other.labels == one.labels
            assert [reason.score for reason in other.evidence] == pytest.approx(one.scores, abs=1e-6)


@pytest.mark.parametrize("search", SEARCHES)
def test_every_search_begins_with_what_is_given(make_model, search):
    model, processor = sharpened(Made(*make_model("bert", "base", max_labels=5)))
    predictor = Predictor.from_model(model, processor)
    found = predictor.predict(ROW_TEXTS, given=GIVEN, decoding=SEARCHES[search])
    for one, given in zip(found, GIVEN, strict=True):
        assert not set(one.labels) & set(given)
        assert len(one.labels) + len(given) <= 5
    alone = [
        predictor.predict([text], given=[given], decoding=SEARCHES[search])[0]
        for text, given in zip(ROW_TEXTS, GIVEN, strict=True)
    ]
    assert _names(alone) == _names(found)


def test_greedy_search_goes_on_from_its_own_labels(make_model):
    """The first labels that a search finds, given, leave the others with their scores."""
    model, processor = sharpened(Made(*make_model("bert", "base", min_labels=4, max_labels=4)))
    space, generator = processor.label_space, Generator(model, processor, DecodingOptions(num_beams=1))
    encoded = generator.encode(processor.encode_texts(ROW_TEXTS))
    whole = generator.decode(encoded)
    for row, one in enumerate(whole):
        first = one.labels[:2]
        if space.order(first) != first:  # given labels are read in decode order
            continue
        alone = generator.encode(processor.encode_texts([ROW_TEXTS[row]]))
        (rest,) = generator.decode(alone, given=[first])
        assert rest.labels == one.labels[2:]
        np.testing.assert_allclose(rest.log_probs, one.log_probs[2:], atol=1e-4)


def test_bounds_count_all_labels_of_a_text(make_model):
    model, processor = sharpened(Made(*make_model("bert", "base", min_labels=3, max_labels=3)))
    found = Predictor.from_model(model, processor).predict(ROW_TEXTS, given=GIVEN)
    assert [len(one.labels) + len(given) for one, given in zip(found, GIVEN, strict=True)] == [3] * len(ROWS)
    more = [list(processor.label_space.names[:4])] * len(ROWS)  # more than a set may have
    assert not any(_names(Predictor.from_model(model, processor).predict(ROW_TEXTS, given=more)))


def test_texts_that_share_given_labels_count_more(checkpoints, label_space):
    retriever = make_retriever(checkpoints["bert"], label_space)
    given = [[label_space.index["organ"]]]
    before = retriever.rank(["music"], len(label_space))
    after = retriever.rank(TextBatch(["music"], given=given), len(label_space))
    shares = [dict(zip(one.labels.tolist(), one.parts["neighbors"].tolist(), strict=True)) for one in (before, after)]
    for label, rises in (("organ", True), ("church music", True), ("printing (output)", False), ("piano", False)):
        label_id = label_space.index[label]
        assert (shares[1][label_id] > shares[0][label_id]) == rises, label


def test_the_models_own_number_is_that_of_all_labels(checkpoints, label_space):
    retriever = make_retriever(checkpoints["bert"], label_space)
    predictor = Predictor(label_space, retriever, ScoreModel(rule=DecisionRule("top_k", 3)))
    found = predictor.predict(ROW_TEXTS, given=GIVEN)
    assert [len(one.labels) for one in found] == [3 - len(given) for given in GIVEN]
    strict = Predictor(label_space, retriever, ScoreModel(rule=DecisionRule("threshold", 1.0, min_labels=1)))
    found = strict.predict(ROW_TEXTS, given=GIVEN)
    assert [len(one.labels) for one in found] == [0 if given else 1 for given in GIVEN]


def test_ensembles_take_given_labels(predictors):
    ensemble = Ensemble([predictors["index"], predictors["bcl"]])
    found = ensemble.predict(ROW_TEXTS, given=GIVEN, rule=DecisionRule("top_k", 2))
    assert all(not set(one.labels) & set(given) for one, given in zip(found, GIVEN, strict=True))


def test_concepts_may_be_given_by_any_name(checkpoints, label_space):
    concepts = [Concept(f"c:{i}", {"en": name, "de": f"D {name}"}) for i, name in enumerate(label_space.names)]
    vocabulary = Vocabulary(concepts, "en")
    predictor = Predictor(label_space, make_retriever(checkpoints["bert"], label_space), vocabulary=vocabulary)
    given = [["D music", vocabulary.ids["organ"]]]
    rule = DecisionRule("top_k", 9)
    expected = predictor.predict(["organ music"], given=[["music", "organ"]], rule=rule)
    assert predictor.predict(["organ music"], given=given, rule=rule) == expected
    assert not {"music", "organ"} & set(expected[0].labels)


def test_names_of_one_label_count_once(checkpoints, label_space):
    """The fault: a label that was given by two names left one fewer to predict, as did a name that is no label."""
    vocabulary = Vocabulary([Concept(f"c:{i}", {"en": name}) for i, name in enumerate(label_space.names)], "en")
    score_model = ScoreModel(rule=DecisionRule("top_k", 3))
    retriever = make_retriever(checkpoints["bert"], label_space)
    predictor = Predictor(label_space, retriever, score_model, vocabulary=vocabulary)
    for given in (["music"], ["music", vocabulary.ids["music"]], ["music", "drum"]):
        assert len(predictor.predict(["organ music"], given=[given])[0].labels) == 2


def test_names_that_are_no_labels_are_counted(predictors, caplog):
    predictor = predictors["index"]
    rule = DecisionRule("top_k", 5)
    assert predictor.predict(["a"], given=[["drum"]], rule=rule) == predictor.predict(["a"], rule=rule)
    assert "or that may mean several of its labels, and that say nothing to it: 1, e.g. 'drum'." in caplog.text
    with pytest.raises(ConfigurationError, match="1 texts come with given labels for 2; one list for each"):
        predictor.predict(["a"], given=[[], []])


def test_one_name_is_no_list_of_labels(predictors):
    for predictor in predictors.values():
        with pytest.raises(ConfigurationError, match=r"given holds 'cats'; a list of labels is needed for each text"):
            predictor.predict(["a"], given=["cats"])


def test_the_command_reads_a_column(checkpoints, label_space, tmp_path, capsys):
    folder = tmp_path / "index"
    retriever = make_retriever(checkpoints["bert"], label_space)
    save_source_alone(folder, label_space, "retrieval", retriever, ScoreModel())
    rows = tmp_path / "rows.jsonl"
    lines = ({"text": text, "subjects": given} for text, given in zip(ROW_TEXTS, GIVEN, strict=True))
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines))
    command = ["predict", "--model", str(folder), "--input-file", str(rows), "--top-k", "4", "--keep-column"]
    assert main([*command, "subjects"]) == 0
    found = [json.loads(line)["labels"] for line in capsys.readouterr().out.splitlines()]
    rule = DecisionRule("top_k", 4)
    assert found == _names(Predictor(label_space, retriever).predict(ROW_TEXTS, given=GIVEN, rule=rule))
    assert rows_of(retriever.rank(ROW_TEXTS, 1))
    assert main([*command, "nowhere"]) == 1
    assert "nowhere" in capsys.readouterr().err
    assert main([*command, "subjects", "--labels-column", "other"]) == 1
    assert "name two columns of labels" in capsys.readouterr().err
    assert main([*command, "subjects", "--stage-novel", "x.jsonl"]) == 1
    assert "--stage-novel collects what --open-vocabulary finds" in capsys.readouterr().err
