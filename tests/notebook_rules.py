"""What CONTRIBUTING.md asks of a stored notebook, one small rule each.

A rule takes a ``Book`` and yields a line for every fault, which says how to mend it.
"""

import ast
import io
import re
import tokenize
from pathlib import Path
from typing import NamedTuple

import nbformat
from student_copies import MalformedNotebook, find_exercises, headings, tags

ROOT = Path(__file__).resolve().parent.parent


LARGEST = 1_000_000  # bytes of a notebook
SLOWEST = 60  # seconds a notebook may take on two cores
WIDEST = 88  # characters of a code line: what a projector shows
LONGEST = 40  # lines of a code cell
EXACT = "nbval-check-output"  # tag of a cell whose stored output `make test` compares
NBVAL_TAGS = (EXACT, "nbval-ignore-output")
# What an assert says to those who wrote the notebook, where it should tell its reader what is wrong.
TO_AUTHORS = r"\bre(?:write|word|phrase)\b|\bthe (?:text|prose|sentence|wording)\b|\bsays? so\b"
NEAR = 3  # cells from an equation to the code that computes it
SECTIONS = ("Fork this", "Exercises", "What to take away", "References", "小结")
BOLD_LINES = ("**You will be able to**", "**Before this**", "**Time**", "**Reads**")


class Book(NamedTuple):
    name: str  # of the file
    notebook: nbformat.NotebookNode
    figures: frozenset[str]  # names of the files in figures/

    @property
    def number(self) -> int:
        return int(self.name[:2])

    def code(self):
        return [(position, cell) for position, cell in enumerate(self.notebook.cells) if cell.cell_type == "code"]

    def markdown(self):
        return [(position, cell) for position, cell in enumerate(self.notebook.cells) if cell.cell_type == "markdown"]


def tree(cell):
    """The cell's syntax; empty where it is not Python, which ``plain_python`` reports."""
    try:
        return ast.parse(cell.source)
    except SyntaxError:
        return ast.parse("")


def is_testing_call(node):
    return isinstance(node, ast.Call) and re.fullmatch(r"(np|numpy)\.testing\.assert_\w+", ast.unparse(node.func))


def checks(cell):
    return [node for node in ast.walk(tree(cell)) if isinstance(node, ast.Assert) or is_testing_call(node)]


def messages(cell):
    """What the cell's checks say where they fail, by line; f-strings and joined strings as they are written."""
    for node in checks(cell):
        if isinstance(node, ast.Assert):
            said = [node.msg] if node.msg else []
        else:
            said = [*node.args[2:], *(keyword.value for keyword in node.keywords if keyword.arg == "err_msg")]
        if said:
            yield node.lineno, " ".join(map(ast.unparse, said))


def printed(cell):
    """Text that a reader sees in the cell's stored outputs: of two forms the HTML, without its markup."""
    for output in cell.outputs:
        shown = output.get("data", {})
        if "text/html" in shown:
            yield re.sub(r"<[^<>]+>", " ", re.sub(r"(?s)<style.*?</style>", "", shown["text/html"]))
        else:
            text = shown.get("text/plain", output.get("text", "\n".join(output.get("traceback", []))))
            yield re.sub(r"\x1b\[[\d;]*m", "", text)  # colours


# Outputs


def counted(book):
    got = [cell.execution_count for _, cell in book.code() if cell.source.strip()]
    if got != list(range(1, len(got) + 1)):
        yield f"execution counts are {got}, not 1 to {len(got)}: run `make notebooks ONLY={book.name[:2]}`"


def no_errors(book):
    for position, cell in book.code():
        for output in cell.outputs:
            if output.output_type == "error" and "raises-exception" not in tags(cell):
                yield f"cell {position} stores {output.ename}: mend it, or tag the cell raises-exception if it teaches"


def no_stderr(book):
    for position, cell in book.code():
        if any(output.get("name") == "stderr" for output in cell.outputs):
            yield f"cell {position} writes to stderr: find the cause of the warning, do not silence it"


def short_numbers(book):
    for position, cell in book.code():
        if {EXACT, "versions"} & set(tags(cell)):
            continue
        numbers = re.findall(r"(?<![\w.])\d+\.\d+(?!\.?\d)", "\n".join(printed(cell)))
        if long := [number for number in numbers if len(number.replace(".", "").strip("0")) > 3]:
            shown = f"{', '.join(long[:4])}{', ...' if len(long) > 4 else ''}"
            yield f"cell {position} prints {shown}: three significant digits at most (or tag what is exact {EXACT})"


def no_addresses(book):
    for position, cell in book.code():
        for found in re.findall(r"\S+ at 0x[0-9a-f]+", "\n".join(printed(cell))):
            yield f"cell {position} shows {found}: end it with plt.show(), or print what is meant"


def no_machine_paths(book):
    for position, cell in enumerate(book.notebook.cells):
        shown = "\n".join([cell.source, *(printed(cell) if cell.cell_type == "code" else [])])
        for found in re.findall(
            r"(?<![\w.:/])(?:/(?:home|root|work|farm|tmp|Users|usr|var|opt|mnt)/\S*|[A-Z]:\\\S+)", shown
        ):
            yield f"cell {position} names {found}, a path of one machine: show it relative to the notebook"


def small_file(book):
    size = len(nbformat.writes(book.notebook).encode())
    if size > LARGEST:
        yield f"{size:,} bytes, more than {LARGEST:,}: fewer points per figure, or a lower dpi"


