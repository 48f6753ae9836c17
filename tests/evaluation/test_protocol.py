"""The comparison is honest: who sees what, how wide an interval is, how often a test cries wolf."""

from itertools import product

import jax
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.stats import kstest

from rec_transfer.data.formats import read_cdrib_pair, read_ratings
from rec_transfer.evaluation import metrics, protocol, ranking
from rec_transfer.evaluation.floors import fit_popularity, fit_random
from rec_transfer.evaluation.protocol import compare, evaluate, measure
from rec_transfer.evaluation.ranking import ranks
from rec_transfer.evaluation.splits import leave_last_out
from rec_transfer.evaluation.statistics import (
    bootstrap_interval,
    by_group,
    holm,
    paired_tests,
    per_user,
    share_of_lift,
    summarise,
)
from rec_transfer.keys import named_keys
from rec_transfer.types import History, Interactions, Split, TrainingData

KEY = jax.random.key(0)
KEYS = list(jax.random.split(KEY, 2))


def scored_by(scores):
    """A method that gives these scores, whatever it is shown."""
    return lambda train, *, key: lambda history: scores


def long_frame(table, metric="NDCG@10", seed=0):
    """The frame that ``evaluate`` returns, from {method: one value per user}."""
    return pd.concat(
        pd.DataFrame({"method": name, "seed": seed, "user": np.arange(len(values)), "metric": metric, "value": values})
        for name, values in table.items()
    )


# --- evaluate


def test_there_is_one_row_per_method_seed_user_and_metric(split):
    values = evaluate({"random": fit_random, "popularity": fit_popularity}, split, keys=KEYS)
    assert list(values.columns) == ["method", "seed", "user", "metric", "value"]
    assert len(values) == 2 * 2 * 60 * 4
    assert not values.duplicated(["method", "seed", "user", "metric"]).any()
    assert set(values.user) == set(split.users)
    assert list(values.metric.unique()) == ["NDCG@10", "Recall@20", "HR@10", "MRR"]
    assert sorted(values.seed.unique()) == [0, 1]


def test_values_are_the_metrics_of_the_hidden_half(split):
    relevant = split.hidden.toarray() * 1.0
    values = evaluate({"known": scored_by(relevant), "upside down": scored_by(-relevant)}, split, keys=KEYS[:1])
    by = values.pivot_table(index="method", columns="metric", values="value")
    np.testing.assert_allclose(by.loc["known"], 1.0)
    assert by.loc["upside down", "MRR"] < 0.2
    # A fixed order without ties gives the metrics of that very order.
    order = np.random.default_rng(0).permuted(np.tile(np.arange(30.0), (60, 1)), axis=1)
    found = evaluate({"fixed": scored_by(order)}, split, keys=KEYS[:1])
    places = np.where((relevant > 0) & (order >= 10), 1, 0).sum(axis=1)  # rank 30 - order is at most 20
    np.testing.assert_allclose(
        found[found.metric == "Recall@20"].value, places / np.minimum((relevant > 0).sum(axis=1), 20)
    )


def test_target_history_is_shown_to_ceilings_alone_whatever_their_names_and_never_what_is_hidden(split):
    shown = {}

    def spying(name):
        def fit(train, *, key):
            def score(history):
                shown[name] = history
                return np.zeros(split.hidden.shape)

            return score

        return fit

    methods, ceilings = ["ridge", "ceiling: same user", "oracle", "truth"], ["same user", "ridge, books seen"]
    evaluate(
        {name: spying(name) for name in methods},
        split,
        keys=KEYS[:1],
        ceilings={name: spying(name) for name in ceilings},
    )
    assert [name for name, history in shown.items() if history.target is not None] == ceilings
    for name, history in shown.items():
        np.testing.assert_array_equal(history.source.toarray(), split.history.source.toarray())
        if name in ceilings:
            np.testing.assert_array_equal(history.target.toarray(), split.reference.toarray())
    # The two halves differ, so that the check above could fail.
    assert not np.array_equal(split.reference.toarray(), split.hidden.toarray())


