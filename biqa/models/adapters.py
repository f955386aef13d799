"""Which weights learn, and how weights are written and read back: safetensors only, in formats that transformers and PEFT load without biqa."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers.utils.logging import disable_progress_bar

from biqa.errors import IncompatibleChoice, RunNotFound
from biqa.files import whole_folder
from biqa.models.base import fingerprint
from biqa.models.dropout import prepare_lora
from biqa.models.peft_format import is_adapted, read_adapter, write_adapter
from biqa.models.precision import learn_in_float32, projector_modules
from biqa.models.quantization import is_packed, size
from biqa.models.sharding import whole_weights
from biqa.models.vlm import VLM, text_weights


def adapt(
    vlm: VLM,
    *,
    kind: str,
    rank: int,
    alpha: int,
    dropout: float,
    targets: str | None,
    freeze: str | None,
    frozen: Sequence[str] = (),
    projector: bool = False,
    tower: bool = False,
) -> None:
    """Choose the weights that learn, in place. They are float32, whatever the model has been loaded in.

    Args:
        kind: "full" (every weight) or "lora" (low-rank updates of linear layers, Hu et al. 2021).
        rank: rank of the update; it is scaled by `alpha` / `rank`; `dropout` acts on its input.
        targets: for "lora", regular expression over whole names of modules, of which those of the decoder count; None: every linear layer inside its
            blocks.
        freeze: for "full", regular expression searched in parameter names; what matches stays as it is.
        frozen: for "full", parts that stay as they are: "tower", "projector", "decoder".
        projector: for "lora", whether the projector learns too, whole.
        tower: for "lora", whether the linear layers of the tower's blocks get updates too. A decoder alone has neither.

    Raises:
        IncompatibleChoice: `freeze` and `frozen` leave nothing to learn, or `targets` matches nothing.
    """
    if kind == "full":
        for name, parameter in vlm.backbone.named_parameters():
            stays = is_packed(parameter) or vlm.part_of(name) in frozen or (freeze is not None and re.search(freeze, name) is not None)
            parameter.requires_grad = not stays
        if not any(parameter.requires_grad for parameter in vlm.parameters()):
            raise IncompatibleChoice(_nothing_learns(vlm, freeze, frozen))
    else:
        _add_lora(vlm, rank, alpha, dropout, targets, projector=projector and vlm.vision, tower=tower and vlm.vision)
    learn_in_float32(vlm)


def _nothing_learns(vlm: VLM, freeze: str | None, frozen: Sequence[str]) -> str:
    if not frozen:
        return f"tuning.freeze={freeze} matches every parameter: nothing would learn. Choose a narrower expression."
    alone = "" if vlm.vision else " This stage runs on the decoder alone."
    return (
        f"tuning.frozen=[{','.join(frozen)}] leaves nothing that learns{f' (with tuning.freeze={freeze})' if freeze else ''}.{alone} Take a part out."
    )


def _add_lora(vlm: VLM, rank: int, alpha: int, dropout: float, targets: str | None, *, projector: bool, tower: bool) -> None:
    from peft import LoraConfig, get_peft_model

    vlm.base = replace(
        vlm.base, prints=fingerprint(((vlm.whole_name(name), weight) for name, weight in vlm.backbone.named_parameters()), _print_of(vlm))
    )
    pattern = decoder_linears(vlm) if targets is None else f"{_in_decoder(vlm)}(?:{targets})"
    if tower:
        pattern = f"{pattern}|{tower_linears(vlm)}"
    config = LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=pattern, task_type="CAUSAL_LM",
        modules_to_save=projector_modules(vlm) if projector else None,
    )  # fmt: skip
    try:
        vlm.backbone = get_peft_model(vlm.backbone, config)  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]
    except ValueError as error:
        raise IncompatibleChoice(f"tuning.targets={targets or pattern}: no module of this model matches the whole expression. {error}") from error
    prepare_lora(vlm.backbone)


def _print_of(vlm: VLM) -> Callable[[str], str]:
    """The part that a weight counts for in a fingerprint: what a decoder alone has not is apart."""

    def part(name: str) -> str:
        found = vlm.family.part(name)
        return f"{found}, for images" if found == "decoder" and vlm.family.text_key(name) is None else found

    return part


def decoder_linears(vlm: VLM) -> str:
    """Regular expression of the linear layers inside the decoder's blocks."""
    decoder = vlm.family.decoder if vlm.vision else "model"
    return rf"{re.escape(decoder)}\.layers\.\d+\..*({'|'.join(vlm.family.linears)})"


def _in_decoder(vlm: VLM) -> str:
    """Regular expression of the beginning of a name in the decoder, which takes no letter of it."""
    if not vlm.vision:
        return ""
    others = "|".join(re.escape(module) for module in (vlm.family.tower, *vlm.family.projector))
    return rf"(?!(?:{others})\.)"


