"""From config to model, stage, batches and trainer. Config stops here: everything below takes named arguments."""

import logging
import os
import ssl
import threading
import warnings
from collections.abc import Sequence
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import urlopen

import lightning as L
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf

from biqa import config as schema
from biqa.data.module import DataModule, Item
from biqa.errors import IncompatibleChoice
from biqa.models.adapters import adapt, load_weights, save_merged
from biqa.models.budget import images_at_a_time
from biqa.models.compiled import CompiledSteps
from biqa.models.features import learns_to_see
from biqa.models.quantization import Quantization
from biqa.models.sharding import checkpoint_activations
from biqa.models.tree import branches
from biqa.models.vlm import VLM
from biqa.running.instantiate import allowed, make
from biqa.running.origin import refuse_other_questions
from biqa.running.processes import STARTED_HERE
from biqa.running.stopping import ending, signals
from biqa.runs import RunFolder, different, find_run, plain
from biqa.stages.aside import Aside
from biqa.stages.base import StageModule
from biqa.stages.checkpoint_files import AtomicCheckpointIO
from biqa.stages.checkpoints import Checkpoints
from biqa.stages.curves import CurveLogger, Progress, TrainingLoss
from biqa.stages.divergence import OnlyNumbers
from biqa.stages.features import KnownImages
from biqa.stages.limits import BatchInMemory
from biqa.stages.strategies import build_strategy, precision_of
from biqa.stages.together import everywhere, first, rank, world

OTHERS_WARNINGS = (
    "Metric `SpearmanCorrcoef` will save all targets",  # as it must: ranks need all values
    "The variance of predictions or target is close to zero",  # an untrained model gives every image one score; the metric says NaN
    "`isinstance\\(treespec, LeafSpec\\)` is deprecated",  # Lightning 2.6.6 against torch 2.13
    "It is recommended to use `self.log\\('val/[a-z]*', ..., sync_dist=True",  # every process has the scores of all, and so the same figure
    "The number of training batches .* is smaller than the logging interval",  # a short run on small data
    "`is_gradient_checkpointing` is deprecated",  # peft 0.21 against transformers 5.23
    "You're resuming from a checkpoint that ended before the epoch ended",  # the order of batches and the place in it are restored: data/module.py
    "The '.*_dataloader' does not have many workers",  # trainer.workers is the user's choice; prepared images are cached in memory
    "Image size \\(\\d+ pixels\\) exceeds limit",  # refused in words: data/images.py
)

OF_TRAINING = ("lr", "min_steps", "batch_size", "text_batch_size")
"""Options of a model that say how it learns and not what it is."""

OF_STEPS = ("lr", "projector_lr", "projector_start", "weight_decay", "warmup")
"""Options of tuning that say how learning begins and goes on and not what learns."""

ASKED = 8
"""Images, at most, whose prompts tell how much memory one takes."""

AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
"""Lightning's word for a precision -> the type that is computed in, where that is not the weights' own."""

WANDB_TIMEOUTS: dict[str, Any] = {"init_timeout": 10.0, "finish_timeout": 20.0}
"""Seconds that W&B waits for its server where a run begins and where it ends, in a thread of its own. What it could not send lies in `wandb/`."""

VALIDATIONS = 8
"""About so many a run, at most one an epoch: validation answers images, which costs more than a step."""


def build_model(composed: DictConfig, *, vision: bool, weights: RunFolder | None) -> VLM:
    """Backbone, the choice of weights that learn, and the weights of the run to start from.

    Args:
        composed: the whole config.
        vision: False builds the decoder alone.
        weights: finished run to start from; None: the base weights.

    Raises:
        IncompatibleChoice: the weights were learnt on another base, or with other questions, or do not fit.
    """
    vlm = make(composed.model, without=OF_TRAINING, vision=vision, seed=composed.seed, quantization=quantization_of(composed))
    if composed.tuning.kind == "lora" or composed.stage.epochs:
        adapt(vlm, **{name: value for name, value in plain(OmegaConf.to_container(composed.tuning, resolve=True)).items() if name not in OF_STEPS})
    if weights is not None:
        if composed.tuning.kind == "lora" and vlm.base.name is None:
            refuse_other_random_weights(weights, composed)
        refuse_other_questions(weights, vlm)
        load_weights(vlm, weights.path)
    if OmegaConf.select(composed, "trainer.checkpoint_activations"):  # absent in runs of releases that had no such option
        checkpoint_activations(vlm)
    return vlm


