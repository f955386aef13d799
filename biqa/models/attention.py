"""Attention of short texts in bfloat16 on the CPU, by plain matrix products: torch's kernel takes two to seven times as long there.

Known to transformers under a name of its own, beside its "sdpa", which does everything else. Shapes: B rows, H heads, L queries, K keys, E width of a
head.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

SDPA = "sdpa"
PRODUCTS = "sdpa_or_products"
"""transformers' "sdpa", but for short texts in bfloat16 on the CPU."""
MASKABLE = (SDPA, PRODUCTS, "eager")
"""Implementations that take any mask of who sees whom."""
QUICK = (torch.bfloat16,)
"""Types whose matrix products are faster than the kernel; those of float32 are slower."""
SHORT = 512 * 512
"""Queries times keys, at most: the scores are kept for the backward pass, which the kernel does without."""


def use_products(model: PreTrainedModel) -> None:
    """Let a model whose attention is "sdpa" take the faster way where there is one, in all its parts."""
    if model.config._attn_implementation == SDPA:
        model.set_attn_implementation(PRODUCTS)


def attend(  # noqa: PLR0917 (transformers' own order)
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **kwargs: Any,  # noqa: ANN401 (transformers' own)
) -> tuple[Tensor, None]:
    """As transformers has it.

    Args:
        module: of which layer.
        query: [B, H, L, E]
        key: [B, H or fewer, K, E], `value` of the same shape.
        attention_mask: [B or 1, H or 1, L, >= K], bool or added to the scores; None: all see all, or what stands before.
        dropout: of the weights.
        scaling: of the scores; None: one over the root of E.
        is_causal: whether a query sees only what stands before it, where there is no mask; None: as the layer says.
        kwargs: further options.

    Returns:
        [B, L, H, E], and no weights.
    """
    causal = attention_mask is None and query.shape[2] > 1 and (getattr(module, "is_causal", True) if is_causal is None else is_causal)
    if not _by_products(query, key, dropout, kwargs) or (causal and query.shape[2] != key.shape[2]):
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, is_causal, **kwargs)
    groups = query.shape[1] // key.shape[1]
    scores = (query * (query.shape[-1] ** -0.5 if scaling is None else scaling)) @ repeat_kv(key, groups).transpose(-1, -2)
    if causal:
        attention_mask = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
    if attention_mask is not None:
        scores = scores + _added(attention_mask[..., : key.shape[2]], scores.dtype)
    return (scores.softmax(-1) @ repeat_kv(value, groups)).transpose(1, 2).contiguous(), None


def _by_products(query: Tensor, key: Tensor, dropout: float, options: dict[str, Any]) -> bool:
    here = query.device.type == "cpu" and query.dtype in QUICK and not torch.compiler.is_compiling()
    plain = not dropout and all(options.get(name) is None for name in ("position_bias", "cache", "softcap"))
    return here and plain and query.shape[2] * key.shape[2] <= SHORT


def _added(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask as it is added to the scores. Who sees nobody sees all alike: of nothing softmax makes NaN."""
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(~mask, torch.finfo(dtype).min) if mask.dtype == torch.bool else mask


AttentionInterface.register(PRODUCTS, attend)
AttentionMaskInterface.register(PRODUCTS, sdpa_mask)
