"""Write the committed platform, data/user_behavior_data.csv and data/all_items.csv, from its stated key."""

from pathlib import Path

import jax

from rec_transfer.keys import named_keys
from rec_transfer.synthetic.log_writer import Dirt, write_log
from rec_transfer.synthetic.world import WorldConfig, make_world, sample_population

SEED = 2026
CONFIG = WorldConfig(
    items=200, latent=6, bend=0.5, users_per_domain=450, overlapping_users=150, test_users=250
)  # sized so that the log stays under 5 MB; described in data/README.md
KEYS = named_keys(jax.random.key(SEED), "world", "population", "log")
DATA = Path(__file__).resolve().parent.parent / "data"


def world_of():
    """The world behind the committed files."""
    return make_world(CONFIG, key=KEYS["world"])


def make(folder: Path = DATA):
    """Write both files; returns the world and the population behind them, and the dirt that was added."""
    keys, world = KEYS, world_of()
    population = sample_population(world, key=keys["population"])
    return world, population, write_log(population, world, folder, key=keys["log"], dirt=Dirt())


if __name__ == "__main__":
    _, _, dirt = make()
    for path in sorted(DATA.glob("*.csv")):
        print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB")
    print("dirt:", dict(dirt))
