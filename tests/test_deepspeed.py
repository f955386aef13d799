"""ZeRO in two processes on the CPU against one process: the same weights and answers, and a checkpoint that is gone on from."""

import shutil

import pytest
from several_jobs import one_after_another_by_deepspeed
from test_strategies import LORA, SIZES, TOLERANCE, TWO, answers, assert_same_answers, furthest, steps, weights

from biqa.running.launching import launch

pytest.importorskip("deepspeed", reason="deepspeed is not installed")
pytest_plugins = ["small_runs"]
pytestmark = pytest.mark.filterwarnings("ignore")  # DeepSpeed's own, of which there are many

JOINT = (*SIZES, "stage=joint")
SHARED = {
    "zero2": ("strategy=deepspeed_zero2", "trainer.accumulate=2", "trainer.clip=0.1"),
    "zero3": ("strategy=deepspeed_zero3", "trainer.accumulate=2", "trainer.clip=0.1"),
    "zero2-lora": ("strategy=deepspeed_zero2", *LORA),
    "zero3-lora": ("strategy=deepspeed_zero3", *LORA),
    "zero3-answers": ("strategy=deepspeed_zero3", "stage.epochs=0"),
}


@pytest.fixture(scope="module")
def work(run):
    """Runs of some names and options in two processes."""

    def together(folder, **named):
        jobs = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("biqa.config.strategy_problems", lambda **choice: [])
            patch.setattr("biqa.running.processes.strategy_problems", lambda **choice: [])
            patch.setattr("biqa.run.launch", lambda number, work, *job, gpus, waits: jobs.append(job))
            for name, options in named.items():
                run(folder, name, *JOINT, *TWO, *options)
        assert len(jobs) == len(named)
        launch(2, one_after_another_by_deepspeed, jobs, gpus=False)

    return together


@pytest.fixture(scope="module")
def runs(run, work, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for name, options in (("one", SHARED["zero2"][1:]), ("one-lora", LORA), ("one-answers", ("stage.epochs=0",))):
        assert run(folder, name, *JOINT, "stage.batch_size=8", *options).code == 0
    work(folder, **SHARED)
    return folder


@pytest.mark.parametrize("name", SHARED)
def test_two_processes_end_as_one(runs, name):
    one = runs / f"one{name.removeprefix('zero2').removeprefix('zero3')}"
    assert_same_answers(answers(one), answers(runs / name))
    if not name.endswith("answers"):
        assert furthest(weights(one), weights(runs / name)) < TOLERANCE


@pytest.mark.parametrize("name", ["zero2-lora", "zero3"])
def test_it_goes_on_from_a_checkpoint_that_is_whole(runs, work, tmp_path, name):
    folder = tmp_path / name
    shutil.copytree(runs / name, folder)
    for part in ("model", "adapter", "answers"):
        shutil.rmtree(folder / part, ignore_errors=True)
    (folder / "result.json").unlink()
    before, last = steps(folder)
    (folder / "checkpoints" / f"step={last:08d}.ckpt" / "latest").unlink()  # as a kill leaves it
    assert before < last
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace(str(runs), str(tmp_path)))
    work(tmp_path, **{name: (*SHARED[name], "ckpt=last")})
    assert furthest(weights(runs / name), weights(folder)) == 0.0
    assert_same_answers(answers(runs / name), answers(folder), tolerance=0.0)
