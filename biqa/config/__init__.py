"""The typed schema of a run: every option with its meaning and unit under it; nonsense is refused here, before anything is loaded.

conf/ holds the values, one file a choice. Nothing below the doors sees these classes: they are unpacked into named arguments.
"""

import hashlib
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from biqa.config.answers import Answers, VllmAnswers, answers_problems
from biqa.config.checks import MISSING, refuse
from biqa.config.data import Data, Images, KoniqData, LabelsJsonData, LiveData, MixtureData, OfficialData, SyntheticData, TableData
from biqa.config.descriptions import (
    ConversationDescriptions,
    DefectDescriptions,
    Descriptions,
    EndpointDescriptions,
    FileDescriptions,
    TeacherDescriptions,
)
from biqa.config.identity import PLACE
from biqa.config.model import HfModel, Model, Owl2Model, TinyModel
from biqa.config.stage import Evaluation, InferenceStage, JointStage, PerceptionStage, ProbeStage, Sampling, Scorer, Stage, ZeroShotStage
from biqa.config.strategy import Strategy, devices_asked, strategy_problems
from biqa.config.trainer import TrainerOptions
from biqa.config.tuning import Export, Quantization, Tuning, tuning_problems


def config_directory() -> str:
    """Absolute folder of conf/: inside the package when installed from a wheel, beside it in a checkout."""
    package = Path(__file__).parents[1]
    return str(package / "conf" if (package / "conf").is_dir() else package.parent / "conf")


