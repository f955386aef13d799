"""Every backbone keeps every promise: the points of the table in the README, each for all backbones.

The families of transformers come from small checkpoints on disk, laid out as published ones, through the path that a run takes. What is right is said
by transformers: its processor's prompts and pixels, its forward pass with positions of its own, its `generate`, its `from_pretrained`.

`make conformance` runs this and writes the table.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock, patch

import numpy as np
import pytest
import torch
import transformers
from checkpoints import NAMES, PROCESSORS, VIDEOS, rename_weights, write_checkpoint
from conformance import POINTS, README, REFUSED, block, table
from hydra import compose, initialize_config_dir
from peft import PeftModel
from PIL import Image
from torch import Tensor
from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer
from transformers.processing_utils import ProcessorMixin

from biqa import config as schema
from biqa.analysis.attention import attention_map, attention_table
from biqa.analysis.lens import lens_rows
from biqa.data.collate import IGNORED, collate
from biqa.data.module import EncodedItems, Item
from biqa.data.record import Record
from biqa.language.levels import LEVELS
from biqa.language.prompts import INFER, JOINT, STEM
from biqa.models.adapters import load_weights, save_weights
from biqa.models.inside import GROUPS, attention_rows, context_of, decoder_of, grid_of, layer_states
from biqa.models.sampling import left_padded, level_probabilities, next_tokens, sample, uniforms
from biqa.models.vlm import VLM, Prompt
from biqa.running.building import build_model, quiet
from biqa.stages.features import KnownImages
from biqa.stages.inference import Inference
from biqa.stages.joint import Joint
from biqa.stages.verdict import VerdictModule

BACKBONES = ("tiny", "owl2", *NAMES)
OWN: dict[str, tuple[str, ...]] = {
    "tiny": ("model=tiny", "model.hidden=32", "model.layers=2", "model.heads=2", "model.tower_hidden=32", "model.tower_layers=1"),
    "owl2": ("model=owl2", "model.size=tiny"),
}
"""Options of backbones that need no checkpoint."""
SIZES = ((96, 96), (130, 60), (24, 120))
"""Width and height of the pictures: as many different numbers of tiles or patches."""
TEXTS = ("The image is sharp.", "There is strong noise, the colours are pale and the edges are blurred.", "The picture is dark.")
CLOSE = {"atol": 2e-4, "rtol": 2e-4}
"""float32 sums in another order; logits are of the size of one."""


@pytest.fixture(autouse=True)
def _quiet() -> None:
    """What a run says nothing of, a test says nothing of."""
    quiet()


@pytest.fixture(params=BACKBONES)
def backbone(request) -> str:
    """The name of a backbone; where the table says "no", the test must fail."""
    point = request.function.__name__.removeprefix("test_")
    if reason := REFUSED.get((request.param, point)):
        request.applymarker(pytest.mark.xfail(reason=reason, strict=True))
    return request.param


@pytest.fixture(scope="session")
def options_of(checkpoint) -> Callable[[str], tuple[str, ...]]:
    """The options that choose a backbone."""
    return lambda name: OWN.get(name) or (f"model={name}", *((f"model.id={checkpoint(name)}",) if name in NAMES else ()))


@pytest.fixture(scope="session")
def build(options_of) -> Callable[..., VLM]:
    """A backbone as a run builds it, in evaluation mode: `build(name, *options, vision=False)`."""

    def built(name: str, *options: str, vision: bool = True) -> VLM:
        schema.register()
        dtype = () if name == "tiny" else ("model.dtype=float32",)
        with initialize_config_dir(schema.config_directory(), version_base="1.3"):
            composed = compose("config", [*options_of(name), *dtype, *options, "name=x"])
        return build_model(composed, vision=vision, weights=None).eval()

    return built


@pytest.fixture(scope="session")
def kept(build) -> Callable[..., VLM]:
    """The same, built once: for tests that change nothing."""
    models: dict[tuple[Any, ...], VLM] = {}

    def one(*of: str, vision: bool = True) -> VLM:
        if (*of, vision) not in models:
            models[(*of, vision)] = build(*of, vision=vision)
        return models[(*of, vision)]

    return one


@pytest.fixture
def pictures(picture) -> list[Image.Image]:
    """Three pictures of different sizes."""
    return [picture(seed, size=140).crop((0, 0, *size)) for seed, size in enumerate(SIZES)]


@pytest.fixture
def items(pictures, tmp_path) -> list[Item]:
    """Pictures on disk with descriptions of different length."""
    made = []
    for number, (image, text) in enumerate(zip(pictures, TEXTS, strict=True)):
        path = tmp_path / f"{number}.png"
        image.save(path)
        q = (0.1, 0.5, 0.9)[number]
        made.append(Item(Record(image=path.name, path=path, q=q, q_std=None, split="train", group=path.name, score=q), (text,)))
    return made


def stage_of(vlm: VLM, kind: type[VerdictModule] = Joint, **options: Any) -> Any:
    chosen: dict[str, Any] = {
        "target": "hard", "level_weight": 1.0, "lr": 1e-2, "weight_decay": 0.0, "warmup": 0.0, "total_steps": 20,
        "repeats": 2, "temperature": 1.0, "top_p": 1.0, "max_new_tokens": 8, "seed": 0,
    }  # fmt: skip
    return kind(vlm, **(chosen | options))


def batch_of(stage: Any, items: list[Item]) -> Any:
    """As the data module makes it: pictures in half precision until they are put together."""
    encoded = EncodedItems(items, stage.encode, cache_mb=10)
    return collate([encoded[index] for index in range(len(items))], stage.vlm.pad_id)


def logits_after(vlm: VLM, prompt: Prompt) -> Tensor:
    """[V], of a prompt alone."""
    ids = torch.tensor([prompt.ids])
    with torch.no_grad():
        return vlm.logits(vlm.hidden(ids, torch.ones_like(ids), image=prompt.image)[0, -1])


def inputs_of_transformers(name: str, folder: Path, vlm: VLM, image: Image.Image, question: str) -> dict[str, Tensor]:
    """What transformers' own processor of the family makes of the image and the question."""
    if name == "tiny":  # LLaVA's processor takes the last axis of pixels with 304 channels for the channels
        ids = vlm.tokenizer(f"USER: {'<image>' * 9}{question} ASSISTANT:", return_tensors="pt")
        return dict(ids) | dict(vlm.processor.image_processor(image, return_tensors="pt"))
    processor = vlm.processor if name == "owl2" else processor_of_transformers(name, folder)
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}]
    # past SmolVLM's own method, which asks its video processor how many frames it takes
    text: Any = ProcessorMixin.apply_chat_template(processor, messages, add_generation_prompt=True)
    begun = {"add_special_tokens": False} if name == "idefics3" else {}  # what chat calls do where the template writes the first token itself
    return dict(processor(text=text, images=[image], return_tensors="pt", **begun))


