"""How far a temperature tuned on overlapping users falls short of the new users', and why: notebook 11, section 4.

The notebook's world, seven draws of its people. In each, one softmax temperature is fitted to predictions of the
overlapping users' books three ways: left out of the map alone (ridge regression's leave-one-out), left out of the VAEs
too (four folds, everything learned anew), and, which nobody can in practice, to those of the new users.
``tests/reference/temperature.csv`` is a copy of the table that this writes to build/temperature.csv.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from scipy import sparse
from scipy.special import softmax

from rec_transfer import maps, synthetic
from rec_transfer.evaluation.splits import cold_start
from rec_transfer.keys import named_keys
from rec_transfer.maps.ridge import fit_ridge
from rec_transfer.methods.transfer import Transfer, fit_transfer
from rec_transfer.models.train import posterior, train_vae
from rec_transfer.models.vae import VAEConfig
from rec_transfer.types import History, Interactions, Key, TrainingData

ROOT = Path(__file__).resolve().parent.parent
WORLD = synthetic.WorldConfig(
    domains=("films", "books"), items=120, latent=5, users_per_domain=1500, overlapping_users=200, test_users=1000
)
VAE = VAEConfig(latent=5, hidden=100, epochs=60, batch_size=100)
PEOPLE, FOLDS = 7, 4
COLUMNS = ["people", "dropout", "left_out_of_map", "left_out_of_all", "new_users"]


def fit_temperature(logits: np.ndarray, counts: np.ndarray) -> float:
    """Return the temperature of largest likelihood, by bisection on the slope in its inverse, which falls."""
    low, high = np.log(0.1), np.log(10.0)
    for _ in range(30):
        middle = (low + high) / 2
        predicted = counts.sum(axis=1, keepdims=True) * softmax(logits / np.exp(middle), axis=1)
        if ((counts - predicted) * logits).sum() > 0:
            high = middle
        else:
            low = middle
    return float(np.exp(middle))


def recommender(train: TrainingData, config: VAEConfig, *, key: Key) -> Transfer:
    """Return two VAEs with the ridge map between them."""
    sides = zip((train.source, train.target), jax.random.split(key), strict=True)
    models = [train_vae(side.counts, key=own, config=config).model for side, own in sides]
    return fit_transfer(train, maps.fit_ridge_map, *models, key=key)


def left_out_of_map(train: TrainingData, model: Transfer) -> tuple[np.ndarray, np.ndarray]:
    """Return logits of the overlapping users, each by a map fitted without the user, and their counts."""
    source, target = train.pairs
    means = posterior(model.source, source.counts).mean, posterior(model.target, target.counts).mean
    logits = model.target.decoder(jnp.asarray(fit_ridge(*means).left_out, jnp.float32))
    return np.asarray(logits, float), target.counts.toarray()


def emptied(side: Interactions, users: np.ndarray) -> Interactions:
    """Return the domain with these users' rows of zeros: they teach nothing, and no shape changes."""
    counts = sparse.csr_array(side.counts.multiply(~np.isin(side.users, users)[:, None]))
    counts.eliminate_zeros()
    return replace(side, counts=counts)


def left_out_of_all(train: TrainingData, config: VAEConfig, *, key: Key) -> tuple[np.ndarray, np.ndarray]:
    """Return logits of the overlapping users by VAEs and maps that never saw their rows, and their counts."""
    order = np.random.default_rng(7).permutation(train.overlapping_users)
    logits, counts = [], []
    for fold in np.array_split(order, FOLDS):
        sides = [emptied(side, fold) for side in (train.source, train.target)]
        models = [
            train_vae(side.counts, key=own, config=config).model
            for side, own in zip(sides, jax.random.split(key), strict=True)
        ]
        rest = TrainingData(*(side.without(fold) for side in sides))
        fitted = fit_transfer(rest, maps.fit_ridge_map, *models, key=key)
        logits.append(np.asarray(fitted(History(train.source.select(fold).counts)), float))
        counts.append(train.target.select(fold).counts.toarray())
    return np.concatenate(logits), np.concatenate(counts)


def main(number: int) -> None:
    """Fit the temperatures in every draw of people; print and write the table."""
    keys = named_keys(jax.random.key(11), "world", "users", "halves", "vaes")  # the notebook's
    world = synthetic.make_world(WORLD, key=keys["world"])
    key = jax.random.split(keys["vaes"], 5)[0]
    rows = []
    for people in range(number):
        start = time.perf_counter()
        drawn = jax.random.fold_in(keys["users"], people) if people else keys["users"]
        population = synthetic.sample_population(world, key=drawn)
        hidden = population.users[population.roles == "test"]
        platform = cold_start(population.interactions, test_users=hidden, key=keys["halves"])
        split, clicks = platform.direction("films", "books"), platform.test["books"].counts.toarray()
        for dropout in (VAE.dropout, 0.0):
            config = replace(VAE, dropout=dropout)
            model = recommender(split.train, config, key=key)
            predictions = (
                left_out_of_map(split.train, model),
                left_out_of_all(split.train, config, key=key),
                (np.asarray(model(split.history), float), clicks),
            )
            rows.append((people, dropout, *(fit_temperature(*each) for each in predictions)))
        print(f"people {people}: {time.perf_counter() - start:.0f} s", flush=True)
    table = pd.DataFrame(rows, columns=COLUMNS)
    (ROOT / "build").mkdir(exist_ok=True)
    table.round(4).to_csv(ROOT / "build" / "temperature.csv", index=False)
    print(table.round(3).to_string(index=False))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=PEOPLE, help="draws of people")
    main(parser.parse_args().people)
