"""The stand-in data set: distorted crops, labelled with the mean opinion of KADID-10k's observers for that distortion at that level."""

import csv
import hashlib
import json
import multiprocessing
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Literal, cast

from PIL import Image as PillowImage
from rich.console import Console
from rich.progress import track

from biqa.config.checks import did_you_mean, nearest
from biqa.data.distortions import DISTORTIONS
from biqa.data.recipes import MIXTURE, PLACE, USERS_MIXTURE, Recipe, divide, draw_recipes, label, render
from biqa.data.record import SPLITS, Card, Record, Split
from biqa.data.references import Reference, fingerprint, folder_references, image_files, photographs
from biqa.errors import DatasetNotFound, IncompatibleChoice
from biqa.files import raise_unwritten, told_as

VERSION = 1
"""Of the generator. A change that moves pixels or labels raises it, so that no old cache is taken for the new data."""

TEN_KINDS = (
    "gaussian_blur",
    "lens_blur",
    "motion_blur",
    "colour_saturation_lab",
    "jpeg2000",
    "jpeg",
    "white_noise",
    "impulse_noise",
    "brighten",
    "darken",
)
"""The default types (METHOD.md section 8). Of KADID-10k's two saturations the one that grows more vivid: the other turns images grey, as five of the
reference photographs are without being any worse."""

LARGEST_CROP = 300
"""Shorter side of the smallest built-in photograph, in pixels."""


