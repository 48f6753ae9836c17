"""Many devices, of one process or of several: each computes on its share of the users of every batch.

Every device holds all parameters, and after each batch the gradients are averaged over the devices. The order of users
and the noise are those of one device, so the result is the same to rounding, whatever the number of devices. A run may
therefore be continued on another number of devices.
"""

from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

USERS = "users"  # the axis of the mesh along which a batch is split


def all_devices(number: int | None = None) -> Mesh:
    """Return a mesh of the devices of all processes in a row, or of the first ``number`` of them.

    Raises:
        ValueError: more than there are.
    """
    devices = jax.devices()
    if number is not None and not 1 <= number <= len(devices):
        raise ValueError(f"number: got {number}, expected 1 to {len(devices)}, the devices there are")
    return Mesh(np.asarray(devices[:number]), (USERS,))


def on_each(mesh: Mesh, tree: Any) -> Any:
    """Return a pytree of arrays, equal in every process, copied to every device."""
    return jax.device_put(tree, NamedSharding(mesh, jax.P()))


def local_shares(mesh: Mesh) -> list[int]:
    """Return which shares of a batch belong to the devices of this process."""
    return [place for place, device in enumerate(mesh.devices.flat) if device.process_index == jax.process_index()]


def shard(mesh: Mesh, tree: Any) -> Any:
    """Return arrays [steps, shares, ...], a share on each device, from each process's [steps, own shares, ...]."""
    sharding = NamedSharding(mesh, jax.P(None, USERS))
    return jax.tree.map(
        lambda own: jax.make_array_from_process_local_data(sharding, own, (own.shape[0], mesh.size, *own.shape[2:])),
        tree,
    )


def native_bfloat16() -> bool:
    """Return whether the processor multiplies bfloat16 itself: accelerators do, of CPUs Linux says so."""
    if jax.default_backend() != "cpu":
        return True
    flags = Path("/proc/cpuinfo")
    return flags.is_file() and bool({"avx512_bf16", "amx_bf16"} & set(flags.read_text().split()))
