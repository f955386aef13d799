"""The typed schema of a run: every option with its meaning and unit under it; nonsense is refused here, before anything is loaded.

conf/ holds the values, one file a choice. Nothing below the doors sees these classes: they are unpacked into named arguments.
"""

import hashlib
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from omegaconf import MISSING, OmegaConf

from biqa.errors import IncompatibleChoice


def config_directory() -> str:
    """Absolute folder of conf/: inside the package when installed from a wheel, beside it in a checkout."""
    installed = Path(__file__).parent / "conf"
    return str(installed if installed.is_dir() else Path(__file__).parents[1] / "conf")


def _refuse(problems: list[tuple[bool, str]]) -> None:
    """Raise one IncompatibleChoice with the text of every problem that holds: all at once, not the first only."""
    found = [text for holds, text in problems if holds]
    if found:
        raise IncompatibleChoice("\n".join(found))


def _pattern_problem(option: str, pattern: str | None) -> tuple[bool, str]:
    """Whether a regular expression cannot be read, and how to say so: an entry for `_refuse`."""
    try:
        re.compile(pattern or "")
    except re.error as error:
        return True, f"{option}={pattern} is no regular expression: {error}. Correct it."
    return False, ""


@dataclass
class Data:
    """Which images, and how they are split."""

    _target_: str = MISSING
    on_bad_image: str = "stop"
    """An image that is missing or does not decode: "stop" names it and ends; "skip" leaves it out, counted and listed."""

    def __post_init__(self) -> None:
        _refuse([(self.on_bad_image not in ("stop", "skip"), f"data.on_bad_image={self.on_bad_image} is not known: choose stop or skip.")])


@dataclass
class SyntheticData(Data):
    """Stand-in data made on the spot: distorted crops with the mean opinion of KADID-10k's observers (METHOD.md section 8)."""

    _target_: str = "biqa.data.synthetic.Synthetic"
    root: str = MISSING
    """Folder of the cache; generated once for each set of these values."""
    train: int = MISSING
    """Number of training images."""
    val: int = MISSING
    """Number of validation images."""
    test: int = MISSING
    """Number of test images."""
    crop: int = MISSING
    """Side of an image in pixels."""
    kinds: list[str] = MISSING
    """Distortion types, of KADID-10k's 25."""
    two_at_once: float = MISSING
    """Share of images with two distortions."""
    pristine: float = MISSING
    """Share of images without any distortion."""
    references: str | None = None
    """Folder of pristine photographs that replaces the built-in references; null: built-in."""
    seed: int = 0
    """Draws references, crops and distortions; apart from the seed of the run, so that runs share the data."""
    workers: int = 2
    """Processes that generate."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _refuse([(self.seed < 0, f"data.seed={self.seed}: choose 0 or more.")])


@dataclass
class OfficialData(Data):
    """A published data set in its official layout. What is said of each set stands in the docstring of its class in biqa/data/."""

    root: str = "${datasets}"
    """Its unpacked folder, or the folder that holds it."""
    protocol: str | None = None
    """Name of the split: "official", "reference", "prompt", "random" or "q-align", of which each set has some; null: the first of its class."""
    split_seed: int = 0
    """Draws the split where none is published; apart from the seed of the run."""
    val_share: float = MISSING
    """Share of all groups held out for validation (of an official split without one: of its training groups)."""
    test_share: float = MISSING
    """Share of all groups held out for test, where the split is drawn."""


@dataclass
class MixtureData(Data):
    """Several data sets to train on: `data=koniq+spaq`."""

    _target_: str = "biqa.loading.training_nodes"
    """What takes it apart; each part has a reader of its own."""
    parts: dict[str, Any] = field(default_factory=dict)
    """Choice -> its options, as in data.parts.koniq.protocol=random."""
    weights: dict[str, float] = field(default_factory=dict)
    """Choice -> how often an epoch shows each of its training images: 2 is twice, 0.5 every other one, drawn anew each epoch."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _refuse(
            [
                *((name not in self.parts, f"data.weights.{name}: there is no such part. Parts: {', '.join(self.parts)}.") for name in self.weights),
                *(
                    (not 0 < w < math.inf, f"data.weights.{name}={w}: choose a number above 0, or leave {name} out.")
                    for name, w in self.weights.items()
                ),
            ]
        )


