"""A run made again from its folder: the same bit for bit, told apart where it is not, and nothing taken from its config but values."""

import hashlib
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from omegaconf import OmegaConf

from biqa import config as schema
from biqa.errors import UserError
from biqa.finished.recomposed import filled_in, recomposed
from biqa.rerun import main
from biqa.runs import RunFolder

pytest_plugins = ["small_runs"]

STAGES = {"one": ("stage=1",), "two": ("stage=2",), "table": ("stage=zero_shot", "test=[synthetic]", "~logger")}


@pytest.fixture(scope="module")
def made(run, tmp_path_factory) -> Path:
    """A folder of runs: both stages with LoRA, and one that learns nothing."""
    runs = tmp_path_factory.mktemp("made") / "runs"
    for name, options in STAGES.items():
        outcome = run(runs, name, *options, "tuning=lora", *([] if name == "table" else ["stage.epochs=1"]))
        assert outcome.code == 0, outcome.err
    return runs


@pytest.fixture
def runs(made, tmp_path) -> Path:
    """The same, to change."""
    return Path(shutil.copytree(made, tmp_path / "runs"))


def change(folder: Path, **values) -> None:
    """Edit a run's config.yaml: name__of__option=value."""
    config = OmegaConf.load(folder / "config.yaml")
    for name, value in values.items():
        OmegaConf.update(config, name.replace("__", "."), value, force_add=True)
    OmegaConf.save(config, folder / "config.yaml")


def again(folder: Path, *further: str):
    """The recomposed config of a run."""
    schema.register()
    return recomposed(RunFolder(folder), name="new", runs="runs", further=further)


