"""Stage 2: description -> quality, from the text alone. The model is built without its vision tower."""

import torch

from biqa.data.collate import Encoded
from biqa.data.module import Item
from biqa.language.prompts import INFER, STEM
from biqa.models.sampling import level_probabilities
from biqa.stages.base import Row
from biqa.stages.together import largest
from biqa.stages.verdict import VerdictModule


class Inference(VerdictModule):
    """Learns the level from a description: no image, no image token, no tower (METHOD.md section 3).

    The stem belongs to the prompt and is not learnt; the level word is.
    """

    def encode(self, item: Item) -> Encoded:
        """The description and the question as the prompt; stem and level as the answer."""
        return self.verdict(self.vlm.prompt(INFER.format(description=item.descriptions[0])), [], item.record)

    def answer(self, items: list[Item]) -> list[Row]:
        """Score every description of each image; equal descriptions are scored once."""
        texts = [text for item in items for text in item.descriptions]
        distinct = list(dict.fromkeys(texts))
        prompts = [self.vlm.prompt(INFER.format(description=text)) for text in distinct]
        # by length, so that a batch pads little
        order = sorted(range(len(prompts)), key=lambda index: len(prompts[index].ids))
        size = max(1, len(items) * 4)
        stem = self.vlm.opening(STEM)
        parts = [[prompts[i] for i in order[at : at + size]] for at in range(0, len(order), size)]
        scored = torch.cat([level_probabilities(self.vlm, part, stem) for part in parts])
        if self.vlm.sharded:  # keep those processes company that have more distinct texts
            for _ in range(largest(len(parts)) - len(parts)):
                level_probabilities(self.vlm, parts[0], stem)
        of = {distinct[index]: row for row, index in enumerate(order)}
        probabilities = scored[[of[text] for text in texts]].unflatten(0, (len(items), -1))
        return self.rows(items, [item.descriptions for item in items], probabilities)
