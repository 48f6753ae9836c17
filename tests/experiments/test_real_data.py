"""The stored table of real people: complete, its gates; and how it is made, end to end on synthetic twins."""

import argparse
from pathlib import Path

import jax
import ladder
import numpy as np
import pandas as pd
import pytest
import real_data

from rec_transfer import evaluation
from rec_transfer.synthetic import published_formats

ROOT = Path(__file__).resolve().parents[2]
STORED = ROOT / "tests" / "reference" / "real_data.csv"


DIRECTIONS = [
    ("amazon-cloth-sport", "sport", "cloth"),
    ("amazon-cloth-sport", "cloth", "sport"),
    ("douban-book-music", "music", "book"),
    ("douban-book-music", "book", "music"),
]


@pytest.fixture(scope="module")
def stored():
    return pd.read_csv(STORED)


def values(table, target, selected="train", ranking="sampled"):
    """[leaks and metric] x method, in percent, of one direction."""
    part = table[(table.target == target) & (table.selected == selected) & table.protocol.str.startswith(ranking)]
    return 100 * part.pivot(index=["leaks", "metric"], columns="method", values="value")


def below(table, target, methods):
    """Cells of a direction, tuned without valid or test rows, in which the mixture is no better than a method."""
    wide = values(table, target)
    return [(*cell, method) for method in methods for cell in wide.index[wide[real_data.OURS] <= wide[method]]]


def below_published(table, target, methods):
    """The same, beside the printed rows of a target domain."""
    wide, printed = values(table, target)[real_data.OURS], real_data.PUBLISHED
    printed = printed[(printed.target == target) & printed.method.isin(methods)].set_index("method")
    assert len(printed) == len(methods)
    return [(*cell, method) for method in methods for cell in wide.index if wide[cell] <= printed.loc[method, cell[1]]]


def test_every_method_stands_in_every_cell_once(stored):
    by = [name for name in real_data.COLUMNS if name not in ("seed", "value", "low", "high")]
    assert list(stored.columns) == [*by, "value", "low", "high"]
    assert not stored.duplicated(by).any()
    assert stored.notna().all(axis=None)
    assert ((stored.low <= stored.value) & (stored.value <= stored.high)).all()
    assert list(stored[["dataset", "source", "target"]].drop_duplicates().itertuples(index=False)) == DIRECTIONS
    for _, part in stored.groupby(["dataset", "source", "target", "leaks", "selected"]):
        # Both rankings and two or three metrics of every method.
        assert part.groupby("method").size().nunique() == 1
        assert set(part.protocol.str.split().str[0]) == {"sampled", "full"}
        assert {"popularity", "item cosine", "EASE", real_data.OURS} <= set(part.method)
    amazon = stored[stored.dataset == "amazon-cloth-sport"]
    assert set(amazon.leaks) == {"with", "without"}
    assert set(amazon.selected[amazon.leaks == "with"]) == {"train", "valid"}


@pytest.mark.parametrize("target", ["cloth", "sport"])
def test_the_mixture_is_above_what_it_has_to_beat_on_amazon_with_and_without_leaks(stored, target):
    assert below(stored, target, ["popularity", "ridge + popularity"]) == []
    assert below_published(stored, target, ["SA-VAE"]) == []


@pytest.mark.parametrize("target", ["book", "music"])
def test_the_mixture_is_above_what_it_has_to_beat_on_douban(stored, target):
    assert below(stored, target, ["popularity", "item cosine"]) == []
    assert below_published(stored, target, ["NeuMF", "DMF"]) == []


def test_a_lost_gate_would_be_found(stored):
    lost = stored.copy()
    row = (lost.method == real_data.OURS) & (lost.target == "cloth") & (lost.leaks == "without")
    lost.loc[row & (lost.metric == "HR@10"), "value"] = 0.0721
    assert below_published(lost, "cloth", ["SA-VAE"]) == [("without", "HR@10", "SA-VAE")]
    lost.loc[row & (lost.metric == "MRR"), "value"] = 0.01
    assert ("without", "MRR", "popularity") in below(lost, "cloth", ["popularity"])


@pytest.fixture(scope="module")
def small():
    """Few candidates, two seeds and little training: the way through is the same."""
    patch = pytest.MonkeyPatch()
    whole = ladder.ladder

    def few(warm):
        return {rung: dict(list(candidates.items())[:2]) for rung, candidates in whole(warm).items()}

    patch.setattr(ladder, "ladder", few)
    patch.setattr(ladder, "WORK", 1e6)
    patch.setattr(real_data, "SEEDS", 2)
    yield
    patch.undo()


