"""Options of the data sets, of the look at their images, and of mixtures."""

import math
from dataclasses import dataclass, field
from typing import Any

from biqa.config.checks import MISSING, pattern_problem, refuse


@dataclass
class Data:
    """Which images, and how they are split."""

    _target_: str = MISSING
    on_bad_image: str = "stop"
    """An image that is missing or does not decode: "stop" names it and ends; "skip" leaves it out, counted and listed."""

    def __post_init__(self) -> None:
        refuse([(self.on_bad_image not in ("stop", "skip"), f"data.on_bad_image={self.on_bad_image} is not known: choose stop or skip.")])


@dataclass
class SyntheticData(Data):
    """Stand-in data made on the spot: distorted crops with the mean opinion of KADID-10k's observers (METHOD.md section 8)."""

    _target_: str = "biqa.data.synthetic.Synthetic"
    root: str = MISSING
    """Folder of the cache; generated once for each set of these values."""
    train: int = MISSING
    """Number of training images."""
    val: int = MISSING
    """Number of validation images."""
    test: int = MISSING
    """Number of test images."""
    crop: int = MISSING
    """Side of an image in pixels."""
    kinds: list[str] = MISSING
    """Distortion types, of KADID-10k's 25."""
    two_at_once: float = MISSING
    """Share of images with two distortions."""
    pristine: float = MISSING
    """Share of images without any distortion."""
    references: str | None = None
    """Folder of pristine photographs that replaces the built-in references; null: built-in."""
    seed: int = 0
    """Draws references, crops and distortions; apart from the seed of the run, so that runs share the data."""
    workers: int = 2
    """Processes that generate."""

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse([(self.seed < 0, f"data.seed={self.seed}: choose 0 or more.")])


@dataclass
class OfficialData(Data):
    """A published data set in its official layout. What is said of each set stands in the docstring of its class in biqa/data/."""

    root: str = "${datasets}"
    """Its unpacked folder, or the folder that holds it."""
    protocol: str | None = None
    """Name of the split: "official", "reference", "prompt", "random" or "q-align", of which each set has some; null: the first of its class."""
    split_seed: int = 0
    """Draws the split where none is published; apart from the seed of the run."""
    val_share: float = MISSING
    """Share of all groups held out for validation (of an official split without one: of its training groups)."""
    test_share: float = MISSING
    """Share of all groups held out for test, where the split is drawn."""


@dataclass
class MixtureData(Data):
    """Several data sets to train on: `data=koniq+spaq`."""

    _target_: str = "biqa.running.loading.training_nodes"
    """What takes it apart; each part has a reader of its own."""
    parts: dict[str, Any] = field(default_factory=dict)
    """Choice -> its options, as in data.parts.koniq.protocol=random."""
    weights: dict[str, float] = field(default_factory=dict)
    """Choice -> how often an epoch shows each of its training images: 2 is twice, 0.5 every other one, drawn anew each epoch."""

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse(
            [
                *((name not in self.parts, f"data.weights.{name}: there is no such part. Parts: {', '.join(self.parts)}.") for name in self.weights),
                *(
                    (not 0 < w < math.inf, f"data.weights.{name}={w}: choose a number above 0, or leave {name} out.")
                    for name, w in self.weights.items()
                ),
            ]
        )


@dataclass
class KoniqData(OfficialData):
    """KonIQ-10k."""

    _target_: str = "biqa.data.koniq.Koniq"
    scale: str = MISSING
    """Which of its scores: "acr" (mean of the votes 1..5) or "zscore"."""
    size: str | None = None
    """Folder of images, "1024x768" or "512x384"; null: the larger one that is there."""
    attributes: str | None = None
    """For descriptions=attributes: "indicators" (computed), "defects" (votes of KonIQ++) or "both"; null: the votes where they are there, else the
    indicators."""


@dataclass
class LiveData(OfficialData):
    """LIVE release 2."""

    _target_: str = "biqa.data.live.Live"
    version: str = MISSING
    """Which of its DMOS: "realigned" or "old"."""


