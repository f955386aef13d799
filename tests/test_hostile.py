"""Hostile files over every door that opens them: nothing is run, nothing comes out of the environment, memory stays bounded, and the outcome is words.

`make test` takes some of them through one door each; `make test-faults` all through every door.
"""

import importlib
import io
import os
import pickle
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
import yaml
from hostile import SECRET, Runs, Seen, command, pickles, watched
from hostile_files import CHECKPOINTS, RUNS, Plant, pictures, resumable, tables
from omegaconf import OmegaConf
from PIL import Image

import biqa
from biqa.doors.arguments import open_light_door
from biqa.errors import UserError

pytest_plugins = ["small_runs"]

MOST_GB = 64
"""Address space of a test, beyond which it fails and this machine does not."""


@contextmanager
def limited() -> Iterator[None]:
    """No bomb takes the machine with it."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (MOST_GB * 2**30, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


Said = tuple[int, str]
"""Exit code, and all that stands on the terminal."""


def hydras(module: str, *arguments: str) -> Said:
    """A door with Hydra."""
    from small_runs import door

    done = door(f"biqa.{module}", *arguments)
    return done.code, done.out + done.err


def light(module: str, *arguments: str) -> Said:
    """A door without, and predict."""
    from biqa import config as schema

    out = io.StringIO()
    entered = importlib.import_module(f"biqa.{module}")
    with patch.object(sys, "argv", [module, *arguments]), redirect_stdout(out), redirect_stderr(out):
        try:
            if module == "predict":
                schema.register()
                entered.enter()
            else:
                open_light_door(entered.main)
        except SystemExit as end:
            return int(end.code or 0), out.getvalue()
    return 0, out.getvalue()


def loaded(run: Path, picture: Path) -> Said:
    """The function of Python's; `biqa demo` opens a run by it too."""
    try:
        said = biqa.load(run, device="cpu")(picture)
    except UserError as error:
        return 2, str(error)
    return 0, str(said)


@pytest.fixture(scope="module")
def picture(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("picture") / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 48, 3), np.uint8)).save(file)
    return file


@pytest.fixture
def doors(finished, picture, synthetic, tmp_path) -> dict[str, Callable[[Path], Said]]:
    """Name of a door -> call of it with the folder of a run; `biqa demo` opens one as `load` does."""
    new = (f"runs={tmp_path / 'new'}", "name=new", "stage=joint", "stage.epochs=1")
    some = ("resamples=20", "progress=false")
    return {
        "predict": lambda run: light(
            "predict", f"run={run}", "progress=false", f"html={tmp_path / 'page.html'}", f"out={tmp_path / 'p.csv'}", str(picture)
        ),
        "load": lambda run: loaded(run, picture),
        "report": lambda run: hydras("report", f"runs={run.parent}", f"out={tmp_path / 'report'}", "resamples=20"),
        "compare": lambda run: light("compare", str(run), str(finished / "joint"), "resamples=20"),
        "ls": lambda run: light("ls", str(run.parent)),
        "analyze": lambda run: hydras("analyze", f"run={run}", "analysis=contradiction", *some),
        "analyze inside": lambda run: hydras("analyze", f"run={run}", "analysis=logit_lens", "images=2", *some),
        "rerun": lambda run: light("rerun", str(run), f"runs={tmp_path / 'again'}", "name=again"),
        "init_from": lambda run: hydras("run", *synthetic, *new, f"stage.init_from={run}"),
        "the same command": lambda run: hydras(
            "run", *synthetic, "stage=joint", "stage.epochs=1", f"runs={run.parent}", f"name={run.name}", "ckpt=last"
        ),
        "completion": lambda run: light("completion", "suggest", f"biqa predict run={run.parent}/"),
    }


def in_words(said: Said, seen: Seen, folder: Path) -> None:
    """The outcome is a result or words, and nothing hostile got its way."""
    code, text = said
    assert code in (0, 1, 2, 3), text  # 3: some pictures could not be read
    assert "Traceback" not in text, text[-2000:]
    written = [
        file for file in folder.rglob("*") if file.suffix in (".html", ".md", ".csv", ".tex", ".json") and not file.is_symlink() and file.is_file()
    ]
    seen.all_well(text, *(file.read_text(errors="replace") for file in written))


def planted(finished: Path, tmp_path: Path, plant: Plant) -> Path:
    """A copy of a finished run, made hostile."""
    run = tmp_path / "runs" / "evil"
    run.parent.mkdir(exist_ok=True)
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(finished / "joint", run)
    plant(run)
    return run


def opened(name: str, which: str, finished: Path, doors: dict[str, Callable[[Path], Said]], tmp_path: Path) -> None:
    run = planted(finished, tmp_path, RUNS[name])
    with limited(), watched(tmp_path) as seen:
        said = doors[which](run)
    in_words(said, seen, tmp_path)


LONG = pytest.mark.faults
"""Of what `make test` has no seconds for."""
IN_TURN = ("predict", "ls", "compare", "load", "report", "analyze", "the same command", "load")


