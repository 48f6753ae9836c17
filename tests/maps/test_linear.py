"""Procrustes, canonical correlation and the weighted map: what each recovers exactly, and what it must not notice."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import linalg

from rec_transfer.maps.base import MIN_PAIRS, residual_covariance
from rec_transfer.maps.linear import (
    canonical_regression,
    errors_in_variables,
    fit_cca_map,
    fit_procrustes_map,
    fit_ridge_map,
    fit_weighted_map,
    procrustes,
    target_evidence,
)
from rec_transfer.types import Gaussian, Pairs

KEY = jax.random.key(0)
RNG = np.random.default_rng(1)
ROTATION = np.linalg.qr(RNG.normal(size=(3, 3)))[0]
REFLECTION = ROTATION @ np.diag([1.0, 1.0, -1.0])
SHIFT = np.array([0.5, -1.0, 2.0])


def gaussian(mean, covariance):
    mean = np.asarray(mean, np.float32)
    return Gaussian(*map(jnp.asarray, (mean, np.broadcast_to(covariance, (*mean.shape, mean.shape[1])).astype("f4"))))


def pairs_of(source, target, spread=0.01):
    sides = (gaussian(side, spread * np.eye(side.shape[1])) for side in (source, target))
    return Pairs(*sides, jnp.ones((len(source), 4)))


def noisy(users=60, noise=0.5, seed=0):
    rng = np.random.default_rng(seed)
    source = rng.normal(size=(users, 3)) * [1.0, 2.0, 0.5]
    return pairs_of(source, source @ ROTATION + SHIFT + noise * rng.normal(size=(users, 3)))


@pytest.mark.parametrize("fit", [fit_procrustes_map, fit_cca_map, fit_weighted_map])
def test_too_few_pairs_are_refused_by_name(fit):
    with pytest.raises(ValueError, match=f"pairs: got 9 users, expected at least {MIN_PAIRS}"):
        fit(noisy(users=9), key=KEY)


@pytest.mark.parametrize("fit", [fit_procrustes_map, fit_cca_map, fit_weighted_map])
def test_the_residual_is_what_folds_left_out_miss(fit):
    # Noise of variance 0.25 and posteriors that pass on next to nothing: the residual is that noise, a little more.
    fitted = fit(noisy(users=800), key=KEY)
    np.testing.assert_allclose(fitted.residual[...], 0.25 * np.eye(3), atol=0.05)


# --- Procrustes


@pytest.mark.parametrize("turn", [ROTATION, REFLECTION])
def test_procrustes_recovers_a_rotation_scale_and_shift(turn):
    x = RNG.normal(size=(20, 3)) * [1.0, 3.0, 0.2]
    fitted = procrustes(x, 1.7 * x @ turn + SHIFT)
    np.testing.assert_allclose(fitted.coefficients, 1.7 * turn, atol=1e-12)
    np.testing.assert_allclose(fitted.intercept, SHIFT, atol=1e-12)


def test_the_procrustes_map_is_a_scaled_rotation_whatever_the_pairs():
    # The ridge map of the same pairs stretches.
    pairs = noisy()
    squares = [fit(pairs).coefficients[...] for fit in (lambda p: fit_procrustes_map(p, key=KEY), fit_ridge_map)]
    turned, stretched = (np.linalg.svd(np.asarray(square), compute_uv=False) for square in squares)
    np.testing.assert_allclose(turned, turned[0], rtol=1e-5)
    assert stretched[0] > 1.05 * stretched[-1]


def test_no_scaled_rotation_is_closer_than_procrustes():
    pairs = noisy()
    x, y = (np.asarray(side.mean, float) for side in (pairs.source, pairs.target))
    best = procrustes(x, y)
    least = np.sum((best(x) - y) ** 2)
    for _ in range(20):
        small = 0.05 * RNG.normal(size=(3, 3))
        turn = np.linalg.qr(np.eye(3) + small - small.T)[0]
        other = (1 + 0.05 * RNG.normal()) * best.coefficients @ (turn * np.sign(np.diag(turn)))
        shift = y.mean(axis=0) - x.mean(axis=0) @ other
        assert np.sum((x @ other + shift - y) ** 2) > least


def test_procrustes_refuses_spaces_of_different_size():
    pairs = noisy()
    narrow = pairs._replace(target=gaussian(np.asarray(pairs.target.mean)[:, :2], np.eye(2)))
    with pytest.raises(ValueError, match="got 3 source and 2 target latents"):
        fit_procrustes_map(narrow, key=KEY)


# --- canonical correlation


def shared_directions(users, noise=0.3, seed=0):
    """Four latents on each side, of which two directions are shared; on both sides mixed with the rest."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(7)
    common = rng.normal(size=(users, 2))
    source, target = (
        np.hstack([common + noise * rng.normal(size=common.shape), rng.normal(size=(users, 2))])
        @ (np.eye(4) + 0.4 * mixing.normal(size=(4, 4)))
        for _ in range(2)
    )
    return pairs_of(source, target)


