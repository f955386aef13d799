"""Every combination of model, stage, tuning, quantization and strategy composes or is refused with a reason; a few are run."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations, product
from pathlib import Path

import pandas as pd
import pytest
import torch
from checkpoints import write_checkpoint
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from safetensors.torch import load_file

from biqa import config as schema
from biqa.errors import IncompatibleChoice
from biqa.reporting.result import read_result
from biqa.run import numbers_to_words

pytest_plugins = ["small_runs"]

CONF = Path(schema.config_directory())
GROUPS = ("model", "stage", "tuning", "quantization", "strategy")
CHOICES = {group: sorted(path.stem for path in (CONF / group).glob("*.yaml")) for group in GROUPS}
TRAINED = ("joint", "perception", "inference")


def composed(*overrides, **chosen):
    schema.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", [*(f"{group}={choice}" for group, choice in chosen.items()), *overrides, "name=x"])


def outcome(config) -> str:
    """Why a config is refused, or nothing."""
    return why_refused(lambda: OmegaConf.to_object(config))


def why_refused(make: Callable[[], object]) -> str:
    """Why a config cannot be made, or nothing. Anything else that goes wrong is raised."""
    try:
        assert isinstance(make(), schema.Config)
    except IncompatibleChoice as error:
        return str(error)
    return ""


def refused(*, stage: str, tuning: str, quantization: str, strategy: str, **_: str) -> bool:
    """What the matrix should say of two devices, in words of its own: packed weights neither learn nor are divided."""
    learns = quantization != "none" and tuning == "full" and stage in TRAINED
    divided = quantization != "none" and strategy in ("fsdp", "deepspeed_zero2", "deepspeed_zero3")
    return learns or divided


def pairs(cell: Sequence[str]) -> set[tuple[tuple[str, str], ...]]:
    return set(combinations(zip(GROUPS, cell, strict=True), 2))


def covering() -> list[tuple[str, ...]]:
    """Cells in which every pair of choices of any two groups is met: each is the one with most new pairs."""
    met = {cell: pairs(cell) for cell in product(*CHOICES.values())}
    missing = set().union(*met.values())
    cells = []
    while missing:
        cells.append(max(met, key=lambda cell: len(met[cell] & missing)))
        missing -= met[cells[-1]]
    return cells


@pytest.fixture(scope="module")
def composed_cells():
    """Cells that cover all pairs, composed by Hydra."""
    return {cell: composed(**dict(zip(GROUPS, cell, strict=True))) for cell in covering()}


@pytest.fixture(scope="module")
def choices():
    """Every choice of a group, composed beside the defaults of the other groups."""
    return {(group, choice): composed(**{group: choice})[group] for group in GROUPS for choice in CHOICES[group]}


def test_choices_do_not_reach_into_each_other(composed_cells, choices):
    """In cells that cover every pair, each group is what it is beside the defaults, and nothing else changes."""
    expected = {key: value for key, value in OmegaConf.to_container(composed()).items() if key not in GROUPS}
    for cell, config in composed_cells.items():
        for group, choice in zip(GROUPS, cell, strict=True):
            assert OmegaConf.to_container(config[group]) == OmegaConf.to_container(choices[group, choice]), cell
        assert {key: value for key, value in OmegaConf.to_container(config).items() if key not in GROUPS} == expected, cell


def test_every_cell_composes_or_is_refused_with_a_reason_and_a_way_out(composed_cells, choices):
    """9 models x 5 stages x 2 x 3 x 5 = 1,350 cells. By the test above a cell is put together from its groups as Hydra would do it."""
    cells = 0
    objects = {chosen: OmegaConf.to_object(config) for chosen, config in choices.items()}  # as OmegaConf would make them anew for every cell
    sound = OmegaConf.to_object(composed("trainer.devices=2"))
    assert isinstance(sound, schema.Config)
    for cell in product(*CHOICES.values()):
        chosen = dict(zip(GROUPS, cell, strict=True))
        said = why_refused(lambda chosen=chosen: replace(sound, **{group: objects[group, choice] for group, choice in chosen.items()}))
        assert bool(said) == refused(**chosen), (chosen, said)
        assert all("hoose " in line for line in said.splitlines()), said
        cells += 1
    assert cells == len(list(product(*CHOICES.values()))) >= 1000


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["quantization=nf4"], r"quantization=nf4 with tuning=full: packed weights cannot learn\. Choose tuning=lora"),
        (["quantization=int8", "tuning=lora", "quantization.double_quant=true"], "double_quant .* say nothing with quantization=int8"),
        (
            ["quantization=nf4", "tuning=lora", "quantization.compute_dtype=half"],
            "quantization.compute_dtype=half is not known: choose float32, bfloat16",
        ),
        (["quantization.kind=int4"], "quantization.kind=int4 is not known: choose none, int8, nf4"),
        (["tuning.frozen=[eyes]"], r"tuning\.frozen=\[eyes\] is not known: choose of tower, projector, decoder"),
        (["tuning.frozen=[tower,projector,decoder]"], "nothing would learn. Take a part out"),
        (["stage=inference", "tuning.frozen=[decoder]"], r"tuning\.frozen=\[decoder\] with stage=inference, which runs on the decoder alone"),
        (["tuning.projector=true"], "tuning.projector=true with tuning=full, with which every part learns.*choose tuning=lora"),
        (["tuning=lora", "tuning.frozen=[tower]"], "tuning.frozen= with tuning=lora, with which nothing of the base learns"),
        (["tuning=lora", "tuning.projector_lr=1e-3"], "tuning.projector_lr= and the projector does not learn. Choose tuning.projector=true"),
        (
            ["tuning=lora", "tuning.projector_start=words"],
            "tuning.projector_start=words and the projector does not learn. Choose tuning.projector=true",
        ),
        (
            ["tuning.frozen=[projector]", "tuning.projector_start=words", "tuning.projector_lr=1"],
            "projector_lr= and tuning.projector_start=words and",
        ),
        (["tuning.projector_start=random"], "tuning.projector_start=random is not known: choose loaded or words"),
        (["tuning.projector_start=words", "stage.init_from=runs/a"], "words with stage.init_from=: that run's projector would be thrown away"),
        (["tuning.projector_lr=0"], "tuning.projector_lr=0.0: choose a learning rate above 0"),
        (["export.merge=true"], "export.merge=true with tuning=full: model/ is a whole model already"),
        (["export.merge=true", "tuning=lora", "stage=zero_shot"], "export.merge=true with stage.epochs=0: nothing is learnt"),
    ],
)
def test_what_cannot_work_is_said_with_the_nearest_that_does(overrides, message):
    assert re.search(message, outcome(composed(*overrides)))


def test_a_quantized_group_is_no_option_of_the_model_and_a_word_is_enough():
    assert numbers_to_words(["quantization=nf4"]) == ["quantization=nf4"]
    assert composed(quantization="nf4", tuning="lora").quantization.kind == "nf4"
    assert "quantization" not in composed(model="owl2").model


WIDE = ("model.hidden=64", "stage.epochs=1", "stage.batch_size=8", "tuning.lr=1e-3")


@pytest.mark.parametrize(
    ("stages", "options"),
    [
        (
            ("1", "2"),
            (
                "tuning=lora",
                "quantization=nf4",
                "tuning.projector=true",
                "tuning.projector_lr=1e-2",
                "tuning.projector_start=words",
                "export.merge=true",
            ),
        ),
        (("joint",), ("tuning=lora", "quantization=int8", "tuning.tower=true", "export.merge=true")),
        (("joint",), ("tuning=full", "tuning.frozen=[tower]")),
        (("zero_shot",), ("quantization=nf4",)),
    ],
    ids=["nf4, both stages", "int8, joint", "full, frozen tower", "nf4, zero-shot"],
)
def test_cells_that_run(call, synthetic, tmp_path, stages, options):
    for stage in stages:
        done = call("biqa.run", *synthetic, *(WIDE[1:] if stage != "zero_shot" else ()), WIDE[0], f"stage={stage}", *options, f"runs={tmp_path}")
        assert done.code == 0, done.err
    folders = sorted(tmp_path.iterdir())
    assert len(folders) == len(stages)
    for folder in folders:
        result = read_result(folder / "result.json")
        kind = next((option.removeprefix("quantization=") for option in options if option.startswith("quantization=")), "none")
        assert result["run"]["quantization"] == kind
        assert (folder / "merged" / "model.safetensors").is_file() == ("export.merge=true" in options)


def test_a_finished_run_is_merged_by_the_same_command(call, synthetic, tmp_path):
    typed = (*synthetic, *WIDE, "stage=joint", "tuning=lora", f"runs={tmp_path}")
    assert call("biqa.run", *typed).code == 0
    (folder,) = tmp_path.iterdir()
    before = (folder / "result.json").read_bytes()
    done = call("biqa.run", *typed, "export.merge=true")
    assert done.code == 0, done.err
    assert "is finished already" in done.out
    assert "for transformers' AutoModelForImageTextToText.from_pretrained" in done.out
    assert list(tmp_path.iterdir()) == [folder]
    assert (folder / "merged" / "config.json").is_file()
    assert (folder / "result.json").read_bytes() == before


def test_stage_two_takes_the_stage_one_of_its_own_packing(call, synthetic, tmp_path):
    small = (*synthetic, *WIDE, f"runs={tmp_path}", "tuning=lora")
    assert call("biqa.run", *small, "stage=1", "name=plain").code == 0
    done = call("biqa.run", *small, "stage=2", "quantization=nf4")
    assert done.code == 2
    assert "python -m biqa.run stage=1 model=tiny data=synthetic tuning=lora quantization=nf4 seed=0" in done.err
    named = call("biqa.run", *small, "stage=2", "quantization=nf4", "name=two", f"stage.perception={tmp_path / 'plain'}")
    assert named.code == 0, named.err


def test_a_stage_one_that_taught_its_projector_describes_with_it(call, synthetic, tmp_path):
    """Stage 2 says nothing of a projector, which it has not; the descriptions come from the model that stage 1 has learnt."""
    small = (*synthetic, *WIDE, f"runs={tmp_path}", "tuning=lora", "tuning.rank=4")
    assert call("biqa.run", *small, "stage=1", "tuning.projector=true", "tuning.projector_lr=0.5", "name=one").code == 0
    done = call("biqa.run", *small, "stage=2", f"stage.perception={tmp_path / 'one'}", "name=two")
    assert done.code == 0, done.err
    told = pd.read_parquet(tmp_path / "two" / "descriptions" / "synthetic-test.parquet")
    answered = pd.read_parquet(tmp_path / "one" / "answers" / "synthetic.parquet")
    greedy = [rows[rows["query"] == 0].set_index("image")["description"].sort_index() for rows in (told, answered)]
    assert greedy[0].equals(greedy[1])


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("tuning", [("tuning=full", "tuning.frozen=[tower]"), ("tuning=lora", "tuning.rank=4", "tuning.projector=true")], ids=str)
def test_float32_weights_learn_beside_bfloat16_ones(call, synthetic, checkpoint, tmp_path, tuning, precision):
    small = [option for option in synthetic if not option.startswith("model.")]
    chosen = ("model=llava", f"model.id={checkpoint('llava')}", "model.dtype=bfloat16", f"trainer.precision={precision}", "stage.epochs=1")
    for stage in ("1", "2"):
        done = call("biqa.run", *small, *chosen, *tuning, f"stage={stage}", f"runs={tmp_path}", f"name=s{stage}")
        assert done.code == 0, done.err
    kind = "model" if "tuning=full" in tuning else "adapter"
    (file,) = (tmp_path / "s1" / kind).glob("*.safetensors")
    learnt = {value.dtype for name, value in load_file(file).items() if "vision_tower" not in name}
    assert learnt == {torch.float32}
    teacher = ("descriptions=teacher", f"descriptions.run={tmp_path / 's1'}", "descriptions.max_new_tokens=8")
    done = call("biqa.run", *small, *chosen, *tuning, *teacher, "stage=1", f"runs={tmp_path}", "name=taught")
    assert "is left of the teacher's text" in done.err  # it has answered: with random weights it says nothing of use


def test_an_adapter_on_the_wrong_base_ends_in_one_sentence(call, synthetic, tmp_path):
    small = [option for option in synthetic if not option.startswith("model.")]
    for seed in (0, 1):
        write_checkpoint(tmp_path / f"llava-{seed}", "llava", seed=seed)
    typed = (*small, "model=llava", "tuning=lora", "stage=joint", "stage.epochs=1", f"runs={tmp_path / 'runs'}")
    assert call("biqa.run", *typed, f"model.id={tmp_path / 'llava-0'}", "name=there").code == 0
    done = call("biqa.run", *typed, f"model.id={tmp_path / 'llava-1'}", "name=here", f"stage.init_from={tmp_path / 'runs' / 'there'}")
    assert done.code == 2
    assert re.search(r"this adapter was learnt on \S+/llava-0, and the base here is \S+/llava-1: their weights differ", done.err)
    assert "Traceback" not in done.err
    moved = (tmp_path / "llava-0").rename(tmp_path / "moved")
    done = call("biqa.run", *typed, f"model.id={moved}", "model.dtype=float32", "name=moved", f"stage.init_from={tmp_path / 'runs' / 'there'}")
    assert done.code == 0, done.err
