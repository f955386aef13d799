"""Feeds mutated files to every reader, under limits of time and memory, and says which ones did not end as they must.

python tests/fuzz/campaign.py inputs=20000 seed=0                  # pictures and label files by turns, as `make fuzz` does
python tests/fuzz/campaign.py kind=pictures inputs=20000           # pictures alone, or kind=labels
python tests/fuzz/campaign.py only=labels:0:117                    # that one input, with its stack trace; keep=FOLDER writes it there
python tests/fuzz/campaign.py engine=atheris kind=pictures inputs=20000   # guided by what the decoders and readers have run (pip install 'biqa[fuzz]')

An input is known by kind, seed and number, and is the same on every machine. It is read in a process that may take 1 GiB more than it has and two
seconds of the processor. A process that ends before its time is lost with the input that it had, and another goes on. Exit code 1: something is lost.
"""

import faulthandler
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from random import Random
from types import FrameType
from typing import TYPE_CHECKING

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]

from mutations import mutated  # noqa: E402

from biqa.doors.arguments import read_options  # noqa: E402

if TYPE_CHECKING:
    from targets import Target

SECONDS = 2.0
"""Of the processor, for one input."""
MEMORY = 2**30
"""Bytes, beyond what the process has when it begins."""
NEW_UNITS = re.compile(r"stat::new_units_added:\s+(\d+)")
"""In what libFuzzer says at its end: inputs that it has kept, as they reached code that none before them had."""
PATIENCE = 120.0
"""Seconds of the clock after which a process that does not come back from a library is ended."""
KINDS = ("pictures", "labels")


class Hang(BaseException):
    """An input took too long. No `except Exception` of a reader keeps it."""


def targets_of(kind: str, place: Path) -> "list[Target]":
    """The readers of a kind, with what they read made in a folder. Imported here: atheris marks what is imported once it listens."""
    from targets import label_targets, picture_targets

    return {"pictures": picture_targets, "labels": label_targets}[kind](place)


@dataclass
class Report:
    """What came of a campaign."""

    tried: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    """"read", or biqa's error -> how many."""
    lost: list[str] = field(default_factory=list)
    """Each input that ended otherwise: its name, and how."""
    slowest: float = 0.0
    """Seconds of the processor that one input took."""
    megabytes: float = 0.0
    """That the processes have held at most."""

    @property
    def survived(self) -> int:
        """Inputs that ended as they must."""
        return self.tried - len(self.lost)


def campaign(kind: str, inputs: int, seed: int, planted: str = "none") -> Report:
    """Try so many inputs of a kind, in processes of their own.

    Args:
        kind: one of KINDS.
        inputs: how many.
        seed: draws them.
        planted: a fault that is made on purpose, to see that it is told (`PLANTED`).
    """
    report, start = Report(), 0
    while start < inputs:
        command = [sys.executable, __file__, f"kind={kind}", f"inputs={inputs}", f"seed={seed}", f"start={start}", f"planted={planted}", "alone=true"]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        lines = [line.split(" ", 1) for line in done.stdout.splitlines()]
        reached = max((int(rest) for word, rest in lines if word == "at"), default=None)
        report.lost += [json.loads(rest) for word, rest in lines if word == "lost"]
        for _, rest in (line for line in lines if line[0] == "end"):
            told = json.loads(rest)
            report.outcomes += Counter(told["outcomes"])
            report.slowest, report.megabytes = max(report.slowest, told["slowest"]), max(report.megabytes, told["megabytes"])
        if done.returncode == 0:
            break
        if reached is None:
            raise RuntimeError(f"the campaign could not begin: {done.stderr[-2000:]}")
        report.lost.append(f"{kind}:{seed}:{reached} ended the process (exit code {done.returncode}): {_last_words(done.stderr)}")
        start = reached + 1
    report.tried = inputs
    return report


def _last_words(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.startswith("Fatal") or '"' in line]
    return " ".join(lines[:3]) or said[-200:].strip()


