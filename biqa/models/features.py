"""What a frozen tower and projector make of images, kept on disk: computed once for all epochs, repeats, stages and runs.

A shelf is a folder of safetensors files that belong to one tower, projector and image processor. They are mapped into memory, so an image that is
looked up costs no copy and no decoding. Files are written whole or not at all, several processes may write side by side, and all of it may be deleted
at any time: what is missing is computed again. Nothing is used before its checksum has been compared.
"""

import errno
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4
from zlib import crc32

import PIL
import torch
import transformers
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from biqa.models.budget import in_gb
from biqa.models.sharding import whole
from biqa.models.vlm import VLM

FORMAT = "biqa features 1"
"""A change of what is kept raises it, so that no old file is taken for a new one."""
PART = 64 * 2**20
"""Bytes after which a file is written: what a kill costs at most."""
SHELF, FILE = re.compile(r"[0-9a-f]{24}"), re.compile(r"[0-9a-f]{32}")
"""What folders and files are called here. Others are not touched."""
ABANDONED = 86_400.0
"""Seconds after which a file under a temporary name is one that a kill has left behind."""
OF_TEXT = ("text_config", "quantization_config", "_name_or_path", "transformers_version", "dtype")
"""Entries of a model's config that say nothing about how it sees; types of weights are asked of the weights."""


@dataclass(frozen=True)
class Seen:
    """One image as the decoder is given it."""

    image: dict[str, Tensor]
    """As `VLM.features` gives it."""
    placeholder: str
    """What stands for the image in the question's text."""

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(value.nbytes for value in self.image.values())

    @property
    def check(self) -> int:
        """Checksum of all of it."""
        found = crc32(self.placeholder.encode())
        for part, value in sorted(self.image.items()):
            found = crc32(_bytes(value), crc32(f"{part} {value.dtype} {tuple(value.shape)}".encode(), found))
        return found


@dataclass(frozen=True)
class _Place:
    """Where an image's features lie."""

    file: Path
    opened: Any
    """Handle of the mapped file."""
    size: int
    """Bytes of the file when it was mapped."""
    parts: tuple[str, ...]
    placeholder: str
    check: int