@dataclass
class TableData(Data):
    """Any csv, tsv or jsonl with one row an image."""

    _target_: str = "biqa.data.table.Table"
    file: str = MISSING
    """The table."""
    root: str | None = None
    """Folder that the image column is relative to; null: the table's own folder."""
    name: str | None = None
    """Name of the data set; null: the file's name."""
    image: str = MISSING
    """Column of the image file."""
    score: str = MISSING
    """Column of the opinion score."""
    low: float = MISSING
    """Lower end of the score's scale."""
    high: float = MISSING
    """Upper end of the score's scale."""
    direction: str = MISSING
    """"mos" (higher is better) or "dmos" (higher is worse)."""
    std: str | None = None
    """Column of the opinions' standard deviation, on the score's scale."""
    split: str | None = None
    """Column of the split (train, val, test); null: random by group."""
    group: str | None = None
    """Column of what must stay on one side of a split (the reference); null: the image itself."""
    features: list[str] = field(default_factory=list)
    """Columns of annotated attributes, for descriptions=attributes."""
    split_seed: int = 0
    """Draws the random split; apart from the seed of the run."""
    val_share: float = MISSING
    """Share of all groups held out for validation, when there is no split column."""
    test_share: float = MISSING
    """Share of all groups held out for test, when there is no split column."""


@dataclass
class LabelsJsonData(Data):
    """Label files of Q-Align or DeQA-Score. The signs and defects of these files: docstring of biqa.data.labels_json."""

    _target_: str = "biqa.data.labels_json.LabelsJson"
    train: str = MISSING
    """Their training file."""
    test: str | None = None
    """Their test file; null: test images are drawn from the training file."""
    root: str = MISSING
    """Folder that the image names start from."""
    low: float = MISSING
    """Lower end of the scale of gt_score."""
    high: float = MISSING
    """Upper end of the scale of gt_score."""
    direction: str = MISSING
    """What gt_score is: "mos" (higher is better) or "dmos" (higher is worse)."""
    name: str | None = None
    """Name of the data set; null: the training file's name."""
    group: str | None = None
    """Regular expression: what it finds in a file name (the reference) stays on one side of a split; null: the image itself."""
    split_seed: int = 0
    """Draws validation images, and test images where there is no test file; apart from the seed of the run."""
    val_share: float = MISSING
    """Share of all groups held out for validation; with a test file, of the training groups."""
    test_share: float = MISSING
    """Share of all groups held out for test, where there is no test file."""

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse([pattern_problem("data.group", self.group)])


@dataclass
class Images:
    """How image files are read: at which size, and how they are looked at before a run: do they decode, and what is measured on them."""

    cache: str | None = MISSING
    """Folder that keeps what was found in a file until it changes, and its reduced copy: the next run need not look again. null: nothing is kept."""
    workers: int = MISSING
    """Processes that look."""
    shorter_side: int | None = None
    """Pixels: larger images are reduced to it, keeping their shape, and the copies kept in `cache` (without one: reduced at every reading, which is
    slow). null: as they are, which model=tiny needs: it reads the traces of compression, and reducing wipes them out."""
    features_gb: float = 10.0
    """Most disk, in GB, for what towers make of images, in `cache`/features, whatever was not used for longest going first. Where tower and projector
    stay as they are, an image goes through them once for all epochs, repeats, stages and runs. 0: nothing is kept. It changes no result."""

    def __post_init__(self) -> None:
        refuse(
            [
                (self.workers < 1, f"images.workers={self.workers}: choose 1 or more."),
                (not 0 <= self.features_gb < math.inf, f"images.features_gb={self.features_gb}: choose 0 (none are kept) or more."),
                (
                    self.shorter_side is not None and self.shorter_side < 16,
                    f"images.shorter_side={self.shorter_side}: choose 16 pixels or more, or null for images as they are.",
                ),
            ]
        )