@pytest.mark.parametrize(("name", "which"), [(name, IN_TURN[number % len(IN_TURN)]) for number, name in enumerate(RUNS) if number % 2 == 0])
def test_a_run_of_somebody_else(name, which, finished, doors, tmp_path):
    opened(name, which, finished, doors, tmp_path)


@pytest.mark.faults
@pytest.mark.parametrize("name", RUNS)
def test_a_run_of_somebody_else_over_every_door(name, finished, doors, tmp_path, tally):
    survived = 0
    # a look inside builds its model as `load` does
    taken = [which for which in doors if which != "analyze inside" or name.startswith("weights")]
    for which in taken:
        opened(name, which, finished, doors, tmp_path)
        survived += 1
        for made in ("new", "again", "report"):
            shutil.rmtree(tmp_path / made, ignore_errors=True)
        for made in ("page.html", "p.csv"):
            (tmp_path / made).unlink(missing_ok=True)
    tally("hostile", tried=len(taken), survived=survived)


@pytest.mark.parametrize("long", [False, pytest.param(True, marks=pytest.mark.faults)])
def test_a_checkpoint_that_a_run_would_go_on_from(long, finished, run, tmp_path, tally):
    [step] = (finished / "joint" / "checkpoints").glob("*.ckpt")
    plants = resumable(tmp_path, step)
    for plant in [*plants.values()] if long else [plants[name] for name in ("a pickle: os.system", "a tensor that runs", "_instantiator")]:
        folder = planted(
            finished, tmp_path, lambda folder, plant=plant: (folder / "result.json").unlink() or plant(folder / "checkpoints" / step.name)
        )
        with limited(), watched(tmp_path) as seen:
            done = run(folder.parent, folder.name, "stage=joint", "stage.epochs=1", "ckpt=last")
        in_words((done.code, done.out + done.err), seen, tmp_path)
    if long:
        tally("hostile", tried=len(plants))


@pytest.mark.trust
def test_pictures(finished, tmp_path, tally):
    """All of them in one folder; those that are pictures with hostile names are answered."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    plants = pictures(tmp_path)
    for name, plant in plants.items():
        plant(folder / name)
    os.mkfifo(folder / "a pipe.png")
    Image.new("RGB", (40, 40)).save(folder / "sound.png")
    page, table = tmp_path / "page.html", tmp_path / "p.csv"
    with limited(), watched(tmp_path) as seen:
        code, text = light("predict", f"run={finished / 'joint'}", "progress=false", f"html={page}", f"out={table}", str(folder))
    in_words((code, text), seen, tmp_path)
    assert "<script>alert" not in page.read_text()
    assert 'onerror="' not in page.read_text().replace("&quot;", "")
    assert not any(line.startswith(("=", "+", "-", "@")) for line in table.read_text().splitlines())
    assert table.read_text().count("\n") >= 6
    assert "\x1b" not in text
    tally("hostile", tried=len(plants) + 1)


@pytest.mark.parametrize("option", ["data.on_bad_image=skip", "data.on_bad_image=stop"])
def test_a_pipe_among_images_is_waited_for_by_nobody(option, tmp_path, picture):
    os.mkfifo(tmp_path / "a.png")
    (tmp_path / "scores.csv").write_text("image,mos\na.png,3\n" + "".join(f"{number}.png,{number % 4 + 1}\n" for number in range(9)))
    for number in range(9):
        Image.fromarray(np.random.default_rng(number).integers(0, 255, (48, 48, 3), np.uint8)).save(tmp_path / f"{number}.png")
    code, text = hydras("prepare", "data=table", f"data.file={tmp_path / 'scores.csv'}", "data.low=1", "data.high=5", option, "images.workers=1")
    assert code in (0, 2)
    assert "Traceback" not in text


@pytest.mark.trust
def test_tables(tmp_path, tally):
    from biqa.data.matlab import read_names, read_numbers
    from biqa.data.rows import read_rows, read_sheet
    from biqa.data.table import Table

    for name, plant in tables(tmp_path).items():
        file = tmp_path / name
        plant(file)
        readers: list[Callable[[], object]] = {
            ".mat": [lambda file=file: read_numbers(file, "mos"), lambda file=file: read_names(file, "mos")],
            ".xlsx": [lambda file=file: read_sheet(file, "Sheet", ["image", "mos"])],
        }.get(file.suffix, [lambda file=file: read_rows(file, ["image"]), lambda file=file: Table(file=file, score="mos", low=1, high=5).records()])
        for read in readers:
            with limited(), watched(tmp_path) as seen:
                try:
                    said = str(read())[:5000]
                except UserError as error:
                    said = str(error)
            seen.all_well(said)
            assert "root:" not in said
            tally("hostile")


@pytest.mark.parametrize("name", [pytest.param(name, marks=LONG if number % 4 else pytest.mark.trust) for number, name in enumerate(CHECKPOINTS)])
def test_a_checkpoint_of_somebody_else(name, checkpoint, tmp_path, tally):
    from biqa.models.hf import build_hf

    folder = tmp_path / "a" / "b"
    shutil.copytree(checkpoint("smolvlm"), folder)
    CHECKPOINTS[name](folder)
    with limited(), watched(tmp_path) as seen:
        try:
            options = {"revision": None, "family": None, "dtype": "float32", "attention": "eager", "visual_tokens": None, "image": None, "seed": 0}
            said = str(build_hf(id=str(folder), vision=True, **options))
        except UserError as error:
            said = str(error)
            assert "\n" not in said
    seen.all_well(said)
    assert "evil" not in sys.modules
    tally("hostile")


@LONG
def test_an_adapter_of_somebody_else(synthetic, run, tmp_path):
    """PEFT's adapter_config.json names a base and a library; both are left unread."""
    import json

    assert run(tmp_path / "runs", "lora", "stage=joint", "stage.epochs=1", "tuning=lora").code == 0
    adapter = tmp_path / "runs" / "lora" / "adapter"
    config = json.loads((adapter / "adapter_config.json").read_text())
    hooks = {"base_model_name_or_path": "evil/model", "auto_mapping": {"base_model_class": "system", "parent_library": "os"}, "revision": "main"}
    (adapter / "adapter_config.json").write_text(json.dumps(config | hooks))
    (adapter / "adapter_model.bin").write_bytes(pickles(tmp_path)["nested"])
    new = (f"runs={tmp_path / 'new'}", "name=new", "stage=joint", "stage.epochs=1", "tuning=lora")
    with watched(tmp_path) as seen:
        said = hydras("run", *synthetic, *new, f"stage.init_from={adapter.parent}")
    in_words(said, seen, tmp_path)
    for damage in ("{", "[]", "[" * 100_000, "{}"):
        (adapter / "adapter_config.json").write_text(damage)
        with watched(tmp_path) as seen:
            said = hydras("run", *synthetic, *new[:1], "name=newer", *new[2:], f"stage.init_from={adapter.parent}")
        in_words(said, seen, tmp_path)
        assert said[0] == 2
    (adapter / "adapter_model.safetensors").unlink()
    assert hydras("run", *synthetic, *new[:1], "name=newest", *new[2:], f"stage.init_from={adapter.parent}")[0] == 2


