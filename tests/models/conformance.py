"""The table of backbones and what holds for each, as the README shows it: `make conformance` runs the suite and writes it.

python tests/models/conformance.py
"""

import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"
BEGIN, END = "<!-- conformance: written by make conformance -->", "<!-- end of conformance -->"

POINTS = {
    "labels": "the loss is on the answer alone",
    "level": "level logits at the last real position, however padded",
    "transformers": "prompt, pixels and greedy answer are those of transformers' processor and `generate`",
    "samples": "N samples from one prefill are those of asking one by one",
    "features": "features of a frozen tower, from disk, are what the tower gives: loss, gradients, answers",
    "text": "stage 2 on the decoder alone, tower not read",
    "packed": "texts of stage 2 that share a row are learnt as if each had its own",
    "layers": "hidden states and attention of every layer",
    "lens": "logit lens: the last layer says what the model says",
    "attends": "attention before the level word: sums to 1, groups partition the context",
    "lora": "`tuning=lora`: a step, saved, read back, handed to stage 2",
    "nf4": "the same with `quantization=nf4`",
    "full": "`tuning=full`: a step, parts frozen",
    "saved": "what was learnt reads back the same; adapters with PEFT alone",
    "plain": "full weights load with transformers alone",
    "tokens": "`model.visual_tokens` holds for any picture",
}
"""Test of the suite (`test_<name>`) -> what it shows, a row each."""
REFUSED = {
    ("owl2", "plain"): "transformers has no class of mPLUG-Owl2: its weights load with `biqa.models.owl2`",
    ("owl2", "tokens"): "mPLUG-Owl2 turns every image into 65 tokens, whatever its size",
    ("llava", "tokens"): "LLaVA-1.5's CLIP tower takes one size of picture; a LLaVA with a DINOv2 tower takes any, and there the option holds",
}
"""(backbone, point) -> why it does not hold."""


def table(outcomes: Mapping[tuple[str, str], str]) -> str:
    """Markdown: a point a row, a backbone a column.

    Args:
        outcomes: (backbone, point) -> "" where it holds, else the reason.
    """
    backbones = list(dict.fromkeys(backbone for backbone, _ in outcomes))
    notes = list(dict.fromkeys(reason for reason in outcomes.values() if reason))
    rows = [["", *(f"`{backbone}`" for backbone in backbones)], ["---"] * (len(backbones) + 1)]
    for point, title in POINTS.items():
        reasons = [outcomes[backbone, point] for backbone in backbones]
        rows.append([title, *(f"no ({notes.index(reason) + 1})" if reason else "yes" for reason in reasons)])
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([*lines, *(f"\n({number}) {note}" for number, note in enumerate(notes, 1))])


def block(text: str) -> str:
    """What stands between the two marks of a README."""
    return text.partition(BEGIN)[2].partition(END)[0].strip()


class Collected:
    """A pytest plugin: what became of each backbone and point."""

    def __init__(self) -> None:
        self.outcomes: dict[tuple[str, str], str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """The call of each test; what fails in its fixtures, or is skipped, does not hold either."""
        name, _, rest = report.nodeid.rpartition("::")[2].removeprefix("test_").partition("[")
        if name not in POINTS or (report.when != "call" and report.passed):
            return
        held = report.passed and not hasattr(report, "wasxfail")
        reason = "" if held else getattr(report, "wasxfail", "") or str(report.longrepr)[-200:]
        key = rest.rstrip("]").split("-")[0], name
        self.outcomes[key] = self.outcomes.get(key) or reason


def main() -> int:
    """Run the suite and write the table. An unexpected failure writes nothing."""
    collected = Collected()
    code = pytest.main(["-q", "-k", "not readme", str(Path(__file__).with_name("test_conformance.py"))], plugins=[collected])
    if code:
        return int(code)
    text = README.read_text()
    README.write_text(text.replace(block(text), table(collected.outcomes)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
