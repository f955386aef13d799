"""A search: what is searched, what a study keeps, and that the validation split alone decides."""

import csv
import sys

import pytest

from biqa import config as schema
from biqa.doors.opening import open_door
from biqa.errors import IncompatibleChoice
from biqa.planning.studies import Range, Study, TrialFailed, TrialRun, validations
from biqa.search import divided, main

pytest_plugins = ["small_runs"]

OPTIONS = ("stage=joint", "stage.epochs=2", "stage.batch_size=8", "sampling.repeats=0")


@pytest.fixture
def search(monkeypatch, capsys):
    """`python -m biqa.search`: exit code, what it said."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["biqa.search", *arguments])
        code = 0
        try:
            open_door(main, flags=False)
        except SystemExit as end:
            code = int(end.code or 0)
        said = capsys.readouterr()
        return code, " ".join(said.out.split()), " ".join(said.err.split())

    return call


def test_ranges_are_searched_and_all_else_holds():
    typed = ["stage=joint", "tuning.lr=tag(log,interval(1e-5,1e-3))", "tuning.rank=choice(4,8)", "stage.epochs=int(interval(1,6))", "test=[a,b]"]
    space, fixed = divided([*typed, "stage.target=hard,soft"])
    assert space == {
        "tuning.lr": Range(low=1e-5, high=1e-3, log=True),
        "tuning.rank": Range(choices=(4, 8)),
        "stage.epochs": Range(low=1, high=6),
        "stage.target": Range(choices=("hard", "soft")),
    }
    assert fixed == ["stage=joint", "test=[a,b]"]


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["stage=joint"], "Nothing is searched: give an option a range"),
        (["tuning.lr=interval(1,1)"], "tuning.lr=interval(1,1): write interval(low,high) with low below high"),
        (["tuning.lr=range(1,4)"], "tuning.lr=range(1,4): write interval(low,high)"),
        (["tuning.lr=tag(log,interval(0,1))"], "a logarithmic range begins above 0"),
        (
            ["tuning.lr=interval(1,2)", "search.metric=srcc"],
            "search.metric=srcc is no figure of the validation split: choose val/srcc, val/plcc, val/loss.",
        ),
        (["tuning.lr=interval(1,2)", "search.trials=0"], "search.trials=0: choose 1 or more."),
        (["tuning.lr=interval(1,2)", "search.trial=3"], "There is no option search.trial. Did you mean search.trials?"),
        (["tuning.lr=interval(1,2)", "search=nothing"], "There is no search=nothing. Choices: default, learning_rate."),
        (["tuning.lr=interval(1,2)", "-m"], "-m: a search takes options alone"),
        (["tuning.lr=interval(1,2)", "stage=1"], "stage=1 predicts no quality: it has no val/srcc. Choose search.metric=val/loss."),
        (["tuning.lr=interval(1,2)", "stage=zero_shot"], "it has no validation figure to search by"),
        (["tuning.lr=interval(1,2)", "logger=wandb"], "leave logger=csv"),
        (["tuning.speed=interval(1,2)"], "There is no option tuning.speed."),
        (["+tuning.speed=interval(1,2)"], "There is no option tuning.speed"),
        (["stage.target=vague,soft"], "stage.target=vague is not known: choose hard or soft."),
    ],
)
def test_a_mistake_costs_no_trial(search, tmp_path, typed, message):
    code, _, err = search(*typed, f"runs={tmp_path}")
    assert code == 2
    assert message in err
    assert not list(tmp_path.iterdir())


def test_help_says_how(search):
    assert "python -m biqa.search stage=joint" in search("--help")[1]


def test_every_file_of_searches_composes():
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from biqa.search import SearchOptions

    schema.register()
    with initialize_config_dir(schema.config_directory(), version_base="1.3"):
        for name in ("default", "learning_rate"):
            assert isinstance(OmegaConf.to_object(compose(f"search/{name}").search), SearchOptions)


def test_without_optuna_it_says_what_to_install(search, synthetic, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    code, _, err = search(*synthetic, *OPTIONS, "tuning.lr=interval(1e-3,1e-2)", f"runs={tmp_path}")
    assert (code, err) == (2, "A search needs optuna, which is not installed: pip install 'biqa[optuna]'.")


def test_figures_of_validations_are_read_in_order(tmp_path):
    (tmp_path / "logs").mkdir()
    assert validations(tmp_path, "val/srcc") == []
    (tmp_path / "logs" / "metrics.csv").write_text("step,train/loss,val/srcc\n9,1.5,\n9,,0.25\n19,1.4,\n19,,nan\n")
    first, second = validations(tmp_path, "val/srcc")
    assert first == 0.25
    assert second != second
    assert validations(tmp_path, "val/plcc") == []


def test_three_real_trials(search, synthetic, tmp_path):
    """One of two choices cannot be run; its trials are recorded with what they said, and the others decide."""
    pytest.importorskip("optuna", reason="optuna is not installed: pip install 'biqa[optuna]'")
    command = (*synthetic, *OPTIONS, "tuning.lr=tag(log,interval(1e-3,1e-1))", "stage.init_from=base,/nowhere", f"runs={tmp_path}", "search.seed=1")
    code, out, err = search(*command, "search.trials=3")
    assert code == 0, err
    rows = list(csv.DictReader((tmp_path / "search" / "trials.csv").read_text().splitlines()))
    assert {row["state"] for row in rows} == {"complete", "fail"}
    for row in rows:
        if row["state"] == "fail":
            assert row["stage.init_from"] == "/nowhere"
            assert "exit code 2: stage.init_from=/nowhere: no run there" in row["error"]
        else:
            assert float(row["val/srcc"]) == validations(tmp_path / row["run"].split("/")[-1], "val/srcc")[-1]
    best = max((row for row in rows if row["state"] == "complete"), key=lambda row: float(row["val/srcc"]))
    assert rows[0] == best
    assert f"tuning.lr={best['tuning.lr']} stage.init_from=base" in out.split("The best again: python -m biqa.run")[1]
    code, again, _ = search(*command, "search.trials=3")  # there are as many already
    assert code == 0
    assert "Trial" not in again
    code, _, err = search(*command, "search.trials=3", "tuning.weight_decay=0.2")
    assert code == 2
    assert "holds a study with another options" in err


def made(folder, train, **options):
    """A study whose trials are a function."""
    pytest.importorskip("optuna", reason="optuna is not installed: pip install 'biqa[optuna]'")
    settings = {"space": {"lr": Range(low=0.0, high=1.0)}, "metric": "val/srcc", "take": "last", "seed": 0, "prune": False, "given": []}
    study = Study(folder, **(settings | {"compose": lambda chosen: TrialRun([], folder / "run")} | options))
    study._train = lambda trial, run: train(trial.params["lr"])
    return study


def values(study):
    return [trial.params["lr"] for trial in study.study.trials]


def test_the_same_seed_proposes_the_same_and_a_study_goes_on(tmp_path):
    whole = made(tmp_path / "a", lambda lr: -((lr - 0.3) ** 2))
    whole.run(14)
    assert abs(whole.best()["lr"] - 0.3) < 0.1
    for trials in (5, 14):
        part = made(tmp_path / "b", lambda lr: -((lr - 0.3) ** 2))
        part.run(trials)
    assert values(part) == values(whole)
    other = made(tmp_path / "c", lambda lr: lr, seed=1)
    other.run(2)
    assert values(other) != values(whole)[:2]


def test_a_trial_whose_process_died_comes_again_and_one_that_lives_is_left_alone(tmp_path):
    dying = made(tmp_path / "a", lambda lr: lr)
    (alive, claim), (dead, lost) = [asked for _ in range(2) if (asked := dying._next(10))]
    lost.close()  # as a kill does it
    other = made(tmp_path / "a", lambda lr: lr)
    other.run(3)
    states = [trial.state.name for trial in other.study.trials]
    assert states == ["RUNNING", "FAIL", "COMPLETE", "COMPLETE"]
    assert values(other)[2] == values(other)[1] == dead.params["lr"]
    claim.close()
    dying._try(alive)
    assert [trial.state.name for trial in other.study.trials] == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]


def test_trials_that_fail_are_counted_and_do_not_end_the_search(tmp_path):
    def train(lr):
        if lr > 0.5:
            raise TrialFailed("exit code 1: too fast")
        return lr

    study = made(tmp_path / "a", train)
    study.run(8)
    states = [trial.state.name for trial in study.study.trials]
    assert len(states) == 8
    assert set(states) == {"COMPLETE", "FAIL"}
    assert study.last_words() == "exit code 1: too fast"
    none = made(tmp_path / "b", lambda lr: train(1.0))
    none.run(2)
    assert none.best() is None


def test_a_study_has_one_metric(tmp_path):
    made(tmp_path / "a", lambda lr: lr)
    with pytest.raises(IncompatibleChoice, match=r"holds a study with another metric: val/srcc there, val/loss here\. Choose another search\.study="):
        made(tmp_path / "a", lambda lr: lr, metric="val/loss")
