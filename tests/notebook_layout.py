"""The rules on the order of a notebook: header, setup, sections, equations with their checks, exercises, versions."""

import re

from notebook_book import checks
from student_copies import MalformedNotebook, find_exercises, headings, tags

SLOWEST = 60  # seconds a notebook may take on two cores
NEAR = 3  # cells from an equation to the code that computes it
SECTIONS = ("Fork this", "Exercises", "What to take away", "References", "小结")
BOLD_LINES = ("**You will be able to**", "**Before this**", "**Time**", "**Reads**")


def titled(book):
    if not re.match(rf"# {book.name[:2]} · \S", book.notebook.cells[0].source):
        yield f"the first cell starts with the title `# {book.name[:2]} · ...`"


def bold_lines(book):
    found = [book.notebook.cells[0].source.find(line) for line in BOLD_LINES]
    for line, place in zip(BOLD_LINES, found, strict=True):
        if place < 0:
            yield f"the first cell has no line {line}"
    if found != sorted(found):
        yield f"the bold lines of the first cell stand in this order: {', '.join(BOLD_LINES)}"


def timed(book):
    found = re.search(r"\*\*Time\*\*: under (\d+) s on two CPU cores", book.notebook.cells[0].source)
    if not found:
        yield "the first cell gives no measured time: write `**Time**: ·`, make notebooks fills it in"
    elif int(found[1]) > SLOWEST:
        yield f"takes {found[1]} s, more than {SLOWEST}: fewer users, items, epochs or seeds"


def symbol_table(book):
    head, row = r"\| symbol \| meaning \| in code \|\n\|[-| :]+\|", r"\|.*\$.*\|.*\|.*\|"
    if not re.search(rf"(?m)^{head}\n{row}$", book.notebook.cells[0].source):
        yield "the first cell ends with the table `| symbol | meaning | in code |`, with a symbol in it"


def set_up(book):
    tagged = [position for position, cell in book.code() if "setup" in tags(cell)]
    if tagged != [position for position, _ in book.code()][:1]:
        yield f"the first code cell, and no other, is tagged setup; tagged are the cells {tagged}"


def sections(book):
    found = [text for _, cell in book.markdown() for level, text in headings(cell.source) if level == 2]
    starts = [next((i for i, text in enumerate(found) if text.startswith(section)), None) for section in SECTIONS]
    for section, start in zip(SECTIONS, starts, strict=True):
        if start is None:
            yield f"no section `## {section}`"
    if None not in starts and starts != sorted(starts):
        yield f"the last sections stand in this order: {', '.join(SECTIONS)}"


def versions_last(book):
    last = book.notebook.cells[-1]
    if last.cell_type != "code" or "versions" not in tags(last):
        yield "the last cell is code, tagged versions, and prints the versions of what was used"


def checked(book):
    if not any(checks(cell) for _, cell in book.code() if not {"solution", "self-check"} & set(tags(cell))):
        yield "no assert outside the exercises: every equation is followed by a check that fails were it wrong"


def exercises(book):
    try:
        numbers = [exercise.number for exercise in find_exercises(book.notebook, book.name)]
    except MalformedNotebook as error:
        yield str(error)
        return
    if numbers != list(range(1, len(numbers) + 1)) or not 3 <= len(numbers) <= 6:
        yield f"exercises are numbered {numbers}: there are 3 to 6, from 1, without a gap"


def equations_numbered(book):
    text = "\n".join(cell.source for _, cell in book.markdown())
    found = re.findall(r"\\tag\{([^}]*)\}", text)
    expected = [f"{book.number}.{place}" for place in range(1, len(found) + 1)]
    if found != expected:
        yield f"equations are numbered {', '.join(found)}, expected {', '.join(expected)}"
    mentioned = re.findall(rf"[Ee]quations? \(?({book.number}\.\d+)\b", text)
    for number in sorted(set(mentioned) - set(found)):
        yield f"the text speaks of equation {number}, which is not there"


def equations_checked(book):
    cells = book.notebook.cells
    starts = [at for at, cell in book.markdown() if any(level <= 2 for level, _ in headings(cell.source))]
    for position, cell in book.markdown():
        numbers = re.findall(r"\\tag\{([^}]*)\}", cell.source)
        if not numbers:
            continue
        end = min((start for start in starts if start > position), default=len(cells))
        following = [later for later in cells[position + 1 : end] if later.cell_type == "code"]
        if not any(later.cell_type == "code" for later in cells[position + 1 : min(end, position + 1 + NEAR)]):
            yield f"equation {numbers[-1]} (cell {position}): a cell that computes it belongs within {NEAR} cells"
        elif not any(checks(later) for later in following):
            yield f"equation {numbers[-1]} (cell {position}): its section has no assert that would fail were it wrong"
