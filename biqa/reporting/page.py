"""One page to look at: what was found inside a run, with figures, tables and examples, in one file that needs no network and no script.

All text on it is escaped: descriptions, tokens and image names come from models and data sets. Its security policy forbids scripts and every request.
"""

import base64
import io
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from biqa.files import write_whole

TEMPLATE = "page.html.jinja"
THUMBNAIL = 320
"""Longer side of a picture on the page, in pixels."""
SCREEN = 96
"""Pixels of a page in an inch."""


@dataclass(frozen=True)
class PageTable:
    """A table of texts; the first of each row names it."""

    caption: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    groups: tuple[tuple[str, int], ...] = ()
    """(name, number of columns) above the headings, which they cover from the second on."""
    words: bool = False
    """Whether it holds words rather than figures: they begin at the left, and go on below where the window is narrow."""


@dataclass(frozen=True)
class PageFigure:
    """A figure as a data URI (see `page_figure`): an image of its own, so that ids of two figures never meet and nothing in it can run."""

    caption: str
    alt: str
    """What it shows, for those who do not see it."""
    source: str
    width: int
    """Width on the page in pixels; wider than the window, it scrolls in its own box."""


@dataclass(frozen=True)
class Card:
    """One image with what was said of it."""

    heading: str
    picture: str
    """`thumbnail` of the image; "" where there is none."""
    facts: tuple[tuple[str, str], ...]
    """(name, value), such as ("given level", "good")."""
    description: str
    levels: tuple[tuple[str, float], ...] = ()
    """(level, probability), worst level first; () where they are not shown."""


@dataclass(frozen=True)
class Cards:
    """Cards under one heading."""

    heading: str
    explanation: str
    cards: tuple[Card, ...]


@dataclass(frozen=True)
class LensCell:
    """What one layer would answer."""

    layer: int
    level: str
    token: str
    """The likeliest of the whole vocabulary, made visible (see tokens.py)."""
    probability: float
    """Of that token."""


@dataclass(frozen=True)
class Answer:
    """What one system says of one image."""

    system: str
    description: str
    facts: tuple[tuple[str, str], ...]
    levels: tuple[tuple[str, float], ...]
    """(level, probability), worst level first."""
    lens: tuple[LensCell, ...] = ()


@dataclass(frozen=True)
class Example:
    """One image and what each system says of it."""

    heading: str
    picture: str
    facts: tuple[tuple[str, str], ...]
    answers: tuple[Answer, ...]
    figures: tuple[PageFigure, ...] = ()
    """Figures of this image alone."""


@dataclass(frozen=True)
class Section:
    """One analysis."""

    name: str
    """The part of the address after #: letters, digits, - and _."""
    heading: str
    explanation: str
    """What is measured, in a paragraph."""
    tables: tuple[PageTable, ...] = ()
    figures: tuple[PageFigure, ...] = ()
    cards: tuple[Cards, ...] = ()


@dataclass(frozen=True)
class Page:
    """The whole page."""

    title: str
    facts: PageTable
    """Where the figures come from: a column a system."""
    notes: tuple[str, ...]
    """What must be known to read the page, such as that labels are stand-ins, or which analyses are missing and why."""
    sections: tuple[Section, ...]
    examples: tuple[Example, ...] = ()


def write_page(path: Path, content: Page) -> None:
    """Write the page."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    text = environment.get_template(TEMPLATE).render(page=content)
    write_whole(path, text)


def thumbnail(image: Image.Image) -> str:
    """The picture as a JPEG data URI, its longer side at most `THUMBNAIL` pixels."""
    small = image.convert("RGB")
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    written = io.BytesIO()
    small.save(written, "JPEG", quality=85)
    return _uri("image/jpeg", written.getvalue())


def page_figure(png: Path, svg: Path, caption: str, alt: str) -> PageFigure:
    """The smaller of the two files that `write_figure` wrote, shown as wide as it is drawn."""
    with Image.open(png) as image:
        width = round(image.width / image.info["dpi"][0] * SCREEN)
    smaller, kind = min((svg, "image/svg+xml"), (png, "image/png"), key=lambda file: file[0].stat().st_size)
    return PageFigure(caption, alt, _uri(kind, smaller.read_bytes()), width)


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
