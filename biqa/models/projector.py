"""How a projector begins that was never taught: fitted at once, so that an image says to the decoder what its answer says.

A projector of random weights speaks no language: each image is the same noise to the decoder, which then learns the wording of the answers and not to
look. Thousands of images pass before it does. The words of an answer are vectors that it reads already (those of its embedding table), and what of
their mean can be told from an image's features is one linear regression (choice of this project; METHOD.md has none for it).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from biqa.errors import IncompatibleChoice
from biqa.models.precision import projector_modules
from biqa.models.vlm import VLM, Prompt

MOST = 2000
"""Images that the regression is fitted to, at most: more take time and change little."""

SPREAD_OVER = 50
"""Images whose single positions say how large the projector's answers are."""


@dataclass(frozen=True)
class Start:
    """Weights of a projector's last linear layer."""

    weight: Tensor
    """[D, width]."""
    bias: Tensor
    """[D]."""
    images: int
    """How many it was fitted to."""

    def __str__(self) -> str:
        return f"the projector starts with the words of {self.images:,} answers"


def fitted_to_words(vlm: VLM, examples: Iterable[tuple[Prompt, Sequence[int]]]) -> Start:
    """Ridge regression from what the projector's last linear layer is given, in the mean over an image, to the mean word vector of the answer.

    The answer's differences between images are then enlarged until single positions differ as much as the words of the embedding table do.

    Args:
        vlm: a VLM whose projector learns.
        examples: the question about a training image and the token ids of its answer; the first `MOST` count.

    Raises:
        IncompatibleChoice: this projector does not end in a linear layer that learns and has a bias.
    """
    table = vlm.model.get_input_embeddings().weight
    layer: nn.Linear | None = None
    means: list[np.ndarray[Any, Any]] = []
    words: list[np.ndarray[Any, Any]] = []
    positions: list[Tensor] = []
    for prompt, answer in islice(examples, MOST):
        layer = layer or last_layer(vlm, prompt)
        given = vlm.passed(prompt, layer)[0].float()
        means.append(given.mean(0).cpu().numpy())
        words.append(table[torch.tensor(list(answer), device=table.device)].detach().float().mean(0).cpu().numpy())
        positions += [given.cpu()] if len(positions) < SPREAD_OVER else []
    scale = StandardScaler().fit(np.stack(means))
    # a direction of average variance keeps half of its size. Leave-one-out would keep next to nothing: most of how answers differ is their wording,
    # which no image tells, and steps will follow that learn which direction says what
    regression = Ridge(alpha=len(means)).fit(scale.transform(np.stack(means)), np.stack(words))
    weight = torch.tensor(regression.coef_ / scale.scale_, dtype=torch.float32)
    centre = torch.tensor(scale.mean_, dtype=torch.float32)
    spread = ((torch.cat(positions) - centre) @ weight.T).std()
    weight *= float(table.float().std()) / max(float(spread), torch.finfo(torch.float32).tiny)
    return Start(
        weight=weight,
        bias=torch.tensor(np.mean(words, 0), dtype=torch.float32) - weight @ centre,
        images=len(means),
    )


def begin_with(vlm: VLM, start: Start) -> None:
    """Give a projector its start, in place."""
    layer = _linear_layers(vlm)[-1]
    with torch.no_grad():
        layer.weight.copy_(start.weight)
        layer.bias.copy_(start.bias)


def last_layer(vlm: VLM, prompt: Prompt) -> nn.Linear:
    """The linear layer that a projector ends in.

    Raises:
        IncompatibleChoice: it ends in something else, or that layer does not learn or has no bias.
    """
    layers = _linear_layers(vlm)
    if layers and layers[-1].bias is not None:
        answered = vlm.passed(prompt, layers[-1])[1]
        whole = vlm.passed(prompt, vlm.model.get_submodule(vlm.family.projector[0]))[1]
        if whole.shape[1:] == answered.shape[1:] and torch.equal(whole[: len(answered)].float(), answered.float()):
            return layers[-1]
    raise IncompatibleChoice(
        f"tuning.projector_start=words: the projector of {vlm.family.name} does not end in a linear layer with a bias. Choose projector_start=loaded."
    )


def _linear_layers(vlm: VLM) -> Sequence[nn.Linear]:
    """Those of the projector's first module that learn, in their order."""
    projector = vlm.model.get_submodule(projector_modules(vlm)[0])
    return [module for module in projector.modules() if isinstance(module, nn.Linear) and module.weight.requires_grad]
