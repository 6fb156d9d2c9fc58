"""HTML of answers: everything in it that somebody brought is text."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from hostile import HOSTILE

from xlgen_hf.demo.asking import Answer
from xlgen_hf.demo.rendering import escape, notice, render_answers
from xlgen_hf.prediction.evidence import LabelEvidence
from xlgen_hf.prediction.results import LabelPrediction
from xlgen_hf.retrieval.evidence import DocumentEvidence, NameEvidence

VOID = {"input"}
ATTRIBUTES = {
    "aria-hidden", "aria-label", "aria-labelledby", "class", "data-label", "data-place", "data-places", "dir", "id",
    "name", "open", "role", "style", "tabindex", "type", "value",
}  # fmt: skip


class Parsed(HTMLParser):
    """Elements with their attributes, and text; fails where an element is not closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements, self.text, self._open = [], "", []
        self.feed(html)
        self.close()
        assert not self._open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._open += [] if tag in VOID else [tag]

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def of(self, tag, kind=""):
        return [
            attrs for name, attrs in self.elements if name == tag and kind in (attrs.get("class") or "").split(" ")
        ]


def evidence(label="bread", **changes):
    values = {
        "label": label,
        "score": 0.5,
        "scores": {"retrieval": 0.4, "names": 0.25, "neighbors": 0.001},
        "places": {"retrieval": 2, "input": 3},
        "names": [NameEvidence(label, "embedding", 0.5, 0.6, [(0, 5)], ["bread"])],
        "documents": [DocumentEvidence("7", {"embedding": 0.61, "lexical": 0.3}, 0.2, "Loaves")],
        "clusters": ["food"],
        "training_rows": 1,
        **changes,
    }
    return LabelEvidence(**values)


def rendered(prediction, text="bread and rye", review=False):
    return Parsed(render_answers(text, [Answer("m", prediction)], review=review))


def test_nothing_that_somebody_brought_is_markup():
    names = [NameEvidence(HOSTILE, "lexical", 0.5, 0.6, [(0, len(HOSTILE))], [HOSTILE])]
    documents = [DocumentEvidence(HOSTILE, {"embedding": 0.61}, 0.2, HOSTILE)]
    of_label = evidence(HOSTILE, names=names, documents=documents, clusters=[HOSTILE], places={HOSTILE: 1})
    prediction = LabelPrediction(
        [HOSTILE], [0.5], [HOSTILE], ids=[HOSTILE], evidence=[of_label], candidates=[HOSTILE]
    )  # fmt: skip
    html = render_answers(HOSTILE, [Answer(HOSTILE, prediction), Answer("b", None, HOSTILE)], review=True)
    page = Parsed(html)
    assert not page.of("img") and not page.of("script")
    assert page.text.count(HOSTILE) >= 10
    assert {one["data-label"] for one in page.of("input")} == {HOSTILE}
    assert not {"$", "{", "}", "`"} & set(html)  # which gradio's templates would read
    assert {name for _, attrs in page.elements for name in attrs} <= ATTRIBUTES


def test_names_turn_nothing_around_them():
    """A right-to-left name or override is isolated wherever it is shown."""
    name = "خبز\u202e (1)"
    names = [NameEvidence(f"{name} alias", "lexical", 0.5, 0.6, [(0, 3)], ["خبز"])]
    documents = [DocumentEvidence(name, {"embedding": 0.61}, 0.2, name)]
    of_label = evidence(name, names=names, documents=documents, clusters=[name], places={name: 1})
    prediction = LabelPrediction([name], [0.5], [name], ids=[name], evidence=[of_label], candidates=[name])
    answer = Answer(name, prediction, not_chosen={name: 0.1})
    html = render_answers(name, [answer], review=True)
    page = Parsed(html)
    assert [one["dir"] for one in page.of("div", "xl-text")] == ["auto"]
    outside = re.sub(r'<bdi>.*?</bdi>|<div class="xl-text".*?</div>| data-label="[^"]*"', "", html)
    assert "خبز" not in outside and len(page.of("bdi")) == 14


