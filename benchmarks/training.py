"""One training step, four ways: biqa's through Lightning, a bare loop over biqa's own loss, a bare loop over transformers' loss, TRL's SFTTrainer.

All four learn LoRA of the same rank in a model with the same weights, in bf16 under autocast, clip the gradient, and step AdamW. Seconds a step are
taken between the ends of steps, loading of the batches included, the first step left out.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stdout
from importlib import import_module
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

import lightning as L
import torch
from omegaconf import DictConfig
from torch import Tensor

from benchmarks.shapes import as_transformers_has_it
from biqa.data.collate import Batch, collate
from biqa.data.images import image_of
from biqa.data.module import Item
from biqa.models.adapters import adapt, decoder_linears
from biqa.models.vlm import VLM
from biqa.running.building import build_data, build_stage, build_trainer, quiet
from biqa.running.training import verdict_options
from biqa.runs import RunFolder
from biqa.stages.base import StageModule
from biqa.stages.features import KnownImages

NO_TRL = "TRL is not installed: pip install -c constraints.txt -e '.[bench]'"
TRL = find_spec("trl") is not None


class StepEnds(L.Callback):
    """When each step ended."""

    def __init__(self) -> None:
        self.at: list[float] = []

    def on_train_batch_end(self, *_: Any, **__: Any) -> None:  # noqa: ANN401 (Lightning's hook)
        """Note the time."""
        self.at.append(time.perf_counter())

    def mean(self) -> float:
        """Seconds a step, the first left out."""
        return (self.at[-1] - self.at[0]) / (len(self.at) - 1)

    def epoch(self) -> float:
        """Seconds of so many steps, the first taken to last as long as the others."""
        return self.mean() * len(self.at)


class Biqa:
    """A stage with its data, as `biqa.run` builds them.

    Args:
        vlm: gets LoRA.
        config: of the run.
        items: what an epoch shows.
        folder: of the run.
    """

    def __init__(self, vlm: VLM, config: DictConfig, items: Sequence[Item], folder: Path) -> None:
        quiet()
        with_lora(vlm, config)
        self.config = config
        self.items = items
        self.folder = RunFolder(folder)
        steps = -(-len(items) // config.stage.batch_size)
        options = verdict_options_of(config)
        self.stage: StageModule = build_stage(config, config.stage._target_, vlm, steps=100 * steps, repeats=0, **options)
        self.data = build_data(config, self.stage, train=items)

    def fit(self) -> StepEnds:
        """An epoch. Where features of images are kept, what is not there yet is computed before the first step."""
        ends = StepEnds()
        trainer = build_trainer(self.config, self.folder, epochs=1, logs=False)
        trainer.callbacks.append(ends)  # pyright: ignore[reportAttributeAccessIssue] (set under another name)
        with redirect_stdout(StringIO()):  # it says what features are there
            trainer.fit(self.stage, self.data)
        return ends

    def epoch(self) -> float:
        """Seconds an epoch."""
        return self.fit().epoch()

    def step(self) -> float:
        """Seconds a step."""
        return self.fit().mean()

    def bare_step(self) -> float:
        """Seconds a step of a plain loop over the same loss, batches and optimiser."""
        configured = self.stage.train().configure_optimizers()
        optimizer, schedule = configured["optimizer"], configured["lr_scheduler"]["scheduler"]

        def backward(batch: Batch) -> None:
            with torch.autocast("cpu", torch.bfloat16):
                loss, _ = self.stage.loss(batch)
            loss.backward()

        return loop(self.data.train_dataloader(), backward, optimizer, schedule)

    def batch(self, size: int) -> Batch:
        """The first items as a batch."""
        return collate([self.stage.encode(item) for item in self.items[:size]], self.stage.vlm.pad_id)

    def know(self) -> None:
        """Put the features of all images on disk, as the first epoch would, and take them from there."""
        assert isinstance(self.stage.known, KnownImages), "images.features_gb is not set"
        with redirect_stdout(StringIO()):
            self.stage.known.learn([item.record for item in self.items], torch.autocast("cpu", torch.bfloat16), halves=True)

    def loss(self, batch: Batch) -> float:
        """Of a batch."""
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            return float(self.stage.loss(batch)[0])


def verdict_options_of(config: DictConfig) -> dict[str, Any]:
    """What a stage that ends in a level word takes beyond the others."""
    from omegaconf import OmegaConf

    stage: Any = OmegaConf.to_object(config.stage)
    return verdict_options(stage)


def with_lora(vlm: VLM, config: DictConfig) -> None:
    """LoRA as the config has it."""
    tuning = config.tuning
    adapt(vlm, kind="lora", rank=tuning.rank, alpha=tuning.alpha, dropout=tuning.dropout, targets=None, freeze=None)


def lora_config(vlm: VLM, config: DictConfig) -> Any:  # noqa: ANN401 (PEFT's)
    """The same for a plain model."""
    from peft import LoraConfig

    tuning = config.tuning
    return LoraConfig(r=tuning.rank, lora_alpha=tuning.alpha, lora_dropout=tuning.dropout, target_modules=decoder_linears(vlm), task_type="CAUSAL_LM")


def loop(
    batches: Iterable[Any], backward: Callable[[Any], None], optimizer: torch.optim.Optimizer, schedule: torch.optim.lr_scheduler.LRScheduler | None
) -> float:
    """Seconds a step of a plain training loop, the first step left out."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    ends = StepEnds()
    for batch in batches:
        backward(batch)
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        if schedule is not None:
            schedule.step()
        optimizer.zero_grad()
        ends.on_train_batch_end()
    return ends.mean()


