"""Each trap of the public formats in a file of a few lines: what is read, and what is refused with its line."""

import warnings

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rec_transfer.data.formats import read_cdrib_pair, read_movielens, read_ratings
from rec_transfer.synthetic.published_formats import write_cdrib_pair, write_ratings

KEY = jax.random.key(3)

# Ten shared people: 0 to 7 train in both, 8 is new in games and 9 in films; 10 and 11 are other people in each domain.
# Item 5 of films is in test alone.
FILMS = {"train": [*((user, user % 3) for user in range(9)), (0, 4), (10, 0), (11, 1)], "valid": [(9, 2)]}
FILMS["test"] = [(9, 5), (9, 0)]
GAMES = {"train": [*((user, user % 2) for user in (*range(8), 9)), (9, 3), (10, 3), (11, 2)], "valid": [(8, 1)]}
GAMES["test"] = [(8, 3)]


def write_pair(folder, films=FILMS, games=GAMES):
    for name, parts in (("films_games", films), ("games_films", games)):
        (folder / name).mkdir(exist_ok=True)
        for part, rows in parts.items():
            (folder / name / f"{part}.txt").write_text("".join(f"{user}\t{item}\n" for user, item in rows))
    return folder


def pair(folder, shared=10, **files):
    return read_cdrib_pair(write_pair(folder, **files), "games", "films", shared=shared)


def rows_of(interactions):
    entries = interactions.counts.tocoo()
    return {(str(interactions.users[u]), str(interactions.items[i])) for u, i in zip(*entries.coords, strict=True)}


# ---- CDRIB


def test_the_same_private_number_is_another_person_in_the_other_domain(tmp_path):
    result = pair(tmp_path)
    assert {"10", "11"}.isdisjoint([*result.train.source.users, *result.train.target.users])
    assert {"games:10", "games:11"} <= set(result.train.source.users)
    assert {"films:10", "films:11"} <= set(result.train.target.users)
    assert result.train.overlapping_users.tolist() == [str(user) for user in range(8)]


def test_training_rows_are_the_train_files_rows(tmp_path):
    result = pair(tmp_path)
    films = {(str(user) if user < 10 else f"films:{user}", str(item)) for user, item in FILMS["train"]}
    assert rows_of(result.train.target) == films
    assert set(result.train.target.counts.data) == {1}


def test_cold_users_bring_their_source_rows_and_no_target_row(tmp_path):
    result = pair(tmp_path)
    for held in (result.valid, result.test):
        assert held.users.tolist() == ["9"]
        assert held.history.target is None
        assert held.train is result.train
        assert result.train.source.items[held.history.source[[0]].indices].tolist() == ["1", "3"]
    assert "9" in result.train.source.users
    assert "9" not in result.train.target.users


def test_rows_of_valid_and_test_are_hidden(tmp_path):
    result = pair(tmp_path)
    assert sorted(result.valid.hidden[[0]].indices) == [2]
    assert sorted(result.test.hidden[[0]].indices) == [0, 4]  # columns of items 0 and 5


def test_an_item_only_in_test_has_a_column_and_is_no_candidate(tmp_path):
    result = pair(tmp_path)
    assert result.train.target.items.tolist() == ["0", "1", "2", "4", "5"]
    assert result.train.target.counts[:, [4]].sum() == 0
    assert result.test.candidates.tolist() == [True, True, True, True, False]


def test_the_positives_of_valid_are_known_in_test_and_not_the_other_way_round(tmp_path):
    result = pair(tmp_path)
    assert sorted(result.valid.known[[0]].indices) == []
    assert sorted(result.test.known[[0]].indices) == [2]


def test_whole_holds_the_held_out_rows_too(tmp_path):
    games, films = pair(tmp_path).whole
    assert ("9", "5") in rows_of(films)
    assert ("8", "3") in rows_of(games)


def test_either_domain_may_be_the_target(tmp_path):
    there, back = (
        read_cdrib_pair(write_pair(tmp_path), *names, shared=10) for names in (("games", "films"), ("films", "games"))
    )
    assert rows_of(there.train.source) == rows_of(back.train.target)
    assert back.test.users.tolist() == ["8"]


@pytest.mark.parametrize(
    ("shared", "message"),
    [
        (9, "shared: got 9, expected at least 10: user 9 of films_games/valid.txt"),
        (12, None),  # 10 and 11 occur in both domains and the file is in order of ids: nothing tells
        (
            13,
            r"shared: got 13, but 1 ids below it have rows in one domain only or in none \(12, say\)",
        ),
        (50, r"shared: got 50, but 38 ids below it"),
        (0, "shared: got 0, expected at least 1"),
    ],
)
def test_a_wrong_number_of_shared_ids_is_refused_where_ids_tell(tmp_path, shared, message):
    if message is None:
        assert pair(tmp_path, shared=shared)
    else:
        with pytest.raises(ValueError, match=message):
            pair(tmp_path, shared=shared)


