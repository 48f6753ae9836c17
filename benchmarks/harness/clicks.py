"""The made-up clicks that every implementation of ``make bench`` trains on, and the weights they all start from.

NumPy and SciPy alone: the peers live in an environment without this package.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import sparse

CLICKS, HELD_OUT = 60, 0.2  # a user's mean clicks; the share of them kept for ranking: 48 to train on
TASTES = 16
TRAINED = round(CLICKS * (1 - HELD_OUT))  # a user's mean clicks to train on
HIDDEN, LATENT = 600, 200  # Mult-VAE I-600-200 (Liang et al. 2018)
NETWORK = {"latent": LATENT, "hidden": HIDDEN, "dropout": 0.5, "batch_size": 500}
CHUNK = 500


class Size(NamedTuple):
    """Users, items and a user's mean clicks of one workload."""

    users: int
    items: int
    clicks: int = CLICKS


SIZES = {"S": Size(2_000, 500), "M": Size(20_000, 2_000), "L10": Size(10_000, 10_000)}


class Clicks(NamedTuple):
    """Users x items, 1 where there is a click: what is trained on, and what must be found again."""

    train: sparse.csr_array
    held_out: sparse.csr_array


def draw(size: Size, seed: int = 0) -> Clicks:
    """Clicks without replacement from softmax(taste . item + popularity), activity gamma-distributed, split at random.

    The largest of logits plus Gumbel noise are such a sample (Vieira 2014).
    """
    rng = np.random.default_rng(seed)
    items = rng.normal(size=(size.items, TASTES)).astype(np.float32)
    popularity = (-0.7 * np.log(1 + rng.permutation(size.items))).astype(np.float32)
    activity = np.clip(rng.gamma(4.0, size.clicks / 4, size.users), 5, size.items // 4).astype(int)
    parts = []
    for first in range(0, size.users, CHUNK):
        number = activity[first : first + CHUNK]
        taste = 0.5 * rng.normal(size=(len(number), TASTES)).astype(np.float32)
        noise = -np.log(rng.standard_exponential((len(number), size.items), np.float32))
        keys = taste @ items.T + popularity + noise
        most = number.max()
        top = np.argpartition(-keys, most, axis=1)[:, :most]
        top = np.take_along_axis(top, np.argsort(-np.take_along_axis(keys, top, 1), axis=1), 1)
        parts += [row[:clicks] for row, clicks in zip(top, number, strict=True)]
    users = np.repeat(np.arange(size.users), activity)
    chosen = np.concatenate(parts)
    away = rng.random(len(chosen)) < HELD_OUT
    away[np.cumsum(activity) - activity] = False  # everybody keeps a click to be known by
    return Clicks(*(_matrix(users[part], chosen[part], size) for part in (~away, away)))


def _matrix(users, items, size):
    matrix = sparse.csr_array((np.ones(len(users), np.float32), (users, items)), shape=(size.users, size.items))
    matrix.sum_duplicates()
    return matrix


def popular_clicks(users: int, items: int, seed: int = 0) -> sparse.csr_array:
    """Counts of clicks, users x items, drawn with replacement by popularity alone (1/rank): quick at any size."""
    rng = np.random.default_rng(seed)
    popularity = np.cumsum(1 / np.arange(1, items + 1))
    drawn = np.searchsorted(popularity, rng.random(users * TRAINED) * popularity[-1])
    counts = sparse.csr_array(
        (np.ones(users * TRAINED, np.float32), drawn.astype(np.int32), TRAINED * np.arange(users + 1)), (users, items)
    )
    counts.sum_duplicates()
    return counts


def first_weights(items: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Weights [inputs, outputs] and biases of the network's five layers, normal with variance 1 / inputs."""
    rng = np.random.default_rng(seed)
    widths = {
        "hidden": (items, HIDDEN),
        "mean": (HIDDEN, LATENT),
        "log_variance": (HIDDEN, LATENT),
        "decoder": (LATENT, HIDDEN),
        "logits": (HIDDEN, items),
    }
    weights = {}
    for name, shape in widths.items():
        weights[name] = (rng.standard_normal(shape, np.float32) / np.sqrt(shape[0])).astype(np.float32)
        weights[f"{name}_bias"] = np.zeros(shape[1], np.float32)
    return weights


def load(folder: Path, size: Size) -> Clicks:
    """The clicks of this size, drawn once and kept in a folder."""
    path = Path(folder) / f"clicks-{size.users}-{size.items}-{size.clicks}.npz"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        parts = {}
        for name, matrix in draw(size)._asdict().items():
            parts |= {f"{name}_indptr": matrix.indptr, f"{name}_indices": matrix.indices}
        np.savez(path.with_suffix(".part.npz"), **parts)
        path.with_suffix(".part.npz").replace(path)
    with np.load(path) as file:
        parts = {name: file[name] for name in file.files}
    matrices = []
    for name in Clicks._fields:
        indices = parts[f"{name}_indices"]
        matrices.append(
            sparse.csr_array((np.ones(len(indices), np.float32), indices, parts[f"{name}_indptr"]), size[:2])
        )
    return Clicks(*matrices)


def mean_ndcg(ranks: np.ndarray, users: np.ndarray, number: np.ndarray, k: int = 100) -> float:
    """NDCG@k, mean over users with something held out, from the rank of each held-out click of ``users``."""
    gain = np.bincount(users, np.where(ranks <= k, 1 / np.log2(1.0 + ranks), 0.0), len(number))
    ideal = np.concatenate([[np.nan], np.cumsum(1 / np.log2(np.arange(2, k + 2)))])
    return float(np.nanmean(gain / ideal[np.minimum(number, k)]))
