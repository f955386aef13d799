import io
import json
import math
import subprocess
import sys
import types

import pytest
from rich.console import Console

import biqa
from biqa.errors import BadRecord, RunNotFound
from biqa.reporting import result as module
from biqa.reporting.result import KEYS, collect_versions, find_results, git_commit, hardware, read_result, render_result, write_result

pytest_plugins = ["fabrication"]


def printed(result) -> str:
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(render_result(result))
    return console.export_text()


@pytest.fixture
def result(fabricate, tmp_path):
    return read_result(fabricate(tmp_path, "a", "joint") / "result.json")


def test_a_result_reads_back_as_it_was_written(result, tmp_path):
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    write_result(result, first)
    write_result(dict(reversed(result.items())), second)
    assert read_result(first) == result
    assert second.read_bytes() == first.read_bytes()
    assert list(json.loads(first.read_text())) == list(KEYS)
    assert not list(tmp_path.glob("*.tmp"))


def test_undefined_is_null_in_the_file_and_nan_in_memory(result, tmp_path):
    result["metrics"]["synthetic"]["srcc"] = {"value": math.nan, "low": math.nan, "high": math.inf}
    write_result(result, tmp_path / "r.json")
    assert json.loads((tmp_path / "r.json").read_text())["metrics"]["synthetic"]["srcc"] == {"value": None, "low": None, "high": None}
    assert math.isnan(read_result(tmp_path / "r.json")["metrics"]["synthetic"]["srcc"]["value"])


def test_a_failed_write_leaves_the_old_result(result, tmp_path, monkeypatch):
    path = tmp_path / "r.json"
    write_result(result, path)
    before = path.read_bytes()
    monkeypatch.setattr(module.json, "dumps", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_result(result, path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"r\.json is not valid JSON \(.*Run that run again with overwrite=true"),
        ('{"schema": 2}', "has schema 2, this version of biqa reads schema 1"),
        ("[]", "has schema list"),
        ('{"schema": 1, "run": {}}', "seed, metrics, sampling, data, .* missing; found schema, run"),
    ],
)
def test_what_is_no_result_is_refused(tmp_path, text, message):
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(BadRecord, match=message):
        read_result(tmp_path / "r.json")


def test_a_missing_result_is_an_unfinished_run(tmp_path):
    with pytest.raises(RunNotFound, match=r"result\.json is not there: the run is not finished.*ckpt=last"):
        read_result(tmp_path / "result.json")


def test_results_are_found_at_any_depth_sorted_by_name(fabricate, tmp_path):
    fabricate(tmp_path, "b", "joint")
    fabricate(tmp_path / "sweep", "a", "inference")
    assert [run.name for run in find_results(tmp_path)] == ["a", "b"]
    assert find_results(tmp_path)[0].folder == tmp_path / "sweep" / "a"


def test_no_result_below_a_folder(tmp_path):
    with pytest.raises(RunNotFound, match=r"no result\.json lies below it.*python -m biqa\.run"):
        find_results(tmp_path)
    with pytest.raises(RunNotFound, match=r"there is no such folder.*runs=FOLDER"):
        find_results(tmp_path / "nowhere")


def test_versions_are_those_installed():
    import numpy as np

    versions = collect_versions()
    assert versions["biqa"] == biqa.__version__
    assert versions["numpy"] == np.__version__
    assert "hydra-core" in versions


def git(folder, *arguments):
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    package = tmp_path / "checkout" / "biqa"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    monkeypatch.setattr(module.biqa, "__file__", str(package / "__init__.py"))
    return package.parent


def test_commit_of_a_clean_and_of_a_changed_checkout(checkout):
    git(checkout, "init")
    git(checkout, "add", ".")
    git(checkout, "commit", "-m", "first")
    commit = git_commit()
    assert commit is not None
    assert len(commit) == 40
    (checkout / "untracked.txt").write_text("")
    assert git_commit() == commit
    (checkout / "biqa" / "__init__.py").write_text("x = 1\n")
    assert git_commit() == commit + "-dirty"


def test_no_commit_outside_a_checkout_or_where_the_package_is_not_tracked(checkout):
    assert git_commit() is None
    git(checkout, "init")
    git(checkout, "commit", "--allow-empty", "-m", "somebody else's")
    assert git_commit() is None


def test_hardware_asks_torch_for_gpus_only_where_it_is_loaded(monkeypatch):
    cuda = types.SimpleNamespace(device_count=lambda: 2, get_device_name=lambda index: f"GPU {index}")
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(cuda=cuda))
    assert hardware()["gpus"] == ["GPU 0", "GPU 1"]
    monkeypatch.delitem(sys.modules, "torch")
    found = hardware()
    assert found["gpus"] == []
    assert "torch" not in sys.modules
    assert found["cpu"]
    assert found["cores"] >= 1
    assert found["memory_gb"] > 0


def test_summary_shows_every_figure_with_its_interval(result):
    text = printed(result)
    srcc = result["metrics"]["synthetic"]["srcc"]
    assert f"{srcc['value']:.3f} [{srcc['low']:.2f}, {srcc['high']:.2f}]" in text
    for label in ("a: stage joint", "60 images", "PLCC (logistic)", "KRCC", "RMSE", "instability % (sampled)", "instability % (arg-max)"):
        assert label in text
    assert "N = 4 queries an image at T = 1" in text
    assert "STAND-IN: the labels of synthetic are not human opinions" in text
    assert "without a level" not in text


