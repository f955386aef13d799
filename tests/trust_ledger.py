"""Counts what campaigns of faults have tried and what survived: `make trust` writes them to docs/trust.json, out of which docs/trust.md is made.

A test counts by the fixture `tally`. What a failing test has counted survived no more than it says; without saying, nothing of it did.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

PROPERTY = "trust"
LEDGER = Path(__file__).parents[1] / "docs" / "trust.json"


@dataclass
class Count:
    """What was tried of one kind."""

    tried: int = 0
    survived: int = 0
    lost: list[str] = field(default_factory=list)
    """Tests that failed."""
    figures: dict[str, float] = field(default_factory=dict)
    """The largest of each name: seconds, megabytes."""

    def add(self, entry: dict[str, Any], test: str, passed: bool) -> None:
        """Count what a test has told."""
        self.tried += entry["tried"]
        self.survived += entry["tried"] if entry["survived"] is None and passed else entry["survived"] or 0
        self.lost += [] if passed or test in self.lost else [test]
        for name, value in entry["figures"].items():
            self.figures[name] = max(value, self.figures.get(name, value))


def counted(reports: Iterable[pytest.TestReport]) -> dict[str, Count]:
    """Kind -> what its tests have told."""
    counts: dict[str, Count] = {}
    for report in reports:
        if report.when == "call":
            for name, entry in report.user_properties:
                if name == PROPERTY:
                    assert isinstance(entry, dict)
                    counts.setdefault(entry["kind"], Count()).add(entry, report.nodeid, report.passed)
    return counts


def write_ledger(counts: dict[str, Count], file: Path) -> None:
    """Put counts beside those of kinds that were not tried this time."""
    before = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    now = {kind: {name: value for name, value in vars(count).items() if value not in ([], {})} for kind, count in counts.items()}
    file.write_text(json.dumps(before | now, indent=2, sort_keys=True) + "\n", encoding="utf-8")


@pytest.fixture
def tally(record_property: Callable[[str, object], None]) -> Callable[..., None]:
    """`tally(kind, tried=1, survived=None, seconds=0.3, ...)`; kinds stand in docs/trust.toml. Without `survived`, all of a passing test did."""

    def tell(kind: str, tried: int = 1, survived: int | None = None, **figures: float) -> None:
        record_property(PROPERTY, {"kind": kind, "tried": int(tried), "survived": survived, "figures": {k: float(v) for k, v in figures.items()}})

    return tell
