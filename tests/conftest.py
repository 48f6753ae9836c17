"""The shapes written in signatures are enforced while testing; a tiny world is drawn once for the whole session."""

import os
from pathlib import Path

import jaxtyping

# As in the Makefile: programs compiled once are kept, since compiling is most of what the suite does.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / "build" / "jax-cache"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES", "none")

jaxtyping.install_import_hook("rec_transfer", "beartype.beartype")  # before the package's first import

import jax  # noqa: E402
import pytest  # noqa: E402

from rec_transfer import models, synthetic  # noqa: E402
from rec_transfer.evaluation import splits  # noqa: E402
from rec_transfer.maps.linear import fit_ridge_map  # noqa: E402
from rec_transfer.methods import transfer  # noqa: E402
from rec_transfer.models import vae  # noqa: E402

# Folders and files whose tests take seconds each: processes, kernels, whole experiments. `make quick` leaves them out,
# and the single tests marked slow elsewhere; `make test` runs everything.
SLOW = frozenset({
    "experiments", "training", "test_benchmarks.py", "test_conformance.py", "test_distributions.py", "test_oracle.py",
    "test_sampled_softmax.py", "test_sparse_training.py", "test_student_copies.py", "test_your_own_data.py",
})  # fmt: skip


def pytest_collection_modifyitems(items):
    for item in items:
        if SLOW.intersection(item.path.relative_to(Path(__file__).parent).parts):
            item.add_marker(pytest.mark.slow)


@pytest.fixture
def unchecked():
    """Shape checks off: what a user meets, who has no import hook and relies on the package's own messages."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def data_folder():
    """The folder with the public data sets, by their names: ``REC_TRANSFER_DATA``, or the one beside the repository."""
    given = os.environ.get("REC_TRANSFER_DATA")
    folder = Path(given) if given else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no public data here: {folder} does not exist (set REC_TRANSFER_DATA to the folder that holds it)")
    return folder


@pytest.fixture(scope="session")
def world():
    # Sharp tastes, little popularity and full relatedness: so easy that a few hundred users are enough to learn from.
    config = synthetic.WorldConfig(
        items=30, latent=2, relatedness=1.0, sharpness=1.5, popularity=0.3,
        users_per_domain=150, overlapping_users=60, test_users=60,
    )  # fmt: skip
    return synthetic.make_world(config, key=jax.random.key(11))


@pytest.fixture(scope="session")
def population(world):
    return synthetic.sample_population(world, key=jax.random.key(12))


@pytest.fixture(scope="session")
def platform(population):
    hidden = population.users[population.roles == "test"]
    return splits.cold_start(population.interactions, test_users=hidden, key=jax.random.key(13))


@pytest.fixture(scope="session")
def split(platform):
    return platform.direction("films", "books")


@pytest.fixture(scope="session")
def vae_config():
    return vae.VAEConfig(
        latent=2, hidden=24, dropout=0.1, anneal_epochs=5, epochs=60, batch_size=35, learning_rate=1e-2
    )


@pytest.fixture(scope="session")
def vaes(split, vae_config):
    """The trained VAEs of films and books, the source and the target of ``split``."""
    return tuple(
        models.train_vae(domain.counts, key=jax.random.key(14), config=vae_config).model
        for domain in (split.train.source, split.train.target)
    )


@pytest.fixture(scope="session")
def ceiling(world, split):
    """The oracle as a method for the test users of ``split``: their scores are drawn once, which takes seconds."""
    fit = synthetic.with_oracle(world)["oracle: NDCG@10"]
    scores = fit(split.train, key=jax.random.key(16))(split.history)
    return lambda train, *, key: lambda history: scores


@pytest.fixture(scope="session")
def recommender(split, vaes):
    return transfer.fit_transfer(split.train, fit_ridge_map, *vaes, key=jax.random.key(15))
