"""The processor of a checkpoint as far as pictures and text go: image processor, tokenizer and chat template.

transformers' own processors of several families want a video processor beside these, which needs torchvision, which biqa does without.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from PIL import Image
from transformers import AutoImageProcessor, AutoTokenizer

from biqa.config.reading import read_json
from biqa.errors import IncompatibleChoice, RunNotFound

FILES = (
    "processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json", "chat_template.jinja", "chat_template.json",
    "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt",
)  # fmt: skip
"""Files of a checkpoint that belong to its processor."""


class Processor:
    """Makes pixels out of pictures and text out of messages, as the checkpoint in a folder has it.

    Args:
        folder: the checkpoint.
        image_token_id: what stands for an image in its prompts.

    Attributes:
        image_options: settings of the image processor that replace the checkpoint's, by transformers' names.

    Raises:
        RunNotFound: the folder lacks a part of the processor, or it is damaged.
        IncompatibleChoice: the checkpoint has no chat template, or one without a place for an image.
    """

    def __init__(self, folder: Path, image_token_id: int) -> None:
        self.folder = folder
        self.image_options: dict[str, Any] = {}
        try:
            self.image_processor: Any = AutoImageProcessor.from_pretrained(folder, backend="pil", trust_remote_code=False)
            self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise RunNotFound(f"{folder}: its processor or tokenizer cannot be read: {str(error).splitlines()[0]}. Download it again.") from error
        self.image_token: str = self.tokenizer.convert_ids_to_tokens(image_token_id)
        self.chat_template, asked = self._chat_template()
        if self.image_token not in asked:
            raise IncompatibleChoice(f"{folder}: the chat template has no place for an image ({self.image_token}). Choose another revision or model.")
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token

    def set_image_options(self, options: Mapping[str, Any]) -> None:
        """Replace settings of the image processor.

        Raises:
            IncompatibleChoice: there is no such setting, or no such value of one.
        """
        kind = type(self.image_processor).__name__
        known = self.image_processor.valid_kwargs.__annotations__
        if unknown := [name for name in options if name not in known]:
            raise IncompatibleChoice(f"model.image: {kind} has no setting {', '.join(unknown)}. It has {', '.join(sorted(known))}.")
        try:
            self.tried(options)
        except (StrictDataclassError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise IncompatibleChoice(f"model.image={dict(options)}: {kind} refuses it: {str(error).splitlines()[0]}") from error
        self.image_options = dict(options)

    def tried(self, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """What the image processor makes of a blank picture with these settings."""
        return self.image_processor(images=[Image.new("RGB", (64, 64))], return_tensors="pt", **options)

    def _chat_template(self) -> tuple[str, str]:
        """The template, and what it makes of an image."""
        old = self.folder / "chat_template.json"
        try:
            template = read_json(old)["chat_template"] if old.is_file() else self.tokenizer.chat_template
            image = {"role": "user", "content": [{"type": "image"}]}
            asked = self.tokenizer.apply_chat_template([image], chat_template=template, tokenize=False) if template else ""
        except Exception as error:  # a template is somebody else's program, in a sandbox: it fails in any way
            raise RunNotFound(f"{self.folder}: its chat template cannot be used: {' '.join(str(error).split())}. Download it again.") from error
        if template is None:
            raise IncompatibleChoice(
                f"{self.folder}: the checkpoint has no chat template, so that it cannot be asked anything. Choose an instruct model."
            )
        return template, asked

    def apply_chat_template(self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool = False, tokenize: bool = False) -> str:
        """Messages as one text."""
        assert not tokenize, "the text is tokenized after its images have their places"
        return self.tokenizer.apply_chat_template(
            list(messages), chat_template=self.chat_template, add_generation_prompt=add_generation_prompt, tokenize=False
        )

    def save_pretrained(self, folder: Path) -> None:
        """Write the processor's files as they are in the checkpoint, with the image settings of this run."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            if (self.folder / name).is_file():
                shutil.copyfile(self.folder / name, folder / name)
        if self.image_options:
            for name, place in (("processor_config.json", ("image_processor",)), ("preprocessor_config.json", ())):
                _update(folder / name, place, self.image_options)


def _update(file: Path, place: Sequence[str], options: Mapping[str, Any]) -> None:
    if not file.is_file():
        return
    whole = json.loads(file.read_text())
    part = whole
    for name in place:
        part = part.get(name, {})
    part.update(options)
    if "size" in options:  # what it was called in the days of Qwen2-VL, and would win
        part.pop("min_pixels", None)
        part.pop("max_pixels", None)
    file.write_text(json.dumps(whole, indent=2))
