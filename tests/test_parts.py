import pandas as pd
import pytest

from biqa.parts import rows_in_parts


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
