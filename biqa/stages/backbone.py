"""A backbone as a teacher: it describes images in batches, each greedily."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from PIL.Image import Image

from biqa.data.images import load_image
from biqa.data.record import Reduction
from biqa.data.teacher import Keep
from biqa.data.texts import whole_sentences
from biqa.errors import TeacherUnavailable
from biqa.models.sampling import sample
from biqa.models.vlm import VLM

NEAR = 2
"""Tokens: an answer that comes so near to the longest is taken for cut off. Words are split anew to count, which may differ by a token."""


class BackboneWriter:
    """Describes images with a model, which is built when the first image is to be described and let go after the last.

    Args:
        name: identity of model and decoding: texts are kept under it.
        build: makes the model.
        batch_size: images at a time.
        max_new_tokens: an answer is cut there, and its unfinished sentence left out.
    """

    def __init__(self, *, name: str, build: Callable[[], VLM], batch_size: int, max_new_tokens: int) -> None:
        self.name = name
        self.build = build
        self.batch_size = batch_size
        self.max_new_tokens = max_new_tokens

    def write(self, images: Sequence[Path], reduction: Reduction | None, question: str, keep: Keep) -> None:
        """Describe every image, on the GPU where there is one, and hand over the texts of each batch.

        Raises:
            TeacherUnavailable: the GPU has too little memory.
            BadRecord: an image does not decode.
        """
        vlm = self.build().eval()
        try:
            if torch.cuda.is_available():
                vlm.cuda()
            for start in range(0, len(images), self.batch_size):
                batch = images[start : start + self.batch_size]
                for path, text in zip(batch, self._answers(vlm, [load_image(path, reduction) for path in batch], question), strict=True):
                    keep(path, text)
        except torch.OutOfMemoryError as error:
            raise TeacherUnavailable(
                f"The teacher with {self.batch_size} images at a time does not fit into the GPU's memory. Choose a smaller descriptions.batch_size=. "
                f"What was written before is kept."
            ) from error
        finally:
            del vlm
            torch.cuda.empty_cache()

    def _answers(self, vlm: VLM, images: Sequence[Image], question: str) -> list[str]:
        prompts = [vlm.prompt(question, image) for image in images]
        none_sampled = torch.zeros(len(images), 0, self.max_new_tokens)
        answers = sample(vlm, prompts, none_sampled, temperature=1.0, top_p=1.0, max_new_tokens=self.max_new_tokens)
        return [whole_sentences(text) if self._cut_off(vlm, text) else text for [text] in answers.texts]

    def _cut_off(self, vlm: VLM, text: str) -> bool:
        return len(vlm.continuation(text)) >= self.max_new_tokens - NEAR
