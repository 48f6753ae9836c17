"""Save and load a trained VAE as one safetensors file: arrays and sizes, nothing that could run."""

import json
from dataclasses import asdict
from pathlib import Path

import jax
import numpy as np

from rec_transfer.vae import VAE, VAEConfig

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
