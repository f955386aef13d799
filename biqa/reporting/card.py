"""The model card beside weights: README.md of `adapter/`, `model/` and `merged/`, for people and for the hub.

It says what was learnt from what, the figures with their intervals, the question word for word, and how to load the weights without biqa where that
goes. It is written when the figures are known, right before result.json: a finished run has its cards.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING, Any

from huggingface_hub import EvalResult, ModelCardData

from biqa.config import choice_of
from biqa.files import write_whole
from biqa.language.levels import LEVELS, WEIGHTS
from biqa.language.prompts import STEM
from biqa.reporting.card_program import needed, program, prompt_of
from biqa.reporting.result import ACCURACY, STABILITY, figure_text, shown_metrics

if TYPE_CHECKING:
    from biqa.models.vlm import VLM

CARD = "README.md"
KINDS = {"adapter": "a LoRA adapter in PEFT's format", "model": "a whole model in transformers' format", "merged": "base and adapter as one model"}
"""Folder of weights -> what they are."""
PURPOSES = {
    "perception": "Stage 1 of two: it describes how a picture looks, and rates nothing.",
    "inference": "Stage 2 of two: it rates the quality of a picture from a description of it, from the text alone. It is shown no picture.",
    "joint": "One-stage tuning: it describes how a picture looks, and then rates its quality.",
}
INDEXED = ("srcc", "plcc", "instability_sampled", "instability_argmax")
"""Figures that the hub's index of models gets."""
PAPER = "[arXiv 2512.09555](https://arxiv.org/abs/2512.09555)"


def write_cards(run: Path, result: Mapping[str, Any], vlm: "VLM") -> None:
    """Write the card of every folder of weights in a run's folder, each whole or not at all.

    Args:
        run: the folder.
        result: its figures, as in result.json.
        vlm: the model that has learnt: it knows its base, its prompts and its tokens.
    """
    for kind in KINDS:
        if (run / kind).is_dir():
            write_whole(run / kind / CARD, card(kind, result, vlm))


def card(kind: str, result: Mapping[str, Any], vlm: "VLM") -> str:
    """The card of the weights of a run.

    Args:
        kind: "adapter", "model" or "merged".
        result: the run's figures.
        vlm: its model.
    """
    stage = choice_of(result["config"]["stage"]["_target_"])
    paragraphs = [
        f"---\n{_metadata(kind, stage, result, vlm).to_yaml()}\n---",
        f"# {result['run']['name']}",
        f"{PURPOSES[stage]} This is {KINDS[kind]}, made with biqa {result['versions']['biqa']}: two-stage tuning of vision-language models for "
        f"blind image quality assessment, after {PAPER}.",
    ]
    if stand_ins := _stand_ins(result):
        paragraphs.append(
            f"> **Stand-in.** The labels of {', '.join(stand_ins)} are not human opinions of these very pictures. What it says of photographs "
            f"shows that the machinery works, and no more."
        )
    paragraphs += ["## Data", _data(result["data"]), "## Figures", _figures(result)]
    paragraphs += ["## What it is asked", _asked(stage, result, vlm), "## How to load it", _loading(kind, stage, result, vlm)]
    paragraphs += ["## Base and licence", _base(result, vlm), "## How it was made", _making(result)]
    return "\n\n".join(paragraphs) + "\n"


def _stand_ins(result: Mapping[str, Any]) -> list[str]:
    return [name for name, data in result["data"].items() if data["stand_in"]]


def _metadata(kind: str, stage: str, result: Mapping[str, Any], vlm: "VLM") -> ModelCardData:
    """The part that the hub reads."""
    task = "image-text-to-text" if vlm.vision else "text-generation"
    results = [
        EvalResult(
            task_type=task, dataset_type=dataset, dataset_name=dataset, dataset_split="test", metric_type=metric,
            metric_name={**ACCURACY, **STABILITY}[metric], metric_value=round(figures[metric]["value"], 4),
        )
        for dataset, figures in result["metrics"].items()
        for metric in INDEXED
        if math.isfinite(figures.get(metric, {}).get("value", math.nan))
    ]  # fmt: skip
    base: dict[str, Any] = {}
    if vlm.base.name:
        base = {"license": "other", "license_name": "as-the-base-model"}
        if not Path(vlm.base.name).is_dir():  # a folder means nothing on the hub
            base |= {"license_link": f"https://huggingface.co/{vlm.base.name}", "base_model": vlm.base.name}
            base["base_model_relation"] = "adapter" if kind == "adapter" else "finetune"
    return ModelCardData(
        language="en", library_name="peft" if kind == "adapter" else "transformers", pipeline_tag=task,
        tags=["image-quality-assessment", "biqa", stage, *(["stand-in"] if _stand_ins(result) else [])],
        model_name=result["run"]["name"], eval_results=results or None, **base,
    )  # fmt: skip


