"""Run folders: who may use one, and how stage 2 finds stage 1."""

import pytest
from omegaconf import OmegaConf

from biqa.errors import RunExists, RunNotFound
from biqa.runs import RunFolder, different, find_run, find_stage_one

ONE, TWO = "biqa.stages.perception.Perception", "biqa.stages.inference.Inference"
CHOICES = {"model": "tiny", "data": "synthetic"}


def config(runs="runs", stage=ONE, seed=0, **changes):
    values = {
        "name": "a", "runs": str(runs), "seed": seed, "ckpt": None, "overwrite": False,
        "data": {"root": "here", "train": 8}, "descriptions": {"seed": 0}, "model": {"hidden": 32},
        "stage": {"_target_": stage, "epochs": 5}, "tuning": {"kind": "full"}, "trainer": {"progress": True, "clip": 1.0},
    }  # fmt: skip
    for name, value in changes.items():
        OmegaConf.update(values := OmegaConf.create(values), name.replace("__", "."), value)
        values = OmegaConf.to_container(values)
    return values


def made(path, values, finished=True):
    folder = RunFolder(path)
    folder.start(values)
    if finished:
        folder.result.write_text("{}")
    return folder


def test_an_empty_place_may_be_used(tmp_path):
    assert RunFolder(tmp_path / "a").open(config(), resume=False, overwrite=False) is False


def test_a_job_that_was_stopped_before_it_began_may_begin(tmp_path):
    """The job is noted before the config, so that a signal between the two leaves a folder in which nothing has begun."""
    folder = RunFolder(tmp_path / "a")
    folder.path.mkdir()
    folder.job.write_text("5")
    assert folder.open(config(), resume=True, overwrite=False) is False
    assert folder.open(config(), resume=False, overwrite=False) is False
    folder.start(config(), job="6")
    assert folder.job.read_text() == "6"


def test_a_finished_run_of_the_same_config_is_not_run_again(tmp_path):
    folder = made(tmp_path / "a", config())
    assert folder.open(config(), resume=False, overwrite=False) is True


def test_where_things_lie_and_run_makes_no_other_config(tmp_path):
    folder = made(tmp_path / "a", config())
    assert folder.open(config(data__root="elsewhere", trainer__progress=False, name="b"), resume=False, overwrite=False)


def test_where_images_are_kept_makes_no_other_config_and_their_size_does(tmp_path):
    images = {"cache": "here", "workers": 2, "shorter_side": None}
    folder = made(tmp_path / "a", config() | {"images": images})
    assert folder.open(config() | {"images": images | {"cache": None, "workers": 8}}, resume=False, overwrite=False)
    with pytest.raises(RunExists, match=r"images\.shorter_side: None there, 512 here"):
        folder.open(config() | {"images": images | {"shorter_side": 512}}, resume=False, overwrite=False)
    older = made(tmp_path / "b", config() | {"images": {"cache": "here", "workers": 2}})
    assert older.open(config() | {"images": images}, resume=False, overwrite=False), "before there was a size, images were seen as they are"


def test_another_config_is_refused_by_name_and_value(tmp_path):
    folder = made(tmp_path / "a", config())
    with pytest.raises(
        RunExists, match=r"(?s)holds a run with another config:\n  stage\.epochs: 5 there, 3 here\n.*another name=, or overwrite=true"
    ):
        folder.open(config(stage__epochs=3), resume=True, overwrite=False)
    assert folder.finished


def test_an_unfinished_run_wants_ckpt_last(tmp_path):
    folder = made(tmp_path / "a", config(), finished=False)
    with pytest.raises(RunExists, match="unfinished run of this config: add ckpt=last"):
        folder.open(config(), resume=False, overwrite=False)
    assert folder.open(config(ckpt="last"), resume=True, overwrite=False) is False


