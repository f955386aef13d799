"""TAB completion: commands, choices of groups, options with what they take, run folders.

biqa completion bash    # put it to use: eval "$(biqa completion bash)", in ~/.bashrc
biqa completion zsh     # in ~/.zshrc, below compinit: eval "$(biqa completion zsh)"
biqa completion fish    # biqa completion fish > ~/.config/fish/completions/biqa.fish

Options (option=value)
  shell  bash, zsh or fish; its name alone will do
  line   what stands on the command line so far: prints what may follow, a word a line. This is what the scripts ask at every TAB
"""

import sys

from biqa.doors.arguments import open_light_door, read_options, show_text

if __name__ == "__main__":
    show_text(__doc__, sys.argv[1:])

import os
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from biqa import config as schema
from biqa.command import DOORS
from biqa.config.trainer import PRECISIONS, REQUEUE_SIGNALS
from biqa.config.tuning import DTYPES, STARTS
from biqa.errors import IncompatibleChoice

SCRIPTS = {
    "bash": """\
_biqa() {
    local line="${COMP_LINE:0:COMP_POINT}" word found
    word="${line##*[[:space:]]}"
    COMPREPLY=()
    while IFS= read -r found; do
        # bash takes "=" and ":" for the end of a word, and wants what follows the last of them
        if [[ $word == *[=:]* && $COMP_WORDBREAKS == *[=:]* ]]; then found="${found#"${word%"${word##*[=:]}"}"}"; fi
        COMPREPLY+=("$found")
    done < <("${COMP_WORDS[0]}" completion shell=bash "line=$line" 2>/dev/null)
}
complete -o nospace -F _biqa biqa
""",
    "zsh": """\
_biqa() {
    local -a found
    found=("${(@f)$("${words[1]}" completion shell=zsh "line=$LBUFFER" 2>/dev/null)}")
    found=("${(@)found:#}")
    (( $#found )) && compadd -U -Q -S '' -- "${found[@]}"
}
compdef _biqa biqa
""",
    "fish": """\
complete -c biqa -f -a '(command biqa completion shell=fish "line="(commandline -cp | string collect) 2>/dev/null)'
""",
}

LIGHT = ("ls", "doctor", "compare", "rerun", "completion", "reproduce", "demo")
"""Doors whose options are a dataclass `<Door>Options`; the others have a file in conf/."""
ALONE = {"ls": "runs", "compare": "run", "rerun": "run", "demo": "run", "completion": "shell", "predict": "file"}
"""What is typed without a name."""
RUN_FOLDERS = ("run", "against", "perception", "init_from")
"""Options, by the last part of their names, whose value is a run folder."""
FOLDERS = ("runs", "datasets", "data_root", "root", "cache", "references", "out")
FILES = ("file", "images", "train", "test")
"""Options whose value is a path; those that take numbers in one choice of data and files in another are files."""
WORDS: Mapping[str, Sequence[str]] = {
    "ckpt": ("last",), "test_images": ("auto", "split", "all"), "overlap": ("stop", "note"),
    "analysis": ("grounding", "logit_lens", "attention", "contradiction", "gap", "all"),
    "baseline": ("joint", "zero_shot", "inference"), "sort": ("name", "age", "srcc", "instability", "size"), "shell": tuple(SCRIPTS),
    "accelerator": ("auto", "cpu", "cuda"), "trainer.accelerator": ("auto", "cpu", "gpu"), "trainer.precision": PRECISIONS,
    "trainer.requeue_signal": REQUEUE_SIGNALS, "model.dtype": DTYPES, "answers.dtype": DTYPES, "quantization.compute_dtype": DTYPES,
    "tuning.projector_start": STARTS, "stage.target": ("hard", "soft"), "stage.descriptions": ("target", "generated", "mixed"),
    "stage.init_from": ("base",), "data.on_bad_image": ("stop", "skip"),
}  # fmt: skip
"""Options that take one of some words, beyond the groups and those that are true or false."""
FLAGS = {
    "run": ("--multirun", "--cfg"),
    "report": ("--cfg",),
    "analyze": ("--cfg",),
    "prepare": ("--cfg",),
    "predict": ("--html", "--cfg"),
    "ls": ("--json",),
}


