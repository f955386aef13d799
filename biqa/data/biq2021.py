"""BIQ2021, as cloned or unzipped from the authors' repository."""

import re

from biqa.data.layout import Folder
from biqa.data.official import Entry, OfficialSet, Release
from biqa.data.record import Card, Split
from biqa.data.rows import quoted, read_rows
from biqa.errors import BadRecord

FILES: dict[Split, str] = {"train": "Train (Images and MOS).csv", "test": "Test (Images and MOS).csv"}
NAME = re.compile(r"(ss0[123]) \(\d+\)\.jpg", re.IGNORECASE)


class Biq2021(OfficialSet):
    """BIQ2021, a large-scale blind image quality assessment database.

    | | |
    |---|---|
    | Source | https://github.com/nisarahmedrana/BIQ2021 |
    | Citation | N. Ahmed, S. Asif, "BIQ2021: a large-scale blind image quality assessment database", Journal of Electronic Imaging 31(5), 2022 |
    | Licence | see its repository |
    | Images | 12000 photographs, 512 x 512, .jpg: ss01 2000 of a private gallery, ss02 2000 taken with intended flaws, ss03 8000 from the web |
    | Score | MOS on 0..1, higher is better |
    | Deviation | none published |
    | Groups | none |
    | Split | official: 10000 train (validation comes out of them), 2000 test; or random |

    The three subsets differ in mean quality, and a file's name tells its subset: a model that recognises the source ranks images across subsets
    without seeing quality. So the SRCC within subsets is reported too (`srcc_within`).

    Args: see OfficialSet.
    """

    card = Card(name="biq2021", low=0.0, high=1.0, direction="mos", images=12000, published=(0.0, 1.0))
    protocols = ("official", "random")
    release = Release(
        title="BIQ2021",
        folders=("BIQ2021", "BIQ2021-main"),
        needs=("Images", *FILES.values()),
        layout=f"BIQ2021/\n  Images/ss01 (1).jpg, ...\n  {FILES['train']}, {FILES['test']}",
        source="https://github.com/nisarahmedrana/BIQ2021",
    )

    def entries(self, folder: Folder) -> list[Entry]:
        """The rows of both files, training first."""
        entries = []
        for side, file in FILES.items():
            for row in read_rows(folder.expect(file), ["Image Name", "MOS"]):
                name = row.cells["Image Name"]
                match = NAME.fullmatch(name)
                if match is None:
                    raise BadRecord(f'{row.where}: "{quoted(name)}" is no name of BIQ2021, such as "ss01 (1726).jpg". Use the file of the release.')
                entries.append(
                    Entry(row.where, image=name, file=f"Images/{name}", score=row.number("MOS"), group=name, side=side, subset=match[1].lower())
                )
        return entries
