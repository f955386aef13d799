"""Every YAML composes; nonsense is refused with a sentence that says what to do."""

from copy import deepcopy
from dataclasses import fields
from pathlib import Path
from unittest.mock import patch

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.errors import MissingConfigException
from omegaconf import OmegaConf, open_dict

from biqa import config as schema
from biqa.config.identity import NO_DIFFERENCE
from biqa.errors import IncompatibleChoice
from biqa.run import numbers_to_words

CONF = Path(schema.config_directory())
OFFICIAL = ("agiqa", "biq2021", "csiq", "kadid", "koniq", "live", "livec", "spaq", "tid2013")
MISSING = {
    **{f"data={name}": ["data.root=x"] for name in OFFICIAL},
    "data=table": ["data.file=x", "data.low=1", "data.high=5"],
    "data=labels_json": ["data.train=x", "data.root=x", "data.low=1", "data.high=5", "data.direction=mos"],
    "quantization=int8": ["tuning=lora"],
    "quantization=nf4": ["tuning=lora"],
    "strategy=fsdp": ["trainer.devices=2"],
    "answers=vllm": ["model=llava"],
    "descriptions=file": ["descriptions.file=x"],
    "descriptions=defects": ["descriptions.file=x"],
    "descriptions=conversations": ["descriptions.file=x"],
    "descriptions=teacher": ["descriptions.run=x"],
    "descriptions=endpoint": ["descriptions.url=http://x/v1", "descriptions.model=x"],
}
CHOICES = [f"{path.parent.name}={path.stem}" for path in sorted(CONF.glob("*/*.yaml")) if path.parent.name not in ("hydra", "search")]


def composed(*overrides: str, name: str = "config"):
    schema.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(name, [*overrides, "name=x"], return_hydra_config=False)


@pytest.mark.parametrize("choice", [choice for choice in CHOICES if not choice.startswith(("sweep=", "experiment="))])
def test_every_choice_composes_into_the_schema(choice):
    config = composed(choice, *MISSING.get(choice, []))
    assert isinstance(OmegaConf.to_object(config), schema.Config)


@pytest.mark.parametrize("choice", [choice for choice in CHOICES if choice.startswith(("sweep=", "experiment="))])
def test_every_sweep_and_experiment_composes(choice, monkeypatch):
    schema.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", [choice, "name=x"], return_hydra_config=True)
    monkeypatch.setattr(HydraConfig.instance(), "cfg", deepcopy(config))  # what an experiment starts from is named by the choices
    with open_dict(config):
        del config["hydra"]
    assert isinstance(OmegaConf.to_object(config), schema.Config)


def test_an_experiment_is_part_of_the_name_of_its_runs_where_it_changes_more_than_choices():
    schema.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        names = {}
        for choice in ("one_stage", "two_stage_hard"):
            config = compose("config", [f"experiment={choice}", "seed=3"], return_hydra_config=True)
            with patch.object(HydraConfig.instance(), "cfg", deepcopy(config)):
                names[choice] = config.name
    assert names == {"one_stage": "tiny-joint-synthetic-s3", "two_stage_hard": "tiny-inference-synthetic-s3-hard"}


def test_what_a_sweep_sweeps_is_there():
    for file in CONF.glob("sweep/*.yaml"):
        params = OmegaConf.load(file).hydra.sweeper.params
        for group in ("experiment", "stage", "model", "scorer", "quantization"):
            for choice in str(params.get(group) or "").split(","):
                assert not choice or (CONF / group / f"{choice}.yaml").is_file(), f"{file.name}: {group}={choice}"


def test_every_yaml_says_what_it_is():
    for path in CONF.rglob("*.yaml"):
        lines = path.read_text().splitlines()
        assert lines[0].startswith("#"), f"{path.name} begins without a comment"
        if path.parent != CONF:
            assert len(lines) <= 25, f"{path.name} has {len(lines)} lines"


def test_data_bring_their_descriptions_and_a_choice_wins():
    assert composed("data=livec", "data.root=x").descriptions._target_.endswith("MeasuredTargets")
    assert composed("data=livec", "data.root=x", "descriptions=attributes").descriptions._target_.endswith("AttributeTargets")
    assert composed().descriptions._target_.endswith("DistortionTargets")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["sampling.repeats=1"], "sampling.repeats=1: one answer cannot disagree with itself"),
        (["sampling.temperature=0"], "sampling.temperature=0.0: greedy decoding repeats itself, its instability is 0 by construction"),
        (["sampling.top_p=0"], "sampling.top_p=0.0: choose a value in"),
        (["stage.epochs=-1"], "stage.epochs=-1: choose 0 or more"),
        (["stage.batch_size=0"], "stage.batch_size=0: choose 1 or more"),
        (["stage=zero_shot", "stage.epochs=3"], "this stage trains nothing by steps. Choose stage=joint"),
        (["stage.target=vague"], "stage.target=vague is not known: choose hard or soft"),
        (["stage=inference", "stage.descriptions=none"], "stage.descriptions=none is not known: choose target, generated or mixed"),
        (["stage=inference", "stage.generated_per_image=0"], "stage.generated_per_image=0: choose 1 or more"),
        (["data.on_bad_image=ignore"], "data.on_bad_image=ignore is not known: choose stop or skip"),
        (["images.shorter_side=15"], "images.shorter_side=15: choose 16 pixels or more, or null for images as they are"),
        (["tuning=lora", "tuning.rank=0"], "LoRA needs a rank of at least 1"),
        (["tuning.kind=half"], "tuning.kind=half is not known: choose full or lora"),
        (["tuning.warmup=1"], "tuning.warmup=1.0 is a share of the steps"),
        (["ckpt=best"], "ckpt=best is not known: choose last"),
        (["ckpt=last", "overwrite=true"], "choose one"),
        (["seed=-1"], "seed=-1: choose 0 or more"),
        (["evaluation.resamples=0"], "evaluation.resamples=0: choose 1 or more"),
    ],
)
def test_nonsense_is_refused(overrides, message):
    with pytest.raises(IncompatibleChoice, match=message):
        OmegaConf.to_object(composed(*overrides))


