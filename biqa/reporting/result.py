"""result.json: the figures of one run and all that is needed to know where they come from; written last, so a run that has one is finished."""

import json
import math
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

import biqa
from biqa.config.reading import read_json
from biqa.errors import BadRecord, RunNotFound
from biqa.files import write_whole
from biqa.reporting.intervals import interval_text
from biqa.reporting.odd import odd_values

RESULT_NAME = "result.json"
SCHEMA = 1
"""Number of the layout below; a reader refuses another."""

KEYS = ("schema", "run", "seed", "metrics", "sampling", "data", "config", "versions", "git_commit", "hardware", "seconds")
"""What a result holds, in the order it is written:

- `run`: name, and the choices model, stage, data, descriptions, tuning, quantization; `seed`;
- `metrics`: {data set: {metric: {"value", "low", "high"}}}, NaN where undefined (null in the file);
- `sampling`: repeats (N), temperature (T), top_p; `data`: {data set: {"images" (answered), "trained_on"
  (training images; 0: none), "fingerprint", "stand_in", "skipped", "notes", "alarms" (what makes its figures mislead; older results have none)}};
- `config`: the composed config; `versions`, `git_commit`, `hardware` (with the number of processes); `seconds`: wall seconds by phase.
"""

PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "lightning", "hydra-core", "numpy", "scipy", "pandas", "pillow", "vllm")
"""Packages whose version can move a figure."""

ACCURACY = {
    "srcc": "SRCC",
    "plcc": "PLCC",
    "plcc_logistic4": "PLCC (logistic)",
    "krcc": "KRCC",
    "rmse": "RMSE",
    "srcc_mean": "SRCC (mean score)",
    "srcc_within": "SRCC (within subsets)",
}
STABILITY = {
    "instability_sampled": "instability % (sampled)",
    "instability_argmax": "instability % (arg-max)",
    "flip_rate_sampled": "flip rate % (sampled)",
    "flip_rate_argmax": "flip rate % (arg-max)",
}
NAMES = {"within_one": "within one step (mean over features)", "within_one_constant": "best constant answer, within one step"}
BY_FEATURE = {"accuracy": "accuracy", "majority": "majority", "over_majority": "difference"}
"""Columns of a table by feature: each metric stands in a result as `<metric>/<feature>`, and by its name alone for the mean over features."""
COUNTED = {"": "images whose target names the feature", "_all": "all images, absence being one more answer"}
"""What follows the name of such a metric, and which images it is taken over: a table each."""
SHOWN_IF_POSITIVE = {"unparsed": "answers without a level %", "unscored": "images without a score %"}
IN_TABLE_ONLY = ("plcc_mean", "pairwise_disagreement", "level_entropy", "score_std")
"""Metrics (or their beginnings) that result.json holds and the summary on the terminal leaves out."""


@dataclass(frozen=True)
class FoundRun:
    """A finished run on disk."""

    folder: Path
    result: dict[str, Any]

    @property
    def name(self) -> str:
        """Its name, as the result has it."""
        return self.result["run"]["name"]


def write_result(result: Mapping[str, Any], path: Path) -> None:
    """Write a result to `path`, under a temporary name first and then renamed: a killed run leaves no half result.

    Args:
        result: A mapping with exactly the keys `KEYS`. Floats that are not finite become null, and paths become text, in which the home folder, which
            names the user, is "~": results are published. config.yaml, out of which a run is made again, has paths as they were typed.
        path: The file, usually runs/<name>/result.json.
    """
    assert set(result) == set(KEYS), f"a result has the keys {KEYS}, got {tuple(result)}"
    write_json({key: without_home(result[key]) for key in KEYS}, path)


