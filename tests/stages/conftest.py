"""What the stage tests share: items with pictures on disk, stages around a small model, batches, and Lightning's part in a few lines."""

from collections.abc import Callable, Sequence

import lightning as L
import pytest

from biqa.data.collate import Batch, collate
from biqa.data.module import DataModule, Item
from biqa.data.record import Record
from biqa.running.building import quiet
from biqa.stages.base import StageModule
from biqa.stages.inference import Inference
from biqa.stages.joint import Joint
from biqa.stages.perception import Perception

STAGES = {"perception": Perception, "inference": Inference, "joint": Joint}
OPTIONS = {
    "lr": 1e-3, "weight_decay": 0.05, "warmup": 0.0, "total_steps": 10,
    "repeats": 3, "temperature": 1.0, "top_p": 1.0, "max_new_tokens": 12, "seed": 0,
}  # fmt: skip
TEXTS = (
    "The image is sharp.",
    "There is strong noise, the colours are pale and the edges are blurred.",
    "Block edges show.",
    "The picture is dark, with heavy noise.",
)
QUALITIES = ((0.93, 0.05), (0.31, None), (0.5, 0.2), (0.07, 0.1))
"""(q, q_std) of the items in turn: both ends, the middle, with and without a deviation."""


@pytest.fixture
def items(tmp_path, picture) -> Callable[..., list[Item]]:
    """Builder of items with a picture on disk each; texts differ in length, and so do sizes and brightness of the pictures."""

    def make(count: int = 3, *, names: Sequence[str] = (), descriptions: int = 1, on_disk: bool = True) -> list[Item]:
        made = []
        for i in range(count):
            name = names[i] if names else f"image{i}.png"
            path = tmp_path / f"{i}.png"
            if on_disk:
                picture(i, size=64 + 16 * i).point(lambda value, shade=1 - 0.2 * (i % 4): value * shade).save(path)
            q, q_std = QUALITIES[i % 4]
            record = Record(image=name, path=path, q=q, q_std=q_std, split="train", group=name, score=q)
            made.append(Item(record, tuple(TEXTS[(i + k) % 4] for k in range(descriptions))))
        return made

    return make


@pytest.fixture
def stage(tiny) -> Callable[..., StageModule]:
    """Builder of a stage around a small model in evaluation mode; keyword arguments replace its options."""

    def build(name: str, *, vision: bool | None = None, model_seed: int = 0, **options: object) -> StageModule:
        quiet()
        vlm = tiny(vision=name != "inference" if vision is None else vision, seed=model_seed)
        verdict = {} if name == "perception" else {"target": "soft", "level_weight": 1.0}
        return STAGES[name](vlm, **(OPTIONS | verdict | options)).eval()

    return build


@pytest.fixture
def batch_of() -> Callable[[StageModule, Sequence[Item]], Batch]:
    """The training batch that a stage makes of items."""

    def make(stage: StageModule, items: Sequence[Item]) -> Batch:
        return collate([stage.encode(item) for item in items], stage.vlm.pad_id)

    return make


@pytest.fixture
def data_of() -> Callable[..., DataModule]:
    """Loaders of a stage: the same items to learn, to validate on and to answer."""

    def make(stage: StageModule, train: Sequence[Item], predict: Sequence[Item] | None = None) -> DataModule:
        return DataModule(
            train=train, val=train, predict=train if predict is None else predict, encode=stage.encode, pad_id=stage.vlm.pad_id,
            batch_size=2, predict_batch_size=2, seed=0, workers=0, cache_mb=1,
        )  # fmt: skip

    return make


@pytest.fixture
def trainer(tmp_path) -> Callable[..., L.Trainer]:
    """Builder of a Lightning trainer for one epoch that writes nothing."""

    def build(**options: object) -> L.Trainer:
        return L.Trainer(
            accelerator="cpu", devices=1, max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, num_sanity_val_steps=0, default_root_dir=tmp_path, **options,
        )  # fmt: skip

    return build


@pytest.fixture
def learn_by_heart(batch_of) -> Callable[..., None]:
    """Train a stage on the same few items until it knows them: plain full-batch steps with the stage's own optimiser and schedule."""

    def learn(stage: StageModule, items: Sequence[Item], steps: int = 120) -> None:
        stage.lr, stage.warmup, stage.total_steps = 5e-3, 0.1, steps
        configured = stage.configure_optimizers()
        optimizer, schedule = configured["optimizer"], configured["lr_scheduler"]["scheduler"]
        batch = batch_of(stage, items)
        for _ in range(steps):
            optimizer.zero_grad()
            stage.loss(batch)[0].backward()
            optimizer.step()
            schedule.step()

    return learn
