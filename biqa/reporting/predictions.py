"""What is said of pictures, written as it comes: JSON lines, csv, or rows on the terminal; and all of it as one page."""

import csv
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from biqa.data.images import load_image, read_ahead
from biqa.data.record import Reduction
from biqa.errors import BadRecord, IncompatibleChoice
from biqa.evaluation.answers import PROBABILITIES
from biqa.evaluation.predictions import Prediction, Unreadable
from biqa.files import raise_unwritten
from biqa.reporting.formats import no_formula
from biqa.reporting.page import THUMBNAIL, Card, Cards, Page, PageTable, Section, thumbnail, write_page
from biqa.reporting.result import without_home

if TYPE_CHECKING:
    from rich.console import Console


Result = Prediction | Unreadable

COLUMNS = ("image", "score", "level", *PROBABILITIES, "description", "instability", "score_std", "levels", "error")
"""Of the csv. What a picture has not is empty: an unreadable one has its name and the error alone."""
SHOWN = 1000
"""Pictures on a page, at most: of more the best and the worst half of so many."""
READERS, AHEAD = 2, 8
"""Pictures that are decoded at a time for the page, and how far ahead."""
NAME_WIDTH = 40
"""Letters of a picture's name on a wide terminal before the line goes on below; on a narrow one a quarter of it."""


class Rows(Protocol):
    """What takes results as they come."""

    def add(self, result: Result) -> None:
        """Write one."""
        ...


def as_record(result: Result) -> dict[str, Any]:
    """A result as a line of JSON holds it: what it has not is left out."""
    if isinstance(result, Unreadable):
        return {"image": result.image, "error": result.reason}
    values = {name: list(value) if isinstance(value, tuple) else value for name, value in vars(result).items()}
    return {name: value for name, value in values.items() if value not in (None, [])}


class JsonLines:
    """A line of JSON a picture.

    Args:
        stream: of text, where they go.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.letters = (stream.encoding or "utf-8").lower().replace("-", "") != "utf8"

    def add(self, result: Result) -> None:
        """Write one."""
        self.stream.write(encodable(json.dumps(as_record(result), ensure_ascii=self.letters)) + "\n")
        self.stream.flush()


class Csv:
    """A row of a csv a picture, below a row of headings. No text in it begins as a spreadsheet's formulas do.

    Args:
        stream: of text, opened with newline="".
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.rows = csv.DictWriter(stream, COLUMNS, lineterminator="\n", restval="")
        self.rows.writeheader()

    def add(self, result: Result) -> None:
        """Write one."""
        record = as_record(result)
        likely = record.pop("probabilities", {})
        record |= {f"p_{level}": probability for level, probability in likely.items()} | {"levels": " ".join(record.get("levels", []))}
        if not os.path.isabs(result.image) and no_formula(result.image) != result.image:
            record["image"] = os.path.join(os.curdir, result.image)  # the same file
        self.rows.writerow({name: no_formula(encodable(value)) if isinstance(value, str) else value for name, value in record.items()})
        self.stream.flush()


