"""vLLM's place in biqa, with a stand-in that computes real answers from the same files: the text and the level distribution are those of biqa's engine."""

import json
from pathlib import Path

import pytest
import torch
from checkpoints import write_checkpoint
from safetensors.torch import load_file

from biqa.errors import IncompatibleChoice, MachineLimit
from biqa.language.prompts import DESCRIBE, INFER, STEM
from biqa.models.adapters import adapt, load_weights, save_weights
from biqa.models.families import FAMILIES
from biqa.models.hf import build_hf
from biqa.models.sampling import Answers, level_probabilities, sample, uniforms
from biqa.models.served import RANKS, SERVED, Weights, refuse_uncarried, refuse_unserved, served_folder, vllm_version, weights_of
from biqa.models.vllm_engine import VllmEngine, let_go
from biqa.models.vlm import Prompt

pytest_plugins = ["vllm_stand_in"]

OPTIONS = {"dtype": "float32", "gpu_memory_utilization": 0.9, "max_model_len": None, "tensor_parallel": 1}
HOW = {"temperature": 1.0, "top_p": 0.9, "max_new_tokens": 6}


def build(folder: Path, *, vision: bool = True, **options):
    same = {"revision": None, "family": None, "dtype": "float32", "attention": "sdpa", "visual_tokens": None, "image": None, "seed": 0}
    return build_hf(id=str(folder), vision=vision, **(same | options)).eval()


def adapted(folder: Path, *, rank: int = 4, **options):
    vlm = build(folder)
    adapt(vlm, kind="lora", rank=rank, alpha=16, dropout=0.0, targets=None, freeze=None, **options)
    return vlm


@pytest.fixture
def learnt(checkpoint, tmp_path):
    """A model that has learnt, and the folder of its adapter's run."""
    vlm = adapted(checkpoint("llava"))
    generator = torch.Generator().manual_seed(0)
    for parameter in vlm.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1, generator=generator)
    save_weights(vlm, tmp_path / "run")
    return vlm.eval(), tmp_path / "run"


@pytest.fixture
def engine(vllm, learnt, tmp_path):
    started = VllmEngine(learnt[0], weights_of(*learnt), tmp_path / "served", **OPTIONS)
    yield started
    started.close()


def test_texts_and_levels_are_those_of_biqas_engine_after_the_same_tokens(vllm, learnt, engine, picture):
    vlm, _ = learnt
    pictures, numbers = [picture(0), picture(1, size=60)], uniforms(0, ["a", "b"], 2, 8)
    own = [vlm.prompt(DESCRIBE, one) for one in pictures]
    with torch.no_grad():
        expected = sample(vlm, own, numbers, **HOW, stem=f" {STEM}")
    found = engine.sample([engine.prompt(DESCRIBE, one) for one in pictures], numbers, **HOW, stem=f" {STEM}")
    assert [texts[0] for texts in found.texts] == [texts[0] for texts in expected.texts]
    torch.testing.assert_close(found.level_probabilities[:, 0], expected.level_probabilities[:, 0], atol=1e-5, rtol=0)

    (llm,) = vllm.started
    stem = vlm.continuation(f" {STEM}")
    for place, prompt in enumerate(own):  # the greedy answers of all were asked for first, then the sampled ones of each
        written = [llm.answered[place], *llm.answered[2 + 2 * place : 4 + 2 * place]]
        after = level_probabilities(vlm, [Prompt((*prompt.ids, *_said(vlm, ids)), prompt.image) for ids in written], stem)
        assert found.texts[place] == [vlm.text(_said(vlm, ids)) for ids in written]
        torch.testing.assert_close(found.level_probabilities[place], after, atol=1e-5, rtol=0)


def _said(vlm, ids: list[int]) -> list[int]:
    return ids[: ids.index(vlm.eos_id)] if vlm.eos_id in ids else ids


