"""mPLUG-Owl2's processor: forms of a dialogue, places of images, what is supervised, and its files.

$BIQA_LLAMA_TOKENIZER names LLaMA's tokenizer.model. Folder $BIQA_OWL2_FIXTURE, else owl2/fixture of $BIQA_SHARED, holds what the original put out.
"""

import json
import os
from itertools import groupby
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoProcessor, AutoTokenizer

from biqa.errors import IncompatibleChoice
from biqa.models.owl2 import Owl2Config, Owl2ForConditionalGeneration
from biqa.models.owl2.configuration import IMAGE_TOKEN_ID
from biqa.models.owl2.images import Owl2ImageProcessor
from biqa.models.owl2.processing import IGNORED, Owl2Processor, register
from biqa.models.owl2.tokenization import Owl2Tokenizer
from biqa.models.owl2.vocabulary import train_tokenizer

SMALL = {"size": {"shortest_edge": 56}, "crop_size": {"height": 56, "width": 56}}
SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions. "
)
CASES = ["v1/one_turn_image_last", "v1/two_turns", "mplug_owl2/one_turn_image_last", "mplug_owl2/two_turns"]
ASKED = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Rate it."}]}]
TWO_TURNS = [
    *ASKED,
    {"role": "assistant", "content": "It is poor."},
    {"role": "user", "content": "Why?"},
    {"role": "assistant", "content": [{"type": "text", "text": "It is blurred."}]},
]


def build(template="owl2", places=3, tokenizer=None):
    return Owl2Processor(Owl2ImageProcessor(**SMALL), tokenizer or train_tokenizer(2048), template=template, tokens_per_image=places)


@pytest.fixture(scope="module")
def recorded():
    place = os.environ.get("BIQA_OWL2_FIXTURE") or (os.environ.get("BIQA_SHARED") and os.environ["BIQA_SHARED"] + "/owl2/fixture")
    if not place:
        pytest.skip("neither BIQA_OWL2_FIXTURE nor BIQA_SHARED is set: no outputs of the original here")
    return json.loads((Path(place) / "prompts.json").read_text())["train_labels"]


@pytest.fixture(scope="module")
def llama():
    file = os.environ.get("BIQA_LLAMA_TOKENIZER")
    if not file:
        pytest.skip("BIQA_LLAMA_TOKENIZER is not set: no vocabulary of LLaMA's here")
    return Owl2Tokenizer(file)


# forms of a dialogue


def test_owl2_leaves_images_in_their_place():
    processor = build("owl2")
    assert processor.apply_chat_template(ASKED, add_generation_prompt=True) == "USER: <|image|>Rate it. ASSISTANT:"
    parts = [{"type": "text", "text": "First: "}, {"type": "image"}, {"type": "text", "text": " Second: "}, {"type": "image"}]
    assert processor.apply_chat_template([{"role": "user", "content": parts}]) == "USER: First: <|image|> Second: <|image|>"
    text = "USER: <|image|>Rate it. ASSISTANT: It is poor.</s>USER: Why? ASSISTANT: It is blurred.</s>"
    assert processor.apply_chat_template(TWO_TURNS) == text


def test_v1_has_a_system_text_and_images_in_front():
    processor = build("v1")
    last = [{"role": "user", "content": [{"type": "text", "text": "Rate it.\n"}, {"type": "image"}]}]
    for messages in (ASKED, last):
        assert processor.apply_chat_template(messages, add_generation_prompt=True) == f"{SYSTEM}USER: <|image|>\nRate it. ASSISTANT:"
    text = f"{SYSTEM}USER: <|image|>\nRate it. ASSISTANT: It is poor.</s>USER: Why? ASSISTANT: It is blurred.</s>"
    assert processor.apply_chat_template(TWO_TURNS) == text


