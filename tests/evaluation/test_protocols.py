"""The papers' protocols: who is held out, what a scorer sees, who is ranked against whom; constants and oracles."""

import jax
import numpy as np
import pytest
from scipy import sparse

from rec_transfer.data.formats import Ratings, read_cdrib_pair, read_ratings
from rec_transfer.evaluation.floors import fit_popularity
from rec_transfer.evaluation.protocols import cold_start_rows, leave_last_rows, measure_rows, summarise_rows
from rec_transfer.evaluation.splits import leave_last_out, some_users
from rec_transfer.types import HeldOut

KEY = jax.random.key(5)


def ratings(domain, *rows, items=6):
    user, item = np.array(rows).T
    users, user = np.unique(user, return_inverse=True)
    return Ratings(domain, users.astype(str), np.arange(items).astype(str), user, item, np.full(len(rows), 3))


# User 3 rates no music, user 4 one book alone, user 5 music alone. Rows of a user need not stand together.
BOOKS = ratings("book", (1, 5), (1, 0), (2, 3), (1, 2), (2, 1), (3, 0), (3, 1), (3, 2), (4, 4))
MUSIC = ratings("music", (1, 0), (1, 1), (2, 2), (2, 0), (4, 3), (4, 1), (5, 1), (5, 0), items=4)


def seen(counts, row):
    return sorted(counts[[row]].indices.tolist())


def test_the_last_row_of_the_file_is_held_out_for_each_user():
    train, held = leave_last_out(MUSIC, BOOKS)
    assert held.users.tolist() == ["1", "2", "3", "4"]
    assert {held.users[user]: item for user, item in zip(held.user, held.item, strict=True)} == {
        "1": 2, "2": 1, "3": 2, "4": 4,
    }  # fmt: skip
    assert [seen(held.target, row) for row in range(4)] == [[0, 5], [3], [0, 1], []]
    assert [seen(held.known, row) for row in range(4)] == [[0, 2, 5], [1, 3], [0, 1, 2], [4]]
    assert train.target.users.tolist() == ["1", "2", "3"]  # 4 has nothing left to learn from
    assert train.target.counts.toarray().tolist() == [[1, 0, 0, 0, 0, 1], [0, 0, 0, 1, 0, 0], [1, 1, 0, 0, 0, 0]]


def test_the_source_side_lacks_its_last_rows_which_are_the_other_directions_test():
    train, held = leave_last_out(MUSIC, BOOKS)
    assert [seen(held.source, row) for row in range(4)] == [[0], [2], [], [3]]
    assert train.source.users.tolist() == ["1", "2", "4", "5"]
    assert train.source.counts.sum() == 4


def test_tuning_rows_are_the_last_training_rows_of_chosen_users():
    train, held = leave_last_out(MUSIC, BOOKS, tuning_users=2, key=KEY)
    assert held.users.tolist() == ["1", "3"]  # nobody else has a row left to learn from
    assert held.item[np.argsort(held.user)].tolist() == [0, 1]
    assert [seen(held.target, row) for row in range(2)] == [[5], [0]]
    assert [seen(held.known, row) for row in range(2)] == [[0, 5], [0, 1]]  # of the test row nothing is known
    assert train.target.users.tolist() == ["1", "2", "3"]
    assert train.target.counts.toarray().tolist() == [[0, 0, 0, 0, 0, 1], [0, 0, 0, 1, 0, 0], [1, 0, 0, 0, 0, 0]]
    for arguments in ({"tuning_users": 3, "key": KEY}, {"tuning_users": 1}):
        with pytest.raises(ValueError, match=r"tuning_users: got .*, expected 1 to 2 users, and a key"):
            leave_last_out(MUSIC, BOOKS, **arguments)


def many(users=400, items=30, rows_each=2, seed=0):
    """Held-out rows in a shuffled order, each user with a few known items besides."""
    rng = np.random.default_rng(seed)
    has = np.argsort(rng.random((users, items)), axis=1)[:, : rows_each + 4]
    known = np.zeros((users, items), np.int32)
    np.put_along_axis(known, has, 1, axis=1)
    user = rng.permutation(np.repeat(np.arange(users), rows_each))
    order = np.argsort(user, kind="stable")
    item = np.empty(len(user), int)
    item[order] = has[:, :rows_each].ravel()
    source = sparse.csr_array(np.arange(1, users + 1)[:, None])
    names = np.array([f"u{user}" for user in range(users)])
    return HeldOut(names, source, None, user, item, sparse.csr_array(known), np.ones(items, bool))


def oracle(held):
    """Scores that put a user's known items first; the users of a chunk are recognised by their history."""
    positives = np.zeros(held.known.shape)
    positives[held.user, held.item] = 1
    return lambda history: positives[history.source.toarray()[:, 0] - 1]


