"""What makes a large model fit: weights divided among processes, activations computed twice.

Weights are divided by FSDP2 (`fully_shard`): parameter by parameter, so that frozen and learning weights, LoRA's small matrices and tied embeddings
need no arrangement, and on CPUs too. FSDP1, which Lightning's `FSDPStrategy` uses, flattens a whole block into one tensor, and Lightning wants a GPU
for it.
"""

from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers.modeling_layers import GradientCheckpointingLayer

from biqa.errors import IncompatibleChoice
from biqa.models.vlm import VLM


def blocks(vlm: VLM) -> list[nn.Module]:
    """The transformer blocks of decoder and tower: what is gathered, and recomputed, as one piece."""
    return [module for module in vlm.modules() if isinstance(module, GradientCheckpointingLayer)]


def checkpoint_activations(vlm: VLM) -> None:
    """Keep only each block's input in the forward pass, and compute the rest again in the backward pass: less memory for a third more computing.

    Raises:
        IncompatibleChoice: the backbone has no blocks that can.
    """
    if not blocks(vlm):
        raise IncompatibleChoice(f"trainer.checkpoint_activations=true: {type(vlm.model).__name__} cannot do that. Leave it out.")
    # without re-entering autograd, inputs of frozen blocks need no gradient of their own, which LoRA would otherwise have to force
    today = hasattr(vlm.model, "activation_checkpointing_enable")  # transformers 5.3 has the older name, 5.23 warns of it
    enable = vlm.model.activation_checkpointing_enable if today else vlm.model.gradient_checkpointing_enable
    enable({"use_reentrant": False})


def shard(vlm: VLM, mesh: DeviceMesh) -> None:
    """Divide every weight among the processes of a mesh, in place. A block's weights are gathered while it computes; embeddings, norms, projector
    and head during the whole of what runs inside `vlm(...)`.
    """
    for block in blocks(vlm):
        fully_shard(block, mesh=mesh)
    fully_shard(vlm, mesh=mesh)
    vlm.sharded = True


def whole(value: Any) -> Any:  # noqa: ANN401 (also the numbers in an optimiser's state)
    """A divided tensor put together on the CPU; anything else as it is. Every process must ask for it."""
    if hasattr(value, "ds_tensor"):  # of DeepSpeed's ZeRO-3
        with import_module("deepspeed").zero.GatheredParameters([value]):
            return value.detach().cpu().clone()
    return value.full_tensor().cpu() if isinstance(value, DTensor) else value


@torch.no_grad()
def whole_weights(named: Iterable[tuple[str, Tensor]], *, keep: bool) -> dict[str, Tensor]:
    """Weights put together one after another; with `keep` off this process only helps. A weight with two names stays one tensor."""
    found: dict[str, Tensor] = {}
    names: dict[int, str] = {}
    for name, value in named:
        if (other := names.setdefault(id(value), name)) != name:
            found |= {name: found[other]} if keep else {}
            continue
        together = whole(value)
        if keep:
            found[name] = together
    return found


def divided_like(value: Tensor, weight: Tensor) -> Tensor:
    """This process's part of a whole tensor that every process has, divided as a weight is."""
    if not isinstance(weight, DTensor) or value.shape != weight.shape:
        return value
    return distribute_tensor(value.to(weight.device), weight.device_mesh, weight.placements, src_data_rank=None)


@torch.no_grad()
def load_whole(named: Iterable[tuple[str, Tensor]], state: Mapping[str, Tensor]) -> None:
    """Copy whole weights into divided ones of the same names, in place; those without a value stay."""
    for name, weight in named:
        if name in state:
            weight.copy_(divided_like(state[name], weight))
