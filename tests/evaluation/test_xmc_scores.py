"""The scores against code of others (scikit-learn, napkinXC) and against what must hold of them."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from napkinxc import metrics as napkin
from scipy import sparse
from sklearn.metrics import f1_score, ndcg_score, precision_score, recall_score

from xlgen_hf.evaluation.scoring import score_ids
from xlgen_hf.files.resources import load_metric_module

CUTOFFS = (1, 2, 3, 5, 10)
EXACT = {"rel": 1e-12, "abs": 1e-12}

core = load_metric_module("xmc_f1", "xmc_scores")
inputs = load_metric_module("xmc_f1", "xmc_inputs")


class Case:
    """Predictions, references and training label sets as id lists over `num_labels` labels."""

    def __init__(self, predictions, references, train, num_labels):
        self.predictions, self.references, self.train, self.num_labels = predictions, references, train, num_labels
        self.train_matrix = indicator(train, num_labels)
        self.train_counts = np.asarray(self.train_matrix.sum(axis=0)).ravel().astype(np.int64)

    def scores(self, **options):
        return score_ids(
            self.predictions,
            self.references,
            num_labels=self.num_labels,
            train_counts=self.train_counts,
            num_train_documents=len(self.train),
            **{"k": CUTOFFS, **options},
        )


def indicator(rows, num_labels):
    bounds = np.cumsum([0, *map(len, rows)])
    labels = np.array([label for row in rows for label in row], dtype=np.int64)
    matrix = sparse.csr_matrix((np.ones(len(labels), dtype=np.int64), labels, bounds), shape=(len(rows), num_labels))
    matrix.sort_indices()
    return matrix


def random_case(seed, documents=60, num_labels=25, most=8, zipf=1.0):
    """Rows of 0 to `most` distinct labels, the low ids more often; half of the true labels are predicted."""
    generator = np.random.default_rng(seed)
    chances = 1.0 / np.arange(1, num_labels + 1) ** zipf
    chances /= chances.sum()

    def rows(count):
        return [
            generator.choice(num_labels, size=generator.integers(0, most + 1), replace=False, p=chances).tolist()
            for _ in range(count)
        ]

    references = rows(documents)
    predictions = [
        list(dict.fromkeys([*generator.permutation(true)[: len(true) // 2].tolist(), *guess]))
        for true, guess in zip(references, rows(documents), strict=True)
    ]
    return Case(predictions, references, rows(2 * documents), num_labels)


ADVERSARIAL = {
    "nothing predicted": Case([[], [], []], [[0], [1, 2], [0]], [[0], [1], [1]], 4),
    "one document": Case([[2, 0, 1]], [[1]], [[0], [1, 2], [2]], 3),
    "all wrong": Case([[3], [4]], [[0, 1], [2]], [[0], [3], [4]], 5),
    "all right": Case([[0, 1], [2]], [[1, 0], [2]], [[0], [0], [0, 1]], 3),
    "no references for some": Case([[0], [1], []], [[0], [], []], [[0], [0, 1], [1]], 2),
    "one label": Case([[0], [], [0]], [[0], [0], []], [[0], [0], [0]], 2),
    "more predicted than labels are true": Case([list(range(10))], [[9]], [[1]] * 7, 10),
    "equal propensities": Case([[0, 1, 2]], [[2, 3, 4, 5]], [[0]] * 4, 6),
    "training knows nothing": Case([[0], [1]], [[0], [2]], [[], [], []], 3),
    "last label only": Case([[99]], [[99]], [[99]] * 50, 100),
}
CASES = {f"random {seed}": random_case(seed) for seed in range(4)} | {
    "many labels": random_case(10, documents=150, num_labels=1000, most=12),
    "few labels": random_case(11, documents=150, num_labels=3, most=3),
    "flat": random_case(12, num_labels=40, zipf=0.0),
    **ADVERSARIAL,
}


@pytest.fixture(params=CASES, name="case")
def _case(request):
    return CASES[request.param]


# ----------------------------------------------------------------------------------------------- code of others


@pytest.mark.parametrize(
    ("name", "function"), [("precision", precision_score), ("recall", recall_score), ("f1", f1_score)]
)
def test_equals_scikit_learn(case, name, function):
    true, predicted = indicator(case.references, case.num_labels), indicator(case.predictions, case.num_labels)
    scores = case.scores()
    for average, prefix in (("micro", "micro"), ("samples", "example")):
        expected = function(true, predicted, average=average, zero_division=0)
        assert scores[f"{prefix}_{name}"] == pytest.approx(expected, **EXACT)
    in_references = np.flatnonzero(true.sum(axis=0))
    expected = function(true, predicted, average="macro", labels=in_references, zero_division=0)
    assert scores[f"macro_{name}"] == pytest.approx(expected, **EXACT)


def test_macro_over_all_labels_equals_scikit_learn(case):
    true, predicted = indicator(case.references, case.num_labels), indicator(case.predictions, case.num_labels)
    labels = np.flatnonzero((true + predicted).sum(axis=0))
    expected = f1_score(true, predicted, average="macro", labels=labels, zero_division=0)
    assert case.scores()["macro_f1_all"] == pytest.approx(expected, **EXACT)


@pytest.mark.parametrize("bounds", [(0, 0), (1, 1), (2, 2), (1, 3), (1, 10)])
def test_buckets_equal_scikit_learn(case, bounds):
    low, high = bounds
    name = f"{low}" if low == high else f"{low}-{high}"
    scores = case.scores(shots=[name])
    true, predicted = indicator(case.references, case.num_labels), indicator(case.predictions, case.num_labels)
    bucket = np.flatnonzero((case.train_counts >= low) & (case.train_counts <= high))
    support = np.asarray(true.sum(axis=0)).ravel()
    seen = [label for label in bucket if support[label]]
    assert scores[f"{name}_shot_labels"] == len(seen)
    assert scores[f"{name}_shot_support"] == support[bucket].sum()
    rest = {"zero_division": 0}
    micro = f1_score(true, predicted, average="micro", labels=bucket, **rest) if len(bucket) else 0.0
    macro = f1_score(true, predicted, average="macro", labels=seen, **rest) if seen else 0.0
    assert scores[f"{name}_shot_micro_f1"] == pytest.approx(micro, **EXACT)
    assert scores[f"{name}_shot_macro_f1"] == pytest.approx(macro, **EXACT)
    precision = precision_score(true, predicted, average="macro", labels=bucket, **rest) if len(bucket) else 0.0
    recall = recall_score(true, predicted, average="macro", labels=bucket, **rest) if len(bucket) else 0.0
    harmonic = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    assert scores[f"{name}_shot_macro_f1_harmonic"] == pytest.approx(harmonic, **EXACT)


@pytest.mark.parametrize("bounds", [(0, 0), (1, 1), (1, 10)])
def test_recall_of_buckets_equals_scikit_learn_on_cut_rankings(case, bounds):
    low, high = bounds
    name = f"{low}" if low == high else f"{low}-{high}"
    scores = case.scores(shots=[name], k=CUTOFFS)
    bucket = np.flatnonzero((case.train_counts >= low) & (case.train_counts <= high))
    true = indicator(case.references, case.num_labels)
    for k in CUTOFFS:
        cut = indicator([list(dict.fromkeys(one))[:k] for one in case.predictions], case.num_labels)
        recall = recall_score(true, cut, average="micro", labels=bucket, zero_division=0) if len(bucket) else 0.0
        assert scores[f"{name}_shot_recall_at_{k}"] == pytest.approx(recall, **EXACT)


def test_ndcg_equals_scikit_learn_on_whole_rankings():
    generator = np.random.default_rng(3)
    num_labels = 12
    rankings = [generator.permutation(num_labels).tolist() for _ in range(40)]
    true = [generator.choice(num_labels, size=generator.integers(1, 6), replace=False).tolist() for _ in rankings]
    scores = score_ids(rankings, true, num_labels=num_labels, k=CUTOFFS)
    values = np.array([[num_labels - ranking.index(label) for label in range(num_labels)] for ranking in rankings])
    for k in CUTOFFS:
        expected = ndcg_score(indicator(true, num_labels).toarray(), values, k=k)
        assert scores[f"ndcg_at_{k}"] == pytest.approx(expected, **EXACT)


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("precision", napkin.precision_at_k),
        ("recall", napkin.recall_at_k),
        ("ndcg", napkin.ndcg_at_k),
        ("coverage", napkin.coverage_at_k),
    ],
)
def test_ranking_equals_napkinxc(case, name, function):
    expected = function(case.references, case.predictions, k=max(CUTOFFS))
    scores = case.scores()
    for k in CUTOFFS:
        assert scores[f"{name}_at_{k}"] == pytest.approx(expected[k - 1], **EXACT)


@pytest.mark.parametrize(("a", "b"), [(0.55, 1.5), (0.5, 0.4), (0.6, 2.6)])
@pytest.mark.parametrize(("name", "function"), [("psp", napkin.psprecision_at_k), ("psndcg", napkin.psndcg_at_k)])
def test_propensity_scores_equal_napkinxc(case, name, function, a, b):
    inverse = napkin.Jain_et_al_inverse_propensity(case.train_matrix, A=a, B=b)
    expected = function(case.references, case.predictions, inverse, k=max(CUTOFFS))
    scores = case.scores(propensity_a=a, propensity_b=b)
    for k in CUTOFFS:
        assert scores[f"{name}_at_{k}"] == pytest.approx(expected[k - 1], **EXACT)


def test_micro_and_example_f1_equal_napkinxc(case):
    scores = case.scores()
    assert scores["micro_f1"] == pytest.approx(napkin.micro_f1_measure(case.references, case.predictions), **EXACT)
    assert scores["example_f1"] == pytest.approx(napkin.samples_f1_measure(case.references, case.predictions), **EXACT)


def test_f1_at_k_equals_scikit_learn_on_predictions_filled_up(case):
    k = 5
    filled = [row[:k] + [case.num_labels + i for i in range(k - len(row))] for row in case.predictions]
    true, predicted = indicator(case.references, case.num_labels + k), indicator(filled, case.num_labels + k)
    expected = f1_score(true, predicted, average="samples", zero_division=0)
    assert case.scores()[f"f1_at_{k}"] == pytest.approx(expected, **EXACT)


def test_nothing_true_scores_zero_without_a_warning():
    case = Case([[0], [1, 2]], [[], []], [[0], [1], [2]], 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = case.scores()
    unlike = {"mean_labels_predicted": 1.5}
    assert scores == {name: unlike.get(name, 0.0) for name in scores}


# ----------------------------------------------------------------------------------------------- what must hold


@st.composite
def cases(draw):
    num_labels = draw(st.integers(2, 12))
    row = st.lists(st.integers(0, num_labels - 1), unique=True, max_size=6)
    documents = draw(st.integers(1, 8))
    rows = st.lists(row, min_size=documents, max_size=documents)
    return Case(draw(rows), draw(rows), draw(st.lists(row, min_size=3, max_size=10)), num_labels)


@settings(max_examples=25, deadline=None)
@given(cases(), st.randoms(use_true_random=False))
def test_order_of_documents_does_not_matter(case, random):
    order = list(range(len(case.predictions)))
    random.shuffle(order)
    moved = Case(
        [case.predictions[i] for i in order], [case.references[i] for i in order], case.train, case.num_labels
    )
    assert moved.scores() == pytest.approx(case.scores(), **EXACT)


@settings(max_examples=25, deadline=None)
@given(cases(), st.randoms(use_true_random=False))
def test_names_of_labels_do_not_matter(case, random):
    new = list(range(case.num_labels))
    random.shuffle(new)
    renamed = [
        [[new[label] for label in row] for row in rows] for rows in (case.predictions, case.references, case.train)
    ]
    assert Case(*renamed, case.num_labels).scores() == pytest.approx(case.scores(), **EXACT)


@settings(max_examples=25, deadline=None)
@given(cases(), st.randoms(use_true_random=False))
def test_order_of_references_does_not_matter(case, random):
    shuffled = [random.sample(row, len(row)) for row in case.references]
    assert Case(case.predictions, shuffled, case.train, case.num_labels).scores() == pytest.approx(
        case.scores(), **EXACT
    )


@settings(max_examples=25, deadline=None)
@given(cases())
def test_an_unrelated_document_changes_only_what_it_should(case):
    before = case.scores()
    new = case.num_labels
    added = Case([*case.predictions, [new]], [*case.references, [new]], case.train, case.num_labels + 1)
    after = added.scores()
    documents = len(case.references)
    labels = len({label for row in case.references for label in row})
    assert after["macro_f1"] == pytest.approx((before["macro_f1"] * labels + 1) / (labels + 1), **EXACT)
    for name in ("example_f1", "precision_at_1", "recall_at_3", "ndcg_at_5"):
        assert after[name] == pytest.approx((before[name] * documents + 1) / (documents + 1), **EXACT)
    for name in before:
        if name.startswith("1_shot") and not name.endswith("harmonic"):
            assert after[name] == pytest.approx(before[name], **EXACT)


@settings(max_examples=25, deadline=None)
@given(cases(), st.randoms(use_true_random=False))
def test_repeated_labels_count_once_at_their_best_rank(case, random):
    repeated = [row + [random.choice(row) for _ in range(3)] if row else row for row in case.predictions]
    twice = [row + row for row in case.references]
    assert Case(repeated, twice, case.train, case.num_labels).scores() == case.scores()


def test_a_repeated_label_gives_its_place_to_the_next():
    assert score_ids([[7, 7, 3]], [[3]], num_labels=8, k=[2]) == score_ids([[7, 3]], [[3]], num_labels=8, k=[2])


@settings(max_examples=25, deadline=None)
@given(cases())
def test_values_are_in_range(case):
    for name, value in case.scores(shots=[0, 1, "2+"], oracle=True, bootstrap=3).items():
        assert isinstance(value, float)
        bounded = not name.endswith(("_labels", "_support")) and not name.startswith("mean_labels")
        assert value >= 0.0
        assert not bounded or value <= 1.0 + 1e-12


@settings(max_examples=20, deadline=None)
@given(cases(), st.data())
def test_weights_are_repeated_documents(case, data):
    documents = len(case.references)
    weights = data.draw(st.lists(st.integers(0, 3), min_size=documents, max_size=documents).filter(any))
    chosen = [i for i, weight in enumerate(weights) for _ in range(weight)]
    repeated = Case(
        [case.predictions[i] for i in chosen], [case.references[i] for i in chosen], case.train, case.num_labels
    )
    rows = (inputs.id_rows(case.predictions, ""), inputs.id_rows(case.references, ""))
    matches = core.match_labels(*rows, case.num_labels)
    options = core.ScoreOptions(k=CUTOFFS)
    weighted = core.score_matches(matches, options, case.train_counts, len(case.train), np.array(weights, dtype=float))
    assert weighted == pytest.approx(repeated.scores(), **EXACT)


# ----------------------------------------------------------------------------------------------- options


def test_forms_of_input_are_equal():
    case = random_case(5)
    expected = case.scores()
    rows = [inputs.id_rows(rows, "") for rows in (case.predictions, case.references)]
    arrays = [(part.indptr, part.indices) for part in rows]
    ranked = sparse.lil_matrix((len(case.predictions), case.num_labels))
    for number, row in enumerate(case.predictions):
        for rank, label in enumerate(row):
            ranked[number, label] = 1.0 / (rank + 1)
    true = indicator(case.references, case.num_labels)
    for predictions, references in (
        arrays,
        (ranked.tocsr(), true),
        (sparse.csr_array(ranked), sparse.csc_array(true)),
    ):
        assert Case(predictions, references, case.train, case.num_labels).scores() == expected


def test_input_is_not_changed():
    pair = np.array([0, 3, 5]), np.array([4, 0, 2, 1, 3], dtype=np.int32)
    kept = [part.copy() for part in pair]
    score_ids(pair, pair, num_labels=5, train_counts=np.arange(5), num_train_documents=9)
    assert all(np.array_equal(part, copy) for part, copy in zip(pair, kept, strict=True))


@pytest.mark.parametrize(
    ("given", "name"), [(0, "0"), (np.int64(2), "2"), ((1, 5), "1-5"), ("1-5", "1-5"), ([3, 3], "3"), ("10+", "10+")]
)
def test_buckets_can_be_written(given, name):
    (bucket,) = core.parse_shots([given])
    assert bucket.name == name
    assert bucket.lowest == int(name.rstrip("+").split("-")[0])


@pytest.mark.parametrize("given", [-1, 1.5, "x", "3-1", (1, 2, 3), None, "1-", ""])
def test_wrong_buckets_are_refused(given):
    with pytest.raises(ValueError, match="is not a bucket of training counts"):
        core.parse_shots([given])


def test_buckets_share_the_labels_out():
    case = CASES["many labels"]
    scores = case.scores(shots=["0", "1", "2-4", "5-9", "10+"])
    labels = sum(value for name, value in scores.items() if name.endswith("_shot_labels"))
    assert labels == len({label for row in case.references for label in row})


def test_oracle_scores_bear_its_name():
    case = CASES["random 1"]
    plain, with_oracle = case.scores(), case.scores(oracle=True)
    cut = [row[: len(true)] for row, true in zip(case.predictions, case.references, strict=True)]
    expected = Case(cut, case.references, case.train, case.num_labels).scores()
    assert {name: with_oracle[name] for name in plain} == plain
    for name in set(with_oracle) - set(plain):
        assert name.startswith("oracle_")
        assert with_oracle[name] == expected[name.removeprefix("oracle_")]
    assert "oracle_1_shot_macro_f1" in with_oracle


def test_intervals_are_seeded_and_lie_around_the_scores():
    case = random_case(6, documents=200)
    scores = case.scores(bootstrap=50, seed=1)
    assert scores == case.scores(bootstrap=50, seed=1)
    assert scores != case.scores(bootstrap=50, seed=2)
    for name in ("micro_f1", "macro_f1", "coverage_at_1", "1_shot_macro_f1", "psp_at_3"):
        low, high = scores[f"{name}_ci_low"], scores[f"{name}_ci_high"]
        assert low <= scores[name] <= high
    narrow = case.scores(bootstrap=50, seed=1, confidence=0.5)
    assert (
        narrow["micro_f1_ci_high"] - narrow["micro_f1_ci_low"] < scores["micro_f1_ci_high"] - scores["micro_f1_ci_low"]
    )


def test_intervals_cover_about_as_often_as_they_say():
    covered = 0
    for seed in range(40):
        generator = np.random.default_rng(seed)
        right = generator.random(150) < 0.3
        predictions = [[0] if hit else [1] for hit in right]
        scores = score_ids(predictions, [[0]] * 150, num_labels=2, k=[1], bootstrap=60, seed=seed)
        covered += scores["precision_at_1_ci_low"] <= 0.3 <= scores["precision_at_1_ci_high"]
    assert covered >= 34  # 95 % of 40 is 38


# ----------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("predictions", "references", "options", "message"),
    [
        ([[0], [5]], [[0], [1]], {}, r"predictions, row 2 \(index 1\): label id 5 is outside 0\.\.2"),
        ([[0], [1]], [[0], [-1]], {}, r"references, row 2 \(index 1\): label id -1 is outside"),
        ([[0], "1"], [[0], [1]], {}, r"predictions, row 2 \(index 1\): expected a list of labels, got '1'"),
        (
            [[0], [1.0]],
            [[0], [1]],
            {},
            r"predictions, row 2 \(index 1\): expected label ids that are integers, got 1\.0",
        ),
        ([[0], [True]], [[0], [1]], {}, r"predictions, row 2 .* got True \(bool\)"),
        ([[0], None], [[0], [1]], {}, r"predictions, row 2 .* got None"),
        ([[0]], [[0], [1]], {}, "1 predictions for 2 references"),
        ([], [], {}, "no documents to score"),
        (3, [[0]], {}, "predictions must be a list with one list of labels for each document, got 3"),
        ([[0]], [[0]], {"k": [0]}, "k must hold whole numbers of at least 1"),
        ([[0]], [[0]], {"k": [1.5]}, "k must hold whole numbers"),
        ([[0]], [[0]], {"bootstrap": -1}, "bootstrap must be 0 or at least 2"),
        ([[0]], [[0]], {"bootstrap": 2, "confidence": 1.0}, "confidence within 0 and 1"),
        ([[0]], [[0]], {"train_counts": np.array([1, 2])}, "for each of the 3 labels"),
        ([[0]], [[0]], {"train_counts": np.array([1, 2, -1])}, "at least 0"),
        ([[0]], [[0]], {"train_counts": np.array([9, 2, 1]), "num_train_documents": 8}, "not below the greatest"),
        ((np.array([0, 2]), np.array([0])), [[0]], {}, "indptr must rise from 0"),
        ((np.array([0, 2, 1], np.uint8), np.array([0])), [[0], [0]], {}, "indptr must rise from 0"),
        ((np.array([0, 1]), np.array([0.5])), [[0]], {}, "arrays of integers"),
    ],
)
def test_bad_input_is_explained(predictions, references, options, message):
    with pytest.raises(ValueError, match=message):
        score_ids(predictions, references, num_labels=3, **options)


def test_unknown_options_are_refused():
    with pytest.raises(TypeError, match="cutoffs"):
        score_ids([[0]], [[0]], num_labels=1, cutoffs=[1])


def test_repeated_labels_are_reported(caplog):
    score_ids([[0], [1, 1, 1]], [[0], [1]], num_labels=2)
    assert (
        "2 repeated labels in predictions were counted once, at their best rank; the first is in row 2." in caplog.text
    )
    assert "in references" not in caplog.text


def test_an_estimated_number_of_training_documents_is_reported(caplog):
    scores = score_ids([[0]], [[0, 1]], num_labels=2, train_counts=np.array([30, 10]), k=[1])
    assert "take training to have 30 documents, estimated" in caplog.text
    known = score_ids([[0]], [[0, 1]], num_labels=2, train_counts=np.array([30, 10]), num_train_documents=30, k=[1])
    assert scores == known
