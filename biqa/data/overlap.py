"""Which pictures a run learns from and which it is tested on, by what they show and not by what they are called: a test picture that was learnt makes
every figure too good.

Two files are one picture where they have the same pixels, in whatever format and under whatever name. Where perceptual hashes are alike too, a small
copy of both decides: of a picture that was encoded anew, or distorted a little, it is nearly the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from biqa.data.images import image_of
from biqa.data.inspection import NEAR_BITS, alike, copies
from biqa.data.record import Record
from biqa.data.survey import Look

SIDE = 32
"""Pixels a side of the small copies."""
NEAR = 3.0
"""Grey levels, of 255, that two small copies differ by on average, at most, to be of one picture. JPEG of quality 10 moves one by about 1; another
photograph of the same motif by 10 and more."""
LOOKED_AT = 64
"""Pairs of alike pictures whose small copies are compared; of more, these tell what the others are."""


@dataclass(frozen=True)
class Overlap:
    """Test pictures that are learnt from: pairs of a test record and a learnt one, of each test picture the first pair."""

    same: list[tuple[Record, Record]]
    """With the same pixels."""
    again: list[tuple[Record, Record]]
    """With other pixels of what must be the same picture."""
    alike: list[tuple[Record, Record]]
    """Whose perceptual hashes are alike and nothing more."""


def overlap(test: Sequence[Record], learnt: Sequence[Record], looks: Mapping[Path, Look]) -> Overlap:
    """What of the test pictures is learnt from.

    Args:
        test: records to be tested on.
        learnt: records to be learnt from.
        looks: path -> what was found in the image, with the parts "pixels" and "hash".
    """
    same = copies(test, learnt, looks)
    told = {record.path for record, _ in same}
    again, others = [], []
    for place, pair in enumerate(alike([record for record in test if record.path not in told], learnt, looks, NEAR_BITS).of_each):
        (again if place < LOOKED_AT and one_picture(*map(image_of, pair)) else others).append(pair)
    return Overlap(same, again, others)


def one_picture(first: Image.Image, second: Image.Image) -> bool:
    """Whether two images show the same, encoded or distorted differently."""
    small = [np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.float32) for image in (first, second)]
    return float(np.abs(small[0] - small[1]).mean()) <= NEAR
