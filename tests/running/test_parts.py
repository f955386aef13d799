import pandas as pd
import pytest

from biqa.running.parts import RowsInParts, rows_in_parts


def all_of(work, make, table, key="k"):
    return sum(1 for _ in rows_in_parts(work, make, table, key))


def test_rows_come_in_order_and_parts_go(tmp_path):
    table = tmp_path / "t.parquet"
    assert all_of([3, 0, 2], lambda number: [{"piece": number, "at": at} for at in range(number)], table) == 3
    assert pd.read_parquet(table).values.tolist() == [[3, 0], [3, 1], [3, 2], [2, 0], [2, 1]]
    assert [path.name for path in tmp_path.iterdir()] == ["t.parquet"]


def test_a_killed_one_goes_on(tmp_path):
    table, made = tmp_path / "t.parquet", []

    def make(number):
        if number == 2 and len(made) == 2:
            raise KeyboardInterrupt
        made.append(number)
        return [{"piece": number}]

    with pytest.raises(KeyboardInterrupt):
        all_of([0, 1, 2, 3], make, table)
    assert not table.exists()
    made.append("again")
    all_of([0, 1, 2, 3], make, table)
    assert made == [0, 1, "again", 2, 3]
    assert pd.read_parquet(table)["piece"].tolist() == [0, 1, 2, 3]


def test_parts_of_other_work_are_not_taken(tmp_path):
    table = tmp_path / "t.parquet"
    work = rows_in_parts([0, 1], lambda number: [{"piece": number}], table, "old")
    next(iter(work))
    work.close()
    all_of([5], lambda number: [{"piece": number}], table, "new")
    assert pd.read_parquet(table)["piece"].tolist() == [5]
    assert [path.name for path in tmp_path.iterdir()] == ["t.parquet"]


def test_a_column_that_one_part_has_empty(tmp_path):
    table = tmp_path / "t.parquet"
    all_of([None, 0.5, 1.0], lambda right: [{"right": right, "name": "a"}], table)
    assert pd.read_parquet(table)["right"].fillna(-1).tolist() == [-1, 0.5, 1.0]


def test_nothing_to_write(tmp_path):
    table = tmp_path / "t.parquet"
    all_of([0], lambda _: [], table)
    assert len(pd.read_parquet(table)) == 0


def rows(*images):
    return [{"image": image, "query": query, "level": None if query else "good"} for image in images for query in range(2)]


def test_rows_of_images_are_there_again_in_a_new_process(tmp_path):
    parts = RowsInParts(tmp_path / "answers" / "a.parquet")
    assert parts.images() == set()
    parts.add(rows("b", "a"))
    parts.write()
    parts.add(rows("c"))
    parts.write()
    parts.add(rows("never written"))
    again = RowsInParts(tmp_path / "answers" / "a.parquet")
    assert again.images() == {"a", "b", "c"}
    again.add(rows("a", "d"))  # what fills up the share of another process
    again.write()
    assert again.rows() == {image: rows(image) for image in "bacd"}
    third = RowsInParts(tmp_path / "answers" / "a.parquet")
    assert third.images() == set("abcd")
    assert third.rows() == again.rows()
    third.clear()
    third.clear()
    assert list((tmp_path / "answers").iterdir()) == []


@pytest.mark.parametrize("damage", [b"", b"PAR1 nonsense", None])
def test_a_damaged_part_counts_as_not_made(tmp_path, damage):
    parts = RowsInParts(tmp_path / "a.parquet")
    for image in "ab":
        parts.add(rows(image))
        parts.write()
    first = tmp_path / "a.parts" / "000000.parquet"
    first.write_bytes(first.read_bytes()[:-20] if damage is None else damage)
    again = RowsInParts(tmp_path / "a.parquet")
    assert again.images() == {"b"}
    again.add(rows("a"))
    again.write()
    assert RowsInParts(tmp_path / "a.parquet").images() == {"a", "b"}
