"""What the page asks models, and what it makes of their answers and of their errors."""

from __future__ import annotations

import json
import threading

import pytest
from hostile import HOSTILE

from xlgen_hf.demo.asking import Question, ask
from xlgen_hf.demo.choices import example_texts, find_concepts, find_labels, has_hierarchy
from xlgen_hf.labels.vocabulary import Vocabulary
from xlgen_hf.loading import load_predictor
from xlgen_hf.prediction.evidence import SCORE_NAMES
from xlgen_hf.prediction.predictor import Predictor

TEXT = "a history of organ music"


@pytest.fixture
def answers(open_page):
    """A function that asks models a question, each time as a new page."""

    def of(folders, *questions, **settings):
        client, page = open_page(*folders, **settings)
        found = [client.portal.call(ask, page.service, one) for one in questions]
        return found[0] if len(found) == 1 else found

    return of


def test_models_answer_side_by_side(answers, index, model):
    of_index, of_model = answers([index, model], Question(TEXT))
    assert (of_index.model_id, of_model.model_id) == ("index", "model")
    expected = load_predictor(str(index)).predict([TEXT], evidence=True)[0]
    assert of_index.prediction == expected
    assert {name for one in expected.evidence for name in one.scores} & set(SCORE_NAMES)
    assert of_model.prediction.clusters


def test_number_and_score(answers, index):
    many, few, none = answers([index], *(Question(TEXT, number=5, threshold=low) for low in (0.0, 0.6, 1.0)))
    assert len(many[0].prediction.labels) == 5
    kept = [score for score in many[0].prediction.scores if score >= 0.6]
    assert 0 < len(kept) < 5
    assert few[0].prediction.scores == kept == [one.score for one in few[0].prediction.evidence]
    assert none[0].prediction.labels == none[0].prediction.evidence == []


def test_labels_are_restricted(answers, index):
    (found,) = answers([index], Question(TEXT, number=5, allow=("art", "piano")))
    assert sorted(found.prediction.labels) == ["art", "piano"]
    (unknown,) = answers([index], Question(TEXT, allow=(HOSTILE,)))
    assert unknown.prediction is None and "is none of the" in unknown.problem


def test_new_labels_are_there_for_one_question(answers, index, make_model, tmp_path, monkeypatch):
    for part in make_model("bert", "base", min_labels=1):
        part.save_pretrained(tmp_path / "base")
    extended = []
    with_labels = Predictor.with_labels

    def extend(self, names):
        extended.append(names)
        return with_labels(self, names)

    monkeypatch.setattr(Predictor, "with_labels", extend)
    plain, new = Question(TEXT, number=11), Question(TEXT, number=11, new_labels=("organ history", "music"))
    before, with_new, again, after = answers([index, tmp_path / "base"], plain, new, new, plain)
    for place in range(2):
        assert "organ history" in with_new[place].prediction.labels
        assert "organ history" not in before[place].prediction.labels
        assert after[place] == before[place] and again[place] == with_new[place]
    assert len(extended) == 2  # once for each model


def test_new_labels_that_are_not_chosen_have_scores(answers, index, make_model, tmp_path):
    for part in make_model("bert", "base", min_labels=1):
        part.save_pretrained(tmp_path / "base")
    new = ("organ history", "music")
    every, none = answers(
        [index, tmp_path / "base"],
        Question(TEXT, number=12, new_labels=new),
        Question(TEXT, number=1, threshold=1.0, new_labels=new),
    )
    for all_labels, nothing in zip(every, none, strict=True):
        assert all_labels.not_chosen == {} and nothing.prediction.labels == []
        known = dict(zip(all_labels.prediction.labels, all_labels.prediction.scores, strict=True))
        assert nothing.not_chosen == pytest.approx({name: known[name] for name in new}, abs=1e-3)
        assert sorted(nothing.not_chosen.values(), reverse=True) == list(nothing.not_chosen.values())


def test_too_much_is_refused_with_a_reason(answers, index):
    (long,) = answers([index], Question("a" * 101), max_characters=100)
    assert long.problem == "Text 1 has 101 characters; at most 100. Shorten it."
    (many,) = answers([index], Question(TEXT, number=101))
    assert "at most 100" in many.problem


@pytest.mark.parametrize(("most", "settings"), [(100, {"max_top_k": 200}), (10, {"max_top_k": 10})])
def test_as_many_new_labels_as_can_be_scored(answers, index, most, settings):
    names = tuple(f"name {number}" for number in range(most + 1))
    (fine,), (many,) = answers(
        [index], *(Question(TEXT, number=1, new_labels=one) for one in (names[1:], names)), **settings
    )
    assert many.problem == f"{most + 1} new labels; at most {most} on this server. Leave some out."
    assert len({*fine.prediction.labels, *fine.not_chosen} & {*names}) == most


def test_what_fails_or_waits_is_one_models_problem(open_page, index, model, caplog):
    opened = threading.Event()

    def load(name):
        predictor = load_predictor(name)
        predict = predictor.predict

        def broken(texts, **options):
            if name == str(model) and SECRET in texts:
                opened.wait(20)
                raise RuntimeError(f"what is wrong with {texts}")
            return predict(texts, **options)

        predictor.predict = broken
        return predictor

    client, page = open_page(index, model, load=load, timeout=0.2)
    late = client.portal.call(ask, page.service, Question(SECRET))
    assert late[0].prediction is not None
    assert late[1].problem.startswith("No answer within 0.2 s")
    opened.set()
    page.service.settings.__dict__["timeout"] = 20
    failed = client.portal.call(ask, page.service, Question(SECRET))
    assert failed[1].problem == "Something went wrong; the log of the server says where."
    assert "RuntimeError, raised in" in caplog.text and SECRET not in caplog.text


SECRET = "zebra crossing"


# ---------------------------------------------------------------------------------------------------- choices


def test_examples_are_those_of_the_card_or_the_sample(index, tmp_path):
    assert len(example_texts([str(index)])) == 5
    report = {
        "format_version": 1,
        "examples": [{"text": one, "labels": [], "predicted": []} for one in ("a", HOSTILE)],
    }
    (index / "training_report.json").write_text(json.dumps(report))
    assert example_texts([str(index), str(index)]) == ["a", HOSTILE]


def test_labels_are_found_while_somebody_types(open_page, index, model):
    _, page = open_page(index, model)
    assert find_labels(page.service, "pian", 5) == ["piano"]
    assert len(find_labels(page.service, "", 3)) == 3
    assert not has_hierarchy(page.service)
    assert find_concepts(page.service, "", 3) == []


def test_branches_are_offered_where_a_vocabulary_has_them(open_page, answers, index, concept_index):
    _, page = open_page(index, concept_index)
    assert has_hierarchy(page.service)
    assert sorted(find_concepts(page.service, "", 9)) == ["art", "church music", "music"]
    assert find_concepts(page.service, "church", 9) == ["church music"]
    of_index, of_concepts = answers([index, concept_index], Question(TEXT, number=9, branch=("church music",)))
    assert sorted(of_concepts.prediction.labels) == ["church music", "organ"]
    assert "no vocabulary" in of_index.problem


def test_branches_are_offered_without_a_walk_through_them(open_page, concept_index, monkeypatch):
    """A walk through all that is below each concept, at every key, would take seconds in a large vocabulary."""
    _, page = open_page(concept_index)
    monkeypatch.delattr(Vocabulary, "branch")
    for _ in range(2):
        assert sorted(find_concepts(page.service, "", 9)) == ["art", "church music", "music"]
    assert len(find_concepts(page.service, "", 2)) == 2
