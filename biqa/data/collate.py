"""From encoded examples to padded batches. Shapes: B examples, L tokens."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

IGNORED = -100
"""Label of a token that is not supervised, as transformers has it."""


@dataclass(frozen=True)
class Encoded:
    """One training example: a prompt, and the answer to learn."""

    prompt: Sequence[int]
    """Token ids of the question."""
    answer: Sequence[int]
    """Token ids of the answer, end token included."""
    image: dict[str, Tensor] = field(default_factory=dict)
    """The tower's inputs, each with a leading image axis; empty for text alone."""
    level_at: int | None = None
    """Where in the answer the level word stands; None for an answer without one."""
    level_target: Sequence[float] = (0.0,) * 5
    """Level distribution to learn there."""
    q: float = float("nan")
    """Quality in [0, 1], for validation."""
    counted: bool = True
    """Off for an example that only keeps a process company which has none left: it is computed and weighs nothing."""


@dataclass
class Batch:
    """Encoded examples, padded on the right."""

    input_ids: Tensor
    """[B, L]"""
    attention_mask: Tensor
    """[B, L], 1 on real tokens"""
    labels: Tensor
    """[B, L], the token that each position must predict next; IGNORED on prompt, padding and the level word, which has a loss of its own"""
    level_position: Tensor
    """[B], the position whose output is the level distribution; -1 without one"""
    level_target: Tensor
    """[B, 5]"""
    q: Tensor
    """[B]"""
    image: dict[str, Tensor]
    """The tower's inputs, images in the order of the rows"""
    examples: Sequence[Encoded]
    """What the rows were made of, on the host"""
    counted: bool = True
    """Off where the only row weighs nothing (see `Encoded`)"""

    def to(self, device: torch.device, non_blocking: bool = False) -> "Batch":
        """The batch on a device (Lightning moves anything with this method)."""
        tensors = {name: value.to(device, non_blocking=non_blocking) for name, value in vars(self).items() if isinstance(value, Tensor)}
        image = {name: value.to(device, non_blocking=non_blocking) for name, value in self.image.items()}
        return replace(self, **tensors, image=image)


def collate(examples: Sequence[Encoded], pad_id: int) -> Batch:
    """Pad on the right and shift the labels: the output at position i is scored against token i + 1."""
    length = max(len(example.prompt) + len(example.answer) for example in examples)
    input_ids = torch.full((len(examples), length), pad_id)
    attention_mask = torch.zeros_like(input_ids)
    labels = torch.full_like(input_ids, IGNORED)
    level_position = torch.full((len(examples),), -1)
    for row, example in enumerate(examples):
        start, end = len(example.prompt), len(example.prompt) + len(example.answer)
        input_ids[row, :end] = torch.tensor([*example.prompt, *example.answer])
        attention_mask[row, :end] = 1
        labels[row, start - 1 : end - 1] = torch.tensor(example.answer)
        if example.level_at is not None:
            level_position[row] = start + example.level_at - 1
            labels[row, level_position[row]] = IGNORED
    return Batch(
        input_ids=input_ids,
        attention_mask=attention_mask,
        labels=labels,
        level_position=level_position,
        level_target=torch.tensor([example.level_target for example in examples], dtype=torch.float32),
        q=torch.tensor([example.q for example in examples], dtype=torch.float32),
        image={name: _widened(torch.cat([example.image[name] for example in examples])) for name in examples[0].image},
        examples=examples,
        counted=all(example.counted for example in examples),
    )


def _widened(value: Tensor) -> Tensor:
    return value.float() if value.is_floating_point() else value
