"""LIVE in the Wild, as unzipped from the authors' archive."""

from biqa.data.layout import Folder
from biqa.data.matlab import read_names, read_numbers
from biqa.data.official import Entry, OfficialSet, Release
from biqa.data.record import Card
from biqa.errors import BadRecord

NAMES = "Data/AllImages_release.mat"
SCORES = "Data/AllMOS_release.mat"
DEVIATIONS = "Data/AllStdDev_release.mat"
TRAINING = tuple(f"t{number}.bmp" for number in range(1, 8))


class LiveC(OfficialSet):
    """LIVE In the Wild Image Quality Challenge Database (CLIVE, LIVE-itw).

    | | |
    |---|---|
    | Source | https://live.ece.utexas.edu/research/ChallengeDB/index.html (on request) |
    | Citation | D. Ghadiyaram, A. C. Bovik, "Massive Online Crowdsourced Study of Subjective and Objective Picture Quality", IEEE TIP 25(1), 2016 |
    | Licence | free to use, copy and distribute with the copyright notice of its README.txt (Copyright 2015 The University of Texas at Austin) |
    | Images | 1162 photographs of mobile cameras with authentic distortions; 535 .bmp and 627 .JPG (upper case), nearly all 500 x 500 |
    | Score | MOS 3.42..92.43 on a scale of 0..100, higher is better |
    | Deviation | standard deviation of the opinions, 6.76..28.59 |
    | Groups | none: every image has its own content |
    | Split | none published; by convention random 80/20 (validation comes out of the 80), over several seeds |

    The label files begin with the seven images t1..t7 that observers were trained with; those lie in Images/trainingImages and are left
    out. A release with fewer images reads the same, as long as its three label files agree.

    Args: see OfficialSet.
    """

    card = Card(name="livec", low=0.0, high=100.0, direction="mos", images=1162, published=(3.42, 92.44))
    protocols = ("random",)
    release = Release(
        title="LIVE in the Wild",
        folders=("ChallengeDB_release",),
        needs=("Data", "Images"),
        layout=f"ChallengeDB_release/\n  Images/*.bmp, *.JPG\n  {NAMES}, AllMOS_release.mat, AllStdDev_release.mat",
        source="https://live.ece.utexas.edu/research/ChallengeDB/index.html (on request)",
    )

    def entries(self, folder: Folder) -> list[Entry]:
        """The rows of the three label files without the seven training images."""
        file = folder.expect(NAMES)
        names = read_names(file, "AllImages_release")
        scores = read_numbers(folder.expect(SCORES), "AllMOS_release")
        deviations = read_numbers(folder.expect(DEVIATIONS), "AllStdDev_release")
        if not len(names) == len(scores) == len(deviations):
            raise BadRecord(f"{file.parent}: {len(names)} image names, {len(scores)} scores and {len(deviations)} deviations. Unpack them again.")
        if tuple(names[: len(TRAINING)]) != TRAINING:
            raise BadRecord(
                f"{file}: the first seven names are {', '.join(names[: len(TRAINING)])} and not the training images "
                f"t1.bmp to t7.bmp. Use the label files of the official archive, or read your own with data=table."
            )
        rows = list(enumerate(zip(names, scores, deviations, strict=True), start=1))[len(TRAINING) :]
        return [
            Entry(where=f"{file}, row {row} ({name})", image=name, file=f"Images/{name}", score=score, group=name, std=deviation)
            for row, (name, score, deviation) in rows
        ]