def means(values):
    return values.groupby(["ranking", "metric"]).value.mean()


def test_an_oracle_scores_one():
    held = many(rows_each=1)
    assert (means(measure_rows(oracle(held), held, key=KEY, negatives=9)) == 1).all()


def test_an_oracle_scores_one_with_several_positives_of_one_user():
    held = many(rows_each=3)  # the other positives tie with the one that is ranked: they are left out
    assert (means(measure_rows(oracle(held), held, key=KEY, negatives=9)) == 1).all()


@pytest.mark.parametrize("negatives", [9, 19])
def test_a_constant_scorer_earns_the_random_score(negatives):
    held = many(users=3000, rows_each=1)
    values = measure_rows(lambda history: np.zeros((history.source.shape[0], 30)), held, key=KEY, negatives=negatives)
    for ranking, places in (("sampled", negatives + 1), ("full", 30 - 4)):
        truth = {"MRR": np.mean(1 / np.arange(1, places + 1)), "HR@10": min(10, places) / places}
        truth["NDCG@10"] = np.sum(1 / np.log2(1 + np.arange(1, min(10, places) + 1))) / places
        for metric, expected in truth.items():
            part = values[(values.ranking == ranking) & (values.metric == metric)].value
            assert abs(part.mean() - expected) <= 4 * part.std() / np.sqrt(len(part)) + 1e-12


def test_full_ranks_by_hand():
    known = sparse.csr_array(np.array([[1, 0, 1, 0, 0, 1]]))
    candidates = np.array([True, True, True, True, False, True])
    held = HeldOut(
        np.array(["a"]), sparse.csr_array(np.ones((1, 1))), None, np.array([0, 0]), np.array([5, 0]), known, candidates
    )
    # Item 2 is known and 4 no candidate: item 5 stands behind item 3 alone, item 0 behind 3 and 1.
    values = measure_rows(
        lambda history: np.array([[1.0, 2.0, 9.0, 8.0, 7.0, 5.0]]), held, key=KEY, negatives=2,
        measures={"rank": lambda rank: rank.astype(float)},
    )  # fmt: skip
    assert values[values.ranking == "full"].value.tolist() == [2, 3]
    assert values[values.ranking == "sampled"].value.tolist() == [2, 3]  # both candidates there are
    with pytest.raises(ValueError, match="negatives: got 3, expected at most 2"):
        measure_rows(lambda history: np.ones((1, 6)), held, key=KEY, negatives=3)


def test_a_positive_that_is_no_candidate_is_ranked_all_the_same():
    held = many(users=50)
    candidates = held.candidates.copy()
    candidates[held.item[0]] = False
    held = held._replace(candidates=candidates)
    assert (means(measure_rows(oracle(held), held, key=KEY, negatives=9)) == 1).all()


def scorer(history):
    return np.sin(np.outer(history.source.toarray()[:, 0], np.arange(1, 31)))


def test_chunks_change_nothing():
    held = many(users=50)
    asked = []

    def listening(history):
        asked.append(history.source.shape[0])
        return scorer(history)

    whole = measure_rows(scorer, held, key=KEY, negatives=9)
    parts = measure_rows(listening, held, key=KEY, negatives=9, block=7 * 4 * 30)
    assert asked == [7] * 7 + [1]
    assert whole.equals(parts)


def test_every_method_meets_the_same_negatives_and_another_key_draws_others():
    held = many(users=200)

    def negated(history):
        return -scorer(history)

    rank = {"rank": lambda ranks: ranks.astype(float)}
    first, turned = (measure_rows(f, held, key=KEY, negatives=9, measures=rank) for f in (scorer, negated))
    np.testing.assert_array_equal(first.value + turned.value, np.where(first.ranking == "sampled", 11, 30 - 5 + 1))
    other = measure_rows(scorer, held, key=jax.random.key(6), negatives=9, measures=rank)
    differs = first.value != other.value
    assert differs[first.ranking == "sampled"].any()
    assert not differs[first.ranking == "full"].any()


def test_a_scorer_is_given_the_target_history_in_the_warm_protocol_only():
    def ask(history):
        shapes.append(None if history.target is None else history.target.shape)
        return np.zeros((history.source.shape[0], 6))

    shapes = []
    _, held = leave_last_out(MUSIC, BOOKS)
    leave_last_rows(ask, held, key=KEY, negatives=2)
    cold_start_rows(ask, held._replace(target=None), key=KEY, negatives=2)
    assert shapes == [(4, 6), None]


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (np.zeros((3, 6)), r"scores: got shape \(3, 6\), expected \(4, 6\)"),
        (np.full((4, 6), np.nan), "scores: got 24 NaN, expected numbers"),
    ],
)
def test_scores_of_another_shape_or_nan_are_refused(scores, message):
    _, held = leave_last_out(MUSIC, BOOKS)
    with pytest.raises(ValueError, match=message):
        leave_last_rows(lambda history: scores, held, key=KEY, negatives=2)


