"""What people install, type and cite agrees: pins, bounds, verbs, links; and no file names a machine or an index."""

import importlib.util
import re
import subprocess
import tomllib
from pathlib import Path

import nbformat
import pytest
import run_notebooks
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PYTHONS = ("3.11", "3.13")
UNPINNED = {"bench"}  # the peers of the benchmarks
LARGEST = 1_000_000  # bytes of a tracked file
LARGER = {"data/user_behavior_data.csv"}
LONGEST = 300  # lines of a module
# Patterns that do not match themselves: this file is searched too.
FORBIDDEN = (
    r"/(work|farm|root|tmp|home|Users)/",
    r"[A-Z]:\\\\?Users",
    r"(?i)index[-_]url",
    r"(?i)find[-_]links",
    r"/simpl[e]\b",
    r"pypi\.org",
    r"pythonhosted\.org",
    r"(localhost|127\.0\.0\.1):\d",
)


def tracked():
    """Files that git knows or would take at the next ``git add``."""
    command = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout: which files belong to the project is not known")
    return sorted({name for name in listed.split("\0") if name and (ROOT / name).is_file()})


def pins(path):
    """Each requirement of a pip file with its hashes; backslashes join lines."""
    lines = (ROOT / path).read_text().replace("\\\n", " ").splitlines()
    entries = (re.split(r"\s+--hash=", line) for line in lines if line.strip() and not line.startswith("#"))
    return [(Requirement(requirement), hashes) for requirement, *hashes in entries]


def applies(requirement, python):
    environment = {"python_version": python, "python_full_version": f"{python}.7", "sys_platform": "linux"}
    return requirement.marker is None or requirement.marker.evaluate(environment)


def forbidden(text):
    """What a text says about one machine or a package index, one line each; pictures in notebooks are left out."""
    for number, line in enumerate(text.splitlines(), start=1):
        for pattern in FORBIDDEN if '"image/png"' not in line else ():
            if found := re.search(pattern, line):
                yield f"line {number}: {found[0]} in {line.strip()[:100]!r}"


# Versions


def test_both_requirement_files_pin_the_same():
    locked = [str(requirement) for requirement, _ in pins("requirements.lock")]
    assert locked == [str(requirement) for requirement, _ in pins("requirements.txt")], "run make lock, commit both"
    assert len(locked) > 50


def test_every_pin_is_exact_and_hashed():
    for requirement, hashes in pins("requirements.lock"):
        (pin,) = requirement.specifier
        assert pin.operator == "==", f"{requirement} is no exact pin"
        assert "*" not in pin.version, f"{requirement} is no exact pin"
        assert requirement.url is None, f"{requirement} names a URL"
        assert hashes, f"{requirement} has no hash"
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}\s*", one) for one in hashes), f"{requirement}: {hashes}"


@pytest.mark.parametrize("path", ["requirements.lock", "requirements.txt"])
def test_no_index_or_option_in_the_pins(path):
    text = (ROOT / path).read_text()
    assert "://" not in text
    options = re.findall(r"(?m)(?:^|\s)(-[a-zA-Z]|--[a-z-]+)\b", text)
    assert set(options) <= {"--hash"}, options


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("extra", [None, *(name for name in PROJECT["optional-dependencies"] if name not in UNPINNED)])
def test_every_dependency_is_pinned_once_within_its_bounds(extra, python):
    wanted = PROJECT["dependencies"] if extra is None else PROJECT["optional-dependencies"][extra]
    for requirement in map(Requirement, wanted):
        if not applies(requirement, python):
            continue
        name = canonicalize_name(requirement.name)
        found = [pin for pin, _ in pins("requirements.lock") if canonicalize_name(pin.name) == name]
        versions = [next(iter(pin.specifier)).version for pin in found if applies(pin, python)]
        assert len(versions) == 1, f"{requirement} on Python {python}: pinned as {versions}; run make lock"
        assert requirement.specifier.contains(versions[0]), f"{requirement}: pinned {versions[0]}; run make lock"
        operators = {bound.operator for bound in requirement.specifier}
        assert operators == {">=", "<"}, f"{requirement}: give a lower and an upper bound"


@pytest.mark.parametrize("extra", sorted(UNPINNED))
def test_what_stays_out_of_the_lock_has_bounds(extra):
    locked = {canonicalize_name(pin.name) for pin, _ in pins("requirements.lock")}
    for requirement in map(Requirement, PROJECT["optional-dependencies"][extra]):
        assert canonicalize_name(requirement.name) not in locked
        assert {bound.operator for bound in requirement.specifier} == {">=", "<"}, f"{requirement}: give both bounds"