def quantization_of(composed: DictConfig) -> Quantization | None:
    """How the decoder is packed; None: not at all (nor in runs of releases that had no such option)."""
    options = composed.get("quantization")
    if options is None or options.kind == "none":
        return None
    return Quantization(kind=options.kind, double_quant=options.double_quant, compute_dtype=options.compute_dtype)


def build_stage_one(composed: DictConfig, stage_one: RunFolder) -> VLM:
    """The model of a finished stage 1 for a run that builds on it: with all that learnt there, projector and tower too, and packed as there.

    A stage 1 of no epochs has learnt nothing, and described with the weights of the run that it began with.
    """
    there = stage_one.read_config()
    began = there["stage"].get("init_from")
    started = None if began in (None, "base") else find_run(began, "stage.init_from")
    weights = stage_one if there["stage"]["epochs"] else started
    own = {"tuning": there["tuning"], "quantization": there.get("quantization")}
    return build_model(OmegaConf.create({**plain(OmegaConf.to_container(composed, resolve=True)), **own}), vision=True, weights=weights)


def merge(composed: DictConfig, folder: RunFolder, *, vision: bool) -> VLM:
    """Write `merged/` of a finished run: its base, loaded anew and not packed, with its adapter.

    Merging into packed weights would round every sum to four or eight bits.

    Returns:
        The model, of whose weights no use is left: it knows its prompts and its base.
    """
    values = plain(OmegaConf.to_container(composed, resolve=True))
    vlm = build_model(OmegaConf.create({**values, "quantization": None}), vision=vision, weights=folder)
    save_merged(vlm, folder.merged)
    return vlm


def refuse_other_random_weights(weights: RunFolder, composed: DictConfig) -> None:
    """An adapter says nothing without the weights that it was learnt on, and those of a model from random weights are drawn by the seed.

    Raises:
        IncompatibleChoice: the run has another model or seed.
    """
    there, here = weights.read_config(), plain(OmegaConf.to_container(composed, resolve=True))
    for config in (there, here):
        config["model"] = {name: value for name, value in config["model"].items() if name not in OF_TRAINING}
    if differences := different(there, here, ("model.", "seed")):
        raise IncompatibleChoice(
            f"{weights.path}: its adapter was learnt on other base weights:\n" + "\n".join(differences) + "\nUse the same options, or tuning=full."
        )


def weights_to_start_from(config: schema.Config, default: RunFolder | None) -> RunFolder | None:
    """`stage.init_from` as a run: a folder, "base" for none, or the stage's own default."""
    if config.stage.init_from is None:
        return default
    return None if config.stage.init_from == "base" else find_run(config.stage.init_from, "stage.init_from")


