"""What learns in a model, in words."""

from collections import Counter

from biqa.models.quantization import is_packed, size
from biqa.models.vlm import VLM

PACKED = {"Params4bit": "of four bits", "Int8Params": "of eight bits"}


def learning_summary(vlm: VLM) -> str:
    """A table: of each part, how many weights learn and how many it has; and what the frozen ones take."""
    learning, total, frozen = Counter[str](), Counter[str](), Counter[str]()
    for name, weight in vlm.backbone.named_parameters():
        if ".original_module." in name:  # PEFT's copy of what learns whole
            continue
        part, numbers = vlm.part_of(name), size(weight)
        total[part] += numbers
        if weight.requires_grad:
            learning[part] += numbers
        else:
            frozen[PACKED[type(weight).__name__] if is_packed(weight) else str(weight.dtype).removeprefix("torch.")] += weight.nbytes
    rows = [(part, f"{learning[part]:,}", f"{total[part]:,}") for part in ("tower", "projector", "decoder") if total[part]]
    rows.append(("together", f"{learning.total():,}", f"{total.total():,}"))
    wide = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [f"  {part:<{wide[0]}}  {few:>{wide[1]}} of {all_:>{wide[2]}} learn" for part, few, all_ in rows]
    kept = ", ".join(f"{bytes_ / 2**20:,.1f} MB {what}" for what, bytes_ in frozen.items()) or "none"
    return "\n".join([f"{type(vlm.model).__name__}{'' if vlm.vision else ' (the decoder alone)'}:", *lines, f"  frozen weights: {kept}"])
