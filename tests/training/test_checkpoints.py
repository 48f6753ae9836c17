"""A killed run goes on with the same bits, and a file of arrays is written whole or not at all."""

import subprocess
import sys

import jax
import numpy as np
import pytest
from scipy import sparse

from rec_transfer import training
from rec_transfer.models import VAEConfig, train_vae

CONFIG = VAEConfig(latent=2, hidden=8, dropout=0.3, epochs=7, batch_size=16)
COUNTS = sparse.csr_array(np.random.default_rng(0).poisson(0.7, (60, 20)))
HELD_OUT = sparse.csr_array(np.random.default_rng(1).poisson(0.7, (20, 20)))
TREE = {"numbers": np.arange(6.0).reshape(2, 3), "pair": (np.float32(2.5), np.array([1, 2], np.int32))}

# Stands still while it writes the checkpoint of the fourth epoch: the file is whole or old, never half.
CHILD = """
import os, sys, time
import numpy as np
import jax
from scipy import sparse
from rec_transfer.models import VAEConfig, train_vae

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
train_vae(
    counts, key=jax.random.key(5), config=config, compressed=True, validation=held_out, checkpoint=sys.argv[1],
)
"""


def assert_same_bits(left, right):
    for one, other in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        np.testing.assert_array_equal(one, other)


def epochs_in(path):
    return len(training.read_arrays(path, format=training.RUN_FORMAT)[0]["losses"])


def train(**settings):
    settings = {"config": CONFIG, "compressed": True, "validation": HELD_OUT} | settings
    return train_vae(COUNTS, key=jax.random.key(5), **settings)


def test_a_run_killed_while_it_writes_goes_on_with_the_same_bits(tmp_path):
    path = tmp_path / "run.safetensors"
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout.readline() == "writing\n"
    finally:
        child.kill()  # SIGKILL: no chance to tidy up
        child.wait()
    assert path.with_name("run.safetensors.unfinished").exists()
    assert epochs_in(path) == 3
    resumed = train(checkpoint=path)
    assert_same_bits(resumed, train())
    written = path.stat().st_mtime_ns
    assert_same_bits(train(checkpoint=path), resumed)  # a finished run comes back as it was
    assert path.stat().st_mtime_ns == written  # and is not trained on


def test_dense_and_compressed_runs_do_not_go_on_from_each_other(tmp_path):
    path = tmp_path / "run.safetensors"
    train(checkpoint=path, patience=1)
    with pytest.raises(ValueError, match=r"which differs in \['counts', 'data', 'draws', 'validation'\]: name another"):
        train(checkpoint=path, compressed=False)


def test_arrays_come_back_bit_by_bit_with_their_names_and_texts(tmp_path):
    training.write_arrays(tmp_path / "file", TREE, format="a/1", said="hello")
    arrays, metadata = training.read_arrays(str(tmp_path / "file"), format="a/1")
    assert sorted(arrays) == ["numbers", "pair.0", "pair.1"]
    assert metadata["said"] == "hello"
    assert_same_bits(training.restored(TREE, arrays), TREE)
    assert training.differing_arrays(TREE, arrays) == []
    wider = TREE | {"numbers": np.zeros((2, 4)), "more": np.zeros(1)}
    assert training.differing_arrays(wider, arrays) == ["more", "numbers"]
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_a_checkpoint_cut_short_or_of_another_kind_is_refused(tmp_path):
    path = tmp_path / "run.safetensors"
    training.write_arrays(path, TREE, format="a/1")
    with pytest.raises(ValueError, match=r"run\.safetensors: got format 'a/1', expected 'a/2'"):
        training.read_arrays(path, format="a/2")
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match=r"run\.safetensors: cut short or no checkpoint"):
        training.read_arrays(path, format="a/1")
    with pytest.raises(FileNotFoundError, match=r"path: got '.*none', expected a checkpoint file"):
        training.read_arrays(tmp_path / "none", format="a/1")


def test_a_fingerprint_tells_types_shapes_and_values_apart():
    arrays = np.arange(6), np.arange(6.0), np.arange(6).reshape(2, 3), np.arange(1, 7)
    assert len({training.digest(array) for array in arrays}) == len(arrays)
    assert training.digest(*arrays) == training.digest(*map(np.copy, arrays))