def test_each_protocol_reports_its_papers_metrics_both_ways():
    _, held = leave_last_out(MUSIC, BOOKS)

    def constant(history):
        return np.zeros((history.source.shape[0], 6))

    warm = leave_last_rows(constant, held, key=KEY, negatives=2)
    cold = cold_start_rows(constant, held, key=KEY, negatives=2)
    assert list(warm.columns) == ["user", "row", "ranking", "metric", "value"]
    assert set(warm.metric) == {"HR@10", "NDCG@10"}
    assert set(cold.metric) == {"MRR", "HR@10", "NDCG@10"}
    assert set(warm.ranking) == set(cold.ranking) == {"sampled", "full"}
    assert len(cold) == 4 * 3 * 2


# ---- summarise_rows


def test_the_interval_is_from_users_who_come_with_all_their_rows():
    pd = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    level = rng.normal(size=60)
    rows = pd.DataFrame({"user": np.repeat(np.arange(60), 20), "row": np.arange(1200)})
    rows = rows.assign(method="m", ranking="full", metric="x", value=level[rows.user])
    table = summarise_rows(rows, key=KEY)
    assert table.columns.tolist() == ["method", "ranking", "metric", "rows", "mean", "low", "high"]
    line = table.iloc[0]
    assert line["mean"] == pytest.approx(level.mean())
    assert line["rows"] == 1200
    # 60 independent users, not 1,200 rows: the width is 2 x 1.96 standard errors of a mean of 60.
    assert line.high - line.low == pytest.approx(2 * 1.96 * level.std() / np.sqrt(60), rel=0.1)


def test_users_with_more_rows_weigh_more():
    pd = pytest.importorskip("pandas")
    rows = pd.DataFrame({"user": ["a", "b", "b", "b"], "row": range(4), "ranking": "full", "metric": "x"})
    assert summarise_rows(rows.assign(value=[1.0, 0.0, 0.0, 0.0]), key=KEY)["mean"][0] == 0.25


# ---- the published figures of popularity


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [("sport", "cloth", (3.37, 3.41, 6.74)), ("cloth", "sport", (3.43, 3.58, 7.23))],
)
def test_popularity_on_amazon_is_what_the_notes_say(data_folder, source, target, expected):
    pair = read_cdrib_pair(data_folder / "amazon-cloth-sport", source, target, shared=9828)
    values = cold_start_rows(fit_popularity(pair.train, key=KEY), pair.test, key=KEY)
    sampled = 100 * means(values)["sampled"]
    for metric, value in zip(("MRR", "NDCG@10", "HR@10"), expected, strict=True):
        assert sampled[metric] == pytest.approx(value, abs=0.3)  # other negatives, other ties


@pytest.mark.parametrize(
    ("source", "target", "expected"), [("music", "book", (0.4218, 0.2598)), ("book", "music", (0.3397, 0.1863))]
)
def test_popularity_on_douban_is_what_the_notes_say(data_folder, source, target, expected):
    read = {
        domain: read_ratings(data_folder / "douban-book-music" / f"douban_{domain}" / "ratings.dat", domain)
        for domain in (source, target)
    }
    train, held = leave_last_out(read[source], read[target])
    assert len(held.user) == len(read[target].users)
    sampled = means(leave_last_rows(fit_popularity(train, key=KEY), held, key=KEY))["sampled"]
    for metric, value in zip(("HR@10", "NDCG@10"), expected, strict=True):
        assert sampled[metric] == pytest.approx(value, abs=0.02)


def test_some_users_keep_all_their_rows_and_what_is_known_of_them():
    held = many(users=30)
    some = some_users(held, 7, key=KEY)
    assert len(some.users) == 7
    chosen = {user: row for row, user in enumerate(held.users)}
    at = [chosen[user] for user in some.users]
    np.testing.assert_array_equal(some.known.toarray(), held.known.toarray()[at])
    np.testing.assert_array_equal(some.source.toarray(), held.source.toarray()[at])
    pairs = [(held.users[user], item) for user, item in zip(held.user, held.item, strict=True)]
    kept = [(some.users[user], item) for user, item in zip(some.user, some.item, strict=True)]
    assert kept == [pair for pair in pairs if pair[0] in set(some.users)]
    assert len(some_users(held, 99, key=KEY).users) == 30
    with pytest.raises(ValueError, match="number: got 0"):
        some_users(held, 0, key=KEY)
