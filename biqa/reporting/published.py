"""What the paper and others published, as data, so that a table can set it beside ours.

The paper's tables by data set, how often and how hot it asked, and its formula of instability are not known to us.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

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


ACCURACY_SETS = ("live", "csiq", "spaq", "koniq")
"""Our names of the data sets that the paper's mean gain is taken over."""
GAIN_DATASETS = "LIVE, CSIQ, SPAQ, KonIQ"
GAINS = (
    Published("srcc", 0.3124, "+0.3124", GAIN_DATASETS, f"{PAPER}, abstract: mean gain over the baseline"),
    Published("plcc", 0.3507, "+0.3507", GAIN_DATASETS, f"{PAPER}, abstract: mean gain over the baseline"),
)
"""Mean gain of the two-stage model over the one-stage baseline (Q-Instruct)."""

INSTABILITY_SETS = ("spaq", "koniq")
"""Our names of the data sets that the paper's instability is taken over."""
INSTABILITY_DATASETS = "SPAQ+KonIQ"
INSTABILITY_BASELINE = Published("instability", 22.00, "22.00", INSTABILITY_DATASETS, f"{PAPER}, abstract")
INSTABILITY_TWO_STAGE = Published("instability", 12.39, "12.39", INSTABILITY_DATASETS, f"{PAPER}, abstract")
"""Prediction instability, percent, of the baseline and of the two-stage model."""


Fit = Literal["raw", "logistic", "not said"]
"""What was done to scores before Pearson's correlation was taken: nothing, the 4-parameter logistic fit, or the source does not say."""


@dataclass(frozen=True)
class Peer:
    """One published row of another system."""

    name: str
    trained_on: str
    fit: Fit
    source: str
    """Where the figures stand, and what is odd about them."""
    figures: Mapping[str, tuple[str, str]]
    """Our name of a data set -> (SRCC, PLCC) as printed."""


Q_INSTRUCT = "Q-Instruct paper, table 6; the images of Q-Instruct are 49 % of KonIQ's and 95 % of SPAQ's"
DEQA_3, DEQA_4 = "DeQA-Score paper, table 3", "DeQA-Score paper, table 4"
RELIQS = "ReLIQS paper, table 2"
Q_REALIGN = "Q-ReAlign, README"

