"""Whether something hostile got its way: a canary, processes, sockets, an environment variable's content, memory.

with watched(folder) as seen:
    ...                    # open the hostile thing
seen.all_well(text of the terminal)
"""

import os
import pickle
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SECRET = "s3cr3t-canary-7f1d"
"""In the environment as BIQA_SECRET, and nowhere else."""
CANARY = "canary"
MOST_MB = 400
"""Memory that may be added."""
FORBIDDEN = re.compile(
    r"os\.(system|exec|posix_spawn|spawn|fork)|subprocess\.Popen|pty\.spawn|socket\.(connect|getaddrinfo|bind|sendto)|ftplib|urllib"
)
"""Audit events that no file may cause."""

_watches: list["Seen"] = []


@dataclass
class Seen:
    """What was noticed."""

    canary: Path
    events: list[str] = field(default_factory=list)
    """Processes and sockets."""
    megabytes: float = 0.0
    """Memory at its highest, beside that at the start."""

    def all_well(self, *texts: str) -> None:
        """Nothing got its way, and no secret stands in these texts."""
        assert not self.canary.exists(), "the canary is there: code was run"
        assert not self.events, self.events
        assert self.megabytes < MOST_MB, f"{self.megabytes:.0f} MB"
        assert not any(SECRET in text for text in texts), "the secret came out"

    @property
    def got_its_way(self) -> bool:
        """For negative controls."""
        return self.canary.exists() or bool(self.events)


def _listen(event: str, arguments: tuple[Any, ...]) -> None:
    if _watches and FORBIDDEN.match(event) and "--no-optional-locks" not in str(arguments):  # git, asked which commit this is
        _watches[-1].events.append(f"{event} {arguments!r:.200}")


sys.addaudithook(_listen)


def memory_mb(kind: str) -> float:
    """Memory of this process: "VmRSS" now, "VmHWM" at its highest."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(kind)).split()[1]) / 1024


@contextmanager
def watched(folder: Path) -> Iterator[Seen]:
    """Watch what goes on; payloads of `canary_command(folder)` leave their mark in this folder."""
    seen = Seen(folder / CANARY)
    before = os.environ.get("BIQA_SECRET")
    os.environ["BIQA_SECRET"] = SECRET
    Path("/proc/self/clear_refs").write_text("5")  # the highest mark begins anew
    start = memory_mb("VmRSS")
    _watches.append(seen)
    try:
        yield seen
    finally:
        _watches.remove(seen)
        seen.megabytes = memory_mb("VmHWM") - start
        if before is None:
            del os.environ["BIQA_SECRET"]
        else:
            os.environ["BIQA_SECRET"] = before


def command(folder: Path) -> str:
    """A shell command that leaves the canary."""
    return f"touch {folder / CANARY}"


class Runs:
    """Pickles as a call of a function.

    Args:
        function: called when it is unpickled.
        arguments: of the call.
    """

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


def pickles(folder: Path) -> dict[str, bytes]:
    """Hostile pickles by name; each would leave the canary."""
    leave = command(folder)
    python = f"__import__('os').system({leave!r})"
    return {
        "os.system": pickle.dumps(Runs(os.system, leave)),
        "eval": pickle.dumps(Runs(eval, python)),
        "exec": pickle.dumps(Runs(exec, python)),
        "nested": pickle.dumps({"state_dict": {"w": [Runs(os.system, leave)]}}),
        "protocol 0": pickle.dumps(Runs(os.system, leave), protocol=0),
        "an attribute": pickle.dumps(Runs(Path.touch, Path(folder / CANARY))),
    }