def test_what_a_ceiling_is_shown_stands_in_no_list_of_its_own_and_in_everybody_elses(split):
    # Items of the reference first, then those that are judged: a list without the shown ones is perfect.
    scores = 2.0 * split.reference.toarray() + split.hidden.toarray()
    measures = {"NDCG@10": protocol.METRICS["NDCG@10"]}
    fit = scored_by(scores * 1.0)
    values = evaluate({"recommender": fit}, split, keys=KEYS[:1], ceilings={"told": fit}, measures=measures)
    by = values.groupby("method").value.mean()
    np.testing.assert_allclose(by["told"], 1.0)
    assert by["recommender"] < 0.9


def test_ceilings_need_a_reference_and_names_of_their_own(split):
    with pytest.raises(ValueError, match="ceilings: got some, expected a split with a reference"):
        evaluate({}, split._replace(reference=None), keys=KEYS, ceilings={"same user": fit_random})
    with pytest.raises(ValueError, match=r"ceilings: got \['a'\], which are methods too"):
        evaluate({"a": fit_random}, split, keys=KEYS, ceilings={"a": fit_random})


def test_every_method_is_fitted_on_the_training_users_with_one_key_per_seed(split):
    fits = []

    def spy(train, *, key):
        fits.append((train, tuple(np.asarray(jax.random.key_data(key)).tolist())))
        return lambda history: np.zeros(split.hidden.shape)

    evaluate({"one": spy, "two": spy}, split, keys=KEYS)
    assert all(train is split.train for train, _ in fits)
    keys = [key for _, key in fits]
    assert keys[0] == keys[1] != keys[2] == keys[3]


def test_evaluation_is_deterministic_in_its_keys(split):
    first, again, other = (
        evaluate({"random": fit_random}, split, keys=keys) for keys in (KEYS, KEYS, jax.random.split(KEY, 4)[2:])
    )
    pd.testing.assert_frame_equal(first, again)
    assert not first.value.equals(other.value)


def test_scores_of_another_shape_are_refused(split):
    with pytest.raises(ValueError, match=r"short: scores: got shape \(60, 29\), expected \(60, 30\)"):
        evaluate({"short": scored_by(np.zeros((60, 29)))}, split, keys=KEYS)


def test_nothing_to_compare_is_refused(split):
    with pytest.raises(ValueError, match="methods and keys: got 0 and 2, expected at least one of each"):
        evaluate({}, split, keys=KEYS)
    with pytest.raises(ValueError, match="methods and keys: got 1 and 0, expected at least one of each"):
        evaluate({"random": fit_random}, split, keys=[])


# --- every hidden item by itself, among sampled negatives and among all


def many(users=400, items=30, each=2, seed=0):
    """Users with a few hidden and four known items; a user's history is the user's number."""
    rng = np.random.default_rng(seed)
    has = np.argsort(rng.random((users, items)), axis=1)
    hidden, known = np.zeros((users, items), np.int32), np.zeros((users, items), np.int32)
    np.put_along_axis(hidden, has[:, :each], 1, axis=1)
    np.put_along_axis(known, has[:, each : each + 4], 1, axis=1)
    names = np.array([f"u{user}" for user in range(users)])
    films = Interactions("films", sparse.csr_array(np.arange(1, users + 1)[:, None]), names, np.array(["f"]))
    books = Interactions("books", sparse.csr_array(known), names, np.arange(items).astype(str))
    return Split(
        TrainingData(films, books),
        names,
        History(films.counts),
        sparse.csr_array(hidden),
        sparse.csr_array(known),
        np.ones(items, bool),
    )


def scorer(train, *, key):
    return lambda history: np.sin(np.outer(history.source.toarray()[:, 0], np.arange(1, 31)))


def means(values):
    return values.groupby(["ranking", "metric"]).value.mean()


