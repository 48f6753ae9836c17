"""Sample users whose true interests are known: one taste behind several domains, and clicks in each."""

from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy import sparse

from rec_transfer.keys import key_for, named_keys, numpy_generator
from rec_transfer.synthetic import naming
from rec_transfer.synthetic.decoder import DECODERS, HiddenLayer, hidden_layers, item_features, layer_of
from rec_transfer.types import Interactions, Key

ROLES = ("single", "overlapping", "test")


@dataclass(frozen=True)
class WorldConfig:
    """All settings of a world; the defaults are the standard world of the series.

    Args:
        domains: names of the domains.
        items: items in each domain.
        latent: K, dimensions of the interest space.
        relatedness: how much of a domain's interest comes from the shared one, 0 (nothing) to 1 (all). In a linear
            world the correlation of two domains' interests is its square.
        bend: 0 for a linear world (interests are rotated), 1 for the bent one; values between them blend the two.
        sharpness: weight of taste in an item's score; 0 leaves only popularity.
        popularity: exponent of the popularity's decay over ranks.
        activity, activity_spread: mean and standard deviation of the log of clicks per user and domain.
        fewest_clicks, most_clicks: bounds that clicks are clipped to.
        users_per_domain: users active in one domain only, in each domain.
        overlapping_users: users active in all domains; the only pairs that a method may learn from.
        test_users: users active in all domains whose target rows are hidden.
        overlap_taste, overlap_activity: how strongly overlapping users are selected by the first coordinate of their
            shared interest, and by their activity; 0 makes them a random sample of users (see ``sample_population``).
        decoder: "linear" (scores are linear in the interest shown) or "two-layer" (see ``item_features``).

    Raises:
        ValueError: a setting is outside its range; the message names it.
    """

    domains: tuple[str, ...] = ("films", "books", "music")
    items: int = 300
    latent: int = 8
    relatedness: float = 0.9
    bend: float = 0.0
    sharpness: float = 0.9
    popularity: float = 0.8
    activity: float = 3.2
    activity_spread: float = 0.5
    fewest_clicks: int = 8
    most_clicks: int = 150
    users_per_domain: int = 4000
    overlapping_users: int = 300
    test_users: int = 500
    overlap_taste: float = 0.0
    overlap_activity: float = 0.0
    decoder: str = "linear"

    def __post_init__(self) -> None:
        for name, low, high in (
            ("items", 2, np.inf),
            ("latent", 1, np.inf),
            ("relatedness", 0, 1),
            ("bend", 0, 1),
            ("activity_spread", 0, np.inf),
            ("fewest_clicks", 1, self.most_clicks),
            ("users_per_domain", 0, np.inf),
            ("overlapping_users", 0, np.inf),
            ("test_users", 0, np.inf),
            ("overlap_taste", -3, 3),
            ("overlap_activity", -3, 3),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name}: got {value}, expected {low} <= {name} <= {high}")
        if len(self.domains) < 2 or len(set(self.domains)) != len(self.domains):
            raise ValueError(f"domains: got {self.domains}, expected at least two different names")
        if self.decoder not in DECODERS:
            raise ValueError(f"decoder: got {self.decoder!r}, expected one of {DECODERS}")


class World(NamedTuple):
    """The parameters that generate users: everything that a Bayes oracle may know.

    ``rotations`` and ``bends`` [domains, latent, latent], ``items`` [domains, items, features], ``item_bias``
    [domains, items] and the parts of ``hidden`` are in the order of ``config.domains``. ``catalogue`` maps each domain
    to the names of its items. A linear decoder has no hidden layer, and its features are the interest itself.
    """

    config: WorldConfig
    rotations: Float[np.ndarray, "domains latent latent"]
    bends: Float[np.ndarray, "domains latent latent"]
    items: Float[np.ndarray, "domains items features"]
    item_bias: Float[np.ndarray, "domains items"]
    catalogue: dict[str, "Catalogue"]
    hidden: HiddenLayer | None = None


class Catalogue(NamedTuple):
    """The ids, titles, genres and prices of the items of one domain, as parallel arrays."""

    ids: np.ndarray
    titles: np.ndarray
    genres: np.ndarray
    prices: np.ndarray