def tower_linears(vlm: VLM) -> str:
    """Regular expression of the linear layers inside the tower's blocks; a projector that lies inside the tower is left out."""
    projectors = "|".join(re.escape(module) for module in vlm.family.projector)
    return rf"(?!(?:{projectors})\.){re.escape(vlm.family.tower)}\..*\.\d+\..*({'|'.join(vlm.family.tower_linears)})"


def save_weights(vlm: VLM, folder: Path, *, write: bool = True) -> None:
    """Write what was learnt below `folder`: `adapter/` (PEFT's format) or `model/` (transformers' format, with the processor).

    Written under a temporary name, then renamed. Of weights that are divided among processes, each process must help: `write` is on in one.
    """
    options: dict[str, Any] = {"state_dict": _whole_state(vlm, keep=write)} if vlm.sharded else {}
    if not write:
        return
    disable_progress_bar()
    with whole_folder(folder / ("adapter" if is_adapted(vlm) else "model"), lambda: written_bytes(vlm)) as place:
        if is_adapted(vlm):
            write_adapter(vlm, place, **options)
        else:
            # the names of the running model, not those of checkpoints of years ago: what load_weights reads back without transformers' renaming
            vlm.backbone.save_pretrained(place, save_original_format=False, **options)
            vlm.processor.save_pretrained(place)


def written_bytes(vlm: VLM) -> int:
    """What `save_weights` writes, about."""
    if is_adapted(vlm):
        return sum(weight.nbytes for weight in vlm.backbone.parameters() if weight.requires_grad)
    with TemporaryDirectory() as place:
        vlm.processor.save_pretrained(Path(place))
        beside = sum(file.stat().st_size for file in Path(place).rglob("*") if file.is_file())
    # weights that are one, such as tied embeddings, are written once
    return beside + sum({value.data_ptr(): value.nbytes for value in vlm.backbone.state_dict().values()}.values())


def merged_bytes(vlm: VLM) -> int:
    """What `save_merged` writes, about."""
    numbers = sum(size(weight) for name, weight in vlm.backbone.named_parameters() if "lora_" not in name and ".original_module." not in name)
    return numbers * vlm.model.get_input_embeddings().weight.dtype.itemsize


def save_merged(vlm: VLM, folder: Path) -> None:
    """Write base and adapter as one model, with its processor, in the type that the base was loaded in: what transformers loads by itself.

    The VLM is of no use afterwards. Its base must not be packed: what is added to packed weights is rounded to their few bits.
    """
    assert not any(is_packed(weight) for weight in vlm.parameters()), "load the base without quantization to merge into it"
    backbone: Any = vlm.backbone
    dtype = vlm.model.get_input_embeddings().weight.dtype
    merged = backbone.merge_and_unload().to(dtype)
    disable_progress_bar()
    with whole_folder(folder, sum({value.data_ptr(): value.nbytes for value in merged.state_dict().values()}.values())) as place:
        merged.save_pretrained(place, save_original_format=False)
        vlm.processor.save_pretrained(place)


def _whole_state(vlm: VLM, *, keep: bool) -> dict[str, Tensor]:
    """Weights to save out of divided ones: of an adapter those that learn, else all."""
    state = vlm.backbone.state_dict(keep_vars=True)
    return whole_weights(((name, value) for name, value in state.items() if value.requires_grad or not is_adapted(vlm)), keep=keep)


def load_weights(vlm: VLM, folder: Path) -> None:
    """Read the weights of a finished run into a model of the same architecture.

    A model without its tower takes the decoder's weights out of a whole VLM. An adapter needs `adapt(kind="lora")` with the same targets first.

    Raises:
        RunNotFound: the folder holds no weights, or damaged ones.
        IncompatibleChoice: they do not fit; the message names the first keys that differ.
    """
    adapted = is_adapted(vlm)
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
        read_adapter(vlm, state, source)
        return
    if not vlm.vision and not state.keys() <= vlm.backbone.state_dict().keys():
        state = text_weights(state, vlm.family)
    _load_all(vlm, state, source)


def _load_all(vlm: VLM, state: dict[str, Tensor], source: Path) -> None:
    wanted = vlm.backbone.state_dict()
    # of weights that are one, such as tied embeddings, a file holds one
    state = {**{alias: state[name] for alias, name in vlm.model.all_tied_weights_keys.items() if name in state}, **state}
    wrong = [key for key in wanted if key not in state or state[key].shape != wanted[key].shape] + [key for key in state if key not in wanted]
    if wrong:
        raise IncompatibleChoice(
            f"{source}: {len(wrong)} weights are missing, misshaped or unknown in this model, first {', '.join(wrong[:3])}. "
            f"Start from a run with the same model= options."
        )
    vlm.backbone.load_state_dict(state)