def test_canonical_regression_at_full_rank_is_least_squares_and_at_none_the_mean():
    pairs = noisy()
    x, y = (np.asarray(side.mean, float) for side in (pairs.source, pairs.target))
    maps = canonical_regression(x, y)
    design = np.hstack([x, np.ones((len(x), 1))])
    np.testing.assert_allclose(maps[-1](x), design @ np.linalg.lstsq(design, y)[0], atol=1e-6)
    np.testing.assert_allclose(maps[0](x), np.tile(y.mean(axis=0), (len(x), 1)), atol=1e-9)
    assert [np.linalg.matrix_rank(part.coefficients) for part in maps] == [0, 1, 2, 3]


def test_k_canonical_directions_are_least_squares_on_the_k_first_canonical_variates():
    # Directions from the generalised eigenproblem S_xy S_yy^-1 S_yx w = c^2 S_xx w, by another route.
    pairs = shared_directions(200)
    x, y = (np.asarray(side.mean, float) - np.asarray(side.mean).mean(axis=0) for side in (pairs.source, pairs.target))
    directions = linalg.eigh(x.T @ y @ np.linalg.solve(y.T @ y, y.T @ x), x.T @ x)[1][:, ::-1]
    for rank in (1, 2, 3):
        variates = x @ directions[:, :rank]
        expected = variates @ np.linalg.lstsq(variates, y)[0]
        np.testing.assert_allclose(canonical_regression(x, y)[rank](x), expected, atol=1e-5)


def test_cca_carries_the_shared_directions_alone():
    pairs, new = shared_directions(80), shared_directions(4000, seed=1)
    fitted = fit_cca_map(pairs, key=KEY)
    assert np.linalg.matrix_rank(np.asarray(fitted.coefficients[...]), tol=1e-4) == 2
    miss, ridge_miss = (
        np.mean((domain_map(new.source).mean - new.target.mean) ** 2) for domain_map in (fitted, fit_ridge_map(pairs))
    )
    assert miss < 0.99 * ridge_miss


@pytest.mark.parametrize("seed", range(5))
def test_an_invertible_linear_change_of_either_side_leaves_cca_where_it_was(seed):
    pairs, new = shared_directions(40, noise=1.0, seed=seed), np.random.default_rng(3).normal(size=(5, 4))
    x, y = (np.asarray(side.mean, float) for side in (pairs.source, pairs.target))
    change, other = (np.eye(4) + 0.3 * np.random.default_rng(number).normal(size=(4, 4)) for number in (4, 5))
    other = np.diag([1.0, 1.0, 10.0, 10.0]) @ other  # what is not shared dwarfs what is
    here = fit_cca_map(pairs, key=KEY)(gaussian(new, np.eye(4))).mean
    there = fit_cca_map(pairs_of(3 * x @ change, y @ other), key=KEY)(gaussian(3 * new @ change, np.eye(4))).mean
    np.testing.assert_allclose(there, here @ other, rtol=1e-3, atol=1e-3)


def test_cca_passes_over_a_latent_that_never_moves():
    pairs = noisy()
    dead = pairs_of(np.asarray(pairs.source.mean) * [1, 1, 0], np.asarray(pairs.target.mean) * [1, 0, 1])
    coefficients = np.asarray(fit_cca_map(dead, key=KEY).coefficients[...])
    np.testing.assert_allclose(coefficients[2], 0.0, atol=1e-6)
    np.testing.assert_allclose(coefficients[:, 1], 0.0, atol=1e-6)
    assert np.abs(coefficients).max() > 0.3


# --- errors in both variables