def test_summary_of_other_metrics_names_them(result):
    result["metrics"]["synthetic"] = {
        "feature_f1": {"value": 0.51234, "low": 0.4, "high": 0.6},
        "srcc": {"value": math.nan, "low": math.nan, "high": math.nan},
        "unparsed": {"value": 2.5, "low": 1.0, "high": 4.0},
    }
    result["data"]["synthetic"]["stand_in"] = False
    result["sampling"]["repeats"] = 0
    text = printed(result)
    assert "feature f1" in text
    assert "0.512 [0.40, 0.60]" in text
    assert "undefined" in text
    assert "answers without a level %" in text
    assert "2.5 [1.0, 4.0]" in text
    assert "STAND-IN" not in text
    assert "N =" not in text


def figure(value, low, high):
    return {"value": value, "low": low, "high": high}


@pytest.fixture
def described(result):
    """A result of stage 1: two features, and the means over them."""
    result["run"]["stage"] = "perception"
    result["metrics"]["synthetic"] = {
        "feature_f1": figure(0.9, 0.8, 1.0),
        "accuracy": figure(0.45, 0.35, 0.55),
        "majority": figure(0.55, 0.45, 0.65),
        "over_majority": figure(-0.1, -0.2, 0.01),
        "within_one": figure(0.7, 0.6, 0.8),
        "within_one_constant": figure(0.6, 0.5, 0.7),
        "accuracy/brightness": figure(0.5, 0.4, 0.6),
        "accuracy/white_noise": figure(0.4, 0.3, 0.5),
        "majority/brightness": figure(0.2512, 0.15, 0.35),
        "majority/white_noise": figure(0.85, 0.8, 0.9),
        "over_majority/brightness": figure(0.2488, 0.1, 0.4),
        "over_majority/white_noise": figure(-0.45, -0.55, -0.3),
        "within_one/brightness": figure(0.77, 0.66, 0.88),
        "within_one/white_noise": figure(0.63, 0.53, 0.73),
        "within_one_constant/brightness": figure(0.6, 0.5, 0.7),
        "within_one_constant/white_noise": figure(0.6, 0.5, 0.7),
    }
    return result


def lines_with(text, *parts):
    return [line for line in text.splitlines() if all(part in line for part in parts)]


def test_summary_of_stage_one_has_a_row_a_feature(described):
    text = printed(described)
    assert lines_with(text, "synthetic, by feature: images whose target names the feature")
    assert lines_with(text, "feature", "accuracy", "majority", "difference")
    assert "all images" not in text
    assert lines_with(text, "brightness", "0.500 [0.40, 0.60]", "0.251", "+0.249 [+0.10, +0.40]")
    assert lines_with(text, "white noise", "0.400 [0.30, 0.50]", "0.850", "-0.450 [-0.55, -0.30]")
    assert lines_with(text, "mean over features", "0.450 [0.35, 0.55]", "0.550", "-0.100 [-0.20, +0.01]")


def test_figures_by_feature_stay_out_of_the_first_table(described):
    text = printed(described)
    assert len(lines_with(text, "brightness")) == len(lines_with(text, "white noise")) == 1
    assert "/" not in text
    assert lines_with(text, "within one step (mean over features)", "0.700 [0.60, 0.80]")
    assert lines_with(text, "best constant answer, within one step", "0.600 [0.50, 0.70]")
    first = text.partition("synthetic, by feature")[0]
    assert "feature f1" in first
    assert "majority" not in first


def test_features_that_some_targets_leave_out_have_a_table_over_all_images(described):
    for place in ("", "/white_noise"):
        for metric in ("accuracy", "majority", "over_majority"):
            described["metrics"]["synthetic"][f"{metric}_all{place}"] = figure(-0.0312, -0.06, 0.01)
    first, over_all = printed(described).split("synthetic, by feature: all images, absence being one more answer")
    assert len(lines_with(first, "white noise")) == len(lines_with(over_all, "white noise")) == 1
    assert lines_with(over_all, "mean over features", "-0.031 [-0.06, +0.01]")
    assert "brightness" not in over_all
    assert "accuracy all" not in first


def test_a_feature_of_one_image_is_shown_without_an_interval(described):
    for metric in ("accuracy", "over_majority"):
        described["metrics"]["synthetic"][f"{metric}/white_noise"] = figure(1.0, float("nan"), float("nan"))
    (row,) = lines_with(printed(described), "white noise")
    assert "+1.000" in row
    assert "nan" not in row
    assert "[" not in row


def test_each_data_set_has_its_own_table_by_feature(described):
    described["metrics"]["other"] = {"feature_f1": figure(0.5, 0.4, 0.6)}
    described["data"]["other"] = described["data"]["synthetic"]
    assert len(lines_with(printed(described), "by feature")) == 1
    described["metrics"]["other"] = described["metrics"]["synthetic"]
    text = printed(described)
    assert [line.split(",")[0].strip() for line in lines_with(text, "by feature")] == ["synthetic", "other"]
    assert len(lines_with(text, "white noise")) == 2


def test_a_result_without_figures_by_feature_has_no_such_table(result):
    assert "by feature" not in printed(result)


def test_metrics_by_feature_read_back(described, tmp_path):
    write_result(described, tmp_path / "r.json")
    assert read_result(tmp_path / "r.json") == described
