"""Execute notebooks: the case study for a reader (results under build/), or all of them in place for the repository."""

import argparse
import math
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import jupytext
import nbclient
import nbformat
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
BUILD = ROOT / "build"


def code_cells(notebook: nbformat.NotebookNode) -> int:
    """How many cells there are to execute."""
    return sum(cell.cell_type == "code" and bool(cell.source.strip()) for cell in notebook.cells)


def stated_time(path: Path) -> str:
    """What the notebook's header says it takes, such as "under 60 s on two CPU cores"."""
    found = re.search(r"\*\*Time\*\*: ([^·\n]*)", nbformat.read(path, as_version=4).cells[0].source)
    return found[1].strip() if found else "no time stated"


def execute(path: Path) -> tuple[nbformat.NotebookNode, float]:
    """Run every cell in a fresh kernel, in the notebook's folder; returns the notebook and the seconds it took.

    In a terminal a bar counts the cells; where nobody watches, it is not drawn.
    """
    notebook = nbformat.read(path, as_version=4)
    bar = tqdm(total=code_cells(notebook), desc=path.stem, unit="cell", disable=None, leave=False)
    client = nbclient.NotebookClient(
        notebook,
        timeout=300,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        extra_arguments=["--log-level=ERROR"],
        resources={"metadata": {"path": path.parent}},
        on_cell_executed=lambda **_: bar.update(),
    )
    start = time.perf_counter()
    with bar:
        client.execute()
    return notebook, time.perf_counter() - start


def tidy(notebook: nbformat.NotebookNode, seconds: float) -> None:
    """Keep what readers need: outputs and counts; put the measured time (rounded up to 10 s) into the header."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:03d}"
    header = notebook.cells[0]
    rounded = math.ceil(seconds / 10) * 10
    header.source = re.sub(r"\*\*Time\*\*: [^·\n]*", f"**Time**: under {rounded} s on two CPU cores ", header.source)


def case_study() -> None:
    """Run the case study on the committed data; print its result table and where everything is."""
    import pandas as pd

    os.environ.setdefault("REC_TRANSFER_FIGURES", str(BUILD / "figures"))
    path = NOTEBOOKS / "12_case_study.ipynb"
    print(f"running the case study, notebooks/{path.name}: {stated_time(path)}, longer the first time", flush=True)
    notebook, seconds = execute(path)
    BUILD.mkdir(exist_ok=True)
    nbformat.write(notebook, BUILD / "12_case_study.ipynb")
    table = pd.read_csv(BUILD / "case_study.csv")
    shown = table[table.metric == "NDCG@10"].assign(
        interval=lambda rows: [f"[{low:.3f}, {high:.3f}]" for low, high in zip(rows.low, rows.high, strict=True)]
    )
    print("\nNDCG@10 for new users of the target domain, with 95 % bootstrap intervals over users\n")
    print(shown[["source", "target", "method", "mean", "interval"]].round(3).to_string(index=False))
    print(f"\nran in {seconds:.0f} s; all metrics: build/case_study.csv")
    print("executed notebook: build/12_case_study.ipynb; figures: build/figures/")


def fold_in(text: Path) -> None:
    """Make the notebook from its edited text (see ``make text``) where the text is the newer of the two."""
    path = NOTEBOOKS / f"{text.stem}.ipynb"
    if not path.exists() or text.stat().st_mtime > path.stat().st_mtime:
        nbformat.write(jupytext.read(text, fmt="py:percent"), path)
        subprocess.run([sys.executable, "-m", "ruff", "format", "--quiet", path], check=True)


def store(only: list[str]) -> None:
    """Re-execute notebooks in place, with their figures, and say how long each took."""
    os.environ["REC_TRANSFER_FIGURES"] = str(ROOT / "figures")
    for text in sorted((BUILD / "text").glob("*.py")):
        if text.name.startswith(tuple(only or [""])):
            fold_in(text)
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        if not path.name.startswith(tuple(only or [""])):
            continue
        notebook, seconds = execute(path)
        tidy(notebook, seconds)
        nbformat.write(notebook, path)
        print(f"{path.name}: {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["case-study", "store"])
    parser.add_argument("only", nargs="*", help="numbers of the notebooks to store, e.g. 09; all by default")
    chosen = parser.parse_args()
    case_study() if chosen.what == "case-study" else store(chosen.only)