def test_ids_in_one_domain_only_cannot_be_shared(tmp_path):
    films = FILMS | {"train": [*FILMS["train"], (12, 0)]}
    with pytest.raises(ValueError, match="shared: got 13, but 1 ids below it have rows in one domain only"):
        pair(tmp_path, shared=13, films=films)


@pytest.fixture(scope="module")
def twin(tmp_path_factory):
    return write_cdrib_pair(tmp_path_factory.mktemp("twin"), "games", "films", key=KEY, shared=100, private=80)


@pytest.mark.parametrize("shared", [50, 99, 101, 110, 150, 180, 400])
def test_the_order_of_users_tells_the_number_of_shared_ids_exactly(twin, shared):
    read_cdrib_pair(twin, "games", "films", shared=100)
    with pytest.raises(ValueError, match=rf"shared: got {shared}, "):
        read_cdrib_pair(twin, "games", "films", shared=shared)


def test_the_order_of_users_tells_of_shared_ids_that_have_no_cold_row(twin, tmp_path):
    for name in ("films_games", "games_films"):
        (tmp_path / name).mkdir()
        for part in ("train", "valid", "test"):
            lines = (twin / name / f"{part}.txt").read_text().splitlines(keepends=True)
            gone = range(95, 100) if (name, part != "train") == ("films_games", True) else ()
            lines = [line for line in lines if int(line.split()[0]) not in gone]
            (tmp_path / name / f"{part}.txt").write_text("".join(lines))
    with pytest.raises(ValueError, match="shared: got 95, expected 100: the order of users in the train files"):
        read_cdrib_pair(tmp_path, "games", "films", shared=95)


def test_a_cold_user_with_training_rows_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"films_games/valid.txt: got users \[9\] with rows in train too"):
        pair(tmp_path, films=FILMS | {"train": [*FILMS["train"], (9, 1)]})


def test_a_cold_user_without_source_rows_is_refused(tmp_path):
    games = GAMES | {"train": [row for row in GAMES["train"] if row[0] != 9]}
    with pytest.raises(ValueError, match=r"films_games/valid.txt: got users \[9\] without rows in the other domain"):
        pair(tmp_path, games=games)


def test_no_overlap_in_train_is_refused(tmp_path):
    games = {"train": [(9, 1), (10, 0)], "valid": [(8, 1)], "test": [(8, 0)]}
    films = {"train": [(8, 0), (11, 1)], "valid": [(9, 2)], "test": [(9, 0)]}
    for name, files in (("games", games), ("films", films)):  # ids 0 to 7 as rows of valid, of users of the other train
        other = films if name == "games" else games
        half = range(4) if name == "games" else range(4, 8)
        files["valid"] += [(user, 0) for user in half]
        other["train"] += [(user, 1) for user in half]
    with pytest.raises(
        ValueError, match="shared: got 10, expected users below it with rows in both train files, got none"
    ):
        pair(tmp_path, films=films, games=games)


def test_swapped_columns_of_a_train_file_are_refused(twin, tmp_path):
    for name in ("films_games", "games_films"):
        (tmp_path / name).mkdir()
        for part in ("train", "valid", "test"):
            lines = (twin / name / f"{part}.txt").read_text().splitlines()
            if (name, part) == ("films_games", "train"):
                lines = ["\t".join(line.split("\t")[::-1]) for line in lines]
            (tmp_path / name / f"{part}.txt").write_text("\n".join(lines))
    with pytest.raises(ValueError, match=r"films_games/train.txt: got rows that stand together by the second column"):
        read_cdrib_pair(tmp_path, "games", "films", shared=100)


def test_a_repeated_row_counts_once_and_is_warned_of(tmp_path):
    with pytest.warns(UserWarning, match=r"train.txt: 2 repeated rows \(same user and item\) merged"):
        result = pair(tmp_path, films=FILMS | {"train": [*FILMS["train"], (0, 4), (0, 4)]})
    assert result.train.target.counts.max() == 1


