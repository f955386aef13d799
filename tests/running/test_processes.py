"""How many processes a run has, and which of them this one is."""

import pytest

from biqa.errors import IncompatibleChoice
from biqa.running.processes import placed, processes_wanted, refuse_alone, refuse_other_number


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