@pytest.mark.parametrize("each", [1, 3])  # a user's other positives tie with the one that is ranked: they are left out
def test_an_oracle_scores_one(each):
    split = many(each=each)
    assert (means(measure(split.hidden.toarray(), split, key=KEY, per="row", negatives=9)) == 1).all()


@pytest.mark.parametrize("negatives", [9, 19])
def test_a_constant_scorer_earns_the_random_score(negatives):
    split = many(users=3000, each=1)
    values = measure(np.zeros((3000, 30)), split, key=KEY, per="row", negatives=negatives)
    for name, places in (("sampled", negatives + 1), ("full", 30 - 4)):
        truth = {"MRR": np.mean(1 / np.arange(1, places + 1)), "HR@10": min(10, places) / places}
        truth["NDCG@10"] = np.sum(1 / np.log2(1 + np.arange(1, min(10, places) + 1))) / places
        for metric, expected in truth.items():
            part = values[(values.ranking == name) & (values.metric == metric)].value
            assert abs(part.mean() - expected) <= 4 * part.std() / np.sqrt(len(part)) + 1e-12


def test_a_positive_that_is_no_candidate_is_ranked_all_the_same():
    split = many(users=50)
    split = split._replace(candidates=np.arange(30) != split.hidden.indices[0])
    assert (means(measure(split.hidden.toarray(), split, key=KEY, per="row", negatives=9)) == 1).all()


@pytest.mark.parametrize("per", ["user", "row"])
def test_chunks_of_users_change_nothing(per, monkeypatch):
    split, asked = many(users=50), []

    def listening(train, *, key):
        return lambda history: asked.append(history.source.shape[0]) or scorer(train, key=key)(history)

    options = {"keys": [KEY], "per": per, "negatives": 9 if per == "row" else 0}
    whole = evaluate({"sine": listening}, split, **options)
    monkeypatch.setattr(protocol, "BLOCK", 7 * 4 * 30)
    parts = evaluate({"sine": listening}, split, **options)
    assert asked == [50] + [7] * 7 + [1]
    pd.testing.assert_frame_equal(whole, parts)
    finished = protocol.all_scores(scorer(None, key=None), split.history, 30)
    ties = named_keys(KEY, "fit", "ties")["ties"]
    alone = measure(finished, split, key=ties, per=per, negatives=options["negatives"])
    np.testing.assert_array_equal(alone.value, whole.value)


def test_every_method_meets_the_same_negatives_and_another_key_draws_others():
    split = many(users=200)
    scores = scorer(None, key=None)(split.history)
    rank = {"rank": lambda ranked: ranked.rank.astype(float)}
    options = {"measures": rank, "per": "row", "negatives": 9}
    first, turned = (measure(sign * scores, split, key=KEY, **options) for sign in (1, -1))
    np.testing.assert_array_equal(first.value + turned.value, np.where(first.ranking == "sampled", 11, 30 - 5 + 1))
    other = measure(scores, split, key=jax.random.key(6), **options)
    differs = first.value != other.value
    assert differs[first.ranking == "sampled"].any()
    assert not differs[first.ranking == "full"].any()
    drawn = ranking.draw_negatives(split, 9, key=KEY)
    pd.testing.assert_frame_equal(first, measure(scores, split, key=KEY, measures=rank, per="row", drawn=drawn))


def test_a_row_is_one_hidden_item_of_its_user():
    split = many(users=20)
    values = evaluate({"sine": scorer}, split, keys=[KEY], per="row", negatives=5)
    assert list(values.columns) == ["method", "seed", "user", "row", "ranking", "metric", "value"]
    assert len(values) == 40 * 2 * 4
    part = values[(values.ranking == "full") & (values.metric == "MRR")]
    assert part.row.tolist() == list(range(40))
    assert part.user.tolist() == split.users[split.hidden.nonzero()[0]].tolist()


