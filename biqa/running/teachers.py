"""From the options of `descriptions=teacher` and `descriptions=endpoint` to a teacher."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from omegaconf import OmegaConf

from biqa.data.endpoint import EndpointWriter
from biqa.data.teacher import TeacherTargets
from biqa.data.texts import OnLeak
from biqa.errors import RunNotFound
from biqa.models.vlm import VLM
from biqa.running.building import OF_TRAINING, build_model, quantization_of
from biqa.running.instantiate import make
from biqa.runs import STAGE_ONE, RunFolder, find_run
from biqa.stages.backbone import BackboneWriter


def endpoint(*, question: str, cache: str, on_leak: OnLeak, **options: Any) -> TeacherTargets:  # noqa: ANN401 (see EndpointWriter)
    """A model behind a server; `options` are those of `EndpointWriter`."""
    return TeacherTargets(writer=EndpointWriter(**options), question=question, cache=cache, on_leak=on_leak)


def backbone(
    *,
    run: str | None,
    model: Mapping[str, Any] | None,
    quantization: Mapping[str, Any] | None = None,
    question: str,
    cache: str,
    on_leak: OnLeak,
    batch_size: int,
    max_new_tokens: int,
    seed: int,
) -> TeacherTargets:
    """A model on this machine, which is built only when there is an image to describe.

    Args:
        run: folder of a finished stage 1, or
        model: options of a backbone, which is taken as it is; one of the two.
        quantization: how that backbone is packed. A run has its own.
        question: what it is asked about each image.
        cache: folder in which texts are kept.
        on_leak: see `TeacherTargets`.
        batch_size: images at a time.
        max_new_tokens: an answer is cut there.
        seed: draws the random weights of a backbone that has no others. A run has its own.

    Raises:
        RunNotFound: no such run, or one without weights.
        TeacherUnavailable: the cache cannot be used.
    """
    if run is not None:
        identity, build = _of_run(find_run(run, "descriptions.run", stage_class=STAGE_ONE))
    else:
        assert model is not None, "the schema refuses descriptions=teacher without a model"
        identity, build = _of_model(model, quantization, seed)
    name = json.dumps({**identity, "max_new_tokens": max_new_tokens}, sort_keys=True)
    writer = BackboneWriter(name=name, build=build, batch_size=batch_size, max_new_tokens=max_new_tokens)
    return TeacherTargets(writer=writer, question=question, cache=cache, on_leak=on_leak)


def _of_run(folder: RunFolder) -> tuple[dict[str, Any], Callable[[], VLM]]:
    """Identity (the content of its weights, wherever the folder lies) and builder of the model of a run."""
    files = sorted(folder.path.glob("*/*.safetensors"))
    if not files:
        raise RunNotFound(f"descriptions.run={folder.path}: no weights there. Was it a run of stage.epochs=0? Take one that has learnt.")
    weights = hashlib.sha256()
    for file in files:
        with file.open("rb") as content:
            weights.update(hashlib.file_digest(content, "sha256").digest())
    config = folder.read_config()
    identity = {"model": _described(config["model"]), "seed": config["seed"], "weights": weights.hexdigest()}
    return identity, lambda: build_model(OmegaConf.create(config), vision=True, weights=folder)


def _of_model(model: Mapping[str, Any], quantization: Mapping[str, Any] | None, seed: int) -> tuple[dict[str, Any], Callable[[], VLM]]:
    """Identity and builder of a backbone as it is."""
    node = OmegaConf.create({"model": dict(model), "quantization": dict(quantization or {"kind": "none"})})
    how = quantization_of(node)
    identity = {"model": _described(model), "seed": seed, **({"quantization": asdict(how)} if how else {})}
    return identity, lambda: make(node.model, without=OF_TRAINING, vision=True, seed=seed, quantization=how)


def _described(model: Mapping[str, Any]) -> dict[str, Any]:
    return {option: value for option, value in model.items() if option not in OF_TRAINING}
