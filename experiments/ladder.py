"""The ladder on real data: every rung with its candidates, chosen on held-out rows, and the mixture of them.

Part of ``real_data.py``. Nothing here sees a test row.
"""

from itertools import product
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from rec_transfer import evaluation
from rec_transfer.evaluation import protocols
from rec_transfer.keys import key_for, numpy_generator, once_per_key
from rec_transfer.maps.linear import fit_ridge_map
from rec_transfer.methods import ensembles, item_models, sparse_models
from rec_transfer.methods.transfer import Transfer
from rec_transfer.models.sparse_training import train_vae_sparse
from rec_transfer.models.train import posterior
from rec_transfer.models.vae import VAE, VAEConfig
from rec_transfer.types import HeldOut, History, Interactions, Key, Pairs, Scorer, TrainingData

WORK = 1e9  # users x items x epochs of a VAE's training: some ten seconds on one core
VAE_RUNG, OURS, BARE = "VAE + ridge map", "mixture", "item cosine alone"


POWERS = ({"power": 0.5}, {"power": 0.75}, {"power": 1.0})
WEIGHTS = tuple({"weight": weight} for weight in (0.0, 0.3, 1.0, 3.0, 10.0, 30.0))


def ladder(warm: bool) -> dict:
    """Every tuned rung: name of the setting -> (method, ways to put popularity in that are tried with it)."""
    penalties = (10.0, 30.0, 100.0)
    rungs = {
        "item cosine": {
            f"{form.__name__}, log popularity {weight:g}": (item_models.item_cosine(form, weight), ({},))
            for form, weight in product((item_models.clicked, item_models.damped), (0.0, 0.1, 0.3, 1.0, 3.0))
        },
        "ridge + popularity": {
            f"penalty {penalty:g}": (sparse_models.paired_ridge(penalty, 0.0), WEIGHTS) for penalty in penalties
        },
        "EASE": {
            f"penalty {penalty:g}": (sparse_models.paired_ease(penalty, 0.0, strangers=warm), WEIGHTS)
            for penalty in penalties
        },
        "EMCDR (axes + map)": {
            f"{axes} axes": (sparse_models.spectral_map(axes, 0.0), POWERS) for axes in (16, 32, 64, 128, 256, 512)
        },
        "axes of both graphs": {
            f"{axes} axes": (sparse_models.stacked_axes(axes, 0.0), POWERS) for axes in (16, 32, 64, 128, 256)
        },
        "graph diffusion": {f"{steps} steps": (sparse_models.diffusion(steps, 0.0), POWERS) for steps in (1, 2, 4, 8)},
    }
    if warm:  # ridge would learn to repeat the target history; EMCDR's map to itself is the one graph's axes
        del rungs["ridge + popularity"], rungs["EMCDR (axes + map)"]
        rungs["item cosine"] = {
            name: (sparse_models.warm(method), ways) for name, (method, ways) in rungs["item cosine"].items()
        }
    return rungs


@once_per_key
def domain_vae(domain: Interactions, *, key: Key) -> VAE:
    """The VAE of one domain, on compressed rows: as many epochs as ``WORK`` allows, 2 to 60, of as many users."""
    items = domain.counts.shape[1]
    users = min(domain.counts.shape[0], int(WORK / items / 2))
    epochs = int(np.clip(WORK / items / users, 2, 60))
    config = VAEConfig(
        latent=32, hidden=64, epochs=epochs, anneal_epochs=epochs // 2, learning_rate=3e-3, batch_size=128
    )
    rows = np.sort(numpy_generator(key_for(key, "users")).permutation(domain.counts.shape[0])[:users])
    return train_vae_sparse(domain.counts[rows], key=key_for(key, domain.domain), config=config).model


@once_per_key
def fit_vae(train: TrainingData, *, key: Key) -> Scorer:
    """A VAE per domain and a ridge map between them: ``transfer.fit_transfer`` without the dense target rows."""
    source, target = (domain_vae(side, key=key) for side in (train.source, train.target))
    beliefs = [posterior(model, side.counts) for model, side in zip((source, target), train.pairs, strict=True)]
    unread = jnp.zeros((len(beliefs[0].mean), 0))  # the map looks at no counts
    return Transfer(source, target, fit_ridge_map(Pairs(*beliefs, unread)))