@pytest.mark.parametrize(("template", "system"), [("owl2", ""), ("v1", SYSTEM)])
def test_a_question_without_image(template, system):
    for content in ("What is noise?", [{"type": "text", "text": "What is noise?"}]):
        messages = [{"role": "user", "content": content}]
        assert build(template).apply_chat_template(messages, add_generation_prompt=True) == f"{system}USER: What is noise? ASSISTANT:"


def test_what_looks_like_a_template_in_a_question_is_text():
    messages = [{"role": "user", "content": "Is {{ messages }} 5 > 3 & 'so' on?"}]
    assert build("v1").apply_chat_template(messages) == f"{SYSTEM}USER: Is {{{{ messages }}}} 5 > 3 & 'so' on?"


def test_other_roles_and_templates_are_refused():
    with pytest.raises(Exception, match="the roles are user and assistant"):
        build().apply_chat_template([{"role": "system", "content": "Be brief."}])
    with pytest.raises(IncompatibleChoice, match="template=vicuna is none of owl2, v1"):
        build("vicuna")


# tokens and pixels


def test_every_image_gets_its_places(picture):
    processor = build(places=3)
    inputs = processor(text="USER: <|image|>and <|image|> ASSISTANT:", images=[picture(0), picture(1)], return_tensors="pt")
    tokens = processor.tokenizer("USER: <|image|>and <|image|> ASSISTANT:")["input_ids"]
    assert inputs["input_ids"].shape == (1, len(tokens) + 4) == inputs["attention_mask"].shape
    runs = [(index, len([*group])) for index, group in groupby(inputs["input_ids"][0].tolist()) if index == IMAGE_TOKEN_ID]
    assert runs == [(IMAGE_TOKEN_ID, 3)] * 2
    assert [index for index in inputs["input_ids"][0].tolist() if index != IMAGE_TOKEN_ID] == [index for index in tokens if index != IMAGE_TOKEN_ID]
    assert inputs["pixel_values"].shape == (2, 3, 56, 56)


@pytest.mark.parametrize("side", ["left", "right"])
def test_several_prompts_are_padded_on_either_side(picture, side):
    processor = build(places=3)
    texts = ["USER: What is noise? ASSISTANT:", "USER: <|image|>Rate the quality of the image. ASSISTANT:"]
    both = processor(text=texts, images=picture(), padding=True, padding_side=side, return_tensors="pt")
    for row, (text, images) in enumerate(zip(texts, (None, picture()), strict=True)):
        alone = processor(text=text, images=images, return_tensors="pt")["input_ids"][0]
        mask = both["attention_mask"][row].bool()
        assert torch.equal(both["input_ids"][row][mask], alone)
        assert set(both["input_ids"][row][~mask].tolist()) <= {0}
        assert bool(mask[-1 if side == "left" else 0])
    assert both["attention_mask"].sum(1).tolist()[0] < both["attention_mask"].shape[1]
    assert both["pixel_values"].shape == (1, 3, 56, 56)


@pytest.mark.parametrize(
    ("texts", "images", "counts"),
    [
        ("<|image|>a<|image|>", 1, "2 places for images (<|image|>), but 1 images came"),
        ("a", 1, "0 places for images (<|image|>), but 1 images came"),
        ("<|image|>a", 0, "1 places for images (<|image|>), but 0 images came"),
        (["<|image|>a", "b"], 2, "1 places for images (<|image|>), but 2 images came"),
        (["<|image|>a<|image|>", "<|image|>b"], [1, 2], "2, 1 places for images (<|image|>), but 1, 2 images came"),
    ],
)
def test_places_and_images_must_agree(texts, images, counts):
    image = Image.new("RGB", (8, 8))
    given = [[image] * count for count in images] if isinstance(images, list) else [image] * images
    with pytest.raises(IncompatibleChoice) as error:
        build()(text=texts, images=given, padding=True)
    assert counts in str(error.value)


