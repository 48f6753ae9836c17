"""Tuning looks at overlapping users only, never at the row it scores, takes the best, and says which it was."""

from functools import partial

import jax
import numpy as np
import pytest

from rec_transfer.evaluation import metrics
from rec_transfer.evaluation.floors import fit_popularity, fit_random
from rec_transfer.evaluation.protocol import evaluate
from rec_transfer.evaluation.tuning import cross_validate, telling, tuned
from rec_transfer.methods.linear import ridge
from rec_transfer.models.forms import log_scaled
from rec_transfer.types import History, TrainingData

KEY = jax.random.key(5)


def rows_of(domain):
    return dict(zip(domain.users, domain.counts.toarray(), strict=True))


def test_every_overlapping_user_is_scored_once_and_has_no_target_row_then(split):
    seen = []

    def spy(train, *, key):
        def score(history):
            rows = {row.tobytes() for row in history.source.toarray()}
            hidden = [user for user, row in rows_of(split.train.source).items() if row.tobytes() in rows]
            seen.append((train, set(hidden), history))
            return np.zeros((len(rows), len(train.target.items)))

        return score

    shared = split.train.overlapping_users
    values = cross_validate({"spy": spy}, split.train, key=KEY, folds=4)
    assert values.index.tolist() == shared.tolist()
    assert [history.source.shape[0] for _, _, history in seen] == [15] * 4
    assert set.union(*(hidden for _, hidden, _ in seen)) >= set(shared)
    for train, hidden, history in seen:
        assert history.target is None
        left = set(train.target.users)
        assert len(split.train.target.users) - len(left) == 15
        assert set(split.train.target.users) - left <= hidden
        assert train.source is split.train.source  # source rows stay, as those of cold-start users do


def test_a_candidate_that_looks_for_the_answers_does_not_find_them(split):
    def peeking(train, *, key):
        """Looks the users up by their source rows and recites their target rows."""
        source, target = rows_of(train.source), rows_of(train.target)
        answers = {row.tobytes(): target[user] for user, row in source.items() if user in target}

        def score(history):
            nothing = np.zeros(len(train.target.items))
            return np.stack([answers.get(row.tobytes(), nothing) for row in history.source.toarray()]).astype(float)

        return score

    # On users whose rows were left in, it is perfect; in the folds it is as good as chance.
    source, target = split.train.pairs
    recited = peeking(split.train, key=KEY)(History(source.counts))
    perfect = metrics.ndcg(recited, target.counts, key=KEY)
    np.testing.assert_allclose(perfect, 1.0)
    values = cross_validate({"peeking": peeking, "chance": fit_random}, split.train, key=KEY).mean()
    assert abs(values["peeking"] - values["chance"]) < 0.08
    assert values["peeking"] < 0.6


def test_the_planted_best_is_chosen_and_refitted_on_everybody(split):
    fitted = []

    def counted(train, *, key):
        fitted.append(train)
        return ridge(log_scaled, 3.0)(train, key=key)

    candidates = {"chance": fit_random, "ridge": counted, "popularity": fit_popularity}
    scorer = tuned(candidates, folds=3)(split.train, key=KEY)
    assert scorer.choice == "ridge"
    assert list(scorer.means) == ["chance", "ridge", "popularity"]
    assert scorer.means["ridge"] > scorer.means["popularity"] > scorer.means["chance"]
    assert len(fitted) == 3 + 1
    assert fitted[-1] is split.train
    scores = scorer(split.history)
    np.testing.assert_allclose(scores, ridge(log_scaled, 3.0)(split.train, key=KEY)(split.history))


def test_a_fit_tells_what_it_chose_and_is_otherwise_the_same_method(split):
    chosen, method = {}, tuned({"chance": fit_random, "popularity": fit_popularity}, folds=2)
    methods = {"tuned": method, "plain": fit_popularity}
    told = {name: telling(fit, partial(chosen.__setitem__, name)) for name, fit in methods.items()}
    values = evaluate(told, split, keys=[KEY])
    assert chosen == {"tuned": "popularity", "plain": ""}
    assert values.equals(evaluate(methods, split, keys=[KEY]))


def test_of_equals_the_first_is_chosen_since_they_meet_the_same_folds_keys_and_ties(split):
    first, again = (tuned({"one": fit_random, "two": fit_random})(split.train, key=KEY) for _ in range(2))
    assert first.means["one"] == first.means["two"]
    assert first.choice == "one"
    assert first.means == again.means
    other = tuned({"one": fit_random})(split.train, key=jax.random.key(6))
    assert other.means["one"] != first.means["one"]


def test_the_mean_is_that_of_metrics_by_hand(split):
    """A scorer that needs no training is worth in the folds what it is worth on all the overlapping users."""

    def fixed(train, *, key):
        return lambda history: np.tile(np.arange(30.0), (history.source.shape[0], 1))

    relevant = split.train.pairs[1].counts.toarray()
    expected = metrics.ndcg(np.tile(np.arange(30.0), (60, 1)), relevant, key=KEY)
    values = cross_validate({"fixed": fixed}, split.train, key=KEY)
    np.testing.assert_allclose(values["fixed"], expected)


def test_what_cannot_be_cross_validated_is_refused(split):
    with pytest.raises(ValueError, match="candidates: got none, expected at least one"):
        tuned({})(split.train, key=KEY)
    for folds in (1, 61):
        with pytest.raises(ValueError, match=f"folds: got {folds}, expected 2 to 60"):
            cross_validate({"chance": fit_random}, split.train, key=KEY, folds=folds)
    everybody = split.train.overlapping_users
    alone = TrainingData(split.train.source, split.train.target.select(everybody[:1]))
    with pytest.raises(ValueError, match="folds: got 5, expected 2 to 1"):
        cross_validate({"chance": fit_random}, alone, key=KEY)
