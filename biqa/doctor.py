"""Is everything here that a run needs? Versions, GPU, CPU, memory, disk, caches, settings of offline use, extras, data sets.

biqa doctor
biqa doctor runs=/scratch/runs datasets=/iqa

Options (option=value)
  runs      folder that runs will be written to
  datasets  folder that holds the published data sets; if nothing is said, the environment variable BIQA_DATASETS, else datasets/

Each line is ok, note (worth knowing) or PROBLEM (with what to do). Exit code 0 when nothing is a problem, else 1. Nothing is changed, and no
network is used. The block at the end is for an issue: it holds versions and hardware, no path, no name, no key.
"""

import sys

from biqa.doors.arguments import open_light_door, read_options, show_text

if __name__ == "__main__":
    show_text(__doc__, sys.argv[1:])

import json
import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path
from typing import Any, Literal

State = Literal["ok", "note", "PROBLEM"]

LEAST_DISK, LITTLE_DISK = 0.5, 5.0
"""GB: what no run gets by with, and what one of a large model does not."""
LITTLE_MEMORY = 4.0
"""GB: what the tests and the tiny model get by with."""
PATIENCE = 180
"""Seconds that torch gets to say what it finds: from a cold network disk it takes a minute to load."""

ASK_TORCH = """
import json, torch
gpus = [torch.cuda.get_device_properties(n) for n in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
print(json.dumps({
    "version": torch.__version__, "cuda": torch.version.cuda, "hip": torch.version.hip, "threads": torch.get_num_threads(),
    "gpus": [[gpu.name, round(gpu.total_memory / 2**30)] for gpu in gpus],
}))
"""


@dataclass
class DoctorOptions:
    """Where runs and data lie."""

    runs: str = "runs"
    """Folder that runs will be written to."""
    datasets: str | None = None
    """Folder that holds the published data sets; null: `BIQA_DATASETS`, else datasets/."""


@dataclass(frozen=True)
class Finding:
    """One line."""

    state: State
    about: str
    text: str
    """What was found, and what to do where it is a problem."""


def main(arguments: Sequence[str]) -> int:
    """Look at everything, print it, and say whether something is a problem."""
    options = read_options(arguments, DoctorOptions)
    torch = ask_torch()
    findings = []
    for finding in look(options, torch):
        print(f"{finding.state:<8}{finding.about:<14}{finding.text}", flush=True)
        findings.append(finding)
    problems = sum(finding.state == "PROBLEM" for finding in findings)
    print(f"\n{problems or 'No'} problem{'s' * (problems != 1)}.\n\nFor an issue, as it stands:\n\n{block(torch, findings)}")
    return 1 if problems else 0


def look(options: DoctorOptions, torch: Mapping[str, Any]) -> Iterator[Finding]:
    """What is found, line by line; `torch` as `ask_torch` gives it."""
    yield python_version()
    yield from packages()
    yield from extras()
    yield from gpu(torch)
    yield from cpu()
    yield memory()
    for about, folder, choose in places(options.runs):
        yield disk(about, folder, choose)
    yield from settings(os.environ)
    yield from data_sets(options.datasets or os.environ.get("BIQA_DATASETS"))


