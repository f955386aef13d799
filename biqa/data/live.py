"""LIVE release 2, as unzipped from the authors' archive."""

from pathlib import Path
from typing import Any

from biqa.data.layout import Folder
from biqa.data.matlab import read_names, read_numbers
from biqa.data.official import Entry, OfficialSet, Release
from biqa.data.record import Card
from biqa.errors import BadRecord, IncompatibleChoice

COUNTS = {"jp2k": 227, "jpeg": 233, "wn": 174, "gblur": 174, "fastfading": 174}
"""Folder -> entries, in the order of the label files. Entry k of a folder is img{k}.bmp."""

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
        layout="databaserelease2/\n  jp2k/ jpeg/ wn/ gblur/ fastfading/   img1.bmp, img2.bmp, ...\n  dmos_realigned.mat, dmos.mat, refnames_all.mat",
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
        return [
            Entry(where=f"{file}, entry {row}", image=f"{place}/img{number}.bmp", file=f"{place}/img{number}.bmp", score=score, group=reference)
            for row, ((place, number), score, copy, reference) in rows
            if not copy
        ]