@dataclass
class KoniqData(OfficialData):
    """KonIQ-10k."""

    _target_: str = "biqa.data.koniq.Koniq"
    scale: str = MISSING
    """Which of its scores: "acr" (mean of the votes 1..5) or "zscore"."""
    size: str | None = None
    """Folder of images, "1024x768" or "512x384"; null: the larger one that is there."""
    attributes: str | None = None
    """For descriptions=attributes: "indicators" (computed), "defects" (votes of KonIQ++) or "both"; null: the votes where they are there, else the
    indicators."""


@dataclass
class LiveData(OfficialData):
    """LIVE release 2."""

    _target_: str = "biqa.data.live.Live"
    version: str = MISSING
    """Which of its DMOS: "realigned" or "old"."""


@dataclass
class TableData(Data):
    """Any csv, tsv or jsonl with one row an image."""

    _target_: str = "biqa.data.table.Table"
    file: str = MISSING
    """The table."""
    root: str | None = None
    """Folder that the image column is relative to; null: the table's own folder."""
    name: str | None = None
    """Name of the data set; null: the file's name."""
    image: str = MISSING
    """Column of the image file."""
    score: str = MISSING
    """Column of the opinion score."""
    low: float = MISSING
    """Lower end of the score's scale."""
    high: float = MISSING
    """Upper end of the score's scale."""
    direction: str = MISSING
    """"mos" (higher is better) or "dmos" (higher is worse)."""
    std: str | None = None
    """Column of the opinions' standard deviation, on the score's scale."""
    split: str | None = None
    """Column of the split (train, val, test); null: random by group."""
    group: str | None = None
    """Column of what must stay on one side of a split (the reference); null: the image itself."""
    features: list[str] = field(default_factory=list)
    """Columns of annotated attributes, for descriptions=attributes."""
    split_seed: int = 0
    """Draws the random split; apart from the seed of the run."""
    val_share: float = MISSING
    """Share of all groups held out for validation, when there is no split column."""
    test_share: float = MISSING
    """Share of all groups held out for test, when there is no split column."""


