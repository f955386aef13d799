"""Benchmarks still run, compare like with like, and report what they measured. The rows of the table of speed: test_speed.py."""

import json
import subprocess
from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
import torch

from benchmarks import gpu_answers, inside, plain, prepare, rounds, training_steps
from biqa.data.survey import survey


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the benchmarks write."""
    monkeypatch.setattr(rounds, "RESULTS", tmp_path / "results")
    return rounds.RESULTS


def test_the_sides_take_turns_and_the_first_pass_of_each_does_not_count() -> None:
    calls = []

    def side(name: str, seconds: float):
        return lambda: calls.append(name) or seconds * len(calls)

    taken = rounds.rounds_of({"one": side("one", 1.0), "other": side("other", 1.0)}, 2)
    assert calls == ["one", "other", "one", "other", "other", "one"]
    assert taken == [{"one": 3.0, "other": 4.0}, {"other": 5.0, "one": 6.0}]
    assert rounds.ratio_of(taken, "other", "one") == rounds.Ratio((4 / 3 + 5 / 6) / 2, 5 / 6, 4 / 3)


def test_the_peak_of_memory_is_of_this_process_and_begins_anew() -> None:
    before = rounds.memory_mb()
    torch.ones(50 * 2**20)
    assert rounds.peak_mb() >= before + 190
    rounds.forget_peak()
    assert rounds.peak_mb() < before + 100


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


def test_prepare_runs_and_writes_the_ratios_of_its_rounds(results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["prepare", "--images", "6", "--rounds", "2"])
    prepare.main()
    result = json.loads((results / "prepare.json").read_text())
    ratios = [one["plain"] / one["biqa"] for one in result["rounds"]]
    assert (result["images"], len(ratios)) == (6, 2)
    assert result["median"] == pytest.approx(sum(ratios) / 2), "the median of two"
    assert (result["lowest"], result["highest"]) == (min(ratios), max(ratios))
    assert f"median ratio {result['median']:.2f}" in capsys.readouterr().out


def test_a_look_inside_is_timed_beside_plain_passes(results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(inside, "TARGETS", {"logit_lens": 1.25})  # two processes less
    monkeypatch.setattr("sys.argv", ["inside", "--images", "10", "--rounds", "2", "--layers", "2", "--hidden", "32"])
    inside.main()
    result = json.loads((results / "inside.json").read_text())
    for name in inside.TARGETS:
        ratios = [one[name] / one["plain"] for one in result["rounds"]]
        assert result[name]["median"] == pytest.approx(sum(ratios) / 2), "the median of two"
        few, many = result[name]["peak_mb"].items()
        assert (few[0], many[0]) == ("2", "20")
        assert 0 < few[1] < 1.5 * many[1]
    assert "logit_lens: peak memory" in capsys.readouterr().out


def measured_here(_: str, *given: str) -> str:
    """What a process of its own would print last; here, where torch has been imported."""
    with redirect_stdout(StringIO()) as shown:
        training_steps.main(given)
    return shown.getvalue().splitlines()[-1]


@pytest.mark.filterwarnings("ignore:Metric `SpearmanCorrcoef` will save all targets")  # of a stage that is made here
@pytest.mark.parametrize("model", ["owl2", "qwen3_vl"])
def test_steps_are_measured_with_and_without_quantization(
    model: str, results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(training_steps, "alone", measured_here)
    training_steps.main(["--model", model, "--size", "tiny", "--device", "cpu", "--batches", "2"])
    result = json.loads((results / f"training_steps-{model}.json").read_text())
    rows = result["rows"]
    assert [(row["quantization"], row["batch"]) for row in rows] == [("none", 2), ("nf4", 2)], result
    for row in rows:
        assert row["tokens_per_second"] == pytest.approx(2 * row["positions"] / row["seconds_a_step"])
        assert row["share_of_peak"] == pytest.approx(rows[0]["operations"] / row["seconds_a_step"] / result["matmul_flops"])
        assert row["learning"] > 0
        assert row["positions"] > 9
        assert 0 < row["loss"] < 40
    assert capsys.readouterr().out.count("tokens/s") == 2


def test_a_process_that_fails_is_a_row_that_says_why(results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(subprocess.CalledProcessError) as failed:
        rounds.alone("prepare", "--images", "none")
    assert "invalid int value" in capsys.readouterr().err
    monkeypatch.setattr(training_steps, "alone", lambda *_: (_ for _ in ()).throw(failed.value))
    training_steps.main(["--model", "qwen3_vl", "--size", "tiny", "--device", "cpu", "--batches", "2"])
    rows = json.loads((results / "training_steps-qwen3_vl.json").read_text())["rows"]
    assert [row["failed"] for row in rows] == ["prepare.py: error: argument --images: invalid int value: 'none'"] * 2


def test_a_row_that_failed_has_no_share() -> None:
    rows = [{"quantization": "none", "batch": 1, "failed": "out of memory"}, {"quantization": "nf4", "batch": 1, "seconds_a_step": 1.0}]
    assert training_steps.with_shares(rows, 1e12) == rows


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_it_says_what_to_do() -> None:
    for benchmark in (training_steps, gpu_answers):
        with pytest.raises(SystemExit, match=r"There is no GPU that torch can use here\. .*--size tiny --device cpu"):
            benchmark.main([])


@pytest.mark.parametrize("model", ["owl2", "qwen3_vl"])
def test_answers_of_large_models_are_measured(model: str, results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ("--images", "2", "--tokens", "3", "--rounds", "2")
    gpu_answers.main(["--model", model, "--size", "tiny", "--device", "cpu", "--no-compiled", *sizes])
    told = json.loads((results / f"gpu_answers-{model}.json").read_text())
    assert [one["kind"] for one in told["costs"]] == ["eager", "score"]
    answered, scored = told["costs"]
    assert answered["operations"] > scored["operations"] > 0
    for one in told["costs"]:
        assert one["share_of_peak"] == pytest.approx(one["operations"] / (one["ms"]["median"] / 1e3) / told["matmul_flops"])
    assert "10 answers of 3 tokens, eager:" in capsys.readouterr().out
