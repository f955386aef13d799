"""What an importer of label files repaired, dropped and found."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from biqa.language.levels import LEVELS, level_index, level_of
from biqa.language.prompts import parse_verdict


@dataclass(frozen=True)
class AnswerReport:
    """The answers of a label file beside the levels of their scores, which count in every case."""

    count: int = 0
    """Entries with an answer."""
    contradicting: tuple[tuple[str, str, str], ...] = ()
    """(image, level in the answer, level of the score) where these are two or more steps apart (METHOD.md section 5, contradiction)."""
    one_step: int = 0
    """Answers one step away, as bins of another range make them."""
    inverted: bool = False
    """Over all answers the level falls as quality rises."""
    stray: Mapping[str, int] = field(default_factory=dict)
    """Word that is no level -> answers that end in it."""

    @property
    def problems(self) -> list[str]:
        """A sentence for each kind of problem."""
        said: list[str] = []
        if self.contradicting:
            image, word, level = self.contradicting[0]
            said.append(
                f"{len(self.contradicting)} of {self.count} answers are two or more levels from their score and were replaced by the score's level. "
                f'First: {image}, "{word}" for a score that means {level}.'
            )
        if self.inverted:
            said.append(
                f"The levels of the {self.count} answers fall as quality rises: they were made in the wrong direction (as Q-Align's ft/live and "
                f"ft/csiq), or data.direction= is wrong."
            )
        if self.one_step:
            said.append(f"{self.one_step} of {self.count} answers are one level from their score (bins of another range); the score's level counts.")
        if self.stray:
            words = ", ".join(f"{word} {count}" for word, count in self.stray.items())
            said.append(f"{sum(self.stray.values())} of {self.count} answers name no level ({words}) and were replaced by the score's level.")
        return said


def compare_answers(answers: Iterable[tuple[str, str | None, float]]) -> AnswerReport:
    """Compare answers with scores.

    Args:
        answers: (image, answer or None, quality in [0, 1]).
    """
    given = [(image, answer, q) for image, answer, q in answers if answer is not None]
    stray: Counter[str] = Counter()
    read: list[tuple[str, int, float]] = []
    for image, answer, q in given:
        word = parse_verdict(answer)
        if word is None:
            stray[answer.strip(" .!\n").rpartition(" ")[2].lower() or "(empty)"] += 1
        else:
            read.append((image, LEVELS.index(word), q))
    steps = [abs(level - level_index(q)) for _, level, q in read]
    return AnswerReport(
        count=len(given),
        contradicting=tuple((image, LEVELS[level], level_of(q)) for (image, level, q), apart in zip(read, steps, strict=True) if apart > 1),
        one_step=steps.count(1),
        inverted=falls((level, q) for _, level, q in read),
        stray=dict(stray.most_common()),
    )


def falls(pairs: Iterable[tuple[float | None, float]]) -> bool:
    """Whether the values of (value, quality) fall as quality rises: their covariance is below 0. None is passed over."""
    known = np.array([pair for pair in pairs if pair[0] is not None], dtype=np.float64)
    if len(known) < 2:
        return False
    value, q = (known - known.mean(axis=0)).T
    return bool(value @ q < -1e-9)  # a constant is not exactly 0 after rounding


@dataclass(frozen=True)
class ImportReport:
    """What was repaired in label files, and what was found in fields that biqa does not use. Tuples of words hold image names."""

    rows: int
    """Entries of all files."""
    turned: int = 0
    """Scores whose sign was turned."""
    references: tuple[str, ...] = ()
    """Reference images, dropped."""
    repeated: tuple[str, ...] = ()
    """Further entries of an image with the same score, dropped."""
    doubled: tuple[str, ...] = ()
    """Images with two questions, or two image tokens, in one question."""
    probabilities_inverted: bool = False
    """`level_probs` fall as quality rises."""
    answers: AnswerReport = AnswerReport()

    @property
    def problems(self) -> list[str]:
        """A sentence for each kind of problem, with its count and the first image; none when the files are clean."""
        said: list[str] = []
        if self.turned:
            said.append(f"No score of {self.turned} is above 0, as DeQA-Score stores DMOS: all signs were turned.")
        if self.references:
            said.append(
                f"{len(self.references)} of {self.rows} entries are reference images (score 0 of a DMOS set, or in a folder refimgs or src_imgs) "
                f"and were dropped. First: {self.references[0]}."
            )
        if self.repeated:
            said.append(f"{len(self.repeated)} of {self.rows} entries repeat an image with its score and were dropped. First: {self.repeated[0]}.")
        if self.doubled:
            said.append(
                f"{len(self.doubled)} of {self.rows} entries have two questions or two image tokens in one, which biqa does not use. "
                f"First: {self.doubled[0]}."
            )
        if self.probabilities_inverted:
            said.append("level_probs fall as quality rises: they do not run from excellent to bad. biqa makes its own from score and std.")
        return said + self.answers.problems
