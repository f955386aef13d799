"""Processes of one run: they tell each other what they should, end together, and what went wrong is raised in the one that started them."""

import os
import resource
import signal
import subprocess
import sys
import time
from functools import partial
from multiprocessing import Pipe

import pytest
import torch

from biqa.errors import BadRecord
from biqa.running import launching
from biqa.running.launching import ProcessDied, _Member, _wait_for, launch
from biqa.running.processes import (
    STARTED_HERE,
    Waits,
)

pytest_plugins = ["quick_processes"]
READY = ("torch.distributed", "biqa.stages.checkpoints", "biqa.running.launching")
pytestmark = pytest.mark.filterwarnings("ignore:.*resource_tracker")


def tell_each_other(folder):
    from biqa.stages.together import first, from_first, gathered, gathered_by_first, largest, rank, weight_of_means, world

    assert (world(), first()) == (3, rank() == 0)
    assert os.environ["OMP_NUM_THREADS"]
    assert from_first(lambda: f"of {rank()}") == "of 0"
    assert gathered(rank() * 10) == [0, 10, 20]
    assert gathered_by_first("abc"[rank()]) == (["a", "b", "c"] if first() else [])
    assert largest((5, 15, 2)[rank()]) == 15
    # means of 1, 2 and 0 things here: weighted, their mean is the mean of all
    count = torch.tensor([1.0, 2.0, 0.0])[rank()]
    mean = torch.tensor([3.0, 6.0, 100.0])[rank()]
    weighted = gathered(float(mean * weight_of_means(count[None])[0]))
    assert sum(weighted) / 3 == pytest.approx((3.0 + 2 * 6.0) / 3)
    (folder / f"{rank()}").touch()


