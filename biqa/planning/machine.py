"""What the machine has and how fast its disk is, for what is said before a run."""

import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from shutil import disk_usage

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


def nearest_folder(path: Path) -> Path:
    """A folder, or the one where it would be made."""
    return next(folder for folder in (path, *path.absolute().parents) if folder.is_dir())


def free_for(path: Path) -> int:
    """Bytes that are free for a folder. What it holds already counts as free: it is a part of what will be written, or goes."""
    held = sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) if path.is_dir() else 0
    return disk_usage(nearest_folder(path)).free + held


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
