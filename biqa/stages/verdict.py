"""What the stages share that end in a level word: the answer's end, its scores, its rows in the answers table."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from biqa.data.collate import Batch, Encoded
from biqa.data.module import Item
from biqa.data.record import Record
from biqa.evaluation.answers import PROBABILITIES
from biqa.language.levels import LEVELS, WEIGHTS, level_index, soft_target
from biqa.language.prompts import STEM
from biqa.models.sampling import next_tokens
from biqa.models.vlm import VLM, Prompt
from biqa.stages.base import Row, StageModule


class VerdictModule(StageModule):
    """A stage that ends in a level word.

    Args:
        target: "hard" learns the level of the image's quality, "soft" a level distribution whose mean is the quality.
        level_weight: weight of the level word's loss beside the mean loss of the other tokens.
        vlm: the model to tune; `options`: see StageModule.
    """

    def __init__(self, vlm: VLM, *, target: str, level_weight: float, **options: Any) -> None:  # noqa: ANN401 (StageModule's own)
        super().__init__(vlm, **options)
        self.target = target
        self.level_weight = level_weight

    def verdict(self, prompt: Prompt, said: Sequence[int], record: Record) -> Encoded:
        """An example whose answer is what was `said` (token ids of a description, or nothing), the stem, the level and a full stop."""
        stem = self.vlm.continuation(f" {STEM}") if said else self.vlm.opening(STEM)
        level = level_index(record.q)
        one_hot = [float(index == level) for index in range(len(LEVELS))]
        return Encoded(
            prompt=prompt.ids,
            answer=[*said, *stem, *self.vlm.continuation(f" {LEVELS[level]}"), *self.vlm.continuation("."), self.vlm.eos_id],
            image=prompt.image,
            level_at=len(said) + len(stem),
            level_target=list(soft_target(record.q, record.q_std)) if self.target == "soft" else one_hot,
            q=record.q,
        )

    def validation_scores(self, batch: Batch, logits: Tensor) -> Tensor:
        """Predicted score of each row from its level logits: [B], values in [0, 1]."""
        return mean_score(logits.softmax(-1))

    def rows(self, items: Sequence[Item], texts: Sequence[Sequence[str]], probabilities: Tensor) -> list[Row]:
        """Rows of the answers table.

        Args:
            items: B items.
            texts: [B][N + 1] descriptions.
            probabilities: [B, N + 1, 5] level distribution after each; in float64 they are those that the table has, and stay as they are.
        """
        probabilities = probabilities if probabilities.dtype == torch.float64 else exactly_one(probabilities)
        levels = self.levels(items, probabilities)
        scores = probabilities @ torch.tensor(WEIGHTS)
        return [
            {
                "image": item.record.image,
                "query": query,
                "description": texts[i][query],
                "level": LEVELS[int(levels[i, query])],
                **dict(zip(PROBABILITIES, probabilities[i, query].tolist(), strict=True)),
                "score": float(scores[i, query]),
                "q": item.record.q,
                "subset": item.record.subset,
            }
            for i, item in enumerate(items)
            for query in range(probabilities.shape[1])
        ]

    def levels(self, items: Sequence[Item], probabilities: Tensor) -> Tensor:
        """The level word of each answer: arg-max for the greedy query 0, drawn at temperature T and top-p for the others: [B, N + 1] indices."""
        greedy = probabilities[:, :1].argmax(-1)
        if not self.repeats:
            return greedy
        numbers = self.random_numbers(items)[..., -1]
        sampled = next_tokens(probabilities[:, 1:].log(), numbers, self.temperature, self.top_p)
        return torch.cat([greedy, sampled], 1)


def exactly_one(probabilities: Tensor) -> Tensor:
    """Level distributions [..., 5] in float64, on the host, whose sums are 1 there too."""
    probabilities = probabilities.double().cpu()
    return probabilities / probabilities.sum(-1, keepdim=True)


def mean_score(probabilities: Tensor) -> Tensor:
    """Mean of level distributions on the quality scale: [..., 5] -> [...], values in [0, 1] (METHOD.md section 4)."""
    return probabilities.float() @ torch.tensor(WEIGHTS, dtype=torch.float32, device=probabilities.device)
