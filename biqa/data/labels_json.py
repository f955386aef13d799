"""Label files of Q-Align and DeQA-Score, with their known defects repaired or told."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np

from biqa.data.conversations import Entry, read_entries
from biqa.data.import_report import ImportReport, compare_answers, falls
from biqa.data.layout import Folder
from biqa.data.record import Record, Split
from biqa.data.rows import QUOTED_PATH, is_there, number_in, quoted
from biqa.data.splits import split_by_group
from biqa.data.table import Table
from biqa.errors import BadRecord, DatasetNotFound, IncompatibleChoice
from biqa.language.levels import LEVELS, WEIGHTS

REFERENCE_FOLDERS = ("refimgs", "src_imgs")
"""Where LIVE and CSIQ keep their references."""

_CSIQ_DISTORTED = re.compile(r"\.(?:awgn|blur|contrast|fnoise|jpeg|jpeg2000)\.\d\.\w+$", re.IGNORECASE)
"""A name that states a distortion: two distorted images of CSIQ have DMOS 0, and are no references."""

_IMAGE_TOKEN = re.compile(r"<\|image\|>|<image>")


@dataclass(frozen=True)
class Label:
    """One entry of a label file."""

    where: str
    image: str
    side: Literal["train", "test"]
    """Of the file that it stands in."""
    score: float
    std: float | None
    norm: float | None
    """DeQA-Score's `gt_score_norm`: 1..5 over the whole set, higher is better."""
    expected: float | None
    """Mean of DeQA-Score's `level_probs`, on the scale of q."""
    doubled: bool
    """Whether a question holds two questions or two image tokens, as a missing comma made them in Q-Align's files."""
    answer: str | None


def read_label(entry: Entry, side: Literal["train", "test"]) -> Label:
    """An entry as a label. Raises BadRecord where a field is missing or no number."""
    exchanges = entry.exchanges if "conversations" in entry.fields else []
    return Label(
        where=entry.where,
        image=entry.image,
        side=side,
        score=_score(entry),
        std=_number(entry, "std"),
        norm=_number(entry, "gt_score_norm"),
        expected=_expected(entry),
        doubled=any(question.count("?") > 1 or len(_IMAGE_TOKEN.findall(question)) > 1 for question, _ in exchanges),
        answer=exchanges[-1][1] if exchanges else None,
    )


def _score(entry: Entry) -> float:
    """`gt_score`, or what stands after "->" in `id`, as in Q-Align's KADID files."""
    given = _number(entry, "gt_score")
    if given is not None:
        return given
    _, arrow, text = str(entry.fields.get("id", "")).rpartition("->")
    if not arrow:
        raise BadRecord(
            f'{entry.where}: there is no score under gt_score, nor in an id such as "a.png->3.5"; found {", ".join(entry.fields)}. '
            f"Add it, or take the entry out."
        )
    return _as_number(text, entry, "id")


def _number(entry: Entry, key: str) -> float | None:
    """A number or a text that is one (Q-Align's "2.65 "); None where it is null or missing."""
    value = entry.fields.get(key)
    return None if value is None else _as_number(value, entry, key)


def _as_number(value: Any, entry: Entry, key: str) -> float:  # noqa: ANN401 (whatever JSON holds)
    if isinstance(value, int | float | str) and not isinstance(value, bool) and (number := number_in(str(value))) is not None:
        return number
    raise BadRecord(f"{entry.where}: {quoted(repr(value))} under {key} is not a number. Correct it, or take the entry out.")


def _expected(entry: Entry) -> float | None:
    given = entry.fields.get("level_probs")
    if given is None:
        return None
    if not isinstance(given, list) or len(given) != len(LEVELS):
        raise BadRecord(f"{entry.where}: level_probs must be a list of {len(LEVELS)} numbers, from excellent to bad. Correct it, or leave it out.")
    return float(np.dot([_as_number(value, entry, "level_probs") for value in given], WEIGHTS[::-1]))