def processor_of_transformers(name: str, folder: Path) -> Any:
    """The family's processor. Its video processor, which wants torchvision, is left out: no video is shown."""
    tokenizer, images = AutoTokenizer.from_pretrained(folder), AutoImageProcessor.from_pretrained(folder, backend="pil")
    options = {key: value for key, value in PROCESSORS.get(name, {}).items() if key not in ("processor_class", "image_token")}
    if name in VIDEOS:
        options["video_processor"] = object()
    kind = {"qwen2_5_vl": "Qwen2_5_VLProcessor", "qwen3_vl": "Qwen3VLProcessor"}.get(name) or PROCESSORS[name]["processor_class"]
    with (
        patch.object(ProcessorMixin, "check_argument_for_proper_class", lambda *_: None),
        patch("transformers.models.smolvlm.processing_smolvlm.num2words", object()),
    ):
        return getattr(transformers, kind)(image_processor=images, tokenizer=tokenizer, chat_template=tokenizer.chat_template, **options)


@pytest.fixture
def folder_of(checkpoint) -> Callable[[str], Path]:
    """Where the backbone's checkpoint lies, if it has one."""
    return lambda name: Path() if name in OWN else checkpoint(name)


# the points


def test_labels(backbone, build, items):
    """Cross-entropy on the answer alone, each token after all that stands before it."""
    vlm = build(backbone)
    stage = stage_of(vlm)
    batch = batch_of(stage, items)
    seen: list[Tensor] = []

    def recorded(*given: Any, **named: Any) -> Tensor:
        seen.append(hidden(*given, **named))
        seen[0].retain_grad()
        return seen[0]

    hidden = vlm.hidden
    with patch.object(vlm, "hidden", recorded):
        loss = stage.loss(batch)[0]
    loss.backward()
    supervised = batch.labels != IGNORED
    supervised[torch.arange(len(items)), batch.level_position] = True
    assert torch.equal(seen[0].grad.abs().sum(-1) > 0, supervised)
    assert supervised.sum() == sum(len(example.answer) for example in batch.examples)

    words, levels = [], []
    for example in batch.examples:
        ids = torch.tensor([[*example.prompt, *example.answer]])
        fed = vlm.family.batch({key: value.float() if value.is_floating_point() else value for key, value in example.image.items()})
        with torch.no_grad():
            out = plain_forward(vlm, ids, fed)
        told = out[0, len(example.prompt) - 1 : -1].log_softmax(-1)[range(len(example.answer)), example.answer]
        levels.append(-told[example.level_at])
        words += [-value for at, value in enumerate(told) if at != example.level_at]
    torch.testing.assert_close(loss.detach(), torch.stack(words).mean() + torch.stack(levels).mean(), **CLOSE)


