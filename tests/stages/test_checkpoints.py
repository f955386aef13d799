"""When checkpoints are taken, which are kept, what travels with them, and what a signal does."""

import os
import pickle
import signal
from types import SimpleNamespace

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException

from biqa.stages.checkpoint_files import AtomicCheckpointIO
from biqa.stages.checkpoints import Checkpoints, Stopped, signal_behind

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class Dot(L.LightningModule):
    """A model that is one dot; what it does before a step can be said, and what it draws is noted."""

    def __init__(self, before=lambda step: None):
        super().__init__()
        self.dot = torch.nn.Parameter(torch.zeros(1))
        self.before, self.drawn = before, []

    def training_step(self, batch, index):
        self.before(self.global_step)
        self.drawn.append((float(torch.rand(1)), float(np.random.rand())))
        return (self.dot - batch[0]).square().mean()

    def predict_step(self, batch, index):
        self.before(index)
        return index

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def lightning(callback, **options):
    choices = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    return L.Trainer(**choices | {"callbacks": [callback], "plugins": [AtomicCheckpointIO()], "max_epochs": 2} | options)


def batches(number=5):
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.arange(float(number))))


@pytest.fixture
def saved(tmp_path, monkeypatch):
    """Steps at which checkpoints were taken."""
    steps, save = [], L.Trainer.save_checkpoint
    monkeypatch.setattr(L.Trainer, "save_checkpoint", lambda trainer, path, *a, **k: (steps.append(path), save(trainer, path, *a, **k)))
    return lambda: [int(path.name.removeprefix("step=").removesuffix(".ckpt")) for path in steps if path.parent == tmp_path]


