"""What `--help` alone says, without Hydra, whose own way to the same text takes a second: for each list of choices it copies all that it knows.

With anything else on the command line it is Hydra that says it, as it has to check what was typed.
"""

import re
import string
from collections.abc import Sequence
from pathlib import Path

import yaml

from biqa.config import SCHEMAS, config_directory


def show_help(name: str, arguments: Sequence[str]) -> None:
    """Print the help of the door whose config has that name and exit, where that is all that was asked for. Called before a door's other imports."""
    if arguments in (["--help"], ["-h"]):
        print(help_text(Path(config_directory()), name))
        raise SystemExit(0)


def help_text(conf: Path, name: str) -> str:
    """The template in conf/<name>.yaml, filled in with what stands beside it, with the choices that there are, and with the values of that file."""
    values = yaml.load((conf / f"{name}.yaml").read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    words = values["hydra"]["help"]
    template = re.sub(r"\$\{hydra:help\.(\w+)}", lambda word: words[word[1]], words["template"])
    own = {option: value for option, value in values.items() if option not in ("defaults", "hydra")}
    return string.Template(template).substitute(APP_CONFIG_GROUPS=choices(conf), CONFIG=yaml.safe_dump(own, sort_keys=False, allow_unicode=True))


def choices(conf: Path) -> str:
    """A line for each group: `stage: inference, joint, ...`. Groups are folders of YAML files; the schemas of their options are one more."""
    found = {"schema": sorted(SCHEMAS)}
    for folder in (path for path in conf.rglob("*") if path.is_dir()):
        group, names = folder.relative_to(conf), sorted(file.stem for file in folder.glob("*.yaml"))
        if names and group.parts[0] != "hydra":
            found[group.as_posix()] = names
    return "".join(f"{group}: {', '.join(names)}\n" for group, names in sorted(found.items()))
