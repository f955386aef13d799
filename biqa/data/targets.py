"""Where description targets come from (METHOD.md section 7).

Every source has `fit(train)`, which looks at the training images only, and `describe(record)`. No target leaves here that gives the answer away.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from biqa.data.bins import QuantileBins
from biqa.data.record import Record
from biqa.data.rows import read_rows
from biqa.data.survey import Look, Part, look_at, survey
from biqa.errors import BadRecord, IncompatibleChoice
from biqa.language.features import ATTRIBUTES, DISTORTIONS, VOTED_DEFECTS, describe, parse
from biqa.language.leak import check_leak
from biqa.language.prompts import cut_verdict

Looks = Mapping[Path, Look]
"""Path -> what `biqa.data.survey` found in the image."""


@dataclass(frozen=True)
class Description:
    """A description target."""

    text: str
    features: dict[str, int]
    """What the text names (name -> strength), see `biqa.language.features`."""


def draw_for(image: str, seed: int) -> np.random.Generator:
    """Random numbers of one image: they depend on the seed and its name alone, not on the order of the records."""
    digest = hashlib.sha256(image.encode()).digest()
    return np.random.default_rng([seed, int.from_bytes(digest[:8], "big")])


def worded(features: dict[str, int], seed: int, image: str) -> Description:
    """The target that says these features of an image; `seed` and the name of the image draw the paraphrases."""
    text = describe(features, draw_for(image, seed))
    check_leak(text, f"image {image}")
    return Description(text, features)


class DescriptionSource(Protocol):
    """Where description targets come from: one class a source, built from named arguments."""

    parts: Collection[Part]
    """What it needs to know of every image."""

    def fit(self, train: Sequence[Record], looks: Looks | None = None) -> None:
        """Look at the training records, and at what was found in their images. Raises a UserError where they will not do."""
        ...

    def describe(self, record: Record) -> Description:
        """The target of one image. Raises a UserError where there is none, or where it gives the answer away."""
        ...


def by_dataset(records: Sequence[Record]) -> dict[str, list[Record]]:
    """Records of a mixture by their data set."""
    found: dict[str, list[Record]] = {}
    for record in records:
        found.setdefault(record.dataset, []).append(record)
    return found


class DistortionTargets:
    """Known distortions in words: the strength is the level (1..5).

    Args:
        seed: draws the paraphrases.
    """

    parts: Collection[Part] = ()
    names = tuple(spec.name for spec in DISTORTIONS)

    def __init__(self, *, seed: int = 0) -> None:
        self.seed = seed

    def fit(self, train: Sequence[Record], looks: Looks | None = None) -> None:
        """Check that each data set has distortions at all: without any, "no visible distortion" would be said of every image.

        Raises:
            BadRecord: no training record of a data set names one.
        """
        for records in by_dataset(train).values():
            if not any(record.distortions for record in records):
                absent = f"{records[0].absent}. " if records[0].absent else ""
                raise BadRecord(
                    f"Image {records[0].image}, like the other {len(records) - 1} training images of its data set, has no known distortion. "
                    f"{absent}Choose descriptions=measured, which describes any image, or descriptions=attributes or descriptions=file."
                )

    def describe(self, record: Record) -> Description:
        """The target of one image; one without distortions is said to have none visible.

        Raises:
            BadRecord: a type that has no wording, a level outside 1..5, or one type twice.
        """
        for kind, level in record.distortions:
            if kind not in self.names or not 1 <= level <= 5:
                raise BadRecord(
                    f"Image {record.image}: distortion {kind} at level {level} has no wording. Types: {', '.join(self.names)}; levels: 1 to 5. "
                    f"Correct the record, or choose descriptions=measured."
                )
        features = dict(record.distortions)
        if len(features) < len(record.distortions):
            raise BadRecord(f"Image {record.image}: a distortion type stands twice in {record.distortions}. Keep one level a type.")
        return worded(features, self.seed, record.image)


KNOWN_ATTRIBUTES = ", ".join(spec.name for spec in (*ATTRIBUTES, *VOTED_DEFECTS))

ATTRIBUTE_NAMES = {**{spec.name: spec.name for spec in (*ATTRIBUTES, *VOTED_DEFECTS)}, "colorfulness": "colourfulness"}
"""Attribute (lower case) -> feature. SPAQ's "Noisiness" is not among them: there *higher means less noisy*, so it must be named as "-noise"."""