def test_they_tell_each_other(quickly, tmp_path):
    before = dict(os.environ)
    launch(3, tell_each_other, tmp_path, gpus=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1", "2"]
    assert before.items() <= dict(os.environ).items()
    assert not {"RANK", "LOCAL_RANK", "WORLD_SIZE", STARTED_HERE} & set(os.environ)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def refuse():
    raise BadRecord("image.png: cannot be decoded. Repair it.")


def fail():
    raise ZeroDivisionError("one of two")


def refuse_on_a_full_disk():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    refuse()


def sleep_for_ever():
    time.sleep(1e6)


def kill_by(number):
    os.kill(os.getpid(), number)
    time.sleep(1e6)


WRONG = {
    "mistake": refuse,
    "defect": fail,
    "full disk": refuse_on_a_full_disk,
    "sleeps": sleep_for_ever,
    "killed": partial(kill_by, signal.SIGKILL),
    "crashed": partial(kill_by, signal.SIGSEGV),
    "stopped": partial(kill_by, signal.SIGSTOP),
    "left": partial(os._exit, 3),
}


def go_wrong(how, guilty=1):
    import torch.distributed as dist

    from biqa.stages.together import from_first, rank

    if how == "said by the first":
        from_first(refuse)
    if rank() == guilty:
        WRONG[how]()
    dist.barrier()  # the others wait for a process that is gone


QUICKLY = Waits(step=2.0, first=20.0)
SAID = {
    "said by the first": (BadRecord, r"^image\.png: cannot be decoded\. Repair it\.$"),
    "mistake": (BadRecord, r"^image\.png: cannot be decoded\. Repair it\.$"),
    "full disk": (BadRecord, r"^image\.png: cannot be decoded\. Repair it\.$"),
    "defect": (ProcessDied, r"(?s)^In process {guilty} of {world}:\nTraceback.*ZeroDivisionError: one of two"),
    "killed": (ProcessDied, r"^The process of rank {guilty} was killed by SIGKILL and said nothing\. Was there too little memory\?$"),
    "crashed": (ProcessDied, r"(?s)^The process of rank {guilty} was killed by SIGSEGV and said this:\nFatal Python error.*in kill_by"),
    "left": (ProcessDied, r"^The process of rank {guilty} ended with exit code 3 and said nothing\."),
    "sleeps": (
        ProcessDied,
        r"(?s)^The process of rank {guilty} did not come while others waited for it \(strategy\.timeout=2, strategy\.first_timeout=20, in seconds\)\.\n"
        r"rank {guilty} stood here:\n.*in sleep_for_ever.*Choose a larger strategy\.timeout; with ckpt=last the run goes on\.$",
    ),
    "stopped": (ProcessDied, r"(?s)^The process of rank {guilty} did not come .*\nrank {guilty} stood here:\nit did not say where\."),
}


def ends(how, world=2, guilty=1):
    """Seconds until all have ended and the cause is told."""
    error, said = SAID[how]
    start = time.monotonic()
    with pytest.raises(error, match=said.replace("{guilty}", str(guilty)).replace("{world}", str(world))):
        launch(world, go_wrong, how, guilty, gpus=False, waits=QUICKLY)
    return time.monotonic() - start


@pytest.mark.parametrize("how", ["said by the first", "defect", "full disk", "killed", "crashed", "sleeps"])
def test_what_goes_wrong_in_one_ends_all_and_is_told_once(quickly, how):
    assert ends(how) < 40


def test_a_process_that_begins_from_nothing_tells_too():
    assert ends("mistake") < 60


@pytest.mark.faults
@pytest.mark.parametrize("world", [2, 3, 4])
@pytest.mark.parametrize("how", SAID)
def test_whoever_goes_wrong_ends_all_within_a_minute_and_is_named(quickly, tally, how, world):
    for guilty in (0, world - 1):
        tally("no_hang", seconds=ends(how, world, guilty))


def compute(seconds):
    until = time.process_time() + seconds
    while time.process_time() < until:
        sum(range(1000))


def let_another_compute(seconds):
    subprocess.run([sys.executable, "-c", f"import time\nwhile time.process_time() < {seconds}: sum(range(1000))"], check=True)


def ask_a_server(seconds):
    import httpx

    httpx.ask(seconds)


def wait_for_each_other(_):
    import torch.distributed as dist

    # each in a group of its own, as where one has left out a step
    groups = [dist.new_group([0, 1], backend="gloo") for _ in range(2)]
    dist.barrier(group=groups[dist.get_rank()])


def be_slow(work, seconds, server, guilty=1):
    import torch.distributed as dist

    from biqa.stages.together import from_first, rank

    sys.path.insert(0, str(server))
    if guilty == 0:
        from_first(partial(work, seconds))
    elif rank() == guilty:
        work(seconds)
    dist.barrier()


def stop(_):
    os.kill(os.getpid(), signal.SIGSTOP)


STILL = Waits(step=600.0, first=600.0, still=2.0)


@pytest.fixture
def server(tmp_path):
    """A stand-in for a client that waits for its server."""
    (tmp_path / "httpx").mkdir()
    (tmp_path / "httpx" / "__init__.py").write_text("import time\ndef ask(seconds): time.sleep(seconds)\n")
    return tmp_path


@pytest.mark.parametrize("guilty", [0, 1])
def test_one_that_stands_still_ends_all_long_before_the_timeout(quickly, server, guilty):
    with pytest.raises(ProcessDied) as raised:
        launch(2, be_slow, time.sleep, 1e6, server, guilty, gpus=False, waits=STILL)
    said = str(raised.value)
    assert said.startswith(f"The process of rank {guilty} stands still: 2 s without any work.\nrank {guilty} stood here:\n")
    assert "in be_slow" in said
    assert f"rank {1 - guilty}" not in said
    assert said.endswith("With ckpt=last the run goes on. Does it wait on purpose, as in a debugger? Choose strategy.still=inf.")


@pytest.mark.faults
@pytest.mark.parametrize("world", [2, 3, 4])
@pytest.mark.parametrize("work", [time.sleep, stop])
def test_whoever_stands_still_ends_all_although_the_timeout_is_far(quickly, tally, server, work, world):
    for guilty in (0, world - 1):
        start = time.monotonic()
        with pytest.raises(ProcessDied, match=rf"^The process of rank {guilty} stands still: 2 s without any work\.\nrank {guilty} stood here:"):
            launch(world, be_slow, work, 1e6, server, guilty, gpus=False, waits=STILL)
        tally("no_hang", seconds=time.monotonic() - start)


def test_one_that_is_stopped_stands_still_too(quickly, server):
    with pytest.raises(ProcessDied, match=r"^The process of rank 1 stands still: .*\nrank 1 stood here:\nit did not say where\."):
        launch(2, be_slow, stop, 0, server, gpus=False, waits=STILL)


def test_those_that_wait_for_each_other_stand_still(quickly, server):
    with pytest.raises(
        ProcessDied, match=r"(?s)^The process of rank 0 and rank 1 stands still: .*rank 0 stood here:.*rank 1 stood here:.*in barrier"
    ):
        launch(2, wait_for_each_other, None, gpus=False, waits=STILL)


@pytest.mark.parametrize("work", [compute, let_another_compute, ask_a_server])
def test_one_that_is_only_slow_does_not_stand_still(quickly, server, work):
    """It computes, has another compute, or waits for a server: the others wait as long as that takes."""
    launch(2, be_slow, work, 4.0, server, gpus=False, waits=STILL)


def test_who_chooses_so_may_stand_still(quickly, server):
    launch(2, be_slow, time.sleep, 3.0, server, gpus=False, waits=Waits(step=600.0, first=600.0, still=float("inf")))


def wait_for_the_first(seconds):
    from biqa.stages.together import from_first

    assert from_first(lambda: time.sleep(seconds)) is None


def test_the_first_may_be_longer_at_work_alone_than_a_step_takes(quickly):
    launch(2, wait_for_the_first, 3.0, gpus=False, waits=Waits(step=0.5, first=60.0))
    with pytest.raises(ProcessDied, match=r"(?s)^The process of rank 0 did not come .*\nrank 0 stood here:.*in wait_for_the_first"):
        launch(2, wait_for_the_first, 30.0, gpus=False, waits=Waits(step=20.0, first=1.0))


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def leave():
    os._exit(3)


@pytest.mark.parametrize("die", [die, leave])
def test_a_death_without_a_word_is_the_cause_although_another_has_told_of_its_loss(quickly, tmp_path, die):
    process = launching.get_context("spawn").Process
    dead, other = (_Member(process(target=work, name=work.__name__), Pipe()[0], tmp_path) for work in (die, str))
    for member in (dead, other):
        member.process.start()
        member.process.join()
    other.told = (0.0, None, "a partner is gone", False)
    assert _wait_for([other, dead]) == (True, dead, {})
