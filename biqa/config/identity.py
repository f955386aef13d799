"""What tells a run from another: which options change what is computed, and which say where things lie and on what they run."""

import re
from collections.abc import Mapping
from typing import Any

PLACE = re.compile(r"(data|data\.parts\.\w+|test\.\w+)\.(root|file|workers)|descriptions\.(cache|url|key_env|batch_size|concurrency|retries|timeout)")
"""Options that say where the images of a data set lie and how many processes make them, not which they are, and where a teacher is asked and how
fast: they tell no run from another."""

NO_DIFFERENCE = (
    "name", "label", "runs", "ckpt", "overwrite", "dry_run", "estimate", "export", "logger", "datasets", "overlap",
    "images.cache", "images.workers", "images.features_gb",
    "strategy", "trainer.accelerator", "trainer.devices", "trainer.nodes", "trainer.checkpoint_activations", "trainer.workers", "trainer.cache_mb",
    "trainer.pack", "trainer.liger", "trainer.progress", "trainer.checkpoint_steps", "trainer.requeue_signal",
    "sampling.batch_size", "sampling.memory_gb", "sampling.compile",
    "answers.gpu_memory_utilization", "answers.max_model_len", "answers.tensor_parallel",
)  # fmt: skip
"""Options that may change between two calls of one run: where things lie and on what they run, not what is computed. So may `PLACE`."""


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings to dotted names: {"stage": {"epochs": 5}} -> {"stage.epochs": 5}."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        found |= flat(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return found


def may_change(name: str) -> bool:
    """Whether an option may change between two calls of one run."""
    return PLACE.fullmatch(name) is not None or any(name == skip or name.startswith(f"{skip}.") for skip in NO_DIFFERENCE)
