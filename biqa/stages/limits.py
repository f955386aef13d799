"""When the machine is not enough: which errors mean a full disk or no memory, and what was being done when memory ran out."""

import errno
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from shutil import disk_usage
from typing import Any, cast

import lightning as L
from torch import Tensor

from biqa.data.collate import Batch
from biqa.data.images import image_of
from biqa.data.module import Item
from biqa.errors import MachineLimit, NoDiskSpace, OutOfMemory
from biqa.models.vlm import VLM

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""No space, no quota, or a file larger than `ulimit -f` allows."""
FULL_IN_WORDS = re.compile(r"os error (\d+)")
"""How safetensors says it."""
NO_MEMORY = re.compile(r"out of memory|can't allocate memory|CUBLAS_STATUS_ALLOC_FAILED")
"""How torch says it on CUDA and on the CPU."""
GO_ON = "the same command with ckpt=last goes on"
"""With a run, once there is room on the disk."""


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and those that it came from: torch's writer raises one of its own when the file below it fails."""
    inner: BaseException | None = error
    while inner is not None:
        yield inner
        inner = inner.__cause__ or inner.__context__


def disk_error(error: BaseException) -> str | None:
    """The system's words for a full disk when that is what went wrong, else None."""
    for inner in _chain(error):
        said = FULL_IN_WORDS.search(str(inner))
        number = inner.errno if isinstance(inner, OSError) else int(said[1]) if said else None
        if number in FULL:
            return (getattr(inner, "strerror", None) or str(inner)).splitlines()[0]
    return None


def memory_error(error: BaseException) -> bool:
    """Whether memory ran out: the GPU's, or the host's where the allocator says so (the kernel may kill the process instead)."""
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and NO_MEMORY.search(str(error)) is not None)


def size_of(value: object) -> int:
    """Bytes of all tensors in nested mappings and sequences."""
    if isinstance(value, Tensor):
        return value.nelement() * value.element_size()
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return sum(map(size_of, inner))


def no_disk_space(path: Path, reason: str, needed: int | None = None, then: str = GO_ON) -> NoDiskSpace:
    """The error to raise when `path` could not be written.

    Args:
        path: the file, or the folder where it would lie.
        reason: the system's words.
        needed: its size in bytes, where that is known.
        then: what to do once there is room.
    """
    place = next(folder for folder in (path, *path.parents) if folder.is_dir())
    free = disk_usage(place).free
    size = f"it takes about {needed} bytes ({needed / 2**20:.1f} MB), " if needed else ""
    return NoDiskSpace(
        f"{path} cannot be written: {reason}. {size[:1].upper()}{size[1:]}{free} bytes ({free / 2**20:.1f} MB) are free there. "
        f"What was written before is whole. Make room, and {then}."
    )


def out_of_memory(error: BaseException) -> OutOfMemory:
    """The error to raise when memory ran out. `BatchInMemory` has noted on `error` what was in it, when that was a batch."""
    said = next((line for line in str(error).splitlines() if NO_MEMORY.search(line)), str(error).splitlines()[0] if str(error) else "MemoryError")
    notes = getattr(error, "__notes__", None) or [
        "Before the first batch: the weights take more than there is. What helps: quantization=nf4 with tuning=lora, model.dtype=bfloat16, "
        "or a smaller model."
    ]
    return OutOfMemory(f"Out of memory ({said[:200]}).\n" + "\n".join(notes))


class BatchInMemory(L.Callback):
    """Notes on an error of memory what the batch was, and which options make it smaller."""

    def __init__(self) -> None:
        self.note: Callable[[], str] = str
        """Says it; nothing before the first batch."""

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch, batch_idx: int) -> None:
        """Keep the shapes of a batch to learn from."""
        self.note = partial(str, f"Training, after step {trainer.global_step}: {_learned(batch, cast(VLM, pl_module.vlm))}")

    def on_validation_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Keep the shapes of a batch to validate on."""
        self.note = partial(str, f"Validating, after step {trainer.global_step}: {_learned(batch, cast(VLM, pl_module.vlm))}")

    def on_predict_batch_start(
        self,
        trainer: L.Trainer,
        pl_module: Any,  # noqa: ANN401 (a stage)
        batch: list[Any],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep what is asked."""
        self.note = partial(_answered, batch, pl_module)  # not said yet: it reads an image

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Add the note."""
        if memory_error(exception) and (note := self.note()):
            exception.add_note(note)


def _answered(items: Sequence[Item], stage: Any) -> str:  # noqa: ANN401 (a stage)
    if stage.engine is not None:
        return "Answering with vLLM. What helps: a smaller answers.gpu_memory_utilization or sampling.batch_size, with which ckpt=last goes on."
    prompt = stage.image_prompt(items[0], "") if stage.vlm.vision else None
    seen = f", {_image(prompt.image)}, {stage.vlm.visual_tokens(prompt)} visual tokens an image" if prompt else ", text alone"
    size = "{} x {} pixels".format(*image_of(items[0].record).size) if prompt else ""
    return (
        f"Answering: {len(items)} images{f' (the first has {size})' if size else ''} with {stage.repeats + 1} queries each{seen}, "
        f"answers of up to {stage.max_new_tokens} tokens. What helps: a smaller sampling.batch_size, with which ckpt=last goes on; "
        f"fewer visual tokens or smaller images (model.visual_tokens, images.shorter_side); quantization=nf4."
    )


def _image(image: Mapping[str, Tensor]) -> str:
    """The tower's inputs as a shape: `pixel_values 8 x 3 x 336 x 336`."""
    return ", ".join(f"{name} {' x '.join(map(str, value.shape))}" for name, value in image.items() if value.is_floating_point())


def _learned(batch: Batch, vlm: VLM) -> str:
    length = batch.input_ids.shape[1]
    visual = max(example.prompt.count(vlm.image_token_id) for example in batch.examples) if batch.image else 0
    seen = f"{_image(batch.image)}, {visual} visual tokens an image" if batch.image else "text alone"
    return (
        f"a batch of {len(batch.examples)} (stage.batch_size), {seen}, {length} tokens of image and text a row. "
        f"What helps: trainer.checkpoint_activations=true, with which ckpt=last goes on; a smaller stage.batch_size with a larger "
        f"trainer.accumulate (their product is what a step learns from); "
        f"fewer visual tokens or smaller images (model.visual_tokens, images.shorter_side), or quantization=nf4 with tuning=lora: these "
        f"are other runs, which begin anew."
    )


@contextmanager
def limits_in_words(folder: Path, then: str = GO_ON) -> Iterator[None]:
    """Raise `NoDiskSpace` or `OutOfMemory` in place of what libraries raise then.

    Args:
        folder: where files are written.
        then: what to do once there is room.
    """
    try:
        yield
    except MachineLimit:
        raise
    except Exception as error:
        if reason := disk_error(error):
            named = getattr(error, "filename", None)
            raise no_disk_space(Path(named) if isinstance(named, str) else folder, reason, then=then) from error
        if memory_error(error):
            raise out_of_memory(error) from error
        raise
