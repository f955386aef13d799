"""The pages of docs/ that are written by a program: `make docs` writes them, and a test fails when they have drifted from it.

python -m docs.generate

- options.md: every option of a run and every choice, from the dataclasses in biqa/config/ (what stands under a field is its meaning) and from conf/.
- commands.md: what `--help` of every command says.
- trust.md: what campaigns of faults have counted (trust.py).
"""

import ast
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING as NO_DEFAULT
from dataclasses import Field, dataclass, fields
from functools import cache, partial
from inspect import cleandoc
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from biqa import config as schema
from biqa.command import DOORS
from biqa.command import HELP as COMMANDS
from biqa.config import checks
from biqa.doors.help import help_text
from docs import trust

DOCS = Path(__file__).parent
CONF = Path(schema.config_directory())
GROUPS = ("data", "descriptions", "model", "stage", "tuning", "quantization", "strategy", "sampling", "answers", "scorer", "evaluation", "trainer")
"""Those whose choices have options, in the order in which one thinks of them."""
MORE_CHOICES = ("logger", "hydra/launcher", "experiment", "sweep", "search")
"""Those whose choices have none of their own."""
PLACES = {"images": schema.Images, "export": schema.Export}
"""Options that stand together and have no choices."""
BESIDE = {"experiments": "are the figures of experiments/ those that the runs here give? `make check-experiments` calls it"}
"""Doors that are no command of `biqa`."""
GENERATED = "<!-- written by `make docs`; what stands here is changed in the code -->"
TYPES = {"str": "text", "int": "whole number", "float": "number", "bool": "true, false", "None": "null", "Any": "any"}
NOTES = {
    "data": "Choices can be joined: `data=koniq+spaq` trains on both. Options of a part: `data.parts.koniq.scale=zscore`; how often an epoch shows "
    "its images: `data.weights.spaq=0.5`. `test=[live,csiq]` names data sets to test on; options of one: `test.live.version=old`.",
    "descriptions": "A choice of data brings its own; one that is typed wins.",
    "stage": "`stage=1` is perception, `stage=2` is inference.",
    "hydra/launcher": "How the runs of a sweep (`-m`) are started. Without one they run one after the other. Options: those of Hydra's plugins.",
    "experiment": "Changes to several options at once, under a name: a row of a table.",
    "sweep": "Several runs, without `-m`.",
    "search": "For `biqa search`. Options: below.",
}


@dataclass(frozen=True)
class Option:
    """One option as one or several choices have it."""

    name: str
    kind: str
    meaning: str


@cache
def meanings(module: ModuleType) -> dict[str, dict[str, str]]:
    """Class -> field -> the text under it as one line, "" where there is none, of every class in a module."""
    found: dict[str, dict[str, str]] = {}
    for node in ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef):
            found[node.name] = {}
            for field, text in zip(node.body, [*node.body[1:], None], strict=True):
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                    said = isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant) and isinstance(text.value.value, str)
                    found[node.name][field.target.id] = " ".join(cleandoc(text.value.value).split()) if said else ""  # pyright: ignore
    return found


def options_of(kind: type) -> list[Option]:
    """Options of a schema, those that it inherits first."""
    told: dict[str, str] = {}
    for parent in reversed(kind.__mro__):
        if parent is not object:
            told |= {name: text for name, text in meanings(sys.modules[parent.__module__])[parent.__name__].items() if text}
    return [Option(field.name, type_of(field), told.get(field.name, "")) for field in own_fields(kind)]


def own_fields(kind: type) -> list["Field[Any]"]:
    """Fields that a user may set."""
    return [field for field in fields(kind) if field.name != "_target_"]


def type_of(field: "Field[Any]") -> str:
    """The type of a field in a reader's words."""
    text = field.type if isinstance(field.type, str) else getattr(field.type, "__name__", str(field.type))
    text = str(field.type) if "|" in str(field.type) or "[" in str(field.type) else text
    if text.startswith("dict["):
        return "mapping"
    text = text.replace("list[str]", "list of texts")
    return ", ".join(TYPES.get(part.strip(), part.strip()) for part in text.split("|"))


def first_line(file: Path) -> str:
    """What a file of conf/ says of itself."""
    lines = [line.removeprefix("# ") for line in file.read_text(encoding="utf-8").splitlines() if not line.startswith("# @package")]
    return lines[0]


def choices_of(group: str) -> dict[str, Path]:
    """Choice -> its file."""
    return {file.stem: file for file in sorted((CONF / group).glob("*.yaml"))}


def read(file: Path) -> dict[str, Any]:
    """A file of conf/ as plain values."""
    return yaml.safe_load(file.read_text(encoding="utf-8")) or {}


def schema_of(file: Path) -> type:
    """The schema that the first entry of a choice's defaults list names."""
    named = next(entry for entry in read(file)["defaults"] if isinstance(entry, str))
    return schema.SCHEMAS[named.removeprefix("/schema/").removesuffix("@_here_")]


def default_of(option: str, kind: type, values: Mapping[str, Any]) -> str:
    """What an option is where nothing is typed: what the file says, else the class. "" where it has to be typed."""
    [field] = [field for field in fields(kind) if field.name == option]
    value = values.get(option, field.default)
    if value is NO_DEFAULT:
        value = field.default_factory() if field.default_factory is not NO_DEFAULT else checks.MISSING
    if value == checks.MISSING:
        return ""
    if isinstance(value, str) and len(value) > 60:
        return "long: it stands in conf/"
    return f"`{_as_typed(value)}`"


def _as_typed(value: Any) -> str:  # noqa: ANN401 (whatever YAML holds)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{','.join(map(_as_typed, value))}]"
    return "{}" if value == {} else str(value)


