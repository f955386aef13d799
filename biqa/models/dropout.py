"""What LoRA's matrices are given: the input of their layer, parts of it dropped, in the type that they are computed in.

PEFT makes float32 of the input first, which autocast turns back into bfloat16 behind the dropout; and on the CPU torch's dropout draws a number for
every element, one after another, which takes as long as the layer. What is computed is the same but for which elements chance drops.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STEPS = 2**16
"""Dropout's share is rounded to so many parts."""


def prepare_lora(backbone: nn.Module) -> None:
    """Put `LoraInput` before the matrices of every adapted layer, in place."""
    from peft.tuners.lora import LoraLayer

    for layer in backbone.modules():
        if isinstance(layer, LoraLayer):
            for name, dropout in layer.lora_dropout.items():
                weight: Any = layer.lora_A[name].weight
                layer.lora_dropout[name] = LoraInput(getattr(dropout, "p", 0.0), weight.dtype)
            layer.cast_input_dtype_enabled = False


class LoraInput(nn.Module):
    """Dropout (Srivastava et al. 2014), and the type of the weights where autocast does not see to that.

    Args:
        p: share that is dropped, below 1.
        dtype: of the weights.
    """

    def __init__(self, p: float, dtype: torch.dtype) -> None:
        super().__init__()
        self.p = p
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        """[..., E] -> [..., E]"""
        x = x if torch.is_autocast_enabled(x.device.type) else x.to(self.dtype)
        if not self.training or not self.p:
            return x
        return quick_dropout(x, self.p) if x.device.type == "cpu" else F.dropout(x, self.p)

    def extra_repr(self) -> str:
        """The share."""
        return f"p={self.p}"


def quick_dropout(x: Tensor, p: float) -> Tensor:
    """`F.dropout` with sixteen random bits an element, of torch's global generator."""
    dropped = round(p * STEPS)
    numbers = torch.empty(-(-x.numel() // 4), dtype=torch.int64, device=x.device).random_(-(2**63), None)
    kept = torch.ge(numbers.view(torch.int16)[: x.numel()].view(x.shape), dropped - STEPS // 2, out=torch.empty_like(x, requires_grad=False))
    return (x * kept).mul_(STEPS / (STEPS - dropped))
