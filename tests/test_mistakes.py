"""Planted mistakes, one a case, over all doors: exit code 2, at most six lines, no stack trace; what, where, and what to type next.

The texts stand in mistakes.txt, to be read as a user reads them. UPDATE_SNAPSHOTS=1 python -m pytest tests/test_mistakes.py writes that file.
"""

import gc
import io
import json
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf
from PIL import Image
from quick_hydra import without_detours

pytest_plugins = ["small_runs"]

TEXTS = Path(__file__).with_name("mistakes.txt")
UPDATE = os.environ.get("UPDATE_SNAPSHOTS") == "1"
TRACES = ("Traceback", "HYDRA_FULL_ERROR", 'File "', "full_key", "object_type")
TABLE = "data=table data.file={file} data.low=1 data.high=5"
MISTAKES = f"""
biqa train stage=1
biqa stage=1
biqa run stage.epoch=3
biqa run epochs=3
biqa run +stage.epoch=3
biqa run stge=joint
biqa run learning_rate=0.1
biqa run stage=9
biqa run stage=
biqa run model=owl
biqa run data=konik
biqa run data=koniq+spak
biqa run data=koniq test=[nosuch]
biqa run test.live.version=old
biqa run logger=wanb
biqa run sweep=maintable
biqa run hydra/launcher=slurm
biqa run -m stage=1,2,7
biqa run seed=1 -m stage=1,2
biqa run stage=1 seed=0,1
biqa run --epochs=3
biqa run --cfg jobs
biqa run stage
biqa run "tuning.targets=(q|v"
biqa run "tuning.targets='*'"
biqa run stage.epochs=many
biqa run stage.epochs=-1
biqa run stage.epochs=
biqa run overwrite=maybe
biqa run tuning.frozen=tower
biqa run seed=-1
biqa run ckpt=latest
biqa run name=a/b
biqa run runs=scores.csv name=x
biqa run data.kinds=[]
biqa run data.kinds=[blur]
biqa run sampling.repeats=1
biqa run tuning=full quantization=nf4
biqa run tuning=lora quantization=int8 quantization.double_quant=true
biqa run trainer.accelerator=cuda
biqa run model=owl2
biqa run stage.init_from=runs/jiont
biqa run stage=2 seed=5
biqa run stage=2 stage.perception=runs/joint
biqa run name=joint stage.epochs=7 stage.batch_size=4 tuning.lr=0.1 tuning.warmup=0.2 sampling.top_p=0.5
biqa run name=half stage.epochs=1
biqa run name=cut stage.epochs=1
biqa run name=garbled
biqa run data=livec
biqa run data=koniq data.root=nowhere
biqa run data=live data.root=LIVE.zip
biqa run data=table
biqa run {TABLE.format(file="nowhere.csv")}
biqa run {TABLE.format(file="columns.csv")}
biqa run {TABLE.format(file="semicolons.csv")}
biqa run {TABLE.format(file="wide.csv")}
biqa run {TABLE.format(file="missing.csv")}
biqa run {TABLE.format(file="damaged.csv")}
biqa run {TABLE.format(file="splits.csv")} data.split=set
biqa run {TABLE.format(file="scores.csv")} descriptions=distortions
biqa run descriptions=teacher
biqa report run=runs
biqa report runs=nowhere
biqa report baseline=jiont
biqa report runs=good only=[tiny-*]
biqa report runs=mixed out=tables
biqa report runs=torn out=tables
biqa report runs=good out=scores.csv/tables
biqa analyze
biqa analyze run=runs/one
biqa analyze run=runs/joint analysis=grouding
biqa analyze run=runs/joint against=runs/joint
biqa analyze run=runs/gone
biqa analyze run=runs/joint accelerator=cuda analysis=logit_lens progress=false
biqa analyze run=runs/joint resampels=10
biqa prepare
biqa prepare data=tabel
biqa prepare {TABLE.format(file="scores.csv")} example=3
biqa search stage=joint
biqa search stage=joint search=lerning_rate
biqa search 'tuning.lr=interval(1,2)' search.trial=3
biqa search 'tuning.lr=interval(2,1)'
biqa search 'tuning.sped=interval(1,2)'
biqa predict scores.csv
biqa predict run=runs/one 0.png
biqa predict run=runs/joint
biqa predict run=runs/joint nowhere.png
biqa predict run=runs/joint repeat=10 0.png
biqa reproduce seeds=[a]
biqa reproduce data_root=nowhere
biqa demo runs/joint host=0.0.0.0
biqa compare runs/joint
biqa compare runs/joint runs/jiont
biqa compare runs/joint runs/one
biqa compare runs/joint runs/less
biqa compare runs/joint runs/gone
biqa compare runs/joint runs/other out=difference.txt
biqa rerun runs/joint seed=3
biqa rerun runs/edited
biqa ls run=runs
biqa ls nowhere
biqa ls sort=date
biqa doctor run=runs
biqa completion tcsh
"""
BEGINS = ("name=", "runs=", "data", "stage=2", "stage.init_from=", "trainer.accelerator=", "model=owl2")
"""Mistakes that are found when a run looks about it: such a run must be small, in case it is not found."""
CASES = [line for line in MISTAKES.splitlines() if line]