@dataclass
class CompletionOptions:
    """What is asked for."""

    shell: str | None = None
    """One of `SCRIPTS`."""
    line: str | None = None
    """The command line up to the cursor; null: print the script."""

    def __post_init__(self) -> None:
        if self.shell not in (None, *SCRIPTS):
            raise IncompatibleChoice(f"shell={self.shell} is not known: choose {', '.join(SCRIPTS)}.")
        if self.shell is None and self.line is None:
            raise IncompatibleChoice(f"Which shell? Name it: {', '.join(f'biqa completion {shell}' for shell in SCRIPTS)}.")


def main(arguments: Sequence[str]) -> int:
    """Print a script, or what may follow a line."""
    options = read_options(arguments, CompletionOptions, alone=("shell",))
    if options.line is None:
        print(SCRIPTS[str(options.shell)], end="")
        return 0
    for word in suggestions(options.line):
        print(word.rstrip() if options.shell == "fish" else _escaped(word))
    return 0


def suggestions(line: str) -> list[str]:
    """What may stand in the place of the last word of a command line, which begins with `biqa`; a blank behind a word that is complete."""
    words, current = _split(line)
    if not words:
        return []
    if len(words) == 1 or words[1:] == ["help"]:
        return _beginning(current, [f"{word} " for word in (*DOORS, *(() if len(words) > 1 else ("help", "--help", "--version")))])
    return _of_door(words[1], words[2:], current) if words[1] in DOORS else []


def _of_door(door: str, before: Sequence[str], current: str) -> list[str]:
    """What may stand in the place of the last word behind a door and further words."""
    if current.startswith("-"):
        return _beginning(current, [f"{flag} " for flag in ("--help", *FLAGS.get(door, ()))])
    name, equals, value = current.partition("=")
    if equals:
        return [f"{name}={found}" for found in _values(door, name, value)]
    alone = _values(door, ALONE[door], current) if door in ALONE else []
    return [*_beginning(current, _options(door, before, current)), *alone]


def _split(line: str) -> tuple[list[str], str]:
    """Whole words, and the one at the cursor."""
    whole, _, current = line.rpartition(" ") if not line.endswith(" ") else (line, "", "")
    try:
        if whole.endswith("\\"):  # an escaped blank in a path
            words = shlex.split(line)
            return words[:-1], words[-1]
        return shlex.split(whole), re.sub(r"\\(.)", r"\1", current)
    except ValueError:  # a quote that is still open
        return whole.split(), re.sub(r"\\(.)", r"\1", current)


def _beginning(current: str, found: Iterable[str]) -> list[str]:
    return sorted(word for word in set(found) if word.startswith(current))


def _options(door: str, before: Sequence[str], current: str) -> list[str]:
    """Names of options with "=" behind them, and of what has options in it with "." behind: those of it once that is typed."""
    if door in LIGHT:
        return [f"{name}=" for name in _fields(_light(door))]
    top = _top(door)
    group, dot, _ = current.partition(".")
    if dot:
        return [f"{group}.{name}=" for name in _inside(door, group, before)]
    deep = [f"{name}." for name in top if _inside(door, name, before)]
    return [f"{name}=" for name in top if not isinstance(top[name], dict)] + deep


def _values(door: str, name: str, value: str) -> list[str]:
    """What an option may take, of what begins as typed."""
    last = name.rpartition(".")[2]
    if choices := _choices(door, name):
        typed = re.split(r"[,\[+]" if name in ("data", "test") else ",", value)[-1]
        start = value.removesuffix(typed)
        return [f"{start}{choice} " for choice in _beginning(typed, choices)]
    words = [f"{word} " for word in WORDS.get(name, ("true", "false") if _is_switch(door, name) else ())]
    if last in RUN_FOLDERS:
        return _beginning(value, words) + _run_folders(value)
    if last in FOLDERS + FILES and not words:
        return _paths(value, files=last in FILES)
    return _beginning(value, words)


def _choices(door: str, name: str) -> list[str]:
    """Choices of a group of this door."""
    if door in LIGHT or (name not in _top(door) and "@" not in name):
        return []
    folder = Path(schema.config_directory()) / ("data" if name == "test" else name.partition("@")[0])
    return sorted(file.stem for file in folder.glob("*.yaml")) if name in _groups(door) or "@" in name else []


def _top(door: str) -> dict[str, Any]:
    """Option or group at the top -> its value or default choice."""
    values = _read(_file(door))
    own = {name: value for name, value in values.items() if name not in ("defaults", "hydra")}
    further = {name: None for name in _fields(schema.Config) if name not in own} if _file(door) == "config" else {}
    return further | own | _groups(door)


