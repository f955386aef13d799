"""A search over options: Optuna proposes, biqa.run trains, the validation split judges. The test split has no say.

    python -m biqa.search stage=joint data=livec 'tuning.lr=tag(log,interval(1e-5,1e-3))' 'tuning.rank=choice(4,8,16)' search.trials=20
    python -m biqa.search search=learning_rate stage=joint data=livec

An option whose value is a range is searched: interval(low,high), tag(log,interval(low,high)) on a logarithmic scale, int(interval(low,high)) for
whole numbers, choice(a,b,c) or a,b,c. All others hold for every trial. A trial is a run as any other, in a process and a folder of its own; one that
fails is recorded. The same command goes on with the study, also after a kill; several at once share it. Options of the search itself stand in
conf/search/default.yaml.
"""

import sys

from biqa.doors.arguments import show_text

if __name__ == "__main__":
    show_text(__doc__, sys.argv[1:])

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, QuotedString
from omegaconf import MISSING, OmegaConf, open_dict

from biqa import config as schema
from biqa.config.checks import did_you_mean, nearest
from biqa.doors.opening import open_door, refuse_unknown, user_errors
from biqa.errors import IncompatibleChoice
from biqa.planning.studies import METRICS, Range, Study, TrialRun
from biqa.run import numbers_to_words
from biqa.runs import STAGE_ONE

PREFIX = "search."


@dataclass
class SearchOptions:
    """How to search."""

    study: str = MISSING
    """Folder below `runs` for the study's journal, its table and what the trials say."""
    trials: int = MISSING
    """Trials in all, whoever runs them."""
    metric: str = MISSING
    """Figure of the validation split: "val/srcc", "val/plcc" or "val/loss"."""
    take: str = MISSING
    """Its value at the "last" validation (of the weights that a run ends with) or the "best"."""
    seed: int = MISSING
    """Draws the proposals."""
    prune: bool = MISSING
    """Stop a trial whose figure is worse than the median of the others at the same validation."""
    overrides: list[str] = field(default_factory=list)
    """What every trial gets beyond what was typed."""
    space: dict[str, str] = field(default_factory=dict)
    """Option -> range, beyond what was typed."""

    def __post_init__(self) -> None:
        problems = [
            (self.metric not in METRICS, f"search.metric={self.metric} is no figure of the validation split: choose {', '.join(METRICS)}."),
            (self.take not in ("last", "best"), f"search.take={self.take} is not known: choose last or best."),
            (self.trials < 1, f"search.trials={self.trials}: choose 1 or more."),
            (self.study in ("", ".", "..") or "/" in self.study, f"search.study={self.study} is no name of a folder."),
        ]
        if wrong := [text for holds, text in problems if holds]:
            raise IncompatibleChoice("\n".join(wrong))


ConfigStore.instance().store(name="search_schema", node=SearchOptions, provider="biqa")


def main() -> None:
    """Check what was typed, and search."""
    typed = sys.argv[1:]
    if not typed or {"-h", "--help"} & set(typed):
        print(__doc__)
        return
    if flags := [argument for argument in typed if argument.startswith("-")]:
        raise IncompatibleChoice(f"{' '.join(flags)}: a search takes options alone (NAME=VALUE).")
    schema.register()
    with initialize_config_dir(config_dir=schema.config_directory(), version_base="1.3"):
        options = search_options(typed)
        own = numbers_to_words([argument for argument in typed if not argument.startswith((PREFIX, "search="))])
        space, fixed = divided([*own, *(f"{name}={value}" for name, value in options.space.items())])
        example = {name: given.choices[0] if given.choices else given.low for name, given in space.items()}
        folder = (
            composed_run([*fixed, *options.overrides], example, options.metric).folder.parent / options.study
        )  # now: a typo must not cost a trial
        search(options, space, fixed, folder)