class FeatureStore:
    """Features of images by a name for their content.

    Args:
        folder: of all shelves.
        shelf: name of this one, such as `shelf_of` gives.
        most_gb: all shelves together take no more. The files that were not used for longest go first.

    Attributes:
        left_out: files that are damaged, or are none of this shelf.
    """

    def __init__(self, folder: Path, shelf: str, most_gb: float) -> None:
        self.folder = folder
        self.shelf = folder / shelf
        self.most_gb = most_gb
        self.left_out: list[str] = []
        self._files: set[Path] = set()
        self._where: dict[str, _Place] = {}
        self._sound: dict[str, Seen] = {}
        self._unwritten: dict[str, Seen] = {}
        self._waiting = 0
        self._written: list[Path] = []

    def missing(self, names: Collection[str]) -> list[str]:
        """Those of some images that are not there, or not sound, with what other processes have written by now. The others are marked as used."""
        self._look()
        for name in names:
            self._check(name)
        for file in {place.file for name in names if (place := self._where.get(name))}:
            with suppress(OSError):
                os.utime(file)
        return [name for name in names if name not in self._sound and name not in self._unwritten]

    def __getitem__(self, name: str) -> Seen:
        """Features of an image that is not `missing`."""
        return self._unwritten[name] if name in self._unwritten else self._sound[name]

    def absent(self, names: Collection[str]) -> list[str]:
        """Those of some images that no file says to hold. Nothing is read beyond that."""
        self._look()
        return [name for name in names if name not in self._where and name not in self._unwritten]

    def _look(self) -> None:
        for file in sorted(self.shelf.glob("*.safetensors")):
            if file not in self._files:
                self._open(file)

    def _open(self, file: Path) -> None:
        self._files.add(file)
        try:
            size, opened = file.stat().st_size, safe_open(file, "pt")
            told = opened.metadata() or {}
            if (told.get("format"), told.get("shelf")) != (FORMAT, self.shelf.name):
                raise ValueError("of another program, or shelf")
            placeholders = json.loads(told["placeholders"])
            places = {
                name: _Place(file, opened, size, tuple(parts), placeholders[number], check)
                for name, (parts, number, check) in json.loads(told["images"]).items()
            }
        except FileNotFoundError:  # deleted meanwhile
            return
        except (SafetensorError, OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
            self._put_aside(file)
        else:
            self._where |= places

    def _check(self, name: str) -> None:
        """Read an image for the first time, if it is there."""
        place = self._where.get(name)
        if place is None or name in self._sound:
            return
        try:
            if _shrunk(place):  # a mapped file must not be read beyond its end
                raise ValueError("cut off")
            seen = Seen({part: place.opened.get_tensor(f"{name}/{part}") for part in place.parts}, place.placeholder)
            if seen.check != place.check:
                raise ValueError("damaged")
        except (SafetensorError, OSError, ValueError, TypeError, AttributeError):
            self._put_aside(place.file)
        else:
            self._sound[name] = seen

    def _put_aside(self, file: Path) -> None:
        """Make nothing of a file any more, and delete it where it bears a name of ours."""
        self.left_out.append(file.name)
        for name in [name for name, place in self._where.items() if place.file == file]:
            del self._where[name]
            self._sound.pop(name, None)
        if FILE.fullmatch(file.stem):
            with suppress(OSError):
                file.unlink()

    def add(self, name: str, seen: Seen) -> None:
        """Keep an image; it is on disk after `flush`, or once enough have come together.

        Raises:
            OSError: there is no room for it, or the disk takes nothing.
        """
        own = {part: value.detach().to("cpu", copy=True).contiguous() for part, value in seen.image.items()}  # not the whole batch that it is part of
        self._unwritten[name] = Seen(own, seen.placeholder)
        self._waiting += seen.size
        if self._waiting >= PART:
            self.flush()

    def flush(self) -> None:
        """Write what was added.

        Raises:
            OSError: there is no room for it, or the disk takes nothing.
        """
        if not self._unwritten:
            return
        placeholders = list(dict.fromkeys(seen.placeholder for seen in self._unwritten.values()))
        index = {name: (list(seen.image), placeholders.index(seen.placeholder), seen.check) for name, seen in self._unwritten.items()}
        told = {"format": FORMAT, "shelf": self.shelf.name, "images": json.dumps(index), "placeholders": json.dumps(placeholders)}
        content = save({f"{name}/{part}": value for name, seen in self._unwritten.items() for part, value in seen.image.items()}, told)
        self.make_room(len(content))
        self.shelf.mkdir(parents=True, exist_ok=True)
        file = self.shelf / f"{uuid4().hex}.safetensors"
        temporary = file.with_suffix(".tmp")
        try:
            temporary.write_bytes(content)
            temporary.replace(file)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        self._written.append(file)
        self._unwritten, self._waiting = {}, 0
        self._open(file)

    def take_back(self) -> None:
        """Delete what this store has written, and forget what it was to write."""
        self._unwritten, self._waiting = {}, 0
        for file in self._written:
            with suppress(OSError):
                file.unlink()

    def make_room(self, needed: int) -> None:
        """Delete files that have not been used for longest, but none that this store has opened images of, until `needed` bytes more may be written.

        No more than half of what is free on the disk is taken: a run has to write more than features.

        Raises:
            OSError: they do not fit, or the disk cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if not os.access(self.folder, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        most = int(self.most_gb * 2**30)
        if reason := self._beyond_half(needed):
            raise OSError(reason)
        own = {self._where[name].file for name in self._sound if name in self._where}
        states = {file: state for shelf in self.folder.iterdir() if SHELF.fullmatch(shelf.name) for file, state in _states(shelf)}
        total = sum(state.st_size for state in states.values())
        for file in sorted(states.keys() - own, key=lambda file: states[file].st_mtime):
            old = file.suffix == ".tmp" and states[file].st_mtime < time.time() - ABANDONED
            if old or (total + needed > most and file.suffix != ".tmp"):
                with suppress(OSError):
                    file.unlink()
                    total -= states[file].st_size
        if total + needed > most:
            taken = needed + sum(states[file].st_size for file in own if file in states)
            raise OSError(self._no_room(taken))

    def too_much(self, needed: int, kept: int) -> str:
        """Why `needed` bytes cannot be written beside `kept` that stay, whatever else is deleted; nothing where they can."""
        return self._beyond_half(needed) or (self._no_room(needed + kept) if needed + kept > int(self.most_gb * 2**30) else "")

    def _beyond_half(self, needed: int) -> str:
        free = shutil.disk_usage(next(place for place in (self.folder, *self.folder.absolute().parents) if place.is_dir())).free
        too_many = f"they take {in_gb(needed)}, and no more than half of the {in_gb(free)} that are free on its disk is used for features"
        return too_many if needed > free // 2 else ""

    def _no_room(self, taken: int) -> str:
        return f"they take {in_gb(taken)}, for which images.features_gb={self.most_gb:g} leaves no room"


def shelf_of(vlm: VLM, precision: str) -> str:
    """Name of the shelf for a model: a hash of all that its features of an image depend on, but the image.

    These are the weights of tower and projector, the settings of the image processor, the rest of the config but for that of the decoder, the type
    that is computed in (`precision`, Lightning's word), the device, and the libraries. Where weights are divided among processes, all must ask.
    """
    found = hashlib.blake2b(digest_size=12)
    config = {name: value for name, value in vlm.model.config.to_dict().items() if name not in OF_TEXT}
    libraries = [module.__version__ for module in (torch, transformers, PIL)]
    computed = [precision, vlm.device.type, vlm.model.config._attn_implementation, sum(len(module._forward_pre_hooks) for _, module in _seeing(vlm))]
    settings = [FORMAT, *libraries, *computed, vlm.family.name, vlm.image_options, vlm.processor.image_processor.to_dict(), config]
    found.update(json.dumps(settings, sort_keys=True, default=str).encode())
    for name, weight in sorted([*vlm.backbone.named_parameters(), *vlm.backbone.named_buffers()], key=lambda item: item[0]):
        if vlm.part_of(name) != "decoder":
            found.update(f"{vlm.whole_name(name)} {weight.dtype} {tuple(weight.shape)}".encode())
            found.update(_bytes(whole(weight)))
    return found.hexdigest()


def learns_to_see(vlm: VLM) -> bool:
    """Whether weights of tower or projector are among those that learn, so that features of an image change from step to step."""
    return any(weight.requires_grad and vlm.part_of(name) != "decoder" for name, weight in vlm.backbone.named_parameters())


def sees_at_random(vlm: VLM) -> bool:
    """Whether dropout acts in tower or projector now, so that an image has other features each time."""
    return any(
        module.training and any("drop" in name and isinstance(value, float) and value > 0 for name, value in _numbers(module))
        for _, module in _seeing(vlm)
    )


def _numbers(module: nn.Module) -> Iterator[tuple[str, Any]]:
    yield from vars(module).items()
    if isinstance(module, nn.Dropout):
        yield "dropout", module.p


def _seeing(vlm: VLM) -> Iterator[tuple[str, nn.Module]]:
    return ((name, module) for name, module in vlm.backbone.named_modules() if vlm.part_of(name) != "decoder")


def _bytes(value: Tensor) -> memoryview:
    numbers: Any = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return memoryview(numbers)


def _shrunk(place: _Place) -> bool:
    with suppress(FileNotFoundError):  # a deleted file stays mapped
        return place.file.stat().st_size < place.size
    return False


def _states(shelf: Path) -> Iterator[tuple[Path, os.stat_result]]:
    with suppress(OSError):  # deleted by another process meanwhile
        for file in shelf.iterdir():
            if FILE.fullmatch(file.stem) and file.suffix in (".safetensors", ".tmp"):
                with suppress(OSError):
                    yield file, file.stat()