def _data(data: Mapping[str, Any]) -> str:
    """Which images, as a table, and what was odd about them."""
    lines = ["| data set | images learnt from | images tested on | fingerprint |", "|---|---|---|---|"]
    lines += [f"| {name} | {of['trained_on']} | {of['images']} | `{of['fingerprint']}` |" for name, of in data.items()]
    notes = [f"- {name}: {note}" for name, of in data.items() for note in (*(f"**{text}**" for text in of.get("alarms", ())), *of["notes"])]
    return "\n".join([*lines, *([""] if notes else []), *notes])


def _figures(result: Mapping[str, Any]) -> str:
    """With their intervals. Those by feature stand in result.json alone."""
    metrics, sampling = result["metrics"], result["sampling"]
    lines = [f"| | {' | '.join(metrics)} |", f"|---{'|---' * len(metrics)}|"]
    for metric, label in shown_metrics(metrics).items():
        lines.append(f"| {label} | {' | '.join(figure_text(metric, of.get(metric)) for of in metrics.values())} |")
    asked = f" Each picture was asked N = {sampling['repeats']} times again at T = {sampling['temperature']:g}." if sampling["repeats"] else ""
    return "\n".join(lines) + f"\n\nIn brackets 95 % intervals over images (bootstrap), which say nothing of another seed.{asked}"


def _asked(stage: str, result: Mapping[str, Any], vlm: "VLM") -> str:
    """The prompt, and what comes of the answer."""
    reduced = result["config"]["images"].get("shorter_side")
    said = [f"Word for word, in the form of its chat template:\n\n{indent(prompt_of(stage, vlm), '    ')}"]
    if stage == "inference":
        said.append("In place of `{description}` stands what a stage 1 wrote.")
    if stage != "perception":
        terms = [f"{weight:g} p({level})" for level, weight in zip(LEVELS, WEIGHTS, strict=True) if weight]
        said.append(
            f'After "{STEM}" the logits of the first tokens of {", ".join(LEVELS)} become a level distribution p, and the score is '
            f"{' + '.join(terms)}: 0 is worst, 1 is best."
        )
    if vlm.vision and reduced:
        said.append(f"Larger pictures were reduced to a shorter side of {reduced} pixels first.")
    return "\n\n".join(said)


def _loading(kind: str, stage: str, result: Mapping[str, Any], vlm: "VLM") -> str:
    """What is needed, and a program."""
    code = program(kind, stage, result, vlm)
    if code is None:
        return "transformers has no class of this backbone. biqa loads it: it describes for a stage 2 that is tuned on what it writes."
    quantization = result["config"].get("quantization", {}).get("kind", "none")
    packed = kind == "adapter" and quantization != "none"
    more = f" It was learnt on a base packed as {quantization}; on one that is not packed, figures may be a little different." if packed else ""
    return f"{needed(kind, result, vlm)}{more} Run this in the folder of this file:\n\n```python\n{code}\n```"


def _base(result: Mapping[str, Any], vlm: "VLM") -> str:
    """What lies beneath, and whose it is."""
    if vlm.base.name is None:
        return f"Random weights, drawn from seed {result['seed']}: there is no base with a licence of its own. biqa is under the MIT licence."
    commit = f", commit `{vlm.base.revision}`" if vlm.base.revision else ", of no known commit"
    return (
        f"Base: `{vlm.base.name}`{commit}. Its weights keep their own licence, which holds for what was made of them too; so do the data sets. "
        f"biqa itself is under the MIT licence."
    )


def _making(result: Mapping[str, Any]) -> str:
    """What it takes to make it again."""
    run, config, hardware = result["run"], result["config"], result["hardware"]
    chosen = ", ".join(f"{group} `{run[group]}`" for group in ("model", "stage", "data", "descriptions", "tuning", "quantization"))
    return (
        f"Choices: {chosen}, seed {result['seed']}; stage.epochs={config['stage']['epochs']}, stage.batch_size={config['stage']['batch_size']}, "
        f"computed in {config['trainer']['precision']}. Commit of biqa: {result['git_commit'] or 'not known'}. Hardware: "
        f"{', '.join(hardware['gpus']) or hardware['cpu']}. Versions: "
        f"{', '.join(f'{name} {number}' for name, number in result['versions'].items())}.\n\n"
        f"Every option stands in config.yaml of the run, every figure in result.json."
    )
