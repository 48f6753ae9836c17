"""The registry vouches for what it says, and a file that is missing or altered is not handed out."""

import hashlib
import re
import zipfile
from pathlib import Path

import pytest

from rec_transfer.data import datasets
from rec_transfer.data.datasets import DATASETS, Dataset, File, fetch

REAL = ("douban-book-music", "amazon-cloth-sport")


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A data set of one file, as one would find it under REC_TRANSFER_DATA."""
    content = b"1\t2\n"
    checksum = "sha256:" + hashlib.sha256(content).hexdigest()
    files = (File("part/rows.txt", "https://example.org/rows.txt", checksum),)
    monkeypatch.setitem(DATASETS, "tiny", Dataset("tiny", "", "", "", "", files))
    path = tmp_path / "data" / "tiny" / "part" / "rows.txt"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    monkeypatch.setenv(datasets.FOLDER_VARIABLE, str(tmp_path / "data"))
    return path


def test_every_entry_says_whose_it_is_and_what_may_be_done_with_it():
    for name, dataset in DATASETS.items():
        assert dataset.name == name
        assert dataset.about
        assert dataset.licence
        assert dataset.citation
        assert dataset.home.startswith("https://")
        for file in (*dataset.files, *([dataset.archive] if dataset.archive else [])):
            assert file.address is None or file.address.endswith(file.path)
            lengths = {"sha256": 64, "md5": 32}
            if file.checksum is not None:
                kind, digits = file.checksum.split(":")
                assert re.fullmatch(rf"[0-9a-f]{{{lengths[kind]}}}", digits)
        assert dataset.archive or all(file.address and file.checksum for file in dataset.files)


@pytest.mark.parametrize("name", REAL)
def test_the_checksums_are_those_of_the_files_at_hand(name, data_folder, monkeypatch):
    monkeypatch.setenv(datasets.FOLDER_VARIABLE, str(data_folder))
    assert fetch(name) == data_folder / name


def test_the_folder_named_by_the_environment_comes_first(tiny):
    assert fetch("tiny") == tiny.parents[1]


def test_an_altered_file_is_refused(tiny):
    tiny.write_bytes(b"1\t3\n")
    with pytest.raises(ValueError, match=r"part/rows.txt: got sha256 \w{64}, expected \w{64} \(damaged, or another"):
        fetch("tiny")


def test_a_missing_file_is_named(tiny):
    tiny.unlink()
    with pytest.raises(FileNotFoundError, match=r"rows.txt: no such file in .*part"):
        fetch("tiny")


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match=r"name: got 'netflix', expected one of .*'movielens-100k'"):
        fetch("netflix")


@pytest.fixture
def downloads(monkeypatch):
    """What would be downloaded, written by a stand-in for the network: address -> content."""
    import pooch

    contents, asked = {}, []

    def download(address, output_file, pooch):
        asked.append(address)
        Path(output_file).write_bytes(contents[address])

    monkeypatch.setattr(pooch.core, "choose_downloader", lambda address, progressbar=False: download)
    return contents, asked


def test_what_is_not_there_is_downloaded_once_and_checked(tiny, downloads, tmp_path, monkeypatch):
    contents, asked = downloads
    monkeypatch.delenv(datasets.FOLDER_VARIABLE)
    contents["https://example.org/rows.txt"] = tiny.read_bytes()
    for _ in range(2):
        place = fetch("tiny", tmp_path / "cache")
        assert (place / "part" / "rows.txt").read_bytes() == tiny.read_bytes()
    assert asked == ["https://example.org/rows.txt"]


def test_a_download_with_another_checksum_is_refused(tiny, downloads, tmp_path, monkeypatch):
    monkeypatch.delenv(datasets.FOLDER_VARIABLE)
    downloads[0]["https://example.org/rows.txt"] = b"a page that says sorry"
    with pytest.raises(ValueError, match="SHA256"):
        fetch("tiny", tmp_path / "cache")


def test_an_archive_is_unpacked(downloads, tmp_path, monkeypatch):
    monkeypatch.delenv(datasets.FOLDER_VARIABLE, raising=False)
    with zipfile.ZipFile(tmp_path / "ml.zip", "w") as archive:
        archive.writestr("ml/u.data", "1\t1\t5\t9\n")
    content = (tmp_path / "ml.zip").read_bytes()
    checksum = "md5:" + hashlib.md5(content).hexdigest()
    archive = File("ml.zip", "https://example.org/ml.zip", checksum)
    monkeypatch.setitem(DATASETS, "ml", Dataset("ml", "", "", "", "", (File("ml/u.data"),), archive))
    downloads[0]["https://example.org/ml.zip"] = content
    assert (fetch("ml", tmp_path / "cache") / "ml" / "u.data").read_text() == "1\t1\t5\t9\n"
