"""Two run folders held against each other: files and rows that one of them lacks are differences too."""

import pandas as pd
import pytest

from biqa.reporting.sameness import ABSENT, same_tables, same_weights


@pytest.fixture
def folders(tmp_path):
    """Two runs with the same weights and answers."""
    for run in ("then", "now"):
        for name in ("model/model.safetensors", "regression.safetensors"):
            (tmp_path / run / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / run / name).write_bytes(name.encode())
        (tmp_path / run / "answers").mkdir()
        pd.DataFrame({"image": ["a", "b"], "score": [0.25, None]}).to_parquet(tmp_path / run / "answers" / "x.parquet")
    return tmp_path / "then", tmp_path / "now"


def test_all_that_was_learnt_is_compared(folders):
    then, now = folders
    assert {one.what: one.same for one in same_weights(then, now)} == {"model/model.safetensors": True, "regression.safetensors": True}
    (now / "regression.safetensors").write_bytes(b"x")
    (now / "model" / "model.safetensors").unlink()
    model, regression = same_weights(then, now)
    assert (model.same, model.told.partition(" then, ")[2]) == (False, f"{ABSENT} now")
    assert not regression.same
    assert [one.what for one in same_weights(now, now)] == ["regression.safetensors"]


def test_rows_are_counted_that_differ(folders):
    then, now = folders
    [same] = same_tables(then, now)
    assert (same.what, same.same, same.told) == ("answers/x.parquet", True, "2 rows")
    pd.DataFrame({"image": ["a", "b"], "score": [0.75, None]}).to_parquet(now / "answers" / "x.parquet")
    [other] = same_tables(then, now)
    assert (other.same, other.told) == (False, "1 of 2 rows differ, scores by up to 0.5")
    pd.DataFrame({"image": ["a"], "score": [0.25]}).to_parquet(now / "answers" / "x.parquet")
    assert next(same_tables(then, now)).told == "2 rows then, 1 now"
    (now / "answers" / "x.parquet").unlink()
    [gone] = same_tables(then, now)
    assert (gone.same, gone.told) == (False, f"only in {then}")