def without_home(value: Any) -> Any:  # noqa: ANN401 (any JSON value)
    """The value with "~" for the user's home folder at the beginning of every text."""
    if isinstance(value, Mapping):
        return {key: without_home(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_home(inner) for inner in value]
    home = str(Path.home())
    if isinstance(value, str | Path) and len(home) > 1 and (text := str(value)).startswith(home) and text[len(home) :][:1] in ("", os.sep):
        return "~" + text[len(home) :]
    return value


def json_text(values: Mapping[str, Any]) -> str:
    """As JSON. Floats that are not finite become null, paths become text."""
    return json.dumps(_finite(values), indent=1, allow_nan=False, default=str) + "\n"


def write_json(values: Mapping[str, Any], path: Path) -> None:
    """Write `json_text`, whole or not at all."""
    write_whole(path, json_text(values))


def read_result(path: Path) -> dict[str, Any]:
    """Read a result back; a null among the metrics is NaN again.

    Raises:
        RunNotFound: no such file.
        BadRecord: not JSON, keys are missing, another schema, or values that no run writes.
    """
    if not path.is_file():
        raise RunNotFound(
            f"{path} is not there: the run is not finished, or this is no run folder. Finish it with ckpt=last, or name another folder."
        )
    try:
        result = read_json(path)
    except (ValueError, RecursionError) as error:
        raise BadRecord(f"{path} is not valid JSON ({error}). Run that run again with overwrite=true.") from error
    if not isinstance(result, dict) or result.get("schema") != SCHEMA:
        found = result.get("schema") if isinstance(result, dict) else type(result).__name__
        raise BadRecord(f"{path} has schema {found}, this version of biqa reads schema {SCHEMA}. Is it a result of biqa? Run that run again.")
    missing = [key for key in KEYS if key not in result]
    if missing:
        raise BadRecord(f"{path}: {', '.join(missing)} missing; found {', '.join(result)}. Run that run again with overwrite=true.")
    if odd := next(odd_values(result), None):
        raise BadRecord(f"{path}: {odd}. Was the file edited? Run that run again with overwrite=true.")
    for figures in result["metrics"].values():
        for figure in figures.values():
            figure.update({part: math.nan for part, value in figure.items() if value is None})
    return result


def find_results(folder: Path) -> list[FoundRun]:
    """All finished runs below a folder, sorted by name.

    Raises:
        RunNotFound: no such folder, or no result.json below it.
        BadRecord: as in `read_result`.
    """
    if not folder.is_dir():
        raise RunNotFound(f"runs={folder}: there is no such folder. Name the folder that holds the runs: runs=FOLDER.")
    runs = [FoundRun(path.parent, read_result(path)) for path in folder.rglob(RESULT_NAME)]
    if not runs:
        raise RunNotFound(f"runs={folder}: no {RESULT_NAME} lies below it, so no run there is finished. Make one with python -m biqa.run.")
    return sorted(runs, key=lambda run: (run.name, str(run.folder)))


def collect_versions() -> dict[str, str]:
    """Versions of Python, biqa and `PACKAGES`, without importing them; what is not installed is left out."""
    versions = {"python": platform.python_version(), "biqa": biqa.__version__}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def git_commit() -> str | None:
    """Commit of the checkout that this package lies in, with "-dirty" when a tracked file differs from it; None outside a checkout.

    An installed package inside somebody else's repository (a virtual environment in a checkout) is not tracked there, and gives None.
    """
    source = Path(biqa.__file__)
    commit = _git(source.parent, "rev-parse", "HEAD")
    if not commit or _git(source.parent, "ls-files", "--error-unmatch", source.name) is None:
        return None
    return commit + ("-dirty" if _git(source.parent, "status", "--porcelain", "--untracked-files=no") else "")


def hardware() -> dict[str, Any]:
    """What the run ran on: cpu (name), cores, memory_gb, peak_memory_gb (the most this process has held so far, in a sweep its earlier runs included;
    Linux counts it in kB), and gpus (names; asked of torch only where the run has loaded it)."""
    torch = sys.modules.get("torch")
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())] if torch else []
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "memory_gb": round(memory / 2**30, 1) or None,
        "peak_memory_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "gpus": gpus,
    }


def render_result(result: Mapping[str, Any]) -> Group:
    """The result as tables for the terminal: a column a data set, a row a metric with its 95 % interval; for stage 1 also, by data set, a row a
    feature."""
    run, sampling = result["run"], result["sampling"]
    datasets = list(result["metrics"])
    title = Text(f"{run['name']}: stage {run['stage']}, model {run['model']}, seed {result['seed']}", style="bold")
    table = Table()
    table.add_column("95 % intervals over images")
    for name in datasets:
        table.add_column(f"{name}, {result['data'][name]['images']} images", justify="right")
    for metric, label in shown_metrics(result["metrics"]).items():
        table.add_row(label, *(figure_text(metric, result["metrics"][name].get(metric)) for name in datasets))
    notes = (
        [f"N = {sampling['repeats']} queries an image at T = {sampling['temperature']:g}, top-p {sampling['top_p']:g}"] if sampling["repeats"] else []
    )
    warnings = [f"WARNING: {name}: {text}" for name, text in alarms_of(result)]
    stand_ins = [name for name in datasets if result["data"][name]["stand_in"]]
    if stand_ins:
        notes.append(f"STAND-IN: the labels of {', '.join(stand_ins)} are not human opinions of these very images.")
    notes += [
        f"{len(data['skipped'])} images of {name} were left out: {', '.join(data['skipped'][:3])}{' ...' if len(data['skipped']) > 3 else ''}"
        for name, data in result["data"].items()
        if data.get("skipped")
    ]
    notes.append(_cost(result))
    by_feature = [
        _feature_table(f"{name}, by feature: {images}", figures, over)
        for name, figures in result["metrics"].items()
        for over, images in COUNTED.items()
        if f"accuracy{over}" in figures
    ]
    return Group(title, table, *by_feature, *(Text(warning, style="bold red") for warning in warnings), *(Text(note) for note in notes))


