"""`VLM`: the interface that every backbone has for the rest of biqa. Stages and measures see only this.

Shapes: B prompts, L tokens, D decoder width, V vocabulary, S supervised or selected positions.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import signature
from typing import Any, TypeVar

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from biqa.errors import BadRecord, IncompatibleChoice
from biqa.language.levels import LEVELS
from biqa.models.attention import MASKABLE, use_products
from biqa.models.base import RANDOM, Base
from biqa.models.families import Family, within
from biqa.models.memory import REMEMBERED, Memory

T = TypeVar("T")

QUESTIONS = 1000
"""Questions whose token ids are kept, at most."""

FEATURES = "features"
"""Name of what tower and projector made of an image, in place of the tower's inputs."""

PEFT_PREFIX = "base_model.model."
"""What names of weights begin with once PEFT has added its own."""


@dataclass(frozen=True)
class Picture:
    """An image for an engine that makes the tower's inputs itself."""

    image: Image.Image
    name: str
    """Tells it from all others that the engine is given."""


@dataclass(frozen=True)
class Prompt:
    """One question as the decoder reads it."""

    ids: tuple[int, ...]
    """Token ids, image placeholders expanded."""
    image: dict[str, Tensor] = field(default_factory=dict)
    """What the tower needs, each with a leading image axis, or what `VLM.features` made of it; empty for a text-only prompt."""
    placeholder: str = ""
    """What stands for the image in the question's text."""
    picture: Picture | None = None
    """In place of the tower's inputs: then one token of `ids` stands for the whole image."""


@dataclass
class EncodedImages:
    """What transformers' models take in place of pixels."""

    pooler_output: Any
    """[visual tokens, D] of all images; most families want it in a tuple."""
    deepstack_features: Any
    """Such tuples, one for each further level."""


class _SeenEnough(Exception):
    """Ends a forward pass whose rest is not needed."""


