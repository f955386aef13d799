"""What do answers of a backbone of 2 to 8 billion weights cost on this GPU? Ten sampled ones an image, step by step and compiled; a score an image.

python -m benchmarks.gpu_answers --model owl2                      # 8B: a GPU of 40 GB or more, 17 GB of disk; compiling takes minutes
python -m benchmarks.gpu_answers --model qwen3_vl --size tiny --device cpu        # the same path, small, to see that it runs

Random weights in bf16, which no token ends, so that every answer has its 60 tokens; the greedy answer comes on top of the ten. Prompts and pixels are
prepared beforehand. A score is one pass over image, question and stem. The share is of the bf16 product of 8192 x 8192 matrices that this machine
reaches, measured in the same minutes; operations are those that torch counts.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.rounds import Ratio, timed, write_result
from benchmarks.training_steps import IMAGE, MODELS, PEAK_SIDE, build, hardware_of, matmul_peak, write_checkpoint

REPEATS = 10
WANTED = {"eager": 80.0, "compiled": 30.0, "score": 10.0}
"""At most so many ms an image, of a backbone of 8 billion weights on an H200. A score: 100 images a second."""


@dataclass(frozen=True)
class Cost:
    """Of a kind of answer."""

    kind: str
    ms: Ratio
    """An image."""
    operations: int
    """An image."""
    peak_gb: float | None

    def share(self, peak: float) -> float:
        """Of the matrix product, at `peak` operations a second."""
        return self.operations / (self.ms.median / 1e3) / peak


def main(arguments: Sequence[str] | None = None) -> None:
    """Write a checkpoint with random weights, measure, print, and write results/gpu_answers-<model>.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="owl2")
    parser.add_argument("--size", choices=("real", "tiny"), default="real")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--images", type=int, default=20, help="answered together")
    parser.add_argument("--tokens", type=int, default=60, help="of an answer")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--compiled", action=argparse.BooleanOptionalAction, help="whether to measure compiled steps too; on a GPU it does")
    options = parser.parse_args(arguments)
    import torch

    if options.device.startswith("cuda") and not torch.cuda.is_available():
        sys.exit("There is no GPU that torch can use here. See that the path runs: python -m benchmarks.gpu_answers --size tiny --device cpu")
    with tempfile.TemporaryDirectory(prefix="biqa-bench-") as place:
        write_checkpoint(Path(place), options.model, options.size, options.device)
        vlm = build(Path(place), options.model, options.size, "none").eval().to(options.device)
    compiled = options.device.startswith("cuda") if options.compiled is None else options.compiled
    costs = measure(vlm, images=options.images, tokens=options.tokens, rounds=options.rounds, compiled=compiled)
    peak = matmul_peak(options.device, PEAK_SIDE if options.size == "real" else 512)
    report(costs, options, peak)


def measure(vlm: Any, *, images: int, tokens: int, rounds: int, compiled: bool) -> list[Cost]:  # noqa: ANN401 (biqa's VLM, whose import takes seconds)
    """Cost of each kind of answer, some images at a time, a pass of each before."""
    import torch
    from PIL import Image

    from biqa.language.prompts import DESCRIBE, JOINT, STEM
    from biqa.models.compiled import CompiledSteps
    from biqa.models.sampling import level_probabilities, sample, uniforms

    vlm.requires_grad_(False)  # nothing learns, and torch's counter of operations is confused by what could
    vlm.eos_id = -1  # no token has this id
    vlm.text = str  # most of the many rows of the head have no words in the small vocabulary
    picture = Image.linear_gradient("L").resize(IMAGE).convert("RGB")
    asked, scored = ([vlm.prompt(question, picture)] * images for question in (DESCRIBE, JOINT))
    numbers = uniforms(0, [str(number) for number in range(images)], REPEATS, tokens)
    given = {"temperature": 1.0, "top_p": 1.0, "max_new_tokens": tokens}
    kinds: dict[str, Callable[[], Any]] = {
        "eager": lambda: sample(vlm, asked, numbers, **given),
        "score": lambda: level_probabilities(vlm, scored, vlm.opening(STEM)).tolist(),
    }
    if compiled:
        steps = CompiledSteps(vlm)
        kinds["compiled"] = lambda: sample(vlm, asked, numbers, **given, steps=steps)
    with torch.autocast(vlm.device.type, torch.bfloat16):
        costs = {kind: cost(kind, work, vlm.device.type, images=images, rounds=rounds, count=kind != "compiled") for kind, work in kinds.items()}
    if compiled:  # the same operations, of which torch counts none in a graph
        costs["compiled"] = replace(costs["compiled"], operations=costs["eager"].operations)
    return list(costs.values())


def cost(kind: str, work: Callable[[], Any], device: str, *, images: int, rounds: int, count: bool) -> Cost:
    """Of some images together, in ms an image; the first passes are not timed. Each work ends on the host, so it waits for the GPU."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    work()
    operations = 0
    if count:
        with FlopCounterMode(display=False) as counted:
            work()
        operations = counted.get_total_flops() // images
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = [timed(work)[1] for _ in range(rounds)]
    peak = torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else None
    return Cost(kind, Ratio.of([1e3 * one / images for one in seconds]), operations, peak)


def report(costs: Sequence[Cost], options: argparse.Namespace, peak: float) -> None:
    """Print the costs and write them with the hardware."""
    hardware = hardware_of(options.device)
    print(
        f"{options.model}, {options.size}, random weights, {options.images} images at a time, on {hardware}; bf16 product: {peak / 1e12:.2f} TFLOP/s"
    )
    for one in costs:
        what = "a score" if one.kind == "score" else f"{REPEATS} answers of {options.tokens} tokens, {one.kind}"
        memory = "" if one.peak_gb is None else f", peak {one.peak_gb:.1f} GB"
        wanted = f"wanted of 8B on an H200: {WANTED[one.kind]:g}"
        speed = f"{one.ms} ms an image ({1e3 / one.ms.median:.1f} images/s; {wanted})"
        print(f"  {what}: {speed}{memory}, {one.share(peak):.0%} of the matrix product")
    told = {name: value for name, value in vars(options).items() if name != "device"}
    found = [{**asdict(one), "share_of_peak": one.share(peak)} for one in costs]
    write_result(f"gpu_answers-{options.model}", {**told, "hardware": hardware, "matmul_flops": peak, "costs": found})


if __name__ == "__main__":
    main()
