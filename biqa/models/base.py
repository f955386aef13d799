"""Where the weights of a base model come from, and a fingerprint to know them again: an adapter says nothing without the weights it was learnt on."""

import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from biqa.config.reading import read_json
from biqa.errors import IncompatibleChoice, RunNotFound
from biqa.models.hub import revision_of
from biqa.models.quantization import is_packed

SAMPLED = 256
"""Numbers taken of each tensor: of a 7B model about 80,000, in less than a second."""
IN_A_BLOCK = re.compile(r"\.\d+\.")
HALF = ", as float16"
"""What follows the name of a part where its numbers were rounded to float16."""
FILE = "base.json"
"""Beside an adapter."""


@dataclass(frozen=True)
class Base:
    """A base model."""

    name: str | None = None
    """Its name on the hub, or its folder; None: random weights, which the options of the model and the seed say."""
    revision: str | None = None
    """Its commit on the hub, where that is known."""
    prints: Mapping[str, str] = field(default_factory=dict)
    """See `fingerprint`."""

    @classmethod
    def of(cls, name: str, folder: Path) -> "Base":
        """That of a checkpoint: its name as the user gave it, and the folder where it lies."""
        return cls(str(folder.resolve()) if Path(name).is_dir() else name, revision_of(folder))

    def __str__(self) -> str:
        """For a message."""
        return f"{self.name or 'random weights'}{f' (revision {self.revision})' if self.revision else ''}"


RANDOM = Base()
"""Of models that are drawn from a seed."""


def fingerprint(named: Iterable[tuple[str, Tensor]], part: Callable[[str], str]) -> dict[str, str]:
    """A hash of each part of a model: SHA-256 over names, shapes and every n-th number of its weights.

    It is to be the same however the base is loaded: numbers are rounded to bfloat16 first, as a base of that type has them, and for a hash of its own
    (`HALF`) to float16; and the decoder's linear layers, which quantization packs, have a hash of their own, which a packed base lacks. What both
    bases have is compared: all but bfloat16 with float16, which no rounding makes equal. Packed weights are left out: they depend on type and device
    of the packing.

    Args:
        named: name in the whole model and value of every weight, before anything is learnt.
        part: name of a weight -> "tower", "projector" or "decoder".
    """
    hashes: dict[str, Any] = {}
    for name, weight in sorted(named, key=lambda item: item[0]):
        if is_packed(weight):
            continue
        of = part(name) + (", linear layers" if weight.ndim > 1 and IN_A_BLOCK.search(name) else "")
        sampled = weight.detach().reshape(-1)[:: max(1, weight.numel() // SAMPLED)]
        for kind, key, other in ((torch.bfloat16, of, torch.float16), (torch.float16, of + HALF, torch.bfloat16)):
            if weight.dtype != other:
                found = hashes.setdefault(key, hashlib.sha256())
                found.update(f"{name} {tuple(weight.shape)}".encode())
                found.update(sampled.to(kind).view(torch.int16).cpu().numpy().tobytes())
    return {key: value.hexdigest() for key, value in sorted(hashes.items())}


def write_base(base: Base, folder: Path) -> None:
    """Note beside an adapter what it was learnt on."""
    (folder / FILE).write_text(json.dumps(asdict(base), indent=2) + "\n", encoding="utf-8")


def refuse_other_base(base: Base, adapter: Path) -> None:
    """Check that an adapter was learnt on these weights, as far as both are known. Where they are not, as of an adapter that others have written,
    that is said on stderr.

    Raises:
        IncompatibleChoice: it was learnt on others.
        RunNotFound: its note is damaged.
    """
    file = adapter / FILE
    if not file.is_file():
        _say_unknown(adapter, f"it has no {FILE}, so that nobody can tell")
        return
    try:
        values = read_json(file)
        learnt_on = Base(**{name: values.get(name) for name in ("name", "revision")}, prints=dict(values["prints"]))
    except (ValueError, OSError, KeyError, TypeError, AttributeError) as error:
        raise RunNotFound(f"{file}: damaged ({error}). Run that run again with overwrite=true.") from error
    both = learnt_on.prints.keys() & base.prints.keys()
    other = {part.removesuffix(HALF) for part in both if learnt_on.prints[part] != base.prints[part]}
    if other:
        raise IncompatibleChoice(
            f"{adapter}: this adapter was learnt on {learnt_on}, and the base here is {base}: their weights differ ({'; '.join(sorted(other))}). "
            f"Choose the model= options of that run."
        )
    if not both:
        _say_unknown(adapter, "one of the two is of bfloat16 and the other of float16, so that they cannot be compared")


def _say_unknown(adapter: Path, why: str) -> None:
    print(f"WARNING: {adapter}: whether this adapter was learnt on the base here is not known: {why}.", file=sys.stderr)
