"""What stands in the place of a learned part exists only where the world has that part."""

from dataclasses import replace

import jax
import pytest

from rec_transfer.synthetic import truth
from rec_transfer.synthetic.world import make_world


@pytest.mark.parametrize("part", [truth.true_items, truth.true_map])
def test_a_world_with_a_hidden_layer_has_no_item_vectors_to_hand_over(part, world):
    behind = make_world(replace(world.config, decoder="two-layer"), key=jax.random.key(0))
    with pytest.raises(ValueError, match=r"^world: got decoder='two-layer', expected 'linear': behind a hidden layer"):
        part(behind)
    part(world)
