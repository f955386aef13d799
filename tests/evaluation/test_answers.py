"""The answers table: what is written comes back, in its order and types, and what is none is refused within bounds."""

import re

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from biqa.errors import BadRecord
from biqa.evaluation import answers as table
from biqa.evaluation.answers import COLUMNS, NUMBERS, answers_frame, made_by, read_answers, read_table, refuse_other_qualities, write_answers


def row(image, query, **values):
    numbers = dict.fromkeys(NUMBERS, 0.25)
    return {"dataset": "d", "image": image, "query": query, "description": "It is blurred.", "level": "fair", "subset": None} | numbers | values


@pytest.fixture
def written(tmp_path):
    frame = answers_frame([row("b.png", 1), row("b.png", 0, level=None, score=np.nan), row("ä.png", 0, description=""), row("a.png", 0)])
    write_answers(frame, tmp_path / "a.parquet", weights="1234")
    return tmp_path / "a.parquet"


def test_what_is_written_comes_back_in_its_order(written):
    frame = read_answers(written)
    assert tuple(frame.columns) == COLUMNS
    assert list(zip(frame["image"], frame["query"], strict=True)) == [("a.png", 0), ("b.png", 0), ("b.png", 1), ("ä.png", 0)]
    assert frame["level"].isna().tolist() == frame["score"].isna().tolist() == [False, True, False, False]
    assert frame["description"].tolist() == ["It is blurred."] * 3 + [""]
    assert {str(frame[name].dtype) for name in NUMBERS} == {"float64"}
    assert made_by(written) == "1234"


def test_a_table_that_kept_no_weights(tmp_path):
    write_answers(answers_frame([row("a.png", 0)]), tmp_path / "a.parquet")
    assert made_by(tmp_path / "a.parquet") is None
    assert made_by(tmp_path / "none.parquet") is None
    (tmp_path / "torn.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:200])
    assert made_by(tmp_path / "torn.parquet") is None


def test_no_more_rows_are_read_than_the_bound(written, monkeypatch):
    monkeypatch.setattr(table, "MOST_ROWS", 4)
    assert len(read_table(written)) == 4
    monkeypatch.setattr(table, "MOST_ROWS", 3)
    with pytest.raises(
        BadRecord, match=rf"^{re.escape(str(written))}: 4 rows, and no more than 3 are read\. Run that run again with overwrite=true\.$"
    ):
        read_table(written)


@pytest.mark.parametrize("dictionary", [True, False])
def test_no_more_text_is_read_than_the_bound_although_the_file_is_small(tmp_path, monkeypatch, dictionary):
    file, texts = tmp_path / "a.parquet", ["x" * 2**20] * 3 + [None]
    pq.write_table(pa.table({"description": pa.array(texts, pa.large_string())}), file, compression="zstd", use_dictionary=dictionary)
    assert file.stat().st_size < 20_000
    monkeypatch.setattr(table, "MOST_MB", 3)
    assert read_table(file)["description"].str.len().tolist()[:3] == [2**20] * 3
    monkeypatch.setattr(table, "MOST_MB", 2)
    with pytest.raises(BadRecord, match=r"a\.parquet: 3 MB of text, and no more than 2 are read\. Run that run again"):
        read_table(file)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: f.drop(columns=["q", "score"]), r"columns score, q are missing; found dataset, image, .*Is this an answers table of biqa\?$"),
        (lambda f: f.assign(query="0"), r"the column query holds something else"),
        (lambda f: f.assign(query=0.5), r"the column query holds something else"),
        (lambda f: f.assign(score=1), r"the column score holds something else"),
        (lambda f: f.assign(image=3), r"the column image holds something else"),
        (lambda f: f.assign(dataset=None), r"the column dataset holds something else"),
    ],
)
def test_what_is_no_answers_table_is_refused(written, change, said):
    change(read_answers(written)).to_parquet(written, index=False)
    with pytest.raises(BadRecord, match=rf"^{re.escape(str(written))}: {said}"):
        read_answers(written)


def test_one_wrong_bit_changes_no_answer_in_silence(written):
    """Pages have checksums. What lies outside of them may change, as long as the table does not."""
    whole, content, refused = read_answers(written), written.read_bytes(), []
    for place in range(3, len(content), 41):
        written.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        try:
            pd.testing.assert_frame_equal(read_answers(written), whole)
        except BadRecord as error:
            refused.append(str(error))
    assert len(refused) > 50
    ends = ("Run that run again with overwrite=true.", "Is this an answers table of biqa?")
    assert all(said.startswith(f"{written}: ") and said.endswith(ends) for said in refused)


def test_a_table_that_is_not_there_is_told_in_a_sentence(tmp_path):
    with pytest.raises(BadRecord, match=r"none\.parquet: cannot be read \(FileNotFoundError: .{1,200}\)\. Run that run again"):
        read_answers(tmp_path / "none.parquet")


def test_answers_of_other_data_are_refused(tmp_path):
    answers = pd.DataFrame({"image": ["a.png", "a.png", "b.png"], "q": [0.5, 0.5, 0.25]})
    refuse_other_qualities(answers, {"a.png": 0.5, "b.png": 0.25, "c.png": 1.0}, tmp_path)
    with pytest.raises(BadRecord, match=r"image b\.png has quality 0\.25 in it and 0\.75 in the labels\. Answers of other data"):
        refuse_other_qualities(answers, {"a.png": 0.5, "b.png": 0.75}, tmp_path)
