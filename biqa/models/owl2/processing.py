"""What stands between text and images and mPLUG-Owl2: prompts in its two forms, tokens and pixels together, and what of a dialogue is supervised."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from transformers import AutoConfig, AutoImageProcessor, AutoProcessor, AutoTokenizer, BatchFeature, ProcessorMixin

from biqa.errors import IncompatibleChoice
from biqa.models.owl2.configuration import IMAGE_TOKEN_ID, Owl2Config
from biqa.models.owl2.images import Owl2ImageProcessor
from biqa.models.owl2.tokenization import IMAGE_TOKEN, Owl2Tokenizer

Template = Literal["owl2", "v1"]
IGNORED = -100
"""Label of what is not supervised."""
IMAGE_FILES = ("preprocessor_config.json", "processor_config.json")
"""Where a checkpoint keeps the image processor's options, the second since transformers 5."""

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions. "
)
"""Vicuna's, which all published training scripts took over."""

_WORDS = (
    "(message['content'] if message['content'] is string"
    " else message['content'] | selectattr('type', 'equalto', 'text') | map(attribute='text') | join)"
)
_IN_PLACE = (
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    f"{{{{ '{IMAGE_TOKEN}' if part['type'] == 'image' else part['text'] }}}}"
    "{% endfor %}{% endif %}"
)
_IN_FRONT = (
    "{% if message['content'] is not string %}{% for part in message['content'] if part['type'] == 'image' %}"
    f"{{{{ '{IMAGE_TOKEN}\\n' }}}}{{% endfor %}}{{% endif %}}{{{{ {_WORDS} | trim }}}}"
)


def _template(system: str, question: str) -> str:
    return (
        f"{{{{ \"{system}\" }}}}{{% for message in messages %}}{{% if message['role'] == 'user' %}}USER: {question}"
        f"{{% elif message['role'] == 'assistant' %}} ASSISTANT: {{{{ {_WORDS} }}}}</s>"
        "{% else %}{{ raise_exception('the roles are user and assistant') }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %} ASSISTANT:{% endif %}"
    )


TEMPLATES: dict[Template, str] = {"owl2": _template("", _IN_PLACE), "v1": _template(SYSTEM, _IN_FRONT)}
"""The forms of a dialogue, in Jinja.

owl2: `USER: <|image|>Rate it. ASSISTANT: good</s>`, images where the message has them: what public code asks the fine-tuned checkpoints.
v1: with a system text, and the image before the question on a line of its own: what all published training scripts train on.
"""


