"""YAML and JSON that somebody else may have written, within bounds: a small file must not become gigabytes, or end the stack.

Both hold plain values. What is larger or deeper than what biqa and its peers write, or cleverer, is refused before anything is built of it.
"""

import json
from pathlib import Path
from typing import Any

import yaml

MOST_KB = {".yaml": 256, ".json": 32 * 1024}
"""Largest file that is read, in kB (2^10 bytes), by its ending. A config has some kilobytes, a result with many left-out images some hundred."""
DEEPEST = 60
"""Levels of nesting: a config has about six."""


def yaml_text(file: Path) -> str:
    """The text of a YAML file that holds values alone. It is as good as read: what PyYAML makes of it is small, and not deep.

    Aliases are refused: ten lines of them are a billion values once they are filled in.

    Raises:
        ValueError: it is too large, too deep, no YAML or no UTF-8, or has an alias or a tag of Python's; with the reason.
        OSError: it cannot be read.
    """
    text, depth = _text(file), 0
    try:
        for event in yaml.parse(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            line = event.start_mark.line + 1
            tag = getattr(event, "tag", None)
            if isinstance(event, yaml.AliasEvent):
                raise ValueError(f"line {line} has an alias, *{event.anchor}: a config holds values")
            if tag is not None and (not tag.startswith("tag:yaml.org,2002:") or "python" in tag):
                raise ValueError(f"line {line} has a tag, {tag}: a config holds values, and no object is made of it")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                raise ValueError(f"line {line} is nested more than {DEEPEST} levels deep")
    except yaml.MarkedYAMLError as error:
        at = f" at line {error.problem_mark.line + 1}, column {error.problem_mark.column + 1}" if error.problem_mark else ""
        raise ValueError(f"{error.problem}{at}") from error
    except yaml.YAMLError as error:  # of letters that YAML has not
        raise ValueError(" ".join(str(error).split())) from error
    return text


def read_json(file: Path) -> Any:  # noqa: ANN401 (whatever JSON holds)
    """What a JSON file holds.

    Raises:
        ValueError: it is too large, too deep, no JSON or no UTF-8; with the reason.
        OSError: it cannot be read.
    """
    too_deep = f"nested more than {DEEPEST} levels deep"
    try:
        found = json.loads(_text(file))
    except RecursionError as error:
        raise ValueError(too_deep) from error
    level, depth = [found], 0
    while level:
        depth += 1
        if depth > DEEPEST:
            raise ValueError(too_deep)
        level = [inner for value in level if isinstance(value, dict | list) for inner in (value.values() if isinstance(value, dict) else value)]
    return found


def _text(file: Path) -> str:
    most = MOST_KB[file.suffix]
    if (size := file.stat().st_size) > most * 1024:
        raise ValueError(f"{size / 1024:,.0f} kB, and no more than {most:,} are read")
    return file.read_text(encoding="utf-8")
