"""Hydra in half the time, for tests that call doors in their own process."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from unittest.mock import patch

from hydra._internal.hydra import Hydra
from hydra.core.config_store import ConfigStore
from hydra.types import RunMode


@contextmanager
def without_detours(arguments: Sequence[str] = ()) -> Iterator[None]:
    """Composing what was typed as Hydra does, without two things that it does for nothing.

    It copies its store a hundred times a composition; and it composes all to find out that this is no sweep, and then again.
    """
    with patch.object(ConfigStore, "__deepcopy__", lambda store, _: store, create=True):
        if any(argument.startswith(("-m", "--multirun", "sweep=")) for argument in arguments):
            yield
            return
        with patch.object(Hydra, "get_mode", lambda *_, **__: RunMode.RUN):
            yield
