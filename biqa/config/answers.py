"""Options of what writes the answers, and what does not go together with vLLM. Plain values only: nothing is loaded to find out."""

from dataclasses import dataclass
from typing import Any

from biqa.config.checks import MISSING, refuse
from biqa.config.tuning import DTYPES

ENGINES = (None, "vllm")
LARGEST_RANK = 512
"""Of an adapter (`vllm/config/lora.py`)."""
COOLEST, HOTTEST = 0.01, 2.0
"""vLLM takes a temperature of at most 2, and 0.01 for any lower one above 0 (`vllm/sampling_params.py`)."""


@dataclass
class Answers:
    """What writes the answers once a run has learnt."""

    engine: str | None = None
    """null: biqa's own; "vllm": vLLM (`pip install 'biqa[vllm]'`), with random numbers of its own, so that its sampled answers are other ones."""

    def __post_init__(self) -> None:
        refuse([(self.engine not in ENGINES, f"answers.engine={self.engine} is not known: choose vllm, or null for biqa's own.")])


@dataclass
class VllmAnswers(Answers):
    """vLLM, on the GPUs of this machine from the first on."""

    gpu_memory_utilization: float = MISSING
    """Share of each GPU's memory that vLLM may take: weights, and keys and values of what it reads and writes."""
    max_model_len: int | None = None
    """Positions of a prompt and its answer, at most; null: as many as the checkpoint takes and the memory holds."""
    tensor_parallel: int = 1
    """GPUs that the weights are divided among."""
    dtype: str | None = None
    """Of weights and activations: "float32", "bfloat16" or "float16"; null: model.dtype. The output head computes in float32."""

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse(
            [
                (
                    not 0 < self.gpu_memory_utilization <= 1,
                    f"answers.gpu_memory_utilization={self.gpu_memory_utilization} is a share: choose a value in (0, 1].",
                ),
                (self.max_model_len is not None and self.max_model_len < 1, f"answers.max_model_len={self.max_model_len}: choose 1 or more."),
                (self.tensor_parallel < 1, f"answers.tensor_parallel={self.tensor_parallel}: choose 1 or more."),
                (self.dtype not in (None, *DTYPES), f"answers.dtype={self.dtype} is not known: choose {', '.join(DTYPES)}."),
            ]
        )


def answers_problems(
    *,
    engine: str | None,
    checkpoint: bool,
    asks: bool,
    quantization: str,
    strategy: str,
    devices: Any,  # noqa: ANN401 (whatever was typed)
    processes: int | None,
    carried: bool,
    rank: int,
    merge: bool,
    compiled: bool,
    temperature: float,
) -> list[tuple[bool, str]]:
    """What cannot go together with `answers=vllm`, entries for `refuse`; each names the nearest that can.

    Args:
        engine: "vllm", or None, with which all of it can.
        checkpoint: whether the model is one of transformers' own classes, read from a checkpoint.
        asks: whether the stage asks a model for words.
        quantization: "none", "int8" or "nf4".
        strategy: its kind.
        devices: as typed.
        processes: of the whole run; None: not known yet.
        carried: whether what learns is in the decoder alone or is written as a whole model: what is learnt elsewhere, vLLM takes in no adapter.
        rank: of the adapter; 0 for none.
        merge: whether base and adapter are merged.
        compiled: whether biqa's own step of decoding is compiled.
        temperature: of sampled answers; 0 where there are none.
    """
    named = list(devices) if isinstance(devices, list | tuple) else str(devices).split(",") if "," in str(devices) else []
    problems = [
        (
            not checkpoint,
            "answers=vllm with a model that is no checkpoint of transformers' own classes, which vLLM does not know. "
            "Choose model=llava, qwen2_5_vl or another of model=hf, or answers=own.",
        ),
        (not asks, "answers=vllm with stage=probe, which asks for no words. Choose answers=own."),
        (
            quantization != "none",
            f"answers=vllm with quantization={quantization}: vLLM would pack the weights in a way of its own, on which the adapter was not learnt. "
            f"Choose quantization=none, or answers=own.",
        ),
        (
            strategy not in ("auto", "ddp") or (processes or 1) > 1,
            "answers=vllm in a run of several processes: vLLM starts its own. Choose trainer.devices=1 strategy=auto "
            "(answers.tensor_parallel=N divides the weights for the answers), or answers=own.",
        ),
        (
            [str(one).strip() for one in named if str(one).strip()] not in ([], ["0"]),
            f"answers=vllm with trainer.devices={devices}: vLLM takes GPUs from the first on. "
            f"Set CUDA_VISIBLE_DEVICES={','.join(str(one).strip() for one in named if str(one).strip())} and choose trainer.devices=1.",
        ),
        (
            not carried and not merge,
            "answers=vllm with an adapter on tower or projector, which vLLM takes in no adapter. Choose export.merge=true, with which it is given "
            "base and adapter as one model, or answers=own.",
        ),
        (rank > LARGEST_RANK, f"answers=vllm with tuning.rank={rank}: vLLM takes {LARGEST_RANK} at most. Choose a smaller rank, or answers=own."),
        (compiled, "sampling.compile=true with answers=vllm: it is biqa's own step that is compiled. Choose sampling.compile=false, or answers=own."),
        (
            temperature != 0 and not COOLEST <= temperature <= HOTTEST,
            f"sampling.temperature={temperature} with answers=vllm, which takes {COOLEST} to {HOTTEST:g}. Choose such a temperature, or answers=own.",
        ),
    ]
    return problems if engine == "vllm" else []
