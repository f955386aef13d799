"""The analyses of a finished run, each from its answers to `analysis/<name>.parquet` (the data) and `analysis/<name>.json` (the figures)."""

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from biqa.errors import IncompatibleChoice
from biqa.evaluation.answers import PROBABILITIES, read_table
from biqa.files import write_whole
from biqa.finished.opened import OpenedRun
from biqa.language.levels import LEVELS, level_index, score_of
from biqa.language.lexicon import read
from biqa.running.parts import rows_in_parts

if TYPE_CHECKING:
    from biqa.models.inside import Context
    from biqa.models.vlm import VLM

Rows = list[dict[str, Any]]
Shown = Callable[[Iterable[None], int], Iterable[None]]
"""(pieces as they are done, how many there are) -> the same."""
VERSION = 2
"""Of what analyses write. A change that moves a figure raises it, so that no old file is taken for a new one."""


@dataclass(frozen=True)
class Settings:
    """What the figures of an analysis depend on, beside the run."""

    images: int | None
    """Images of each data set, at most; None: all."""
    folds: int
    """Of the cross-validation."""
    resamples: int
    """Of the bootstrap."""
    seed: int
    """Draws images, folds and resamples."""
    batch_size: int
    """Images that a model is shown at a time."""


@dataclass(frozen=True)
class Piece:
    """Some images of one data set."""

    dataset: str
    rows: pd.DataFrame
    """Their greedy answers, an image a row."""


@dataclass(frozen=True)
class Task:
    """One analysis of one run."""

    name: str
    opened: OpenedRun
    settings: Settings
    shown: Shown
    """Goes through pieces, and may show how far it is."""

    @property
    def folder(self) -> Path:
        """Where its files lie."""
        return self.opened.folder.path / "analysis"

    @property
    def key(self) -> str:
        """Says what its figures depend on: the answers, the settings, and how this release looks at them."""
        return sha256(json.dumps([VERSION, self.name, self.opened.digest, asdict(self.settings)]).encode()).hexdigest()[:12]

    @property
    def draws(self) -> dict[str, int]:
        """How intervals are drawn."""
        return {"resamples": self.settings.resamples, "seed": self.settings.seed}

    def in_parts(self, table: str, rows: "Callable[[Piece], Rows]") -> pd.DataFrame:
        """The rows of all images that are looked at, made so many images at a time; what a killed analysis has made is not made again."""
        size = self.settings.batch_size
        pieces = [
            Piece(dataset, answers.iloc[at : at + size].reset_index(drop=True))
            for dataset, answers in self.opened.greedy.items()
            for at in range(0, len(answers), size)
        ]
        file = self.folder / f"{table}.parquet"
        for _ in self.shown(rows_in_parts(pieces, rows, file, self.key), len(pieces)):
            pass
        return read_table(file)

    def by_layer(self, look: "Callable[[VLM, Sequence[Context]], list[Rows]]") -> dict[str, pd.DataFrame]:
        """Data set -> rows of `look`, a layer of an image a row."""

        def rows(piece: Piece) -> Rows:
            images = [str(image) for image in piece.rows["image"]]
            with self.opened.precision():
                found = look(self.opened.vlm, self.opened.contexts(piece.dataset, images, list(piece.rows["description"])))
            return [{"dataset": piece.dataset, "image": image, **row} for image, of in zip(images, found, strict=True) for row in of]

        return by_dataset(self.in_parts(self.name, rows))


