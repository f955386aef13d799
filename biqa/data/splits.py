"""Seeded splits by group, splits that must not be empty, and the fingerprint of a data set."""

import hashlib
from collections import Counter
from collections.abc import Sequence

from biqa.data.record import SPLITS, Record, Split
from biqa.errors import EmptySplit, IncompatibleChoice


def split_by_group(groups: Sequence[str], *, val_share: float, test_share: float, seed: int) -> list[Split]:
    """A seeded random split that keeps every group on one side.

    The groups are ordered by a hash of seed and name, and the first ones go to test, then val, then train. So the split depends neither on the
    order of the rows nor on the version of a random generator.

    Args:
        groups: the group of each image: its reference, or its own name.
        val_share: share of all groups held out for validation, in [0, 1).
        test_share: share of all groups held out for test, in [0, 1); 0.2 is the field's 80/20 convention, `val_share` comes out of the 80.
        seed: draws the split.

    Returns:
        The split of each image. A share above 0 gets at least one group as long as there are three or more.

    Raises:
        IncompatibleChoice: a share is negative, or together they leave nothing to train on.
    """
    if val_share < 0 or test_share < 0 or val_share + test_share >= 1:
        raise IncompatibleChoice(
            f"data.val_share={val_share} and data.test_share={test_share}: choose shares of at least 0 that sum to less than 1, "
            f"so that images stay to train on."
        )
    order = sorted(set(groups), key=lambda group: hashlib.sha256(f"{seed}:{group}".encode()).digest())
    test = _count(test_share, len(order))
    val = _count(val_share, len(order))
    side: dict[str, Split] = {group: "test" if i < test else "val" if i < test + val else "train" for i, group in enumerate(order)}
    return [side[group] for group in groups]


def _count(share: float, groups: int) -> int:
    return max(round(share * groups), int(share > 0 and groups >= 3))


def require_split(records: Sequence[Record], split: Split) -> list[Record]:
    """The records of one split.

    Raises:
        EmptySplit: there is none; the message counts the others.
    """
    chosen = [record for record in records if record.split == split]
    if not chosen:
        counts = Counter(record.split for record in records)
        has = ", ".join(f"{name} {counts[name]}" for name in SPLITS)
        raise EmptySplit(
            f"The {split} split holds no image (of {len(records)}: {has}). Label some rows of the split column {split}, "
            f"or leave the column out and hold out more with data.val_share= and data.test_share=; data.on_bad_image=skip may have emptied it."
        )
    return chosen


def fingerprint(records: Sequence[Record]) -> str:
    """Hash of image names, scores and splits, 12 hex digits: equal for the same labels in any order of the rows, wherever the files lie."""
    lines = sorted(f"{record.image}\t{record.score!r}\t{record.split}\n" for record in records)
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:12]
