"""The stored table of ten worlds: complete, no method above the ceiling, its shares; and how it is made."""

from pathlib import Path

import evidence
import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[2]
STORED = ROOT / "tests" / "reference" / "evidence.csv"


TOLD = ("oracle", "reference")


@pytest.fixture(scope="module")
def stored():
    return pd.read_csv(STORED)


def beaten(table):
    """Cells in which a method that sees what everybody sees lies above that metric's oracle, beyond its interval."""
    cell = ["world", "source", "target", "seed", "metric"]
    oracle = table[table.method == "oracle: " + table.metric].set_index(cell).value.rename("oracle")
    open_to_all = table[~table.method.str.startswith(TOLD)].join(oracle, on=cell)
    assert open_to_all.oracle.notna().all(), "a cell without its oracle"
    return open_to_all[open_to_all.low > open_to_all.oracle]


def test_every_method_stands_in_every_cell_once(stored):
    assert list(stored.columns) == evidence.COLUMNS
    assert not stored.duplicated(["world", "source", "target", "method", "seed", "metric"]).any()
    assert stored.world.unique().tolist() == list(evidence.WORLDS)
    assert stored.seed.unique().tolist() == list(evidence.SEEDS)
    assert set(stored.metric) == set(evidence.METRICS)
    rungs, references, _ = evidence.ladder(None)
    everything = {*rungs, *references} | {
        "oracle: NDCG@10",
        "oracle: Recall@20",
        "oracle: posterior mean",
    }
    for world, part in stored.groupby("world"):
        assert set(part.method) == (everything if world in evidence.ASSUMED else set(evidence.FEWER))
        assert len(part) == 5 * 2 * part.method.nunique()
    assert stored.drop(columns="setting").notna().all(axis=None)
    assert ((stored.low <= stored.value) & (stored.value <= stored.high)).all()


def test_what_is_called_tuned_has_its_setting_beside_its_number(stored):
    tuned = stored[stored.method.isin(["item cosine", "ridge", "EASE", "EMCDR", "Gaussian process"])]
    assert tuned.setting.notna().all()
    assert stored[stored.method == "popularity"].setting.isna().all()


def test_the_shares_are_those_of_the_values(stored):
    cell = ["world", "source", "target", "seed", "metric"]
    floor = stored[stored.method == "popularity"].set_index(cell).value.rename("floor")
    top = stored[stored.method == "oracle: " + stored.metric].set_index(cell).value.rename("top")
    table = stored.join(floor, on=cell).join(top, on=cell)
    np.testing.assert_allclose((table.value - table.floor) / (table.top - table.floor), table.share, atol=1e-3)


def test_no_method_beats_the_oracle_beyond_its_interval(stored):
    assert len(beaten(stored)) == 0, beaten(stored).to_string()
    # Nor on average over the worlds, where chance has less room.
    shares = stored.groupby(["world", "metric", "method"]).share.mean()
    assert shares[~shares.index.get_level_values("method").str.startswith(TOLD)].max() < 1


def test_a_method_above_the_oracle_would_be_found(stored):
    cheat = stored.copy()
    row = cheat.index[(cheat.method == "ridge") & (cheat.metric == "NDCG@10")][0]
    cheat.loc[row, ["low", "value", "high"]] = 0.9
    assert beaten(cheat).index.tolist() == [row]


def test_the_tables_are_made_of_the_values_of_users():
    rng = np.random.default_rng(0)
    methods = ["popularity", "mine", "oracle: NDCG@10", "oracle: Recall@20"]
    frames = []
    for world, method in ((world, method) for world in (7, 8) for method in methods):
        level = {"popularity": 0.2, "mine": 0.25}.get(method, 0.3)
        for metric in evidence.METRICS:
            users = pd.DataFrame({"user": range(80), "value": level + rng.normal(0, 0.02, 80)})
            frames.append(users.assign(method=method, metric=metric, seed=0, world=world))
    values = pd.concat(frames).assign(kind="bent", source="films", target="books", setting="")
    rows, shares = evidence.tables(values)
    assert list(rows.columns) == evidence.COLUMNS
    assert len(rows) == 2 * 4 * 2
    assert set(rows.seed) == {7, 8}
    mine = shares[(shares.method == "mine") & (shares.metric == "NDCG@10")].iloc[0]
    assert mine.share == pytest.approx(0.5, abs=0.05)
    assert mine.low < mine.share < mine.high
    assert mine.share == pytest.approx(rows[(rows.method == "mine") & (rows.metric == "NDCG@10")].share.mean())


def test_the_ladder_holds_every_rung():
    rungs = list(evidence.ladder(None).rungs)
    assert rungs[:2] == ["random", "popularity"]
    assert {"item cosine", "ridge", "EASE", "EMCDR", "VAE + ridge map", "shared latents + process"} <= set(rungs)
