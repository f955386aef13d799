"""How fast is a data set looked at? biqa's survey (two processes) against a plain loop that does the same work, in one interleaved run.

python -m benchmarks.prepare                              # 10,000 images, three rounds: about two minutes on two cores
python -m benchmarks.prepare --images 1000 --rounds 1     # a glance
"""

import argparse
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.rounds import Ratio, in_turn, timed, write_result
from biqa.data.survey import Look, survey

TARGET = 1.7
"""Of the ratio on two cores: twice the processes, less what starting them and gathering their answers costs."""
WORKERS = 2


@dataclass(frozen=True)
class Round:
    """One pass of both over all images. Wall and processor seconds; those of biqa are summed over its processes."""

    plain: float
    biqa: float
    plain_cpu: float
    biqa_cpu: float

    @property
    def ratio(self) -> float:
        """How many times as fast biqa was, by the clock."""
        return self.plain / self.biqa


def main() -> None:
    """Make the images, run the rounds, check that both found the same, print, and write results/prepare.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="biqa-bench-") as place:
        paths = make_images(Path(place) / "images", options.images)
        rounds = [one_round(paths, Path(place) / "cache", index) for index in range(options.rounds)]
    report(rounds, options.images)


def make_images(folder: Path, count: int) -> list[Path]:
    """Smooth colours with noise, 96 to 128 pixels a side, every other one a JPEG, the others PNG; all of them in the page cache afterwards."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    paths = []
    for index in range(count):
        width, height = (int(side) for side in rng.integers(96, 129, 2))
        paths.append(folder / f"{index:05d}.{'jpg' if index % 2 else 'png'}")
        photograph(rng, width, height).save(paths[-1])
    return paths


def photograph(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Smooth colours with noise."""
    coarse = Image.fromarray(rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.int16)
    return Image.fromarray((smooth + rng.integers(-6, 7, (height, width, 1))).clip(0, 255).astype(np.uint8))


def one_round(paths: Sequence[Path], cache: Path, number: int) -> Round:
    """Both over all images, in turn, with a cold cache."""
    from benchmarks import plain  # here: the processes of biqa's survey import this module, and need none of scipy.ndimage

    shutil.rmtree(cache, ignore_errors=True)
    plain.prepare(paths[:8])  # what is imported at the first call
    sides = {"plain": lambda: plain.prepare(paths), "biqa": lambda: survey(paths, ("hash", "measured"), cache=cache, workers=WORKERS)}
    found = {name: timed(sides[name]) for name in in_turn(list(sides), number)}
    (figures, plain_wall, plain_cpu), (looks, biqa_wall, biqa_cpu) = found["plain"], found["biqa"]
    check_equal(looks, figures)
    return Round(plain=plain_wall, biqa=biqa_wall, plain_cpu=plain_cpu, biqa_cpu=biqa_cpu)


def check_equal(looks: Sequence[Look], figures: Sequence[tuple[str, dict[str, float]]]) -> None:
    """Both found the same in every image: equal hashes, measurements within 1e-6 of each other."""
    for look, (hashed, measured) in zip(looks, figures, strict=True):
        assert look.measured is not None, look.problem
        assert look.hash == hashed, f"{look.hash} and {hashed}"
        for name, value in measured.items():
            assert abs(look.measured[name] - value) <= 1e-6 * abs(value), f"{name}: {look.measured[name]} and {value}"


def report(rounds: Sequence[Round], images: int) -> None:
    """Print the rounds and their median, and write them with what they were measured on."""
    print(f"{images:,} images of 96 to 128 pixels: decode, hash, six measurements; {os.cpu_count()} cores")
    print("round   plain images/s   biqa images/s   ratio   processor time, biqa / plain")
    for number, one in enumerate(rounds, start=1):
        cost = one.biqa_cpu / one.plain_cpu
        print(f"{number:5d}   {images / one.plain:14.0f}   {images / one.biqa:13.0f}   {one.ratio:5.2f}   {cost:29.2f}")
    ratio = Ratio.of([one.ratio for one in rounds])
    print(f"median ratio {ratio}; target {TARGET}: {'met' if ratio.median >= TARGET else 'missed'}")
    told = {"images": images, "workers": WORKERS, **asdict(ratio), "target": TARGET}
    write_result("prepare", {**told, "rounds": [asdict(one) for one in rounds]})


if __name__ == "__main__":
    main()