def ask_torch() -> dict[str, Any]:
    """What torch says of itself and of GPUs, in a process of its own: where it breaks, this one does not. {"error": why} where it does."""
    try:
        done = subprocess.run([sys.executable, "-c", ASK_TORCH], capture_output=True, text=True, check=False, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        return {"error": f"it said nothing in {PATIENCE} s"}
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    said = lines[-1] if lines else f"exit code {done.returncode}"
    return json.loads(said) if done.returncode == 0 else {"error": said}


def python_version() -> Finding:
    """Python's version against what the package asks for."""
    from packaging.specifiers import SpecifierSet

    try:
        wanted = str(metadata("biqa")["Requires-Python"])
    except PackageNotFoundError:
        return Finding("PROBLEM", "biqa", "is not installed, so that its requirements are not known. In its folder: pip install -e .")
    found = platform.python_version()
    if SpecifierSet(wanted).contains(found, prereleases=True):
        return Finding("ok", "Python", found)
    return Finding("PROBLEM", "Python", f"{found}, and biqa needs {wanted}. Make a virtual environment with such a Python.")


def requirements() -> Iterator[tuple[str, Any]]:
    """(extra, requirement) of the installed package: "" for what every installation needs; those of other systems are left out."""
    from packaging.requirements import Requirement

    try:
        texts = requires("biqa") or []
    except PackageNotFoundError:
        return
    for requirement in map(Requirement, texts):
        marker = requirement.marker
        names = ["", *re.findall(r"""extra == ["']([^"']+)""", str(marker))]
        belongs = [name for name in names if marker is None or marker.evaluate({"extra": name})]
        yield from ((name, requirement) for name in ([""] if "" in belongs else belongs))


def unmet(requirement: Any) -> str | None:  # noqa: ANN401 (a Requirement of packaging)
    """What is wrong with the installed version of a package, or None."""
    try:
        found = version(requirement.name)
    except PackageNotFoundError:
        return f"{requirement.name} is not installed"
    return None if requirement.specifier.contains(found, prereleases=True) else f"{requirement.name} is {found}, needed is {requirement.specifier}"


def packages() -> Iterator[Finding]:
    """Versions against the floors of the installed package's metadata."""
    needed = [requirement for extra, requirement in requirements() if not extra]
    wrong = [(requirement, problem) for requirement in needed if (problem := unmet(requirement))]
    for requirement, problem in wrong:
        yield Finding("PROBLEM", "packages", f"{problem}: pip install '{requirement.name}{requirement.specifier}'")
    if needed:
        yield Finding("ok", "packages", f"{len(needed) - len(wrong)} of {len(needed)} as required")


def extras() -> Iterator[Finding]:
    """Which optional parts are installed, which are too old, and how to get the others."""
    by_extra: dict[str, list[Any]] = {}
    for extra, requirement in requirements():
        if extra and requirement.name != "biqa":  # an extra made of others
            by_extra.setdefault(extra, []).append(requirement)
    problems = {extra: [problem for one in needed if (problem := unmet(one))] for extra, needed in by_extra.items()}
    there = [extra for extra, found in problems.items() if not found]
    old = {extra: found for extra, found in problems.items() if found and not any(problem.endswith("not installed") for problem in found)}
    for extra, found in old.items():
        yield Finding("note", "extras", f"{extra}: {', '.join(found)}: pip install 'biqa[{extra}]'")
    absent = [extra for extra in problems if extra not in there and extra not in old]
    if there:
        yield Finding("ok", "extras", f"installed: {', '.join(there)}")
    if absent:
        yield Finding("ok", "extras", f"not installed: {', '.join(absent)}. Any of them when you need it: pip install 'biqa[{absent[0]}]'")


def gpu(torch: Mapping[str, Any]) -> Iterator[Finding]:
    """torch, and what GPUs it can use."""
    if "error" in torch:
        yield Finding("PROBLEM", "torch", f"cannot be used: {torch['error']}. Install it again: pip install --force-reinstall torch")
        return
    built = f"CUDA {torch['cuda']}" if torch["cuda"] else f"ROCm {torch['hip']}" if torch["hip"] else "the CPU alone"
    yield Finding("ok", "torch", f"{torch['version']}, built for {built}")
    present = sorted(Path("/dev").glob("nvidia[0-9]*"))
    if torch["gpus"]:
        yield Finding("ok", "GPU", ", ".join(f"{name}, {gb} GB" for name, gb in torch["gpus"]))
    elif present and torch["cuda"]:
        yield Finding(
            "PROBLEM", "GPU", f"{len(present)} present, and torch cannot use any: is the driver older than CUDA {torch['cuda']}? Compare nvidia-smi."
        )
    elif present:
        yield Finding(
            "PROBLEM", "GPU", f"{len(present)} present, and this torch is built for {built}. Install a build with CUDA: pytorch.org says how."
        )
    else:
        yield Finding("note", "GPU", "none. model=tiny learns in minutes without; large models take a GPU")


def cpu() -> Iterator[Finding]:
    """Cores that may be used, threads, and whether bfloat16 is computed by the processor."""
    cores = len(os.sched_getaffinity(0))
    quota = _first_numbers(Path("/sys/fs/cgroup/cpu.max"))
    allowed = quota[0] / quota[1] if len(quota) == 2 else cores
    threads = os.environ.get("OMP_NUM_THREADS")
    said = f"{cores} cores" + (f", OMP_NUM_THREADS={threads}" if threads else "")
    if allowed < cores and not threads:
        most = max(1, round(allowed))
        yield Finding(
            "note", "CPU", f"{said}, of which this container may use {allowed:g}: export OMP_NUM_THREADS={most}, or threads wait for each other"
        )
    else:
        yield Finding("ok", "CPU", said)
    flags = _cpu_flags()
    if flags and not flags & {"avx512_bf16", "amx_bf16", "bf16"}:
        yield Finding("note", "CPU", "no bfloat16 in hardware: on the CPU, trainer.precision=32-true may be faster than bf16-mixed")


def memory() -> Finding:
    """Memory that is free, within what a container may take."""
    lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines() if Path("/proc/meminfo").is_file() else []
    sizes = {line.partition(":")[0]: int(line.split()[1]) / 2**20 for line in lines if line.endswith("kB")}
    if "MemAvailable" not in sizes:
        return Finding("note", "memory", "this system does not say how much is free")
    total, free = sizes["MemTotal"], sizes["MemAvailable"]
    limit, used = (_first_numbers(Path("/sys/fs/cgroup") / name) for name in ("memory.max", "memory.current"))
    if limit and used:
        total, free = min(total, limit[0] / 2**30), min(free, (limit[0] - used[0]) / 2**30)
    said = f"{free:.1f} of {total:.1f} GB are free"
    return Finding("ok", "memory", said) if free >= LITTLE_MEMORY else Finding("note", "memory", f"{said}: little. Close other programs")


def places(runs: str) -> list[tuple[str, Path, str]]:
    """(what lies there, folder, how to choose another) of the places that are written to."""
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface"))
    return [
        ("runs", Path(runs), "runs=FOLDER"),
        ("cache", Path(os.environ.get("BIQA_CACHE", "~/.cache/biqa")), "export BIQA_CACHE=FOLDER"),
        ("temporary", Path(tempfile.gettempdir()), "export TMPDIR=FOLDER"),
        ("hub cache", Path(os.environ.get("HF_HUB_CACHE", home / "hub")), "export HF_HOME=FOLDER"),
    ]


def disk(about: str, folder: Path, choose: str) -> Finding:
    """Whether a folder, or the one that it will be made in, can be written to, and how much space there is."""
    folder = folder.expanduser()
    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        return Finding("PROBLEM", about, f"{folder}: nothing can be written there ({error.strerror}). Choose another: {choose}")
    free = shutil.disk_usage(place).free / 1e9
    said = f"{free:.1f} GB free in {folder}" + ("" if place == folder else " (made when it is needed)")
    if free < LEAST_DISK:
        return Finding("PROBLEM", about, f"{said}. Make room, or choose another: {choose}")
    return Finding("note", about, f"{said}: little. Another place: {choose}") if free < LITTLE_DISK else Finding("ok", about, said)


def settings(environment: Mapping[str, str]) -> Iterator[Finding]:
    """What the environment says of the hub and of W&B. Keys are named, never shown."""
    offline = [
        name for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") if environment.get(name, "0").lower() not in ("", "0", "false", "no", "off")
    ]
    if offline:
        yield Finding("note", "hub", f"{' and '.join(offline)} set: checkpoints come from the hub cache or from folders (model.id=FOLDER) alone")
    else:
        yield Finding("ok", "hub", "checkpoints that are not in the cache are fetched" + (", with a key" if "HF_TOKEN" in environment else ""))
    mode = environment.get("WANDB_MODE", "online")
    when = "logs online where it has a key and its server answers, else offline" if mode == "online" else f"is {mode}, as WANDB_MODE says"
    yield Finding("ok", "W&B", f"logger=wandb {when}. WANDB_API_KEY is {'set' if 'WANDB_API_KEY' in environment else 'not set'}")


def data_sets(folder: str | None) -> Iterator[Finding]:
    """Published data sets in their official folders."""
    root = Path(folder or "datasets")
    if not root.is_dir():
        state: State = "note" if folder is None else "PROBLEM"
        yield Finding(state, "data sets", f"{root}: there is no such folder. Where they lie: datasets=FOLDER or export BIQA_DATASETS=FOLDER")
        return
    from biqa.data.discovery import discover

    finds = discover(root)
    for found in finds.found:
        count = f"{found.images} images" if found.whole in (None, found.images) else f"{found.images} of {found.whole} images"
        yield Finding("ok", "data sets", f"{found.choice}: {count} in {found.folder}")
    for one in finds.incomplete:
        yield Finding("note", "data sets", f"{one.choice}: {one.folder} is not whole: {one.reason}. Unpack the release again")
    if finds.missing:
        yield Finding("ok", "data sets", f"not in {root}: {', '.join(finds.missing)}")


def block(torch: Mapping[str, Any], findings: Sequence[Finding]) -> str:
    """What somebody who helps wants to know, without anything that tells whose machine it is."""
    from biqa.reporting.result import collect_versions

    versions = ", ".join(f"{name} {number}" for name, number in collect_versions().items())
    gpus = ", ".join(f"{name} {gb} GB" for name, gb in torch.get("gpus", ())) or "none"
    shown = ("packages", "extras", "CPU", "memory")
    lines = [f"- {finding.about}: {finding.state}, {finding.text}" for finding in findings if finding.about in shown]
    places = [f"- {one.about}: {one.state}" for one in findings if one.state == "PROBLEM" and one.about not in shown]
    cuda = f"CUDA {torch['cuda']}" if torch.get("cuda") else "no CUDA"
    head = [f"- {versions}", f"- {platform.system()} {platform.release()} {platform.machine()}, {cuda}, GPU {gpus}"]
    return "\n".join(["```", *head, *lines, *places, "```"])


def _first_numbers(file: Path) -> list[float]:
    """The numbers at the beginning of a file of the kernel; [] where it is not there, or says "max"."""
    try:
        words = file.read_text(encoding="ascii").split()
    except (OSError, UnicodeDecodeError):
        return []
    return [float(word) for word in words] if all(word.isdigit() for word in words) else []


def _cpu_flags() -> set[str]:
    """What the processor can do, as Linux names it."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    found = (line.partition(":")[2].split() for line in lines if line.startswith(("flags", "Features")))
    return set(next(found, []))


if __name__ == "__main__":
    open_light_door(main)
