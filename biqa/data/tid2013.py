"""TID2013, as unpacked from the authors' archive."""

import re

from biqa.data.layout import Folder
from biqa.data.official import Entry, OfficialSet, Release
from biqa.data.record import Card
from biqa.data.rows import number_in, quoted
from biqa.errors import BadRecord, DatasetNotFound

LABELS = "mos_with_names.txt"
LINE = re.compile(r"(?P<score>\S+)\s+(?P<name>(?P<reference>i\d\d)_(?P<kind>\d\d)_(?P<level>\d)\.bmp)", re.IGNORECASE)
TYPES = (
    "white_noise", "white_noise_ycbcr", "correlated_noise", "masked_noise", "high_frequency_noise", "impulse_noise", "quantization", "gaussian_blur",
    "denoise", "jpeg", "jpeg2000", "jpeg_errors", "jpeg2000_errors", "non_eccentricity_patch", "colour_block", "tone_shift", "altered_contrast",
    "altered_saturation", "multiplicative_noise", "comfort_noise", "compressed_noise", "dithering", "colour_shift", "sparse_sampling",
)  # fmt: skip
"""Types 01..24 in biqa's words."""

STRENGTHS = {"colour_block": (5, 4, 3, 2, 1), "altered_contrast": (3, 1, 4, 2, 5)}
"""Types whose levels do not grow with what is seen: level 1..5 -> strength, by the mean opinion of the level over all references. More
blocks (15) are rated better; the levels of the contrast change (17) alternate between less and more contrast."""


class Tid2013(OfficialSet):
    """TID2013, Tampere Image Database 2013.

    | | |
    |---|---|
    | Source | https://www.ponomarenko.info/tid2013.htm |
    | Citation | N. Ponomarenko et al., "Image database TID2013: Peculiarities, results and perspectives", Signal Process. Image Commun. 30, 2015 |
    | Licence | free for scientific research (its readme) |
    | Images | 3000: 25 references (24 Kodak crops and one synthetic image) x 24 types x 5 levels, 512 x 384, .bmp |
    | Score | MOS 0.242..7.214 on a scale of 0..9, higher is better |
    | Deviation | mos_std.txt is that of the mean (0..0.30), not of the opinions: not used |
    | Groups | the reference |
    | Split | none published; by convention 80/20 by reference, over several seeds |

    The case of names is mixed: I01_01_1.bmp in the list, i01_01_1.bmp on disk, and the other way round. A higher level is not worse in every type:
    mean quality rises with it for block-wise distortions (15), and goes up and down for contrast change (17), so `STRENGTHS` puts these in order.

    Args: see OfficialSet.
    """

    card = Card(name="tid2013", low=0.0, high=9.0, direction="mos", images=3000, published=(0.24, 7.22))
    protocols = ("reference",)
    release = Release(
        title="TID2013",
        folders=("tid2013",),
        needs=("distorted_images", LABELS),
        layout=f"tid2013/\n  distorted_images/i01_01_1.bmp ... i25_24_5.bmp\n  {LABELS}",
        source="https://www.ponomarenko.info/tid2013.htm",
    )

    def entries(self, folder: Folder) -> list[Entry]:
        """The lines of mos_with_names.txt."""
        file = folder.expect(LABELS)
        try:
            lines = file.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise BadRecord(f"{file}: not a text. Unpack the release again.") from error
        entries = [_entry(line.strip(), f"{file}, line {number}") for number, line in enumerate(lines, start=1) if line.strip()]
        if not entries:
            raise DatasetNotFound(f"{file}: the file is empty. Unpack the release again.")
        return entries


def _entry(line: str, where: str) -> Entry:
    match = LINE.fullmatch(line)
    if match is None or not 1 <= int(match["kind"]) <= len(TYPES) or not 1 <= int(match["level"]) <= 5:
        raise BadRecord(f'{where}: "{quoted(line)}" is not a score and a name such as "5.51429 I01_01_1.bmp". Use the file of the release.')
    score = number_in(match["score"])
    if score is None:
        raise BadRecord(f'{where}: "{quoted(match["score"])}" is not a number. Use the file of the release.')
    name, kind, level = match["name"], TYPES[int(match["kind"]) - 1], int(match["level"])
    strength = STRENGTHS[kind][level - 1] if kind in STRENGTHS else level
    return Entry(
        where=where, image=name, file=f"distorted_images/{name}", score=score, group=match["reference"].upper(),
        distortions=((kind, strength),),
    )  # fmt: skip
