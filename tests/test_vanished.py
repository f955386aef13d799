"""What a run needs is gone in its midst: an image, or a process that loads images. One message, no hang, and the run goes on once that is mended."""

import multiprocessing
import os
import re
import shutil
import signal
from concurrent.futures.process import BrokenProcessPool

import pytest
from planted import at_step

from biqa.errors import WorkerDied
from biqa.stages.limits import limits_in_words

pytest_plugins = ["small_runs"]

OPTIONS = ("stage=joint", "descriptions=measured", "stage.batch_size=1", "stage.epochs=3", "trainer.checkpoint_steps=1", "trainer.cache_mb=0")


@pytest.fixture
def small(call, synthetic, table, tmp_path):
    """A run on six pictures of its own."""
    own = (*(option for option in synthetic if not option.startswith("data.")), *OPTIONS, *table(), f"runs={tmp_path / 'runs'}", "name=a")
    return lambda *options: call("biqa.run", *own, *options)


@pytest.mark.trust
@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_is_deleted_after_the_survey(small, tmp_path, monkeypatch, tally, workers):
    at_step(monkeypatch, 2, lambda: [shutil.move(tmp_path / f"{i}.png", tmp_path / f"{i}.away") for i in range(3)])
    gone = small(f"trainer.workers={workers}")
    monkeypatch.undo()
    assert gone.code == 2
    place = re.escape(str(tmp_path))
    assert re.fullmatch(
        rf"Image ([012]\.png): {place}/\1: there is no such file. It could be read when this command looked at all images. Put it back as it was: "
        r"then the same command goes on \(biqa run: with ckpt=last\).",
        gone.err,
    ), gone.err
    assert list((tmp_path / "runs" / "a" / "checkpoints").glob("step=*.ckpt"))
    for i in range(3):
        shutil.move(tmp_path / f"{i}.away", tmp_path / f"{i}.png")
    assert small("ckpt=last").code == 0
    tally("vanished")


@pytest.mark.trust
def test_a_killed_process_that_loads_images(small, tmp_path, monkeypatch, tally):
    at_step(monkeypatch, 2, lambda: [os.kill(child.pid, signal.SIGKILL) for child in multiprocessing.active_children()])
    killed = small("trainer.workers=1", "stage.epochs=40")
    monkeypatch.undo()
    assert killed.code == 1
    assert killed.err.replace(" (Killed)", "") == (  # torch knows how it ended or only that it did, as it comes
        "A process that loads images was killed. Was there too little memory, or shared memory (df -h /dev/shm; in a container: docker run "
        "--ipc=host)? What helps: a smaller trainer.workers, trainer.cache_mb or images.workers. The same command with ckpt=last goes on."
    )
    assert small("trainer.workers=0", "stage.epochs=40", "ckpt=last").code == 0
    tally("vanished")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("DataLoader worker (pid 12) is killed by signal: Bus error. It is possible that dataloader's workers"), r"\(Bus error\)"),
        (RuntimeError("DataLoader worker (pid(s) 12, 13) exited unexpectedly"), r"killed\. Was"),
        (RuntimeError("unable to write to file </torch_12_3>: No space left on device (28)"), "shared memory"),
        (BrokenProcessPool("A process in the process pool was terminated abruptly"), "loads images was killed"),
    ],
)
def test_how_others_say_it(tmp_path, error, said):
    with pytest.raises(WorkerDied, match=said), limits_in_words(tmp_path):
        raise error
    with pytest.raises(RuntimeError, match="mat1"), limits_in_words(tmp_path):
        raise RuntimeError("mat1 and mat2")


@pytest.mark.parametrize(("file", "error"), [("torch/utils/data/dataloader.py", WorkerDied), ("elsewhere.py", ConnectionResetError)])
def test_a_process_that_is_gone_before_it_hands_over_what_it_told_of(tmp_path, file, error):
    with pytest.raises(error), limits_in_words(tmp_path):
        exec(compile("raise ConnectionResetError(104, 'Connection reset by peer')", file, "exec"))
