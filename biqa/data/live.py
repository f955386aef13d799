"""LIVE release 2, as unzipped from the authors' archive."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from biqa.data.layout import Folder
from biqa.data.matlab import read_names, read_numbers
from biqa.data.official import Entry, OfficialSet, Release
from biqa.data.record import Card
from biqa.data.rows import quoted
from biqa.errors import BadRecord, IncompatibleChoice

COUNTS = {"jp2k": 227, "jpeg": 233, "wn": 174, "gblur": 174, "fastfading": 174}
"""Folder -> entries, in the order of the label files. Entry k of a folder is img{k}.bmp."""

INFO = "info.txt"
KINDS = {
    "jp2k": ("jpeg2000", "bit rate", -1),
    "jpeg": ("jpeg", "bit rate", -1),
    "wn": ("white_noise", "sigma", 1),
    "gblur": ("gaussian_blur", "sigma", 1),
    "fastfading": ("jpeg2000_errors", "receiver SNR", -1),
}
"""Folder -> biqa's distortion; the parameter in its info.txt; 1: a higher one distorts more, -1: a lower one."""
LINE = re.compile(r"\S+\s+(?P<image>img\d+\.bmp)\s+(?P<parameter>[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?)", re.IGNORECASE)
ADVICE = "Use the file of the official archive, or take it away to do without known distortions."

VERSIONS = {
    "realigned": ("dmos_realigned.mat", "dmos_new", Card(name="live", low=-3.0, high=112.0, direction="dmos", images=779, published=(-2.65, 111.78))),
    "old": ("dmos.mat", "dmos", Card(name="live", low=0.0, high=100.0, direction="dmos", images=779)),
}
"""Version -> file, variable, scale."""


class Live(OfficialSet):
    """LIVE Image Quality Assessment Database, release 2.

    | | |
    |---|---|
    | Source | https://live.ece.utexas.edu/research/quality/subjective.htm (on request) |
    | Citation | H. R. Sheikh, M. F. Sabir, A. C. Bovik, "A Statistical Evaluation of Recent Full Reference ... Algorithms", IEEE TIP 15(11), 2006 |
    | Licence | free to use, copy and distribute with its copyright notice (Copyright 2005 The University of Texas at Austin) |
    | Images | 779 distortions of 29 references: JPEG 2000 169, JPEG 175, white noise 145, blur 145, fast fading 145; .bmp |
    | Score | DMOS, **higher is worse**: `version=realigned` -2.64..111.77 (negative is real: better than the reference), `old` within 0..100 |
    | Deviation | that of the DMOS estimate, not of the opinions: not used |
    | Groups | the reference |
    | Split | none published; by convention 80/20 by reference, over several seeds |

    The label files have 982 entries; the 203 with `orgs` = 1 are copies of references, DMOS 0, and are left out. Each distortion type was rated by
    other observers in an experiment of its own; the realigned DMOS puts all on one scale, the old does not. They rank the images differently
    (SRCC 0.957): papers after 2006 mean the realigned one. The scales -3..112 and 0..100 are a choice: round ends.

    The info.txt of each folder says how strongly each image is distorted (`KINDS`), so where all five are there, images have a known distortion. Its
    level 1..5 is the fifth of the parameter among the distorted images of that kind (our choice: the release has no levels). The bit rate of a JPEG
    image is what was achieved, and depends on its content too. Within every kind the levels must rise with the DMOS, else the files are refused:
    a wrong direction would teach the opposite of what is seen.

    **No info.txt was at hand.** Its form is that of the release's readme.txt, "<Source image> <Destination image> <parameter>" a line. Public readers
    add: lines in any order, blank ones between them, and one source that is wrong (wn), so that the destination alone is read here.

    Args:
        root: folder databaserelease2, or the one that holds it.
        version: "realigned" (dmos_realigned.mat) or "old" (dmos.mat).
        options: see OfficialSet.

    Raises:
        IncompatibleChoice: no such version.
    """

    protocols = ("reference",)
    release = Release(
        title="LIVE release 2",
        folders=("databaserelease2", "LIVE"),
        needs=(*COUNTS, "refnames_all.mat"),
        layout="databaserelease2/\n  jp2k/ jpeg/ wn/ gblur/ fastfading/   img1.bmp, img2.bmp, ... (and info.txt for descriptions=distortions)\n"
        "  dmos_realigned.mat, dmos.mat, refnames_all.mat",
        source="https://live.ece.utexas.edu/research/quality/subjective.htm (on request)",
    )

    def __init__(self, *, root: str | Path, version: str = "realigned", **options: Any) -> None:  # noqa: ANN401 (OfficialSet's)
        if version not in VERSIONS:
            raise IncompatibleChoice(f"data.version={version} is not known for LIVE: choose {' or '.join(VERSIONS)}.")
        self.file, self.variable, self.card = VERSIONS[version]
        super().__init__(root=root, **options)

    def entries(self, folder: Folder) -> list[Entry]:
        """The distorted images: entries that `orgs` does not mark as copies of their reference."""
        file = folder.expect(self.file)
        scores = read_numbers(file, self.variable)
        copies = read_numbers(file, "orgs")
        references = read_names(folder.expect("refnames_all.mat"), "refnames_all")
        expected = sum(COUNTS.values())
        if not len(scores) == len(copies) == len(references) == expected:
            raise BadRecord(
                f"{folder.path}: {len(scores)} scores, {len(copies)} marks (orgs) and {len(references)} reference names, not {expected}. "
                f"Altered copies of these files are about, without the references and in another order; use those of the official archive."
            )
        places = [(place, number) for place, count in COUNTS.items() for number in range(1, count + 1)]
        rows = enumerate(zip(places, scores, copies, references, strict=True), start=1)
        entries = [
            Entry(where=f"{file}, entry {row}", image=f"{place}/img{number}.bmp", file=f"{place}/img{number}.bmp", score=score, group=reference)
            for row, ((place, number), score, copy, reference) in rows
            if not copy
        ]
        return _with_distortions(folder, entries)


