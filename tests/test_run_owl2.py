"""The whole chain on mPLUG-Owl2's architecture, small and from random weights, through the door."""

import pytest

from biqa.evaluation.answers import read_answers
from biqa.reporting.result import read_result

pytest_plugins = ["small_runs"]

OWL2 = ("model=owl2", "model.size=tiny", "stage.epochs=1", "stage.batch_size=8")
TUNINGS = {"full": ("tuning=full",), "nf4": ("tuning=lora", "tuning.rank=4", "model.quantization=nf4")}


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
    done = call("biqa.run", *OWL2, "tuning=full", "model.quantization=int8", f"runs={tmp_path}")
    assert done.code == 2
    assert "model.quantization=int8 with tuning=full: quantized weights cannot learn. Choose tuning=lora" in done.err
    assert not list(tmp_path.iterdir())
