"""Every exercise, both ways: its solution passes its self-check, stubs and wrong answers do not."""

import contextlib
import io
import sys
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import nbclient
import nbformat
import numpy as np
import pytest
from exercise_mutants import ALWAYS, MUTANTS, Spoilt

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import student_copies  # noqa: E402
from student_copies import MalformedNotebook, find_exercises, function_names, replace_bodies, stub  # noqa: E402

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SHORTEST = 15  # characters: less than this explains nothing
# Exercises by notebook whose checks print nothing or accept a mutant, until they are mended. No new ones.
WEAK = {
    #
    "02_behaviour_data": (1, 2, 3, 4),
    #
    "03_synthetic_world": (4, 5),
    #
    #
    "08_vae": (1, 2, 3, 4, 5),
    #
    "09_alignment": (3, 4),
    #
    #
    "11_recommend": (1, 2, 3, 4),
    #
    #
    #
    #
    "12_case_study": (4,),
    #
    "15_real_data": (1, 2, 3, 4),
    #
    "23_scaling": (2, 3),
}
# What a check may raise on a function that returns None; a NameError would be the notebook's own mistake.
STUMBLES = (AssertionError, AttributeError, IndexError, KeyError, TypeError, ValueError)


def run(source, names, where):
    exec(compile(source, where, "exec"), names)


def outcome(solution, check, setup_names, where, change=lambda names: None):
    """The error that the self-check, or the solution before it, ends with; None where it passes.

    ``change`` may put other functions into the notebook's names after the solution.
    """
    names = dict(setup_names)
    try:
        run(solution, names, f"{where}: solution")
        change(names)
        run(check, names, f"{where}: self-check")
    except Exception as error:
        return error
    return None


def survivors(solution, check, setup_names, where):
    """Function and mutant, of every wrong answer that the self-check accepts."""
    for function in function_names(solution):
        for mutant in MUTANTS:
            made = []

            def spoil(names, function=function, mutant=mutant, made=made):
                made.append(Spoilt(names[function], mutant))
                names[function] = made[0]

            with contextlib.redirect_stdout(io.StringIO()):
                error = outcome(solution, check, setup_names, where, spoil)
            if error is None and made[0].differs:
                yield f"{function}: {mutant}"


def described(error):
    return "nothing is raised" if error is None else f"{type(error).__name__}: {error}"


def exercise_faults(exercise, cells, setup_names, name):
    """What is wrong with one exercise, one line each."""
    solution, check = cells[exercise.solution].source, cells[exercise.check].source
    where = f"{name}, exercise {exercise.number}"

    with contextlib.redirect_stdout(io.StringIO()) as printed:
        error = outcome(solution, check, setup_names, where)
    if error is not None:
        yield f"{where}: the notebook's own solution fails its self-check: {described(error)}"
        return
    error = outcome(stub(solution, exercise.number, where), check, setup_names, where)
    if not isinstance(error, NotImplementedError) or f"Exercise {exercise.number}:" not in str(error):
        yield f"{where}: the self-check must let the stub's NotImplementedError through, but {described(error)}"

    functions = function_names(solution)
    for broken in [functions] if len(functions) == 1 else [functions, *([function] for function in functions)]:
        nothing = dict.fromkeys(broken, "return None")
        error = outcome(replace_bodies(solution, nothing.get, where), check, setup_names, where)
        what = f"with {' and '.join(broken)} returning None"
        if error is None:
            yield f"{where}: the self-check passes {what}: assert on what each function returns"
        elif not isinstance(error, STUMBLES) or len(str(error).strip()) < SHORTEST:
            yield f"{where}: {what} a student reads {described(error)!r}: say what came and what was expected"

    if exercise.number in WEAK.get(Path(name).stem, ()):
        return
    if not printed.getvalue().strip():
        yield f"{where}: the self-check prints nothing when it passes: print one line, or passed looks like not run"
    for survivor in survivors(solution, check, setup_names, where):
        yield f"{where}: the self-check accepts a wrong answer, {survivor}"


