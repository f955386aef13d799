"""What a decoder remembers of the texts that it has read: keys and values, with room for what is still to come.

transformers' own cache joins old and new at every step and layer, which copies all that was read before; here new keys are written where they stay.

A row holds a prompt of L positions and then one or several texts that go on from it, Q of them, a token of each in turn: L + s * Q positions after s
steps. Shapes: R rows, H heads, E width of a head.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from inspect import signature
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer
from transformers.models.llama.modeling_llama import LlamaModel

REMEMBERED = "cache" if "cache" in signature(LlamaModel.forward).parameters else "past_key_values"
"""What forward passes of transformers call keys and values that are remembered: 5.24 has renamed it, and mPLUG-Owl2 forgot under the old name."""


@dataclass(frozen=True)
class Move:
    """Where the rows of a new arrangement come from."""

    rows: Tensor | None
    """[R'], the old row whose prompt each new row has; None: the rows stay, and only texts leave them."""
    texts: Tensor
    """[R', Q'], the old text (row * Q + place) that each place has."""
    wide: int
    """Q of old."""
    prompt: int
    """L of old."""
    left_out: int = 0
    """Positions at the beginning of the prompts, padding in all rows, that are let go."""


class RoomyLayer(DynamicLayer):
    """Keys and values of one layer, [R, H, positions, E] each: views of the filled part of what is allocated.

    Args:
        room: positions to allocate beyond those that are first written. Where these do not suffice, more are made, which copies.
    """

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room
        self.allocated: list[Tensor] = []

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:  # noqa: ANN401 (transformers' own)
        """Write new keys and values [R, H, n, E] behind the others, and return all."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        filled = self.get_seq_length()
        end = filled + key_states.shape[2]
        if not self.allocated or end > self.allocated[0].shape[2]:
            before, self.allocated = self.allocated, [_place(part, len(part), end + self.room) for part in (key_states, value_states)]
            for place, part in zip(self.allocated, before, strict=False):
                place[:, :, :filled] = part[:, :, :filled]
        for place, part in zip(self.allocated, (key_states, value_states), strict=True):
            place[:, :, filled:end] = part
        return self.show(end)

    def show(self, end: int) -> tuple[Tensor, Tensor]:
        """Count so many positions as filled, and return keys and values of all."""
        self.keys, self.values = (place[:, :, :end] for place in self.allocated)
        return self.keys, self.values

    def move(self, move: Move, room: int) -> None:
        """Arrange rows and texts anew, with room for `room` positions more."""
        filled = self.get_seq_length()
        written = [_moved(place[:, :, move.prompt : filled], move) for place in self.allocated]
        prompt = move.prompt - move.left_out
        end = prompt + written[0].shape[2]
        if move.rows is not None:
            before, self.allocated = self.allocated, [_place(place, len(move.rows), end + room) for place in self.allocated]
            for place, part in zip(self.allocated, before, strict=True):
                torch.index_select(part[:, :, move.left_out : move.prompt], 0, move.rows, out=place[:, :, :prompt])
        for place, part in zip(self.allocated, written, strict=True):
            place[:, :, prompt:end] = part
        self.show(end)


def _place(like: Tensor, rows: int, positions: int) -> Tensor:
    return like.new_empty(rows, like.shape[1], positions, like.shape[3])


def _moved(written: Tensor, move: Move) -> Tensor:
    """Tokens of the texts in their new order: [R, H, s * Q, E] -> [R', H, s * Q', E]."""
    texts = written.unflatten(2, (-1, move.wide)).movedim(3, 1).flatten(0, 1)[move.texts]
    return texts.movedim(1, 3).flatten(2, 3)


class Memory:
    """What a decoder remembers of the texts that it has read.

    Args:
        room: positions a row to allocate beyond those that are read first.

    Attributes:
        cache: keys and values.
        early: [R, 1], by how much the next position comes earlier than the count of tokens: visual tokens in rows and columns take few positions.
    """

    def __init__(self, room: int = 0) -> None:
        self.cache = Cache(layer_class_to_replicate=partial(RoomyLayer, room))  # pyright: ignore[reportArgumentType] (called, never asked)
        self.early: Tensor | int = 0

    def move(self, move: Move, room: int) -> None:
        """Arrange rows and texts anew, with room for `room` positions a row."""
        for layer in self.layers:
            layer.move(move, room)
        if isinstance(self.early, Tensor) and move.rows is not None:
            self.early = self.early[move.rows]

    @property
    def layers(self) -> list[RoomyLayer]:
        """Of the decoder, those that were read by."""
        return self.cache.layers  # pyright: ignore[reportReturnType]

    def positions(self) -> int:
        """How many each row has."""
        return self.cache.get_seq_length()


def joined(parts: Sequence[Memory], times: int, room: int) -> Memory:
    """The rows of several memories in one, each `times` times one after another, with room for `room` positions more.

    All end at the same position; the shorter ones begin with zeros.
    """
    whole = Memory(room)
    whole.cache.layers.extend(_joined(layers, times, room) for layers in zip(*(part.layers for part in parts), strict=True))
    early = [part.early for part in parts if isinstance(part.early, Tensor)]
    whole.early = torch.cat(early).repeat_interleave(times, 0) if early else 0
    return whole


def _joined(parts: Sequence[RoomyLayer], times: int, room: int) -> RoomyLayer:
    layer, length = RoomyLayer(room), max(part.get_seq_length() for part in parts)
    rows = times * sum(len(part.allocated[0]) for part in parts)
    layer.lazy_initialization(*parts[0].allocated)
    layer.allocated = [_place(place, rows, length + room) for place in parts[0].allocated]
    done = 0
    for part in parts:
        begin, number = length - part.get_seq_length(), times * len(part.allocated[0])
        for place, read in zip(layer.allocated, (part.keys, part.values), strict=True):
            place[done : done + number, :, :begin] = 0
            place[done : done + number, :, begin:length].unflatten(0, (-1, times)).copy_(read[:, None])  # pyright: ignore[reportOptionalSubscript]
        done += number
    layer.show(length)
    return layer
