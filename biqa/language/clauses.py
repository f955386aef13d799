"""A small grammar of free descriptions: which words of a sentence say what of which feature.

A sentence becomes phrases of `vocabulary`, read once from left to right. An adjective counts where it stands before a noun of the image ("dark
image"), after a copula whose subject is one ("the edges look soft, but noisy"), or alone in a fragment ("Slightly blurry, dull colours"); the name of
a defect counts anywhere, with the amount before it ("hardly any noise") or after it ("noise is absent"). Everything else is content, and comparisons
("sharper", "less noise") are left out.
"""

from dataclasses import dataclass, field, replace

from biqa.language.phrases import Mention, Shared, Token, amount_of, negated, negations_of, plain, quantity, strength_of, tokens
from biqa.language.vocabulary import ADJECTIVES, ADVERBS, AMOUNTS, DEFECTS, MEASURED, PLAIN, POLES, POSITIVES, SOME, SUBJECTS

_GROUP = frozenset({"modifier", "negation", "lack", "determiner", "filler", "comparison"})


def mentions(text: str, start: int, end: int) -> list[Mention]:
    """What the sentence `text[start:end]` says of features, in the order of its words."""
    return _Sentence(text, tokens(text, start, end)).read()


@dataclass
class _Sentence:
    """One reading from left to right: whose predicate stands open, and which adjectives wait for their noun."""

    text: str
    tokens: list[Token]
    found: list[Mention] = field(default_factory=list)
    subject: str | None = None
    main: str | None = None
    """The subject of the first copula: who is meant again after "but"."""
    open: bool = False
    """Whether an adjective now would be said of the subject."""
    fragment: bool = True
    """No verb and no content so far: adjectives alone are said of the image."""
    inside: str = ""
    """Within a preposition's phrase, an object, or after "with": nouns there are not the subject."""
    denied: Token | None = None
    """A negation before or within a copula ("isn't", "never looks") that waits for its adjective."""
    doubt: bool = False
    """After a negation or a condition whose reach is unknown: nothing counts up to the next comma or "but"."""
    shared: Shared | None = None
    waiting: list[list[Token]] = field(default_factory=list)

    def read(self) -> list[Mention]:
        i = 0
        while i < len(self.tokens):
            if self.tokens[i].kind in _GROUP | {"subject", "defect"}:
                i = self._phrase(i)
            else:
                self._step(i)
                i += 1
        return sorted(self.found, key=lambda mention: mention.start)

    def _kind(self, i: int) -> str:
        return self.tokens[i].kind if 0 <= i < len(self.tokens) else "end"

    def _phrase(self, i: int) -> int:
        """Modifiers and the noun after them, if there is one; returns where to go on."""
        j = i
        while self._kind(j) in _GROUP:
            j += 1
        if self._kind(j) == "other" and self._kind(j + 1) == "defect" and any(quantity(token) for token in self.tokens[i:j]):
            j += 1  # "no distracting noise"
        group = self.tokens[i:j]
        if self._kind(j) == "defect":
            return self._defect(group, j)
        if self._kind(j) == "subject":
            self._noun(group, self.tokens[j])
            return j + 1
        return self._alone(group, j)

    def _alone(self, group: list[Token], j: int) -> int:
        """Adjectives with no noun of the image after them: a predicate, a fragment, a list that goes on, or content."""
        after = self._kind(j)
        negation = next((token for token in group if token.kind == "negation"), None)
        if negation and after in ("copula", "other", "have", "preposition") and not any(token.phrase in ADJECTIVES for token in group):
            self.denied, self.doubt = (negation, self.doubt) if after == "copula" else (None, True)
            return j
        inner = self._named_after_in(group, j)
        if inner is not None:
            self._adjectives(group, SUBJECTS[self.tokens[inner].phrase], j)
            return inner + 1
        if after == "other":
            self.waiting.clear()
        elif self.open and self.subject:
            self._adjectives(group, self.subject, j)
        elif after == "join":
            self.waiting.append(group)
        elif self.fragment:
            self._flush([*self.waiting, group], "frame")
        else:
            self.waiting.clear()
        return j

    def _named_after_in(self, group: list[Token], j: int) -> int | None:
        """Where the noun of "low in contrast" stands."""
        if self._kind(j) != "preposition" or self.tokens[j].phrase != "in":
            return None
        k = j + 1
        while self._kind(k) in ("determiner", "filler"):
            k += 1
        if self._kind(k) != "subject":
            return None
        kind = SUBJECTS[self.tokens[k].phrase]
        fits = any(kind in ADJECTIVES.get(token.phrase, {}) for token in group)
        return k if fits and kind not in ("frame", "focus") else None

    def _noun(self, group: list[Token], noun: Token) -> None:
        kind, shared = SUBJECTS[noun.phrase], self.shared
        self._flush(self.waiting, kind)
        lacking = any(token.kind == "lack" for token in group)
        if not self._adjectives(group, kind, None) and kind in MEASURED:
            lacking = self._lack(group, noun, kind, shared) or lacking
        if lacking:  # "the image lacks detail and is dark": the subject is the image
            return
        if not self.inside:
            self.subject, self.open = kind, False
        elif self.inside == "with":
            self.subject, self.open, self.inside = kind, True, ""

    def _lack(self, group: list[Token], noun: Token, kind: str, shared: Shared | None) -> bool:
        """ "lacks contrast", "no sharpness", "hardly any detail": the low side of what the noun names; whether a list may go on."""
        if shared and shared.of == "lack" and not group:
            mention = Mention(MEASURED[kind], POLES["low"][shared.degree], "lack", noun.start, noun.start, "low", kind, negation=shared.words)
            self._add(shared.joins(mention, noun.start))
            self.shared = replace(shared, end=noun.end)
            return True
        missing = [token for token in group if token.kind == "lack" or token.phrase == "no" or AMOUNTS.get(token.phrase) == 1]
        if not missing or not plain(group):
            return False
        degree = next((ADVERBS[token.phrase] for token in group if token.phrase in ADVERBS), PLAIN)
        start, word = min(token.start for token in (*missing, *group) if token in missing or token.phrase in ADVERBS), missing[0].phrase
        self._add(Mention(MEASURED[kind], POLES["low"][degree], "lack", start, noun.start, "low", kind, negation=word))
        self.shared = Shared("lack", degree, word, noun.end, " but ") if missing[0].kind == "lack" else None
        return self.shared is not None

    def _flush(self, groups: list[list[Token]], kind: str) -> None:
        """Adjectives that waited get their noun; in a fragment, the image where that noun takes none of them."""
        for group in groups:
            if not self._adjectives(group, kind, None) and self.fragment:
                self._adjectives(group, "frame", None)
        self.waiting = []

    def _adjectives(self, group: list[Token], kind: str, after: int | None) -> bool:
        """Add what the adjectives of a group say of a noun of class `kind`; False where none of them fits that class."""
        negations = negations_of(self.denied, group)
        shared = self.shared if self.shared and self.shared.of == "adjective" and not negations else None
        adverb: Token | None = None
        any_fits = False
        for token in group:
            meaning = ADJECTIVES.get(token.phrase, {})
            fits = meaning.get(kind) or meaning.get("*")
            if not fits:
                adverb = token if token.phrase in ADVERBS else adverb
                continue
            any_fits = True
            if plain(group) and len(negations) < 2:
                degree = negated(adverb, fits[1]) if negations or shared else ADVERBS[adverb.phrase] if adverb else PLAIN
                own = Mention(*strength_of(fits, degree), "adjective", (adverb or token).start, token.end, fits[1], kind, token.phrase)
                mention = replace(own, negation=negations[0].phrase, denial=(negations[0].start, negations[0].end)) if negations else own
                if shared:
                    mention = shared.joins(mention, (adverb or token).start)
                self._add(mention)
            adverb = None
        self.denied = None
        self.shared = None
        if any_fits and (negations or shared) and after is not None and self._goes_on(after):
            first = shared.neither if shared else (negations[0].start, negations[0].end) if negations[0].phrase == "neither" else None
            self.shared = Shared("adjective", 0, "not", self.tokens[after - 1].end, " but ", first)
        return any_fits

    def _goes_on(self, i: int) -> bool:
        """Whether a negation reaches over the list that goes on here: lists with "or" and "nor", not "and"; twenty words ahead at most."""
        for token in self.tokens[i : i + 20]:
            if token.phrase in ("or", "nor"):
                return True
            if token.phrase == "and" or token.kind == "negation" or token.kind not in _GROUP | {"join"}:
                return False
        return False

    def _add(self, mention: Mention) -> None:
        if not self.doubt:
            self.found.append(mention)

    def _defect(self, group: list[Token], j: int) -> int:
        """A defect by name: how much of it there is said to be, before the name or after "is"."""
        name = self.tokens[j]
        self._flush(self.waiting if self.fragment else [], "")
        degree, first = amount_of(group, self.denied)
        shared = self.shared if self.shared and self.shared.of == "defect" and not first else None
        self.shared = None
        copula, end = self._predicate(j)
        after = self.tokens[copula + 1 : end]
        said, _ = amount_of(after, self.tokens[copula])
        sized = any(token.phrase in AMOUNTS for token in after)
        if not plain([*group, *after]) or (not sized and negations_of(self.tokens[copula], after)):
            pass  # "less noise", "noise is not a problem"
        elif sized and not ((first or shared) and said == SOME):
            self._add_predicate(name, self.tokens[copula], after, said)
        elif degree is not None and (first or shared or all(token.phrase != "any" for token in group)):  # "if there is any noise" tells nothing
            self._add_amount(group, name, shared.degree if shared else degree, shared, first)
        return end

    def _add_predicate(self, name: Token, copula: Token, after: list[Token], degree: int | None) -> None:
        if degree is None:
            return
        fits = DEFECTS[name.phrase]
        start = name.start if fits[1] in ("blur", "under", "over") else name.end
        end = max(token.end for token in after if token.phrase in AMOUNTS)
        verb = f" {POSITIVES[copula.phrase]}" if copula.kind == "not_copula" else self.text[name.end : copula.end]
        self._add(Mention(*strength_of(fits, degree), "predicate", start, end, fits[1], verb))

    def _add_amount(self, group: list[Token], name: Token, degree: int, shared: Shared | None, first: Token | None) -> None:
        fits = DEFECTS[name.phrase]
        start = first.start if first else name.start
        before = group[group.index(first) - 1] if first in group[1:] else None
        if before and before.phrase in ("a", "an"):
            start = before.start
        end = name.end if fits[1] in ("blur", "under", "over") else name.start
        negation = first.phrase if first and first.kind in ("negation", "lack", "not_copula") else ""
        mention = Mention(*strength_of(fits, degree), "amount", start, end, fits[1], negation=negation)
        neither = (first.start, first.end) if first and first.phrase == "neither" else None
        self._add(shared.joins(mention, name.start) if shared else mention)
        if shared:
            self.shared = replace(shared, end=name.end)
        elif first:
            words = "no" if degree == 0 else self.text[start].lower() + self.text[start + 1 : name.start].strip()
            bridge = "" if degree else " but with " if negation in ("without", "free of", "free from", "devoid of") else " but "
            self.shared = Shared("defect", degree, words, name.end, bridge, neither)

    def _predicate(self, j: int) -> tuple[int, int]:
        """The copula after the defect at `j`, and the end of what is said after it; where nothing is, `j` and the place after it."""
        copula = j + 1
        while self._kind(copula) == "filler":
            copula += 1
        end = copula + 1
        while self._kind(end) in _GROUP:
            end += 1
        said = self._kind(copula) in ("copula", "not_copula", "colon") and self._kind(end) not in ("subject", "defect")
        return (copula, end) if said and end > copula + 1 else (j, j + 1)

    def _step(self, i: int) -> None:
        """What a word that is neither modifier nor noun of the image does to the reading."""
        token = self.tokens[i]
        reaches = self.denied is not None and token.kind in ("other", "have", "preposition")  # "does not look like a sharp photo"
        self.denied = self.denied if token.kind == "copula" else None
        self.doubt = token.kind == "doubt" or reaches or (self.doubt and token.kind != "break" and token.phrase != ",")
        if token.kind != "join":
            self.shared = None
            self.waiting = []
        kind = "copula" if token.kind == "colon" and self._kind(i - 1) == "subject" else "break" if token.kind == "colon" else token.kind
        if kind in ("copula", "not_copula"):
            self._copula(token)
        elif kind == "break" or (kind == "join" and self.inside and self.main):
            self.subject, self.open, self.inside = self.main, self.main is not None, ""
        elif kind == "join":
            self.inside = self.inside if self.inside == "between" else ""
        elif kind == "preposition":
            self.inside = token.phrase if token.phrase == "between" else kind
        elif kind in ("with", "have"):
            self.inside, self.open = kind, False
            self.fragment = self.fragment and kind == "with"
        elif kind == "relative":
            self.subject = SUBJECTS.get(self.tokens[i - 1].phrase) if i else None
            self.open, self.inside = False, ""
        else:
            self._content(i)

    def _copula(self, token: Token) -> None:
        self.open, self.fragment, self.inside = self.subject is not None, False, ""
        self.main = self.main or self.subject
        self.denied = token if token.kind == "not_copula" else self.denied

    def _content(self, i: int) -> None:
        """A word of content ends the fragment, and the predicate unless it is an unknown adjective in a list ("jagged and blurred")."""
        self.fragment = False
        listed = self.open and self._kind(i + 1) == "join" and self._kind(i - 1) in ("copula", "join", "break", "modifier")
        if self.inside not in ("preposition", "between") and not listed:
            self.subject, self.open = None, False