class AttributeTargets:
    """Annotated attributes in words: each binned into five strengths by the quintiles of the training images of its data set, as one data set's
    scale is not another's.

    Args:
        seed: draws the paraphrases.
        names: attribute -> feature; a "-" before the feature turns the scale round, as SPAQ's Noisiness needs: {"Noisiness": "-noise"}.
            Attributes that are not named are left out. None: attributes go by their own names in any case, and one without wording is an error.

    Raises:
        IncompatibleChoice: `names` points to something that has no wording.
    """

    parts: Collection[Part] = ()

    def __init__(self, *, seed: int = 0, names: Mapping[str, str] | None = None) -> None:
        self.seed = seed
        self.names = names
        for attribute, feature in (names or {}).items():
            if feature.removeprefix("-") not in ATTRIBUTE_NAMES.values():
                raise IncompatibleChoice(f"Attribute {attribute}: there is no wording for {feature}. Choose from {KNOWN_ATTRIBUTES}.")

    def fit(self, train: Sequence[Record], looks: Looks | None = None) -> None:
        """Fit the bins.

        Raises:
            BadRecord: a training record lacks an attribute, or has one that has no wording or is no number.
        """
        self.needed: dict[str, list[str]] = {}
        self.bins: dict[str, QuantileBins] = {}
        for dataset, records in by_dataset(train).items():
            named = {self._feature(name, record).removeprefix("-") for record in records for name in record.attributes}
            self.needed[dataset] = sorted(named - {""})
            values = [self._values(record) for record in records]
            self.bins[dataset] = QuantileBins({feature: [row[feature] for row in values] for feature in self.needed[dataset]})

    def describe(self, record: Record) -> Description:
        """The target of one image.

        Raises:
            BadRecord: the record lacks an attribute, has one that is no number, or is of a data set without training images.
        """
        if record.dataset not in self.bins:
            raise BadRecord(
                f"Image {record.image}: {record.dataset} is not trained on, so its attributes have no scale here. "
                f"Choose descriptions=measured, which describes any image."
            )
        return worded(self.bins[record.dataset].strengths(self._values(record)), self.seed, record.image)

    def _feature(self, attribute: str, record: Record) -> str:
        """The feature that an attribute goes by, with "-" before it to turn it round; "" for one to leave out."""
        if self.names is not None:
            return self.names.get(attribute, "")
        if attribute.lower() not in ATTRIBUTE_NAMES:
            raise BadRecord(
                f"Image {record.image}: the attribute {attribute} has no wording. Name it as one of {KNOWN_ATTRIBUTES} "
                f"if it grows with that feature, or leave it out; or choose descriptions=measured."
            )
        return ATTRIBUTE_NAMES[attribute.lower()]

    def _values(self, record: Record) -> dict[str, float]:
        """Feature -> value, higher is more of it."""
        values: dict[str, float] = {}
        for attribute, value in record.attributes.items():
            feature = self._feature(attribute, record)
            values[feature.removeprefix("-")] = -value if feature.startswith("-") else value
        needed = self.needed[record.dataset]
        missing = [feature for feature in needed if not np.isfinite(values.get(feature, np.nan))]
        if missing or not needed:
            remedy = record.absent or "Add it to the label file (data=table: data.features=[...])"
            raise BadRecord(
                f"Image {record.image}: no annotated value of {', '.join(missing) or 'any attribute'}. {remedy}, "
                f"or choose descriptions=measured, which describes any image."
            )
        return values


