"""What no run writes into result.json, so that somebody has edited it: doors take what is left as it stands."""

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

CHOICES = ("name", "model", "stage", "data", "descriptions", "tuning")
"""What `run` has at least."""
ASKED = ("repeats", "temperature", "top_p")
"""What `sampling` has at least."""
MAPPINGS = ("run", "metrics", "sampling", "data", "config", "versions", "hardware", "seconds")


def odd_values(result: Mapping[str, Any]) -> Iterator[str]:
    """A sentence without its full stop for each thing that no run writes; the first is the one to tell."""
    if wrong := next((key for key in MAPPINGS if not isinstance(result[key], dict)), None):
        yield f"{wrong} is no mapping"
        return
    if isinstance(result["seed"], bool) or not isinstance(result["seed"], int):
        yield "seed is no whole number"
    yield from (
        f"run.{choice} is no text" for choice in {**dict.fromkeys(CHOICES), **result["run"]} if not isinstance(result["run"].get(choice), str)
    )
    yield from (f"sampling.{name} is no number" for name in ASKED if result["sampling"].get(name) is None or not _is_number(result["sampling"][name]))
    yield from (f"seconds.{phase} is no number" for phase, spent in result["seconds"].items() if spent is None or not _is_number(spent))
    yield from (f"data.{name} is no mapping with images and stand_in" for name, facts in result["data"].items() if not _are_facts(facts))
    yield from chain.from_iterable(_of_dataset(name, figures, result["data"]) for name, figures in result["metrics"].items())


def _of_dataset(name: str, figures: object, data: Mapping[str, Any]) -> Iterator[str]:
    if not name or name in (".", "..") or set(name) & set("/\\\0"):
        yield f"{name!r} is no name of a data set, by which its files are called"
    if name not in data:
        yield f"metrics.{name} is of a data set that is not under data"
    if not isinstance(figures, dict):
        yield f"metrics.{name} is no mapping"
        return
    for metric, figure in figures.items():
        if not isinstance(figure, dict) or not {"value", "low", "high"} <= figure.keys() or not all(map(_is_number, figure.values())):
            yield f"metrics.{name}.{metric} is no figure with its interval"


def _are_facts(facts: object) -> bool:
    return isinstance(facts, dict) and isinstance(facts.get("images"), int) and isinstance(facts.get("stand_in"), bool)


def _is_number(value: object) -> bool:
    """Whether it is a number that arithmetic takes, or null: what is undefined."""
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 10**300)
