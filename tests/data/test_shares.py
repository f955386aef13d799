"""Sharing a sequence among processes: complete, in order, nothing twice, for any number of either."""

import pytest

from biqa.data.collate import Encoded
from biqa.data.module import EncodedItems, ShuffledBatches, items_an_epoch
from biqa.data.shares import even_share, merged, share

WORLDS = range(1, 9)
SIZES = (*range(18), 21, 499, 1000)


@pytest.mark.parametrize("world", WORLDS)
def test_shares_are_even_disjoint_and_complete(world):
    for size in SIZES:
        items = [f"image{place}" for place in range(size)]
        parts = [share(items, rank, world) for rank in range(world)]
        assert sorted(item for part in parts for item in part) == sorted(items)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
        assert merged(parts) == items


@pytest.mark.parametrize("world", WORLDS)
def test_even_shares_are_equally_long_and_merge_without_what_was_filled_up(world):
    for size in SIZES:
        items = [f"image{place}" for place in range(size)]
        parts = [even_share(items, rank, world) for rank in range(world)]
        assert {len(part) for part in parts} == {-(-size // world)}
        assert merged(parts, size) == items


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("weights", [(1.0,) * 11, (1.0,) * 16, (0.5,) * 7 + (2.5,) * 6, (1.0,)])
def test_processes_together_learn_from_the_batches_of_one_with_as_many_images(world, weights):
    alone = ShuffledBatches(weights, 2 * world, seed=3)
    together = [ShuffledBatches(weights, 2, seed=3, rank=rank, world=world) for rank in range(world)]
    for _ in range(2):
        wanted = list(alone)
        shared = [list(batches) for batches in together]
        assert {len(batches) for batches in [*together, *shared]} == {len(wanted)}
        for place, batch in enumerate(wanted):
            parts = [mine[place] for mine in shared]
            assert all(len(part) <= 2 for part in parts)
            assert merged([[index for index in part if index >= 0] for part in parts]) == batch
            # a process without a share keeps the others company with one of the batch
            assert all(part == [~batch[0]] for part in parts if part[0] < 0)
        assert sum(map(len, wanted)) == items_an_epoch(weights)


def test_it_goes_on_in_mid_epoch_with_the_same_shares():
    whole, resumed = (ShuffledBatches([1.0] * 11, 2, seed=0, rank=1, world=2) for _ in range(2))
    resumed.start = 2
    assert list(resumed) == list(whole)[2:]


def test_company_is_encoded_and_not_counted():
    items = EncodedItems(["a", "b"], lambda item: Encoded([1], [2 if item == "a" else 3]), cache_mb=1)
    assert [(items[index].answer, items[index].counted) for index in (1, ~1, 0)] == [([3], True), ([3], False), ([2], True)]
