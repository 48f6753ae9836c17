"""Make up user handles, item titles, genres and prices for a platform, so that its tables can be read."""

import numpy as np
from jaxtyping import Int

# One row per axis of the interest space: its genre on each platform, and the nouns its titles are built from.
THEMES = (
    ("Science fiction", "Space opera", "Electronic", ("Orbit", "Signal", "Android", "Nebula", "Airlock")),
    ("Crime", "Detective", "Noir jazz", ("Alibi", "Verdict", "Witness", "Heist", "Fingerprint")),
    ("Romance", "Love stories", "Ballads", ("Letter", "Promise", "Wedding", "Summer", "Heart")),
    ("Nature", "Travel writing", "Folk", ("River", "Glacier", "Meadow", "Island", "Migration")),
    ("Horror", "Gothic", "Metal", ("Cellar", "Crow", "Fog", "Mirror", "Whisper")),
    ("History", "Biography", "Classical", ("Empire", "Letters", "Siege", "Crown", "Archive")),
    ("Comedy", "Satire", "Pop", ("Neighbour", "Mistake", "Karaoke", "Holiday", "Landlord")),
    ("Adventure", "Fantasy", "Rock", ("Dragon", "Compass", "Summit", "Caravan", "Treasure")),
    ("Sport", "Memoir", "Hip hop", ("Marathon", "Rival", "Final", "Corner", "Captain")),
    ("Family", "Children", "Lullabies", ("Kite", "Grandmother", "Attic", "Puppy", "Picnic")),
    ("War", "Politics", "Protest songs", ("Frontier", "Treaty", "Barricade", "Convoy", "Exile")),
    ("Documentary", "Essays", "Ambient", ("Machine", "Harbour", "Atlas", "Silence", "Workshop")),
)
PLATFORMS = ("films", "books", "music")
_ADJECTIVES = (
    "Silent Crimson Last Hidden Golden Broken Distant Second Velvet Winter Burning Forgotten Paper Northern Hollow "
    "Electric Quiet Borrowed Midnight Endless"
)
_HANDLE_FIRST = (
    "amber brisk calm dusty eager fern gentle happy ivory jolly keen lunar mellow nimble ochre proud quick rusty sunny "
    "tidy urban vivid witty young"
)
_HANDLE_SECOND = (
    "ant bear crane deer eel fox goat hare ibis jay koi lynx mole newt owl puma quail rook seal toad vole wolf wren yak"
)
ADJECTIVES = tuple(_ADJECTIVES.split())
HANDLE_FIRST, HANDLE_SECOND = tuple(_HANDLE_FIRST.split()), tuple(_HANDLE_SECOND.split())


def user_handles(users: int, rng: np.random.Generator) -> np.ndarray:
    """Return unique handles such as ``rustyfox17``, in random order of words."""
    words = [first + second for first in HANDLE_FIRST for second in HANDLE_SECOND]
    words = rng.permutation(words)
    return np.array([f"{words[i % len(words)]}{i // len(words) + 10}" for i in range(users)])


def genre(theme: int | np.integer, domain: str) -> str:
    """Return the name of a theme in a domain; domains other than films, books and music use the films' names."""
    column = PLATFORMS.index(domain) if domain in PLATFORMS else 0
    return THEMES[theme % len(THEMES)][:3][column]


def titles(themes: Int[np.ndarray, " items"], rng: np.random.Generator) -> np.ndarray:
    """Return a unique title per item, its noun sampled from the item's theme; repeated titles are numbered as parts."""
    used: dict[str, int] = {}
    result = []
    for theme in themes:
        name = f"The {rng.choice(ADJECTIVES)} {rng.choice(THEMES[theme % len(THEMES)][3])}"
        used[name] = used.get(name, 0) + 1
        result.append(name if used[name] == 1 else f"{name}, Part {used[name]}")
    return np.array(result)


def prices(items: int, rng: np.random.Generator) -> np.ndarray:
    """Return prices with a long tail, at least 0.99, ending in 9 cents."""
    return np.maximum(np.round(rng.lognormal(2.2, 0.5, items), 1) - 0.01, 0.99).round(2)