def test_a_scorer_is_given_the_target_history_where_the_split_has_one():
    split, shapes = many(users=20), []

    def ask(train, *, key):
        def score(history):
            shapes.append(None if history.target is None else history.target.shape)
            return np.zeros((history.source.shape[0], 30))

        return score

    for target in (split.known, None):
        evaluate({"ask": ask}, split._replace(history=History(split.history.source, target)), keys=[KEY])
    assert shapes == [(20, 30), None]


def test_what_cannot_be_measured_is_refused(unchecked):
    split = many(users=4)
    with pytest.raises(ValueError, match=r"scores: got shape \(3, 30\), expected \(4, 30\)"):
        measure(np.zeros((3, 30)), split, key=KEY)
    with pytest.raises(ValueError, match="nan: scores: got 120 NaN, expected numbers"):
        evaluate({"nan": scored_by(np.full((4, 30), np.nan))}, split, keys=[KEY])
    with pytest.raises(ValueError, match="negatives: got 25, expected at most 24"):
        measure(np.zeros((4, 30)), split, key=KEY, per="row", negatives=25)
    with pytest.raises(ValueError, match='negatives: got some with per="user"'):
        measure(np.zeros((4, 30)), split, key=KEY, negatives=5)
    with pytest.raises(ValueError, match="drawn: got 3 rows, expected one for each of 8 hidden items"):
        measure(np.zeros((4, 30)), split, key=KEY, per="row", drawn=np.zeros((3, 2), int))
    with pytest.raises(ValueError, match=r"metric: got 'MAP', expected one of \['HR@10'"):
        compare({"random": fit_random}, split, keys=[KEY], metric="MAP")
    with pytest.raises(ValueError, match=r'per: got .item., expected "user" or "row"'):
        measure(np.zeros((4, 30)), split, key=KEY, per="item")


# --- tables


def test_users_are_averaged_over_seeds_and_methods_keep_their_order():
    values = pd.concat(
        [long_frame({"b": [0.1, 0.2], "a": [1.0, 0.0]}), long_frame({"b": [0.3, 0.6], "a": [0.5, 0.0]}, seed=1)]
    )
    table = per_user(values, "NDCG@10")
    assert list(table.columns) == ["b", "a"]
    np.testing.assert_allclose(table["b"], [0.2, 0.4])
    np.testing.assert_allclose(table["a"], [0.75, 0.0])


def test_a_metric_that_was_not_measured_is_refused():
    with pytest.raises(ValueError, match=r"metric: got 'MAP', expected one of \['MRR', 'NDCG@10'\]"):
        per_user(pd.concat([long_frame({"a": [1.0]}), long_frame({"a": [1.0]}, "MRR")]), "MAP")


def test_the_summary_holds_means_intervals_and_the_spread_over_seeds():
    rng = np.random.default_rng(0)
    table = {"a": rng.random(50), "b": rng.random(50) / 2}
    values = pd.concat(
        [long_frame(table), long_frame({name: array + 0.1 for name, array in table.items()}, seed=1),
         long_frame(table, metric="MRR")]
    )  # fmt: skip
    found = summarise(values, key=KEY)
    assert list(found.columns) == ["method", "metric", "mean", "low", "high", "seed_spread"]
    assert found[["method", "metric"]].to_numpy().tolist() == [
        ["a", "NDCG@10"], ["b", "NDCG@10"], ["a", "MRR"], ["b", "MRR"],
    ]  # fmt: skip
    np.testing.assert_allclose(found["mean"][:2], [table["a"].mean() + 0.05, table["b"].mean() + 0.05])
    np.testing.assert_allclose(found.seed_spread, [0.05, 0.05, 0.0, 0.0], atol=1e-12)
    # Near the normal interval, which 50 bounded values nearly have.
    half = 1.96 * table["a"].std() / np.sqrt(50)
    assert found.high[0] - found.low[0] == pytest.approx(2 * half, rel=0.15)
    narrow = summarise(values, key=KEY, confidence=0.5)
    assert narrow.high[0] - narrow.low[0] == pytest.approx(2 * half * 0.6745 / 1.96, rel=0.2)
    pd.testing.assert_frame_equal(found, summarise(values, key=KEY))


