"""Conversations about images as description targets."""

import json
from pathlib import Path
from typing import Any

import pytest

from biqa.config import ConversationDescriptions
from biqa.data.conversations import ConversationTargets
from biqa.data.record import Record
from biqa.errors import AnswerLeak, BadRecord, DatasetNotFound, IncompatibleChoice

PATHWAY = "Describe and evaluate the quality of the image."


def record(image: str) -> Record:
    return Record(image=image, path=Path("none"), q=0.5, split="train", group=image, score=3.0)


def llava(image: str, *turns: str, **fields: Any) -> dict[str, Any]:
    """An entry in LLaVA's form: human and gpt by turns."""
    said = [{"from": "human" if i % 2 == 0 else "gpt", "value": text} for i, text in enumerate(turns)]
    return {"id": image, "image": image, "conversations": said} | fields


def chat(image: str, *turns: str) -> dict[str, Any]:
    """An entry in M3-AGIQA's form: user and assistant by turns."""
    said = [{"role": "user" if i % 2 == 0 else "assistant", "content": text} for i, text in enumerate(turns)]
    return {"id": "0", "image": image, "conversations": said}


def targets(place: Path, entries: Any, name: str = "texts.json", **options: Any) -> ConversationTargets:
    (place / name).write_text(json.dumps(entries))
    return ConversationTargets(file=place / name, **options)


# what counts as a description


def test_both_forms_and_the_verdict_kept_apart(tmp_path: Path) -> None:
    entries = [
        llava("spaq_koniq/1.jpg", f"<image>\n{PATHWAY}", "Details are blurred. Colours are pale. Therefore, the quality of this image is very poor."),
        chat("/home/someone/data/images/2.jpg", "<image>\nPlease analyze it.", "The lamp is sharp.", "Rate it in one word.", "fair"),
    ]
    found = targets(tmp_path, entries)
    found.fit([])
    said = found.describe(record("1.jpg"))
    assert said.text == "Details are blurred. Colours are pale."
    assert found.describe(record("2.jpg")).text == "The lamp is sharp."
    assert found.verdicts == {f"{tmp_path / 'texts.json'}, entry 1": "Therefore, the quality of this image is very poor."}
    assert found.report.problems == []


def test_features_named_in_the_text_are_found(tmp_path: Path) -> None:
    found = targets(tmp_path, [llava("a.png", PATHWAY, "A dark street. The image shows slight block artefacts.")])
    assert found.describe(record("a.png")).features == {"jpeg": 2}


def test_the_first_answer_longer_than_a_level_word_counts(tmp_path: Path) -> None:
    rated = ["Rate it.", "Good.", "Sharp?", "Yes.", "And?", "Very good.", "In a sentence?", "The quality of the image is good."]
    turns = [*rated, "Why?", "Edges are crisp.", "More?", "Noise is low."]
    entries = [
        llava("a.png", *turns),
        {"image": "b.png", "conversations": [{"from": "system", "value": "Be brief."}]},
        llava("c.png", "Rate it.", "poor"),
    ]
    found = targets(tmp_path, entries)
    assert found.describe(record("a.png")).text == "Edges are crisp."
    assert found.report.without_description == [f"{tmp_path / 'texts.json'}, entry {number}" for number in (2, 3)]
    assert found.report.problems == [
        "2 of 3 conversations hold no description, only a level word, a verdict or other questions, and were left out. "
        f"First: {tmp_path / 'texts.json'}, entry 2."
    ]


def test_questions_choose_the_answers(tmp_path: Path) -> None:
    entries = [
        llava("a.png", "Is it sharp?", "Yes, it is sharp."),
        llava("a.png", PATHWAY, "Edges are crisp."),
        llava("a.png", "What is dark?", "The sky is dark.", PATHWAY, "A dark sky over a crisp edge."),
    ]
    found = [targets(tmp_path, entries, question="(?i)describe", seed=seed).describe(record("a.png")).text for seed in range(20)]
    assert set(found) == {"Edges are crisp.", "A dark sky over a crisp edge."}
    assert len(targets(tmp_path, entries).texts["a.png"]) == 3


def test_a_list_in_a_jsonl_file_reads_as_lines_do(tmp_path: Path) -> None:
    entries = [llava("a.png", PATHWAY, "Edges are crisp."), llava("b.png", PATHWAY, "Edges are\u2028soft.")]
    (tmp_path / "lines.jsonl").write_text("\ufeff" + "".join(json.dumps(entry, ensure_ascii=False) + "\n\n" for entry in entries), encoding="utf-8")
    lines = ConversationTargets(file=tmp_path / "lines.jsonl")
    assert {image: [text for _, text in found] for image, found in lines.texts.items()} == {
        "a.png": ["Edges are crisp."],
        "b.png": ["Edges are\u2028soft."],
    }
    assert [where for [(where, _)] in lines.texts.values()] == [f"{tmp_path / 'lines.jsonl'}, row {number}" for number in (1, 3)]
    assert targets(tmp_path, entries, "list.jsonl").texts.keys() == lines.texts.keys()


# which image is meant


def test_the_full_name_comes_before_the_file_name(tmp_path: Path) -> None:
    entries = [
        llava("spaq/1.jpg", PATHWAY, "One of SPAQ."),
        llava("live\\1.jpg", PATHWAY, "One of LIVE."),
        llava("live/2.jpg", PATHWAY, "A second one."),
    ]
    found = targets(tmp_path, entries)
    assert [found.describe(record(name)).text for name in ("spaq/1.jpg", "live/1.jpg", "./2.jpg", "./2.jpg")] == [
        "One of SPAQ.", "One of LIVE.", "A second one.", "A second one."
    ]  # fmt: skip


