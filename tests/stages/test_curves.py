"""A curve on disk goes on where its run does: no step missing, none twice."""

import csv

from biqa.stages.curves import CurveLogger


def read(logger):
    return list(csv.DictReader(logger.file.read_text().splitlines()))


def test_a_figure_that_is_new_becomes_a_column(tmp_path):
    logger = CurveLogger(str(tmp_path), "logs")
    logger.log_metrics({"train/loss": 1.5, "epoch": 0}, step=9)
    logger.log_metrics({"val/srcc": 0.25, "epoch": 0}, step=9)
    assert logger.file == tmp_path / "logs" / "metrics.csv"
    assert read(logger) == [
        {"step": "9", "epoch": "0", "train/loss": "1.5", "val/srcc": ""},
        {"step": "9", "epoch": "0", "train/loss": "", "val/srcc": "0.25"},
    ]


def test_a_run_that_goes_on_writes_its_rows_anew(tmp_path):
    """Killed after step 40 (number 39) with a checkpoint of step 25; its last row is cut off. Another process goes on."""
    logger = CurveLogger(str(tmp_path), "logs")
    for step in (9, 19, 29, 39):
        logger.log_metrics({"train/loss": step / 2}, step=step)
    whole = logger.file.read_text()
    logger.log_metrics({"val/srcc": 0.5}, step=39)
    logger.file.write_text(logger.file.read_text() + "49,0.")
    again = CurveLogger(str(tmp_path), "logs")
    again.go_on_from(25)
    assert [row["step"] for row in read(again)] == ["9", "19"]
    for step in (29, 39):
        again.log_metrics({"train/loss": step / 2}, step=step)
    assert again.file.read_text() == whole


def test_a_run_that_begins_again_forgets_all(tmp_path):
    CurveLogger(str(tmp_path), "logs").log_metrics({"train/loss": 1.0}, step=9)
    again = CurveLogger(str(tmp_path), "logs")
    again.go_on_from(0)
    again.log_metrics({"val/loss": 2.0}, step=9)
    assert read(again) == [{"step": "9", "val/loss": "2.0"}]


def test_the_step_of_a_checkpoint_itself_is_done(tmp_path):
    logger = CurveLogger(str(tmp_path), "logs")
    logger.go_on_from(0)  # nothing there yet
    logger.log_metrics({"train/loss": 1.0}, step=9)
    logger.go_on_from(10)
    assert len(read(logger)) == 1
    logger.go_on_from(9)
    assert read(logger) == []