def checked(rows, negatives):
    assert list(rows.columns) == real_data.COLUMNS
    assert rows.notna().all(axis=None)
    assert set(rows.seed) == {0, 1}
    assert set(rows.protocol) == {f"sampled {negatives}", "full"}
    wide = 100 * real_data.means(rows).pivot_table(
        index="method", columns=["protocol", "metric"], values="value", aggfunc="mean"
    )
    full, sampled = wide["full"], wide[f"sampled {negatives}"]
    # Against more items nobody ranks higher, but for luck with ties.
    assert full["NDCG@10"].mean() < sampled["NDCG@10"].mean()
    return sampled["NDCG@10"]


def test_a_pair_in_the_format_of_cdrib_from_files_to_table(small, tmp_path, capsys):
    published_formats.write_cdrib_pair(
        tmp_path, "films", "books", key=jax.random.key(1), shared=300, private=50, leaks=4, items=1100
    )
    options = argparse.Namespace(folder=tmp_path, source="films", target="books", shared=300)
    tasks = real_data.tasks_of(options)
    assert [(task["source"], task["target"]) for task in tasks] == [("films", "books"), ("books", "films")]
    rows, log, took = real_data.work(tasks[0])
    negatives = int(rows.protocol[rows.protocol != "full"].iloc[0].split()[1])
    assert 500 < negatives < 999  # a small catalogue has no 999 that somebody has and the user lacks
    ndcg = checked(rows, negatives)
    assert ndcg[real_data.OURS] > ndcg["popularity"]
    assert set(rows.leaks) == {"without", "with"}
    assert set(rows.selected) == {"train", "valid"}
    assert len(log) == 3 * 7  # without leaks, and twice with them; six tuned rungs and the mixture
    assert took.startswith("films-books, films to books: ")
    real_data.show(rows)
    shown = capsys.readouterr().out
    assert "films-books, films to books, in percent, mean of 2 seeds" in shown
    assert all(method in shown for method in ndcg.index)


def test_ratings_from_files_to_table(small, tmp_path):
    published_formats.write_ratings(tmp_path, key=jax.random.key(1), shared=200)
    task = {"folder": tmp_path, "dataset": "twin", "source": "music", "target": "book"}
    rows, _, _ = real_data.work(task)
    ndcg = checked(rows, 99)
    assert ndcg[real_data.OURS] > ndcg["popularity"]
    assert set(rows.selected) == {"train"}


def test_a_folder_without_the_pair_is_named(tmp_path):
    options = argparse.Namespace(folder=tmp_path / "nowhere", source="films", target="books", shared=100)
    with pytest.raises(SystemExit, match=r"nowhere: got no films_books/train.txt, expected .*folders there: none"):
        real_data.tasks_of(options)
    published_formats.write_cdrib_pair(tmp_path, "films", "books", key=jax.random.key(1), shared=100, private=50)
    options = argparse.Namespace(folder=tmp_path, source="films", target="boks", shared=100)
    with pytest.raises(SystemExit, match=r"got no films_boks/train.txt.*TARGET=boks; folders there: .*'books_films'"):
        real_data.tasks_of(options)
    options = argparse.Namespace(folder=tmp_path, source="films", target="books", shared=90)
    with pytest.raises(SystemExit, match="SHARED=90: shared: got 90, expected at least"):
        real_data.tasks_of(options)


def test_known_data_that_are_not_there_are_named(tmp_path, monkeypatch):
    (tmp_path / "amazon-cloth-sport").mkdir()
    monkeypatch.setenv("REC_TRANSFER_DATA", str(tmp_path))
    with pytest.raises(SystemExit, match=r"amazon-cloth-sport: got train.txt: no such file.*\$REC_TRANSFER_DATA"):
        real_data.tasks_of(argparse.Namespace(folder=None))


def test_settings_are_judged_by_the_number_that_is_reported(tmp_path):
    published_formats.write_cdrib_pair(tmp_path, "films", "books", key=jax.random.key(1), shared=100, private=50)
    split = real_data.read_cdrib_pair(tmp_path, "films", "books", shared=100).test
    scores = np.random.default_rng(0).integers(0, 9, split.hidden.shape).astype(np.float32)  # with ties
    key = jax.random.key(2)
    drawn = evaluation.draw_negatives(split, 50, key=key)
    values = evaluation.measure(scores, split, key=key, per="row", drawn=drawn)
    expected = values[(values.ranking == "sampled") & (values.metric == "NDCG@10")].value.mean()
    assert ladder.sampled_ndcg(scores, split, drawn, key=key) == pytest.approx(expected)
