"""Processes of one run: they tell each other what they should, end together, and what went wrong is raised in the one that started them."""

import os
import signal
import time
from multiprocessing import get_context

import pytest
import torch

from biqa.errors import BadRecord, IncompatibleChoice
from biqa.running.processes import STARTED_HERE, ProcessDied, _wait_for, launch, placed, processes_wanted, refuse_alone, refuse_other_number

pytestmark = pytest.mark.filterwarnings("ignore:.*resource_tracker")


def tell_each_other(folder):
    from biqa.stages.together import first, from_first, gathered, gathered_by_first, largest, rank, weight_of_means, world

    assert (world(), first()) == (3, rank() == 0)
    assert os.environ["OMP_NUM_THREADS"]
    assert from_first(lambda: f"of {rank()}") == "of 0"
    assert gathered(rank() * 10) == [0, 10, 20]
    assert gathered_by_first("abc"[rank()]) == (["a", "b", "c"] if first() else [])
    assert largest((5, 15, 2)[rank()]) == 15
    # means of 1, 2 and 0 things here: weighted, their mean is the mean of all
    count = torch.tensor([1.0, 2.0, 0.0])[rank()]
    mean = torch.tensor([3.0, 6.0, 100.0])[rank()]
    weighted = gathered(float(mean * weight_of_means(count[None])[0]))
    assert sum(weighted) / 3 == pytest.approx((3.0 + 2 * 6.0) / 3)
    (folder / f"{rank()}").touch()


def test_they_tell_each_other(tmp_path):
    before = dict(os.environ)
    launch(3, tell_each_other, tmp_path, gpus=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1", "2"]
    assert before.items() <= dict(os.environ).items()
    assert not {"RANK", "LOCAL_RANK", "WORLD_SIZE", STARTED_HERE} & set(os.environ)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def go_wrong(how):
    import torch.distributed as dist

    from biqa.stages.together import from_first, rank

    if how == "said by the first":
        from_first(refuse)
    if rank() == 1:
        if how == "mistake":
            refuse()
        if how == "defect":
            raise ZeroDivisionError("one of two")
        os.kill(os.getpid(), signal.SIGKILL)
    dist.barrier()  # the others wait for a process that is gone


def refuse():
    raise BadRecord("image.png: cannot be decoded. Repair it.")


@pytest.mark.parametrize(
    ("how", "error", "said"),
    [
        ("said by the first", BadRecord, r"^image\.png: cannot be decoded\. Repair it\.$"),
        ("mistake", BadRecord, r"^image\.png: cannot be decoded\. Repair it\.$"),
        ("defect", ProcessDied, r"(?s)^In process 1 of 2:\nTraceback.*ZeroDivisionError: one of two"),
        ("killed", ProcessDied, r"^The process of rank 1 was killed by SIGKILL and said nothing\. Was there too little memory\?$"),
    ],
)
def test_what_goes_wrong_in_one_ends_all_and_is_told_once(how, error, said):
    start = time.monotonic()
    with pytest.raises(error, match=said):
        launch(2, go_wrong, how, gpus=False)
    assert time.monotonic() - start < 40


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_process_is_the_cause_although_another_has_told_of_its_loss(tmp_path):
    process = get_context("spawn").Process(target=die, name="rank 1")
    process.start()
    process.join()
    (tmp_path / "rank 0.error").touch()
    assert _wait_for([process], tmp_path) == (True, process)


def test_torchrun_and_srun_are_seen_and_a_job_of_one_task_is_not():
    assert placed({"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "2"})
    assert placed({"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "1"})
    assert not placed({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"})  # a batch script beside its steps
    assert not placed({"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "1"})
    assert not placed({})


def test_the_number_of_processes_must_be_that_of_the_options():
    refuse_other_number({"SLURM_STEP_NUM_TASKS": "8"}, devices=4, nodes=2)
    with pytest.raises(IncompatibleChoice, match=r"^4 processes were started, and trainer\.devices=1 trainer\.nodes=2 ask for 2: one a device\."):
        refuse_other_number({"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "4"}, devices=1, nodes=2)
    with pytest.raises(
        IncompatibleChoice, match=r"^trainer\.nodes=2: processes on other machines must be started there\..* by torchrun .* or by srun"
    ):
        refuse_alone(2)


CHOICE = {"kind": "auto", "devices": 1, "nodes": 1, "accelerator": "cpu", "precision": "32-true", "quantization": "none"}


def test_a_cpu_is_one_device_unless_more_are_asked_for():
    assert processes_wanted(**CHOICE) == (1, False)
    assert processes_wanted(**CHOICE | {"devices": "auto"}) == (1, False)
    assert processes_wanted(**CHOICE | {"devices": 3}) == (3, False)


def test_all_gpus_or_those_named(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    for devices, number in (("auto", 4), (-1, 4), (2, 2), ([1, 3], 2), ("0,2", 2), ("3", 3)):
        assert processes_wanted(**CHOICE | {"accelerator": "auto", "devices": devices}) == (number, True)
    with pytest.raises(IncompatibleChoice, match=r"^trainer\.devices=5: this machine has 4 GPUs\. Choose fewer, or trainer\.devices=auto for all\.$"):
        processes_wanted(**CHOICE | {"accelerator": "auto", "devices": 5})
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(IncompatibleChoice, match=r"^strategy=fsdp divides a model among devices, and trainer\.devices=1 is one\."):
        processes_wanted(**CHOICE | {"accelerator": "gpu", "devices": "auto", "kind": "fsdp"})


def test_deepspeed_that_is_not_installed_is_refused_with_the_command(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("biqa.running.processes.find_spec", lambda name: None)
    with pytest.raises(IncompatibleChoice, match=r"needs the package deepspeed: pip install 'biqa\[deepspeed\]'\. Or choose strategy=fsdp"):
        processes_wanted(**CHOICE | {"accelerator": "gpu", "devices": 2, "kind": "deepspeed_zero2"})
    monkeypatch.setattr("biqa.running.processes.find_spec", lambda name: name)
    assert processes_wanted(**CHOICE | {"accelerator": "gpu", "devices": [0, 1], "kind": "deepspeed_zero2"}) == (2, True)
    with pytest.raises(IncompatibleChoice, match=r"Set CUDA_VISIBLE_DEVICES=0,2 and trainer\.devices=2\.$"):
        processes_wanted(**CHOICE | {"accelerator": "gpu", "devices": "0,2", "kind": "deepspeed_zero2"})