class Population(NamedTuple):
    """Users sampled from a world: what the platform sees (``interactions``) and the truth behind it.

    Rows of ``roles``, ``interests`` (u) and of each domain's ``shown`` (z_d) belong to ``users``.
    """

    interactions: dict[str, Interactions]
    users: np.ndarray
    roles: np.ndarray
    interests: Float[np.ndarray, "users latent"]
    shown: dict[str, Float[np.ndarray, "users latent"]]


def make_world(config: WorldConfig, *, key: Key) -> World:
    """Return a world: rotations, bends, item vectors, popularity and names are sampled.

    Equal keys give equal worlds.
    """
    from scipy.stats import ortho_group

    keys = named_keys(key, "rotations", "bends", "items", "popularity", "names")
    domains, items, latent = len(config.domains), config.items, config.latent
    rng = numpy_generator(keys["rotations"])
    if latent > 1:
        rotations = np.stack([ortho_group.rvs(latent, random_state=rng) for _ in range(domains)])
    else:
        rotations = rng.choice([-1.0, 1.0], (domains, 1, 1))
    bends = numpy_generator(keys["bends"]).normal(0, latent**-0.5, (domains, latent, latent))
    hidden, features = None, latent
    if config.decoder == "two-layer":
        hidden, spread = hidden_layers(domains, latent, rng=numpy_generator(key_for(key, "decoder")))
        features = hidden.offsets.shape[1]
    vectors = numpy_generator(keys["items"]).normal(size=(domains, items, features))
    if hidden is not None:
        vectors *= np.sqrt(latent / features) / spread[:, None, None]
    rng = numpy_generator(keys["popularity"])
    ranks = np.stack([rng.permutation(items) for _ in range(domains)])
    rng = numpy_generator(keys["names"])
    catalogue = {}
    for d, (domain, rotation, vector) in enumerate(zip(config.domains, rotations, vectors, strict=True)):
        # An item's theme is the axis of the *shared* interest space that it appeals to most: the rows of R_d are what
        # users at the ends of the axes show, and in a linear world z V^T = u (V R^T)^T.
        themes = np.argmax(vector @ item_features(rotation, layer_of(hidden, d)).T, axis=1)
        width = len(str(items))
        catalogue[domain] = Catalogue(
            ids=np.array([f"{domain[0].upper()}{number + 1:0{width}d}" for number in range(items)]),
            titles=naming.titles(themes, rng),
            genres=np.array([naming.genre(theme, domain) for theme in themes]),
            prices=naming.prices(items, rng),
        )
    return World(config, rotations, bends, vectors, -config.popularity * np.log1p(ranks), catalogue, hidden)


def shown_interests(world: World, domain: str, interests: np.ndarray, private: np.ndarray) -> np.ndarray:
    r"""Return the interests shown in a domain, $z_d = \rho\, g_d(u) + \sqrt{1 - \rho^2}\, e_d$: [users, latent].

    Args:
        world: its relatedness is $\rho$.
        domain: name of the domain.
        interests: u, [users, latent].
        private: $e_d$, [users, latent].
    """
    config, d = world.config, world.config.domains.index(domain)
    common = common_interests(interests, world.rotations[d], world.bends[d], bend=config.bend)
    return config.relatedness * common + np.sqrt(1 - config.relatedness**2) * private


def common_interests(
    interests: Float[np.ndarray | Array, "*users latent"],
    rotation: Float[np.ndarray | Array, "latent latent"],
    bends: Float[np.ndarray | Array, "latent latent"],
    *,
    bend: float,
) -> Float[np.ndarray | Array, "*users latent"]:
    r"""Return $g_d(u)$, the part of a domain's interest that is common to all domains.

    It is $u R_d$ in a linear world and $1.5 \tanh(u R_d + (u W_d)^2 / 2 - 1/4)$ in a bent one; ``bend`` blends the two.

    Args:
        interests: u.
        rotation: $R_d$.
        bends: $W_d$.
        bend: from 0 (linear) to 1 (bent).
    """
    tanh = np.tanh if isinstance(interests, np.ndarray) else jnp.tanh
    linear = interests @ rotation
    bent = 1.5 * tanh(linear + 0.5 * (interests @ bends) ** 2 - 0.25)
    return (1 - bend) * linear + bend * bent