@dataclass
class LabelsJsonData(Data):
    """Label files of Q-Align or DeQA-Score. The signs and defects of these files: docstring of biqa.data.labels_json."""

    _target_: str = "biqa.data.labels_json.LabelsJson"
    train: str = MISSING
    """Their training file."""
    test: str | None = None
    """Their test file; null: test images are drawn from the training file."""
    root: str = MISSING
    """Folder that the image names start from."""
    low: float = MISSING
    """Lower end of the scale of gt_score."""
    high: float = MISSING
    """Upper end of the scale of gt_score."""
    direction: str = MISSING
    """What gt_score is: "mos" (higher is better) or "dmos" (higher is worse)."""
    name: str | None = None
    """Name of the data set; null: the training file's name."""
    group: str | None = None
    """Regular expression: what it finds in a file name (the reference) stays on one side of a split; null: the image itself."""
    split_seed: int = 0
    """Draws validation images, and test images where there is no test file; apart from the seed of the run."""
    val_share: float = MISSING
    """Share of all groups held out for validation; with a test file, of the training groups."""
    test_share: float = MISSING
    """Share of all groups held out for test, where there is no test file."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _refuse([_pattern_problem("data.group", self.group)])


@dataclass
class Images:
    """How image files are read: at which size, and how they are looked at before a run: do they decode, and what is measured on them."""

    cache: str | None = MISSING
    """Folder that keeps what was found in a file until it changes, and its reduced copy: the next run need not look again. null: nothing is kept."""
    workers: int = MISSING
    """Processes that look."""
    shorter_side: int | None = None
    """Pixels: larger images are reduced to it, keeping their shape, and the copies kept in `cache` (without one: reduced at every reading, which is
    slow). null: as they are, which model=tiny needs: it reads the traces of compression, and reducing wipes them out."""

    def __post_init__(self) -> None:
        _refuse(
            [
                (self.workers < 1, f"images.workers={self.workers}: choose 1 or more."),
                (
                    self.shorter_side is not None and self.shorter_side < 16,
                    f"images.shorter_side={self.shorter_side}: choose 16 pixels or more, or null for images as they are.",
                ),
            ]
        )


@dataclass
class Descriptions:
    """Where the description targets of stage 1 come from (METHOD.md section 7)."""

    _target_: str = MISSING
    seed: int = 0
    """Draws the paraphrases."""

    def __post_init__(self) -> None:
        _refuse([(self.seed < 0, f"descriptions.seed={self.seed}: choose 0 or more.")])


@dataclass
class FileDescriptions(Descriptions):
    """Texts from a file."""

    file: str = MISSING
    """csv, jsonl or json list."""
    image: str = MISSING
    """Column or key of the image name."""
    description: str = MISSING
    """Column or key of the text."""


@dataclass
class DefectDescriptions(Descriptions):
    """One word an image for its main defect (LIQE's lists)."""

    file: str = MISSING
    """csv, jsonl or json list with columns or keys image and distortion."""
    measured: bool = MISSING
    """Whether descriptions name the six measurements of the pixels too."""


@dataclass
class ConversationDescriptions(Descriptions):
    """Answers from conversations about images (Q-Instruct, Q-Pathway, LLaVA, M3-AGIQA)."""

    file: str = MISSING
    """json list, or jsonl."""
    question: str | None = None
    """Regular expression of the questions whose answers count; null: any."""
    on_leak: str = MISSING
    """A sentence before the end that gives the answer away: "stop" refuses the text; "skip_sentence" drops the sentence, counted."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _refuse([_on_leak_problem(self.on_leak), _pattern_problem("descriptions.question", self.question)])


def _on_leak_problem(on_leak: str) -> tuple[bool, str]:
    return on_leak not in ("stop", "skip_sentence"), f"descriptions.on_leak={on_leak} is not known: choose stop or skip_sentence."


@dataclass
class WrittenDescriptions(Descriptions):
    """Texts that a teacher writes: another vision-language model, asked about each image once."""

    question: str = MISSING
    """What it is asked. Another question is asked about every image anew."""
    cache: str | None = MISSING
    """Folder in which every text is kept as soon as it is written, so that none is written, or paid for, twice."""
    on_leak: str = MISSING
    """A sentence that gives the answer away: "skip_sentence" drops it, counted; "stop" refuses the text."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _refuse(
            [
                (
                    self.cache is None,
                    "descriptions.cache=null: the texts of a teacher cost money or hours, so they must be kept. "
                    "Name a folder: descriptions.cache=FOLDER, or images.cache=FOLDER.",
                ),
                _on_leak_problem(self.on_leak),
            ]
        )


@dataclass
class Model:
    """Which backbone."""

    _target_: str = MISSING
    lr: float = MISSING
    """Peak learning rate that suits full tuning of these weights."""
    min_steps: int = 0
    """Optimiser steps that these weights need at least: on a small data set the epochs are more than the stage says. 0: as the stage says."""


