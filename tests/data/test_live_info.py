"""How strongly LIVE's images are distorted: made-up info.txt files in the form of the release's readme (no real one is at hand)."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr
from test_live import COPIES, IMAGES, REALIGNED, REFERENCES, write_release

from biqa.data.inspection import check_direction
from biqa.data.live import COUNTS, KINDS, Live
from biqa.data.targets import DistortionTargets
from biqa.errors import BadRecord
from biqa.language.features import parse


def write_info(folder: Path, dmos: np.ndarray[Any, Any] = REALIGNED, direction: int = 1) -> None:
    """An info.txt in every folder: a parameter that follows the DMOS (but for `direction` -1) with ties, 0 for copies; any order, blank lines."""
    rank = np.argsort(np.argsort(dmos)) / len(dmos)
    start = 0
    for place, count in COUNTS.items():
        lines = []
        for number in range(1, count + 1):
            entry = start + number - 1
            value = 0.0 if COPIES[entry] else 5 - 4 * rank[entry] if KINDS[place][2] * direction < 0 else 1 + 4 * rank[entry]
            lines.append(f"{REFERENCES[entry]} img{number}.bmp {value:.2f} ")
        order = np.random.default_rng(start).permutation(count)
        (folder / place / "info.txt").write_bytes("\r\r\n".join(lines[line] for line in order).encode())
        start += count


def test_info_files_give_kinds_and_levels_in_fifths(tmp_path: Path) -> None:
    folder = write_release(tmp_path)
    plain = Live(root=folder).records()
    write_info(folder)
    records = Live(root=folder).records()
    assert [(r.image, r.q, r.split) for r in records] == [(r.image, r.q, r.split) for r in plain]
    kinds = {"jp2k": "jpeg2000", "jpeg": "jpeg", "wn": "white_noise", "gblur": "gaussian_blur", "fastfading": "jpeg2000_errors"}
    for place, kind in kinds.items():
        own = [r for r in records if r.path.parent.name == place]
        assert {r.distortions[0][0] for r in own} == {kind}
        levels = [r.distortions[0][1] for r in own]
        assert [levels.count(level) / len(own) for level in range(1, 6)] == pytest.approx([0.2] * 5, abs=0.04)
        assert spearmanr(levels, [r.score for r in own]).statistic > 0.95
    assert check_direction(Live(root=folder).card, records).state == "ok"
    assert {r.absent for r in records} == {""}


def test_levels_in_words_and_back(tmp_path: Path) -> None:
    folder = write_release(tmp_path)
    write_info(folder)
    records = Live(root=folder).records()
    targets = DistortionTargets(seed=0)
    targets.fit([r for r in records if r.split == "train"])
    assert all(parse(targets.describe(r).text) == dict(r.distortions) for r in records)


def test_without_all_of_them_distortions_are_not_known_and_the_message_says_what_is_missing(tmp_path: Path) -> None:
    folder = write_release(tmp_path)
    write_info(folder)
    (folder / "wn" / "info.txt").unlink()
    (folder / "gblur" / "info.txt").unlink()
    records = Live(root=folder).records()
    assert {r.distortions for r in records} == {()}
    with pytest.raises(BadRecord) as error:
        DistortionTargets().fit(records)
    assert str(error.value) == (
        f"Image {records[0].image}, like the other 778 training images of its data set, has no known distortion. {folder} lacks wn/info.txt, "
        f"gblur/info.txt, where the strength of each distortion stands: take it from the official archive. "
        f"Choose descriptions=measured, which describes any image, or descriptions=attributes or descriptions=file."
    )


def test_a_direction_that_the_opinions_deny_is_refused_and_not_turned_round(tmp_path: Path) -> None:
    folder = write_release(tmp_path)
    write_info(folder, direction=-1)
    message = (
        r"jp2k/info\.txt: a lower bit rate should distort more, but levels by it do not rise with the DMOS \(SRCC -0\.\d\d\)\. "
        r"Use the file of the official archive, or take it away to do without known distortions\."
    )
    with pytest.raises(BadRecord, match=message):
        Live(root=folder).records()
    write_info(folder)
    info = folder / "wn" / "info.txt"
    info.write_text("\n".join(f"x.bmp img{number}.bmp 0.5" for number in range(1, 175)))  # says nothing
    with pytest.raises(BadRecord, match=r"wn/info\.txt: a higher sigma should distort more, .*\(SRCC 0\.00\)"):
        Live(root=folder).records()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("bikes.bmp img1.bmp", r'gblur/info\.txt, line 174: "bikes\.bmp img1\.bmp" is not such as "bikes\.bmp img7\.bmp 0\.25"\. Use the file of'),
        ("bikes.bmp img1.bmp high", r'line 174: "bikes\.bmp img1\.bmp high" is not such as'),
        ("bikes.bmp img1.bmp nan", r"is not such as"),
        ("bikes.bmp one.bmp 0.25", r"is not such as"),
        ("bikes.bmp IMG2.BMP 0.25", r"gblur/info\.txt, line 174: IMG2\.BMP has a line already\."),
        ("", r"gblur/info\.txt: there is no line for gblur/img\d+\.bmp, which is distorted \(.*dmos_realigned\.mat, entry \d+\)\."),
        ("bikes.bmp {image} 0.000", r"gblur/img\d+\.bmp has a sigma of 0, as a copy of its reference, yet it is distorted \(.*entry \d+\)\."),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    folder = write_release(tmp_path)
    write_info(folder)
    info = folder / "gblur" / "info.txt"
    distorted = next(IMAGES[entry].split("/")[1] for entry in np.flatnonzero(~COPIES) if IMAGES[entry].startswith("gblur/"))
    lines = [kept for kept in info.read_text().split("\n") if kept.strip() and f" {distorted} " not in kept]
    info.write_text("\n".join([*lines, line.format(image=distorted)]))
    with pytest.raises(BadRecord, match=message):
        Live(root=folder).records()