class VLM(nn.Module):
    """A backbone with its processor: text in and out, hidden states, logits.

    Args:
        backbone: a transformers model; image-text-to-text with `vision`, else the decoder alone as a causal language model.
        processor: its processor: chat template, tokenizer, image processor (`biqa.models.processing.Processor` or one of transformers).
        family: where the parts are.
        vision: whether the tower is there. Without it any image is refused.
        base: where its weights come from.

    Attributes:
        sharded: whether the weights are divided among processes, which then must take the same number of forward passes.
    """

    def __init__(self, backbone: PreTrainedModel, processor: Any, family: Family, vision: bool, base: Base = RANDOM) -> None:  # noqa: ANN401
        super().__init__()
        use_products(backbone)
        self.backbone = backbone
        self.processor = processor
        self.tokenizer: Any = processor.tokenizer
        self.family = family
        self.vision = vision
        self.base = base
        self.sharded = False
        self.image_options = {**dict(family.image_options), **getattr(processor, "image_options", {})}
        self.pad_id: int = self.tokenizer.pad_token_id
        self._special = re.compile("|".join(map(re.escape, self.tokenizer.all_special_tokens)))
        self.asked, self.eos_id = self._around_an_answer()
        self.level_ids = self._first_tokens_of_levels()
        self._prompt_ids: dict[tuple[str, str], tuple[int, ...]] = {}

    def _first_tokens_of_levels(self) -> list[int]:
        first = [self.continuation(f" {level}")[0] for level in LEVELS]
        if len(set(first)) < len(LEVELS):
            raise IncompatibleChoice(
                f"the level words {', '.join(LEVELS)} do not begin with five different tokens in this tokenizer ({first}), "
                f"so their logits cannot tell them apart. Choose another model."
            )
        return first

    def _around_an_answer(self) -> tuple[str, int]:
        """The end of a question, after which an answer begins, and the token that ends an answer: both as the chat template has them."""
        said = "1"
        messages = [{"role": role, "content": [{"type": "text", "text": said}]} for role in ("user", "assistant")]
        asked, answered = (
            self.processor.apply_chat_template(messages[:number], add_generation_prompt=number == 1, tokenize=False) for number in (1, 2)
        )
        following = self.family.continuation(self.tokenizer, answered[answered.rindex(said) + 1 :].lstrip())
        special = following and following[0] in self.tokenizer.all_special_ids
        return asked[-1], following[0] if special else self.tokenizer.eos_token_id

    # text

    def opening(self, text: str) -> list[int]:
        """Token ids of the beginning of an answer: after a space, unless the question ends in white space already."""
        if self.asked.isspace():
            return within(self.tokenizer, self._spelt_out(text), before=self.asked)
        return self.continuation(f" {text}")

    def continuation(self, text: str) -> list[int]:
        """Token ids of a piece of an answer. Pieces are always tokenized one by one, so that training and scoring split at the same places."""
        return self.family.continuation(self.tokenizer, self._spelt_out(text))

    def _spelt_out(self, text: str) -> str:
        """A text in which "<image>" and the like are words and no tokens: a description may quote them, but not end there or ask for pixels."""
        return self._special.sub(lambda token: f"{token[0][0]} {token[0][1:]}", text)

    def text(self, ids: list[int]) -> str:
        """The words of an answer."""
        return self.tokenizer.decode(ids, skip_special_tokens=True).strip()

    def prompt(self, question: str, image: Image.Image | None = None) -> Prompt:
        """The question in the family's chat form, ready for an answer to follow.

        Raises:
            AssertionError: an image for a model that was built without its tower.
            BadRecord: the family's image processor takes no image of that shape.
        """
        if image is None:
            return Prompt(self.question_ids(question))
        assert self.vision, "this model was built without its vision tower: it cannot take an image"
        try:
            made = self.processor.image_processor(images=[image], return_tensors="pt", **self.image_options)
        except ValueError as error:  # a strip of pixels
            shape = f"{image.width} x {image.height}"
            raise BadRecord(f"an image of {shape} pixels: {error}. Take it out of the data, or choose another model.") from error
        placeholder = self.family.placeholder(self.model.config, made, self.processor.image_token)
        return Prompt(self.question_ids(question, placeholder), self.family.seen(made), placeholder)

    def question_ids(self, question: str, placeholder: str = "") -> tuple[int, ...]:
        """Token ids of a question in chat form, with what stands for an image in it."""
        key = (question, placeholder)
        if len(self._prompt_ids) == QUESTIONS:  # stage 2's hold a description each and come once
            self._prompt_ids.clear()
        if key not in self._prompt_ids:
            content = [{"type": "image"}] * bool(placeholder) + [{"type": "text", "text": self._spelt_out(question)}]
            text = self.processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False)
            if placeholder:
                text = text.replace(self.processor.image_token, placeholder, 1)
            self._prompt_ids[key] = tuple(self.tokenizer(text, add_special_tokens=not self.begins(text))["input_ids"])
        return self._prompt_ids[key]

    def begins(self, text: str) -> bool:
        """Whether a prompt has its first token already: many templates write it, and the tokenizer would write it again."""
        return self.tokenizer.bos_token is not None and text.startswith(self.tokenizer.bos_token)

    @property
    def image_token_id(self) -> int | None:
        """The token that holds a place for a piece of an image; None in a decoder alone, which sees none."""
        return self.model.config.image_token_id if self.vision else None

    def visual_tokens(self, prompt: Prompt) -> int:
        """Positions that the image takes in a prompt."""
        return sum(token == self.image_token_id for token in prompt.ids)

    # names

    def whole_name(self, name: str) -> str:
        """Name in the whole model, without what PEFT puts around it, of a module or weight of the backbone."""
        name = name.removeprefix(PEFT_PREFIX)
        return name if self.vision else self.family.whole_key(name)

    def part_of(self, name: str) -> str:
        """Which part a weight of the backbone belongs to, by its name there: "tower", "projector" or "decoder" (with its head)."""
        return self.family.part(self.whole_name(name))

    # numbers

    def forward(self, work: Callable[..., T], *given: Any) -> T:  # noqa: ANN401 (whatever the work takes)
        """Do what needs the weights, as one piece: where processes hold them together (`sharded`), all of them must come here, and those weights
        that belong to no block are at hand inside.
        """
        return work(*given)

    @property
    def model(self) -> Any:  # noqa: ANN401 (each family has a class of its own)
        """The transformers model itself, adapters inside."""
        get_base_model = getattr(self.backbone, "get_base_model", None)
        return self.backbone if get_base_model is None else get_base_model()

    @property
    def packs(self) -> bool:
        """Whether a row may hold several texts, or answers: the attention takes a mask of who sees whom, and every layer sees a whole text.

        "flash_attention_2" and its like take none. A layer with a sliding window would see through that mask beyond it.
        """
        config = self.model.config.get_text_config()
        whole = getattr(config, "sliding_window", None) is None and {*(getattr(config, "layer_types", None) or ())} <= {"full_attention"}
        return whole and config._attn_implementation in MASKABLE

    def hidden(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        *,
        memory: Memory | None = None,
        image: Mapping[str, Tensor] | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """Last hidden states, after the final norm.

        Args:
            input_ids: [B, L] (with a memory: only the new tokens).
            attention_mask: [B, past + L], 1 on real tokens. Positions are counted over real tokens, so padding may lie on either side.
                Or [B, L, past + L] bool, True where a token (second axis) sees another (third), for rows that hold several texts; with `positions`.
            memory: of what was read before; extended in place.
            image: the tower's inputs, or what `features` made of them; images in the order of the rows.
            positions: [B, L], how many tokens of its own text stand before each.

        Returns:
            [B, L, D]
        """
        assert self.vision or not image, "this model was built without its vision tower: it cannot take an image"
        if positions is None:
            positions = (attention_mask.cumsum(-1) - 1).clamp(min=0)[:, -input_ids.shape[1] :]
        else:
            attention_mask = self._as_attended(attention_mask)
        if memory is not None:
            positions = positions - memory.early
        seen: dict[str, Any] = {}
        if image:
            seen = self._given(image) if FEATURES in image else self.family.batch(image)
            if self.family.positions_in_space:
                seen["mm_token_type_ids"] = (input_ids == self.model.config.image_token_id).int()
                positions, late = self.model.model.get_rope_index(
                    input_ids, seen["mm_token_type_ids"], image_grid_thw=image["image_grid_thw"], attention_mask=attention_mask
                )
                if memory is not None:
                    memory.early = -late
        decoding = {REMEMBERED: memory.cache if memory else None, "use_cache": memory is not None}
        output = self.model.model(input_ids=input_ids, attention_mask=attention_mask, position_ids=positions, **decoding, **seen)
        return output.last_hidden_state

    def _as_attended(self, seen: Tensor) -> Tensor:
        """Who sees whom, [B, L, K] bool, as the attention takes it: [B, 1, L, K]; eager attention adds it to its logits."""
        if self.model.config._attn_implementation != "eager":
            return seen[:, None]
        kind = self.model.get_input_embeddings().weight.dtype
        return torch.zeros_like(seen, dtype=kind).masked_fill(~seen, torch.finfo(kind).min)[:, None]

    @property
    def takes_features(self) -> bool:
        """Whether the model takes what `features` gives; with releases of transformers that were not made for it, it does not."""
        return "mm_encoder_outputs" in signature(self.model.model.forward).parameters

    @torch.no_grad()
    def features(self, prompts: Sequence[Prompt]) -> list[dict[str, Tensor]]:
        """What tower and projector make of the image of each prompt: `Prompt.image` may hold it in place of the tower's inputs.

        Returns:
            For each prompt `features` [visual tokens, D], and what else the decoder needs: `features_1`, ... of the same shape that families with
            several levels add inside the decoder, and the grid of visual tokens that have positions in space.
        """
        image = {name: torch.cat([prompt.image[name] for prompt in prompts]).to(self.device) for name in prompts[0].image}
        made = self.model.model.get_image_features(**self.family.batch(image), return_dict=True)
        levels = [made.pooler_output, *(getattr(made, "deepstack_features", None) or [])]
        counts = [self.visual_tokens(prompt) for prompt in prompts]
        parts = [torch.cat(list(level)).split(counts) for level in levels]  # a list of images, or tiles on the first axis
        names = [FEATURES, *(f"{FEATURES}_{number}" for number in range(1, len(parts)))]
        places = [{name: value for name, value in prompt.image.items() if not name.startswith("pixel")} for prompt in prompts]
        return [dict(zip(names, of_image, strict=True)) | place for of_image, place in zip(zip(*parts, strict=True), places, strict=True)]

    def _given(self, image: Mapping[str, Tensor]) -> dict[str, Any]:
        """Features as a model takes them in place of pixels."""
        more = [(value,) for name, value in image.items() if name.startswith(f"{FEATURES}_")]
        features = image[FEATURES] if self.family.features_whole else (image[FEATURES],)
        return {"mm_encoder_outputs": {"image": EncodedImages(pooler_output=features, deepstack_features=more)}}

    def tower_features(self, prompt: Prompt) -> Tensor:
        """What the projector is given for the image of a prompt: [positions, width]."""
        return self.passed(prompt, self.model.get_submodule(self.family.projector[0]))[0]

    @torch.no_grad()
    def passed(self, prompt: Prompt, module: nn.Module) -> tuple[Tensor, Tensor]:
        """What a module is given for a prompt and what it answers, [positions, width] each. What comes after it is not computed."""
        seen: list[Tensor] = []

        def stop(_: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any], answered: Any) -> None:  # noqa: ANN401 (as modules differ)
            seen.append(next(value for value in (*arguments, *named.values()) if isinstance(value, Tensor)))
            seen.append(answered if isinstance(answered, Tensor) else answered[0])
            raise _SeenEnough

        ids = torch.tensor([prompt.ids], device=self.device)
        image = {name: value.to(self.device) for name, value in prompt.image.items()}
        hook = module.register_forward_hook(stop, with_kwargs=True)
        try:
            self.hidden(ids, torch.ones_like(ids), image=image)
        except _SeenEnough:
            pass
        finally:
            hook.remove()
        given, answered = seen
        return given.flatten(0, -2), answered.flatten(0, -2)

    def logits(self, hidden: Tensor) -> Tensor:
        """Output head: [..., D] -> [..., V] in float32."""
        return self.model.get_output_embeddings()(hidden).float()

    def level_logits(self, hidden: Tensor) -> Tensor:
        """Logits of the first tokens of the five level words, worst first: [..., D] -> [..., 5].

        Computed in float32 whatever the weights are: bfloat16 knows logits around 20 in steps of an eighth, so that scores would tie.
        """
        head = self.model.get_output_embeddings()
        bias = None if head.bias is None else head.bias[self.level_ids].float()
        with torch.autocast(hidden.device.type, enabled=False):
            return nn.functional.linear(hidden.float(), head.weight[self.level_ids].float(), bias)

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        return next(self.parameters()).device


def decoder_of(backbone: PreTrainedModel, family: Family) -> PreTrainedModel:
    """The decoder of a VLM as a causal language model of its own, with the same weights and without tower and projector."""
    decoder = AutoModelForCausalLM.from_config(family.text_config(backbone.config), attn_implementation=backbone.config._attn_implementation)
    decoder.load_state_dict(text_weights(backbone.state_dict(), family))
    return decoder


def text_weights(state: dict[str, Tensor], family: Family) -> dict[str, Tensor]:
    """The weights of decoder and head under the names of the decoder-only class."""
    return {name: value for key, value in state.items() if (name := family.text_key(key)) is not None}
