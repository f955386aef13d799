"""Answers whose figures would mislead, in words: a model that says the same of every image, or nothing that can be read.

None of these stops a run, whose figures are then undefined or stand beside the alarm. Damaged answers are refused (`biqa.evaluation.evaluate`).
"""

import numpy as np
import pandas as pd

from biqa.evaluation.evaluate import SAME_SCORE, Answers, answers_by_dataset
from biqa.evaluation.stability import UNPARSED
from biqa.language.levels import LEVELS

MOST_UNREAD = 50.0
"""Percent of the answers without a level, or of the images without a score, above which figures are those of what is left."""
FEWEST = 3
"""Images: of fewer, equal answers are no wonder."""
FEWEST_OF_ONE_LEVEL = 20
"""The same of one level, of which there are five and not as many as there are scores."""


def alarms(answers: pd.DataFrame) -> list[str]:
    """What is to be said loudly of the answers of one data set, a sentence each; nothing of sound ones, however far off they are.

    Raises:
        BadRecord: as `biqa.evaluation.evaluate.evaluate`.
    """
    (arrays,) = answers_by_dataset(answers).values()
    return [*_one_score(arrays), *_one_level(arrays), *_unread(arrays)]


def alarms_of_descriptions(answers: pd.DataFrame) -> list[str]:
    """The same of stage 1, whose answers are descriptions."""
    greedy = answers.loc[answers["query"] == 0, "description"]
    if len(greedy) < FEWEST or greedy.nunique() > 1:
        return []
    return [
        f'COLLAPSED: stage 1 writes the same of all {len(greedy)} images ("{_shortened(str(greedy.iloc[0]))}"). '
        f"A stage 2 on such descriptions can tell no image from another."
    ]


def _one_score(answers: Answers) -> list[str]:
    known = answers.score[~np.isnan(answers.score)]
    if len(known) < FEWEST or np.ptp(known) > SAME_SCORE:
        return []
    return [
        f"COLLAPSED: all {len(known)} images have the score {known[0]:.3f}, whatever they show: the model tells none from another, and every "
        f"correlation of its scores is undefined."
    ]


def _one_level(answers: Answers) -> list[str]:
    """Instability of a model that says one word of everything is 0, which is no merit."""
    if len(answers.images) < FEWEST_OF_ONE_LEVEL or not answers.sampled.shape[1]:
        return []
    found = []
    for decision, levels in (("sampled", answers.sampled), ("argmax", answers.argmax)):
        level = int(levels.flat[0])
        if level != UNPARSED and (levels == level).all() and len(set(np.minimum(answers.q * len(LEVELS), len(LEVELS) - 1).astype(int))) > 1:
            found.append(
                f"every one of the {levels.size} {decision} answers is {LEVELS[level]}, whatever the image: instability_{decision} is 0 for that "
                f"reason and says nothing of steadiness."
            )
    return found


def _unread(answers: Answers) -> list[str]:
    found = []
    if (unparsed := float(answers.unparsed.mean())) > MOST_UNREAD:
        found.append(f"{unparsed:.1f} % of the answers have no level that can be read: what figures there are, are those of the others.")
    if (unscored := 100.0 * float(np.isnan(answers.score).mean())) > MOST_UNREAD:
        found.append(f"{unscored:.1f} % of the images have no score: correlations are those of the {(~np.isnan(answers.score)).sum()} others.")
    return found


def _shortened(text: str, most: int = 60) -> str:
    return text if len(text) <= most else f"{text[:most].rstrip()}..."
