"""Texts that others wrote, on their way to being targets: sentences that give the answer away are dropped and counted (METHOD.md section 7)."""

import re
from dataclasses import dataclass, field
from typing import Literal

from biqa.language.leak import find_leak

OnLeak = Literal["stop", "skip_sentence"]
"""What to do with a sentence that gives the answer away: refuse the text, or drop the sentence."""

SHORTEST = 3
"""Words of a description at least: "good", "very good" and "Yes." are answers, but describe nothing."""

_MARKUP = re.compile(r"(?m)^[ \t]*(?:#{1,6}|[-*+•>]|\d{1,2}[.)])[ \t]+|\*\*|__|`")
_LINE_END = re.compile(r"(?<![.!?:;,\s])(?=[^\S\n]*\n)\s+(?=[A-Z])")
_UNFINISHED = re.compile(r"(?<=[.!?])\s+[^.!?]+$")


def plain(text: str) -> str:
    """A text without Markdown: no signs of headings, lists and emphasis, one line, and a stop where a line ended without one."""
    return " ".join(_LINE_END.sub(". ", _MARKUP.sub("", text).strip()).split())


def whole_sentences(text: str) -> str:
    """A plain text without the words after its last stop: what an answer that was cut off is worth. All of it where no stop comes before them."""
    return _UNFINISHED.sub("", plain(text))


@dataclass
class TextReport:
    """What was left out of texts."""

    entries: int = 0
    """Texts, or what should hold one."""
    dropped: list[tuple[str, str]] = field(default_factory=list)
    """Place and sentence, of each that gave the answer away."""
    emptied: list[str] = field(default_factory=list)
    """Place of each text of which no sentence was left."""

    def without_leaks(self, text: str, where: str) -> str:
        """The sentences of a text that do not give the answer away; "" where there is none. What is left out is listed under `where`."""
        kept: list[str] = []
        for sentence in re.split(r"(?<=[.!?])\s+", text.strip()):
            if find_leak(sentence):
                self.dropped.append((where, sentence))
            else:
                kept.append(sentence)
        said = " ".join(kept)
        if not said:
            self.emptied.append(where)
        return said

    @property
    def problems(self) -> list[str]:
        """A sentence for each kind of thing left out, with its count and where the first one stands."""
        said = []
        if self.dropped:
            where, sentence = self.dropped[0]
            texts = len({place for place, _ in self.dropped})
            said.append(
                f"{len(self.dropped)} sentences that give the answer away were dropped from {texts} of {self.entries} texts. "
                f'First: {where}, "{sentence}"'
            )
        if self.emptied:
            said.append(f"{len(self.emptied)} texts had no other sentence and were left out. First: {self.emptied[0]}.")
        return said
