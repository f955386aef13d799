"""Attention by plain products is transformers' own, and stands in for it where it is faster."""

from types import SimpleNamespace

import pytest
import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from biqa.models import attention
from biqa.models.attention import PRODUCTS, SHORT, attend

LAYER = SimpleNamespace(is_causal=True, num_key_value_groups=1)


def inputs(*, heads=4, shared=1, queries=7, keys=7, dtype=torch.bfloat16, seed=0):
    """Queries, keys and values as a layer makes them: heads behind positions in memory."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(2, queries, heads, 8), (2, keys, heads // shared, 8), (2, keys, heads // shared, 8)]
    return [torch.randn(shape, generator=generator).to(dtype).transpose(1, 2).requires_grad_() for shape in shapes]


def masks(queries, keys):
    seen = torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries).expand(2, 1, -1, -1).clone()
    seen[1, :, :, :2] = False  # padding on the left: its own rows see nothing
    seen[1, :, :2, 0] = True
    return {"none": None, "bool": seen, "added": torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)}


def outcome(function, given, mask, layer, **options):
    """What attention answers, and the gradients of a fixed sum of it."""
    leaves = [value.detach().requires_grad_() for value in given]
    answer = function(layer, *leaves, mask if mask is None or mask.dtype == torch.bool else mask.to(leaves[0].dtype), **options)[0]
    weights = torch.linspace(-1, 1, answer.numel()).view(answer.shape)
    (answer.float() * weights).sum().backward()
    return [answer.detach(), *(leaf.grad for leaf in leaves)]


@pytest.mark.parametrize("shared", [1, 2])
@pytest.mark.parametrize("kind", ["none", "bool", "added"])
@pytest.mark.parametrize(("queries", "keys"), [(7, 7), (1, 9), (4, 9)])
def test_it_is_transformers_attention(kind, queries, keys, shared, monkeypatch):
    """Told to do so, it takes float32 too, where rounding hides nothing."""
    monkeypatch.setattr(attention, "QUICK", (torch.float32,))
    layer = SimpleNamespace(is_causal=True, num_key_value_groups=shared)
    given = inputs(shared=shared, queries=queries, keys=keys, dtype=torch.float32)
    mask = masks(queries, keys)[kind]
    for options in ({}, {"scaling": 0.3}, {"is_causal": False}):
        ours, theirs = (outcome(function, given, mask, layer, **options) for function in (attend, sdpa_attention_forward))
        for own, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(own, other, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", ["none", "bool", "added"])
def test_in_bfloat16_it_rounds_as_finely(kind):
    """Against the same numbers in float32: at most twice as far off as torch's kernel."""
    errors = {attend: 0.0, sdpa_attention_forward: 0.0}
    for seed in range(20):
        given, mask = inputs(queries=40, keys=40, seed=seed), masks(40, 40)[kind]
        exact = outcome(sdpa_attention_forward, [value.float() for value in given], mask, LAYER)
        for function in errors:
            found = outcome(function, given, mask, LAYER)
            errors[function] += sum(float((own.float() - other).norm() / other.norm()) for own, other in zip(found, exact, strict=True))
    assert 0 < errors[attend] < 2 * errors[sdpa_attention_forward]


def test_who_sees_nobody_makes_no_nan():
    given = inputs()
    found = outcome(attend, given, torch.zeros(2, 1, 7, 7, dtype=torch.bool), LAYER)
    assert all(value.isfinite().all() for value in found)


@pytest.mark.parametrize(
    ("given", "options"),
    [
        ({"dtype": torch.float32}, {}),
        ({"queries": 3}, {}),  # causal, from the middle of the keys
        ({"queries": SHORT // 600 + 1, "keys": 601}, {"is_causal": False}),
        ({}, {"position_bias": torch.zeros(2, 4, 7, 7, dtype=torch.bfloat16)}),
        ({}, {"dropout": 0.5}),
    ],
)
def test_all_else_is_left_to_transformers(given, options, monkeypatch):
    called = []
    monkeypatch.setattr(attention, "sdpa_attention_forward", lambda *given, **more: called.append((given, more)))
    attend(LAYER, *inputs(**given), None, **options)
    assert len(called) == 1


def test_every_model_with_sdpa_takes_it(tiny):
    vlm = tiny()
    kinds = {module.config._attn_implementation for module in vlm.modules() if hasattr(module, "config")}
    assert kinds == {PRODUCTS}
    assert vlm.packs
    assert {module.config._attn_implementation for module in tiny(attention="eager").modules() if hasattr(module, "config")} == {"eager"}


def test_a_model_that_is_saved_knows_nothing_of_it(tiny, tmp_path):
    tiny(vision=False).model.save_pretrained(tmp_path)
    assert PRODUCTS not in (tmp_path / "config.json").read_text()
