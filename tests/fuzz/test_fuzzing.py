"""Files that were flipped, cut, spliced and lied in are read, or refused in words; none ends otherwise, hangs or takes a gigabyte."""

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
from campaign import KINDS, PLANTED, campaign, guided


@pytest.mark.parametrize("kind", KINDS)
def test_mutated_files(kind: str) -> None:
    report = campaign(kind, inputs=1000, seed=0)
    assert report.lost == []
    assert min(report.outcomes["read"], report.outcomes["BadRecord"]) > 100, "what is tried must reach both ends"


@pytest.mark.faults
@pytest.mark.parametrize("kind", KINDS)
def test_many_mutated_files(kind: str, tally: Callable[..., None]) -> None:
    report = campaign(kind, inputs=20_000, seed=1)
    tally(f"fuzzed_{kind}", report.tried, report.survived, seconds_of_one=report.slowest, megabytes=report.megabytes)
    assert report.lost == []


@pytest.mark.faults
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.skipif(find_spec("atheris") is None, reason="atheris is not installed: pip install 'biqa[fuzz]'")
def test_inputs_that_coverage_guides(kind: str, tally: Callable[..., None]) -> None:
    report = guided(kind, inputs=10_000)
    tally("fuzzed_guided", report.tried, report.survived)
    assert report.lost == []


LARGEST = """
import sys
from pathlib import Path
import numpy as np
from PIL import Image
from campaign import limit_memory
from biqa.data.images import load_image
file, mode, reduced = Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "True"
side = 8944
image = Image.fromarray(np.zeros((side, side), np.uint16)) if mode == "I;16" else Image.new(mode, (side, side))
exif = Image.Exif()
exif[274] = 6
image.save(file, exif=exif, **({"compression": "tiff_lzw"} if file.suffix == ".tif" else {}))
del image
limit_memory()
from biqa.data.record import Reduction
assert load_image(file, Reduction(512, None) if reduced else None).size == ((512, 512) if reduced else (side, side))
"""


@pytest.mark.faults
@pytest.mark.parametrize("reduced", [False, True])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK"])
def test_the_largest_pictures_stay_within_a_gigabyte(tmp_path: Path, mode: str, reduced: bool, tally: Callable[..., None]) -> None:
    """80 million pixels, the most that is decoded: small files that are whole."""
    file = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    environment = os.environ | {"PYTHONPATH": f"{Path(__file__).parent}:{Path(__file__).parents[2]}"}
    command = [sys.executable, "-c", LARGEST, str(file), mode, str(reduced)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    tally("fuzzed_pictures")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("what", PLANTED)
def test_a_planted_fault_is_told_and_the_others_are_tried(what: str) -> None:
    report = campaign("pictures", inputs=60, seed=0, planted=what)
    assert len(report.lost) == 1
    assert report.lost[0].startswith("pictures:0:49 ")
    assert {"error": "KeyError", "hang": "Hang", "memory": "MemoryError", "end": "ended the process (exit code -11)"}[what] in report.lost[0]
    assert report.survived == 59
