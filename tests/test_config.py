"""Every YAML composes; nonsense is refused with a sentence that says what to do."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from biqa import config as schema
from biqa.errors import IncompatibleChoice
from biqa.run import numbers_to_words

CONF = Path(schema.config_directory())
OFFICIAL = ("agiqa", "biq2021", "csiq", "kadid", "koniq", "live", "livec", "spaq", "tid2013")
MISSING = {
    **{f"data={name}": ["data.root=x"] for name in OFFICIAL},
    "data=table": ["data.file=x", "data.low=1", "data.high=5"],
    "data=labels_json": ["data.train=x", "data.root=x", "data.low=1", "data.high=5", "data.direction=mos"],
    "descriptions=file": ["descriptions.file=x"],
    "descriptions=conversations": ["descriptions.file=x"],
}
CHOICES = [f"{path.parent.name}={path.stem}" for path in sorted(CONF.glob("*/*.yaml")) if path.parent.name != "hydra"]


def composed(*overrides: str, name: str = "config"):
    schema.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(name, [*overrides, "name=x"], return_hydra_config=False)


@pytest.mark.parametrize("choice", [choice for choice in CHOICES if not choice.startswith(("sweep=", "experiment="))])
def test_every_choice_composes_into_the_schema(choice):
    config = composed(choice, *MISSING.get(choice, []))
    assert isinstance(OmegaConf.to_object(config), schema.Config)


@pytest.mark.parametrize("choice", [choice for choice in CHOICES if choice.startswith(("sweep=", "experiment="))])
def test_every_sweep_and_experiment_composes(choice):
    assert isinstance(OmegaConf.to_object(composed(f"+{choice}" if choice.startswith("experiment") else choice)), schema.Config)


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
        (["stage=zero_shot", "stage.epochs=3"], "zero_shot trains nothing. Choose stage=joint"),
        (["stage.target=vague"], "stage.target=vague is not known: choose hard or soft"),
        (["stage=inference", "stage.descriptions=none"], "stage.descriptions=none is not known: choose target, generated or mixed"),
        (["stage=inference", "stage.generated_per_image=0"], "stage.generated_per_image=0: choose 1 or more"),
        (["data.on_bad_image=ignore"], "data.on_bad_image=ignore is not known: choose stop or skip"),
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
        ("seed=1,2", "seed=1,2"),
    ],
)
def test_stages_go_by_number(typed, meant):
    assert numbers_to_words([typed]) == [meant]


def test_a_run_is_named_by_what_it_overrides():
    assert schema.variant("") == ""
    assert schema.variant("stage.epochs=3,stage.target=hard") == "-stage.epochs-3_stage.target-hard"
    assert schema.variant("stage.init_from=runs/a b") == "-stage.init_from-runs_a_b"
    long = schema.variant("x=" + "y" * 100)
    assert len(long) == 9
    assert long != schema.variant("x=" + "y" * 101)
