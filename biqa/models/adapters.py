"""Which weights learn, and how weights are written and read back: safetensors only, in formats that transformers and PEFT load without biqa."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers.utils.logging import disable_progress_bar

from biqa.errors import IncompatibleChoice, RunNotFound
from biqa.models.vlm import VLM, text_weights

PEFT_PREFIX = "base_model.model."


def adapt(vlm: VLM, *, kind: str, rank: int, alpha: int, dropout: float, targets: str | None, freeze: str | None) -> None:
    """Choose the weights that learn, in place.

    Args:
        kind: "full" (every weight) or "lora" (low-rank updates of the decoder's linear layers, Hu et al. 2021).
        rank: rank of the update; it is scaled by `alpha` / `rank`; `dropout` acts on its input.
        targets: regular expression over whole module names; None: every linear layer inside a decoder block. Never the tower.
        freeze: for "full", regular expression searched in parameter names; what matches stays as it is.

    Raises:
        IncompatibleChoice: `freeze` leaves nothing to learn, or `targets` matches nothing.
    """
    if kind == "full":
        for name, parameter in vlm.backbone.named_parameters():
            parameter.requires_grad = freeze is None or re.search(freeze, name) is None
        if not any(parameter.requires_grad for parameter in vlm.parameters()):
            raise IncompatibleChoice(f"tuning.freeze={freeze} matches every parameter: nothing would learn. Choose a narrower expression.")
        return
    from peft import LoraConfig, get_peft_model

    pattern = targets or decoder_linears(vlm)
    config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=pattern, task_type="CAUSAL_LM")
    try:
        vlm.backbone = get_peft_model(vlm.backbone, config)  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]
    except ValueError as error:
        raise IncompatibleChoice(f"tuning.targets={pattern}: no module of this model matches the whole expression. {error}") from error


def decoder_linears(vlm: VLM) -> str:
    """Regular expression of the linear layers inside the decoder's blocks."""
    decoder = vlm.family.decoder if vlm.vision else "model"
    return rf"{re.escape(decoder)}\.layers\.\d+\..*({'|'.join(vlm.family.linears)})"


def learning_summary(vlm: VLM) -> str:
    """One line: what learns, of how much."""
    total = sum(parameter.numel() for parameter in vlm.parameters())
    learning = sum(parameter.numel() for parameter in vlm.parameters() if parameter.requires_grad)
    parts = "decoder alone, no vision tower" if not vlm.vision else "tower, projector and decoder"
    return f"{type(vlm.model).__name__}: {total:,} parameters ({parts}), of which {learning:,} learn"


def save_weights(vlm: VLM, folder: Path) -> None:
    """Write what was learnt below `folder`: `adapter/` (PEFT's format) or `model/` (transformers' format, with the processor).

    Written under a temporary name, then renamed.
    """
    target = folder / ("adapter" if _is_adapted(vlm) else "model")
    temporary = target.with_name(target.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    # the names of the running model, not those of checkpoints of years ago: what load_weights reads back without transformers' renaming
    disable_progress_bar()
    options: dict[str, Any] = {} if _is_adapted(vlm) else {"save_original_format": False}
    vlm.backbone.save_pretrained(temporary, **options)
    if target.name == "model":
        vlm.processor.save_pretrained(temporary)
    shutil.rmtree(target, ignore_errors=True)
    temporary.rename(target)


def load_weights(vlm: VLM, folder: Path) -> None:
    """Read the weights of a finished run into a model of the same architecture.

    A model without its tower takes the decoder's weights out of a whole VLM. An adapter needs `adapt(kind="lora")` with the same targets first.

    Raises:
        RunNotFound: the folder holds no weights, or damaged ones.
        IncompatibleChoice: they do not fit; the message names the first keys that differ.
    """
    adapted = _is_adapted(vlm)
    source = folder / ("adapter" if adapted else "model")
    files = sorted(source.glob("*.safetensors"))
    if not files:
        other = "model" if adapted else "adapter"
        found = f"it holds {other}/ instead: use the same tuning= as that run." if (folder / other).is_dir() else "is that run finished?"
        raise RunNotFound(f"{source}: no weights to start from; {found}")
    state: dict[str, Tensor] = {}
    for file in files:
        try:
            state |= load_file(file)
        except SafetensorError as error:
            raise RunNotFound(f"{file}: damaged ({error}). Run that run again with overwrite=true.") from error
    if adapted:
        _load_adapter(vlm, state, source)
        return
    if not vlm.vision and any(vlm.family.text_key(key) is None for key in state):
        state = text_weights(state, vlm.family)
    _load_all(vlm, state, source)


def _is_adapted(vlm: VLM) -> bool:
    return hasattr(vlm.backbone, "peft_config")


def _load_all(vlm: VLM, state: dict[str, Tensor], source: Path) -> None:
    wanted = vlm.backbone.state_dict()
    wrong = [key for key in wanted if key not in state or state[key].shape != wanted[key].shape] + [key for key in state if key not in wanted]
    if wrong:
        raise IncompatibleChoice(
            f"{source}: {len(wrong)} weights are missing, misshaped or unknown in this model, first {', '.join(wrong[:3])}. "
            f"Start from a run with the same model= options."
        )
    vlm.backbone.load_state_dict(state)


def _load_adapter(vlm: VLM, state: dict[str, Tensor], source: Path) -> None:
    from peft import set_peft_model_state_dict

    if not vlm.vision:
        named = {key: vlm.family.text_key(key.removeprefix(PEFT_PREFIX)) for key in state}
        state = {PEFT_PREFIX + name: value for key, value in state.items() if (name := named[key]) is not None}
    try:
        result = set_peft_model_state_dict(vlm.backbone, state)
    except RuntimeError as error:
        raise IncompatibleChoice(f"{source}: the adapter does not fit this model. Use the tuning= options of that run. {error}") from error
    if result.unexpected_keys:
        first = result.unexpected_keys[0]
        raise IncompatibleChoice(
            f"{source}: the adapter has weights that this model has no place for, first {first}. Use the tuning= options of that run."
        )


def base_of_adapter(folder: Path) -> dict[str, object]:
    """What PEFT recorded beside an adapter: adapter_config.json as a dictionary."""
    return json.loads((folder / "adapter" / "adapter_config.json").read_text())