class OnTheTerminal:
    """A row a picture, its text wrapped in columns. Those that cannot be read are left to the notes.

    Args:
        console: where to.
        names: of all pictures, which say how wide their column is.
        repeated: whether there is a column for instability.
    """

    def __init__(self, console: "Console", names: Iterable[str], *, repeated: bool) -> None:
        self.console = console
        self.width = min(NAME_WIDTH, console.width // 4, max((len(printable(name)) for name in names), default=1))
        self.repeated = repeated
        self._print(("score", "level", *(("instability",) if repeated else ()), "picture", "description"), "bold")

    def add(self, result: Result) -> None:
        """Write one."""
        if isinstance(result, Prediction):
            unsteady = (f"{result.instability:.0f} %",) if self.repeated else ()
            self._print((f"{result.score:.3f}", result.level, *unsteady, result.image, result.description or ""))

    def _print(self, cells: Sequence[str], style: str = "") -> None:
        from rich.table import Table
        from rich.text import Text

        row = Table.grid(padding=(0, 2, 0, 0), expand=True)
        for width in (5, 9, *((11,) if self.repeated else ()), self.width):
            row.add_column(width=width, overflow="fold")
        row.add_column(ratio=1, overflow="fold")
        row.add_row(*(Text(printable(cell), style=style) for cell in cells))
        self.console.print(row)


class Whole:
    """A file that is there when all of it is: written under a temporary name, which stays where the writing was ended before its time.

    Args:
        path: the file. Its ending says what it holds: .csv, or else lines of JSON.
        overwrite: whether one that is there may be replaced.

    Raises:
        IncompatibleChoice: it may not be written (see `temporary_name`).
    """

    def __init__(self, path: Path, *, overwrite: bool) -> None:
        self.path = path
        self.temporary = temporary_name(path, overwrite=overwrite, option="out")
        self.number = 0
        self.stream = self.temporary.open("w", encoding="utf-8", newline="")
        self.rows: Rows = Csv(self.stream) if path.suffix.lower() == ".csv" else JsonLines(self.stream)

    def add(self, result: Result) -> None:
        """Write one."""
        self.rows.add(result)
        self.number += 1

    def __enter__(self) -> "Whole":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self.stream.flush()
            os.fsync(self.stream.fileno())
            if error is None:
                self.temporary.replace(self.path)
        except OSError as wrong:
            error = wrong
            raise_unwritten(wrong, self.path)
            raise
        finally:
            with suppress(OSError):  # it tries once more to write what did not fit
                self.stream.close()
            if error is not None and self.number:
                print(f"What was there until then, {self.number} pictures, is in {self.temporary}.", file=sys.stderr)
            elif error is not None:
                self.temporary.unlink(missing_ok=True)


def temporary_name(path: Path, *, overwrite: bool, option: str) -> Path:
    """Check that a file may be written, before time is spent on what it will hold: the name to write it under, in a folder that is there.

    Raises:
        IncompatibleChoice: it is there already, it is a folder, or it cannot be written.
        Unwritten: the disk is full, or takes nothing.
    """
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        if path.is_dir():
            raise IncompatibleChoice(f"{option}={path} is a folder. Name a file in it.")
        if path.exists() and not overwrite:
            raise IncompatibleChoice(f"{option}={path} is there already. Choose another name, or overwrite=true.")
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
        temporary.unlink()
    except OSError as error:
        raise_unwritten(error, path)
        reason = f"{path.parent} is no folder" if isinstance(error, FileExistsError) else error.strerror
        raise IncompatibleChoice(f"{option}={path} cannot be written ({reason}). Choose a place that you may write to.") from error
    return temporary


def encodable(text: str) -> str:
    """The text with a code (\\udc80) for each byte of a file's name that is no letter: JSON reads it as that byte's stand-in again."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def printable(text: str) -> str:
    """The text in one line, with a code (\\u001b) for what would move the cursor or turn on colours of the terminal's own."""
    return "".join(letter if letter.isprintable() else f"\\u{ord(letter):04x}" for letter in text.replace("\n", " "))


def write_predictions_page(path: Path, title: str, facts: Mapping[str, str], results: Sequence[Result], notes: Sequence[str] = ()) -> None:
    """One self-contained page: pictures from best to worst with what is said of them, and those that could not be read.

    Args:
        path: the file.
        title: of the page.
        facts: name -> value, about the run; `name` is the run's own.
        results: all of them.
        notes: what must be known to read it.
    """
    scored = sorted((result for result in results if isinstance(result, Prediction)), key=lambda result: -result.score)
    failed = [result for result in results if isinstance(result, Unreadable)]
    sections = [
        Section(
            "pictures",
            "Pictures, best to worst",
            "The score lies between 0 (worst) and 1 (best): the mean of the level distribution, whose bars stand below each picture."
            + (" Instability is the share of repeated answers that do not give the commonest level." if any(one.levels for one in scored) else ""),
            cards=(_cards(scored),),
        )
    ]
    if failed:
        rows = tuple((encodable(without_home(result.image)), encodable(without_home(result.reason))) for result in failed)
        told = PageTable(f"{len(failed)} files", ("file", "why"), rows, words=True)
        sections.append(Section("unreadable", "What could not be read", "These have no score.", tables=(told,)))
    rows = tuple((name, encodable(without_home(value))) for name, value in facts.items() if name != "name")
    about = PageTable("The run", ("", encodable(facts["name"])), rows, words=True)
    write_page(path, Page(encodable(title), about, tuple(notes), tuple(sections)))


def _cards(scored: Sequence[Prediction]) -> Cards:
    """A card for each picture, or for the best and the worst of very many."""
    ranked, half = list(enumerate(scored, 1)), SHOWN // 2
    shown = ranked if len(ranked) <= SHOWN else [*ranked[:half], *ranked[-half:]]
    said = "" if len(shown) == len(ranked) else f"Shown are the best and the worst {half}."
    seen = read_ahead(_picture, [result.image for _, result in shown], readers=READERS, ahead=AHEAD)
    return Cards(f"{len(scored)} pictures", said, tuple(_card(place, result, picture) for (place, result), picture in zip(shown, seen, strict=True)))


def _card(place: int, result: Prediction, picture: str) -> Card:
    facts = [("score", f"{result.score:.3f}"), ("level", result.level)]
    if result.instability is not None and result.score_std is not None:
        facts += [("instability", f"{result.instability:.0f} % of {len(result.levels)} answers"), ("spread of the score", f"{result.score_std:.3f}")]
    levels = tuple((result.probabilities or {}).items())
    return Card(f"{place}. {encodable(without_home(result.image))}", picture, tuple(facts), encodable(result.description or ""), levels)


def _picture(path: str) -> str:
    try:
        return thumbnail(load_image(Path(path), Reduction(THUMBNAIL, None)))
    except BadRecord:  # gone since; the page says so
        return ""
