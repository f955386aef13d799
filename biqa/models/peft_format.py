"""Adapters on disk, in PEFT's format: what was written loads with torch, transformers and peft alone.

An adapter always has the names of the whole model, also one that was learnt on the decoder alone: it loads onto the checkpoint as it is published,
and one backbone in memory serves several adapters. Beside it, `base.json` says on which weights it was learnt.
"""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from biqa.config.reading import read_json
from biqa.errors import IncompatibleChoice, RunNotFound
from biqa.models.base import refuse_other_base, write_base
from biqa.models.vlm import PEFT_PREFIX, VLM

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"


def is_adapted(vlm: VLM) -> bool:
    """Whether the backbone has LoRA on it."""
    return hasattr(vlm.backbone, "peft_config")


def write_adapter(vlm: VLM, folder: Path, state_dict: dict[str, Tensor] | None = None) -> None:
    """Write an adapter into a new folder.

    Args:
        vlm: the model that has learnt.
        folder: where to.
        state_dict: the weights that learn, where the model holds only a share of them.
    """
    backbone: Any = vlm.backbone
    config = backbone.peft_config["default"]
    config.base_model_name_or_path, config.revision = vlm.base.name, vlm.base.revision
    # PEFT would ask the hub whether the vocabulary of the base has grown
    backbone.save_pretrained(folder, save_embedding_layers=False, **({} if state_dict is None else {"state_dict": state_dict}))
    if not vlm.vision:
        _name_as_whole(vlm, folder)
    write_base(vlm.base, folder)


def _name_as_whole(vlm: VLM, folder: Path) -> None:
    """Give an adapter of the decoder alone the names of the whole model."""
    state = load_file(folder / WEIGHTS)
    save_file({PEFT_PREFIX + vlm.whole_name(name): value for name, value in state.items()}, folder / WEIGHTS, metadata={"format": "pt"})
    backbone: Any = vlm.backbone
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    config["target_modules"] = sorted(vlm.whole_name(name) for name in backbone.targeted_module_names)
    (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def read_adapter(vlm: VLM, state: dict[str, Tensor], folder: Path) -> None:
    """Read an adapter into a model that has a place for one. A decoder alone takes its own part of what a whole model has learnt.

    Places that the adapter does not fill stay as they are: they change nothing until they learn.

    Args:
        vlm: after `biqa.models.adapters.adapt`.
        state: the adapter's weights.
        folder: where they were read, for messages and for what else lies there.

    Raises:
        IncompatibleChoice: it was learnt on another base, with another rank or alpha, or where this model learns nothing.
    """
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    refuse_other_base(vlm.base, folder)
    _refuse_other_scale(vlm, folder)
    if not vlm.vision:
        state = {name: value for name, value in state.items() if vlm.family.part(name.removeprefix(PEFT_PREFIX)) == "decoder"}
        state = {_text_name(vlm, name): value for name, value in state.items() if not _for_images(vlm, name)}
    wanted = get_peft_model_state_dict(vlm.backbone, save_embedding_layers=False)
    if unknown := [name for name in state if name not in wanted]:
        raise IncompatibleChoice(
            f"{folder}: {len(unknown)} of its weights have no place in this model, first {unknown[0]}. {_remedy(vlm, unknown, folder)}"
        )
    if wrong := [name for name, value in state.items() if value.shape != wanted[name].shape]:
        sizes = f"{tuple(state[wrong[0]].shape)} there, {tuple(wanted[wrong[0]].shape)} here"
        raise IncompatibleChoice(
            f"{folder}: {len(wrong)} of its weights have another shape, first {wrong[0]}: {sizes}. It was learnt on another model."
        )
    set_peft_model_state_dict(vlm.backbone, {**wanted, **state})


def read_adapter_config(folder: Path) -> dict[str, Any]:
    """What adapter_config.json says of rank and alpha. Nothing else of it counts: neither its base, nor the classes that it names.

    Raises:
        RunNotFound: it is not there, or damaged.
    """
    file = folder / CONFIG
    try:
        found = read_json(file)
    except (ValueError, OSError) as error:
        raise RunNotFound(f"{file}: damaged ({error}). Run that run again with overwrite=true.") from error
    if not isinstance(found, dict) or not {"r", "lora_alpha"} <= found.keys():
        raise RunNotFound(f"{file}: says nothing of r and lora_alpha. Run that run again with overwrite=true.")
    return found


def _for_images(vlm: VLM, name: str) -> bool:
    return vlm.family.text_key(name.removeprefix(PEFT_PREFIX)) is None and vlm.family.text_key(vlm.whole_name(name)) is None


def _text_name(vlm: VLM, name: str) -> str:
    """Name in the decoder alone; adapters of older releases have it already."""
    found = vlm.family.text_key(name.removeprefix(PEFT_PREFIX))
    return name if found is None else PEFT_PREFIX + found


def _refuse_other_scale(vlm: VLM, folder: Path) -> None:
    backbone: Any = vlm.backbone
    there, here = read_adapter_config(folder), backbone.peft_config["default"]
    differ = [(option, name) for option, name in (("rank", "r"), ("alpha", "lora_alpha")) if there[name] != getattr(here, name)]
    if differ:
        learnt, chosen = (" ".join(f"tuning.{option}={of(name)}" for option, name in differ) for of in (there.get, lambda name: getattr(here, name)))
        raise IncompatibleChoice(f"{folder}: this adapter was learnt with {learnt}, and this run has {chosen}. Choose {learnt}.")


def _remedy(vlm: VLM, unknown: list[str], folder: Path) -> str:
    parts = {vlm.part_of(name) for name in unknown}
    options = [f"tuning.{part}=true" for part in ("projector", "tower") if part in parts]
    if "decoder" in parts:
        options.append(f"the tuning.targets of that run ({read_adapter_config(folder).get('target_modules')})")
    return f"They have learnt and must not be lost: choose {' and '.join(options)}."
