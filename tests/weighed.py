"""What a piece of work costs in a process of its own: processor seconds, and megabytes above those that were held when it began."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

PEAK = Path("/proc/self/status")
"""Where Linux tells the most that a process has held: its own, where getrusage counts who started it too."""

AROUND = """
import json, os, resource, sys, time
from pathlib import Path


def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) / 1024


def seconds():
    return sum(use.ru_utime + use.ru_stime for use in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))


def begin():
    began[:] = [seconds(), peak()]


began = [0.0, 0.0]
try:
    exec(compile(sys.argv.pop(1), "work", "exec"))
finally:
    with open(os.environ["WEIGHED"], "w") as file:
        json.dump({"seconds": seconds() - began[0], "megabytes": peak() - began[1]}, file)
"""

DOOR = """
import runpy
module = sys.argv.pop(1)
try:
    runpy.run_module(module, run_name="__main__", alter_sys=True)
except SystemExit as end:
    assert not end.code, end.code
"""


@dataclass(frozen=True)
class Cost:
    """Of a process and of those that it waited for; megabytes are of the process itself."""

    seconds: float
    megabytes: float


def cost_of(work: str, *arguments: object, report: Path, environment: dict[str, str]) -> Cost:
    """Run lines of Python and weigh them from the call of `begin()` on, or from the start where there is none.

    Args:
        work: the lines; `sys.argv[1:]` are the arguments.
        report: a file to write to.
        environment: of the process.
    """
    command = [sys.executable, "-c", AROUND, work, *map(str, arguments)]
    done = subprocess.run(command, env=environment | {"WEIGHED": str(report)}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:] or done.stdout[-3000:]
    return Cost(**json.loads(report.read_text()))
