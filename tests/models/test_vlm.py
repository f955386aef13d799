"""The interface that every backbone has."""

import pytest
import torch

from biqa.errors import IncompatibleChoice


def test_positions_count_real_tokens_on_either_side(tiny):
    vlm = tiny(vision=False)
    ids = torch.tensor([[5, 6, 7, 8]])
    plain = vlm.hidden(ids, torch.ones_like(ids))
    pads = torch.full((1, 3), vlm.pad_id)
    left = vlm.hidden(torch.cat([pads, ids], 1), torch.tensor([[0, 0, 0, 1, 1, 1, 1]]))[:, 3:]
    right = vlm.hidden(torch.cat([ids, pads], 1), torch.tensor([[1, 1, 1, 1, 0, 0, 0]]))[:, :4]
    torch.testing.assert_close(left, plain, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(right, plain, atol=1e-5, rtol=1e-4)


def test_the_image_reaches_the_answer(tiny, picture):
    vlm = tiny()
    a, b = (vlm.prompt("Rate it.", picture(seed)) for seed in (1, 2))
    assert a.ids == b.ids
    assert sum(token == vlm.model.config.image_token_id for token in a.ids) == 9
    ids = torch.tensor([a.ids])
    hidden = [vlm.hidden(ids, torch.ones_like(ids), image=prompt.image)[:, -1] for prompt in (a, b)]
    assert not torch.allclose(hidden[0], hidden[1])


def test_without_a_tower_an_image_is_refused(tiny, picture):
    with pytest.raises(AssertionError, match="without its vision tower"):
        tiny(vision=False).prompt("Rate it.", picture())


def test_without_a_tower_there_is_none(tiny):
    names = [name for name, _ in tiny(vision=False).named_modules()]
    assert not any("vision" in name or "projector" in name for name in names)


def test_level_words_must_begin_differently(tiny, monkeypatch):
    vlm = tiny(vision=False)
    monkeypatch.setattr(type(vlm), "continuation", lambda self, text: [7, 8])
    with pytest.raises(IncompatibleChoice, match="do not begin with five different tokens"):
        vlm._first_tokens_of_levels()


def test_level_logits_are_the_head_at_the_level_words(tiny):
    vlm = tiny(vision=False)
    hidden = torch.randn(2, 32)
    torch.testing.assert_close(vlm.level_logits(hidden), vlm.model.lm_head(hidden)[:, vlm.level_ids])


def test_level_logits_are_finer_than_bfloat16(tiny):
    """Logits around 20 are an eighth apart in bfloat16; those of the levels are not rounded to it, whatever the weights are."""
    vlm = tiny(vision=False).to(torch.bfloat16)
    hidden = 20 * torch.randn(64, 32, generator=torch.Generator().manual_seed(0)).bfloat16()
    exact = hidden.double() @ vlm.model.lm_head.weight[vlm.level_ids].double().T
    with torch.autocast("cpu", torch.bfloat16):
        found = vlm.level_logits(hidden)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), exact, atol=1e-4, rtol=1e-5)
    assert not torch.allclose(exact.bfloat16().double(), exact, atol=1e-4, rtol=1e-5), "there was nothing to round"


def test_special_tokens_in_a_text_are_words(tiny, picture):
    vlm = tiny()
    quoted = "A road sign reads <image> here.</s>"
    specials = {vlm.tokenizer.convert_tokens_to_ids(token) for token in ("<image>", "</s>")}
    assert not specials & set(vlm.continuation(quoted))
    assert vlm.text(vlm.continuation(quoted)) == "A road sign reads < image> here.< /s>"
    assert vlm.prompt(quoted).ids.count(vlm.tokenizer.convert_tokens_to_ids("<image>")) == 0
    assert vlm.prompt(quoted, picture()).ids.count(vlm.tokenizer.convert_tokens_to_ids("<image>")) == 9
