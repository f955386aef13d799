"""Answers by vLLM, through the door as a user types it, with a stand-in for vLLM that computes real answers from the files that it is given."""

import os
import re
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from checkpoints import write_checkpoint

from biqa.config.answers import VllmAnswers, answers_problems
from biqa.errors import IncompatibleChoice
from biqa.evaluation.answers import PROBABILITIES, read_answers
from biqa.models.vllm_engine import VllmEngine
from biqa.reporting.result import read_result
from biqa.run import numbers_to_words

pytest_plugins = ["small_runs", "vllm_stand_in"]

SHORT = (
    "model.dtype=float32", "data.train=8", "data.val=2", "data.test=4", "sampling.max_new_tokens=4", "stage.batch_size=4", "evaluation.resamples=4",
)  # fmt: skip
LORA = ("tuning=lora", "tuning.rank=4", "tuning.lr=2e-2")


@pytest.fixture
def typed(call, synthetic, checkpoint, tmp_path):
    """`typed(family, *options)`: a run of a small checkpoint, answered by vLLM."""
    small = [option for option in synthetic if not option.startswith("model.")]

    def run(family, *options):
        engine = () if any(option.startswith("answers=") for option in options) else ("answers=vllm",)
        trains = () if "stage=zero_shot" in options else ("stage.epochs=1",)
        return call("biqa.run", *small, "model=hf", f"model.id={checkpoint(family)}", *SHORT, *trains, f"runs={tmp_path}", *engine, *options)

    return run


def answers_of(folder: Path) -> pd.DataFrame:
    return read_answers(folder / "answers" / "synthetic.parquet").sort_values(["image", "query"]).reset_index(drop=True)


def assert_greedy_answers_are_the_same(by_vllm: Path, own: Path):
    there, here = (answers[answers["query"] == 0] for answers in map(answers_of, (by_vllm, own)))
    assert list(there["description"]) == list(here["description"])
    if "score" in here:
        np.testing.assert_allclose(there[list(PROBABILITIES)], here[list(PROBABILITIES)], atol=1e-5)


def test_stage_one_and_stage_two_with_adapters(typed, vllm, tmp_path):
    """One engine for all that stage 1 describes, another for stage 2, which needs no tower; each is given the base and what was learnt."""
    two = ("stage=2", "stage.descriptions=target")
    for name, stage in (("one", ("stage=1",)), ("two", two), ("own", (*two, "answers=own", "sampling.repeats=0"))):
        done = typed("llava", *stage, *LORA, f"name={name}")
        assert done.code == 0, done.err
        told = re.search(r"vLLM 0\.32\.0\+cpu answers\. To \d questions it gives levels within 0\.000\d \(total variation\)", done.out)
        assert (told is None) == (name == "own")
    assert_greedy_answers_are_the_same(tmp_path / "two", tmp_path / "own")
    assert [(Path(llm.adapter or "").parent.name, llm.images, llm.running) for llm in vllm.started] == [("one", 1, False)] * 2 + [("two", 0, False)]
    result = read_result(tmp_path / "two" / "result.json")
    assert result["config"]["answers"] == {
        "engine": "vllm", "gpu_memory_utilization": 0.9, "max_model_len": None, "tensor_parallel": 1, "dtype": None,
    }  # fmt: skip
    assert result["versions"]["vllm"] == "0.32.0+cpu"
    described = pd.read_parquet(tmp_path / "two" / "descriptions" / "synthetic-test.parquet")
    assert set(described["query"]) == {0, 1, 2}


def test_a_whole_model_is_served_as_it_was_written(typed, vllm, tmp_path):
    chosen = ("stage=joint", "tuning=full", "tuning.lr=5e-3", "model.visual_tokens=40", "sampling.repeats=0")
    for engine in ("vllm", "own"):
        done = typed("smolvlm", *chosen, f"name={engine}", f"answers={engine}")
        assert done.code == 0, done.err
    assert_greedy_answers_are_the_same(tmp_path / "vllm", tmp_path / "own")
    assert [llm.folder for llm in vllm.started] == [tmp_path / "vllm" / "model"]


