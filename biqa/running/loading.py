"""From config to data sets, ready: read, looked at, split, put into words."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from biqa.data.endpoint import EndpointWriter
from biqa.data.inspection import upside_down
from biqa.data.module import Item
from biqa.data.overlap import Overlap, overlap
from biqa.data.record import Card, DataSource, Record, Reduction, Split
from biqa.data.splits import fingerprint, require_split
from biqa.data.survey import Look, Part, check_images, survey
from biqa.data.targets import Description, DescriptionSource
from biqa.data.teacher import TeacherTargets
from biqa.errors import BadRecord, IncompatibleChoice, UserError
from biqa.running.instantiate import make
from biqa.runs import different, plain

IDENTITY = ("_target_", "file", "train", "name")
"""Options that say which data set it is: its reader and, where one reader reads many, its file or name."""


@dataclass(frozen=True)
class Images:
    """A data set, ready: its card, its records, and description targets for them."""

    card: Card
    records: list[Record]
    targets: dict[str, Description]
    """Image -> its target; empty for a data set that is tested on alone and cannot be, or need not be, described."""
    skipped: list[str]
    """A sentence for each image that is left out because it cannot be used."""
    notes: list[str]
    """What an importer repaired or found odd, with counts."""
    weight: float = 1.0
    """How often an epoch shows each of its training images; 0: it is tested on alone."""
    alarms: list[str] = field(default_factory=list)
    """What makes figures on it mislead, whatever the answers."""

    @property
    def fingerprint(self) -> str:
        """Hash of image names, scores and split."""
        return fingerprint(self.records)

    def split(self, split: Split) -> list[Record]:
        """The records of one split."""
        return [record for record in self.records if record.split == split]

    def items(self, split: Split, texts: Mapping[str, Sequence[str]] | None = None) -> list[Item]:
        """One item for each image of a split with its target, if it has one; or, with `texts` (image -> descriptions), one for each description."""
        if texts is not None:
            return [Item(record, (text,)) for record in self.split(split) for text in texts[record.image]]
        return [Item(record, (self.targets[record.image].text,) if self.targets else ()) for record in self.split(split)]


@dataclass(frozen=True)
class Corpus:
    """The data sets of a run."""

    training: list[Images]
    """What it learns from: one data set, or the parts of a mixture."""
    test: list[Images]
    """What it is measured on: the test splits of those, or of others."""
    looks: dict[Path, Look] = field(default_factory=dict)
    """What was found in each image."""

    @property
    def sets(self) -> list[Images]:
        """Each data set once."""
        return [*self.training, *(images for images in self.test if not images.weight)]

    def items(self, split: Split) -> list[Item]:
        """One item for each image of a split of what is trained on."""
        return [item for images in self.training for item in images.items(split)]

    def weights(self, items: Sequence[Item]) -> list[float]:
        """How often an epoch shows each item."""
        of = {images.card.name: images.weight for images in self.training}
        return [of[item.record.dataset] for item in items]


@dataclass
class _Set:
    """A data set whose labels are read; its images are not looked at yet."""

    node: DictConfig
    source: DataSource
    weight: float
    tested: bool
    records: list[Record] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    alarms: list[str] = field(default_factory=list)

    @property
    def needed(self) -> tuple[Split, ...]:
        """Splits that must not be empty."""
        return (("train", "val") if self.weight else ()) + (("test",) if self.tested else ())


def load_corpus(composed: DictConfig, *, describe_tests: bool, ask: bool = True) -> Corpus:
    """Read the data sets, look at every image once, and put every record into words.

    Args:
        composed: the whole config.
        describe_tests: whether data sets that are tested on alone get targets too: stage 1 is measured by them.
        ask: whether a server may be asked for texts that are not kept yet: not one that the config of somebody else's run names.

    Raises:
        BadRecord: a test picture is learnt from under another name, unless `overlap=note`.
        UserError: whatever is wrong with files, rows, images or splits.
    """
    targets = make(composed.descriptions)  # a missing file of texts is told before images are made or read
    if isinstance(targets, TeacherTargets) and isinstance(targets.writer, EndpointWriter):
        targets.asks = ask
    sets = read_labels(composed)
    looks: dict[Path, Look] = {}
    skipped: list[list[str]] = []
    for one in sets:
        found = look_at_images(composed, one.records, targets.parts)
        looks |= {record.path: look for record, look in zip(one.records, found, strict=True)}
        needed = targets.parts if one.weight or describe_tests else ()
        one.records, left_out = check_images(one.records, one.node.on_bad_image, found, needed)
        skipped.append(left_out)
        tell_upside_down(one, looks)
        for split in one.needed:
            require_split(one.records, split)
    # a teacher is paid for every image that it is shown: only those that get a target
    shown = {record.path: looks[record.path] for one in sets if one.weight or describe_tests for record in one.records}
    targets.fit([record for one in sets for record in one.records if one.weight and record.split == "train"], shown)
    sets[0].notes += import_notes(targets)
    # a finished run of a release that had no such option is looked into, and not made
    tell_repeated_pictures(sets, looks, stop=OmegaConf.select(composed, "overlap", default="note") == "stop")
    ready = []
    for one, left_out in zip(sets, skipped, strict=True):
        described = _describe(one, targets) if one.weight or describe_tests else {}
        ready.append(Images(one.source.card, one.records, described, left_out, one.notes, one.weight, one.alarms))
    return Corpus([images for images in ready if images.weight], [images for one, images in zip(sets, ready, strict=True) if one.tested], looks)


def read_labels(composed: DictConfig) -> list[_Set]:
    """The data sets of `data` and of `test`, each once, with the records that the run needs.

    Raises:
        UserError: whatever is wrong with files and rows.
        IncompatibleChoice: two of them have one name.
    """
    weights = composed.data.get("weights") or {}
    sets = [_Set(node, make(node), weights.get(part, 1.0), composed.test is None) for part, node in training_nodes(composed.data).items()]
    for choice, node in (composed.test or {}).items():
        trained = next((one for one in sets if one.weight and _identity(one.node) == _identity(node)), None)
        if trained is None:
            sets.append(_Set(node, make(node), 0.0, True))
        else:
            trained.tested = True
            trained.notes += _unused_options(choice, node, trained.node)
    names = [one.source.card.name for one in sets]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise IncompatibleChoice(f"Two data sets are called {', '.join(repeated)}: answers are kept by name. Give one of them another: name=.")
    for one in sets:
        one.records = reduced(composed, one.source.records() if one.weight else _tested_records(one.source, composed.test_images))
        one.notes += import_notes(one.source)
    return sets


def training_nodes(data: DictConfig) -> dict[str, DictConfig]:
    """Choice -> options of each part of a mixture; of a data set alone, under no name."""
    return dict(data.parts) if "parts" in data else {"": data}


def _identity(node: DictConfig) -> dict[str, Any]:
    return {option: value for option in IDENTITY if isinstance(value := node.get(option), str)}  # data.train is a number in synthetic


def _unused_options(choice: str, test: DictConfig, data: DictConfig) -> list[str]:
    """A note where `test` gives a data set that is trained on other options than `data` does, which hold."""
    there, here = ({"data": plain(OmegaConf.to_container(node, resolve=True))} for node in (data, test))
    options = [line.split(":")[0].strip() for line in different(there, here)]
    return [f"It is trained on, so its test split is that of the data options; of test.{choice} not used: {', '.join(options)}."] if options else []


def _tested_records(source: DataSource, test_images: str) -> list[Record]:
    """The records to test on of a data set that is not trained on, all of them called test."""
    records = source.records()
    if test_images == "all" or (test_images == "auto" and not source.split_published):
        return [replace(record, split="test") for record in records]
    return require_split(records, "test")


def reduced(composed: DictConfig, records: Sequence[Record]) -> list[Record]:
    """The records with the size at which `images.shorter_side` wants their images seen."""
    reduction = _reduction(composed)
    return [replace(record, reduction=reduction) for record in records]


def _reduction(composed: DictConfig) -> Reduction | None:
    shorter_side = composed.images.shorter_side
    return None if shorter_side is None else Reduction(shorter_side, _cache(composed))


def _cache(composed: DictConfig) -> Path | None:
    return Path(composed.images.cache).expanduser() if composed.images.cache else None


def look_at_images(composed: DictConfig, records: Sequence[Record], parts: Collection[Part]) -> list[Look]:
    """One look at the image of every record at the size in which it will be seen, remembered where `images.cache` says.

    Which picture it is is always asked: who asks for less would have it looked at again by who asks for more.
    """
    paths = [record.path for record in records]
    return survey(paths, {*parts, "hash", "pixels"}, reduction=_reduction(composed), cache=_cache(composed), workers=composed.images.workers)


def import_notes(*importers: object) -> list[str]:
    """What a reader or a description source repaired or found odd: a sentence each, from those that keep a report."""
    return [sentence for importer in importers for sentence in getattr(getattr(importer, "report", None), "problems", [])]


def tell_upside_down(one: _Set, looks: Mapping[Path, Look]) -> None:
    """Say that the labels of a data set seem to run the wrong way.

    Raises:
        BadRecord: that is beyond doubt.
    """
    found = None if one.source.card.stand_in else upside_down(one.source.card, one.records, looks)
    if found is None:
        return
    said, certain = found
    if certain:
        raise BadRecord(f"{one.source.card.name}: {said}\nUse the label file of the release, or give the direction of your scores: data.direction=.")
    one.alarms.append(said)


def tell_repeated_pictures(sets: Sequence[_Set], looks: Mapping[Path, Look], *, stop: bool) -> None:
    """Find test pictures that are learnt from, in the same data set or in another one (LIVE and TID2013 share photographs), and say so with theirs.

    Raises:
        BadRecord: there are some pixel for pixel, and `stop` is on.
    """
    for one in sets:
        test = [record for record in one.records if record.split == "test"] if one.tested else []
        for other in sets:
            if other.weight:
                found = overlap(test, [record for record in other.records if record.split != "test"], looks)
                tell_overlap(found, images=len(test), tested=one.source.card.name, learnt=other.source.card.name, stop=stop, to=one)


def tell_overlap(found: Overlap, *, images: int, tested: str, learnt: str, stop: bool, to: _Set | Images) -> None:
    """Say what of the test pictures of a data set is learnt from.

    Args:
        found: of it.
        images: test images of the data set.
        tested: its name.
        learnt: where it is learnt from: a data set, or a run and its data set.
        stop: whether pictures that are there pixel for pixel end the run.
        to: gets an alarm or a note.

    Raises:
        BadRecord: there are some pixel for pixel, and `stop` is on.
    """
    if found.same:
        first, twin = found.same[0]
        said = (
            f"{len(found.same)} of the {images} test images of {tested} are learnt from in {learnt}, pixel for pixel (first: {first.image} is "
            f"{twin.image})."
        )
        if stop:
            raise BadRecord(
                f"{said}\nFigures on them would not be those on unseen pictures. Take them out of one side, or give copies one group "
                f"(data.group=COLUMN); overlap=note goes on, and every table then says so."
            )
        to.alarms.append(f"{said} Accuracy on them is not that on unseen pictures.")
    if found.again:
        first, twin = found.again[0]
        to.alarms.append(
            f"{len(found.again)} of the {images} test images of {tested} show what is learnt from in {learnt}, encoded or distorted otherwise "
            f"(first: {first.image} is {twin.image}). Accuracy on them is not that on unseen pictures."
        )
    if found.alike:
        first, twin = found.alike[0]
        to.notes.append(
            f"{len(found.alike)} of its {images} test images look like images that are trained on in {learnt} (first: {first.image} like "
            f"{twin.image}, by perceptual hash). Accuracy on them is not that on unseen content."
        )


def _describe(one: _Set, targets: DescriptionSource) -> dict[str, Description]:
    """Image -> target. A data set that is tested on alone and that the source cannot describe gets none, and a note."""
    try:
        return {record.image: targets.describe(record) for record in one.records}
    except UserError as error:
        if one.weight:
            raise
        one.notes.append(f"Its descriptions are written and not measured, for want of targets. {error}")
        return {}
