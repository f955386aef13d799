"""Stage 2: description -> quality, from the text alone. The model is built without its vision tower."""

from collections.abc import Iterable
from typing import Any

import torch

from biqa.data.collate import Encoded
from biqa.data.module import Item
from biqa.evaluation.answers import PROBABILITIES
from biqa.language.prompts import INFER, STEM
from biqa.models.vlm import VLM, Prompt
from biqa.stages.base import Row
from biqa.stages.together import largest
from biqa.stages.verdict import VerdictModule, exactly_one

TOGETHER = 16
"""Descriptions to score in one pass, at least: of more the longest is that much longer than the others, and padding costs more than passes do."""


class Inference(VerdictModule):
    """Learns the level from a description: no image, no image token, no tower (METHOD.md section 3).

    Stem, level and full stop are the answer and are learnt; nothing of the description is.

    Args:
        vlm: the decoder alone; `options`: see VerdictModule.
    """

    recalls = True
    scores: dict[str, tuple[float, ...]] | None = None
    """Level distribution after each description that was scored, while images are answered: models say the same of many images."""

    def __init__(self, vlm: VLM, **options: Any) -> None:  # noqa: ANN401 (VerdictModule's own)
        assert not vlm.vision, "stage 2 judges the text alone: its model is built without its vision tower"
        super().__init__(vlm, **options)

    def encode(self, item: Item) -> Encoded:
        """The description and the question as the prompt; stem and level as the answer."""
        return self.verdict(self.vlm.prompt(INFER.format(description=item.descriptions[0])), [], item.record)

    def question(self, item: Item) -> Prompt:
        """About the longest of its descriptions."""
        return self.vlm.prompt(INFER.format(description=max(item.descriptions, key=len)))

    def on_predict_start(self) -> None:
        """Keep scores from here on."""
        super().on_predict_start()
        self.scores = self.scores or {}

    def on_predict_end(self) -> None:
        """Forget them: the weights may change now."""
        self.scores = None

    def recall(self, rows: Iterable[Row]) -> None:
        """Take scores from rows of a table that a kill has cut off. What follows is then scored in the same company as without the kill."""
        self.scores = {row["description"]: tuple(row[name] for name in PROBABILITIES) for row in rows}

    def answer(self, items: list[Item]) -> list[Row]:
        """Score every description of each image; equal descriptions are scored once, also in all the batches of one prediction."""
        scores = {} if self.scores is None else self.scores
        texts = [text for item in items for text in item.descriptions]
        new = [text for text in dict.fromkeys(texts) if text not in scores]
        prompts = [self.vlm.prompt(INFER.format(description=text)) for text in new]
        # by length, so that a batch pads little
        order = sorted(range(len(prompts)), key=lambda index: len(prompts[index].ids))
        size = max(TOGETHER, len(items))
        stem = self.vlm.opening(STEM)
        parts = [order[at : at + size] for at in range(0, len(order), size)]
        most = largest(len(parts)) if self.vlm.sharded else len(parts)  # asked first: a pass waits for all processes
        for part in parts:
            probabilities = exactly_one(self.level_probabilities([prompts[index] for index in part], stem))
            scores |= {new[index]: tuple(found) for index, found in zip(part, probabilities.tolist(), strict=True)}
        for _ in range(most - len(parts)):  # keep those processes company that have more distinct texts
            self.level_probabilities([self.vlm.prompt(INFER.format(description=texts[0]))], stem)
        probabilities = torch.tensor([scores[text] for text in texts], dtype=torch.float64).unflatten(0, (len(items), -1))
        return self.rows(items, [item.descriptions for item in items], probabilities)