def by_dataset(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The rows of each data set."""
    return {str(dataset): of for dataset, of in rows.groupby("dataset", sort=True)} if len(rows) else {}


def analyse(task: Task) -> dict[str, Any]:
    """The summary of one analysis: read where it was made before from the same answers and settings, else made.

    Returns:
        What `analysis/<name>.json` holds; `datasets` has the figures of each data set.
    """
    file = task.folder / f"{task.name}.json"
    if file.is_file() and (found := json.loads(file.read_text(encoding="utf-8"))).get("key") == task.key:
        return found
    from biqa.reporting.result import collect_versions, write_json

    task.folder.mkdir(exist_ok=True)
    start = time.perf_counter()
    datasets = ANALYSES[task.name](task)
    run = task.opened.result
    summary = {
        "schema": 1, "analysis": task.name, "key": task.key, "run": run["run"], "seed": run["seed"], "settings": asdict(task.settings),
        "datasets": datasets, "seconds": round(time.perf_counter() - start, 2), "versions": collect_versions(),
    }  # fmt: skip
    write_json(summary, file)
    return json.loads(file.read_text(encoding="utf-8"))


def lens(task: Task) -> dict[str, Any]:
    """What each layer would say."""
    from biqa.analysis.lens import lens_rows, lens_summary

    found = {}
    for dataset, rows in task.by_layer(lens_rows).items():
        last = rows[rows["layer"] == rows["layer"].max()].set_index("image")[list(PROBABILITIES)]
        answered = task.opened.greedy[dataset].set_index("image").loc[last.index, list(PROBABILITIES)]
        error = float(np.abs(last.to_numpy() - answered.to_numpy()).max())
        found[dataset] = {**lens_summary(rows, **task.draws), "last_layer_error": error}
    return found


def attention(task: Task) -> dict[str, Any]:
    """What the level is given after looking at."""
    from biqa.analysis.attention import attention_summary, attention_table

    return {dataset: attention_summary(rows, **task.draws) for dataset, rows in task.by_layer(attention_table).items()}


def gap(task: Task) -> dict[str, Any]:
    """What the picture adds to the text. A stage 2 sees no picture: its gap is 0 by construction."""
    from biqa.analysis.gap import TEXTS, gap_summary

    def rows(piece: Piece) -> Rows:
        given = piece.rows[["dataset", "image", "description", "q"]].assign(score_image=piece.rows["score"])
        alone = {f"score_{text}": _text_scores(task.opened, question, piece.rows) for text, (question, _) in TEXTS.items()}
        return given.assign(**alone).to_dict("records")  # pyright: ignore[reportReturnType] (keys are the names of columns)

    return {dataset: gap_summary(dataset, of, **task.draws) for dataset, of in by_dataset(task.in_parts("gap", rows)).items()}


def _text_scores(opened: OpenedRun, question: str, answers: pd.DataFrame) -> NDArray[np.float64]:
    from biqa.models.inside import context_of

    if not opened.sees:
        return answers["score"].to_numpy(np.float64)
    return _scores(opened, [context_of(opened.vlm, question, text) for text in answers["description"]])


def _scores(opened: OpenedRun, contexts: "Sequence[Context]") -> NDArray[np.float64]:
    """Mean of the level distribution after each context: [contexts], in [0, 1]."""
    from biqa.models.sampling import level_probabilities

    with opened.precision():
        return score_of(level_probabilities(opened.vlm, [context.prompt for context in contexts], []).double().cpu().numpy())


def grounding(task: Task) -> dict[str, Any]:
    """How far the score follows from the description: by regression, and by changing the description."""
    from biqa.analysis.swaps import swaps_summary

    found = {dataset: _regressed(task, answers) for dataset, answers in task.opened.greedy.items()}
    write_table(pd.concat([_described(answers) for answers in task.opened.greedy.values()], ignore_index=True), task.folder / "grounding.parquet")
    swaps = by_dataset(_swapped(task))
    nothing = {"swaps": {}, "right_way": None}
    return {dataset: {**of, **(swaps_summary(swaps[dataset], **task.draws) if dataset in swaps else nothing)} for dataset, of in found.items()}


def _regressed(task: Task, answers: pd.DataFrame) -> dict[str, Any]:
    from biqa.analysis.grounding import ground

    readings = [read(text) for text in answers["description"]]
    return ground(
        [reading.features if reading.understood else None for reading in readings], coverage=np.array([reading.coverage for reading in readings]),
        scores=answers["score"].to_numpy(np.float64), levels=np.array([LEVELS.index(word) if word in LEVELS else -1 for word in answers["level"]]),
        folds=task.settings.folds, **task.draws,
    ).as_dict()  # fmt: skip


def _described(answers: pd.DataFrame) -> pd.DataFrame:
    """What each description says: a column `f:<feature>` a feature with its strength, missing where it is not named."""
    readings = [read(text) for text in answers["description"]]
    said = pd.DataFrame([{f"f:{name}": strength for name, strength in reading.features.items()} for reading in readings], index=answers.index)
    counted = {"understood": [reading.understood for reading in readings], "sentences": [reading.sentences for reading in readings]}
    return pd.concat([answers[["dataset", "image", "description", "score", "level"]].assign(**counted), said], axis=1)


def _swapped(task: Task) -> pd.DataFrame:
    from biqa.analysis.swaps import swap_rows

    def rows(piece: Piece) -> Rows:
        def score(pairs: Sequence[tuple[str, str]]) -> NDArray[np.float64]:
            size = task.settings.batch_size
            parts = [pairs[at : at + size] for at in range(0, len(pairs), size)]
            return np.concatenate([_scores(task.opened, task.opened.contexts(piece.dataset, *zip(*part, strict=True))) for part in parts])

        given = [(str(image), str(text)) for image, text in zip(piece.rows["image"], piece.rows["description"], strict=True)]
        before = score(given)  # not the answers' own: their batches were others, and sums differ in their last digits
        described = [(image, text, float(known)) for (image, text), known in zip(given, before, strict=True)]
        return [{"dataset": piece.dataset, **row} for row in swap_rows(described, score)]

    return task.in_parts("grounding-swaps", rows)


def contradiction(task: Task) -> dict[str, Any]:
    """Whether a level is what its own description implies to the people who judged the training images."""
    from biqa.evaluation.contradiction import ImpliedLevel, contradictions, summary

    opened = task.opened
    train = [(images.targets[record.image].text, record.q) for images in opened.corpus.training for record in images.split("train")]
    learnt = [(reading.features, level_index(q)) for text, q in train if (reading := read(text)).understood]
    if not learnt:
        raise IncompatibleChoice(f"{opened.folder.path}: no description of its training images names a feature that is known, so nothing is implied.")
    implied = ImpliedLevel.fit([features for features, _ in learnt], [level for _, level in learnt])
    tables = {dataset: contradictions(answers, implied.implied(_features(answers))) for dataset, answers in _all_queries(opened).items()}
    write_table(pd.concat(tables.values(), ignore_index=True), task.folder / "contradiction.parquet")
    return {dataset: {**summary(table, **task.draws), "trained_on": len(learnt)} for dataset, table in tables.items()}


def _all_queries(opened: OpenedRun) -> dict[str, pd.DataFrame]:
    """All answers for the images that are looked at."""
    some = {dataset: greedy["image"].tolist() for dataset, greedy in opened.greedy.items()}
    return {dataset: answers.loc[answers["image"].isin(some[dataset]), :].reset_index(drop=True) for dataset, answers in opened.answers.items()}


def _features(answers: pd.DataFrame) -> list[Mapping[str, int] | None]:
    """What each description says; None where nothing of it is understood."""
    known = {text: reading.features if (reading := read(text)).understood else None for text in answers["description"].unique()}
    return [known[text] for text in answers["description"]]


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write it, whole or not at all."""
    write_whole(path, table.to_parquet(index=False))


ANALYSES: Mapping[str, Callable[[Task], dict[str, Any]]] = {
    "grounding": grounding,
    "logit_lens": lens,
    "attention": attention,
    "contradiction": contradiction,
    "gap": gap,
}
"""Name -> what makes its files and gives its figures, data set -> figures."""
