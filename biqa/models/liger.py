"""Liger's kernels (Hsu et al. 2024, arXiv 2410.10989) in the decoder: RMSNorm and SwiGLU as one Triton kernel each, on GPUs.

Its fused head and loss are not taken: biqa computes logits at supervised positions alone. Nor is its rotary embedding, which it would put into
transformers' module for every model of the process.
"""

import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch

from biqa.errors import IncompatibleChoice
from biqa.models.vlm import VLM


def use_liger(vlm: VLM, *, accelerator: str) -> None:
    """Let the decoder compute with Liger's kernels, in place. Other models are left alone, also those that are built later.

    Args:
        vlm: the model.
        accelerator: what it will be computed on, Lightning's word.

    Raises:
        IncompatibleChoice: there is no GPU, Liger is not installed, or it does not know this decoder.
    """
    if accelerator == "cpu" or not torch.cuda.is_available():
        raise IncompatibleChoice("trainer.liger=true: Liger's kernels run on a GPU, and here is none. Leave it out.")
    if find_spec("liger_kernel") is None:
        raise IncompatibleChoice("trainer.liger=true needs the package liger-kernel: pip install 'biqa[liger]'. Or leave it out.")
    decoder: Any = vlm.model.get_submodule(vlm.family.decoder if vlm.vision else "model")
    kind = decoder.config.model_type
    known = import_module("liger_kernel.transformers.monkey_patch").MODEL_TYPE_TO_APPLY_LIGER_FN
    if kind not in known:
        raise IncompatibleChoice(f"trainer.liger=true: Liger does not know a decoder of the type {kind}. Leave it out.")
    # it replaces the classes of transformers' module too, with which models of this process would not run on the CPU any more
    module = vars(sys.modules[type(decoder).__module__])
    before = dict(module)
    try:
        import_module("liger_kernel.transformers")._apply_liger_kernel_to_instance(
            decoder, rope=False, rms_norm=True, swiglu=True, cross_entropy=False, fused_linear_cross_entropy=False
        )
    finally:
        module.update(before)
