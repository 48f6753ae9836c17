"""Peak memory of training the VAE on 10^5 users x 10^4 items, in a process of its own: an epoch's seconds, its peak.

    .venv/bin/python benchmarks/memory.py [--users 100000] [--items 10000] [--precision float32]

Exits with 1 where the peak (the resident set of the whole process, Python and libraries included) passes 2 GB.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from harness.clicks import NETWORK, popular_clicks
from scipy import sparse

LIMIT = 2_000_000_000  # bytes


def train(path: Path, precision: str) -> None:
    """An epoch in this process; print what it took, as JSON."""
    import jax

    from rec_transfer.models import VAEConfig, train_vae

    counts = sparse.csr_array(sparse.load_npz(path))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    start = time.perf_counter()
    config = VAEConfig(**NETWORK, epochs=1)
    fitted = train_vae(counts, key=jax.random.key(0), config=config, compressed=True, precision=precision)
    loss = float(fitted.training_loss[-1])
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"loss": loss, "seconds": seconds, "imported_and_read_bytes": before, "peak_bytes": peak}))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--train", type=Path, default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.train:
        train(arguments.train, arguments.precision)
        return 0
    with TemporaryDirectory() as folder:
        path = Path(folder) / "clicks.npz"
        sparse.save_npz(path, popular_clicks(arguments.users, arguments.items), compressed=False)
        command = [sys.executable, __file__, "--train", str(path), "--precision", arguments.precision]
        found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    print(
        f"{arguments.users:,} users x {arguments.items:,} items, {arguments.precision}: an epoch and compilation "
        f"{found['seconds']:.0f} s, peak {found['peak_bytes'] / 1e6:,.0f} MB "
        f"({found['imported_and_read_bytes'] / 1e6:,.0f} MB once the clicks were read; limit {LIMIT / 1e6:,.0f} MB)"
    )
    return int(found["peak_bytes"] > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