class Synthetic:
    """Distorted crops of reference images. A stand-in: no one has looked at these very images, and every table says so.

    Images: crops of photographs (70 %), dead leaves (20 %) and 1/f noise (10 %); `crop` x `crop` PNG. With a folder of the user's: of its photographs
        alone. Photographs are scaled down by 1.25 to 3 at random, and nearly flat crops are drawn again.
    Distortions: `kinds` out of KADID-10k's 25 at five levels (`biqa.data.distortions`), balanced; one, two (`two_at_once`) or none (`pristine`).
    Score: mean opinion 1..5, higher is better, that KADID-10k's observers gave to that type at that level, averaged over its 81 references; two at
        once: qualities multiply. Pristine: 5. `q_std`: standard deviation over those references on the scale of q; None for pristine images.
    Split: by reference, which is `group`. The photographs are divided by a seeded draw, a quarter to test and an eighth to val, grey and colour ones
        apart, so that each split has both; a procedural reference is made for one image.
    Cache: `<root>/<hash>/` with images/, labels.csv and card.json (the arguments), where the hash is that of all that has a bearing on the images:
        made once, and made whole: under a name `.unfinished-...` first, which only a killed process leaves behind. The images do not depend on
        `workers`.

    Args:
        root: folder of the cache.
        train: number of training images.
        val: number of validation images.
        test: number of test images.
        crop: side of an image in pixels, 32 or more.
        kinds: distortion types, of `biqa.data.distortions.DISTORTIONS`.
        two_at_once: share of images with two distortions.
        pristine: share of images without any.
        references: folder of pristine photographs that replace the built-in references; three or more of them.
        seed: draws references, crops and distortions.
        workers: processes that generate; 0 or 1: this one.
        on_bad_image: what to do with a photograph of the user's that cannot be used: "stop" or "skip". Those left out stand in card.json.

    Raises:
        IncompatibleChoice: an argument makes no sense.
    """

    def __init__(
        self,
        *,
        root: str | Path,
        train: int = 8000,
        val: int = 200,
        test: int = 600,
        crop: int = 96,
        kinds: Sequence[str] = TEN_KINDS,
        two_at_once: float = 0.25,
        pristine: float = 0.05,
        references: str | Path | None = None,
        seed: int = 0,
        workers: int = 2,
        on_bad_image: Literal["stop", "skip"] = "stop",
    ) -> None:
        self.root = Path(root)
        self.counts: dict[Split, int] = {"train": train, "val": val, "test": test}
        self.crop = crop
        self.kinds = tuple(kind for kind in DISTORTIONS if kind in kinds)
        self.two_at_once = two_at_once
        self.pristine = pristine
        self.references = references
        self.seed = seed
        self.workers = workers
        self.on_bad_image: Literal["stop", "skip"] = on_bad_image
        self._check(kinds)

    def _check(self, kinds: Sequence[str]) -> None:
        """Refuse what makes no sense."""
        for kind in kinds:
            if kind not in DISTORTIONS:
                meant = did_you_mean(nearest(kind, DISTORTIONS))
                raise IncompatibleChoice(f"data.kinds: there is no distortion type {kind!r}.{meant} Choose from: {', '.join(DISTORTIONS)}.")
        problems = [
            (not kinds, "data.kinds is empty: name at least one distortion type."),
            (min(self.counts.values()) < 1, "data.train, data.val and data.test must each be at least 1."),
            (self.crop < 32, f"data.crop={self.crop} is too small for distortions to be seen: use 32 or more."),
            (
                self.references is None and self.crop > LARGEST_CROP,
                f"data.crop={self.crop} is more than the built-in photographs have: use {LARGEST_CROP} or less, or your own (data.references=).",
            ),
            (
                not (self.two_at_once >= 0 and self.pristine >= 0 and self.two_at_once + self.pristine <= 1),
                f"data.two_at_once={self.two_at_once} and data.pristine={self.pristine} are shares of the images: from 0 to 1, also together.",
            ),
            (
                self.two_at_once > 0 and len(kinds) > 0 and len({PLACE[kind] for kind in self.kinds}) < 2,
                f"data.two_at_once={self.two_at_once} needs types of two sorts (light, colour, blur, noise, compression, ...), "
                f"but data.kinds has {', '.join(self.kinds)}. Add a type, or set data.two_at_once=0.",
            ),
        ]
        found = [text for holds, text in problems if holds]
        if found:
            raise IncompatibleChoice("\n".join(found))

    @property
    def card(self) -> Card:
        """KADID-10k's scale, 1..5, higher is better; marked as a stand-in."""
        return Card(name="synthetic", low=1.0, high=5.0, direction="mos", stand_in=True)

    def arguments(self) -> dict[str, object]:
        """All that has a bearing on the images, the generator's version and the content of the user's folder included."""
        return {
            "version": VERSION,
            **self.counts,
            "crop": self.crop,
            "kinds": list(self.kinds),
            "two_at_once": self.two_at_once,
            "pristine": self.pristine,
            "references": None if self.references is None else fingerprint(self.references),
            "seed": self.seed,
        }

    def folder(self) -> Path:
        """Where the cache of these arguments lies, whether it is there yet or not."""
        return self.root / hashlib.sha256(json.dumps(self.arguments()).encode()).hexdigest()[:12]

    @property
    def split_published(self) -> bool:
        """Its recipes say which image is a test image."""
        return True

    def records(self) -> list[Record]:
        """All records, out of the cache; the images are generated first where they are not there.

        Raises:
            DatasetNotFound: the user's folder is missing, or holds no image that can be used.
            BadRecord: a photograph of the user's cannot be used, and `on_bad_image` is "stop".
            IncompatibleChoice: fewer than three photographs, or nothing can be written to the root.
        """
        folder = self.folder()
        if not folder.is_dir():
            self._generate(folder)
        return read_labels(folder, self.card)

    def _generate(self, folder: Path) -> None:
        """Make images and labels under a temporary name, which is gone if this ends early, and rename at last.

        Raises:
            IncompatibleChoice: nothing may be written to the root.
            Unwritten: the disk is full, or takes nothing.
        """
        references = self._references()
        sides = divide(references, self.seed)
        recipes = [recipe for split in SPLITS for recipe in self._draw(split, sides[split])]
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            temporary = tempfile.TemporaryDirectory(dir=self.root, prefix=".unfinished-")
        except OSError as error:
            raise_unwritten(error, self.root)
            raise IncompatibleChoice(
                f"data.root={self.root}: images cannot be written there ({error.strerror}). Choose a folder that you may write to."
            ) from error
        with told_as(folder), temporary as name:
            place = Path(name) / "set"
            (place / "images").mkdir(parents=True)
            self._write_images(recipes, references, place / "images")
            write_labels(recipes, place / "labels.csv")
            (place / "card.json").write_text(json.dumps(self._facts(sides), indent=2) + "\n", encoding="utf-8")
            try:
                place.rename(folder)
            except OSError:
                if not folder.is_dir():  # else another process was first, with the same images
                    raise

    def _references(self) -> tuple[Reference, ...]:
        if self.references is None:
            return photographs()
        return folder_references(self.references, smallest=self.crop, on_bad_image=self.on_bad_image)

    def _draw(self, split: Split, references: Sequence[Reference]) -> list[Recipe]:
        return draw_recipes(
            split,
            self.counts[split],
            references=references,
            mixture=MIXTURE if self.references is None else USERS_MIXTURE,
            kinds=self.kinds,
            two_at_once=self.two_at_once,
            pristine=self.pristine,
            seed=self.seed,
        )

    def _facts(self, sides: dict[Split, list[Reference]]) -> dict[str, object]:
        """What card.json says."""
        return {
            "what": "distorted crops with KADID-10k's mean opinion for the distortion and its level: a stand-in, not opinions of these images",
            **self.arguments(),
            "references_folder": None if self.references is None else str(self.references),
            "photographs": {split: sorted(reference.name for reference in side) for split, side in sides.items()},
            "left_out": self._left_out([reference.name for side in sides.values() for reference in side]),
        }

    def _left_out(self, used: Sequence[str]) -> list[str]:
        """The images of the user's folder that could not be used."""
        if self.references is None:
            return []
        return [name for path in image_files(self.references) if (name := path.relative_to(self.references).as_posix()) not in used]

    def _write_images(self, recipes: Sequence[Recipe], references: Sequence[Reference], folder: Path) -> None:
        """All images, with a progress bar on a terminal. Sorted by group, so that each worker decodes few photographs."""
        by_name = {reference.name: reference for reference in references}
        jobs = [(recipe, by_name.get(recipe.group)) for recipe in sorted(recipes, key=lambda recipe: recipe.group)]
        work = partial(write_image, crop=self.crop, folder=folder)
        console = Console(stderr=True)
        bar = partial(track, description="Synthetic images", total=len(jobs), console=console, disable=not console.is_terminal)
        if self.workers <= 1:
            for job in bar(jobs):
                work(job)
            return
        # spawn: a fork of a process with torch's threads in it may hang
        with ProcessPoolExecutor(self.workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            for _ in bar(pool.map(work, jobs, chunksize=16)):
                pass


def write_image(job: tuple[Recipe, Reference | None], crop: int, folder: Path) -> None:
    """Make one image and write it as a PNG."""
    recipe, reference = job
    PillowImage.fromarray(render(recipe, reference, crop)).save(folder / recipe.image, compress_level=1)


COLUMNS = ("image", "split", "group", "score", "q_std", "distortions")
"""Of labels.csv. `distortions` as type:level+type:level."""


def write_labels(recipes: Sequence[Recipe], path: Path) -> None:
    """The label of every recipe, one row an image, with the columns `COLUMNS`."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for recipe in recipes:
            q, std = label(recipe.distortions)
            distortions = "+".join(f"{kind}:{level}" for kind, level in recipe.distortions)
            writer.writerow((recipe.image, recipe.split, recipe.group, f"{1 + 4 * q:.6f}", "" if std is None else f"{std:.6f}", distortions))


def read_labels(folder: Path, card: Card) -> list[Record]:
    """The records of a cache folder.

    Raises:
        DatasetNotFound: its labels.csv is not there.
        BadRecord: a score is outside the card's scale.
    """
    path = folder / "labels.csv"
    if not path.is_file():
        raise DatasetNotFound(f"{path}: there is no such file. Delete the folder {folder}: its images are then made again.")
    with path.open(newline="", encoding="utf-8") as file:
        return [_record(row, folder, card, where=f"{path}, row {number}") for number, row in enumerate(csv.DictReader(file), start=2)]


def _record(row: dict[str, str], folder: Path, card: Card, where: str) -> Record:
    score = float(row["score"])
    distortions = [distortion.split(":") for distortion in row["distortions"].split("+") if distortion]
    return Record(
        image=row["image"],
        path=folder / "images" / row["image"],
        q=card.quality(score, where),
        split=cast(Split, row["split"]),
        group=row["group"],
        score=score,
        q_std=float(row["q_std"]) if row["q_std"] else None,
        distortions=tuple((kind, int(level)) for kind, level in distortions),
        dataset=card.name,
    )
