"""Figures come from all answers that were asked for, each once: anything else is refused with the image that is wrong."""

from pathlib import Path

import pandas as pd
import pytest

from biqa.errors import BadRecord
from biqa.evaluation.answers import read_answers, refuse_other_answers, write_answers
from biqa.reporting.result import find_results
from biqa.reporting.systems import load_answers

pytest_plugins = ["fabrication", "small_runs"]

WHOLE = pd.DataFrame([(image, query) for image in "abc" for query in range(3)], columns=["image", "query"])
NAMES = {"a", "b", "c"}
DAMAGE = {
    "an answer is missing": (WHOLE[1:], 3, 3, r"a needs the queries 0\.\.2 once each, and has 1, 2 \(1 images in all are wrong\)"),
    "an answer is there twice": (pd.concat([WHOLE, WHOLE[:1]]), 3, 3, r"a needs the queries 0\.\.2 once each, and has 0, 0, 1, 2"),
    "an image is there twice": (pd.concat([WHOLE, WHOLE[3:6]]), NAMES, 3, r"b needs the queries 0\.\.2 once each, and has 0, 0, 1, 1, 2, 2"),
    "an image is missing, by number": (WHOLE[3:], 3, 3, r"it holds 2 images, and 3 were asked about"),
    "an image is missing, by name": (WHOLE[3:], NAMES, 3, r"1 of 3 images are missing, first a\."),
    "an image that nobody asked about": (WHOLE, NAMES - {"c"}, 3, r"1 images were not asked about, first c\."),
    "all lack a query": (WHOLE[WHOLE["query"] < 2], NAMES, 3, r"a needs the queries 0\.\.2 once each, and has 0, 1 \(3 images"),
    "all have one more": (WHOLE, NAMES, 2, r"a needs the queries 0\.\.1 once each, and has 0, 1, 2 \(3 images"),
    "a query below 0": (WHOLE.assign(query=WHOLE["query"] - 1), 3, 3, r"a needs the queries 0\.\.2 once each, and has -1, 0, 1"),
}


def test_what_was_asked_is_taken_in_any_order():
    for images in (3, NAMES):
        refuse_other_answers(WHOLE.sample(frac=1.0, random_state=0), Path("x.parquet"), images=images, queries=3)


@pytest.mark.trust
@pytest.mark.parametrize("damage", DAMAGE)
def test_anything_else_is_refused(damage, tally):
    frame, images, queries, said = DAMAGE[damage]
    with pytest.raises(BadRecord, match=rf"^x\.parquet: {said}.* with ckpt=last the run answers again\.$"):
        refuse_other_answers(frame, Path("x.parquet"), images=images, queries=queries)
    tally("counts")


@pytest.mark.trust
def test_a_report_refuses_a_table_that_lacks_an_image_of_no_weight(fabricate, tmp_path, tally):
    """One whose loss hardly moves a figure would pass the comparison with result.json."""
    file = fabricate(tmp_path, "a", "joint") / "answers" / "synthetic.parquet"
    (run,) = find_results(tmp_path)
    assert load_answers(run, "synthetic") is not None
    answers = read_answers(file)
    write_answers(answers[answers["image"] != "image007.png"], file)
    with pytest.raises(BadRecord, match=r"it holds 59 images, and 60 were asked about"):
        load_answers(run, "synthetic")
    tally("counts")


@pytest.mark.trust
def test_a_run_measures_no_table_that_lacks_an_image(run, tmp_path, tally):
    assert run(tmp_path, "a", "stage=zero_shot").code == 0
    folder = tmp_path / "a"
    file = folder / "answers" / "synthetic.parquet"
    answers = read_answers(file)
    write_answers(answers[answers["image"] != answers["image"][0]], file)
    (folder / "result.json").unlink()
    refused = run(tmp_path, "a", "stage=zero_shot", "ckpt=last")
    assert (refused.code, refused.err.count("1 of 12 images are missing")) == (2, 1)
    assert not (folder / "result.json").exists()
    file.unlink()
    assert run(tmp_path, "a", "stage=zero_shot", "ckpt=last").code == 0
    assert read_answers(file).equals(answers)
    tally("counts")
