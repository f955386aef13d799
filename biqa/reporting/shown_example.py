"""A training example as the loss sees it: the question as text, the answer token by token with what of it is learnt, and the level's target."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Literal

from rich.console import Group
from rich.text import Text

from biqa.data.collate import IGNORED, Batch
from biqa.language.levels import LEVELS
from biqa.models.vlm import VLM

Kind = Literal["learnt", "level", "ignored"]
"""What the loss makes of a token: cross-entropy on it, on the level distribution in its place, or nothing."""
STYLES = {"learnt": "bold green", "level": "bold yellow", "ignored": "dim"}
BRACKETS = {"learnt": "[]", "level": "{}", "ignored": ("", "")}


@dataclass(frozen=True)
class ShownExample:
    """An example in words."""

    prompt: str
    """The question, in chat form; the image's tokens are one `<image> x 64`."""
    prompt_tokens: int
    image_tokens: int
    """Of those of the prompt."""
    answer: tuple[tuple[str, Kind], ...]
    """Its tokens."""
    learnt_in_prompt: int
    """Tokens of the prompt that are learnt: none, if all is well."""
    level_at: int | None
    """Where in the row the level word stands, from 0; None without one."""
    level_target: tuple[float, ...]
    """Level distribution to learn there, worst level first."""


def prompt_text(vlm: VLM, ids: Sequence[int]) -> str:
    """A prompt as text, with the tokens that hold places for an image told by their number."""
    shown = ""
    for image, run in groupby(ids, key=lambda token: token == vlm.image_token_id):
        tokens = list(run)
        piece = f"{vlm.processor.image_token} x {len(tokens)}" if image else _text(vlm, tokens)
        apart = not shown or shown[-1].isspace() or piece[:1].isspace()
        shown += piece if apart else f" {piece}"
    return shown


def example_of(vlm: VLM, batch: Batch) -> ShownExample:
    """The only example of a batch, as its labels have it."""
    [example] = batch.examples
    start = len(example.prompt)
    learnt = [label != IGNORED for label in batch.labels[0].tolist()]  # by position of the token before
    level = int(batch.level_position[0])
    kinds: list[Kind] = [
        "level" if level == start + place - 1 else "learnt" if learnt[start + place - 1] else "ignored" for place in range(len(example.answer))
    ]
    return ShownExample(
        prompt=prompt_text(vlm, example.prompt),
        prompt_tokens=start,
        image_tokens=sum(token == vlm.image_token_id for token in example.prompt),
        answer=tuple(zip(_pieces(vlm, example.answer), kinds, strict=True)),
        learnt_in_prompt=sum(learnt[: start - 1]),
        level_at=level + 1 if level >= 0 else None,
        level_target=tuple(batch.level_target[0].tolist()),
    )


def _pieces(vlm: VLM, ids: Sequence[int]) -> list[str]:
    """The text that each token adds: some tokenizers tell the space before a word only where another word precedes."""
    whole = [_text(vlm, list(ids[:end])) for end in range(len(ids) + 1)]
    return [after[len(before) :] for before, after in pairwise(whole)]


def _text(vlm: VLM, ids: list[int]) -> str:
    return vlm.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


def render_example(example: ShownExample, *, title: str, target: str, weight: float, colour: bool) -> Group:
    """It for the terminal.

    Args:
        example: the example.
        title: which image it is.
        target: "soft" or "hard"; `weight` of the level's loss.
        colour: whether tokens are told apart by colour, or by brackets.
    """
    tokens = Text()
    for place, (piece, kind) in enumerate(example.answer):
        left, right = ("", "") if colour else BRACKETS[kind]
        if colour and place:
            tokens.append("|", style="dim")
        tokens.append(f"{left}{piece}{right}", style=STYLES[kind] if colour else "")
    counts = {kind: sum(its == kind for _, its in example.answer) for kind in STYLES}
    of_image = f", {example.image_tokens} of them the image's" if example.image_tokens else ", no image among them"
    marks = " (so: [ word])" if not colour else ""
    ignored = f", {counts['ignored']} count for nothing" if counts["ignored"] else ""
    lines: list[Text] = [
        Text(f"{title} as the loss sees it", style="bold"),
        Text(f"Prompt, {example.prompt_tokens} tokens{of_image}; {example.learnt_in_prompt or 'none'} learnt:"),
        Text(example.prompt),
        Text(f"Answer, {len(example.answer)} tokens, {counts['learnt']} learnt as tokens{marks}{ignored}:"),
        tokens,
    ]
    if example.level_at is not None:
        place, word = next((place, piece) for place, (piece, kind) in enumerate(example.answer) if kind == "level")
        levels = ", ".join(f"{level} {share:.3f}" for level, share in zip(LEVELS, example.level_target, strict=True))
        lines.append(
            Text(
                f"The level word begins with {{{word}}}, token {place + 1} of the answer, position {example.level_at} of the row. It is learnt as a "
                f"distribution ({target}: {levels}), whose loss weighs {weight:g} beside the mean over the other {counts['learnt']} tokens."
            )
        )
    return Group(*lines)
