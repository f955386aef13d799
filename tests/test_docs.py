"""What README and docs/ tell a user to type works: every Python block runs, every command is run small or at least accepted; references do not drift.

A command on tiny models and synthetic data, or on a finished run, is run here with small options behind it. What needs a GPU, a published data set or a
checkpoint must be accepted: its options compose into the schema. Other programs stand in `OTHER_PROGRAMS`, each with the reason why it is not run.
"""

import ast
import contextlib
import importlib
import io
import itertools
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf, open_dict
from PIL import Image
from quick_hydra import without_detours

from biqa import config as schema
from biqa.command import DOORS
from biqa.config.identity import flat
from biqa.doors.arguments import read_options
from biqa.run import numbers_to_words
from docs import generate

pytest_plugins = ["small_runs"]

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted(file for file in (ROOT / "docs").glob("*.md") if file.name not in generate.PAGES)]
BESIDE = ("experiments",)
"""Doors that are no command of `biqa`."""

OTHER_PROGRAMS = {
    "docker": "no container engine here; Dockerfile has a test of its own",
    "export": "sets a variable of the shell",
    "git": "a clone needs the network",
    "head": "cuts what a pipe brings",
    "hf": "needs the network",
    "pip wheel": "needs the network",
    "source": "of the shell",
    "cd": "of the shell",
}
"""How a command begins that is none of ours -> why it is not run."""
BEFORE = ("srun", "torchrun")
"""Programs that start ours: what follows `-m biqa.` is checked as ours."""

NOT_RUN = {
    "reproduce": "minutes: tests/test_reproduce.py",
    "doctor": "looks at the whole machine: tests/test_doctor.py",
    "analyze": "seconds an analysis: tests/test_analyze.py",
    "search": "several runs: tests/test_search.py",
    "rerun": "a whole run again: tests/test_rerun.py",
    "demo": "serves until it is stopped: tests/test_demo.py",
    "experiments": "reads all of experiments/: tests/test_experiments.py",
}
"""Doors whose options are checked and that are not run here -> why, and what runs them."""

STAND_INS = {
    "runs/NAME": "tiny-joint-synthetic-s0",
    "runs/OTHER": "tiny-inference-synthetic-s0",
    "runs/main_table/tiny-joint-synthetic-s0": "tiny-joint-synthetic-s0",
    "runs/main_table/tiny-inference-synthetic-s0": "tiny-inference-synthetic-s0",
    "runs/main_table/tiny-perception-synthetic-s0": "tiny-perception-synthetic-s0",
    "runs/ablations/tiny-inference-synthetic-s0": "tiny-inference-synthetic-s0",
    "runs/seeds/tiny-joint-synthetic-s0": "tiny-joint-synthetic-s0",
    "runs/seeds/tiny-inference-synthetic-s0": "tiny-inference-synthetic-s0",
}
"""Runs that the pages speak of as if they were there -> the small run that lies there."""
PICTURES = (
    "photo.jpg",
    "holiday/a.jpg",
    "scans/a.png",
    *(f"my_photos/{name}.png" for name in "abc"),
    *(f"photos/{number}.png" for number in range(10)),
)
"""Pictures that the pages speak of; scores.csv has those in photos/."""


SHELLS = ("bash", "sh", "shell")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    line: int
    kind: str
    text: str


