"""Rows 1 and 2: ten sampled answers an image from one prefill, against transformers' `generate`.

Both sides have the same model with weights in bf16 (no autocast), the same prompts and pixels, prepared beforehand, and draw from the whole
distribution at temperature 1. Nothing ends an answer, so that all are of the same length. What biqa's `sample` gives in use it gives here: the greedy
answer of each image comes on top of the sampled ones, so that it writes 11 answers where `generate` writes 10.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

import torch
from torch import Tensor

from benchmarks.rounds import ratio_of, rounds_of, timed
from benchmarks.rows import Machine, Row
from benchmarks.shapes import PATCH, SMALL, Shape, as_transformers_has_it, build, linear_weights, picture
from biqa.language.prompts import DESCRIBE
from biqa.models.sampling import left_padded, sample, uniforms
from biqa.models.vlm import VLM, Prompt

NUMBERS = (1, 2)
NEVER = -1
"""No token has this id."""
BYTES = 2
"""Of a number in bf16."""
LIMIT = "the fewest seconds by matrix product and memory"


@dataclass(frozen=True)
class Work:
    """Answers of one size."""

    shape: Shape
    batch: int
    """Images of row 1, answered together."""
    images: int
    """Of row 2, which biqa answers together."""
    looped: int
    """Of these, how many a round are asked one call an answer: other ones each round, and what they take is scaled to all of them."""
    repeats: int = 10
    tokens: int = 32


FULL = Work(Shape(), batch=8, images=16, looped=4)
GLANCE = Work(SMALL, batch=2, images=2, looped=1, repeats=3, tokens=4)


def rows(work: Work, machine: Machine, rounds: int, wanted: Sequence[int] = NUMBERS) -> list[Row]:
    """Those of rows 1 and 2 that are wanted."""
    sides = Sides(work.shape, max(work.batch, work.images), work.repeats, work.tokens)
    made = {1: _batch_row, 2: _loop_row}
    return [row(sides, work, machine, rounds) for number, row in made.items() if number in wanted]


class Sides:
    """A model whose answers never end, asked about some images.

    Args:
        shape: of the model.
        images: how many there are.
        repeats: sampled answers an image.
        tokens: of an answer.
    """

    def __init__(self, shape: Shape, images: int, repeats: int, tokens: int) -> None:
        self.shape = shape
        self.repeats = repeats
        self.tokens = tokens
        self.vlm = build(shape).eval()
        self.vlm.eos_id = NEVER
        self.peer = as_transformers_has_it(build(shape).eval())
        self.peer.model.generation_config.eos_token_id = None
        self.prompts = [self.vlm.prompt(DESCRIBE, picture(number, shape.side * PATCH)) for number in range(images)]
        self.numbers = uniforms(0, [str(number) for number in range(images)], repeats, tokens)

    def biqa(self, images: int) -> float:
        """Seconds for the answers about the first images, all together."""
        given = {"temperature": 1.0, "top_p": 1.0, "max_new_tokens": self.tokens}
        answers, seconds, _ = timed(lambda: sample(self.vlm, self.prompts[:images], self.numbers[:images], **given))
        assert [len(texts) for texts in answers.texts] == [self.repeats + 1] * images
        return seconds

    def generate(self, images: int) -> float:
        """The same by one call of `generate`, which repeats each prompt before it reads it."""
        answers, seconds, _ = timed(lambda: self.generated(self.prompts[:images], self.repeats))
        assert len(answers) == images * self.repeats
        return seconds

    def loop(self, images: Sequence[int]) -> float:
        """Seconds for the answers about some images, a call an answer."""
        return timed(lambda: [self.generated([self.prompts[image]], 1) for image in images for _ in range(self.repeats)])[1]

    @torch.no_grad()
    def generated(self, prompts: Sequence[Prompt], repeats: int, *, sampled: bool = True) -> Tensor:
        """Token ids of answers by transformers: [prompts * repeats, tokens]."""
        ids, mask, image = left_padded(prompts, self.peer.pad_id, self.peer.device)
        drawing = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0} if sampled else {"do_sample": False}
        asked = {"input_ids": ids, "attention_mask": mask, **self.peer.family.batch(image)}
        written = self.peer.model.generate(**asked, **drawing, num_return_sequences=repeats, max_new_tokens=self.tokens)[:, ids.shape[1] :]
        assert written.shape[1] == self.tokens, f"answers of {written.shape[1]} tokens instead of {self.tokens}"
        return written

    def least_seconds(self, machine: Machine, images: int) -> float:
        """That the answers about so many images can take here."""
        return least_seconds(self.vlm, self.shape, machine, prompt=len(self.prompts[0].ids), images=images, answers=self.repeats, tokens=self.tokens)


def least_seconds(vlm: VLM, shape: Shape, machine: Machine, *, prompt: int, images: int, answers: int, tokens: int, tower: bool = True) -> float:
    """What the machine's matrix product and memory allow at best, each image seen (by a `tower`) and each prompt of so many tokens read once.

    All is in bf16. The prompts go at the speed of the matrix product. A step of decoding takes its products with the weights, or reading weights,
    keys and values, whichever is slower; keys and values of a prompt are read once for all its answers. Attention's own products are left out.
    """
    block, head = linear_weights(vlm, "decoder"), shape.vocabulary * shape.width
    seen = (shape.side**2 + 1) * (linear_weights(vlm, "tower") + linear_weights(vlm, "projector")) if tower else 0
    seconds = 2 * images * (seen + prompt * block + head) / machine.bfloat16
    for step in range(1, tokens):  # the first token comes from the prompt
        products = 2 * images * answers * (block + head) / machine.bfloat16
        remembered = 2 * shape.layers * shape.width * images * (prompt + answers * step)
        seconds += max(products, BYTES * (block + head + remembered) / machine.bandwidth)
    return seconds


def _batch_row(sides: Sides, work: Work, machine: Machine, rounds: int) -> Row:
    taken = rounds_of({"biqa": lambda: sides.biqa(work.batch), "generate": lambda: sides.generate(work.batch)}, rounds)
    against = f"`generate(num_return_sequences={work.repeats})`, same batch"
    return _row("1", sides, machine, work.batch, against, 4.0, taken)


def _loop_row(sides: Sides, work: Work, machine: Machine, rounds: int) -> Row:
    parts = itertools.cycle([range(first, first + work.looped) for first in range(0, work.images, work.looped)])
    scale = work.images / work.looped
    taken = rounds_of({"biqa": lambda: sides.biqa(work.images), "generate": lambda: scale * sides.loop(next(parts))}, rounds)
    row = _row("2", sides, machine, work.images, f"{work.repeats} `generate` calls an image, one image at a time", 10.0, taken)
    return replace(row, note=f"{row.note}; the calls are timed on {work.looped} images a round, other ones each time, and scaled to all")


def _row(name: str, sides: Sides, machine: Machine, images: int, against: str, wanted: float, taken: Sequence[dict[str, float]]) -> Row:  # noqa: PLR0917
    medians = {side: median(one[side] for one in taken) for side in taken[0]}
    work = f"{sides.repeats} sampled answers of {sides.tokens} tokens an image, {images} images, {sides.shape}, bf16"
    share = sides.least_seconds(machine, images) / medians["biqa"]
    note = f"biqa writes the greedy answer on top: {sides.repeats + 1} an image"
    return Row(name, work, against, wanted, ratio_of(taken, "generate", "biqa"), share, LIMIT, medians=medians, note=note)
