"""An epoch on a GPU against its roofline: products at the measured peak, Adam at the measured bandwidth.

    .venv/bin/python benchmarks/gpu.py [--users 20000] [--items 2000] [--any-backend]

Without a GPU it says so and measures nothing, unless ``--any-backend`` asks for the processor's own figures.

The first layer is ``BCSR @ W``. On a CPU that is a native kernel. On a GPU, JAX makes it of a gather of the table's
rows and a scattered sum, or hands it to cuSPARSE where ``jax_bcoo_cusparse_lowering`` is set: both are timed here.
"""

import argparse
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from harness.clicks import NETWORK, TRAINED, popular_clicks

from rec_transfer import training
from rec_transfer.models import LOSSES, VAE, Objective, VAEConfig, compressed


def quickest(run, repeats: int = 5) -> float:
    """Seconds of the quickest of some calls, after one that compiles."""
    jax.block_until_ready(run())
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(run())
        times.append(time.perf_counter() - start)
    return min(times)


def peak_rate(precision: str, side: int) -> float:
    """Operations a second of a square product, summed in float32."""
    left, right = (jax.random.normal(jax.random.key(seed), (side, side)).astype(precision) for seed in (0, 1))
    product = jax.jit(lambda left, right: jnp.matmul(left, right, preferred_element_type=jnp.float32))
    return 2 * side**3 / quickest(lambda: product(left, right))


def bandwidth(length: int) -> float:
    """Bytes a second of adding one long vector to another in place: two are read, one written."""
    vector, total, add = jnp.ones(length), [jnp.zeros(length)], jax.jit(jnp.add, donate_argnums=0)

    def run():
        total[0] = add(total[0], vector)
        return total[0]

    return 12 * length / quickest(run)


def first_layer(clicks, hidden: int, batch_size: int, cusparse: bool) -> float:
    """Seconds of the first layer's product, forward, of one batch."""
    jax.config.update("jax_bcoo_cusparse_lowering", cusparse)
    rows = np.arange(batch_size)[None]
    layout = training.compress(clicks, rows, int(np.diff(clicks.indptr)[rows].sum()))
    batch = jax.tree.map(lambda array: jnp.asarray(array[0]), layout)
    table = jnp.ones((clicks.shape[1], hidden))
    product = jax.jit(lambda batch, table: compressed.sparse_product(batch.counts, batch, table))
    seconds = quickest(lambda: product(batch, table))
    jax.config.update("jax_bcoo_cusparse_lowering", False)
    return seconds


def epoch_seconds(clicks, config: VAEConfig, precision: str) -> float:
    """Seconds of an epoch, the layout of its rows on the host included; the quicker of two, after one that compiles."""
    batches = training.compressed_rows(clicks, config.batch_size, dropout=config.dropout, noise=config.latent)
    state, times = training.initial_state(VAE(clicks.shape[1], config, key=jax.random.key(0))), []
    for number in range(3):
        start = time.perf_counter()
        state, loss = training.epoch(
            state, LOSSES[precision], batches, key=jax.random.key(1), number=number, epochs=config.epochs,
            learning_rate=config.learning_rate, context=Objective(config.beta, config.anneal_epochs),
        )  # fmt: skip
        loss.block_until_ready()
        times.append(time.perf_counter() - start)
    return min(times[1:])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--items", type=int, default=2_000)
    parser.add_argument("--any-backend", action="store_true", help="measure whatever device JAX finds")
    parser.add_argument("--side", type=int, default=4_096, help="of the square product that gives the peak")
    arguments = parser.parse_args()
    backend = jax.default_backend()
    if backend != "gpu" and not arguments.any_backend:
        print(f"no GPU here (JAX runs on {backend}): nothing was measured. See README.md for JAX's wheels for a GPU")
        return 0
    config = VAEConfig(**NETWORK, epochs=3)
    clicks = popular_clicks(arguments.users, arguments.items)
    steps = -(-arguments.users // config.batch_size)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(VAE(arguments.items, config, key=jax.random.key(0))))
    work = arguments.users * config.hidden * (4 * TRAINED + 18 * config.latent + 6 * arguments.items)
    moved = bandwidth(64_000_000)
    print(f"{jax.devices()[0].device_kind}; {arguments.users:,} users x {arguments.items:,} items")
    for cusparse in (False, True) if backend == "gpu" else (False,):
        seconds = first_layer(clicks, config.hidden, config.batch_size, cusparse)
        how = ("cuSPARSE" if cusparse else "gather and scattered sum") if backend == "gpu" else "native kernel"
        print(f"first layer of a batch, {how}: {1e6 * seconds:.0f} us")
    for precision in compressed.PRECISIONS:
        peak = peak_rate(precision, arguments.side)
        roof = work / peak + steps * 28 * parameters / moved
        seconds = epoch_seconds(clicks, config, precision)
        print(
            f"{precision}: peak {peak / 1e9:,.0f} x 10^9 operations and {moved / 1e9:,.0f} x 10^9 bytes a second; "
            f"an epoch {seconds:.3f} s, its roofline {roof:.3f} s, {100 * roof / seconds:.0f} % of it reached"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
