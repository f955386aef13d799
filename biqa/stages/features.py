"""Prompts about images whose tower features lie on disk, and how they come there."""

import hashlib
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch
from PIL.Image import Image
from rich.console import Console
from rich.progress import track
from torch import Tensor

from biqa.data.collate import widened
from biqa.data.contents import contents_kept_in
from biqa.data.images import VERSION, image_of, read_ahead
from biqa.data.module import halved
from biqa.data.record import Record
from biqa.data.shares import share
from biqa.models.features import FeatureStore, Seen, sees_at_random, shelf_of
from biqa.models.vlm import VLM, Prompt
from biqa.stages.together import everywhere, first, gathered, largest, rank, world

AT_ONCE = 8
"""Images that go through the tower together, always: fewer are filled up. Kernels round one image in another way than several, so with a fixed number
what is kept of an image hardly ever depends on which others were missing with it, and is what a batch of the run would have been given."""
FEW = 256
"""So many images show no progress bar."""
READERS, AHEAD = 2, 16
"""Images that are decoded at a time, while the tower is at work, and how far ahead of it."""


class KnownImages:
    """What a model whose tower and projector stay as they are makes of images, looked up instead of computed.

    Either all images of a phase (of learning, or of answering) are looked up, or none: where they do not fit into `most_gb`, or the disk takes no
    more, this says so once, and the tower sees every image anew. What is looked up is what the model would have been given: the result does not
    depend on it.

    Args:
        vlm: the model.
        cache: the folder `features` in it is where features are kept.
        most_gb: the most that they take there, of all models together.
        precision: Lightning's word for the type that is computed in.
    """

    def __init__(self, vlm: VLM, *, cache: Path, most_gb: float, precision: str) -> None:
        self.vlm = vlm
        self.cache = cache
        self.most_gb = most_gb
        self.precision = precision
        self._shelf = ""
        self._known: dict[tuple[Path, int], Seen] = {}

    @property
    def folder(self) -> Path:
        """Where features are kept."""
        return self.cache / "features"

    def prompt(self, record: Record, question: str) -> Prompt:
        """The question about an image: with its features once it is known, else with its pixels.

        Raises:
            BadRecord: the image does not decode.
        """
        seen = self._known.get(_picture(record))
        if seen is None:
            return self.vlm.prompt(question, image_of(record))
        return Prompt(self.vlm.question_ids(question, seen.placeholder), seen.image, seen.placeholder)

    def learn(self, records: Sequence[Record], computing: AbstractContextManager[object], *, halves: bool) -> None:
        """Know these images from now on, and no others: compute what is not on disk yet. Every process has to come here, with images of its own.

        Args:
            records: the images.
            computing: sets the precision in which the tower computes.
            halves: whether it is given pixels in half precision, as when it learns (`biqa.data.module.EncodedItems`), or as they are.

        Raises:
            BadRecord: an image does not decode.
        """
        self._known = {}
        if reason := self._no_use():
            say_once(self._unused(reason))
            return
        with torch.inference_mode(False), torch.no_grad(), computing:
            self._shelf = self._shelf or shelf_of(self.vlm, self.precision)
            store = FeatureStore(self.folder, self._shelf, self.most_gb)
            try:
                named = self._named(records, halves)
                _Wanted(self.vlm, store, dict(named), halves).complete()
            except OSError as error:
                store.take_back()
                say_once(self._unused(error.strerror or str(error)))
                return
        self._known = {_picture(record): store[name] for name, record in named}

    def needs(self, records: Sequence[Record], computing: AbstractContextManager[object], *, halves: bool) -> "Needs":
        """What `learn` would take for these images, of which a few go through the tower. Nothing is written.

        Args:
            records: at least one; the others: see `learn`.
        """
        if reason := self._no_use():
            return Needs(refused=reason)
        with torch.inference_mode(False), torch.no_grad(), computing:
            self._shelf = self._shelf or shelf_of(self.vlm, self.precision)
            store = FeatureStore(self.folder, self._shelf, self.most_gb)
            try:
                named = dict(self._named(records, halves))
            except OSError as error:
                return Needs(refused=error.strerror or str(error))
            wanted = _Wanted(self.vlm, store, named, halves)
            missing = len(store.absent(list(named)))
            images = [image_of(record) for record in list(named.values())[:AT_ONCE]]
            wanted.look_at(images)  # warms up
            started = time.perf_counter()
            size = sum(wanted.look_at(images)) // len(images)
            seconds = (time.perf_counter() - started) / len(images)
        return Needs(missing, size, seconds, store.too_much(size * missing, size * (len(named) - missing)))

    def _no_use(self) -> str:
        """Why nothing is looked up, if that is so."""
        if not self.vlm.takes_features:
            return "this release of transformers takes no features in place of images"
        return "dropout acts in the tower" if any(gathered(sees_at_random(self.vlm))) else ""

    def _unused(self, reason: str) -> str:
        return f"features of images are not kept in {self.folder}: {reason}. The tower sees every image anew, with the same result."

    def _named(self, records: Sequence[Record], halves: bool) -> list[tuple[str, Record]]:
        """Each image with a name for what the model is given of it; copies of one picture have one. A file is read in one process for all."""
        records = list({_picture(record): record for record in records}.values())
        paths = list(dict.fromkeys(path for others in gathered([record.path for record in records]) for path in others))
        mine = share(paths, rank(), world())
        parts = everywhere(lambda: contents_kept_in(self.cache / "contents.sqlite", mine))
        found = {path: content for part in parts for path, content in part.items()}

        def name(record: Record) -> str:
            path, size = _picture(record)
            return hashlib.sha256(repr((found[path], size, VERSION if size else 0, halves)).encode()).hexdigest()[:32]

        return [(name(record), record) for record in records]


