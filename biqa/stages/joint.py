"""One-stage tuning, the Q-Instruct way: image -> description and level in one answer. Zero-shot asks the same and trains nothing."""

from typing import Any

import torch
from torch import Tensor

from biqa.data.collate import Batch, Encoded
from biqa.data.module import Item
from biqa.language.prompts import JOINT, STEM
from biqa.models.sampling import sample
from biqa.models.vlm import Prompt
from biqa.stages.base import Row
from biqa.stages.verdict import VerdictModule, mean_score


class Joint(VerdictModule):
    """Learns description, stem and level from the image: cross-entropy on both, with a weight for the level (METHOD.md section 3)."""

    def encode(self, item: Item) -> Encoded:
        """Image and question as the prompt; description, stem and level as the answer."""
        prompt = self.image_prompt(item, JOINT)
        return self.verdict(prompt, self.vlm.opening(item.descriptions[0]), item.record)

    def validation_scores(self, batch: Batch, logits: Tensor) -> Tensor:
        """Score after the model's own greedy description: the level logits of the step follow the annotated one, which a test image has not."""
        prompts = [Prompt(tuple(example.prompt), example.image) for example in batch.examples]
        nothing = torch.zeros(len(prompts), 0, self.max_new_tokens)
        how: dict[str, Any] = {"temperature": 1.0, "top_p": 1.0, "max_new_tokens": self.max_new_tokens, "stem": f" {STEM}"}
        answers = sample(self.vlm, prompts, nothing, lengths=self.lengths(len(prompts)), **how)
        assert answers.level_probabilities is not None
        return mean_score(answers.level_probabilities[:, 0])

    def answer(self, items: list[Item]) -> list[Row]:
        """Answer each image 1 + N times: rows of the answers table."""
        prompts = [self.image_prompt(item, JOINT) for item in items]
        answers = self.sampled(prompts, items, stem=f" {STEM}")
        assert answers.level_probabilities is not None
        return self.rows(items, answers.texts, answers.level_probabilities)


class ZeroShot(Joint):
    """The joint question to the base weights."""
