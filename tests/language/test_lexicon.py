"""Free text to features, and texts that say another strength."""

import csv
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from free_texts import LABELLED, MISSES
from hypothesis import given
from hypothesis import strategies as st

from biqa.language.features import ATTRIBUTES, DISTORTIONS, FEATURES, NOTHING, VOTED_DEFECTS, corpus, describe, parse
from biqa.language.leak import find_leak
from biqa.language.lexicon import Reading, better, read, swapped
from biqa.language.vocabulary import ADJECTIVES, ADVERBS, AMOUNTS, DEFECTS, KINDS, POLES


def strengths_of(name: str) -> range:
    return range(FEATURES[name].lowest, FEATURES[name].lowest + len(FEATURES[name].strengths))


@st.composite
def feature_sets(draw: st.DrawFn) -> dict[str, int]:
    names = draw(st.lists(st.sampled_from(list(FEATURES)), unique=True, max_size=6))
    return {name: draw(st.sampled_from(strengths_of(name))) for name in names}


def test_nearly_all_hand_labels_are_read_and_the_others_are_known() -> None:
    assert len(LABELLED) == len(dict(LABELLED)) == 153
    wrong = {text: read(text).features for text, label in LABELLED if read(text).features != label}
    assert wrong == MISSES
    assert 1 - len(wrong) / len(LABELLED) > 0.89


def test_what_is_read_is_hardly_ever_wrong() -> None:
    """A feature that is left out costs coverage; one that is made up costs truth."""
    right = sum(len(label.items() & read(text).features.items()) for text, label in LABELLED)
    assert right / sum(len(read(text).features) for text, _ in LABELLED) > 0.98
    assert right / sum(len(label) for _, label in LABELLED) > 0.93


@pytest.mark.parametrize(
    ("text", "features"),
    [
        ("There is no visible noise.", {"noise": 0}),
        ("There is no significant noise.", {"noise": 1}),
        ("There isn't any noise.", {"noise": 0}),
        ("There isn't much noise.", {"noise": 1}),
        ("The noise isn't visible.", {"noise": 0}),
        ("We cannot see any noise.", {"noise": 0}),
        ("The picture has no distracting noise.", {"noise": 0}),
        ("The image is not sharp.", {"sharpness": 1}),
        ("The image is not very sharp.", {"sharpness": 1}),
        ("The image is not entirely sharp.", {"sharpness": 2}),
        ("The image isn\u2019t blurry.", {"sharpness": 3}),
        ("The image isn't too dark.", {"brightness": 2}),
        ("The edges don't look sharp.", {"sharpness": 1}),
        ("The image does not appear to be blurry.", {"sharpness": 3}),
        ("The image doesn't really look sharp.", {"sharpness": 1}),
        ("It is not a sharp image.", {"sharpness": 1}),
        ("An image without any blur.", {"sharpness": 3}),
        ("The photo is free of artefacts.", {"visible_artefacts": 0}),
        ("The photo is free of noise and blur.", {"noise": 0, "sharpness": 3}),
        ("The photo lacks contrast.", {"contrast": 1}),
        ("The photo severely lacks contrast.", {"contrast": 0}),
        ("The photo lacks sharpness and contrast.", {"sharpness": 1, "contrast": 1}),
        ("The photo lacks detail and is dark.", {"sharpness": 1, "brightness": 1}),
        ("The photo is neither blurry nor noisy.", {"sharpness": 3, "noise": 0}),
        ("The photo is far from sharp.", {"sharpness": 1}),
        ("No blur, noise, or artifacts are visible.", {"sharpness": 3, "noise": 0, "visible_artefacts": 0}),
        # how far a negation reaches: over "or" and "nor", not over "and", commas between unlike things, or "but"
        ("The image is not dark or blurry, but noisy.", {"brightness": 3, "sharpness": 3, "noise": 3}),
        ("The image is not sharp and noisy.", {"sharpness": 1, "noise": 3}),
        ("The image is not dark, the noise is heavy.", {"brightness": 3, "noise": 3}),
        ("There is no noise, and the blur is obvious.", {"noise": 0, "sharpness": 0}),
        ("There is no noise although the edges are soft.", {"noise": 0, "sharpness": 1}),
        ("The image is not only sharp but also vivid.", {"sharpness": 3, "colourfulness": 3}),
        # two negations, and those of unknown reach, are left out
        ("The image is not free of noise.", {}),
        ("Noise is not a problem, and blur is less visible.", {}),
        ("The image does not look like a sharp photo.", {}),
        ("If the image had any noise I would see it.", {}),
    ],
)  # fmt: skip
def test_negation(text: str, features: Mapping[str, int]) -> None:
    assert read(text).features == features


