"""Under load: ten times as much takes ten times as long and not a hundred times, and no more memory where nothing has to be kept."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fabrication import made_up_run
from PIL import Image
from weighed import DOOR, PEAK, Cost, cost_of

from biqa.reporting.result import RESULT_NAME

pytest_plugins = ["small_runs"]

pytestmark = [pytest.mark.faults, pytest.mark.skipif(not PEAK.is_file(), reason="peak memory is read from Linux's /proc")]

TIMES = 10
"""How much more the second piece of work is."""
SLACK = 2.0
"""So many times TIMES may the second take of what the first took: caches, and other work on the machine. What grows with the square takes 10."""

ANSWERS = """
import numpy as np, pandas as pd
from biqa.evaluation.answers import PROBABILITIES
from biqa.evaluation.evaluate import compare, evaluate
from biqa.language.levels import LEVELS, WEIGHTS

images, queries = int(sys.argv[1]), 20
rng = np.random.default_rng(0)
quality = rng.random(images)
centre = quality[:, None] + 0.2 * (rng.normal(size=(images, 1)) + 0.5 * rng.normal(size=(images, queries)))
likely = np.exp(-((centre[:, :, None] - WEIGHTS) ** 2) / 0.05).reshape(-1, 5)
likely /= likely.sum(axis=1, keepdims=True)
drawn = np.where(np.arange(images * queries) % queries == 0, likely.argmax(axis=1), (likely.cumsum(axis=1) > rng.random((len(likely), 1))).argmax(axis=1))
answers = pd.DataFrame({
    "dataset": "synthetic", "image": np.repeat([f"{i:06d}.png" for i in range(images)], queries), "query": np.tile(np.arange(queries), images),
    "description": "The image is sharp.", "level": np.array(LEVELS)[drawn], **dict(zip(PROBABILITIES, likely.T)), "score": likely @ WEIGHTS,
    "q": np.repeat(quality, queries), "subset": None,
})
begin()
found = evaluate(answers)["synthetic"]
assert found["srcc"]["low"] < found["srcc"]["value"] < found["srcc"]["high"] and found["instability_sampled"]["value"] > 0
"""

LABELS = """
from biqa.data.table import Table
from biqa.data.rows import read_sheet

file, rows, images = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
begin()
if file.suffix == ".xlsx":
    assert len(read_sheet(file, "Sheet", ["image", "mos"])) == rows
else:
    assert len(Table(file=file, root=images, low=1, high=5).records()) == rows
