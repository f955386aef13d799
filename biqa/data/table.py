"""Any data set that is a table with one row an image."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from biqa.data.record import Card, Record, Split
from biqa.data.rows import QUOTED_PATH, Row, is_there, quoted, read_rows
from biqa.data.splits import split_by_group
from biqa.errors import BadRecord, IncompatibleChoice

SPLIT_WORDS: dict[str, Split] = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
"""What a split column may say, in any case."""


class Table:
    """A csv, tsv, jsonl or json table of your own: source, licence, scale and direction are what you declare.

    Texts in a column of the same file serve as description targets through `biqa.data.targets.FileTargets` (descriptions=file,
    descriptions.file= the same file, descriptions.description= the column).

    Args:
        file: the table, in UTF-8.
        root: folder that the image column is relative to; None: the table's own folder.
        name: name of the data set; None: the file's name without its ending.
        image: column of the image file; its text is the image's name, so it must not repeat.
        score: column of the opinion score.
        low: lower end of the score's scale.
        high: upper end of the score's scale.
        direction: "mos" (higher is better) or "dmos" (higher is worse).
        std: column of the opinions' standard deviation, on the score's scale; an empty cell is unknown.
        split: column of the split (train/training, val/valid/validation, test/testing); None: random by group.
        group: column of what must stay on one side of a split, such as the reference; None: the image itself.
        features: columns of annotated attributes (numbers), for descriptions=attributes.
        split_seed: draws the random split.
        val_share: share of all groups held out for validation, when there is no split column.
        test_share: share of all groups held out for test, when there is no split column.
        on_bad_image: "stop" refuses a row whose image is missing; "skip" leaves that to `biqa.data.survey.check_images`, which counts and lists it.

    Raises:
        IncompatibleChoice: the scale is empty, the direction is not known, or the name has a slash.
    """

    def __init__(
        self,
        *,
        file: str | Path,
        low: float,
        high: float,
        root: str | Path | None = None,
        name: str | None = None,
        image: str = "image",
        score: str = "mos",
        direction: Literal["mos", "dmos"] = "mos",
        std: str | None = None,
        split: str | None = None,
        group: str | None = None,
        features: Sequence[str] = (),
        split_seed: int = 0,
        val_share: float = 0.1,
        test_share: float = 0.2,
        on_bad_image: Literal["stop", "skip"] = "stop",
    ) -> None:
        if not low < high:
            raise IncompatibleChoice(f"data.low={low:g} and data.high={high:g}: the lower end of the scale must lie below the upper one.")
        if direction not in ("mos", "dmos"):
            raise IncompatibleChoice(f"data.direction={direction} is not known: choose mos (higher is better) or dmos (higher is worse).")
        if name and Path(name).name != name:
            raise IncompatibleChoice(f"data.name={name}: answers are kept in a file of that name. Leave slashes out of it.")
        self.file = Path(file)
        self.root = self.file.parent if root is None else Path(root)
        self.card = Card(name=name or self.file.stem, low=low, high=high, direction=direction)
        self.image, self.score, self.std, self.split, self.group = image, score, std, split, group
        self.features = tuple(features)
        self.split_seed, self.val_share, self.test_share = split_seed, val_share, test_share
        self.on_bad_image = on_bad_image

    @property
    def split_published(self) -> bool:
        """Whether the table has a split column."""
        return self.split is not None

    def records(self) -> list[Record]:
        """One record a row, in the order of the table.

        Raises:
            DatasetNotFound: the file or a column is not there.
            BadRecord: a row is unusable: no or a repeated image name, a missing image (on_bad_image="stop"), a cell that is no number, a score
                off the scale, an unknown split word, a group on two sides.
        """
        columns = [column for column in (self.image, self.score, self.std, self.split, self.group) if column is not None]
        rows = read_rows(self.file, [*columns, *self.features])
        self._check_names(rows)
        groups = [row.cells[self.group or self.image] for row in rows]
        return [self._record(row, group, side) for row, group, side in zip(rows, groups, self._sides(rows, groups), strict=True)]

    def _record(self, row: Row, group: str, side: Split) -> Record:
        name = row.cells[self.image]
        path = self.root / name
        if self.on_bad_image == "stop" and not is_there(path):
            raise BadRecord(
                f"{row.where}: the image {quoted(str(path), QUOTED_PATH)} is missing. Set data.root= to the folder of the images, "
                f"or data.on_bad_image=skip to leave such rows out."
            )
        score = row.number(self.score)
        return Record(
            image=name,
            path=path,
            q=self.card.quality(score, f"{row.where}, column {self.score}"),
            split=side,
            group=group,
            score=score,
            q_std=self._deviation(row),
            attributes={column: row.number(column) for column in self.features},
            dataset=self.card.name,
        )

    def _deviation(self, row: Row) -> float | None:
        if self.std is None or not row.cells[self.std]:
            return None
        deviation = row.number(self.std)
        if not 0 <= deviation <= self.card.high - self.card.low:
            raise BadRecord(
                f"{row.where}, column {self.std}: a standard deviation of {deviation:g} cannot be on a scale of "
                f"{self.card.low:g}..{self.card.high:g}. Give it on the scale of the score, or leave the cell empty."
            )
        return deviation / (self.card.high - self.card.low)

    def _check_names(self, rows: Sequence[Row]) -> None:
        seen: dict[str, str] = {}
        for row in rows:
            name = row.cells[self.image]
            if not name:
                raise BadRecord(f"{row.where}: the column {self.image} is empty. Name the image file, or take the row out.")
            if name in seen:
                raise BadRecord(f"{row.where}: the image {quoted(name)} stands in {seen[name]} already. Keep one row an image, with its mean score.")
            seen[name] = row.where

    def _sides(self, rows: Sequence[Row], groups: Sequence[str]) -> list[Split]:
        """The split of each row: from the column, or drawn by group."""
        if self.split is None:
            return split_by_group(groups, val_share=self.val_share, test_share=self.test_share, seed=self.split_seed)
        sides: list[Split] = []
        first: dict[str, Split] = {}
        for row, group in zip(rows, groups, strict=True):
            word = row.cells[self.split]
            if word.lower() not in SPLIT_WORDS:
                raise BadRecord(f'{row.where}, column {self.split}: "{quoted(word)}" is no split. Write one of {", ".join(SPLIT_WORDS)}.')
            side = SPLIT_WORDS[word.lower()]
            if first.setdefault(group, side) != side:
                raise BadRecord(
                    f"{row.where}: the group {quoted(group)} lies in {first[group]} and in {side}, so test images would be known from training. "
                    f"Give all its rows one split, or leave data.split out to draw one by group."
                )
            sides.append(side)
        return sides
