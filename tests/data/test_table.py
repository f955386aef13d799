"""Tables of one's own, and the rows they are read from."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from biqa.data.rows import read_rows
from biqa.data.table import Table
from biqa.errors import BadRecord, DatasetNotFound, IncompatibleChoice


def write(place: Path, text: str, name: str = "scores.csv", images: tuple[str, ...] = ("a.png", "b.png", "c.png")) -> Path:
    for image in images:
        Image.new("RGB", (4, 4)).save(place / image)
    (place / name).write_text(text, encoding="utf-8")
    return place / name


def table(file: Path, **options: Any) -> Table:
    return Table(**({"file": file, "low": 1, "high": 5} | options))


PLAIN = "image,mos\na.png,1\nb.png, 3.0 \nc.png,5\n"


def test_a_plain_csv(tmp_path: Path) -> None:
    source = table(write(tmp_path, PLAIN))
    records = source.records()
    assert [(r.image, r.q, r.score, r.group, r.path) for r in records] == [
        (name, q, score, name, tmp_path / name) for name, q, score in (("a.png", 0, 1), ("b.png", 0.5, 3), ("c.png", 1, 5))
    ]
    assert Counter(r.split for r in records) == {"train": 1, "val": 1, "test": 1}
    assert (source.card.name, source.card.low, source.card.high) == ("scores", 1, 5)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("s.csv", "\ufeff" + PLAIN),
        ("s.tsv", PLAIN.replace(",", "\t")),
        ("s.CSV", PLAIN.replace("\n", "\r\n")),
        ("s.jsonl", '{"image": "a.png", "mos": 1}\n\n{"image": "b.png", "mos": "3.0"}\n{"image": "c.png", "mos": 5}\n'),
        ("s.json", '[{"image": "a.png", "mos": 1}, {"image": "b.png", "mos": "3"}, {"image": "c.png", "mos": 5.0}]'),
    ],
)
def test_every_kind_of_file_reads_the_same(tmp_path: Path, name: str, text: str) -> None:
    assert [(r.image, r.q) for r in table(write(tmp_path, text, name)).records()] == [("a.png", 0), ("b.png", 0.5), ("c.png", 1)]


def test_all_columns_by_name(tmp_path: Path) -> None:
    text = "file,dmos,sd,set,ref,sharp\nimg/a.png,10,5,Training,r1,0.25\nimg/b.png,90,,VALID,r2,1e1\nimg/c.png,50,0,testing,r3,-3\n"
    (tmp_path / "img").mkdir()
    file = write(tmp_path, text, images=("img/a.png", "img/b.png", "img/c.png"))
    columns = {"image": "file", "score": "dmos", "std": "sd", "split": "set", "group": "ref", "features": ["sharp"]}
    records = table(file, low=0, high=100, direction="dmos", name="mine", **columns).records()
    assert [(r.q, r.q_std, r.split, r.group, r.attributes) for r in records] == [
        (pytest.approx(0.9), 0.05, "train", "r1", {"sharp": 0.25}),
        (pytest.approx(0.1), None, "val", "r2", {"sharp": 10}),
        (0.5, 0, "test", "r3", {"sharp": -3}),
    ]


def test_images_elsewhere_with_names_in_any_script(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    file = write(tmp_path, 'image,mos\n"Käse, süß.png",2\n猫.png,3\n', images=("photos/Käse, süß.png", "photos/猫.png"))
    records = table(file, root=tmp_path / "photos").records()
    assert [r.image for r in records] == ["Käse, süß.png", "猫.png"]


def test_a_random_split_keeps_groups_together(tmp_path: Path) -> None:
    names = [f"{i}.png" for i in range(60)]
    file = write(tmp_path, "image,mos,ref\n" + "".join(f"{name},3,r{i % 12}\n" for i, name in enumerate(names)), images=tuple(names))
    records = table(file, group="ref", val_share=0.25, test_share=0.25).records()
    assert Counter(r.split for r in records) == {"train": 30, "val": 15, "test": 15}
    assert len({(r.group, r.split) for r in records}) == 12


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("image,mos\na.png,n/a\n", {}, r'scores\.csv, row 2: "n/a" in column mos is not a number\. Correct it'),
        ("image,mos\na.png,1\nb.png,\n", {}, r'row 3: "" in column mos is not a number'),
        ('image,mos\na.png,"3,5"\n', {}, r'row 2: "3,5" in column mos is not a number\. Write a decimal point'),
        ("image,mos\na.png,nan\n", {}, r"row 2, column mos: score nan is not within the scale 1\.\.5 of scores"),
        ("image,mos\na.png,5.5\n", {}, r"row 2, column mos: score 5\.5 is not within the scale 1\.\.5"),
        ("image,mos\na.png,1\nb.png,2\na.png,3\n", {}, r"row 4: the image a\.png stands in .*row 2 already"),
        ("image,mos\n,1\n", {}, r"row 2: the column image is empty"),
        ("image,mos\na.png,1\nz.png,1\n", {}, r"row 3: the image .*z\.png is missing\. Set data\.root="),
        ("image,mos,split\na.png,1,dev\n", {"split": "split"}, r'row 2, column split: "dev" is no split\. Write one of train, training, val'),
        (
            "image,mos,split,ref\na.png,1,train,r\nb.png,1,test,r\n",
            {"split": "split", "group": "ref"},
            r"row 3: the group r lies in train and in test",
        ),
        ("image,mos,sd\na.png,1,9\n", {"std": "sd"}, r"row 2, column sd: a standard deviation of 9 cannot be on a scale of 1\.\.5"),
        ("image,mos,sd\na.png,1,nan\n", {"std": "sd"}, r"column sd: a standard deviation of nan"),
        ("image,mos,sharp\na.png,1,high\n", {"features": ["sharp"]}, r'row 2: "high" in column sharp is not a number'),
        ("image,mos\na.png,1,2\n", {}, r"row 2: 3 cells under a header of 2"),
        ("image,mos\n\n", {}, r"the file has no rows"),
        ("", {}, r"the file has no rows"),
    ],
)
def test_an_unusable_row_is_named(tmp_path: Path, text: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRecord, match=message):
        table(write(tmp_path, text), **options).records()


def test_missing_columns_are_listed_with_those_found(tmp_path: Path) -> None:
    file = write(tmp_path, "name;score\na.png;1\n")
    with pytest.raises(DatasetNotFound, match=r"no column image, mos, ref; found name;score"):
        table(file, group="ref").records()


@pytest.mark.parametrize(("name", "message"), [("none.csv", "there is no such file"), ("scores.xlsx", 'the ending ".xlsx" is not known')])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, message: str) -> None:
    write(tmp_path, PLAIN, "scores.xlsx")
    with pytest.raises(DatasetNotFound, match=message):
        table(tmp_path / name).records()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "image,mos\nKäse.png,1\n".encode("latin-1"), r"a\.csv: the text is not UTF-8 .*Save it as UTF-8"),
        ("a.jsonl", b'{"image": "a.png"}\n{"image": \n', r"a\.jsonl, row 2: not JSON"),
        ("a.jsonl", b'["a.png", 1]\n', r"a\.jsonl, row 1: not an object with keys"),
        ("a.json", b'{"image": "a.png"}', r"a\.json: a \.json file must hold a list of objects"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadRecord, match=message):
        read_rows(tmp_path / name, ["image"])


def test_nothing_is_lost_between_json_and_words(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"image": " ü ", "mos": None, "n": 0.1}))
    [row] = read_rows(tmp_path / "a.jsonl", ["image"])
    assert row.cells == {"image": "ü", "mos": "", "n": "0.1"}
    assert row.where == f"{tmp_path / 'a.jsonl'}, row 1"


def test_missing_images_can_be_left_to_the_check(tmp_path: Path) -> None:
    file = write(tmp_path, "image,mos\na.png,1\nz.png,1\n")
    assert [r.path.is_file() for r in table(file, on_bad_image="skip").records()] == [True, False]


def test_a_scale_must_have_two_ends_and_a_direction(tmp_path: Path) -> None:
    with pytest.raises(IncompatibleChoice, match=r"data\.low=5 and data\.high=1"):
        table(tmp_path / "a.csv", low=5, high=1)
    with pytest.raises(IncompatibleChoice, match=r"data\.direction=up is not known: choose mos .* or dmos"):
        table(tmp_path / "a.csv", direction="up")
