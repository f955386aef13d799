"""Features out of free text, and a text that says another strength (METHOD.md section 6: the causal check swaps one feature word).

A sentence in the project's own wording is looked up, as `features.parse` does it; any other is read with the grammar of `clauses` and the tables of
`vocabulary`, where the choices behind every strength are written down. Pronouns are not followed ("It is dark" is taken to be said of the image),
comparisons and the left, right, front and back of a picture are left out, and sarcasm is lost.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from biqa.language.clauses import mentions
from biqa.language.features import AMOUNTS, DEGREES, FEATURES, NOTHING, FeatureSpec
from biqa.language.leak import find_leak
from biqa.language.phrases import Mention
from biqa.language.vocabulary import DEGREES_OF, FREE, NOUNS, POSITIVES, PREDICATES, SCALE, WORDINGS


@dataclass(frozen=True)
class Reading:
    """What a text says of features, and how much of it was understood."""

    features: dict[str, int]
    """Name -> strength on the scale of `features.FEATURES`, in the order of mention; of two mentions the first wins."""
    sentences: int
    """Sentences with at least one letter or digit."""
    understood: int
    """Those of them that say something that the lexicon knows, also that there is none of a distortion."""

    @property
    def coverage(self) -> float:
        """Share of the sentences that were understood, in [0, 1]; 0 for an empty text."""
        return self.understood / self.sentences if self.sentences else 0.0


def read(text: str) -> Reading:
    """The features that a text names, in any wording; takes any text.

    A text of `features.describe` is read exactly as `features.parse` reads it.
    """
    sentences = list(_sentences(text))
    features: dict[str, int] = {}
    for mention in (mention for said in sentences for mention in said):
        if mention.feature and mention.strength is not None:
            features.setdefault(mention.feature, mention.strength)
    return Reading(features, len(sentences), sum(bool(said) for said in sentences))


def swapped(text: str, feature: str, strength: int) -> str | None:
    """The text with `strength` of `feature` in place of what it says of it, everything else as it was.

    Own wording keeps its template. In free text the phrase is replaced ("no visible noise" -> "very heavy noise", "lacks contrast" -> "has high
    contrast"), and lists that share a negation or an amount are taken apart. Every mention of the feature is changed where the tables allow it,
    the first one always.

    Returns:
        A text of which `read` gives `strength` for the feature and, for all others, what it gave before, with no word that `leak` refuses unless
        there was one; None where the text does not name the feature, or in words that the tables cannot replace.

    Raises:
        ValueError: the feature is not in the registry, or the strength is not on its scale.
    """
    if feature not in FEATURES:
        raise ValueError(f"no wording for {feature}: known are {', '.join(FEATURES)}")
    FEATURES[feature].sentence("{strength}", strength)  # refuses a strength off the scale
    before = _said(text)
    places = [k for k, (name, value) in enumerate(before) if name == feature and value is not None]
    for k in reversed(places):  # from the end, so that earlier places stay where they are
        if before[k][1] == strength:
            continue
        edited = _edited(text, k, strength)
        wanted = [*before[:k], (feature, strength), *before[k + 1 :]]
        if edited is not None and _said(edited) == wanted and (find_leak(edited) is None or find_leak(text) is not None):
            text, before = edited, wanted
    return text if places and before[places[0]][1] == strength else None


_SENTENCE = re.compile(r"[^.!?\n]+")


def _own(sentence: str) -> str:
    """As `features.parse` compares sentences: lower case, single spaces."""
    return " ".join(sentence.lower().split())


_OWN: dict[str, tuple[FeatureSpec, str, int]] = {
    _own(spec.sentence(template, strength).rstrip(".")): (spec, template, strength)
    for spec in FEATURES.values()
    for template in spec.templates
    for strength in range(spec.lowest, spec.lowest + len(spec.strengths))
}
_NOTHING = frozenset(_own(sentence.rstrip(".")) for sentence in NOTHING)


def _sentences(text: str) -> Iterator[list[Mention]]:
    """The mentions of each sentence; marks and blanks alone are no sentence."""
    for found in _SENTENCE.finditer(text):
        sentence = _own(found[0])
        start = found.end() - len(found[0].lstrip())
        if sentence in _OWN:
            spec, template, strength = _OWN[sentence]
            yield [Mention(spec.name, strength, "own", start, found.end(), word=template)]
        elif sentence in _NOTHING:
            yield [Mention("", None, "own", start, found.end())]
        elif any(map(str.isalnum, sentence)):
            yield mentions(text, found.start(), found.end())


def _all(text: str) -> list[Mention]:
    return [mention for said in _sentences(text) for mention in said]


def _said(text: str) -> list[tuple[str, int | None]]:
    return [(mention.feature, mention.strength) for mention in _all(text)]


def _edited(text: str, k: int, strength: int) -> str | None:
    """The text with another strength at its mention `k`, and what shared its words spelled out beside it."""
    everything = _all(text)
    mention = everything[k]
    phrase = _phrase(mention, strength)
    if phrase is None:
        return None
    edits = [_placed(text, mention, phrase)]
    if mention.denial:
        edits.append(_affirmation(text, mention))
    if mention.joined and mention.bridge:
        edits.append((*mention.joined, mention.bridge))
        if mention.neither:
            edits.append((*mention.neither, mention.shared))
    follower = everything[k + 1] if k + 1 < len(everything) else None
    if follower and follower.joined:
        start, end = follower.joined
        joint = "" if not follower.bridge else " and " if follower.shared in ("no", "not") else " but "
        edits.append((start, end, f"{joint or text[start:end]}{follower.shared} "))
    for start, end, words in sorted(edits, reverse=True):
        text = text[:start] + words + text[end:]
    return text


def _placed(text: str, mention: Mention, phrase: str) -> tuple[int, int, str]:
    """Start, end and words of the edit: the sentence keeps its capital, and "an" becomes "a" (no adjective of the tables begins with a vowel)."""
    start, end = mention.start, mention.end
    negated = mention.denial and mention.negation not in POSITIVES and text[mention.denial[0]].isupper()
    if negated or (text[start : start + 1].isupper() and text[start + 1 : start + 2].islower()):
        phrase = phrase[0].upper() + phrase[1:]
        if start == end:
            phrase, end = phrase + text[start].lower(), end + 1
    if mention.form == "adjective" and text[max(0, start - 4) : start].lower() in (" an ", "an "):
        start, phrase = start - 2, f" {phrase}"
    return start, end, phrase


def _affirmation(text: str, mention: Mention) -> tuple[int, int, str]:
    """The edit that takes an adjective's negation away: "isn't" becomes "is", "not" goes with the blank after it."""
    start, end = mention.denial or (0, 0)
    positive = POSITIVES.get(mention.negation, "")
    if text[start].isupper():
        positive = positive.capitalize()
    return start, end + (not positive and text[end : end + 1] == " "), positive


def _phrase(mention: Mention, strength: int) -> str | None:
    """What takes the place of a mention's words; None where the tables have nothing."""
    spec = FEATURES[mention.feature]
    place = strength - spec.lowest
    if mention.negation.endswith(("n't", "cannot")) and mention.negation not in POSITIVES:
        return None  # "can't be called sharp": its verb would have to change
    if mention.form == "own":
        return spec.sentence(mention.word, strength).rstrip(".")
    if mention.form == "adjective" and mention.pole in ("amount", "level", "free"):
        return _adjective(mention, place)
    if mention.form in ("adjective", "lack"):
        scale = WORDINGS.get((mention.feature, mention.noun), spec.strengths)
        return scale[place] if mention.form == "adjective" else f"{_affirmed(mention)}{scale[place]} "
    return _defect(mention, place)


def _adjective(mention: Mention, place: int) -> str:
    """The adjective of a defect, at another degree: "slightly noisy"."""
    if place == 0 and mention.feature in FREE:
        return FREE[mention.feature]
    word = {"noise": "noisy", "blockiness": "blocky"}.get(mention.feature, mention.word)
    return DEGREES_OF["level" if mention.pole == "level" else "amount"][place] + word


def _defect(mention: Mention, place: int) -> str:
    """Another amount of a defect; where its feature has two poles, also another name, for "blur" could not say that an image is very sharp."""
    noun = NOUNS.get(mention.feature)
    if mention.form == "predicate":
        return f"{noun}{mention.noun} {SCALE[place]}" if noun else f"{mention.noun} {PREDICATES[mention.pole][place]}"
    amounts = DEGREES if mention.pole == "level" else AMOUNTS
    return _affirmed(mention) + (f"{SCALE[place]} {noun}" if noun else f"{amounts[place]} ")


def _affirmed(mention: Mention) -> str:
    """The verb or preposition of a negation, without the negation."""
    positive = POSITIVES.get(mention.negation, "")
    return f"{positive} " if positive else ""


def better(feature: str) -> int | None:
    """Which way a feature moves quality for viewers: +1, more of it is better; -1, more of it is worse; None, neither for all images.

    See `features.FeatureSpec.better` for the choice and what it rests on.

    Raises:
        ValueError: the feature is not in the registry.
    """
    if feature not in FEATURES:
        raise ValueError(f"no wording for {feature}: known are {', '.join(FEATURES)}")
    return FEATURES[feature].better
