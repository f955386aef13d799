"""From encoded examples to padded batches. Shapes: B examples, R rows (as many, or fewer where they are packed), L tokens."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from biqa.data.packing import first_fit

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
    """The tower's inputs, each with a leading image axis, or what tower and projector made of them; empty for text alone."""
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
    """Encoded examples, padded on the right: one a row, or packed."""

    input_ids: Tensor
    """[R, L]"""
    attention_mask: Tensor
    """[R, L], 0 on padding, 1 on the tokens of a row's first example, 2 on those of its second, and so on"""
    labels: Tensor
    """[R, L], the token that each position must predict next; IGNORED on prompt, padding and the level word, which has a loss of its own"""
    supervised: Tensor
    """[S], where in the labels, row after row, those stand that are not ignored: known on the host, so that no device is waited for"""
    level_row: Tensor
    """[B], the row that each example lies in"""
    level_position: Tensor
    """[B], the position there whose output is the level distribution; -1 without one"""
    level_target: Tensor
    """[B, 5]"""
    q: Tensor
    """[B]"""
    image: dict[str, Tensor]
    """The tower's inputs, images in the order of the examples"""
    examples: Sequence[Encoded]
    """What the rows were made of, on the host"""
    packed: bool = False
    """Whether a row holds several examples"""
    counted: bool = True
    """Off where the only example weighs nothing (see `Encoded`)"""

    def attended(self) -> tuple[Tensor, Tensor | None]:
        """What a decoder needs to read each example by itself, as `VLM.hidden` takes it: attention mask and positions.

        Of a packed batch: who sees whom, [R, L, L] bool, and positions [R, L] that begin anew with each example. Padding sees padding, so that
        no token sees nothing, of which softmax makes NaN.
        """
        if not self.packed:
            return self.attention_mask, None
        of = self.attention_mask
        seen = (of[:, :, None] == of[:, None, :]).tril()
        return seen, seen.sum(-1) - 1

    def to(self, device: torch.device, non_blocking: bool = False) -> "Batch":
        """The batch on a device (Lightning moves anything with this method)."""
        return self._with(lambda value: value.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "Batch":
        """The batch in memory that a GPU reads by itself (torch's loaders pin anything with this method)."""
        return self._with(Tensor.pin_memory)

    def _with(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        """The batch with all its tensors changed; the examples on the host stay."""
        tensors = {name: change(value) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **tensors, image={name: change(value) for name, value in self.image.items()})


def collate(examples: Sequence[Encoded], pad_id: int, *, pack: bool = False) -> Batch:
    """Pad on the right and shift the labels: the output at position i is scored against token i + 1.

    With `pack`, examples without images share rows where that takes fewer of them. Either way no row is longer than the longest example.
    """
    lengths = [len(example.prompt) + len(example.answer) for example in examples]
    rows = first_fit(lengths) if pack and not examples[0].image else [[index] for index in range(len(examples))]
    input_ids = torch.full((len(rows), max(lengths)), pad_id)
    attention_mask = torch.zeros_like(input_ids)
    labels = torch.full_like(input_ids, IGNORED)
    level_row = torch.empty(len(examples), dtype=torch.long)
    level_position = torch.full((len(examples),), -1)
    for row, members in enumerate(rows):
        start = 0
        for place, index in enumerate(members, 1):
            example, asked, end = examples[index], start + len(examples[index].prompt), start + lengths[index]
            input_ids[row, start:end] = torch.tensor([*example.prompt, *example.answer])
            attention_mask[row, start:end] = place
            labels[row, asked - 1 : end - 1] = torch.tensor(example.answer)
            level_row[index] = row
            if example.level_at is not None:
                level_position[index] = asked + example.level_at - 1
                labels[row, level_position[index]] = IGNORED
            start = end
    return Batch(
        input_ids=input_ids,
        attention_mask=attention_mask,
        labels=labels,
        supervised=(labels.flatten() != IGNORED).nonzero()[:, 0],
        level_row=level_row,
        level_position=level_position,
        level_target=torch.tensor([example.level_target for example in examples], dtype=torch.float32),
        q=torch.tensor([example.q for example in examples], dtype=torch.float32),
        image={name: widened(torch.cat([example.image[name] for example in examples])) for name in examples[0].image},
        examples=examples,
        packed=len(rows) < len(examples),
        counted=all(example.counted for example in examples),
    )


def widened(value: Tensor) -> Tensor:
    """Pixels as a tower takes them: they are kept as float16, which autocast to bfloat16 does not take."""
    return value.float() if value.dtype == torch.half else value
