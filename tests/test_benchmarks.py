"""Benchmarks still run, compare like with like, and report what they measured."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import plain, prepare
from biqa.data.survey import survey


def test_both_sides_of_prepare_find_the_same_in_the_images_that_it_makes(tmp_path: Path) -> None:
    paths = prepare.make_images(tmp_path / "images", 12)
    assert {path.suffix for path in paths} == {".jpg", ".png"}
    looks, figures = survey(paths, ("hash", "measured")), plain.prepare(paths)
    prepare.check_equal(looks, figures)
    measured = looks[3].measured
    assert measured is not None
    for other in (replace(looks[3], hash="0" * 16), replace(looks[3], measured=measured | {"noise": measured["noise"] * 1.00001})):
        with pytest.raises(AssertionError):
            prepare.check_equal([other], figures[3:4])


def test_prepare_runs_and_writes_the_ratios_of_its_rounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(prepare, "RESULTS", tmp_path / "results")
    monkeypatch.setattr("sys.argv", ["prepare", "--images", "6", "--rounds", "2"])
    prepare.main()
    result = json.loads((tmp_path / "results" / "prepare.json").read_text())
    ratios = [one["plain"] / one["biqa"] for one in result["rounds"]]
    assert (result["images"], len(ratios)) == (6, 2)
    assert result["ratio"] == pytest.approx(sum(ratios) / 2), "the median of two"
    assert (result["lowest"], result["highest"]) == (min(ratios), max(ratios))
    assert f"median ratio {result['ratio']:.2f}" in capsys.readouterr().out