def notebook_faults(path):
    """What is wrong with the exercises of one notebook; its setup cell is run once, in its folder."""
    notebook = nbformat.read(path, as_version=4)
    names = {"__name__": "__main__"}
    with contextlib.chdir(path.parent), mpl.rc_context(), np.printoptions():
        mpl.use("Agg")
        for cell in notebook.cells:
            if "setup" in student_copies.tags(cell):
                run(cell.source, names, f"{path.name}: setup")
        exercises = find_exercises(notebook, path.name)
        faults = [fault for one in exercises for fault in exercise_faults(one, notebook.cells, names, path.name)]
        plt.close("all")
    return faults


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_solutions_pass_and_stubs_fail(path, monkeypatch, tmp_path):
    monkeypatch.setenv("REC_TRANSFER_FIGURES", str(tmp_path))
    assert not (faults := notebook_faults(path)), "\n".join(faults)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_copy_keeps_everything_but_solutions_and_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    made = student_copies.student_copy(notebook, path.name)
    solutions = {exercise.solution for exercise in find_exercises(notebook, path.name)}
    assert len(made.cells) == len(notebook.cells)
    for position, (before, after) in enumerate(zip(notebook.cells, made.cells, strict=True)):
        assert (before.source == after.source) == (position not in solutions), f"{path.name}, cell {position}"
        assert not after.get("outputs"), f"{path.name}, cell {position}"
        assert after.get("execution_count") is None, f"{path.name}, cell {position}"
        assert "solution" not in student_copies.tags(after), f"{path.name}, cell {position}"


# The machinery itself, on notebooks made for it.

SOLUTION = '''
import functools
import math  # kept


# Above the function.
@functools.partial(
    functools.cache
)
def area(radius: float, *, π: float = math.pi) -> float:
    """Area of a disc: 面积.

    In squared units.
    """
    # The trick.
    return π * radius**2
    # The end.


# Between the functions.
def twice(number):
    """Double: 两倍."""; result = 2 * number
    return result
    # Nothing more.
# Below the function.
'''.strip()
STUB = '''
import functools
import math  # kept


# Above the function.
@functools.partial(
    functools.cache
)
def area(radius: float, *, π: float = math.pi) -> float:
    """Area of a disc: 面积.

    In squared units.
    """
    raise NotImplementedError("Exercise 2: write the body of area, then run the check below")


# Between the functions.
def twice(number):
    """Double: 两倍."""
    raise NotImplementedError("Exercise 2: write the body of twice, then run the check below")
# Below the function.
'''.strip()
HALF = 'def half(number):\n    """Half of a number."""\n    return number / two'
CHECK = """
for number in (3, 5):
    assert half(number) == number / 2, f"half of {number}: got {half(number)}, expected {number / 2}"
print("half of 3:", half(3))
""".strip()


def cell(source, *tags):
    return nbformat.v4.new_code_cell(source, metadata={"tags": list(tags)} if tags else {})


def text(source):
    return nbformat.v4.new_markdown_cell(source)


def small(solution=HALF, check=CHECK, setup="two = 2"):
    return nbformat.v4.new_notebook(
        cells=[
            text("# 01 · Halves"),
            cell(setup, "setup"),
            text("## Exercises\n\n### Exercise 1 · recall"),
            cell(solution, "solution"),
            cell(check, "self-check"),
            text("## What to take away"),
        ]
    )


@pytest.fixture
def shelf(tmp_path):
    """A repository with one notebook that reads a file beside its folder; ``shelf(notebook)`` puts the notebook in."""

    def put(notebook):
        for folder in ("notebooks", "data"):
            (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / "data" / "two.txt").write_text("2")
        nbformat.write(notebook, tmp_path / "notebooks" / "01_halves.ipynb")
        return tmp_path

    return put


READS = 'from pathlib import Path\n\ntwo = int(Path("../data/two.txt").read_text())'


def test_a_stub_keeps_imports_signatures_docstrings_and_outer_comments():
    assert stub(SOLUTION, 2, "here") == STUB


def test_a_good_exercise_has_no_fault(shelf):
    assert notebook_faults(shelf(small(setup=READS)) / "notebooks/01_halves.ipynb") == []


