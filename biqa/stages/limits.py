"""When the machine is not enough: a full disk or none, no memory, and what was being done when memory ran out."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from traceback import extract_tb
from typing import Any, cast

import lightning as L
from torch import Tensor

from biqa.data.collate import Batch
from biqa.data.images import image_of
from biqa.data.module import Item
from biqa.errors import MachineLimit, OutOfMemory, UserError, WorkerDied
from biqa.files import disk_limit
from biqa.models.vlm import VLM

WORKER_DIED = re.compile(
    r"DataLoader worker \(pid.*?(?:killed by signal: (\w[\w ]*)|exited unexpectedly)|Pin memory thread exited|unable to \w+ .*</torch_"
)
"""How torch says that a process which loads images is gone, or that there is no shared memory for it."""
WORKER_SAID = re.compile(r"Caught (\w+) in DataLoader worker process.*^biqa\.errors\.\1: (.*)", re.DOTALL | re.MULTILINE)
"""How torch says what such a process has raised: with its stack trace before it."""
NO_MEMORY = re.compile(r"out of memory|can't allocate memory|CUBLAS_STATUS_ALLOC_FAILED")
"""How torch says it on CUDA and on the CPU."""
GO_ON = "the same command with ckpt=last goes on"
"""With a run, once the disk takes files."""


def memory_error(error: BaseException) -> bool:
    """Whether memory ran out: the GPU's, or the host's where the allocator says so (the kernel may kill the process instead)."""
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and NO_MEMORY.search(str(error)) is not None)


def size_of(value: object) -> int:
    """Bytes of all tensors in nested mappings and sequences."""
    if isinstance(value, Tensor):
        return value.nelement() * value.element_size()
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return sum(map(size_of, inner))


def out_of_memory(error: BaseException) -> OutOfMemory:
    """The error to raise when memory ran out. `BatchInMemory` has noted on `error` what was in it, when that was a batch."""
    said = next((line for line in str(error).splitlines() if NO_MEMORY.search(line)), str(error).splitlines()[0] if str(error) else "MemoryError")
    notes = getattr(error, "__notes__", None) or [
        "Before the first batch: the weights take more than there is. What helps: quantization=nf4 with tuning=lora, model.dtype=bfloat16, "
        "or a smaller model."
    ]
    return OutOfMemory(f"Out of memory ({said[:200]}).\n" + "\n".join(notes))


def cut_off(error: Exception) -> bool:
    """Whether a process that loads images was gone before it had handed over a batch that it had told of."""
    return isinstance(error, ConnectionError | EOFError) and any(
        frame.filename.endswith("dataloader.py") for frame in extract_tb(error.__traceback__)
    )


def worker_died(signal: str | None, then: str) -> WorkerDied:
    """The error to raise when a process that loads or makes images is gone.

    Args:
        signal: what killed it, in torch's words; None: not known.
        then: what to do.
    """
    killed = f"A process that loads images was killed{f' ({signal})' if signal else ''}."
    return WorkerDied(
        f"{killed} Was there too little memory, or shared memory (df -h /dev/shm; in a container: docker run --ipc=host)? What helps: a smaller "
        f"trainer.workers, trainer.cache_mb or images.workers. {then[:1].upper()}{then[1:]}."
    )


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
    """Raise `NoDiskSpace`, `DiskFault`, `OutOfMemory` or `WorkerDied` in place of what libraries raise then; of what a process that loads
    images has found, the message alone.

    Args:
        folder: where files are written.
        then: what to do once there is room.
    """
    try:
        yield
    except MachineLimit:
        raise
    except UserError as error:
        if said := WORKER_SAID.search(str(error)):
            raise type(error)(said[2]) from error
        raise
    except Exception as error:
        died = WORKER_DIED.search(str(error))
        if died or isinstance(error, BrokenProcessPool) or cut_off(error):
            raise worker_died(died[1] if died else None, then) from error
        if limit := disk_limit(error, folder, then):
            raise limit from error
        if memory_error(error):
            raise out_of_memory(error) from error
        raise
