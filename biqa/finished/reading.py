"""Pictures on their way to a stage: decoded ahead, made into what the tower needs, handed on as many at a time as memory holds.

Never more than a few pictures are in memory whole, however many there are: of those that wait, the tower's inputs are kept.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from PIL import Image

from biqa.data.images import as_seen, load_image, read_ahead
from biqa.data.module import Item
from biqa.data.record import Record, Reduction
from biqa.errors import BadRecord
from biqa.evaluation.predictions import Unreadable
from biqa.stages.base import StageModule
from biqa.stages.features import SeenImages
from biqa.stages.limits import size_of

Source = str | os.PathLike[str] | Image.Image
"""A picture: its file, or what Pillow has made of it."""

READERS, AHEAD = 2, 4
"""Pictures that are decoded at a time, while the model is at work, and how far ahead of it."""
HELD = 2**30
"""Bytes of what the tower needs of pictures that wait to be answered together, at most."""
WAITING = 1000
"""Pictures that cannot be read and are reported together, at most."""


class Reading:
    """Reads pictures for a stage, which from then on looks at no others.

    Args:
        stage: that looks at them.
        reduction: to which size larger ones are reduced; None: not at all.
    """

    def __init__(self, stage: StageModule, reduction: Reduction | None) -> None:
        self.stage = stage
        self.reduction = reduction
        self.seen = SeenImages(stage.vlm)
        stage.known = self.seen

    def pixels(self, image: Source, name: str) -> Image.Image:
        """A picture as the stage sees it.

        Raises:
            BadRecord: it cannot be read.
        """
        if isinstance(image, Image.Image):
            return as_seen(image, name, self.reduction.shorter_side if self.reduction else None)
        return load_image(Path(image), self.reduction)

    def batches(self, images: Iterable[Source], at_a_time: Callable[[Item], int]) -> Iterator[list[Item | Unreadable]]:
        """Pictures in their order, so many together as fit. `forget` those that were answered.

        Args:
            images: as they are needed.
            at_a_time: how many like this one fit; asked about the one with the longest question so far.
        """
        some: list[Item | Unreadable] = []
        longest = held = items = 0
        most = 1
        try:
            for name, image in read_ahead(self._read, enumerate(images, 1), readers=READERS, ahead=AHEAD):
                item = self._item(name, image) if isinstance(image, Image.Image) else Unreadable(name, image)
                some.append(item)
                if isinstance(item, Item):
                    prompt = self.stage.question(item)
                    items, held = items + 1, held + size_of(prompt.image)
                    if len(prompt.ids) > longest:
                        longest, most = len(prompt.ids), at_a_time(item)
                if items >= most or held >= HELD or len(some) >= WAITING:
                    full, some, held, items = some, [], 0, 0
                    yield full
            if some:
                full, some = some, []
                yield full
        finally:
            self.forget(some)  # those that nobody has asked for

    def forget(self, items: Sequence[Item | Unreadable]) -> None:
        """Let pictures go."""
        for item in items:
            if isinstance(item, Item):
                self.seen.forget(item.record)

    def _read(self, numbered: tuple[int, Source]) -> tuple[str, Image.Image | str]:
        """The picture's name and its pixels, or why it has none; called in threads of its own."""
        number, image = numbered
        name = name_of(image, number)
        try:
            return name, self.pixels(image, name)
        except BadRecord as error:
            return name, str(error).removeprefix(f"{Path(name)}: ")

    def _item(self, name: str, image: Image.Image) -> Item | Unreadable:
        item = Item(Record(name, Path(name), float("nan"), "test", name, float("nan")), ())
        try:
            self.seen.add(item.record, image)
        except BadRecord as error:  # the model's processor takes no picture of that shape
            return Unreadable(name, str(error))
        return item


def name_of(image: Source, number: int) -> str:
    """What a picture is called: its path as it was given; of one of Pillow's without a file its number."""
    if isinstance(image, Image.Image):
        return str(getattr(image, "filename", "")) or f"picture {number}"
    return os.fspath(image)
