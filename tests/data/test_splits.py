"""Splits by group, empty splits, fingerprints."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from biqa.data.record import Record, Split
from biqa.data.splits import fingerprint, require_split, split_by_group
from biqa.errors import EmptySplit, IncompatibleChoice


def record(image: str, split: Split = "train", score: float = 3.0) -> Record:
    return Record(image=image, path=Path(image), q=0.5, split=split, group=image, score=score)


@given(
    groups=st.lists(st.text(max_size=3), max_size=60),
    val=st.floats(0, 0.4),
    test=st.floats(0, 0.5),
    seed=st.integers(0, 2**40),
    order=st.randoms(use_true_random=False),
)
def test_no_group_lies_on_two_sides_and_the_order_of_rows_does_not_matter(
    groups: list[str], val: float, test: float, seed: int, order: object
) -> None:
    sides = split_by_group(groups, val_share=val, test_share=test, seed=seed)
    side = dict(zip(groups, sides, strict=True))
    assert [side[group] for group in groups] == sides
    shuffled = list(groups)
    order.shuffle(shuffled)  # pyright: ignore[reportAttributeAccessIssue]
    assert split_by_group(shuffled, val_share=val, test_share=test, seed=seed) == [side[group] for group in shuffled]


def test_shares_count_groups() -> None:
    sides = split_by_group([f"{i // 10}" for i in range(1000)], val_share=0.1, test_share=0.2, seed=0)
    assert [sides.count(split) for split in ("train", "val", "test")] == [700, 100, 200]


def test_three_groups_are_enough_for_three_splits() -> None:
    assert set(split_by_group(["a", "b", "c"], val_share=0.1, test_share=0.1, seed=1)) == {"train", "val", "test"}


def test_the_seed_draws_the_split_and_the_split_is_pinned() -> None:
    groups = [f"img{i}" for i in range(12)]
    drawn = {seed: split_by_group(groups, val_share=0.1, test_share=0.2, seed=seed) for seed in (0, 1)}
    assert drawn[0] != drawn[1]
    # by hand: sha256sum of "0:img0" .. "0:img11"; the smallest two are test, the next one val
    assert [(group, side) for group, side in zip(groups, drawn[0], strict=True) if side != "train"] == PINNED


PINNED = [("img6", "test"), ("img9", "test"), ("img11", "val")]


@pytest.mark.parametrize(("val", "test"), [(-0.1, 0.2), (0.5, 0.5), (0.2, -1.0)])
def test_shares_that_leave_nothing_to_train_on_are_refused(val: float, test: float) -> None:
    with pytest.raises(IncompatibleChoice, match=rf"data\.val_share={val} and data\.test_share={test}"):
        split_by_group(["a"], val_share=val, test_share=test, seed=0)


def test_a_split_is_picked_out_or_refused_with_the_counts() -> None:
    records = [record("a"), record("b", "test"), record("c")]
    assert [r.image for r in require_split(records, "train")] == ["a", "c"]
    with pytest.raises(EmptySplit, match=r"The val split holds no image \(of 3: train 2, val 0, test 1\).*data\.val_share="):
        require_split(records, "val")


def test_a_fingerprint_follows_labels_and_splits_but_not_order_or_place() -> None:
    records = [record("a"), record("b", "test", 4.25)]
    mark = fingerprint(records)
    assert len(mark) == 12
    assert fingerprint(records[::-1]) == mark
    assert fingerprint([replace(r, path=Path("/elsewhere")) for r in records]) == mark
    assert fingerprint([records[0], replace(records[1], score=4.26)]) != mark
    assert fingerprint([records[0], replace(records[1], split="val")]) != mark
    assert fingerprint([records[0], replace(records[1], image="c")]) != mark
