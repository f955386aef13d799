"""What several tests share: a small tiny model, a picture, a place for ../shared."""

import atexit
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from trust_ledger import LEDGER, counted, tally, write_ledger

__all__ = ["tally"]

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["WANDB_MODE"] = "offline"
os.environ["BIQA_CACHE"] = tempfile.mkdtemp(prefix="biqa-cache-")
atexit.register(shutil.rmtree, os.environ["BIQA_CACHE"], ignore_errors=True)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell has it ignored by what it starts in the background, and so would all runs here
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def tiny() -> Callable[..., object]:
    """Builder of a very small `model=tiny`; keyword arguments replace its options."""
    from biqa.models.tiny import build_tiny

    def build(**options: object) -> object:
        small = {"hidden": 32, "layers": 2, "heads": 2, "tower_hidden": 32, "tower_layers": 1, "grid": 3, "vocabulary": 2048}
        return build_tiny(**(small | {"attention": "sdpa", "vision": True, "seed": 0} | options)).eval()  # pyright: ignore[reportArgumentType]

    return build


@pytest.fixture
def picture() -> Callable[..., Image.Image]:
    """A picture of noise over a gradient, from a seed."""

    def draw(seed: int = 0, size: int = 96) -> Image.Image:
        rng = np.random.default_rng(seed)
        gradient = np.linspace(40, 200, size)[None, :, None] * np.ones((size, 1, 3))
        return Image.fromarray(np.clip(gradient + rng.normal(0, 20, (size, size, 3)), 0, 255).astype(np.uint8))

    return draw


@pytest.fixture
def table(tmp_path: Path, picture: Callable[..., Image.Image]) -> Callable[..., tuple[str, ...]]:
    """Writer of a `table` data set of six pictures; returns the overrides that choose it."""

    def write(splits: Sequence[str] = ("train", "train", "train", "val", "test", "test")) -> tuple[str, ...]:
        lines = ["image,mos,side"]
        for i, split in enumerate(splits):
            picture(i, size=32).save(tmp_path / f"{i}.png")
            lines.append(f"{i}.png,{1 + i / 2},{split}")
        (tmp_path / "scores.csv").write_text("\n".join(lines))
        return ("data=table", f"data.file={tmp_path / 'scores.csv'}", "data.low=1", "data.high=5", "data.split=side")

    return write


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folder of a small checkpoint of a family of `biqa.models.families`, written when first asked for."""
    written: dict[str, Path] = {}

    def folder(family: str) -> Path:
        from checkpoints import write_checkpoint

        if family not in written:
            written[family] = write_checkpoint(tmp_path_factory.mktemp("checkpoints") / family, family)
        return written[family]

    return folder


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real label files and photographs beside the project, where there are any."""
    place = os.environ.get("BIQA_SHARED")
    if not place:
        pytest.skip("BIQA_SHARED is not set: no real data here")
    return Path(place)


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--record-trust`: write what campaigns have counted to docs/trust.json."""
    parser.addoption("--record-trust", action="store_true", help="write what campaigns of faults have tried to docs/trust.json")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Tell what campaigns have counted."""
    counts = counted(report for kind in ("passed", "failed") for report in terminalreporter.getreports(kind))
    for kind, count in sorted(counts.items()):
        figures = "".join(f", {name} {value:.3g}" for name, value in count.figures.items())
        terminalreporter.write_line(f"{kind}: {count.tried} tried, {count.survived} survived{figures}")
    if config.getoption("--record-trust") and counts:
        write_ledger(counts, LEDGER)
