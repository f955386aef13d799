"""A small mPLUG-Owl2 with odd values everywhere, so that none can be mixed up or ignored, and seeded weights that no library version changes.

python tests/models/owl2/owl2_small.py > tests/models/owl2/golden.json     writes the golden figures of test_owl2_numerics.py anew
"""

import copy
import json
import zlib
from typing import Any

import numpy as np
import torch

from biqa.models.owl2 import Owl2Config, Owl2ForConditionalGeneration
from biqa.models.owl2.configuration import IMAGE_TOKEN_ID

VALUES: dict[str, Any] = {
    "model_type": "mplug_owl2",
    "vocab_size": 97,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 0.03,
    "rope_theta": 50.0,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": False,
    "visual_config": {
        "visual_model": {
            "hidden_size": 16,
            "intermediate_size": 28,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 12,
            "patch_size": 4,
            "layer_norm_eps": 0.02,
            "hidden_act": "quick_gelu",
        },
        "visual_abstractor": {
            "hidden_size": 16,
            "encoder_hidden_size": 16,
            "intermediate_size": 20,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_learnable_queries": 3,
            "layer_norm_eps": 0.05,
            "grid_size": 3,
        },
    },
}
"""What the original's config.json would hold."""
PLACES = [IMAGE_TOKEN_ID] * 4
"""Placeholders of one image: three queries and the closing token."""


def values(**changes: Any) -> dict[str, Any]:
    """VALUES with some replaced; `visual_model` and `visual_abstractor` take the values to replace inside them."""
    chosen = copy.deepcopy(VALUES)
    for part in ("visual_model", "visual_abstractor"):
        chosen["visual_config"][part] |= changes.pop(part, {})
    return chosen | changes


def weights(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """A tensor for each name that depends on name and shape alone; norms lie around 1. RandomState's numbers are frozen for good."""
    made = {}
    for name, shape in shapes.items():
        drawn = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
        norm = len(shape) == 1 and name.endswith(".weight")
        scale = 0.3 if len(shape) == 1 else 1.4 * float(np.prod(shape[1:])) ** -0.5
        made[name] = torch.tensor(drawn * scale + norm, dtype=torch.float32)
    return made


def small(attention: str = "eager", **changes: Any) -> Owl2ForConditionalGeneration:
    """The model in evaluation mode, with `weights` but for its position buffers, which it computes."""
    config = Owl2Config.from_dict(values(**changes))
    config._attn_implementation = attention
    model = Owl2ForConditionalGeneration(config).eval()
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items() if not name.endswith("pos_embed")}
    model.load_state_dict(weights(shapes), strict=False)
    return model


def pictures(count: int, seed: int = 0) -> torch.Tensor:
    """[count, 3, 12, 12], about unit scale."""
    return torch.tensor(np.random.RandomState(seed).standard_normal((count, 3, 12, 12)), dtype=torch.float32)


def prompts() -> list[list[int]]:
    """Four of different kinds and lengths, for four images in all: one image inside, two apart, none, one at the very beginning."""
    return [
        [1, 17, *PLACES, 23, 42, 5],
        [1, *PLACES, 60, *PLACES, 33, 8, 21, 77],
        [1, 9, 14, 30],
        [*PLACES, 1, 71],
    ]


def padded(rows: list[list[int]], side: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows as a batch: input_ids and attention_mask, [B, L], padded on one side."""
    length = max(map(len, rows))
    pads = [[0] * (length - len(row)) for row in rows]
    ids = [pad + row if side == "left" else row + pad for pad, row in zip(pads, rows, strict=True)]
    mask = [pad + [1] * len(row) if side == "left" else [1] * len(row) + pad for pad, row in zip(pads, rows, strict=True)]
    return torch.tensor(ids), torch.tensor(mask)


def golden() -> dict[str, Any]:
    """A few figures of the model: logits after each prompt, and what it goes on to write."""
    model = small()
    ids, mask = padded(prompts(), "left")
    images = pictures(4)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=mask, position_ids=positions, pixel_values=images).logits[:, -1]
    tokens = model.generate(input_ids=ids, attention_mask=mask, pixel_values=images, do_sample=False, max_new_tokens=10, eos_token_id=None)
    return {
        "made by": "python tests/models/owl2/owl2_small.py > tests/models/owl2/golden.json",
        "last logits, first eight words": [[round(value, 5) for value in row] for row in logits[:, :8].tolist()],
        "greedy tokens": tokens.tolist(),
    }


if __name__ == "__main__":
    print(json.dumps(golden(), indent=1))