@dataclass
class TinyModel(Model):
    """transformers' LLaVA class, small, from random weights."""

    _target_: str = "biqa.models.tiny.build_tiny"
    hidden: int = MISSING
    """Width of the decoder."""
    layers: int = MISSING
    """Layers of the decoder."""
    heads: int = MISSING
    """Attention heads of decoder and tower."""
    tower_hidden: int = MISSING
    """Width of the tower."""
    tower_layers: int = MISSING
    """Layers of the tower."""
    grid: int = MISSING
    """Cells a side that the image is divided into: grid x grid visual tokens."""
    vocabulary: int = MISSING
    """At most so many tokens."""
    attention: str = "eager"
    """Attention implementation of transformers. For sequences this short "eager" trains 1.6 times as fast as "sdpa" on a CPU."""

    def __post_init__(self) -> None:
        sizes = ("hidden", "layers", "heads", "tower_hidden", "tower_layers", "grid")
        _refuse([(getattr(self, name) < 1, f"model.{name}={getattr(self, name)}: choose 1 or more.") for name in sizes])
        _refuse(
            [
                (self.hidden % (2 * self.heads) != 0, f"model.hidden={self.hidden}: choose a multiple of {2 * self.heads} (2 x model.heads)."),
                (self.tower_hidden % self.heads != 0, f"model.tower_hidden={self.tower_hidden}: choose a multiple of {self.heads} (model.heads)."),
                (self.attention not in ("eager", "sdpa"), f"model.attention={self.attention} is not known: choose eager or sdpa."),
            ]
        )


@dataclass
class Owl2Model(Model):
    """mPLUG-Owl2. Not in this release: choosing it ends with a sentence that says so."""

    _target_: str = "biqa.models.families.unavailable"
    name: str = "owl2"
    """What was asked for."""


@dataclass
class TeacherDescriptions(WrittenDescriptions):
    """Texts of a model on this machine, decoded greedily."""

    seed: int = 0
    """Draws the random weights of a backbone that has no others."""
    run: str | None = None
    """Folder of a finished stage 1, whose model describes; null: `model`."""
    model: Any = None
    """A backbone as it is, chosen by model@descriptions.model=NAME; null: `run`."""
    max_new_tokens: int = MISSING
    """A description is cut there, and its unfinished sentence left out."""
    batch_size: int = MISSING
    """Images at a time."""

    def __post_init__(self) -> None:
        super().__post_init__()
        ways = "descriptions.run=FOLDER (a finished stage 1) or model@descriptions.model=NAME (a backbone as it is)"
        _refuse(
            [
                (self.run is None and self.model is None, f"descriptions=teacher: which model is the teacher? Name one: {ways}."),
                (isinstance(self.model, str), f"descriptions.model={self.model}: a backbone is a choice: model@descriptions.model={self.model}."),
                (self.run is not None and self.model is not None, f"descriptions=teacher: two teachers are named. Choose one: {ways}."),
                (self.max_new_tokens < 1, f"descriptions.max_new_tokens={self.max_new_tokens}: choose 1 or more."),
                (self.batch_size < 1, f"descriptions.batch_size={self.batch_size}: choose 1 or more."),
            ]
        )


