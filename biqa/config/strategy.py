"""How a run uses several devices, and which choices cannot go together. Plain values only: nothing is loaded to find out."""

from dataclasses import dataclass
from typing import Any

from biqa.config.checks import MISSING, refuse

KINDS = ("auto", "ddp", "fsdp", "deepspeed_zero2", "deepspeed_zero3")

TIMEOUT = 600.0
FIRST_TIMEOUT = 86400.0
STILL = 45.0


@dataclass
class Strategy:
    """How processes share the work, one process a device."""

    kind: str = MISSING
    """"auto" (one process, or ddp where there are several devices), "ddp" (the whole model in each), "fsdp" (weights, gradients and optimiser states
    divided), "deepspeed_zero2" (gradients and optimiser states divided), "deepspeed_zero3" (weights too)."""
    timeout: float = TIMEOUT
    """Seconds, at most, that processes wait for one another in a step of learning or a batch of answers. One that does not come by then ends the run,
    which says where it stands."""
    first_timeout: float = FIRST_TIMEOUT
    """Seconds, at most, that they wait where one may be long at work alone: it reads data, asks teachers, looks at images, measures, writes files."""
    still: float = STILL
    """Seconds after which a process that does nothing at all (it does not compute, read or write, and waits neither for the others nor for a server)
    ends the run, which says where it stands. inf: never, as for a debugger. Of processes that the run has started itself, on one machine."""

    def __post_init__(self) -> None:
        refuse(
            [
                (self.kind not in KINDS, f"strategy.kind={self.kind} is not known: choose {', '.join(KINDS)}."),
                (not self.timeout > 0, f"strategy.timeout={self.timeout}: choose seconds above 0."),
                (not self.first_timeout > 0, f"strategy.first_timeout={self.first_timeout}: choose seconds above 0."),
                (not self.still > 0, f"strategy.still={self.still}: choose seconds above 0, or inf for never."),
            ]
        )


def devices_asked(devices: Any, present: int | None) -> int | None:  # noqa: ANN401 (whatever was typed)
    """How many devices of one machine `trainer.devices` means.

    Args:
        devices: a number, "auto" or -1 (all), a list of them, or "0,2".
        present: how many there are; None: not known yet.

    Returns:
        None where that depends on `present` and it is None, or where the value means nothing (which Lightning says when it gets it).
    """
    if devices in ("auto", -1, "-1"):
        return present
    if isinstance(devices, list | tuple):
        return len(devices)
    if isinstance(devices, str):
        numbers = [part.strip() for part in devices.split(",") if part.strip()]
        if not all(number.isdigit() for number in numbers):
            return None
        return int(numbers[0]) if len(numbers) == 1 and "," not in devices else len(numbers)
    return devices if isinstance(devices, int) else None


def strategy_problems(
    *, kind: str, devices: int | None, nodes: int, accelerator: str, precision: str, quantization: str, present: int | None = None
) -> list[tuple[bool, str]]:
    """What cannot go together, entries for `refuse`; each names the nearest that can.

    Args:
        kind: of the strategy.
        devices: processes on each machine; None: not known yet.
        nodes: machines.
        accelerator: "cpu", "gpu", or "auto" where that is not known yet.
        precision: Lightning's word.
        quantization: "none", "int8" or "nf4".
        present: devices of this machine; None: not known yet.
    """
    several = None if devices is None else devices * nodes > 1
    divides_weights = kind in ("fsdp", "deepspeed_zero3")
    deepspeed = kind.startswith("deepspeed")
    gpus = accelerator in ("gpu", "cuda")
    return [
        (
            deepspeed and accelerator == "cpu",
            f"strategy={kind} needs GPUs, and this run is on the CPU. Choose strategy=fsdp, which divides the same things there, or strategy=ddp.",
        ),
        (
            kind == "fsdp" and several is False,
            f"strategy=fsdp divides a model among devices, and trainer.devices={devices} is one. Choose trainer.devices=2 or more, or strategy=auto.",
        ),
        (
            divides_weights and quantization != "none",
            f"strategy={kind} with quantization={quantization}: packed weights cannot be divided among devices. "
            f"Choose strategy=ddp (packed, the whole model is on each device), or quantization=none.",
        ),
        (
            kind == "deepspeed_zero2" and quantization != "none",
            f"strategy={kind} with quantization={quantization}: what it divides are the optimiser's states, which an adapter hardly has. "
            f"Choose strategy=ddp.",
        ),
        (
            kind == "fsdp" and precision == "16-mixed",
            "strategy=fsdp with trainer.precision=16-mixed: the loss scale cannot be agreed on. Choose trainer.precision=bf16-mixed.",
        ),
        (
            present is not None and devices is not None and gpus and devices > max(1, present),
            f"trainer.devices={devices}: this machine has {present or 'no'} GPU{'' if present == 1 else 's'}. "
            + ("Choose fewer, or trainer.devices=auto for all." if present else "Choose trainer.accelerator=cpu."),
        ),
    ]
