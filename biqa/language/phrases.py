"""Phrases of the vocabulary in a text, what a group of them says, and the mentions that `clauses` makes of them."""

import re
from dataclasses import dataclass, replace

from biqa.language.vocabulary import ADVERBS, AMOUNTS, KINDS, LONGEST, PLAIN, POLES, SEEN, SOME, WHOLLY


@dataclass(frozen=True)
class Token:
    """One phrase of the vocabulary, or one other word, in a text."""

    phrase: str
    """In the spelling of the vocabulary."""
    kind: str
    start: int
    end: int


@dataclass(frozen=True)
class Mention:
    """What one place of a text says of a feature."""

    feature: str
    """Empty where the words are understood but name no feature of the registry."""
    strength: int | None
    """None where the words have no strength on the feature's scale (a distortion that is absent)."""
    form: str
    """own (wording), adjective, amount (before a defect's name), predicate (after it), or lack (of contrast)."""
    start: int
    end: int
    """What is replaced to say another strength."""
    pole: str = ""
    noun: str = ""
    """Class of the noun for adjectives and lacks, and for defects the words between name and amount ("is")."""
    word: str = ""
    """The adjective."""
    negation: str = ""
    """What denies it: "no", "without", "isn't", "lacks"."""
    denial: tuple[int, int] | None = None
    """Where that stands, for adjectives; elsewhere it is part of what is replaced."""
    joined: tuple[int, int] | None = None
    """What joins it to the mention before, whose amount or negation it shares."""
    shared: str = ""
    """That amount, or "no" and "not"."""
    bridge: str = ""
    """What joins it in place of that, where it no longer shares: "but", "but with"."""
    neither: tuple[int, int] | None = None
    """Where the "neither" of the list stands."""


@dataclass(frozen=True)
class Shared:
    """A negation or an amount that the next member of a list shares."""

    of: str
    """adjective, defect or lack."""
    degree: int
    words: str
    end: int
    bridge: str = ""
    neither: tuple[int, int] | None = None

    def joins(self, mention: Mention, start: int) -> Mention:
        """The mention as the next member of the list; `start` is where its own words begin."""
        return replace(mention, joined=(self.end, start), shared=self.words, bridge=self.bridge, neither=self.neither)


_WORD = re.compile(r"[a-z]+n't\b|'s\b|[a-z]+|[,;:()]")
_SPELLING = (("color", "colour"), ("artifact", "artefact"), ("gray", "grey"), ("teriz", "teris"), ("focussed", "focused"))
_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)} | {0x2019: "'", 0x2014: ";", 0x2013: ";"}
"""One character for one, so that places stay: capitals, the curly apostrophe, dashes (which end a clause)."""


def tokens(text: str, start: int, end: int) -> list[Token]:
    """The phrases of `text[start:end]`, longest first; places count from the start of the text. Hyphens count as spaces."""
    words = [(_spelled(found[0]), start + found.start(), start + found.end()) for found in _WORD.finditer(text[start:end].translate(_LOWER))]
    result: list[Token] = []
    i = 0
    while i < len(words):
        for size in range(min(LONGEST, len(words) - i), 0, -1):
            phrase = " ".join(word for word, _, _ in words[i : i + size])
            if size == 1 or phrase in KINDS:
                other = "negation" if phrase.endswith("n't") else "other"
                result.append(Token(phrase, KINDS.get(phrase, other), words[i][1], words[i + size - 1][2]))
                i += size
                break
    return result


def _spelled(word: str) -> str:
    for american, british in _SPELLING:
        word = word.replace(american, british)
    return word


def plain(group: list[Token]) -> bool:
    """Whether nothing in a group compares ("more noise", "less sharp")."""
    return all(token.kind != "comparison" for token in group)


def quantity(token: Token) -> bool:
    """Whether a word can say how much there is of a defect."""
    return token.kind == "negation" or token.phrase in AMOUNTS


def strength_of(fits: tuple[str, str], degree: int) -> tuple[str, int | None]:
    """Feature and strength of a table's entry (feature, pole) at a degree 0..5."""
    feature, pole = fits
    return feature, POLES[pole][degree] if feature else None


def negations_of(copula: Token | None, group: list[Token]) -> list[Token]:
    """What denies a group: a negated copula before it, and its own words."""
    return [token for token in (copula, *group) if token and token.kind in ("negation", "lack", "not_copula")]


def negated(adverb: Token | None, pole: str) -> int:
    """Degree of a negated adjective: "not very dark" and "not entirely sharp" leave something, "not very sharp" does not."""
    if adverb is None:
        return 0
    return 2 if adverb.phrase in WHOLLY or (ADVERBS[adverb.phrase] == 5 and pole != "high") else 0


def amount_of(group: list[Token], copula: Token | None) -> tuple[int | None, Token | None]:
    """Degree of the defect that a group stands beside, and the first word that says so; no degree for two negations."""
    negations = negations_of(copula, group)
    amounts = [token for token in group if token.phrase in AMOUNTS]
    adverbs = [token for token in group if token.phrase in ADVERBS and token not in amounts]
    words = sorted((*negations, *amounts, *adverbs), key=lambda token: token.start)
    first = words[0] if words else None
    if len(negations) > 1:
        return None, first
    size = AMOUNTS[amounts[-1].phrase] if amounts else None
    if negations:
        return (1 if size is not None and size >= PLAIN and amounts[-1].phrase not in SEEN else 0), first
    shift = ADVERBS[adverbs[-1].phrase] if adverbs else PLAIN
    if size is None:
        return (shift if shift <= 2 else SOME), first
    if shift == 5:
        return (1 if 0 < size <= 2 else min(size + 1, 5) if size else 0), first
    return min(size, shift) if shift < PLAIN else size, first
