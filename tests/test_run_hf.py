"""The whole chain on small checkpoints of other families, through the door, as a user types it."""

import json

import pytest

from biqa.evaluation.answers import read_answers
from biqa.reporting.result import read_result

pytest_plugins = ["small_runs"]

RUNS = {
    "smolvlm": ("tuning=lora", "tuning.rank=4", "model.visual_tokens=40"),
    "qwen2_5_vl": ("tuning=full", "model.dtype=float32"),
    "internvl": ("tuning=lora", "tuning.rank=4", "quantization=nf4", "model.image={max_patches:2}"),
}
COST = {"smolvlm": "40 visual tokens an image", "qwen2_5_vl": "4 visual tokens an image", "internvl": "4 visual tokens an image"}


@pytest.mark.parametrize("family", RUNS)
def test_stage_one_stage_two_joint_and_zero_shot(call, synthetic, checkpoint, tmp_path, family):
    small = [option for option in synthetic if not option.startswith("model.") and "precision" not in option]
    chosen = (*small, "model=hf", f"model.id={checkpoint(family)}", *RUNS[family], f"runs={tmp_path}")
    for stage in ("1", "2", "joint", "zero_shot"):
        done = call("biqa.run", *chosen, f"stage={stage}", *(() if stage == "zero_shot" else ("stage.epochs=1",)))
        assert done.code == 0, done.err
        assert ("visual tokens an image" in done.out) == (stage != "2")
        if stage == "1":
            assert COST[family] in done.out, done.out[:300]
    folders = {read_result(folder / "result.json")["run"]["stage"]: folder for folder in tmp_path.iterdir()}
    assert set(folders) == {"perception", "inference", "joint", "zero_shot"}
    for stage, folder in folders.items():
        learnt = {path.name for path in folder.iterdir()} & {"model", "adapter"}
        assert learnt == (set() if stage == "zero_shot" else {"model" if "tuning=full" in RUNS[family] else "adapter"})
        answers = read_answers(folder / "answers" / "synthetic.parquet")
        assert len(answers) == 12 * 3
        if stage != "perception":
            assert answers["score"].between(0, 1).all()
    if family == "qwen2_5_vl":
        kinds = {stage: json.loads((folders[stage] / "model" / "config.json").read_text())["architectures"] for stage in ("joint", "inference")}
        assert kinds == {"joint": ["Qwen2_5_VLForConditionalGeneration"], "inference": ["Qwen2ForCausalLM"]}
