"""Questions and verdicts."""

import pytest

from biqa.language.levels import LEVELS, Level
from biqa.language.prompts import DESCRIBE, INFER, JOINT, STEM, cut_verdict, parse_verdict, verdict


@pytest.mark.parametrize("level", LEVELS)
def test_a_verdict_is_read_back(level: Level) -> None:
    assert verdict(level) == f"{STEM} {level}."
    assert parse_verdict(verdict(level)) == level
    assert parse_verdict(f" {level.upper()}.\n") == level


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("The image is dark. The quality of the image is poor.", "poor"),
        ("The quality of the image is bad. No, the quality of the image is fair.", "fair"),
        ("Therefore, the quality of this image is very poor.", "poor"),
        ("The overall quality is: **Good**", "good"),
        ("THE QUALITY OF THE IMAGE IS EXCELLENT", "excellent"),
        ("The quality of the image is good, but dark.", "good"),
    ],
)
def test_the_last_verdict_counts(text: str, level: Level) -> None:
    assert parse_verdict(text) == level


@pytest.mark.parametrize(
    "text",
    [
        "",
        "The quality of the image is",
        "The quality of the image is not good.",
        "The quality of the image is fair to good.",
        "The quality of the image is good/excellent.",
        "The quality of the image is goodish.",
        "The quality of the image is acceptable.",
        "The image is good.",
        "The quality is hard to tell. It is good.",
        "good or bad",
    ],
)
def test_what_is_no_verdict_stays_unread(text: str) -> None:
    assert parse_verdict(text) is None


def test_questions_are_single_lines_and_take_any_description() -> None:
    assert all("\n" not in question and len(question.split()) < 20 for question in (DESCRIBE, JOINT, INFER))
    assert "It has {braces}." in INFER.format(description="It has {braces}.")
    assert all(parse_verdict(question) is None for question in (DESCRIBE, JOINT, INFER))


@pytest.mark.parametrize(
    ("text", "said", "cut"),
    [
        ("It is dark. The quality of the image is poor.", "It is dark.", "The quality of the image is poor."),
        ("It is dark. Therefore, the quality of this image is very poor", "It is dark.", "Therefore, the quality of this image is very poor"),
        ("It is dark. Overall quality: acceptable. Fair.", "It is dark.", "Overall quality: acceptable. Fair."),
        ("Its quality is poor. It is dark.", "Its quality is poor. It is dark.", ""),
        ("It is dark. It has a dreamlike quality.", "It is dark. It has a dreamlike quality.", ""),
        ("It is dark. The light is good.", "It is dark. The light is good.", ""),
        ("good", "", "good"),
        ("", "", ""),
    ],
)
def test_verdicts_are_cut_off_the_end_only(text: str, said: str, cut: str) -> None:
    assert cut_verdict(text) == (said, cut)