@dataclass
class EndpointDescriptions(WrittenDescriptions):
    """Texts of a model behind an OpenAI-compatible server."""

    seed: int = 0
    """Another seed asks for another text about the same image, where the temperature is not 0."""
    url: str = MISSING
    """Address of its API, mostly ending in /v1."""
    model: str = MISSING
    """What the server calls the model."""
    key_env: str | None = MISSING
    """Environment variable that holds the key, which is sent to `url`; null: the server wants none. The key itself never stands in an option."""
    max_tokens: int | None = MISSING
    """An answer is cut there, and its unfinished sentence left out; null: the server's own limit."""
    temperature: float | None = MISSING
    """0: the likeliest words; null: the server's own, for models that allow no other."""
    extra: Any = None
    """Further fields of a request, as the server knows them: descriptions.extra={max_completion_tokens: 300}."""
    concurrency: int = MISSING
    """Images under way at a time."""
    retries: int = MISSING
    """So often an image is asked about again when the server is busy, fails or does not answer."""
    timeout: float = MISSING
    """Seconds without an answer."""
    max_side: int = MISSING
    """A larger image is scaled down to this longer side, in pixels."""

    def __post_init__(self) -> None:
        super().__post_init__()
        private = "@" in self.url or "?" in self.url  # and not to be repeated in a message
        _refuse(
            [
                (private, "descriptions.url= holds a user, a key or a query. Take it out; a key goes by the environment: descriptions.key_env=NAME."),
                (
                    not private and not self.url.startswith(("http://", "https://")),
                    f"descriptions.url={self.url}: an address begins with http:// or https://.",
                ),
                (
                    not private and self.url.rstrip("/").endswith("/chat/completions"),
                    f"descriptions.url={self.url}: leave /chat/completions out, it is added.",
                ),
                (self.max_tokens is not None and self.max_tokens < 1, f"descriptions.max_tokens={self.max_tokens}: choose 1 or more, or null."),
                (
                    self.temperature is not None and not 0 <= self.temperature < math.inf,
                    f"descriptions.temperature={self.temperature}: choose 0 or more, or null.",
                ),
                (
                    not isinstance(self.extra, dict | None),
                    f"descriptions.extra={self.extra}: give fields and values, as in descriptions.extra={{max_completion_tokens: 300}}.",
                ),
                (self.concurrency < 1, f"descriptions.concurrency={self.concurrency}: choose 1 or more."),
                (self.retries < 0, f"descriptions.retries={self.retries}: choose 0 or more."),
                (not 0 < self.timeout < math.inf, f"descriptions.timeout={self.timeout}: choose a number of seconds above 0."),
                (self.max_side < 1, f"descriptions.max_side={self.max_side}: choose 1 or more."),
            ]
        )


@dataclass
class Tuning:
    """Which weights learn, and how fast."""

    kind: str = MISSING
    """"full" or "lora"."""
    lr: float = MISSING
    """Peak learning rate."""
    weight_decay: float = MISSING
    """AdamW's, on weight matrices."""
    warmup: float = MISSING
    """Share of the steps over which the learning rate rises; it then falls along a cosine to zero."""
    rank: int = 0
    """LoRA: rank of the update."""
    alpha: int = 0
    """LoRA: the update is scaled by alpha / rank."""
    dropout: float = 0.0
    """LoRA: dropout on its input."""
    targets: str | None = None
    """LoRA: regular expression of the modules to adapt; null: every linear layer of the decoder."""
    freeze: str | None = None
    """Full: regular expression of the parameters that stay as they are; null: none."""

    def __post_init__(self) -> None:
        _refuse(
            [
                (self.kind not in ("full", "lora"), f"tuning.kind={self.kind} is not known: choose full or lora."),
                (self.kind == "lora" and self.rank < 1, f"tuning.rank={self.rank}: LoRA needs a rank of at least 1."),
                (not 0 < self.lr < math.inf, f"tuning.lr={self.lr}: choose a learning rate above 0."),
                (not 0 <= self.weight_decay < math.inf, f"tuning.weight_decay={self.weight_decay}: choose 0 or more."),
                (self.kind == "lora" and self.alpha < 1, f"tuning.alpha={self.alpha}: LoRA needs an alpha of at least 1."),
                (not 0 <= self.dropout < 1, f"tuning.dropout={self.dropout} is a share: choose a value in [0, 1)."),
                _pattern_problem("tuning.targets", self.targets),
                _pattern_problem("tuning.freeze", self.freeze),
                (not 0 <= self.warmup < 1, f"tuning.warmup={self.warmup} is a share of the steps: choose a value in [0, 1)."),
            ]
        )


