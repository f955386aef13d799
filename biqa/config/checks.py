"""How a schema refuses nonsense, what may have been meant, and what stands where a value is missing."""

import re
from collections.abc import Iterable, Sequence
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


def nearest(word: str, known: Iterable[str], most: int = 3) -> list[str]:
    """Names that may have been meant, the likeliest first: spelt alike, or one begins with the other or holds it. Capitals do not count."""
    from difflib import get_close_matches

    typed, names = word.casefold(), {name.casefold(): name for name in known}
    alike = get_close_matches(typed, names, most)
    begun = [name for name in names if len(min(typed, name, key=len)) > 1 and (name.startswith(typed) or typed.startswith(name))]
    held = [name for name in names if len(typed) > 2 and typed in name]
    return [names[name] for name in dict.fromkeys([*alike, *begun, *held])][:most]


def did_you_mean(names: Sequence[str]) -> str:
    """ " Did you mean a, b or c?", to follow a sentence; "" where there are none."""
    listed = " or ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
    return f" Did you mean {listed}?" if names else ""
