"""`python failing_disk.py FOLDER SCENARIO STRIDE [careless]`: a door whose n-th change of a file fails, for every n; a line of JSON an attempt.

Started with failing_disk.c preloaded (`test_failing_disk.py`). Each attempt begins with the same old files, lets one change fail, and looks at what is
left; then the disk is sound again, and the same command must work. `careless` writes as programs do that do not care: the campaign must see it.
"""

import csv
import ctypes
import errno
import io
import json
import os
import shutil
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch
from xml.etree import ElementTree

import pyarrow.parquet as pq
import yaml
from PIL import Image
from safetensors.torch import load_file
from small_runs import SMALL, Outcome, door

from biqa.stages.checkpoint_files import damage

FAULTS = {"ENOSPC": (errno.ENOSPC, True), "EIO": (errno.EIO, False), "EROFS": (errno.EROFS, True)}
"""Name -> the number, and whether all later changes fail too: a disk stays full, and may fail once."""
TRAINED = ("stage.batch_size=4", "stage.epochs=1", "trainer.checkpoint_steps=4")
TEXTS = (".md", ".tex", ".csv", ".html")
"""Whose ends no reader misses."""
disk = ctypes.CDLL(None)


@dataclass(frozen=True)
class Scenario:
    """A command, and what lies there before it. `{place}` stands for the folder that the disk fails below."""

    command: tuple[str, ...]
    old: tuple[str, ...] = ()
    """What of the made folder lies there: folders and files."""
    again: tuple[str, ...] = ()
    """Options of the command once the disk is sound again."""
    removed: tuple[str, ...] = ()
    """What of that is gone, as after a kill."""
    degrades: bool = False
    """Whether it may do without what could not be written."""


RUNS = ("runs={place}/runs", "name=a")
SCENARIOS = {
    "lora": Scenario(("biqa.run", "stage=joint", "tuning=lora", *TRAINED, *RUNS), again=("ckpt=last",)),
    "full": Scenario(
        ("biqa.run", "stage=joint", *TRAINED, *RUNS, "ckpt=last"), ("runs/a",), removed=("answers", "result.json", "model/README.md"),
    ),
    "two": Scenario(
        ("biqa.run", "stage=2", "stage.perception={place}/runs/one", *TRAINED, *RUNS, "export.merge=false"), ("runs/one",), again=("ckpt=last",)
    ),
    "merged": Scenario(("biqa.run", "stage=joint", "tuning=lora", *TRAINED, "runs={place}/runs", "name=lora", "export.merge=true"), ("runs/lora",)),
    "probe": Scenario(("biqa.run", "stage=probe", *RUNS), again=("ckpt=last",)),
    "caches": Scenario(
        ("biqa.run", "stage=zero_shot", *RUNS, "data.root={place}/data", "images.cache={place}/cache", "images.shorter_side=24"),
        again=("ckpt=last",), degrades=True,
    ),
    "report": Scenario(("biqa.report", "runs={place}/runs", "out={place}/out", "resamples=20"), ("runs/a", "runs/zero", "out")),
    "compare": Scenario(("biqa.compare", "{place}/runs/a", "{place}/runs/zero", "out={place}/compared.md", "resamples=20"), ("runs/a", "runs/zero", "compared.md")),
    "predict": Scenario(
        ("biqa.predict", "run={place}/runs/a", "{place}/pictures", "out={place}/scores.csv", "html={place}/page.html", "overwrite=true"),
        ("runs/a", "pictures", "scores.csv", "page.html"),
    ),
    "analyze": Scenario(("biqa.analyze", "run={place}/runs/a", "analysis=all", "resamples=10", "folds=2", "progress=false"), ("runs/a",)),
    "prepare": Scenario(("biqa.prepare", "data=synthetic", "out={place}/prepared", "data.root={place}/data"), ("prepared",)),
}  # fmt: skip


def call(command: tuple[str, ...], place: Path) -> Outcome:
    """A door in this process."""
    module, *typed = (part.format(place=place) for part in command)
    if module == "biqa.compare":
        from biqa import compare

        return light(compare.main, typed)
    if module == "biqa.predict":
        from biqa import predict

        with patch.object(sys, "argv", ["predict", "accelerator=cpu", "progress=false", *typed]):
            return light(lambda _: predict.enter(), [])
    own = [option for option in SMALL if module == "biqa.run" or option.startswith("data.")] if module in ("biqa.run", "biqa.prepare") else []
    return door(module, *own, *typed)


def light(main: Callable[[list[str]], object], typed: list[str]) -> Outcome:
    """A door without Hydra."""
    from biqa.doors.arguments import open_light_door

    out, err, code = io.StringIO(), io.StringIO(), 0
    with redirect_stdout(out), redirect_stderr(err), patch.object(sys, "argv", ["door", *typed] if typed else sys.argv):
        try:
            open_light_door(main)
        except SystemExit as end:
            code = int(end.code or 0)
    return Outcome(code, out.getvalue(), err.getvalue())