@pytest.fixture(scope="module")
def place(tmp_path_factory, run) -> Iterator[Path]:
    """A user's folder: pictures, tables with one thing wrong in each, runs with one thing wrong in each."""
    here = tmp_path_factory.mktemp("mistakes")
    rng = np.random.default_rng(0)
    names = [f"{number}.png" for number in range(10)]
    for name in names:
        Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(here / name)
    (here / "torn.png").write_bytes((here / "0.png").read_bytes()[:300])
    rows = [f"{name},{1 + 0.4 * number:.1f}" for number, name in enumerate(names)]
    tables = {
        "scores": ["image,mos", *rows], "columns": ["file,score", *rows], "semicolons": ["image;mos", *(row.replace(",", ";") for row in rows)],
        "wide": ["image,mos", *rows[:4], "4.png,74", *rows[5:]], "missing": ["image,mos", *rows, "gone.png,3"],
        "damaged": ["image,mos", *rows, "torn.png,3"], "splits": ["image,mos,set", *(f"{row},train" for row in rows)],
    }  # fmt: skip
    for name, lines in tables.items():
        (here / f"{name}.csv").write_text("\n".join(lines) + "\n")
    (here / "LIVE.zip").write_bytes(b"PK")
    runs_of(here, run)
    gc.collect()
    gc.freeze()  # what torch and its friends hold need not be looked through a thousand times
    yield here
    gc.unfreeze()


def runs_of(here: Path, run: Callable) -> None:
    """One real run of each of two stages, and copies with one thing wrong."""
    import shutil

    runs = here / "runs"
    for name, stage in (("joint", "joint"), ("one", "1")):
        outcome = run(runs, name, f"stage={stage}", "stage.epochs=1")
        assert outcome.code == 0, outcome.err

    def copy(name: str, to: Path = runs) -> Path:
        return Path(shutil.copytree(runs / "joint", to / name))

    (copy("half") / "result.json").unlink()
    (copy("cut") / "result.json").write_text('{"schema": 1, "run')
    (copy("garbled") / "config.yaml").write_text("stage: [")
    (copy("gone") / "answers" / "synthetic.parquet").unlink()
    copy("good", here / "good")
    (copy("torn", here / "torn") / "answers" / "synthetic.parquet").write_bytes(b"PAR1")
    for folder in (copy("mixed", here / "mixed"), copy("less"), copy("other")):
        answers = pd.read_parquet(folder / "answers" / "synthetic.parquet")
        answers["score"] = answers["score"].to_numpy()[::-1]
        if folder.name == "less":
            answers = answers[answers["image"] != answers["image"].iloc[0]]
        answers.to_parquet(folder / "answers" / "synthetic.parquet", index=False)
    edited = copy("edited") / "config.yaml"
    config = OmegaConf.load(edited)
    config.model._target_ = "os.system"
    OmegaConf.save(config, edited)


