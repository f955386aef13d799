"""Answers are kept as they are made: a run that is killed while it asks goes on with the images that it has not asked, and ends with the same table."""

import signal
from contextlib import contextmanager

import pandas as pd
import pytest

from biqa.language.levels import LEVELS, WEIGHTS
from biqa.running import answering
from biqa.running.parts import RowsInParts
from biqa.stages.joint import Joint
from biqa.stages.perception import Perception

pytest_plugins = ["small_runs"]

JOINT = ("stage=joint", "stage.epochs=1", "stage.batch_size=8", "sampling.batch_size=2")


class Killed(Exception):
    """As a kill: nothing is written on the way out."""


@contextmanager
def watched(stage, *, down_at=None):
    """Names of the images of each batch that a stage is asked for; with `down_at` it goes down at that one, from 0."""
    asked, answer = [], stage.answer

    def counted(self, items):
        if len(asked) == down_at:
            raise Killed
        asked.append([item.record.image for item in items])
        return answer(self, items)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "answer", counted)
        patch.setattr(answering.Keep, "on_exception", lambda *_: None)
        yield asked


def test_killed_while_it_asks_it_goes_on_and_ends_with_the_same_file(run, tmp_path, monkeypatch, digest):
    assert run(tmp_path, "whole", *JOINT).code == 0
    monkeypatch.setattr(answering, "SECONDS", 0.0)
    with watched(Joint, down_at=3) as before:
        assert run(tmp_path, "a", *JOINT).code == 1
    table, parts = tmp_path / "a" / "answers" / "synthetic.parquet", tmp_path / "a" / "answers" / "synthetic.parts"
    assert not table.exists()
    assert len(list(parts.glob("*.parquet"))) == 3

    with watched(Joint) as after:
        assert run(tmp_path, "a", *JOINT, "ckpt=last").code == 0
    assert digest(table) == digest(tmp_path / "whole" / "answers" / "synthetic.parquet")
    assert not parts.exists()
    assert len(before) == len(after) == 3
    assert sorted(image for batch in [*before, *after] for image in batch) == sorted(set(pd.read_parquet(table)["image"]))


def test_what_was_answered_since_the_last_file_is_written_on_the_way_out(run, tmp_path, monkeypatch):
    answer, asked = Joint.answer, []

    def stopped(self, items):
        if asked:
            raise KeyboardInterrupt
        asked.extend(items)
        return answer(self, items)

    monkeypatch.setattr(Joint, "answer", stopped)
    assert run(tmp_path, "a", *JOINT).code == 130
    (part,) = (tmp_path / "a" / "answers" / "synthetic.parts").glob("*.parquet")
    assert set(pd.read_parquet(part)["image"]) == {item.record.image for item in asked}


def test_the_batch_in_which_a_signal_comes_is_kept(run, tmp_path, monkeypatch):
    """The run ends after it: what it has answered is not asked again."""
    answer, asked = Joint.answer, []

    def signalled(self, items):
        asked.extend(item.record.image for item in items)
        if len(asked) == 4:
            signal.raise_signal(signal.SIGTERM)
        return answer(self, items)

    monkeypatch.setattr(Joint, "answer", signalled)
    assert run(tmp_path, "a", *JOINT).code == 143
    assert len(asked) == 4
    assert RowsInParts(tmp_path / "a" / "answers" / "synthetic.parquet").images() == set(asked)


def test_descriptions_are_kept_too(run, tmp_path, monkeypatch):
    assert run(tmp_path, "one", "stage=1", "stage.epochs=1").code == 0
    two = ("stage=2", "stage.epochs=1", "sampling.batch_size=2", f"stage.perception={tmp_path / 'one'}")
    assert run(tmp_path, "whole", *two).code == 0
    monkeypatch.setattr(answering, "SECONDS", 0.0)
    with watched(Perception, down_at=2):
        assert run(tmp_path, "two", *two).code == 1
    kept = RowsInParts(tmp_path / "two" / "descriptions" / "synthetic-train.parquet").images()
    assert kept
    with watched(Perception) as again:
        assert run(tmp_path, "two", *two, "ckpt=last").code == 0
    assert not kept & {image for batch in again for image in batch}
    for split in ("train", "val", "test"):
        name = f"synthetic-{split}.parquet"
        pd.testing.assert_frame_equal(
            pd.read_parquet(tmp_path / "two" / "descriptions" / name), pd.read_parquet(tmp_path / "whole" / "descriptions" / name)
        )


def test_how_many_images_fit_is_asked_where_they_are_answered(run, tmp_path, monkeypatch):
    events, build, to = [], answering.build_data, Joint.to
    monkeypatch.setattr(Joint, "to", lambda self, device: (events.append(str(device)), to(self, device))[1])
    monkeypatch.setattr(answering, "build_data", lambda *given, **options: (events.append("counted"), build(*given, **options))[1])
    assert run(tmp_path, "a", "stage=zero_shot").code == 0
    assert events[events.index("counted") - 1] == "cpu"


def test_answers_are_scored_by_the_scorer_of_the_run(run, tmp_path):
    assert run(tmp_path, "a", "stage=zero_shot", "scorer=word").code == 0
    rows = pd.read_parquet(tmp_path / "a" / "answers" / "synthetic.parquet")
    assert list(rows["score"]) == [WEIGHTS[LEVELS.index(level)] for level in rows["level"]]
