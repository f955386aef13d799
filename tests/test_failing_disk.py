"""A disk that fills up, fails or takes nothing any more, at each change of a file by each door: what was there before is whole, and all is told.

`failing_disk.c` stands between the process and the system, so that it does not matter in which language a file is written; `failing_disk.py` calls the
doors. What writes files is tested without it in `test_files.py`.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest_plugins = ["small_runs"]

HERE = Path(__file__).parent
TRAINED = ("stage.batch_size=4", "stage.epochs=1", "trainer.checkpoint_steps=4")
STRIDES = {
    "lora": 31, "full": 17, "two": 31, "merged": 13, "probe": 7, "caches": 37, "report": 5, "compare": 1, "predict": 3, "analyze": 23, "prepare": 7,
}  # fmt: skip
"""Scenario -> from each change that fails to the next: so many attempts as fit into four minutes."""


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """The disk that fails, compiled."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if sys.platform != "linux" or compiler is None:
        pytest.skip("no C compiler here, or no Linux")
    made = tmp_path_factory.mktemp("library") / "failing_disk.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", made, HERE / "failing_disk.c", "-ldl"], check=True, capture_output=True)
    return made


@pytest.fixture(scope="module")
def made(run, tmp_path_factory):
    """Finished runs, pictures, and files of an earlier time where doors will write."""
    folder = tmp_path_factory.mktemp("made") / "made"
    for name, *options in (("a", "stage=joint"), ("one", "stage=1"), ("lora", "stage=joint", "tuning=lora")):
        assert run(folder / "runs", name, *options, *TRAINED).code == 0
    assert run(folder / "runs", "zero", "stage=zero_shot").code == 0
    for name in ("pictures", "out", "prepared"):
        (folder / name).mkdir()
    for number in range(3):
        noise = np.random.default_rng(number).integers(0, 255, (48, 48, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / "pictures" / f"{number}.png")
    for file in ("compared.md", "scores.csv", "out/table.md", "out/table.tex", "out/table.csv"):
        (folder / file).write_text("old\n")
    (folder / "page.html").write_text("old</html>\n")
    (folder / "prepared" / "checks.json").write_text("[]\n")
    return folder


@pytest.fixture
def attempts(library, made, tmp_path):
    """`attempts(scenario, stride, *how)`: what came of each attempt in which a change has failed."""

    def campaign(scenario, stride, *how):
        place = Path(shutil.copytree(made, tmp_path / "made"))
        environment = os.environ | {"LD_PRELOAD": str(library), "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)])}
        command = [sys.executable, str(HERE / "failing_disk.py"), str(place), scenario, str(stride), *how]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        return [one for one in told if one["fired"]]

    return campaign


@pytest.mark.faults
@pytest.mark.parametrize("scenario", STRIDES)
def test_what_was_there_before_is_whole_and_all_is_told(attempts, tally, scenario):
    started = time.monotonic()
    found = attempts(scenario, STRIDES[scenario])
    wrong = [one for one in found if one["wrong"]]
    tally("failing_disk", tried=len(found), survived=len(found) - len(wrong))
    assert {one["fault"] for one in found} == {"ENOSPC", "EIO", "EROFS"}
    assert not wrong, json.dumps(wrong[:3], indent=1)
    print(f"{scenario}: {len(found)} of {found[0]['of']} changes and 3 faults, {time.monotonic() - started:.0f} s")


@pytest.mark.faults
def test_who_writes_without_care_is_found_out(attempts):
    wrong = [said for one in attempts("report", 4, "careless") for said in one["wrong"]]
    assert any("out/table" in said and "neither as before nor as at the end" in said for said in wrong), wrong
