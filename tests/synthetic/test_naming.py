"""Words for tables: unique, readable, pure in the generator."""

import numpy as np
import pytest

from rec_transfer.synthetic import naming


def test_handles_are_unique_beyond_the_number_of_words():
    pairs = len(naming.HANDLE_FIRST) * len(naming.HANDLE_SECOND)
    handles = naming.user_handles(3 * pairs + 5, np.random.default_rng(0))
    assert len(set(handles)) == len(handles) == 3 * pairs + 5
    assert {handle[-2:] for handle in handles[:pairs]} == {"10"}
    assert {handle[-2:] for handle in handles[-5:]} == {"13"}


def test_handles_are_pure_in_the_generator_and_shuffled_by_it():
    first, again, other = (naming.user_handles(20, np.random.default_rng(seed)).tolist() for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_there_may_be_no_user_at_all():
    assert len(naming.user_handles(0, np.random.default_rng(0))) == 0


@pytest.mark.parametrize(
    ("theme", "domain", "expected"),
    [
        (0, "films", "Science fiction"),
        (0, "books", "Space opera"),
        (0, "music", "Electronic"),
        (1, "podcasts", "Crime"),  # an unknown platform speaks of genres as films do
        (len(naming.THEMES) + 1, "books", "Detective"),  # more axes than themes: round again
    ],
)
def test_a_theme_goes_by_the_name_of_its_platform(theme, domain, expected):
    assert naming.genre(theme, domain) == expected


def test_titles_are_unique_and_take_their_noun_from_the_theme():
    themes = np.repeat([2, 5, 14], 150)  # more than adjectives x nouns: some must become sequels
    titles = naming.titles(themes, np.random.default_rng(3))
    assert len(set(titles)) == len(titles) == len(themes)
    for theme, title in zip(themes, titles, strict=True):
        words = title.split(", Part ")[0].split(" ", 2)
        assert words[0] == "The"
        assert words[1] in naming.ADJECTIVES
        assert words[2] in naming.THEMES[theme % len(naming.THEMES)][3]


def test_sequels_are_numbered_from_two_without_a_gap():
    titles = naming.titles(np.zeros(250, int), np.random.default_rng(3))
    parts: dict[str, list[int]] = {}
    for title in titles:
        name, _, number = title.partition(", Part ")
        parts.setdefault(name, []).append(int(number or 1))
    assert max(map(len, parts.values())) > 1
    assert all(numbers == list(range(1, len(numbers) + 1)) for numbers in parts.values())


def test_prices_end_in_nine_cents_and_are_never_below_the_least():
    prices = naming.prices(5000, np.random.default_rng(4))
    assert prices.min() >= 0.99
    assert set(np.round(prices * 100).astype(int) % 10) == {9}
    assert np.median(prices) == pytest.approx(np.exp(2.2), rel=0.05)
