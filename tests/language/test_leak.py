"""The answer-leak check, sentence by sentence."""

import pytest

from biqa.errors import AnswerLeak
from biqa.language.features import corpus
from biqa.language.leak import check_leak, find_leak
from biqa.language.levels import LEVELS

REFUSED = {
    "The image is bad.": "bad",
    "The scene is badly lit.": "badly",
    "It looks worse than the other.": "worse",
    "The worst part is the sky.": "worst",
    "A POOR exposure of a street.": "POOR",
    "The window is poorly exposed.": "poorly",
    "Sharpness is fair.": "fair",
    "The lighting is good": "good",
    "A good-looking shot of a dog.": "good",
    "Focus could be better.": "better",
    "The best detail lies in the middle.": "best",
    "Excellent sharpness throughout.": "Excellent",
    "It is excellently framed.": "excellently",
    "A great photograph of a cat.": "great",
    "Terrible blur covers it.": "Terrible",
    "It is terribly blurred.": "terribly",
    "An awful lot of noise.": "awful",
    "A horrible green cast.": "horrible",
    "The exposure is mediocre.": "mediocre",
    "A decent amount of detail.": "decent",
    "The focus is perfect.": "perfect",
    "It is perfectly sharp.": "perfectly",
    "An imperfect focus.": "imperfect",
    "A pristine photograph.": "pristine",
    "Superb colours.": "Superb",
    "The contrast is outstanding.": "outstanding",
    "Noise is acceptable.": "acceptable",
    "The blur is unacceptable.": "unacceptable",
    "The exposure is satisfactory.": "satisfactory",
    "Sharpness is average.": "average",
    "The focus is fine.": "fine",
    "The tones are okay.": "okay",
    "Flawless rendering of skin.": "Flawless",
    "Lighting is adequate.": "adequate",
    "The blur is far from ideal.": "ideal",
    "The overall quality is low.": "quality",
    "A high-quality picture.": "quality",
    "The quality of the image is good.": "quality",
    "The fair-haired girl has good focus.": "good",
    "fair-haired but fair": "fair",
}

ALLOWED = (
    "",
    "A fair-haired girl stands in a field.",
    "Her fair skin is overexposed.",
    "A wheel turns on a fairground.",
    "The book fair is crowded and dark.",
    "The image is fairly dark.",
    "An unfair fight in the rain.",
    "She waves good-bye at the station.",
    "The goods train is blurred.",
    "A sign reads good morning in sharp letters.",
    "A badge and a badger, both noisy.",
    "The Great Wall is hazy.",
    "A great-grandmother sits in dim light.",
    "A great deal of noise covers the sky.",
    "Fine detail in the fur is lost.",
    "There is a fine-grained texture.",
    "Fine lines are smeared.",
    "On average the frame is dark.",
    "The average brightness is low.",
    "It was saved at a quality factor of 30.",
    "The fog has a dreamlike quality.",
    "Its tonal qualities are muted.",
    "Three perfect circles, slightly blurred.",
    "Poor people queue in harsh light.",
    "The best man holds a noisy camera.",
    "Bestial, goodness, fairy and poorhouse hold no verdict.",
    "Very low contrast, heavy noise, strong block artefacts.",
    "The scene is clear and sharp with high contrast.",
    "Lake Superior under a bright sky.",
)


@pytest.mark.parametrize("text", REFUSED)
def test_a_verdict_is_refused_and_its_word_named(text: str) -> None:
    assert find_leak(text) == REFUSED[text]


@pytest.mark.parametrize("text", ALLOWED)
def test_an_innocent_sentence_passes(text: str) -> None:
    assert find_leak(text) is None
    check_leak(text, "a.csv, row 1")


@pytest.mark.parametrize("level", LEVELS)
def test_every_level_word_is_refused(level: str) -> None:
    assert find_leak(f"It is {level.upper()}!") == level.upper()


def test_no_wording_of_our_own_leaks() -> None:
    assert [sentence for sentence in corpus() if find_leak(sentence)] == []


def test_the_message_names_word_place_and_a_way_out() -> None:
    with pytest.raises(
        AnswerLeak, match=r'texts\.csv, row 7: the description says "Great".*"\.\.\.ning of a text\. Noise is low\. Great focus on the eyes\."'
    ):
        check_leak("A fine-grained and rather long beginning of a text. Noise is low. Great focus on the eyes.", "texts.csv, row 7")
    with pytest.raises(AnswerLeak, match="take that sentence out"):
        check_leak("good", "here")
