"""A run that cannot fit is refused before it trains, and one that fits is not: what is asked for is what is written."""

import json
import re
import shutil
import time
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from biqa import config as schema
from biqa.errors import NoDiskSpace
from biqa.running import room
from biqa.runs import RunFolder

pytest_plugins = ["small_runs"]

OPTIONS = ("stage=joint", "stage.batch_size=24", "stage.epochs=3", "sampling.repeats=0")
LARGE = ("model.hidden=96", "model.layers=2")


def free(monkeypatch, size):
    """So many bytes are free on every disk."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**12, 10**12 - size, size))


@pytest.fixture
def asked(monkeypatch):
    """What the checks ask for, one after another."""
    needs, refuse = [], room.refuse_no_room

    def note(folder, written):
        needs.append(sum(written.values()))
        refuse(folder, written)

    monkeypatch.setattr(room, "refuse_no_room", note)
    return needs


@pytest.mark.trust
@pytest.mark.parametrize("tuning", [(), ("tuning=lora", "tuning.rank=16")], ids=["full", "lora"])
def test_what_is_asked_for_is_what_is_written(run, tmp_path, asked, monkeypatch, tally, tuning):
    assert run(tmp_path, "a", *OPTIONS, *LARGE, *tuning).code == 0
    needs, folder = max(asked), tmp_path / "a"
    sizes = {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    checkpoints = [size for path, size in sizes.items() if path.suffix == ".ckpt"]
    assert len(checkpoints) == 2
    weights = sum(size for path, size in sizes.items() if path.parent.name in ("model", "adapter"))
    written = max(3 * checkpoints[0], 2 * checkpoints[0] + weights)
    assert 0.8 * written < needs < written  # never more than there will be
    started = time.process_time()
    free(monkeypatch, needs - 4096)
    refused = run(tmp_path, "b", *OPTIONS, *LARGE, *tuning)
    assert time.process_time() - started < 5
    assert refused.code == 1
    found = re.fullmatch(
        re.escape(f"{tmp_path / 'b'} cannot be written: it takes at least ")
        + r"(\d+) bytes \(checkpoints [\d.]+ MB, weights or one more checkpoint [\d.]+ MB(, answers [\d.]+ MB)?\), and (\d+) bytes \([\d.]+ MB\) are free "
        r"there. Nothing was written. Make room, choose another runs=FOLDER, or tuning=lora, which writes far less.",
        refused.err,
    )
    assert found, refused.err
    assert int(found[1]) == needs - 48 * 12  # before the data are read, no answer is counted
    assert needs - 4096 <= int(found[3]) < needs - 3000  # its lock lies there
    assert not (tmp_path / "b").exists()
    free(monkeypatch, needs)
    assert run(tmp_path, "b", *OPTIONS, *LARGE, *tuning).code == 0
    if not tuning:
        free(monkeypatch, needs // 2)  # what it holds makes room for it
        assert run(tmp_path, "b", *OPTIONS, *LARGE, "overwrite=true").code == 0
    tally("no_room_for_a_run", tried=2)


def test_a_checkpoint_is_measured_by_its_headers(tmp_path, monkeypatch):
    base, folder = tmp_path / "base", RunFolder(tmp_path / "runs" / "a")
    base.mkdir()
    for number in range(2):
        save_file({"a": torch.zeros(1000, 30), "b": torch.zeros(7)}, base / f"model-{number}.safetensors")
    (base / "damaged.safetensors").write_bytes(b"\xff" * 100)
    model, tuning = SimpleNamespace(id=str(base), dtype="bfloat16"), SimpleNamespace(kind="full")
    config = SimpleNamespace(model=model, tuning=tuning, stage=SimpleNamespace(epochs=1))
    needed = 2 * 2 * 30007
    free(monkeypatch, needed)
    room.refuse_checkpoint_without_room(config, folder)
    free(monkeypatch, needed - 1)
    with pytest.raises(NoDiskSpace, match=rf"runs/a cannot be written: it takes at least {needed} bytes \(weights 0.1 MB\)"):
        room.refuse_checkpoint_without_room(config, folder)
    for changed in (
        {"tuning": SimpleNamespace(kind="lora")}, {"stage": SimpleNamespace(epochs=0)}, {"stage": schema.InferenceStage.__new__(schema.InferenceStage)},
        {"model": SimpleNamespace(id="org/model", dtype="bfloat16")}, {"model": SimpleNamespace()},
    ):  # fmt: skip
        room.refuse_checkpoint_without_room(SimpleNamespace(**{**vars(config), **changed}), folder)
    model.dtype = "float32"
    with pytest.raises(NoDiskSpace, match=f"{2 * needed} bytes"):
        room.refuse_checkpoint_without_room(config, folder)


def test_what_is_no_file_of_weights_asks_for_nothing(tmp_path):
    for content in (b"", b"1234567", (9).to_bytes(8, "little") + b"no json!!", (2**62).to_bytes(8, "little"), *(
        len(text).to_bytes(8, "little") + text for text in (json.dumps({"a": 1}).encode(), b"[]")
    )):  # fmt: skip
        (tmp_path / "a.safetensors").write_bytes(content)
        assert room.numbers_in(tmp_path / "a.safetensors") == 0
    assert room.numbers_in(tmp_path / "nothing") == 0
