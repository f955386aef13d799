"""The door to a data set: is everything there and the right way up? And what would stage 1 learn to say?

python -m biqa.prepare data=koniq data.root=koniq10k
python -m biqa.prepare --help
"""

import sys

from biqa.doors.help import show_help

if __name__ == "__main__":
    show_help("prepare", sys.argv[1:])

import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from biqa import config as schema
from biqa.doors.opening import open_door, refuse_unknown, user_errors
from biqa.errors import BadRecord, IncompatibleChoice, UserError
from biqa.files import flush, raise_unwritten, told_as

if TYPE_CHECKING:
    from biqa.data.inspection import Check
    from biqa.data.record import Record
    from biqa.data.survey import Look
    from biqa.data.targets import Description, DescriptionSource


@dataclass
class PrepareConfig:
    """What to check, and where to write."""

    data: schema.Data = MISSING
    datasets: str = MISSING
    """Folder that holds the published data sets whose own root is not given."""
    images: schema.Images = MISSING
    descriptions: schema.Descriptions = MISSING
    out: str = MISSING
    """Folder that checks, targets and figures are written to."""
    examples: int = MISSING
    """Number of targets that are shown."""
    near_bits: int = MISSING
    """Pictures in two splits whose 64-bit perceptual hashes differ in so many bits or fewer are reported."""

    def __post_init__(self) -> None:
        problems = [f"examples={self.examples}: choose 0 or more."] if self.examples != MISSING and self.examples < 0 else []
        if self.near_bits != MISSING and not 0 <= self.near_bits <= 32:
            problems.append(f"near_bits={self.near_bits}: choose 0 (equal hashes) to 32 of the 64 bits.")
        if not self.out:
            problems.append("out= is empty: name a folder.")
        if problems:
            raise IncompatibleChoice("\n".join(problems))


ConfigStore.instance().store(name="prepare_schema", node=PrepareConfig, provider="biqa")


@hydra.main(version_base="1.3", config_path=schema.config_directory(), config_name="prepare")
@user_errors
def main(composed: DictConfig) -> None:
    """Check the data set that the options name. Exit code 2 when something is wrong with it."""
    OmegaConf.resolve(composed)
    config = OmegaConf.to_object(composed)
    assert isinstance(config, PrepareConfig)
    refuse_unknown(schema.unknown_options(config), composed)
    prepare(config, composed)


@dataclass
class Found:
    """What the checks of one data set found."""

    name: str
    usable: "list[Record]"
    checks: "list[Check]"
    out: Path
    """Folder to write to."""
    described: "dict[str, Description]" = field(default_factory=dict)


def prepare(config: PrepareConfig, composed: DictConfig) -> None:
    """Look, check, describe, write, show: one data set, or each part of a mixture.

    Raises:
        UserError: the labels cannot be read at all.
        BadRecord: a check found something wrong (all is written and shown before).
        IncompatibleChoice: `out` cannot be made a folder.
    """
    from biqa.data.inspection import Check, check_shared_pictures, inspect
    from biqa.running.instantiate import make
    from biqa.running.loading import import_notes, look_at_images, reduced, training_nodes

    targets = make(composed.descriptions)
    nodes = training_nodes(composed.data)
    sources = [make(node, without=("on_bad_image",), on_bad_image="skip") for node in nodes.values()]
    listed = [reduced(composed, source.records()) for source in sources]
    looks = {}
    found: list[Found] = []
    for source, records in zip(sources, listed, strict=True):
        seen = dict(zip((record.path for record in records), look_at_images(composed, records, {"hash", *targets.parts}), strict=True))
        checks = inspect(source.card, records, seen, near_bits=config.near_bits, parts=targets.parts)
        out = Path(config.out) / source.card.name if len(sources) > 1 else Path(config.out)
        usable = [record for record in records if seen[record.path].unusable(targets.parts) is None]
        found.append(Found(source.card.name, usable, checks, out))
        looks |= seen
    for one, other in permutations(found, 2):
        one.checks.append(check_shared_pictures(one.usable, other.usable, looks, config.near_bits))
    describe(targets, found, looks)
    for source, one in zip(sources, found, strict=True):
        one.checks += [Check("import", "note", note) for note in import_notes(source, targets)]
        write(one.out, one.name, one.usable, one.checks, one.described)
        show(one.name, one.checks, list(one.described.items())[:: max(1, len(one.described) // max(1, config.examples))][: config.examples])
    for one in found:
        if wrong := sum(check.state == "wrong" for check in one.checks):
            raise BadRecord(
                f"{wrong} of {len(one.checks)} checks found something wrong with {one.name}: see the table above, or {one.out / 'checks.json'}."
            )


def describe(targets: "DescriptionSource", found: "list[Found]", looks: "Mapping[Path, Look]") -> None:
    """Fit the description source on all training images and put every usable image into words; a check of each data set says how that went."""
    from biqa.data.inspection import Check
    from biqa.data.splits import require_split

    try:
        targets.fit([record for one in found for record in require_split(one.usable, "train")], looks)
    except UserError as error:
        for one in found:
            one.checks.append(Check("descriptions", "wrong", str(error)))
        return
    for one in found:
        try:
            one.described = {record.image: targets.describe(record) for record in one.usable}
            one.checks.append(Check("descriptions", "ok", f"{len(one.described)} written, none gives the answer away"))
        except UserError as error:
            one.checks.append(Check("descriptions", "wrong", str(error)))


def write(out: Path, name: str, usable: "list[Record]", checks: "list[Check]", described: "dict[str, Description]") -> None:
    """checks.json, targets.jsonl (to read, or for descriptions=file) and the two figures.

    Raises:
        IncompatibleChoice: `out` cannot be made a folder.
        Unwritten: the disk is full, or takes nothing.
    """
    from biqa.reporting.data_figures import draw_contact_sheet, draw_histogram

    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise_unwritten(error, out)
        raise IncompatibleChoice(f"out={out} cannot be made ({error.strerror}). Choose a folder that you may write to.") from error
    lines = [
        {"image": record.image, "split": record.split, "q": record.q, "description": target.text, "features": target.features}
        for record in usable
        if (target := described.get(record.image))
    ]
    for left in out.glob(".unfinished-*"):  # by a call that was killed
        shutil.rmtree(left, ignore_errors=True)
    with told_as(out), tempfile.TemporaryDirectory(dir=out, prefix=".unfinished-") as temporary:
        place = Path(temporary)
        (place / "checks.json").write_text(json.dumps([asdict(check) for check in checks], indent=2) + "\n", encoding="utf-8")
        (place / "targets.jsonl").write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
        if usable:
            draw_histogram(name, usable).savefig(place / "figure.png", dpi=150)
            draw_contact_sheet(name, usable).savefig(place / "contact_sheet.png", dpi=110)
        for file in place.iterdir():
            flush(file)
        for file in place.iterdir():
            file.replace(out / file.name)


def show(name: str, checks: "list[Check]", examples: "list[tuple[str, Description]]") -> None:
    """The checks as a table, and some of the targets."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    marks = {"ok": "[green]ok[/green]", "note": "[yellow]note[/yellow]", "wrong": "[red]WRONG[/red]"}
    table = Table("check", "", "found", title=name)
    for check in checks:
        table.add_row(check.name, marks[check.state], escape(check.text))
    console.print(table)
    for image, target in examples:
        console.print(f"[bold]{escape(image)}[/bold]: {escape(target.text)}")


if __name__ == "__main__":
    schema.register()
    open_door(main)
