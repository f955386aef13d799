"""Sweeps that a launcher runs in parallel: which runs wait for which, and what is said when a launcher is missing or one of its jobs fails.

python -m biqa.run -m stage=1,2 seed=0,1 hydra/launcher=submitit_slurm hydra.launcher.partition=gpu
"""

from collections.abc import Sequence
from pathlib import Path

from omegaconf import OmegaConf

EXTRAS = {"hydra_submitit_launcher": "slurm", "hydra_ray_launcher": "ray"}
"""Plugin -> the extra that installs it."""
LAUNCHER = "hydra/launcher="


def in_order(arguments: Sequence[str], conf: Path) -> list[list[str]]:
    """The sweeps to run one after another, mostly one.

    Hydra's own launcher runs job after job, so that a stage 2 finds the stage 1 of the same sweep. Others start all at once: there the sweep is
    divided, and stage 2 begins when all other stages are done.

    Args:
        arguments: what was typed, stages by name.
        conf: folder of the configs, for the stages of `sweep=NAME`.
    """
    launchers = [value.removeprefix(LAUNCHER) for value in arguments if value.startswith(LAUNCHER)]
    if not launchers or launchers[-1] == "basic":
        return [list(arguments)]
    for group in ("stage", "experiment"):
        stage_of = {choice: _stage(group, choice, conf) for choice in _choices(group, arguments, conf)}
        if {"perception", "inference"} <= set(stage_of.values()):
            others = [value for value in arguments if not value.startswith(f"{group}=")]
            first = ",".join(choice for choice, stage in stage_of.items() if stage != "inference")
            second = ",".join(choice for choice, stage in stage_of.items() if stage == "inference")
            return [[*others, f"{group}={first}"], [*others, f"{group}={second}"]]
    return [list(arguments)]


def _choices(group: str, arguments: Sequence[str], conf: Path) -> list[str]:
    """The choices of a group in a sweep: typed, or those of `sweep=NAME`."""
    chosen = dict(value.split("=", 1) for value in arguments if value.startswith((f"{group}=", "sweep=")))
    if group in chosen:
        return chosen[group].split(",")
    file = conf / "sweep" / f"{chosen.get('sweep')}.yaml"
    typed = OmegaConf.select(OmegaConf.load(file), "hydra.sweeper.params") if file.is_file() else None
    return str((typed or {}).get(group) or "").split(",")


def _stage(group: str, choice: str, conf: Path) -> str:
    """The stage of a choice of stage or of experiment; "" for an experiment that leaves it open."""
    if group == "stage":
        return choice
    file = conf / "experiment" / f"{choice}.yaml"
    defaults = (OmegaConf.select(OmegaConf.load(file), "defaults") or []) if file.is_file() else []
    return next((str(entry["override /stage"]) for entry in defaults if "override /stage" in entry), "")


def missing_launcher(error: Exception) -> str | None:
    """What to install when that is why Hydra could not start a launcher, else None."""
    plugin = next((name for name in EXTRAS if f"hydra_plugins.{name}." in str(error)), None)
    if plugin is None or "Unknown plugin class" not in str(error):
        return None
    package = plugin.replace("_", "-")
    return f"This launcher needs {package}, which is not installed: pip install 'biqa[{EXTRAS[plugin]}]' (or pip install {package})."


def failed_job(error: Exception) -> str | None:
    """What happened when a job of a launcher failed, else None; the job has said itself why."""
    if type(error).__module__.startswith("submitit."):
        return f"A job of the sweep failed; the others go on.\n{error}"
    if type(error).__module__.startswith("ray."):
        return f"A job of the sweep failed: what it said stands beside `(_run_job pid=...)`. Jobs that ran are stopped; ckpt=last goes on.\n{error}"
    return None