@pytest.mark.parametrize(
    "text",
    [
        "A dark dog sits beside a bright lamp.",
        "The image shows a dark room.",
        "The dog in the image is dark and soft.",
        "A colourful parrot, a sharp knife and a noisy street.",
        "The dark theme of the party is obvious.",
        "There is a clear view of the mountains.",
        "The car is bright, dark clouds gather behind it.",
        "The background is blurred and dark.",
        "Vivid flowers bloom. Bright and colourful parrots fly.",
        "The image is of a black and white cat.",
        "The dog, sharp and in focus, looks at us.",
        "The picture is sharper and less noisy than before.",
        "The photo could be brighter, and should be sharp.",
        "The image is as dark as the other one.",
    ],
)
def test_words_of_content_and_comparisons_are_left_out(text: str) -> None:
    assert read(text).features == {}


@pytest.mark.parametrize(
    ("text", "features"),
    [
        ("The sharp contrast helps.", {"contrast": 3}),
        ("The image has sharp contrast and soft edges.", {"contrast": 3, "sharpness": 1}),
        ("Low light, low contrast, low saturation, low noise.", {"brightness": 1, "contrast": 1, "colourfulness": 1, "noise": 1}),
        ("The colours are bright and the lighting is bright.", {"colourfulness": 3, "brightness": 3}),
        ("The contrast between the sky and the hills is high.", {"contrast": 3}),
        ("The photo is low in contrast but rich in detail.", {"contrast": 1, "sharpness": 3}),
        ("The COLORS are washed-out; gray, posterized and pixelated.", {"colourfulness": 1, "quantization": 4, "pixelate": 4}),
    ],
)  # fmt: skip
def test_the_noun_decides_what_an_adjective_means(text: str, features: Mapping[str, int]) -> None:
    assert read(text).features == features


def test_degrees_go_up_with_their_words() -> None:
    words = ("hardly any", "slight", "some", "heavy", "severe")
    assert [read(f"There is {word} noise in the photo.").features["noise"] for word in words] == [1, 1, 2, 3, 4]
    assert [read(f"The photo shows {word} banding today.").features["colour_quantization"] for word in words] == [1, 2, 3, 4, 5]
    adverbs = ("barely ", "slightly ", "moderately ", "", "extremely ")
    assert [read(f"The photo is {word}blurry.").features["sharpness"] for word in adverbs] == [3, 2, 2, 1, 0]
    assert [read(f"The photo is {word}sharp.").features["sharpness"] for word in adverbs] == [1, 2, 2, 3, 4]
    assert [read(f"The photo is {word}overexposed.").features["brightness"] for word in adverbs] == [2, 3, 3, 3, 4]


@given(features=feature_sets(), seed=st.integers(0, 2**32))
def test_own_wording_is_read_as_parse_reads_it(features: dict[str, int], seed: int) -> None:
    text = describe(features, np.random.default_rng(seed))
    assert read(text).features == parse(text) == features
    assert list(read(text).features) == list(parse(text))
    assert read(text).coverage == 1.0


