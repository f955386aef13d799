"""Two finished runs side by side on the images that both answered: differences with intervals, images won and lost, what changed most."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from biqa.errors import IncompatibleChoice, RunNotFound
from biqa.evaluation.answers import read_answers
from biqa.evaluation.bootstrap import Difference, difference
from biqa.evaluation.evaluate import Answers, common_images
from biqa.evaluation.stability import level_measures
from biqa.reporting.formats import no_formula
from biqa.reporting.intervals import interval_text
from biqa.reporting.result import FoundRun
from biqa.reporting.systems import STAGE_NAMES, TABLE_METRICS, draws_of, load_answers

LABELS = {
    "srcc": "SRCC",
    "plcc": "PLCC",
    "instability_sampled": "instability %, sampled",
    "instability_argmax": "instability %, arg-max",
}
LOWER_IS_BETTER = ("instability_sampled", "instability_argmax")
DECISIONS = {"sampled": "sampled", "argmax": "arg-max"}
NO_DIFFERENCE = "no difference that the intervals can tell"
CSV_COLUMNS = ("dataset", "images", "metric", "first", "second", "difference", "low", "high", "p")


@dataclass(frozen=True)
class Tally:
    """How many images go to which run."""

    first: int
    second: int
    equal: int


@dataclass(frozen=True)
class Change:
    """One image whose score is another one."""

    image: str
    q: float
    """Human quality in [0, 1]."""
    first: float
    """Score of the greedy answer, in [0, 1]."""
    second: float
    first_level: str
    """Level word of the greedy answer; "" where it has none."""
    second_level: str


@dataclass(frozen=True)
class Pair:
    """Two runs on one data set."""

    dataset: str
    images: int
    differences: Mapping[str, Difference]
    """Metric -> first run minus second."""
    closer: Tally
    """Images whose score is nearer to human quality; those without a score in either run are not counted."""
    steadier: Mapping[str, Tally]
    """Decision -> images with less instability; {} where the runs were not asked several times."""
    changed: tuple[Change, ...]
    """Images with the largest change of the score, the largest first."""

    def ahead(self, metric: str) -> int:
        """1 where the first run is better by more than the interval, -1 where the second is, 0 where the interval cannot tell."""
        found = self.differences[metric]
        if math.isnan(found.low) or found.low <= 0 <= found.high:
            return 0
        return (1 if found.value > 0 else -1) * (-1 if metric in LOWER_IS_BETTER else 1)


def pair_runs(first: FoundRun, second: FoundRun, *, resamples: int, seed: int, show: int) -> list[Pair]:
    """Compare two runs on each data set that both were tested on.

    Args:
        first: a finished run; `second` another one.
        resamples: bootstrap resamples behind each interval; `seed` draws them.
        show: so many of the most changed images.

    Raises:
        IncompatibleChoice: a run scores no images, the two have no data set in common, or were tested on different images of one.
        RunNotFound: an answers table is not there.
        BadRecord: one is damaged, or does not give the figures of its result.json.
    """
    for run in (first, second):
        if (stage := run.result["run"]["stage"]) not in STAGE_NAMES:
            raise IncompatibleChoice(f"{run.folder} is a run of stage={stage}, which scores no images. Choose runs of {', '.join(STAGE_NAMES)}.")
    shared = sorted(first.result["metrics"].keys() & second.result["metrics"].keys())
    if not shared:
        ours, theirs = (", ".join(run.result["metrics"]) for run in (first, second))
        raise IncompatibleChoice(
            f"{first.folder} was tested on {ours} and {second.folder} on {theirs}: they have no data set in common. "
            f"Run one of them again with the other's data= or test=[...]."
        )
    return [_pair(first, second, dataset, resamples=resamples, seed=seed, show=show) for dataset in shared]


def _pair(first: FoundRun, second: FoundRun, dataset: str, *, resamples: int, seed: int, show: int) -> Pair:
    ours, theirs = (_answers(run, dataset) for run in (first, second))
    if ours.images != theirs.images:
        both = len(set(ours.images) & set(theirs.images))
        raise IncompatibleChoice(
            f"The runs were tested on different images of {dataset}: {len(ours.images)} in {first.folder}, {len(theirs.images)} in {second.folder}, "
            f"{both} in both. Only the same images can be compared: run one again with the other's data options (data.split_seed=, data.test=, ...)."
        )
    common_images(ours, theirs, dataset)  # refuses other labels
    drawn, others = (draws_of(run, dataset, resamples, seed) or {} for run in (first, second))
    values = [{metric: figure["value"] for metric, figure in run.result["metrics"][dataset].items()} for run in (first, second)]
    found = {
        metric: difference(values[0][metric] - values[1][metric], drawn[metric] - others[metric])
        for metric in TABLE_METRICS
        if metric in drawn and metric in others
    }
    steadier = {}
    if all(one.scores.shape[1] for one in (ours, theirs)):
        steadier = {decision: _tally(*(_instability(one, decision) for one in (ours, theirs))) for decision in DECISIONS}
    errors = [np.abs(one.score - one.q) for one in (ours, theirs)]
    words = [_levels(run, dataset) for run in (first, second)]
    return Pair(dataset, len(ours.images), found, _tally(*errors), steadier, _changed(ours, theirs, words, show))


def _answers(run: FoundRun, dataset: str) -> Answers:
    answers = load_answers(run, dataset)
    if answers is None:
        raise RunNotFound(
            f"{run.folder}: its answers are gone (answers/{dataset}.parquet is not there), and images can be compared by them alone. "
            f"Make them again: biqa rerun {run.folder}"
        )
    return answers


def _instability(answers: Answers, decision: str) -> NDArray[np.float64]:
    """Of each image, in percent."""
    return level_measures(answers.sampled if decision == "sampled" else answers.argmax)["instability"]


def _tally(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> Tally:
    """To whom each image goes when less is better; NaN goes to nobody."""
    return Tally(int((ours < theirs).sum()), int((theirs < ours).sum()), int((ours == theirs).sum()))


def _changed(ours: Answers, theirs: Answers, words: Sequence[Mapping[str, str]], show: int) -> tuple[Change, ...]:
    size = np.abs(ours.score - theirs.score)
    order = [row for row in np.argsort(-size, kind="stable") if size[row] > 0]  # NaN sorts last and is not > 0
    return tuple(
        Change(name, float(ours.q[row]), float(ours.score[row]), float(theirs.score[row]), words[0].get(name, ""), words[1].get(name, ""))
        for row in order[:show]
        if (name := ours.images[row])
    )


def _levels(run: FoundRun, dataset: str) -> dict[str, str]:
    """Image -> level word of its greedy answer."""
    frame = read_answers(run.folder / "answers" / f"{dataset}.parquet")
    greedy = frame.loc[frame["query"] == 0, :]
    return {str(image): str(level) for image, level in zip(greedy["image"], greedy["level"], strict=True) if not pd.isna(level)}


def different_origins(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What two results were made with, where it differs: versions, commit, hardware -> both values, None for one that is not known."""
    places = {f"{package} version": ("versions", package) for package in sorted(first["versions"] | second["versions"])}
    places |= {name: ("hardware", name) for name in ("cpu", "cores", "gpus", "processes")}
    pairs = {name: tuple(result[group].get(key) for result in (first, second)) for name, (group, key) in places.items()}
    pairs["commit"] = (first["git_commit"], second["git_commit"])
    return {name: (a, b) for name, (a, b) in pairs.items() if a != b}