@dataclass
class Stage:
    """What is learnt from what (METHOD.md section 3)."""

    _target_: str = MISSING
    epochs: int = MISSING
    """Passes over the training images; 0 trains nothing."""
    batch_size: int = MISSING
    """Images a step and device."""
    init_from: str | None = None
    """Run folder to start from; null: what the stage says (its stage 1, or the base weights); "base": the base weights."""

    def __post_init__(self) -> None:
        _refuse(
            [
                (self.epochs < 0, f"stage.epochs={self.epochs}: choose 0 or more."),
                (self.batch_size < 1, f"stage.batch_size={self.batch_size}: choose 1 or more."),
            ]
        )


@dataclass
class PerceptionStage(Stage):
    """Stage 1: image to description."""

    _target_: str = "biqa.stages.perception.Perception"


@dataclass
class VerdictStage(Stage):
    """A stage that ends in a level word."""

    target: str = MISSING
    """"hard": the level of the image's quality; "soft": a level distribution whose mean is the quality."""
    level_weight: float = MISSING
    """Weight of the level word's loss beside the mean loss of the other tokens."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _refuse(
            [
                (self.target not in ("hard", "soft"), f"stage.target={self.target} is not known: choose hard or soft."),
                (not 0 <= self.level_weight < math.inf, f"stage.level_weight={self.level_weight}: choose 0 or more."),
            ]
        )


@dataclass
class JointStage(VerdictStage):
    """One-stage tuning: image to description and level in one answer."""

    _target_: str = "biqa.stages.joint.Joint"


@dataclass
class ZeroShotStage(JointStage):
    """As joint, with nothing trained."""

    _target_: str = "biqa.stages.joint.ZeroShot"

    def __post_init__(self) -> None:
        super().__post_init__()
        _refuse([(self.epochs != 0, f"stage.epochs={self.epochs}: zero_shot trains nothing. Choose stage=joint to train.")])


@dataclass
class InferenceStage(VerdictStage):
    """Stage 2: description to level, from the text alone."""

    _target_: str = "biqa.stages.inference.Inference"
    descriptions: str = MISSING
    """What it trains on: "target" (annotated), "generated" (written by stage 1) or "mixed" (both)."""
    perception: str | None = None
    """Run folder of the stage 1 that describes the images; null: found by model, data and seed."""
    generated_per_image: int = MISSING
    """Generated descriptions of each training image: the greedy one first, then sampled ones."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _refuse(
            [
                (
                    self.descriptions not in ("target", "generated", "mixed"),
                    f"stage.descriptions={self.descriptions} is not known: choose target, generated or mixed.",
                ),
                (self.generated_per_image < 1, f"stage.generated_per_image={self.generated_per_image}: choose 1 or more."),
            ]
        )


@dataclass
class Sampling:
    """How often and how hot each image is asked (METHOD.md section 2)."""

    repeats: int = MISSING
    """N, sampled queries an image for instability; 0 measures accuracy only."""
    temperature: float = MISSING
    """T of the sampled queries."""
    top_p: float = MISSING
    """Nucleus of the sampled queries; 1 keeps the whole distribution."""
    max_new_tokens: int = MISSING
    """A description is cut there."""
    batch_size: int = MISSING
    """Images answered at a time, each with N + 1 queries (more where a step asks fewer)."""

    def __post_init__(self) -> None:
        _refuse(
            [
                (self.repeats < 0, f"sampling.repeats={self.repeats}: choose 2 or more, or 0 for accuracy alone."),
                (
                    self.repeats == 1,
                    "sampling.repeats=1: one answer cannot disagree with itself: it has no instability. Choose 2 or more, or 0 for accuracy alone.",
                ),
                (
                    self.repeats > 0 and self.temperature <= 0,
                    f"sampling.temperature={self.temperature}: greedy decoding repeats itself, its instability is 0 by construction. "
                    f"Choose a temperature above 0, or sampling.repeats=0 for accuracy alone.",
                ),
                (not self.temperature < math.inf, f"sampling.temperature={self.temperature}: choose a number such as 1.0."),
                (not 0 < self.top_p <= 1, f"sampling.top_p={self.top_p}: choose a value in (0, 1]."),
                (self.max_new_tokens < 1, f"sampling.max_new_tokens={self.max_new_tokens}: choose 1 or more."),
                (self.batch_size < 1, f"sampling.batch_size={self.batch_size}: choose 1 or more."),
            ]
        )


