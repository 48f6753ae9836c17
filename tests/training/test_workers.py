"""Two processes train as one does; one that is killed is named at once, and the run goes on where it stood."""

import shutil
import sys
import time

import jax
import numpy as np
import pytest
from scipy import sparse

from rec_transfer import training
from rec_transfer.models import VAEConfig, train_vae
from rec_transfer.training import WorkerLost, run_workers, workers

COUNTS = sparse.csr_array(np.random.default_rng(0).poisson(0.7, (60, 20)))
CONFIG = VAEConfig(latent=2, hidden=8, dropout=0.3, epochs=6, batch_size=16)
KEY = jax.random.key(5)
HOST = "127.0.0.1"
NOWHERE = f"{HOST}:1"  # nobody listens there

# Worker 1 meets its end before the fourth epoch, where it is told to.
WORKER = """
import os, sys
import numpy as np
from rec_transfer import training
mesh = training.connect()
import jax
from scipy import sparse
from rec_transfer.models import VAEConfig, train_vae
from rec_transfer.training import loop

epoch = loop.epoch

def mortal(*given, number, **settings):
    if number == 3 and jax.process_index() == 1 and sys.argv[2] != "0":
        os.kill(os.getpid(), int(sys.argv[2]))
    return epoch(*given, number=number, **settings)

loop.epoch = mortal
counts = sparse.csr_array(np.random.default_rng(0).poisson(0.7, (60, 20)))
config = VAEConfig(latent=2, hidden=8, dropout=0.3, epochs=6, batch_size=16)
train_vae(counts, key=jax.random.key(5), config=config, compressed=True, mesh=mesh, checkpoint=sys.argv[1])
"""


def train(**settings):
    return train_vae(COUNTS, key=KEY, config=CONFIG, compressed=True, **settings)


def epochs_in(path):
    """How many epochs of a run a checkpoint holds: a resumed run starts from there."""
    return len(training.read_arrays(path, format=training.RUN_FORMAT)[0]["losses"])


def assert_close(found, expected):
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_a_killed_worker_is_named_and_two_or_one_go_on_as_if_nothing_had_been(tmp_path, capfd):
    path, alone = tmp_path / "run", tmp_path / "alone"
    command = [sys.executable, "-c", WORKER, str(path)]
    with pytest.raises(WorkerLost, match=r"lost: worker 1 of 2 was killed by SIGKILL; the others were ended\. Start"):
        run_workers([*command, "9"], processes=2)
    assert epochs_in(path) == 3
    shutil.copy(path, alone)
    expected = train()
    assert_close(train(checkpoint=alone), expected)  # on one device
    run_workers([*command, "0"], processes=2)
    assert_close(train(checkpoint=path), expected)


def test_a_worker_that_falls_silent_is_given_up_in_seconds(tmp_path, capfd):
    command = [sys.executable, "-c", WORKER, str(tmp_path / "run"), "19"]
    with pytest.raises(WorkerLost, match="lost: worker 1 of 2 fell silent"):
        run_workers(command, processes=2, patience=6)
    assert "unhealthy" in capfd.readouterr().err


# --- the watch alone, over shell commands


def lost(script, processes=3, **settings):
    start = time.monotonic()
    with pytest.raises(WorkerLost) as error:
        run_workers(["sh", "-c", f"n=$REC_TRANSFER_WORKER; {script}"], processes=processes, **settings)
    assert time.monotonic() - start < 30  # and not the minute that others sleep
    return str(error.value)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("[ $n = 2 ] && exit 3; exec sleep 60", "lost: worker 2 of 3 ended with status 3; the others"),
        ("[ $n = 0 ] && kill -9 $$; exec sleep 60", "lost: worker 0 of 3 was killed by SIGKILL; the others"),
        # Those who miss another abort: they are not the ones that were lost.
        ("[ $n = 1 ] && kill -9 $$; sleep 0.2; kill -6 $$", "lost: worker 1 of 3 was killed by SIGKILL; the others"),
        ("[ $n = 1 ] && exec sleep 60; kill -6 $$", "lost: worker 1 of 3 fell silent; the others"),
        ("kill -6 $$", "was killed by SIGABRT"),
    ],
)
def test_it_is_said_who_was_lost_and_how(script, message):
    assert message in lost(script)


def test_the_loss_of_one_elsewhere_is_thought_of():
    message = lost("exit 1", here=[1], address=NOWHERE)
    assert message.endswith("one on another machine was lost before it: see there")
    assert "another machine" not in lost("exit 1")


def test_all_are_told_who_they_are_and_waited_for(tmp_path):
    script = f"echo $REC_TRANSFER_ADDRESS $REC_TRANSFER_PROCESSES > {tmp_path}/$REC_TRANSFER_WORKER"
    run_workers(["sh", "-c", script], processes=4, here=[1, 3], address="10.0.0.1:1234")
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == dict.fromkeys("13", "10.0.0.1:1234 4\n")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"processes": 2, "here": [0]}, "address: got None, expected host:port of worker 0"),
        ({"processes": 2, "here": [2]}, r"here: got \[2\] of 2 processes"),
        ({"processes": 0}, r"here: got \[\] of 0 processes"),
        ({"processes": 1, "patience": 0}, "patience 0; expected 1 s or more"),
    ],
)
def test_workers_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        run_workers(["true"], **settings)


def test_one_who_is_no_worker_cannot_join(monkeypatch):
    monkeypatch.setenv("REC_TRANSFER_ADDRESS", NOWHERE)
    with pytest.raises(RuntimeError, match=r"environment: got no REC_TRANSFER_PROCESSES, .* started by run_workers"):
        workers.connect()
