"""Processes of a run that are started here, on one machine, and what is said when one of them goes wrong.

Not Lightning's own launcher: that runs the command line again in every process, and a job of a sweep has none of its own. Not torch's elastic agent:
it restarts and negotiates, which one machine needs not, and tells what went wrong in a box of its own. Here each process gets the job as it is, the
first that fails ends all, and its error is raised here as if it had happened here. One that stands still (`biqa.running.stillness`) ends all after
`strategy.still`, one that is at work and does not come after `strategy.timeout`; either is told with the place where it stands.
"""

import faulthandler
import logging
import os
import pickle
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import inf
from multiprocessing import Pipe, get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any

from biqa.errors import MachineLimit, UserError
from biqa.running.processes import AS_USUAL, SLOW, STARTED_HERE, Waits, die_with_the_parent, joined, late
from biqa.running.stillness import ELSEWHERE, TOGETHER, Watch, waits_for

PATIENCE = 120.0
"""Seconds that processes get to finish a step and write a checkpoint when the user stops the run."""
AFTERMATH = 2.0
"""Seconds that the others get to say what they died of when one has failed, before they are killed."""
ANSWERS = 2.0
"""Seconds that one gets to say where it stands."""
PAUSE = 0.2
"""Seconds between two looks at what they have told."""
STILL_ON_PURPOSE = "With ckpt=last the run goes on. Does it wait on purpose, as in a debugger? Choose strategy.still=inf."
NOTHING = "nothing. Was there too little memory?"


class ProcessDied(RuntimeError):
    """A process of the run ended by a defect, or was killed."""


@dataclass(eq=False)
class _Member:
    """One of the processes that were started here, what it says when it goes wrong, and where it leaves its stack."""

    process: BaseProcess
    words: Connection
    stack: Path
    told: tuple[float, BaseException | None, str, bool] | None = None
    """When it went wrong, by what if that can travel, its stack trace in words, and whether it has waited for another in vain."""

    @property
    def alive(self) -> bool:
        return self.process.pid is not None and self.process.is_alive()

    def listen(self) -> None:
        """Take what it has said. Through a pipe and not a file: where the disk is full it has to say so."""
        if self.told is None and not self.words.closed:
            with suppress(EOFError, OSError):
                if self.words.poll():
                    self.told = pickle.loads(self.words.recv_bytes())

    def where(self, *, ask: bool) -> str:
        """Its stack, most recent call first: that of its death if it had time for one, or the present one where it is asked to say it."""
        said = self._said()
        if not ask or self.process.pid is None or not self.stack.is_file():  # without the file it does not know the signal yet
            return said
        os.kill(self.process.pid, signal.SIGQUIT)
        now, until = said, time.monotonic() + ANSWERS
        while time.monotonic() < until and (now == said or now != self._said()):
            now = self._said()
            time.sleep(PAUSE)
        return now[len(said) :].strip()

    def _said(self) -> str:
        return self.stack.read_text(encoding="utf-8", errors="replace") if self.stack.is_file() else ""


def launch(number: int, work: Callable[..., object], *given: Any, gpus: bool, waits: Waits = AS_USUAL) -> None:  # noqa: ANN401 (whatever the work takes)
    """Run `work(*given)` in so many processes on this machine, and wait for them.

    SIGINT and SIGTERM are handed on, so that they stop after the step in progress. They die with this process.

    Raises:
        UserError: whatever mistake one of them found.
        ProcessDied: one of them met a defect; the text has its stack trace.
        Stopped, KeyboardInterrupt: the user stopped the run.
    """
    from biqa.stages.checkpoints import Stopped

    def stopped(number: int, _: FrameType | None) -> None:
        raise Stopped(number)

    with tempfile.TemporaryDirectory() as name:
        context, level = get_context("spawn"), logging.getLogger().level
        members: list[_Member] = []
        before = signal.signal(signal.SIGTERM, stopped)
        try:
            for place in range(number):
                ours, theirs = Pipe(duplex=False)
                started = (place, number, Path(name), theirs, gpus, waits, level, work, given)
                process = context.Process(target=_one_of, args=started, name=f"rank {place}")
                members.append(_Member(process, ours, Path(name) / f"rank {place}.stack"))
                with _environment(place, number):
                    process.start()
                theirs.close()  # so that the pipe ends where the process does
            failed, silent, still = _wait_for(members, waits.still)
            late = [member for member in members if member.alive] if failed and not still and _waited_in_vain(members, silent) else []
            stacks = {member.process.name: member.where(ask=True) for member in late}
        except (KeyboardInterrupt, Stopped):
            _end(members, PATIENCE)
            raise
        finally:
            signal.signal(signal.SIGTERM, before)
            _end(members, 0.0)
        if still:
            raise ProcessDied(
                f"The process of {' and '.join(still)} stands still: {waits.still:g} s without any work.\n{_told_where(still)}\n{STILL_ON_PURPOSE}"
            )
        if failed:
            _raise_what_happened(members, silent, stacks, waits)


@contextmanager
def _environment(place: int, number: int) -> Iterator[None]:
    """What a process finds in its environment from its first moment: its place, and its part of the cores."""
    cores = len(os.sched_getaffinity(0)) // number
    before = dict(os.environ)
    os.environ |= {"RANK": str(place), "LOCAL_RANK": str(place), "WORLD_SIZE": str(number), STARTED_HERE: "1"}
    os.environ |= {"OMP_NUM_THREADS": str(max(1, cores)), "GLOO_SOCKET_IFNAME": "lo"} | {
        name: before[name] for name in ("OMP_NUM_THREADS", "GLOO_SOCKET_IFNAME") if name in before
    }
    try:
        yield
    finally:
        os.environ.clear()
        os.environ |= before


