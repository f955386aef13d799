"""The port computes what the architecture says: against a second implementation in numpy, against golden figures, against the 7B table of weights."""

import json
import re
from pathlib import Path

import owl2_plain
import pytest
import torch
from owl2_small import PLACES, golden, padded, pictures, prompts, small, values

from biqa.errors import IncompatibleChoice
from biqa.models.owl2 import Owl2Config, Owl2ForCausalLM, Owl2ForConditionalGeneration

HERE = Path(__file__).parent
CLOSE = {"atol": 1e-4, "rtol": 1e-4}


def plain(model, changes=None):
    """Logits of each prompt by the second implementation, with its images."""
    weights = {name: value.double().numpy() for name, value in model.state_dict().items()}
    images, done = pictures(4).double().numpy(), 0
    rows = []
    for row in prompts():
        count = row.count(PLACES[0]) // len(PLACES)
        rows.append(torch.tensor(owl2_plain.logits(values(**(changes or {})), weights, row, images[done : done + count])).float())
        done += count
    return rows


def logits(model, side, rows=None, images=None):
    """Logits of each prompt out of one batch, without its padding."""
    ids, mask = padded(rows or prompts(), side)
    with torch.no_grad():
        out = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
            pixel_values=pictures(4) if images is None else images,
        ).logits
    return [row[real.bool()] for row, real in zip(out, mask, strict=True)]


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_mixed_batch_equals_numpy(attention, side):
    model = small(attention)
    for ours, expected in zip(logits(model, side), plain(model), strict=True):
        torch.testing.assert_close(ours, expected, **CLOSE)


def test_without_position_ids_pads_on_the_right_do_nothing():
    model = small("sdpa")
    ids, mask = padded(prompts(), "right")
    with torch.no_grad():
        out = model(input_ids=ids, attention_mask=mask, pixel_values=pictures(4)).logits
    for ours, real, expected in zip(out, mask.bool(), plain(model), strict=True):
        torch.testing.assert_close(ours[real], expected, **CLOSE)


CHANGES = [
    {"rope_theta": 9000.0},
    {"rms_norm_eps": 1e-5},
    {"num_key_value_heads": 4},
    {"num_key_value_heads": 1},
    {"visual_model": {"layer_norm_eps": 1e-6}},
    {"visual_abstractor": {"layer_norm_eps": 1e-6}},
]


@pytest.mark.parametrize("changes", CHANGES, ids=json.dumps)
def test_every_value_of_the_config_counts(changes):
    model = small(**changes)
    ours, before = logits(model, "left"), logits(small(), "left")
    assert (ours[0] - before[0]).abs().max() > 0.01
    for row, expected in zip(ours, plain(model, changes), strict=True):
        torch.testing.assert_close(row, expected, **CLOSE)


def test_outer_norms_of_the_abstractor_have_their_own_eps():
    """Where everything that they see is of the size of a thousandth, 1e-5 is most of what they divide by."""
    model = small()
    state = model.state_dict()
    for name, value in state.items():
        if re.search(r"query_embeds|vision_model\.post_layernorm|crossattention\.norm1|out_proj", name):
            value.mul_(1e-3)
    for row, expected in zip(logits(model, "left"), plain(model), strict=True):
        torch.testing.assert_close(row, expected, **CLOSE)


def test_images_go_to_their_places_in_order():
    model = small("sdpa")
    row = [1, *PLACES, 9, *PLACES]
    one, two = pictures(2)
    first, swapped = (logits(model, "left", [row], torch.stack(images))[0] for images in ([one, two], [two, one]))
    assert (first - swapped).abs().max() > 0.01
    alone = logits(model, "left", [row[:5]], one[None])[0]
    torch.testing.assert_close(first[:5], alone, **CLOSE)


@pytest.mark.parametrize(("count", "images"), [(1, 4), (5, 20), (0, 0)])
def test_images_and_places_must_agree(count, images):
    ids, mask = padded(prompts(), "left")
    with pytest.raises(ValueError, match=rf"^{count} images fill {images} places \(4 each\), but the prompts have 16 for them\.$"):
        small()(input_ids=ids, attention_mask=mask, pixel_values=pictures(count) if count else None)


def test_golden_figures():
    expected = json.loads((HERE / "golden.json").read_text())
    ours = golden()
    assert ours["greedy tokens"] == expected["greedy tokens"]
    key = "last logits, first eight words"
    torch.testing.assert_close(torch.tensor(ours[key]), torch.tensor(expected[key]), atol=5e-5, rtol=1e-5)


def table_of_7b():
    """Key -> shape, from the original class."""
    lines = re.findall(r"^ *(\d+) x (\S+) \[(.*)\]$", (HERE / "keys_7b.txt").read_text(), re.MULTILINE)
    return {key.replace("{i}", str(i)): tuple(map(int, shape.split(", "))) for count, key, shape in lines for i in range(int(count))}


def test_weights_of_7b_have_their_original_names_and_shapes():
    table = table_of_7b()
    computed = {key for key in table if key.endswith("inv_freq")}
    assert (len(table), len(computed)) == (894, 32)
    with torch.device("meta"):
        model = Owl2ForConditionalGeneration(Owl2Config())
    ours = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    assert ours == {key: shape for key, shape in table.items() if key not in computed}
    assert sum(parameter.numel() for parameter in model.parameters()) == 8_197_859_328


def test_the_decoder_alone_has_the_way_of_text_and_no_other():
    whole = small("sdpa")
    decoder = Owl2ForCausalLM(whole.config).eval()
    assert whole.config.has_vision
    assert not decoder.config.has_vision
    state = whole.state_dict()
    kept = {key for key in state if not re.search(r"vision_model|visual_abstractor|multiway\.1", key)}
    assert decoder.state_dict().keys() == kept
    decoder.load_state_dict({key: state[key] for key in kept})
    ids, mask = padded([prompts()[2], [1, 5, 6, 7, 8, 9]], "left")
    torch.testing.assert_close(decoder(input_ids=ids, attention_mask=mask).logits, whole(input_ids=ids, attention_mask=mask).logits)


def test_a_decoder_takes_no_images():
    with pytest.raises(AssertionError, match="cannot take images"):
        Owl2ForCausalLM(Owl2Config.from_dict(values()))(input_ids=torch.tensor([[1, *PLACES]]), pixel_values=pictures(1))


def test_the_config_of_a_decoder_builds_no_whole_model():
    with pytest.raises(IncompatibleChoice, match=r"has_vision=false in config\.json: this mPLUG-Owl2 is a decoder without its vision tower"):
        Owl2ForConditionalGeneration(Owl2Config.from_dict(values(has_vision=False)))


@pytest.mark.parametrize("option", [{"use_cls_token": False}, {"use_post_layernorm": False}, {"hidden_act": "gelu"}])
def test_other_towers_are_refused(option):
    with pytest.raises(IncompatibleChoice, match=r"Only mPLUG-Owl2's tower is known here, not mPLUG-Owl2\.1's"):
        small(visual_model=option)


@pytest.mark.parametrize("change", [{"hidden_size": 8}, {"encoder_hidden_size": 8}, {"grid_size": 2}])
def test_an_abstractor_must_fit_its_tower(change):
    with pytest.raises(IncompatibleChoice, match="Both grids, and all three widths, must be equal"):
        small(visual_abstractor=change)
