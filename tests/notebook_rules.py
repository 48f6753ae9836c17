"""What CONTRIBUTING.md asks of a stored notebook, one small rule each; those on its order are in ``notebook_layout``.

A rule takes a ``Book`` and yields a line for every fault, which says how to mend it.
"""

import ast
import io
import re
import tokenize

import nbformat
from notebook_book import checks, messages, printed, saved_figures, tree
from notebook_layout import (
    bold_lines,
    checked,
    equations_checked,
    equations_numbered,
    exercises,
    sections,
    set_up,
    symbol_table,
    timed,
    titled,
    versions_last,
)
from student_copies import tags

LARGEST = 1_000_000  # bytes of a notebook
WIDEST = 88  # characters of a code line: what a projector shows
LONGEST = 40  # lines of a code cell
EXACT = "nbval-check-output"  # tag of a cell whose stored output `make test` compares
NBVAL_TAGS = (EXACT, "nbval-ignore-output")
# What an assert says to those who wrote the notebook, where it should tell its reader what is wrong.
TO_AUTHORS = r"\bre(?:write|word|phrase)\b|\bthe (?:text|prose|sentence|wording)\b|\bsay so\b"


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


# What a check says


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