def test_a_label_has_its_score_and_what_speaks_for_it():
    page = rendered(LabelPrediction(["bread"], [0.5], ids=["b1"], evidence=[evidence()]))
    told = ["bread", "0.50", "b1", "name0.25", "Loaves", "similarity 0.61", "food", "1 training row."]
    for shown in (*told, "number 2 of what retrieval found", "number 3 of the candidates that the model read"):
        assert shown in page.text
    assert "similar texts" not in page.text  # it reads 0.00
    assert [one["style"] for one in page.of("span") if "style" in one] == ["width:50.0%", "width:25.0%"]
    assert len(page.of("details")) == 1 and not page.of("fieldset")
    assert (
        "No training row has this label."
        in rendered(LabelPrediction(["bread"], [0.5], evidence=[evidence(training_rows=0)])).text
    )


def test_an_alias_that_matches_is_named():
    names = [NameEvidence("loaf", "embedding", 0.5, 0.6, [(0, 5)], ["bread", "bread"]),
             NameEvidence("pain", "embedding", 0.5, 0.6, [], [])]  # fmt: skip
    page = rendered(LabelPrediction(["bread"], [0.5], evidence=[evidence(names=names)]))
    assert "bread as “loaf”" in page.text
    assert "the name “pain”" in page.text


def test_marks_of_labels_may_overlap():
    spans = {"a": [(0, 9)], "b": [(6, 13)], "c": [(6, 9), (6, 9)]}
    reasons = [
        evidence(name, names=[NameEvidence(name, "lexical", 0.5, 0.6, of_name, [])]) for name, of_name in spans.items()
    ]
    page = rendered(LabelPrediction(list(spans), [0.3, 0.2, 0.1], evidence=reasons))
    assert [one["data-places"] for one in page.of("mark")] == ["0", "0 1 2", "1"]
    assert "bread and rye" in page.text
    long = rendered(LabelPrediction(["a"], [0.3], evidence=reasons[:1]), "bread and " * 10_000)
    assert len(long.text) < 21_000


@pytest.mark.parametrize(
    ("changes", "shown", "role"),
    [
        ({"labels": [], "scores": []}, "No label was found", "status"),
        ({"expected_f1": 0.3, "best_label_probability": 0.4, "abstain": True}, "A person should look", "alert"),
        ({"expected_f1": 0.3, "best_label_probability": 0.4, "abstain": False}, "Expected F1 0.30; the first", None),
    ],
)
def test_what_is_not_found_or_not_trusted_is_said(changes, shown, role):
    page = rendered(LabelPrediction(**{"labels": ["bread"], "scores": [0.5], **changes}))
    assert shown in page.text
    notices = page.of("p", "xl-notice")
    assert [one["role"] for one in notices] == ([role] if role else [])


def test_a_text_without_labels_has_no_first_label():
    page = rendered(LabelPrediction([], [], expected_f1=0.0, best_label_probability=0.0))
    assert "Expected F1 0.00." in page.text and "first label" not in page.text


def test_buttons_are_there_to_review():
    page = rendered(LabelPrediction(["a", "b"], [0.5, 0.4]), review=True)
    assert [(one["name"], one["value"], one["data-label"]) for one in page.of("input")] == [
        ("xl-0-0", "accept", "a"), ("xl-0-0", "reject", "a"), ("xl-0-1", "accept", "b"), ("xl-0-1", "reject", "b"),
    ]  # fmt: skip


def test_candidates_and_clusters_are_listed():
    page = rendered(LabelPrediction(["a"], [0.5], clusters=["food"], candidates=["b", "a"]))
    assert "Clusters that guided the model (1)food" in page.text
    assert "Candidates that the model read (2)ba" in page.text
    assert len(page.of("li", "xl-chosen")) == 1


def test_messages():
    assert notice("") == ""
    assert 'role="alert"' in notice("no", "alert")
    assert escape("a & b") == "a &amp; b"