def test_base_weights_are_served_with_the_image_settings_of_the_run(typed, vllm, checkpoint, tmp_path):
    for engine in ("vllm", "own"):
        done = typed("smolvlm", "stage=zero_shot", "model.visual_tokens=40", f"name={engine}", f"answers={engine}")
        assert done.code == 0, done.err
    assert_greedy_answers_are_the_same(tmp_path / "vllm", tmp_path / "own")
    (llm,) = vllm.started
    assert llm.folder != checkpoint("smolvlm")
    assert not llm.folder.exists()  # links, gone again
    assert llm.adapter is None
    there, here = (frame[frame["query"] > 0] for frame in map(answers_of, (tmp_path / "vllm", tmp_path / "own")))
    assert list(there["description"]) != list(here["description"])  # other random numbers, so another run
    other = typed("smolvlm", "stage=zero_shot", "model.visual_tokens=40", "name=own")
    assert (other.code, "answers.engine: None there, vllm here" in other.err) == (2, True), other.err
    again = typed("smolvlm", "stage=zero_shot", "model.visual_tokens=40", "name=vllm", "answers.gpu_memory_utilization=0.5")
    assert "is finished already" in again.out, again.err


def test_what_an_adapter_cannot_carry_is_served_as_a_merged_model(typed, vllm, tmp_path):
    done = typed("llava", "stage=joint", *LORA, "tuning.projector=true", "export.merge=true", "name=a")
    assert done.code == 0, done.err
    (llm,) = vllm.started
    assert (llm.folder, llm.adapter) == (tmp_path / "a" / "served.tmp", None)
    assert not llm.folder.exists()
    assert (tmp_path / "a" / "merged" / "model.safetensors").is_file()


def test_a_killed_run_asks_for_the_rest(typed, vllm, tmp_path, monkeypatch):
    asked, sample = [], VllmEngine.sample

    def counted(self, prompts, *given, **named):
        if asked:
            raise KeyboardInterrupt
        asked.append(len(prompts))
        return sample(self, prompts, *given, **named)

    monkeypatch.setattr(VllmEngine, "sample", counted)
    options = ("stage=zero_shot", "sampling.batch_size=2")
    assert typed("llava", *options, "name=a").code == 130
    assert not vllm.started[0].running
    monkeypatch.setattr(VllmEngine, "sample", sample)
    done = typed("llava", *options, "name=a", "ckpt=last")
    assert done.code == 0, done.err
    assert len(vllm.started[1].answered) == 2 * 3  # the two images that were left
    assert typed("llava", *options, "name=b").code == 0
    pd.testing.assert_frame_equal(answers_of(tmp_path / "a"), answers_of(tmp_path / "b"))


def test_a_model_that_is_not_the_runs_own_is_noticed(typed, vllm, tmp_path, monkeypatch):
    monkeypatch.setattr(vllm, "deaf", True)
    done = typed("llava", "stage=joint", *LORA, "tuning.lr=0.1", "name=a")
    assert done.code == 2
    assert re.search(r"gives levels that are 0\.\d\d \(total variation\) away .* it computes another model\. Choose", done.err)
    assert not vllm.started[0].running
    assert not (tmp_path / "a" / "answers").exists()
    weights = (tmp_path / "a" / "adapter" / "adapter_model.safetensors").read_bytes()
    own = typed("llava", "stage=joint", *LORA, "tuning.lr=0.1", "name=a", "answers=own", "ckpt=last")  # nothing is lost
    assert own.code == 0, own.err
    assert (tmp_path / "a" / "adapter" / "adapter_model.safetensors").read_bytes() == weights
    assert read_result(tmp_path / "a" / "result.json")["config"]["answers"] == {"engine": None}


def test_an_image_made_into_other_tokens_is_noticed(typed, vllm, monkeypatch):
    monkeypatch.setattr("biqa.models.processing._update", lambda *_: None)  # the settings of the run do not reach the folder
    done = typed("smolvlm", "stage=zero_shot", "model.visual_tokens=4")
    assert done.code == 2
    assert re.search(r"reads another prompt than the run's own model \(\d+ tokens here, \d+ there, 4 of 4 questions\)", done.err)


def test_what_cannot_work_is_refused_before_a_model_is_read(call, tmp_path):
    done = call("biqa.run", "answers=vllm", "model=tiny", "quantization=nf4", "tuning=lora", "trainer.devices=2", f"runs={tmp_path}")
    assert done.code == 2
    assert "no checkpoint of transformers' own classes, which vLLM does not know. Choose model=llava" in done.err
    assert "quantization=nf4: vLLM would pack the weights in a way of its own" in done.err
    assert "in a run of several processes: vLLM starts its own" in done.err
    assert not list(tmp_path.iterdir())


