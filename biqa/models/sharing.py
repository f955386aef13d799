"""One copy in memory of the weights that two models have in common: a stage 1 and a stage 2 that are two adapters over one backbone."""

import torch
from torch import nn

from biqa.models.quantization import is_packed
from biqa.models.vlm import VLM


def share_weights(vlm: VLM, other: VLM) -> int:
    """Give a model those weights of another one that are the same number by number, so that they lie in memory once. Neither may learn afterwards.

    Weights that quantization has packed stay apart: their scales lie elsewhere.

    Args:
        vlm: whose weights stay.
        other: whose weights are let go where they are the same; with or without its tower.

    Returns:
        Bytes that are let go.
    """
    known = {_name(vlm, name): weight for name, weight in vlm.backbone.named_parameters(remove_duplicate=False) if not is_packed(weight)}
    let_go: dict[int, nn.Parameter] = {}
    for path, module in list(other.backbone.named_modules()):
        for name, weight in list(module.named_parameters(recurse=False)):
            same = known.get(_name(other, f"{path}.{name}"))
            if same is not None and same is not weight and same.dtype == weight.dtype and torch.equal(same, weight):
                let_go[id(weight)] = weight  # of tied ones once
                setattr(module, name, same)
    return sum(weight.nbytes for weight in let_go.values())


def _name(vlm: VLM, name: str) -> str:
    """Of a weight in the whole model, without what PEFT puts around it."""
    return vlm.whole_name(name).replace(".base_layer.", ".")
