"""What a run began with, kept in its folder: its pictures and their labels, the weights that it builds on, its questions as the model reads them, the
code. What goes on with a run, builds on it or answers with it is held against that, as otherwise it would be of two minds and nobody would see it.

runs/<name>/origin.json  pictures.parquet
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

import biqa
from biqa.data.inspection import alike, copies
from biqa.data.overlap import Overlap
from biqa.data.record import Record, Split
from biqa.data.survey import Look
from biqa.errors import BadRecord, IncompatibleChoice, RunExists
from biqa.files import write_whole
from biqa.language.levels import LEVELS
from biqa.language.prompts import DESCRIBE, INFER, JOINT, STEM
from biqa.reporting.result import collect_versions, read_result, write_json
from biqa.reporting.sameness import WEIGHTS
from biqa.running.loading import Corpus, tell_overlap
from biqa.runs import RunFolder, shortened

if TYPE_CHECKING:
    from biqa.models.vlm import VLM

ORIGIN, PICTURES = "origin.json", "pictures.parquet"
BLOCK, BLOCKS = 2**16, 64
"""Bytes and number of the pieces that the print of a file of weights is taken of; a smaller file is read whole."""
QUESTIONS = {"stage 1": DESCRIBE, "joint": JOINT, "stage 2": INFER, "the stem": STEM, "the levels": " ".join(LEVELS)}
"""What models are asked and what follows, in words."""


@dataclass(frozen=True)
class Origin:
    """What a run began with."""

    pictures: pd.DataFrame
    """A row a picture: dataset, image, split, q, pixels, hash, learnt (bool), by ("": this run; else the run that it builds on, which learnt it)."""
    builds_on: Mapping[str, str]
    """Run folder -> print of its weights."""
    questions: Mapping[str, Any]
    """`questions_of` the model."""
    code: Mapping[str, str]
    """`code_here`."""

    @classmethod
    def of(cls, corpus: Corpus, vlm: "VLM", builds_on: Iterable[RunFolder | None], *, learns: bool) -> "Origin":
        """That of a run that begins here.

        Args:
            corpus: its data.
            vlm: its model.
            builds_on: the runs whose weights it starts from or that describe for it.
            learns: whether it learns from its training images.
        """
        runs = {str(run.path): run for run in builds_on if run is not None}
        own = [_row(images.card.name, record, corpus.looks, learns) for images in corpus.sets for record in images.records]
        rows = pd.DataFrame(own, columns=["dataset", "image", "split", "q", "pixels", "hash", "learnt"]).assign(by="")
        earlier = [
            learnt.assign(by=learnt["by"].where(learnt["by"] != "", run.path.name)) for run in runs.values() if (learnt := learnt_by(run)) is not None
        ]
        pictures = pd.concat([rows, *earlier], ignore_index=True)
        return cls(pictures, {path: print_of_weights(run.path) for path, run in runs.items()}, questions_of(vlm), code_here())

    def write(self, folder: RunFolder) -> None:
        """Into the run's folder, each file whole or not at all."""
        write_whole(folder.path / PICTURES, self.pictures.to_parquet(index=False))
        write_json({"builds_on": self.builds_on, "questions": self.questions, "code": self.code}, folder.path / ORIGIN)

    @classmethod
    def read(cls, folder: RunFolder) -> "Origin | None":
        """That of a run; None of one of a release that kept none, or that was stopped before it had.

        Raises:
            BadRecord: a file is damaged.
        """
        if not (folder.path / ORIGIN).is_file():
            return None
        try:
            kept = json.loads((folder.path / ORIGIN).read_text(encoding="utf-8"))
            return cls(pd.read_parquet(folder.path / PICTURES), kept["builds_on"], kept["questions"], kept["code"])
        except (OSError, ValueError, KeyError, TypeError) as error:  # pyarrow's errors are of the first two
            raise BadRecord(f"{folder.path}: {ORIGIN} or {PICTURES} is damaged ({error}). Run that run again with overwrite=true.") from error