def plain_forward(vlm: VLM, ids: Tensor, fed: dict[str, Tensor]) -> Tensor:
    """Logits of transformers' class on one text, whose positions it counts itself: [1, L, V]."""
    more = {"mm_token_type_ids": (ids == vlm.model.config.image_token_id).int()} if vlm.family.positions_in_space else {}
    return vlm.model(input_ids=ids, attention_mask=torch.ones_like(ids), **fed, **more).logits


def test_level(backbone, kept, pictures):
    """The level distribution at the last real position: padded on the left, on the right, and alone."""
    vlm = kept(backbone)
    stem = vlm.opening(STEM)
    prompts = [vlm.prompt(question, image) for question, image in zip(("Rate it.", JOINT, "Is it sharp?"), pictures, strict=True)]
    if vlm.family.name not in ("llava", "owl2"):
        assert len({vlm.visual_tokens(prompt) for prompt in prompts}) == 3
    left = level_probabilities(vlm, prompts, stem)
    alone = torch.cat([level_probabilities(vlm, [prompt], stem) for prompt in prompts])
    torch.testing.assert_close(left, alone, **CLOSE)
    ids, mask, image = left_padded([Prompt((*prompt.ids, *stem), prompt.image) for prompt in prompts], vlm.pad_id, vlm.device)
    rolls = [int((row == 0).sum()) for row in mask]
    ids, mask = (torch.stack([row.roll(-by) for row, by in zip(value, rolls, strict=True)]) for value in (ids, mask))
    with torch.no_grad():
        right = vlm.level_logits(vlm.hidden(ids, mask, image=image)[range(3), mask.sum(-1) - 1]).softmax(-1)
    torch.testing.assert_close(right, alone, **CLOSE)
    assert vlm.level_ids == [vlm.continuation(f" {level}")[0] for level in LEVELS]
    with torch.no_grad():
        plain = plain_forward(vlm, torch.tensor([[*prompts[1].ids, *stem]]), vlm.family.batch(prompts[1].image))[0, -1]
    torch.testing.assert_close(alone[1], plain[vlm.level_ids].softmax(-1), **CLOSE)


def test_transformers(backbone, kept, pictures, folder_of):
    """Prompts and pixels of transformers' own processor, and the tokens of its own `generate`."""
    vlm = kept(backbone)
    for image in pictures:
        prompt = vlm.prompt(JOINT, image)
        made = inputs_of_transformers(backbone, folder_of(backbone), vlm, image, JOINT)
        assert made["input_ids"][0].tolist() == list(prompt.ids)
        for key, value in vlm.family.batch(prompt.image).items():
            assert torch.equal(value, made[key])
        written = vlm.model.generate(**made, do_sample=False, max_new_tokens=10, eos_token_id=vlm.eos_id, pad_token_id=vlm.pad_id)[0]
        expected = vlm.text((written if backbone == "owl2" else written[len(prompt.ids) :]).tolist())
        answers = sample(vlm, [prompt], torch.zeros(1, 0, 10), temperature=1.0, top_p=1.0, max_new_tokens=10)
        assert answers.texts == [[expected]]


