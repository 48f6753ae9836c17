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

from rec_transfer import training
from rec_transfer.models import VAEConfig, train_vae
from rec_transfer.training.batches import shares_of

KEY = jax.random.key(3)
CONFIG = VAEConfig(latent=2, hidden=8, dropout=0.3, anneal_epochs=1, epochs=3, batch_size=24, learning_rate=1e-2)
COUNTS = sparse.csr_array(np.random.default_rng(0).poisson(0.7, (100, 20)))  # the last batch is filled up

EIGHT = """
import sys
sys.path.insert(0, sys.argv[1])
import jax, json
from test_devices import both, widths
from rec_transfer import training
mesh = training.all_devices()
assert mesh.size == 8
assert "f32[3,5]" in widths(mesh)  # 3 users of 24, and not the whole batch
print(json.dumps(both(mesh)))
"""


def squares(model, batch, context, *, key, epoch):
    return jnp.sum((batch - model) ** 2, axis=-1)


def widths(mesh):
    """The program that trains on arrays in memory, for batches of 24 users with 5 numbers each."""
    batches = training.in_memory(np.ones((72, 5), np.float32), 24, mesh=mesh)
    state = training.initial_state(jnp.zeros(5), mesh=mesh)

    def one_epoch(state):
        return training.epoch(state, squares, batches, key=KEY, number=0, epochs=2, learning_rate=0.1)

    return jax.jit(one_epoch).lower(state).compile().as_text()


def both(mesh):
    """Losses and parameters of training on compressed rows and on arrays in memory, as numbers."""
    fits = [
        train_vae(COUNTS, key=KEY, config=CONFIG, compressed=compressed, validation=COUNTS[:10], mesh=mesh)
        for compressed in (True, False)
    ]
    return [[np.asarray(leaf).tolist() for leaf in jax.tree.leaves(fitted)] for fitted in fits]


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
    assert "f32[24,5]" in widths(None)
    assert "f32[3,5]" not in widths(None)


def test_a_mesh_of_one_device_changes_nothing(on_one):
    for found, expected in zip(both(training.all_devices(1)), on_one, strict=True):
        assert_close(found, expected)


def test_a_process_lays_out_its_own_shares_alone_with_the_draws_of_one_device():
    rows = np.arange(96).reshape(2, 2, 24)  # of two steps, two shares each
    used = np.diff(COUNTS.indptr)[rows].sum(axis=-1)
    seen = np.arange(used.sum())
    uniform = np.arange(96.0).reshape(2, 2, 24, 1)
    batches, noise = shares_of(COUNTS, rows, 400, seen % 3 > 0, uniform, [1])
    ends = np.cumsum(used)
    hers = np.concatenate([seen[ends[0] : ends[1]], seen[ends[2] : ends[3]]])
    expected = training.compress(COUNTS, rows[:, 1], 400, hers % 3 > 0)
    for found, array in zip(batches, expected, strict=True):
        np.testing.assert_array_equal(found, array[:, None])
    np.testing.assert_array_equal(noise, uniform[:, 1:])


def test_counts_may_lie_in_a_file(tmp_path, on_one):
    parts = []
    for name in ("data", "indices", "indptr"):
        np.save(tmp_path / name, getattr(COUNTS, name))
        parts.append(np.load(tmp_path / f"{name}.npy", mmap_mode="r"))
    mapped = sparse.csr_array(tuple(parts), COUNTS.shape)
    fitted = train_vae(mapped, key=KEY, config=CONFIG, compressed=True, validation=COUNTS[:10])
    assert [np.asarray(leaf).tolist() for leaf in jax.tree.leaves(fitted)] == on_one[0]


@pytest.mark.usefixtures("unchecked")
def test_batches_that_do_not_divide_by_the_devices_are_refused():
    class Two:
        size = num_devices = 2

    for compressed in (True, False):
        with pytest.raises(ValueError, match="batch_size: got batches of 25 users, expected a multiple of the 2"):
            train_vae(COUNTS, key=KEY, config=replace(CONFIG, batch_size=25), compressed=compressed, mesh=Two())
    with pytest.raises(ValueError, match="number: got 9, expected 1 to 1, the devices there are"):
        training.all_devices(9)
