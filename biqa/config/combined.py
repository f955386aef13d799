"""Choices that are made of others: `data=koniq+spaq` (a mixture) and `test=live+csiq` (data sets to test on).

Hydra asks every source of configs for `data/koniq+spaq`. No file has that name; the source below answers with a defaults list of the parts. So such a
choice can stand wherever a choice can: on the command line, in a sweep, in a YAML of one's own.
"""

from pathlib import Path
from typing import Any

from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult, ConfigSource
from omegaconf import DictConfig, OmegaConf

DESCRIPTIONS = "override /descriptions@_global_.descriptions"
ANY_IMAGE = "measured"
"""Descriptions of a mixture whose parts would choose differently: the source that suits every image."""


class Combined(ConfigSource):
    """Answers for `data/a+b` and for `test/a` and `test/a+b`, where `a` and `b` are files of conf/data/."""

    @staticmethod
    def scheme() -> str:
        """As it stands in `hydra.searchpath`."""
        return "combined"

    def available(self) -> bool:
        """Always."""
        return True

    def is_group(self, config_path: str) -> bool:
        """The group `test` has no folder in conf/."""
        return config_path.rstrip("/") == "test"

    def is_config(self, config_path: str) -> bool:
        """Whether it is one of those, and every part has its file."""
        group, parts = _parts(config_path)
        return (group == "test" or (group == "data" and len(parts) > 1)) and all(_file(part).is_file() for part in parts)

    def load_config(self, config_path: str) -> ConfigResult:
        """The defaults list of the parts, each under its own name."""
        group, parts = _parts(config_path)
        if group == "test":
            content: dict[str, Any] = {"defaults": [{f"/data@{part}": part} for part in parts]}
        else:
            wanted = {self._descriptions(part) for part in parts}
            descriptions = wanted.pop() if len(wanted) == 1 else ANY_IMAGE
            defaults = ["/schema/mixture@_here_", *({f"/data@parts.{part}": part} for part in parts), {DESCRIPTIONS: descriptions}]
            content = {"defaults": defaults, "weights": dict.fromkeys(parts, 1.0)}
        return ConfigResult(provider="biqa", path="combined://", config=OmegaConf.create(content), header={"package": None})

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        """What --help shows: nothing, as any combination will do."""
        return []

    def _descriptions(self, part: str) -> str:
        """What conf/data/<part>.yaml chooses by itself."""
        config = OmegaConf.load(_file(part))
        assert isinstance(config, DictConfig)
        return next(str(entry[DESCRIPTIONS]) for entry in config["defaults"] if DESCRIPTIONS in entry)


def _parts(config_path: str) -> tuple[str, list[str]]:
    """ "data/koniq+spaq" -> ("data", ["koniq", "spaq"])."""
    group, _, name = config_path.removesuffix(".yaml").rpartition("/")
    return group, name.split("+")


def _file(part: str) -> Path:
    """Asked for each time: a job of a launcher imports this module without `register`."""
    from biqa.config import config_directory

    return Path(config_directory()) / "data" / f"{part}.yaml"


def register() -> None:
    """Make the source known to Hydra, which finds it through `hydra.searchpath: [combined://]`."""
    Plugins.instance().register(Combined)