@pytest.mark.parametrize("python", PYTHONS)
def test_no_package_is_pinned_twice_for_one_python(python):
    names = [canonicalize_name(pin.name) for pin, _ in pins("requirements.lock") if applies(pin, python)]
    assert sorted(names) == sorted(set(names))


def test_conda_installs_the_same():
    text = (ROOT / "environment.yml").read_text()
    environment = yaml.safe_load(text)
    assert set(environment) == {"name", "channels", "dependencies"}
    assert environment["channels"] == ["conda-forge"], "channels are names, no hosts"
    assert not re.search(r"://|\w\.(org|com|io|net)\b", text), "no hosts"
    python, pip, inner = environment["dependencies"]
    name, bound = python.split(" ", 1)
    assert (name, pip) == ("python", "pip")
    assert SpecifierSet(bound) == SpecifierSet(PROJECT["requires-python"])
    assert inner == {"pip": ["-r requirements.txt", "-e ."]}


def test_python_floor_is_one_everywhere():
    (floor,) = re.findall(r">=(\d+\.\d+)", PROJECT["requires-python"])
    assert floor == PYTHONS[0]
    assert f"v < ({floor.replace('.', ', ')})" in (ROOT / "Makefile").read_text()
    assert all(Version(python) in SpecifierSet(PROJECT["requires-python"]) for python in PYTHONS)


def test_citation_is_that_of_the_project():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert citation["type"] == "software"
    assert citation["message"]
    assert citation["authors"]
    assert canonicalize_name(citation["title"]) == PROJECT["name"]
    assert str(citation["version"]) == PROJECT["version"]
    assert citation["license"] == PROJECT["license"] == "MIT"
    assert (ROOT / "LICENSE").read_text().startswith("MIT License")
    assert not {"doi", "identifiers"} & set(citation)


# Verbs


def targets():
    return set(re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text()))


def spoken_verbs(markdown):
    """Verbs after ``make`` in code, inline or in blocks; prose may make what it likes."""
    code = re.findall(r"(?s)```.*?```|`[^`\n]+`", markdown)
    return {verb for part in code for verb in re.findall(r"(?m)(?:^|[`\s])make ([a-z][a-z-]*)", part)}


def test_verbs_are_read_from_code_alone():
    text = "make sense of `make test` and\n```sh\nmake case-study  # set up\nmake ONLY=1 x\n```\nor `remake it`"
    assert spoken_verbs(text) == {"test", "case-study"}


def test_every_verb_that_is_spoken_of_exists():
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))):
        assert spoken_verbs(path.read_text()) <= targets(), path.name
    assert {"case-study", "test"} <= spoken_verbs((ROOT / "README.md").read_text())


def test_every_phony_verb_has_a_rule():
    (phony,) = re.findall(r"(?m)^\.PHONY: (.*)$", (ROOT / "Makefile").read_text())
    assert set(phony.split()) <= targets()


@pytest.mark.parametrize(("folder", "runs"), [("data", 2), ("", 1)])
def test_the_notebook_on_public_data_is_checked_with_and_without_them(folder, runs):
    command = ["make", "-n", "notebooks-check", f"REC_TRANSFER_DATA={folder}"]
    lines = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    checks = [line for line in lines if "--nbval" in line]
    assert len(checks) == runs
    assert checks[0].split()[-1] == "notebooks"
    if runs == 2:
        assert checks[1].split()[0] == "REC_TRANSFER_DATA="
        assert (ROOT / checks[1].split()[-1]).name == "15_real_data.ipynb"


def test_setting_up_says_what_it_does_and_for_how_long_before_it_does_it():
    command = ["make", "-n", "-W", "requirements.lock", "case-study"]
    lines = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    said = [at for at, line in enumerate(lines) if re.match(r'echo "setting up \.venv.*: about \d+ s, once"', line)]
    made = [at for at, line in enumerate(lines) if "venv --" in line or "pip install" in line]
    assert len(said) == 1
    assert made
    assert said[0] < min(made)


def test_the_case_study_says_what_it_runs_and_for_how_long_before_it_runs_it(monkeypatch, capsys):
    monkeypatch.setattr(run_notebooks, "execute", lambda path: 1 / 0)
    monkeypatch.setenv("REC_TRANSFER_FIGURES", "unused")
    with pytest.raises(ZeroDivisionError):
        run_notebooks.case_study()
    assert re.search(r"running the case study, notebooks/12_\w+\.ipynb: under \d+ s", capsys.readouterr().out)


def test_cells_that_run_are_counted():
    cells = [nbformat.v4.new_markdown_cell("x"), *map(nbformat.v4.new_code_cell, ("1", " ", "2"))]
    assert run_notebooks.code_cells(nbformat.v4.new_notebook(cells=cells)) == 2