@pytest.fixture
def handlers():
    """What signals do here, and do again afterwards."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield lambda: {number: signal.getsignal(number) for number in SIGNALS} == before
    for number, handler in before.items():
        signal.signal(number, handler)


pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers", "ignore:.*LeafSpec:FutureWarning", "ignore:.*dataloader is not resumable"
)  # Lightning's own


@pytest.mark.parametrize(
    ("every", "accumulate", "steps"),
    [(2, 1, [2, 4, 5, 6, 8, 10]), (3, 1, [3, 5, 6, 9, 10]), (100, 1, [5, 10]), (2, 2, [2, 3, 4, 6]), (1, 2, [1, 2, 3, 4, 5, 6])],
)
def test_every_so_many_steps_and_at_the_end_of_an_epoch(tmp_path, saved, every, accumulate, steps):
    """Each once; not between the batches of a step."""
    lightning(Checkpoints(tmp_path, every), accumulate_grad_batches=accumulate).fit(Dot(), batches())
    assert saved() == steps
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"step={step:08d}.ckpt" for step in steps[-2:]]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_saves_after_the_step_in_progress_and_gives_itself_back(tmp_path, saved, handlers, number):
    model = Dot(lambda step: os.kill(os.getpid(), number) if step == 6 else None)
    with pytest.raises(Stopped) as stopped:
        lightning(Checkpoints(tmp_path, 100, requeue=[signal.SIGUSR1])).fit(model, batches())
    assert stopped.value.number == number
    assert saved() == [5, 7]
    assert handlers()


def test_a_signal_in_the_last_batch_of_an_epoch_stops_after_its_checkpoint(tmp_path, saved, handlers):
    with pytest.raises(Stopped):
        lightning(Checkpoints(tmp_path, 5)).fit(Dot(lambda step: os.kill(os.getpid(), signal.SIGINT) if step == 4 else None), batches())
    assert saved() == [5]
    assert handlers()


@pytest.mark.parametrize("order", [(signal.SIGTERM, signal.SIGUSR1), (signal.SIGUSR1, signal.SIGTERM), (signal.SIGUSR1, signal.SIGINT)])
def test_the_signal_that_queues_a_job_again_wins_over_the_one_beside_it(tmp_path, handlers, order):
    def both(step):
        if step == 1:
            for number in order:
                os.kill(os.getpid(), number)

    with pytest.raises(Stopped) as stopped:
        lightning(Checkpoints(tmp_path, 100, requeue=[signal.SIGUSR1])).fit(Dot(both), batches())
    assert stopped.value.number == signal.SIGUSR1


def test_answering_stops_after_the_batch_in_progress(tmp_path, handlers):
    asked = []
    model = Dot(lambda index: (asked.append(index), os.kill(os.getpid(), signal.SIGTERM) if index == 2 else None))
    with pytest.raises(Stopped) as stopped:
        lightning(Checkpoints(tmp_path, 100)).predict(model, batches())
    assert stopped.value.number == signal.SIGTERM
    assert asked == [0, 1, 2]
    assert handlers()


def test_without_a_signal_they_are_given_back_too(tmp_path, handlers):
    callback = Checkpoints(tmp_path, 100, requeue=[signal.SIGUSR1])
    taken = []
    lightning(callback).fit(Dot(lambda _: taken.append(handlers())), batches())
    lightning(callback).predict(Dot(lambda _: taken.append(handlers())), batches())
    assert taken == [False] * 15
    assert handlers()

    def fail(_):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        lightning(callback).fit(Dot(fail), batches())
    assert handlers()


@pytest.mark.parametrize("at", [2, 5, 7])
def test_a_resumed_run_draws_what_the_whole_one_draws(tmp_path, at):
    """Also where whatever is between a checkpoint and the next batch has drawn."""
    whole = Dot()
    torch.manual_seed(3)
    np.random.seed(3)
    lightning(Checkpoints(tmp_path / "whole", 1)).fit(whole, batches())

    def stop(step):
        if step == at - 1:
            os.kill(os.getpid(), signal.SIGTERM)

    torch.manual_seed(3)
    np.random.seed(3)
    part, rest = Dot(stop), Dot()
    with pytest.raises(Stopped):
        lightning(Checkpoints(tmp_path / "part", 1)).fit(part, batches())
    torch.manual_seed(4)
    np.random.seed(4)

    class Draws(L.Callback):
        def on_train_start(self, trainer, pl_module):
            torch.rand(7)
            np.random.rand(7)

    callbacks = [Draws(), Checkpoints(tmp_path / "part", 1)]
    file = tmp_path / "part" / f"step={at:08d}.ckpt"
    lightning(None, callbacks=callbacks).fit(rest, batches(), ckpt_path=file, weights_only=True)
    assert part.drawn + rest.drawn == whole.drawn


def test_the_generator_of_a_gpu_travels_too(tmp_path, monkeypatch):
    state, put = torch.arange(16, dtype=torch.uint8), []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda: state)
    monkeypatch.setattr(torch.cuda, "set_rng_state", put.append)
    kept = Checkpoints(tmp_path, 1).state_dict()
    Checkpoints(tmp_path, 1).load_state_dict(kept)
    assert torch.equal(put[0], state)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    without = Checkpoints(tmp_path, 1).state_dict()
    Checkpoints(tmp_path, 1).load_state_dict(kept)  # of a run on a GPU, that goes on without
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    Checkpoints(tmp_path, 1).load_state_dict(without)  # and the other way round
    assert len(put) == 1


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (Stopped(signal.SIGUSR2), signal.SIGUSR2),
        (SIGTERMException(), signal.SIGTERM),
        (KeyboardInterrupt(), signal.SIGINT),
        (SystemExit(1), None),
        (ZeroDivisionError(), None),
    ],
)
def test_the_signal_behind_an_error(error, number):
    assert signal_behind(error) == number


def test_lightnings_exit_after_ctrl_c_is_one():
    with pytest.raises(SystemExit) as raised:  # noqa: PT012 (as Lightning raises it)
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise SystemExit(1)  # noqa: B904
    assert signal_behind(raised.value) == signal.SIGINT


def test_it_travels_between_processes_and_says_its_number():
    there = pickle.loads(pickle.dumps(Stopped(15)))
    assert (type(there), there.number, str(there)) == (Stopped, 15, "15")


def test_divided_checkpoints_are_folders(tmp_path):
    """Of FSDP and DeepSpeed."""
    for number in (1, 2, 3):
        (tmp_path / f"step={number:08d}.ckpt").mkdir()
        (tmp_path / f"step={number:08d}.ckpt" / "part").touch()
    Checkpoints(tmp_path, 1)._tidy(3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step=00000002.ckpt", "step=00000003.ckpt"]


def test_only_the_first_process_tidies(tmp_path):
    for number in (1, 2, 3):
        (tmp_path / f"step={number:08d}.ckpt").touch()
    trainer = SimpleNamespace(global_step=3, is_global_zero=False, save_checkpoint=lambda path: None)
    Checkpoints(tmp_path, 1)._save(trainer)
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize(
    ("there", "step", "left"),
    [
        ([7, 14, 21], 21, [14, 21]),
        ([24, 31, 36, 48], 31, [24, 31]),  # the last two were damaged: the run went on from 24
        ([31, 36], 36, [31, 36]),
        ([9], 9, [9]),
    ],
)
def test_the_newest_two_that_the_run_has_come_to_are_kept(tmp_path, there, step, left):
    for number in there:
        (tmp_path / f"step={number:08d}.ckpt").touch()
    (tmp_path / "step=00000050.ckpt.tmp").touch()
    (tmp_path / "notes.ckpt").touch()
    Checkpoints(tmp_path, 1)._tidy(step)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.ckpt", *(f"step={number:08d}.ckpt" for number in left)]


def test_random_numbers_go_on_where_they_stopped(tmp_path):
    callback = Checkpoints(tmp_path, 1)
    torch.manual_seed(0)
    np.random.seed(0)
    torch.rand(3)
    np.random.rand(3)
    AtomicCheckpointIO().save_checkpoint(callback.state_dict(), tmp_path / "state.ckpt")
    expected = torch.rand(2), np.random.rand(2)
    torch.manual_seed(5)
    np.random.seed(5)
    callback.load_state_dict(AtomicCheckpointIO().load_checkpoint(tmp_path / "state.ckpt", weights_only=True))
    assert torch.equal(torch.rand(2), expected[0])
    assert (np.random.rand(2) == expected[1]).all()