@cache
def _groups(door: str) -> dict[str, Any]:
    """Group -> the choice that the door's defaults list names."""
    entries = [entry for entry in _read(_file(door)).get("defaults", []) if isinstance(entry, dict)]
    found = {str(group): choice for entry in entries for group, choice in entry.items() if not str(group).startswith("override ")}
    return found | {"run": {"hydra/launcher": "basic"}, "search": {"search": "default"}}.get(door, {})


def _inside(door: str, group: str, before: Sequence[str]) -> list[str]:
    """Options inside a group as it is chosen among the words before, or inside a mapping."""
    top = _top(door)
    if group not in top:
        return []
    if door == "search" and group == "search":
        return [name for name in _read("search/default") if name != "defaults"]
    if isinstance(top[group], dict):
        kind = get_type_hints(schema.Config).get(group)
        return sorted({*top[group], *(_fields(kind) if is_dataclass(kind) else ())})
    typed = [word.partition("=")[2] for word in before if word.startswith(f"{group}=")]
    numbers = {"1": "perception", "2": "inference"} if group == "stage" else {}
    choice = numbers.get(typed[-1], typed[-1]) if typed else str(top[group])
    return _of_choice(group, choice) if group in _groups(door) and group != "test" else []


def _of_choice(group: str, choice: str) -> list[str]:
    """Options of a choice: those of the schema that its file names."""
    entries = _read(f"{group}/{choice}").get("defaults", [])
    names = [entry.removeprefix("/schema/").removesuffix("@_here_") for entry in entries if isinstance(entry, str) and entry.startswith("/schema/")]
    return [name for schema_name in names if schema_name in schema.SCHEMAS for name in _fields(schema.SCHEMAS[schema_name])]


def _is_switch(door: str, name: str) -> bool:
    """Whether an option is true or false."""
    group, _, option = name.rpartition(".")
    if door in LIGHT:
        return get_type_hints(_light(door)).get(name) is bool
    if not group:
        return isinstance(_top(door).get(name), bool) or get_type_hints(schema.Config).get(name) is bool
    kinds = [kind for kind in schema.SCHEMAS.values() if option in _fields(kind)] + [schema.Images, schema.Export]
    return any(get_type_hints(kind).get(option) is bool for kind in kinds)


def _light(door: str) -> type:
    return getattr(import_module(f"biqa.{door}"), f"{door.capitalize()}Options")


def _fields(kind: Any) -> list[str]:  # noqa: ANN401 (a dataclass)
    return [option.name for option in fields(kind) if option.name != "_target_"]


def _file(door: str) -> str:
    return "config" if door in ("run", "search") else door


@cache
def _read(name: str) -> dict[str, Any]:
    """conf/<name>.yaml as plain values; {} where there is none."""
    file = Path(schema.config_directory()) / f"{name}.yaml"
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)) or {}


def _run_folders(typed: str) -> list[str]:
    """Run folders, and folders on the way to one; of a place that is not typed yet, those in runs/."""
    found = _paths(typed, files=False) if typed or not Path("runs").is_dir() else _paths("runs/", files=False)
    return sorted(f"{path.removesuffix('/')} " if Path(path).joinpath("config.yaml").is_file() else path for path in found)


def _paths(typed: str, *, files: bool) -> list[str]:
    """Paths that begin as typed: folders with "/" behind them, files with a blank."""
    place, slash, start = typed.rpartition("/")
    folder = Path(os.path.expanduser(f"{place}{slash}") or ".")
    try:
        entries = [(entry.name, entry.is_dir()) for entry in os.scandir(folder)]
    except OSError:
        return []
    shown = [(name, is_folder) for name, is_folder in entries if name.startswith(start) and (start or not name.startswith("."))]
    return sorted(f"{place}{slash}{name}{'/' if is_folder else ' '}" for name, is_folder in shown if is_folder or files)


def _escaped(word: str) -> str:
    """A word as the shell wants it: what it would take for its own has a backslash before it, but for the blank behind a complete word."""
    text = word.removesuffix(" ")
    return re.sub(r"([\s'\"\\()&;|<>$`*?!\[\]#])", r"\\\1", text) + (" " if text != word else "")


if __name__ == "__main__":
    open_light_door(main)
