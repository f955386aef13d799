"""What a model is asked, how its verdict is worded, and how a verdict is read back."""

import re
from typing import cast

from biqa.language.leak import find_leak
from biqa.language.levels import LEVELS, Level

DESCRIBE = "Describe the image's low-level appearances."
"""Stage 1. First half of an instruction of Q-Instruct (arXiv 2311.06783, Fig. 4), without its request for an evaluation."""

JOINT = "Describe and evaluate the quality of the image."
"""One-stage and zero-shot: Q-Instruct's question for a description that ends in a verdict (arXiv 2311.06783, Tab. 5), word for word."""

INFER = "If there is an image described as: {description} How would you rate the quality of this image?"
"""Stage 2, text only: the form of the authors' follow-up (arXiv 2601.02441: "If there is an image described as {caption}, ...") with the question of
Q-Align (arXiv 2312.17090). Fill `{description}` with `str.format`."""

STEM = "The quality of the image is"
"""What stands before the level word (METHOD.md section 4; Q-Align's answer)."""

_HEDGES = "very|quite|rather|really|relatively|somewhat|only|just"
_LEVEL = rf"({'|'.join(LEVELS)})\b(?!\s*(?:-|/|\bto\b|\bor\b))"
_VERDICT = re.compile(rf"(?P<subject>\bquality\b)|(?P<end>[.!?\n])|\bis\b[\s:*\"']*(?:(?:{_HEDGES})\s+)*{_LEVEL}", re.IGNORECASE)
"""What matters of a text, read once from left to right: one expression for the whole verdict tries every "is" after every "quality"."""
_LONE = re.compile(rf"\W*({'|'.join(LEVELS)})\W*", re.IGNORECASE)


def verdict(level: Level) -> str:
    """The verdict as a sentence: "The quality of the image is good." (Q-Align's answer)."""
    return f"{STEM} {level}."


def parse_verdict(text: str) -> Level | None:
    """The level that a text gives: of its last "quality ... is {level}", or of a text that is a level word and nothing else.

    Degree words before the level ("very poor", as in Q-Instruct's texts) are passed over. None for anything else, such as a negation ("is not
    good") or two levels ("fair to good"): a missing verdict is counted, never guessed (METHOD.md section 4).
    """
    level, about_quality = None, False
    for found in _VERDICT.finditer(text):
        if found.lastgroup is not None:
            about_quality = found["subject"] is not None
        elif about_quality:
            level, about_quality = found[3], False
    if level is not None:
        return cast(Level, level.lower())
    lone = _LONE.fullmatch(text)
    return cast(Level, lone[1].lower()) if lone else None


def cut_verdict(text: str) -> tuple[str, str]:
    """A text without the verdict sentences at its end, and those sentences (METHOD.md section 7, `file`).

    A verdict sentence is one that `parse_verdict` reads, or one about "quality": Q-Instruct's texts end in "Therefore, the quality of this image
    is very poor", "... acceptable", "... medium". Either part may be empty.
    """
    sentences = re.split(r"(?<=[.!?])\s+", text.strip())
    end = len(sentences)
    while end and _is_verdict(sentences[end - 1]):
        end -= 1
    return " ".join(sentences[:end]), " ".join(sentences[end:])


def _is_verdict(sentence: str) -> bool:
    return parse_verdict(sentence) is not None or ("quality" in sentence.lower() and find_leak(sentence) is not None)