@pytest.mark.parametrize("family", NAMES)
def test_an_answer_is_tokenized_as_in_its_place(family, kept):
    """A prompt and the beginning of its answer are the tokens of both as one text, and the answer ends as the chat template ends one."""
    vlm = kept(family)
    begun = vlm.prompt("Rate it.").ids
    text = vlm.tokenizer.decode(begun)
    gap = "" if vlm.asked.isspace() else " "
    whole = vlm.tokenizer(f"{text}{gap}{TEXTS[0]}", add_special_tokens=False)["input_ids"]
    assert whole == [*begun, *vlm.opening(TEXTS[0])]
    assert begun.count(vlm.tokenizer.bos_token_id) == (1 if vlm.tokenizer.bos_token_id is not None else 0)
    ends = {"llava": "</s>", "smolvlm": "<end_of_utterance>", "idefics3": "<end_of_utterance>"}
    assert vlm.tokenizer.convert_ids_to_tokens(vlm.eos_id) == ends.get(family, "<|im_end|>")


def test_samples(backbone, kept, pictures):
    """Many answers from one prefill of several images are those that reading everything anew for every token gives."""
    vlm = kept(backbone)
    prompts = [vlm.prompt(question, image) for question, image in zip(("Rate it.", JOINT), pictures, strict=False)]
    numbers = uniforms(0, ["a", "b"], queries=2, steps=8)
    stem = f" {STEM}"
    together = sample(vlm, prompts, numbers, temperature=1.0, top_p=1.0, max_new_tokens=8, stem=stem)
    for row, prompt in enumerate(prompts):
        for query in range(3):
            ids = without_cache(vlm, prompt, numbers[row, query - 1] if query else None)
            assert together.texts[row][query] == vlm.text(ids)
            after = level_probabilities(vlm, [Prompt((*prompt.ids, *ids), prompt.image)], vlm.continuation(stem))[0]
            torch.testing.assert_close(together.level_probabilities[row, query], after, **CLOSE)


def without_cache(vlm: VLM, prompt: Prompt, numbers: Tensor | None) -> list[int]:
    """Token ids of one answer of at most eight tokens; greedy without random numbers."""
    ids: list[int] = []
    for step in range(8):
        logits = logits_after(vlm, Prompt((*prompt.ids, *ids), prompt.image))[None]
        token = int(logits.argmax(-1) if numbers is None else next_tokens(logits, numbers[step : step + 1], 1.0, 1.0))
        if token == vlm.eos_id:
            break
        ids.append(token)
    return ids


def test_features(backbone, kept, items, pictures, tmp_path):
    """What tower and projector made of images, looked up on disk: nothing of what follows changes, and the tower is asked once."""
    vlm = kept(backbone)

    def stage_that_looks_up(*, halves: bool) -> Joint:
        stage = stage_of(vlm)
        stage.known = KnownImages(vlm, cache=tmp_path, most_gb=1, precision="32-true")
        stage.known.learn([item.record for item in items], nullcontext(), halves=halves)
        return stage

    asked = Mock(side_effect=vlm.model.model.get_image_features)
    with patch.object(vlm.model.model, "get_image_features", asked):
        for halves in (True, False):
            stage_that_looks_up(halves=halves)
        assert asked.call_count == 2
        kept_on_disk = stage_that_looks_up(halves=True), stage_that_looks_up(halves=False)
        with_features = loss_and_gradients(kept_on_disk[0], items), kept_on_disk[1].answer(items)
        assert asked.call_count == 2
    without = loss_and_gradients(stage_of(vlm), items), stage_of(vlm).answer(items)
    torch.testing.assert_close(with_features[0], without[0], atol=1e-5, rtol=1e-5)
    assert [row["description"] for row in with_features[1]] == [row["description"] for row in without[1]]
    for row, plain in zip(with_features[1], without[1], strict=True):
        assert row == pytest.approx(plain, abs=1e-5)

    for dtype in (None, torch.bfloat16):  # alone, so that sums are taken in the same order: bit by bit
        computing = partial(torch.autocast, "cpu", dtype, enabled=dtype is not None)
        for picture in pictures:
            prompt = vlm.prompt(JOINT, picture)
            with computing():
                [features] = vlm.features([prompt])
                assert torch.equal(logits_after(vlm, replace(prompt, image=features)), logits_after(vlm, prompt))


def loss_and_gradients(stage: Joint, items: list[Item]) -> dict[str, Tensor]:
    """Of one batch, by the weights of the decoder."""
    loss = stage.loss(batch_of(stage, items))[0]
    weights = {name: weight for name, weight in stage.vlm.backbone.named_parameters() if stage.vlm.part_of(name) == "decoder"}
    gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
    return {"loss": loss.detach(), **{name: found for name, found in zip(weights, gradients, strict=True) if found is not None}}