TWO_FUNCTIONS = f'{HALF}\n\n\ndef third(number):\n    """A third."""\n    return number / 3'


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"solution": HALF.replace("/", "*")}, "own solution fails its self-check: AssertionError"),
        ({"setup": "pass"}, "own solution fails its self-check: NameError"),  # a name that is not the setup cell's
        ({"check": "half(3)"}, "passes with half returning None"),
        ({"check": f"try:\n    half(1)\nexcept NotImplementedError:\n    half = abs\n{CHECK}"}, "must let the stub"),
        ({"check": f"assert half(3)\n{CHECK}"}, "a student reads 'AssertionError: '"),
        ({"check": f"try:\n    half(1)\nexcept NotImplementedError:\n    assert False, 'hidden'\n{CHECK}"}, "must let"),
        ({"check": f"if half(3) is None:\n    raise RuntimeError('nothing came back')\n{CHECK}"}, "reads 'Runt"),
        ({"solution": TWO_FUNCTIONS}, "passes with third returning None"),
        ({"check": CHECK[: CHECK.index("print")]}, "the self-check prints nothing when it passes"),
        ({"check": "assert abs(half(3) - 1.5) < 0.1, 'not a half'\nprint(half(5))"}, "answer, half: 1 % more"),
        ({"check": CHECK.replace("(3, 5)", "(3,)").replace("print(", "print(3, ") }, "half: the first answer, always"),
    ],
)  # fmt: skip
def test_a_bad_exercise_is_reported(shelf, changed, fault):
    found = notebook_faults(shelf(small(**changed)) / "notebooks/01_halves.ipynb")
    assert any(fault in line for line in found), found
    assert all("01_halves.ipynb, exercise 1" in line for line in found)


# What a check of arrays may forget to ask, and the mutant that shows it.

ROWS = """
import numpy as np

def halves(numbers):
    \"\"\"Half of every number.\"\"\"
    return np.asarray(numbers) / 2
""".strip()


@pytest.mark.parametrize(
    ("check", "survivor"),
    [
        ("assert halves([1, 2]).sum() == 1.5, 'wrong'", "summed over all axes"),
        ("assert halves([1, 2])[0] == 0.5, 'wrong'", "first row repeated"),
        ("assert halves([1, 2]).sum() == 1.5, 'wrong'", "the mean in every entry"),
        ("assert abs(halves([1, 2]) - [0.5, 1]).max() < 0.1, 'wrong'", "1 % more"),
        ("assert (halves([1, 2]) == [0.5, 1]).all() and len(halves([4, 2])) == 2, 'no'", "the first answer, always"),
    ],
)
def test_a_check_that_accepts_a_wrong_array_is_found_out(check, survivor):
    assert f"halves: {survivor}" in list(survivors(ROWS, check, {}, "here"))


def test_a_mutant_that_changes_nothing_is_none():
    nothing = [one.removeprefix("halves: ") for one in survivors(ROWS, "halves([]), halves(0.0)", {}, "here")]
    assert nothing == ["summed over all axes", ALWAYS]  # 0 where there are no numbers, and answers of two shapes
    same_rows = "import numpy as np\nassert (halves(np.ones((3, 2))) == 0.5).all(), 'wrong'"
    assert "halves: first row repeated" not in list(survivors(ROWS, same_rows, {}, "here"))


def test_functions_and_lists_that_are_answers_are_spoilt_too():
    makes = 'def adder(one):\n    """Adds one."""\n    return lambda other: one + other'
    lazy = "assert abs(adder(1)(10) - 11) <= 1, 'wrong'"
    assert "adder: 1 % more" in list(survivors(makes, lazy, {}, "here"))
    strict = "assert adder(1)(10) == 11 and adder(2)(5) == 7, 'wrong'"
    assert not list(survivors(makes, strict, {}, "here"))
    lists = 'def pairs(end):\n    """Pairs."""\n    return [(i, i + 1) for i in range(end)]'
    assert "pairs: first row repeated" in list(survivors(lists, "assert len(pairs(4)) == 4, 'wrong'", {}, "here"))