FINE = {
    "engine": "vllm", "checkpoint": True, "asks": True, "quantization": "none", "strategy": "auto", "devices": 1, "processes": 1, "carried": True,
    "rank": 16, "merge": False, "compiled": False, "temperature": 1.0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"checkpoint": False}, "no checkpoint of transformers' own classes"),
        ({"asks": False}, "stage=probe, which asks for no words"),
        ({"quantization": "int8"}, "quantization=int8: vLLM would pack the weights"),
        ({"processes": 2}, "vLLM starts its own"),
        ({"strategy": "deepspeed_zero2"}, "vLLM starts its own"),
        ({"devices": [1]}, r"Set CUDA_VISIBLE_DEVICES=1 and choose trainer\.devices=1"),
        ({"devices": "2,"}, "Set CUDA_VISIBLE_DEVICES=2 "),
        ({"carried": False}, r"takes in no adapter\. Choose export\.merge=true"),
        ({"rank": 600}, r"tuning\.rank=600: vLLM takes 512 at most"),
        ({"compiled": True}, "it is biqa's own step that is compiled"),
        ({"temperature": 2.5}, r"sampling\.temperature=2\.5 with answers=vllm, which takes 0\.01 to 2"),
        ({"temperature": 0.001}, "which takes 0.01 to 2"),
    ],
    ids=str,
)
def test_each_choice_that_vllm_does_not_go_with_has_a_reason_and_a_way_out(change, message):
    (said,) = [text for holds, text in answers_problems(**(FINE | change)) if holds]
    assert re.search(message, said)
    assert re.search("[Cc]hoose ", said)
    assert not any(holds for holds, _ in answers_problems(**(FINE | change | {"engine": None})))


def test_choices_that_go_together():
    for change in (
        {},
        {"devices": [0]},
        {"devices": "0,"},
        {"devices": "auto", "processes": None},
        {"temperature": 0.0},
        {"carried": False, "merge": True},
    ):
        assert not [text for holds, text in answers_problems(**(FINE | change)) if holds], change


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gpu_memory_utilization": 1.5}, r"answers\.gpu_memory_utilization=1\.5 is a share"),
        ({"dtype": "half"}, r"answers\.dtype=half is not known: choose float32, bfloat16, float16"),
        ({"tensor_parallel": 0}, r"answers\.tensor_parallel=0: choose 1 or more"),
        ({"max_model_len": 0}, r"answers\.max_model_len=0: choose 1 or more"),
        ({"engine": "sglang"}, r"answers\.engine=sglang is not known: choose vllm"),
    ],
    ids=str,
)
def test_values_that_make_no_sense(options, message):
    with pytest.raises(IncompatibleChoice, match=message):
        VllmAnswers(**({"engine": "vllm", "gpu_memory_utilization": 0.9} | options))


def test_without_vllm_and_without_a_device(typed, vllm, monkeypatch, tmp_path):
    monkeypatch.setattr("biqa.models.served.vllm_version", lambda: "0.32.0")
    done = typed("llava", "stage=joint")
    assert (done.code, "no GPU here that PyTorch can use, and vLLM is not a build for the CPU" in done.err) == (2, True)
    monkeypatch.setattr("biqa.models.served.find_spec", lambda name: None)
    done = typed("llava", "stage=joint")
    assert (done.code, "answers=vllm needs the package vllm: pip install 'biqa[vllm]'" in done.err) == (2, True)
    assert not list(tmp_path.iterdir())


def test_the_choice_is_a_word():
    assert numbers_to_words(["answers=vllm"]) == ["answers=vllm"]


@pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM itself is not installed: pip install 'biqa[vllm]'")
def test_with_vllm_itself(start, synthetic, tmp_path):
    """Run by hand where vLLM is there: its heads must be 32 wide or more. Stage 1 learns an adapter, stage 2 too."""
    wide = {"hidden_size": 128, "num_attention_heads": 4, "num_key_value_heads": 4}
    folder = write_checkpoint(tmp_path / "llava", "llava", text_config=wide, vision_config={"hidden_size": 64})
    small = [option for option in synthetic if not option.startswith("model.")]
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    for stage in ("1", "2"):
        for engine in ("vllm", "own"):
            chosen = ("model=hf", f"model.id={folder}", *SHORT, *LORA, f"stage={stage.replace('1', 'perception').replace('2', 'inference')}")
            run = start(*small, *chosen, "stage.epochs=1", f"runs={tmp_path / engine}", f"name=s{stage}", f"answers={engine}")
            out, err = run.communicate(timeout=900)
            assert run.returncode == 0, f"{out}\n{err}"
    for stage in ("s1", "s2"):
        there, here = (frame[frame["query"] == 0] for frame in map(answers_of, (tmp_path / "vllm" / stage, tmp_path / "own" / stage)))
        assert list(there["description"]) == list(here["description"])