def _wait_for(members: Sequence[_Member], patience: float = inf) -> tuple[bool, _Member | None, dict[str, str]]:
    """Until all are done, one stands still, or one has failed and the others had time to say what they died of.

    Args:
        members: all of them.
        patience: seconds after which one that does nothing stands still.

    Returns:
        Whether one failed; the process that died without a word, if that is what began it; and the stacks of those that stand still, by name.
    """
    running, until, silent = list(members), None, None
    watches = {member: Watch(member.process.pid, patience) for member in members if member.process.pid}
    while running and (until is None or time.monotonic() < until):
        wait([member.process.sentinel for member in running], PAUSE)
        codes = {member: member.process.exitcode for member in running}  # asked once: one may end between two questions
        ended = [member for member in running if codes[member]]
        running = [member for member in running if codes[member] is None]
        for member in members:
            member.listen()
        told = any(member.told for member in members)
        # a death without a word is the cause, also where it is seen after what those tell that were left alone: nobody here has sent a signal yet.
        # Not an abort: so gloo ends a process whose partner has left
        unsaid = [member for member in ended if not member.told and member.process.exitcode != -signal.SIGABRT]
        if until is None and (ended or told):
            until = time.monotonic() + AFTERMATH
            silent = None if told else ended[0]
        silent = next(iter(unsaid), silent)
        if until is None and (still := _standing_still({member: watches[member] for member in running})):
            return True, None, still
    return until is not None, silent, {}


def _standing_still(watches: Mapping[_Member, Watch]) -> dict[str, str]:
    """Stacks, by name, of those that do nothing and wait for nobody; or of all, where all wait for each other."""
    asked = {member: member.where(ask=True) for member, watch in watches.items() if watch.still() and member.stack.is_file()}
    waiting = {member for member, stack in asked.items() if waits_for(TOGETHER, stack)}
    guilty = {member for member, stack in asked.items() if member not in waiting and not waits_for(ELSEWHERE, stack)}
    if len(waiting) == len(watches) > 1:
        guilty = waiting
    for member in asked:
        watches[member].begin_anew()
    return {member.process.name: stack for member, stack in asked.items() if member in guilty}


def _end(members: Sequence[_Member], patience: float) -> None:
    """Ask those that still run to stop (with patience), then kill them."""
    running = [member.process for member in members if member.alive]
    if patience:
        for process in running:
            process.terminate()
        until = time.monotonic() + patience
        for process in running:
            process.join(max(0.0, until - time.monotonic()))
    for process in running:
        process.kill()
        process.join()


def _waited_in_vain(members: Sequence[_Member], silent: _Member | None) -> bool:
    """Whether those that have failed did so because another did not come. NCCL's guard aborts a process that waits, and tells nobody here."""
    if silent is not None:
        return silent.process.exitcode == -signal.SIGABRT
    return min((member.told for member in members if member.told), key=lambda told: told[0])[3]


def _raise_what_happened(members: Sequence[_Member], silent: _Member | None, stacks: Mapping[str, str], waits: Waits) -> None:
    """The cause, not what followed from it: what can be put in words, else who did not come, else a death without a word, else what was told first.

    Args:
        members: all of them.
        silent: died without a word, and began it.
        stacks: of those that did not come, by name.
        waits: how long the others have waited for them.
    """
    told = [member.told for member in members if member.told]
    for _, error, _, _ in told:
        if isinstance(error, UserError | MachineLimit):
            raise error
    if stacks:
        raise ProcessDied(f"The process of {' and '.join(stacks)} did not come while others waited for it ({waits}).\n{_told_where(stacks)}\n{SLOW}")
    if silent is not None:
        code = silent.process.exitcode or 0
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        stood = silent.where(ask=False)
        raise ProcessDied(f"The process of {silent.process.name} {how} and said {f'this:{chr(10)}{stood}' if stood else NOTHING}")
    _, error, text, _ = min(told, key=lambda outcome: outcome[0])
    if type(error).__name__ == "Stopped" or isinstance(error, SystemExit):
        assert error is not None
        raise error
    raise ProcessDied(text)


def _told_where(stacks: Mapping[str, str]) -> str:
    return "\n".join(f"{name} stood here:\n{stack or 'it did not say where.'}" for name, stack in stacks.items())


def _one_of(  # noqa: PLR0917 (a process's own)
    place: int, total: int, folder: Path, words: Connection, gpus: bool, waits: Waits, level: int, work: Callable[..., object], given: tuple[Any, ...]
) -> None:
    """A process: do the work, or leave word of what went wrong."""
    die_with_the_parent()
    logging.getLogger().setLevel(level)  # Hydra has set it in the one that started this
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)  # may reach every process; the one that started them hands it on as SIGTERM
    with suppress(OSError):  # where the disk is full there are no stacks
        stack = (folder / f"rank {place}.stack").open("w")
        faulthandler.enable(stack, all_threads=False)  # of a crash
        faulthandler.register(signal.SIGQUIT, stack, all_threads=False)  # of one that stands still, when it is asked
    raised = None
    try:
        with joined(gpus=gpus, waits=waits, store=str(folder / "store")):
            try:
                work(*given)
            finally:
                raised = time.time()  # before it leaves the others, who then have something to tell too
    except BaseException as error:
        text = f"In process {place} of {total}:\n{traceback.format_exc()}"
        words.send_bytes(pickle.dumps((raised or time.time(), _portable(error), text, late(error))))
        raise SystemExit(1) from None


def _portable(error: BaseException) -> BaseException | None:
    """The error if it can travel."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return None
    return error
