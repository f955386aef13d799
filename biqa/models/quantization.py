"""The decoder's linear layers packed into four or eight bits by bitsandbytes, for every backbone; tower, projector and head keep their precision."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from transformers import BitsAndBytesConfig
from transformers.utils.logging import disable_progress_bar

from biqa.models.families import Family


@dataclass(frozen=True)
class Quantization:
    """How weights are packed."""

    kind: Literal["int8", "nf4"]
    """"nf4": four bits in blocks of 64 (Dettmers et al., arXiv 2305.14314); "int8": eight bits a row, outliers apart (arXiv 2208.07339)."""
    double_quant: bool = True
    """nf4: the scales of the blocks are packed too, which saves 0.4 bits a weight."""
    compute_dtype: str | None = None
    """nf4: in which type packed layers compute, torch's name; None: that of the other weights."""


def packing_options(quantization: Quantization | None, family: Family, dtype: torch.dtype) -> dict[str, Any]:
    """What `from_pretrained` takes to pack the decoder, and nothing where `quantization` is None.

    The list of modules that stay as they are is matched from the start of a module's full name: a decoder alone has no tower, and its head has the
    name that it has in the whole model.

    Args:
        quantization: how; None: not at all.
        family: where tower, projector and head are.
        dtype: of the other weights.
    """
    if quantization is None:
        return {}
    kept = [family.tower, *family.projector, family.head]
    if quantization.kind == "int8":
        return {"quantization_config": BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=kept)}
    compute = dtype if quantization.compute_dtype is None else getattr(torch, quantization.compute_dtype)
    options = {"bnb_4bit_use_double_quant": quantization.double_quant, "bnb_4bit_compute_dtype": compute, "llm_int8_skip_modules": kept}
    return {"quantization_config": BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", **options)}


def stay_trainable(model: nn.Module) -> None:
    """On some CPUs bitsandbytes repacks a 4-bit layer for good when it is first evaluated, and what is repacked passes no gradient on.

    A validation before the training would silently end all learning below the last layer. So: no repacking.
    """
    from bitsandbytes.nn.modules import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def packed(backbone: Any, load: Callable[[Path], Any]) -> Any:  # noqa: ANN401 (each family has a class of its own)
    """A model from random weights, packed: bitsandbytes packs what is loaded, so it is written to a temporary folder first."""
    disable_progress_bar()
    several = dist.is_initialized()
    with tempfile.TemporaryDirectory() as own:
        backbone.save_pretrained(own, save_original_format=False)  # of several processes transformers has the first one write alone
        place = [own]
        if several:
            dist.broadcast_object_list(place, src=0)
        loaded = load(Path(place[0]))
        if several:
            dist.barrier()
    loaded.name_or_path = loaded.config.name_or_path = ""  # an adapter notes where its base lies: no longer there
    return loaded


def is_packed(weight: Tensor) -> bool:
    """Whether a weight is one of bitsandbytes' own."""
    return type(weight).__name__ in ("Params4bit", "Int8Params")


def size(weight: Tensor) -> int:
    """How many numbers a weight stands for: a byte of nf4 holds two."""
    state = getattr(weight, "quant_state", None)
    return weight.numel() if state is None else prod(state.shape)
