"""TAB: what may follow, asked of the program and of a real bash."""

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import pytest
from light_doors import HEAVY, loaded

from biqa import analyze, report
from biqa import config as schema
from biqa.command import DOORS
from biqa.completion import ALONE, FLAGS, LIGHT, SCRIPTS, WORDS, main, suggestions
from biqa.errors import UserError
from biqa.ls import ORDERS

CHECKOUT = Path(__file__).parents[1]
CONF = Path(schema.config_directory())


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with two runs, one of them with a blank in its name, and pictures."""
    monkeypatch.chdir(tmp_path)
    for name in ("joint-s0", "joint two"):
        (tmp_path / "runs" / "more" / name).mkdir(parents=True)
        (tmp_path / "runs" / "more" / name / "config.yaml").touch()
    (tmp_path / "runs" / "tiny").mkdir()
    (tmp_path / "runs" / "tiny" / "config.yaml").touch()
    (tmp_path / "photo.jpg").touch()
    (tmp_path / ".hidden").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("biqa", []),
        ("biqa r", ["report ", "reproduce ", "rerun ", "run "]),
        ("biqa help pr", ["predict ", "prepare "]),
        ("biqa run mod", ["model.", "model="]),
        ("biqa run stage=1 model=ow", ["model=owl2 "]),
        ("biqa run model=none sampling.rep", ["sampling.repeats="]),
        ("biqa run model=owl2 model.pre", ["model.pre_step="]),
        ("biqa run model.grid", ["model.grid="]),
        ("biqa run stage=2 stage.perc", ["stage.perception="]),
        ("biqa run stage.perc", []),
        ("biqa run -m stage=joint,z", ["stage=joint,zero_shot "]),
        ("biqa run data=koniq+sp", ["data=koniq+spaq "]),
        ("biqa run test=[live,cs", ["test=[live,csiq "]),
        ("biqa run test=\\[live,cs", ["test=[live,csiq "]),
        ("biqa run trainer.precision=b", ["trainer.precision=bf16-mixed "]),
        ("biqa run trainer.progress=", ["trainer.progress=false ", "trainer.progress=true "]),
        ("biqa run overwrite=t", ["overwrite=true "]),
        ("biqa run hydra/launcher=sub", ["hydra/launcher=submitit_local ", "hydra/launcher=submitit_slurm "]),
        ("biqa run images.work", ["images.workers="]),
        ("biqa run model@descriptions.model=owl", ["model@descriptions.model=owl2 "]),
        ("biqa run --mul", ["--multirun "]),
        ("biqa run nothing=", []),
        ("biqa search search=l", ["search=learning_rate "]),
        ("biqa search search.tri", ["search.trials="]),
        ("biqa prepare data=kad", ["data=kadid "]),
        ("biqa analyze analysis=gr", ["analysis=grounding "]),
        ("biqa analyze ag", ["against="]),
        ("biqa report baseline=z", ["baseline=zero_shot "]),
        ("biqa ls --j", ["--json "]),
        ("biqa ls json=", ["json=false ", "json=true "]),
        ("biqa completion z", ["zsh "]),
        ("biqa reproduce see", ["seeds="]),
        ("biqa demo open=", ["open=false ", "open=true "]),
        ("biqa train ", []),
        ("biqa run stage.init_from=", ["stage.init_from=base ", "stage.init_from=runs/more/", "stage.init_from=runs/tiny "]),
        ("biqa analyze run=runs/more/j", ["run=runs/more/joint two ", "run=runs/more/joint-s0 "]),
        ("biqa compare runs/ti", ["runs/tiny "]),
        ("biqa compare runs/tiny against=runs/t", ["against=runs/tiny "]),
        ("biqa rerun ru", ["run=", "runs=", "runs/"]),
        ("biqa ls run", ["runs=", "runs/"]),
        ("biqa predict run=runs/tiny ph", ["photo.jpg "]),
        ("biqa predict 'a b' ph", ["photo.jpg "]),
        ("biqa predict nowhere/", []),
        ("biqa run datasets=ru", ["datasets=runs/"]),
        ("biqa analyze run=runs/more/joint\\ t", ["run=runs/more/joint two "]),
    ],
)
def test_what_may_follow(place, line, found):
    assert suggestions(line) == found


def test_after_a_blank_comes_anything_that_may(place):
    assert set(suggestions("biqa ")) == {f"{word} " for word in (*DOORS, "help", "--help", "--version")}
    groups = {path.name for path in CONF.iterdir() if path.is_dir() and any(path.glob("*.yaml"))} - {"search", "hydra"}
    offered = suggestions("biqa run ")
    assert {f"{group}=" for group in groups} | {"test=", "seed=", "name=", "ckpt=", "overwrite="} <= set(offered)
    assert "images=" not in offered
    assert suggestions("biqa run --help ") == offered
    assert set(suggestions("biqa compare ")) >= {"run=", "against=", "out=", "runs/tiny "}
    assert ".hidden " not in suggestions("biqa predict ")


@pytest.mark.parametrize("group", ["model", "stage", "data", "descriptions", "tuning", "trainer", "logger", "strategy"])
def test_choices_are_the_files_of_a_group(group):
    assert suggestions(f"biqa run {group}=") == [f"{group}={path.stem} " for path in sorted((CONF / group).glob("*.yaml"))]


@pytest.mark.parametrize("model", ["tiny", "owl2", "hf", "qwen3_vl"])
def test_options_of_a_choice_are_those_of_its_schema(model):
    kind = schema.SCHEMAS[model if model in schema.SCHEMAS else "hf"]
    assert suggestions(f"biqa run model={model} model.") == sorted(f"model.{field.name}=" for field in fields(kind) if field.name != "_target_")


def test_words_of_options_are_those_that_the_doors_take():
    assert set(WORDS["analysis"]) == {*analyze.CHOICES, "all"}
    assert set(WORDS["baseline"]) == set(report.BASELINES)
    assert set(WORDS["sort"]) == set(ORDERS)
    assert {*LIGHT, *ALONE, *FLAGS} <= set(DOORS)
    schema.register()
    for name, words in WORDS.items():
        group, _, option = name.partition(".")
        if option:
            line = {
                "quantization": "biqa run quantization=nf4 ",
                "stage": "biqa run stage=2 ",
                "answers": "biqa run answers=vllm ",
                "model": "biqa run model=hf ",
            }
            assert suggestions(f"{line.get(group, 'biqa run ')}{name}=")[: len(words)], name
            assert f"{name}=" in suggestions(f"{line.get(group, 'biqa run ')}{name}"), name


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ([], r"Which shell\? Name it: biqa completion bash, biqa completion zsh, biqa completion fish\."),
        (["tcsh"], r"shell=tcsh is not known: choose bash, zsh, fish\."),
        (["--bash"], r"There is no option bash\."),
    ],
)
def test_what_is_refused(typed, message):
    with pytest.raises(UserError, match=message):
        main(typed)


def test_it_loads_little(tmp_path):
    code, packages = loaded(tmp_path, "completion", "line=biqa run model=")
    assert code == 0
    assert not packages & (HEAVY | {"hydra", "omegaconf", "numpy", "rich"})


@pytest.fixture
def command(tmp_path) -> Path:
    """A folder for PATH with `biqa` in it."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "biqa").write_text(f'#!/bin/sh\nPYTHONPATH="{CHECKOUT}" exec "{sys.executable}" -m biqa "$@"\n')
    (folder / "biqa").chmod(0o755)
    return folder


