"""What does a look inside cost? Logit lens and attention against plain forward passes over the same images, in one interleaved run; and their memory.

python -m benchmarks.inside                              # 500 images, three rounds, 12 layers: a few minutes on two cores
python -m benchmarks.inside --images 50 --rounds 1       # a glance
"""

import argparse
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from benchmarks.rounds import alone, in_turn, peak_mb, ratio_of, write_result
from benchmarks.shapes import picture
from biqa.analysis.attention import attention_table
from biqa.analysis.lens import lens_rows
from biqa.language.prompts import JOINT
from biqa.models.inside import Context, context_of
from biqa.models.sampling import level_probabilities
from biqa.models.tiny import build_tiny
from biqa.models.vlm import VLM

TARGETS = {"logit_lens": 1.25, "attention": 2.0}
"""Of the time of plain passes."""
DESCRIPTION = "The image is dark. The contrast is low. The picture is pale. Details are blurred. There is heavy noise."
BATCH = 16


def plain(vlm: VLM, contexts: Sequence[Context]) -> None:
    """The level distribution after each context, and nothing else."""
    level_probabilities(vlm, [context.prompt for context in contexts], [])


WORK: dict[str, Callable[[VLM, Sequence[Context]], Any]] = {"plain": plain, "logit_lens": lens_rows, "attention": attention_table}


def main() -> None:
    """Run the rounds, then each kind of work alone in a process of its own for its memory; print, and write results/inside.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--hidden", type=int, default=384)
    parser.add_argument("--alone", choices=list(WORK), help="do this work alone and print the peak memory in MB")
    options = parser.parse_args()
    vlm = build(options.layers, options.hidden)
    if options.alone:
        seconds(vlm, options.images, [options.alone])
        print(peak_mb())
        return
    seconds(vlm, BATCH, list(WORK))  # what is made at the first call
    rounds = [seconds(vlm, options.images, in_turn(list(WORK), number)) for number in range(options.rounds)]
    counts = (options.images // 5, options.images * 2)
    sizes = ("--layers", str(options.layers), "--hidden", str(options.hidden))
    memory = {name: {count: peak(name, count, sizes) for count in counts} for name in TARGETS}
    report(rounds, memory, vars(options))


def build(layers: int, hidden: int) -> VLM:
    """A LLaVA from random weights with 64 visual tokens."""
    return build_tiny(
        hidden=hidden, layers=layers, heads=4, tower_hidden=128, tower_layers=2, grid=8, vocabulary=2048, attention="sdpa", vision=True, seed=0,
    ).eval()  # fmt: skip


def seconds(vlm: VLM, images: int, names: Sequence[str]) -> dict[str, float]:
    """Seconds of each kind of work on the same contexts, batch by batch in turn."""
    spent = dict.fromkeys(names, 0.0)
    for first in range(0, images, BATCH):
        pictures = [picture(number, 96) for number in range(first, min(first + BATCH, images))]
        contexts = [context_of(vlm, JOINT, DESCRIPTION, image) for image in pictures]
        for name in names:
            start = time.perf_counter()
            WORK[name](vlm, contexts)
            spent[name] += time.perf_counter() - start
    return spent


def peak(name: str, images: int, sizes: Sequence[str]) -> float:
    """Peak memory in MB of a process that does one kind of work."""
    return float(alone("inside", "--alone", name, "--images", str(images), *sizes))


def report(rounds: Sequence[dict[str, float]], memory: dict[str, dict[int, float]], options: dict[str, Any]) -> None:
    """Print ratios and memory, and write them with what they were measured on."""
    images = options["images"]
    print(f"{images} images, decoder of {options['layers']} x {options['hidden']}, batches of {BATCH}; {os.cpu_count()} cores")
    found: dict[str, Any] = {"images": images, "rounds": rounds}
    for name, target in TARGETS.items():
        ratio = ratio_of(rounds, name, "plain")
        few, many = memory[name].items()
        print(f"{name}: {ratio} of a plain pass; target {target}: {'met' if ratio.median <= target else 'missed'}")
        print(f"{name}: peak memory {few[1]:.0f} MB for {few[0]} images, {many[1]:.0f} MB for {many[0]}")
        found[name] = {**asdict(ratio), "target": target, "peak_mb": memory[name]}
    write_result("inside", found)


if __name__ == "__main__":
    main()
