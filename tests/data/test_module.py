"""The order of the images is a function of seed and epoch, and can be taken up anywhere."""

from collections import Counter
from itertools import chain
from pathlib import Path

import torch

from biqa.data.collate import Encoded
from biqa.data.module import DataModule, EncodedItems, Item, ShuffledBatches, items_an_epoch
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
