"""Which texts share a row: all are there once, no row is longer than the longest text, and rows are few."""

from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from biqa.data.packing import first_fit

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=40)


def fewest(lengths):
    """Rows that are needed, by trying every arrangement."""
    for rows in range(1, len(lengths) + 1):
        for places in product(range(rows), repeat=len(lengths)):
            if all(sum(length for length, place in zip(lengths, places, strict=True) if place == row) <= max(lengths) for row in range(rows)):
                return rows
    raise AssertionError


@given(LENGTHS)
def test_every_text_is_in_one_row_and_no_row_too_long(lengths):
    rows = first_fit(lengths)
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    assert all(row and sum(lengths[index] for index in row) <= max(lengths) for row in rows)


@given(LENGTHS)
def test_what_begins_a_row_fits_into_none_before_it(lengths):
    rows = first_fit(lengths)
    free = [max(lengths) - sum(lengths[index] for index in row) for row in rows]
    if len(rows) < len(lengths):
        assert all(lengths[row[0]] > max(free[:place], default=0) for place, row in enumerate(rows))


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_there_are_few_rows(lengths):
    assert len(first_fit(lengths)) <= 11 / 9 * fewest(lengths) + 1


@given(st.lists(st.integers(31, 60), min_size=1, max_size=40))
def test_where_no_two_fit_each_has_its_own_in_order(lengths):
    assert first_fit(lengths) == [[index] for index in range(len(lengths))]


@given(LENGTHS)
def test_the_same_lengths_give_the_same_rows(lengths):
    assert first_fit(lengths) == first_fit(list(lengths))


def test_an_example():
    assert first_fit([3, 10, 4, 6, 2]) == [[1], [3, 2], [0, 4]]
