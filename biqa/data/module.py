"""Items to batches: the LightningDataModule of every stage, with an order of the images that survives a kill."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from biqa.data.collate import Batch, Encoded, collate
from biqa.data.record import Record
from biqa.data.shares import even_share, share
from biqa.errors import IncompatibleChoice

WINDOW = 50
"""Batches whose items are put together by length: enough that a batch has items of one length, and few enough that chance decides who learns when."""
AHEAD = 4
"""Batches that each process which loads images prepares ahead."""


@dataclass(frozen=True)
class Item:
    """One image with what is said about it."""

    record: Record
    descriptions: tuple[str, ...]
    """Training: the one description to learn or to read. Answering in stage 2: one for each query."""


class ShuffledBatches(Sampler[list[int]]):
    """Batches of indices in a seeded order of their own for each epoch, which can start anywhere in an epoch.

    Args:
        weights: of each item, how often an epoch shows it, above 0. A fraction is the part of the items of that weight that is drawn, anew for
            each epoch: 0.5 shows every other one, 2.5 all twice and half of them a third time.
        batch_size: items a batch; the last batch may be smaller.
        seed: draws the orders.
        rank: of this process among `world`, which share every batch: it has `world` times `batch_size` items. `~index` stands for an item that is
            not counted, for a process that would have none of the last batch.
        lengths: of each item. Where they are given, items of similar length come in one batch, among those that the order has near each other.
    """

    def __init__(  # noqa: PLR0917 (in the order in which they matter)
        self, weights: Sequence[float], batch_size: int, seed: int, rank: int = 0, world: int = 1, lengths: Sequence[int] | None = None
    ) -> None:
        self.shares = _shares(weights)
        self.lengths = lengths
        self.size = items_an_epoch(weights)
        """Items an epoch."""
        self.batch_size = batch_size * world
        """Items a batch of all processes."""
        self.seed = seed
        self.rank = rank
        self.world = world
        self.epoch = 0
        self.start = 0
        """Batches of this epoch to leave out: those a checkpoint has seen."""

    def __len__(self) -> int:
        return math.ceil(self.size / self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        shown = self._shown(generator)
        order = [shown[place] for place in torch.randperm(self.size, generator=generator).tolist()]
        first, self.start = self.start, 0
        self.epoch += 1
        for batch in self._batches(order, generator)[first:]:
            yield _mine(batch, self.rank, self.world)

    def _batches(self, order: list[int], generator: torch.Generator) -> list[list[int]]:
        """The order in pieces. By length: within each window, whose batches then come in an order of chance; a smaller last batch is as it falls."""
        if self.lengths is None:
            return self._pieces(order)
        whole = len(order) // self.batch_size * self.batch_size
        batches: list[list[int]] = []
        for start in range(0, whole, WINDOW * self.batch_size):
            window = self._pieces(sorted(order[start : min(start + WINDOW * self.batch_size, whole)], key=self.lengths.__getitem__))
            batches += [window[place] for place in torch.randperm(len(window), generator=generator).tolist()]
        return batches + self._pieces(order[whole:])

    def _pieces(self, order: list[int]) -> list[list[int]]:
        return [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]

    def _shown(self, generator: torch.Generator) -> list[int]:
        """What this epoch shows, not yet in order."""
        shown: list[int] = []
        for members, whole, part in self.shares:
            drawn = torch.randperm(len(members), generator=generator)[:part].tolist() if part else []
            shown += [*members * whole, *(members[place] for place in drawn)]
        return shown


def _mine(batch: Sequence[int], rank: int, world: int) -> list[int]:
    """What this process takes of a batch: its share, or an item that is not counted."""
    return share(batch, rank, world) or [~batch[0]]


def _shares(weights: Sequence[float]) -> list[tuple[list[int], int, int]]:
    """For each weight that occurs: the items that have it, how often each is shown at least, and how many of them once more."""
    members: dict[float, list[int]] = {}
    for item, weight in enumerate(weights):
        members.setdefault(weight, []).append(item)
    return [(items, int(weight), round(len(items) * (weight - int(weight)))) for weight, items in members.items()]


def items_an_epoch(weights: Sequence[float]) -> int:
    """How many items `ShuffledBatches` shows in an epoch."""
    return sum(len(members) * whole + part for members, whole, part in _shares(weights))


class EncodedItems(Dataset[Encoded]):
    """Items encoded on demand; what fits into `cache_mb` stays in memory (images as float16), the rest is encoded anew.

    Args:
        items: what to encode.
        encode: from an item to an example.
        cache_mb: memory for encoded examples, in MB; 0 keeps none.
    """

    def __init__(self, items: Sequence[Item], encode: Callable[[Item], Encoded], cache_mb: int) -> None:
        self.items = items
        self.encode = encode
        self.room = cache_mb * 2**20
        self.kept: dict[int, Encoded] = {}

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Encoded:
        if index < 0:
            return replace(self[~index], counted=False)
        if index in self.kept:
            return self.kept[index]
        example = self.encode(self.items[index])
        # half precision always, kept or not: what the model sees must not depend on the room in the cache
        small = replace(example, image=halved(example.image))
        size = kept_bytes(small)
        if size <= self.room:
            self.room -= size
            self.kept[index] = small
        return small


def kept_bytes(example: Encoded) -> int:
    """What an example takes in memory that is kept there, as `EncodedItems` gives it: features lie on disk."""
    pixels = sum(value.nbytes for name, value in example.image.items() if name.startswith("pixel"))
    return pixels + 8 * (len(example.prompt) + len(example.answer))


def halved(image: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Pixels in half precision, which is finer than an 8-bit picture; what a model has made of them stays as it is."""
    return {name: value.half() if name.startswith("pixel") and value.is_floating_point() else value for name, value in image.items()}