def test_text(backbone, build, kept, folder_of, tmp_path):
    """The decoder alone: no tensor of tower or projector is read, and a text has the same logits."""
    whole, decoder = kept(backbone), kept(backbone, vision=False)
    prompt = whole.prompt("The edges are blurred. Rate it.")
    assert decoder.prompt("The edges are blurred. Rate it.") == prompt
    torch.testing.assert_close(logits_after(decoder, prompt), logits_after(whole, prompt), atol=1e-5, rtol=1e-5)
    parts = {whole.family.part(name) for name, _ in whole.model.named_parameters()}
    assert parts == {"tower", "projector", "decoder"}
    text = {name for name in whole.model.state_dict() if whole.family.text_key(name)}
    assert {whole.family.text_key(name) for name in text} == set(decoder.model.state_dict())
    if backbone in NAMES:
        seen = r"^(?!language_model\.)(model\.)?(vision_tower|vision_model|visual|connector|multi_modal_projector)\."
        alone = write_checkpoint(tmp_path / "alone", backbone)
        rename_weights(alone, seen, None)
        torch.testing.assert_close(
            logits_after(build("hf", f"model.id={alone}", vision=False), prompt), logits_after(decoder, prompt), atol=0, rtol=0
        )


def test_packed(backbone, kept):
    """Texts that share a row: hidden states are transformers' own of each alone, loss, level logits and gradients those of a row each."""
    texts = ["Sharp. Bright.", "Dark.", " ".join([*TEXTS] * 4), TEXTS[1], *TEXTS]
    items = [
        Item(Record(image=str(number), path=Path("none"), q=number / 6, q_std=0.1, split="train", group=str(number), score=0.5), (text,))
        for number, text in enumerate(texts)
    ]
    for attention in ("sdpa", "eager"):
        vlm = kept(backbone, f"model.attention={attention}", vision=False)
        assert vlm.packs
        stage = stage_of(vlm, kind=Inference, target="soft")
        encoded = [stage.encode(item) for item in items]
        packed, plain = (collate(encoded, vlm.pad_id, pack=pack) for pack in (True, False))
        assert len(packed.input_ids) < len(plain.input_ids)
        mask, positions = packed.attended()
        states = vlm.hidden(packed.input_ids, mask, positions=positions)
        for row, ids in enumerate(packed.input_ids):
            for place in range(1, int(packed.attention_mask[row].max()) + 1):
                own = packed.attention_mask[row] == place
                alone = vlm.model(input_ids=ids[own][None], output_hidden_states=True).hidden_states[-1][0]
                torch.testing.assert_close(states[row, own], alone, atol=1e-5, rtol=1e-5)
        weights = [weight for weight in vlm.parameters() if weight.requires_grad]
        assert weights
        found = []
        for batch in (packed, plain):
            loss, logits = stage.loss(batch)
            found.append([loss, logits, *torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)])
        for one, other in zip(*found, strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_layers(backbone, kept, pictures):
    """Hidden states and attention of every layer of the decoder; the last state through norm and head is the output."""
    vlm = kept(backbone, "model.attention=eager")
    decoder, head = vlm.model.get_submodule(vlm.family.decoder), vlm.model.get_submodule(vlm.family.head)
    prompt = vlm.prompt("Rate it.", pictures[0])
    ids = torch.tensor([prompt.ids])
    fed = vlm.family.batch(prompt.image) | (
        {"mm_token_type_ids": (ids == vlm.model.config.image_token_id).int()} if vlm.family.positions_in_space else {}
    )
    written: list[Tensor] = []
    hooks = [layer.register_forward_hook(lambda _, __, out: written.append(out[0] if isinstance(out, tuple) else out)) for layer in decoder.layers]
    with torch.no_grad():
        out = vlm.model(input_ids=ids, attention_mask=torch.ones_like(ids), **fed, output_hidden_states=True, output_attentions=True)
    for hook in hooks:
        hook.remove()
    layers = len(decoder.layers)
    assert len(out.hidden_states) == layers + 1
    assert len(out.attentions) == layers
    assert len(written) == layers
    for weights in out.attentions:
        assert weights.shape[-2:] == (ids.shape[1], ids.shape[1])
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]), atol=1e-5, rtol=0)
        assert weights.triu(1).abs().max() == 0
    torch.testing.assert_close(head(decoder.norm(written[-1])), out.logits, **CLOSE)
    torch.testing.assert_close(logits_after(vlm, prompt), out.logits[0, -1], **CLOSE)


