"""This package's trainer on compressed rows (variants ``float32`` and ``bfloat16``), and its ranking by counting."""

import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import worker
from clicks import HIDDEN, LATENT, first_weights, mean_ndcg
from flax import nnx

from rec_transfer.methods import sparse_ranking
from rec_transfer.models import sparse_training
from rec_transfer.models.vae import VAE, VAEConfig

CONFIG = {
    "latent": LATENT, "hidden": HIDDEN, "dropout": 0.5, "anneal_epochs": 20, "batch_size": 500, "learning_rate": 1e-3,
}  # fmt: skip


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
        self.config = VAEConfig(epochs=epochs, **CONFIG)
        self.epochs = sparse_training.Epochs(clicks.train, self.config, variant)
        model = vae(clicks.train.shape[1], self.config)
        self.training = model, jax.jit(self.epochs.optimizer().init)(model)
        self.key, self.done = jax.random.key(1), 0

    def epoch(self):
        self.training, loss = self.epochs(self.training, self.done, key=self.key)
        self.done += 1
        return loss  # computed while the next epoch is laid out

    def loss(self):
        return sparse_training.mean_loss(
            self.training[0], counts=self.clicks.train, config=self.config, precision=self.precision, epoch=self.done
        )

    def rank(self):
        """NDCG@100 of the held-out clicks from their ranks."""
        seen, held_out = self.clicks
        ranks = sparse_ranking.rank_held_out(
            self.training[0], seen, held_out, key=jax.random.key(2), precision=self.precision
        )
        number = np.diff(held_out.indptr)
        return mean_ndcg(ranks, np.repeat(np.arange(len(number)), number), number)

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


if __name__ == "__main__":
    worker.main(Trainer)