"""

PLANTED = """
from itertools import product
begin()
kept = [(one, other) for one, other in product(range(int(sys.argv[1])), repeat=2)]
"""


@pytest.fixture
def weigh(tmp_path: Path) -> Callable[..., Cost]:
    """`cost_of` with the package of this checkout and one thread."""
    here = Path(__file__).parent
    environment = dict(os.environ) | {"PYTHONPATH": f"{here.parent}{os.pathsep}{here}", "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
    return lambda work, *arguments: cost_of(work, *arguments, report=tmp_path / "weighed.json", environment=environment)


def grown(small: Cost, large: Cost, *, megabytes: float) -> dict[str, float]:
    """The figures of the larger work; fails where it grew more than its size. `megabytes`: that it may have more than the small one."""
    growth = large.seconds / small.seconds
    assert growth <= TIMES * SLACK, f"{TIMES} times as much took {growth:.0f} times as long ({small.seconds:.2f} s, {large.seconds:.2f} s)"
    assert large.megabytes - small.megabytes <= megabytes, f"{small.megabytes:.0f} MB grew to {large.megabytes:.0f} MB"
    return {"seconds": large.seconds, "megabytes": large.megabytes, "growth_of_seconds": growth}


def test_what_keeps_all_pairs_is_caught(weigh: Callable[..., Cost]) -> None:
    small, large = (weigh(PLANTED, number) for number in (300, 3000))
    with pytest.raises(AssertionError, match="times as long"):
        grown(small, large, megabytes=10_000)
    with pytest.raises(AssertionError, match=r"MB grew to"):
        grown(Cost(1, small.megabytes), Cost(1, large.megabytes), megabytes=300)


def test_two_hundred_thousand_answers(weigh: Callable[..., Cost], tally: Callable[..., None]) -> None:
    small, large = (weigh(ANSWERS, images) for images in (1_000, 10_000))
    # the table itself and its arrays; 1,000 resamples of 10,000 images would be 80 MB, and several times that in what is made of them
    tally("load_answers", tried=200_000, **grown(small, large, megabytes=320))


def runs_below(folder: Path, number: int) -> Path:
    """Finished runs of as many systems, alike but for one option; those of one stage share their answers on disk."""
    runs = folder / f"runs{number}"
    made = {stage: made_up_run(folder / "made", stage, stage, config=_config(stage)) for stage in ("joint", "inference")}
    results = {stage: json.loads((run / RESULT_NAME).read_text()) for stage, run in made.items()}
    for i in range(number):
        stage = ("joint", "inference")[i % 2]
        run = runs / f"tiny-{stage}-{i}"
        (run / "answers").mkdir(parents=True)
        os.link(made[stage] / "answers" / "synthetic.parquet", run / "answers" / "synthetic.parquet")
        result = results[stage] | {"run": results[stage]["run"] | {"name": run.name}, "config": _config(stage, epochs=1 + i)}
        (run / RESULT_NAME).write_text(json.dumps(result))
        (run / "config.yaml").write_text(json.dumps(result["config"]))  # which YAML reads too
    return runs


def _config(stage: str, epochs: int = 1) -> dict[str, Any]:
    options = {f"group{group}": {f"option{option}": option / 8 for option in range(8)} for group in range(10)}
    return {
        "seed": 0,
        "stage": {"_target_": f"biqa.stages.{stage}.{stage.capitalize()}", "descriptions": "generated", "epochs": epochs},
        "model": {"_target_": "biqa.models.tiny.build_tiny"},
        "data": {"_target_": "biqa.data.synthetic.Synthetic"},
        "tuning": {"kind": "full"},
        **options,
    }


def test_a_thousand_runs(weigh: Callable[..., Cost], tally: Callable[..., None], tmp_path: Path) -> None:
    hundred, thousand = (runs_below(tmp_path, number) for number in (100, 1000))
    report = [weigh(DOOR, "biqa.report", f"runs={runs}", f"out={tmp_path / runs.name}-out") for runs in (hundred, thousand)]
    figures = grown(*report, megabytes=200)
    table = (tmp_path / "runs1000-out" / "table.csv").read_text()
    assert all(f"stage.epochs={1 + i}," in table or f'stage.epochs={1 + i}"' in table for i in range(1000))
    with Image.open(tmp_path / "runs1000-out" / "figure.png") as figure:
        assert figure.height < 10_000
    tally("load_runs", tried=1000, **figures)
    for command in (
        ("biqa.ls", "{}"),
        ("biqa.ls", "{}", "--json"),
        ("biqa.compare", "{}/tiny-joint-0", "{}/tiny-inference-1"),
        ("biqa.completion", "shell=bash", "line=biqa compare {}/tiny-joint-9"),
    ):
        costs = [weigh(DOOR, *(part.format(runs) for part in command)) for runs in (hundred, thousand)]
        tally("load_runs", tried=1, **grown(*costs, megabytes=64))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 100,000 pictures: names of four small files."""
    folder = tmp_path_factory.mktemp("load") / "pictures"
    folder.mkdir()
    for kind in range(4):
        pixels = np.random.default_rng(kind).integers(0, 255, (48, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder.parent / f"{kind}.png")
    for i in range(100_000):
        os.link(folder.parent / f"{i % 4}.png", folder / f"{i:06d}.png")
    return folder


def labels(folder: Path, ending: str, number: int) -> Path:
    """A label file of the first pictures."""
    file = folder / f"labels{number}.{ending}"
    rows = [(f"{i:06d}.png", 1 + i % 401 / 100) for i in range(number)]
    if ending == "csv":
        file.write_text("image,mos\n" + "".join(f"{name},{mos}\n" for name, mos in rows))
    elif ending == "jsonl":
        file.write_text("".join(json.dumps({"image": name, "mos": mos}) + "\n" for name, mos in rows))
    else:
        from openpyxl import Workbook

        book = Workbook(write_only=True)
        sheet = book.create_sheet("Sheet")
        for row in (("image", "mos"), *rows):
            sheet.append(row)
        book.save(file)
    return file


@pytest.mark.parametrize("ending", ["csv", "jsonl", "xlsx"])
def test_a_label_file_of_a_hundred_thousand_rows(
    weigh: Callable[..., Cost], tally: Callable[..., None], pictures: Path, tmp_path: Path, ending: str
) -> None:
    small, large = (weigh(LABELS, labels(tmp_path, ending, number), number, pictures) for number in (10_000, 100_000))
    tally("load_labels", tried=100_000, **grown(small, large, megabytes=220))


def test_a_data_set_of_ten_thousand_images_that_are_four(
    weigh: Callable[..., Cost], tally: Callable[..., None], pictures: Path, tmp_path: Path
) -> None:
    options = [f"data.root={pictures}", "data=table", "data.low=1", "data.high=5", "descriptions=measured", "images.cache=null"]
    refused = DOOR.replace("not end.code", "end.code == 2")  # after all is looked at and written: copies lie on both sides of the split
    costs = [
        weigh(refused, "biqa.prepare", *options, f"data.file={labels(tmp_path, 'csv', number)}", f"out={tmp_path / str(number)}")
        for number in (1_000, 10_000)
    ]
    # before copies were counted and not kept, these were 5.7 million pairs, and more than 1,000 MB
    tally("load_labels", tried=10_000, **grown(*costs, megabytes=200))


def test_ten_thousand_pictures_predicted(
    weigh: Callable[..., Cost], tally: Callable[..., None], pictures: Path, tmp_path: Path, finished: Path
) -> None:
    costs = []
    for number in (1_000, 10_000):
        folder = tmp_path / str(number)
        folder.mkdir()
        for i in range(number):
            os.link(pictures / f"{i:06d}.png", folder / f"{i:06d}.png")
        out, page = folder.with_suffix(".jsonl"), folder.with_suffix(".html")
        costs.append(weigh(DOOR, "biqa.predict", f"run={finished / 'joint'}", folder, f"out={out}", f"--html={page}", "accelerator=cpu"))
        assert len(out.read_text().splitlines()) == number
        assert page.stat().st_size < 2**23
        shutil.rmtree(folder)
    tally("load_pictures", tried=10_000, **grown(*costs, megabytes=32))
