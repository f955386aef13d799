"""Checkpoints of mPLUG-Owl2 from a local folder, the original's and those written today: no code of theirs is ever run.

A folder holds config.json and weights by the names of `model.safetensors(.index.json)` or `pytorch_model.bin(.index.json)`. Every name and shape
is compared before anything is loaded.
"""

import json
import re
from collections.abc import Collection
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import is_zipfile

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import GenerationConfig

from biqa.errors import IncompatibleChoice, RunNotFound
from biqa.models.families import OWL2
from biqa.models.owl2.configuration import Owl2Config
from biqa.models.owl2.modeling import Owl2ForCausalLM, Owl2ForConditionalGeneration
from biqa.models.quantization import Quantization, packing_options, stay_trainable

WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
"""Files that hold or list the weights, the first that is there counts: transformers' own order."""


def load_owl2(
    folder: Path, *, dtype: torch.dtype, attention: str = "sdpa", vision: bool = True, quantization: Quantization | None = None
) -> Owl2ForConditionalGeneration | Owl2ForCausalLM:
    """The model of a checkpoint, in evaluation mode.

    The checkpoint's own settings for generation are left behind: those of old ones contradict themselves, and could not be saved again.

    Args:
        folder: where config.json and the weights are.
        dtype: of the weights, whatever the checkpoint has; quantized ones have their own.
        attention: attention implementation of transformers ("sdpa", "eager", "flash_attention_2").
        vision: False: the decoder alone, of a whole checkpoint or of one that holds no more.
        quantization: of the decoder's linear layers; None: as they are.

    Raises:
        RunNotFound: files are missing, damaged, or hold more than tensors.
        IncompatibleChoice: the folder holds another kind of model, or its weights do not fit its config.
    """
    config = read_config(folder)
    kind = Owl2ForConditionalGeneration if vision else Owl2ForCausalLM
    require_weights(folder, kind, config)
    options = packing_options(quantization, OWL2, dtype)
    model = kind.from_pretrained(folder, config=config, dtype=dtype, attn_implementation=attention, trust_remote_code=False, **options)
    stay_trainable(model)
    model.generation_config = GenerationConfig.from_model_config(model.config)
    return model


def read_config(folder: Path) -> Owl2Config:
    """The config of a checkpoint.

    Raises:
        RunNotFound: there is none, or it is no JSON.
        IncompatibleChoice: it is that of another kind of model.
    """
    file = folder / "config.json"
    if not file.is_file():
        raise RunNotFound(f"{file}: not there. Name the folder of an mPLUG-Owl2 checkpoint.")
    values = _read_json(file)
    if (found := values.get("model_type")) != Owl2Config.model_type:
        raise IncompatibleChoice(f"{file}: a model of type {found}, not {Owl2Config.model_type}. Choose the model= that fits.")
    return Owl2Config.from_dict(values)


def _read_json(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text())
    except ValueError as error:
        raise RunNotFound(f"{file}: no JSON ({error}). Download the checkpoint again.") from error


def weight_files(folder: Path) -> list[Path]:
    """The files of a checkpoint's weights.

    Raises:
        RunNotFound: there are none, or some are missing.
    """
    listed = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if listed is None:
        raise RunNotFound(f"{folder}: no weights there; looked for {', '.join(WEIGHTS)}. Download the checkpoint again.")
    if listed.suffix != ".json":
        return [listed]
    files = [folder / name for name in sorted(set(_read_json(listed)["weight_map"].values()))]
    if missing := [file.name for file in files if not file.is_file()]:
        raise RunNotFound(
            f"{folder}: {len(missing)} of {len(files)} files that {listed.name} names are not there, first {missing[0]}. "
            f"Download the checkpoint again."
        )
    return files


def shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor in a file of weights, without reading the tensors.

    Raises:
        RunNotFound: the file is damaged, or holds more than tensors.
    """
    try:
        if file.suffix == ".safetensors":
            with safe_open(file, framework="pt") as opened:
                return {key: tuple(opened.get_slice(key).get_shape()) for key in opened.keys()}  # noqa: SIM118 (no mapping)
        # files of before torch 1.6 are no archives and cannot be mapped into memory
        held = torch.load(file, map_location="cpu", weights_only=True, mmap=is_zipfile(file))
    except UnpicklingError as error:
        raise RunNotFound(
            f"{file}: refused. It is cut short, or holds Python objects, which could run code, beside its tensors. "
            f"Download it again, or a copy in safetensors format."
        ) from error
    except (SafetensorError, RuntimeError, EOFError, OSError) as error:
        raise RunNotFound(f"{file}: damaged ({error}). Download it again.") from error
    if not all(isinstance(value, Tensor) for value in held.values()):
        raise RunNotFound(f"{file}: no plain table of tensors, but {', '.join(map(str, list(held)[:3]))}. Save the model's state_dict alone.")
    return {key: tuple(value.shape) for key, value in held.items()}


def require_weights(folder: Path, kind: type[Owl2ForConditionalGeneration | Owl2ForCausalLM], config: Owl2Config) -> None:
    """Stop unless the checkpoint holds exactly what the model needs, apart from what is computed or of the other parts.

    Raises:
        RunNotFound: files are missing, damaged, or hold more than tensors.
        IncompatibleChoice: weights are missing, misshaped or unknown, or the config has no vision and `kind` needs it.
    """
    with torch.device("meta"):
        wanted = {key: tuple(value.shape) for key, value in kind(config).state_dict().items()}
    held = {key: shape for file in weight_files(folder) for key, shape in shapes(file).items()}
    wrong = {
        "missing": [key for key in wanted if key not in held and not _any(kind._keys_to_ignore_on_load_missing, key)],
        "misshaped": [f"{key} {held[key]} for {wanted[key]}" for key in wanted if key in held and held[key] != wanted[key]],
        "unknown": [key for key in held if key not in wanted and not _any(kind._keys_to_ignore_on_load_unexpected, key)],
    }
    if any(wrong.values()):
        told = "; ".join(f"{len(keys)} {what}, first {', '.join(keys[:3])}" for what, keys in wrong.items() if keys)
        raise IncompatibleChoice(f"{folder}: its weights do not fit its config.json: {told}. Download the checkpoint again, or mend config.json.")


def _any(patterns: Collection[str] | None, key: str) -> bool:
    return any(re.search(pattern, key) for pattern in patterns or ())