def test_several_problems_of_one_group_are_told_at_once():
    with pytest.raises(IncompatibleChoice, match=r"(?s)sampling.top_p.*sampling.max_new_tokens"):
        OmegaConf.to_object(composed("sampling.top_p=2", "sampling.max_new_tokens=0"))


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("stage=1", "stage=perception"),
        ("stage=2", "stage=inference"),
        ("stage=1,2", "stage=perception,inference"),
        ("stage=joint,2", "stage=joint,inference"),
        ("stage=7", "stage='7'"),
        ("stage.epochs=1", "stage.epochs=1"),
        ("test=[live]", "test=live"),
        ("test=[live,csiq, spaq]", "test=live+csiq+spaq"),
        ("test=live,[spaq,csiq]", "test=live,spaq+csiq"),
        ("data=koniq+spaq", "data=koniq+spaq"),
        ("seed=1,2", "seed=1,2"),
    ],
)
def test_stages_go_by_number_and_test_sets_by_a_list(typed, meant):
    assert numbers_to_words([typed]) == [meant]


def test_a_run_is_named_by_what_it_overrides():
    assert schema.variant("") == ""
    assert schema.variant("stage.epochs=3,stage.target=hard") == "-stage.epochs-3_stage.target-hard"
    assert schema.variant("stage.init_from=runs/a b") == "-stage.init_from-runs_a_b"
    long = schema.variant("x=" + "y" * 100)
    assert len(long) == 9
    assert long != schema.variant("x=" + "y" * 101)


# several data sets


def test_a_mixture_composes_its_parts_with_their_own_options():
    config = composed("data=koniq+spaq", "data.parts.koniq.scale=zscore", "data.weights.spaq=0.5", "datasets=/iqa")
    typed = OmegaConf.to_object(config)
    assert [type(part) for part in typed.data.parts.values()] == [schema.KoniqData, schema.OfficialData]
    assert typed.data.weights == {"koniq": 1.0, "spaq": 0.5}
    assert (typed.data.parts["koniq"].scale, typed.data.parts["koniq"].root, typed.data.parts["spaq"].root) == ("zscore", "/iqa", "/iqa")


@pytest.mark.parametrize(
    ("overrides", "descriptions"),
    [
        (("data=koniq+spaq",), "AttributeTargets"),
        (("data=kadid+tid2013+csiq",), "DistortionTargets"),
        (("data=koniq+kadid",), "MeasuredTargets"),
        (("data=kadid+koniq",), "MeasuredTargets"),
        (("data=koniq+kadid", "descriptions=distortions"), "DistortionTargets"),
        (("test=spaq",), "DistortionTargets"),  # the training data choose, not what is tested on
        (("data=spaq", "test=live+kadid"), "AttributeTargets"),
    ],
)
def test_a_mixture_is_described_by_what_its_parts_agree_on_or_measured(overrides, descriptions):
    assert composed(*overrides).descriptions._target_ == f"biqa.data.targets.{descriptions}"


@pytest.mark.parametrize("choice", ["data=koniq+nope", "data=koniq+", "test=nope", "test=live+nope"])
def test_a_part_that_there_is_not_is_refused(choice):
    with pytest.raises(MissingConfigException, match="Could not find"):
        composed(choice)


@pytest.mark.parametrize("weight", ["0", "-1", "nan", "inf"])
def test_a_weight_that_means_nothing_is_refused(weight):
    with pytest.raises(IncompatibleChoice, match=rf"data\.weights\.koniq={weight}.*: choose a number above 0, or leave koniq out"):
        OmegaConf.to_object(composed("data=koniq+spaq", f"data.weights.koniq={weight}"))


def test_where_images_lie_is_no_part_of_a_name():
    assert schema.variant("data.root=/a,test.live.root=/b,data.parts.koniq.root=/c,data.workers=3") == ""
    assert schema.variant("data.kinds=[jpeg,white_noise],data.root=/a,test=live+csiq") == "-data.kinds-_jpeg_white_noise__test-live+csiq"


def test_the_size_of_images_is_part_of_a_name_and_where_they_are_kept_is_not():
    schema.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        options = ["images.shorter_side=512", "images.cache=here", "images.workers=7", "data.root=there"]
        overrides = compose("config", options, return_hydra_config=True).hydra.job.override_dirname
    assert schema.variant(overrides) == "-images.shorter_side-512"


def test_what_tells_no_run_from_another_stands_in_no_name():
    """Options that may change between two calls of one run would else send the second call to another folder."""
    hydra = OmegaConf.load(Path(schema.config_directory()) / "config.yaml").hydra
    unnamed = set(hydra.job.config.override_dirname.exclude_keys)
    may_change = {"export.merge" if option == "export" else option for option in NO_DIFFERENCE}
    assert may_change - unnamed == {"trainer.checkpoint_steps"}  # which has always stood in names: runs are found by them
    told_apart_by_name = {"model", "stage", "data", "seed", "experiment", "sweep", "hydra.launcher"}
    of_a_group = {f"strategy.{field.name}" for field in fields(schema.Strategy)}
    assert unnamed - may_change - of_a_group == told_apart_by_name
    assert of_a_group <= unnamed  # a message says: choose a larger strategy.timeout; with ckpt=last the run goes on
