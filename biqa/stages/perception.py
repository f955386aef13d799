"""Stage 1: image -> visual description."""

from biqa.data.collate import Encoded
from biqa.data.module import Item
from biqa.language.prompts import DESCRIBE
from biqa.stages.base import Row, StageModule


class Perception(StageModule):
    """Learns the description of an image: cross-entropy on the tokens of the description alone (METHOD.md section 3)."""

    def encode(self, item: Item) -> Encoded:
        """Image and question as the prompt, the description as the answer."""
        prompt = self.image_prompt(item, DESCRIBE)
        return Encoded(prompt.ids, [*self.vlm.opening(item.descriptions[0]), self.vlm.eos_id], prompt.image)

    def answer(self, items: list[Item]) -> list[Row]:
        """Describe each image 1 + N times: rows with image, query, description."""
        prompts = [self.image_prompt(item, DESCRIBE) for item in items]
        answers = self.sampled(prompts, items)
        return [
            {"image": item.record.image, "query": query, "description": text}
            for item, texts in zip(items, answers.texts, strict=True)
            for query, text in enumerate(texts)
        ]