def test_users_without_relevant_items_are_left_out():
    complete, holes = np.array([0.2, 0.9, 0.4]), np.array([0.2, np.nan, 0.9, 0.4, np.nan])
    assert bootstrap_interval(holes, key=KEY) == bootstrap_interval(complete, key=KEY)
    found = summarise(long_frame({"a": holes, "b": holes / 2}), key=KEY)
    np.testing.assert_allclose(found["mean"], [0.5, 0.25])
    tests = paired_tests(long_frame({"a": holes, "b": holes / 2}), "a", key=KEY)
    assert tests.difference[0] == pytest.approx(0.25)
    assert np.isfinite(tests[["low", "high", "p"]].to_numpy(float)).all()


def test_the_interval_of_a_rare_share_stays_within_what_was_seen():
    low, high = bootstrap_interval(np.array([0.0] * 11 + [1.0]), key=KEY)
    assert low == 0.0
    assert 0.1 < high < 0.5


def test_the_bootstrap_interval_covers_the_mean_about_as_often_as_it_says():
    rng, repeats = np.random.default_rng(0), 300
    covered = 0
    for number in range(repeats):
        low, high = bootstrap_interval(rng.beta(0.5, 1.5, 100), key=jax.random.key(number), resamples=300)
        covered += low <= 0.25 <= high
    assert 0.95 - 4 * np.sqrt(0.95 * 0.05 / repeats) < covered / repeats < 0.95 + 4 * np.sqrt(0.95 * 0.05 / repeats)


def test_two_rankings_are_not_averaged():
    values = evaluate({"sine": scorer}, many(users=20), keys=[KEY], per="row", negatives=5)
    with pytest.raises(ValueError, match=r"values: got \['full', 'sampled'\], expected one ranking"):
        per_user(values, "MRR")
    assert per_user(values[values.ranking == "full"], "MRR").shape == (20, 1)


def test_finished_scores_are_summarised_under_one_name():
    split = many(users=20)
    table = summarise(measure(split.hidden.toarray(), split, key=KEY), key=KEY)
    assert set(table.method) == {"scores"}
    assert (table["mean"] == 1).all()


def test_one_user_has_no_interval():
    assert np.isnan(bootstrap_interval(np.array([0.3, np.nan]), key=KEY)).all()


# --- paired tests


def exact_p(differences):
    """Two-sided p-value of a mean under every flip of the signs."""
    flips = np.array(list(product([1, -1], repeat=len(differences))))
    means = flips @ differences / len(differences)
    observed, slack = np.mean(differences), 1e-12
    return min(1.0, 2 * min(np.mean(means >= observed - slack), np.mean(means <= observed + slack)))


def test_few_users_get_the_exact_permutation_test():
    rng = np.random.default_rng(0)
    table = {"mine": rng.random(8), "near": rng.random(8), "far": rng.random(8) - 0.8}
    tests = paired_tests(long_frame(table), "mine", key=KEY)
    assert list(tests.columns) == ["against", "difference", "low", "high", "p", "p_holm"]
    assert list(tests.against) == ["near", "far"]
    for row in tests.itertuples():
        differences = table["mine"] - table[row.against]
        assert row.difference == pytest.approx(differences.mean())
        assert row.low < row.difference < row.high
        assert row.p == pytest.approx(exact_p(differences))
    assert tests.p[1] == pytest.approx(2 / 2**8)


def test_holm_does_not_depend_on_the_order_of_the_tests():
    p = np.array([0.01, 0.04, 0.03, 0.005])
    np.testing.assert_allclose(holm(p), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm(p[::-1]), holm(p)[::-1])
    assert holm([0.9, 0.8]).tolist() == [1.0, 1.0]


