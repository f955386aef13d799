"""Memory does not grow with the number of large images."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

IMAGES, FIRST = 200, 20
GROWTH_MB = 24
"""Less than one image decoded in full (36 MB) and than the reduced copies of the later images (46 MB at a shorter side of 252)."""

EPOCH = """
import json, sys
from pathlib import Path

import numpy as np
import torch

from biqa.data.collate import Encoded
from biqa.data.images import image_of
from biqa.data.module import DataModule, Item
from biqa.data.record import Record, Reduction
from biqa.data.survey import survey

FIRST = int(sys.argv[2])


def peak():
    \"\"\"Largest resident memory so far, in MB: of this program alone, where that of getrusage counts who started it.\"\"\"
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) / 1024


def encode(item):
    return Encoded([1], [2], {"pixel_values": torch.from_numpy(np.asarray(image_of(item.record)).copy())[None]})


paths = sorted(Path(sys.argv[1]).glob("*.jpg"))
reduction = Reduction(252, Path(sys.argv[1]) / "cache")
peaks = []
for part in (paths[:FIRST], paths[FIRST:]):
    looks = survey(part, ("hash",), reduction=reduction, cache=reduction.cache, workers=2)
    assert {(look.width, look.height) for look in looks} == {(336, 252)}
    peaks.append(peak())
records = [Record(path.name, path, 0.5, "train", path.name, 3.0, reduction=reduction) for path in paths]
data = DataModule(
    train=[Item(record, ("",)) for record in records], val=(), predict=(), encode=encode, pad_id=0,
    batch_size=4, predict_batch_size=4, seed=0, workers=0, cache_mb=0,
)
seen = 0
for batch in data.train_dataloader():
    seen += len(batch.input_ids)
    if seen == FIRST:
        peaks.append(peak())
peaks.append(peak())
print(json.dumps({"seen": seen, "peaks": peaks}))
"""


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="peak memory is read from Linux's /proc")
def test_two_hundred_photographs_of_12_megapixels_take_the_memory_of_twenty(tmp_path: Path) -> None:
    contents = []
    for kind in range(4):
        Image.linear_gradient("L").rotate(90 * kind).resize((4000, 3000)).convert("RGB").save(tmp_path / "one.jpg", quality=75)
        contents.append((tmp_path / "one.jpg").read_bytes())
    (tmp_path / "one.jpg").unlink()
    for i in range(IMAGES):
        comment = b"\xff\xfe\x00\x06" + f"{i:04d}".encode()  # after the marker that begins a JPEG: no two files are equal
        (tmp_path / f"{i:03d}.jpg").write_bytes(contents[i % 4][:2] + comment + contents[i % 4][2:])
    done = subprocess.run([sys.executable, "-c", EPOCH, str(tmp_path), str(FIRST)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["seen"] == IMAGES
    survey_first, survey_end, epoch_first, epoch_end = found["peaks"]
    assert survey_end - survey_first < GROWTH_MB
    assert epoch_end - epoch_first < GROWTH_MB