def test_overwrite_clears_the_folder_when_the_new_run_starts(tmp_path):
    folder = made(tmp_path / "a", config())
    assert folder.open(config(stage__epochs=3), resume=False, overwrite=True) is False
    assert folder.finished  # data and model of the new run may yet be refused
    folder.start(config(stage__epochs=3), overwrite=True)
    assert [path.name for path in folder.path.iterdir()] == ["config.yaml"]
    assert folder.read_config()["stage"]["epochs"] == 3


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "thesis.tex").write_text("years of work")
    with pytest.raises(RunExists, match="is no run folder"):
        RunFolder(tmp_path / "a").open(config(), resume=True, overwrite=False)


def test_overwrite_spares_a_folder_of_something_else(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "thesis.tex").write_text("years of work")
    with pytest.raises(RunExists, match="is no run folder"):
        RunFolder(tmp_path / "a").open(config(), resume=False, overwrite=True)
    assert (tmp_path / "a" / "thesis.tex").exists()


def test_differences_are_listed_by_dotted_name():
    assert different({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3, "d": 4}}) == ["  a.c: 2 there, 3 here", "  a.d: absent there, 4 here"]


def test_stage_two_finds_its_stage_one(tmp_path):
    wanted = made(tmp_path / "one", config(tmp_path))
    made(tmp_path / "joint", config(tmp_path, stage="biqa.stages.joint.Joint"))
    made(tmp_path / "other-seed", config(tmp_path, seed=1))
    made(tmp_path / "other-model", config(tmp_path, model__hidden=64))
    made(tmp_path / "other-data", config(tmp_path, data__train=9))
    made(tmp_path / "other-size", config(tmp_path) | {"images": {"shorter_side": 336}})
    made(tmp_path / "unfinished", config(tmp_path), finished=False)
    assert find_stage_one(config(tmp_path, stage=TWO), CHOICES, ONE).path == wanted.path


def test_no_stage_one_says_how_to_make_it(tmp_path):
    with pytest.raises(RunNotFound, match=r"Run it first: python -m biqa.run stage=1 model=tiny data=synthetic seed=0"):
        find_stage_one(config(tmp_path, stage=TWO), CHOICES, ONE)


def test_two_stage_ones_ask_which(tmp_path):
    made(tmp_path / "a", config(tmp_path))
    made(tmp_path / "b", config(tmp_path, stage__epochs=9))
    with pytest.raises(RunNotFound, match=r"2 finished stage-1 runs fit .*Say which: stage.perception=FOLDER"):
        find_stage_one(config(tmp_path, stage=TWO), CHOICES, ONE)


def test_a_named_run_must_be_there_and_finished(tmp_path):
    with pytest.raises(RunNotFound, match=r"stage.init_from=.*nowhere: no run there"):
        find_run(tmp_path / "nowhere", "stage.init_from")
    made(tmp_path / "half", config(), finished=False)
    with pytest.raises(RunNotFound, match="not finished"):
        find_run(tmp_path / "half", "stage.init_from")


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB + "stage: {_target_: x}", r"config\.yaml cannot be read: line 2 has an alias, \*a: a config holds values"),
        ("[" * 300_000 + "]" * 300_000, r"config\.yaml cannot be read: 586 kB, and no more than 256 are read"),
        ("[" * 100_000 + "]" * 100_000, r"config\.yaml cannot be read: line 1 is nested more than 60 levels deep"),
        ("stage: !!python/object/apply:os.system ['touch canary']", r"has a tag, tag:yaml\.org,2002:python/object/apply:os\.system"),
        ("stage: {_target_: x}\nname: '${oc.env:HOME}'", r"config\.yaml: name=\$\{oc\.env:HOME\} is a reference"),
        ("stage: [_target_]", r"is no config of a run of biqa"),
        ("stage: {_target_: x, a: {1: {}, true: '${'}}", r"cannot be read|is a reference"),
    ],
)  # fmt: skip
def test_a_config_of_others_is_values_and_no_more(tmp_path, text, message):
    folder = RunFolder(tmp_path)
    folder.config.write_text(text)
    with pytest.raises(RunExists, match=message):
        folder.read_config()
