"""Which runs a table needs."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser

from biqa import config as schema
from biqa.data.discovery import Found
from biqa.errors import IncompatibleChoice
from biqa.planning.plan import STAGES, ending, plan_studies, quoted, takes
from biqa.run import numbers_to_words


def found(*choices: str) -> list[Found]:
    return [Found(choice, Path("/data/it's a \\ b") / choice, 10, 20) for choice in choices]


def plan(*choices: str, model: str = "owl2", **options):
    return plan_studies(model=model, found=found(*choices), seeds=options.pop("seeds", None), runs=Path("runs"), **options)


def test_with_nothing_there_the_stand_in_is_used() -> None:
    for model in ("tiny", "owl2"):
        [study] = plan(model=model)
        assert (study.data, study.tests) == ("synthetic", ("synthetic",))
        assert [(run.stage, run.seed) for run in study.runs] == [(stage, 0) for stage in STAGES]


def test_the_paper_s_sets_are_trained_on_and_all_are_measured() -> None:
    [study] = plan("live", "csiq", "spaq", "koniq", "livec")
    assert (study.data, study.tests) == ("koniq+spaq", ("live", "csiq", "spaq", "koniq", "livec"))
    assert [(run.stage, run.seed) for run in study.runs] == [(stage, seed) for seed in (0, 1, 2) for stage in STAGES]


def test_what_is_there_is_trained_on_where_the_paper_s_are_not() -> None:
    [half] = plan("csiq", "koniq")
    assert half.data == "csiq+koniq"
    [study] = plan("live", "csiq")
    assert (study.data, study.tests) == ("live+csiq", ("live", "csiq"))
    assert not any(override.startswith("test") for run in study.runs for override in run.overrides)


def test_the_tiny_model_is_measured_on_the_stand_in_too() -> None:
    assert [study.data for study in plan("livec", model="tiny")] == ["synthetic", "livec"]
    assert [study.data for study in plan("livec", model="tiny", train=["livec"])] == ["livec"]


def test_options_of_a_stage_go_to_the_stages_that_have_them() -> None:
    wanted = {
        "stage.epochs=1": {"joint", "perception", "inference"},
        "stage.target=hard": {"zero_shot", "joint", "inference"},
        "stage.generated_per_image=1": {"inference"},
        "stage.batch_size=4": set(STAGES),
        "stage.epoch=1": set(STAGES),  # known to none: each refuses it
        "model.size=tiny": set(STAGES),
    }
    assert {option: {stage for stage in STAGES if takes(stage, option)} for option in wanted} == wanted


def test_where_and_on_what_a_run_is_made_is_no_part_of_its_name() -> None:
    options = ["trainer.devices=4", "stage.epochs=1", "strategy=ddp", "+logger=csv"]
    assert ending(options) == "-stage.epochs-1"
    [study] = plan(options=options)
    assert study.runs[1].folder.path.name == "owl2-joint-synthetic-s0-stage.epochs-1"
    assert study.runs[1].overrides[-4:] == tuple(options)


def test_data_to_train_on_must_be_there() -> None:
    with pytest.raises(IncompatibleChoice, match=r"train=\[koniq\]: koniq is not there as a whole\. What is: live\."):
        plan("live", train=["koniq"])


@pytest.mark.parametrize("choices", [(), ("livec",), ("live", "csiq"), ("live", "csiq", "spaq", "koniq")])
def test_every_run_composes_with_its_folder(choices) -> None:
    [study] = plan(*choices, seeds=[3], options=["model.size=tiny", "stage.epochs=1"])
    schema.register()
    for run in study.runs[1:3]:
        with initialize_config_dir(schema.config_directory(), version_base="1.3"):
            config = compose("config", numbers_to_words([*run.overrides]))
        assert Path(config.runs) / config.name == run.folder.path
        assert (config.seed, config.model.size, config.stage.epochs, config.ckpt) == (3, "tiny", 1, "last")
        nodes = [config.data] if len(choices) < 2 else list(config.data.parts.values())
        if choices:
            assert {node.root for node in (*nodes, *(config.test or {}).values())} == {f"/data/it's a \\ b/{choice}" for choice in choices}


@pytest.mark.parametrize("text", ["a", "it's", "a\\b", "a\\'b", "at the end\\", "two\\\\'", "${seed}", "a,b=[c]"])
def test_a_quoted_value_is_read_back(text) -> None:
    assert OverridesParser.create().parse_override(f"name={quoted(text)}").value() == text
