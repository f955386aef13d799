"""What the machine has and how fast its disk is, for what is said before a run."""

import os
import resource
import sys
import tempfile
import time
from pathlib import Path

WRITTEN = 16 * 2**20
"""Bytes that are written to see how fast a disk is."""


def memory_held() -> tuple[dict[str, int], dict[str, int]]:
    """Bytes that this process has held at most, and those that the machine has: of the host, and of the GPU where there is one."""
    import torch

    from biqa.models.budget import host_memory

    unit = 1 if sys.platform == "darwin" else 1024
    held, there = {"host": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}, {"host": host_memory()}
    if torch.cuda.is_available():
        gpu = max(range(torch.cuda.device_count()), key=torch.cuda.max_memory_allocated)
        held["gpu"], there["gpu"] = torch.cuda.max_memory_allocated(gpu), torch.cuda.get_device_properties(gpu).total_memory
    return held, there


def written_a_second(folder: Path) -> float:
    """Bytes a second that go to the disk of a folder, by a file without a name there.

    Raises:
        OSError: none do.
    """
    content = os.urandom(WRITTEN)
    with tempfile.TemporaryFile(dir=folder) as file:
        started = time.perf_counter()
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
        return WRITTEN / (time.perf_counter() - started)
