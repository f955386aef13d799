"""What all stages share: the step, the optimiser, the schedule, the validation figures."""

import itertools
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torchmetrics import MetricCollection, PearsonCorrCoef, SpearmanCorrCoef

from biqa.data.collate import Batch, Encoded
from biqa.data.images import image_of
from biqa.data.module import DataModule, Item
from biqa.data.shares import merged
from biqa.language.prompts import JOINT
from biqa.models.compiled import CompiledSteps
from biqa.models.sampling import SampledTexts, level_probabilities, sample, uniforms
from biqa.models.sharding import shard
from biqa.models.vllm_engine import VllmEngine
from biqa.models.vlm import VLM, Prompt
from biqa.stages.features import KnownImages, SeenImages
from biqa.stages.losses import answer_loss, level_loss
from biqa.stages.together import gathered, weight_of_means, world

Row = dict[str, Any]


def ends_step(trainer: L.Trainer, batch_idx: int) -> bool:
    """Whether the optimizer steps after this training batch: after every so many of them, and after the last of an epoch."""
    return (batch_idx + 1) % trainer.accumulate_grad_batches == 0 or trainer.fit_loop.epoch_loop.batch_progress.is_last_batch


class StageModule(L.LightningModule):
    """A stage: how an item becomes an example, the loss, and how images are answered. Subclasses give `encode` and `predict_step`.

    Args:
        vlm: the model to tune.
        lr: peak learning rate; `projector_lr` that of the projector (None: the same); `weight_decay` AdamW's, on matrices only.
        warmup: share of `total_steps` over which the rate rises linearly; then it falls along a cosine to zero.
        total_steps: optimiser steps of the whole run.
        repeats: N sampled queries an image; `temperature` and `top_p` how they are drawn; `max_new_tokens` where a description is cut.
        seed: draws the sampled answers.
    """

    learns_without_steps = False
    """Whether the stage learns at once from the training images, before it answers."""

    recalls = False
    """Whether rows of other images save it work."""

    looks_up = True
    """Whether it asks for no more of an image than what the decoder is given, so that features may stand for pixels."""

    def __init__(
        self,
        vlm: VLM,
        *,
        lr: float,
        projector_lr: float | None = None,
        weight_decay: float,
        warmup: float,
        total_steps: int,
        repeats: int,
        temperature: float,
        top_p: float,
        max_new_tokens: int,
        seed: int,
    ) -> None:
        super().__init__()
        self.vlm = vlm
        self.lr = lr
        self.projector_lr = projector_lr
        self.weight_decay = weight_decay
        self.warmup = warmup
        self.total_steps = total_steps
        self.repeats = repeats
        self.temperature = temperature
        self.top_p = top_p
        self.max_new_tokens = max_new_tokens
        self.seed = seed
        self.level_weight = 1.0
        self.step_loss: Tensor | None = None
        """The loss of the last step here."""
        self.known: KnownImages | SeenImages | None = None
        """Features of images, where they are looked up; or images that were read ahead."""
        self.steps: CompiledSteps | None = None
        """The step of decoding, where it is compiled."""
        self.engine: VllmEngine | None = None
        """What answers in the model's place; None: the model does."""
        self.rehearsed: Sequence[int] = ()
        """Tokens after which answers end, in turn, where it is only seen how long they take: those of texts to be learnt. Empty: as they end."""
        self.strict_loading = False  # a checkpoint holds what learns, and no more
        # every process has all scores when they are computed: see on_validation_epoch_end
        alone: dict[str, Any] = {"sync_on_compute": False}
        self.correlations = MetricCollection({"srcc": SpearmanCorrCoef(**alone), "plcc": PearsonCorrCoef(**alone)}, prefix="val/")
        self.scored: list[tuple[list[float], list[float]]] = []
        """Predicted scores and qualities of this process's share of each validation batch."""

    def encode(self, item: Item) -> Encoded:
        """The example that this stage learns from an item."""
        raise NotImplementedError

    def learn_without_steps(self, train: Sequence[Item], kept: Path | None = None) -> None:
        """What a stage learns at once, kept in a file: nothing, unless it `learns_without_steps`."""

    def image_prompt(self, item: Item, question: str) -> Prompt:
        """The question about the item's image, with its features where they are known."""
        if self.engine is not None:
            return self.engine.prompt(question, image_of(item.record))
        if self.known is not None:
            return self.known.prompt(item.record, question)
        return self.vlm.prompt(question, image_of(item.record))

    def question(self, item: Item) -> Prompt:
        """One about an item, of the longest kind that is asked of it."""
        return self.image_prompt(item, JOINT)

    def on_fit_start(self) -> None:
        """Look up what a tower that stays as it is makes of the images to learn from."""
        self._know([*self._data.train.items, *self._data.val.items], halves=True)

    def on_predict_start(self) -> None:
        """Look up what it makes of the images to answer."""
        self._know(self._data.predict, halves=False)

    @property
    def _data(self) -> DataModule:
        return self.trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue] (Lightning leaves it out)

    def _know(self, items: Sequence[Item], *, halves: bool) -> None:
        if isinstance(self.known, KnownImages):
            self.known.learn([item.record for item in items], self.trainer.precision_plugin.forward_context(), halves=halves)

    def described_length(self, item: Item) -> int:
        """Tokens of the description to learn or to read: what examples differ by, but for images of other shapes; known without them."""
        return len(self.vlm.opening(item.descriptions[0]))

    def random_numbers(self, items: Sequence[Item]) -> Tensor:
        """Uniform numbers of each image by its name: [images, N, max_new_tokens + 1]; the last one draws the level."""
        return uniforms(self.seed, [item.record.image for item in items], self.repeats, self.max_new_tokens + 1)

    # the step

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """The stage's loss, and the level logits [B, 5] where the answer has a level.

        Hidden states are gathered at supervised positions before the output head: the memory of the logits does not grow with the prompt.
        Of a batch that several processes share, the mean of their losses is the loss of the whole: so are the gradients.
        """
        of_answer, of_level = self.weights_of_terms(batch)
        mask, positions = batch.attended()
        hidden = self.vlm.hidden(batch.input_ids, mask, image=batch.image, positions=positions)
        states, labels = (value.flatten(0, 1).index_select(0, batch.supervised) for value in (hidden, batch.labels))
        loss = of_answer * answer_loss(self.vlm.logits(states), labels)
        if batch.examples[0].level_at is None:
            return loss, None
        logits = self.vlm.logits(hidden[batch.level_row, batch.level_position])
        loss = loss + self.level_weight * of_level * level_loss(logits, self.vlm.level_ids, batch.level_target)
        return loss, logits[:, self.vlm.level_ids]

    def weights_of_terms(self, batch: Batch) -> tuple[float | Tensor, float | Tensor]:
        """By how much to scale this process's mean over tokens and its mean over images, so that the processes' mean is that of the whole batch."""
        if world() == 1:
            return 1.0, 1.0
        counts = torch.tensor([len(batch.supervised), len(batch.examples)], dtype=torch.float32, device=batch.labels.device) * batch.counted
        of_answer, of_level = weight_of_means(counts)
        return of_answer, of_level

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """One step. `biqa.stages.curves.TrainingLoss` reads its loss now and then: Lightning's log would wait for the device at every step."""
        loss, _ = self.vlm(self.loss, batch)
        self.step_loss = loss.detach()
        return loss

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Loss, and SRCC / PLCC of the predicted score where the stage predicts one."""
        loss, scores = self.vlm(self.validated, batch)
        images = sum(gathered(len(batch.examples) * batch.counted))
        self.log("val/loss", loss, prog_bar=True, batch_size=images, sync_dist=world() > 1)
        if scores is not None:
            self.scored.append((scores.tolist(), batch.q.tolist()) if batch.counted else ([], []))

    def validated(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """The stage's loss, and the predicted score of each row where it predicts one."""
        loss, logits = self.loss(batch)
        return loss, None if logits is None else self.validation_scores(batch, logits)

    def validation_scores(self, batch: Batch, logits: Tensor) -> Tensor:
        """Predicted score of each row in [0, 1], from the level logits [B, 5]. Only asked of stages whose answer has a level."""
        raise NotImplementedError

    def on_validation_epoch_end(self) -> None:
        """Log the correlations of the whole validation split, its images in the order of the split."""
        for batch in zip(*gathered(self.scored), strict=True):
            scores, quality = (torch.tensor(merged(parts), device=self.device) for parts in zip(*batch, strict=True))
            self.correlations.update(scores, quality)
        self.scored = []
        if self.correlations["srcc"].update_called:
            self.log_dict(self.correlations.compute(), prog_bar=True)
            self.correlations.reset()

    # answers

    def answer(self, items: list[Item]) -> list[Row]:
        """Rows of some images, 1 + N each, image by image."""
        raise NotImplementedError

    def recall(self, rows: Iterable[Row]) -> None:
        """Take from rows that were made before a kill what saves work on those that are left: nothing, unless it `recalls`."""

    def sampled(self, prompts: Sequence[Prompt], items: Sequence[Item], stem: str | None = None) -> SampledTexts:
        """The 1 + N answers to the prompt of each item, and with a stem the level distribution after them (`biqa.models.sampling.sample`)."""
        numbers = self.random_numbers(items)
        how: dict[str, Any] = {"temperature": self.temperature, "top_p": self.top_p, "max_new_tokens": self.max_new_tokens, "stem": stem}
        if self.engine is not None:
            return self.engine.sample(prompts, numbers, **how)
        return sample(self.vlm, prompts, numbers, steps=self.steps, lengths=self.lengths(len(items) * (self.repeats + 1)), **how)

    def lengths(self, answers: int) -> list[int] | None:
        """Tokens of so many answers where they are `rehearsed`."""
        turn = itertools.cycle(self.rehearsed)
        return [min(self.max_new_tokens, length) for length in itertools.islice(turn, answers)] or None

    def level_probabilities(self, prompts: Sequence[Prompt], stem: Sequence[int]) -> Tensor:
        """Level distribution after each prompt and the stem, [B, 5]."""
        return level_probabilities(self.vlm, prompts, stem) if self.engine is None else self.engine.level_probabilities(prompts, stem)

    def predict_step(self, batch: list[Item], *_: int) -> list[Row]:
        """Answer a batch."""
        return self.vlm(self.answer, batch)

    # several processes

    def configure_model(self) -> None:
        """Divide the weights where the strategy wants that."""
        if self.device_mesh is not None and not self.vlm.sharded:
            shard(self.vlm, self.device_mesh["data_parallel"])

    # checkpoints

    def _learning(self) -> set[str]:
        return {name for name, parameter in self.named_parameters() if parameter.requires_grad}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the weights that learn: the others are built again as they were, and beside an adapter they would be nearly all."""
        learning = self._learning()
        checkpoint["state_dict"] = {name: value for name, value in checkpoint["state_dict"].items() if name in learning}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that it holds just these. A run folder has one config, so it does."""
        if "state_dict" in checkpoint:  # DeepSpeed keeps weights elsewhere
            assert set(checkpoint["state_dict"]) == self._learning(), "the checkpoint is of another choice of weights that learn"

    # the optimiser

    def configure_optimizers(self) -> Any:  # noqa: ANN401 (Lightning's own union of ten types)
        """AdamW with linear warm-up and cosine decay; weight decay on matrices only; the projector's own rate where it has one."""
        learning = [(name, parameter) for name, parameter in self.vlm.backbone.named_parameters() if parameter.requires_grad]
        apart = [p for name, p in learning if self.projector_lr is not None and self.vlm.part_of(name) == "projector"]
        others = [p for _, p in learning if not any(p is other for other in apart)]
        groups = [
            {"params": [p for p in parameters if (p.ndim >= 2) == matrices], "weight_decay": self.weight_decay * matrices, "lr": rate}
            for parameters, rate in ((others, self.lr), (apart, self.projector_lr))
            for matrices in (True, False)
        ]
        optimizer = torch.optim.AdamW([group for group in groups if group["params"]], lr=self.lr, betas=(0.9, 0.95))
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self.learning_rate_factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def learning_rate_factor(self, step: int) -> float:
        """Share of the peak learning rate at a step: linear rise over the warm-up, then half a cosine to zero."""
        rise = max(1, round(self.warmup * self.total_steps))
        if step < rise:
            return (step + 1) / rise
        progress = (step - rise) / max(1, self.total_steps - rise)
        return 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))
