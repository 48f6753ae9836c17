"""Gaussian evidence: exact for a Gaussian likelihood, and integrated against a Gaussian as a quadrature does."""

import jax
import jax.numpy as jnp
import numpy as np

from rec_transfer.models import laplace

NOISE = np.array([[0.6, 0.2], [0.2, 0.3]])
SEEN = np.array([[0.5, -1.0], [2.0, 0.3], [0.0, 0.0]])


def gaussian_log_likelihood(interest, observation, noise):
    miss = observation - interest
    return -0.5 * miss @ jnp.linalg.inv(noise) @ miss


def evidence():
    return laplace.approximate(gaussian_log_likelihood, jnp.asarray(SEEN), jnp.asarray(NOISE), latent=2)


def test_the_evidence_of_a_gaussian_observation_is_exact():
    found = evidence()
    precision = np.einsum("nij,nj,nkj->nik", found.axes, found.precision, found.axes)
    np.testing.assert_allclose(precision, np.tile(np.linalg.inv(NOISE), (3, 1, 1)), rtol=1e-4, atol=1e-5)
    shift = np.einsum("nij,nj->ni", found.axes, found.shift)
    np.testing.assert_allclose(shift, SEEN @ np.linalg.inv(NOISE), rtol=1e-4, atol=1e-4)


def test_the_posterior_is_the_conjugate_one():
    found = laplace.posterior_of(evidence())
    covariance = np.linalg.inv(np.linalg.inv(NOISE) + np.eye(2))
    np.testing.assert_allclose(found.covariance[1], covariance, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.mean, SEEN @ np.linalg.inv(NOISE) @ covariance, rtol=1e-4, atol=1e-4)


def test_the_marginal_is_what_quadrature_gives():
    centres, variance = np.array([[0.3, -0.2], [1.5, 1.0]]), 0.4
    axis = np.linspace(-9, 9, 361)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    precision = np.linalg.inv(NOISE)
    likelihood = np.exp(grid @ precision @ SEEN[1] - 0.5 * np.einsum("ni,ij,nj->n", grid, precision, grid))
    cell = (axis[1] - axis[0]) ** 2
    for centre, found, shared in zip(
        centres,
        laplace.log_marginal(evidence(), jnp.tile(centres, (3, 1, 1)), variance)[1],
        laplace.log_marginal_of_all(evidence(), jnp.asarray(centres), variance)[1],
        strict=True,
    ):
        prior = np.exp(-0.5 * np.sum((grid - centre) ** 2, axis=1) / variance) / (2 * np.pi * variance)
        expected = np.log(np.sum(prior * likelihood) * cell)
        np.testing.assert_allclose([found, shared], expected, rtol=1e-3, atol=1e-3)


def test_without_private_variance_the_marginal_is_the_likelihood_at_the_centre():
    centre = jnp.asarray([[[0.3, -0.2]]] * 3)
    precision = np.linalg.inv(NOISE)
    expected = centre[0, 0] @ precision @ SEEN[0] - 0.5 * centre[0, 0] @ precision @ centre[0, 0]
    np.testing.assert_allclose(laplace.log_marginal(evidence(), centre, 0.0)[0, 0], expected, rtol=1e-4)


def test_no_evidence_says_nothing_whatever_the_centre():
    nothing = laplace.no_evidence(2, latent=2)
    centres = jax.random.normal(jax.random.key(0), (2, 5, 2))
    np.testing.assert_array_equal(laplace.log_marginal(nothing, centres, 0.3), np.zeros((2, 5)))
    np.testing.assert_allclose(laplace.posterior_of(nothing).covariance[0], np.eye(2))


def test_resampling_gives_each_row_its_share_to_within_one():
    weights = np.array([0.5, 0.3, 0.15, 0.05])
    rows = laplace.resample(jnp.log(jnp.asarray([weights, weights[::-1]])), 40, key=jax.random.key(1))
    for row, expected in zip(rows, (weights, weights[::-1]), strict=True):
        assert np.abs(np.bincount(row, minlength=4) - 40 * expected).max() <= 1