def test_the_same_payloads_opened_the_unsafe_way_do_get_their_way(tmp_path, monkeypatch):
    """The negative control: what is watched for can be seen."""
    for name, content in pickles(tmp_path).items():
        with watched(tmp_path) as seen:
            pickle.loads(content)
        assert seen.got_its_way, name
        (tmp_path / "canary").unlink(missing_ok=True)
    torch.save({"w": Runs(os.system, command(tmp_path))}, tmp_path / "a.ckpt")
    text = f"!!python/object/apply:os.system ['{command(tmp_path)}']"
    ways: list[Callable[[], object]] = [
        lambda: torch.load(tmp_path / "a.ckpt", weights_only=False),
        lambda: yaml.unsafe_load(text),
        lambda: subprocess.run(["touch", tmp_path / "canary"], check=True),
    ]
    for way in ways:
        with watched(tmp_path) as seen:
            way()
        assert seen.got_its_way
        (tmp_path / "canary").unlink()
        with pytest.raises(AssertionError):
            seen.all_well()
    with watched(tmp_path) as seen:
        assert SECRET in str(OmegaConf.create({"name": "${oc.env:BIQA_SECRET}"}).name)
        held = np.ones(500 * 2**17)
    with pytest.raises(AssertionError, match="MB"):
        seen.all_well()
    del held
    with watched(tmp_path) as seen, pytest.raises(AssertionError, match="secret"):
        seen.all_well(f"name={SECRET}")


@pytest.mark.parametrize("content", ["an endless view", *(pytest.param(other, marks=LONG) for other in ("a pickle", "other types", "a link"))])
def test_a_cache_that_another_user_wrote(content, run, tmp_path, synthetic):
    """What is remembered of images and weights is data, and what is damaged or odd is looked at anew."""
    import sqlite3

    cache = tmp_path / "cache"
    cache.mkdir()
    for name in ("looks.sqlite", "contents.sqlite"):
        if content == "a pickle":
            (cache / name).write_bytes(pickles(tmp_path)["os.system"])
        elif content == "a link":
            (cache / name).symlink_to("/etc/passwd")
        else:
            with sqlite3.connect(cache / name) as connection:
                table = name.removesuffix(".sqlite")
                if content == "an endless view":
                    connection.execute(
                        f"CREATE VIEW {table} AS WITH RECURSIVE n(path) AS (SELECT 1 UNION ALL SELECT path + 1 FROM n) SELECT path FROM n"
                    )
                else:
                    connection.execute(f"CREATE TABLE {table} (path, changed, size, look, hash)")
                    connection.execute(f"INSERT INTO {table} VALUES ('a', 'b', 'c', '[1]', x'80')")
            connection.close()
    with limited(), watched(tmp_path) as seen:
        done = run(tmp_path / "runs", "a", "stage=joint", "stage.epochs=0", f"images.cache={cache}")
    in_words((done.code, done.out + done.err), seen, tmp_path)
    assert done.code in (0, 2)