def blocks() -> Iterator[Block]:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for found in re.finditer(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
            yield Block(page.name, text[: found.start()].count("\n") + 1, found[1], found[2])


def commands_in(block: Block) -> Iterator[tuple[str, list[str]]]:
    """Where each command of a block stands, and its words; pipes and && divide commands."""
    lines = re.sub(r"\\\n\s*", " ", block.text).splitlines()
    for line in lines:
        words = shlex.split(line, comments=True)
        for last, part in itertools.groupby(words, key=lambda word: word in ("|", "&&", ";")):
            if not last:
                yield f"{block.page}:{block.line}", list(part)


COMMANDS = [(place, words) for block in blocks() if block.kind in SHELLS for place, words in commands_in(block)]
UNIQUE = list({" ".join(words): (place, words) for place, words in reversed(COMMANDS)}.values())[::-1]


def of_the_door(words: Sequence[str]) -> tuple[str, list[str]] | None:
    """A door of biqa and what follows it; None for another program."""
    words = list(itertools.dropwhile(lambda word: re.fullmatch(r"[A-Z_]+=.*", word), words))
    if words and words[0] in BEFORE:
        words = ["python", *words[words.index("-m") :]]
    if words[0].endswith("python") and words[1:2] == ["-m"] and words[2].startswith("biqa"):
        return words[2].removeprefix("biqa").removeprefix("."), words[3:]
    return (words[1] if len(words) > 1 else "", words[2:]) if words[0].endswith("biqa") else None


# what is accepted


@pytest.fixture(scope="module", autouse=True)
def _hydra_in_half_the_time() -> Iterator[None]:
    with without_detours():
        yield


@cache
def composed(name: str, *overrides: str) -> Any:
    """A config as Hydra makes it of what was typed.

    Raises:
        Exception: as the door would refuse it.
    """
    schema.register()
    with initialize_config_dir(schema.config_directory(), version_base="1.3"):
        config = compose(name, [*overrides], return_hydra_config=True)
    with patch.object(HydraConfig.instance(), "cfg", deepcopy(config)):
        with open_dict(config):
            del config["hydra"]
        OmegaConf.resolve(config)
    typed = OmegaConf.to_object(config)
    assert not schema.unknown_options(typed), schema.unknown_options(typed)
    return config


def each_of(typed: Sequence[str]) -> Iterator[list[str]]:
    """The one run, or runs of a sweep in which each value occurs."""
    options = [argument for argument in numbers_to_words(list(typed)) if not argument.startswith("-")]
    if "-m" not in typed and "--multirun" not in typed:
        yield options
        return
    parsed = OverridesParser.create().parse_overrides(options)
    swept = [list(one.sweep_string_iterator()) if one.is_sweep_override() else None for one in parsed]
    names = [one.get_key_element() for one in parsed]
    choices = [[text] if of is None else [f"{name}={value}" for value in of] for name, of, text in zip(names, swept, options, strict=True)]
    for run in range(max(map(len, choices))):
        yield [of[min(run, len(of) - 1)] for of in choices]


def accept(door_name: str, typed: Sequence[str]) -> list[Any]:
    """The configs that a door makes of what was typed; of a door without Hydra its options.

    Raises:
        Exception: as the door would refuse it.
    """
    if {"--help", "--cfg"} & {*typed}:  # of a door's help there is a test of its own
        return []
    if door_name == "run":
        return [composed("config", *options) for options in each_of(typed)]
    module = importlib.import_module(f"biqa.{door_name}")
    if door_name == "search":
        with patch.object(sys, "argv", ["biqa.search", *typed]), patch.object(module, "search"):
            module.main()
        return []
    if (Path(schema.config_directory()) / f"{door_name}.yaml").is_file():
        options = [argument for argument in typed if "=" in argument and not argument.startswith("-")]
        return [composed(door_name, *options)]
    options = getattr(module, f"{door_name.capitalize()}Options")
    if door_name == "rerun":
        typed = module.divided(typed)[0]
    if door_name == "reproduce":  # what it does not know goes to each run
        known = [field.name for field in generate.own_fields(options)]
        further = [argument for argument in typed if argument.partition("=")[0] not in known]
        typed = [argument for argument in typed if argument not in further]
        model = [argument for argument in typed if argument.startswith("model=")]
        composed("config", *model, *further)
    return [
        read_options(
            typed, options, alone={"ls": ("runs",), "compare": ("run", "against"), "rerun": ("run",), "completion": ("shell",)}.get(door_name, ())
        )
    ]


# what is run


@dataclass(frozen=True)
class Outcome:
    """How a door ended, and what it said on stderr."""

    code: int
    err: str


@dataclass(frozen=True)
class Reader:
    """Somebody who types what the pages say, in a folder where all is that they take for granted, with small options behind it."""

    folder: Path
    small: tuple[str, ...]
    door: Callable[..., Any]
    ran: list[Any] = field(default_factory=list)
    """Configs of finished runs: the same again would only show its result."""

    def run(self, typed: Sequence[str]) -> Outcome:
        """`python -m biqa.run`, under the name that the run would have without the small options."""
        [options] = each_of(typed)
        config = composed("config", *options)
        if config in self.ran:
            return Outcome(0, "")
        self.ran.append(config)
        left_out = [prefix for prefix, holds in (("model.", is_tiny(config)), ("data.", "Synthetic" in config.data._target_)) if not holds]
        small = [option for option in self.small if not option.startswith(tuple(left_out))]
        small += [f"stage.epochs={min(1, config.stage.epochs)}", "stage.batch_size=8", f"name={config.name}"]
        done = self.door("biqa.run", *typed, *small)
        return Outcome(done.code, done.err)

    def types(self, name: str, typed: Sequence[str]) -> Outcome | None:
        """A command, in this process; None where it is not run here."""
        configs = accept(name, typed)
        if not configs and name != "search":
            return None
        sweep = any(argument.startswith(("-m", "--multirun", "sweep=")) for argument in typed)
        if name in NOT_RUN or (name == "run" and (sweep or not is_here(configs[0]))):
            return None
        if name == "prepare" and not (configs and is_here(configs[0])):
            return None
        if name == "run":
            return self.run(typed)
        if name in ("report", "prepare"):
            done = self.door(f"biqa.{name}", *typed)
            return Outcome(done.code, done.err)
        module, err = importlib.import_module(f"biqa.{name}"), io.StringIO()
        with patch.object(sys, "argv", [f"biqa.{name}", *typed]), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(err):
            try:
                code = module.enter() if hasattr(module, "enter") else module.main(typed)
            except SystemExit as end:
                code = end.code
        return Outcome(int(code or 0), err.getvalue())


def is_tiny(config: Any) -> bool:
    return ".tiny." in config.model._target_


def is_here(config: Any) -> bool:
    """Whether what is asked for is on this machine: a model from random weights, data that are made here or lie in the reader's folder."""
    own = "model" not in config or is_tiny(config) or config.model.get("size") == "tiny"
    of_reader = config.data._target_.endswith(".Table") and Path(config.data.file).is_file()
    return own and config.get("test") is None and (of_reader or "Synthetic" in config.data._target_)


@pytest.fixture(scope="module")
def reader(call, synthetic, tmp_path_factory) -> Reader:
    """With a small run of each stage, one of references of its own, pictures, and a table of scores."""
    folder = tmp_path_factory.mktemp("reader")
    rng = np.random.default_rng(0)
    for name in PICTURES:
        (folder / name).parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (96, 120, 3), dtype=np.uint8)).save(folder / name)
    rows = [f"{name},{1 + number / 3:.2f}" for number, name in enumerate(name for name in PICTURES if name.startswith("photos"))]
    (folder / "scores.csv").write_text("\n".join(["file,mos", *rows]))
    typing = Reader(folder, tuple(synthetic), call)
    with contextlib.chdir(folder):
        for options in (["stage=joint"], ["stage=1"], ["stage=2"], ["data.references=my_photos"]):
            done = typing.run(["model=tiny", *options])
            assert done.code == 0, done.err
        for there, here in STAND_INS.items():
            shutil.copytree(Path("runs") / here, there)
    return typing