def inputs_of(targets: "Sequence[Target]", kind: str, seed: int, start: int, end: int) -> "Iterator[tuple[int, Target, str, bytes]]":
    """Number, target, name of the seed and bytes of each input."""
    weights = [target.weight for target in targets]
    for number in range(start, end):
        rng = Random(f"{kind}:{seed}:{number}")
        [target] = rng.choices(targets, weights)
        name = rng.choice(sorted(target.seeds))
        yield number, target, name, mutated(target.seeds[name], name, [*target.seeds.values()], rng)


def alone(kind: str, start: int, end: int, seed: int, planted: str) -> None:
    """Try a part of a campaign in this process, and tell it line by line on standard output."""
    warnings.simplefilter("ignore")  # what Pillow and openpyxl think of damaged files
    with tempfile.TemporaryDirectory() as place:
        targets = targets_of(kind, Path(place))
        for target in targets:
            for name, data in target.seeds.items():
                told = target(data, name)
                assert told == "read" or (kind == "pictures" and name.endswith(("float.tif", "unknown.gif"))), (target.name, name, told)
        if planted in PLANTED:
            _planted(planted, targets)
        limit_memory()
        outcomes: Counter[str] = Counter()
        slowest = 0.0
        signal.signal(signal.SIGPROF, _hang)
        for number, target, name, data in inputs_of(targets, kind, seed, start, end):
            print(f"at {number}", flush=True)
            faulthandler.dump_traceback_later(PATIENCE, exit=True)
            before = time.process_time()
            try:
                outcome = tried(target, data, name)
                if (spent := time.process_time() - before) > SECONDS:
                    raise Hang(f"{spent:.1f} seconds")
            except BaseException as error:  # whatever it is, it is what is looked for
                if isinstance(error, KeyboardInterrupt):
                    raise
                print("lost " + json.dumps(f"{kind}:{seed}:{number} {target.name}, from {name}: {in_words(error)}"), flush=True)
            else:
                outcomes[outcome] += 1
                slowest = max(slowest, spent)
        faulthandler.cancel_dump_traceback_later()
        megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print("end " + json.dumps({"outcomes": outcomes, "slowest": slowest, "megabytes": megabytes}), flush=True)


def tried(target: "Target", data: bytes, name: str) -> str:
    """What came of an input, within its time.

    Raises:
        Hang: it took longer.
    """
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        return target(data, name)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def limit_memory() -> None:
    """No more than MEMORY beyond what this process has: what asks for more gets a MemoryError, or its process ends."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * os.sysconf("SC_PAGE_SIZE") + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _hang(number: int, frame: FrameType | None) -> None:
    raise Hang(f"more than {SECONDS:g} seconds")


def in_words(error: BaseException) -> str:
    """What an error is and where it was raised, in a line."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if f"{os.sep}biqa{os.sep}" in frame.filename] or list(frames)
    place = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "nowhere"
    return f"{type(error).__name__} at {place}: {str(error)[:300]}"


def _planted(what: str, targets: "list[Target]") -> None:
    """Put in the place of the targets one that goes wrong on each fiftieth input, in a way that must be told."""
    from targets import Target

    count = Counter[str]()

    def wrong(file: Path) -> None:
        count["inputs"] += 1
        if count["inputs"] % 50 == 0:
            PLANTED[what]()

    targets[:] = [Target("labels", "planted", {"a.csv": b"a,b\n1,2\n"}, targets[0].file.with_name("planted.csv"), wrong)]


def _for_ever() -> None:
    while True:
        pass


PLANTED: dict[str, Callable[[], object]] = {
    "error": lambda: {}["planted"],
    "hang": _for_ever,
    "memory": lambda: bytearray(MEMORY + 2**20),
    "end": lambda: os.kill(os.getpid(), signal.SIGSEGV),
}
"""Faults made on purpose, to see that a campaign tells them."""


