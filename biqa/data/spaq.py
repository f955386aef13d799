"""SPAQ, as unzipped from the authors' archive."""

from biqa.data.layout import Folder
from biqa.data.official import Entry, OfficialSet, Release
from biqa.data.record import Card
from biqa.data.rows import Row, read_sheet

SCORES = "Annotations/MOS and Image attribute scores.xlsx"
ATTRIBUTES = {"Brightness": "brightness", "Colorfulness": "colourfulness", "Contrast": "contrast", "Sharpness": "sharpness"}
"""Column -> feature. Noisiness is apart: it rates the absence of noise."""


class Spaq(OfficialSet):
    """SPAQ, Smartphone Photography Attribute and Quality database.

    | | |
    |---|---|
    | Source | https://github.com/h4nwei/SPAQ |
    | Citation | Y. Fang, H. Zhu, Y. Zeng, K. Ma, Z. Wang, "Perceptual Quality Assessment of Smartphone Photography", CVPR 2020 |
    | Licence | research and education only (its Readme.txt) |
    | Images | 11125 photographs of 66 smartphones, .jpg, long side up to about 5000 pixels |
    | Score | MOS 2.00..96.00 on a scale of 0..100, higher is better |
    | Deviation | in no official file |
    | Groups | none |
    | Split | none published; by convention random 80/20 |

    Attributes are human ratings 0..100 of brightness, colourfulness, contrast, noise and sharpness. The column Noisiness is a *quality* score: higher
    means less noisy (its SRCC with MOS is 0.893), so the attribute `noise` is 100 - Noisiness.

    Args: see OfficialSet.
    """

    card = Card(name="spaq", low=0.0, high=100.0, direction="mos", images=11125, published=(2.0, 96.0))
    protocols = ("random",)
    release = Release(
        title="SPAQ",
        folders=("SPAQ", "SPAQ/Dataset", "Dataset"),
        needs=("TestImage", SCORES),
        layout=f"SPAQ/\n  TestImage/*.jpg\n  {SCORES}",
        source="https://github.com/h4nwei/SPAQ (where unzip fails: zip -FF SPAQ.zip --out SPAQ_fixed.zip)",
    )

    def entries(self, folder: Folder) -> list[Entry]:
        """The rows of the sheet."""
        return [_entry(row) for row in read_sheet(folder.expect(SCORES), "Sheet1", ["Image name", "MOS", *ATTRIBUTES, "Noisiness"])]


def _entry(row: Row) -> Entry:
    name = row.cells["Image name"]
    attributes = {feature: row.number(column) for column, feature in ATTRIBUTES.items()} | {"noise": 100.0 - row.number("Noisiness")}
    return Entry(where=row.where, image=name, file=f"TestImage/{name}", score=row.number("MOS"), group=name, attributes=attributes)
