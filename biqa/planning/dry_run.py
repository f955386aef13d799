"""`dry_run=true`: a run up to where it would begin, an example as the loss sees it, and what the whole run would take.

Nothing is written below `runs`. What a run refuses is refused, in the same words.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from biqa import config as schema
from biqa.errors import IncompatibleChoice, NoDiskSpace
from biqa.files import nearest_folder
from biqa.planning.rehearsal import Rehearsal
from biqa.reporting.estimate import Estimate, amount, render_estimate, write_estimate
from biqa.running.processes import placed
from biqa.running.training import cost_of_images
from biqa.runs import RunFolder, plain

if TYPE_CHECKING:
    from biqa.data.module import Item
    from biqa.stages.base import StageModule


def dry_run(config: schema.Config, composed: DictConfig, choices: Mapping[str, str], processes: Callable[[], int]) -> None:
    """Check, show, measure, and say what the run would take; with `estimate` also in a file.

    Args:
        config: the whole config; `composed` as Hydra has it; `choices` as typed.
        processes: among how many the run would be divided. Asked when its folder is known to be free.

    Raises:
        UserError: the run would be refused.
        MachineLimit: memory was not enough, or the disk will not be.
    """
    from rich.console import Console

    if placed(os.environ):
        raise IncompatibleChoice(
            "dry_run=true is one process, which estimates for all: start it without torchrun or srun, with the same trainer.devices."
        )
    if config.estimate is not None:
        refuse_no_file(Path(config.estimate))
    folder = RunFolder(Path(config.runs) / config.name)
    finished = folder.open(plain(OmegaConf.to_container(composed)), resume=config.ckpt == "last", overwrite=config.overwrite)
    if folder.config.is_file() and not config.overwrite:
        print(f"{folder.path} is {'finished' if finished else 'begun'} already. What follows is of making it from its start.")
    estimate = replace(rehearsed(config, composed, choices, processes(), folder), finished=finished)
    Console().print(render_estimate(estimate))
    if config.estimate is not None:
        write_estimate(estimate, Path(config.estimate))
    if estimate.disk_bytes > estimate.free_bytes["runs"]:
        raise NoDiskSpace(
            f"{folder.path} takes about {amount(estimate.disk_bytes)}, and {amount(estimate.free_bytes['runs'])} are free there. "
            f"Make room, or choose another runs=FOLDER."
        )


def refuse_no_file(file: Path) -> None:
    """Check that a file can be written.

    Raises:
        IncompatibleChoice: it cannot.
    """
    place = nearest_folder(file.absolute().parent)
    if file.is_dir() or not os.access(place, os.W_OK):
        raise IncompatibleChoice(f"estimate={file}: {'that is a folder' if file.is_dir() else f'you may not write in {place}'}. Name another file.")


def rehearsed(config: schema.Config, composed: DictConfig, choices: Mapping[str, str], processes: int, folder: RunFolder) -> Estimate:
    """What the run would take, with what it learns from shown on the way. Random numbers are drawn afterwards as if nothing had been."""
    from lightning.pytorch.utilities.seed import isolate_rng

    from biqa.stages.limits import limits_in_words, memory_error

    with limits_in_words(folder.path, then="the same command begins anew"), isolate_rng():
        try:
            return shown_and_measured(Rehearsal.of(config, composed, choices, processes, folder))
        except Exception as error:
            if processes > 1 and memory_error(error):
                error.add_note(f"A dry run holds in one process what strategy={config.strategy.kind} may divide among {processes}: the run may fit.")
            raise


def shown_and_measured(rehearsal: Rehearsal) -> Estimate:
    """Everything, in the order of a run."""
    from biqa.models.learning import learning_summary

    for name, counts in rehearsal.images().items():
        left_out = f", {counts['skipped']} left out as unusable" if counts["skipped"] else ""
        print(f"{name}: {counts['train']} images to learn from, {counts['val']} to validate on, {counts['test']} to answer{left_out}")
    train, val, test = rehearsal.items()
    stage = rehearsal.stage()
    if stage.vlm.vision:
        print(cost_of_images(stage, [*train, *(item for items in test.values() for item in items)][:8]))
    epochs, steps = rehearsal.length
    if epochs:
        print(f"{learning_summary(stage.vlm)}\n{epochs} epochs, {steps} steps")
        examples = rehearsal.first_examples(stage, train)
        batches_a_step = rehearsal.config.trainer.accumulate * rehearsal.processes
        show_example(stage, examples[0], batch=rehearsal.config.stage.batch_size, batches_a_step=batches_a_step)
        rehearsal.fit(stage, examples, val)
    else:
        show_question(stage, next(iter(test.values()))[0])
    rehearsal.answer(stage, train, test)
    return rehearsal.concluded()


def show_example(stage: "StageModule", item: "Item", *, batch: int, batches_a_step: int) -> None:
    """Print the first example that is learnt; a batch has so many of them, and a step so many batches, those of all processes."""
    from rich.console import Console
    from rich.text import Text

    from biqa.data.collate import collate
    from biqa.reporting.shown_example import example_of, render_example

    console = Console()
    shown = example_of(stage.vlm, collate([stage.encode(item)], stage.vlm.pad_id))
    title = f"{item.record.image} of {item.record.dataset}, q = {item.record.q:.3f},"
    colour = console.is_terminal and not console.no_color
    console.print()
    console.print(render_example(shown, title=title, target=getattr(stage, "target", ""), weight=stage.level_weight, colour=colour))
    console.print(Text(f"A batch has {batch} examples, a step {batch * batches_a_step}.\n"))


def show_question(stage: "StageModule", item: "Item") -> None:
    """Print what is asked where nothing is learnt by steps."""
    from biqa.reporting.shown_example import prompt_text

    if stage.learns_without_steps:
        print("No words are learnt or asked for: a ridge regression on what the tower makes of the images.")
        return
    prompt = stage.question(item)
    print(
        f"Nothing is learnt. Asked of {item.record.image} of {item.record.dataset}, {len(prompt.ids)} tokens:\n{prompt_text(stage.vlm, prompt.ids)}\n"
    )