@pytest.mark.parametrize("name", STAGES)
def test_it_comes_out_the_same(runs, capsys, name):
    """Compared here file by file, and not as the door compares."""
    assert main([str(runs / name)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"{runs / f'{name}-rerun'} is {runs / name}, bit for bit."
    files = [path for path in (runs / name).rglob("*") if path.suffix in (".safetensors", ".parquet")]
    assert len(files) == {"one": 3, "two": 6, "table": 2}[name]
    for file in files:
        copy = runs / f"{name}-rerun" / file.relative_to(runs / name)
        assert hashlib.sha256(copy.read_bytes()).digest() == hashlib.sha256(file.read_bytes()).digest()
    before, after = (json.loads((runs / folder / "result.json").read_text()) for folder in (name, f"{name}-rerun"))
    assert before["metrics"] == after["metrics"]
    assert before["run"] | {"name": f"{name}-rerun"} == after["run"]


def test_stage_two_builds_on_the_stage_one_of_the_original_wherever_the_new_run_lies(runs, tmp_path, capsys):
    assert main([str(runs / "two"), f"runs={tmp_path / 'elsewhere'}", "name=again"]) == 0
    config = RunFolder(tmp_path / "elsewhere" / "again").read_config()
    assert Path(config["stage"]["perception"]).resolve() == (runs / "one").resolve()
    assert "bit for bit" in capsys.readouterr().out


def test_a_stage_one_that_was_made_again_serves_like_the_first(runs):
    shutil.copytree(runs / "one", runs / "one-rerun")
    composed, _, _ = again(runs / "two")
    assert composed.stage.perception.endswith("runs/one")
    with (runs / "one-rerun" / "adapter" / "adapter_model.safetensors").open("ab") as weights:
        weights.write(b"x")
    with pytest.raises(UserError, match="2 finished stage-1 runs fit it"):
        again(runs / "two")
    schema.register()
    composed, _, _ = recomposed(RunFolder(runs / "two"), name="new", runs="runs", perception=str(runs / "one-rerun"))
    assert composed.stage.perception.endswith("one-rerun")


def test_what_differs_is_told(runs, capsys):
    """An answers table, weights and versions that are not those of the run."""
    file = runs / "one" / "answers" / "synthetic.parquet"
    answers = pd.read_parquet(file)
    answers.loc[[0, 5], "description"] = "something else"
    answers.to_parquet(file, index=False)
    with (runs / "one" / "adapter" / "adapter_model.safetensors").open("ab") as weights:
        weights.write(b"x")
    result = json.loads((runs / "one" / "result.json").read_text())
    result["versions"]["numpy"], result["git_commit"], result["hardware"]["cpu"] = "1.0", "0" * 40, "An abacus"
    result["metrics"]["synthetic"]["coverage"]["value"] = 7
    (runs / "one" / "result.json").write_text(json.dumps(result))
    assert main([str(runs / "one")]) == 1
    out = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert any(line.startswith("DIFFERS adapter/adapter_model.safetensors SHA-256") for line in lines)
    assert "DIFFERS answers/synthetic.parquet 2 of 36 rows differ" in " ".join(lines)
    assert any(line.startswith("DIFFERS figures 1 of ") and line.endswith("first synthetic.coverage.value") for line in lines)
    assert any(line.startswith("numpy version: 1.0 then, ") for line in lines)
    assert any(line.startswith("cpu: An abacus then, ") for line in lines)
    assert any(line.startswith(f"commit: {'0' * 40} then, ") for line in lines)
    assert lines[-1].startswith(f"{runs / 'one-rerun'} is not {runs / 'one'}. What may be behind it: what differs above.")


def test_the_config_is_that_of_the_run(runs):
    for name in STAGES:
        composed, config, choices = again(runs / name)
        assert isinstance(config, schema.Config)
        then, now = RunFolder(runs / name).read_config(), OmegaConf.to_container(composed)
        now["stage"].pop("perception", None)
        then["stage"].pop("perception", None)
        assert now | {"name": name, "runs": then["runs"]} == then
        assert choices["stage"] == {"one": "perception", "two": "inference", "table": "zero_shot"}[name]
        assert not filled_in(RunFolder(runs / name), composed)


def test_options_that_may_change_do(runs):
    composed, config, _ = again(runs / "one", "trainer.progress=true", "data.root=else where", "logger=wandb", "strategy=ddp", "ckpt=last")
    assert (config.trainer.progress, config.data.root, config.strategy.kind, config.ckpt) == (True, "else where", "ddp", "last")
    assert composed.logger._target_ == "lightning.pytorch.loggers.WandbLogger"
    assert again(runs / "one", "logger=null")[0].logger is None


def test_a_run_of_an_older_release_takes_what_is_usual_now(runs):
    file = runs / "one" / "config.yaml"
    config = OmegaConf.load(file)
    del config.images["features_gb"]
    OmegaConf.save(config, file)
    composed, _, _ = again(runs / "one")
    assert filled_in(RunFolder(runs / "one"), composed) == [f"{file} has no images.features_gb: taken is 10.0"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stage___target_": "os.system"}, r"config\.yaml: stage\._target_=os\.system is refused: with these choices it is biqa\.stages\.perception"),
        ({"stage___target_": "biqa.stages.joint.Joint"}, r"is refused: with these choices it is biqa\.stages\.perception\.Perception"),
        ({"model___target_": "biqa.reporting.result.write_json"}, r"model\._target_=biqa\.reporting\.result\.write_json is refused"),
        ({"logger": {"_target_": "lightning.pytorch.loggers.CSVLogger"}}, r"logger\._target_=.* is refused: with these choices it is biqa\.stages"),
        ({"data__extra": {"_target_": "os.system"}}, r"data\.extra\._target_=os\.system is refused: with these choices it is none"),
        ({"data__root": "${oc.env:HOME}"}, r"config\.yaml: data\.root=\$\{oc\.env:HOME\} is a reference, and the config of a run holds values"),
        ({"data__kinds": ["jpeg", "${oc.env:HOME}"]}, r"data\.kinds=.* is a reference"),
        ({"stage__epoch": 3}, r"config\.yaml: There is no option stage\.epoch\. Did you mean stage\.epochs\?"),
        ({"stage__epochs": "many"}, r"config\.yaml: stage\.epochs=many: write a whole number\."),
        ({"stage__epochs": -1}, r"stage\.epochs=-1: choose 0 or more\."),
        ({"test": {"synthetik": {}}}, r"There is no test=\[synthetik\]\. Did you mean test=\[synthetic\]\?"),
    ],
)  # fmt: skip
def test_a_config_sets_values_and_names_nothing(runs, changes, message):
    change(runs / "one", **changes)
    with pytest.raises(UserError, match=message):
        again(runs / "one")
    assert {path.name for path in runs.iterdir()} == set(STAGES)


def test_images_are_sent_to_no_server_that_a_file_names(runs):
    change(runs / "one", descriptions={"_target_": "biqa.running.teachers.endpoint", "url": "http://elsewhere/v1", "key_env": "SECRET"})
    with pytest.raises(UserError, match=r"would be sent to http://elsewhere/v1, with the key in SECRET\. Say so yourself: descriptions\.url="):
        again(runs / "one")


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["{runs}/one", "seed=3"], r"seed=3 would make another run, and this is to be the same one\. For another: biqa run seed=3"),
        (["{runs}/one", "trainer.progres=true"], r"would make another run, .* Did you mean trainer\.progress\?"),
        (["{runs}/one", "trainer.progress=maybe"], r"trainer\.progress=maybe: write true or false\."),
        (["{runs}/one", "data.parts.x.root=y"], r"There is no option data\.parts\.x\.root\. Did you mean data\.root\?"),
        (["{runs}/one", "perception=x"], r"perception=x is for a run of stage 2, and .* is none\. Leave it out\."),
        (["{runs}/one", "name=one"], r"name=one: that is the run itself, which stays as it is\. Choose another name= or runs=\."),
        (["{runs}/oen"], r"run=.*oen: no run there \(a run folder has a config\.yaml\)\. Did you mean .*runs/one\?"),
        ([], r"run has no value\. Set it: run=VALUE"),
    ],
)
def test_what_is_refused(runs, typed, message):
    with pytest.raises(UserError, match=message):
        main([word.format(runs=runs) for word in typed])