def _row(dataset: str, record: Record, looks: Mapping[Path, Look], learns: bool) -> tuple[Any, ...]:
    look = looks[record.path]
    return dataset, record.image, record.split, record.q, look.pixels, look.hash, learns and record.split != "test"


def learnt_by(run: RunFolder) -> pd.DataFrame | None:
    """The pictures that a run has learnt from, and those that the runs before it have; None where it kept no note of them."""
    origin = Origin.read(run)
    return None if origin is None else origin.pictures.loc[origin.pictures["learnt"], :]


def print_of_weights(run: Path) -> str:
    """Tells what a run has learnt from what another has: SHA-256 over the files of its weights, of large ones over BLOCKS pieces. "": it has none."""
    found = hashlib.sha256()
    files = sorted(file for kind in WEIGHTS for file in (run / kind).glob("*.safetensors"))
    for file in files:
        size = file.stat().st_size
        found.update(f"{file.relative_to(run)} {size}".encode())
        with file.open("rb") as content:
            for piece in range(BLOCKS):
                content.seek(max(0, (size - BLOCK) * piece // (BLOCKS - 1)) if size > BLOCK * BLOCKS else BLOCK * piece)
                found.update(content.read(BLOCK))
    return found.hexdigest()[:16] if files else ""


def questions_of(vlm: "VLM") -> dict[str, Any]:
    """What a model is asked: in words, and a hash of it as the tokens that it reads, template and all."""
    asked = [
        vlm.question_ids(text) for text in (DESCRIBE, JOINT, INFER.format(description="The image is sharp and noisy, with 3 blocks of 8 pixels."))
    ]
    after = [vlm.opening(STEM), vlm.continuation(f" {STEM}"), *(vlm.continuation(f" {level}") for level in LEVELS), vlm.continuation(".")]
    tokens = json.dumps([[list(ids) for ids in asked], after, vlm.level_ids, vlm.eos_id])
    return {"words": QUESTIONS, "tokens": hashlib.sha256(tokens.encode()).hexdigest()[:16]}


@cache
def code_here() -> dict[str, str]:
    """Versions of all that can move a figure, and a hash of this package's own source."""
    found = hashlib.sha256()
    package = Path(biqa.__file__).parent
    for file in sorted(package.rglob("*.py")):
        found.update(str(file.relative_to(package)).encode() + file.read_bytes())
    return {**collect_versions(), "source": found.hexdigest()[:12]}


def refuse_changed(folder: RunFolder, now: Origin) -> list[str]:
    """Check that a run that goes on has the data and the weights before it that it began with.

    Returns:
        A sentence where it goes on with other code.

    Raises:
        RunExists: pictures, labels or splits have changed, or the runs that it builds on; nothing is written.
    """
    began = Origin.read(folder)
    if began is None:
        return []
    again = "Put them back as they were and go on, or start again with overwrite=true."
    if differs := _changed_pictures(began.pictures, now.pictures):
        raise RunExists(f"{folder.path}: its data have changed since it began.\n" + "\n".join(shortened(differs)) + f"\n{again}")
    if sorted(began.builds_on.values()) != sorted(now.builds_on.values()):
        there = ", ".join(began.builds_on)
        raise RunExists(
            f"{folder.path}: the run that it builds on ({there}) has other weights than when it began: it was made anew, or moved. {again}"
        )
    moved = [f"{name} {began.code.get(name, 'none')} -> {now.code.get(name, 'none')}" for name in now.code if began.code.get(name) != now.code[name]]
    return [f"the run was begun with other code than it goes on with: {', '.join(moved)}. It need not be what either would give."] if moved else []


def _changed_pictures(before: pd.DataFrame, now: pd.DataFrame) -> list[str]:
    """A line for each picture that is not what it was."""
    columns = {"pixels": "other pixels", "q": "another quality", "split": "another split"}
    then, here = ({(row["dataset"], row["image"]): row for row in frame.to_dict("records") if row["by"] == ""} for frame in (before, now))
    lines = []
    for name in sorted(then.keys() | here.keys()):
        if name not in then or name not in here:
            lines.append(f"  {name[1]} of {name[0]}: {'was not there then' if name not in then else 'is gone'}")
        elif differ := [text for column, text in columns.items() if then[name][column] != here[name][column]]:
            lines.append(f"  {name[1]} of {name[0]}: {', '.join(differ)}")
    return lines


def tell_learnt_before(corpus: Corpus, builds_on: Sequence[RunFolder | None], *, stop: bool) -> None:
    """Find test pictures that the runs have learnt from which this one builds on, and say so with their data set.

    Raises:
        BadRecord: there are some pixel for pixel, and `stop` is on.
    """
    for run in {run.path: run for run in builds_on if run is not None}.values():
        before = learnt_by(run)
        for images in corpus.test:
            test = images.split("test")
            if before is None:
                _tell_unknown(run, images.card.name, images.fingerprint, images.alarms)
                continue
            learnt, looks = _as_records(before)
            same = copies(test, learnt, corpus.looks | looks)
            told = {record.image for record, _ in same}
            near = alike([record for record in test if record.image not in told], learnt, corpus.looks | looks)
            found = Overlap(same, [], list(near.of_each))
            tell_overlap(found, images=len(test), tested=images.card.name, learnt=f"{run.path} (which this run builds on)", stop=stop, to=images)


def _tell_unknown(run: RunFolder, dataset: str, fingerprint: str, alarms: list[str]) -> None:
    """A run of an older release kept no note of its pictures: where it knew the data set with another split, nobody can tell."""
    facts = read_result(run.result)["data"].get(dataset, {})
    if facts.get("trained_on") and facts["fingerprint"] != fingerprint:
        alarms.append(
            f"{run.path}, which this run builds on, has learnt from {facts['trained_on']} images of {dataset} in another split or with other labels, "
            f"and kept no note of which: test images may be among them."
        )


def _as_records(pictures: pd.DataFrame) -> tuple[list[Record], dict[Path, Look]]:
    """Pictures of another run, as far as they are known."""
    records, looks = [], {}
    for number, row in enumerate(pictures.to_dict("records")):
        path, side = Path(f"\0/{number}"), row["split"]  # a name that no file has
        split: Split = "val" if side == "val" else "train"
        records.append(Record(image=row["image"], path=path, q=row["q"], split=split, group="", score=row["q"], dataset=row["dataset"]))
        looks[path] = Look(problem=None, pixels=row["pixels"], hash=row["hash"])
    return records, looks


def refuse_other_stage_one(folder: RunFolder, stage_one: RunFolder) -> None:
    """Check that a stage 1 is the one on whose descriptions a stage 2 was taught.

    Raises:
        IncompatibleChoice: it has other weights.
    """
    origin = Origin.read(folder)
    if origin is not None and print_of_weights(stage_one.path) not in origin.builds_on.values():
        raise IncompatibleChoice(
            f"{stage_one.path} is not the stage 1 that {folder.path} was taught on: it has other weights, as of a run that was made anew. "
            f"Name that one (perception=FOLDER), or train the stage 2 again on this one."
        )


def refuse_other_questions(run: RunFolder, vlm: "VLM") -> None:
    """Check that a model is asked what the run was whose weights it has.

    Raises:
        IncompatibleChoice: another question, template or tokenizer.
    """
    origin = Origin.read(run)
    if origin is None or origin.questions["tokens"] == questions_of(vlm)["tokens"]:
        return
    then = origin.questions["words"]
    other = [name for name, text in QUESTIONS.items() if then.get(name) != text]
    what = f"the words of {', '.join(other)} are others" if other else "the tokenizer or the chat template is another"
    raise IncompatibleChoice(
        f"{run.path}: its weights were taught with other questions than are asked here: {what}. Use the model= options and the release of biqa "
        f"({origin.code.get('biqa')}) of that run, or train anew."
    )