def test_a_missing_file_is_named(tmp_path):
    write_pair(tmp_path)
    (tmp_path / "games_films" / "valid.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"valid.txt: no such file in .*games_films"):
        read_cdrib_pair(tmp_path, "games", "films", shared=10)


def test_one_domain_twice_is_refused(tmp_path):
    with pytest.raises(ValueError, match="source and target: got 'games' twice"):
        read_cdrib_pair(tmp_path, "games", "games", shared=10)


def test_amazon_is_read_as_its_card_says(data_folder):
    folder = data_folder / "amazon-cloth-sport"
    result = read_cdrib_pair(folder, "sport", "cloth", shared=9828)
    assert result.train.source.counts.shape == (26346, 12655)
    assert result.train.target.counts.shape == (40839, 17943)
    assert result.train.target.counts.nnz == 187880
    assert len(result.train.overlapping_users) == 7856
    assert (result.test.hidden.nnz, len(result.test.users)) == (3085, 907)
    assert (result.valid.hidden.nnz, len(result.valid.users)) == (3156, 915)
    for shared in (9827, 9829, 20000, 41829):
        with pytest.raises(ValueError, match=f"shared: got {shared}, "):
            read_cdrib_pair(folder, "sport", "cloth", shared=shared)


# ---- damaged tables


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "got an empty file, expected user item rating in each line"),
        (" \n\n", "got an empty file"),
        ("user\titem\trating\n1\t2\t3\n", r"line 1: got 'user\\titem\\trating', expected 3 whole numbers.*a header\?"),
        ("1\t2\t3\n1\tx\t3\n", r"line 2: got '1\\tx\\t3', expected 3 whole numbers, user item rating"),
        ("1\t2\t3\n1\t4\n", r"line 2: got '1\\t4'"),
        ("1\t2\t3\n\n1\t4\t5\t6\n", r"line 3: got '1\\t4\\t5\\t6'"),
        ("1\t2\t3\n1\t4\t2.5\n", r"line 2: got '1\\t4\\t2.5'"),
        ("1\t2\t3\n1\t-4\t2\n", r"line 2: got '1\\t-4\\t2'"),
        ("1\t2\t3\n1\t\t2\n", r"line 2: got '1\\t\\t2'"),
        ("1,2,3\n", "line 1: got '1,2,3'"),
        ("1\t2\n", "line 1: got"),
        ("1\t2\t3\n\n1\t4\t6\n", "line 3: got rating 6, expected 1 to 5"),
        ("1\t2\t99999999999999999999\n", "numbers out of range"),
        ("1\t2\t3\n\xff\xfe\t1\t2\n", "line 2: got"),
    ],
)
def test_a_damaged_file_is_refused_with_the_line(tmp_path, content, message):
    path = tmp_path / "ratings.dat"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match=message):
        read_ratings(path, "book")


def test_a_file_without_a_last_line_end_is_whole(tmp_path):
    (tmp_path / "ratings.dat").write_text("7\t2\t3\r\n7\t4\t5")
    ratings = read_ratings(tmp_path / "ratings.dat", "book")
    assert ratings.items.tolist() == ["2", "4"]
    assert ratings.rating.tolist() == [3, 5]


def test_of_a_repeated_rating_the_last_stands_at_its_place(tmp_path):
    (tmp_path / "ratings.dat").write_text("1\t5\t2\n1\t6\t3\n1\t5\t4\n")
    with pytest.warns(UserWarning, match="1 repeated rows"):
        ratings = read_ratings(tmp_path / "ratings.dat", "book")
    assert ratings.items[ratings.item].tolist() == ["6", "5"]
    assert ratings.rating.tolist() == [3, 4]


def test_swapped_columns_of_ratings_are_refused(tmp_path):
    path = write_ratings(tmp_path, key=KEY) / "douban_book" / "ratings.dat"
    read_ratings(path, "book")
    for order, message in (((1, 0, 2), "stand together by the second column"), ((0, 2, 1), "expected 1 to 5")):
        rows = np.loadtxt(path, dtype=int)[:, order]
        np.savetxt(tmp_path / "swapped.dat", rows, fmt="%d", delimiter="\t")
        with pytest.raises(ValueError, match=message):
            read_ratings(tmp_path / "swapped.dat", "book")


tables = st.lists(
    st.tuples(st.integers(0, 30), st.integers(0, 30), st.integers(1, 5)), min_size=1, max_size=15,
    unique_by=lambda row: row[:2],
)  # fmt: skip


