"""How several processes hold one model while it learns: Lightning's strategies, arranged for biqa's checkpoints.

With `ddp` and `fsdp` a checkpoint has the form that a single process writes: whole weights that learn, by name, and the optimiser's plain state.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.plugins import DeepSpeedPrecision
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, ModelParallelStrategy, Strategy
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.optim import Optimizer

from biqa.data.collate import Batch
from biqa.models.sharding import divided_like, load_whole, whole, whole_weights
from biqa.stages.together import first, wait_for_all, world


class Replicated(DDPStrategy):
    """`strategy=ddp`: each process has the whole model; gradients are averaged."""

    def configure_ddp(self) -> None:
        """Look for weights that get no gradient where the tower learns: in many families its last blocks have no part in the features."""
        stage: Any = self.lightning_module
        vlm = stage.vlm
        self._ddp_kwargs["find_unused_parameters"] = any(
            weight.requires_grad and vlm.family.part(name.split("base_model.model.")[-1]) == "tower"
            for name, weight in vlm.backbone.named_parameters()
        )
        super().configure_ddp()

    def barrier(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 (Lightning's method)
        """Where Lightning has all wait, one of them may be writing a checkpoint."""
        wait_for_all()


class Sharded(ModelParallelStrategy):
    """`strategy=fsdp`: every weight, gradient and optimiser state is divided among all processes (FSDP2, see `biqa.models.sharding`).

    Lightning's strategy for FSDP2, but that checkpoints hold only what learns and know nothing of how it was divided.
    """

    def __init__(self) -> None:
        super().__init__(data_parallel_size=world(), tensor_parallel_size=1, save_distributed_checkpoint=False)

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Lightning hands the optimiser's state over."""
        return True

    def barrier(self, name: str | None = None) -> None:
        """Where Lightning has all wait, one of them may be writing a checkpoint."""
        wait_for_all()

    def _named(self) -> list[tuple[str, Tensor]]:
        assert self.lightning_module is not None
        return [(name, weight) for name, weight in self.lightning_module.named_parameters() if weight.requires_grad]

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """The weights that learn, whole, in the first process; nothing in the others, which help."""
        return whole_weights(self._named(), keep=first())

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """The optimiser's state as a single process has it; each process gets it."""
        state = optimizer.state_dict()
        return {**state, "state": {place: {name: whole(value) for name, value in of.items()} for place, of in state["state"].items()}}

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:  # noqa: ANN401 (Lightning's)
        """Read the whole checkpoint, as any strategy does."""
        return self.checkpoint_io.load_checkpoint(Path(checkpoint_path), weights_only=weights_only)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Divide the weights of a checkpoint."""
        load_whole(self._named(), checkpoint["state_dict"])

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Divide the optimiser's state of a checkpoint, each value as its weight."""
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            weights = [weight for group in optimizer.param_groups for weight in group["params"]]
            divided = {
                place: {name: divided_like(value, weights[place]) if isinstance(value, Tensor) else value for name, value in of.items()}
                for place, of in state["state"].items()
            }
            optimizer.load_state_dict({**state, "state": divided})


class Zero(DeepSpeedStrategy):
    """`strategy=deepspeed_zero2` and `deepspeed_zero3`: DeepSpeed divides gradients and optimiser states, and in stage 3 the weights.

    Its checkpoints are folders in its own format, with what learns; the file `latest` in one is written last.

    Args:
        stage: 2 or 3.
    """

    def __init__(self, stage: int) -> None:
        super().__init__(stage=stage, exclude_frozen_parameters=True, logging_batch_size_per_gpu=1)

        self.divided = False

    def setup(self, trainer: L.Trainer) -> None:
        """Build DeepSpeed's engine: to learn, and where nothing was learnt to divide the weights. A second one on the same model would break it."""
        stage: Any = self.lightning_module
        stage.vlm.sharded = self.zero_stage_3
        if trainer.state.fn == TrainerFn.FITTING or (self.zero_stage_3 and not self.divided):
            super().setup(trainer)
            self.divided = True
            return
        assert self.accelerator is not None
        self.accelerator.setup(trainer)
        self.model_to_device()
        self.setup_precision_plugin()
        self.barrier()


class ZeroPrecision(DeepSpeedPrecision):
    """DeepSpeed turns the weights themselves into bfloat16 or float16, so images follow; Lightning would change the examples behind a batch too."""

    def convert_input(self, data: Any) -> Any:  # noqa: ANN401 (Lightning's)
        """Images of a batch to learn from; items to answer stay, their towers convert what they get."""
        if not isinstance(data, Batch):
            return data
        image = {name: value.to(self._desired_dtype) if value.is_floating_point() else value for name, value in data.image.items()}
        return replace(data, image=image)


def build_strategy(kind: str) -> Strategy | str:
    """Lightning's strategy for `strategy=<kind>` with the processes that there are."""
    if kind.startswith("deepspeed"):
        return Zero(stage=int(kind[-1]))
    if world() == 1:
        return "auto"
    return Sharded() if kind == "fsdp" else Replicated()


def precision_of(kind: str, precision: Any) -> dict[str, Any]:  # noqa: ANN401 (Lightning's word)
    """Lightning's settings for a precision: DeepSpeed has a plugin for it."""
    return {"plugins": [ZeroPrecision(precision)]} if kind.startswith("deepspeed") else {"precision": precision, "plugins": []}
