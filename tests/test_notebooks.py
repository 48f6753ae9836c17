"""Every stored notebook keeps every rule, and every rule is broken here by a small notebook, so that it can fail."""

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output
from notebook_book import Book
from notebook_rules import RULES, WIDEST, faults, unsaved

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
FIGURES = frozenset(path.name for path in (ROOT / "figures").glob("*"))


def read(path):
    return Book(path.name, nbformat.read(path, as_version=4), FIGURES)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_follows_the_layout(path):
    nbformat.validate(nbformat.read(path, as_version=4))
    assert not (found := faults(read(path))), "\n".join(found)


def test_ruff_holds_notebooks_to_the_same_width_from_the_root():
    command = [sys.executable, "-m", "ruff", "check", "--show-settings", NOTEBOOKS[0].relative_to(ROOT)]
    settings = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert f"linter.line_length = {WIDEST}\n" in settings
    assert f"formatter.line_width = {WIDEST}\n" in settings


def test_every_figure_is_saved_by_a_notebook():
    left = unsaved([read(path) for path in NOTEBOOKS], FIGURES)
    assert not left, f"no notebook saves figures/{', '.join(left)}: delete it, or save it with plotting.save"


# A small notebook that keeps every rule, and what breaks each of them.

HEADER = """# 09 · Alignment
**You will be able to** align. **Before this**: nothing.
**Time**: under 20 s on two CPU cores · **Reads**: nothing

| symbol | meaning | in code |
|---|---|---|
| $x$ | counts | `counts` |"""
EQUATION = "## 1. A question\n\n$$ a = b \\tag{9.1} $$\n\nand $$ c = d \\tag{9.2} $$, see equation (9.1)."
CHECK = 'figure = plot()\nplotting.save(figure, "09_maps")\nplt.show()\nassert True, "the two differ"'
END = "## What to take away\n\n## References\n\n## 小结"
SETUP, EQUATIONS, COMPUTED, FORK, SOLUTION, SELF_CHECK, LAST = 1, 2, 3, 5, 7, 8, 16  # positions


def code(source, *tagged, outputs=()):
    return new_code_cell(source, metadata={"tags": list(tagged)}, outputs=list(outputs))


def shows(text, kind="text/plain"):
    return new_output("display_data", {kind: text})


def small():
    """A notebook that keeps every rule."""
    table = new_output("execute_result", {"text/plain": "<Table at 0x7f00>", "text/html": "<td width=1.2345>1.2</td>"})
    cells = [
        new_markdown_cell(HEADER),
        code("import numpy as np", "setup"),
        new_markdown_cell(EQUATION),
        code(CHECK, outputs=[shows("a 0.123 or 1,234 or 1.2.3456 or 100.000"), shows("QUJD", "image/png"), table]),
        new_markdown_cell("## Fork this"),
        code("print(1.23456)", "nbval-check-output", outputs=[new_output("stream", name="stdout", text="1.23456")]),
    ]
    for number in (1, 2, 3):
        cells += [
            new_markdown_cell(f"{'## Exercises' if number == 1 else ''}\n\n### Exercise {number} · recall"),
            code('def one():\n    """One."""\n    return 1', "solution"),
            code('assert one() == 1, f"got {one()}, expected 1"', "self-check"),
        ]
    cells += [new_markdown_cell(END), code("print(np.__version__)", "versions", outputs=[shows("2.4567")])]
    for count, cell in enumerate((cell for cell in cells if cell.cell_type == "code"), start=1):
        cell.execution_count = count
    return nbformat.v4.new_notebook(cells=cells)


def book_of(notebook, figures=("09_maps.png",)):
    return Book("09_alignment.ipynb", notebook, frozenset(figures))


def output(position, made):
    return lambda cells: cells[position].outputs.append(made)


def source(position, old, new):
    def change(cells):
        assert old in cells[position].source
        cells[position].source = cells[position].source.replace(old, new)

    return change


def tagged(position, *names):
    return lambda cells: cells[position].metadata.update(tags=list(names))


def dropped(position):
    return lambda cells: cells.pop(position)


def counted_as(position, count):
    return lambda cells: cells[position].update(execution_count=count)


