"""What every method has to beat: random order and popularity."""

import numpy as np

from rec_transfer.keys import numpy_generator
from rec_transfer.types import History, Key, Scorer, TrainingData


def fit_random(train: TrainingData, *, key: Key) -> Scorer:
    """Fit nothing: every item is equally good, and each user of a chunk has random scores."""

    def score(history: History) -> np.ndarray:
        return numpy_generator(key).random((history.source.shape[0], len(train.target.items)))

    return score


def fit_popularity(train: TrainingData, *, key: Key) -> Scorer:
    """Rank items by the clicks of all training users of the target domain: the same list for everybody."""
    clicks = np.asarray(train.target.counts.sum(axis=0), float)

    def score(history: History) -> np.ndarray:
        return np.tile(clicks, (history.source.shape[0], 1))

    return score
