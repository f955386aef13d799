"""The smallest input of every fault that fuzzing has found: each raised another error than biqa's, hung, or was taken for something else."""

import io
import json
import signal
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from openpyxl import Workbook

from biqa.data.conversations import read_entries
from biqa.data.images import load_image
from biqa.data.labels_json import LabelsJson
from biqa.data.live import LINE
from biqa.data.record import Reduction
from biqa.data.rows import read_rows, read_sheet
from biqa.data.survey import look_at, survey
from biqa.data.table import Table
from biqa.errors import BadRecord, DatasetNotFound, RunExists, UserError
from biqa.evaluation.answers import read_answers, write_answers
from biqa.evaluation.evaluate import evaluate
from biqa.reporting.result import read_result
from biqa.runs import RunFolder

pytest_plugins = ["fabrication"]


@pytest.fixture(autouse=True)
def two_seconds() -> Iterator[None]:
    """Of the processor, for each of these."""

    def late(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, 2)
    yield
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.signal(signal.SIGPROF, before)


def table(file: Path, **options: Any) -> list[Any]:
    return Table(**({"file": file, "low": 1, "high": 5} | options)).records()


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("a.csv", "image,mos\n" + "x" * 500 + ",1\n", {}, r"row 2: the image .*x\.\.\. is missing"),  # OSError: File name too long
        ("a.csv", "image,mos\na.png,3_5\n", {"on_bad_image": "skip"}, r'row 2: "3_5" in column mos is not a number'),  # 35
        (
            "a.csv",
            'image,mos\na.png,"' + "1 " * 3000 + '"\n',
            {"on_bad_image": "skip"},
            r': "1 1 1 [1 ]{74}\.\.\." in column mos is not',
        ),  # all of it
        (
            "a.jsonl",
            '{"image": "\\ud800", "mos": 1}',
            {"on_bad_image": "skip"},
            r"row 1: half of a letter stands there \('\\ud800'\)",
        ),  # UnicodeEncodeError
        ("a.jsonl", '{"image": "a.png", "mos": 1, "mos": 5}', {}, r"row 1: .*the key mos stands twice in one object"),  # 5
        ("a.jsonl", '{"image": "a.png", "mos": ' + "9" * 5000 + "}", {}, r"row 1: cannot be read as JSON \(Exceeds the limit"),  # ValueError
        ("a.json", "[" * 200_000, {}, r"a\.json: cannot be read as JSON \(maximum recursion"),  # RecursionError
    ],
    ids=range(7),
)
def test_a_table(tmp_path: Path, name: str, content: str, options: dict[str, Any], message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(BadRecord, match=message) as told:
        table(tmp_path / name, **options)
    assert len(str(told.value)) < 1000


def test_a_table_with_a_long_name(tmp_path: Path) -> None:
    for read in (lambda file: read_rows(file, []), read_entries):  # OSError: File name too long
        with pytest.raises(DatasetNotFound, match="there is no such file"):
            read(tmp_path / ("x" * 256 + ".json"))


def test_a_picture_whose_box_says_that_it_has_two_gigabytes(tmp_path: Path) -> None:
    """Python made room for as many."""
    head = b"\x00\x00\x00\x0cjP  \r\n\x87\n" + b"\x00\x00\x00\x14ftypjp2 \x00\x00\x00\x00jp2 "
    (tmp_path / "a.png").write_bytes(head + (2**31 - 1).to_bytes(4, "big") + b"jp2h" + bytes(100))
    tracemalloc.start()
    with pytest.raises(BadRecord, match=r"a\.png: cannot be decoded"):
        load_image(tmp_path / "a.png")
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 2**25


def test_an_image_with_a_zero_byte_in_its_name(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"image,mos\na\0.png,1\nb\0.png,2\n")
    [record, _] = table(tmp_path / "a.csv", on_bad_image="skip")
    with pytest.raises(BadRecord, match="cannot be decoded"):
        load_image(record.path, Reduction(16, tmp_path))  # ValueError: embedded null byte
    assert look_at(record.path, ()).problem
    [look] = survey([record.path], (), cache=tmp_path)  # likewise
    assert look.problem


@pytest.mark.parametrize(
    ("entry", "options", "message"),
    [
        (
            {"image": "b.png", "gt_score": 3},
            {"group": "^(a)|b"},
            r"data\.group=\^\(a\)\|b finds nothing in the file name of b\.png",
        ),  # AttributeError
        ({"image": "b.png", "gt_score": "3_5"}, {}, r"'3_5' under gt_score is not a number"),  # 35
        ({"image": "b.png", "gt_score": "x" * 5000}, {}, r"^.{1,300}'x{79}\.\.\. under gt_score is not a number"),
    ],
    ids=range(3),
)
def test_label_files(tmp_path: Path, entry: dict[str, Any], options: dict[str, Any], message: str) -> None:
    (tmp_path / "a.json").write_text(json.dumps([entry]))
    with pytest.raises(BadRecord, match=message):
        LabelsJson(train=tmp_path / "a.json", root=tmp_path, low=1, high=5, direction="mos", on_bad_image="skip", **options).records()


def test_a_long_number_in_an_info_file_of_live() -> None:
    assert LINE.fullmatch("a img1.bmp " + "1" * 100_000 + "x") is None  # minutes


def test_a_sheet_whose_row_has_any_number(tmp_path: Path) -> None:
    """The reader makes up the rows before it: for minutes, or until memory ends."""
    workbook = Workbook()
    workbook.active.append(["name"])
    workbook.active.append(["a.png"])
    made = io.BytesIO()
    workbook.save(made)
    with zipfile.ZipFile(made) as archive, zipfile.ZipFile(tmp_path / "a.xlsx", "w") as changed:
        for name in archive.namelist():
            changed.writestr(name, archive.read(name).replace(b'<row r="2"', b'<row r="4294967295"'))
    with pytest.raises(BadRecord, match=r"a\.xlsx: the sheet has more than 500,000 places for cells"):
        read_sheet(tmp_path / "a.xlsx", "Sheet", ["name"])


def test_what_the_reader_of_workbooks_says_is_cut(tmp_path: Path) -> None:
    """It quotes the name that stands in the file: all of it, up to 64 kB."""
    with zipfile.ZipFile(tmp_path / "a.xlsx", "w") as archive:
        archive.writestr("[Content_Types].xml", "")
    whole = (tmp_path / "a.xlsx").read_bytes()
    (tmp_path / "a.xlsx").write_bytes(whole[:26] + (60_000).to_bytes(2, "little") + whole[28:30] + b"x" * 60_000 + whole[30:])
    with pytest.raises(BadRecord, match=r"a\.xlsx: cannot be read as a workbook") as told:
        read_sheet(tmp_path / "a.xlsx", "Sheet", ["name"])
    assert len(str(told.value)) < 1000


@pytest.fixture
def run(fabricate: Callable[..., Path], tmp_path: Path) -> RunFolder:
    """A finished run."""
    return RunFolder(fabricate(tmp_path, "one", "joint", images=3, repeats=2))


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("run", 3), ("run.name", None), ("run.data", {}), ("seed", "0"), ("seed", True), ("metrics", []), ("metrics.synthetic", 1.0),
        ("metrics.synthetic.srcc", 0.5), ("metrics.synthetic.srcc.value", {}), ("metrics.synthetic.srcc.low", "high"), ("metrics.synthetic.srcc", {}),
        ("metrics.synthetic.srcc.value", 10**400), ("sampling", {}), ("sampling.repeats", "ten"), ("data", {}), ("data.synthetic", {}),
        ("data.synthetic.images", None), ("seconds", [1]), ("seconds.fit", "long"), ("hardware", None), ("config", "x"),
    ],
)  # fmt: skip
def test_a_result_that_holds_something_else(run: RunFolder, place: str, value: object) -> None:
    """Each ended in a TypeError, KeyError, AttributeError or OverflowError when it was shown."""
    result = json.loads(run.result.read_text())
    *way, last = place.split(".")
    inside = result
    for key in way:
        inside = inside[key]
    inside[last] = value
    run.result.write_text(json.dumps(result))
    with pytest.raises(BadRecord, match=r"result\.json: .*\. Was the file edited\? Run that run again"):
        read_result(run.result)


