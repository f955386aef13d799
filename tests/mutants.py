"""Would the tests notice broken code? mutmut breaks the modules that figures and resumed runs rest on, one small change at a time.

    make mutants                       all groups; ARGS="correlation --show" for one, with the changes that no test noticed

A change that no test of its group notices is a gap in the tests, or changes nothing that can be seen.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser
from dataclasses import dataclass
from pathlib import Path

from trust_ledger import LEDGER, Count, write_ledger

ROOT = Path(__file__).parents[1]
COPIED = ("biqa", "conf", "tests", "benchmarks", "docs")
AIM = 0.8
"""Share of the changes that tests must notice."""
UNNOTICED = ("survived", "no_tests", "suspicious")
"""mutmut's words for changes that count as not noticed. One that makes a test hang is noticed."""


@dataclass(frozen=True)
class Group:
    """Modules, and the tests that must notice when they are broken."""

    modules: tuple[str, ...]
    tests: tuple[str, ...]


GROUPS = {
    "checkpoint": Group(("biqa/stages/checkpoints.py",), ("tests/stages/test_checkpoints.py", "tests/test_bad_checkpoints.py")),
    "sampler": Group(
        ("biqa/models/sampling.py", "biqa/models/tree.py", "biqa/data/shares.py"),
        ("tests/models/test_sampling.py", "tests/models/test_tree.py", "tests/data/test_shares.py"),
    ),
    "correlation": Group(
        ("biqa/evaluation/correlation.py", "biqa/evaluation/bootstrap.py"),
        ("tests/evaluation/test_correlation.py", "tests/evaluation/test_bootstrap.py"),
    ),
    "stability": Group(
        ("biqa/evaluation/stability.py", "biqa/evaluation/contradiction.py", "biqa/evaluation/evaluate.py", "biqa/evaluation/answers.py"),
        tuple(f"tests/evaluation/test_{name}.py" for name in ("stability", "contradiction", "evaluate", "answers", "answer_counts")),
    ),
}


@dataclass(frozen=True)
class Noticed:
    """What became of a group's changes."""

    tried: int
    unnoticed: tuple[str, ...]
    """mutmut's names of those that no test noticed."""
    seconds: float

    @property
    def share(self) -> float:
        """Of the changes, those that a test noticed."""
        return 1 - len(self.unnoticed) / self.tried


def main() -> int:
    """Break the groups that are named, or all; 1 where the tests of one noticed less than `AIM`."""
    parser = ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"of {', '.join(GROUPS)}; none: all of them")
    parser.add_argument("--show", action="store_true", help="print each change that no test noticed")
    parser.add_argument("--record-trust", action="store_true", help="count it in docs/trust.json")
    options = parser.parse_args()
    if unknown := sorted(set(options.groups) - set(GROUPS)):
        parser.error(f"there is no group {', '.join(unknown)}: choose {', '.join(GROUPS)}")
    found: dict[str, Noticed] = {}
    for name in options.groups or GROUPS:
        with tempfile.TemporaryDirectory(prefix="mutants-") as place:
            found[name] = broken(GROUPS[name], Path(place), show=options.show)
        tried, missed, share = found[name].tried, len(found[name].unnoticed), found[name].share
        print(f"{name:12} {tried:5} changes, {tried - missed:5} noticed = {share:.1%} in {found[name].seconds:.0f} s", flush=True)
        if not options.show:
            print("".join(f"  {one}\n" for one in found[name].unnoticed), end="")
    if options.record_trust:
        tried, missed = (sum(numbers) for numbers in zip(*((one.tried, len(one.unnoticed)) for one in found.values()), strict=True))
        write_ledger({"mutants": Count(tried=tried, survived=tried - missed)}, LEDGER)
    return int(any(one.share < AIM for one in found.values()))


def broken(group: Group, place: Path, *, show: bool) -> Noticed:
    """Copy the project to a place, break the copy, and count.

    Raises:
        SystemExit: mutmut could not do its work; the end of what it printed is told.
    """
    for name in COPIED:
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    for file in (*ROOT.glob("*.toml"), *ROOT.glob("*.md"), ROOT / "Makefile", ROOT / "constraints.txt"):
        shutil.copy(file, place)
    lines = ["[mutmut]", "source_paths=biqa/", "also_copy=", *(f"    {name}" for name in COPIED), "only_mutate="]
    lines += [*(f"    {module}" for module in group.modules), "pytest_add_cli_args_test_selection=", *(f"    {test}" for test in group.tests)]
    lines += ["pytest_add_cli_args=", "    -p", "    no:randomly", "    -x", "timeout_constant=10.0"]
    (place / "setup.cfg").write_text("\n".join(lines) + "\n", encoding="utf-8")
    began = time.monotonic()
    told = mutmut(place, "run", "--max-children", str(max(1, (os.cpu_count() or 2) - 1)))
    mutmut(place, "export-cicd-stats")
    file = place / "mutants" / "mutmut-cicd-stats.json"
    if not file.is_file() or not (counts := json.loads(file.read_text(encoding="utf-8"))).get("total"):
        raise SystemExit(f"mutmut came to no end:\n{told.replace(chr(13), chr(10))[-3000:]}")
    unnoticed = tuple(
        line.split(":")[0].strip() for line in mutmut(place, "results").splitlines() if line.rpartition(": ")[2].replace(" ", "_") in UNNOTICED
    )
    if show:
        print("".join(mutmut(place, "show", name) for name in unnoticed))
    return Noticed(int(counts["total"]), unnoticed, time.monotonic() - began)


def mutmut(place: Path, *arguments: str) -> str:
    """What mutmut prints."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": ""}
    command = [sys.executable, "-m", "mutmut", *arguments]
    return subprocess.run(command, cwd=place, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False).stdout


if __name__ == "__main__":
    sys.exit(main())
