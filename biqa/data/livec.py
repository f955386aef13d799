"""LIVE in the Wild, as unzipped from the authors' archive."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy.io import loadmat

from biqa.data.record import Card, Record
from biqa.data.splits import split_by_group
from biqa.errors import BadRecord, DatasetNotFound

LAYOUT = """
ChallengeDB_release/
  Images/*.bmp, *.JPG
  Data/AllImages_release.mat, AllMOS_release.mat, AllStdDev_release.mat"""

TRAINING = tuple(f"t{number}.bmp" for number in range(1, 8))


class LiveC:
    """LIVE In the Wild Image Quality Challenge Database (CLIVE, LIVE-itw).

    | | |
    |---|---|
    | Source | https://live.ece.utexas.edu/research/ChallengeDB/index.html (on request) |
    | Citation | D. Ghadiyaram, A. C. Bovik, "Massive Online Crowdsourced Study of Subjective and Objective Picture Quality", IEEE TIP 25(1), 2016 |
    | Licence | free to use, copy and distribute with the copyright notice of its README.txt (Copyright 2015 The University of Texas at Austin) |
    | Images | 1162 photographs of mobile cameras with authentic distortions; 535 .bmp and 627 .JPG (upper case), nearly all 500 x 500 |
    | Score | MOS 3.42..92.43 on a scale of 0..100, higher is better; standard deviation of the opinions 6.76..28.59 |
    | Groups | none: every image has its own content |
    | Split | none published; by convention random 80/20 (validation comes out of the 80), over several seeds |

    The label files begin with the seven images t1..t7 that observers were trained with; those lie in Images/trainingImages and are left
    out. A release with fewer images reads the same, as long as its three label files agree.

    Args:
        root: folder ChallengeDB_release, or the folder that holds it.
        split_seed: draws the random split.
        val_share: share of all images held out for validation.
        test_share: share of all images held out for test.
        on_bad_image: "stop" refuses a label whose image is missing; "skip" leaves that to `biqa.data.images.check_images`, which counts and lists it.
    """

    def __init__(
        self,
        *,
        root: str | Path,
        split_seed: int = 0,
        val_share: float = 0.1,
        test_share: float = 0.2,
        on_bad_image: Literal["stop", "skip"] = "stop",
    ) -> None:
        self.root = Path(root)
        self.split_seed = split_seed
        self.val_share = val_share
        self.test_share = test_share
        self.on_bad_image = on_bad_image

    @property
    def card(self) -> Card:
        """Scale and direction."""
        return Card(name="livec", low=0.0, high=100.0, direction="mos")

    def records(self) -> list[Record]:
        """One record an image, in the order of the label files. The split is drawn over all labelled images, present or not.

        Raises:
            DatasetNotFound: the folder or a label file is not there, or is not what its name says.
            BadRecord: the label files disagree, a score is off the scale, or (on_bad_image="stop") an image is missing.
        """
        folder = self._folder()
        names, scores, deviations = self._labels(folder / "Data")
        sides = split_by_group(names, val_share=self.val_share, test_share=self.test_share, seed=self.split_seed)
        records = []
        rows = zip(names, scores, deviations, sides, strict=True)
        for row, (name, score, deviation, side) in enumerate(rows, start=len(TRAINING) + 1):
            where = f"{folder / 'Data' / 'AllImages_release.mat'}, row {row} ({name})"
            path = folder / "Images" / name
            if self.on_bad_image == "stop" and not path.is_file():
                raise BadRecord(f"{where}: the image {path} is missing. Unzip it again, or set data.on_bad_image=skip to leave such images out.")
            q = self.card.quality(score, where)
            records.append(Record(image=name, path=path, q=q, split=side, group=name, score=score, q_std=deviation / 100.0))
        return records

    def _folder(self) -> Path:
        for folder in (self.root, self.root / "ChallengeDB_release"):
            if (folder / "Data").is_dir() and (folder / "Images").is_dir():
                return folder
        raise DatasetNotFound(
            f"{self.root}: LIVE in the Wild is not there. Set data.root= to the unzipped folder, which looks like this:{LAYOUT}\n"
            f"Ask for it at https://live.ece.utexas.edu/research/ChallengeDB/index.html"
        )

    def _labels(self, folder: Path) -> tuple[list[str], list[float], list[float]]:
        """Names, MOS and standard deviations without the seven training images."""
        names = [str(cell.item()) for cell in _array(folder, "AllImages_release")]
        scores = _array(folder, "AllMOS_release").astype(np.float64).tolist()
        deviations = _array(folder, "AllStdDev_release").astype(np.float64).tolist()
        if not len(names) == len(scores) == len(deviations):
            raise BadRecord(
                f"{folder}: {len(names)} image names, {len(scores)} scores and {len(deviations)} deviations. Unzip the three files again."
            )
        count = len(TRAINING)
        if tuple(names[:count]) != TRAINING:
            raise BadRecord(
                f"{folder / 'AllImages_release.mat'}: the first seven names are {', '.join(names[:count])} and not the training images "
                f"t1.bmp to t7.bmp. Use the label files of the official archive, or read your own with data=table."
            )
        return names[count:], scores[count:], deviations[count:]


def _array(folder: Path, name: str) -> np.ndarray[Any, Any]:
    """The one variable of a label file, flat."""
    file = folder / f"{name}.mat"
    if not file.is_file():
        raise DatasetNotFound(f"{file}: there is no such file. The unzipped folder looks like this:{LAYOUT}")
    try:
        return loadmat(file, variable_names=[name])[name].ravel()
    except Exception as error:  # the reader fails in many ways on a damaged file
        raise DatasetNotFound(f"{file}: holds no variable {name} in MATLAB's format up to 7.2. Unzip it again.") from error
