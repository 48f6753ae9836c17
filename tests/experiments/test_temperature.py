"""The stored temperatures say what notebook 11 says of them, and are fitted as it fits them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import temperature
from scipy.special import log_softmax, softmax

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def stored():
    return pd.read_csv(ROOT / "tests" / "reference" / "temperature.csv")


def test_every_draw_stands_in_the_table_once(stored):
    assert list(stored.columns) == temperature.COLUMNS
    assert len(stored) == 2 * temperature.PEOPLE
    assert not stored.duplicated(["people", "dropout"]).any()
    assert stored.iloc[:, 2:].to_numpy().min() > 1


def test_leaving_users_out_of_the_vaes_adds_a_hundredth_in_every_draw(stored):
    added = stored.left_out_of_all - stored.left_out_of_map
    assert added.between(0.002, 0.02).all(), added.describe()


def test_what_is_left_of_the_shortfall_is_the_draw_of_people(stored):
    short = (stored.new_users - stored.left_out_of_all).groupby(stored.people).mean()
    assert short.iloc[0] == short.max() > 0.05
    assert short.min() < 0
    error = short.std() / len(short) ** 0.5
    assert abs(short.mean()) < 2 * error


def test_the_temperature_is_where_the_likelihood_is_largest():
    rng = np.random.default_rng(0)
    logits = 2 * rng.normal(size=(400, 12))
    counts = rng.multinomial(rng.integers(5, 40, 400), softmax(logits / 1.4, axis=1))
    found = temperature.fit_temperature(logits, counts)
    assert found == pytest.approx(1.4, abs=0.05)

    def likelihood(tau):
        return (counts * log_softmax(logits / tau, axis=1)).sum()

    assert likelihood(found) > max(likelihood(1.01 * found), likelihood(found / 1.01))
