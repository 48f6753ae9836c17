"""This package's trainer on compressed rows (variants ``float32`` and ``bfloat16``), and the ranking of its judge."""

import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from harness.clicks import NETWORK, first_weights, mean_ndcg

from rec_transfer import training
from rec_transfer.models import LOSSES, VAE, Objective, VAEConfig, scores

SCORED_AT_ONCE = 1_000_000  # users x items scored at a time: 4 MB, which stay in the processor's cache
RANKED_AT_ONCE = 32_000_000  # users x items handed to the ranking at a time: 128 MB, as evaluation does


def vae(items: int, config: VAEConfig) -> VAE:
    """The network with the weights that every implementation starts from; nothing is drawn that would be replaced."""
    empty = jax.eval_shape(partial(VAE, items, config), key=jax.random.key(0))
    weights = jax.device_put(first_weights(items))  # jnp.asarray would compile a program for every shape
    layers = {
        "hidden": empty.encoder.hidden,
        "mean": empty.encoder.mean,
        "log_variance": empty.encoder.log_variance,
        "decoder": empty.decoder.hidden,
        "logits": empty.decoder.logits,
    }
    for name, layer in layers.items():
        layer.kernel, layer.bias = nnx.Param(weights[name]), nnx.Param(weights[f"{name}_bias"])
    return empty


class Trainer:
    def __init__(self, clicks, variant, epochs):
        self.clicks, self.precision = clicks, variant
        self.config = VAEConfig(epochs=epochs, anneal_epochs=20, learning_rate=1e-3, **NETWORK)
        self.batches = training.compressed_rows(
            clicks.train, self.config.batch_size, dropout=self.config.dropout, noise=self.config.latent
        )
        self.objective = Objective(self.config.beta, self.config.anneal_epochs)
        self.state = training.initial_state(vae(clicks.train.shape[1], self.config))
        self.key, self.done = jax.random.key(1), 0

    def epoch(self):
        self.state, loss = training.epoch(
            self.state, LOSSES[self.precision], self.batches, key=self.key, number=self.done,
            epochs=self.config.epochs, learning_rate=self.config.learning_rate, context=self.objective,
        )  # fmt: skip
        self.done += 1
        return loss  # computed while the next epoch is laid out

    def loss(self):
        return training.mean_loss(
            self.state.model, LOSSES[self.precision], self.batches, context=self.objective, epoch=float(self.done)
        )

    def rank(self):
        """NDCG@100 of the held-out clicks, by the path that evaluation takes: scores in chunks, then their ranks."""
        from rec_transfer.evaluation.ranking import ranks

        seen, held_out = self.clicks
        users, items = seen.shape
        at_once, key, found = max(1, RANKED_AT_ONCE // items), jax.random.key(2), []
        for first in range(0, users, at_once):
            rows = slice(first, first + at_once)
            ranked = ranks(self.scores(seen[rows]), held_out[rows], known=seen[rows], key=key, first=first)
            found.append(ranked.rank)
        number = np.diff(held_out.indptr)
        return mean_ndcg(np.concatenate(found), np.repeat(np.arange(users), number), number)

    def scores(self, seen):
        """Logits of all items for these users, as one array."""
        (users, items), waiting = seen.shape, []
        size = max(1, min(SCORED_AT_ONCE // items, users))
        rows = np.resize(np.arange(users), (-(-users // size), size))  # the last is filled up with users again
        room = max(int(np.diff(seen.indptr)[rows].sum(axis=1).max()), 1)
        found = np.empty((rows.size, items), np.float32)
        for number, chosen in enumerate(rows):
            batch = jax.tree.map(lambda array: array[0], training.compress(seen, chosen[None], room))
            waiting.append(scores(self.state.model, batch, precision=self.precision))
            if number:  # copied while the next are computed
                found[(number - 1) * size : number * size] = waiting.pop(0)
        found[-size:] = waiting.pop()
        return found[:users]

    def product(self, precision, side):
        left, right = (jax.random.normal(jax.random.key(seed), (side, side), precision) for seed in (0, 1))
        times = []
        for _ in range(2):
            start = time.perf_counter()
            _product(left, right).block_until_ready()
            times.append(time.perf_counter() - start)
        return min(times)


@jax.jit
def _product(left, right):
    return jnp.matmul(left, right, preferred_element_type=jnp.float32)
