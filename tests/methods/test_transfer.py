"""The recommender: what reaches the aligner, what comes out as a list, and what speaks for an item in it."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import sparse

from rec_transfer import models
from rec_transfer.evaluation import metrics
from rec_transfer.evaluation.floors import fit_popularity
from rec_transfer.maps.linear import fit_ridge_map
from rec_transfer.methods import transfer
from rec_transfer.methods.lists import reasons, recommend
from rec_transfer.methods.transfer import domain_vaes, fit_transfer, same_user, unknown_user, with_maps
from rec_transfer.types import Gaussian, History

KEY = jax.random.key(0)


def same(pairs, *, unpaired=None, decode=None, key=None):
    """The aligner that takes the source's belief for the target's."""
    return lambda belief: belief


def bits(key):
    return tuple(np.asarray(jax.random.key_data(key)).tolist())


# --- from clicks to scores


def test_a_belief_is_the_aligned_source_posterior_and_a_score_its_decoded_mean(split, vaes):
    source, target = vaes

    def doubled(pairs, **_):
        return lambda belief: Gaussian(2 * belief.mean, 4 * belief.covariance)

    fitted = fit_transfer(split.train, doubled, source, target, key=KEY)
    belief = models.posterior(source, split.history.source)
    np.testing.assert_allclose(fitted.target_posterior(split.history).mean, 2 * belief.mean, rtol=1e-6)
    np.testing.assert_allclose(fitted.target_posterior(split.history).covariance, 4 * belief.covariance, rtol=1e-6)
    scores = fitted(split.history)
    assert isinstance(scores, np.ndarray)
    np.testing.assert_allclose(scores, target.decoder(2 * belief.mean), rtol=1e-5, atol=1e-6)


def test_a_setting_that_the_map_names_is_the_recommenders_choice(split, vaes):
    def named(pairs, **_):
        return Named()

    class Named:
        choice = "penalty 3"

        def __call__(self, belief):
            return belief

    assert fit_transfer(split.train, named, *vaes, key=KEY).choice == "penalty 3"
    assert fit_transfer(split.train, same, *vaes, key=KEY).choice == ""


def test_the_aligner_sees_overlapping_users_paired_and_the_others_unpaired(split, vaes):
    seen = {}

    def spy(pairs, *, unpaired, decode, key):
        seen.update(pairs=pairs, unpaired=unpaired, decode=decode, key=key)
        return same(pairs)

    fit_transfer(split.train, spy, *vaes, key=KEY)
    source, target = split.train.source, split.train.target
    shared = sorted(set(source.users) & set(target.users))
    assert len(shared) == 60
    rows = [[domain.users.tolist().index(user) for user in shared] for domain in (source, target)]
    for side, model, domain, chosen in zip(("source", "target"), vaes, (source, target), rows, strict=True):
        expected = models.posterior(model, domain.counts[chosen])
        np.testing.assert_allclose(getattr(seen["pairs"], side).mean, expected.mean, rtol=1e-5, atol=1e-6)
        alone = sorted(set(range(len(domain.users))) - set(chosen))
        expected = models.posterior(model, domain.counts[alone])
        np.testing.assert_allclose(getattr(seen["unpaired"], side).mean, expected.mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(seen["pairs"].counts.toarray(), target.counts[rows[1]].toarray())
    assert seen["decode"] is vaes[1].decoder
    assert bits(seen["key"]) == bits(KEY)


def ndcg(scores, split):
    return metrics.ndcg(np.asarray(scores), split.hidden, key=KEY)


def test_in_an_easy_world_transfer_beats_popularity_by_far(split, recommender):
    popularity = ndcg(fit_popularity(split.train, key=KEY)(split.history), split)
    assert (ndcg(recommender(split.history), split) - popularity).mean() > 0.15


def test_pairing_strangers_takes_the_gain_away(split, vaes):
    def with_strangers(pairs, **rest):
        order = np.random.default_rng(0).permutation(len(pairs.source.mean))
        strangers = jax.tree.map(lambda array: array[order], pairs.target)
        return fit_ridge_map(pairs._replace(target=strangers), **rest)

    strangers = fit_transfer(split.train, with_strangers, *vaes, key=KEY)
    popularity = ndcg(fit_popularity(split.train, key=KEY)(split.history), split)
    assert (ndcg(strangers(split.history), split) - popularity).mean() < 0.05


# --- many aligners on the same VAEs


def test_a_domain_is_trained_once_per_key_whatever_the_direction_and_the_aligner(
    monkeypatch, platform, vaes, vae_config
):
    trained = []

    def train_vae(counts, *, key, config):
        trained.append((id(counts), bits(key)))
        assert config is vae_config
        return SimpleNamespace(model=vaes[0])

    monkeypatch.setattr(transfer, "train_vae", train_vae)
    methods = with_maps({"same": same, "ridge map": fit_ridge_map}, config=vae_config)
    assert list(methods) == ["same", "ridge map"]
    for seed in (1, 2):
        for direction in (("films", "books"), ("books", "music"), ("music", "films")):
            for method in methods.values():
                method(platform.direction(*direction).train, key=jax.random.key(seed))
    assert len(trained) == len(set(trained)) == 2 * 3
    assert {counts for counts, _ in trained} == {id(domain.counts) for domain in platform.train.values()}
    assert len({key for _, key in trained}) == 6  # no two domains, and no two seeds, share their randomness


def test_methods_hand_each_aligner_its_own_domains_and_key(monkeypatch, split, vaes, vae_config):
    of_domain = {id(split.train.source.counts): vaes[0], id(split.train.target.counts): vaes[1]}
    monkeypatch.setattr(
        transfer, "train_vae", lambda counts, *, key, config: SimpleNamespace(model=of_domain[id(counts)])
    )
    keys = []

    def spy(pairs, *, unpaired, decode, key):
        keys.append(bits(key))
        assert decode is vaes[1].decoder
        return same(pairs)

    method = with_maps({"spy": spy}, config=vae_config)["spy"]
    fitted = method(split.train, key=jax.random.key(1))
    assert (fitted.source, fitted.target) == vaes
    method(split.train, key=jax.random.key(1))
    method(split.train, key=jax.random.key(2))
    assert keys[0] == keys[1] != keys[2]


def test_all_that_share_the_vaes_of_a_domain_train_them_once(monkeypatch, split, vaes, vae_config):
    trained = []

    def train_vae(counts, *, key, config):
        trained.append((id(counts), bits(key)))
        return SimpleNamespace(model=vaes[0])

    monkeypatch.setattr(transfer, "train_vae", train_vae)
    shared = domain_vaes(vae_config)
    methods = [unknown_user(shared), same_user(shared), *with_maps({"same": same}, vaes=shared).values()]
    for method in methods:
        method(split.train, key=KEY)
    assert [counts for counts, _ in trained] == [id(split.train.target.counts), id(split.train.source.counts)]
    own = with_maps({"same": same}, config=vae_config)["same"]
    own(split.train, key=KEY)
    assert sorted(trained[2:]) == sorted(trained[:2])  # the same models, with or without sharing


def test_aligners_take_a_configuration_or_vaes_but_not_both(vae_config):
    with pytest.raises(ValueError, match="config and vaes: got neither, expected one of them"):
        with_maps({"same": same})
    with pytest.raises(ValueError, match="config and vaes: got both, expected one of them"):
        with_maps({"same": same}, config=vae_config, vaes=domain_vaes(vae_config))


def of_target(split, vaes):
    def vae_of(domain, *, key):
        assert domain is split.train.target
        return vaes[1]

    return vae_of


def test_an_unknown_user_gets_the_decoded_prior_mean_and_hence_about_the_popular_list(split, vaes):
    scores = unknown_user(of_target(split, vaes))(split.train, key=KEY)(split.history)
    np.testing.assert_allclose(scores, np.tile(vaes[1].decoder(jnp.zeros(2)), (60, 1)), rtol=1e-5)
    popularity = fit_popularity(split.train, key=KEY)(split.history)
    assert np.corrcoef(np.exp(scores[0]), popularity[0])[0, 1] > 0.6


def test_the_same_user_row_reads_the_target_history_alone_and_is_far_above_an_unknown_user(split, vaes):
    method = same_user(of_target(split, vaes))(split.train, key=KEY)
    shown = History(split.history.source, split.reference)
    scores = method(shown)
    np.testing.assert_allclose(scores, vaes[1].decoder(models.posterior(vaes[1], split.reference).mean), rtol=1e-5)
    np.testing.assert_array_equal(scores, method(History(0 * split.history.source, split.reference)))
    unknown = unknown_user(of_target(split, vaes))(split.train, key=KEY)(shown)
    assert (ndcg(scores, split) - ndcg(unknown, split)).mean() > 0.15
    with pytest.raises(ValueError, match=r"history.target: got None, expected target counts"):
        method(split.history)


# --- lists

SCORES = np.array([[0.1, 3.0, 2.0, -1.0], [9.0, 1.0, 2.0, 3.0]])
IDS = np.array(["B7", "B3", "B9", "B1"])


def test_a_list_holds_item_ids_best_first():
    assert recommend(SCORES, IDS, 2).tolist() == [["B3", "B9"], ["B7", "B1"]]
    assert recommend(SCORES, IDS, 4).tolist() == [["B3", "B9", "B7", "B1"], ["B7", "B1", "B9", "B3"]]


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_array])
def test_seen_items_are_left_out(form):
    seen = form(np.array([[0, 5, 0, 0], [1, 0, 0, 2]]))
    assert recommend(SCORES, IDS, 2, seen=seen).tolist() == [["B9", "B7"], ["B9", "B3"]]


def test_equal_scores_keep_the_order_of_the_catalogue():
    assert recommend(np.zeros((1, 4)), IDS, 4).tolist() == [IDS.tolist()]


def test_recommending_leaves_the_scores_as_they_were():
    scores = SCORES.copy()
    recommend(scores, IDS, 1, seen=np.ones((2, 4)) * (np.arange(4) < 2))
    np.testing.assert_array_equal(scores, SCORES)


def test_ids_that_do_not_fit_the_scores_are_refused():
    with pytest.raises(ValueError, match="items: got 3 ids, expected one per column of scores, 4"):
        recommend(SCORES, IDS[:3], 2)


@pytest.mark.parametrize("k", [0, -1, 5])
def test_a_list_of_impossible_length_is_refused(k):
    with pytest.raises(ValueError, match=f"k: got {k}, expected 1 to 4, the fewest items a user has left"):
        recommend(SCORES, IDS, k)


def test_a_list_longer_than_what_one_user_has_left_is_refused():
    with pytest.raises(ValueError, match="k: got 3, expected 1 to 2, the fewest items a user has left"):
        recommend(SCORES, IDS, 3, seen=np.array([[0, 0, 0, 0], [1, 1, 0, 0]]))


# --- reasons


def test_reasons_are_the_terms_of_a_linear_scorer():
    weights = np.random.default_rng(0).normal(size=(5, 4))
    source = np.array([[2, 0, 1, 0, 3]])
    found = reasons(lambda history: history.source.toarray() @ weights, sparse.csr_array(source), 1)
    relative = weights[:, 1] - weights.mean(axis=1)
    np.testing.assert_allclose(found, source[0] * relative, atol=1e-12)
    # Together they are the item's lead over the mean item.
    scores = source[0] @ weights
    assert found.sum() == pytest.approx(scores[1] - scores.mean())


def test_reasons_are_what_the_score_loses_without_the_clicks(split, recommender):
    source = split.history.source[[0]]
    found = reasons(recommender, source, 3)
    clicked = np.flatnonzero(source.toarray()[0])
    assert found.shape == (30,)
    assert 1 < len(clicked) < 30
    np.testing.assert_array_equal(np.delete(found, clicked), 0.0)
    without = source.toarray()
    without[0, clicked[1]] = 0
    whole, less = (recommender(History(sparse.csr_array(counts)))[0] for counts in (source.toarray(), without))
    expected = (whole[3] - whole.mean()) - (less[3] - less.mean())
    assert found[clicked[1]] == pytest.approx(expected, abs=1e-4)


def test_reasons_do_not_change_the_history(split, recommender):
    source = split.history.source[[0]]
    before = source.toarray()
    reasons(recommender, source, 3)
    np.testing.assert_array_equal(source.toarray(), before)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([[1, 0], [2, 1]], "source: got 2 users with 3 clicked items, expected one user with some"),
        ([[0, 0]], "source: got 1 users with 0 clicked items, expected one user with some"),
    ],
)
def test_reasons_are_given_for_one_user_with_clicks(counts, message):
    with pytest.raises(ValueError, match=message):
        reasons(lambda history: jnp.zeros((1, 2)), sparse.csr_array(np.array(counts)), 0)


def test_two_beliefs_fuse_as_their_densities_do():
    """On a line, against the product of the densities over the prior on a grid."""
    grid = np.linspace(-8, 8, 20001)
    mapped, own = (0.8, 0.5), (-0.4, 0.3)

    def density(mean, variance):
        return np.exp(-0.5 * (grid - mean) ** 2 / variance)

    weight = density(*mapped) * density(*own) / density(0.0, 1.0)
    weight /= weight.sum()
    mean = np.sum(weight * grid)
    result = transfer.fused(*(Gaussian(jnp.array([[m]]), jnp.array([[[v]]])) for m, v in (mapped, own)))
    np.testing.assert_allclose(result.mean[0, 0], mean, atol=1e-4)
    np.testing.assert_allclose(result.covariance[0, 0, 0], np.sum(weight * (grid - mean) ** 2), atol=1e-4)


def test_a_mapped_belief_no_better_than_the_prior_leaves_the_own_one():
    own = Gaussian(jnp.array([[0.7, -0.2]]), 0.4 * jnp.eye(2)[None])
    result = transfer.fused(Gaussian(jnp.zeros((1, 2)), 1.5 * jnp.eye(2)[None]), own)
    np.testing.assert_allclose(result.mean, own.mean, atol=1e-6)
    np.testing.assert_allclose(result.covariance, own.covariance, atol=1e-6)