def test_every_own_sentence_is_looked_up() -> None:
    assert [text for text in corpus() if read(text) != Reading(parse(text), 1, 1)] == []


def test_coverage_counts_sentences() -> None:
    text = "The image is dark. A dog runs. Details are very sharp. No motion blur is present. ... \n- "
    assert read(text) == Reading({"brightness": 1, "sharpness": 4}, 4, 3)
    assert read(text).coverage == 0.75
    assert read("").coverage == read(" .. ").coverage == 0.0
    assert [read(text).coverage for text in NOTHING] == [1.0] * 3


def test_the_first_mention_wins() -> None:
    assert read("The image is sharp. The edges are very blurry. Details are sharp.").features == {"sharpness": 3}


@given(
    text=st.text() | st.lists(st.sampled_from([*KINDS, "dog", "\u0130", "\u017fharp", ".", "\x00", "\u2019", "\u2014"])).map(" ".join), data=st.data()
)
def test_any_text_is_taken(text: str, data: st.DataObject) -> None:
    reading = read(text)
    assert all(strength in strengths_of(name) for name, strength in reading.features.items())
    assert 0 <= reading.understood <= reading.sentences
    for name in reading.features:
        strength = data.draw(st.sampled_from(strengths_of(name)))
        assert_swapped(text, name, strength, swapped(text, name, strength))