class Judge:
    """NDCG@10 of held-out rows against sampled negatives, by the scores of those few items alone."""

    def __init__(self, held: HeldOut, negatives: int, *, key: Key):
        self.held, self.drawn = held, protocols.draw_negatives(held, negatives, key=key)

    def rows(self, scores) -> np.ndarray:
        """Scores [users, items] -> [rows, 1 + negatives], the positive first."""
        user, item = self.held.user[:, None], self.held.item[:, None]
        return np.concatenate([scores[user, item], scores[user, self.drawn]], axis=1, dtype=np.float32)

    def __call__(self, rows) -> float:
        own, others = rows[:, :1], rows[:, 1:]
        rank = 1 + (others > own).sum(axis=1) + (others == own).sum(axis=1) // 2
        return float(protocols.ROW_METRICS["NDCG@10"](rank).mean())


def all_scores(scorer: Scorer, held: HeldOut) -> np.ndarray:
    """Scores of all held-out users as float32, asked for in chunks."""
    users, items = held.known.shape
    result, step = np.empty((users, items), np.float32), max(1, protocols.BLOCK // (4 * items))
    for start in range(0, users, step):
        chunk = slice(start, start + step)
        result[chunk] = scorer(History(held.source[chunk], None if held.target is None else held.target[chunk]))
    return result


class Chosen(NamedTuple):
    """The rungs as held-out rows would have them, and their mixture: part -> (method, weight); what was chosen."""

    rungs: dict
    mixture: dict
    log: list


def choose(train: TrainingData, held: HeldOut, negatives: int, warm: bool, *, fit_key: Key, key: Key) -> Chosen:
    """Every rung with the settings, and the mixture with the weights, that held-out rows like best."""
    judge = Judge(held, negatives, key=key)
    share = judge.rows(np.broadcast_to(ensembles.shares(train), held.known.shape))
    rungs, parts, log = {"popularity": evaluation.fit_popularity}, {}, []

    def standardised(scores):
        return judge.rows(item_models.standardised(scores))

    for rung, candidates in ladder(warm).items():
        best = -1.0
        for name, (method, ways) in candidates.items():
            scores = all_scores(method(train, key=fit_key), held)
            rows = judge.rows(scores)
            for way in ways:
                value = judge(rows * share ** way.get("power", 0.0) + np.float32(way.get("weight", 0.0)) * share)
                if value > best:
                    best, setting, chosen, kept = value, name, (method, way), scores
        method, way = chosen
        log.append(
            (rung, ", ".join([setting, *(f"popularity {name} {number:g}" for name, number in way.items())]), best)
        )
        rungs[rung] = ensembles.with_popularity(method, **way)
        lift = {name: number for name, number in way.items() if name == "power"}  # the mixture adds popularity itself
        parts[rung] = (
            ensembles.with_popularity(method, **lift),
            standardised(kept * ensembles.shares(train) ** np.float32(lift.get("power", 0.0))),
        )
    for name, method in ((VAE_RUNG, fit_vae), (BARE, next(iter(ladder(warm)["item cosine"].values()))[0])):
        parts[name] = method, standardised(all_scores(method(train, key=fit_key), held))
    rungs[VAE_RUNG] = fit_vae
    parts["popularity"] = (
        evaluation.fit_popularity,
        standardised(np.broadcast_to(sparse_models.popular(train.target), held.known.shape)),
    )
    weights = ensembles.grow_mixture({name: rows for name, (_, rows) in parts.items()}, judge)
    mixed = sum(np.float32(weight) * parts[name][1] for name, weight in weights.items())
    log.append((OURS, " + ".join(f"{weight:.3g} {name}" for name, weight in weights.items()), judge(mixed)))
    return Chosen(rungs, {name: (parts[name][0], weight) for name, weight in weights.items()}, log)
