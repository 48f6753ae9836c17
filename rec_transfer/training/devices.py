"""Many devices, of one process or of several: each computes on its share of the users of every batch.

The trainers stay as they are; one is handed a mesh. Every device holds the parameters, and after each batch the
gradients are averaged over all of them. Order of users and noise are those of one device, so that the result is the
same to rounding, whatever the number of devices: a run may go on with another.
"""

from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

USERS = "users"  # the axis of the mesh along which a batch is dealt out


def all_devices(number: int | None = None) -> Mesh:
    """The devices of all processes in a row, or the first so many.

    Raises:
        ValueError: more than there are.
    """
    devices = jax.devices()
    if number is not None and not 1 <= number <= len(devices):
        raise ValueError(f"number: got {number}, expected 1 to {len(devices)}, the devices there are")
    return Mesh(np.asarray(devices[:number]), (USERS,))


def share_of_users(mesh: Mesh) -> NamedSharding:
    """Where the users of a batch go, as many to each device: what ``training.fit`` is handed."""
    return NamedSharding(mesh, jax.P(USERS))


def on_each(mesh: Mesh, tree):
    """A pytree of arrays, equal in every process, held by every device."""
    return jax.device_put(tree, NamedSharding(mesh, jax.P()))


def own_shares(mesh: Mesh) -> list[int]:
    """Which shares of a batch the devices of this process take."""
    return [place for place, device in enumerate(mesh.devices.flat) if device.process_index == jax.process_index()]


def dealt_out(mesh: Mesh, tree):
    """Arrays [steps, own shares, ...] of every process as one [steps, shares, ...], a share on each device."""
    sharding = NamedSharding(mesh, jax.P(None, USERS))
    return jax.tree.map(
        lambda own: jax.make_array_from_process_local_data(sharding, own, (own.shape[0], mesh.size, *own.shape[2:])),
        tree,
    )


def native_bfloat16() -> bool:
    """Whether bfloat16 products are the processor's own: yes on accelerators, on CPUs what Linux says of them."""
    if jax.default_backend() != "cpu":
        return True
    flags = Path("/proc/cpuinfo")
    return flags.is_file() and bool({"avx512_bf16", "amx_bf16"} & set(flags.read_text().split()))
