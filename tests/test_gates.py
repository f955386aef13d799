"""What stands nowhere in biqa/, and what importing biqa or asking it for help never does."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from biqa.command import DOORS

SOURCES = sorted((Path(__file__).parents[1] / "biqa").rglob("*.py"))
NEVER = {
    "weights that may run code": r"weights_only\s*=\s*False|load_from_checkpoint|allow_pickle\s*=\s*True",
    "code of a checkpoint": r"trust_remote_code\s*=\s*True",
    "pickles": r"\b(pickle|cPickle|dill|joblib|shelve|marshal)\.(load|loads|open)\b|read_pickle",
    "YAML that makes objects": r"yaml\.(load|load_all)\((?![^\n]*SafeLoader)|unsafe_load|full_load|FullLoader|UnsafeLoader",
    "text as code": r"(?<![\w.])(eval|exec|compile)\(",
    "a shell": r"shell\s*=\s*True|os\.(system|popen)\(|subprocess\.getoutput",
    "archives": r"extractall|unpack_archive",
    "Hydra's own instantiate": r"hydra\.utils\.(instantiate|call)|import instantiate\b",
    "images of any format": r"(?<!def )\bImage\.open\((?![^\n]*formats=)",
    "torch's loader without its guard": r"torch\.load\((?![^\n]*weights_only=True)",
}
"""What -> its pattern."""
UNLESS = {
    ("pickles", "launching.py"): "what a process of ours tells of its end, in a pipe that it and nobody else has",
    ("Hydra's own instantiate", "instantiate.py"): "says why not",
    ("images of any format", "page.py"): "a figure that biqa has just drawn",
    ("images of any format", "compression.py"): "what it has just compressed itself",
    ("images of any format", "card_program.py"): "a program for the model card, about a picture of the reader's",
}
"""What, and the file that may -> why."""


def found(what: str) -> list[str]:
    """File and line of each place."""
    return [
        f"{file.name}:{number}: {line.strip()}"
        for file in SOURCES
        if (what, file.name) not in UNLESS
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1)
        if re.search(NEVER[what], line.partition("#")[0])
    ]


@pytest.mark.parametrize("what", NEVER)
def test_what_is_never_done(what):
    assert not found(what)


@pytest.mark.parametrize(
    ("what", "line"),
    [
        ("weights that may run code", "torch.load(path, weights_only=False)"), ("code of a checkpoint", "AutoModel.from_pretrained(x, trust_remote_code=True)"),
        ("pickles", "pickle.loads(data)"), ("YAML that makes objects", "yaml.load(data)"), ("text as code", "x = eval(data)"),
        ("a shell", "subprocess.run(line, shell=True)"), ("archives", "archive.extractall(place)"), ("images of any format", "with Image.open(path) as image:"),
        ("torch's loader without its guard", "torch.load(path)"), ("Hydra's own instantiate", "from hydra.utils import instantiate"),
    ],
)  # fmt: skip
def test_the_gate_would_notice(what, line):
    assert re.search(NEVER[what], line)


QUIET = """
import contextlib, io, json, runpy, sys

events = []
def listen(event, arguments):
    if event.startswith(("socket.", "subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.fork")) and event != "socket.gethostname":
        events.append(f"{event} {arguments!r:.100}")
sys.addaudithook(listen)
told = {}
for line in json.loads(sys.stdin.read()):
    del events[:]
    door, *sys.argv[1:] = line
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            if door == "import biqa":
                import biqa
            else:
                runpy.run_module(f"biqa.{door}", run_name="__main__", alter_sys=True)
        except SystemExit as end:
            assert end.code in (0, None), out.getvalue()
    told[" ".join(line)] = list(events)
import socket
with contextlib.suppress(OSError):
    socket.create_connection(("127.0.0.1", 9), timeout=1)
told["the control"] = list(events)
print(json.dumps(told))
"""


def test_import_help_and_lists_open_no_socket_and_start_no_process(tmp_path):
    asked = [["import biqa"], ["command", "--help"], *([door, "--help"] for door in DOORS), ["ls", f"runs={tmp_path}"], ["completion", "bash"]]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", QUIET], input=json.dumps(asked), cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told.pop("the control"), "the control was not noticed"
    assert len(told) == len(asked)
    assert not {asked: events for asked, events in told.items() if events}


FLOORS = {
    "lightning": "2.6.6", "torch": "2.11", "transformers": "5.3", "hydra-core": "1.3.8", "pillow": "12.3", "omegaconf": "2.3", "pyarrow": "14.0.1", "gradio": "6.16",
}  # fmt: skip
"""Package -> the oldest release without a known hole that biqa would open."""


def test_floors_lie_above_every_known_hole():
    import tomllib

    from packaging.requirements import Requirement
    from packaging.version import Version

    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [
        Requirement(text) for text in [*project["dependencies"], *(text for extra in project["optional-dependencies"].values() for text in extra)]
    ]
    floors = {one.name.lower(): max(Version(part.version) for part in one.specifier if part.operator == ">=") for one in wanted if one.name != "biqa"}
    assert {name: str(floors[name]) for name, least in FLOORS.items() if floors[name] < Version(least)} == {}
    tested = (Path(__file__).parents[1] / "constraints.txt").read_text(encoding="utf-8")
    pinned = {name.lower(): Version(version) for name, version in re.findall(r"^([\w.-]+)==(\S+)", tested, re.MULTILINE)}
    assert {name for name, least in FLOORS.items() if name in pinned and pinned[name] < Version(least)} == set()
