"""requirements.lock: the tested set of constraints.txt with the SHA-256 of each package's file, as pip chooses it on the machine where this is run.

    make lock

pip tells which file it would install and what its hash is; where from is left out, for it depends on the machine's settings. torch stands in
constraints.txt alone: its wheel is another for each kind of GPU.
"""

import json
import platform
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).parents[1]
LEFT_OUT = ("torch",)


def chosen() -> list[dict[str, Any]]:
    """What pip would install of constraints.txt, by name.

    Raises:
        subprocess.CalledProcessError: it cannot.
    """
    with TemporaryDirectory() as place:
        report = Path(place) / "report.json"
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--no-deps"]
        subprocess.run([*pip, "--report", str(report), "-r", str(ROOT / "constraints.txt")], check=True)
        return json.loads(report.read_text(encoding="utf-8"))["install"]


def lock(found: list[dict[str, Any]]) -> str:
    """The text of the file."""
    kind = f"{platform.system()}, {platform.machine()}, Python {platform.python_version_tuple()[0]}.{platform.python_version_tuple()[1]}"
    lines = [
        f"# Written by `make lock` out of constraints.txt: {kind}. The SHA-256 of each file that was tested; another platform has other files.",
        "# `make install-locked` refuses any file that has another one. Without torch, whose wheel is another for each kind of GPU.",
    ]
    for package in sorted(found, key=lambda package: package["metadata"]["name"].lower()):
        name, version = package["metadata"]["name"], package["metadata"]["version"]
        if name.lower() not in LEFT_OUT:
            lines.append(f"{name}=={version} --hash=sha256:{package['download_info']['archive_info']['hashes']['sha256']}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    (ROOT / "requirements.lock").write_text(lock(chosen()), encoding="utf-8")