def test_lens(backbone, kept, pictures):
    """Every layer's state at the level, padded or alone; the last one through norm and head gives the model's own level distribution."""
    vlm = kept(backbone)
    contexts = [context_of(vlm, JOINT, text, picture) for text, picture in zip(TEXTS, pictures, strict=True)]
    contexts += [context_of(kept(backbone, vision=False), INFER, text) for text in TEXTS]
    for model, of in ((vlm, contexts[:3]), (kept(backbone, vision=False), contexts[3:])):
        own = level_probabilities(model, [context.prompt for context in of], [])
        found = lens_rows(model, of)
        said = torch.tensor([[rows[-1][f"p_{level}"] for level in LEVELS] for rows in found])
        torch.testing.assert_close(said, own, atol=1e-5, rtol=0)
        layers = len(decoder_of(model).layers)
        assert all([row["layer"] for row in rows] == list(range(1, layers + 1)) for rows in found)
        alone = torch.cat([layer_states(model, [context.prompt]) for context in of])
        torch.testing.assert_close(layer_states(model, [context.prompt for context in of]), alone, **CLOSE)
    ids = torch.tensor([contexts[0].prompt.ids])
    fed = vlm.family.batch(contexts[0].prompt.image)
    kinds = {"mm_token_type_ids": (ids == vlm.image_token_id).int()} if vlm.family.positions_in_space else {}
    with torch.no_grad():
        out = vlm.model(input_ids=ids, attention_mask=torch.ones_like(ids), **fed, **kinds, output_hidden_states=True)
    states = layer_states(vlm, [contexts[0].prompt])[0]
    for layer, state in enumerate(states[:-1], 1):
        torch.testing.assert_close(state, out.hidden_states[layer][0, -1], **CLOSE)


def test_attends(backbone, kept, pictures):
    """Rows of attention read from a cache are those of one eager pass over everything; the four groups are all of it."""
    for attention in ("sdpa", "eager"):
        vlm = kept(backbone, f"model.attention={attention}")
        contexts = [context_of(vlm, JOINT, text, picture) for text, picture in zip(TEXTS, pictures, strict=True)]
        rows = attention_rows(vlm, [context.prompt for context in contexts])
        torch.testing.assert_close(rows.sum(-1), torch.ones(rows.shape[:2]), atol=1e-4, rtol=0)
        for row, context in zip(rows, contexts, strict=True):
            assert not row[:, : row.shape[1] - len(context.prompt.ids)].any()
            torch.testing.assert_close(
                row[:, -len(context.prompt.ids) :], eager_rows(kept(backbone, "model.attention=eager"), context.prompt), **CLOSE
            )
            assert len(context.groups) == len(context.prompt.ids)
            assert context.groups.count(GROUPS.index("image")) == vlm.visual_tokens(context.prompt) > 0
        for of in attention_table(vlm, contexts):
            for row in of:
                assert sum(row[f"{group}_mass"] for group in GROUPS) == pytest.approx(1, abs=1e-4)
                assert min(row[f"{group}_mass"] for group in GROUPS) > 0
    decoder = kept(backbone, vision=False)
    for text, of in zip(TEXTS, attention_table(decoder, [context_of(decoder, INFER, text) for text in TEXTS]), strict=True):
        assert all(row["image_mass"] == 0 for row in of), text
        assert all(row["description_mass"] > 0 for row in of), text


