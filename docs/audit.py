"""Known holes in the tested set: pip-audit over constraints.txt, in an environment of its own.

    make audit

Exit code 0: none is known; 1: some are, and are printed; 3: pip-audit cannot be had, or its database cannot be reached, so that nothing is known of
some packages or of all.
"""

import json
import subprocess
import sys
import venv
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[1]
UNKNOWN = 3
PATIENCE = 300
"""Seconds that pip-audit may take: an answer for each of some 140 packages takes a minute."""


def audit(pip_audit: list[str]) -> int:
    """Ask about every package of constraints.txt; the exit code.

    Args:
        pip_audit: the command.
    """
    options = [
        "--requirement",
        str(ROOT / "constraints.txt"),
        "--no-deps",
        "--disable-pip",
        "--format",
        "json",
        "--progress-spinner",
        "off",
        "--timeout",
        "10",
    ]
    try:
        done = subprocess.run([*pip_audit, *options], capture_output=True, text=True, check=False, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        print(f"The database of known holes did not answer within {PATIENCE} s, so nothing is known.", file=sys.stderr)
        return UNKNOWN
    try:
        asked = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError):
        last = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), f"exit code {done.returncode}")
        print(f"The database of known holes cannot be reached, so nothing is known: {last.strip()[:300]}", file=sys.stderr)
        return UNKNOWN
    skipped = [package for package in asked if "skip_reason" in package]
    holes = [(package, hole) for package in asked for hole in package.get("vulns", ())]
    for package, hole in holes:
        print(f"{package['name']} {package['version']}: {hole['id']}, mended in {', '.join(hole['fix_versions']) or 'no release yet'}")
    print(f"{len(asked) - len(skipped)} packages asked about, {len(holes)} known holes.")
    if skipped:
        first = skipped[0]
        print(f"Of {len(skipped)} packages nothing is known, first {first['name']}: {str(first['skip_reason'])[:200]}", file=sys.stderr)
    return 1 if holes else UNKNOWN if skipped else 0


def main() -> int:
    """Install pip-audit into a folder that is deleted again, and ask."""
    with TemporaryDirectory() as place:
        venv.create(place, with_pip=True)
        python = str(Path(place) / "bin" / "python")
        had = subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "pip-audit>=2.10"], check=False)
        if had.returncode:
            print("pip-audit cannot be installed, so nothing is known.", file=sys.stderr)
            return UNKNOWN
        return audit([python, "-m", "pip_audit"])


if __name__ == "__main__":
    raise SystemExit(main())
