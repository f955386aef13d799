"""Tokens made visible: spaces and line ends as signs, what cannot be seen or drawn as its code, cut to a width."""

import unicodedata
from functools import lru_cache

from matplotlib import font_manager
from matplotlib.textpath import text_to_path

SIGNS = {" ": "␣", "\n": "↵", "\r": "␍", "\t": "⇥"}
"""Signs for what is seen as nothing."""
EMPTY = "∅"
"""Stands for a token of no characters."""
CUT = "…"


def visible(token: str) -> str:
    """A token with every character to be seen: signs for spaces and line ends, codes (\\u200b) for other controls and marks without a letter."""
    shown = "".join(_seen(character) for character in unicodedata.normalize("NFC", token))
    return shown or EMPTY


def drawable(text: str) -> str:
    """The text with a code (\\u4e2d) for each character that the font of the figures has no glyph for; a page shows such text as it is."""
    known = _glyphs()
    return "".join(character if ord(character) in known or character == "\n" else _code(character) for character in text)


def fitting(text: str, width: float, size: float) -> str:
    """The drawable form of a text, cut with … so that it is at most `width` points wide at a font size of `size` points."""
    shown = drawable(text)
    if _width(shown, size) <= width:
        return shown
    kept = min(len(shown), 2 + int(1.5 * len(shown) * width / _width(shown, size)))  # a start from above: widths of letters differ
    while kept > 0 and _width(shown[:kept] + CUT, size) > width:
        kept -= 1
    return shown[:kept] + CUT


def _seen(character: str) -> str:
    if character in SIGNS:
        return SIGNS[character]
    return _code(character) if unicodedata.category(character)[0] in "CMZ" else character


def _code(character: str) -> str:
    return f"\\u{ord(character):04x}"


@lru_cache(maxsize=4096)
def _width(text: str, size: float) -> float:
    return float(text_to_path.get_text_width_height_descent(text, font_manager.FontProperties(size=size), ismath=False)[0])


@lru_cache(maxsize=1)
def _glyphs() -> frozenset[int]:
    """Characters that the font of the figures can draw."""
    font = font_manager.get_font(font_manager.findfont(font_manager.FontProperties()))
    return frozenset(font.get_charmap())
