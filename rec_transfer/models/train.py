"""Train, save and load the VAE of one domain; its posteriors of users."""

import json
import warnings
from dataclasses import asdict
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from scipy import sparse

from rec_transfer import training
from rec_transfer.keys import named_keys
from rec_transfer.models.compressed import LOSSES, PRECISIONS, Precision
from rec_transfer.models.vae import VAE, Objective, VAEConfig, negative_elbo
from rec_transfer.types import Counts, Gaussian, Key

DEFAULT = VAEConfig()
DENSE_CELLS = 2_000_000  # users x items up to which a domain is trained on as a dense matrix: 8 MB
CELLS_AT_ONCE = 8_000_000  # users x items laid out dense at a time: 32 MB, and a few such arrays on the way
FORMAT = "rec_transfer.vae/1"


def train_vae(
    counts: sparse.csr_array,
    *,
    key: Key,
    config: VAEConfig = DEFAULT,
    compressed: bool | None = None,
    precision: Precision = "float32",
    validation: sparse.csr_array | None = None,
    model: VAE | None = None,
    patience: int | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 1,
    mesh: Mesh | None = None,
    progress: bool = False,
) -> training.Fitted:
    r"""Return the VAE of one domain trained on its counts [users, items]; the fitted model is ``.model``.

    Adam with a cosine decay of the step size to zero on batches of shuffled users.

    Args:
        counts: whole numbers of events.
        compressed: whether batches stay compressed rows all the way (True) or are rows of one dense matrix in memory
            (False). Both learn equally well, but draw other random numbers, so that equal keys give other parameters.
            None is compressed where counts have more than ``DENSE_CELLS`` cells or precision is "bfloat16".
        precision: of the products with dense activations, where compressed. In "bfloat16" their factors are rounded to
            8 bits; sums, parameters and Adam's moments stay float32. Fast where the processor multiplies bfloat16.
        validation: users held out, in the form of ``counts``: the parameters of the epoch with the lowest loss on
            them are returned (epoch 0 is the start).
        model: where to start from instead of a fresh model; it is left untouched.
        patience, checkpoint, checkpoint_every, progress: see ``training.fit``.
        mesh: devices that share the users of every batch (``training.all_devices()``), of this process or of several
            that all call this with equal arguments (``training.connect``). Compressed, a process lays out the rows of
            its own devices alone, so that ``counts`` may lie in a memory-mapped file.

    Raises:
        ValueError: a negative count, no user, another number of items, an unknown precision or one that dense batches
            do not have, or batches that do not divide by the devices.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision: got {precision!r}, expected one of {PRECISIONS}")
    if compressed is False and precision != "float32":
        raise ValueError(f"precision: got {precision!r} for dense batches, expected 'float32'")
    if config.epochs < 1 or config.batch_size < 1:
        raise ValueError(f"epochs and batch_size: got {config.epochs} and {config.batch_size}, expected at least 1")
    parts = {"counts": _checked("counts", counts, counts.shape[1])}
    if validation is not None:
        parts["validation"] = _checked("validation", validation, counts.shape[1])
    if model is not None and model.items != counts.shape[1]:
        raise ValueError(f"model: got one of {model.items} items, expected the counts' {counts.shape[1]}")
    if precision == "bfloat16" and not training.native_bfloat16():
        warnings.warn(
            "precision: this processor has neither avx512_bf16 nor amx_bf16; products in bfloat16 are emulated, with "
            'the same rounding but slower than "float32"',
            stacklevel=2,
        )
    if compressed is None:
        compressed = precision != "float32" or counts.shape[0] * counts.shape[1] > DENSE_CELLS
    if compressed:
        of = partial(training.compressed_rows, batch_size=config.batch_size)
        settings = {"data": of(parts["counts"], dropout=config.dropout, noise=config.latent, mesh=mesh, name="counts")}
        if validation is not None:
            settings["validation"] = of(parts["validation"], name="validation")
    else:
        settings = {"data": dense(parts["counts"]), "batch_size": config.batch_size, "mesh": mesh}
        if validation is not None:
            settings["validation"] = dense(parts["validation"])
    keys = named_keys(key, "initialise", "train")
    return training.fit(
        _fresh(counts.shape[1], config, key=keys["initialise"]) if model is None else model,
        LOSSES[precision] if compressed else negative_elbo,
        key=keys["train"],
        context=Objective(config.beta, config.anneal_epochs),
        epochs=config.epochs,
        learning_rate=config.learning_rate,
        patience=patience,
        checkpoint=checkpoint,
        checkpoint_every=checkpoint_every,
        identity={"precision": precision, **asdict(config)},
        progress=progress,
        **settings,
    )


@partial(jax.jit, static_argnames=("items", "config"))  # one program: layer by layer, some fifty are compiled
def _fresh(items, config, *, key):
    return VAE(items, config, key=key)


def _checked(name, counts, items):
    if counts.shape[0] == 0 or counts.shape[1] != items:
        raise ValueError(f"{name}: got shape {counts.shape}, expected at least 1 user and {items} items")
    if counts.nnz and counts.data.min() < 0:
        raise ValueError(f"{name}: got a negative entry ({counts.data.min()}), expected counts of events")
    if not counts.has_canonical_format:
        counts = counts.copy()
        counts.sum_duplicates()
    return counts


@jax.jit
def _encode(model: VAE, counts: Counts) -> Gaussian:
    mean, log_variance = model.encoder(counts)
    return Gaussian(mean, jnp.exp(log_variance)[..., None] * jnp.eye(mean.shape[-1]))


def posterior(model: VAE, counts: sparse.csr_array) -> Gaussian:
    """Return the encoder's posterior of each user, as a Gaussian with a (diagonal) covariance matrix.

    Counts beyond ``CELLS_AT_ONCE`` cells are laid out dense in chunks of users.

    Raises:
        ValueError: the counts have another number of items than the model.
    """
    if counts.shape[1] != model.items:
        raise ValueError(f"counts: got {counts.shape[1]} items, expected the model's {model.items}")
    users = max(1, CELLS_AT_ONCE // model.items)
    if counts.shape[0] <= users:
        return _encode(model, dense(counts))
    chunks = [_encode(model, dense(counts[first : first + users])) for first in range(0, counts.shape[0], users)]
    return Gaussian(*map(jnp.concatenate, zip(*chunks, strict=True)))


def dense(counts: sparse.csr_array) -> np.ndarray:
    """Return counts as the dense float32 array that the networks take."""
    return counts.toarray().astype(np.float32)


def save_vae(model: VAE, path: str | Path) -> None:
    """Write a VAE's parameters and configuration to ``path``."""
    training.write_arrays(
        path, model, format=FORMAT, items=str(model.items), config=json.dumps(asdict(model.config))
    )  # fmt: skip


def load_vae(path: str | Path) -> VAE:
    """Return the VAE written by ``save_vae``: the same parameters, bit by bit.

    Raises:
        ValueError: the file is cut short, is no safetensors file, or holds something else than such a VAE.
        FileNotFoundError: there is no such file.
    """
    name = Path(path).name
    arrays, metadata = training.read_arrays(path, format=FORMAT)
    try:
        items, config = int(metadata["items"]), VAEConfig(**json.loads(metadata["config"]))
        # Shapes alone: sizes that do not belong to the arrays are found out before memory is taken for them.
        model = jax.eval_shape(lambda: VAE(items, config, key=jax.random.key(0)))
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise ValueError(f"{name}: its sizes cannot be read ({error})") from error
    if differing := training.differing_arrays(model, arrays):
        raise ValueError(f"{name}: arrays do not fit its configuration: {differing}")
    return training.restored(model, arrays)
