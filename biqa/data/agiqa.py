"""AGIQA-3K, as unzipped from the authors' archive, with data.csv beside the images."""

from biqa.data.layout import Folder
from biqa.data.official import Entry, OfficialSet, Release
from biqa.data.record import Card
from biqa.data.rows import Row, read_rows

PLACES = ("", "images/", "AGIQA-3K/")
"""Where the images may lie: the archive and the repository with data.csv are two downloads."""


class Agiqa(OfficialSet):
    """AGIQA-3K, pictures made by text-to-image models.

    | | |
    |---|---|
    | Source | https://github.com/lcysyzxdxc/AGIQA-3k-Database |
    | Citation | C. Li et al., "AGIQA-3K: An Open Database for AI-Generated Image Quality Assessment", IEEE TCSVT 34(8), 2024 |
    | Licence | MIT |
    | Images | 2982 of six generators (sd1.5 1200, midjourney 592, AttnGAN 300, glide 300, xl2.2 300, DALLE2 290) from 300 prompts, .jpg |
    | Score | `mos_quality` 0..4.489 on a scale of 0..5, higher is better. `mos_align` (does it fit the prompt?) is not read |
    | Deviation | `std_quality`, of the opinions, 0.108..1.452 |
    | Groups | the prompt |
    | Split | none published; `random` 80/20 by image, or `prompt`: 80/20 by prompt |

    Args: see OfficialSet.
    """

    card = Card(name="agiqa", low=0.0, high=5.0, direction="mos", images=2982, published=(0.0, 4.49))
    protocols = ("random", "prompt")
    release = Release(
        title="AGIQA-3K",
        folders=("AGIQA-3K", "AGIQA-3k-Database", "AGIQA-3k-Database-main"),
        needs=("data.csv",),
        layout="AGIQA-3K/\n  AttnGAN_normal_000.jpg, ... (or below images/)\n  data.csv",
        source="https://github.com/lcysyzxdxc/AGIQA-3k-Database",
    )

    def entries(self, folder: Folder) -> list[Entry]:
        """The rows of data.csv."""
        rows = read_rows(folder.expect("data.csv"), ["name", "prompt", "mos_quality", "std_quality"])
        return [self._entry(row, folder) for row in rows]

    def _entry(self, row: Row, folder: Folder) -> Entry:
        name = row.cells["name"]
        file = next((place + name for place in PLACES if folder.find(place + name, row.where)), name)
        return Entry(
            where=row.where, image=name, file=file, score=row.number("mos_quality"), std=row.number("std_quality"),
            group=row.cells["prompt"] if self.protocol == "prompt" else name,
        )  # fmt: skip