def group_table(group: str) -> str:
    """Options of a group: a row for each, with the choices that have it and what it is in each of them."""
    files = choices_of(group)
    kinds = {choice: schema_of(file) for choice, file in files.items()}
    holders: dict[Option, dict[str, str]] = {}
    for choice, kind in kinds.items():
        values = read(files[choice])
        for option in options_of(kind):
            holders.setdefault(option, {})[choice] = default_of(option.name, kind, values)
    mixture = {option: {"a+b": "`{}`"} for option in options_of(schema.MixtureData) if option not in holders} if group == "data" else {}
    rows = [[f"`{group}.{option.name}`", option.kind, _defaults(by, files), option.meaning] for option, by in (holders | mixture).items()]
    return _table(("option", "type", "if nothing is typed", "meaning"), rows)


def _defaults(by_choice: Mapping[str, str], all_choices: Mapping[str, Any]) -> str:
    """ "`5` (joint, perception); `2` (inference)": what an option is, and of which choices where not all have it or it differs."""
    grouped: dict[str, list[str]] = {}
    for choice, value in by_choice.items():
        grouped.setdefault(value or "must be typed", []).append(choice)
    if len(grouped) == 1 and len(by_choice) == len(all_choices):
        return next(iter(grouped))
    return "; ".join(f"{value} ({_named(choices, list(all_choices))})" for value, choices in grouped.items())


def _named(choices: Sequence[str], all_choices: Sequence[str]) -> str:
    """Some of the choices, by those that are not among them where these are fewer."""
    others = [choice for choice in all_choices if choice not in choices]
    return f"all but {', '.join(others)}" if len(others) < len(choices) and others else ", ".join(choices)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = [heads, ["---"] * len(heads), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def choice_table(group: str) -> str:
    """Choices of a group, each with the first line of its file."""
    return _table((f"`{group}=`", "what"), [[f"`{choice}`", first_line(file)] for choice, file in choices_of(group).items()])


def class_table(kind: type, place: str, values: Mapping[str, Any]) -> str:
    """Options of a class that has no choices."""
    rows = [[f"`{place}{of.name}`", of.kind, default_of(of.name, kind, values) or "must be typed", of.meaning] for of in options_of(kind)]
    return _table(("option", "type", "if nothing is typed", "meaning"), rows)


def options() -> str:
    """docs/options.md."""
    values = read(CONF / "config.yaml")
    parts = [
        f"# Options of a run\n\n{GENERATED}",
        "`python -m biqa.run GROUP=CHOICE GROUP.OPTION=VALUE`. A group is a folder of conf/, a choice a file in it. `--cfg job` shows every value "
        "of a run; `biqa completion` completes names. `${...}` is the value of another option. What other commands take: [commands.md](commands.md).",
        f"## The run\n\n{_run_table(values)}",
    ]
    for group in GROUPS:
        note = f"{NOTES[group]}\n\n" if group in NOTES else ""
        parts.append(f"## {group}\n\n{note}{choice_table(group)}\n\n{group_table(group)}")
    for place, kind in PLACES.items():
        parts.append(f"## {place}\n\n{' '.join((kind.__doc__ or '').split())}\n\n{class_table(kind, f'{place}.', values[place])}")
    for group in MORE_CHOICES:
        note = f"{NOTES[group]}\n\n" if group in NOTES else ""
        parts.append(f"## {group}\n\n{note}{choice_table(group)}")
    from biqa.search import SearchOptions

    parts[-1] += f"\n\n{class_table(SearchOptions, 'search.', read(CONF / 'search' / 'default.yaml'))}"
    return "\n\n".join(parts) + "\n"


def _run_table(values: Mapping[str, Any]) -> str:
    """Options at the top of a config that are no group."""
    groups = {*GROUPS, *PLACES, "logger"}
    own = [option for option in options_of(schema.Config) if option.name not in groups]
    rows = [[f"`{of.name}`", of.kind, default_of(of.name, schema.Config, values) or "must be typed", of.meaning] for of in own]
    return _table(("option", "type", "if nothing is typed", "meaning"), rows)


def helps() -> Iterator[tuple[str, str, str | None]]:
    """Every door: how it is called, what it is for, and what its --help says; None where there is no such module."""
    for door, purpose in DOORS.items():
        yield f"biqa {door}", purpose, help_of(door)
    for door, purpose in BESIDE.items():
        yield f"python -m biqa.{door}", purpose, help_of(door)


def help_of(door: str) -> str | None:
    """What `python -m biqa.<door> --help` prints."""
    name = "config" if door == "run" else door
    if (CONF / f"{name}.yaml").is_file():
        return help_text(CONF, name).strip()
    file = Path(schema.__file__).parents[1] / f"{door}.py"
    return (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").strip() if file.is_file() else None


def commands() -> str:
    """docs/commands.md."""
    parts = [
        f"# Commands\n\n{GENERATED}",
        "`biqa run ...` and `python -m biqa.run ...` are the same. Options of runs, each with its meaning: [options.md](options.md).",
        f"```text\n{COMMANDS}\n```",
    ]
    for called, purpose, text in helps():
        parts.append(f"## {called}\n\n{purpose[0].upper()}{purpose[1:]}\n\n" + (f"```text\n{text}\n```" if text else "Not there in this release."))
    return "\n\n".join(parts) + "\n"


PAGES = {"options.md": options, "commands.md": commands, "trust.md": partial(trust.page, GENERATED)}


def main() -> None:
    """Write all."""
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), encoding="utf-8")
    for called, _, text in helps():
        if text is None:
            print(f"{called}: there is no such module, and docs/commands.md says so.", file=sys.stderr)


if __name__ == "__main__":
    main()
