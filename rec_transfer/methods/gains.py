"""Score items by what they are worth in a list, given samples of a user's click probabilities."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rec_transfer.keys import named_keys
from rec_transfer.types import Key

GAINS = ("NDCG@10", "Recall@20", "posterior mean")
USERS_AT_ONCE = 50  # bounds the memory at users x draws x items floats


def list_gains(
    probabilities: Float[Array, "*users draws items"], clicks: Float[Array, "*users draws"], *, judged: float = 1.0
) -> dict[str, Float[Array, "*users draws items"]]:
    r"""Return what each item is worth in a list, by metric, for each sample of a user's click probabilities.

    For NDCG@k the gain is $E[\mathrm{rel}_i / \mathrm{IDCG}_k(\mathrm{rel})]$, for Recall@k it is $E[\mathrm{rel}_i /
    \min(k, R)]$ with R the number of relevant items; for "posterior mean" it is p itself. A list sorted by the
    posterior mean of a metric's gain has the highest expected metric. The clicks are integrated out: $\mathrm{rel}_i$
    is replaced by its mean $1 - (1 - p_i)^n$, and the number of clicked items C by its mean, rounded. Where a list is
    judged by a random half of the user's items (``cold_start``), a clicked item is among them with probability R / C,
    $R = \lceil C / 2 \rceil$.

    Args:
        probabilities: p, where one click falls.
        clicks: n, how many clicks the user makes.
        judged: share of the user's items that the list is judged by, the odd one included.
    """
    relevant = -jnp.expm1(clicks[..., None] * jnp.log1p(-jnp.minimum(probabilities, 1 - 1e-6)))
    clicked = jnp.maximum(jnp.round(relevant.sum(axis=-1)), 1)
    number = jnp.ceil(judged * clicked).astype(int)
    relevant = relevant * (number / clicked)[..., None]
    ideal = jnp.cumsum(1 / jnp.log2(jnp.arange(2.0, 12.0)))[jnp.minimum(number, 10) - 1]
    return {
        "NDCG@10": relevant / ideal[..., None],
        "Recall@20": relevant / jnp.minimum(number, 20)[..., None],
        "posterior mean": probabilities,
    }


@partial(jax.jit, static_argnames=("judged",))
def expected_gains(
    decode: Callable,
    interests: Float[Array, "users draws latent"],
    clicks: Float[Array, " others"],
    *,
    key: Key,
    judged: float = 1.0,
) -> dict[str, Float[Array, "users items"]]:
    """Return the mean gain of every item over samples of the user's interest: scores to rank by, one set per metric.

    Args:
        decode: a pytree that maps interests to logits, such as a ``FactorModel``.
        interests: equally weighted samples.
        clicks: numbers of clicks of other users. Each sample of the interest gets one of them.
        key: assigns the numbers of clicks.
        judged: see ``list_gains``.
    """
    number = jax.random.choice(named_keys(key, "clicks")["clicks"], clicks, (interests.shape[1],))

    def one(draws):
        gains = list_gains(jax.nn.softmax(decode(draws)), number, judged=judged)
        return jax.tree.map(lambda gain: gain.mean(axis=0), gains)

    return jax.lax.map(one, interests, batch_size=USERS_AT_ONCE)
