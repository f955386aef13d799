"""What the paper published, as data, so that a table can set it beside ours.

Its tables by data set, how often and how hot it asked, and its formula of instability are not known to us.
"""

from dataclasses import dataclass

PAPER = "arXiv 2512.09555"
BACKBONE = "mPLUG-Owl2"


@dataclass(frozen=True)
class Published:
    """One published figure."""

    metric: str
    """The metric of ours that it stands beside; correlations in -1..1, instability in percent."""
    value: float
    printed: str
    """The figure as the paper prints it."""
    datasets: str
    """What it was measured on, in the paper's words."""
    source: str


GAIN_DATASETS = "LIVE, CSIQ, SPAQ, KonIQ"
GAINS = (
    Published("srcc", 0.3124, "+0.3124", GAIN_DATASETS, f"{PAPER}, abstract: mean gain over the baseline"),
    Published("plcc", 0.3507, "+0.3507", GAIN_DATASETS, f"{PAPER}, abstract: mean gain over the baseline"),
)
"""Mean gain of the two-stage model over the one-stage baseline (Q-Instruct)."""

INSTABILITY_DATASETS = "SPAQ+KonIQ"
INSTABILITY_BASELINE = Published("instability", 22.00, "22.00", INSTABILITY_DATASETS, f"{PAPER}, abstract")
INSTABILITY_TWO_STAGE = Published("instability", 12.39, "12.39", INSTABILITY_DATASETS, f"{PAPER}, abstract")
"""Prediction instability, percent, of the baseline and of the two-stage model."""
