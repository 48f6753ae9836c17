"""Leaks that were put there are found, what is no leak is not, and what is taken out gives nothing away any more."""

import jax
import numpy as np
import pytest
from scipy import sparse

from rec_transfer.data.formats import read_cdrib_pair, read_ratings
from rec_transfer.evaluation.audit import duplicated_users, identical_audiences, rows_in_training, without_leaks
from rec_transfer.evaluation.splits import leave_last_out
from rec_transfer.synthetic.published_formats import write_cdrib_pair
from rec_transfer.types import Interactions, TrainingData

KEY = jax.random.key(8)


def domain(name, rows, users):
    matrix = sparse.csr_array(np.array(rows, np.int32))
    return Interactions(name, matrix, np.array(users), np.array([f"{name}{i}" for i in range(matrix.shape[1])]))


# Users a to d are in both; s is in the source alone and t in the target alone, in another order of rows.
SOURCE = domain("s", [[1, 1, 0, 1], [2, 0, 1, 1], [1, 1, 1, 0], [0, 1, 1, 1], [1, 1, 1, 0]], list("abcds"))
TARGET = domain("t", [[0, 1, 0], [1, 0, 5], [1, 1, 1], [1, 1, 1], [0, 1, 1]], list("tdcba"))


def test_items_that_the_same_shared_people_have_are_pairs_whatever_counts_and_rows():
    # s0 has a, b, c (and s); t1 a, b, c (and t); t0 b, c, d; t2 everybody; s2 b, c, d.
    pairs = identical_audiences(SOURCE, TARGET)
    assert pairs.values.tolist() == [["s0", "t1", 3], ["s2", "t0", 3]]
    assert identical_audiences(SOURCE, TARGET, minimum=4).empty
    with pytest.raises(ValueError, match="minimum: got 0, expected at least 1"):
        identical_audiences(SOURCE, TARGET, minimum=0)


def test_every_item_of_a_group_pairs_with_every_other():
    both = list("abc")
    source, target = domain("s", [[1, 1]] * 3, both), domain("t", [[1, 1, 0]] * 3, both)
    assert len(identical_audiences(source, target)) == 4


def test_a_row_stored_as_zero_is_no_row():
    counts = SOURCE.counts.copy()
    counts.data[counts.indices == 0] = 0
    emptied = Interactions("s", counts, SOURCE.users, SOURCE.items)
    assert identical_audiences(emptied, TARGET).source_item.tolist() == ["s2"]


def test_users_with_exactly_the_same_items_are_reported():
    assert duplicated_users(SOURCE) == [("c", "s")]
    assert duplicated_users(SOURCE, minimum=4) == []


@pytest.fixture(scope="module")
def twins(tmp_path_factory):
    """The same population without and with six items listed in both domains."""
    result = []
    for leaks in (0, 6):
        folder = write_cdrib_pair(tmp_path_factory.mktemp("twin"), "games", "films", key=KEY, shared=300, leaks=leaks)
        result.append(read_cdrib_pair(folder, "games", "films", shared=300))
    return result


def test_leaks_that_were_put_there_are_found_and_no_other(twins):
    sound, leaking = twins
    assert identical_audiences(*sound.whole).empty
    assert len(identical_audiences(*leaking.whole)) == 6


def test_without_leaks_no_pair_is_left_and_the_rows_stay(twins):
    leaking = twins[1]
    pairs = identical_audiences(*leaking.whole)
    clean = without_leaks(leaking.test, pairs).split
    columns = np.isin(leaking.train.source.items, pairs.source_item)
    assert clean.train.source.counts[:, columns].sum() == 0
    assert clean.history.source[:, columns].sum() == 0
    kept = leaking.train.source.select(clean.train.source.users)
    np.testing.assert_array_equal(clean.train.source.counts[:, ~columns].toarray(), kept.counts[:, ~columns].toarray())
    assert clean.train.target is leaking.train.target
    assert clean.hidden is leaking.test.hidden
    assert identical_audiences(clean.train.source, clean.train.target).empty


def test_touched_rows_are_those_that_a_pair_gave_away(twins):
    leaking = twins[1]
    pairs = identical_audiences(*leaking.whole)
    touched = without_leaks(leaking.test, pairs).touched
    partners = set(zip(pairs.source_item, pairs.target_item, strict=True))
    test = leaking.test
    expected = [
        any(
            (item, leaking.train.target.items[positive]) in partners
            for item in leaking.train.source.items[test.history.source[[user]].indices]
        )
        for user, positive in zip(*test.hidden.nonzero(), strict=True)
    ]
    assert touched.tolist() == expected
    assert 0 < touched.sum() < len(touched)
    assert not without_leaks(leaking.test, pairs[:0]).touched.any()


def test_a_training_user_whose_every_row_leaked_is_no_source_user():
    source = domain("s", [[1, 0], [1, 1], [1, 1], [0, 1]], list("abcd"))
    target = domain("t", [[1, 0], [1, 1], [1, 0], [0, 1]], list("abcd"))
    pairs = identical_audiences(source, target)
    assert pairs.source_item.tolist() == ["s0"]
    split = leave_last_out(*ratings())._replace(train=TrainingData(source, target))
    clean = without_leaks(split, pairs).split
    assert clean.train.source.users.tolist() == ["b", "c", "d"]


def ratings():
    from rec_transfer.data.formats import Ratings

    rows = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]), np.full(4, 3)
    ids = np.array(["a", "b"]), np.array(["0", "1"])
    return Ratings("x", *ids, *rows), Ratings("y", *ids, *rows)


def test_a_hidden_row_that_stands_in_training_is_found():
    source, target = ratings()
    split = leave_last_out(source, target)
    assert rows_in_training(split).tolist() == []
    leaking = split._replace(train=TrainingData(split.train.source, target.interactions))
    assert rows_in_training(leaking).tolist() == [0, 1]
    unknown = leaking._replace(users=np.array(["z", "b"]))
    assert rows_in_training(unknown).tolist() == [1]


def test_amazon_leaks_what_its_card_lists(data_folder):
    import pandas as pd

    folder = data_folder / "amazon-cloth-sport"
    listed = pd.read_csv(folder / "DERIVED_same_product_pairs_cloth_sport.csv")
    pair = read_cdrib_pair(folder, "cloth", "sport", shared=9828)
    pairs = identical_audiences(*pair.whole)
    assert len(pairs) == 804
    assert set(map(tuple, pairs.astype(int).to_numpy())) == set(map(tuple, listed.to_numpy()))
    clean = without_leaks(pair.test, pairs)
    assert 0.12 < clean.touched.mean() < 0.13
    assert rows_in_training(pair.test).tolist() == []


def test_no_leak_is_found_in_douban(data_folder):
    folder = data_folder / "douban-book-music"
    books, music = (read_ratings(folder / f"douban_{name}" / "ratings.dat", name) for name in ("book", "music"))
    assert identical_audiences(books.interactions, music.interactions).empty
    assert duplicated_users(books.interactions) == duplicated_users(music.interactions) == []
    assert rows_in_training(leave_last_out(music, books)).tolist() == []