def test_texts_alone_are_asked_of_the_decoder(vllm, learnt, checkpoint):
    """Stage 2: the adapter lies on the whole model, whose tower is not needed."""
    _, run = learnt
    decoder = build(checkpoint("llava"), vision=False)
    adapt(decoder, kind="lora", rank=4, alpha=16, dropout=0.0, targets=None, freeze=None)
    load_weights(decoder, run)
    prompts, stem = (
        [decoder.prompt(INFER.format(description=text)) for text in ("It is sharp.", "It is dark, with strong noise.")],
        decoder.opening(STEM),
    )
    expected = level_probabilities(decoder.eval(), prompts, stem)
    let_go(decoder)
    assert not list(decoder.parameters())
    engine = VllmEngine(decoder, weights_of(decoder, run), run / "served", **OPTIONS)
    assert [engine.prompt("Is it?").ids, vllm.started[0].images] == [decoder.prompt("Is it?").ids, 0]
    torch.testing.assert_close(engine.level_probabilities(prompts, stem), expected, atol=1e-5, rtol=0)
    engine.close()
    assert not vllm.started[0].running


def test_a_decoder_that_learnt_as_a_whole_is_served_alone(vllm, checkpoint, tmp_path):
    decoder = build(checkpoint("smolvlm"), vision=False)
    save_weights(decoder, tmp_path)
    prompts, stem = [decoder.prompt(INFER.format(description="It is sharp."))], decoder.opening(STEM)
    engine = VllmEngine(decoder, weights_of(decoder, tmp_path), tmp_path / "served", **OPTIONS)
    torch.testing.assert_close(engine.level_probabilities(prompts, stem), level_probabilities(decoder, prompts, stem), atol=1e-5, rtol=0)
    assert (vllm.started[0].architecture, vllm.started[0].folder) == ("LlamaForCausalLM", tmp_path / "model")


def test_random_numbers_are_of_image_and_query_alone(vllm, engine, picture):
    asked = [engine.prompt(DESCRIBE, picture(seed)) for seed in range(2)]
    numbers = uniforms(0, ["a", "b"], 3, 8)
    together = engine.sample(asked, numbers, **HOW).texts
    assert engine.sample(asked[1:], numbers[1:], **HOW).texts == together[1:]
    assert len(set(together[0])) > 1
    assert engine.sample(asked[:1], uniforms(1, ["a"], 3, 8), **HOW).texts[0][1:] != together[0][1:]
    assert [len(texts) for texts in engine.sample(asked, numbers[:, :0], **HOW).texts] == [1, 1]


@pytest.mark.parametrize("ends", ["by itself", "with the stem", "cut off", "in the middle of the stem"])
def test_an_answer_ends_as_in_biqas_engine(vllm, learnt, engine, picture, ends):
    vlm, _ = learnt
    said, stem, level = vlm.opening("It is sharp."), vlm.continuation(f" {STEM}"), vlm.continuation(" good")
    script = {
        "by itself": [*said, vlm.eos_id],
        "with the stem": [*said, *stem, *level, vlm.eos_id],
        "cut off": (said * 24)[:24],
        "in the middle of the stem": [*said, *stem[:-1], vlm.eos_id],
    }[ends]
    vllm.started[0].script = [*script, *[vlm.eos_id] * 24]
    expected = Answers(1, 24, stem, vlm.eos_id)
    for token in script:
        if expected.writing:
            expected.write([0], [token])
    found = engine.sample([engine.prompt(DESCRIBE, picture())], torch.zeros(1, 0, 25), **(HOW | {"max_new_tokens": 24}), stem=f" {STEM}")
    assert found.texts == [[vlm.text(expected.text(0))]]


def test_what_vllm_refuses_is_told(vllm, learnt, picture):
    vlm, run = learnt
    engine = VllmEngine(vlm, weights_of(vlm, run), run / "served", **(OPTIONS | {"max_model_len": 20}))
    asked = [engine.prompt(DESCRIBE, picture())]
    with pytest.raises(IncompatibleChoice, match=r"longer than the maximum model length of 20.*\n.*a larger answers\.max_model_len"):
        engine.sample(asked, torch.zeros(1, 0, 9), **HOW)
    vllm.started[0].longest = len(vlm.prompt(DESCRIBE, picture()).ids) + 3  # which vLLM does not tell, but ends there
    with pytest.raises(IncompatibleChoice, match=r"cuts an answer short\n.*a larger answers\.max_model_len"):
        engine.sample(asked, torch.zeros(1, 0, 9), **HOW)
    engine.close()
    for error, raised, told in (
        (
            ValueError("dtype is odd"),
            IncompatibleChoice,
            r"vLLM 0\.32\.0\+cpu does not start with .*llava \(LlavaForConditionalGeneration\): dtype is odd",
        ),
        (RuntimeError("Engine core initialization failed."), MachineLimit, "What was learnt is kept, and ckpt=last goes on"),
    ):
        vllm.broken = error
        with pytest.raises(raised, match=told):
            VllmEngine(vlm, weights_of(vlm, run), run / "served", **OPTIONS)