@pytest.mark.parametrize("backbone", [name for name in BACKBONES if name != "owl2"])
def test_each_cell_of_the_grid_is_its_place_in_the_picture(backbone, kept):
    """Change one place of the picture: of the visual tokens on the grid, the one there changes most."""
    vlm = kept(backbone)
    pairs = np.random.default_rng(0).integers(0, 256, (6, 2, 96, 96, 3), dtype=np.uint8)
    example = vlm.prompt("Rate it.", Image.fromarray(pairs[0, 0]))
    grid = grid_of(vlm, example)
    assert grid is not None
    assert grid.first + grid.rows * grid.columns == vlm.visual_tokens(example)

    def seen(pixels: Any) -> Tensor:
        prompt = vlm.prompt("Rate it.", Image.fromarray(pixels))
        given = vlm.passed(prompt, decoder_of(vlm).layers[0])[0][torch.tensor(prompt.ids) == vlm.image_token_id]
        return given[grid.first :].unflatten(0, (grid.rows, grid.columns))

    def moved(whole: Any, other: Any, place: tuple[slice, slice]) -> Tensor:
        changed = whole.copy()
        changed[place] = other[place]
        return (seen(changed) - seen(whole)).norm(dim=-1)

    for row in {0, grid.rows - 1}:
        for column in {0, grid.columns - 1}:
            place = tuple(slice(96 * at // of, 96 * (at + 1) // of) for at, of in ((row, grid.rows), (column, grid.columns)))
            average = torch.stack([moved(whole, other, place) for whole, other in pairs]).mean(0)
            assert divmod(int(average.argmax()), grid.columns) == (row, column)


def test_tokens_without_a_grid_are_not_laid_over_a_picture(kept, pictures):
    """mPLUG-Owl2's 65 tokens each stand for the whole picture."""
    vlm = kept("owl2")
    context = context_of(vlm, JOINT, TEXTS[0], pictures[0])
    assert grid_of(vlm, context.prompt) is None
    assert attention_map(vlm, context) is None


def eager_rows(vlm: VLM, prompt: Prompt) -> Tensor:
    """Attention of the last position, mean over heads, from transformers' own output: [layers, L]."""
    ids = torch.tensor([prompt.ids])
    kinds = {"mm_token_type_ids": (ids == vlm.image_token_id).int()} if vlm.family.positions_in_space else {}
    with torch.no_grad():
        out = vlm.model(input_ids=ids, attention_mask=torch.ones_like(ids), **vlm.family.batch(prompt.image), **kinds, output_attentions=True)
    return torch.stack([weights[0, :, -1].mean(0) for weights in out.attentions])


def losses_of(stage: Joint, items: list[Item], steps: int = 6) -> list[float]:
    """Losses of some steps of the stage's own optimiser on the same images."""
    batch = batch_of(stage, items)
    optimizer = stage.configure_optimizers()["optimizer"]
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = stage.loss(batch)[0]
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def state_of(vlm: VLM) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in vlm.backbone.named_parameters()}


def changed(vlm: VLM, before: dict[str, Tensor]) -> set[str]:
    return {name for name, parameter in vlm.backbone.named_parameters() if not torch.equal(parameter, before[name])}


def learning(vlm: VLM) -> set[str]:
    return {name for name, parameter in vlm.backbone.named_parameters() if parameter.requires_grad}


LORA = ("tuning=lora", "tuning.rank=4", "tuning.alpha=8", "tuning.dropout=0")


def test_lora(backbone, build, items, tmp_path):
    """Adapters on the decoder learn, alone; saved and read back they say the same; stage 2's decoder begins with them."""
    adapters_learn(backbone, build, items, tmp_path, *LORA)


def test_nf4(backbone, build, items, tmp_path):
    """The same on a decoder of four bits a weight."""
    packed = (*LORA, "quantization=nf4")
    vlm = build(backbone, *packed)
    parts = {vlm.family.part(name) for name, parameter in vlm.model.named_parameters() if parameter.dtype == torch.uint8}
    assert parts == {"decoder"}
    adapters_learn(backbone, build, items, tmp_path, *packed)


def adapters_learn(backbone: str, build: Callable[..., VLM], items: list[Item], tmp_path: Path, *options: str) -> None:
    """Six steps, saved and read back."""
    vlm = build(backbone, *options)
    assert learning(vlm)
    assert all("lora_" in name and vlm.family.part(name.removeprefix("base_model.model.")) == "decoder" for name in learning(vlm))
    before = state_of(vlm)
    losses = losses_of(stage_of(vlm), items)
    assert losses[-1] < losses[0]
    assert changed(vlm, before) == learning(vlm)

    save_weights(vlm, tmp_path)
    text = vlm.prompt("The edges are blurred. Rate it.")
    prompt = vlm.prompt("Rate it.", Image.open(items[0].record.path))
    fresh = build(backbone, *options)
    assert not torch.allclose(logits_after(fresh, prompt), logits_after(vlm, prompt), atol=1e-3)
    load_weights(fresh, tmp_path)
    torch.testing.assert_close(logits_after(fresh, prompt), logits_after(vlm, prompt), **CLOSE)
    decoder = build(backbone, *options, vision=False)
    load_weights(decoder, tmp_path)
    torch.testing.assert_close(logits_after(decoder, text), logits_after(vlm, text), **CLOSE)


def test_full(backbone, build, items):
    """Every weight learns but those named."""
    vlm = build(backbone, "tuning=full")
    before = state_of(vlm)
    losses = losses_of(stage_of(vlm, lr=2e-3), items)
    assert losses[-1] < losses[0]
    assert {vlm.family.part(name) for name in changed(vlm, before)} == {"tower", "projector", "decoder"}
    frozen = build(backbone, "tuning=full", "tuning.freeze='^" + vlm.family.tower.replace(".", r"\.") + "'")
    before = state_of(frozen)
    losses_of(stage_of(frozen, lr=2e-3), items, steps=2)
    assert changed(frozen, before)
    assert not any(name.startswith(vlm.family.tower) for name in changed(frozen, before))


def test_saved(backbone, build, items, tmp_path):
    """What was learnt, read back with biqa and with transformers and PEFT alone, says the same."""
    vlm = build(backbone, "tuning=full")
    losses_of(stage_of(vlm, lr=2e-3), items, steps=1)
    vlm.eval()
    save_weights(vlm, tmp_path)
    prompt = vlm.prompt("Rate it.", Image.open(items[0].record.path))
    fresh = build(backbone, "tuning=full")
    load_weights(fresh, tmp_path)
    torch.testing.assert_close(logits_after(fresh, prompt), logits_after(vlm, prompt), atol=0, rtol=0)
    decoder = build(backbone, "tuning=full", vision=False)
    load_weights(decoder, tmp_path)
    text = vlm.prompt("Rate it.")
    torch.testing.assert_close(logits_after(decoder, text), logits_after(vlm, text), atol=1e-5, rtol=1e-5)

    adapted = build(backbone, *LORA)
    losses_of(stage_of(adapted), items, steps=1)
    save_weights(adapted.eval(), tmp_path)
    peft: Any = PeftModel.from_pretrained(build(backbone).backbone, tmp_path / "adapter")
    ids = torch.tensor([prompt.ids])
    with torch.no_grad():
        plain = plain_forward_of(peft.eval(), vlm, ids, prompt)
    torch.testing.assert_close(plain, logits_after(adapted, prompt), **CLOSE)


def plain_forward_of(model: Any, vlm: VLM, ids: Tensor, prompt: Prompt) -> Tensor:
    """Logits after a prompt, by a model of transformers or PEFT itself."""
    more = {"mm_token_type_ids": (ids == vlm.model.config.image_token_id).int()} if vlm.family.positions_in_space else {}
    return model(input_ids=ids, attention_mask=torch.ones_like(ids), **vlm.family.batch(prompt.image), **more).logits[0, -1].float()


def test_plain(backbone, build, items, tmp_path):
    """Full weights load with transformers' own classes, without biqa."""
    vlm = build(backbone, "tuning=full")
    losses_of(stage_of(vlm, lr=2e-3), items, steps=1)
    save_weights(vlm.eval(), tmp_path)
    prompt = vlm.prompt("Rate it.", Image.open(items[0].record.path))
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "model", dtype=torch.float32)
    assert type(model).__module__.startswith("transformers.")
    with torch.no_grad():
        plain = plain_forward_of(model.eval(), vlm, torch.tensor([prompt.ids]), prompt)
    torch.testing.assert_close(plain, logits_after(vlm, prompt), **CLOSE)


def test_tokens(backbone, build, kept, pictures):
    """An image takes at most so many visual tokens as the config says; how many is told, and the model takes them."""
    usual = [kept(backbone).visual_tokens(kept(backbone).prompt("Rate it.", image)) for image in pictures]
    most = max(usual) - 1
    vlm = build(backbone, "model.grid=2" if backbone == "tiny" else f"model.visual_tokens={most}")
    prompts = [vlm.prompt("Rate it.", image) for image in pictures]
    told = [vlm.visual_tokens(prompt) for prompt in prompts]
    assert all(0 < now <= min(most, before) for now, before in zip(told, usual, strict=True))
    assert [prompt.ids.count(vlm.model.config.image_token_id) for prompt in prompts] == told
    probabilities = level_probabilities(vlm, prompts, vlm.opening(STEM))
    torch.testing.assert_close(probabilities.sum(-1), torch.ones(3))


# the table


def test_the_readme_has_this_table():
    """As `make conformance` writes it where no test fails."""
    outcomes = {(backbone, point): REFUSED.get((backbone, point), "") for backbone in BACKBONES for point in POINTS}
    assert block(README.read_text()) == table(outcomes), "run make conformance"
    assert all(callable(globals()[f"test_{point}"]) for point in POINTS)
