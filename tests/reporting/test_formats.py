import csv
import io
import math

import pytest
from rich.console import Console

from biqa.reporting.formats import CSV_COLUMNS, csv_text, escape, latex, markdown, parts, rich_table
from biqa.reporting.tables import Cell, Column, Row, Table

TABLE = Table(
    name="accuracy",
    caption="A caption with 95 %.",
    command="python -m biqa.report runs=my_runs",
    columns=(
        Column("koniq_10k", "SRCC", "koniq_10k", "srcc", "correlation"),
        Column("koniq_10k", "PLCC", "koniq_10k", "plcc", "correlation"),
        Column("synthetic", "sampled", "synthetic", "instability_sampled", "percent", stand_in=True),
        Column("gain", "SRCC", "mean", "srcc_gain", "gain", stand_in=True),
    ),
    rows=(
        Row("one-stage | a_b", (Cell(0.71234, 0.65, 0.77, ((0, 0.7), (1, 0.72468))), Cell(math.nan), Cell(37.46, 35.0, 40.0, ((0, 37.46),)), None)),
        Row("paper", (None, None, None, Cell(0.3124, printed="+0.3124")), paper=True),
    ),
    notes=("First note & more.", "† stand-in."),
)


@pytest.mark.parametrize(
    ("cell", "kind", "texts"),
    [
        (Cell(0.71234, 0.65, 0.77), "correlation", ("0.712", "", "[0.650, 0.770]")),
        (Cell(0.7, by_seed=((0, 0.6), (1, 0.8))), "correlation", ("0.700", "± 0.141", "")),
        (Cell(0.02, -0.01, 0.05), "gain", ("+0.020", "", "[-0.010, +0.050]")),
        (Cell(37.46, 35, 40), "percent", ("37.5", "", "[35.0, 40.0]")),
        (Cell(-2.0, -3, -1, ((0, -1.0), (1, -3.0))), "points", ("-2.0", "± 1.4", "[-3.0, -1.0]")),
        (Cell(10), "number", ("10", "", "")),
        (Cell(0.7), "number", ("0.7", "", "")),
        (Cell(math.nan), "correlation", ("undefined", "", "")),
        (Cell(12.39, printed="12.39"), "percent", ("12.39", "", "")),
    ],
)
def test_how_a_figure_is_printed(cell, kind, texts):
    assert parts(cell, kind) == texts


def test_markdown():
    assert markdown(TABLE).splitlines() == [
        "**A caption with 95 %.** Made with `python -m biqa.report runs=my_runs`.",
        "",
        "| system | koniq_10k SRCC ↑ | koniq_10k PLCC ↑ | synthetic† sampled ↓ | gain SRCC |",
        "| --- | ---: | ---: | ---: | ---: |",
        "| one-stage \\| a_b | 0.712 ± 0.017 [0.650, 0.770] | undefined | 37.5 [35.0, 40.0] | - |",
        "| *paper* | - | - | - | +0.3124 |",
        "",
        "- First note & more.",
        "- † stand-in.",
    ]


def test_latex():
    assert latex(TABLE).splitlines() == [
        r"\begin{table*}",
        r"\centering",
        r"\caption{A caption with 95 \%. Made with \texttt{python -m biqa.report runs=my\_runs}.}",
        r"\label{tab:accuracy}",
        r"\begin{tabular}{lrrrr}",
        r"\toprule",
        r" & \multicolumn{2}{c}{koniq\_10k} & \multicolumn{1}{c}{synthetic$^\dagger$} & \multicolumn{1}{c}{gain} \\ "
        r"\cmidrule(lr){2-3} \cmidrule(lr){4-4} \cmidrule(lr){5-5}",
        r"system & SRCC $\uparrow$ & PLCC $\uparrow$ & sampled $\downarrow$ & SRCC \\ \midrule",
        r"one-stage \textbar{} a\_b & 0.712 $\pm$ 0.017 {\scriptsize [0.650, 0.770]} & undefined & 37.5 {\scriptsize [35.0, 40.0]} & - \\",
        r"\midrule",
        r"\emph{paper} & - & - & - & +0.3124 \\",
        r"\bottomrule",
        r"\end{tabular}",
        r"\par\footnotesize First note \& more.",
        r"\par\footnotesize $^\dagger$ stand-in.",
        r"\end{table*}",
    ]


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a_b 50% & $5 #1 {x}", r"a\_b 50\% \& \$5 \#1 \{x\}"),
        ("\\~^", r"\textbackslash{}\textasciitilde{}\textasciicircum{}"),
        ("a ± b † ↑ ↓ <|>", r"a $\pm$ b $^\dagger$ $\uparrow$ $\downarrow$ \textless{}\textbar{}\textgreater{}"),
    ],
)
def test_latex_escapes(text, escaped):
    assert escape(text) == escaped


def test_csv_reads_back():
    rows = list(csv.DictReader(io.StringIO(csv_text([TABLE, TABLE]))))
    assert tuple(rows[0]) == CSV_COLUMNS
    assert len(rows) == 2 * 4
    first, undefined, stand_in, paper = rows[:4]
    assert [first[name] for name in ("table", "system", "dataset", "metric")] == ["accuracy", "one-stage | a_b", "koniq_10k", "srcc"]
    assert [float(first[name]) for name in ("value", "low", "high")] == [0.71234, 0.65, 0.77]
    assert float(first["std"]) == pytest.approx(0.01745, abs=1e-5)
    assert (first["n_seeds"], first["seeds"], first["p"]) == ("2", "0=0.7;1=0.72468", "")
    assert (first["stand_in"], stand_in["stand_in"], paper["stand_in"]) == ("false", "true", "false")
    assert (first["paper"], paper["paper"], paper["value"], paper["n_seeds"]) == ("false", "true", "0.3124", "")
    assert undefined["value"] == ""


def test_terminal_table_has_a_column_a_system():
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(rich_table(TABLE))
    text = console.export_text()
    assert "one-stage | a_b" in text
    assert "synthetic†, sampled ↓" in text
    assert "37.5 [35.0, 40.0]" in text
