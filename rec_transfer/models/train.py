"""Train, save and load the VAE of one domain; what it believes of users."""

import json
from dataclasses import asdict
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from scipy import sparse

from rec_transfer import training
from rec_transfer.keys import named_keys
from rec_transfer.models.vae import VAE, Objective, VAEConfig, negative_elbo
from rec_transfer.types import Counts, Gaussian, Key

DEFAULT = VAEConfig()
CELLS_AT_ONCE = 8_000_000  # users x items laid out dense at a time: 32 MB, and a few such arrays on the way


def train_vae(
    counts: sparse.csr_array,
    *,
    key: Key,
    config: VAEConfig = DEFAULT,
) -> training.Fitted:
    """Train the VAE of one domain on its counts [users, items]; the fitted model is ``.model``.

    Raises:
        ValueError: a negative count, or no user.
    """
    if counts.nnz and counts.data.min() < 0:
        raise ValueError(f"counts: got a negative entry ({counts.data.min()}), expected counts of events")
    keys = named_keys(key, "initialise", "train")
    return training.fit(
        VAE(counts.shape[1], config, key=keys["initialise"]),
        negative_elbo,
        dense(counts),
        key=keys["train"],
        context=Objective(config.beta, config.anneal_epochs),
        epochs=config.epochs,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
    )


@jax.jit
def _encode(model: VAE, counts: Counts) -> Gaussian:
    mean, log_variance = model.encoder(counts)
    return Gaussian(mean, jnp.exp(log_variance)[..., None] * jnp.eye(mean.shape[-1]))


def posterior(model: VAE, counts: sparse.csr_array) -> Gaussian:
    """What the encoder believes of each user, as a Gaussian with a (diagonal) covariance matrix.

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
    """Counts as the float32 array that the networks take."""
    return counts.toarray().astype(np.float32)


FORMAT = "rec_transfer.vae/1"


def save_vae(model: VAE, path: str | Path) -> None:
    """Write a VAE's parameters and configuration to ``path``."""
    from safetensors.numpy import save_file

    metadata = {"format": FORMAT, "items": str(model.items), "config": json.dumps(asdict(model.config))}
    save_file({name: np.asarray(leaf) for name, leaf in _named(model)}, path, metadata=metadata)


def load_vae(path: str | Path) -> VAE:
    """Read a VAE written by ``save_vae``: the same parameters, bit by bit.

    Raises:
        ValueError: the file is cut short, is no safetensors file, or holds something else than such a VAE.
        FileNotFoundError: there is no such file.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"path: got {str(path)!r}, expected a checkpoint file")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no iterator
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path.name}: cut short or no checkpoint ({error})") from error
    if metadata.get("format") != FORMAT:
        raise ValueError(f"{path.name}: got format {metadata.get('format')!r}, expected {FORMAT!r}")
    try:
        items, config = int(metadata["items"]), VAEConfig(**json.loads(metadata["config"]))
        # Shapes alone: sizes that do not belong to the arrays are found out before memory is taken for them.
        model = jax.eval_shape(lambda: VAE(items, config, key=jax.random.key(0)))
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise ValueError(f"{path.name}: its sizes cannot be read ({error})") from error
    expected = {name: (leaf.shape, leaf.dtype) for name, leaf in _named(model)}
    found = {name: (array.shape, array.dtype) for name, array in arrays.items()}
    if expected != found:
        differing = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        raise ValueError(f"{path.name}: arrays do not fit its configuration: {differing}")
    leaves = [jax.numpy.asarray(arrays[name]) for name, _ in _named(model)]
    return jax.tree.unflatten(jax.tree.structure(model), leaves)


def _named(model: VAE):
    """(name, array) of every parameter, e.g. ``encoder.hidden.kernel``, in the order of the pytree."""
    flat, _ = jax.tree_util.tree_flatten_with_path(model)
    names = [jax.tree_util.keystr(path, simple=True, separator=".").removesuffix(".value") for path, _ in flat]
    return list(zip(names, (leaf for _, leaf in flat), strict=True))
