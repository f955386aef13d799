"""What a door imports, looked at in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

HEAVY = {"torch", "lightning", "transformers", "peft", "bitsandbytes", "torchmetrics", "wandb", "pandas", "pyarrow", "scipy", "matplotlib", "sklearn"}
PROBE = """
import contextlib, io, json, runpy, sys

door, *arguments = json.loads(sys.stdin.read())
sys.argv = [door, *arguments]
with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    try:
        runpy.run_module(door, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code or 0
print(json.dumps([code, sorted({name.partition(".")[0] for name in sys.modules})]))
"""


def loaded(folder: Path, door: str, *arguments: str) -> tuple[int, set[str]]:
    """Exit code of a door in a process of its own, and the packages that it has imported."""
    typed = json.dumps([f"biqa.{door}", *arguments])
    said = subprocess.run([sys.executable, "-c", PROBE], input=typed, cwd=folder, capture_output=True, text=True, check=True)
    code, packages = json.loads(said.stdout)
    return code, set(packages)