def test_a_file_name_that_means_two_images_is_refused(tmp_path: Path) -> None:
    found = targets(tmp_path, [llava(name, PATHWAY, "Edges are crisp.") for name in ("a/1.jpg", "b/1.jpg", "a/2.jpg")])
    message = r"Image 1\.jpg: .*texts\.json has 2 images of that file name \(a/1\.jpg, b/1\.jpg\)\. Name the folders alike in both"
    with pytest.raises(BadRecord, match=message):
        found.describe(record("1.jpg"))
    found.describe(record("x/2.jpg"))
    with pytest.raises(
        BadRecord, match=r"Image y/2\.jpg: its file name leads to a/2\.jpg in .*, which is taken for image x/2\.jpg\. Name the folders"
    ):
        found.describe(record("y/2.jpg"))
    with pytest.raises(BadRecord, match=r"Image 3\.jpg: .*texts\.json has no text for it \(its first image is a/1\.jpg\)"):
        found.describe(record("3.jpg"))


# leaks

LEAKING = "The image quality is poor. Edges are soft. The lighting is good. A lamp glows."


def test_a_leak_before_the_end_stops(tmp_path: Path) -> None:
    found = targets(tmp_path, [llava("a.png", PATHWAY, LEAKING)])
    with pytest.raises(AnswerLeak, match=r'texts\.json, entry 1: the description says "quality", which gives the answer away'):
        found.describe(record("a.png"))


def test_leaking_sentences_can_be_dropped(tmp_path: Path) -> None:
    entries = [
        llava("a.png", PATHWAY, f"{LEAKING} The quality of the image is fair."),
        llava("b.png", PATHWAY, "Edges are crisp."),
        llava("c.png", PATHWAY, "The lighting is decent. The colours look nice."),
    ]
    found = targets(tmp_path, entries, on_leak="skip_sentence")
    assert found.describe(record("a.png")).text == "Edges are soft. A lamp glows."
    assert found.describe(record("b.png")).text == "Edges are crisp."
    places = [f"{tmp_path / 'texts.json'}, entry {number}" for number in (1, 2, 3)]
    assert found.verdicts == {places[0]: "The quality of the image is fair."}
    assert found.report.dropped == [
        (places[0], "The image quality is poor."),
        (places[0], "The lighting is good."),
        (places[2], "The lighting is decent."),
        (places[2], "The colours look nice."),
    ]
    assert found.report.problems == [
        f'4 sentences that give the answer away were dropped from 2 of 3 texts. First: {places[0]}, "The image quality is poor."',
        f"1 texts had no other sentence and were left out. First: {places[2]}.",
    ]
    with pytest.raises(BadRecord, match=r"Image c\.png: .* has no text for it"):
        found.describe(record("c.png"))


# bad input


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"conversations": [{"from": "gpt", "value": "A crisp edge."}]}, r"entry 2: there is no image name under image or img_path; found conv"),
        ({"image": "b.png", "text": "x"}, r"texts\.json, entry 2: there is no list under conversations; found image, text\. Use the training file"),
        ({"image": "b.png", "conversations": ["x"]}, r'entry 2, turn 1: not a turn such as \{"from": "human"'),
        ({"image": "b.png", "conversations": [{"role": "user", "content": "x"}, {"role": "assistant"}]}, r"entry 2, turn 2: not a turn such as"),
        ({"image": "b.png", "conversations": [{"from": "gpt", "value": ["x"]}]}, r"entry 2, turn 1: not a turn such as"),
        ([], r"entry 2: not an object with keys"),
    ],
)
def test_an_unusable_entry_is_named(tmp_path: Path, entry: Any, message: str) -> None:
    with pytest.raises(BadRecord, match=message):
        targets(tmp_path, [llava("a.png", PATHWAY, "Edges are crisp."), entry])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.json", '[{"image": "a.png", "conv', r"t\.json: not JSON \(Unterminated string .*\)\. Was the download complete\?"),
        ("t.json", '{"image": "a.png"}', r"t\.json: this is no list of objects, one an image"),
        ("t.jsonl", '{"image": "a.png", "conversations": []}\n{"image":\n', r"t\.jsonl, row 2: not JSON"),
        ("t.jsonl", '{"image": "a.png", "conversations": []}\n3\n', r"t\.jsonl, row 2: not an object with keys"),
        ("t.jsonl", "\n", r"t\.jsonl: the file has no entries"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(BadRecord, match=message):
        ConversationTargets(file=tmp_path / name)


def test_a_file_without_descriptions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        BadRecord, match=r"texts\.json: none of its 1 conversations holds a description: .*First: .*entry 1\. Choose a file of descriptions"
    ):
        targets(tmp_path, [llava("a.png", "Rate it.", "The quality of the image is good.")])
    with pytest.raises(DatasetNotFound, match=r"none\.json: there is no such file\. Give the path of a \.json or \.jsonl file"):
        ConversationTargets(file=tmp_path / "none.json")


def test_options_that_make_no_sense_are_refused() -> None:
    with pytest.raises(IncompatibleChoice, match=r"descriptions\.on_leak=ignore is not known: choose stop or skip_sentence"):
        ConversationDescriptions(on_leak="ignore")
    with pytest.raises(IncompatibleChoice, match=r"descriptions\.question=\* is no regular expression"):
        ConversationDescriptions(on_leak="stop", question="*")