@dataclass
class Evaluation:
    """How the figures are computed."""

    resamples: int = MISSING
    """Bootstrap resamples behind each interval."""

    def __post_init__(self) -> None:
        _refuse([(self.resamples < 1, f"evaluation.resamples={self.resamples}: choose 1 or more.")])


PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
"""Lightning's words. Its "-true" ones for other types want to convert the batch, whose examples cannot change."""


@dataclass
class TrainerOptions:
    """Lightning's trainer."""

    accelerator: str = MISSING
    """"auto", "cpu", "gpu"."""
    devices: Any = MISSING
    """How many, which, or "auto"."""
    precision: str = MISSING
    """Lightning's word, one of PRECISIONS."""
    accumulate: int = MISSING
    """Batches a step."""
    clip: float = MISSING
    """Largest norm of the gradient."""
    checkpoint_steps: int = MISSING
    """Steps between resumable checkpoints; the end of every epoch is one too."""
    workers: int = MISSING
    """Processes that load images."""
    cache_mb: int = MISSING
    """Memory for prepared training images, in MB; the rest is prepared anew every epoch."""
    progress: bool = True
    """Progress bars."""

    def __post_init__(self) -> None:
        _refuse(
            [
                (self.precision not in PRECISIONS, f"trainer.precision={self.precision} is not known: choose {', '.join(PRECISIONS)}."),
                (self.accumulate < 1, f"trainer.accumulate={self.accumulate}: choose 1 or more."),
                (not self.clip >= 0, f"trainer.clip={self.clip}: choose 0 (no clipping) or more."),
                (self.checkpoint_steps < 1, f"trainer.checkpoint_steps={self.checkpoint_steps}: choose 1 or more."),
                (self.workers < 0, f"trainer.workers={self.workers}: choose 0 or more."),
                (self.cache_mb < 0, f"trainer.cache_mb={self.cache_mb}: choose 0 or more."),
            ]
        )


@dataclass
class Config:
    """One run."""

    name: str = MISSING
    """Folder of the run below `runs`; made of the choices."""
    runs: str = MISSING
    """Where runs lie."""
    seed: int = MISSING
    """Random weights, order of the images, sampled answers."""
    ckpt: str | None = None
    """"last": go on from the newest checkpoint of this run (from the start when there is none)."""
    overwrite: bool = False
    """Delete the run folder of that name first."""
    datasets: str = MISSING
    """Folder that holds the published data sets whose own root is not given."""
    data: Data = MISSING
    test: Any = None
    """Data sets to test on, choice -> options: `test=[live,csiq]`; null: the test split of what is trained on."""
    test_images: str = "auto"
    """Which images of a data set that is not trained on: "split" (its test split), "all", or "auto": the split where it is published, else all."""
    images: Images = MISSING
    descriptions: Descriptions = MISSING
    model: Model = MISSING
    stage: Stage = MISSING
    tuning: Tuning = MISSING
    strategy: Any = MISSING
    sampling: Sampling = MISSING
    evaluation: Evaluation = MISSING
    trainer: TrainerOptions = MISSING
    logger: Any = None

    def __post_init__(self) -> None:
        _refuse(
            [
                (self.ckpt not in (None, "last"), f"ckpt={self.ckpt} is not known: choose last, or leave it out."),
                (self.ckpt == "last" and self.overwrite, "ckpt=last goes on with a run and overwrite=true deletes it: choose one."),
                (
                    self.test_images not in ("auto", "split", "all"),
                    f"test_images={self.test_images} is not known: choose auto, split or all.",
                ),
                (not 0 <= self.seed < 2**32, f"seed={self.seed}: choose 0 or more, below 2^32."),
                (
                    self.name in (".", "..") or "/" in self.name or "\\" in self.name,
                    f"name={self.name} is no name of a folder: leave slashes and dots alone out of it. Where runs lie is runs=FOLDER.",
                ),
                *((text == "", f"{option}= is empty: give a value, or leave the option out.") for option, text in _words(self)),
            ]
        )