HEADING, SOLVED, CHECKED = text("### Exercise 1 · recall"), cell(HALF, "solution"), cell(CHECK, "self-check")
BARE = HALF.replace('"""Half of a number."""', "pass")


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ([SOLVED, CHECKED], "cell 0 .*needs a heading"),
        ([HEADING, text("## Another section"), SOLVED], "cell 0 .*no code cell tagged `solution`"),
        ([HEADING, SOLVED], "cell 1 .*no code cell tagged `self-check`"),
        ([HEADING, SOLVED, text("### Exercise 2 · test"), CHECKED], "cell 1 .*no code cell tagged `self-check`"),
        ([HEADING, CHECKED], "cell 1 .*follows the solution"),
        ([HEADING, SOLVED, CHECKED, cell(CHECK, "self-check")], "cell 3 .*follows the solution"),
        ([HEADING, SOLVED, cell(HALF, "solution"), CHECKED], "cell 2 .*second solution"),
        ([HEADING, cell(HALF, "solution", "self-check")], "cell 1 .*one of the two"),
        ([HEADING, cell(f"scale = 2\n\n{HALF}", "solution"), CHECKED], "cell 1 .*line 1 is neither"),
        ([HEADING, cell(BARE, "solution"), CHECKED], "half needs a docstring"),
        ([HEADING, cell('def half(number): "Half."; return 1', "solution"), CHECKED], "line of its own"),
        ([HEADING, cell("import math", "solution"), CHECKED], "cell 1 .*at least one function"),
        ([HEADING, cell("def half(:", "solution"), CHECKED], "cell 1 .*not Python"),
    ],
)  # fmt: skip
def test_a_malformed_notebook_is_refused_by_notebook_and_cell(cells, message):
    with pytest.raises(MalformedNotebook, match=rf"01_bad\.ipynb, {message}" if "cell" in message else message):
        student_copies.student_copy(nbformat.v4.new_notebook(cells=cells), "01_bad.ipynb")


def test_a_copy_holds_nothing_that_was_computed():
    notebook = small()
    for position in (1, 3, 4):
        notebook.cells[position].execution_count = position
        notebook.cells[position].outputs = [nbformat.v4.new_output("stream", text="1.5")]
    notebook.cells[3].metadata.jupyter = {"source_hidden": True}
    made = student_copies.student_copy(notebook, "01_halves.ipynb")
    assert [cell.get("outputs") for cell in made.cells] == [None, [], None, [], [], None]
    assert [cell.get("execution_count") for cell in made.cells] == [None] * 6
    assert [student_copies.tags(cell) for cell in made.cells[3:5]] == [[], ["self-check", "raises-exception"]]
    assert made.cells[3].metadata == {}
    assert notebook.cells[3].outputs, "the notebook itself is left alone"


def test_headings_inside_code_blocks_do_not_end_an_exercise():
    cells = [HEADING, text("Such a log:\n\n```\n## not a heading\n```"), SOLVED, CHECKED]
    assert find_exercises(nbformat.v4.new_notebook(cells=cells), "01.ipynb") == [(1, 2, 3)]


def test_a_copy_runs_to_its_end_where_it_is_written(shelf):
    root = shelf(small(setup=READS))
    (path,) = student_copies.write_copies(root)
    assert path == root / "build/student/notebooks/01_halves.ipynb"

    made = nbformat.read(path, as_version=4)
    ran = nbclient.NotebookClient(made, kernel_name="python3", resources={"metadata": {"path": path.parent}}).execute()
    (error,) = ran.cells[4].outputs
    assert error.ename == "NotImplementedError"
    assert error.evalue.startswith("Exercise 1: write the body of half")


def test_data_are_copied_where_the_machine_makes_no_links(shelf, monkeypatch):
    def refuse(*_, **__):
        raise OSError("no links on this machine")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    root = shelf(small(setup=READS))
    for _ in range(2):  # a second run finds the folder there
        student_copies.write_copies(root)
        assert not (root / "build/student/data").is_symlink()
        assert (root / "build/student/notebooks/../data/two.txt").read_text() == "2"


def test_work_in_a_copy_is_never_overwritten(shelf):
    root = shelf(small())
    (path,) = student_copies.write_copies(root)
    assert student_copies.write_copies(root, ["01"]) == {path: True}
    assert student_copies.write_copies(root, ["02"]) == {}

    mine = nbformat.read(path, as_version=4)
    mine.cells[3].source = HALF
    nbformat.write(mine, path)
    assert student_copies.write_copies(root) == {path: False}
    assert nbformat.read(path, as_version=4).cells[3].source == HALF
