"""Benchmarks still run, compare like with like, and report what they measured."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import inside, plain, prepare, training_steps
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


def test_a_look_inside_is_timed_beside_plain_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(inside, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(inside, "TARGETS", {"logit_lens": 1.25})  # two processes less
    monkeypatch.setattr("sys.argv", ["inside", "--images", "10", "--rounds", "2", "--layers", "2", "--hidden", "32"])
    inside.main()
    result = json.loads((tmp_path / "results" / "inside.json").read_text())
    for name in inside.TARGETS:
        ratios = [one[name] / one["plain"] for one in result["rounds"]]
        assert result[name]["ratio"] == pytest.approx(sum(ratios) / 2), "the median of two"
        few, many = result[name]["peak_mb"].items()
        assert (few[0], many[0]) == ("2", "20")
        assert 0 < few[1] < 1.5 * many[1]
    assert "logit_lens: peak memory" in capsys.readouterr().out


@pytest.mark.parametrize("model", ["owl2", "qwen3_vl"])
def test_steps_are_measured_with_and_without_quantization(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(training_steps, "RESULTS", tmp_path)
    training_steps.main(["--model", model, "--size", "tiny", "--device", "cpu", "--batches", "2"])
    result = json.loads((tmp_path / f"training_steps-{model}.json").read_text())
    rows = result["rows"]
    assert [(row["quantization"], row["batch"]) for row in rows] == [("none", 2), ("nf4", 2)], result
    for row in rows:
        assert row["tokens_per_second"] == pytest.approx(2 * row["positions"] / row["seconds_a_step"])
        assert row["share_of_peak"] == pytest.approx(rows[0]["operations"] / row["seconds_a_step"] / result["matmul_flops"])
        assert row["learning"] > 0
        assert row["positions"] > 9
        assert 0 < row["loss"] < 40
    assert capsys.readouterr().out.count("tokens/s") == 2


def test_a_row_that_failed_has_no_share() -> None:
    rows = [{"quantization": "none", "batch": 1, "failed": "out of memory"}, {"quantization": "nf4", "batch": 1, "seconds_a_step": 1.0}]
    assert training_steps.with_shares(rows, 1e12) == rows


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_it_says_what_to_do() -> None:
    with pytest.raises(SystemExit, match=r"There is no GPU that torch can use here\. .*--size tiny --device cpu"):
        training_steps.main([])
