"""Strategies, devices, precisions and quantization: each combination composes or is refused with the nearest that can."""

import itertools
from types import SimpleNamespace

import pytest

from biqa.config.strategy import KINDS, Strategy, devices_asked, strategy_problems
from biqa.errors import IncompatibleChoice
from biqa.run import waits_of
from biqa.running.processes import Waits

FREE = {"kind": "auto", "devices": 2, "nodes": 1, "accelerator": "gpu", "precision": "bf16-mixed", "quantization": "none", "present": 4}


def problems(**choice):
    return [text for holds, text in strategy_problems(**FREE | choice) if holds]


def test_an_unknown_strategy_is_refused():
    with pytest.raises(IncompatibleChoice, match=r"strategy\.kind=tactics is not known: choose auto, ddp, fsdp, deepspeed_zero2, deepspeed_zero3\."):
        Strategy(kind="tactics")


@pytest.mark.parametrize("option", ["timeout", "first_timeout", "still"])
@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan")])
def test_processes_wait_for_some_time(option, seconds):
    Strategy(kind="auto", **{option: float("inf")})
    with pytest.raises(IncompatibleChoice, match=rf"^strategy\.{option}={seconds}: choose seconds above 0"):
        Strategy(kind="auto", **{option: seconds})


def test_how_long_they_wait_is_what_the_options_say():
    strategy = Strategy(kind="auto", timeout=1.0, first_timeout=2.0, still=3.0)
    assert waits_of(SimpleNamespace(strategy=strategy)) == Waits(step=1.0, first=2.0, still=3.0)


@pytest.mark.parametrize(
    ("devices", "number"),
    [(1, 1), (2, 2), ("2", 2), ("auto", 4), (-1, 4), ("-1", 4), ([0, 3], 2), ("0,3", 2), ("1,", 1), ("two", None), (None, None)],
)
def test_devices_in_all_their_forms(devices, number):
    assert devices_asked(devices, 4) == number


def test_all_devices_are_not_known_before_they_are_counted():
    assert devices_asked("auto", None) is None


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ({"kind": "deepspeed_zero2", "accelerator": "cpu"}, "strategy=deepspeed_zero2 needs GPUs, and this run is on the CPU. Choose strategy=fsdp"),
        ({"kind": "fsdp", "devices": 1}, "Choose trainer.devices=2 or more, or strategy=auto."),
        ({"kind": "fsdp", "quantization": "int8"}, "packed weights cannot be divided among devices. Choose strategy=ddp"),
        ({"kind": "deepspeed_zero3", "quantization": "nf4"}, "packed weights cannot be divided among devices. Choose strategy=ddp"),
        ({"kind": "deepspeed_zero2", "quantization": "nf4"}, "Choose strategy=ddp."),
        ({"kind": "fsdp", "precision": "16-mixed"}, "Choose trainer.precision=bf16-mixed."),
        ({"devices": 5}, "trainer.devices=5: this machine has 4 GPUs. Choose fewer, or trainer.devices=auto for all."),
        ({"devices": 2, "present": 0}, "trainer.devices=2: this machine has no GPUs. Choose trainer.accelerator=cpu."),
    ],
)
def test_what_cannot_go_together_is_refused_with_the_nearest_that_can(choice, said):
    [text] = problems(**choice)
    assert said in text


@pytest.mark.parametrize("choice", [{"kind": "fsdp", "devices": 1, "nodes": 2}, {"kind": "fsdp", "devices": None}, {"kind": "ddp", "devices": 1}])
def test_what_can_go_together_is_not(choice):
    assert problems(**choice) == []


def test_every_refusal_is_a_sentence_with_a_way_out_and_ddp_always_goes():
    for kind, devices, accelerator, precision, quantization in itertools.product(
        KINDS, (1, 2), ("cpu", "gpu"), ("32-true", "bf16-mixed", "16-mixed"), ("none", "int8", "nf4")
    ):
        found = problems(kind=kind, devices=devices, accelerator=accelerator, precision=precision, quantization=quantization)
        assert all("hoose " in text and text.endswith(".") for text in found)
        assert kind not in ("auto", "ddp") or not found
