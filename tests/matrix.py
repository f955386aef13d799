"""Does biqa hold with other versions than the tested set? Each row has a virtual environment of its own, in which the tests run.

    make test-matrix                                       every row; what cannot be installed is said, with the reason
    make test-matrix ARGS="highest -- tests/models"        one row, some tests
    make test-matrix ARGS="transformers==5.23.0"           a row of one's own
    make test-matrix ARGS="--any-torch lowest python3.13"  with another torch than constraints.txt has: gigabytes, as it comes with CUDA

`lowest` takes the floors of pyproject.toml for lightning, transformers, peft (and torch), `highest` their newest; all else is as constraints.txt has it.
"""

import os
import re
import subprocess
import sys
import tomllib
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import which

ROOT = Path(__file__).parents[1]
PLACE = ROOT / ".matrix"
VARIED = ("lightning", "transformers", "peft")
"""Packages that biqa is built around; torch beside them where it is asked for."""
BOUND_TO = {"lightning": ("pytorch-lightning",), "transformers": ("huggingface-hub", "tokenizers", "safetensors"), "peft": ("accelerate",)}
"""What a package's release holds to itself: these follow it."""
INSTALL_SECONDS = 3600
TESTS_SECONDS = 3600


@dataclass(frozen=True)
class Row:
    """A Python, and packages that differ from the tested set."""

    name: str
    python: str
    pins: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What came of a row."""

    versions: str
    """Empty where it could not be installed."""
    said: str
    good: bool


def floors() -> dict[str, str]:
    """Package -> the lowest release that pyproject.toml allows."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {found[1]: found[2] for line in project["dependencies"] if (found := re.match(r"([\w-]+)>=([\w.]+)", line))}


def rows(*, any_torch: bool) -> dict[str, Row]:
    """The rows that have names."""
    varied, here = (*VARIED, *(["torch"] if any_torch else [])), f"python{sys.version_info.major}.{sys.version_info.minor}"
    low = floors()
    named = [
        Row("lowest", here, tuple(f"{name}=={low[name]}" for name in varied)),
        Row("highest", here, varied),
        *(Row(f"python3.{minor}", f"python3.{minor}") for minor in (11, 12, 13) if f"python3.{minor}" != here),
    ]
    return {row.name: row for row in named}


def constraints(pins: Sequence[str], tested: str) -> str:
    """The tested set without the packages of a row and what these hold to themselves."""
    named = [pin.partition("==")[0] for pin in pins]
    free = {*named, *(bound for name in named for bound in BOUND_TO.get(name, ()))}
    return "".join(line for line in tested.splitlines(keepends=True) if line.partition("==")[0].strip().lower() not in free)


def install(row: Row, place: Path) -> str:
    """Make the environment of a row; what went wrong, or nothing."""
    python = which(row.python)
    if python is None or _run([python, "-c", "import venv"]).returncode:
        return f"there is no {row.python} on this machine"
    place.mkdir(parents=True, exist_ok=True)
    kept = place / "constraints.txt"
    kept.write_text(constraints(row.pins, (ROOT / "constraints.txt").read_text(encoding="utf-8")), encoding="utf-8")
    made = _run([python, "-m", "venv", str(place / "venv")])
    if not made.returncode:
        pip = [str(place / "venv" / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        made = _run([*pip, "--upgrade", "-c", str(kept), *row.pins, "-e", f"{ROOT}[dev]"], INSTALL_SECONDS)
    wrong = [line for line in made.stdout.splitlines() if line.startswith("ERROR")] or made.stdout.splitlines()[-1:]
    return f"cannot be installed: {wrong[0] if wrong else 'pip said nothing'}" if made.returncode else ""


def versions(python: str) -> str:
    """The releases that an environment has, in words."""
    asked = "import sys, importlib.metadata as m; print('Python', sys.version.split()[0], *(f'{n} {m.version(n)}' for n in sys.argv[1:]), sep=', ')"
    return _run([python, "-c", asked, "torch", *VARIED]).stdout.strip().replace("Python, ", "Python ")


def tried(row: Row, tests: Sequence[str]) -> Outcome:
    """Install a row and run the tests in it."""
    place = PLACE / re.sub(r"[^\w.]+", "-", row.name)
    if problem := install(row, place):
        return Outcome("", problem, good=False)
    python = str(place / "venv" / "bin" / "python")
    ran = _run([python, "-m", "pytest", "-q", "-n", "2", "--dist", "loadfile", *tests], TESTS_SECONDS, {"OMP_NUM_THREADS": "1"})
    (place / "tests.txt").write_text(ran.stdout, encoding="utf-8")
    lines = [line for line in ran.stdout.splitlines() if line.strip()] or ["pytest said nothing"]
    failed = [line.removeprefix("FAILED ").removeprefix("ERROR ").partition(" - ")[0] for line in lines if line.startswith(("FAILED ", "ERROR "))]
    return Outcome(versions(python), "\n    ".join([lines[-1].strip("= "), *failed]), good=not ran.returncode)


def main() -> int:
    """Try the rows that are named, or all; 1 where a test failed or a row that was asked for by name could not be installed."""
    parser = ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--any-torch", action="store_true", help="torch too differs from the tested one: downloads of several gigabytes")
    parser.add_argument("rows", nargs="*", metavar="ROW", help="lowest, highest, python3.12, ... or packages with versions (a==1,b==2); none: all")
    dashes = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    options, tests = parser.parse_args(sys.argv[1:dashes]), sys.argv[dashes + 1 :]
    known = rows(any_torch=options.any_torch)
    here = next(iter(known.values())).python
    wanted = [known[name] if name in known else Row(name, here, tuple(name.split(","))) for name in options.rows or known]
    if unknown := [row.name for row in wanted if row.name not in known and "==" not in row.name]:
        parser.error(f"there is no row {', '.join(unknown)}: choose {', '.join(known)}, or packages with versions")
    good = True
    for row in wanted:
        if row.python != here and not options.any_torch:
            print(f"{row.name}: not tried. torch for it may come with CUDA, gigabytes: ARGS=--any-torch", flush=True)
            continue
        outcome = tried(row, tests)
        print(f"{row.name}: {outcome.versions}\n    {outcome.said}", flush=True)
        good &= outcome.good or (not outcome.versions and row.name not in options.rows)
    return int(not good)


def _run(command: Sequence[str], seconds: float = 600.0, environment: Mapping[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(
            command, cwd=ROOT, env=os.environ | (environment or {}), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=seconds
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, f"ERROR: not done after {seconds:.0f} s")


if __name__ == "__main__":
    sys.exit(main())
