"""Runs of many epochs: a bar, early stopping, and a checkpoint from which a killed run goes on with the same bits."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rec_transfer.training.loop import Fitted

FORMAT = "rec_transfer.run/1"


class Progress(NamedTuple):
    """All that a run knows after an epoch: what is trained (model first), the best so far, and the losses."""

    training: tuple
    best: Any
    best_epoch: np.ndarray
    best_loss: np.ndarray
    losses: np.ndarray | list  # [epochs so far, 2]: training, validation (nan without); a list while it runs


def run_epochs(
    one_epoch: Callable,
    training: tuple,
    *,
    epochs: int,
    validate: Callable | None = None,
    patience: int | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 1,
    identity: dict | None = None,
) -> Fitted:
    """Train epoch by epoch, from the checkpoint where there is one.

    Args:
        one_epoch: ``one_epoch(training, number) -> (training, loss)``, pure in both; it may use up what it is given,
            and answer before the device has computed (and must itself bound how far it runs ahead): nothing here waits
            for a loss before it is written or judged by.
        training: (model, optimiser's state), before the first epoch.
        epochs: how many at most.
        validate: ``validate(model, epoch) -> loss``; the model of the lowest is returned (epoch 0 is the start).
        patience: stop after so many epochs without a lower validation loss; None never stops early.
        checkpoint: file that holds the run so far, written whole or not at all; a finished run comes back from it. Of
            several processes the first writes it, and all read it: it lies in a folder that they share.
        checkpoint_every: epochs between writing it; the last is always written.
        identity: what makes this run this run (key, settings, digest of the data): a file of another is refused.

    Raises:
        ValueError: patience without validation, or a checkpoint of another run or cut short.
    """
    if patience is not None and (validate is None or patience < 1):
        raise ValueError(f"patience: got {patience}, expected at least 1 and users held out to judge by")
    if checkpoint_every < 1:
        raise ValueError(f"checkpoint_every: got {checkpoint_every}, expected at least 1")
    from tqdm.auto import tqdm

    path, identity = None if checkpoint is None else Path(checkpoint), json.loads(json.dumps(identity or {}))
    state = Progress(training, _copy(training[0]), np.asarray(0), np.asarray(np.inf), np.zeros((0, 2)))
    if path is not None and path.exists():
        state = load_run(path, state, identity)
    elif validate is not None:
        state = state._replace(best_loss=np.asarray(validate(training[0], 0)))
    # disable=None: a bar on a terminal, nothing in a log file
    first = jax.process_index() == 0  # of several processes one speaks and writes; each has read the file by then
    with tqdm(total=epochs, initial=len(state.losses), unit="epoch", disable=None if first else True) as bar:
        while not _finished(state, epochs, patience):
            state = _after_epoch(state, one_epoch, validate)
            bar.update()
            if path is not None and (len(state.losses) % checkpoint_every == 0 or _finished(state, epochs, patience)):
                # All processes wait for what is written, so that none runs ahead of the file.
                written = state._replace(losses=np.asarray(state.losses, float))
                if first:
                    save_run(path, written, identity)
    if validate is None:
        state = state._replace(best=state.training[0], best_epoch=np.asarray(len(state.losses)))
    losses = np.asarray(state.losses, np.float32).reshape(-1, 2)
    return Fitted(state.best, *jnp.asarray(losses.T), jnp.asarray(state.best_epoch))


def _after_epoch(state, one_epoch, validate):
    number = len(state.losses)
    training, loss = one_epoch(state.training, number)
    value = np.nan if validate is None else validate(training[0], number + 1)
    state = state._replace(training=training, losses=[*state.losses, (loss, value)])
    if value < state.best_loss:  # never without validation: nan
        state = state._replace(
            best=_copy(training[0]), best_loss=np.asarray(value, float), best_epoch=np.asarray(number + 1)
        )
    return state


def _finished(state, epochs, patience):
    done = len(state.losses)
    return done >= epochs or (patience is not None and done - state.best_epoch >= patience)


def _copy(model):
    return jax.tree.map(jnp.copy, model)  # the next epoch uses up the original


def save_run(path: Path, state: Progress, identity: dict) -> None:
    """Write a run so far: under another name first, so that a kill leaves the file before or the one after."""
    from safetensors.numpy import save

    arrays = {name: np.asarray(leaf) for name, leaf in _named(state)}  # of many devices, each holds the whole
    unfinished = path.with_name(path.name + ".unfinished")
    with open(unfinished, "wb") as file:
        file.write(save(arrays, metadata={"format": FORMAT, "identity": json.dumps(identity)}))
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, path)


def load_run(path: Path, like: Progress, identity: dict) -> Progress:
    """Read what ``save_run`` wrote, into the form of ``like``.

    Raises:
        ValueError: the file is cut short, is no such file, or belongs to a run of another identity.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no iterator
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path.name}: cut short or no checkpoint ({error})") from error
    if metadata.get("format") != FORMAT:
        raise ValueError(f"{path.name}: got format {metadata.get('format')!r}, expected {FORMAT!r}")
    saved = json.loads(metadata["identity"])
    differing = sorted(name for name in saved.keys() | identity.keys() if saved.get(name) != identity.get(name))
    if differing:
        raise ValueError(f"{path.name}: checkpoint of another run, which differs in {differing}: name another file")
    names = [name for name, _ in _named(like)]
    shapes = {name: np.shape(leaf) for name, leaf in _named(like) if name != ".losses"}
    if set(names) != arrays.keys() or any(arrays[name].shape != shape for name, shape in shapes.items()):
        raise ValueError(f"{path.name}: its arrays do not fit this model")
    leaves = [
        arrays[name] if isinstance(leaf, np.ndarray) else jax.device_put(arrays[name], leaf.sharding)
        for name, leaf in _named(like)
    ]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _named(state):
    flat, _ = jax.tree_util.tree_flatten_with_path(state)
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in flat]


def digest(*arrays) -> str:
    """A fingerprint of arrays (their types, shapes and bytes), to know data again by."""
    found = hashlib.sha256()
    for array in map(np.asarray, arrays):
        found.update(f"{array.dtype}{array.shape}".encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()