def test_a_result_of_brackets(run: RunFolder) -> None:
    run.result.write_text("[" * 200_000)
    with pytest.raises(BadRecord, match="is not valid JSON"):
        read_result(run.result)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("query", 2**40, r"needs the queries 0\.\."),  # MemoryError
        ("query", -5, r"needs the queries 0\.\."),  # IndexError where all are
        ("score", float("inf"), r"has a score outside 0\.\.1"),  # RuntimeWarning, and NaN
        ("p_good", 7.0, r"has a level distribution that does not sum to 1"),  # taken
    ],
)
def test_an_answers_table_with_any_number(run: RunFolder, column: str, value: float, message: str) -> None:
    answers = read_answers(run.answers("synthetic"))
    for rows in (slice(None), slice(0, 1)):
        changed = answers.copy()
        changed.loc[changed.index[rows], column] = value
        with pytest.raises(BadRecord, match=message):
            evaluate(changed, resamples=5)


@pytest.mark.parametrize("column", ["query", "score", "q", "p_bad", "image", "dataset"])
def test_an_answers_table_with_words_for_numbers(run: RunFolder, column: str) -> None:
    file = run.answers("synthetic")
    answers = read_answers(file)
    answers[column] = [b"x"] * len(answers)
    write_answers(answers, file)
    with pytest.raises(BadRecord, match=rf"synthetic\.parquet: the column {column} holds something else than an answers table does"):
        read_answers(file)  # TypeError, UFuncTypeError, ValueError


def test_a_flipped_bit_in_the_numbers_of_an_answers_table_is_noticed(run: RunFolder) -> None:
    """Nothing else would notice it: one figure would be another."""
    file = run.answers("synthetic")
    whole = file.read_bytes()
    before = read_answers(file)
    end = int.from_bytes(whole[-8:-4], "little")
    told = 0
    for byte in range(4, len(whole) - 8 - end, 41):
        file.write_bytes(whole[:byte] + bytes([whole[byte] ^ 16]) + whole[byte + 1 :])
        try:
            assert read_answers(file).equals(before), f"byte {byte}"
        except UserError:
            told += 1
    assert told > 10


@pytest.mark.parametrize(
    "text",
    [
        "stage: 3",
        "stage: [_target_]",
        "stage: _target_",
        "null: {}",
        "stage: {_target_: 5}",
        "- " * 3,
        "? [a]\n: b",
        "a: !!timestamp 2020-99-99",
        "&a [*a]",
    ],
)
def test_a_config_of_something_else(run: RunFolder, text: str) -> None:
    """TypeError, KeyValidationError, ValueError; or taken for a config."""
    run.config.write_text(text)
    with pytest.raises(RunExists, match=r"config\.yaml (cannot be read|is no config of a run of biqa)"):
        run.read_config()