@pytest.mark.parametrize(("where", "words"), UNIQUE, ids=[f"{place} {' '.join(words)[:60]}" for place, words in UNIQUE])
def test_every_command_is_run_or_accepted(where, words, reader, monkeypatch):
    monkeypatch.chdir(reader.folder)
    check(where, words, reader)


def check(where: str, words: Sequence[str], reader: Reader) -> None:
    """Run a command or look whether it would be accepted.

    Raises:
        AssertionError: it goes wrong, or nothing can check it.
        Exception: as a door would refuse it.
    """
    typed = " ".join(words)
    if (ours := of_the_door(words)) is not None:
        name, options = ours
        assert name in (*DOORS, *BESIDE, "") or name.startswith("-"), f"{where}: there is no command {name}"
        if name in (*DOORS, *BESIDE):
            done = reader.types(name, options)
            assert done is None or done.code == 0, f"{where}: {typed}\n{done.err}\nIf it names a run or a picture: STAND_INS, PICTURES."
    elif words[0] == "make":
        for name, options in made_by(words):
            accept(name, options)
    elif words[:2] == ["pip", "install"]:
        assert_extras(words)
    else:
        assert any(f"{typed} ".startswith(f"{known} ") for known in OTHER_PROGRAMS), (
            f"{where}: nothing checks `{typed}`. Commands of biqa (python -m biqa.X, biqa X), make TARGET and pip install 'biqa[x]' are checked "
            f"by themselves. For another program put its name into OTHER_PROGRAMS of tests/test_docs.py, with the reason why it cannot be run."
        )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("frobnicate --all", "nothing checks `frobnicate --all`"),
        ("biqa runn stage=joint", "there is no command runn"),
        ("make nothing", "No rule to make target"),
        ("make reproduce-table MODEL=nothing", "model/nothing"),
        ("pip install 'biqa[nothing]'", "extras are teacher"),
        ("python -m biqa.run stage.epoch=3", "stage.epoch"),
        ("python -m biqa.run -m stage=1,2 tuning=full quantization=nf4", "packed weights cannot learn"),
        ("HF_HUB_OFFLINE=1 python -m biqa.run model=qwen3_vl trainer.device=2", "trainer.device"),
        ("srun python -m biqa.run trainer.nodes=0", "choose 1 or more"),
        ("biqa ls sort=colour", "sort=colour is not known"),
        ("biqa predict run=runs/NOBODY photo.jpg", "no run there"),
        ("biqa search stage=joint", "Nothing is searched"),
        ("python -m biqa.analyze run=runs/NAME folds=1", "folds=1"),
    ],
)
def test_what_would_not_work_is_found(line, message, reader, monkeypatch):
    monkeypatch.chdir(reader.folder)
    [(where, words)] = commands_in(Block("page.md", 1, "bash", line))
    with pytest.raises((Exception, SystemExit)) as found, contextlib.redirect_stderr(io.StringIO()) as said:
        check(where, words, reader)
    assert message in f"{found.value}{found.value.__cause__}{said.getvalue()}"


