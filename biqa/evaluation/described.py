"""From what texts say of features to numbers: a design matrix, and ordinary least squares on it (METHOD.md 6.1: ordinal coding).

METHOD.md names the coding; what becomes of a feature that a text does not name, of kinds, and of columns that cannot be told apart are choices of
this project, each stated where it is made.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from biqa.language.features import AMOUNTS, DEGREES, FEATURES, FeatureSpec

Floats = NDArray[np.float64]
Features = Mapping[str, int]
"""Name -> strength: what one text says. {} is a text that names none, such as "No distortion is visible."."""

RARE = 5
"""Texts that must differ from the commonest value of a column for it to be kept (our choice): fewer tell of those texts, not of the feature."""
SAME = 1e-8
"""Relative length below which what is left of a column is rounding."""


@dataclass(frozen=True)
class Column:
    """One number that each text is given."""

    name: str
    """The feature, or "feature=kind" in the word of the kind."""
    feature: str
    kind: int | None
    """The kind that has a 1 here, all others a 0; None: the column is the strength itself."""
    absent: float
    """What a text has that does not name the feature."""

    def code(self, features: Sequence[Features]) -> Floats:
        """Shape [texts]."""
        return np.array([self._number(text[self.feature]) if self.feature in text else self.absent for text in features], dtype=np.float64)

    def _number(self, strength: int) -> float:
        return float(strength if self.kind is None else strength == self.kind)


@dataclass(frozen=True)
class Design:
    """Described features as columns of numbers, made on some texts and applicable to others."""

    coded: tuple[Column, ...]
    """In the order of the registry `biqa.language.features.FEATURES`."""
    values: Floats
    """Of the texts that it was made on, shape [texts, columns]. Together with a constant the columns are linearly independent."""
    dropped: dict[str, str]
    """Column, or feature, that was left out -> why."""

    @classmethod
    def fit(cls, features: Sequence[Features]) -> "Design":
        """The columns that can be told apart on these texts.

        - A scale is one column, its strength as a number. Where not naming it means that there is none of it (`starts_at_none`), a text that does
          not name it has 0. A scale without such a zero (brightness, contrast, a mean shift) is given the mean of the texts that name it, so that
          silence has no say.
        - Kinds are a column of 0 and 1 each, but for the commonest (of equals the first), which is what the others are compared with. A text that
          does not name the feature has the share of the kind among those that do, again so that silence has no say.
        - Left out, and listed with the reason: what never varies; what fewer than `RARE` texts vary (where silence has no say, of those that name
          it); what follows from the columns before it; a column whose coefficient would rest on one text alone (leverage 1).

        Args:
            features: what each text says, one mapping a text.

        Raises:
            ValueError: a feature is not in the registry.
        """
        named = sorted(set[str]().union(*features), key=list(FEATURES).index)
        candidates: list[Column] = []
        dropped: dict[str, str] = {}
        for feature in named:
            columns = list(_columns_of(FEATURES[feature], features))
            if not columns:
                dropped[feature] = "never varies: one kind alone is named"
            for column in columns:
                if why := _too_constant(column, features):
                    dropped[column.name] = why
                else:
                    candidates.append(column)
        values = _stacked(candidates, features)
        dependent = _dependent(values)
        kept = [position for position in range(len(candidates)) if position not in dependent]
        dropped |= {candidates[position].name: why for position, why in dependent.items()}
        return cls(tuple(candidates[position] for position in kept), values[:, kept], dropped)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(column.name for column in self.coded)

    def code(self, features: Sequence[Features]) -> Floats:
        """The same columns for other texts, shape [texts, columns]. What these name beyond the columns has no say."""
        return _stacked(self.coded, features)


@dataclass(frozen=True)
class LinearModel:
    """Ordinary least squares of a figure on described features, with a constant."""

    design: Design
    constant: float
    slopes: Floats
    """Change of the figure a unit of each column, shape [columns]."""

    @classmethod
    def fit(cls, features: Sequence[Features], figures: ArrayLike) -> "LinearModel":
        """Fit on texts with a figure each, shape [texts]; without a column that varies it is the mean of the figures."""
        design = Design.fit(features)
        figures = np.asarray(figures, dtype=np.float64)
        if not len(design.coded):
            return cls(design, float(figures.mean()), np.empty(0))
        middle = design.values.mean(axis=0)
        slopes = np.linalg.lstsq(design.values - middle, figures - figures.mean())[0]
        return cls(design, float(figures.mean() - middle @ slopes), slopes)

    def predict(self, features: Sequence[Features]) -> Floats:
        """Fitted figure of each text, shape [texts]."""
        return self.constant + self.design.code(features) @ self.slopes


def starts_at_none(spec: FeatureSpec) -> bool:
    """Whether not naming the feature means that there is none of it: noise, blockiness, voted defects and distortions, whose words are amounts.

    Amounts begin at 0 ("no"); distortions at 1 ("barely visible"), which leaves 0 to texts that do not name them. A choice of this project.
    """
    return spec.strengths in (AMOUNTS, DEGREES)


def _columns_of(spec: FeatureSpec, features: Sequence[Features]) -> Iterator[Column]:
    strengths = [text[spec.name] for text in features if spec.name in text]
    if spec.ordered:
        yield Column(spec.name, spec.name, None, 0.0 if starts_at_none(spec) else float(np.mean(strengths)))
        return
    kinds, numbers = np.unique(strengths, return_counts=True)
    for kind, number in zip(kinds, numbers, strict=True):
        if kind != kinds[numbers.argmax()]:
            yield Column(f"{spec.name}={spec.strengths[kind - spec.lowest]}", spec.name, int(kind), float(number / len(strengths)))


def _too_constant(column: Column, features: Sequence[Features]) -> str | None:
    """Why the column does not vary enough to be kept, or None."""
    spec = FEATURES[column.feature]
    telling = features if spec.ordered and starts_at_none(spec) else [text for text in features if column.feature in text]
    _, numbers = np.unique(column.code(telling), return_counts=True)
    differing = len(telling) - int(numbers.max())
    if not differing:
        return "never varies"
    return f"too rare: it sets {differing} of {len(telling)} texts apart, at least {RARE} are needed" if differing < RARE else None


def _stacked(columns: Sequence[Column], features: Sequence[Features]) -> Floats:
    return np.stack([column.code(features) for column in columns], axis=1) if columns else np.empty((len(features), 0))


def _dependent(values: Floats) -> dict[int, str]:
    """Positions of columns that cannot be told from a constant and the columns before them, and why (Gram-Schmidt, twice for its rounding)."""
    texts = len(values)
    basis = np.full((texts, 1), 1 / np.sqrt(max(texts, 1)))
    found: dict[int, str] = {}
    for position, column in enumerate(values.T):
        rest = column - column.mean()
        length = np.linalg.norm(rest)
        for _ in range(2):
            rest = rest - basis @ (basis.T @ rest)
        if np.linalg.norm(rest) <= SAME * length:
            found[position] = "follows from the columns before it"
            continue
        wider = np.column_stack([basis, rest / np.linalg.norm(rest)])
        if (wider**2).sum(axis=1).max() > 1 - SAME:
            found[position] = "would rest on one text alone"
            continue
        basis = wider
    return found