def test_holm_by_hand():
    # Eight users, of whom some differ in the other direction: p-values that can be counted, out of order.
    size = np.arange(1.0, 9.0)
    signs = {"b": [1] * 5 + [-1, 1, 1], "c": [1] * 8, "d": [1] * 8, "e": [1, -1] * 4}
    table = {"a": np.zeros(8)} | {name: -size * sign for name, sign in signs.items()}
    tests = paired_tests(long_frame(table), "a", key=KEY)
    b, c, d, e = p = [exact_p(size * sign) for sign in signs.values()]
    np.testing.assert_allclose(tests.p, p)
    # In order the factors are 4, 3, 2, 1, and no corrected value falls below one before it: d's 3 d is less than 4 c.
    assert c == d < b < e
    np.testing.assert_allclose(tests.p_holm, [2 * b, 4 * c, 4 * c, max(2 * b, e)])
    assert 2 * b > 4 * c


def test_corrected_p_values_never_exceed_one():
    rng = np.random.default_rng(1)
    table = {"a": np.zeros(8)} | {str(number): rng.normal(size=8) for number in range(5)}
    assert paired_tests(long_frame(table), "a", key=KEY).p_holm.max() == 1.0


def test_without_an_effect_p_values_are_uniform_and_with_one_they_are_small():
    rng, users, repeats = np.random.default_rng(0), 30, 50
    table = {"reference": np.zeros(users)} | {f"noise {n}": rng.normal(size=users) for n in range(repeats)}
    table["better"] = rng.normal(1.2, 1.0, users)
    tests = paired_tests(long_frame(table), "reference", key=KEY).set_index("against")
    assert tests.p["better"] < 1e-3
    assert tests.p_holm["better"] < 0.05
    null = tests.drop("better")
    assert kstest(null.p, "uniform").pvalue > 1e-3
    # Nor does the interval of a difference leave zero out much oftener than it says, in 5 % of the repeats.
    assert np.mean((null.low > 0) | (null.high < 0)) < 0.05 + 4 * np.sqrt(0.05 * 0.95 / repeats)


def test_a_method_that_was_not_evaluated_is_refused():
    with pytest.raises(ValueError, match=r"method: got 'mine', expected one of \['a', 'b'\]"):
        paired_tests(long_frame({"a": [1.0, 2.0], "b": [0.0, 1.0]}), "mine", key=KEY)


# --- compare


def test_compare_ranks_the_methods_and_tests_the_best_ones_lead(split):
    truth = split.hidden.toarray() * 1.0
    methods = {"random": fit_random, "known": scored_by(truth), "popularity": fit_popularity}
    table = compare(methods, split, keys=KEYS)
    assert list(table.columns) == ["method", "mean", "low", "high", "behind", "p_holm"]
    assert list(table.method) == ["known", "popularity", "random"]
    assert table["mean"][0] == pytest.approx(1.0)
    assert np.isnan(table.behind[0])
    assert np.isnan(table.p_holm[0])
    np.testing.assert_allclose(table.behind[1:], 1.0 - table["mean"][1:])
    assert (table.p_holm[1:] < 0.01).all()
    assert ((table.low <= table["mean"]) & (table["mean"] <= table.high)).all()


def test_compare_takes_another_metric_and_a_single_method(split):
    table = compare({"popularity": fit_popularity}, split, keys=KEYS[:1], metric="Recall@20")
    assert list(table.columns) == ["method", "mean", "low", "high"]
    scores = fit_popularity(split.train, key=KEY)(split.history)
    expected = metrics.recall_at_k(ranks(scores, split.hidden, key=KEY), 20)
    assert table["mean"][0] == pytest.approx(np.nanmean(expected), abs=0.02)  # up to ties


# --- share of the oracle's lift


def three(users, rng, method=0.3, noise=0.1):
    """Floor .2, ceiling .4 and a method in between, on users who differ much more than the methods do."""
    user = rng.normal(0, 0.1, users)
    lift = rng.normal(0, noise, (3, users))
    names, levels = ("popularity", "mine", "oracle: NDCG@10"), (0.2, method, 0.4)
    return {name: level + user + more for name, level, more in zip(names, levels, lift, strict=True)}


