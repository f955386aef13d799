"""Weights that learn are float32, whatever the frozen ones are: a step of 1e-5 of a bfloat16 weight is lost in rounding."""

from typing import Any

import torch
from torch import Tensor, nn

from biqa.models.vlm import VLM


def learn_in_float32(vlm: VLM) -> None:
    """Make float32 of every module that learns, in place, and let modules of different types work together.

    LoRA's matrices are float32 and at home beside any type by PEFT's own doing. Under autocast and without, every other module then computes in the
    type of its own weights (or in autocast's) and answers in the type that it was given, so that a stream of hidden states keeps its type from layer
    to layer; the projector answers in the type of the embeddings that it stands among. Nothing changes in a model of one type.
    """
    backbone = vlm.backbone
    own = {module: [weight for weight in module.parameters(recurse=False) if weight.is_floating_point()] for module in _computing(backbone)}
    learning = [weights for weights in own.values() if any(weight.requires_grad for weight in weights)]
    for weight in (weight for weights in learning for weight in weights):
        weight.data = weight.data.float()
    if learning and len({weight.dtype for weights in own.values() for weight in weights}) > 1:
        for module, weights in own.items():
            if weights and not any(module.children()):
                OwnType(module)
        if vlm.vision:
            _meet(vlm)


def _meet(vlm: VLM) -> None:
    """Visual and other tokens in one type."""
    embeddings = vlm.model.get_input_embeddings()
    dtype = vlm.model.model.dtype if vlm.family.first_type else embeddings.weight.dtype
    for module in (embeddings, *(vlm.model.get_submodule(name) for name in projector_modules(vlm))):
        OwnType(module, answers=dtype)


def projector_modules(vlm: VLM) -> list[str]:
    """Names of the modules of the projector that are called: of a list its members."""
    found = []
    for name in vlm.family.projector:
        module = vlm.model.get_submodule(name)
        found += [f"{name}.{place}" for place in range(len(module))] if isinstance(module, nn.ModuleList) else [name]
    return found


def _computing(backbone: nn.Module) -> list[nn.Module]:
    """Modules but those of LoRA, and but the untouched copies that PEFT keeps of what learns whole."""
    return [module for name, module in backbone.named_modules() if "lora_" not in name and ".original_module" not in name]


class OwnType:
    """Hooks of a module, through which it computes in the type of its weights and answers in the type of its input.

    Args:
        module: any that takes and gives tensors. One that takes no floating-point numbers (an embedding) answers in its own type.
        answers: type of its answers; None: that of its input.
    """

    def __init__(self, module: nn.Module, answers: torch.dtype | None = None) -> None:
        self.given: torch.dtype | None = None
        self.answers = answers
        module.register_forward_pre_hook(self.before, with_kwargs=True)
        module.register_forward_hook(self.after)

    def before(self, module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Convert what the module is given."""
        own = next(weight.dtype for weight in module.parameters() if weight.is_floating_point())
        self.given = next((value.dtype for value in (*arguments, *named.values()) if _is_float(value)), None)

        def own_type(value: Any) -> Any:  # noqa: ANN401 (whatever the module takes)
            return value.to(own) if _is_float(value) else value

        return tuple(map(own_type, arguments)), {name: own_type(value) for name, value in named.items()}

    def after(self, module: nn.Module, arguments: tuple[Any, ...], answer: Any) -> Any:  # noqa: ANN401 (whatever the module gives)
        """Convert what it answers."""
        dtype = self.answers or self.given
        return answer.to(dtype) if dtype is not None and _is_float(answer) else answer


def _is_float(value: Any) -> bool:  # noqa: ANN401
    return isinstance(value, Tensor) and value.is_floating_point()