def guided(kind: str, inputs: int) -> Report:
    """Try so many inputs that atheris makes up, each from those before that have reached new code. The first byte chooses the reader.

    Raises:
        ImportError: atheris is not installed.
    """
    import_module("atheris")
    command = [sys.executable, __file__, f"kind={kind}", f"inputs={inputs}", "engine=atheris", "alone=true"]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    report = Report(tried=inputs, outcomes=Counter(reached_new_code=sum(int(number) for number in NEW_UNITS.findall(done.stderr))))
    if done.returncode:
        said = [
            line
            for line in done.stdout.splitlines() + done.stderr.splitlines()
            if line.startswith(("TRIED", "Exception", "==", "  File")) or "Error" in line
        ]
        report.lost.append(f"{kind} (atheris, exit code {done.returncode}): {' | '.join(said[-15:])[-2000:]}")
    return report


def guided_alone(kind: str, runs: int) -> None:
    """Let atheris feed the targets in this process; it ends the process, with 0 where nothing is lost."""
    atheris = import_module("atheris")
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as place:
        with atheris.instrument_imports(include=["biqa", "PIL", "openpyxl"], enable_loader_override=False):
            targets = targets_of(kind, Path(place))
        corpus = Path(place) / "corpus"
        corpus.mkdir()
        for number, target in enumerate(targets):
            for name, data in target.seeds.items():
                (corpus / f"{number}-{name}").write_bytes(bytes([number]) + data)
        signal.signal(signal.SIGPROF, _hang)

        def one(data: bytes) -> None:
            target = targets[data[0] % len(targets)] if data else targets[0]
            try:
                tried(target, data[1:], sorted(target.seeds)[0])
            except BaseException as error:
                print(f"TRIED {target.name}: {in_words(error)}: {data[1:300]!r}", flush=True)
                raise

        limits = ("-max_len=20000", "-rss_limit_mb=2048", f"-timeout={PATIENCE:.0f}")
        options = (f"-runs={runs}", "-seed=1", f"-artifact_prefix={place}/", "-print_final_stats=1", *limits)
        atheris.Setup([__file__, *options, str(corpus)], one)
        atheris.Fuzz()


def again(which: str, keep: str | None) -> None:
    """Read one input outside of all limits. Raises what it raises."""
    kind, seed, number = which.split(":")
    with tempfile.TemporaryDirectory() as place:
        [(_, target, name, data)] = inputs_of(targets_of(kind, Path(place)), kind, int(seed), int(number), int(number) + 1)
        print(f"{target.name}, from {name}, {len(data)} bytes: {data[:200]!r}")
        if keep is not None:
            (Path(keep) / name).write_bytes(data)
        print(target(data, name))


@dataclass
class CampaignOptions:
    """What is tried."""

    kind: str = "all"
    inputs: int = 20_000
    seed: int = 0
    engine: str = "seeded"
    only: str | None = None
    keep: str | None = None
    start: int = 0
    planted: str = "none"
    alone: bool = False


def main(arguments: Sequence[str]) -> int:
    """Try what the options say, and tell what came of it."""
    options = read_options(arguments, CampaignOptions)
    if options.only is not None:
        again(options.only, options.keep)
    elif options.alone and options.engine == "atheris":
        guided_alone(options.kind, options.inputs)
    elif options.alone:
        alone(options.kind, options.start, options.inputs, options.seed, options.planted)
    else:
        return _all(options)
    return 0


def _all(options: CampaignOptions) -> int:
    kinds = list(KINDS) if options.kind == "all" else [options.kind]
    lost = 0
    for kind in kinds:
        inputs = options.inputs // len(kinds)
        report = guided(kind, inputs) if options.engine == "atheris" else campaign(kind, inputs, options.seed)
        told = ", ".join(f"{outcome} {number}" for outcome, number in report.outcomes.most_common())
        most = f"; at most {report.slowest:.2f} s, {report.megabytes:.0f} MB" if report.slowest else ""
        print(f"{kind}: {report.tried} tried, {len(report.lost)} lost; {told}{most}")
        print(*report.lost, sep="\n", end="\n" if report.lost else "")
        lost += len(report.lost)
    return int(lost > 0)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
