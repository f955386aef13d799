"""Texts of others: Markdown, unfinished sentences and leaks."""

import pytest

from biqa.data.texts import TextReport, plain, whole_sentences


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Edges are crisp.  Noise is low. ", "Edges are crisp. Noise is low."),
        ("## Overview\n\n**Sharpness**: The edges are `crisp`.\n- Noise is low\n* Colours are pale", "Overview. Sharpness: The edges are crisp. Noise is low. Colours are pale"),
        ("1. A dark sky\n2) A bright lamp:\nglow around it", "A dark sky. A bright lamp: glow around it"),
        ("The image is\nquite dark.", "The image is quite dark."),
        ("A step of 3.5 - 4 levels, 2 * 3 blocks.", "A step of 3.5 - 4 levels, 2 * 3 blocks."),
        (" \n", ""),
    ],
)  # fmt: skip
def test_markdown_becomes_sentences(text, expected):
    assert plain(text) == expected
    assert plain(expected) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Edges are crisp. The noise is", "Edges are crisp."),
        ("Edges are crisp! Is the sky dark? Yes, it", "Edges are crisp! Is the sky dark?"),
        ("Edges are crisp.", "Edges are crisp."),
        ("Edges are crisp and the noise", "Edges are crisp and the noise"),
        ("A step of 3.5 levels", "A step of 3.5 levels"),
        ("1. Edges are crisp\n2. No", "Edges are crisp."),
    ],
)
def test_the_words_after_the_last_stop_are_cut_off(text, expected):
    assert whole_sentences(text) == expected


def test_sentences_that_give_the_answer_away_are_dropped_and_counted():
    report = TextReport(entries=3)
    assert report.without_leaks("Edges are soft. The light is good! A lamp glows.", "a") == "Edges are soft. A lamp glows."
    assert report.without_leaks("Noise is low.", "b") == "Noise is low."
    assert report.problems == ['1 sentences that give the answer away were dropped from 1 of 3 texts. First: a, "The light is good!"']
    assert report.without_leaks("Poor.", "c") == ""
    assert report.without_leaks("", "d") == ""
    assert report.emptied == ["c", "d"]
    assert report.problems[1] == "2 texts had no other sentence and were left out. First: c."