def test_the_share_is_zero_at_the_floor_one_at_the_ceiling_and_linear_in_between():
    rng = np.random.default_rng(0)
    table = {"popularity": rng.random(50), "oracle: NDCG@10": 2 + rng.random(50)}
    table["mine"] = 0.25 * table["popularity"] + 0.75 * table["oracle: NDCG@10"]
    shares = share_of_lift(long_frame(table), key=KEY).set_index("method")
    np.testing.assert_allclose(shares.share, [0, 1, 0.75], atol=1e-12)
    # Users are resampled jointly for all three, so what holds for every user has no spread.
    np.testing.assert_allclose(shares.low, shares.share, atol=1e-12)
    np.testing.assert_allclose(shares.high, shares.share, atol=1e-12)


def test_users_are_averaged_over_seeds_before_the_share():
    one = {"popularity": np.zeros(9), "oracle: NDCG@10": np.ones(9), "mine": np.ones(9)}
    other = one | {"mine": np.zeros(9)}
    values = pd.concat([long_frame(one, seed=0), long_frame(other, seed=1)])
    assert share_of_lift(values, key=KEY).set_index("method").share["mine"] == pytest.approx(0.5)


def test_the_interval_of_a_share_covers_it_about_as_often_as_it_says():
    inside = []
    for number in range(200):
        values = long_frame(three(150, np.random.default_rng(number)))
        row = share_of_lift(values, key=jax.random.key(number), resamples=300).set_index("method").loc["mine"]
        inside.append(row.low < 0.5 < row.high)
    assert 0.89 < np.mean(inside) < 0.99


def test_worlds_are_averaged_and_the_interval_speaks_of_the_next_world():
    rng = np.random.default_rng(1)
    shares = (0.2, 0.5, 0.8)
    parts = [long_frame(three(2000, rng, 0.2 + 0.2 * share, 0.01)).assign(world=w) for w, share in enumerate(shares)]
    pooled = share_of_lift(pd.concat(parts), key=KEY).set_index("method").loc["mine"]
    alone = [share_of_lift(part.drop(columns="world"), key=KEY).set_index("method").loc["mine"] for part in parts]
    assert pooled.share == pytest.approx(np.mean([one.share for one in alone]))
    assert pooled.share == pytest.approx(0.5, abs=0.01)
    # Three worlds so far apart: the spread between them is what matters, that within is a hundredth of it.
    assert pooled.high - pooled.low > 10 * max(one.high - one.low for one in alone)


def test_a_share_of_nothing_is_not_reported():
    rng = np.random.default_rng(2)
    table = {"popularity": rng.normal(size=100), "oracle: NDCG@10": rng.normal(size=100), "mine": rng.normal(size=100)}
    assert share_of_lift(long_frame(table), key=KEY)[["share", "low", "high"]].isna().all(axis=None)


def test_a_share_needs_its_floor_and_its_ceiling():
    values = long_frame({"popularity": np.zeros(5), "mine": np.ones(5)})
    with pytest.raises(ValueError, match=r"ceiling: got 'oracle: NDCG@10', expected one of \['popularity', 'mine'\]"):
        share_of_lift(values, key=KEY)
    with pytest.raises(ValueError, match="floor: got 'nobody', expected one of"):
        share_of_lift(values, ceiling="mine", floor="nobody", key=KEY)


# --- groups of users


def test_groups_are_averaged_apart_as_a_lead_where_asked():
    values = long_frame({"low": [0.0, 0.1, 0.2, 0.3], "high": [1.0, 1.1, 2.2, 2.3]})
    groups = {0: "quiet", 1: "quiet", 2: "active", 3: "active"}
    table = by_group(values, groups, against="low", key=KEY).set_index(["method", "group"])
    assert table.loc[("high", "quiet"), "mean"] == pytest.approx(1)
    assert table.loc[("high", "active"), "mean"] == pytest.approx(2)
    assert (table.users == 2).all()
    assert (table.loc["low", "mean"] == 0).all()
    plain = by_group(values, groups, key=KEY).set_index(["method", "group"])
    assert plain.loc[("low", "active"), "mean"] == pytest.approx(0.25)
    assert plain.loc[("low", "active"), "low"] >= 0.2