@pytest.mark.parametrize(
    "words", ["not dark, ", "very ", "no noise or ", "blur, ", "image is ", "a", "(", "sharp and ", "the image of ", "n't ", "neither "]
)
def test_time_grows_with_length_alone(words: str) -> None:
    start = time.perf_counter()
    read(words * (100_000 // len(words)))
    assert time.perf_counter() - start < 4.0


def assert_swapped(before: str, feature: str, strength: int, after: str | None) -> None:
    if after is not None:
        assert read(after).features == {**read(before).features, feature: strength}
        assert find_leak(before) is not None or find_leak(after) is None


@given(features=feature_sets().filter(bool), seed=st.integers(0, 2**32), data=st.data())
def test_own_wording_keeps_its_template(features: dict[str, int], seed: int, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(list(features)))
    strength = data.draw(st.sampled_from(strengths_of(name)))
    wanted = describe({**features, name: strength}, np.random.default_rng(seed))  # the same draw gives the same templates
    assert swapped(describe(features, np.random.default_rng(seed)), name, strength) == wanted


def test_every_own_sentence_can_say_every_strength_of_its_feature() -> None:
    for name, spec in FEATURES.items():
        for template in spec.templates:
            texts = [spec.sentence(template, strength) for strength in strengths_of(name)]
            assert [swapped(text, name, strength) for text in texts for strength in strengths_of(name)] == texts * len(texts)


def test_swaps_of_labelled_texts() -> None:
    swaps = [(text, name, strength) for text, _ in LABELLED for name in read(text).features for strength in strengths_of(name)]
    texts = [swapped(*swap) for swap in swaps]
    for swap, text in zip(swaps, texts, strict=True):
        assert_swapped(*swap, text)
    assert np.mean([text is not None for text in texts]) > 0.98


@pytest.mark.parametrize(
    ("text", "feature", "strength", "after"),
    [
        ("The photo is very sharp.", "sharpness", 0, "The photo is very blurred."),
        ("There is no visible noise.", "noise", 4, "There is very heavy noise."),
        ("The noise is barely visible here.", "noise", 3, "The noise is heavy here."),
        ("An underexposed, grainy photo.", "brightness", 4, "A very bright, grainy photo."),
        ("The image isn't sharp.", "sharpness", 4, "The image is very sharp."),
        ("It's not a sharp image.", "sharpness", 0, "It's a very blurred image."),
        ("The image doesn't look noisy.", "noise", 4, "The image looks very noisy."),
        ("The image lacks contrast.", "contrast", 4, "The image has very high contrast."),
        ("The image lacks sharpness and contrast.", "contrast", 3, "The image lacks sharpness but has high contrast."),
        ("The image is neither blurry nor noisy.", "noise", 4, "The image is not blurry but very noisy."),
        ("The image is neither blurry nor noisy.", "sharpness", 0, "The image is very blurred and not noisy."),
        ("There is no blur, noise or banding.", "noise", 4, "There is no blur but very heavy noise and no banding."),
        ("It is free of noise and artifacts.", "visible_artefacts", 3, "It is free of noise but with heavy artifacts."),
        ("Slight noise and blocking are visible.", "noise", 4, "Very heavy noise and slight blocking are visible."),
        ("Heavy blur is visible.", "sharpness", 4, "Very high sharpness is visible."),
        ("Compression artifacts aren't visible.", "blockiness", 3, "Compression artifacts are heavy."),
        ("Banding is visible in the sky.", "colour_quantization", 5, "Banding is extreme in the sky."),
        ("The image is dark. It looks gloomy.", "brightness", 3, "The image is bright. It looks bright."),
        ("Details are sharp!  And dark it is.", "sharpness", 0, "Details are very blurred!  And dark it is."),
        ("The image is dark.", "brightness", 1, "The image is dark."),
        ("The image is dark.", "noise", 1, None),
        ("The image doesn't really look sharp.", "sharpness", 4, None),
        ("No motion blur is present.", "motion_blur", 3, None),
    ],
)  # fmt: skip
def test_swapped(text: str, feature: str, strength: int, after: str | None) -> None:
    assert swapped(text, feature, strength) == after


def test_what_has_no_wording_is_refused() -> None:
    with pytest.raises(ValueError, match="no wording for smell: known are brightness, contrast"):
        swapped("The image is dark.", "smell", 1)
    with pytest.raises(ValueError, match=r"brightness: strength 5 is not within 0\.\.4"):
        swapped("The image is dark.", "brightness", 5)
    with pytest.raises(ValueError, match="no wording for smell: known are brightness, contrast"):
        better("smell")


def test_the_tables_name_features_and_stay_on_their_scales() -> None:
    entries = {entry for meanings in ADJECTIVES.values() for entry in meanings.values()} | {entry for entry in DEFECTS.values() if entry[0]}
    off = [(name, pole) for name, pole in entries for strength in POLES[pole] if strength is not None and strength not in strengths_of(name)]
    assert off == []
    assert {*ADVERBS.values(), *AMOUNTS.values()} == set(range(6))
    assert {len(strengths) for strengths in POLES.values()} == {6}


def test_which_way_is_better() -> None:
    none = {"brightness", "contrast", "colourfulness", "main_defect", "mean_shift", "contrast_change", "altered_contrast"}
    assert {name for name in FEATURES if better(name) is None} == none
    assert [name for name in FEATURES if better(name) == 1] == ["sharpness"]
    assert {name for name in FEATURES if better(name) == -1} == {spec.name for spec in (*ATTRIBUTES, *VOTED_DEFECTS, *DISTORTIONS)} - none - {
        "sharpness"
    }


def test_in_kadid_the_mildest_level_is_best_where_less_is_better(shared: Path) -> None:
    with (shared / "datasets" / "kadid10k_mean_opinion_by_type_level.csv").open() as file:
        opinions = {(row["name"], int(row["level"])): float(row["mean_opinion_1_to_5_higher_is_better"]) for row in csv.DictReader(file)}
    best = {name: max(range(1, 6), key=lambda level: opinions[name, level]) for name in {name for name, _ in opinions}}
    assert {name for name in best if best[name] == 1} == {name for name in best if better(name) == -1}
    assert {name: best[name] for name in best if better(name) is None} == {"mean_shift": 3, "contrast_change": 3}
    assert all(opinions[name, 1] > opinions[name, 5] + 0.5 for name in best if better(name) == -1)
