"""The wheel: what is in it, and that it works in a place of its own, far from the checkout."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from zipfile import ZipFile

import pytest

import biqa
from biqa.command import HELP
from docs.generate import help_of

CHECKOUT = Path(__file__).parents[1]
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "biqa", "conf", "tests")
"""What is copied to build from: what the build reads, and the tests, which must stay out of the wheel."""


def python(*arguments: str, cwd: Path, path: Path | None = None) -> str:
    """Output of a Python of its own, which finds packages in `path` first and nothing in the working directory."""
    environment = os.environ | {"PYTHONPATH": str(path or ""), "PYTHONSAFEPATH": "1", "PYTHONDONTWRITEBYTECODE": "1", "PIP_NO_INPUT": "1"}
    done = subprocess.run([sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def files(folder: Path) -> set[str]:
    """Paths of all files below a folder, caches of Python aside."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the sources with what lies about in a checkout that is in use."""
    copy = tmp_path_factory.mktemp("copy")
    for name in SOURCES:
        if (CHECKOUT / name).is_dir():
            shutil.copytree(CHECKOUT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(CHECKOUT / name, copy)
    for litter in ("runs/x/result.json", "data/synthetic/x/labels.csv", "wandb/x.log", "dist/old.whl"):
        (copy / litter).parent.mkdir(parents=True)
        (copy / litter).write_text("{}")
    out = tmp_path_factory.mktemp("dist")
    python("-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), cwd=copy)
    [built] = out.iterdir()
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the wheel is installed into, without network."""
    target = tmp_path_factory.mktemp("target")
    python("-m", "pip", "install", "--no-deps", "--no-index", "--disable-pip-version-check", "--target", str(target), str(wheel), cwd=target)
    return target


@pytest.fixture(scope="module")
def command(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`biqa` of a clean virtual environment that holds the wheel and nothing else; what biqa stands on is read where this Python has it."""
    place = tmp_path_factory.mktemp("clean") / "venv"
    python("-m", "venv", "--without-pip", str(place), cwd=place.parent)
    [packages] = place.glob("lib/python*/site-packages")
    python("-m", "pip", f"--python={place}", "install", "--no-deps", "--no-index", "--disable-pip-version-check", str(wheel), cwd=place.parent)
    # a path alone: what makes this checkout importable there (an editable install) is not followed
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return place / "bin" / "biqa"


def test_the_command_of_a_clean_environment(command: Path, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}

    def typed(*arguments: str) -> str:
        done = subprocess.run([command, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert typed("--version") == f"biqa {biqa.__version__}\n"
    assert typed("--help") == f"{HELP}\n"
    for door in ("run", "predict", "compare", "ls", "rerun"):
        assert typed(door, "--help").strip() == help_of(door)
    assert "name: tiny-inference-synthetic-s3" in typed("run", "stage=2", "seed=3", "--cfg", "job", "--resolve")
    assert "complete -o nospace -F _biqa biqa" in typed("completion", "bash")
    assert "data=koniq" in typed("completion", "shell=bash", "line=biqa run data=ko")
    (tmp_path / "runs").mkdir()
    assert json.loads(typed("ls", "--json")) == []
    where = [str(command.parent / "python"), "-P", "-c", "import biqa; print(biqa.__file__)"]
    assert command.parents[1] in Path(subprocess.run(where, env=environment, capture_output=True, text=True, check=True).stdout).parents


def test_the_wheel_holds_the_package_the_configs_and_nothing_else(wheel: Path) -> None:
    assert wheel.name == f"biqa-{biqa.__version__}-py3-none-any.whl"
    with ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.startswith(f"biqa-{biqa.__version__}.dist-info/")}
    package, configs = files(CHECKOUT / "biqa"), files(CHECKOUT / "conf")
    assert names == {f"biqa/{name}" for name in package} | {f"biqa/conf/{name}" for name in configs}
    assert {"biqa/conf/config.yaml", "biqa/conf/report.yaml", "biqa/conf/stage/inference.yaml", "biqa/run.py"} <= names
    assert [name for name in names if name.endswith(".csv")] == ["biqa/data/kadid_opinions.csv"]
    assert [name for name in names if name.endswith(".jinja")] == ["biqa/reporting/page.html.jinja"]
    assert {Path(name).suffix for name in names} == {".py", ".yaml", ".csv", ".jinja"}


def test_the_installed_package_is_the_one_that_runs(installed: Path, tmp_path: Path) -> None:
    where = python("-c", "import biqa, biqa.config as c; print(biqa.__file__); print(c.config_directory())", cwd=tmp_path, path=installed)
    assert where.splitlines() == [str(installed / "biqa" / "__init__.py"), str(installed / "biqa" / "conf")]
    assert python("-c", "from biqa.data.kadid_opinions import opinions; print(len(opinions()))", cwd=tmp_path, path=installed) == "125\n"


def test_the_doors_of_the_installed_package(installed: Path, tmp_path: Path) -> None:
    options = ("-m", "biqa.run", "stage=2", "tuning=lora", "seed=3", "--cfg", "job")
    config = python(*options, cwd=tmp_path, path=installed)
    assert "name: tiny-inference-synthetic-s3" in python(*options, "--resolve", cwd=tmp_path, path=installed)
    assert config == python(*options, cwd=tmp_path, path=CHECKOUT)
    assert "python -m biqa.report baseline=zero_shot" in python("-m", "biqa.report", "--help", cwd=tmp_path, path=installed)
    assert not list(tmp_path.iterdir())
