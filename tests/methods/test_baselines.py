"""The rungs that every model has to beat do what their names say."""

import gc
import weakref
from dataclasses import replace

import jax
import numpy as np
import pytest
from scipy import sparse
from scipy.stats import kstest

from rec_transfer.evaluation import metrics
from rec_transfer.evaluation.floors import fit_popularity, fit_random
from rec_transfer.methods import baselines
from rec_transfer.methods.baselines import fit_ease, fit_emcdr, fit_item_cosine, fit_ridge_counts
from rec_transfer.types import History, Interactions, TrainingData

KEY = jax.random.key(0)
FAMILIES = {
    fit_item_cosine: baselines.item_cosine_candidates,
    fit_ridge_counts: baselines.ridge_candidates,
    fit_ease: baselines.ease_candidates,
    fit_emcdr: baselines.emcdr_candidates,
}


def domain(name, users, counts):
    counts = np.asarray(counts)
    items = np.array([f"{name}{column}" for column in range(counts.shape[1])])
    return Interactions(name, sparse.csr_array(counts), np.array(users), items)


def history(counts):
    return History(sparse.csr_array(np.asarray(counts)))


def translated(users=80, strangers=40, items=12, seed=0):
    """Two platforms on which the overlapping users click the same things, under names that are shuffled."""
    rng = np.random.default_rng(seed)
    taste = rng.dirichlet(np.full(items, 0.2), users)
    source = np.stack([rng.multinomial(40, taste[user]) for user in range(users)])
    order = rng.permutation(items)
    names = [f"u{user:02d}" for user in range(users)]
    alone = rng.poisson(3.0, (strangers, items)) * np.arange(items)  # target strangers have a taste of their own
    train = TrainingData(
        domain("films", names + [f"f{n}" for n in range(strangers)], np.vstack([source, alone])),
        domain("books", names + [f"b{n}" for n in range(strangers)], np.vstack([source[:, order], alone[:, ::-1]])),
    )
    return train, order


def test_random_scores_are_uniform_and_new_for_each_user(split):
    scorer = fit_random(split.train, key=KEY)
    scores = scorer(history(np.ones((200, 30), int)))
    assert scores.shape == (200, 30)
    assert kstest(scores.ravel(), "uniform").pvalue > 1e-3
    assert len(np.unique(scores.round(12), axis=0)) == 200
    assert not np.array_equal(fit_random(split.train, key=jax.random.key(1))(split.history), scores[:60])


def test_popularity_counts_the_clicks_of_every_training_user_of_the_target():
    train = TrainingData(
        domain("films", ["a", "b"], [[1, 0], [5, 5]]), domain("books", ["b", "c"], [[1, 2, 0], [1, 0, 4]])
    )
    scores = fit_popularity(train, key=KEY)(history([[0, 9], [3, 0], [1, 1]]))
    assert scores.tolist() == [[2.0, 2.0, 4.0]] * 3


@pytest.mark.parametrize("fit", [fit_ridge_counts, fit_item_cosine, fit_ease, fit_emcdr])
def test_what_reads_counts_reads_a_translation_between_catalogues(fit):
    train, order = translated()
    scorer = fit(train, key=KEY)
    fresh, _ = translated(seed=1)
    source = fresh.source.counts[:80].toarray()
    truth = source[:, order] > 0
    found, popular = (
        np.nanmean(metrics.ndcg(scores, truth, key=KEY))
        for scores in (scorer(history(source)), fit_popularity(train, key=KEY)(history(source)))
    )
    assert found > 0.8
    assert found > popular + 0.15


def with_robots(train):
    """The same data with eight overlapping users who click a thousand times as much, at random."""
    rng = np.random.default_rng(0)
    sides = []
    for side in (train.source, train.target):
        counts = side.counts.toarray()
        counts[:8] = rng.permuted(counts[:8] * 1000, axis=1)
        sides.append(replace(side, counts=sparse.csr_array(counts)))
    return TrainingData(*sides)


def test_ridge_takes_log_scaled_counts_where_a_few_heavy_users_drown_the_others():
    assert fit_ridge_counts(with_robots(translated()[0]), key=KEY).choice.startswith("log_scaled")


def test_ridge_takes_raw_counts_where_the_number_of_clicks_is_what_tells():
    # Whoever clicked a film more than once reads books of the first half, everybody else those of the second; the
    # logarithm scaled to one length cannot tell them apart.
    rng = np.random.default_rng(0)
    eager = rng.random(80) < 0.5
    films = np.where(eager, 6, 1)[:, None] * np.ones((80, 2), int)
    likes = np.where(eager[:, None] == (np.arange(20) < 10), 0.5, 0.02)
    names = [f"u{user:02d}" for user in range(80)]
    train = TrainingData(domain("films", names, films), domain("books", names, rng.random((80, 20)) < likes))
    assert fit_ridge_counts(train, key=KEY).choice.startswith("raw")


@pytest.mark.parametrize("fit", FAMILIES)
def test_a_tuned_rung_tries_its_own_candidates_and_fits_the_best(fit):
    train, _ = translated()
    scorer, candidates = fit(train, key=KEY), FAMILIES[fit]()
    assert list(scorer.means) == list(candidates)
    assert scorer.means[scorer.choice] == max(scorer.means.values())
    chosen = candidates[scorer.choice](train, key=KEY)
    sources = history(train.source.counts.toarray()[:5])
    np.testing.assert_allclose(scorer(sources), chosen(sources), atol=1e-9)


def test_every_family_has_twelve_candidates():
    assert {len(candidates()) for candidates in FAMILIES.values()} == {12}


@pytest.mark.parametrize("fit", FAMILIES)
def test_a_tuned_rung_keeps_no_training_data(fit):
    train, _ = translated()
    there = [weakref.ref(data) for data in (train, train.source, train.target)]
    scorer = fit(train, key=KEY)
    del train
    gc.collect()
    assert [data() for data in there] == [None] * 3
    assert scorer(history(np.ones((1, 12), int))).shape == (1, 12)
