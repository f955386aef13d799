"""The door: compose -> check -> build -> fit -> answer -> evaluate -> result.json.

python -m biqa.run stage=1 model=tiny
python -m biqa.run -m stage=1,2 seed=0,1
python -m biqa.run --help
"""

import sys

from biqa.doors.help import show_help

if __name__ == "__main__":
    show_help("config", sys.argv[1:])

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from biqa import config as schema
from biqa.doors.opening import open_door, refuse_unknown, user_errors
from biqa.doors.sweeps import in_order
from biqa.running.alone import alone
from biqa.running.launching import launch
from biqa.running.processes import Waits, joined, placed, processes_wanted, refuse_alone, refuse_other_number
from biqa.running.room import refuse_checkpoint_without_room
from biqa.running.stopping import goes_on_here, signals, stoppable
from biqa.running.training import logged
from biqa.runs import RunFolder, plain

STAGE_NUMBERS = {"1": "perception", "2": "inference"}
MAY_BE_NULL = ("logger", "sweep")


def numbers_to_words(arguments: list[str]) -> list[str]:
    """`stage=1,2` -> `stage=perception,inference`: a choice of a config group must be a word for Hydra.

    `test=[live,csiq]` -> `test=live+csiq`: so is the choice of several data sets called (`biqa.config.combined`).
    `logger=null` -> `~logger`, as Hydra has it. Other numbers and nulls become quoted words, so that Hydra answers with its list of choices.
    """

    def words(match: re.Match[str]) -> str:
        if match[1] in MAY_BE_NULL and match[2] == "null":
            return f"~{match[1]}"
        numbers = STAGE_NUMBERS if match[1] == "stage" else {}
        choices = [numbers.get(choice, f"'{choice}'" if choice.isdigit() or choice == "null" else choice) for choice in match[2].split(",")]
        return f"{match[1]}={','.join(choices)}"

    groups = "|".join(path.name for path in Path(schema.config_directory()).iterdir() if path.is_dir())
    lists = [
        re.sub(r"\[([\w+,\s]*)\]", lambda names: re.sub(r"\s*,\s*", "+", names[1].strip()), a) if a.startswith("test=") else a for a in arguments
    ]
    return [re.sub(rf"^({groups})=([\w,]+)$", words, argument) for argument in lists]


@hydra.main(version_base="1.3", config_path=schema.config_directory(), config_name="config")
@user_errors
def main(composed: DictConfig) -> float | None:
    """One run. Returns the SRCC of its first data set, for sweepers that want an objective."""
    schema.register()  # again in a job of a launcher, which gets this function alone
    OmegaConf.resolve(composed)
    OmegaConf.set_readonly(composed, True)
    config = OmegaConf.to_object(composed)
    assert isinstance(config, schema.Config)
    refuse_unknown(schema.unknown_options(config), composed)
    choices = {group: str(choice) for group, choice in HydraConfig.get().runtime.choices.items() if "/" not in group}
    return run(config, composed, choices)


def run(config: schema.Config, composed: DictConfig, choices: Mapping[str, str]) -> float | None:
    """Everything after the config is known to be sound: as one process, which may start others, or as one of those that torchrun or srun started."""
    if config.dry_run or config.estimate:
        from biqa.planning.dry_run import dry_run

        return dry_run(config, composed, choices, processes=lambda: processes_of(config)[0] * config.trainer.nodes)
    if not placed(os.environ):
        refuse_alone(config.trainer.nodes)
        return finish(config, composed, choices, decide=lambda work: work())

    from biqa.stages.together import from_first

    devices, gpus = processes_of(config)
    refuse_other_number(os.environ, devices, config.trainer.nodes)
    with joined(gpus=gpus, waits=waits_of(config)):
        return finish(config, composed, choices, decide=from_first)


def finish(config: schema.Config, composed: DictConfig, choices: Mapping[str, str], decide: Callable[[Callable[[], Any]], Any]) -> float | None:
    """Train and measure unless that is done already, then print the result. `decide` gives all processes what one of them finds."""
    from rich.console import Console

    from biqa.reporting.result import read_result, render_result

    folder = RunFolder(Path(config.runs) / config.name)
    if goes_on_here(folder.path):
        config = replace(config, ckpt="last", overwrite=False)

    def finished() -> bool:
        return folder.open(plain(OmegaConf.to_container(composed)), resume=config.ckpt == "last", overwrite=config.overwrite)

    there = decide(finished)
    if not there:
        decide(lambda: refuse_checkpoint_without_room(config, folder))
    if not there or config.export.merge:
        with alone(folder, decide):
            if not there and not decide(finished):  # again: another run may have begun it, or ended it, before the folder was locked
                work(config, composed, choices, folder)
            if config.export.merge:
                decide(lambda: export(config, composed, folder))
    if there:
        print(f"{folder.path} is finished already; its result follows. Add overwrite=true to run it again.")
    result = decide(lambda: read_result(folder.result))
    Console().print(render_result(result))
    first = next(iter(result["metrics"].values()))
    return first["srcc"]["value"] if "srcc" in first else None


def work(config: schema.Config, composed: DictConfig, choices: Mapping[str, str], folder: RunFolder) -> None:
    """Train and measure, here or in processes that are started here."""
    devices, gpus = processes_of(config)
    start_here = not placed(os.environ) and (devices > 1 or config.strategy.kind.startswith("deepspeed"))
    with stoppable(folder, signals(config.trainer.requeue_signal)):
        if start_here:
            launch(devices, logged, config, composed, choices, folder, gpus=gpus, waits=waits_of(config))
        else:
            logged(config, composed, choices, folder)


def export(config: schema.Config, composed: DictConfig, folder: RunFolder) -> None:
    """`merged/` of a finished run that has none yet, with its card."""
    from biqa.reporting.card import CARD, write_cards

    if (folder.merged / CARD).is_file():
        return
    from biqa.reporting.result import read_result
    from biqa.running.building import merge, quiet
    from biqa.stages.limits import limits_in_words

    quiet()
    text_alone = isinstance(config.stage, schema.InferenceStage)
    with limits_in_words(folder.path):
        write_cards(folder.path, read_result(folder.result), merge(composed, folder, vision=not text_alone))
    kind = "AutoModelForCausalLM" if text_alone else "AutoModelForImageTextToText"
    print(f"{folder.merged}: base and adapter as one model, for transformers' {kind}.from_pretrained.")


def waits_of(config: schema.Config) -> Waits:
    """How long its processes wait for one another."""
    return Waits(step=config.strategy.timeout, first=config.strategy.first_timeout, still=config.strategy.still)


def processes_of(config: schema.Config) -> tuple[int, bool]:
    """How many processes this machine needs, and whether they use GPUs."""
    return processes_wanted(
        kind=config.strategy.kind, devices=config.trainer.devices, nodes=config.trainer.nodes, accelerator=config.trainer.accelerator,
        precision=config.trainer.precision, quantization=config.quantization.kind,
    )  # fmt: skip


if __name__ == "__main__":
    schema.register()
    for arguments in in_order(numbers_to_words(sys.argv[1:]), Path(schema.config_directory())):
        sys.argv[1:] = arguments
        open_door(main)
