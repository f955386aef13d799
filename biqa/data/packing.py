"""Which texts share a row, so that a batch of texts of different length pads little."""

from collections.abc import Sequence


def first_fit(lengths: Sequence[int]) -> list[list[int]]:
    """Rows of indices, none longer than the longest text: first-fit decreasing (Johnson 1973), at most 11/9 of the fewest rows, and 1 more.

    Where that saves no row, each text has its own, in order. Equal lengths give equal rows.
    """
    room, rows = [], []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        row = next((row for row, free in enumerate(room) if lengths[index] <= free), len(rows))
        if row == len(rows):
            rows.append([])
            room.append(max(lengths))
        rows[row].append(index)
        room[row] -= lengths[index]
    return rows if len(rows) < len(lengths) else [[index] for index in range(len(lengths))]