class DataModule(L.LightningDataModule):
    """Batches for one stage.

    Args:
        train: training items, `val` validation items; either may be empty when it is not needed.
        weights: how often an epoch shows each training item (`ShuffledBatches`); None: once.
        predict: items to answer; a batch is a list of them.
        encode: how the stage turns an item into an example.
        pad_id: token that fills short rows.
        batch_size: items a training step and device, `predict_batch_size` items answered at a time.
        seed: draws the order of the training items.
        workers: processes that load images.
        cache_mb: memory for encoded training examples.
        pack: whether texts without images share rows (`biqa.data.collate`).
        length: of a training item, in whatever unit: a batch then has items of similar length. None: chance alone puts them together.
        rank: of this process among `world`, which share every batch and the items to answer.
    """

    def __init__(
        self,
        *,
        train: Sequence[Item],
        val: Sequence[Item],
        predict: Sequence[Item],
        weights: Sequence[float] | None = None,
        encode: Callable[[Item], Encoded],
        pad_id: int,
        batch_size: int,
        predict_batch_size: int,
        seed: int,
        workers: int,
        cache_mb: int,
        pack: bool = False,
        length: Callable[[Item], int] | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        super().__init__()
        self.train = EncodedItems(train, encode, cache_mb)
        self.val = EncodedItems(val, encode, cache_mb)
        self.rank = rank
        self.world = world
        self.predict = even_share(predict, rank, world)
        self.collate = partial(collate, pad_id=pad_id, pack=pack)
        self.batch_size = batch_size
        self.predict_batch_size = predict_batch_size
        lengths = None if length is None else [length(item) for item in train]
        self.batches = ShuffledBatches([1.0] * len(train) if weights is None else weights, batch_size, seed, rank, world, lengths)
        self.workers = workers

    def train_dataloader(self) -> DataLoader[Any]:
        """Every training item once an epoch, in a seeded order."""
        ahead: dict[str, Any] = {"persistent_workers": True, "prefetch_factor": AHEAD} if self.workers else {}
        return DataLoader(
            self.train, batch_sampler=self.batches, collate_fn=self.collate, num_workers=self.workers, pin_memory=self._on_gpu(), **ahead
        )

    def val_dataloader(self) -> DataLoader[Any]:
        """Every validation item once, in order."""
        items, size = range(len(self.val)), self.batch_size * self.world
        batches = [_mine(items[start : start + size], self.rank, self.world) for start in range(0, len(items), size)]
        return DataLoader(self.val, batch_sampler=batches, collate_fn=self.collate, num_workers=0, pin_memory=self._on_gpu())

    def predict_dataloader(self) -> DataLoader[Any]:
        """This process's items to answer, in order; a batch is a list of items."""
        return DataLoader(self.predict, batch_size=self.predict_batch_size, collate_fn=list, num_workers=0)  # pyright: ignore[reportArgumentType]

    def transfer_batch_to_device(self, batch: Batch | list[Item], device: torch.device, dataloader_idx: int) -> Batch | list[Item]:
        """Training batches move as a whole, while the device is at work on others; items to answer are read on the host."""
        return batch.to(device, non_blocking=True) if isinstance(batch, Batch) else batch

    def images_of(self, epoch: int, batch: int) -> list[str]:
        """Names of the images of this process's training batch of that number, from 0, in an epoch."""
        order = copy(self.batches)
        order.epoch, order.start = epoch, 0
        return [self.train.items[place].record.image for place in next(islice(order, batch, None)) if place >= 0]

    def _on_gpu(self) -> bool:
        """Whether batches go to a GPU, which reads pinned memory by itself."""
        return self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"

    def state_dict(self) -> dict[str, int]:
        """Where in which epoch training stands; Lightning stores it in every checkpoint."""
        assert self.trainer is not None
        loop = self.trainer.fit_loop
        epochs: Any = loop.epoch_progress.current  # Lightning's annotations leave out `processed` and `started`
        batches: Any = loop.epoch_loop.batch_progress.current
        done = batches.processed % len(self.batches)
        return {"epoch": epochs.processed if done == 0 else epochs.started - 1, "start": done, "batch": self.batches.batch_size}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Go on there.

        Raises:
            IncompatibleChoice: a step has another number of images now, as with another number of devices.
        """
        before, now = state_dict.get("batch", self.batches.batch_size), self.batches.batch_size
        if before != now:
            raise IncompatibleChoice(
                f"The checkpoint is of a run with {before} images a step over all devices; here they are {now}. "
                f"Go on with as many devices as before (trainer.devices, trainer.nodes), or start again with overwrite=true."
            )
        self.batches.epoch, self.batches.start = state_dict["epoch"], state_dict["start"]
