"""Ridge against scikit-learn, its leave-one-out predictions against refitting."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge as SklearnRidge

from rec_transfer.maps.ridge import PENALTIES, fit_ridge


def problem(rows=12, inputs=4, outputs=3, noise=0.5, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(2.0, 1.0, (rows, inputs))
    return x, x @ rng.normal(size=(inputs, outputs)) + noise * rng.normal(size=(rows, outputs)) - 3.0


def refitted(x, y, penalty):
    """Row by row, the prediction of scikit-learn's ridge fitted to the other rows."""
    keep = ~np.eye(len(x), dtype=bool)
    return np.stack(
        [SklearnRidge(penalty).fit(x[keep[row]], y[keep[row]]).predict(x[row : row + 1])[0] for row in range(len(x))]
    )


# Fewer inputs than rows, and more: with click counts as inputs there are always more.
@pytest.mark.parametrize("inputs", [1, 4, 30])
@pytest.mark.parametrize("penalty", [1e-1, 3.0, 1e3])
def test_coefficients_and_intercept_are_scikit_learns(inputs, penalty):
    x, y = problem(inputs=inputs)
    found, expected = fit_ridge(x, y, penalties=[penalty]), SklearnRidge(penalty).fit(x, y)
    np.testing.assert_allclose(found.coefficients, expected.coef_.T, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(found.intercept, expected.intercept_, rtol=1e-7, atol=1e-9)
    assert found.penalty == penalty


@pytest.mark.parametrize("inputs", [1, 4, 30])
@pytest.mark.parametrize("penalty", [1e-1, 3.0, 1e3])
def test_leave_one_out_predictions_equal_refitting_without_the_row(inputs, penalty):
    x, y = problem(inputs=inputs)
    np.testing.assert_allclose(
        fit_ridge(x, y, penalties=[penalty]).left_out, refitted(x, y, penalty), rtol=1e-7, atol=1e-8
    )


@pytest.mark.parametrize("noise", [0.1, 3.0, 30.0])
def test_the_penalty_chosen_has_the_least_squared_error_on_rows_left_out(noise):
    x, y = problem(noise=noise)
    penalties = [1e-2, 1.0, 1e2, 1e4]
    errors = [np.mean((refitted(x, y, penalty) - y) ** 2) for penalty in penalties]
    assert fit_ridge(x, y, penalties=penalties).penalty == penalties[int(np.argmin(errors))]


def test_more_noise_wants_more_penalty():
    assert fit_ridge(*problem(noise=0.01)).penalty < fit_ridge(*problem(noise=100.0)).penalty


def test_a_criterion_of_ones_own_chooses_the_penalty():
    x, y = problem()
    judged = []

    def likes_the_sixth(left_out):
        judged.append(left_out)
        return 1.0 if len(judged) == 6 else 0.0

    assert fit_ridge(x, y, criterion=likes_the_sixth).penalty == PENALTIES[5]
    assert len(judged) == len(PENALTIES)
    np.testing.assert_allclose(judged[3], refitted(x, y, PENALTIES[3]), rtol=1e-7)


def test_a_vanishing_penalty_gives_least_squares_and_a_huge_one_the_mean():
    x, y = problem()
    design = np.column_stack([x, np.ones(len(x))])
    squares = np.linalg.lstsq(design, y, rcond=None)[0]
    loose, tight = (fit_ridge(x, y, penalties=[penalty]) for penalty in (1e-10, 1e12))
    np.testing.assert_allclose(np.vstack([loose.coefficients, loose.intercept]), squares, rtol=1e-6)
    np.testing.assert_allclose(tight.coefficients, 0, atol=1e-9)
    np.testing.assert_allclose(tight.intercept, y.mean(axis=0), rtol=1e-7)


def test_moving_the_inputs_moves_the_intercept_alone():
    x, y = problem()
    here, there = fit_ridge(x, y, penalties=[2.0]), fit_ridge(x + 5.0, y, penalties=[2.0])
    np.testing.assert_allclose(there.coefficients, here.coefficients, rtol=1e-9)
    np.testing.assert_allclose(there.intercept, here.intercept - 5.0 * here.coefficients.sum(axis=0), rtol=1e-9)


def test_rows_that_disagree_are_refused(unchecked):
    x, y = problem()
    with pytest.raises(ValueError, match="users in the source and target differ: got 12 and 11 rows"):
        fit_ridge(x, y[:-1])


def test_two_rows_are_too_few_to_leave_one_out():
    x, y = problem(rows=2)
    with pytest.raises(ValueError, match="x: got 2 rows, expected at least 3"):
        fit_ridge(x, y)


def test_a_criterion_without_a_number_is_refused():
    x, y = problem()
    with pytest.raises(ValueError, match="criterion: got no number for any of 15 penalties, expected one to choose by"):
        fit_ridge(x, y, criterion=lambda left_out: np.nan)
    with pytest.raises(ValueError, match="criterion: got no number for any of 0 penalties"):
        fit_ridge(x, y, penalties=[])