def click_probabilities(world: World, domain: str, shown: np.ndarray) -> np.ndarray:
    r"""Return $\mathrm{softmax}(\gamma\, \phi_d(z_d) V_d^\top + b_d)$, where one click falls: [users, items].

    $\gamma$ is the sharpness, .9 in the standard world; $\phi_d$ is ``item_features``, z itself with a linear decoder.

    Args:
        world: the true world.
        domain: name of the domain.
        shown: $z_d$, [users, latent].
    """
    d = world.config.domains.index(domain)
    features = item_features(shown, layer_of(world.hidden, d))
    scores = world.config.sharpness * features @ world.items[d].T + world.item_bias[d]
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def sample_population(world: World, *, key: Key) -> Population:
    r"""Return sampled users and their clicks; overlapping and test users are active in every domain.

    Single and test users are a random sample of all users: $u \sim N(0, I)$, log-activities $N(\mu, \sigma^2)$ in each
    domain. Overlapping users are one too where both strengths of selection are 0. Otherwise a user is among them with
    odds in proportion to $\exp(o_u u_1 + o_a \sum_d a_d)$, where $u_1$ is the first coordinate of the shared interest
    and $a_d$ the log-activity in domain d, in standard deviations from its mean. (Worlds are drawn alike in all
    directions: the first stands for any.) Among the few of a large population who are chosen so, $u_1$ is $N(o_u, 1)$
    and $a_d$ is $N(o_a, 1)$, since a normal density times $\exp(o x)$ is a normal density moved by o. All else is
    distributed as among all users.

    Equal keys give equal populations, and the same single and test users at all strengths of selection.
    """
    config = world.config
    keys = named_keys(key, "handles", "interests", "private", "activity", "clicks")
    roles = np.repeat(
        ROLES, [config.users_per_domain * len(config.domains), config.overlapping_users, config.test_users]
    )
    home = np.full(len(roles), -1)
    home[roles == "single"] = np.repeat(np.arange(len(config.domains)), config.users_per_domain)
    users = naming.user_handles(len(roles), numpy_generator(keys["handles"]))
    interests = numpy_generator(keys["interests"]).normal(size=(len(roles), config.latent))
    chosen = roles == "overlapping"
    towards = chosen[:, None] * config.overlap_taste * np.eye(1, config.latent)
    selection_rng = numpy_generator(key_for(key, "overlap"))
    private_rng, activity_rng, click_rng = (numpy_generator(keys[name]) for name in ("private", "activity", "clicks"))
    interactions, shown = {}, {}
    for d, domain in enumerate(config.domains):
        private = private_rng.normal(size=interests.shape)
        shown[domain] = shown_interests(world, domain, interests, private)
        activity = activity_rng.lognormal(config.activity, config.activity_spread, len(roles))
        active = (home == d) | (home == -1)
        probabilities = click_probabilities(world, domain, shown[domain][active])
        counts = click_rng.multinomial(_clicks(config, activity[active]), probabilities)
        if config.overlap_taste or config.overlap_activity:
            # Drawn anew by a generator of their own, so that all other users stay as they are without selection.
            shown[domain][chosen] = shown_interests(world, domain, (interests + towards)[chosen], private[chosen])
            more = activity[chosen] * np.exp(config.overlap_activity * config.activity_spread)
            probabilities = click_probabilities(world, domain, shown[domain][chosen])
            counts[chosen[active]] = selection_rng.multinomial(_clicks(config, more), probabilities)
        interactions[domain] = Interactions(
            domain, sparse.csr_array(counts.astype(np.int32)), users[active], world.catalogue[domain].ids
        )
    return Population(interactions, users, roles, interests + towards, shown)


def _clicks(config: WorldConfig, activity: np.ndarray) -> np.ndarray:
    """Return whole numbers of clicks within their bounds."""
    return np.clip(activity.astype(int), config.fewest_clicks, config.most_clicks)
