"""Answers by vLLM: from config to an engine that is started when there is something to ask, held against the run's own model, and stopped at the end.

Before it answers, it reads some questions that the run's own model has read. An adapter without effect, a picture made into other tokens or positions
counted otherwise would pass unseen without that, and every figure would be of another model.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

import lightning as L
import torch
from omegaconf import DictConfig

from biqa.data.module import Item
from biqa.errors import IncompatibleChoice
from biqa.language.prompts import STEM
from biqa.models.sampling import level_probabilities
from biqa.models.served import Weights, is_carried, refuse_uncarried, refuse_unserved, refuse_without_vllm, vllm_version, weights_of
from biqa.models.vllm_engine import AT_A_TIME, VllmEngine, let_go
from biqa.models.vlm import VLM
from biqa.running.building import merge
from biqa.runs import RunFolder
from biqa.stages.base import StageModule
from biqa.stages.together import world

COMPARED = 4
"""Questions that both are asked."""
NEAR = 0.1
"""Total variation, half the sum of absolute differences, by which their level distributions may differ. Rounding to bfloat16 moves a distribution by
about a hundredth; in another model it is an accident if they come so near."""
GO_ON = "Choose answers=own (or answers.dtype=float32, to see whether it is rounding): with ckpt=last and its name= the run goes on."


def by_vllm(composed: DictConfig) -> bool:
    """Whether vLLM answers (runs of releases that had no such option answer by themselves)."""
    return composed.get("answers") is not None and composed.answers.engine == "vllm"


def refuse_no_engine(composed: DictConfig) -> None:
    """Check before a model is read that vLLM is there.

    Raises:
        IncompatibleChoice: it is not, or cannot be used in a run like this.
    """
    if by_vllm(composed):
        if world() > 1:
            raise IncompatibleChoice(f"answers=vllm in a run of {world()} processes: vLLM starts its own. Choose trainer.devices=1, or answers=own.")
        refuse_without_vllm()


def refuse_no_service(composed: DictConfig, vlm: VLM, *builds_on: RunFolder | None) -> None:
    """Check before anything is learnt that vLLM can be given the model.

    Args:
        composed: the whole config.
        vlm: the model.
        builds_on: finished runs whose weights are to answer too.

    Raises:
        IncompatibleChoice: it cannot.
    """
    if by_vllm(composed):
        refuse_unserved(vlm)
        for folder in builds_on:
            if folder is not None:
                refuse_packed(folder)
                refuse_uncarried(folder.path, vlm.family)


def refuse_packed(folder: RunFolder) -> None:
    """Check that a run has learnt on weights that were not packed."""
    kind = (folder.read_config().get("quantization") or {}).get("kind", "none")
    if kind != "none":
        raise IncompatibleChoice(
            f"answers=vllm: {folder.path} has learnt with quantization={kind}: vLLM would pack the weights in a way of its own. "
            f"Choose a run without, or answers=own."
        )


class Serving:
    """What answers in a run. With `answers=own` that is the run's model, and nothing happens here.

    Args:
        composed: the whole config.
        learnt: the run whose weights answer; None: the base weights.
    """

    def __init__(self, composed: DictConfig, learnt: RunFolder | None) -> None:
        self.composed = composed
        self.learnt = learnt
        self.engine: VllmEngine | None = None

    def __enter__(self) -> "Serving":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.engine is not None:
            self.engine.close()

    def model(self, build: Callable[[], VLM]) -> VLM:
        """A model to ask: a new one, or what is left of the one that the engine stands for."""
        return build() if self.engine is None else self.engine.vlm

    def take_over(self, stage: StageModule, trainer: L.Trainer, items: Sequence[Item]) -> int | None:
        """Let vLLM answer for a stage from now on. The weights of the stage's model are given up.

        Returns:
            Items to ask about at a time; None: as `sampling` says.

        Raises:
            IncompatibleChoice: vLLM does not take the model, or does not say what the model says.
            MachineLimit: it does not come up.
        """
        if not by_vllm(self.composed):
            return None
        if self.engine is None:
            self.engine = self._started(stage, trainer, items[:: -(-len(items) // COMPARED)])
        stage.engine, stage.known = self.engine, None
        return AT_A_TIME if self.composed.sampling.batch_size == "auto" else None

    def _started(self, stage: StageModule, trainer: L.Trainer, some: Sequence[Item]) -> VllmEngine:
        vlm, options = stage.vlm, self.composed.answers
        stem = vlm.opening(STEM)
        asked = [stage.question(item) for item in some]
        vlm.to(trainer.strategy.root_device).eval()
        with torch.inference_mode(), trainer.precision_plugin.forward_context():
            own = torch.cat([level_probabilities(vlm, [prompt], stem) for prompt in asked]).float().cpu()
        let_go(vlm)
        engine = VllmEngine(
            vlm, self._weights(vlm), Path(self.composed.runs) / self.composed.name / "served.tmp", dtype=options.dtype or self.composed.model.dtype,
            gpu_memory_utilization=options.gpu_memory_utilization, max_model_len=options.max_model_len, tensor_parallel=options.tensor_parallel,
        )  # fmt: skip
        try:
            stage.engine = engine
            read, found = engine.read([stage.question(item) for item in some], stem)
            _refuse_other(read, [(*prompt.ids, *stem) for prompt in asked], found, own)
        except BaseException:
            stage.engine = None
            engine.close()
            raise
        return engine

    def _weights(self, vlm: VLM) -> Weights:
        if self.learnt is not None and not is_carried(self.learnt.path, vlm.family):  # with export.merge=true, or it would have been refused
            merge(self.composed, self.learnt, vision=vlm.vision)
        return weights_of(vlm, None if self.learnt is None else self.learnt.path)


def _refuse_other(read: Sequence[tuple[int, ...]], ours: Sequence[tuple[int, ...]], found: torch.Tensor, own: torch.Tensor) -> None:
    """Check that vLLM has read the same tokens and says about the same."""
    other = [place for place, (one, another) in enumerate(zip(read, ours, strict=True)) if one != another]
    if other:
        lengths = f"{len(ours[other[0]])} tokens here, {len(read[other[0]])} there"
        raise IncompatibleChoice(
            f"answers=vllm: vLLM {vllm_version()} reads another prompt than the run's own model ({lengths}, {len(other)} of {len(read)} questions): "
            f"it makes other tokens of an image. {GO_ON}"
        )
    far = float((found - own).abs().sum(-1).max() / 2)
    if not far <= NEAR:
        raise IncompatibleChoice(
            f"answers=vllm: vLLM {vllm_version()} gives levels that are {far:.2f} (total variation) away from those of the run's own model, "
            f"where rounding explains {NEAR:g}: it computes another model. {GO_ON}"
        )
    print(f"vLLM {vllm_version()} answers. To {len(read)} questions it gives levels within {far:.4f} (total variation) of the run's own model.")
