"""A killed run goes on with the same bits, a checkpoint of another run is refused, and patience ends a run."""

import subprocess
import sys
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import sparse

from rec_transfer.models.sparse_training import train_vae_sparse
from rec_transfer.models.vae import VAEConfig
from rec_transfer.training import long_runs
from rec_transfer.training.long_runs import run_epochs

CONFIG = VAEConfig(latent=2, hidden=8, dropout=0.3, epochs=7, batch_size=16)
COUNTS = sparse.csr_array(np.random.default_rng(0).poisson(0.7, (60, 20)))
HELD_OUT = sparse.csr_array(np.random.default_rng(1).poisson(0.7, (20, 20)))

# Stands still while it writes the checkpoint of the fourth epoch: the file is whole or old, never half.
CHILD = """
import os, sys, time
import numpy as np
import jax
from scipy import sparse
from rec_transfer.models.sparse_training import train_vae_sparse
from rec_transfer.models.vae import VAEConfig

replace, calls = os.replace, []

def stands_still(*paths):
    if str(paths[1]) == sys.argv[1]:
        calls.append(paths)
    if len(calls) == 4:
        print("writing", flush=True)
        time.sleep(600)
    replace(*paths)

os.replace = stands_still
counts, held_out = (
    sparse.csr_array(np.random.default_rng(seed).poisson(0.7, (users, 20))) for seed, users in ((0, 60), (1, 20))
)
config = VAEConfig(latent=2, hidden=8, dropout=0.3, epochs=7, batch_size=16)
train_vae_sparse(counts, key=jax.random.key(5), config=config, validation=held_out, checkpoint=sys.argv[1])
"""


def train(key=5, counts=COUNTS, config=CONFIG, **settings):
    return train_vae_sparse(counts, key=jax.random.key(key), config=config, validation=HELD_OUT, **settings)


def assert_same_bits(left, right):
    for one, other in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_run_killed_while_it_writes_goes_on_with_the_same_bits(tmp_path, monkeypatch):
    path = tmp_path / "run.safetensors"
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout.readline() == "writing\n"
    finally:
        child.kill()  # SIGKILL: no chance to tidy up
        child.wait()
    assert path.with_name("run.safetensors.unfinished").exists()
    begun, epoch = [], long_runs._after_epoch
    monkeypatch.setattr(long_runs, "_after_epoch", lambda s, *rest: begun.append(len(s.losses)) or epoch(s, *rest))
    resumed = train(checkpoint=path)
    assert begun == [3, 4, 5, 6]
    assert_same_bits(resumed, train())
    del begun[:]
    assert_same_bits(train(checkpoint=path), resumed)  # a finished run comes back as it was
    assert begun == []


@pytest.mark.parametrize(
    ("change", "differing"),
    [
        ({"key": 6}, r"\['key', 'model'\]"),
        ({"counts": 2 * COUNTS}, r"\['counts'\]"),
        ({"config": replace(CONFIG, epochs=8)}, r"\['epochs'\]"),
        ({"config": replace(CONFIG, dropout=0.2)}, r"\['dropout'\]"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(tmp_path, change, differing):
    path = tmp_path / "run.safetensors"
    train(config=replace(CONFIG, epochs=7), checkpoint=path, patience=1)
    with pytest.raises(ValueError, match=f"run.safetensors: checkpoint of another run, which differs in {differing}"):
        train(checkpoint=path, **change)


def test_a_checkpoint_cut_short_is_refused(tmp_path):
    path = tmp_path / "run.safetensors"
    train(checkpoint=path, patience=1)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"run\.safetensors: cut short or no checkpoint"):
        train(checkpoint=path)


# --- the loop alone, with an epoch that adds one to a number


def add_one(training, number):
    return (training[0] + 1.0,), float(number)


def run(**settings):
    return run_epochs(add_one, (jnp.float32(0.0),), **settings)


def test_without_validation_the_last_epoch_is_returned():
    fitted = run(epochs=5)
    assert (fitted.model, fitted.epoch) == (5.0, 5)
    assert fitted.training_loss.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert np.isnan(fitted.validation_loss).all()


@pytest.mark.parametrize(("patience", "epochs"), [(None, 20), (3, 7), (1, 5)])
def test_patience_counts_from_the_best_epoch(patience, epochs):
    fitted = run(epochs=20, validate=lambda model, epoch: abs(float(model) - 4.0), patience=patience)
    assert (fitted.model, fitted.epoch, len(fitted.training_loss)) == (4.0, 4, epochs)


def test_the_model_as_handed_in_is_returned_when_training_only_hurts():
    fitted = run(epochs=9, validate=lambda model, epoch: float(epoch), patience=2)
    assert (fitted.model, fitted.epoch, len(fitted.training_loss)) == (0.0, 0, 2)


def test_checkpoints_are_written_as_often_as_asked_and_at_the_end(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(long_runs, "save_run", lambda path, state, identity: written.append(len(state.losses)))
    run(epochs=8, checkpoint=tmp_path / "run", checkpoint_every=3)
    assert written == [3, 6, 8]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"patience": 2}, "patience: got 2, expected at least 1 and users held out"),
        ({"patience": 0, "validate": lambda model, epoch: 0.0}, "patience: got 0"),
        ({"checkpoint_every": 0}, "checkpoint_every: got 0, expected at least 1"),
    ],
)
def test_settings_without_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        run(epochs=3, **settings)