@given(tables)
@settings(max_examples=40, deadline=None)
def test_what_is_written_is_what_is_read(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("round") / "ratings.dat"
    path.write_text("".join("\t".join(map(str, row)) + "\n" for row in rows))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ratings = read_ratings(path, "book")
    read = zip(ratings.users[ratings.user], ratings.items[ratings.item], ratings.rating, strict=True)
    assert [(int(user), int(item), int(rating)) for user, item, rating in read] == rows
    assert rows_of(ratings.interactions) == {(str(user), str(item)) for user, item, _ in rows}


def test_douban_is_read_as_its_card_says(data_folder):
    sizes = {"book": (2110, 6777, 96041), "music": (1672, 5567, 69709)}
    read = {
        domain: read_ratings(data_folder / "douban-book-music" / f"douban_{domain}" / "ratings.dat", domain)
        for domain in sizes
    }
    for domain, ratings in read.items():
        assert (len(ratings.users), len(ratings.items), len(ratings.rating)) == sizes[domain]
    assert len(np.intersect1d(read["book"].users, read["music"].users)) == 1566


# ---- MovieLens

GENRES = ["0"] * 19


def film(number, *genres):
    flags = GENRES.copy()
    for genre in genres:
        flags[genre] = "1"
    return f"{number}|A film ({1990 + number})|01-Jan-1995||http://x|" + "|".join(flags)


def test_movielens_100k_by_genre_in_the_order_of_time(tmp_path):
    folder = tmp_path / "ml-100k"
    folder.mkdir()
    (folder / "u.item").write_text("\n".join([film(1, 5), film(2, 5, 8), film(3, 8), film(4, 1)]) + "\n", "latin-1")
    (folder / "u.data").write_text("1\t1\t4\t30\n2\t2\t5\t20\n1\t3\t3\t10\n1\t2\t3\t5\n1\t4\t3\t5\n")
    read = read_movielens(tmp_path, ("Drama", "Comedy"))
    assert list(read) == ["Drama", "Comedy"]
    assert rows_of(read["Drama"].interactions) == {("2", "2"), ("1", "3"), ("1", "2")}  # the first genre has film 2
    assert rows_of(read["Comedy"].interactions) == {("1", "1")}
    drama = read["Drama"]
    assert drama.items[drama.item].tolist() == ["2", "3", "2"]
    assert drama.users[drama.user].tolist() == ["1", "1", "2"]


def test_movielens_1m_by_genre(tmp_path):
    (tmp_path / "movies.dat").write_text("1::Caf\xe9 (1995)::Drama|War\n2::B: C (1996)::Comedy\n", "latin-1")
    (tmp_path / "ratings.dat").write_text("1::1::5::978300760\n1::2::3::978302109\n")
    read = read_movielens(tmp_path, ("War", "Comedy"))
    assert rows_of(read["War"].interactions) == {("1", "1")}
    assert rows_of(read["Comedy"].interactions) == {("1", "2")}
    with pytest.raises(ValueError, match=r"genres: got \['Wars'\], expected some of \['Comedy', 'Drama', 'War'\]"):
        read_movielens(tmp_path, ("Wars", "Comedy"))
    (tmp_path / "ratings.dat").write_text("1::1::5::978300760\n1::9::3::978302109\n")
    with pytest.raises(ValueError, match=r"ratings.dat: got films \[9\], expected none"):
        read_movielens(tmp_path, ("War",))
    (tmp_path / "movies.dat").write_text("1::Drama\n")
    with pytest.raises(ValueError, match=r"movies.dat, line 1: got 2 fields, expected film::title::genres"):
        read_movielens(tmp_path, ("War",))


def test_a_folder_without_movielens_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"expected u.data and u.item, or ratings.dat and movies.dat"):
        read_movielens(tmp_path, ("War",))


# ---- twins


def test_a_twin_is_pure_in_its_key(tmp_path):
    def content(name, key):
        folder = tmp_path / name
        write_cdrib_pair(folder, "games", "films", key=jax.random.key(key), shared=20, private=10, items=40)
        write_ratings(folder, key=jax.random.key(key), shared=20, private=10, items=40)
        return [path.read_bytes() for path in sorted(folder.rglob("*.*")) if path.is_file()]

    assert content("a", 1) == content("b", 1) != content("c", 2)
    assert len(content("a", 1)) == 8


def test_a_twin_has_colliding_private_ids_and_cold_users_of_both_domains(twin):
    films = read_cdrib_pair(twin, "games", "films", shared=100)
    games = read_cdrib_pair(twin, "films", "games", shared=100)
    assert sum(user.startswith("films:") for user in films.train.target.users) == 80
    assert [user.split(":")[-1] for user in films.train.target.users[-80:]] == [
        user.split(":")[-1] for user in games.train.target.users[-80:]
    ]
    cold = [set(result.valid.users) | set(result.test.users) for result in (films, games)]
    assert cold == [{str(user) for user in range(90, 100)}, {str(user) for user in range(80, 90)}]