def in_words(pair: Pair) -> str:
    """What came out on a data set, in a sentence or two."""
    start = f"{pair.dataset}, {pair.images} images: "
    better = {side: [LABELS[metric] for metric in pair.differences if pair.ahead(metric) == sign] for side, sign in (("A", 1), ("B", -1))}
    told = [f"{side} is better in {', '.join(labels)}" for side, labels in better.items() if labels]
    open_ones = [LABELS[metric] for metric in pair.differences if pair.ahead(metric) == 0]
    if not told:
        return f"{start}{NO_DIFFERENCE}."
    return start + "; ".join(told) + (f"; in {', '.join(open_ones)} {NO_DIFFERENCE}." if open_ones else ".")


def tallies(pair: Pair) -> list[str]:
    """Images won and lost, a sentence each."""
    named = {"nearer to human quality": pair.closer} | {f"steadier ({DECISIONS[decision]})": tally for decision, tally in pair.steadier.items()}
    return [f"{what}: A on {tally.first} images, B on {tally.second}, equal on {tally.equal}" for what, tally in named.items()]


def figure_rows(pair: Pair, first: FoundRun, second: FoundRun) -> list[list[str]]:
    """Metric, A, B, A minus B with its interval, p, which is better: a row a metric, as texts."""
    rows = []
    for metric, found in pair.differences.items():
        percent = metric in LOWER_IS_BETTER
        digits = (1, 1) if percent else (3, 2)
        both = [interval_text(run.result["metrics"][pair.dataset][metric], digits=digits) for run in (first, second)]
        better = {1: "A", -1: "B", 0: "-"}[pair.ahead(metric)]
        p = "undefined" if math.isnan(found.p) else f"{found.p:.3f}"
        rows.append([LABELS[metric], *both, interval_text(found.as_dict(), digits=digits, signed=True), p, better])
    return rows


FIGURE_HEADINGS = ("", "A", "B", "A minus B", "p", "better")
CHANGE_HEADINGS = ("image", "human", "A", "B", "level A", "level B")


def change_rows(pair: Pair) -> list[list[str]]:
    """The most changed images as texts."""
    return [
        [one.image, f"{one.q:.3f}", f"{one.first:.3f}", f"{one.second:.3f}", one.first_level or "-", one.second_level or "-"] for one in pair.changed
    ]


def pairs_as_csv(pairs: Sequence[Pair], first: FoundRun, second: FoundRun) -> str:
    """A line a data set and metric, figures unrounded, with the columns `CSV_COLUMNS`; empty where undefined."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for pair in pairs:
        for metric, found in pair.differences.items():
            figures = [run.result["metrics"][pair.dataset][metric]["value"] for run in (first, second)]
            numbers = (*figures, found.value, found.low, found.high, found.p)
            writer.writerow([no_formula(pair.dataset), pair.images, metric, *("" if math.isnan(number) else repr(number) for number in numbers)])
    return text.getvalue()


def pairs_as_values(pairs: Sequence[Pair], first: FoundRun, second: FoundRun) -> dict[str, Any]:
    """The same with all that was counted, for JSON: {data set: {...}}."""
    return {
        pair.dataset: {
            "images": pair.images,
            "figures": {
                metric: {
                    "first": run_figure(first, pair.dataset, metric),
                    "second": run_figure(second, pair.dataset, metric),
                    "difference": {**found.as_dict(), "better": {1: "first", -1: "second", 0: None}[pair.ahead(metric)]},
                }
                for metric, found in pair.differences.items()
            },
            "closer": asdict(pair.closer),
            "steadier": {decision: asdict(tally) for decision, tally in pair.steadier.items()},
            "changed": [asdict(one) for one in pair.changed],
        }
        for pair in pairs
    }


def run_figure(run: FoundRun, dataset: str, metric: str) -> dict[str, float]:
    """Value and interval of a run's figure."""
    return run.result["metrics"][dataset][metric]


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A pipe table."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