PEERS = (
    Peer("mPLUG-Owl2", "nothing (zero-shot)", "raw", Q_INSTRUCT, {
        "koniq": (".196", ".252"), "spaq": (".589", ".614"), "livec": (".293", ".342"), "agiqa": (".473", ".492"), "kadid": (".541", ".546"),
    }),
    Peer("mPLUG-Owl2 + Q-Instruct (mix)", "Q-Instruct", "raw", Q_INSTRUCT, {
        "koniq": (".899", ".916"), "spaq": (".899", ".903"), "livec": (".829", ".822"), "agiqa": (".743", ".806"), "kadid": (".698", ".676"),
    }),
    Peer("mPLUG-Owl2 + Q-Instruct (after)", "Q-Instruct", "raw", Q_INSTRUCT, {
        "koniq": (".911", ".921"), "spaq": (".901", ".898"), "livec": (".842", ".840"), "agiqa": (".700", ".763"), "kadid": (".682", ".683"),
    }),
    Peer("Q-Instruct + OneAlign (preview)", "Q-Instruct and OneAlign's data", "not said", "Q-Instruct, model_zoo/README.md", {
        "koniq": (".944", ".953"), "spaq": (".940", ".940"), "kadid": (".917", ".918"), "csiq": (".869", ".891"), "live": (".893", ".862"),
        "livec": (".866", ".877"), "agiqa": (".787", ".840"),
    }),
    Peer("Q-Align", "KonIQ", "logistic", DEQA_3, {
        "koniq": (".940", ".941"), "spaq": (".887", ".886"), "kadid": (".684", ".674"), "livec": (".860", ".853"), "agiqa": (".735", ".772"),
        "csiq": (".737", ".785"),
    }),
    Peer("DeQA-Score", "KonIQ", "logistic", DEQA_3, {
        "koniq": (".941", ".953"), "spaq": (".896", ".895"), "kadid": (".687", ".694"), "livec": (".879", ".892"), "agiqa": (".729", ".809"),
        "csiq": (".744", ".787"),
    }),
    Peer("Q-Align", "KonIQ, SPAQ, KADID", "logistic", DEQA_4, {
        "koniq": (".938", ".945"), "spaq": (".931", ".933"), "kadid": (".934", ".935"), "livec": (".883", ".887"), "agiqa": (".733", ".788"),
        "csiq": (".845", ".876"),
    }),
    Peer("DeQA-Score", "KonIQ, SPAQ, KADID", "logistic", DEQA_4, {
        "koniq": (".944", ".957"), "spaq": (".934", ".938"), "kadid": (".953", ".955"), "livec": (".887", ".900"), "agiqa": (".745", ".808"),
        "csiq": (".857", ".900"),
    }),
    Peer("Q-Insight (released)", "KonIQ", "not said", "Q-Insight paper, tables 1 and 3, as later papers quote them", {
        "koniq": (".916", ".933"), "spaq": (".905", ".907"), "kadid": (".736", ".742"), "livec": (".865", ".893"), "agiqa": (".764", ".811"),
        "csiq": (".824", ".870"),
    }),
    Peer("VisualQuality-R1", "KonIQ", "not said", "as quoted by RALI, table 2; Zoom-IQA quotes other figures of it (KonIQ .896 / .910)", {
        "koniq": (".908", ".923"), "spaq": (".892", ".891"), "kadid": (".711", ".712"), "livec": (".849", ".874"), "agiqa": (".767", ".822"),
        "csiq": (".662", ".712"),
    }),
    Peer("MR-IQA (Qwen3-VL-2B)", "KonIQ", "raw", "MR-IQA, README", {
        "koniq": (".931", ".949"), "spaq": (".897", ".892"), "kadid": (".683", ".672"), "livec": (".883", ".899"), "agiqa": (".732", ".804"),
        "csiq": (".732", ".767"),
    }),
    Peer("MR-IQA-2", "KonIQ", "raw", "MR-IQA-2, README", {
        "koniq": (".917", ".937"), "spaq": (".899", ".900"), "kadid": (".669", ".667"), "livec": (".863", ".893"), "agiqa": (".739", ".809"),
        "csiq": (".785", ".824"),
    }),
    Peer("Q-Align", "six data sets, LIVE and CSIQ among them", "not said", RELIQS, {
        "koniq": (".935", ".934"), "csiq": (".915", ".936"), "live": (".913", ".919"),
    }),
    Peer("LIQE", "six data sets, LIVE and CSIQ among them", "not said", RELIQS, {"csiq": (".936", ".939"), "live": (".970", ".951")}),
    Peer("Q-ReAlign Pro", "sets without LIVE", "not said", Q_REALIGN, {
        "koniq": (".950", ".952"), "spaq": (".935", ".937"), "kadid": (".934", ".939"), "live": (".902", ".876"),
    }),
    Peer("HyperIQA (no language)", "KonIQ", "not said", "as later papers quote it (DeQA-Score, Q-Insight, RALI)", {
        "koniq": (".906", ".917"), "spaq": (".788", ".791"), "kadid": (".468", ".506"), "livec": (".749", ".772"), "agiqa": (".640", ".702"),
        "csiq": (".717", ".752"),
    }),
    Peer("MUSIQ (no language)", "KonIQ", "not said", "as later papers quote it (DeQA-Score, Q-Insight, RALI)", {
        "koniq": (".929", ".924"), "spaq": (".863", ".868"), "kadid": (".556", ".575"), "livec": (".830", ".789"), "agiqa": (".630", ".722"),
        "csiq": (".710", ".771"),
    }),
)  # fmt: skip
"""Published rows, those of papers as others quote them where the source says so. Splits and images differ between them; each was tested as its
source says, and the same model's row differs between papers."""