class MeasuredTargets:
    """Six measurements of the pixels in words: each binned into five strengths by the quintiles of the training images (`biqa.data.measured`).

    Args:
        seed: draws the paraphrases.
    """

    parts: Collection[Part] = ("measured",)

    def __init__(self, *, seed: int = 0) -> None:
        self.seed = seed
        self.looks: Looks = {}

    def fit(self, train: Sequence[Record], looks: Looks | None = None) -> None:
        """Fit the bins.

        Args:
            train: training records.
            looks: measurements of all records by path, as `survey` makes them; None: of the training images, made here.

        Raises:
            BadRecord: an image does not decode, or is too small to measure.
        """
        paths = [record.path for record in train]
        self.looks = dict(zip(paths, survey(paths, self.parts, reduction=train[0].reduction), strict=True)) if looks is None else looks
        values = [self._measured(record) for record in train]
        self.bins = QuantileBins({feature: [row[feature] for row in values] for feature in values[0]})

    def describe(self, record: Record) -> Description:
        """The target of one image; one that nobody looked at yet is measured here.

        Raises:
            BadRecord: the image does not decode, or is too small to measure.
        """
        return worded(self.bins.strengths(self._measured(record)), self.seed, record.image)

    def _measured(self, record: Record) -> dict[str, float]:
        look = self.looks.get(record.path) or look_at(record.path, self.parts, record.reduction)
        if look.measured is None:
            raise BadRecord(
                f"Image {record.image} cannot be measured: {look.problem or look.unmeasurable}. Replace it or take its row out; "
                f"or choose descriptions=file, which needs no pixels."
            )
        return look.measured


class TextTargets:
    """Texts of one's own, as a file has them. Verdict sentences at the end are kept apart (`verdicts`), as Q-Instruct's texts need.

    The features of a target are those that `biqa.language.features.parse` finds in its text: all of them in biqa's own wording, few or none
    in free text. A subclass reads the file and calls `add`.

    Args:
        file: where the texts stand.
        seed: draws one text where an image has several.
        noun: what the file calls a text, for messages.
    """

    parts: Collection[Part] = ()

    def __init__(self, *, file: str | Path, seed: int, noun: str) -> None:
        self.file = Path(file)
        self.seed = seed
        self.noun = noun
        self.texts: dict[str, list[tuple[str, str]]] = {}
        """Image, as the file names it -> (file and row, text without verdict) of each of its texts."""
        self.verdicts: dict[str, str] = {}
        """File and row -> the verdict that was cut off there; as many as there were."""

    def add(self, where: str, image: str, text: str, verdict: str) -> None:
        """Take in one text; `where` is its file and row, `text` and `verdict` what `cut_verdict` made of it."""
        self.texts.setdefault(image, []).append((where, text))
        if verdict:
            self.verdicts[where] = verdict

    def fit(self, train: Sequence[Record], looks: Looks | None = None) -> None:
        """Nothing to fit."""

    def name_of(self, record: Record) -> str:
        """The name under which `texts` has an image, if it has any."""
        return record.image

    def describe(self, record: Record) -> Description:
        """The target of one image.

        Raises:
            BadRecord: the file has no text for it, or the text is nothing but a verdict.
            AnswerLeak: the text gives the answer away before its end.
        """
        choices = self.texts.get(self.name_of(record))
        if choices is None:
            raise BadRecord(
                f"Image {record.image}: {self.file} has no text for it (its first image is {next(iter(self.texts))}). "
                f"Add a row under that name, or choose descriptions=measured, which describes any image."
            )
        where, text = choices[draw_for(record.image, self.seed).integers(len(choices))]
        if not text:
            raise BadRecord(f"{where}: the {self.noun} of image {record.image} says nothing but a verdict. Say what is seen, or take it out.")
        check_leak(text, where)
        return Description(text, parse(text))


class FileTargets(TextTargets):
    """Texts of your own in a table, one a row.

    Args:
        file: .csv, .tsv, .jsonl or .json (a list of objects).
        seed: draws one text where an image has several.
        image: column or key of the image name, as it stands in the data set.
        description: column or key of the text.

    Raises:
        DatasetNotFound, BadRecord: see `biqa.data.rows.read_rows`.
    """

    def __init__(self, *, file: str | Path, seed: int = 0, image: str = "image", description: str = "description") -> None:
        super().__init__(file=file, seed=seed, noun=description)
        for row in read_rows(self.file, [image, description]):
            self.add(row.where, row.cells[image], *cut_verdict(row.cells[description]))