HTML = "<style>a {width: 1.2345em}</style><td width=1.2345>0.1234</td>"
PATH = "\x1b[32m" + "/".join(["", "home", "ann", "x.png"])  # put together here, as no file may hold such a path
TWO_CHECKS = "np.testing.assert_equal(plot(), 1)\n"
FOLDED = {"jupyter": {"source_hidden": True}}
BREAKS = [
    ("counted", counted_as(COMPUTED, None), "counts are [1, None, 3"),
    ("counted", counted_as(LAST, 20), "not 1 to 10"),
    ("no_errors", output(FORK, new_output("error", ename="KeyError", evalue="", traceback=[])), "stores KeyError"),
    ("no_stderr", output(FORK, new_output("stream", name="stderr", text="W")), "writes to stderr"),
    ("short_numbers", output(COMPUTED, shows("the loss is 0.01234.")), "prints 0.01234:"),
    ("short_numbers", output(COMPUTED, shows("12.34e-05")), "prints 12.34:"),
    ("short_numbers", output(COMPUTED, shows(HTML, "text/html")), "prints 0.1234:"),
    ("no_addresses", output(COMPUTED, shows("<Line at 0x7f00>")), "<Line at 0x7f00"),
    ("no_machine_paths", output(COMPUTED, shows(f"saved in {PATH}")), "a path of one machine"),
    ("no_machine_paths", output(FORK, new_output("error", ename="", evalue="", traceback=[PATH])), "a path of one"),
    ("no_machine_paths", source(SETUP, "numpy", "numpy  # D:\\data"), "a path of one machine"),
    ("small_file", output(COMPUTED, shows("A" * 1_000_000, "image/svg+xml")), "fewer points per figure"),
    ("plain_python", source(FORK, "print(", "%time print("), "not Python"),
    ("plain_python", source(FORK, "print(1.23456)", "!ls"), "not Python"),
    ("no_semicolons", source(COMPUTED, "plt.show()", "plt.show();"), "has a semicolon"),
    ("no_skips", tagged(FORK, "nbval-skip"), "is skipped"),
    ("no_interact", source(COMPUTED, "plot()", "widgets.interact(plot)"), "calls interact("),
    ("exact_by_tag", source(FORK, "print", "# NBVAL_CHECK_OUTPUT\nprint"), "holds an NBVAL_ comment"),
    ("exact_by_tag", source(SETUP, "import", "# NBVAL_SKIP\nimport"), "holds an NBVAL_ comment"),
    ("exact_by_tag", tagged(FORK, "nbval-check-outputs"), "which nbval does not know"),
    ("no_format_switches", source(FORK, "print(1.23456)", "print(1.23456)  # fmt: skip"), "holds `# fmt:`"),
    ("no_format_switches", source(SETUP, "numpy as np", "numpy as np  #noqa"), "holds `#noqa`"),
    ("figures_kept", source(COMPUTED, "plt.show()", "pass"), "without plt.show()"),
    ("figures_kept", source(COMPUTED, "09_maps", "09_other"), "09_other.png is missing"),
    ("figures_kept", source(COMPUTED, '"09_maps"', "name"), "literal name"),
    ("figures_kept", source(COMPUTED, "09_maps", "maps"), 'starts with "09_"'),
    ("short_lines", source(COMPUTED, "plot()", f"plot({'a' * 75})"), "line 1 has 90 characters, more than 88"),
    ("short_cells", source(SETUP, "import numpy as np", "\n".join(["pass"] * 41)), "has 41 lines, more than 40"),
    ("one_check_in_sight", source(COMPUTED, "plot()", TWO_CHECKS), "checks in lines 1, 5: one check"),
    ("hidden_is_folded", tagged(FORK, "hide-input"), "lacks the metadata jupyter.source_hidden"),
    ("hidden_is_folded", lambda cells: cells[FORK].metadata.update(FOLDED), "lacks the tag hide-input"),
    ("titled", source(0, "09 ·", "9:"), "the title `# 09 · ...`"),
    ("bold_lines", source(0, "**Before this**", "Before"), "no line **Before this**"),
    ("bold_lines", source(0, "**Time**", "**Reads** **Time**"), "in this order"),
    ("timed", source(0, "under 20 s", ""), "no measured time"),
    ("timed", source(0, "20 s", "70 s"), "takes 70 s"),
    ("symbol_table", source(0, "| in code |", "|"), "ends with the table"),
    ("symbol_table", source(0, "$x$", ""), "with a symbol in it"),
    ("set_up", tagged(SETUP), "tagged are the cells []"),
    ("set_up", tagged(FORK, "setup"), f"tagged are the cells [{SETUP}, {FORK}]"),
    ("sections", source(LAST - 1, "## 小结", ""), "no section `## 小结`"),
    ("sections", source(LAST - 1, END, "## References\n\n## What to take away\n\n## 小结"), "in this order"),
    ("versions_last", tagged(LAST), "tagged versions"),
    ("versions_last", lambda cells: cells.append(new_markdown_cell("More.")), "tagged versions"),
    ("checked", source(COMPUTED, 'assert True, "the two differ"', "pass"), "no assert outside the exercises"),
    ("asserts_explain", source(COMPUTED, ', "the two differ"', ""), "line 4: an assert needs a message"),
    ("speaks_to_readers", source(COMPUTED, "the two differ", "they differ: rewrite the text"), 'says "rewrite"'),
    ("speaks_to_readers", source(COMPUTED, "the two differ", "it should be narrow: the text says"), '"the text"'),
    ("speaks_to_readers", source(COMPUTED, "the two differ", "the check should say so"), 'says "say so"'),
    ("speaks_to_readers", source(COMPUTED, "plot()", "np.testing.assert_equal(1, 2, 'reword')"), "line 1 says"),
    ("speaks_to_readers", source(SELF_CHECK, "expected 1", "rewrite the text"), 'says "rewrite"'),
    ("exercises", tagged(SELF_CHECK), "no code cell tagged `self-check`"),
    ("exercises", source(SOLUTION - 1, "Exercise 1", "Exercise 4"), "numbered [4, 2, 3]"),
    ("exercises", lambda cells: cells.__delitem__(slice(12, 15)), "numbered [1, 2]"),
    ("equations_numbered", source(EQUATIONS, "9.2", "9.3"), "numbered 9.1, 9.3, expected 9.1, 9.2"),
    ("equations_numbered", source(EQUATIONS, "9.2", "9.1"), "numbered 9.1, 9.1"),
    ("equations_numbered", source(EQUATIONS, "(9.1)", "(9.4)"), "equation 9.4, which is not there"),
    ("equations_checked", dropped(COMPUTED), "equation 9.2 (cell 2): a cell that computes it"),
    ("equations_checked", source(COMPUTED, 'assert True, "the two differ"', "pass"), "section has no assert"),
]  # fmt: skip