def type_in(command: str, options: tuple[str, ...]) -> tuple[int, str, str]:
    """A command as it is typed, in this process: exit code, stdout, stderr."""
    from biqa import analyze, predict, prepare, report, search
    from biqa import command as words
    from biqa import config as schema
    from biqa import run as run_door
    from biqa.doors.arguments import open_light_door
    from biqa.doors.opening import open_door

    _, door, *arguments = shlex.split(command)
    mains = {"report": report.main, "analyze": analyze.main, "prepare": prepare.main}
    schema.register()
    if door == "run":
        arguments = run_door.numbers_to_words([*arguments, *(option for option in options if fits(option, arguments))])
    out, err, code = io.StringIO(), io.StringIO(), 0
    with patch.object(sys, "argv", [f"biqa.{door}", *arguments]), redirect_stdout(out), redirect_stderr(err), without_detours(arguments):
        try:
            if door == "run":
                open_door(run_door.main)
            elif door == "predict":
                predict.enter()
            elif door in mains or door == "search":
                open_door(mains.get(door, search.main), flags=door != "search")
            elif door in words.DOORS:
                open_light_door(__import__(f"biqa.{door}", fromlist=["main"]).main)
            else:
                with patch.object(sys, "argv", ["biqa", door, *arguments]):
                    words.main()
        except SystemExit as end:
            code = int(end.code or 0)
    return code, out.getvalue(), err.getvalue()


def fits(option: str, arguments: list[str]) -> bool:
    """Whether an option of a small run goes with what is typed: where something is begun, of no choice that is another one, and not said already."""
    typed = {argument.partition("=")[0] for argument in arguments}
    needed = any(argument.startswith(BEGINS) for argument in arguments)
    return needed and option.partition("=")[0] not in typed and option.partition(".")[0] not in typed


def contents(folder: Path) -> dict[str, int]:
    """Every path below a folder with when it was written; Hydra notes down a sweep before it looks at its jobs."""
    return {str(path): path.is_file() and path.stat().st_mtime_ns for path in folder.rglob("*") if path.name != "multirun.yaml"}


@pytest.fixture(scope="module")
def texts() -> Iterator[dict[str, str]]:
    """Command -> what it says. Updating, it is filled by the tests and written when they are through."""
    found: dict[str, str] = {}
    if TEXTS.is_file():
        parts = TEXTS.read_text(encoding="utf-8").split("\n$ ")[1:]
        found = {command: said.rstrip("\n") for command, _, said in (part.partition("\n") for part in parts)}
    yield found
    if UPDATE:
        head = "What is said of planted mistakes (tests/test_mistakes.py).\n"
        known = {command: found[command] for command in CASES if command in found}  # those that did not run just now keep their texts
        TEXTS.write_text(head + "".join(f"\n$ {command}\n{said}\n" for command, said in known.items()), encoding="utf-8")


@pytest.mark.parametrize("command", CASES)
def test_a_mistake_is_told_in_words(command, place, texts, synthetic, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.delenv("BIQA_DATASETS", raising=False)
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        monkeypatch.setenv(name, "0")  # Lightning sets these two for good
    before = contents(place)
    code, out, said = type_in(command, synthetic)
    assert code == 2, out + said
    said = re.sub(r"data\.root=\S*synthetic\S*", "data.root=SYNTHETIC", said.rstrip("\n")).replace(str(place), "HERE")
    assert said
    assert len(said.splitlines()) <= 6, said
    assert not [trace for trace in TRACES if trace in out + said]
    assert not [line for line in said.splitlines() if len(line) > 600]
    assert contents(place) == before
    if UPDATE:
        texts[command] = said
    assert said == texts.get(command), f"$ {command}\n{said}"


def test_there_are_thirty_and_more_of_every_door(texts):
    from biqa.command import DOORS

    assert len(CASES) == len(set(CASES)) >= 30
    assert set(texts) == set(CASES), "UPDATE_SNAPSHOTS=1 writes the texts of new cases"
    assert {command.split()[1] for command in CASES} >= set(DOORS)


def test_a_byte_order_mark_is_no_mistake(place, synthetic, monkeypatch, tmp_path):
    monkeypatch.chdir(place)
    text = (place / "scores.csv").read_text()
    (place / "bom.csv").write_text(text, encoding="utf-8-sig")
    try:
        options = f"data.file=bom.csv data.low=1 data.high=5 stage=zero_shot runs={tmp_path} name=x"
        model = " ".join(option for option in synthetic if not option.startswith("data."))
        code, out, said = type_in(f"biqa run data=table {options} {model}", ())
        assert (code, said) == (0, ""), out
        assert json.loads((tmp_path / "x" / "result.json").read_text())["data"]["bom"]["images"] == 2
    finally:
        (place / "bom.csv").unlink()
