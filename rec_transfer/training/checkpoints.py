"""Files of arrays: any pytree written to one safetensors file, whole or not at all, and read back bit by bit."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np

RUN_FORMAT = "rec_transfer.run/2"


def named_leaves(tree: Any) -> dict[str, Any]:
    """Return the leaves of a pytree by name, e.g. ``encoder.hidden.kernel``, in the order of the tree."""
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator=".").removesuffix(".value"): leaf for path, leaf in flat}


def write_arrays(path: str | Path, tree: Any, **metadata: str) -> None:
    """Write the arrays of a pytree and some texts to a file.

    It is written under another name first, so that a kill leaves the file as it was before or as it is after.
    """
    from safetensors.numpy import save

    path = Path(path)
    # of many devices, each holds the whole
    content = save({name: np.asarray(leaf) for name, leaf in named_leaves(tree).items()}, metadata=metadata)
    unfinished = path.with_name(path.name + ".unfinished")
    with open(unfinished, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, path)


def read_arrays(path: str | Path, *, format: str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return the arrays, by name, and the texts that ``write_arrays`` wrote.

    Args:
        path: the file.
        format: what its text ``format`` must say: which kind of file it is, in which version.

    Raises:
        ValueError: the file is cut short, is no safetensors file, or is of another format.
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
    if metadata.get("format") != format:
        raise ValueError(f"{path.name}: got format {metadata.get('format')!r}, expected {format!r}")
    return arrays, metadata


def differing_arrays(like: Any, arrays: dict[str, np.ndarray]) -> list[str]:
    """Return the names of arrays that are missing, left over, or of another shape or type than in the pytree."""
    expected = {name: (leaf.shape, leaf.dtype) for name, leaf in named_leaves(like).items()}
    found = {name: (array.shape, array.dtype) for name, array in arrays.items()}
    return sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))


def restored(like: Any, arrays: dict[str, np.ndarray]) -> Any:
    """Return the pytree with its leaves replaced by arrays of the same names, on the devices of the leaves."""

    def leaf_of(name, leaf):
        if isinstance(leaf, np.ndarray):
            return arrays[name]
        return jax.device_put(arrays[name], getattr(leaf, "sharding", None))

    leaves = [leaf_of(name, leaf) for name, leaf in named_leaves(like).items()]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def digest(*arrays: Any) -> str:
    """Return a fingerprint of arrays (their types, shapes and bytes), by which to recognise data."""
    found = hashlib.sha256()
    for array in map(np.asarray, arrays):
        found.update(f"{array.dtype}{array.shape}".encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def write_run(path: Path, run: Any, identity: dict) -> None:
    """Write a run so far, a pytree of arrays, and what makes it this run."""
    write_arrays(path, run, format=RUN_FORMAT, identity=json.dumps(identity))


def read_run(path: Path, like: Any, identity: dict) -> Any:
    """Return what ``write_run`` wrote, in the form of ``like``, whose ``losses`` may be fewer.

    Raises:
        ValueError: the file is cut short, is no such file, belongs to a run of another identity, or holds other arrays.
    """
    arrays, metadata = read_arrays(path, format=RUN_FORMAT)
    saved, told = json.loads(metadata["identity"]), json.loads(json.dumps(identity))
    differing = sorted(name for name in saved.keys() | told.keys() if saved.get(name) != told.get(name))
    if differing:
        raise ValueError(f"{path.name}: checkpoint of another run, which differs in {differing}: name another file")
    like = like._replace(losses=np.zeros((len(arrays.get("losses", ())), 2)))
    if misfits := differing_arrays(like, arrays):
        raise ValueError(f"{path.name}: arrays do not fit this model: {misfits}")
    return restored(like, arrays)