ASK = """
eval "$(biqa completion bash)"
COMP_LINE=$1 COMP_POINT=${2:-${#1}}
COMP_WORDS=(biqa)
[[ $(complete -p biqa) == "complete -o nospace -F _biqa biqa" ]] && _biqa
printf '%s\\n' "${COMPREPLY[@]}"
"""


def ask(command: Path, place: Path, line: str, point: str = "") -> list[str]:
    """COMPREPLY of a real bash that has sourced the script."""
    environment = os.environ | {"PATH": f"{command}:{os.environ['PATH']}"}
    typed = ["bash", "--norc", "-c", ASK, "bash", line, *([point] if point else [])]
    done = subprocess.run(typed, cwd=place, env=environment, capture_output=True, text=True, check=True)
    assert not done.stderr
    return done.stdout.splitlines()


def test_a_real_bash_is_told_what_follows_the_equals_sign(command, place):
    """bash takes "=" for the end of a word, and puts what it is given in the place of what follows it."""
    assert ask(command, place, "biqa re") == ["report ", "reproduce ", "rerun "]
    assert ask(command, place, "biqa run model=ow") == ["owl2 "]
    assert ask(command, place, "biqa run test=[live,cs") == [r"\[live,csiq "]
    assert ask(command, place, "biqa analyze run=runs/more/j") == [r"runs/more/joint\ two ", "runs/more/joint-s0 "]
    assert ask(command, place, "biqa run model=ow stage=1", "17") == ["owl2 "], "the cursor may stand in the middle"


def test_tab_in_an_interactive_bash(command, place):
    """The line as readline leaves it: what is the only way on is typed by TAB."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(place)
        os.environ |= {"PATH": f"{command}:{os.environ['PATH']}", "PS1": "$ ", "TERM": "dumb", "INPUTRC": "/dev/null"}
        os.execvp("bash", ["bash", "--norc", "--noprofile", "-i"])
    seen = ""

    def until(word: str, seconds: float = 10) -> None:
        nonlocal seen
        end = time.monotonic() + seconds
        while word not in seen and time.monotonic() < end:
            if select.select([terminal], [], [], 0.1)[0]:
                seen += os.read(terminal, 4096).decode(errors="replace").replace("\a", "")
        assert word in seen, seen

    try:
        os.write(terminal, b'eval "$(biqa completion bash)"; echo re""ady\n')
        until("ready\r\n")
        os.write(terminal, b"biqa ru\t")
        until("biqa run ")
        os.write(terminal, b"mod\t=ow\t")
        until("model=owl2 ")
        os.write(terminal, b"stage.init_from=runs/t\t")
        until("stage.init_from=runs/tiny ")
    finally:
        os.write(terminal, b"\x15exit\n")
        os.close(terminal)
        os.waitpid(pid, 0)


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_read_their_scripts(shell, tmp_path):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not here")
    script = tmp_path / "script"
    script.write_text(SCRIPTS[shell])
    assert subprocess.run([shell, "-n", str(script)], check=False).returncode == 0


def test_an_answer_comes_in_less_than_half_a_second(place):
    environment = os.environ | {"PYTHONPATH": str(CHECKOUT)}
    command = [sys.executable, "-m", "biqa.completion", "line=biqa run stage=2 stage."]
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run(command, cwd=place, env=environment, capture_output=True, check=True)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.5