def alarms_of(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Data set and sentence of all that makes the figures of a result mislead."""
    return [(name, text) for name, data in result["data"].items() for text in data.get("alarms", ())]


def _feature_table(title: str, figures: Mapping[str, Mapping[str, float]], over: str) -> Table:
    """How often each feature is given its right strength, beside the majority answer; the mean over features last."""
    table = Table(title=title, title_justify="left", pad_edge=False)
    table.add_column("feature")
    for label in BY_FEATURE.values():
        table.add_column(label, justify="right")
    beginning = f"accuracy{over}/"
    features = [metric.removeprefix(beginning) for metric in figures if metric.startswith(beginning)]
    for place in [*(f"{over}/{feature}" for feature in features), over]:
        accuracy, majority, gain = (figures[metric + place] for metric in BY_FEATURE)
        difference = interval_text(gain, signed=True)
        label = place.partition("/")[2].replace("_", " ") or "mean over features"
        cells = figure_text("accuracy", accuracy), f"{majority['value']:.3f}", difference
        table.add_row(label, *cells, end_section=place.endswith(f"/{features[-1]}"))
    return table


def _cost(result: Mapping[str, Any]) -> str:
    """Seconds by phase and the memory that the process has held."""
    seconds = result["seconds"]
    phases = ", ".join(f"{phase} {spent:.0f}" for phase, spent in seconds.items())
    peak = result["hardware"].get("peak_memory_gb")
    return f"Seconds: {phases}; {sum(seconds.values()):.0f} in all." + (f" Peak memory {peak:.1f} GB." if peak else "")


def shown_metrics(metrics: Mapping[str, Mapping[str, Mapping[str, float]]]) -> dict[str, str]:
    """Metrics to show and their labels: the known ones in a fixed order, then the others by their names. Those by feature are not
    among them."""
    by_feature = {metric + over for metric in BY_FEATURE for over in COUNTED}
    present = dict.fromkeys(metric for figures in metrics.values() for metric in figures if "/" not in metric and metric not in by_feature)
    shown = {metric: label for metric, label in {**ACCURACY, **STABILITY}.items() if metric in present}
    positive = [metric for metric in SHOWN_IF_POSITIVE if any(figures.get(metric, {}).get("value", 0) > 0 for figures in metrics.values())]
    shown |= {metric: SHOWN_IF_POSITIVE[metric] for metric in positive}
    known = {*ACCURACY, *STABILITY, *SHOWN_IF_POSITIVE}
    others = [metric for metric in present if metric not in known and not metric.startswith(IN_TABLE_ONLY)]
    return shown | {metric: NAMES.get(metric, metric.replace("_", " ")) for metric in others}


def figure_text(metric: str, figure: Mapping[str, float] | None) -> str:
    """ "0.712 [0.67, 0.75]"; percentages with one digit; "undefined" for NaN."""
    percent = metric in STABILITY or metric in SHOWN_IF_POSITIVE
    return interval_text(figure, digits=(1, 1) if percent else (3, 2))


def _finite(value: Any) -> Any:  # noqa: ANN401 (any JSON value)
    """The value with None for every float that JSON cannot hold."""
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _git(folder: Path, *arguments: str) -> str | None:
    """Output of a git command that only reads; None when it fails or there is no git."""
    try:
        done = subprocess.run(["git", "--no-optional-locks", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _cpu_name() -> str:
    """Name of the processor; Linux keeps it in /proc/cpuinfo, elsewhere the platform module knows it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
