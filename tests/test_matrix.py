"""The matrix of versions: which releases a row asks for, and what is told of one that cannot be."""

import sys

import matrix
import pytest
from packaging.version import Version

TESTED = (matrix.ROOT / "constraints.txt").read_text(encoding="utf-8")


def test_the_lowest_row_has_the_floors_and_no_more():
    row = matrix.rows(any_torch=False)["lowest"]
    assert {pin.partition("==")[0] for pin in row.pins} == {"lightning", "transformers", "peft"}
    tested = dict(line.split("==") for line in TESTED.split() if "==" in line)
    for name, version in (pin.split("==") for pin in matrix.rows(any_torch=True)["lowest"].pins):
        assert Version(version) <= Version(tested[name])


def test_a_row_leaves_all_else_as_it_is_tested():
    left = matrix.constraints(("transformers==5.20.0",), TESTED)
    gone = set(TESTED.splitlines()) - set(left.splitlines())
    assert {line.partition("==")[0].lower() for line in gone} >= {"transformers", "tokenizers"}
    assert {"numpy", "lightning", "torch"} <= {line.partition("==")[0] for line in left.splitlines()}
    assert matrix.constraints((), TESTED) == TESTED


def test_a_python_that_is_not_there_is_told(tmp_path):
    assert matrix.install(matrix.Row("x", "python2.99"), tmp_path) == "there is no python2.99 on this machine"


@pytest.mark.parametrize("asked", [["nonsense"], ["lowest", "python3.99"]])
def test_a_row_that_is_not_known_is_refused(monkeypatch, capsys, asked):
    monkeypatch.setattr(sys, "argv", ["matrix.py", *asked])
    with pytest.raises(SystemExit, match="2"):
        matrix.main()
    assert f"there is no row {asked[-1]}: choose lowest, highest" in capsys.readouterr().err


def test_other_pythons_wait_to_be_asked_for_their_gigabytes(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["matrix.py", "python3.99"])
    monkeypatch.setattr(
        matrix, "rows", lambda any_torch: {"lowest": matrix.Row("lowest", "python3"), "python3.99": matrix.Row("python3.99", "python3.99")}
    )
    assert matrix.main() == 0
    assert "python3.99: not tried. torch for it may come with CUDA" in capsys.readouterr().out
