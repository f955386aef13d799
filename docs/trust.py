"""docs/trust.md: what was tried to break biqa, how much of it survived, and what others promise. Texts: trust.toml; counts: trust.json."""

import json
import tomllib
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
PARTS = ("title", "done", "holds", "command", "peers")
"""What every kind in trust.toml must have."""
HEAD = """Runs last days, over folders that nobody has looked at, with weights from strangers. So biqa is broken on purpose, many times, and
this page counts what came of it. `make trust` does all of it again and writes the figures; `make test-faults` does the long campaigns,
`make test` a bounded part."""


def kinds() -> dict[str, dict[str, str]]:
    """Kind of campaign -> its texts, in the order of the page.

    Raises:
        SystemExit: a kind lacks a text.
    """
    found = tomllib.loads((DOCS / "trust.toml").read_text(encoding="utf-8"))
    for kind, texts in found.items():
        if tuple(texts) != PARTS:
            raise SystemExit(f"docs/trust.toml: [{kind}] has {', '.join(texts)}, and needs {', '.join(PARTS)} in that order.")
    return found


def counts() -> dict[str, dict[str, Any]]:
    """Kind of campaign -> what was counted."""
    file = DOCS / "trust.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def page(marker: str) -> str:
    """The page; `marker` says that it is generated.

    Raises:
        SystemExit: a campaign has counted a kind that trust.toml does not tell of.
    """
    told, known = counts(), kinds()
    if unknown := sorted(told.keys() - known.keys()):
        raise SystemExit(f"docs/trust.toml has no section [{unknown[0]}], and docs/trust.json counts it.")
    rows = ["| what | tried | survived | lost | |", "|---|---|---|---|---|"]
    parts: list[str] = []
    for kind, texts in known.items():
        anchor, count = kind.replace("_", "-"), told.get(kind)
        rows.append(f"| [{texts['title']}](#{anchor}) | {in_cells(count)} |")
        failed = "".join(f"\n- Failed: `{test}`" for test in (count or {}).get("lost", ()))
        parts.append(
            f'<a id="{anchor}"></a>\n\n## {texts["title"]}\n\n{texts["done"]}\n\n**Must hold.** {texts["holds"]}{failed}\n\n'
            f"**Again:** `{texts['command']}`\n\n**Others.** {texts['peers']}"
        )
    return "\n\n".join(["# Trust", marker, HEAD, "\n".join(rows), *parts]) + "\n"


def in_cells(count: dict[str, Any] | None) -> str:
    """What was counted, as the cells of a row."""
    if count is None:
        return "not run | | |"
    figures = ", ".join(f"{name.replace('_', ' ')} at most {value:,.4g}" for name, value in count.get("figures", {}).items())
    return f"{count['tried']:,} | {count['survived']:,} | {count['tried'] - count['survived'] or 'nothing'} | {figures}"