def _with_distortions(folder: Folder, entries: list[Entry]) -> list[Entry]:
    """The distorted images with kind and level; as they are where an info.txt is missing.

    Raises:
        BadRecord: a line of an info.txt is no such line, an image has none or several, or levels do not rise with the DMOS.
    """
    missing = [f"{place}/{INFO}" for place in KINDS if folder.find(f"{place}/{INFO}") is None]
    if missing:
        absent = f"{folder.path} lacks {', '.join(missing)}, where the strength of each distortion stands: take it from the official archive"
        return [replace(entry, absent=absent) for entry in entries]
    known: dict[str, tuple[str, int]] = {}
    for place, (kind, _, _) in KINDS.items():
        images = [entry for entry in entries if entry.image.startswith(f"{place}/")]
        levels = _levels(folder.expect(f"{place}/{INFO}"), place, images)
        known |= {entry.image: (kind, level) for entry, level in zip(images, levels, strict=True)}
    return [replace(entry, distortions=(known[entry.image],)) for entry in entries]


def _levels(file: Path, place: str, images: Sequence[Entry]) -> list[int]:
    """Level 1..5 of each distorted image of one folder: the fifth in which its parameter lies, equal ones in one; 5 is the most distorted."""
    _, parameter, direction = KINDS[place]
    values = _parameters(file, place)
    for entry in images:
        if entry.image not in values:
            raise BadRecord(f"{file}: there is no line for {entry.image}, which is distorted ({entry.where}). {ADVICE}")
        if values[entry.image] == 0:
            raise BadRecord(
                f"{file}: {entry.image} has a {parameter} of 0, as a copy of its reference, yet it is distorted ({entry.where}). {ADVICE}"
            )
    strengths = np.array([direction * values[entry.image] for entry in images])
    levels = 1 + np.searchsorted(np.quantile(strengths, (0.2, 0.4, 0.6, 0.8)), strengths, side="left")
    srcc = float(spearmanr(levels, [entry.score for entry in images])[0]) if len(set(levels)) > 1 else 0.0  # pyright: ignore[reportArgumentType]
    if not srcc > 0:
        raise BadRecord(
            f"{file}: a {'higher' if direction > 0 else 'lower'} {parameter} should distort more, but levels by it do not rise with the DMOS "
            f"(SRCC {srcc:.2f}). {ADVICE}"
        )
    return levels.tolist()


def _parameters(file: Path, place: str) -> dict[str, float]:
    """Image -> parameter, of every line: copies of references too."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise BadRecord(f"{file}: not a text. {ADVICE}") from error
    values: dict[str, float] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        match = LINE.fullmatch(line.strip())
        if match is None:
            raise BadRecord(f'{file}, line {number}: "{quoted(line)}" is not such as "bikes.bmp img7.bmp 0.25". {ADVICE}')
        image = f"{place}/{match['image'].lower()}"
        if image in values:
            raise BadRecord(f"{file}, line {number}: {match['image']} has a line already. {ADVICE}")
        values[image] = float(match["parameter"])
    return values