def test_users_without_a_label_are_left_out_and_nobody_with_one_is_refused():
    values = long_frame({"one": [0.0, 1.0, 5.0]})
    table = by_group(values, {0: "a", 1: "a"}, key=KEY)
    assert table.users.tolist() == [2]
    assert table["mean"].tolist() == [0.5]
    with pytest.raises(ValueError, match="groups: got labels for none of the 3 users, expected users such as '0'"):
        by_group(values, {"nobody": "a"}, key=KEY)
    with pytest.raises(ValueError, match="against: got 'two', expected one of"):
        by_group(values, {0: "a"}, against="two", key=KEY)


# --- values of single items


def test_the_interval_is_from_users_who_come_with_all_their_rows():
    rng = np.random.default_rng(0)
    level = rng.normal(size=60)
    rows = pd.DataFrame({"user": np.repeat(np.arange(60), 20), "row": np.arange(1200)})
    rows = rows.assign(method="m", ranking="full", metric="x", value=level[rows.user])
    table = summarise(rows, key=KEY)
    assert table.columns.tolist() == ["method", "ranking", "metric", "rows", "mean", "low", "high"]
    line = table.iloc[0]
    assert line["mean"] == pytest.approx(level.mean())
    assert line["rows"] == 1200
    # 60 independent users, not 1,200 rows: the width is 2 x 1.96 standard errors of a mean of 60.
    assert line.high - line.low == pytest.approx(2 * 1.96 * level.std() / np.sqrt(60), rel=0.1)
    again = summarise(pd.concat([rows.assign(seed=seed) for seed in (0, 1)]), key=KEY)  # seeds add no rows
    pd.testing.assert_frame_equal(again, table)


def test_users_with_more_rows_weigh_more():
    rows = pd.DataFrame({"user": ["a", "b", "b", "b"], "row": range(4), "ranking": "full", "metric": "x"})
    assert summarise(rows.assign(value=[1.0, 0.0, 0.0, 0.0]), key=KEY)["mean"][0] == 0.25


# --- the published figures of popularity


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [("sport", "cloth", (3.37, 3.41, 6.74)), ("cloth", "sport", (3.43, 3.58, 7.23))],
)
def test_popularity_on_amazon_is_what_the_notes_say(data_folder, source, target, expected):
    split = read_cdrib_pair(data_folder / "amazon-cloth-sport", source, target, shared=9828).test
    values = evaluate({"popularity": fit_popularity}, split, keys=[KEY], per="row", negatives=999)
    sampled = 100 * means(values)["sampled"]
    for metric, value in zip(("MRR", "NDCG@10", "HR@10"), expected, strict=True):
        assert sampled[metric] == pytest.approx(value, abs=0.3)  # other negatives, other ties


@pytest.mark.parametrize(
    ("source", "target", "expected"), [("music", "book", (0.4218, 0.2598)), ("book", "music", (0.3397, 0.1863))]
)
def test_popularity_on_douban_is_what_the_notes_say(data_folder, source, target, expected):
    read = {
        domain: read_ratings(data_folder / "douban-book-music" / f"douban_{domain}" / "ratings.dat", domain)
        for domain in (source, target)
    }
    split = leave_last_out(read[source], read[target])
    assert split.hidden.nnz == len(split.users) == len(read[target].users)
    values = evaluate({"popularity": fit_popularity}, split, keys=[KEY], per="row", negatives=99)
    for metric, value in zip(("HR@10", "NDCG@10"), expected, strict=True):
        assert means(values)["sampled"][metric] == pytest.approx(value, abs=0.02)
