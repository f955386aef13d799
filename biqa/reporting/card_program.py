"""The program of a model card: loads the weights beside it, asks the question and reads the answer as biqa does, with transformers and PEFT alone.

Where a backbone is no class of transformers, or its front end is biqa's own, the program says so by what it imports.
"""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from biqa.language.levels import LEVELS, WEIGHTS
from biqa.language.prompts import DESCRIBE, INFER, JOINT, STEM

if TYPE_CHECKING:
    from biqa.models.vlm import VLM

QUESTIONS = {"perception": DESCRIBE, "inference": INFER, "joint": JOINT}
WITH_BIQA = """\
from pathlib import Path

from biqa import load

scorer = load(Path.cwd().parent)  # the run's folder, in which this one lies
print(scorer("photo.jpg").score)"""
OF_TINY = ("hidden", "layers", "heads", "tower_hidden", "tower_layers", "grid", "vocabulary", "attention")
"""Options that a base from random weights is drawn by."""


def prompt_of(stage: str, vlm: "VLM") -> str:
    """The question of a stage in the form of the chat template, up to where an answer begins."""
    content = [{"type": "image"}] * vlm.vision + [{"type": "text", "text": QUESTIONS[stage]}]
    return vlm.processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False)


def needed(kind: str, result: Mapping[str, Any], vlm: "VLM") -> str:
    """What has to be installed, in a sentence."""
    packages = "torch, transformers and peft" if kind == "adapter" else "torch and transformers"
    if _is(result, "owl2"):
        return "transformers has no class of this backbone; biqa loads it."
    if _is(result, "tiny") and kind == "adapter":
        return f"It needs {packages}, and biqa, which draws its base again: random weights."
    if _is(result, "tiny") and vlm.vision:
        return f"It needs {packages}, and biqa for what turns a picture into numbers."
    return f"It needs {packages} alone."


def program(kind: str, stage: str, result: Mapping[str, Any], vlm: "VLM") -> str | None:
    """Python that, in the folder of the weights, gives the level probabilities of the run; of a stage 1 its description.

    Args:
        kind: "adapter", "model" or "merged".
        stage: choice of `stage=`.
        result: the run's figures, for its config.
        vlm: its model.

    Returns:
        None where there is no way without a stage 2.
    """
    if _is(result, "owl2"):
        return None if stage == "perception" else WITH_BIQA
    asks = _of_a_text if stage == "inference" else _of_a_picture
    lines = [*_imports(kind, result, vlm), "", *_model(kind, result, vlm), "", *asks(stage, result, vlm)]
    return "\n".join(lines)


def _is(result: Mapping[str, Any], backbone: str) -> bool:
    return f".{backbone}." in result["config"]["model"]["_target_"]


def _imports(kind: str, result: Mapping[str, Any], vlm: "VLM") -> list[str]:
    drawn, own_eyes = _is(result, "tiny") and kind == "adapter", _is(result, "tiny") and vlm.vision
    names = ["AutoModelForCausalLM" if kind != "adapter" and not vlm.vision else "AutoModelForImageTextToText"]
    names.append("AutoProcessor" if vlm.vision and not own_eyes else "AutoTokenizer")
    own = [*(["LogDctImageProcessor"] if own_eyes else []), *(["build_tiny"] if drawn else [])]
    return [
        "import torch",
        *(["from PIL import Image, ImageOps"] if vlm.vision else []),
        *(["from peft import PeftModel"] if kind == "adapter" else []),
        *([] if drawn else [f"from transformers import {', '.join(names)}"]),
        *([f"from biqa.models.tiny import {', '.join(own)}"] if own else []),
    ]


