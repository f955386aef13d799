"""`model=owl2` as the rest of biqa meets it: a VLM like any other."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from biqa.errors import IncompatibleChoice, RunNotFound
from biqa.language.levels import LEVELS
from biqa.models.adapters import adapt, decoder_linears, load_weights, save_weights
from biqa.models.owl2.build import build_owl2
from biqa.models.owl2.configuration import IMAGE_TOKEN_ID
from biqa.models.quantization import Quantization
from biqa.models.sampling import level_probabilities, sample, uniforms
from biqa.models.vlm import VLM

OPTIONS: dict[str, Any] = {
    "size": "tiny", "path": None, "template": "owl2", "pre_step": "pad", "dtype": "float32", "attention": "sdpa", "quantization": None,
    "vision": True, "seed": 0,
}  # fmt: skip


def build(**options: object) -> VLM:
    return build_owl2(**(OPTIONS | options)).eval()


@pytest.fixture(scope="module")
def vlm() -> VLM:
    return build()


def test_an_image_takes_its_places_in_the_prompt(vlm: VLM, picture) -> None:
    prompt = vlm.prompt("Describe it.", picture(0))
    assert prompt.ids.count(IMAGE_TOKEN_ID) == vlm.model.config.tokens_per_image == 9
    assert prompt.image["pixel_values"].shape == (1, 3, 56, 56)
    said = vlm.text([token for token in prompt.ids if token != IMAGE_TOKEN_ID])
    assert said.split() == ["USER:", "Describe", "it.", "ASSISTANT:"]
    assert IMAGE_TOKEN_ID not in vlm.prompt("Is there an <|image|> here?").ids  # quoted text asks for no pixels


def test_pieces_of_an_answer_are_tokenized_as_within_a_text(vlm: VLM) -> None:
    assert [vlm.text([token]) for token in vlm.level_ids] == list(LEVELS)
    whole = vlm.continuation(" The quality of the image is good.")
    assert whole == [*vlm.continuation(" The quality of the image is"), *vlm.continuation(" good"), *vlm.continuation(".")]


def test_the_prompt_form_is_a_choice(picture) -> None:
    texts = {form: build(template=form).prompt("Describe it.").ids for form in ("owl2", "v1")}
    assert len(texts["v1"]) > len(texts["owl2"]) + 20


def test_n_answers_from_one_prefill_are_those_of_separate_runs(vlm: VLM, picture) -> None:
    names = ("a", "b", "c")
    prompts = [vlm.prompt("Describe it." * (1 + number), picture(number)) for number in range(3)]  # of three lengths: padded on the left
    how: dict[str, Any] = {"temperature": 1.0, "top_p": 0.9, "max_new_tokens": 12}
    together = sample(vlm, prompts, uniforms(0, names, 3, 13), **how).texts
    alone = [sample(vlm, [prompt], uniforms(0, [name], 3, 13), **how).texts[0] for prompt, name in zip(prompts, names, strict=True)]
    assert together == alone
    assert level_probabilities(vlm, prompts, vlm.continuation(" The quality of the image is")).sum(-1) == pytest.approx(torch.ones(3))


def test_a_decoder_alone_gives_the_same_levels_for_a_text(vlm: VLM) -> None:
    decoder = build(vision=False)
    assert not any("vision" in name or "abstractor" in name or "multiway.1" in name for name in decoder.backbone.state_dict())
    prompts = [one.prompt("The image is dark. How would you rate it?") for one in (vlm, decoder)]
    assert prompts[0] == prompts[1]
    stem = vlm.continuation(" The quality of the image is")
    assert torch.allclose(level_probabilities(vlm, prompts[:1], stem), level_probabilities(decoder, prompts[1:], stem), atol=1e-6)


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_what_is_saved_with_eyes_is_read_without(kind: str, tmp_path: Path) -> None:
    tuning: dict[str, Any] = {"kind": kind, "rank": 4, "alpha": 8, "dropout": 0.0, "targets": None, "freeze": None}
    taught = build(seed=1 if kind == "full" else 0)
    adapt(taught, **tuning)
    if kind == "lora":
        with torch.no_grad():
            for name, parameter in taught.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(generator=torch.Generator().manual_seed(len(name)))
    save_weights(taught, tmp_path)
    decoder = build(vision=False)
    adapt(decoder, **tuning)
    load_weights(decoder, tmp_path)
    prompts = [taught.prompt("The image is dark. How would you rate it?")]
    stem = taught.continuation(" The quality of the image is")
    assert torch.allclose(level_probabilities(taught, prompts, stem), level_probabilities(decoder, prompts, stem), atol=1e-6)
    again = build()
    adapt(again, **tuning)
    load_weights(again, tmp_path)
    image = [taught.prompt("Describe it.", Image.new("RGB", (40, 30), "red"))]
    assert torch.allclose(level_probabilities(taught, image, stem), level_probabilities(again, image, stem), atol=1e-6)


def test_lora_adapts_both_ways_and_nothing_that_sees(vlm: VLM) -> None:
    taught = build()
    adapt(taught, kind="lora", rank=2, alpha=4, dropout=0.0, targets=None, freeze=None)
    adapted = {name.split(".lora_")[0].split("layers.")[1] for name, _ in taught.named_parameters() if "lora_" in name}
    assert {name.partition(".")[2] for name in adapted} == {
        "self_attn.q_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
        *(f"self_attn.{part}_proj.multiway.{way}" for part in "kv" for way in "01"),
    }  # fmt: skip
    assert not any(("vision" in name or "abstractor" in name) and "lora" in name for name, _ in taught.named_parameters())
    assert decoder_linears(vlm).startswith(r"model\.layers")


def test_quantized_layers_are_the_decoders_alone() -> None:
    from bitsandbytes.nn.modules import Linear4bit

    quantized = {name for name, module in build(quantization=Quantization("nf4")).backbone.named_modules() if isinstance(module, Linear4bit)}
    assert len(quantized) == 3 * 9
    assert all(name.startswith("model.layers.") for name in quantized)


def test_a_checkpoint_is_built_from_its_folder(tmp_path: Path, vlm: VLM) -> None:
    save_weights(vlm, tmp_path)
    again = build(size="7b", path=str(tmp_path / "model"))
    prompts = [one.prompt("Describe it.", Image.new("RGB", (40, 30), "red")) for one in (vlm, again)]
    assert prompts[0].ids == prompts[1].ids
    stem = vlm.continuation(" The quality of the image is")
    assert torch.allclose(level_probabilities(vlm, prompts[:1], stem), level_probabilities(again, prompts[1:], stem), atol=1e-6)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"size": "7b"}, IncompatibleChoice, "model=owl2 needs a checkpoint: model\\.path=FOLDER"),
        ({"path": "somewhere"}, IncompatibleChoice, "model\\.path=somewhere with model\\.size=tiny, which has random weights"),
        ({"size": "7b", "path": "no where/at/all"}, RunNotFound, "model\\.path=no where/at/all: there is no such folder"),
    ],
)
def test_what_cannot_be_built_is_told(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build(**options)