def test_a_good_notebook_keeps_every_rule():
    nbformat.validate(small())
    assert faults(book_of(small())) == []
    with_testing = small()
    source(COMPUTED, 'assert True, "the two differ"', "np.testing.assert_allclose(1, 1)")(with_testing.cells)
    assert faults(book_of(with_testing)) == []
    teaching = small()
    output(FORK, new_output("error", ename="KeyError", evalue="", traceback=[]))(teaching.cells)
    tagged(FORK, "raises-exception", "nbval-check-output")(teaching.cells)
    assert faults(book_of(teaching)) == []


def test_checks_that_are_folded_away_may_be_many_and_folded_solutions_need_no_tag():
    folded = small()
    more = code("\n".join(f'assert {number}, "zero"  # noqa' for number in (1, 2, 3)), "hide-input")
    more.metadata.update(FOLDED)
    folded.cells.insert(COMPUTED + 1, more)
    folded.cells[SOLUTION + 1].metadata.update(FOLDED)
    for count, cell in enumerate((cell for cell in folded.cells if cell.cell_type == "code"), start=1):
        cell.execution_count = count
    assert faults(book_of(folded)) == []


def test_widest_line_and_longest_cell_pass():
    full = small()
    source(SETUP, "import numpy as np", "\n".join(["#" * 88] * 40))(full.cells)
    assert faults(book_of(full)) == []


@pytest.mark.parametrize(("name", "spoil", "fault"), BREAKS)
def test_every_rule_can_fail(name, spoil, fault):
    (rule,) = [rule for rule in RULES if rule.__name__ == name]
    notebook = small()
    spoil(notebook.cells)
    found = list(rule(book_of(notebook)))
    assert any(fault in line for line in found), found


def test_every_rule_has_a_notebook_that_breaks_it():
    assert {name for name, _, _ in BREAKS} == {rule.__name__ for rule in RULES}


def test_a_figure_that_no_notebook_saves_is_found():
    assert unsaved([book_of(small())], ["09_maps.png", "old.png"]) == ["old.png"]