@dataclass
class Config:
    """One run."""

    name: str = MISSING
    """Folder of the run below `runs`; made of the choices."""
    label: str | None = None
    """What the name of the run says beside the choices and options that were typed; an experiment (`experiment=`) has its own there."""
    runs: str = MISSING
    """Where runs lie."""
    seed: int = MISSING
    """Random weights, order of the images, sampled answers."""
    ckpt: str | None = None
    """"last": go on from the newest checkpoint of this run (from the start when there is none)."""
    overwrite: bool = False
    """Delete the run folder of that name first."""
    dry_run: bool = False
    """Train nothing and write no run: check all, show an example as the loss sees it, estimate time, memory and disk from some steps and answers."""
    estimate: str | None = None
    """File for the estimate of a dry run, as JSON (`biqa.reporting.estimate`); it makes the run a dry one."""
    datasets: str = MISSING
    """Folder that holds the published data sets whose own root is not given."""
    data: Data = MISSING
    test: Any = None
    """Data sets to test on, choice -> options: `test=[live,csiq]`; null: the test split of what is trained on."""
    test_images: str = "auto"
    """Which images of a data set that is not trained on: "split" (its test split), "all", or "auto": the split where it is published, else all."""
    overlap: str = "stop"
    """A test picture that is learnt from, pixel for pixel, under whatever name, in whatever data set or earlier run: "stop" ends before anything is
    learnt; "note" goes on, and every table says so."""
    images: Images = MISSING
    descriptions: Descriptions = MISSING
    model: Model = MISSING
    stage: Stage = MISSING
    tuning: Tuning = MISSING
    quantization: Quantization = MISSING
    strategy: Strategy = MISSING
    sampling: Sampling = MISSING
    answers: Answers = MISSING
    scorer: Scorer = MISSING
    evaluation: Evaluation = MISSING
    trainer: TrainerOptions = MISSING
    export: Export = MISSING
    logger: Any = None

    def __post_init__(self) -> None:
        refuse(
            [
                (self.ckpt not in (None, "last"), f"ckpt={self.ckpt} is not known: choose last, or leave it out."),
                (self.ckpt == "last" and self.overwrite, "ckpt=last goes on with a run and overwrite=true deletes it: choose one."),
                (
                    self.test_images not in ("auto", "split", "all"),
                    f"test_images={self.test_images} is not known: choose auto, split or all.",
                ),
                (self.overlap not in ("stop", "note"), f"overlap={self.overlap} is not known: choose stop or note."),
                (not 0 <= self.seed < 2**32, f"seed={self.seed}: choose 0 or more, below 2^32."),
                (
                    self.name in (".", "..") or "/" in self.name or "\\" in self.name,
                    f"name={self.name} is no name of a folder: leave slashes and dots alone out of it. Where runs lie is runs=FOLDER.",
                ),
                (
                    self.sampling.compile and self.strategy.kind not in ("auto", "ddp"),
                    f"sampling.compile=true does not go with strategy={self.strategy.kind}, which divides the weights: choose strategy=ddp, "
                    f"or sampling.compile=false.",
                ),
                *strategy_problems(
                    kind=self.strategy.kind,
                    devices=devices_asked(self.trainer.devices, None),
                    nodes=self.trainer.nodes,
                    accelerator=self.trainer.accelerator,
                    precision=self.trainer.precision,
                    quantization=self.quantization.kind,
                ),
                *answers_problems(
                    engine=self.answers.engine,
                    checkpoint=isinstance(self.model, HfModel),
                    asks=not isinstance(self.stage, ProbeStage),
                    quantization=self.quantization.kind,
                    strategy=self.strategy.kind,
                    devices=self.trainer.devices,
                    processes=(devices_asked(self.trainer.devices, None) or 1) * self.trainer.nodes,
                    carried=self.tuning.kind == "full" or isinstance(self.stage, InferenceStage) or not (self.tuning.projector or self.tuning.tower),
                    rank=self.tuning.rank if self.tuning.kind == "lora" else 0,
                    merge=self.export.merge,
                    compiled=self.sampling.compile,
                    temperature=self.sampling.temperature if self.sampling.repeats else 0.0,
                ),
                *tuning_problems(
                    tuning=self.tuning.kind,
                    frozen=self.tuning.frozen,
                    quantization=self.quantization.kind,
                    learns=self.stage.epochs > 0,
                    text_alone=isinstance(self.stage, InferenceStage),
                    merge=self.export.merge,
                    no_use=[] if self.tuning.projector_learns else self.tuning.of_projector,
                    started_twice=self.tuning.projector_start == "words" and self.stage.init_from not in (None, "base"),
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
    "hf": HfModel,
    "tuning": Tuning,
    "quantization": Quantization,
    "strategy": Strategy,
    "perception": PerceptionStage,
    "inference": InferenceStage,
    "joint": JointStage,
    "zero_shot": ZeroShotStage,
    "probe": ProbeStage,
    "sampling": Sampling,
    "answers": Answers,
    "vllm": VllmAnswers,
    "scorer": Scorer,
    "evaluation": Evaluation,
    "trainer": TrainerOptions,
}
"""Name -> schema of a choice: what the first line of each YAML's defaults list refers to as `/schema/<name>@_here_`."""


def choice_of(target: str) -> str:
    """What a choice is called whose options have this `_target_`: its schema's name, or its module's where several data sets have one schema."""
    named = (name for name, node in SCHEMAS.items() if getattr(node, "_target_", None) == target)
    return next(named, target.rpartition(".")[0].rpartition(".")[2] or target)


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


def unknown_options(config: Any) -> list[str]:  # noqa: ANN401 (the config of any door)
    """Dotted names of options that no schema knows, as `+stage.epoch=3` makes them."""
    return [f"{prefix}{name}" for prefix, group in _groups(config) for name in vars(group) if name not in {field.name for field in fields(group)}]


def variant(overrides: str, label: str | None = None) -> str:
    """The part of a run's name that tells it from its siblings: its label, and its own overrides, shortened to a hash when long.

    `stage.epochs=3,stage.target=hard` -> `-stage.epochs-3_stage.target-hard`; nothing -> nothing. No "=" and no ",": a run's folder is a value of
    `stage.init_from=`, where Hydra would take them for its own.
    """
    first = "" if label is None else f"-{label}"
    chosen = [override for override in re.split(r",(?=[+~]*[\w./@]+=)", overrides) if not PLACE.fullmatch(override.partition("=")[0])]
    overrides = ",".join(chosen)
    if not overrides:
        return first
    readable = re.sub(r"[^\w.+-]", "_", overrides.replace("=", "-"))
    return f"{first}-" + (readable if len(readable) <= 80 else hashlib.sha256(overrides.encode()).hexdigest()[:8])


def gpus(accelerator: str, devices: Any, where: str = "there") -> int:  # noqa: ANN401 (a number, a list or a word)
    """GPUs that a launcher asks for one machine of a run: none with trainer.accelerator=cpu, else trainer.devices.

    With `trainer.accelerator=auto` a job of a cluster (`where="there"`) asks for GPUs, and one on this machine (`"here"`) where it has one.
    """
    has_one = where == "there" or any(Path("/dev").glob("nvidia[0-9]*"))
    if accelerator == "cpu" or (accelerator == "auto" and not has_one):
        return 0
    return devices if isinstance(devices, int) else len(devices) if not isinstance(devices, str) else int(devices) if devices.isdigit() else 1


def register() -> None:
    """Make schemas, resolvers and combined choices known to Hydra. Called by the doors before they compose, and by a run in a job of a launcher."""
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    from biqa.config import combined

    # each checks ours against the plugin's own of that name, which is what is wanted; Hydra announces for 1.2 what 1.3 has not done
    warnings.filterwarnings("ignore", message="\\s*'hydra/launcher/\\w+' is validated against ConfigStore schema with the same name")
    combined.register()
    OmegaConf.register_new_resolver("variant", variant, replace=True)
    OmegaConf.register_new_resolver("gpus", gpus, replace=True)
    store = ConfigStore.instance()
    if "schema" in store.repo:  # a second call: a run in this process
        return
    store.store(name="run", node=Config, provider="biqa")
    for name, node in SCHEMAS.items():
        store.store(group="schema", name=name, node=node, provider="biqa")
