"""Training shared by devices is training on one: the same losses and parameters, whatever the number of devices."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import sparse

from rec_transfer import models, training
from rec_transfer.models import compressed, sparse_training
from rec_transfer.models.sparse_training import train_vae_sparse
from rec_transfer.models.vae import VAE, Objective, VAEConfig, negative_elbo
from rec_transfer.training import devices, loop

KEY = jax.random.key(3)
CONFIG = VAEConfig(latent=2, hidden=8, dropout=0.3, anneal_epochs=1, epochs=3, batch_size=24, learning_rate=1e-2)
COUNTS = sparse.csr_array(np.random.default_rng(0).poisson(0.7, (100, 20)))  # the last batch is filled up

EIGHT = """
import sys
sys.path.insert(0, sys.argv[1])
import jax, json
from test_devices import both, compiled
from rec_transfer.training import devices
mesh = devices.all_devices()
assert mesh.size == 8
assert "f32[3,5]" in compiled(devices.share_of_users(mesh))  # 3 users of 24, and not the whole batch
print(json.dumps(both(mesh)))
"""


def squares(model, batch, context, *, key, epoch):
    return jnp.sum((batch - model) ** 2, axis=-1)


def compiled(sharding):
    """The program of the dense trainer for batches of 24 users with 5 numbers each."""
    numbers = jnp.zeros(5), jnp.ones((72, 5)), None, None, KEY, 0.1, 0.0
    if sharding is not None:
        numbers = devices.on_each(sharding.mesh, numbers)
    how = {"loss": squares, "epochs": 2, "batch_size": 24, "sharding": sharding}
    return loop._fit.lower(*numbers, **how).compile().as_text()


def both(mesh):
    """Losses and parameters of both trainers, as numbers."""
    held_out = COUNTS[:10]
    compressed = train_vae_sparse(COUNTS, key=KEY, config=CONFIG, validation=held_out, mesh=mesh)
    dense = training.fit(
        VAE(20, CONFIG, key=KEY), negative_elbo, models.dense(COUNTS), key=KEY, context=Objective(1.0, 1.0),
        epochs=3, batch_size=24, learning_rate=1e-2, validation=models.dense(held_out),
        sharding=mesh and devices.share_of_users(mesh),
    )  # fmt: skip
    return [[np.asarray(leaf).tolist() for leaf in jax.tree.leaves(fitted)] for fitted in (compressed, dense)]


@pytest.fixture(scope="module")
def on_one():
    return both(None)


def assert_close(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_eight_devices_train_as_one_does(on_one):
    run = subprocess.run(
        [sys.executable, "-c", EIGHT, os.path.dirname(__file__)], stdout=subprocess.PIPE, check=True, timeout=120,
        env=os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"},
    )  # fmt: skip
    for found, expected in zip(json.loads(run.stdout), on_one, strict=True):
        assert_close(found, expected)
        assert np.ptp(expected[-3]) > 0.1  # the losses: it learned something


def test_the_look_into_the_program_would_see_a_whole_batch():
    assert "f32[24,5]" in compiled(None)
    assert "f32[3,5]" not in compiled(None)


def test_a_mesh_of_one_device_changes_nothing(on_one):
    for found, expected in zip(both(devices.all_devices(1)), on_one, strict=True):
        assert_close(found, expected)


@pytest.mark.usefixtures("unchecked")
def test_a_process_lays_out_its_own_shares_alone_and_draws_what_one_device_would(monkeypatch):
    given, lay_out = [], compressed.lay_out
    monkeypatch.setattr(compressed, "lay_out", lambda *what: given.append(what) or lay_out(*what))
    monkeypatch.setattr(devices, "own_shares", lambda mesh: [1])
    monkeypatch.setattr(devices, "dealt_out", lambda mesh, tree: tree)
    epochs = sparse_training.Epochs(COUNTS, CONFIG, "float32", devices.all_devices(1))
    epochs.shares, epochs.entries = 2, 2 * epochs.entries
    rows = np.arange(96).reshape(2, 2, 24)
    used = np.diff(COUNTS.indptr)[rows].sum(axis=-1)
    seen = np.arange(used.sum())
    uniform = np.arange(96.0).reshape(2, 2, 24, 1)
    batches, noise = epochs._lay_out(rows, used, seen % 3 > 0, uniform)
    np.testing.assert_array_equal(given[0][1], rows[:, 1])
    ends = np.cumsum(used)
    hers = np.concatenate([seen[ends[0] : ends[1]], seen[ends[2] : ends[3]]])
    np.testing.assert_array_equal(given[0][3], hers % 3 > 0)
    assert batches.row_starts.shape == (2, 1, 25)
    np.testing.assert_array_equal(noise, uniform[:, 1:])


def test_counts_may_lie_in_a_file(tmp_path, on_one):
    parts = []
    for name in ("data", "indices", "indptr"):
        np.save(tmp_path / name, getattr(COUNTS, name))
        parts.append(np.load(tmp_path / f"{name}.npy", mmap_mode="r"))
    mapped = sparse.csr_array(tuple(parts), COUNTS.shape)
    fitted = train_vae_sparse(mapped, key=KEY, config=CONFIG, validation=COUNTS[:10])
    assert [np.asarray(leaf).tolist() for leaf in jax.tree.leaves(fitted)] == on_one[0]


@pytest.mark.usefixtures("unchecked")
def test_batches_that_do_not_come_out_even_are_refused():
    class Two:
        size = num_devices = 2

    config = replace(CONFIG, batch_size=25)
    with pytest.raises(ValueError, match=r"config\.batch_size: got batches of 25 users, expected a multiple of the 2"):
        sparse_training.Epochs(COUNTS, config, "float32", Two())
    with pytest.raises(ValueError, match="batch_size: got batches of 25 users, expected a multiple of the 2"):
        training.fit(jnp.zeros(3), negative_elbo, models.dense(COUNTS), key=KEY, epochs=1, batch_size=25,
                                 learning_rate=1.0, sharding=Two())  # fmt: skip
    with pytest.raises(ValueError, match="number: got 9, expected 1 to 1, the devices there are"):
        devices.all_devices(9)