def made_by(words: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Doors that a target of the Makefile calls; it must be there. Nothing is made."""
    done = subprocess.run(["make", "-n", "-o", "install", *words[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
    found = [of_the_door(shlex.split(line)) for line in done.stdout.splitlines() if " -m biqa." in line]
    return [ours for ours in found if ours is not None]


def assert_extras(words: Sequence[str]) -> None:
    """Extras that are installed are those of the project."""
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for word in words[2:]:
        if found := re.fullmatch(r"(?:biqa|\.)\[([\w,]+)\]", word):
            assert set(found[1].split(",")) <= set(known), f"{word}: extras are {', '.join(known)}"


def test_no_command_hides_in_a_block_of_another_kind():
    """Nothing would check it."""
    others = [block for block in blocks() if block.kind not in (*SHELLS, "python")]
    hidden = [
        f"{block.page}:{block.line}" for block in others if re.search(r"^\s*(\$ |python -m |biqa [a-z]|make [a-z]|pip install)", block.text, re.M)
    ]
    assert not hidden, f"{hidden}: write bash behind the three ticks"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_targets_and_extras_in_the_text_are_there(page):
    text = page.read_text(encoding="utf-8")
    for target in dict.fromkeys(re.findall(r"`make ([\w-]+)", text)):
        made_by(["make", target])
    for extras in re.findall(r"biqa(\[[\w,]+\])", text):
        assert_extras(["pip", "install", f"biqa{extras}"])


def test_other_programs_are_those_that_the_pages_name():
    """An entry that nothing needs any more hides the next mistake."""
    left = {known for known in OTHER_PROGRAMS if known not in ("git", "cd", "source")}  # of a fresh clone: the README may say it or not
    assert left <= {known for known in OTHER_PROGRAMS for _, words in COMMANDS if " ".join(words).startswith(f"{known} ")}


# Python


@pytest.mark.parametrize("block", [block for block in blocks() if block.kind == "python"], ids=lambda block: f"{block.page}:{block.line}")
def test_every_python_block_runs(block, reader, checkpoint, monkeypatch):
    monkeypatch.chdir(reader.folder)
    given: dict[str, Any] = {}
    names = {node.id for node in ast.walk(ast.parse(block.text)) if isinstance(node, ast.Name)}
    if "BASE" in names:  # a checkpoint on the hub; the adapter in the run's folder was learnt on it
        given["BASE"] = str(checkpoint("llava"))
        adapter_of(Path(given["BASE"]), reader.folder / "runs" / "NAME")
    if "batch" in names:  # pictures as tensors
        given["batch"] = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(block.text, f"{block.page}:{block.line}", "exec"), given)


def adapter_of(base: Path, run: Path) -> None:
    """Put an adapter on a base into a run's folder."""
    from biqa.models.adapters import adapt, save_weights
    from biqa.models.hf import build_hf

    vlm = build_hf(id=str(base), vision=True, seed=0, dtype="float32", attention="sdpa", revision=None, family=None, visual_tokens=None, image=None)
    adapt(vlm, kind="lora", rank=2, alpha=4, dropout=0.0, targets=None, freeze=None)
    save_weights(vlm, run)


# pages


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name}: {target} is not there"