def test_images_may_come_text_by_text(picture):
    processor = build()
    images = [picture(seed) for seed in range(3)]
    texts = ["<|image|>a<|image|>b", "c", "<|image|>d"]
    nested = processor(text=texts, images=[images[:2], [], images[2:]], padding=True, return_tensors="pt")
    flat = processor(text=texts, images=images, padding=True, return_tensors="pt")
    assert all(torch.equal(nested[name], flat[name]) for name in ("input_ids", "attention_mask", "pixel_values"))


def test_a_dialogue_with_its_image_goes_through_at_once(picture):
    processor = build("v1")
    messages = [{"role": "user", "content": [{"type": "image", "image": picture()}, {"type": "text", "text": "Rate it."}]}]
    at_once = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt")
    text = processor.apply_chat_template(messages, add_generation_prompt=True)
    by_hand = processor(text=text, images=picture(), return_tensors="pt")
    assert set(at_once) == set(by_hand) == {"input_ids", "attention_mask", "pixel_values"}
    assert all(torch.equal(at_once[name], by_hand[name]) for name in by_hand)


def test_the_model_takes_what_comes_out(picture):
    visual = {"image_size": 56, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    abstractor = {"hidden_size": 16, "encoder_hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = Owl2Config(
        vocab_size=2048, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2,
        visual_config={"visual_model": visual, "visual_abstractor": abstractor | {"num_learnable_queries": 4, "grid_size": 4}},
    )  # fmt: skip
    inputs = build(places=config.tokens_per_image)(text="USER: <|image|>Rate it. ASSISTANT:", images=picture(), return_tensors="pt")
    logits = Owl2ForConditionalGeneration(config).eval()(**inputs).logits
    assert logits.shape == (*inputs["input_ids"].shape, 2048)
    assert torch.isfinite(logits).all()


# what is supervised


def messages_of(name, case):
    """The recorded dialogue in transformers' form. All training code puts the image first on a line of its own: v1 does so itself, owl2 is told."""
    messages = []
    for turn in case["conversation"]:
        role = {"human": "user", "gpt": "assistant"}[turn["from"]]
        parts = [{"type": "text", "text": text} for text in turn["value"].split("<|image|>") if text]
        if "<|image|>" in turn["value"]:
            if name.startswith("v1/"):
                parts.insert(0 if turn["value"].startswith("<|image|>") else 1, {"type": "image"})
            else:
                words = turn["value"].replace("<|image|>", "").strip()
                parts = [{"type": "image"}, {"type": "text", "text": f"\n{words}"}]
        messages.append({"role": role, "content": parts})
    return messages


@pytest.mark.parametrize("name", CASES)
def test_labels_are_those_of_the_original(recorded, llama, name):
    case = recorded[name]
    processor = build({"v1": "v1", "mplug_owl2": "owl2"}[name.split("/")[0]], places=1, tokenizer=llama)
    ids, labels = processor.supervised(messages_of(name, case))
    assert ids == case["input_ids"]
    assert labels == case["labels"]


@pytest.mark.parametrize("name", CASES)
def test_dialogues_read_as_the_original_writes_them(recorded, name):
    case = recorded[name]
    processor = build({"v1": "v1", "mplug_owl2": "owl2"}[name.split("/")[0]], places=1)
    messages = messages_of(name, case)
    assert processor.apply_chat_template(messages) == case["text"]
    ids, labels = processor.supervised(messages)
    assert processor.tokenizer.decode(ids) == "<s>" + case["text"]
    assert _shape(ids, labels) == _shape(case["input_ids"], case["labels"])  # whatever the vocabulary
    answers = [turn["value"] for turn in case["conversation"] if turn["from"] == "gpt"]
    spans = [[*group] for ignored, group in groupby(labels, IGNORED.__eq__) if not ignored]
    assert [processor.tokenizer.decode(span) for span in spans] == [f"{answer}</s>" for answer in answers]


def _shape(ids, labels):
    """Runs of supervised and other positions, each with its special ids."""
    runs = groupby(zip(ids, labels, strict=True), key=lambda pair: pair[1] == IGNORED)
    return [(ignored, [index for index, _ in run if index in (IMAGE_TOKEN_ID, 1, 2)]) for ignored, run in runs]


@pytest.mark.parametrize("template", ["owl2", "v1"])
def test_answers_and_their_ends_are_supervised(template):
    processor = build(template, places=3)
    ids, labels = processor.supervised(TWO_TURNS)
    assert ids == processor.expanded(processor.tokenizer(processor.apply_chat_template(TWO_TURNS))["input_ids"])
    assert ids.count(IMAGE_TOKEN_ID) == 3
    assert all(label in (IGNORED, index) for index, label in zip(ids, labels, strict=True))
    spans = [[*group] for ignored, group in groupby(labels, IGNORED.__eq__) if not ignored]
    assert spans == [[*processor.tokenizer.continuation(f" {answer}"), 2] for answer in ("It is poor.", "It is blurred.")]


def test_a_dialogue_ends_in_an_answer():
    with pytest.raises(AssertionError, match="'role': 'user'"):
        build().supervised(TWO_TURNS[:3])


# files


def test_saving_keeps_every_choice(tmp_path, picture):
    register()
    processor = Owl2Processor(Owl2ImageProcessor(pre_step="squash", **SMALL), train_tokenizer(2048), template="v1", tokens_per_image=5)
    processor.save_pretrained(tmp_path)
    for again in (Owl2Processor.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)):
        assert isinstance(again, Owl2Processor)
        assert (again.template, again.tokens_per_image, again.image_processor.pre_step) == ("v1", 5, "squash")
        assert again.apply_chat_template(ASKED) == processor.apply_chat_template(ASKED)
        inputs = [made(text="USER: <|image|>Rate it.", images=picture(0), return_tensors="pt") for made in (again, processor)]
        assert all(torch.equal(inputs[0][name], inputs[1][name]) for name in inputs[1])
    assert isinstance(AutoTokenizer.from_pretrained(tmp_path), Owl2Tokenizer)
    assert isinstance(AutoImageProcessor.from_pretrained(tmp_path), Owl2ImageProcessor)