def _model(kind: str, result: Mapping[str, Any], vlm: "VLM") -> list[str]:
    """Lines that make `model` and `tokenizer`, and `processor` where pictures are seen by transformers' own."""
    options, tiny = result["config"]["model"], _is(result, "tiny")
    reader = "processor = AutoProcessor" if vlm.vision and not tiny else "tokenizer = AutoTokenizer"
    more = ["tokenizer = processor.tokenizer"] if reader.startswith("processor") else []
    if kind != "adapter":
        name = "AutoModelForImageTextToText" if vlm.vision else "AutoModelForCausalLM"
        return [f'model = {name}.from_pretrained(".").eval()', f'{reader}.from_pretrained(".")', *more]
    adapted = 'model = PeftModel.from_pretrained(base, ".").eval()'
    if tiny:
        drawn = ", ".join(f"{name}={_text(options[name])}" for name in OF_TINY)
        return [f"drawn = build_tiny({drawn}, vision=True, seed={result['seed']})", "base, tokenizer = drawn.backbone, drawn.tokenizer", adapted]
    at = _text(str(vlm.base.name)) + (f", revision={_text(vlm.base.revision)}" if vlm.base.revision else "")
    return [
        f"base = AutoModelForImageTextToText.from_pretrained({at}, dtype={_text(options['dtype'])})",
        adapted,
        f"{reader}.from_pretrained({at})",
        *more,
    ]


def _of_a_text(stage: str, result: Mapping[str, Any], vlm: "VLM") -> list[str]:
    """Lines that rate a description."""
    return [
        f"prompt = {_text(prompt_of(stage, vlm))}",
        _levels(vlm),
        'description = "The image is slightly blurred."',
        f'text = prompt.replace("{{description}}", description) + "{_space(vlm)}{STEM}"',
        f'inputs = tokenizer(text, return_tensors="pt"{_begun(stage, vlm)})',
        *_level(),
    ]


def _of_a_picture(stage: str, result: Mapping[str, Any], vlm: "VLM") -> list[str]:
    """Lines that describe a picture and, where the stage does, rate it after that."""
    length = result["config"]["sampling"]["max_new_tokens"]
    lines = [
        f"prompt = {_text(prompt_of(stage, vlm))}",
        'image = ImageOps.exif_transpose(Image.open("photo.jpg")).convert("RGB")',
        "",
        "",
        *_see(stage, result, vlm),
        "",
        "",
        "inputs = see(prompt)",
        "with torch.no_grad():",
        f"    answer = model.generate(**inputs, max_new_tokens={length}, do_sample=False, eos_token_id={vlm.eos_id}, pad_token_id={vlm.pad_id})",
        'said = tokenizer.decode(answer[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)',
    ]
    if stage == "perception":
        return [*lines, "print(said)"]
    return [
        *lines,
        f'description = said.partition("{STEM}")[0].strip()',
        f'inputs = see(f"{{prompt}}{_space(vlm)}{{description}} {STEM}")',
        _levels(vlm),
        *_level(),
    ]


def _see(stage: str, result: Mapping[str, Any], vlm: "VLM") -> list[str]:
    """Lines of a function that makes a model's inputs of a text and the picture."""
    if _is(result, "tiny"):
        grid = result["config"]["model"]["grid"]
        return [
            "def see(text):",
            f'    words = tokenizer(text.replace("<image>", {grid**2} * "<image>"), return_tensors="pt")',
            f'    return {{**words, **LogDctImageProcessor({grid})(image, return_tensors="pt")}}',
        ]
    options = f", images_kwargs={dict(vlm.image_options)!r}" if vlm.image_options else ""
    return ["def see(text):", f'    return processor(text=[text], images=[image], return_tensors="pt"{_begun(stage, vlm)}{options})']


def _text(value: str | int) -> str:
    """As Python has it; texts in double quotes."""
    return json.dumps(value, ensure_ascii=False)


def _space(vlm: "VLM") -> str:
    """What stands between a prompt and an answer."""
    return "" if vlm.asked.isspace() else " "


def _begun(stage: str, vlm: "VLM") -> str:
    """Further argument of a tokenizer that would write a prompt's first token again."""
    return ", add_special_tokens=False" if vlm.begins(prompt_of(stage, vlm)) else ""


def _levels(vlm: "VLM") -> str:
    tokens = ", ".join(f'"{level}": {token}' for level, token in zip(LEVELS, vlm.level_ids, strict=True))
    return f"levels = {{{tokens}}}  # their first tokens"


def _level() -> list[str]:
    return [
        "with torch.no_grad():",
        "    logits = model(**inputs).logits[0, -1, list(levels.values())].float()",
        "probabilities = logits.softmax(-1)",
        f"score = float(probabilities @ torch.tensor([{', '.join(f'{weight:g}' for weight in WEIGHTS)}]))",
        "print(dict(zip(levels, probabilities.tolist())), score)",
    ]
