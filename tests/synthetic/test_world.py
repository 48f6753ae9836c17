"""The world keeps the promises that the ceiling and every figure rest on."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from scipy import special, stats

from rec_transfer import synthetic
from rec_transfer.synthetic import naming
from rec_transfer.synthetic.decoder import item_features, layer_of
from rec_transfer.synthetic.world import (
    WorldConfig,
    click_probabilities,
    make_world,
    sample_population,
    shown_interests,
)

TINY = WorldConfig(items=6, latent=3, users_per_domain=7, overlapping_users=5, test_users=4)


@pytest.mark.parametrize(
    ("knob", "value", "expected"),
    [
        ("items", 1, "2 <= items <= inf"),
        ("latent", 0, "1 <= latent <= inf"),
        ("relatedness", 1.2, "0 <= relatedness <= 1"),
        ("relatedness", -0.1, "0 <= relatedness <= 1"),
        ("bend", 2.0, "0 <= bend <= 1"),
        ("activity_spread", -1.0, "0 <= activity_spread <= inf"),
        ("fewest_clicks", 0, "1 <= fewest_clicks <= 150"),
        ("fewest_clicks", 151, "1 <= fewest_clicks <= 150"),
        ("users_per_domain", -1, "0 <= users_per_domain <= inf"),
        ("overlapping_users", -1, "0 <= overlapping_users <= inf"),
        ("test_users", -1, "0 <= test_users <= inf"),
        ("overlap_taste", 4.0, "-3 <= overlap_taste <= 3"),
        ("overlap_activity", -3.5, "-3 <= overlap_activity <= 3"),
        ("overlap_taste", float("nan"), "-3 <= overlap_taste <= 3"),
    ],
)
def test_a_knob_outside_its_range_is_refused_by_name(knob, value, expected):
    with pytest.raises(ValueError, match=f"^{knob}: got {value}, expected {expected}$"):
        WorldConfig(**{knob: value})


@pytest.mark.parametrize("domains", [("films",), ("films", "films"), ()])
def test_fewer_than_two_different_domains_are_refused(domains):
    with pytest.raises(ValueError, match=r"domains: got .* expected at least two different names"):
        WorldConfig(domains=domains)


def test_an_unknown_decoder_is_refused():
    with pytest.raises(ValueError, match=r"^decoder: got 'deep', expected one of \('linear', 'two-layer'\)$"):
        WorldConfig(decoder="deep")


def test_rotations_are_orthogonal_in_every_dimension():
    for latent in (1, 2, 5):
        rotations = make_world(replace(TINY, latent=latent), key=jax.random.key(0)).rotations
        assert rotations.shape == (3, latent, latent)
        for rotation in rotations:
            np.testing.assert_allclose(rotation @ rotation.T, np.eye(latent), atol=1e-12)


def test_domains_differ_in_everything_drawn():
    world = make_world(TINY, key=jax.random.key(0))
    for drawn in (world.rotations, world.bends, world.items, world.item_bias):
        assert not np.allclose(drawn[0], drawn[1])


def test_a_world_is_pure_in_its_key():
    first, again, other = (make_world(TINY, key=jax.random.key(seed)) for seed in (1, 1, 2))
    for name in ("rotations", "bends", "items", "item_bias"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
        assert not np.array_equal(getattr(first, name), getattr(other, name))
    assert first.catalogue["books"].titles.tolist() == again.catalogue["books"].titles.tolist()
    np.testing.assert_array_equal(first.catalogue["books"].prices, again.catalogue["books"].prices)


def test_item_biases_are_the_popularity_law_in_random_order():
    bias = make_world(replace(TINY, items=40, popularity=0.8), key=jax.random.key(0)).item_bias
    for domain in bias:
        np.testing.assert_allclose(-np.sort(-domain), -0.8 * np.log(1 + np.arange(40)), atol=1e-12)
        assert not np.array_equal(domain, -np.sort(-domain))


def test_bends_and_item_vectors_have_the_spread_they_are_documented_with():
    world = make_world(replace(TINY, items=3000, latent=16), key=jax.random.key(0))
    assert world.bends.var() == pytest.approx(1 / 16, rel=4 * np.sqrt(2 / world.bends.size))
    assert world.items.var() == pytest.approx(1, rel=4 * np.sqrt(2 / world.items.size))


def test_catalogue_names_every_item_once_in_its_theme():
    world = make_world(replace(TINY, items=120), key=jax.random.key(0))
    for d, domain in enumerate(world.config.domains):
        catalogue = world.catalogue[domain]
        assert len(set(catalogue.ids)) == len(set(catalogue.titles)) == 120
        assert catalogue.ids[0] == f"{domain[0].upper()}001"
        # An item's genre is that of the shared axis it appeals to most: a user at that axis' end scores it so.
        appeal = np.stack([np.eye(3)[axis] @ world.rotations[d] @ world.items[d].T for axis in range(3)])
        assert catalogue.genres.tolist() == [naming.genre(axis, domain) for axis in appeal.argmax(axis=0)]
        assert len(set(catalogue.genres)) == 3


def test_roles_and_counts_are_those_asked_for():
    population = sample_population(make_world(TINY, key=jax.random.key(0)), key=jax.random.key(1))
    assert len(set(population.users)) == len(population.users) == 3 * 7 + 5 + 4
    role_of = dict(zip(population.users, population.roles, strict=True))
    homes = dict.fromkeys(population.users, 0)
    for domain, interactions in population.interactions.items():
        assert interactions.domain == domain
        assert interactions.counts.shape == (7 + 5 + 4, 6)
        for user in interactions.users:
            homes[user] += 1
    for role, number, domains in (("single", 21, 1), ("overlapping", 5, 3), ("test", 4, 3)):
        assert [homes[user] for user in population.users if role_of[user] == role] == [domains] * number


def test_the_rows_of_the_truth_belong_to_the_users():
    population = sample_population(make_world(TINY, key=jax.random.key(0)), key=jax.random.key(1))
    assert population.interests.shape == (30, 3)
    for domain in TINY.domains:
        assert population.shown[domain].shape == (30, 3)
        # Active users keep the order of ``users``, so that the truth can be looked up by position.
        order = {user: row for row, user in enumerate(population.users)}
        rows = [order[user] for user in population.interactions[domain].users]
        assert rows == sorted(rows)


def test_a_population_is_pure_in_its_key():
    world = make_world(TINY, key=jax.random.key(0))
    first, again, other = (sample_population(world, key=jax.random.key(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.interests, again.interests)
    for domain in TINY.domains:
        counts, same, different = (
            population.interactions[domain].counts.toarray() for population in (first, again, other)
        )
        np.testing.assert_array_equal(counts, same)
        assert not np.array_equal(counts, different)
    assert first.users.tolist() == again.users.tolist()
    assert first.users.tolist() != other.users.tolist()


def test_clicks_keep_within_their_bounds_and_are_lognormal_between():
    config = replace(TINY, users_per_domain=4000, activity=3.2, activity_spread=0.5, fewest_clicks=8, most_clicks=90)
    population = sample_population(make_world(config, key=jax.random.key(0)), key=jax.random.key(1))
    clicks = population.interactions["films"].counts.sum(axis=1)
    assert clicks.min() == 8
    assert clicks.max() == 90
    law = stats.lognorm(0.5, scale=np.exp(3.2))
    for number in (12, 24, 48):  # int() rounds down: fewer than n clicks means a draw below n
        share = law.cdf(number)
        assert abs(np.mean(clicks < number) - share) < 4 * np.sqrt(share * (1 - share) / len(clicks))


@pytest.mark.parametrize("relatedness", [0.0, 0.5, 0.9, 1.0])
def test_correlation_of_two_domains_interests_is_relatedness_squared_in_a_linear_world(relatedness):
    config = replace(TINY, relatedness=relatedness, users_per_domain=0, overlapping_users=20_000)
    world = make_world(config, key=jax.random.key(0))
    population = sample_population(world, key=jax.random.key(1))
    # Turned back, both domains' interests lie along the same axes.
    films, books = (population.shown[name] @ world.rotations[d].T for d, name in ((0, "films"), (1, "books")))
    for axis in range(3):
        found = np.corrcoef(films[:, axis], books[:, axis])[0, 1]
        assert abs(found - relatedness**2) <= 4 * (1 - relatedness**4) / np.sqrt(20_000) + 1e-9
    np.testing.assert_allclose(films.var(axis=0), 1.0, rtol=4 * np.sqrt(2 / 20_000))


def test_interests_are_standard_normal():
    config = replace(TINY, users_per_domain=3000)
    interests = sample_population(make_world(config, key=jax.random.key(0)), key=jax.random.key(1)).interests
    assert stats.kstest(interests.ravel(), "norm").pvalue > 1e-3


def test_the_bent_world_is_its_formula_item_by_item():
    world = make_world(replace(TINY, bend=1.0, relatedness=0.6), key=jax.random.key(0))
    rng = np.random.default_rng(0)
    interests, private = rng.normal(size=(4, 3)), rng.normal(size=(4, 3))
    found = shown_interests(world, "books", interests, private)
    for user in range(4):
        for axis in range(3):
            straight = sum(interests[user, j] * world.rotations[1][j, axis] for j in range(3))
            square = sum(interests[user, j] * world.bends[1][j, axis] for j in range(3)) ** 2
            bent = 1.5 * np.tanh(straight + square / 2 - 0.25)
            assert found[user, axis] == pytest.approx(0.6 * bent + 0.8 * private[user, axis])


def test_a_half_bent_world_lies_midway():
    interests, private = np.random.default_rng(0).normal(size=(2, 4, 3))
    straight, half, bent = (
        shown_interests(make_world(replace(TINY, bend=bend), key=jax.random.key(0)), "music", interests, private)
        for bend in (0.0, 0.5, 1.0)
    )
    np.testing.assert_allclose(half, (straight + bent) / 2, atol=1e-12)
    assert np.abs(bent - straight).max() > 0.1


def test_click_probabilities_are_the_softmax_of_the_scores():
    world = make_world(replace(TINY, sharpness=0.9), key=jax.random.key(0))
    shown = np.random.default_rng(0).normal(size=(5, 3))
    expected = special.softmax(0.9 * shown @ world.items[2].T + world.item_bias[2], axis=1)
    np.testing.assert_allclose(click_probabilities(world, "music", shown), expected, rtol=1e-9)


def test_click_probabilities_survive_the_keenest_tastes():
    world = make_world(replace(TINY, sharpness=1e4), key=jax.random.key(0))
    probabilities = click_probabilities(world, "films", np.random.default_rng(0).normal(size=(5, 3)))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0)


def test_click_frequencies_match_the_softmax():
    config = replace(TINY, users_per_domain=1500, bend=1.0, relatedness=0.8)
    world = make_world(config, key=jax.random.key(0))
    population = sample_population(world, key=jax.random.key(1))
    rows = {user: row for row, user in enumerate(population.users)}
    for domain in config.domains:
        interactions = population.interactions[domain]
        shown = population.shown[domain][[rows[user] for user in interactions.users]]
        probabilities = click_probabilities(world, domain, shown)
        clicks = interactions.counts.sum(axis=1)[:, None]
        # Within a fifth of the users ordered by how much they should like an item, and over all of them.
        for item in range(config.items):
            for users in np.array_split(np.argsort(probabilities[:, item]), 5):
                expected = (clicks[users, 0] * probabilities[users, item]).sum()
                error = np.sqrt(
                    (clicks[users, 0] * probabilities[users, item] * (1 - probabilities[users, item])).sum()
                )
                assert abs(interactions.counts[users, item].sum() - expected) < 4.5 * error


def test_without_taste_popularity_alone_decides():
    world = make_world(replace(TINY, sharpness=0.0), key=jax.random.key(0))
    probabilities = click_probabilities(world, "films", np.random.default_rng(0).normal(size=(5, 3)))
    ranks = np.argsort(np.argsort(-world.item_bias[0]))
    np.testing.assert_allclose(probabilities, np.tile((1.0 + ranks) ** -0.8 / ((1.0 + ranks) ** -0.8).sum(), (5, 1)))


SELECTED = replace(TINY, users_per_domain=0, overlapping_users=20_000, test_users=20_000)


def population_of(config):
    return sample_population(make_world(config, key=jax.random.key(0)), key=jax.random.key(1))


@pytest.mark.parametrize("strength", [-0.5, 0.0, 1.0])
def test_overlap_by_taste_moves_the_first_axis_of_the_overlapping_users_alone(strength):
    population = population_of(replace(SELECTED, overlap_taste=strength, relatedness=1.0))
    for role, mean in (("overlapping", strength), ("test", 0.0)):
        interests = population.interests[population.roles == role]
        np.testing.assert_allclose(interests.mean(axis=0), [mean, 0, 0], atol=4 / np.sqrt(20_000))
        np.testing.assert_allclose(np.cov(interests.T), np.eye(3), atol=4 * np.sqrt(2 / 20_000))
    world = make_world(replace(SELECTED, relatedness=1.0), key=jax.random.key(0))
    np.testing.assert_allclose(population.shown["books"], population.interests @ world.rotations[1], atol=1e-12)


def test_overlap_by_activity_moves_the_clicks_of_the_overlapping_users_alone():
    config = replace(SELECTED, overlap_activity=1.5, activity=3.0, activity_spread=0.4, most_clicks=10_000)
    population = population_of(config)
    np.testing.assert_allclose(population.interests.mean(axis=0), 0, atol=4 / np.sqrt(40_000))
    for interactions in population.interactions.values():
        clicks = interactions.counts.sum(axis=1)
        for role, mean in (("overlapping", 3.0 + 1.5 * 0.4), ("test", 3.0)):
            share = stats.lognorm(0.4, scale=np.exp(mean)).cdf(30)
            assert abs(np.mean(clicks[population.roles == role] < 30) - share) < 4 * np.sqrt(0.25 / 20_000)


def test_selected_users_click_by_their_own_taste():
    population = population_of(replace(SELECTED, overlap_taste=2.0, sharpness=2.0))
    world, chosen = make_world(replace(SELECTED, sharpness=2.0), key=jax.random.key(0)), population.roles != "test"
    for domain, interactions in population.interactions.items():
        counts = interactions.counts.toarray()[chosen]
        probabilities, clicks = click_probabilities(world, domain, population.shown[domain][chosen]), counts.sum(axis=1)
        error = np.sqrt((clicks[:, None] * probabilities * (1 - probabilities)).sum(axis=0))
        np.testing.assert_array_less(np.abs(counts.sum(axis=0) - clicks @ probabilities), 4.5 * error)


def test_selection_leaves_all_other_users_as_they_are():
    everybody = population_of(TINY)
    for selection in ({"overlap_taste": 1.0}, {"overlap_activity": 1.0}):
        population = population_of(replace(TINY, **selection))
        others = population.users[population.roles != "overlapping"]
        assert population.users.tolist() == everybody.users.tolist()
        for domain in TINY.domains:
            before, after = everybody.interactions[domain], population.interactions[domain]
            rest = [user for user in before.users if user in others]
            assert (before.select(rest).counts != after.select(rest).counts).nnz == 0
            assert (before.counts != after.counts).nnz > 0
            np.testing.assert_array_equal(
                everybody.shown[domain][everybody.roles == "test"], population.shown[domain][population.roles == "test"]
            )


BEHIND = replace(TINY, decoder="two-layer")


def test_a_two_layer_world_is_its_formula_item_by_item():
    world = make_world(replace(BEHIND, sharpness=0.7), key=jax.random.key(0))
    assert world.items.shape == (3, 6, 12)
    weights, offsets, centre = (part[1] for part in world.hidden)
    z = np.random.default_rng(0).normal(size=(4, 3))
    for user in range(4):
        reached = [offsets[unit] + sum(z[user, j] * weights[j, unit] for j in range(3)) for unit in range(12)]
        hidden = [np.tanh(reached[unit]) - centre[unit] for unit in range(12)]
        scores = [
            0.7 * sum(hidden[unit] * world.items[1][item, unit] for unit in range(12)) + world.item_bias[1][item]
            for item in range(6)
        ]
        np.testing.assert_allclose(click_probabilities(world, "books", z)[user], special.softmax(scores), rtol=1e-9)


@pytest.mark.parametrize("decoder", ["linear", "two-layer"])
def test_scores_have_the_same_spread_over_users_with_either_decoder(decoder):
    world = make_world(WorldConfig(decoder=decoder, items=1000), key=jax.random.key(3))
    z = np.random.default_rng(0).normal(size=(20_000, 8))
    for d in range(3):
        features = item_features(z, layer_of(world.hidden, d))
        np.testing.assert_allclose(features.mean(axis=0), 0, atol=4 / np.sqrt(len(z)))
        variances = (features @ world.items[d].T).var(axis=0)
        assert variances.mean() == pytest.approx(8, rel=0.1)


def test_a_hidden_layer_bends_a_quarter_of_what_taste_adds():
    shares = []
    for seed in range(3):
        world = make_world(WorldConfig(decoder="two-layer"), key=jax.random.key(seed))
        z = np.random.default_rng(0).normal(size=(10_000, 8))
        for d in range(3):
            scores = item_features(z, layer_of(world.hidden, d)) @ world.items[d].T
            left = scores - z @ np.linalg.lstsq(z, scores, rcond=None)[0]
            shares.append(left.var() / scores.var())
    assert np.mean(shares) == pytest.approx(0.25, abs=0.05)
    assert max(shares) - min(shares) < 0.2


def test_a_new_decoder_leaves_everything_else_of_the_world():
    linear, behind = (make_world(config, key=jax.random.key(0)) for config in (TINY, BEHIND))
    assert linear.hidden is None
    for name in ("rotations", "bends", "item_bias"):
        np.testing.assert_array_equal(getattr(linear, name), getattr(behind, name))


def test_items_behind_a_hidden_layer_have_the_genre_of_the_axis_they_appeal_to_most():
    world = make_world(replace(BEHIND, items=120), key=jax.random.key(0))
    for d, domain in enumerate(BEHIND.domains):
        weights, offsets, centre = (part[d] for part in world.hidden)
        appeal = (np.tanh(world.rotations[d] @ weights + offsets) - centre) @ world.items[d].T
        genres = world.catalogue[domain].genres
        assert genres.tolist() == [naming.genre(axis, domain) for axis in appeal.argmax(axis=0)]
        assert len(set(genres)) == 3


def test_the_standard_world_is_the_one_the_series_measures():
    standard = WorldConfig()
    assert standard.domains == naming.PLATFORMS
    assert (standard.items, standard.latent, standard.relatedness, standard.bend) == (300, 8, 0.9, 0.0)
    assert (standard.users_per_domain, standard.overlapping_users, standard.test_users) == (4000, 300, 500)
    assert (standard.overlap_taste, standard.overlap_activity, standard.decoder) == (0, 0, "linear")
    assert synthetic.ROLES == ("single", "overlapping", "test")
