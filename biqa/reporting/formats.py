"""A table written down: Markdown, LaTeX (booktabs), CSV (long form: a line a figure), and on the terminal."""

import csv
import io
import math
from collections.abc import Sequence
from itertools import groupby

import rich.table

from biqa.reporting.tables import Cell, Column, Kind, Row, Table

MISSING = "-"
ARROWS = {"correlation": " ↑", "percent": " ↓"}
FORMS: dict[Kind, str] = {"correlation": ".3f", "gain": "+.3f", "percent": ".1f", "points": "+.1f", "number": "g"}
CSV_COLUMNS = ("table", "system", "dataset", "metric", "value", "low", "high", "std", "p", "n_seeds", "seeds", "stand_in", "paper")
"""`std` over seeds; `seeds` as seed=value;...; `stand_in` and `paper` (a published figure, not ours) as true or false; empty where not known."""

LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}", "†": r"$^\dagger$", "±": r"$\pm$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}",
}  # fmt: skip


def markdown(table: Table) -> str:
    """A caption in bold, a pipe table, the notes as a list."""
    headings = ["system", *(f"{column.heading} {_label(column)}" for column in table.columns)]
    rule = ["---", *("---:" for _ in table.columns)]
    lines = [headings, rule, *([f"*{row.system}*" if row.paper else row.system, *_texts(table, row)] for row in table.rows)]
    body = "\n".join("| " + " | ".join(text.replace("|", "\\|") for text in line) + " |" for line in lines)
    return f"**{table.caption}** Made with `{table.command}`.\n\n{body}\n\n" + "\n".join(f"- {note}" for note in table.notes) + "\n"


def latex(table: Table) -> str:
    """A `table*` with booktabs rules, groups of columns under one heading, intervals in a smaller size. Needs \\usepackage{booktabs}."""
    groups = [(group, len(list(columns))) for group, columns in groupby(table.columns, key=lambda column: column.heading)]
    starts = [2 + sum(width for _, width in groups[:position]) for position in range(len(groups))]
    heading = " & ".join(["", *(rf"\multicolumn{{{width}}}{{c}}{{{escape(group)}}}" for group, width in groups)])
    rules = " ".join(rf"\cmidrule(lr){{{start}-{start + width - 1}}}" for start, (_, width) in zip(starts, groups, strict=True))
    labels = " & ".join(["system", *(escape(_label(column)) for column in table.columns)])
    ours, paper = ([row for row in table.rows if row.paper is wanted] for wanted in (False, True))
    lines = [
        r"\begin{table*}",
        r"\centering",
        rf"\caption{{{escape(table.caption)} Made with \texttt{{{escape(table.command)}}}.}}",
        rf"\label{{tab:{table.name}}}",
        rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}",
        r"\toprule",
        rf"{heading} \\ {rules}",
        rf"{labels} \\ \midrule",
        *(_latex_row(table, row) for row in ours),
        *([r"\midrule"] if paper else []),
        *(_latex_row(table, row) for row in paper),
        r"\bottomrule",
        r"\end{tabular}",
        *(rf"\par\footnotesize {escape(note)}" for note in table.notes),
        r"\end{table*}",
    ]
    return "\n".join(lines) + "\n"


def csv_text(tables: Sequence[Table]) -> str:
    """All tables in one file with the columns `CSV_COLUMNS`, figures unrounded."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for table in tables:
        for row in table.rows:
            pairs = zip(table.columns, row.cells, strict=True)
            writer.writerows(_csv_line(table, row, column, cell) for column, cell in pairs if cell is not None)
    return text.getvalue()


def rich_table(table: Table) -> rich.table.Table:
    """The table for the terminal, without the notes: turned round, a column a system, so that it fits a narrow window."""
    shown = rich.table.Table(title=table.caption, title_justify="left")
    shown.add_column("")
    for row in table.rows:
        shown.add_column(row.system, justify="right", style="dim" if row.paper else None)
    texts = [_texts(table, row) for row in table.rows]
    for position, column in enumerate(table.columns):
        shown.add_row(f"{column.heading}, {_label(column)}", *(row[position] for row in texts))
    return shown


def escape(text: str) -> str:
    """Text with everything that LaTeX would read as a command, and the marks of our tables as its own."""
    return "".join(LATEX.get(character, character) for character in text)


def no_formula(text: str) -> str:
    """Text that a spreadsheet shows and does not compute: with an apostrophe before one that begins as its formulas do."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def parts(cell: Cell, kind: Kind) -> tuple[str, str, str]:
    """(value, spread over seeds, interval) as texts, each "" where there is none; the value of NaN is "undefined"."""
    if cell.printed:
        return cell.printed, "", ""
    form = FORMS[kind]
    if math.isnan(cell.value):
        return "undefined", "", ""
    spread = "" if math.isnan(cell.std) else f"± {cell.std:{form.lstrip('+')}}"
    interval = "" if math.isnan(cell.low) else f"[{cell.low:{form}}, {cell.high:{form}}]"
    return f"{cell.value:{form}}", spread, interval


def _label(column: Column) -> str:
    return column.label + ARROWS.get(column.kind, "")


def _texts(table: Table, row: Row) -> list[str]:
    pairs = zip(table.columns, row.cells, strict=True)
    return [MISSING if cell is None else " ".join(filter(None, parts(cell, column.kind))) for column, cell in pairs]


def _latex_row(table: Table, row: Row) -> str:
    texts = [rf"\emph{{{escape(row.system)}}}" if row.paper else escape(row.system)]
    for column, cell in zip(table.columns, row.cells, strict=True):
        value, spread, interval = (MISSING, "", "") if cell is None else parts(cell, column.kind)
        small = [rf"{{\scriptsize {escape(interval)}}}"] if interval else []
        texts.append(" ".join([escape(text) for text in (value, spread) if text] + small))
    return " & ".join(texts) + r" \\"


def _csv_line(table: Table, row: Row, column: Column, cell: Cell) -> list[str]:
    """Texts in the order of `CSV_COLUMNS`."""
    numbers = ["" if math.isnan(number) else repr(number) for number in (cell.value, cell.low, cell.high, cell.std, cell.p)]
    seeds = ["" if row.paper else str(len(cell.by_seed)), ";".join(f"{seed}={value!r}" for seed, value in cell.by_seed)]
    marks = [str(mark).lower() for mark in (column.stand_in and not row.paper, row.paper)]
    return [table.name, no_formula(row.system), no_formula(column.dataset), column.metric, *numbers, *seeds, *marks]