def test_options_beside_the_folder_win(tmp_path):
    build("v1").save_pretrained(tmp_path)
    changed = Owl2Processor.from_pretrained(tmp_path, template="owl2", tokens_per_image=9, pre_step="crop", padding_side="left")
    assert (changed.template, changed.tokens_per_image, changed.image_processor.pre_step) == ("owl2", 9, "crop")
    assert changed.apply_chat_template(ASKED) == "USER: <|image|>Rate it."
    assert changed.tokenizer.padding_side == "left"
    assert not {"template", "tokens_per_image", "pre_step"} & set(changed.tokenizer.init_kwargs)


@pytest.mark.parametrize("images", [True, False], ids=["with preprocessor_config.json", "without"])
def test_folders_of_published_checkpoints_are_read(tmp_path, images):
    register()
    register()  # a second time does no harm
    (tmp_path / "tokenizer.model").write_bytes(train_tokenizer(2048).model)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "LlamaTokenizer", "legacy": False, "pad_token": None}))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mplug_owl2", "visual_config": {}}))
    if images:
        old = {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 448}, "crop_size": {"height": 448, "width": 448}}
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(old))
    processor = AutoProcessor.from_pretrained(tmp_path, pre_step="squash")
    assert isinstance(processor, Owl2Processor)
    assert isinstance(processor.tokenizer, Owl2Tokenizer)
    assert isinstance(processor.image_processor, Owl2ImageProcessor)
    assert (processor.template, processor.tokens_per_image, processor.image_processor.pre_step) == ("owl2", 65, "squash")
    assert processor.image_processor.size.shortest_edge == 448
    assert processor.tokenizer.pad_token_id == 0


def test_damaged_image_options_are_not_passed_over(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(train_tokenizer(2048).model)
    (tmp_path / "preprocessor_config.json").write_text('{"size": ')
    with pytest.raises(OSError, match="not a valid JSON file"):
        Owl2Processor.from_pretrained(tmp_path)