def test_the_quick_verb_lints_and_leaves_out_slow_tests_and_the_long_one_leaves_out_none():
    quick, unit = (
        subprocess.run(
            ["make", "--no-print-directory", "-n", verb], cwd=ROOT, check=True, capture_output=True, text=True
        ).stdout
        for verb in ("quick", "unit")
    )
    assert '-m "not slow" tests' in quick
    assert "ruff check ." in quick
    assert "--nbval-lax" in quick
    assert quick.rstrip().endswith("notebooks/00_tour.ipynb")
    assert "slow" not in unit


def test_ci_runs_the_verbs_of_the_readme():
    commands = (ROOT / ".ci" / "run").read_text().splitlines()
    assert {"make test", "make lint"} <= {command.strip() for command in commands}
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o100, ".ci/run is not executable"


# Files


def test_tracked_files_are_small():
    sizes = {name: (ROOT / name).stat().st_size for name in tracked()}
    large = {name: size for name, size in sizes.items() if size > LARGEST and name not in LARGER}
    assert not large, f"over {LARGEST:,} bytes: {large}"


# The bars keep these lines from being found in this file; they are taken out before the search.
@pytest.mark.parametrize(
    "text",
    [
        "see /ro|ot/x", "cd /tm|p/x", "file:///ho|me/ann", "'/wo|rk/main'", "/Us|ers/ann", r"C:\Us|ers\ann",
        r"C:\\Us|ers",
        "--index|-url x", "--extra-index|-url x", "UV_INDEX|_URL=x", "index|_url = x", "--find|-links x",
        "https://mirror/simp|le/", "https://py|pi.org", "https://files.python|hosted.org", "http://local|host:8888",
    ],
)  # fmt: skip
def test_paths_and_indexes_are_seen(text):
    assert list(forbidden(text)) == []
    (found,) = forbidden("first line\n" + text.replace("|", ""))
    assert found.startswith("line 2: ")


def test_pictures_and_relative_paths_are_no_machine_paths():
    assert not list(forbidden('"image/png": "AA/ro|ot/AA"'.replace("|", "")))
    assert not list(forbidden("../data/x.csv, build/work, a simple/plain index of roots, rec_transfer/types.py"))


def test_no_file_names_a_machine_or_an_index():
    found = []
    for name in tracked():
        try:
            text = (ROOT / name).read_text(encoding="utf-8")
        except UnicodeDecodeError:  # a picture
            continue
        found += [f"{name}, {line}" for line in forbidden(text)]
    assert not found, "\n".join(found)


def test_modules_are_short():
    lengths = {path.name: len(path.read_text().splitlines()) for path in (ROOT / "rec_transfer").glob("**/*.py")}
    assert lengths
    long = {name: length for name, length in lengths.items() if length >= LONGEST}
    assert not long, f"{long}: one concept a file, under {LONGEST} lines"


def dead_links(path, markdown):
    """Relative links, from the folder of ``path``, to files that are not there."""
    text = re.sub(r"(?s)```.*?```|`[^`\n]+`", "", markdown)
    links = re.findall(r"\]\(([^)\s#]+)(?:#[^)]*)?\)", text)
    return [link for link in links if not re.match(r"[a-z]+:", link) and not (path.parent / link).exists()]


def test_a_dead_link_is_found(tmp_path):
    (tmp_path / "here.md").touch()
    text = "[a](here.md), [b](here.md#part), [c](https://example.org/x), `[d](code.md)`, ![e](gone.png) [f](gone.md#x)"
    assert dead_links(tmp_path / "text.md", text) == ["gone.png", "gone.md"]


PAGES = [path for folder in (".", "docs", "data") for path in sorted((ROOT / folder).glob("*.md"))]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_between_pages_hold(path):
    assert not (dead := dead_links(path, path.read_text(encoding="utf-8"))), dead


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_links_of_notebooks_hold(path):
    cells = nbformat.read(path, as_version=4).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    assert not (dead := dead_links(path, text)), dead


def test_workers_share_the_cores_without_an_overlap_or_a_rest():
    spec = importlib.util.spec_from_file_location("root_conftest", ROOT / "conftest.py")
    root = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(root)
    assert root.cores_of(None, 1, [3, 5]) == [3, 5]
    for cores, workers in ([0, 1], 2), ([2, 3, 6, 7], 2), ([0, 1, 2], 2):
        shares = [root.cores_of(f"gw{number}", workers, cores) for number in range(workers)]
        assert sorted(core for share in shares for core in share) == cores
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert [root.cores_of(f"gw{number}", 4, [0, 1]) for number in range(4)] == [[0], [1], [0], [1]]
