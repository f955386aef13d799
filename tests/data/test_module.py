"""The order of the images is a function of seed and epoch, and can be taken up anywhere."""

from collections import Counter
from itertools import chain
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from biqa.data.collate import Encoded
from biqa.data.module import AHEAD, WINDOW, DataModule, EncodedItems, Item, ShuffledBatches, items_an_epoch
from biqa.data.record import Record


def items(count):
    records = [Record(image=f"{i}.png", path=Path(f"{i}.png"), q=i / count, split="train", group=str(i), score=float(i)) for i in range(count)]
    return [Item(record, (f"text {i}",)) for i, record in enumerate(records)]


def encode(item):
    number = int(item.record.path.stem)
    return Encoded([1, number], [2, 3], {"pixel_values": torch.full((1, 256, 256), number / 7)})


def test_every_epoch_holds_every_item_once_in_another_order():
    batches = ShuffledBatches([1.0] * 10, 3, seed=0)
    first, second = list(batches), list(batches)
    assert [len(batch) for batch in first] == [3, 3, 3, 1]
    assert sorted(chain(*first)) == sorted(chain(*second)) == list(range(10))
    assert first != second
    assert list(ShuffledBatches([1.0] * 10, 3, seed=0)) == first
    assert list(ShuffledBatches([1.0] * 10, 3, seed=1)) != first


def test_an_epoch_can_be_taken_up_in_the_middle():
    whole = ShuffledBatches([1.0] * 10, 3, seed=0)
    epochs = [list(whole) for _ in range(3)]
    resumed = ShuffledBatches([1.0] * 10, 3, seed=0)
    resumed.epoch, resumed.start = 1, 2
    assert list(resumed) == epochs[1][2:]
    assert list(resumed) == epochs[2]
    assert len(resumed) == 4


def test_what_the_model_sees_does_not_depend_on_the_cache():
    kept, anew = EncodedItems(items(4), encode, cache_mb=64), EncodedItems(items(4), encode, cache_mb=0)
    for _ in range(2):
        for index in range(4):
            assert torch.equal(kept[index].image["pixel_values"], anew[index].image["pixel_values"])
    assert len(kept.kept) == 4
    assert not anew.kept


def test_the_cache_keeps_what_fits():
    data = EncodedItems(items(30), encode, cache_mb=1)  # 128 KB each as float16
    for index in range(30):
        assert data[index] is not None
    assert len(data.kept) == 7


def test_loaders_give_batches_and_items():
    data = DataModule(
        train=items(5), val=items(3), predict=items(4), encode=encode, pad_id=0, batch_size=2, predict_batch_size=3, seed=0, workers=0, cache_mb=1
    )
    assert [len(batch.input_ids) for batch in data.train_dataloader()] == [2, 2, 1]
    assert [batch.input_ids[:, 1].tolist() for batch in data.val_dataloader()] == [[0, 1], [2]]
    assert [[item.record.image for item in batch] for batch in data.predict_dataloader()] == [["0.png", "1.png", "2.png"], ["3.png"]]


def test_a_weight_says_how_often_an_epoch_shows_an_item():
    weights = [1.0] * 8 + [2.5] * 4 + [0.25] * 8
    batches = ShuffledBatches(weights, 4, seed=0)
    epochs = [Counter(chain(*batches)) for _ in range(6)]
    assert items_an_epoch(weights) == 8 + 10 + 2
    assert len(batches) == 5
    for shown in epochs:
        assert all(shown[item] == 1 for item in range(8))
        assert sorted(shown[item] for item in range(8, 12)) == [2, 2, 3, 3]
        assert sum(shown[item] for item in range(12, 20)) == 2
    assert len({tuple(item for item in range(12, 20) if shown[item]) for shown in epochs}) > 1, "which of them is drawn anew each epoch"


def test_a_weighted_epoch_can_be_taken_up_in_the_middle():
    weights = [1.0, *[0.5] * 20, 2.0]  # of 20 items 10: which, chance would hit once in 184,756 times
    whole = ShuffledBatches(weights, 2, seed=3)
    epochs = [list(whole) for _ in range(3)]
    resumed = ShuffledBatches(weights, 2, seed=3)
    resumed.epoch, resumed.start = 2, 1
    assert list(resumed) == epochs[2][1:]


# items of similar length in a batch

LENGTHS = [20 + (37 * item) % 101 for item in range(1003)]
"""20 to 120, as mixed up as chance would have them."""


def padded(batches):
    """Share of the places of all rows that hold no token."""
    return 1 - sum(LENGTHS[item] for item in chain(*batches)) / sum(len(batch) * max(LENGTHS[item] for item in batch) for batch in batches)


def by_length(size=8, **options):
    return ShuffledBatches([1.0] * 1003, size, seed=3, lengths=LENGTHS, **options)


def test_batches_by_length_pad_little_and_hold_every_item_once():
    plain, grouped = list(ShuffledBatches([1.0] * 1003, 8, seed=3)), list(by_length())
    assert sorted(chain(*grouped)) == list(range(1003))
    assert list(map(len, grouped)) == list(map(len, plain)) == [8] * 125 + [3]
    assert padded(plain) > 0.3
    assert padded(grouped) < 0.03