@pytest.mark.parametrize("name", generate.PAGES)
def test_references_have_not_drifted(name):
    assert (ROOT / "docs" / name).read_text(encoding="utf-8") == generate.PAGES[name](), f"docs/{name} is not what the code says now: make docs"


def test_every_command_stands_in_the_reference_with_its_help(capsys):
    text = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    for called, _, help_text in generate.helps():
        assert f"\n## {called}\n" in text
        assert help_text is None or help_text in text
    assert {f"biqa {name}" for name in DOORS} <= {called for called, _, _ in generate.helps()}


@pytest.mark.parametrize("name", [name for name in (*DOORS, *BESIDE) if generate.help_of(name)])
def test_the_help_in_the_reference_is_what_the_door_prints(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [f"biqa.{name}", "--help"])
    source = (ROOT / "biqa" / f"{name}.py").read_text(encoding="utf-8")
    code = compile(source, f"biqa/{name}.py", "exec")
    with contextlib.suppress(SystemExit):
        exec(code, {"__name__": "__main__", "__doc__": None})
    assert capsys.readouterr().out.strip() == generate.help_of(name)


def test_every_option_of_a_run_stands_in_the_reference_with_a_meaning():
    text = (ROOT / "docs" / "options.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([\w.]+)` \| .* \| (.*?) \|$", text, re.MULTILINE))
    assert all(meaning.strip() for meaning in rows.values()), [name for name, meaning in rows.items() if not meaning.strip()]
    choices = (
        [],
        ["stage=inference", "model=llava", "tuning=lora", "data=koniq", "data.root=x", "answers=vllm"],
        ["model=owl2", "descriptions=measured"],
    )
    for overrides in choices:
        for name in flat(OmegaConf.to_container(composed("config", *overrides, "name=x"))):
            known = name.endswith("_target_") or name.startswith("logger.") or name in rows
            assert known, f"{name} is not in docs/options.md"
