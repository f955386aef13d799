"""What goes on in a decoder at the position that emits the level word: the state that each layer leaves there, and what it attends to.

Shapes: B contexts, L positions, K decoder layers, D width, V vocabulary.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from biqa.errors import IncompatibleChoice
from biqa.language.prompts import STEM
from biqa.models.families import Grid
from biqa.models.sampling import left_padded
from biqa.models.vlm import VLM, Memory, Prompt

GROUPS = ("image", "question", "description", "rest")
"""What a context is made of (METHOD.md 6.3). The rest: chat template, first token, marks around an image, and the stem."""
IMAGE, QUESTION, DESCRIPTION, REST = range(len(GROUPS))

Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""

OTHER_TEXT = "1"
"""Stands where a text stood, to find which tokens are its own. A digit shares no token with what is beside it."""


@dataclass(frozen=True)
class Context:
    """All that a decoder has read when it emits the level word."""

    prompt: Prompt
    """Question, description and stem: what follows its last token is the level word."""
    groups: tuple[int, ...]
    """For each token its index into `GROUPS`."""


def context_of(vlm: VLM, question: str, description: str, image: Image.Image | None = None) -> Context:
    """Question, description and stem, as the decoder reads them before the level word.

    Args:
        vlm: the model.
        question: with a place `{description}` (stage 2) the description stands there; else it begins the answer (one-stage).
        description: what was said of the image; may be empty.
        image: what is asked about, if it is seen.
    """
    inside = "{description}" in question
    asked = question.format(description=description) if inside else question
    prompt = vlm.prompt(asked, image)
    said = vlm.opening(description) if description and not inside else []
    stem = vlm.opening(STEM) if inside else vlm.continuation(f" {STEM}")
    groups = [IMAGE if token == vlm.image_token_id else REST for token in prompt.ids]
    for text, group in ((OTHER_TEXT, QUESTION), (question.format(description=OTHER_TEXT), DESCRIPTION))[: 1 + inside]:
        begin, end = _own(prompt.ids, vlm.question_ids(text, prompt.placeholder))
        groups[begin:end] = [group] * (end - begin)
    ids = (*prompt.ids, *said, *stem)
    return Context(Prompt(ids, prompt.image), (*groups, *([DESCRIPTION] * len(said)), *([REST] * len(stem))))


def _own(ids: Sequence[int], other: Sequence[int]) -> tuple[int, int]:
    """Where the tokens begin and end that a text has for itself, beside another text with the same beginning and end."""
    most = min(len(ids), len(other))
    same = next((at for at in range(most) if ids[at] != other[at]), most)
    after = next((at for at in range(most - same) if ids[-1 - at] != other[-1 - at]), most - same)
    return same, len(ids) - after


@torch.no_grad()
def layer_states(vlm: VLM, prompts: Sequence[Prompt]) -> Tensor:
    """What each decoder layer leaves at the last position, before the final norm, in one forward pass: [B, K, D].

    Raises:
        IncompatibleChoice: the decoder has no list of layers and final norm by transformers' usual names.
    """
    decoder = decoder_of(vlm)
    ids, mask, image = left_padded(prompts, vlm.pad_id, vlm.device)
    states: list[Tensor] = []
    with _seen(decoder.layers, lambda out: states.append((out[0] if isinstance(out, tuple) else out)[:, -1])):
        vlm.hidden(ids, mask, image=image)
    return torch.stack(states, 1)


def final_norm(vlm: VLM, states: Tensor) -> Tensor:
    """The decoder's final norm, which stands before the output head: [..., D] -> [..., D]."""
    return decoder_of(vlm).norm(states)


@torch.no_grad()
def attention_rows(vlm: VLM, prompts: Sequence[Prompt]) -> Tensor:
    """What the last position of each prompt attends to, averaged over heads: [B, K, L] float32, prompts padded on the left; rows sum to 1
    (to 1e-3 where the model computes in 16 bits).

    All but the last token are read as always, with whatever attention implementation the model has; the last one alone is read with the eager one,
    which gives its weights. So no matrix of positions by positions is made, and the pass costs hardly more than a plain one.

    Raises:
        IncompatibleChoice: as `layer_states`; or the layers' attention modules give no weights.
    """
    decoder = decoder_of(vlm)
    ids, mask, image = left_padded(prompts, vlm.pad_id, vlm.device)
    memory = Memory()
    vlm.hidden(ids[:, :-1], mask[:, :-1], memory=memory, image=image)
    rows: list[Tensor] = []
    with _eager(decoder), _seen([layer.self_attn for layer in decoder.layers], lambda out: rows.append(out[1][:, :, -1].float().mean(1))):
        vlm.hidden(ids[:, -1:], mask, memory=memory)
    return torch.stack(rows, 1)


def grid_of(vlm: VLM, prompt: Prompt) -> Grid | None:
    """Which visual tokens of a prompt lie on a grid over the picture; None where the family's have none, or where there is no image."""
    return vlm.family.grid(vlm.model.config, prompt.image, vlm.visual_tokens(prompt)) if prompt.image else None


def box_of(vlm: VLM, image: Image.Image) -> Box:
    """The part of an image that the tower is shown, in pixels of the image: its middle where the processor crops, else all of it."""
    processor = vlm.processor.image_processor
    if not getattr(processor, "do_center_crop", False):
        return 0.0, 0.0, float(image.width), float(image.height)
    size, crop = (vlm.image_options.get(name) or getattr(processor, name) for name in ("size", "crop_size"))
    if "shortest_edge" in size:
        across = down = min(image.width, image.height) / size["shortest_edge"]
    else:
        across, down = image.width / size["width"], image.height / size["height"]
    width, height = crop["width"] * across, crop["height"] * down
    left, top = (image.width - width) / 2, (image.height - height) / 2
    return left, top, left + width, top + height


def decoder_of(vlm: VLM) -> Any:  # noqa: ANN401 (each family has a class of its own)
    """The decoder, whose layers and final norm have transformers' usual names.

    Raises:
        IncompatibleChoice: they have not; the message says which analyses remain.
    """
    decoder = vlm.model.get_submodule(vlm.family.decoder if vlm.vision else "model")
    layers = getattr(decoder, "layers", None)
    if not isinstance(layers, nn.ModuleList) or not hasattr(decoder, "norm") or not all(hasattr(layer, "self_attn") for layer in layers):
        raise IncompatibleChoice(
            f"the decoder of this {vlm.family.name} ({type(decoder).__name__}) keeps no layers with self_attn and no norm by these names, so "
            f"nothing can be read between its layers. analysis=grounding, contradiction and gap need none of that."
        )
    return decoder


@contextmanager
def _seen(modules: Sequence[nn.Module], keep: Callable[[Any], None]) -> Iterator[None]:
    """Hand on what each module answers, in the order in which they run."""
    hooks = [module.register_forward_hook(lambda _, __, out: keep(out)) for module in modules]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _eager(decoder: Any) -> Iterator[None]:  # noqa: ANN401
    """The attention implementation that gives its weights, for a while."""
    before = decoder.config._attn_implementation
    decoder.config._attn_implementation = "eager"
    try:
        yield
    finally:
        decoder.config._attn_implementation = before
