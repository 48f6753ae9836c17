"""Popularity added to a method, and a mixture grown on held-out rows: what helps is taken, what does not is not."""

import jax
import numpy as np
import pytest
from scipy import sparse

from rec_transfer.evaluation.tuning import Tuned
from rec_transfer.methods import ensembles
from rec_transfer.types import History, Interactions, TrainingData

KEY = jax.random.key(0)
ASKED = History(sparse.csr_array((2, 2), dtype=int))


@pytest.fixture(scope="module")
def train():
    """Four users, of whom three have p in the target, nobody q, two r and one s."""
    counts = sparse.csr_array(np.array([[1, 0, 2, 0], [1, 0, 0, 0], [0, 0, 1, 0], [3, 0, 0, 1]]))
    ids = np.array(["a", "b", "c", "d"])
    return TrainingData(
        Interactions("source", counts[:, :2], ids, np.array(["x", "y"])),
        Interactions("target", counts, ids, np.array(["p", "q", "r", "s"])),
    )


def test_popularity_lifts_by_its_power_and_is_added_by_its_weight(train):
    def fives(train, *, key):
        return lambda history: np.full((history.source.shape[0], 4), 5.0)

    def scores(**options):
        return ensembles.with_popularity(fives, **options)(train, key=KEY)(History(train.source.counts[:2]))

    share = np.array([0.75, 0.25, 0.5, 0.25])  # nobody has q: as if one had
    np.testing.assert_array_equal(ensembles.shares(train), share)
    np.testing.assert_allclose(scores(weight=2.0), [5 + 2 * share] * 2)
    np.testing.assert_allclose(scores(power=0.5), [5 * np.sqrt(share)] * 2, rtol=1e-6)
    np.testing.assert_allclose(scores(), np.full((2, 4), 5.0))


@pytest.fixture(scope="module")
def parts():
    """Two views of one truth, each with noise of its own, and noise alone; a judge that knows the truth."""
    rng = np.random.default_rng(0)
    truth, first, second, noise = rng.normal(size=(4, 50, 40))
    scores = {"one": truth + first, "other": truth + second, "noise": noise}
    scores = {name: part.astype(np.float32) for name, part in scores.items()}
    return scores, lambda total: float(np.corrcoef(total.ravel(), truth.ravel())[0, 1])


def test_what_helps_is_mixed_in_about_equally_and_noise_is_not(parts):
    scores, judge = parts
    weights = ensembles.grow_mixture(scores, judge)
    assert set(weights) == {"one", "other"}
    assert 0.5 < weights["one"] / weights["other"] < 2
    total = sum(weight * scores[name] for name, weight in weights.items())
    assert judge(total) > max(judge(part) for part in scores.values()) + 0.05
    # The mean of two equal views with unit noise correlates sqrt(2 / 3) with the truth.
    assert judge(total) == pytest.approx(np.sqrt(2 / 3), abs=0.03)


def test_the_best_part_stays_alone_where_nothing_helps(parts):
    scores, judge = parts
    assert ensembles.grow_mixture({"one": scores["one"], "noise": scores["noise"]}, judge) == {"one": 1.0}
    assert ensembles.grow_mixture(scores, judge, most=0) in ({"one": 1.0}, {"other": 1.0})
    assert len(ensembles.grow_mixture(scores, judge, gain=1.0)) == 1


def test_a_part_added_more_than_once_has_the_sum_of_its_weights():
    scores = {name: np.float32([unit]) for name, unit in (("one", [1, 0]), ("other", [0, 1]))}
    wanted = np.array([[1.0, 1.6]])  # other is the start, then one is added with 1, then other twice with .3
    weights = ensembles.grow_mixture(scores, lambda total: 10 - float(np.linalg.norm(total - wanted)))
    assert weights == pytest.approx({"one": 1.0, "other": 1.6})


def test_standardised_scores_have_mean_zero_and_variance_one_in_every_row():
    scores = np.random.default_rng(0).gamma(1.0, size=(6, 9)) * np.arange(1, 7)[:, None]
    found = ensembles.standardised(np.vstack([scores, np.full((1, 9), 0.1)]))
    np.testing.assert_allclose(found.mean(axis=1), 0.0, atol=1e-12)
    np.testing.assert_allclose(found[:6].std(axis=1), 1.0)
    assert not found[6].any()  # nothing tells its items apart


def constant(*rows):
    """A method whose scores are these rows, whoever asks."""
    return lambda train, *, key: lambda history: np.array(rows, float)


def test_a_mixture_adds_standardised_scores(train):
    methods = {"one": constant([1, 2, 3, 6], [4, 0, 4, 0]), "other": constant([0, 1, 0, 1], [1, 2, 3, 4])}
    mixed = ensembles.mixture(methods, {"one": 2.0, "other": 0.5})(train, key=KEY)(ASKED)
    first = np.array([[-2, -1, 0, 3] / np.sqrt(3.5), [1, -1, 1, -1]])
    second = np.array([[-1, 1, -1, 1], [-1.5, -0.5, 0.5, 1.5] / np.sqrt(1.25)])
    np.testing.assert_allclose(mixed, 2.0 * first + 0.5 * second)


def test_a_method_without_weight_is_not_fitted(train):
    def refused(train, *, key):
        raise AssertionError("fitted")

    methods = {"one": constant([1, 2, 3, 6]), "none": refused}
    mixed = ensembles.mixture(methods, {"one": 1.0, "none": 0.0})(train, key=KEY)(ASKED)
    np.testing.assert_allclose(mixed, [[-2, -1, 0, 3] / np.sqrt(3.5)])


def test_weights_of_other_methods_are_refused():
    with pytest.raises(ValueError, match="weights: got"):
        ensembles.mixture({"a": constant([0])}, {"b": 1.0})
    with pytest.raises(ValueError, match="above zero"):
        ensembles.mixture({"a": constant([0])}, {"a": 0.0})


def test_the_mean_of_methods_is_the_mean_of_their_scores(train):
    mean = ensembles.averaged({"one": constant([1, 2]), "other": constant([3, 6])})
    np.testing.assert_allclose(mean(train, key=KEY)(ASKED), [[2, 4]])
    with pytest.raises(ValueError, match="methods: got none"):
        ensembles.averaged({})


def test_an_average_names_what_its_parts_chose(train):
    def choosing(train, *, key):
        return Tuned(constant([1, 2])(train, key=key), "this one", {})

    mean = ensembles.averaged({"one": choosing, "fixed": constant([3, 6]), "other": choosing})(train, key=KEY)
    assert mean.choice == "one: this one; other: this one"
    np.testing.assert_allclose(mean(ASKED), [[5 / 3, 10 / 3]])


def test_nothing_to_mix_is_refused():
    with pytest.raises(ValueError, match="scores: got none"):
        ensembles.grow_mixture({}, lambda total: 1.0)