def is_csv(file: Path) -> None:
    assert len({len(row) for row in csv.reader(file.read_text().splitlines())}) == 1


def is_page(file: Path) -> None:
    assert file.read_text().rstrip().endswith("</html>")


def is_sealed(file: Path) -> None:
    assert damage(file) is None


def is_text(file: Path) -> None:
    assert file.read_text().strip()


READ: dict[str, Callable[[Path], object]] = {
    ".json": lambda file: json.loads(file.read_bytes()),
    ".jsonl": lambda file: [json.loads(line) for line in file.read_text().splitlines()],
    ".parquet": pq.read_table,
    ".safetensors": load_file,
    ".png": lambda file: Image.open(file).load(),
    ".svg": ElementTree.parse,
    ".yaml": lambda file: yaml.safe_load(file.read_text())["stage"],
    ".ckpt": is_sealed,
    ".csv": is_csv,
    ".html": is_page,
    ".md": is_text,
    ".tex": is_text,
}
"""Ending -> what fails where such a file is not whole."""


def problem(file: Path) -> str | None:
    """What is wrong with a file under its final name; None: it is whole."""
    try:
        READ.get(file.suffix, lambda _: None)(file)
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:200]}"
    return None


def files(place: Path) -> dict[Path, bytes]:
    """All that is there under a final name. Images that are made lie under a name of their own until all are."""
    found = (path for path in place.rglob("*") if path.is_file())
    return {
        path: path.read_bytes() for path in found if not any(part.endswith(".tmp") or part.startswith(".") for part in path.relative_to(place).parts)
    }


def whole(file: Path, content: bytes, ends: dict[Path, set[bytes]], old: bytes | None) -> str | None:
    """What is wrong with a file: it is as before, as at a good end, or sound."""
    if content == old or content in ends.get(file, ()) or file.suffix in (".sqlite", ".sqlite-journal", ".lock") or file.name == "metrics.csv":
        return None
    return problem(file) or ("neither as before nor as at the end" if old is not None and file.suffix in TEXTS and file in ends else None)


def careless(path: Path, content: str | bytes) -> None:
    """As `biqa.files.write_whole`, but for all that it is good for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def attempts(made: Path, name: str, stride: int):
    """Let every so many-th change fail in each way; what was wrong with each attempt."""
    scenario, place = SCENARIOS[name], made.parent / f"place-{name}"

    def ready() -> dict[Path, bytes]:
        disk.disk_fails(b"", 0, 0, 0)
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        for one in scenario.old:
            source, target = made / one, place / one
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
        for one in scenario.removed:
            path = place / scenario.old[0] / one
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        return files(place)

    ready()
    disk.disk_fails(os.fsencode(place), 0, 0, 0)
    good = call(scenario.command, place)
    assert good.code == 0, good.err
    changes, ends = disk.disk_changes(), {path: {content} for path, content in files(place).items()}
    for kind, (number, lasting) in FAULTS.items():
        for at in range(1 + (len(kind) % stride), changes + 1, stride):
            before = ready()
            disk.disk_fails(os.fsencode(place), number, at, lasting)
            failed = call(scenario.command, place)
            fired = disk.disk_failures()
            disk.disk_fails(b"", 0, 0, 0)
            wrong = []
            if fired:
                if failed.code != 1 and not (failed.code == 0 and (scenario.degrades or kind == "EIO")):
                    wrong.append(f"exit code {failed.code}")
                if failed.code == 1 and not ("Traceback" not in failed.err and str(place) in failed.err and "free there" in failed.err):
                    wrong.append("does not name the file and what is free")
            left = files(place)
            wrong += [f"{path.relative_to(place)} is gone" for path in before if path not in left]
            wrong += [
                f"{path.relative_to(place)}: {said}" for path, content in left.items() if (said := whole(path, content, ends, before.get(path)))
            ]
            again = call((*scenario.command, *scenario.again), place)
            if again.code:
                wrong.append(f"afterwards exit code {again.code}: {again.err[-500:]}")
            else:
                end = files(place)
                wrong += [
                    f"afterwards no {path.relative_to(place)}"
                    for path in ends
                    if path not in end and "checkpoints" not in path.parts and "cache" not in path.parts
                ]
                wrong += [
                    f"afterwards another {path.relative_to(place)}" for path in ends
                    if path.suffix in (".safetensors", ".parquet", ".tex") and "cache" not in path.parts and path in end and end[path] not in ends[path]
                ]  # fmt: skip
                wrong += [f"afterwards {path.relative_to(place)} lies there" for path in place.rglob("*.tmp")]
            yield {
                "scenario": name,
                "fault": kind,
                "at": at,
                "of": changes,
                "fired": fired,
                "code": failed.code,
                "said": failed.err[:2000],
                "wrong": wrong,
            }


def main() -> None:
    made, name, stride = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    if sys.argv[4:] == ["careless"]:
        import biqa.report

        biqa.report.write_whole = careless
    for attempt in attempts(made, name, stride):
        print(json.dumps(attempt), flush=True)


if __name__ == "__main__":
    main()
