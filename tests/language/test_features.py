"""Features to text and back."""

import csv
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from biqa.language.features import (
    ATTRIBUTES,
    DISTORTIONS,
    FEATURES,
    KADID_DISTORTIONS,
    MAIN_DEFECT,
    NOTHING,
    VOTED_DEFECTS,
    corpus,
    coverage,
    describe,
    parse,
)
from biqa.language.leak import find_leak


@st.composite
def feature_sets(draw: st.DrawFn) -> dict[str, int]:
    names = draw(st.lists(st.sampled_from(list(FEATURES)), unique=True, max_size=8))
    return {name: draw(st.sampled_from(strengths_of(name))) for name in names}


def strengths_of(name: str) -> list[int]:
    return list(range(FEATURES[name].lowest, FEATURES[name].lowest + len(FEATURES[name].strengths)))


@given(features=feature_sets(), seed=st.integers(0, 2**32))
def test_parsing_returns_the_features_that_made_the_text(features: dict[str, int], seed: int) -> None:
    text = describe(features, np.random.default_rng(seed))
    assert parse(text) == features
    assert coverage(text) == 1.0
    assert text[0].isupper()
    assert text.endswith(".")


def test_ten_thousand_feature_vectors_come_back() -> None:
    rng = np.random.default_rng(0)
    specs = list(FEATURES.values())
    wrong = []
    for _ in range(10_000):
        chosen = [specs[place] for place in rng.permutation(len(specs))[: rng.integers(len(specs) + 1)]]
        features = {spec.name: spec.lowest + int(rng.integers(len(spec.strengths))) for spec in chosen}
        if parse(describe(features, rng)) != features:
            wrong.append(features)
    assert wrong == []


@given(text=st.text() | st.lists(st.sampled_from([*corpus(), "It is", "a dog", "\x00", "é!"])).map(" ".join))
def test_any_text_is_taken(text: str) -> None:
    assert all(strength in strengths_of(name) for name, strength in parse(text).items())
    assert 0.0 <= coverage(text) <= 1.0


def test_every_sentence_means_one_feature_at_one_strength() -> None:
    said = [sentence for spec in FEATURES.values() for sentence, _ in spec.sentences()]
    assert len(said) == len({sentence.lower() for sentence in said}) == 10 * 3 * 5 + 3 * 6 + 37 * 8 * 5 + 2 * 3 * 5
    for name, spec in FEATURES.items():
        assert [parse(sentence) for sentence, _ in spec.sentences()] == [{name: strength} for _, strength in spec.sentences()]


def test_sentences_are_short_for_a_small_model() -> None:
    assert max(len(sentence.split()) for sentence in corpus()) <= 9


def test_there_are_five_strengths_but_six_kinds_and_at_least_three_paraphrases_each() -> None:
    assert {name: (len(set(spec.strengths)), spec.lowest, spec.ordered) for name, spec in FEATURES.items()} == {
        **dict.fromkeys([spec.name for spec in (*ATTRIBUTES, *VOTED_DEFECTS)], (5, 0, True)),
        MAIN_DEFECT.name: (6, 0, False),
        **dict.fromkeys([spec.name for spec in DISTORTIONS], (5, 1, True)),
    }
    assert all(len(spec.strengths) == len(set(spec.strengths)) for spec in FEATURES.values())
    assert all(len(set(spec.templates)) >= 3 for spec in FEATURES.values())


def test_no_sentence_gives_the_answer_away() -> None:
    assert [sentence for sentence in corpus() if find_leak(sentence)] == []


def test_a_kind_reads_as_one() -> None:
    assert parse("The main defect is noise. There is no visible blur. Viewers note heavy colour defects.") == {
        "main_defect": 1, "visible_blur": 0, "colour_defect": 3,
    }  # fmt: skip


def test_paraphrases_are_drawn_and_seeded() -> None:
    texts = [describe({"jpeg": 4}, np.random.default_rng(seed)) for seed in range(200)]
    assert set(texts) == {sentence for sentence, strength in FEATURES["jpeg"].sentences() if strength == 4}
    assert texts == [describe({"jpeg": 4}, np.random.default_rng(seed)) for seed in range(200)]


def test_the_order_is_the_registrys() -> None:
    one = describe({"jpeg": 1, "brightness": 0, "lens_blur": 5}, np.random.default_rng(3))
    other = describe({"lens_blur": 5, "jpeg": 1, "brightness": 0}, np.random.default_rng(3))
    assert one == other
    assert list(parse(one)) == ["brightness", "lens_blur", "jpeg"]


def test_nothing_to_say_has_words_of_its_own() -> None:
    texts = {describe({}, np.random.default_rng(seed)) for seed in range(50)}
    assert texts == set(NOTHING)
    assert all(parse(text) == {} and coverage(text) == 1.0 for text in texts)


def test_unknown_sentences_are_ignored_and_lower_the_coverage() -> None:
    text = "A dog runs. There is strong soft blur. The image shows slight block"
    assert parse(text) == {"gaussian_blur": 4}
    assert coverage(text) == pytest.approx(1 / 3)
    assert coverage("") == coverage(" .. ") == 0.0


def test_case_spacing_and_marks_do_not_matter() -> None:
    assert parse("there  IS strong\tsoft blur!\nDetails are very sharp") == {"gaussian_blur": 4, "sharpness": 4}


def test_the_first_mention_wins() -> None:
    assert parse("Details are sharp. Details are very blurred. The edges look blurred.") == {"sharpness": 3}


def test_what_has_no_wording_is_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="no wording for smell: known are brightness, contrast"):
        describe({"smell": 1}, rng)
    with pytest.raises(ValueError, match=r"jpeg: strength 0 is not within 1\.\.5"):
        describe({"jpeg": 0}, rng)


def test_parsing_is_fast_enough_for_every_query_of_a_data_set() -> None:
    text = describe({"jpeg": 4, "darken": 2}, np.random.default_rng(0))
    start = time.perf_counter()
    for _ in range(20_000):
        parse(text)
    assert time.perf_counter() - start < 4.0


def test_distortions_are_those_of_kadid(shared: Path) -> None:
    with (shared / "datasets" / "kadid10k_mean_opinion_by_type_level.csv").open() as file:
        names = list(dict.fromkeys(row["name"] for row in csv.DictReader(file)))
    assert [spec.name for spec in KADID_DISTORTIONS] == names
