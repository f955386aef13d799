"""What the processes of `test_strategies.py` and `test_deepspeed.py` do: several runs one after another, because starting takes longer than running."""

import warnings

from biqa.running.training import logged


def one_after_another(jobs):
    for config, composed, choices, folder in jobs:
        logged(config, composed, choices, folder)


def one_after_another_by_deepspeed(jobs):
    """The same where Lightning would have it that DeepSpeed needs a GPU, which DeepSpeed itself does not."""
    import torch
    from lightning.pytorch.accelerators import CPUAccelerator
    from lightning.pytorch.strategies import deepspeed  # pyright: ignore[reportPrivateImportUsage]

    setattr(deepspeed, "CUDAAccelerator", CPUAccelerator)  # noqa: B010 (a name that the module has from elsewhere)
    setattr(deepspeed, "_validate_device_index_selection", lambda devices: None)  # noqa: B010
    deepspeed.DeepSpeedStrategy.root_device = property(lambda self: torch.device("cpu", self.local_rank))
    warnings.simplefilter("ignore")  # DeepSpeed's own
    one_after_another(jobs)
