"""What a run must write at least, by arithmetic, so that one that cannot fit is refused before it trains: `dry_run=true` finds out more, in minutes.

Nothing is measured, and nothing is counted that might not be written: weights and checkpoints have the sizes of their tensors to a few kilobytes,
answers are counted by their numbers alone. A run that is refused cannot fit; one that is let through may still fill the disk, by descriptions, logs,
or what others write there meanwhile.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from biqa import config as schema
from biqa.config.stage import VerdictStage
from biqa.errors import NoDiskSpace
from biqa.files import free_for
from biqa.runs import RunFolder

if TYPE_CHECKING:
    from biqa.models.vlm import VLM

KEPT = 2
"""Checkpoints that stay; another one is written beside them."""
STATES = 3
"""Of each number that learns, a checkpoint holds the number and both of AdamW's averages."""
OF_AN_ANSWER = 48
"""Bytes of the numbers of an answer that parquet cannot make smaller: five probabilities and the score."""
NUMBER = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Bytes."""


def refuse_checkpoint_without_room(config: schema.Config, folder: RunFolder) -> None:
    """The same before a checkpoint is loaded, by the headers of its files: loading may take minutes. One on the hub that is not here is let through.

    Raises:
        NoDiskSpace: what full tuning writes of it does not fit.
    """
    place = Path(getattr(config.model, "id", None) or getattr(config.model, "path", None) or "")
    text_alone = isinstance(config.stage, schema.InferenceStage)
    if not place.name or not place.is_dir() or config.tuning.kind != "full" or text_alone or not config.stage.epochs:
        return
    numbers = sum(map(numbers_in, place.glob("*.safetensors")))
    each = NUMBER.get(getattr(config.model, "dtype", ""), min(NUMBER.values()))
    refuse_no_room(folder, {"weights": numbers * each})


def numbers_in(file: Path) -> int:
    """How many numbers a file of weights holds, by its header; 0 where it has none."""
    try:
        with file.open("rb") as opened:
            header = json.loads(opened.read(int.from_bytes(opened.read(8), "little")))
        return sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, MemoryError):  # loading it says what is wrong
        return 0


def refuse_model_without_room(config: schema.Config, folder: RunFolder, vlm: "VLM", *, answers: int = 0) -> None:
    """Check that a run that is built fits onto its disk. What its folder holds already counts as free: it is a part of what will be written, or goes.

    Args:
        config: the whole config.
        folder: of the run.
        vlm: with the weights that will learn.
        answers: rows of all answers tables; 0: not known yet.

    Raises:
        NoDiskSpace: it does not.
    """
    from biqa.models.adapters import merged_bytes, written_bytes

    written = {"answers": OF_AN_ANSWER * answers} if isinstance(config.stage, VerdictStage) else {}
    if config.stage.epochs:
        each = STATES * sum(weight.nbytes for weight in vlm.backbone.parameters() if weight.requires_grad)
        saved = config.stage.epochs  # at least: one at the end of each epoch
        # while the last checkpoint is written there is no weight yet, and when they are, it is one of two
        weights = written_bytes(vlm) + (merged_bytes(vlm) if config.export.merge else 0)
        beside = max(min(saved, KEPT + 1) * each - min(saved, KEPT) * each, weights)
        written = {"checkpoints": min(saved, KEPT) * each, "weights or one more checkpoint": beside, **written}
    refuse_no_room(folder, written)


def refuse_no_room(folder: RunFolder, written: Mapping[str, int]) -> None:
    """Check that what will be written fits onto the disk of a run.

    Args:
        folder: of the run.
        written: what -> bytes.

    Raises:
        NoDiskSpace: it does not; the message names the folder, what is needed and what is free.
    """
    needed, free = sum(written.values()), free_for(folder.path)
    if needed > free:
        parts = ", ".join(f"{name} {size / 2**20:,.1f} MB" for name, size in written.items() if size)
        raise NoDiskSpace(
            f"{folder.path} cannot be written: it takes at least {needed} bytes ({parts}), and {free} bytes ({free / 2**20:,.1f} MB) are free there. "
            f"Nothing was written. Make room, choose another runs=FOLDER, or tuning=lora, which writes far less."
        )
