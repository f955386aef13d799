"""What LoRA is given: dropout that draws quickly, and the same numbers as PEFT otherwise."""

import copy

import pytest
import torch

from biqa.models.adapters import adapt
from biqa.models.dropout import LoraInput, quick_dropout


@pytest.mark.parametrize("p", [0.05, 0.3, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_share_is_dropped_and_the_rest_made_larger(p, dtype):
    torch.manual_seed(0)
    x = torch.ones(400, 500, dtype=dtype, requires_grad=True)
    dropped = quick_dropout(x, p)
    share = (dropped == 0).float().mean().item()
    assert share == pytest.approx(p, abs=5 * (p * (1 - p) / x.numel()) ** 0.5 + 2**-17)
    assert set(dropped.unique().tolist()) == {0.0, torch.tensor(1 / (1 - p), dtype=dtype).item()} or dtype == torch.float32
    torch.testing.assert_close(dropped.max().item(), 1 / (1 - p), atol=0, rtol=1e-4 if dtype == torch.float32 else 2**-8)
    dropped.sum().backward()
    torch.testing.assert_close(x.grad, dropped.detach())


def test_every_element_is_drawn_by_itself():
    """Among the bits of one number too: neighbours are dropped together as often as chance has it."""
    torch.manual_seed(1)
    gone = torch.stack([quick_dropout(torch.ones(2000, 12), 0.5) == 0 for _ in range(20)]).flatten(0, 1).double()
    together = torch.corrcoef(gone.T) - torch.eye(12)
    assert together.abs().max() < 5 / len(gone) ** 0.5
    assert (gone.mean(0) - 0.5).abs().max() < 5 * 0.5 / len(gone) ** 0.5


def test_it_draws_from_torchs_generator():
    x = torch.randn(3, 5, 7)  # a number of elements that four does not divide
    torch.manual_seed(2)
    first, second = quick_dropout(x, 0.5), quick_dropout(x, 0.5)
    torch.manual_seed(2)
    assert torch.equal(quick_dropout(x, 0.5), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("autocast", [False, True])
def test_without_chance_it_is_peft(tiny, autocast, monkeypatch):
    """Hidden states of an adapted model, its dropout off or at rest: bit for bit."""
    ours, theirs = tiny(vision=False), tiny(vision=False)
    options = {"kind": "lora", "rank": 4, "alpha": 8, "targets": None, "freeze": None}
    adapt(ours, dropout=0.5, **options)
    monkeypatch.setattr("biqa.models.adapters.prepare_lora", lambda backbone: None)
    adapt(theirs, dropout=0.5, **options)
    for vlm in (ours, theirs):
        torch.manual_seed(0)
        for name, weight in vlm.backbone.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(weight, std=0.2)
        vlm.backbone.to(torch.bfloat16)
        for name, weight in vlm.backbone.named_parameters():
            if "lora_" in name:
                weight.data = weight.data.float()
        vlm.eval()
    assert any(isinstance(module, LoraInput) for module in ours.modules())
    assert not any(isinstance(module, LoraInput) for module in theirs.modules())
    ids = torch.arange(10).view(2, 5) + 20
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        a, b = (vlm.hidden(ids, torch.ones_like(ids)) for vlm in (ours, theirs))
    assert torch.equal(a, b)
    assert a.dtype == torch.bfloat16


def test_it_is_off_at_rest_and_copies(tiny):
    vlm = tiny(vision=False)
    adapt(vlm, kind="lora", rank=4, alpha=8, dropout=0.5, targets=None, freeze=None)
    ids = torch.arange(5)[None] + 20
    resting = [vlm.hidden(ids, torch.ones_like(ids)) for _ in range(2)]
    assert torch.equal(*resting)
    for module in vlm.modules():
        if hasattr(module, "lora_B"):
            torch.nn.init.normal_(module.lora_B["default"].weight)
    awake = copy.deepcopy(vlm).train()
    assert not torch.equal(*(awake.hidden(ids, torch.ones_like(ids)) for _ in range(2)))
