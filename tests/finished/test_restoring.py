"""What a finished run answers with: where it computes, and how precisely."""

import pytest
import torch
from omegaconf import OmegaConf

from biqa.errors import IncompatibleChoice
from biqa.finished.restoring import chosen_device, computing


@pytest.mark.parametrize(("precision", "kind"), [("bf16-mixed", torch.bfloat16), ("32-true", torch.float32)])
def test_it_computes_in_the_precision_of_the_run(precision, kind):
    x = torch.ones(2, 2)
    with computing(OmegaConf.create({"trainer": {"precision": precision}}), x.device):
        assert (x @ x).dtype == kind


def test_a_device_is_one_that_is_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert chosen_device("auto") == torch.device("cpu")
    with pytest.raises(IncompatibleChoice, match=r"device=cuda: there is no GPU here that PyTorch can use\. Choose device=cpu or auto\."):
        chosen_device("cuda", "device")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [chosen_device(name) for name in ("auto", "cuda:1")] == [torch.device("cuda"), torch.device("cuda:1")]
    with pytest.raises(IncompatibleChoice, match="accelerator=cuda:2: there are 2 GPUs here, counted from 0"):
        chosen_device("cuda:2")