@dataclass(frozen=True)
class Needs:
    """What it takes to know images."""

    missing: int = 0
    """Images whose features are not on disk."""
    size: int = 0
    """Bytes of an image's."""
    seconds: float = 0.0
    """An image that is missing, but for its decoding, which other threads do."""
    refused: str = ""
    """Why the tower will see every image anew; nothing where features are kept."""


class SeenImages:
    """Prompts about images that somebody has read: what the tower needs of each is at hand, and the image itself is not needed any more.

    Args:
        vlm: the model.
    """

    def __init__(self, vlm: VLM) -> None:
        self.vlm = vlm
        self._of: dict[int, Prompt] = {}

    def add(self, record: Record, image: Image) -> None:
        """Make the tower's inputs of an image, for the record that stands for it.

        Raises:
            BadRecord: the family's image processor takes no image of that shape.
        """
        self._of[id(record)] = self.vlm.prompt("", image)

    def prompt(self, record: Record, question: str) -> Prompt:
        """The question about an image that was added."""
        seen = self._of[id(record)]
        return Prompt(self.vlm.question_ids(question, seen.placeholder), seen.image, seen.placeholder)

    def forget(self, record: Record) -> None:
        """Let an image go."""
        del self._of[id(record)]


@dataclass(frozen=True)
class _Wanted:
    """Images on their way to a store."""

    vlm: VLM
    store: FeatureStore
    records: Mapping[str, Record]
    """By name."""
    halves: bool
    """As in `KnownImages.learn`."""

    def complete(self) -> None:
        """Let those that are missing go through the tower.

        Raises:
            OSError: they cannot be kept.
        """
        number = len({name for names in gathered(list(self.records)) for name in names})
        computed = 0
        for alone in (False, True):  # processes on machines that do not share the folder see nothing of what others have computed
            missing = self._missing()
            if not any(missing):
                break
            computed = len({name for names in missing for name in names})
            self._compute(missing[rank()] if alone else _mine(missing, rank()), computed, number)
        else:
            if any(self._missing()):
                raise OSError("what was written is not there any more")
        if number and not computed and first():
            print(f"features of {number} images: known, in {self.store.folder}")

    def _missing(self) -> list[list[str]]:
        """The images that are not on disk, by process."""
        found = everywhere(lambda: (self.store.missing(list(self.records)), self.store.left_out))
        if left_out := sorted({name for _, names in found for name in names}):
            say_once(
                f"{self.store.shelf}: files that are damaged, or of another program: {len(left_out)} (first: {left_out[0]}). "
                f"They are left out, and what is missing is computed again."
            )
        return [missing for missing, _ in found]

    def _compute(self, names: Sequence[str], computed: int, number: int) -> None:
        """Let some images go through the tower; all processes together have `computed` of `number` to do."""
        sizes = [size for of in everywhere(lambda: self._look_at(names[:AT_ONCE])) for size in of]
        needed = sum(sizes) * computed // len(sizes)
        everywhere(lambda: self.store.make_room(needed))
        if first():
            print(f"features of {number} images: {computed} to compute, {needed / 2**20:,.1f} MB in {self.store.folder}")
        everywhere(lambda: self._look_at(names[AT_ONCE:]))
        everywhere(self.store.flush)

    def _look_at(self, names: Sequence[str]) -> list[int]:
        """Let images go through the tower: bytes of each one's features."""
        batches = [names[at : at + AT_ONCE] for at in range(0, len(names), AT_ONCE)]
        most = largest(len(batches)) if self.vlm.sharded else len(batches)  # asked first: a pass waits for all processes
        images = read_ahead(image_of, [self.records[name] for name in names], readers=READERS, ahead=AHEAD)
        console = Console(stderr=True)
        hidden = not console.is_terminal or len(names) <= FEW or not first()
        sizes = []
        for batch in track(batches, "The tower looks at images", console=console, disable=hidden):
            prompts = [self._asked(next(images)) for _ in batch]
            for name, prompt, features in zip(batch, prompts, self._features(prompts), strict=True):
                seen = Seen(features, prompt.placeholder)
                self.store.add(name, seen)
                sizes.append(seen.size)
        for _ in range(most - len(batches)):  # keep those processes company that have more
            self._features([self._asked(image_of(next(iter(self.records.values()))))])
        return sizes

    def look_at(self, images: Sequence[Image]) -> list[int]:
        """Bytes of the features of at most `AT_ONCE` images, which are not kept: computed as the others are, and on the host when this returns."""
        prompts = [self._asked(image) for image in images]
        return [sum(value.cpu().nbytes for value in features.values()) for features in self._features(prompts)]

    def _features(self, prompts: list[Prompt]) -> list[dict[str, Tensor]]:
        filled_up = prompts + prompts[-1:] * (AT_ONCE - len(prompts))
        return self.vlm(self.vlm.features, filled_up)[: len(prompts)]

    def _asked(self, image: Image) -> Prompt:
        prompt = self.vlm.prompt("", image)
        pixels = halved(prompt.image) if self.halves else prompt.image
        return replace(prompt, image={name: widened(value) for name, value in pixels.items()})


def _picture(record: Record) -> tuple[Path, int]:
    """What tells pictures apart: the file, and to which size it is reduced (0: not at all)."""
    return record.path, record.reduction.shorter_side if record.reduction else 0


def _mine(missing: Sequence[Sequence[str]], process: int) -> list[str]:
    """What a process computes of the images that each process lacks: of those that several lack, each takes its share."""
    lacking: dict[str, list[int]] = {}
    for other, names in enumerate(missing):
        for name in names:
            lacking.setdefault(name, []).append(other)
    return [name for place, (name, processes) in enumerate(lacking.items()) if processes[place % len(processes)] == process]


def say_once(text: str) -> None:
    """Print a text in the first process, unless it has been printed already: a stage 2 meets the same trouble with each of its sets of images."""
    if first():
        _print(text)


_print = cache(print)