def test_target_evidence_times_the_prior_is_the_posterior():
    root = RNG.normal(size=(6, 3, 3))
    precision = root @ np.swapaxes(root, 1, 2)
    shift = RNG.normal(size=(6, 3))
    covariance = np.linalg.inv(precision + np.eye(3))
    posterior = Gaussian(np.einsum("nij,nj->ni", covariance, shift), covariance)
    for found, expected in zip(target_evidence(posterior), (precision, shift), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    # A posterior wider than the prior is no evidence at all.
    for found in target_evidence(Gaussian(shift, np.tile(1.2 * np.eye(3), (6, 1, 1)))):
        np.testing.assert_array_equal(found, 0.0)


def test_without_uncertainty_the_weighted_map_is_least_squares():
    pairs = noisy()
    x, y = (np.asarray(side.mean, float) for side in (pairs.source, pairs.target))
    none = np.zeros((len(x), 3, 3))
    fitted = errors_in_variables(Gaussian(x, none), Gaussian(y, none), penalty=0.0)
    design = np.hstack([x, np.ones((len(x), 1))])
    np.testing.assert_allclose(fitted(x), design @ np.linalg.lstsq(design, y)[0], atol=1e-4)


def exact_posteriors(users, *, noise, seed):
    """Standard normal interests, seen with a noise per user on either side; posteriors by Bayes' rule."""
    rng = np.random.default_rng(seed)
    interest = rng.normal(size=(users, 3))
    mixed = 0.8 * interest @ ROTATION + 0.6 * rng.normal(size=(users, 3))  # standard normal again
    sides = []
    for truth in (interest, mixed):
        variance = rng.permutation(np.resize(np.square(noise), users))[:, None]
        seen = truth + np.sqrt(variance) * rng.normal(size=truth.shape)
        sides.append(gaussian(seen / (1 + variance), (variance / (1 + variance))[..., None] * np.eye(3)))
    return Pairs(*sides, jnp.ones((users, 4))), mixed


def test_the_weighted_map_beats_ridge_where_some_users_are_known_better():
    pairs, _ = exact_posteriors(120, noise=(0.2, 2.0, 4.0), seed=0)
    new, truth = exact_posteriors(4000, noise=(0.2, 2.0, 4.0), seed=1)
    weighted, ridge = (
        np.mean((np.asarray(domain_map(new.source).mean) - truth) ** 2)
        for domain_map in (fit_weighted_map(pairs, key=KEY), fit_ridge_map(pairs))
    )
    assert weighted < 0.97 * ridge


def test_the_weighted_map_finds_the_matrix_that_shrunk_means_hide():
    # Target means are shrunk by their prior, more than half: ridge learns the shrunk relation, EM the interests'.
    pairs, _ = exact_posteriors(3000, noise=(0.7, 1.2), seed=2)
    weighted, ridge = (
        np.linalg.norm(np.asarray(domain_map.coefficients[...]) - 0.8 * ROTATION) / np.linalg.norm(0.8 * ROTATION)
        for domain_map in (fit_weighted_map(pairs, key=KEY), fit_ridge_map(pairs))
    )
    assert weighted < 0.12
    assert ridge > 0.4


def test_em_stops_where_the_likelihood_is_highest():
    # log p(both evidences) is Gaussian in closed form: no nearby map is more likely, with R taken from the fit.
    pairs, _ = exact_posteriors(150, noise=(0.3, 1.0), seed=3)
    source, target = (Gaussian(*(np.asarray(part, float) for part in side)) for side in (pairs.source, pairs.target))
    noise = np.linalg.inv(target_evidence(target)[0])
    seen = np.einsum("nij,nj->ni", noise, target_evidence(target)[1])

    def log_likelihood(matrix, intercept, residual):
        spread = matrix @ source.covariance @ matrix.T + residual + noise
        miss = seen - source.mean @ matrix.T - intercept
        return -0.5 * np.sum(
            np.linalg.slogdet(spread)[1] + np.einsum("ni,nij,nj->n", miss, np.linalg.inv(spread), miss)
        )

    fitted = errors_in_variables(source, target, penalty=0.0, steps=500)
    matrix, intercept = fitted.coefficients.T, fitted.intercept
    residuals = [scale * np.eye(3) for scale in np.arange(0.2, 0.8, 0.05)]
    residual = max(residuals, key=lambda residual: log_likelihood(matrix, intercept, residual))
    assert 0.2 < residual[0, 0] < 0.6  # the truth is 0.36
    best = log_likelihood(matrix, intercept, residual)
    for _ in range(20):
        move, shift = 0.15 * RNG.normal(size=(3, 3)), 0.15 * RNG.normal(size=3)
        assert log_likelihood(matrix + move, intercept + shift, residual) < best


def test_a_penalty_pulls_the_weighted_map_to_nothing():
    pairs, _ = exact_posteriors(100, noise=(0.5,), seed=4)
    sizes = [
        np.linalg.norm(np.asarray(fit_weighted_map(pairs, key=KEY, penalty=penalty).coefficients[...]))
        for penalty in (0.0, 30.0, 1e5)
    ]
    assert sizes[0] > 1.05 * sizes[1] > sizes[2] > 0
    assert sizes[2] < 0.01
    with pytest.raises(ValueError, match=r"penalty: got -1.0, expected a number of at least 0"):
        fit_weighted_map(pairs, key=KEY, penalty=-1.0)


def test_the_residual_of_the_weighted_map_is_measured_like_the_others():
    pairs = noisy()
    fitted = fit_weighted_map(pairs, key=KEY)
    coefficients = np.asarray(fitted.coefficients[...], float)
    seen = np.asarray(pairs.source.mean) @ coefficients + np.asarray(fitted.intercept[...])
    in_sample = residual_covariance(pairs, seen, coefficients.T)
    assert np.trace(fitted.residual[...]) > 1.01 * np.trace(in_sample)  # held out, hence larger