def search_options(typed: Sequence[str]) -> SearchOptions:
    """The options of the search among what was typed.

    Raises:
        IncompatibleChoice: there is no file of that name.
    """
    name = next((argument.removeprefix("search=") for argument in typed if argument.startswith("search=")), "default")
    known = sorted(file.stem for file in Path(schema.config_directory(), "search").glob("*.yaml"))
    if name not in known:
        meant = did_you_mean([f"search={one}" for one in nearest(name, known)])
        raise IncompatibleChoice(f"There is no search={name}.{meant} Choices: {', '.join(known)}.")
    composed = compose(f"search/{name}", [argument for argument in typed if argument.startswith(PREFIX)])
    options = OmegaConf.to_object(composed.search)
    assert isinstance(options, SearchOptions)
    return options


def divided(arguments: Sequence[str]) -> tuple[dict[str, Range], list[str]]:
    """What is searched, and what holds for all trials.

    Raises:
        IncompatibleChoice: nothing is searched, or a range is none.
    """
    space: dict[str, Range] = {}
    fixed: list[str] = []
    for argument, override in zip(arguments, OverridesParser.create().parse_overrides(list(arguments)), strict=True):
        if not override.is_sweep_override():
            fixed.append(argument)
            continue
        value, name = override.value(), override.get_key_element()
        if isinstance(value, ChoiceSweep):
            space[name] = Range(choices=tuple(choice.text if isinstance(choice, QuotedString) else choice for choice in value.list))
        elif isinstance(value, IntervalSweep) and value.start is not None and value.end is not None and value.start < value.end:
            space[name] = Range(low=value.start, high=value.end, log="log" in value.tags)
        else:
            raise IncompatibleChoice(f"{argument}: write interval(low,high) with low below high, tag(log,interval(low,high)) or choice(a,b,c).")
        if space[name].log and not space[name].low > 0:
            raise IncompatibleChoice(f"{argument}: a logarithmic range begins above 0.")
    if not space:
        raise IncompatibleChoice("Nothing is searched: give an option a range, as in 'tuning.lr=tag(log,interval(1e-5,1e-3))', or search=NAME.")
    return space, fixed


def composed_run(fixed: Sequence[str], chosen: Mapping[str, Any], metric: str) -> TrialRun:
    """Check a trial's options and find its folder.

    Raises:
        UserError: its options cannot go together, or it gives no such figure.
    """
    arguments = [*fixed, *numbers_to_words([f"{name}={value}" for name, value in chosen.items()])]
    composed = compose("config", arguments, return_hydra_config=True)
    HydraConfig.instance().set_config(composed)
    with open_dict(composed):
        del composed["hydra"]
    config = OmegaConf.to_object(composed)
    assert isinstance(config, schema.Config)
    refuse_unknown(schema.unknown_options(config), composed)
    if config.stage.epochs == 0:
        raise IncompatibleChoice("This stage trains nothing by steps: it has no validation figure to search by.")
    if config.stage._target_ == STAGE_ONE and metric != "val/loss":
        raise IncompatibleChoice(f"stage=1 predicts no quality: it has no {metric}. Choose search.metric=val/loss.")
    if "CurveLogger" not in str((config.logger or {}).get("_target_")):
        raise IncompatibleChoice("A search reads logs/metrics.csv of its runs: leave logger=csv.")
    return TrialRun(arguments, Path(config.runs) / config.name)


@user_errors
def search(options: SearchOptions, space: Mapping[str, Range], fixed: Sequence[str], folder: Path) -> None:
    """Trials until there are as many as asked for, then the table. Exit code 1 when none gave a figure."""
    given = [*fixed, *options.overrides]
    study = Study(
        folder, space=space, metric=options.metric, take=options.take, seed=options.seed, prune=options.prune,
        given=given, compose=lambda chosen: composed_run(given, chosen, options.metric),
    )  # fmt: skip
    study.run(options.trials)
    study.show()
    if (best := study.best()) is None:
        print(f"No trial gave a figure. The last one said: {study.last_words()}", file=sys.stderr)
        raise SystemExit(1)
    print("The best again: " + " ".join(["python -m biqa.run", *fixed, *(f"{name}={value}" for name, value in best.items())]))


if __name__ == "__main__":
    open_door(main, flags=False)