SCHEMAS: dict[str, type] = {
    "synthetic": SyntheticData,
    "official": OfficialData,
    "mixture": MixtureData,
    "koniq": KoniqData,
    "live": LiveData,
    "table": TableData,
    "labels_json": LabelsJsonData,
    "descriptions": Descriptions,
    "file": FileDescriptions,
    "defects": DefectDescriptions,
    "conversations": ConversationDescriptions,
    "teacher": TeacherDescriptions,
    "endpoint": EndpointDescriptions,
    "tiny": TinyModel,
    "owl2": Owl2Model,
    "tuning": Tuning,
    "perception": PerceptionStage,
    "inference": InferenceStage,
    "joint": JointStage,
    "zero_shot": ZeroShotStage,
    "sampling": Sampling,
    "evaluation": Evaluation,
    "trainer": TrainerOptions,
}
"""Name -> schema of a choice: what the first line of each YAML's defaults list refers to as `/schema/<name>@_here_`."""


def _groups(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:  # noqa: ANN401 (whatever options hold)
    """The config and each group of options in it, with what stands before the names of its options: "", "stage.", "test.live."."""
    if isinstance(group, dict):
        inner = group
    elif is_dataclass(group):
        yield prefix, group
        inner = vars(group)
    else:
        return
    for name, value in inner.items():
        yield from _groups(value, f"{prefix}{name}.")


def _words(config: Config) -> Iterator[tuple[str, str]]:
    """Dotted name and value of every option that holds a text."""
    return ((f"{prefix}{name}", value) for prefix, group in _groups(config) for name, value in vars(group).items() if isinstance(value, str))


def unknown_options(config: Config) -> list[str]:
    """Dotted names of options that no schema knows, as `+stage.epoch=3` makes them."""
    return [f"{prefix}{name}" for prefix, group in _groups(config) for name in vars(group) if name not in {field.name for field in fields(group)}]


PLACE = re.compile(r"(data|data\.parts\.\w+|test\.\w+)\.(root|file|workers)|descriptions\.(cache|url|key_env|batch_size|concurrency|retries|timeout)")
"""Options that say where the images of a data set lie and how many processes make them, not which they are, and where a teacher is asked and how
fast: they tell no run from another."""


def variant(overrides: str) -> str:
    """The part of a run's name that tells it from its siblings: its own overrides, shortened to a hash when long.

    `stage.epochs=3,stage.target=hard` -> `-stage.epochs-3_stage.target-hard`; nothing -> nothing. No "=" and no ",": a run's folder is a value of
    `stage.init_from=`, where Hydra would take them for its own.
    """
    chosen = [override for override in re.split(r",(?=[+~]*[\w./@]+=)", overrides) if not PLACE.fullmatch(override.partition("=")[0])]
    overrides = ",".join(chosen)
    if not overrides:
        return ""
    readable = re.sub(r"[^\w.+-]", "_", overrides.replace("=", "-"))
    return "-" + (readable if len(readable) <= 80 else hashlib.sha256(overrides.encode()).hexdigest()[:8])


def register() -> None:
    """Make schemas, resolver and combined choices known to Hydra. Called by the doors before they compose."""
    from hydra.core.config_store import ConfigStore

    from biqa import combined

    combined.register(config_directory())
    OmegaConf.register_new_resolver("variant", variant, replace=True)
    store = ConfigStore.instance()
    store.store(name="run", node=Config, provider="biqa")
    for name, node in SCHEMAS.items():
        store.store(group="schema", name=name, node=node, provider="biqa")