class Plain:
    """`model(**batch, labels=...)` in a loop, as one would write it with transformers and PEFT; the batches are made beforehand.

    Args:
        vlm: whose backbone gets LoRA, by PEFT alone.
        config: of the run.
        batches: those of biqa.
    """

    def __init__(self, vlm: VLM, config: DictConfig, batches: Sequence[Batch]) -> None:
        from peft import get_peft_model

        self.model: Any = get_peft_model(as_transformers_has_it(vlm).backbone, lora_config(vlm, config)).train()
        self.lr = config.tuning.lr
        self.batches = [as_transformers(batch) for batch in batches]

    def step(self) -> float:
        """Seconds a step."""
        optimizer = torch.optim.AdamW([weight for weight in self.model.parameters() if weight.requires_grad], lr=self.lr)
        return loop(self.batches, lambda batch: self._loss(batch).backward(), optimizer, None)

    def loss(self, batch: Batch) -> float:
        """Of a batch."""
        with torch.no_grad():
            return float(self._loss(as_transformers(batch)))

    def _loss(self, batch: dict[str, Tensor]) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return self.model(**batch).loss


def as_transformers(batch: Batch) -> dict[str, Tensor]:
    """A batch of biqa as a model of transformers takes it: it shifts the labels itself, and has no loss of its own for the level word."""
    labels = torch.full_like(batch.labels, -100)
    labels[:, 1:] = batch.labels[:, :-1]
    for row, position in enumerate(batch.level_position.tolist()):
        if position >= 0:
            labels[row, position + 1] = batch.input_ids[row, position + 1]
    return {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "labels": labels, **batch.image}


class Trl:
    """TRL's SFTTrainer on the same items, without gradient checkpointing (its default), which biqa does without too.

    Args:
        vlm: whose backbone gets LoRA, by TRL.
        config: of the run.
        rows: what it learns from: pictures with prompts and completions (`with_pictures`), or token ids (`of_tokens`).
        folder: where it writes.
        options: further ones of SFTConfig, or other values.
    """

    def __init__(self, vlm: VLM, config: DictConfig, rows: Sequence[dict[str, Any]], folder: Path, **options: Any) -> None:  # noqa: ANN401
        from transformers import TrainerCallback
        from transformers.trainer_callback import PrinterCallback

        datasets, trl = import_module("datasets"), import_module("trl")  # not in every installation, so unknown to the type checker
        datasets.disable_progress_bars()
        self.ends = ends = StepEnds()

        class Ends(TrainerCallback):
            def on_step_end(self, *_: object, **__: object) -> None:
                ends.on_train_batch_end()

        settings: dict[str, Any] = {
            "output_dir": str(folder), "per_device_train_batch_size": config.stage.batch_size, "num_train_epochs": 1,
            "learning_rate": config.tuning.lr, "bf16": True, "use_cpu": True, "activation_checkpointing": False,
            "max_grad_norm": 1.0, "max_length": None, "completion_only_loss": True,
            "report_to": "none", "save_strategy": "no", "disable_tqdm": True, "logging_steps": 10_000, "logging_first_step": True,
            "dataloader_pin_memory": False,
        }  # fmt: skip
        self.trainer: Any = trl.SFTTrainer(
            model=as_transformers_has_it(vlm).backbone,
            args=trl.SFTConfig(**(settings | options)), train_dataset=datasets.Dataset.from_list(list(rows)),
            processing_class=vlm.processor if vlm.vision else vlm.tokenizer, peft_config=lora_config(vlm, config), callbacks=[Ends()],
        )  # fmt: skip
        self.trainer.remove_callback(PrinterCallback)

    def fit(self) -> StepEnds:
        """An epoch."""
        self.ends.at.clear()
        self.trainer.train()
        return self.ends

    def step(self) -> float:
        """Seconds a step."""
        return self.fit().mean()

    def epoch(self) -> float:
        """Seconds an epoch."""
        return self.fit().epoch()

    @property
    def first_loss(self) -> float:
        """That of the first step of the last `fit`."""
        return next(entry["loss"] for entry in self.trainer.state.log_history if "loss" in entry)


def with_pictures(vlm: VLM, items: Sequence[Item], question: str) -> list[dict[str, Any]]:
    """Rows for TRL: the text of the prompt with one image token, the completion with its end, the picture."""
    asked = vlm.processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}], add_generation_prompt=True, tokenize=False
    )
    return [{"prompt": asked, "completion": f" {item.descriptions[0]}{vlm.tokenizer.eos_token}", "images": [image_of(item.record)]} for item in items]


def of_tokens(stage: StageModule, items: Sequence[Item]) -> list[dict[str, Any]]:
    """Rows for TRL: token ids, and which of them are learnt."""
    encoded = [stage.encode(item) for item in items]
    return [{"input_ids": [*one.prompt, *one.answer], "completion_mask": [*[0] * len(one.prompt), *[1] * len(one.answer)]} for one in encoded]
