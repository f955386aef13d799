"""Keys and the user's folders: what a run, its report, its page and its card are made of is published, and says nothing of them."""

import sys
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from PIL import Image

from biqa.reporting.result import without_home

pytest_plugins = ["small_runs"]

KEYS = {
    name: f"sk-s3cr3t-{name.lower()}-0123456789" for name in ("WANDB_API_KEY", "HF_TOKEN", "OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY", "TEACHER_KEY")
}
USER = "alice-s3cr3t"


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """The home of a user, in which everything lies, with keys in the environment and on the disk."""
    folder = tmp_path / USER
    (folder / "photos").mkdir(parents=True)
    (folder / ".netrc").write_text(f"machine api.wandb.ai login user password {KEYS['WANDB_API_KEY']}\n")
    for name, value in {**KEYS, "HOME": str(folder), "USER": USER, "LOGNAME": USER}.items():
        monkeypatch.setenv(name, value)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 48, 3), np.uint8)).save(folder / "photos" / "a.png")
    (folder / "photos" / "broken.png").write_text("none")
    monkeypatch.chdir(folder)
    return folder


def said_of(folder: Path) -> dict[str, str]:
    """File -> what stands in it; the pictures' own names are left, and config.yaml and .netrc are not published."""
    return {
        str(file.relative_to(folder)): file.read_bytes().decode("latin-1")
        for file in folder.rglob("*")
        if file.is_file() and file.name not in ("config.yaml", ".netrc") and not {"checkpoints", "cache"} & {*file.parts}
    }


def test_no_key_and_no_home_stands_in_what_is_published(home, call, synthetic):
    from biqa import config as schema
    from biqa import predict

    small = [option for option in synthetic if not option.startswith("data.root")]
    runs = home / "runs"
    options = (
        f"runs={runs}",
        "name=a",
        "stage=joint",
        "stage.epochs=1",
        f"data.root={home / 'data'}",
        f"images.cache={home / 'cache'}",
        "tuning=lora",
    )
    done = call("biqa.run", *small, *options)
    assert done.code == 0, done.err
    reported = call("biqa.report", f"runs={runs}", f"out={home / 'report'}", "resamples=20")
    assert reported.code == 0, reported.err
    schema.register()
    arguments = (f"run={runs / 'a'}", f"html={home / 'page.html'}", f"out={home / 'report' / 'p.jsonl'}", "progress=false", str(home / "photos"))
    with patch.object(sys, "argv", ["predict", *arguments]), pytest.raises(SystemExit):
        predict.enter()
    texts = said_of(home)
    assert {"page.html", "report/table.md", "runs/a/result.json", "runs/a/adapter/README.md", "runs/a/logs/metrics.csv"} <= texts.keys()
    everything = {**texts, "terminal": done.out + done.err + reported.out + reported.err}
    assert not {name for name, text in everything.items() if any(key in text for key in KEYS.values())}
    data = "report/p.jsonl"  # results of files: these are called as they were named
    assert USER in texts.pop(data)
    assert not {name for name, text in texts.items() if USER in text}


def test_the_home_folder_is_a_tilde_and_its_neighbour_is_not(monkeypatch):
    monkeypatch.setenv("HOME", "/home/al")
    assert without_home({"a": ["/home/al/x", "/home/alice/x", "/home/al", "no /home/al/x"], "b": 1}) == {
        "a": ["~/x", "/home/alice/x", "~", "no /home/al/x"], "b": 1,
    }  # fmt: skip
    monkeypatch.setenv("HOME", "/")
    assert without_home("/x") == "/x"