def test_what_is_served(learnt, checkpoint, tmp_path):
    vlm, run = learnt
    base = checkpoint("llava")
    assert weights_of(vlm, None) == Weights(base)
    assert weights_of(vlm, run) == Weights(base, run / "adapter")
    assert [weights_of(vlm, run).rank, RANKS[0]] == [8, 1]
    (tmp_path / "full" / "model").mkdir(parents=True)
    assert weights_of(vlm, tmp_path / "full") == Weights(tmp_path / "full" / "model")
    config = json.loads((run / "adapter" / "adapter_config.json").read_text())
    (run / "adapter" / "adapter_config.json").write_text(json.dumps(config | {"r": 600}))
    with pytest.raises(IncompatibleChoice, match="an adapter of rank 600, and vLLM takes 512 at most"):
        _ = weights_of(vlm, run).rank


@pytest.mark.parametrize("part", ["projector", "tower"])
def test_an_adapter_on_more_than_the_decoder_is_served_merged(checkpoint, tmp_path, part):
    vlm = adapted(checkpoint("llava"), **{part: True})
    save_weights(vlm, tmp_path)
    with pytest.raises(IncompatibleChoice, match=r"Add export\.merge=true to the command of that run"):
        refuse_uncarried(tmp_path, vlm.family)
    (tmp_path / "merged").mkdir()
    refuse_uncarried(tmp_path, vlm.family)
    assert weights_of(vlm, tmp_path) == Weights(tmp_path / "merged")


def test_image_settings_of_a_run_lie_in_the_folder_that_is_served(checkpoint, tmp_path):
    base = checkpoint("smolvlm")
    vlm = build(base, visual_tokens=40)
    with served_folder(Weights(base), vlm, tmp_path / "served") as served:
        assert build(served).visual_tokens(build(served).prompt("?", _wide())) == vlm.visual_tokens(vlm.prompt("?", _wide()))
        assert (served / "model.safetensors").resolve() == (base / "model.safetensors").resolve()
    assert not served.exists()
    with served_folder(Weights(base), build(base), tmp_path / "served") as served:
        assert served == base


def test_what_a_run_has_written_has_the_names_of_published_weights_where_it_is_served(checkpoint, tmp_path):
    """vLLM reads LLaVA's tower under the names of its time alone."""
    vlm = build(checkpoint("llava"))
    save_weights(vlm, tmp_path)
    with served_folder(Weights(tmp_path / "model"), vlm, tmp_path / "served") as served:
        names = load_file(served / "model.safetensors").keys()
        assert {name for name in names if "vision_tower" in name and not name.startswith("model.vision_tower.vision_model.")} == set()
        for name, value in build(served).backbone.state_dict().items():
            assert torch.equal(value, vlm.backbone.state_dict()[name]), name
    assert [folder.name for folder in tmp_path.iterdir()] == ["model"]


def _wide():
    from PIL import Image

    return Image.new("RGB", (200, 90))


def test_families_that_vllm_does_not_serve(tiny, tmp_path):
    assert SERVED.keys() == FAMILIES.keys()
    with pytest.raises(IncompatibleChoice, match="vLLM does not serve this model"):
        refuse_unserved(tiny())
    folder = write_checkpoint(tmp_path / "dinov2", "llava", vision_config={"model_type": "dinov2", **DINO}, vision_feature_select_strategy="full")
    with pytest.raises(IncompatibleChoice, match="vLLM's llava has no tower of type dinov2, only clip_vision_model or siglip_vision_model"):
        refuse_unserved(build(folder))


DINO = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28, "patch_size": 7}


def test_the_release_is_known_without_importing_it(vllm):
    assert vllm_version() == "0.32.0+cpu"