def test_by_length_is_another_order_of_what_is_near_and_no_other():
    """Who learns early and who late is left to chance: each window has the items that it would have, and none is sorted as a whole."""
    batches = by_length()
    for _ in range(2):
        plain = ShuffledBatches([1.0] * 1003, 8, seed=3)
        plain.epoch = batches.epoch
        one, other = list(batches), list(plain)
        for start in range(0, 125, WINDOW):
            assert set(chain(*one[start : start + WINDOW])) == set(chain(*other[start : start + WINDOW]))
        assert one[-1] == other[-1], "the smaller batch at the end is drawn from all lengths"
        middle = [LENGTHS[batch[4]] for batch in one[:WINDOW]]
        assert middle not in (sorted(middle), sorted(middle, reverse=True))


def test_equal_lengths_meet_by_chance():
    batches = ShuffledBatches([1.0] * 64, 8, seed=0, lengths=[5] * 64)
    first, second = list(batches), list(batches)
    assert {frozenset(batch) for batch in first} != {frozenset(batch) for batch in second}


def test_by_length_too_an_epoch_can_be_taken_up_in_the_middle():
    whole = by_length()
    epochs = [list(whole) for _ in range(2)]
    assert epochs[0] != epochs[1]
    resumed = by_length()
    resumed.epoch, resumed.start = 1, 57
    assert list(resumed) == epochs[1][57:]


def test_by_length_weights_hold():
    weights = [2.5 if item % 3 else 0.5 for item in range(1003)]
    plain, grouped = ShuffledBatches(weights, 8, seed=1), ShuffledBatches(weights, 8, seed=1, lengths=LENGTHS)
    assert len(plain) == len(grouped)
    assert Counter(chain(*grouped)) == Counter(chain(*plain))


def test_processes_share_a_batch_of_similar_lengths():
    alone = list(by_length(size=8))
    shares = [list(by_length(size=4, rank=rank, world=2)) for rank in range(2)]
    assert [sorted(one + other) for one, other in zip(*shares, strict=True)] == [sorted(batch) for batch in alone]


def test_the_loader_groups_where_it_is_told_to():
    def orders(group):
        texts = [Item(item.record, ("x" * LENGTHS[number],)) for number, item in enumerate(items(1003))]
        data = DataModule(
            train=texts, val=[], predict=[], encode=lambda item: Encoded([1] * len(item.descriptions[0]), [2]), pad_id=0, batch_size=8,
            predict_batch_size=1, seed=3, workers=0, cache_mb=0, length=(lambda item: len(item.descriptions[0])) if group else None,
        )  # fmt: skip
        return [batch.attention_mask for batch in data.train_dataloader()]

    for group, most in ((False, 1.0), (True, 0.03)):
        share = 1 - float(sum(mask.sum() for mask in orders(group))) / sum(mask.numel() for mask in orders(group))
        assert share < most
    assert share > 0


# loading


def module(workers):
    return DataModule(
        train=items(20), val=items(2), predict=[], encode=encode, pad_id=0, batch_size=2, predict_batch_size=1, seed=0, workers=workers, cache_mb=1
    )


def test_processes_that_load_prepare_ahead_and_stay(monkeypatch):
    given = []
    monkeypatch.setattr("biqa.data.module.DataLoader", lambda *_, **options: given.append(options))
    module(2).train_dataloader()
    module(0).train_dataloader()
    assert given[0]["prefetch_factor"] == AHEAD
    assert given[0]["persistent_workers"]
    assert "prefetch_factor" not in given[1], "torch refuses it where nobody prepares ahead"


def test_they_load_the_same_batches():
    alone, helped = (list(module(workers).train_dataloader()) for workers in (0, 2))
    assert len(alone) == 10
    for one, other in zip(alone, helped, strict=True):
        assert torch.equal(one.input_ids, other.input_ids)
        assert torch.equal(one.image["pixel_values"], other.image["pixel_values"])


@pytest.mark.parametrize(("device", "pinned"), [("cuda", True), ("cpu", False)])
def test_memory_is_pinned_for_a_gpu_alone(device, pinned, monkeypatch):
    given = []
    monkeypatch.setattr("biqa.data.module.DataLoader", lambda *_, **options: given.append(options))
    data = module(0)
    data.trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device(device)))
    data.train_dataloader()
    data.val_dataloader()
    assert [options["pin_memory"] for options in given] == [pinned, pinned]


def test_torch_pins_a_whole_batch(monkeypatch):
    """torch's loader asks a batch to pin itself; here there is no GPU to pin for, so a copy stands in for it."""
    from torch.utils.data._utils.pin_memory import pin_memory

    batch = next(iter(module(0).train_dataloader()))
    asked = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda value: asked.append(value) or value.clone())
    made = pin_memory(batch)
    tensors = [value for value in vars(batch).values() if isinstance(value, torch.Tensor)] + list(batch.image.values())
    assert {id(value) for value in asked} == {id(value) for value in tensors}
    assert made is not batch
    assert torch.equal(made.image["pixel_values"], batch.image["pixel_values"])
    assert made.examples is batch.examples


def test_a_batch_moves_without_waiting(monkeypatch):
    batch = next(iter(module(0).train_dataloader()))
    asked = []
    monkeypatch.setattr(torch.Tensor, "to", lambda value, device, **options: asked.append(options) or value)
    module(0).transfer_batch_to_device(batch, torch.device("cpu"), 0)
    assert asked
    assert all(options == {"non_blocking": True} for options in asked)