def training_length(composed: DictConfig, images: int, processes: int | None = None) -> tuple[int, int]:
    """Epochs and optimiser steps on so many training images: what the stage says, or more where the weights need it. Of those processes that there
    are, or of a number of them.
    """
    together = composed.stage.batch_size * (processes or world()) * composed.trainer.accumulate
    steps_an_epoch = -(-images // together) if images else 0
    epochs = composed.stage.epochs
    if epochs and steps_an_epoch * epochs < composed.model.min_steps:
        epochs = -(-composed.model.min_steps // steps_an_epoch)
    return epochs, epochs * steps_an_epoch


def build_stage(composed: DictConfig, stage: str, vlm: VLM, *, steps: int, repeats: int, **options: Any) -> StageModule:  # noqa: ANN401
    """A LightningModule around a model.

    Args:
        composed: the whole config.
        stage: its class, as a name.
        vlm: the model.
        steps: optimiser steps of the whole run.
        repeats: sampled answers an image.
        options: what this stage takes beyond the others.
    """
    tuning, sampling = composed.tuning, composed.sampling
    built = allowed(stage)(
        vlm,
        lr=tuning.lr, projector_lr=tuning.get("projector_lr"), weight_decay=tuning.weight_decay, warmup=tuning.warmup, total_steps=steps,
        repeats=repeats, temperature=sampling.temperature, top_p=sampling.top_p, max_new_tokens=sampling.max_new_tokens,
        seed=composed.seed, **options,
    )  # fmt: skip
    if sampling.get("compile"):
        built.steps = compiled_steps(composed, vlm)
    if built.looks_up:
        built.known = known_images(composed, vlm)
    return built


def compiled_steps(composed: DictConfig, vlm: VLM) -> CompiledSteps:
    """The model's step of decoding, compiled when it is first taken.

    Raises:
        IncompatibleChoice: its attention takes no mask.
    """
    if branches(vlm) == 1:
        raise IncompatibleChoice(
            "sampling.compile=true: the attention of this model takes no mask of its own, so its steps have no fixed shape. "
            "Choose model.attention=sdpa, or sampling.compile=false."
        )
    return CompiledSteps(vlm)


def known_images(composed: DictConfig, vlm: VLM) -> KnownImages | None:
    """Where features of images are looked up; None: nowhere.

    They are where nothing learns to see, in this run or in the stage 1 that describes images for it: what such a tower makes of an image serves no
    other run. DeepSpeed changes the type of weights on the way, so that learning and answering would see differently.
    """
    images = composed.images
    if not (vlm.vision and images.cache and images.get("features_gb")) or composed.strategy.kind.startswith("deepspeed"):
        return None
    if composed.stage.epochs and learns_to_see(vlm):
        return None
    return KnownImages(vlm, cache=Path(images.cache).expanduser(), most_gb=images.features_gb, precision=str(composed.trainer.precision))


def build_data(
    composed: DictConfig,
    stage: StageModule,
    *,
    train: Sequence[Item] = (),
    val: Sequence[Item] = (),
    predict: Sequence[Item] = (),
    weights: Sequence[float] | None = None,
    together: int | None = None,
) -> DataModule:
    """Batches for a stage; `weights`: how often an epoch shows each training item; `together`: items to answer at a time, None: as many as fit."""
    return DataModule(
        train=train, val=val, predict=predict, weights=weights, encode=stage.encode, pad_id=stage.vlm.pad_id,
        batch_size=composed.stage.batch_size, predict_batch_size=together or answered_at_a_time(composed, stage, predict),
        seed=composed.seed, workers=composed.trainer.workers, cache_mb=composed.trainer.cache_mb,
        pack=composed.trainer.pack and stage.vlm.packs, length=stage.described_length if composed.trainer.group_by_length else None,
        rank=rank(), world=world(),
    )  # fmt: skip


def answered_at_a_time(composed: DictConfig, stage: StageModule, items: Sequence[Item]) -> int:
    """Images answered at a time, the same in all processes: so many that their answers are as many as `sampling` asks for, or fill the memory.

    Raises:
        IncompatibleChoice: the memory that `sampling` gives does not hold one image.
    """
    sampling, queries = composed.sampling, stage.repeats + 1
    if not items:
        return 1
    if sampling.batch_size != "auto":
        return max(1, sampling.batch_size * (sampling.repeats + 1) // queries)
    kind = AUTOCAST.get(composed.trainer.precision, torch.float32)
    prompts = [stage.question(item) for item in items[:: -(-len(items) // ASKED)]]
    # texts are read, and nothing is written
    writes = {"queries": queries, "tokens": sampling.max_new_tokens} if stage.vlm.vision else {"queries": 1, "tokens": 0}
    return min(everywhere(lambda: images_at_a_time(stage.vlm, prompts, kind=kind, memory_gb=sampling.get("memory_gb"), **writes)))


def build_trainer(
    composed: DictConfig, folder: RunFolder, epochs: int = 0, *, logs: bool = True, instead: Sequence[L.Callback] | None = None
) -> L.Trainer:
    """Lightning's trainer with the project's checkpoints. With `logs` off, as for a stage 1 that only describes, it writes nothing by itself.

    Args:
        composed: the whole config.
        folder: of the run.
        epochs: to train.
        logs: whether curves are written.
        instead: callbacks in place of the training loss, the checkpoints and the progress bar; None: these.

    Raises:
        IncompatibleChoice: this machine has not what the options ask for, or they do not go together.
    """
    from lightning.fabric.plugins.environments.lightning import LightningEnvironment

    options = composed.trainer
    checkpoints = Checkpoints(folder.checkpoints, options.checkpoint_steps, requeue=(*signals(options.requeue_signal), *ending()))
    loss = TrainingLoss()
    own = [OnlyNumbers(folder.checkpoints), loss, checkpoints, *([Progress(loss)] if options.progress else [])]
    callbacks: list[L.Callback] = [BatchInMemory(), *(own if instead is None else instead)]
    settings: dict[str, Any] = dict(
        accelerator=options.accelerator, devices=options.devices, num_nodes=options.nodes,
        strategy=build_strategy(composed.strategy.kind), use_distributed_sampler=False, inference_mode=world() == 1,
        max_epochs=epochs, accumulate_grad_batches=options.accumulate, gradient_clip_val=options.clip,
        logger=build_logger(composed, folder) if logs else False, callbacks=callbacks,
        check_val_every_n_epoch=epochs_a_validation(epochs),
        enable_checkpointing=False, enable_progress_bar=options.progress, enable_model_summary=False,
        log_every_n_steps=10, num_sanity_val_steps=0, default_root_dir=folder.path,
    )  # fmt: skip
    settings |= precision_of(composed.strategy.kind, options.precision)
    settings["plugins"] += [AtomicCheckpointIO(), *([LightningEnvironment()] if STARTED_HERE in os.environ else [])]
    chosen = " ".join(f"trainer.{name}={options[name]}" for name in ("accelerator", "devices", "precision")) + f" strategy={composed.strategy.kind}"
    try:
        return L.Trainer(**settings)
    except (MisconfigurationException, ValueError, TypeError) as error:  # TypeError: trainer.devices=two
        usual = "trainer.accelerator=auto trainer.devices=1 strategy=auto"
        raise IncompatibleChoice(f"{chosen} will not do on this machine: {error} What goes on every machine: {usual}.") from error


def epochs_a_validation(epochs: int) -> int:
    """Epochs after which there is a validation."""
    return max(1, epochs // VALIDATIONS)


def quiet() -> None:
    """Silence what Lightning and its friends say of themselves; warnings about the run stay."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in OTHERS_WARNINGS:
        warnings.filterwarnings("ignore", message=message)


def build_logger(composed: DictConfig, folder: RunFolder) -> Any:  # noqa: ANN401 (any Lightning loggers)
    """The run's own curve, and beside it the logger that the config names, if that is another; W&B goes offline where its server does not answer."""
    if composed.logger is None:
        return False
    target = str(composed.logger._target_)
    if target.endswith(CurveLogger.__name__):
        return make(composed.logger, save_dir=str(folder.path), name="logs")
    own = CurveLogger(str(folder.path), "logs")
    if not target.endswith("WandbLogger"):
        return [own, Aside(make(composed.logger, save_dir=str(folder.path), name="logs"), target.rpartition(".")[2], str(own.file))]
    settings = WANDB_TIMEOUTS | plain(OmegaConf.to_container(composed.logger)).get("settings", {})
    wandb = make(composed.logger, save_dir=str(folder.path), name=composed.name, offline=not (first() and wandb_reachable()), settings=settings)
    return [own, Aside(wandb, "W&B", str(own.file))]


def wandb_reachable(timeout: float = 4.0) -> bool:
    """Whether W&B can log online: not told otherwise, a key, and a server that answers within `timeout` seconds.

    Decided before the run starts: falling back after a failed start does not work in W&B, and waiting for one takes minutes. A server that takes a
    call and says nothing is none.
    """
    if os.environ.get("WANDB_MODE", "online") != "online":
        return False
    address = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")
    server = urlsplit(address if "//" in address else f"https://{address}")
    host = server.hostname or ""
    if server.scheme not in ("http", "https"):
        return False
    key_files = [file for name in (".netrc", "_netrc") if (file := Path.home() / name).is_file()]
    if "WANDB_API_KEY" not in os.environ and not any(host in file.read_text() for file in key_files):
        return False
    alive = threading.Event()
    asking = threading.Thread(target=_ask, args=(f"{server.geturl().rstrip('/')}/healthz", timeout, alive), daemon=True)
    asking.start()
    asking.join(timeout)  # the timeout of a connection counts from its last byte
    return alive.is_set()


def _ask(address: str, timeout: float, alive: threading.Event) -> None:
    """Set `alive` where a server answers, be it that it knows no such page."""
    try:
        with suppress(HTTPError):
            urlopen(address, timeout=timeout).close()
        alive.set()
    except ssl.SSLError:
        alive.set()  # it speaks; W&B has certificates of its own
    except (OSError, HTTPException, ValueError) as error:
        if isinstance(getattr(error, "reason", None), ssl.SSLError):
            alive.set()
