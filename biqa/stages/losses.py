"""The two losses, as pure functions. Shapes: S supervised tokens, V vocabulary, B examples."""

import torch.nn.functional as F
from torch import Tensor


def answer_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of the answer's tokens: logits [S, V], labels [S] -> scalar."""
    return F.cross_entropy(logits, labels)


def level_loss(logits: Tensor, level_ids: list[int], target: Tensor) -> Tensor:
    """Cross-entropy of the level distribution, over the whole vocabulary: logits [B, V], target [B, 5] -> scalar.

    With a one-hot target it is the cross-entropy on the level word; with a soft one it differs from KL(target || p) by the target's entropy,
    which is constant. Taken over the whole vocabulary (METHOD.md choice), so that the mass on other words falls too.
    """
    return -(target * logits.log_softmax(-1)[:, level_ids]).sum(-1).mean()
