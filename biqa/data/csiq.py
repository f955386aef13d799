"""CSIQ, as unzipped from the authors' archives."""

from biqa.data.layout import Folder
from biqa.data.official import Entry, OfficialSet, Release
from biqa.data.record import Card
from biqa.data.rows import Row, quoted, read_sheet
from biqa.errors import BadRecord

WORKBOOKS = ("csiq.DMOS.xlsx", "csiq.beta.xlsx")
TYPES = {
    "noise": ("AWGN", "white_noise"),
    "blur": ("BLUR", "gaussian_blur"),
    "contrast": ("contrast", "contrast_loss"),
    "fnoise": ("fnoise", "pink_noise"),
    "jpeg": ("JPEG", "jpeg"),
    "jpeg 2000": ("jpeg2000", "jpeg2000"),
}
"""Word of the sheet -> part of the file's name, biqa's distortion."""


class Csiq(OfficialSet):
    """CSIQ, Categorical Subjective Image Quality database.

    | | |
    |---|---|
    | Source | https://s2.smu.edu/~eclarson/csiq.html |
    | Citation | E. C. Larson, D. M. Chandler, "Most apparent distortion: full-reference image quality assessment ...", JEI 19(1), 2010 |
    | Licence | none stated; free for research |
    | Images | 866 distortions of 30 references, 512 x 512, .png: AWGN, blur, 1/f noise, JPEG, JPEG 2000 at 5 levels; contrast at 3 to 5 |
    | Score | DMOS on 0..1, **higher is worse** |
    | Deviation | of the opinions, 0..0.391 |
    | Groups | the reference |
    | Split | none published; by convention 80/20 by reference, over several seeds |

    The workbook's sheet `all_by_image` has its header in row 4, the reference `1600` as a number, and "jpeg 2000" with a space. The folders of
    the images are written in any case.

    Args: see OfficialSet.
    """

    card = Card(name="csiq", low=0.0, high=1.0, direction="dmos", images=866, published=(0.0, 1.0))
    protocols = ("reference",)
    release = Release(
        title="CSIQ",
        folders=("CSIQ",),
        needs=("dst_imgs",),
        layout="CSIQ/\n  dst_imgs/awgn, blur, contrast, fnoise, jpeg, jpeg2000/   1600.AWGN.1.png, ...\n  csiq.DMOS.xlsx",
        source="https://s2.smu.edu/~eclarson/csiq.html",
    )

    def entries(self, folder: Folder) -> list[Entry]:
        """The rows of the sheet all_by_image."""
        file = next((found for name in WORKBOOKS if (found := folder.find(name))), folder.path / WORKBOOKS[0])
        return [_entry(row) for row in read_sheet(file, "all_by_image", ["image", "dst_type", "dst_lev", "dmos_std", "dmos"], header=4)]


def _entry(row: Row) -> Entry:
    kind = row.cells["dst_type"]
    if kind not in TYPES:
        raise BadRecord(f'{row.where}, column dst_type: "{quoted(kind)}" is not one of {", ".join(TYPES)}. Use the workbook of the release.')
    word, distortion = TYPES[kind]
    reference, level = row.cells["image"], row.whole("dst_lev")
    if not 1 <= level <= 5:
        raise BadRecord(f"{row.where}, column dst_lev: {level} is not a level 1..5. Use the workbook of the release.")
    name = f"{reference}.{word}.{level}.png"
    return Entry(
        where=row.where, image=name, file=f"dst_imgs/{word}/{name}", score=row.number("dmos"), group=reference, std=row.number("dmos_std"),
        distortions=((distortion, level),),
    )  # fmt: skip