class LabelsJson:
    """Train and test JSON of Q-Align (arXiv 2312.17090) or DeQA-Score (arXiv 2501.11561): scale and direction are what you declare.

    Of an entry count `image` (or `img_path`), `gt_score` (a number or a text; without it, what follows "->" in `id`) and `std` (on the score's
    scale). `conversations`, `gt_score_norm` and `level_probs` are only compared with the score: level and soft target always come from the score
    on its declared scale, so a wrong answer cannot be learnt (Q-Align's ft/live and ft/csiq call the best images "bad"). `report` has the defects.

    Signs: DeQA-Score stores CSIQ as -DMOS. Declare the set, low=0 high=1 direction="dmos": where no score is above 0 on a DMOS scale that begins
    at 0 or above, all signs are turned. Or declare the numbers as they stand: low=-1 high=0 direction="mos".

    Args:
        train: label file, a JSON list of objects.
        root: folder that the image names are relative to.
        low: lower end of the score's scale.
        high: upper end of the score's scale.
        direction: "mos" (a higher `gt_score` is better) or "dmos" (higher is worse).
        test: label file of the test images; None: these are drawn from `train`.
        name: name of the data set; None: the training file's name without its ending.
        group: regular expression searched in an image's file name; its first bracket, or else all that it finds, is what must stay on one side of
            a split: "^[^.]+" for CSIQ, "^[iI][0-9]+" for KADID-10k and TID2013. None: the image itself. LIVE's names do not tell the reference:
            to split it by reference, read the release (data=live).
        split_seed: draws the validation images, and without `test` the test images.
        val_share: share of the groups held out for validation (with `test`: of the training groups).
        test_share: share of the groups held out for test, without `test`.
        on_bad_image: "stop" refuses an entry whose image is missing; "skip" leaves that to `biqa.data.survey.check_images`, which counts it.

    Raises:
        IncompatibleChoice: the scale is empty, or a DMOS one that ends at or below 0; the direction is not known; the name has a slash.
    """

    def __init__(
        self,
        *,
        train: str | Path,
        root: str | Path,
        low: float,
        high: float,
        direction: Literal["mos", "dmos"],
        test: str | Path | None = None,
        name: str | None = None,
        group: str | None = None,
        split_seed: int = 0,
        val_share: float = 0.1,
        test_share: float = 0.2,
        on_bad_image: Literal["stop", "skip"] = "stop",
    ) -> None:
        # declared as for a table of one's own, with the same refusals
        self.card = Table(file=train, low=low, high=high, direction=direction, name=name).card
        if direction == "dmos" and high <= 0:
            raise IncompatibleChoice(
                f"data.direction=dmos with data.low={low:g} and data.high={high:g}: of negative scores the higher ones are better. "
                f"Choose data.direction=mos, or give the scale of the DMOS itself, as data.low={-high:g} data.high={-low:g}: signs are turned then."
            )
        self.train, self.test, self.root = Path(train), None if test is None else Path(test), Path(root)
        self.group = None if group is None else re.compile(group)
        self.split_seed, self.val_share, self.test_share = split_seed, val_share, test_share
        self.on_bad_image = on_bad_image
        self.report = ImportReport(rows=0)
        """What was repaired, dropped and found, once `records` was called."""

    @property
    def split_published(self) -> bool:
        """Whether there is a test file."""
        return self.test is not None

    def records(self) -> list[Record]:
        """One record an image, in the order of the files, training first.

        Raises:
            DatasetNotFound: a file or the folder of images is not there.
            BadRecord: a damaged file (`biqa.data.conversations.read_entries`); or an entry is unusable: no image name or one that leads out of
                `root`, no score or one off the scale, an impossible std, a second score for an image, an image or group that is in the other file
                too, a missing image (on_bad_image="stop").
            IncompatibleChoice: `gt_score_norm` speaks against the declared direction.
        """
        read = [read_label(entry, "train") for entry in read_entries(self.train)]
        if self.test is not None:
            read += [read_label(entry, "test") for entry in read_entries(self.test)]
        turned = self._signs_are_turned(read)
        signed = [replace(label, score=0 - label.score) for label in read] if turned else read
        references = tuple(label.image for label in signed if self._is_reference(label))
        labels, paths, repeated = self._placed([label for label in signed if not self._is_reference(label)])
        groups = [self._group(label) for label in labels]
        self._refuse_overlap(labels, groups)
        q = [self.card.quality(label.score, label.where) for label in labels]
        self._refuse_other_direction(labels, q)
        self.report = ImportReport(
            rows=len(read), turned=len(read) if turned else 0, references=references, repeated=repeated,
            doubled=tuple(label.image for label in labels if label.doubled),
            probabilities_inverted=falls((label.expected, quality) for label, quality in zip(labels, q, strict=True)),
            answers=compare_answers((label.image, label.answer, quality) for label, quality in zip(labels, q, strict=True)),
        )  # fmt: skip
        return [
            Record(
                image=label.image,
                path=path,
                q=quality,
                split=side,
                group=group,
                score=label.score,
                q_std=self._deviation(label),
                dataset=self.card.name,
            )
            for label, path, quality, side, group in zip(labels, paths, q, self._sides(labels, groups), groups, strict=True)
        ]

    def _signs_are_turned(self, labels: Sequence[Label]) -> bool:
        scores = [label.score for label in labels]
        return self.card.direction == "dmos" and self.card.low >= 0 and max(scores) <= 0 and min(scores) < 0

    def _is_reference(self, label: Label) -> bool:
        *folders, file = PurePosixPath(label.image.lower()).parts
        unchanged = self.card.direction == "dmos" and label.score == 0 and not _CSIQ_DISTORTED.search(file)
        return unchanged or any(folder in REFERENCE_FOLDERS for folder in folders)

    def _placed(self, labels: Sequence[Label]) -> tuple[list[Label], list[Path], tuple[str, ...]]:
        """Labels of different images with their files, and the images that a file names again with the same score."""
        if not self.root.is_dir():
            raise DatasetNotFound(f"{self.root}: there is no such folder. Set data.root= to the folder that the image names start from.")
        folder = Folder(self.root)
        placed: dict[Path, Label] = {}
        repeated: list[str] = []
        for label in labels:
            path = folder.find(label.image, label.where) or self.root / label.image
            if self.on_bad_image == "stop" and not is_there(path):
                raise BadRecord(
                    f"{label.where}: the image {quoted(str(path), QUOTED_PATH)} is missing. Set data.root= to the folder that the image names "
                    f"start from, or data.on_bad_image=skip to leave such entries out."
                )
            first = placed.setdefault(path, label)
            if first.side != label.side:
                raise BadRecord(_overlap(label, f"the image {label.image} stands in", first))
            if first is not label:
                if first.score != label.score:
                    raise BadRecord(
                        f"{label.where}: the image {label.image} has score {label.score:g}, and {first.score:g} in {first.where}. "
                        f"Keep the entry that is right."
                    )
                repeated.append(label.image)
        return list(placed.values()), list(placed), tuple(repeated)

    def _group(self, label: Label) -> str:
        if self.group is None:
            return label.image
        found = self.group.search(PurePosixPath(label.image).name)
        part = found and found[1 if self.group.groups else 0]
        if part is None:  # the bracket may belong to an alternative that was not taken
            raise BadRecord(
                f"{label.where}: data.group={self.group.pattern} finds nothing in the file name of {label.image}. "
                f"Give a pattern that fits all images."
            )
        return part.casefold()

    def _refuse_overlap(self, labels: Sequence[Label], groups: Sequence[str]) -> None:
        first: dict[str, Label] = {}
        for label, group in zip(labels, groups, strict=True):
            if first.setdefault(group, label).side != label.side:
                raise BadRecord(_overlap(label, f"the image {label.image} is of group {group}, of which images stand in", first[group]))

    def _refuse_other_direction(self, labels: Sequence[Label], q: Sequence[float]) -> None:
        if falls((label.norm, quality) for label, quality in zip(labels, q, strict=True)):
            other = "mos" if self.card.direction == "dmos" else "dmos"
            raise IncompatibleChoice(
                f"{self.train}: gt_score_norm, of which higher is better, falls as quality rises with data.direction={self.card.direction}. "
                f"Choose data.direction={other}."
            )

    def _deviation(self, label: Label) -> float | None:
        width = self.card.high - self.card.low
        if label.std is None:
            return None
        if not 0 <= label.std <= width:
            raise BadRecord(
                f"{label.where}: a standard deviation of {label.std:g} cannot be on a scale of {self.card.low:g}..{self.card.high:g}. "
                f"Give std on the scale of the score, or leave it out."
            )
        return label.std / width

    def _sides(self, labels: Sequence[Label], groups: Sequence[str]) -> list[Split]:
        if self.test is None:
            return split_by_group(groups, val_share=self.val_share, test_share=self.test_share, seed=self.split_seed)
        training = [group for label, group in zip(labels, groups, strict=True) if label.side == "train"]
        drawn = iter(split_by_group(training, val_share=self.val_share, test_share=0.0, seed=self.split_seed))
        return [next(drawn) if label.side == "train" else "test" for label in labels]


def _overlap(label: Label, what: str, other: Label) -> str:
    return f"{label.where}: {what} {other.where} too, so test images would be known from training. Take it out of one of the files."
