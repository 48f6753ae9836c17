"""Find or download public data sets: their addresses, licences and checksums.

The package contains none of their data. ``data.formats`` reads their files. Your own log needs no entry here: read it
with ``data.read_log``.
"""

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

FOLDER_VARIABLE = "REC_TRANSFER_DATA"  # the environment variable that names the folder looked in first
_CDRIB = "https://raw.githubusercontent.com/cjx96/CDRIB/bd9894565ce06e9ab187f8a52ba03919aaee5e13/dataset/"
_DOUBAN = "https://raw.githubusercontent.com/fengzhu1/GA-DTCDR/11a1dc6fda5148c8b1ce412ed4e2f0c4f124e2d0/Data/"
_MOVIELENS_LICENCE = (
    "Research use with acknowledgement; no redistribution without permission, no commercial use without permission "
    "(README of the archive)."
)
_MOVIELENS_CITATION = (
    "Harper and Konstan: The MovieLens Datasets: History and Context. ACM Transactions on Interactive Intelligent "
    "Systems 5(4), 2015."
)


class File(NamedTuple):
    """One file of a data set: its path in the data set's folder, its address and its checksum.

    The checksum is ``"sha256:..."`` (computed from a copy) or ``"md5:..."`` (published with the file). None means that
    no checksum is known, and the file is not checked. A file without an address is part of the data set's archive.
    """

    path: str
    address: str | None = None
    checksum: str | None = None


class Dataset(NamedTuple):
    """One public data set; ``archive`` is downloaded and unpacked if the files have no addresses of their own."""

    name: str
    about: str
    home: str
    licence: str
    citation: str
    files: tuple[File, ...]
    archive: File | None = None


def _files(base, checksums):
    return tuple(File(path, base + path, f"sha256:{checksum}") for path, checksum in checksums.items())


def _movielens(name, about, checksum, files):
    home = f"https://grouplens.org/datasets/movielens/{name[3:]}/"
    archive = File(f"{name}.zip", f"https://files.grouplens.org/datasets/movielens/{name}.zip", f"md5:{checksum}")
    inside = tuple(File(f"{name}/{path}") for path in files)
    return Dataset(f"movielens-{name[3:]}", about, home, _MOVIELENS_LICENCE, _MOVIELENS_CITATION, inside, archive)


DATASETS: dict[str, Dataset] = {
    dataset.name: dataset
    for dataset in (
        Dataset(
            name="douban-book-music",
            about="Ratings 1-5 of books and of music by Douban's users, who keep their ids across domains; no times.",
            home="https://github.com/fengzhu1/GA-DTCDR",
            licence="No licence for the data (the repository's code: GPL-3.0). Redistribution unclear: do not copy.",
            citation=(
                "Zhu et al.: DTCDR, CIKM 2019; Zhu et al.: A Graphical and Attentional Framework for Dual-Target "
                "Cross-Domain Recommendation, IJCAI 2020."
            ),
            files=_files(
                _DOUBAN,
                {
                    "douban_book/ratings.dat": "cc1c191fabe2e05e95cd6dbe7be19d13ed3e1b27b80be2050e4f6b4e40945ddd",
                    "douban_music/ratings.dat": "40944be25f79e6cf80ab9acf0dca8f4b9b9fe2724a068702294608883ad46775",
                },
            ),
        ),
        Dataset(
            name="amazon-cloth-sport",
            about="Who reviewed which clothes and which sports goods on Amazon to 2014; a cold-start split (CDRIB).",
            home="https://github.com/cjx96/CDRIB",
            licence="No licence for the data (the repository: MIT). Redistribution unclear: do not copy; research use.",
            citation=(
                "Cao et al.: Cross-Domain Recommendation to Cold-Start Users via Variational Information Bottleneck, "
                "ICDE 2022; McAuley et al.: Image-based Recommendations on Styles and Substitutes, SIGIR 2015."
            ),
            files=_files(
                _CDRIB,
                {
                    "cloth_sport/train.txt": "12885bf488ae0e3ef11c4dbc518f4bcc82dcccca799ae0506a21a4ce1ccff0c2",
                    "cloth_sport/valid.txt": "f53c435ca8ec036048adcdf495e109dd7fc5f0917d1efdc29f4817f86a3f8fee",
                    "cloth_sport/test.txt": "4980e2e43f9523f9f4633e36e7c84b84caa0d09324f7c768d4985425a2832077",
                    "sport_cloth/train.txt": "9c85ed3ce03c67d97cbf5f7789c70d74e47187d7ec0c5d220943f7ed4a92a4fc",
                    "sport_cloth/valid.txt": "a7a61b75096decef81dc5e59efee15bf5af748ba123ddb22d373fc71ae4537df",
                    "sport_cloth/test.txt": "6f15fea0aa3ec02e4609aa4245ac7a4c6ea3c5e30d662ed1155698ab606e2582",
                },
            ),
        ),
        _movielens(
            "ml-100k",
            "100,000 ratings of 1,682 films; genres as pseudo domains.",
            "0e33842e24a9c977be4e0107933c0723",
            ("u.data", "u.item", "u.genre"),
        ),
        _movielens(
            "ml-1m",
            "1,000,209 ratings of films; genres as pseudo domains.",
            "c4d9eecfca2ab87c1945afe126590906",
            ("ratings.dat", "movies.dat"),
        ),
    )
}


def fetch(name: str, folder: str | Path | None = None) -> Path:
    """Return the folder that holds a data set's files, and download them if they are not there.

    The folder is ``$REC_TRANSFER_DATA/<name>`` if that exists. Otherwise the files are downloaded once and kept. Files
    are compared with their checksums in either case.

    Args:
        name: one of ``DATASETS``.
        folder: where downloads are kept; None means the user's cache folder.

    Raises:
        ValueError: the name is unknown, or a file differs from its checksum (damaged, or another version).
        FileNotFoundError: a file is missing in ``$REC_TRANSFER_DATA/<name>``.
    """
    if name not in DATASETS:
        raise ValueError(f"name: got {name!r}, expected one of {sorted(DATASETS)}")
    dataset = DATASETS[name]
    if os.environ.get(FOLDER_VARIABLE):
        local = Path(os.environ[FOLDER_VARIABLE]) / name
        if local.is_dir():
            for file in dataset.files:
                _check_file(local / file.path, file.checksum)
            return local
    import pooch

    cache = Path(folder or pooch.os_cache("rec_transfer")) / name
    if dataset.archive:
        archive = dataset.archive
        pooch.retrieve(
            archive.address, archive.checksum, fname=archive.path, path=cache, processor=pooch.Unzip(extract_dir=".")
        )
    for file in dataset.files:
        if file.address:
            path = cache / file.path
            pooch.retrieve(file.address, file.checksum, fname=path.name, path=path.parent)
        _check_file(cache / file.path, file.checksum)
    return cache


def _check_file(path, checksum):
    """Raise if a file is missing or differs from its checksum; a checksum of None is not compared."""
    if not path.is_file():
        raise FileNotFoundError(f"{path.name}: no such file in {path.parent}")
    if checksum is not None:
        kind, wanted = checksum.split(":")
        got = hashlib.new(kind, path.read_bytes()).hexdigest()
        if got != wanted:
            raise ValueError(
                f"{path.parent.name}/{path.name}: got {kind} {got}, expected {wanted} (damaged, or another version)"
            )
