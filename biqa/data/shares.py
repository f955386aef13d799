"""Who takes which items where several processes work on one sequence: rank r of W takes items r, r + W, r + 2 W, ...

Taking turns keeps the parts even (they differ by one item at most) for any number of items, and the order can be told from the parts alone.
"""

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def share(items: Sequence[T], rank: int, world: int) -> list[T]:
    """What process `rank` of `world` takes: nothing where there are too few items."""
    assert 0 <= rank < world, f"rank {rank} of {world} processes"
    return list(items[rank::world])


def even_share(items: Sequence[T], rank: int, world: int) -> list[T]:
    """The same, filled up with the first item to the length of the longest part: all processes are then equally long at work.

    `merged` leaves out what was filled up, given the number of items.
    """
    mine = share(items, rank, world)
    return mine + list(items[:1]) * (-(-len(items) // world) - len(mine))


def merged(parts: Sequence[Sequence[T]], total: int | None = None) -> list[T]:
    """The items in their order again.

    Args:
        parts: by rank, as `share` or `even_share` gave them (or what was made of each item).
        total: how many items there were; None: as many as the parts hold.
    """
    number = sum(map(len, parts)) if total is None else total
    return [parts[place % len(parts)][place // len(parts)] for place in range(number)]
