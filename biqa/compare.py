"""Are two finished runs different, and where? Paired on the images that both answered.

biqa compare runs/A runs/B
biqa compare runs/A runs/B out=difference.md
biqa compare run=runs/A against=runs/B show=20

Options (option=value)
  run        folder of a finished run (A)
  against    folder of another one (B); the names of these two may be left out
  out        file to write the same to: .md, .csv (figures) or .json (all)
  show       so many of the images whose score changed most, of each data set
  resamples  bootstrap resamples behind each 95 % interval
  seed       draws the resamples

Differences are A minus B with 95 % intervals of the paired bootstrap over images, and two-sided p. An interval that holds 0 tells no difference.
Runs are compared on the data sets that both were tested on, which must hold the same images with the same labels.
"""

import sys

from biqa.doors.arguments import open_light_door, read_options, show_text

if __name__ == "__main__":
    show_text(__doc__, sys.argv[1:])

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biqa.errors import IncompatibleChoice
from biqa.files import Unwritten, write_whole

if TYPE_CHECKING:
    from biqa.reporting.pairwise import Pair
    from biqa.reporting.result import FoundRun

ENDINGS = (".md", ".csv", ".json")
OVER_IMAGES = "Intervals are over images: they do not say what another seed of the same run would give."


@dataclass
class CompareOptions:
    """Which runs, and what to write."""

    run: str
    """Folder of a finished run."""
    against: str
    """Folder of another one."""
    out: str | None = None
    """File to write to; its ending is one of ENDINGS."""
    show: int = 5
    """Most changed images that are listed, of each data set."""
    resamples: int = 1000
    """Bootstrap resamples behind each 95 % interval."""
    seed: int = 0
    """Draws the resamples."""

    def __post_init__(self) -> None:
        least = {"show": 0, "resamples": 1, "seed": 0}
        problems = [f"{name}={getattr(self, name)}: choose {low} or more." for name, low in least.items() if getattr(self, name) < low]
        if self.out is not None and Path(self.out).suffix not in ENDINGS:
            problems.append(f"out={self.out}: the ending says what is written: choose {', '.join(ENDINGS)}.")
        if Path(self.run).resolve() == Path(self.against).resolve():
            problems.append(f"against={self.against} is the run itself: name another one.")
        if problems:
            raise IncompatibleChoice("\n".join(problems))


@dataclass(frozen=True)
class Compared:
    """What came out."""

    first: "FoundRun"
    second: "FoundRun"
    config: Mapping[str, tuple[Any, Any]]
    """Option -> both values, where they differ and matter."""
    origin: Mapping[str, tuple[Any, Any]]
    """Versions, commit, hardware -> both, where they differ."""
    pairs: "Sequence[Pair]"

    @property
    def left_out(self) -> list[str]:
        """Data sets that one of the two was tested on."""
        ours, theirs = (run.result["metrics"].keys() for run in (self.first, self.second))
        return sorted(ours ^ theirs)


def main(arguments: Sequence[str]) -> int:
    """Compare the runs that the options name.

    Raises:
        UserError: as `compare` says, or `out` cannot be written.
    """
    options = read_options(arguments, CompareOptions, alone=("run", "against"))
    compared = compare(options)
    show(compared)
    if options.out is not None:
        write(compared, Path(options.out), options)
        print(f"Written to {options.out}")
    return 0


def compare(options: CompareOptions) -> Compared:
    """What is different between two finished runs.

    Raises:
        RunNotFound: a folder holds no finished run, or its answers are gone.
        IncompatibleChoice: the two cannot be compared.
        BadRecord: a result or an answers table is damaged.
    """
    from biqa.reporting.pairwise import different_origins, pair_runs
    from biqa.reporting.result import FoundRun, read_result
    from biqa.runs import differences, find_run

    folders = find_run(options.run, "run"), find_run(options.against, "against")
    first, second = (FoundRun(folder.path, read_result(folder.result)) for folder in folders)
    pairs = pair_runs(first, second, resamples=options.resamples, seed=options.seed, show=options.show)
    ours, theirs = (folder.read_config() for folder in folders)
    return Compared(first, second, differences(ours, theirs), different_origins(first.result, second.result), pairs)


