"""Makes the image folders of official releases around given label files, quickly: one tiny real image a format, hard-linked under every name."""

import os
from collections.abc import Iterable
from pathlib import Path

from PIL import Image


def fill(folder: Path, names: Iterable[str]) -> None:
    """Lay a decodable image of 8 x 8 pixels under every name.

    Args:
        folder: where the names start; made if needed, and so are their sub-folders.
        names: relative names with "/" that are not there yet, endings bmp, png, jpg and jpeg in any case.
    """
    first: dict[str, Path] = {}
    made: set[Path] = set()
    for name in names:
        file = folder / name
        if file.parent not in made:
            file.parent.mkdir(parents=True, exist_ok=True)
            made.add(file.parent)
        ending = file.suffix.lower()
        if ending in first:
            os.link(first[ending], file)
        else:
            Image.linear_gradient("L").resize((8, 8)).convert("RGB").save(file)
            first[ending] = file
