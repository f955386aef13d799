"""Options of the description sources."""

import math
from dataclasses import dataclass
from typing import Any

from biqa.config.checks import MISSING, pattern_problem, refuse


@dataclass
class Descriptions:
    """Where the description targets of stage 1 come from (METHOD.md section 7)."""

    _target_: str = MISSING
    seed: int = 0
    """Draws the paraphrases."""

    def __post_init__(self) -> None:
        refuse([(self.seed < 0, f"descriptions.seed={self.seed}: choose 0 or more.")])


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
        refuse([_on_leak_problem(self.on_leak), pattern_problem("descriptions.question", self.question)])


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
        refuse(
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
class TeacherDescriptions(WrittenDescriptions):
    """Texts of a model on this machine, decoded greedily."""

    seed: int = 0
    """Draws the random weights of a backbone that has no others."""
    run: str | None = None
    """Folder of a finished stage 1, whose model describes; null: `model`."""
    model: Any = None
    """A backbone as it is, chosen by model@descriptions.model=NAME; null: `run`."""
    quantization: Any = None
    """How that backbone is packed, chosen by quantization@descriptions.quantization=NAME. A run has its own."""
    max_new_tokens: int = MISSING
    """A description is cut there, and its unfinished sentence left out."""
    batch_size: int = MISSING
    """Images at a time."""

    def __post_init__(self) -> None:
        super().__post_init__()
        ways = "descriptions.run=FOLDER (a finished stage 1) or model@descriptions.model=NAME (a backbone as it is)"
        refuse(
            [
                (self.run is None and self.model is None, f"descriptions=teacher: which model is the teacher? Name one: {ways}."),
                (isinstance(self.model, str), f"descriptions.model={self.model}: a backbone is a choice: model@descriptions.model={self.model}."),
                (
                    self.run is not None and getattr(self.quantization, "kind", "none") != "none",
                    "descriptions.quantization= with descriptions.run=: a run is packed as it was when it learnt. Leave it out.",
                ),
                (
                    isinstance(self.quantization, str),
                    f"descriptions.quantization={self.quantization} is a choice: quantization@descriptions.quantization={self.quantization}.",
                ),
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
        refuse(
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