def show(compared: Compared) -> None:
    """Print everything, the answer in words last."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from biqa.reporting import pairwise

    console = Console()
    for side, run in zip("AB", (compared.first, compared.second), strict=True):
        console.print(f"{side}  {of_run(run)}", markup=False, highlight=False)
    tables: list[tuple[str, tuple[str, ...], list[list[str]]]] = []
    if compared.config:
        tables.append(("Config", ("option", "A", "B"), option_rows(compared.config)))
    for pair in compared.pairs:
        figures = pairwise.figure_rows(pair, compared.first, compared.second)
        tables.append((f"{pair.dataset}, {pair.images} images", pairwise.FIGURE_HEADINGS, figures))
        if pair.changed:
            tables.append((f"{pair.dataset}: scores that changed most", pairwise.CHANGE_HEADINGS, pairwise.change_rows(pair)))
    for title, headings, rows in tables:
        table = Table(title=escape(title), title_justify="left")
        for heading in headings:
            table.add_column(heading, overflow="fold")
        for row in rows:
            table.add_row(*map(escape, row))
        console.print(table)
    for sentence in sentences(compared):
        console.print(sentence, markup=False, highlight=False)


def of_run(run: "FoundRun") -> str:
    """A run in a line."""
    choices = run.result["run"]
    return f"{run.folder}: stage={choices['stage']} model={choices['model']} data={choices['data']} seed={run.result['seed']}"


def option_rows(values: Mapping[str, tuple[Any, Any]]) -> list[list[str]]:
    """Name and both values, as texts; of what is chosen by its name the choice."""
    from biqa.config import choice_of

    def text(name: str, value: Any) -> str:  # noqa: ANN401 (whatever an option is)
        return "-" if value is None else choice_of(value) if name.endswith("_target_") and value != "absent" else str(value)

    return [[name.removesuffix("._target_"), *(text(name, value) for value in pair)] for name, pair in values.items()]


def sentences(compared: Compared) -> list[str]:
    """What there is to say in words: images won and lost, what else differs, and the answer."""
    from biqa.reporting.pairwise import in_words, tallies
    from biqa.reporting.result import alarms_of

    runs = {"A": compared.first, "B": compared.second}
    said = [f"WARNING: {side}, {dataset}: {text}" for side, run in runs.items() for dataset, text in alarms_of(run.result)]
    said += [] if compared.config else ["Config: nothing differs that matters."]
    if compared.origin:
        said.append("Made with: " + "; ".join(f"{name} {a} | {b}" for name, (a, b) in compared.origin.items()))
    said += [f"{pair.dataset}: {tally}." for pair in compared.pairs for tally in tallies(pair)]
    said += [f"Not compared: {', '.join(compared.left_out)}, on which one of the two was tested."] if compared.left_out else []
    return [*said, OVER_IMAGES, *(in_words(pair) for pair in compared.pairs)]


def write(compared: Compared, file: Path, options: CompareOptions) -> None:
    """The same as Markdown, CSV or JSON.

    Raises:
        Unwritten: the disk is full, or takes nothing.
        IncompatibleChoice: the file cannot be written.
    """
    try:
        write_whole(file, text(compared, file.suffix, options))
    except Unwritten:
        raise
    except OSError as error:
        raise IncompatibleChoice(f"out={file} cannot be written ({error.strerror}). Choose a file in a folder that you may write to.") from error


def text(compared: Compared, ending: str, options: CompareOptions) -> str:
    """What stands in the file."""
    from biqa.reporting.pairwise import pairs_as_csv
    from biqa.reporting.result import json_text

    if ending == ".csv":
        return pairs_as_csv(compared.pairs, compared.first, compared.second)
    return markdown(compared, options) if ending == ".md" else json_text(values(compared, options))


def values(compared: Compared, options: CompareOptions) -> dict[str, Any]:
    """All of it, for programs."""
    from biqa.reporting.pairwise import pairs_as_values

    return {
        "first": str(compared.first.folder),
        "second": str(compared.second.folder),
        "resamples": options.resamples,
        "seed": options.seed,
        "config": {name: list(pair) for name, pair in compared.config.items()},
        "made_with": {name: list(pair) for name, pair in compared.origin.items()},
        "datasets": pairs_as_values(compared.pairs, compared.first, compared.second),
        "not_compared": compared.left_out,
    }


def markdown(compared: Compared, options: CompareOptions) -> str:
    """All of it, to read."""
    from biqa.reporting import pairwise

    command = f"biqa compare {compared.first.folder} {compared.second.folder} resamples={options.resamples} seed={options.seed}"
    parts = [f"Made with `{command}`.", f"- A: {of_run(compared.first)}\n- B: {of_run(compared.second)}"]
    if compared.config:
        parts.append(pairwise.markdown_table(("option", "A", "B"), option_rows(compared.config)))
    for pair in compared.pairs:
        parts += [f"**{pair.dataset}, {pair.images} images**"]
        parts += [pairwise.markdown_table(pairwise.FIGURE_HEADINGS, pairwise.figure_rows(pair, compared.first, compared.second))]
        parts += ["Scores that changed most:", pairwise.markdown_table(pairwise.CHANGE_HEADINGS, pairwise.change_rows(pair))] if pair.changed else []
    return "\n\n".join([*parts, "\n".join(f"- {sentence}" for sentence in sentences(compared))]) + "\n"


if __name__ == "__main__":
    open_light_door(main)
