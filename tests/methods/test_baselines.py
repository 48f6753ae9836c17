"""The rungs that every model has to beat do what their names say."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from scipy import sparse
from scipy.stats import kstest

from rec_transfer.evaluation import metrics
from rec_transfer.evaluation.floors import fit_popularity, fit_random
from rec_transfer.methods import baselines
from rec_transfer.methods.baselines import GRIDS, fit_ease, fit_emcdr, fit_item_cosine, fit_ridge_counts
from rec_transfer.methods.item_models import damped, plain
from rec_transfer.types import History, Interactions, TrainingData

KEY = jax.random.key(0)


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


def test_ridge_centres_on_all_training_users_of_each_domain():
    # Averaged over every source user the regression term vanishes and the mean of all target users is left, whose
    # taste is not that of the overlapping users.
    train, _ = translated()
    scores = fit_ridge_counts(train, key=KEY)(History(train.source.counts)).mean(axis=0)
    counts = train.target.counts
    distances = [np.abs(scores - form(counts).mean(axis=0)).max() for form in (plain, damped)]
    assert min(distances) < 1e-9
    assert np.abs(damped(counts).mean(axis=0) - damped(counts[:80]).mean(axis=0)).max() > 1e-2


def form_chosen(train):
    """Which form of counts the scorer works in: its mean over all source users is the target's mean in that form."""
    scores = fit_ridge_counts(train, key=KEY)(History(train.source.counts)).mean(axis=0)
    counts = train.target.counts
    return [form.__name__ for form in (plain, damped) if np.allclose(scores, form(counts).mean(axis=0))]


def test_ridge_takes_damped_counts_where_a_few_heavy_users_drown_the_others():
    plain, _ = translated()
    rng = np.random.default_rng(0)
    sides = []
    for side in (plain.source, plain.target):
        counts = side.counts.toarray()
        counts[:8] = rng.permuted(counts[:8] * 1000, axis=1)  # robots, whose clicks in one domain say nothing
        sides.append(replace(side, counts=sparse.csr_array(counts)))
    assert form_chosen(TrainingData(*sides)) == ["damped"]


def test_ridge_takes_plain_counts_where_damping_hides_everything(monkeypatch):
    def damped(counts):
        return 0.0 * counts

    monkeypatch.setattr(baselines, "damped", damped)
    assert form_chosen(translated()[0]) == ["plain"]


@pytest.mark.parametrize(("fit", "name"), [(fit_item_cosine, "item cosine"), (fit_ease, "EASE"), (fit_emcdr, "EMCDR")])
def test_a_tuned_rung_tries_its_own_grid_and_fits_the_best(fit, name):
    train, _ = translated()
    scorer = fit(train, key=KEY)
    assert list(scorer.means) == list(GRIDS[name])
    assert scorer.means[scorer.choice] == max(scorer.means.values())
    chosen = GRIDS[name][scorer.choice](train, key=KEY)
    sources = history(train.source.counts.toarray()[:5])
    np.testing.assert_allclose(scorer(sources), chosen(sources))


def test_every_grid_has_the_same_budget():
    assert {name: len(grid) for name, grid in GRIDS.items()} == dict.fromkeys(("item cosine", "EASE", "EMCDR"), 12)
