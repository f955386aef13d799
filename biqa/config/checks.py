"""How a schema refuses nonsense, and what stands where a value is missing."""

import re
from typing import Any

from biqa.errors import IncompatibleChoice

MISSING: Any = "???"
"""OmegaConf's word for a value that must be given. Not imported from there, so that --help does not pay for it."""


def refuse(problems: list[tuple[bool, str]]) -> None:
    """Raise one IncompatibleChoice with the text of every problem that holds: all at once, not the first only."""
    found = [text for holds, text in problems if holds]
    if found:
        raise IncompatibleChoice("\n".join(found))


def pattern_problem(option: str, pattern: str | None) -> tuple[bool, str]:
    """Whether a regular expression cannot be read, and how to say so: an entry for `refuse`."""
    try:
        re.compile(pattern or "")
    except re.error as error:
        return True, f"{option}={pattern} is no regular expression: {error}. Correct it."
    return False, ""
