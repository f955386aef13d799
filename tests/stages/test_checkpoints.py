"""Which checkpoints are kept, and what travels with them."""

import pytest
import torch

from biqa.stages.checkpoint_files import AtomicCheckpointIO
from biqa.stages.checkpoints import Checkpoints


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
    import numpy as np

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
