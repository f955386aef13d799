"""Any image-text-to-text checkpoint of a known family through transformers' own classes: `model=llava`, `smolvlm`, `qwen2_5_vl`, ..., `model=hf`."""

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, GenerationConfig
from transformers.utils.logging import disable_progress_bar

from biqa.errors import IncompatibleChoice, RunNotFound
from biqa.models.base import Base
from biqa.models.families import FAMILIES, Family
from biqa.models.hub import checkpoint_folder
from biqa.models.processing import Processor
from biqa.models.quantization import Quantization, packing_options, stay_trainable
from biqa.models.vlm import VLM


def build_hf(
    *,
    id: str | None,
    revision: str | None,
    family: str | None,
    dtype: str,
    attention: str,
    visual_tokens: int | None,
    image: Mapping[str, Any] | None,
    vision: bool,
    seed: int,
    quantization: Quantization | None = None,
) -> VLM:
    """The model of a checkpoint and its processor.

    Args:
        id: folder of the checkpoint, or its name on the hub.
        revision: branch, tag or commit on the hub; None: the newest.
        family: what the checkpoint must be of, a key of `FAMILIES`; None: any of them.
        dtype: of the weights that do not learn, torch's name.
        attention: attention implementation of transformers.
        visual_tokens: at most so many an image; None: as the checkpoint has it.
        image: settings of the image processor that replace the checkpoint's; None: no such.
        vision: False builds the decoder alone; tower and projector are not read.
        seed: unused: nothing here is random.
        quantization: of the decoder's linear layers; None: as they are.

    Raises:
        RunNotFound: no checkpoint there, or a damaged one.
        IncompatibleChoice: none is named, it is of another family, its weights do not fit its config, or an option does not fit it.
    """
    if id is None:
        raise IncompatibleChoice("this model needs a checkpoint: model.id=FOLDER, or its name on the hub such as HuggingFaceTB/SmolVLM-Instruct.")
    folder = checkpoint_folder(id, "model.id", revision=revision)
    found = family_of(folder, family)
    config = _config(folder)
    processor = Processor(folder, config.image_token_id)
    fewer = {} if visual_tokens is None or found.fewer is None else found.fewer(config, processor.image_processor, visual_tokens)
    processor.set_image_options({**fewer, **(image or {})})
    found.placeholder(config, processor.tried({**dict(found.image_options), **processor.image_options}), "")  # what is unknown ends here, not later
    backbone = load(folder, found, config, dtype=getattr(torch, dtype), attention=attention, vision=vision, quantization=quantization)
    return VLM(backbone, processor, found, vision=vision, base=Base.of(id, folder))


def family_of(folder: Path, wanted: str | None) -> Family:
    """The family of a checkpoint, by the `model_type` of its config.json.

    Raises:
        RunNotFound: there is no config.json, or it is no JSON.
        IncompatibleChoice: the family is unknown, or another one than was asked for.
    """
    file = folder / "config.json"
    if not file.is_file():
        raise RunNotFound(f"{file}: not there. Name the folder of a checkpoint.")
    try:
        kind = json.loads(file.read_text()).get("model_type")
    except (ValueError, AttributeError) as error:  # AttributeError: a list
        raise RunNotFound(f"{file}: no JSON object ({error}). Download the checkpoint again.") from error
    if kind == "mplug_owl2":
        raise IncompatibleChoice(f"{file}: a model of type {kind}. Choose model=owl2 model.path={folder}.")
    if kind not in FAMILIES:
        raise IncompatibleChoice(f"{file}: a model of type {kind}, which is none of {', '.join(FAMILIES)}. Choose a checkpoint of one of these.")
    if wanted not in (None, kind):
        raise IncompatibleChoice(
            f"{file}: a model of type {kind}, not {wanted}. Choose model={kind} (or model=hf, which takes any), with the same model.id."
        )
    return FAMILIES[kind]


def _config(folder: Path) -> Any:  # noqa: ANN401 (each family has a class of its own)
    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (StrictDataclassError, ValueError, TypeError, KeyError, AttributeError) as error:
        told = " ".join(str(error).split())
        raise RunNotFound(f"{folder / 'config.json'}: transformers cannot read it: {told}. Download the checkpoint again.") from error


def load(
    folder: Path,
    family: Family,
    config: Any,  # noqa: ANN401 (each family has a class of its own)
    *,
    dtype: torch.dtype,
    attention: str,
    vision: bool,
    quantization: Quantization | None = None,
) -> Any:  # noqa: ANN401
    """The model of a checkpoint in training mode, as models made from a config are: what transformers loads comes in the other one.

    Raises:
        RunNotFound: the weights are missing or damaged.
        IncompatibleChoice: they do not fit config.json; the message names the first that do not.
    """
    kind: Any = AutoModelForImageTextToText if vision else AutoModelForCausalLM
    options = packing_options(quantization, family, dtype)
    if not vision:
        config = family.text_config(config)
        options["key_mapping"] = family.renamed()
    try:
        with _silent():
            model, report = kind.from_pretrained(
                folder, config=config, dtype=dtype, attn_implementation=attention, trust_remote_code=False, use_safetensors=True,
                output_loading_info=True, ignore_mismatched_sizes=True, **options,
            )  # fmt: skip
    except (OSError, SafetensorError) as error:
        raise RunNotFound(f"{folder}: its weights cannot be read: {str(error).splitlines()[0]}. Download the checkpoint again.") from error
    except (ImportError, ValueError) as error:
        raise IncompatibleChoice(f"{folder}: transformers refuses it: {str(error).splitlines()[0]}") from error
    unknown = [key for key in report["unexpected_keys"] if vision or family.text_key(key) is not None]
    if wrong := [*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"]), *unknown]:
        raise IncompatibleChoice(
            f"{folder}: {len(wrong)} weights are missing, misshaped or unknown, first {', '.join(wrong[:3])}. "
            f"Download the checkpoint again, or mend config.json."
        )
    stay_trainable(model)
    model.generation_config = GenerationConfig.from_model_config(model.config)
    return model.train()


@contextmanager
def _silent() -> Iterator[None]:
    """transformers tells at length of weights that are not needed (a decoder alone leaves the tower's): `load` tells of those that matter."""
    log = logging.getLogger("transformers")
    level = log.level
    log.setLevel(logging.ERROR)
    disable_progress_bar()
    try:
        yield
    finally:
        log.setLevel(level)