class Owl2Processor(ProcessorMixin):
    """Text and images to the inputs of mPLUG-Owl2.

    `from_pretrained` reads folders that it wrote itself and those of published checkpoints (tokenizer.model, and preprocessor_config.json
    where it is not as for all of them); any option of the processor or the image processor may be given beside the folder.

    Args:
        image_processor: makes `pixel_values`.
        tokenizer: makes ids.
        template: form of a dialogue, a key of TEMPLATES; saved with the processor.
        tokens_per_image: positions of an image (`Owl2Config.tokens_per_image`): 65 in all published checkpoints.

    Raises:
        IncompatibleChoice: no such template.
    """

    def __init__(
        self, image_processor: Owl2ImageProcessor, tokenizer: Owl2Tokenizer, template: Template = "owl2", tokens_per_image: int = 65
    ) -> None:
        if template not in TEMPLATES:
            raise IncompatibleChoice(f"template={template} is none of {', '.join(get_args(Template))}.")
        super().__init__(image_processor, tokenizer, chat_template=TEMPLATES[template])
        self.template = template
        self.tokens_per_image = tokens_per_image
        self.image_token = IMAGE_TOKEN
        self.image_token_id = IMAGE_TOKEN_ID

    @classmethod
    def _get_arguments_from_pretrained(cls, pretrained_model_name_or_path: Any, processor_dict: object = None, **kwargs: Any) -> list[object]:  # noqa: ANN401
        """Both parts by their own classes: the files of published checkpoints name others."""
        of_images = Owl2ImageProcessor.valid_kwargs.__annotations__
        options = {name: value for name, value in kwargs.items() if name not in {*of_images, "template", "tokens_per_image"}}
        tokenizer = Owl2Tokenizer.from_pretrained(pretrained_model_name_or_path, **options)
        folder = Path(pretrained_model_name_or_path)
        if folder.is_dir() and not any((folder / name).exists() for name in IMAGE_FILES):
            return [Owl2ImageProcessor(**{name: value for name, value in kwargs.items() if name in of_images}), tokenizer]
        return [Owl2ImageProcessor.from_pretrained(pretrained_model_name_or_path, **kwargs), tokenizer]

    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride] (what it takes is named)
        self,
        images: Any = None,  # noqa: ANN401 (all that transformers takes for an image)
        text: str | Sequence[str] | None = None,
        *,
        padding: bool | str = False,
        padding_side: Literal["left", "right"] | None = None,
        return_tensors: str | None = None,
        add_special_tokens: bool = True,
        videos: None = None,
        audio: None = None,
        **image_options: Any,  # noqa: ANN401 (the image processor's)
    ) -> BatchFeature:
        """Inputs of the model: `input_ids` and `attention_mask` [B, L], IMAGE_TOKEN_ID where visual tokens go, and `pixel_values` [N, 3, H, W].

        Args:
            images: one, several in the order of their places in the texts, or a list of them for each text.
            text: one prompt or several, IMAGE_TOKEN in the place of each image.
            padding: to the longest text; needed for several of different length as tensors.
            padding_side: None: the tokenizer's.
            return_tensors: "pt" or "np"; None: lists.
            add_special_tokens: whether a prompt begins with `<s>`.
            videos: none; transformers hands this over, and `audio`.
            audio: none.
            image_options: the image processor's, for this call.

        Raises:
            IncompatibleChoice: more places than images, or fewer.
        """
        several = _flat(images)
        inputs = {}
        if text is not None:
            texts = [text] if isinstance(text, str) else text
            rows = [self.tokenizer(row, add_special_tokens=add_special_tokens)["input_ids"] for row in texts]
            _check_places(rows, images)
            inputs |= self.tokenizer.pad({"input_ids": [self.expanded(row) for row in rows]}, padding=padding, padding_side=padding_side)
        if several:
            inputs |= self.image_processor(several, **image_options)
        return BatchFeature(inputs, tensor_type=return_tensors)

    def expanded(self, ids: Sequence[int]) -> list[int]:
        """Ids with `tokens_per_image` places for each one of an image."""
        return [position for index in ids for position in [index] * (self.tokens_per_image if index == IMAGE_TOKEN_ID else 1)]

    def supervised(self, messages: Sequence[dict[str, Any]]) -> tuple[list[int], list[int]]:
        """Ids of a dialogue, places of images expanded, and its labels of the same length: the id on answers and their "</s>", IGNORED elsewhere.

        Args:
            messages: in transformers' form, from a user's question to an assistant's answer.
        """
        assert messages[-1]["role"] == "assistant", messages[-1]
        render: Any = self.apply_chat_template
        ids: list[int] = []
        labels: list[int] = []
        done = ""
        for turn in (index for index, message in enumerate(messages) if message["role"] == "assistant"):
            asked, answered = render(messages[:turn], add_generation_prompt=True), render(messages[: turn + 1])
            question = self.expanded(self._after_answer(asked[len(done) :]) if done else self.tokenizer.encode(asked))
            answer = self.tokenizer.continuation(answered[len(asked) :])
            ids += question + answer
            labels += [IGNORED] * len(question) + answer
            done = answered
        return ids, labels

    def _after_answer(self, text: str) -> list[int]:
        return self.tokenizer.continuation(f"{self.tokenizer.eos_token}{text}")[1:]


def _flat(images: Any) -> list[Any]:  # noqa: ANN401
    if not isinstance(images, list | tuple):
        return [] if images is None else [images]
    return [image for row in images for image in _flat(row)]


def _check_places(rows: list[list[int]], images: Any) -> None:  # noqa: ANN401
    """Places and images are compared text by text where the images come text by text, else in all."""
    places = [row.count(IMAGE_TOKEN_ID) for row in rows]
    if isinstance(images, list | tuple) and any(isinstance(row, list | tuple) for row in images):
        given = [len(_flat(row)) for row in images]
    else:
        places, given = [sum(places)], [len(_flat(images))]
    if places != given:
        counts = [", ".join(map(str, counts)) for counts in (places, given)]
        raise IncompatibleChoice(f"the prompts have {counts[0]} places for images ({IMAGE_TOKEN}), but {counts[1]} images came. Give each place one.")


def register() -> None:
    """Make transformers' Auto classes know what belongs to `model_type: mplug_owl2` of a config.json. May be called again.

    AutoProcessor reads published checkpoints too. AutoTokenizer does not: it follows their tokenizer_config.json, which names LlamaTokenizer.
    """
    AutoConfig.register(Owl2Config.model_type, Owl2Config, exist_ok=True)
    AutoTokenizer.register(Owl2Config, tokenizer_class=Owl2Tokenizer, exist_ok=True)
    AutoImageProcessor.register(Owl2Config, image_processor_classes={"pil": Owl2ImageProcessor}, exist_ok=True)
    AutoProcessor.register(Owl2Config, Owl2Processor, exist_ok=True)
