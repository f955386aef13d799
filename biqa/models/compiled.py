"""Steps of decoding that are compiled: keys and values have a place of fixed size, so that every step has the same shape.

Each operation of a step is launched by itself, hundreds of them, which takes a GPU about 20 ms however small the model is. A compiled step is
launched as a whole (CUDA graphs). The price: compiling takes up to minutes a shape, and answers that have ended keep their place to the end.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache, DynamicLayer

from biqa.models.memory import Memory
from biqa.models.tree import Tree
from biqa.models.vlm import VLM

COMPILER: dict[str, Any] = {"mode": "reduce-overhead", "dynamic": False}
"""How torch.compile is asked: with CUDA graphs, which want fixed shapes."""
MULTIPLE = 64
"""Prompts are padded to a multiple of so many positions, so that few shapes come up."""


class FixedLayer(DynamicLayer):
    """Keys and values of one layer, [R, H, P, E] each, of which all P positions are handed over; a mask says which of them count.

    Args:
        like: keys of some positions, for rows, heads, width and type.
        positions: P.
        at: [n], where the next tokens are written; the layers share it.
    """

    def __init__(self, like: Tensor, positions: int, at: Tensor) -> None:
        super().__init__()
        self.lazy_initialization(like, like)
        self.at = at
        shape = (like.shape[0], like.shape[1], positions, like.shape[3])
        # zeros: what nobody sees has weight 0 and must not be NaN
        self.keys, self.values = (torch.zeros(shape, dtype=like.dtype, device=like.device) for _ in range(2))
        for place in (self.keys, self.values):
            torch._dynamo.mark_static_address(place)

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:  # noqa: ANN401 (transformers' own)
        """Write new keys and values [R, H, n, E] where they belong, and hand over all."""
        keys, values = self.keys, self.values
        assert keys is not None
        assert values is not None
        keys.index_copy_(2, self.at, key_states)
        values.index_copy_(2, self.at, value_states)
        return keys, values


class FixedMemory(Memory):
    """A place for texts of up to P positions in R rows, used for one batch after another."""

    def __init__(self, read: Memory, positions: int) -> None:
        super().__init__()
        first = read.layers[0].keys
        assert first is not None
        self.at = torch.zeros(1, dtype=torch.long, device=first.device)
        layers: Any = [FixedLayer(like, positions, self.at) for layer in read.layers if (like := layer.keys) is not None]
        self.cache = Cache(layers=layers)

    def take(self, read: Memory) -> None:
        """Begin with what another memory has read."""
        self.early = read.early
        for layer, other in zip(self.layers, read.layers, strict=True):
            for place, part in ((layer.keys, other.keys), (layer.values, other.values)):
                assert place is not None
                assert part is not None
                place[:, :, : part.shape[2]] = part

    def write_at(self, at: Tensor) -> None:
        """Where the next tokens go."""
        self.at = at
        for layer in self.layers:
            layer.at = at  # pyright: ignore[reportAttributeAccessIssue] (its layers are FixedLayer)


class CompiledSteps:
    """The step of a model, compiled when it is first taken, and the places that were used so far.

    Args:
        vlm: whose attention takes a mask of who sees whom.
    """

    def __init__(self, vlm: VLM) -> None:
        self.step = torch.compile(vlm.hidden, **COMPILER)
        self.places: dict[tuple[int, int], FixedMemory] = {}

    def place(self, read: Memory, rows: int, positions: int) -> FixedMemory:
        """A place that begins with what was read."""
        if (rows, positions) not in self.places:
            self.places.clear()  # one at a time: the last batch may have another shape, and each takes memory
            self.places[rows, positions] = FixedMemory(read, positions)
        place = self.places[rows, positions]
        place.take(read)
        return place


class CompiledTree(Tree):
    """A tree whose steps are compiled.

    Args:
        steps: of the model.
        vlm, memory, seen, answers, prompts, tokens: see `Tree`.
    """

    def __init__(self, steps: CompiledSteps, vlm: VLM, memory: Memory, *, seen: Tensor, tokens: int, **options: Any) -> None:  # noqa: ANN401 (Tree's)
        self.steps = steps
        self.whole = seen.shape[1] + tokens * len(options["answers"][0])
        """Positions of a row."""
        self.place = steps.place(memory, len(seen), self.whole)
        super().__init__(vlm, self.place, seen=seen, tokens=tokens, **options)

    def hidden(self, ids: Tensor, number: int, wide: int) -> Tensor:
        """As `Tree.hidden`; a single token more in each answer by the compiled step."""
        sees = self.sees(number, wide)
        mask = nn.functional.pad(sees, (0, self.whole - sees.shape[-1]), value=False)
        begin = self.seen.shape[1] + self.read * wide
        self.place.write_at(torch.arange(begin, begin + number * wide, device=ids.device))
        read = self.steps.step if number == 1 else self.vlm.hidden
        # a copy: the next step writes where this one has its result
        return read(ids, mask, memory=self.place, positions=self.positions(number, wide)).clone()

    def leave(self, going_on: object) -> None:
        """All keep their places: another shape would have to be compiled."""