# Code


def plain_python(book):
    for position, cell in book.code():
        try:
            ast.parse(cell.source)
        except SyntaxError as error:
            yield f"cell {position}, line {error.lineno} is not Python: write magics and shell lines as Python"


def no_semicolons(book):
    for position, cell in book.code():
        if ast.unparse(tree(cell)):
            tokens = tokenize.generate_tokens(io.StringIO(cell.source).readline)
            if any(token.type == tokenize.OP and token.string == ";" for token in tokens):
                yield f"cell {position} has a semicolon: one statement a line; a figure ends with plt.show()"


def no_skips(book):
    for position, cell in book.code():
        if "nbval-skip" in tags(cell):
            yield f"cell {position} is skipped by make test: let it run; tag nbval-ignore-output if its output varies"


def no_interact(book):
    for position, cell in book.code():
        if found := re.search(r"\binteract(ive|_manual|ive_output)?\(", cell.source):
            yield f"cell {position} calls {found[0]}...), which nbval cannot compare: a bare slider beside a figure"


def exact_by_tag(book):
    for position, cell in book.code():
        if "NBVAL_" in cell.source:
            yield f"cell {position} holds an NBVAL_ comment: the tag {EXACT} says the same without a line of code"
        for tag in tags(cell):
            if tag.startswith("nbval-") and tag not in (*NBVAL_TAGS, "nbval-skip"):
                yield f"cell {position} is tagged {tag}, which nbval does not know: one of {', '.join(NBVAL_TAGS)}"


def no_format_switches(book):
    for position, cell in book.code():
        found = re.search(r"#\s*(fmt:|noqa)", cell.source)
        if found and "hide-input" not in tags(cell):
            yield f"cell {position} holds `{found[0]}`: write what the formatter leaves alone, or name its parts"


def figures_kept(book):
    for position, cell in book.code():
        if any("image/png" in output.get("data", {}) for output in cell.outputs) and "plt.show()" not in cell.source:
            yield f"cell {position} draws without plt.show() at its end"
        for name in saved_figures(cell):
            if name is None or not name.startswith(book.name[:2] + "_"):
                yield f'cell {position}: plotting.save takes a literal name that starts with "{book.name[:2]}_"'
            elif f"{name}.png" not in book.figures:
                yield f"cell {position} saves {name}, figures/{name}.png is missing: run make notebooks and add it"


def saved_figures(cell):
    """Names that the cell hands to ``plotting.save``; None for what is not a literal string."""
    for node in ast.walk(tree(cell)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "plotting.save":
            name = node.args[1] if len(node.args) > 1 else None
            yield name.value if isinstance(name, ast.Constant) else None


# What fits a projector


def short_lines(book):
    for position, cell in book.code():
        for number, line in enumerate(cell.source.splitlines(), start=1):
            if len(line) > WIDEST:
                yield f"cell {position}, line {number} has {len(line)} characters, more than {WIDEST}"


def short_cells(book):
    for position, cell in book.code():
        if (lines := len(cell.source.splitlines())) > LONGEST:
            yield f"cell {position} has {lines} lines, more than {LONGEST}: split it, or fold away what is not the idea"


def one_check_in_sight(book):
    for position, cell in book.code():
        if not {"hide-input", "self-check", "solution"} & set(tags(cell)) and len(checks(cell)) > 1:
            lines = ", ".join(map(str, sorted(node.lineno for node in checks(cell))))
            yield (
                f"cell {position} checks in lines {lines}: one check in sight, the others go to a cell after it, "
                "tagged hide-input, with the metadata jupyter.source_hidden"
            )


def hidden_is_folded(book):
    for position, cell in book.code():
        tagged, folded = "hide-input" in tags(cell), bool(cell.metadata.get("jupyter", {}).get("source_hidden"))
        if tagged != folded and "solution" not in tags(cell):
            lacks = "the metadata jupyter.source_hidden" if tagged else "the tag hide-input"
            yield f"cell {position} lacks {lacks}: pages and JupyterLab fold the same cells"


# Layout


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


def asserts_explain(book):
    for position, cell in book.code():
        for node in checks(cell):
            if isinstance(node, ast.Assert) and node.msg is None:
                yield f"cell {position}, line {node.lineno}: an assert needs a message that says what is wrong"


def speaks_to_readers(book):
    for position, cell in book.code():
        for line, text in messages(cell):
            if found := re.search(TO_AUTHORS, text, re.IGNORECASE):
                yield f'cell {position}, line {line} says "{found[0]}" to its authors: say what is wrong and what came'


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


RULES = [
    counted, no_errors, no_stderr, short_numbers, no_addresses, no_machine_paths, small_file,
    plain_python, no_semicolons, no_skips, no_interact, exact_by_tag, no_format_switches, figures_kept,
    short_lines, short_cells, one_check_in_sight, hidden_is_folded,
    titled, bold_lines, timed, symbol_table, set_up, sections, versions_last,
    checked, asserts_explain, speaks_to_readers, exercises, equations_numbered, equations_checked,
]  # fmt: skip


def faults(book):
    return [f"{book.name}: {fault}" for rule in RULES for fault in rule(book)]


def unsaved(books, figures):
    """Figures that no notebook saves."""
    saved = {f"{name}.png" for book in books for _, cell in book.code() for name in saved_figures(cell)}
    return sorted(set(figures) - saved)
