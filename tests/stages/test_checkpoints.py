"""A checkpoint on disk is whole, or it is not taken."""

import pickle

import pytest
import torch

from biqa.stages.checkpoints import AtomicCheckpointIO, Checkpoints, newest_checkpoint


def test_written_and_read_back(tmp_path):
    AtomicCheckpointIO().save_checkpoint({"a": torch.arange(3)}, tmp_path / "deep" / "step=00000005.ckpt")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["step=00000005.ckpt"]
    assert AtomicCheckpointIO().load_checkpoint(tmp_path / "deep" / "step=00000005.ckpt")["a"].tolist() == [0, 1, 2]


def test_a_failed_write_leaves_the_old_one(tmp_path):
    target = tmp_path / "step=00000001.ckpt"
    AtomicCheckpointIO().save_checkpoint({"a": 1}, target)
    with pytest.raises((AttributeError, pickle.PicklingError), match="lambda"):
        AtomicCheckpointIO().save_checkpoint({"a": lambda: None}, target)  # cannot be pickled: the write dies half-way
    assert AtomicCheckpointIO().load_checkpoint(target) == {"a": 1}


def test_the_newest_readable_one_is_taken(tmp_path):
    save = AtomicCheckpointIO().save_checkpoint
    save({"a": 1}, tmp_path / "step=00000009.ckpt")
    save({"a": 2}, tmp_path / "step=00000010.ckpt")
    assert newest_checkpoint(tmp_path) == tmp_path / "step=00000010.ckpt"
    whole = (tmp_path / "step=00000010.ckpt").read_bytes()
    (tmp_path / "step=00000011.ckpt").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "step=00000012.ckpt.tmp").write_bytes(whole)
    assert newest_checkpoint(tmp_path) == tmp_path / "step=00000010.ckpt"
    assert newest_checkpoint(tmp_path / "nowhere") is None


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
