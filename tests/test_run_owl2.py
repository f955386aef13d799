"""The whole chain on mPLUG-Owl2's architecture, small and from random weights, through the door."""

import time

import pytest
import torch

from biqa.evaluation.answers import read_answers
from biqa.reporting.result import read_result

pytest_plugins = ["small_runs"]

OWL2 = ("model=owl2", "model.size=tiny", "stage.epochs=1", "stage.batch_size=8")
TUNINGS = {"full": ("tuning=full",), "nf4": ("tuning=lora", "tuning.rank=4", "quantization=nf4")}


@pytest.mark.parametrize("tuning", TUNINGS)
def test_stage_one_stage_two_and_joint(call, synthetic, tmp_path, tuning):
    small = [option for option in synthetic if not option.startswith("model.")]
    for stage in ("1", "2", "joint"):
        done = call("biqa.run", *small, *OWL2, *TUNINGS[tuning], f"stage={stage}", f"runs={tmp_path}")
        assert done.code == 0, done.err
    for folder in tmp_path.iterdir():
        result = read_result(folder / "result.json")
        assert result["run"]["model"] == "owl2"
        assert (folder / ("model" if tuning == "full" else "adapter")).is_dir()
        answers = read_answers(folder / "answers" / "synthetic.parquet")
        assert len(answers) == 12 * 3
        if "perception" not in folder.name:
            assert answers["score"].between(0, 1).all()
    assert len(list(tmp_path.iterdir())) == 3


def test_quantized_weights_do_not_learn(call, synthetic, tmp_path):
    done = call("biqa.run", *OWL2, "tuning=full", "quantization=int8", f"runs={tmp_path}")
    assert done.code == 2
    assert "quantization=int8 with tuning=full: packed weights cannot learn. Choose tuning=lora" in done.err
    assert not list(tmp_path.iterdir())


def test_a_quantized_run_goes_on_where_it_was_killed(start, call, synthetic, tmp_path, digest):
    small = [option for option in synthetic if not option.startswith("model.")]
    typed = (*small, *OWL2, *TUNINGS["nf4"], "stage=joint", "stage.epochs=3", "trainer.checkpoint_steps=2")
    assert call("biqa.run", *typed, f"runs={tmp_path}", "name=whole").code == 0
    folder = tmp_path / "killed"
    process = start(*typed, f"runs={tmp_path}", "name=killed")
    deadline = time.monotonic() + 120
    while not (folder / "checkpoints" / "step=00000004.ckpt").is_file() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert not (folder / "adapter").exists()
    held = torch.load(sorted((folder / "checkpoints").iterdir())[-1], weights_only=True)["state_dict"]
    assert held
    assert all("lora_" in name for name in held)
    assert call("biqa.run", *typed, f"runs={tmp_path}", "name=killed", "ckpt=last").code == 0
    weights = [digest(tmp_path / name / "adapter" / "adapter_model.safetensors") for name in ("whole", "killed")]
    assert weights[0] == weights[1]
