"""The comparison is honest: who sees what, how wide an interval is, how often a test cries wolf."""

from itertools import product

import jax
import numpy as np
import pandas as pd
import pytest
from scipy.stats import kstest

from rec_transfer.evaluation import metrics
from rec_transfer.evaluation.floors import fit_popularity, fit_random
from rec_transfer.evaluation.protocol import compare, evaluate
from rec_transfer.evaluation.statistics import (
    bootstrap_interval,
    by_group,
    paired_tests,
    per_user,
    share_of_lift,
    summarise,
)

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


def test_values_are_the_metrics_of_the_scored_half(split):
    relevant = split.scored.toarray() * 1.0
    values = evaluate({"known": scored_by(relevant), "upside down": scored_by(-relevant)}, split, keys=KEYS[:1])
    by = values.pivot_table(index="method", columns="metric", values="value")
    np.testing.assert_allclose(by.loc["known"], 1.0)
    assert by.loc["upside down", "MRR"] < 0.2
    # A fixed order without ties gives the metrics of that very order.
    order = np.random.default_rng(0).permuted(np.tile(np.arange(30.0), (60, 1)), axis=1)
    found = evaluate({"fixed": scored_by(order)}, split, keys=KEYS[:1])
    expected = metrics.recall_at_k((30 - order).astype(int), relevant, 20)
    np.testing.assert_allclose(found[found.metric == "Recall@20"].value, expected)


def test_target_history_is_shown_to_privileged_rows_alone_and_never_the_scored_half(split):
    shown = {}

    def spying(name):
        def fit(train, *, key):
            def score(history):
                shown[name] = history
                return np.zeros(split.scored.shape)

            return score

        return fit

    plain = ["ridge", "my oracle", "no ceiling", "Truth", "the truth"]
    privileged = ["ceiling: same user", "oracle", "oracle (mean)", "truth"]
    evaluate({name: spying(name) for name in plain + privileged}, split, keys=KEYS[:1])
    assert [name for name, history in shown.items() if history.target is not None] == privileged
    for name, history in shown.items():
        np.testing.assert_array_equal(history.source.toarray(), split.history.source.toarray())
        if name in privileged:
            np.testing.assert_array_equal(history.target.toarray(), split.reference.toarray())
    # The two halves differ, so that the check above could fail.
    assert not np.array_equal(split.reference.toarray(), split.scored.toarray())


def test_every_method_is_fitted_on_the_training_users_with_one_key_per_seed(split):
    fits = []

    def spy(train, *, key):
        fits.append((train, tuple(np.asarray(jax.random.key_data(key)).tolist())))
        return lambda history: np.zeros(split.scored.shape)

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
    with pytest.raises(ValueError, match=r"scores of 'short': got shape \(60, 29\), expected \(60, 30\)"):
        evaluate({"short": scored_by(np.zeros((60, 29)))}, split, keys=KEYS)


def test_nothing_to_compare_is_refused(split):
    with pytest.raises(ValueError, match="methods and keys: got 0 and 2, expected at least one of each"):
        evaluate({}, split, keys=KEYS)
    with pytest.raises(ValueError, match="methods and keys: got 1 and 0, expected at least one of each"):
        evaluate({"random": fit_random}, split, keys=[])


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
    truth = split.scored.toarray() * 1.0
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
    expected = metrics.recall_at_k(metrics.ranks_of(scores, key=KEY), split.scored.toarray(), 20)
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
