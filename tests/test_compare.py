"""Two runs side by side: the differences are those of the paired bootstrap, counts are those of a plain loop, and words say what intervals say."""

import csv
import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fabrication import made_up_run
from light_doors import HEAVY, loaded

from biqa.compare import CompareOptions, compare, main
from biqa.errors import UserError
from biqa.evaluation.answers import read_answers, write_answers
from biqa.evaluation.evaluate import compare as compare_answers
from biqa.reporting.pairwise import NO_DIFFERENCE, in_words
from biqa.reporting.result import read_result, write_result
from biqa.runs import RunFolder

QUICK = ("resamples=200",)


def write_run(name, stage="joint", *, config=None, below="runs", **options) -> Path:
    """A finished run with a config, below runs/ of the working directory."""
    folder = made_up_run(Path(below), name, stage, **options)
    RunFolder(folder).start({"stage": {"_target_": f"biqa.stages.{stage}.{stage.title()}"}, "seed": options.get("seed", 0), **(config or {})})
    return folder


@pytest.fixture
def made(tmp_path, monkeypatch):
    """`write_run`, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return write_run


def same_with_noise(folder: Path, other: Path, noise: float) -> None:
    """Give a run the answers of another one, a little changed, and its figures."""
    from biqa.evaluation.evaluate import evaluate

    answers = read_answers(other / "answers" / "synthetic.parquet")
    answers["score"] = np.clip(answers["score"] + noise * np.random.default_rng(5).normal(size=len(answers)), 0, 1)
    write_answers(answers, folder / "answers" / "synthetic.parquet")
    result = read_result(folder / "result.json")
    write_result(result | {"metrics": evaluate(answers, resamples=50)}, folder / "result.json")


def test_differences_are_those_of_the_paired_bootstrap(made):
    a, b = made("a", noise=0.1), made("b", "inference", noise=0.5)
    compared = compare(CompareOptions("runs/a", "runs/b", resamples=200, seed=3))
    tables = [read_answers(folder / "answers" / "synthetic.parquet") for folder in (a, b)]
    expected = compare_answers(*tables, resamples=200, seed=3)["synthetic"]
    [pair] = compared.pairs
    assert list(pair.differences) == ["srcc", "plcc", "instability_sampled", "instability_argmax"]
    for metric, found in pair.differences.items():
        assert {"p": found.p, **found.as_dict()} == pytest.approx(expected[metric])
    assert pair.ahead("srcc") == 1
    assert in_words(pair).startswith("synthetic, 60 images: A is better in SRCC, PLCC")


def test_images_are_counted_as_by_hand(made):
    folders = made("a", noise=0.2), made("b", noise=0.2, seed=4)
    [pair] = compare(CompareOptions("runs/a", "runs/b", resamples=20)).pairs
    tables = [read_answers(folder / "answers" / "synthetic.parquet") for folder in folders]
    closer, steadier = [0, 0, 0], {"sampled": [0, 0, 0], "argmax": [0, 0, 0]}
    words = [f"p_{level}" for level in ("bad", "poor", "fair", "good", "excellent")]
    for image in sorted(set(tables[0]["image"])):
        rows = [table[table["image"] == image] for table in tables]
        errors = [abs(row[row["query"] == 0]["score"].item() - row["q"].iloc[0]) for row in rows]
        asked = [row[row["query"] > 0] for row in rows]
        levels = {"sampled": [row["level"] for row in asked], "argmax": [row[words].to_numpy().argmax(axis=1) for row in asked]}
        unlike = {decision: [len(of) - max(pd.Series(of).value_counts()) for of in both] for decision, both in levels.items()}
        for counts, (ours, theirs) in ((closer, errors), (steadier["sampled"], unlike["sampled"]), (steadier["argmax"], unlike["argmax"])):
            counts[0 if ours < theirs else 1 if theirs < ours else 2] += 1
    assert [pair.closer.first, pair.closer.second, pair.closer.equal] == closer
    assert {name: [tally.first, tally.second, tally.equal] for name, tally in pair.steadier.items()} == steadier
    greedy = [table[table["query"] == 0].set_index("image") for table in tables]
    change = (greedy[0]["score"] - greedy[1]["score"]).abs().sort_values(ascending=False)
    assert [one.image for one in pair.changed] == list(change.index[:5])
    first = pair.changed[0]
    assert (first.first, first.second, first.q) == (*(frame.loc[first.image, "score"] for frame in greedy), greedy[0].loc[first.image, "q"])
    assert (first.first_level, first.second_level) == tuple(frame.loc[first.image, "level"] for frame in greedy)


def test_two_runs_that_intervals_cannot_tell_apart(made, capsys):
    a, b = made("a"), made("b", config={"stage": {"_target_": "biqa.stages.joint.Joint", "epochs": 5}})
    same_with_noise(b, a, 0.01)
    assert main(["runs/a", "runs/b", *QUICK]) == 0
    out = capsys.readouterr().out
    assert f"synthetic, 60 images: {NO_DIFFERENCE}." in out
    assert "stage.epochs │ absent │ 5" in out
    assert "Intervals are over images" in " ".join(out.split())


def test_nothing_changed_at_all(made, capsys):
    a, b = made("a"), made("b")
    same_with_noise(b, a, 0.0)
    assert main(["runs/a", "runs/b", *QUICK]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "Config: nothing differs that matters." in out
    assert "nearer to human quality: A on 0 images, B on 0, equal on 60." in out
    assert "scores that changed most" not in out


def test_what_it_was_made_with_is_told(made, capsys):
    made("a")
    folder = made("b", noise=0.3)
    result = read_result(folder / "result.json")
    write_result(result | {"git_commit": "f" * 7, "versions": {"biqa": "0.0.9", "numpy": "2.4"}}, folder / "result.json")
    assert main(["runs/a", "runs/b", *QUICK]) == 0
    assert "Made with: biqa version 0.1.0 | 0.0.9; commit 0123abc | fffffff" in " ".join(capsys.readouterr().out.split())


def test_the_same_is_written_in_three_forms(made, capsys):
    made("a", noise=0.1, repeats=4)
    made("b", "inference", noise=0.5)
    for ending in ("md", "csv", "json"):
        assert main(["run=runs/a", "against=runs/b", f"out=new/difference.{ending}", *QUICK]) == 0
    assert capsys.readouterr().out.count("Written to new/difference.") == 3
    assert {path.name for path in Path("new").iterdir()} == {"difference.md", "difference.csv", "difference.json"}
    found = json.loads(Path("new/difference.json").read_text())
    rows = list(csv.DictReader(Path("new/difference.csv").read_text().splitlines()))
    text = Path("new/difference.md").read_text()
    assert text.startswith("Made with `biqa compare runs/a runs/b resamples=200 seed=0`.\n\n- A: runs/a: stage=joint")
    assert "| stage | joint | inference |" in text
    assert re.search(r"^\| SRCC \|.*\| A \|$", text, re.MULTILINE)
    assert [row["metric"] for row in rows] == list(found["datasets"]["synthetic"]["figures"])
    for row in rows:
        figure = found["datasets"]["synthetic"]["figures"][row["metric"]]
        assert float(row["difference"]) == figure["difference"]["value"] == pytest.approx(figure["first"]["value"] - figure["second"]["value"])
        assert float(row["p"]) == figure["difference"]["p"]
        assert f"{figure['difference']['value']:+.1f}" in text or f"{figure['difference']['value']:+.3f}" in text
    assert found["datasets"]["synthetic"]["figures"]["srcc"]["difference"]["better"] == "first"
    assert sum(found["datasets"]["synthetic"]["closer"].values()) == 60


def test_a_run_that_was_asked_once_is_compared_by_accuracy(made):
    made("a", repeats=0)
    made("b", repeats=4, seed=1)
    [pair] = compare(CompareOptions("runs/a", "runs/b", resamples=20)).pairs
    assert (list(pair.differences), pair.steadier) == (["srcc", "plcc"], {})


def test_an_undefined_figure_tells_no_difference(made):
    a, b = made("a"), made("b")
    for folder in (a, b):
        answers = read_answers(folder / "answers" / "synthetic.parquet")
        answers["score"] = 0.5
        write_answers(answers, folder / "answers" / "synthetic.parquet")
        result = read_result(folder / "result.json")
        for metric in ("srcc", "plcc"):
            result["metrics"]["synthetic"][metric] = dict.fromkeys(("value", "low", "high"), math.nan)
        write_result(result, folder / "result.json")
    [pair] = compare(CompareOptions("runs/a", "runs/b", resamples=20)).pairs
    assert math.isnan(pair.differences["srcc"].value)
    assert pair.ahead("srcc") == 0
    assert main(["runs/a", "runs/b", "resamples=20", "out=x.csv"]) == 0
    assert ",srcc,,,,,,\n" in Path("x.csv").read_text()


def test_only_shared_data_sets_are_compared(made):
    made("a")
    folder = made("b")
    result = read_result(folder / "result.json")
    other = read_result(made("c", dataset="other") / "result.json")
    write_result(result | {part: result[part] | other[part] for part in ("metrics", "data")}, folder / "result.json")
    compared = compare(CompareOptions("runs/a", "runs/b", resamples=20))
    assert ([pair.dataset for pair in compared.pairs], compared.left_out) == (["synthetic"], ["other"])
    assert compare(CompareOptions("runs/b", "runs/a", resamples=20)).left_out == ["other"]


@pytest.fixture(scope="module")
def wrong(tmp_path_factory) -> Path:
    """A folder with two runs, and others with one thing wrong in each."""
    place = tmp_path_factory.mktemp("wrong")
    runs = place / "runs"
    write_run("a", below=runs)
    write_run("b", below=runs, seed=1)
    write_run("less", below=runs, images=50, seed=1)
    write_run("other", below=runs, dataset="other")
    write_run("stage1", "perception", below=runs)
    for name in ("gone", "mixed", "relabelled", "half"):
        shutil.copytree(runs / "a", runs / name)
    (runs / "gone" / "answers" / "synthetic.parquet").unlink()
    shutil.copy(runs / "b" / "answers" / "synthetic.parquet", runs / "mixed" / "answers")
    answers = read_answers(runs / "a" / "answers" / "synthetic.parquet")
    answers["q"] = 1 - answers["q"]
    write_answers(answers, runs / "relabelled" / "answers" / "synthetic.parquet")
    (runs / "half" / "result.json").unlink()
    (runs / "folder.md").mkdir()
    return place


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["runs/a"], r"against has no value\. Set it: against=VALUE"),
        (["runs/a", "runs/a/"], r"against=runs/a/ is the run itself: name another one\."),
        (["runs/a", "runs/less"], r"different images of synthetic: 60 in runs/a, 50 in runs/less, 50 in both\. Only the same images can be compared"),
        (["runs/a", "runs/other"], r"runs/a was tested on synthetic and runs/other on other: they have no data set in common\. Run one of them again"),
        (["runs/a", "runs/stage1"], r"runs/stage1 is a run of stage=perception, which scores no images\. Choose runs of probe, zero_shot, joint, inference\."),
        (["runs/a", "runs/gone"], r"runs/gone: its answers are gone .*Make them again: biqa rerun runs/gone"),
        (["runs/a", "runs/mixed"], r"runs/mixed: srcc on synthetic is .* in result\.json and .* in the answers table beside it"),
        (["runs/a", "runs/relabelled"], r"Image image000\.png of synthetic has quality .* in one table and .* in the other"),
        (["runs/a", "runs/half"], r"against=runs/half: that run is not finished"),
        (["runs/a", "runs/less", "out=x.txt"], r"out=x\.txt: the ending says what is written: choose \.md, \.csv, \.json\."),
        (["runs/a", "runs/less", "show=-1", "resamples=0", "seed=-1"], r"show=-1: choose 0 .*\nresamples=0: choose 1 or more\.\nseed=-1: choose 0"),
        (["runs/a", "runs/b", "out=runs/a/result.json/x.md"], r"out=runs/a/result\.json/x\.md cannot be written \(.*\)\. Choose a file in a folder"),
        (["runs/a", "runs/b", "out=runs/folder.md"], r"out=runs/folder\.md cannot be written \(Is a directory\)\. Choose a file in a folder"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared(wrong, monkeypatch, typed, message):
    monkeypatch.chdir(wrong)
    with pytest.raises(UserError, match=message):
        main([*typed, *(() if any("resamples" in word for word in typed) else ("resamples=20",))])
    assert {path.name for path in wrong.iterdir()} == {"runs"}
    assert not list(wrong.rglob("*.tmp"))


def test_it_loads_no_torch(made, tmp_path):
    made("a")
    made("b", seed=1)
    code, packages = loaded(tmp_path, "compare", "runs/a", "runs/b", "resamples=20")
    assert code == 0
    assert not packages & {"torch", "lightning", "transformers", "hydra"}
    code, packages = loaded(tmp_path, "compare", "--help")
    assert code == 0
    assert not packages & (HEAVY | {"hydra", "omegaconf", "numpy", "rich"})
