"""mPLUG-Owl2's tokenizer on a small vocabulary made here; on LLaMA's own against what the original code put out.

$BIQA_LLAMA_TOKENIZER names LLaMA's tokenizer.model. Folder $BIQA_OWL2_FIXTURE, else owl2/fixture of $BIQA_SHARED, holds the outputs.
"""

import copy
import json
import os
import pickle
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor

from biqa.errors import IncompatibleChoice, RunNotFound
from biqa.language import features, prompts
from biqa.language.levels import LEVELS
from biqa.models.owl2 import vocabulary
from biqa.models.owl2.configuration import IMAGE_TOKEN_ID
from biqa.models.owl2.tokenization import Owl2Tokenizer
from biqa.models.owl2.vocabulary import train_tokenizer

QUESTIONS = (prompts.DESCRIBE, prompts.JOINT, prompts.INFER, "Ünïcode?\n\tTwo  spaces")


@pytest.fixture(scope="module")
def small():
    return train_tokenizer(2048)


@pytest.fixture(scope="module")
def llama():
    file = os.environ.get("BIQA_LLAMA_TOKENIZER")
    if not file:
        pytest.skip("BIQA_LLAMA_TOKENIZER is not set: no vocabulary of LLaMA's here")
    return Owl2Tokenizer(file)


@pytest.fixture(scope="module")
def recorded():
    place = os.environ.get("BIQA_OWL2_FIXTURE") or (os.environ.get("BIQA_SHARED") and os.environ["BIQA_SHARED"] + "/owl2/fixture")
    if not place:
        pytest.skip("neither BIQA_OWL2_FIXTURE nor BIQA_SHARED is set: no outputs of the original here")
    return json.loads((Path(place) / "prompts.json").read_text())


# LLaMA's own vocabulary


def test_prompts_have_the_ids_of_the_original(llama, recorded):
    made = {name: llama(case["text"])["input_ids"] for name, case in recorded["prompts"].items()}
    assert len(made) == 11
    assert made == {name: case["input_ids"] for name, case in recorded["prompts"].items()}


def test_words_have_the_ids_of_the_original(llama, recorded):
    assert {word: llama(word)["input_ids"] for word in recorded["words"]} == recorded["words"]


def test_words_of_an_answer_have_them_too(llama, recorded):
    assert {word: [1, *llama.continuation(f" {word}")] for word in recorded["words"]} == recorded["words"]


def test_level_words_are_the_single_pieces_that_scorers_read(llama):
    assert [llama.continuation(f" {level}") for level in LEVELS] == [[4319], [6460], [6534], [1781], [15129]]


def test_llama_prompts_come_back_as_they_were(llama, recorded):
    texts = [case["text"] for case in recorded["prompts"].values() if not case["text"].startswith("<|image|>")]
    assert [llama.decode(llama(text)["input_ids"]) for text in texts] == [f"<s>{text}" for text in texts]


def test_llama_takes_a_prompt_and_its_answer_apart_where_words_begin(llama):
    _assert_parts_make_the_whole(llama)


# any vocabulary of its form


def test_special_pieces_stand_where_those_of_llama_do(small):
    assert small.convert_ids_to_tokens([0, 1, 2, 3, 258]) == ["<unk>", "<s>", "</s>", "<0x00>", "<0xFF>"]
    assert (small.unk_token_id, small.bos_token_id, small.eos_token_id, small.pad_token_id) == (0, 1, 2, 0)
    assert small.padding_side == "right"
    assert small.image_token_id == IMAGE_TOKEN_ID
    assert set(small.all_special_tokens) == {"<unk>", "<s>", "</s>", "<|image|>"}


def test_the_place_of_an_image_is_no_piece(small):
    assert len(small) == small.vocab_size == len(small.get_vocab()) <= 2048
    assert sorted(small.get_vocab().values()) == list(range(len(small)))
    assert "<|image|>" not in small.get_vocab()


def test_level_words_are_single_pieces_that_differ(small):
    ids = [small.continuation(f" {level}") for level in LEVELS]
    assert [len(pieces) for pieces in ids] == [1] * 5
    assert len({pieces[0] for pieces in ids}) == 5


@pytest.mark.parametrize(
    "texts", [["USER: ", "Rate it. ASSISTANT:"], ["a", "\nb\n", " ASSISTANT:"], ["no image"], ["x", "", "y"], ["at the end ", ""]]
)
def test_every_text_between_images_begins_anew(small, texts):
    plain = SentencePieceProcessor(model_proto=small.model)
    wanted = [1, *plain.encode(texts[0])]
    for text in texts[1:]:
        wanted += [IMAGE_TOKEN_ID, *plain.encode(text)]
    assert small("<|image|>".join(texts))["input_ids"] == wanted


def test_a_prompt_that_begins_with_an_image(small):
    plain = SentencePieceProcessor(model_proto=small.model)
    assert small("<|image|>Describe.")["input_ids"] == [IMAGE_TOKEN_ID, 1, *plain.encode("Describe.")]
    assert small("<|image|><|image|>a")["input_ids"] == [IMAGE_TOKEN_ID] * 2 + [1, *plain.encode("a")]
    assert small("<|image|>")["input_ids"] == [IMAGE_TOKEN_ID]
    assert small("")["input_ids"] == [1]


def test_text_after_an_end_goes_on(small):
    tokens = small.tokenize("It is good.</s>USER: Rate it.")
    end = tokens.index("</s>")
    assert "".join(tokens[:end]) == "▁It▁is▁good."
    assert "".join(tokens[end + 1 :]) == "USER:▁Rate▁it."
    assert small.convert_tokens_to_ids("</s>") == 2


def _assert_parts_make_the_whole(tokenizer):
    for question in QUESTIONS:
        prompt = f"USER: <|image|>{question} ASSISTANT:"
        before = tokenizer(prompt)["input_ids"]
        for answer in [*features.corpus()][::20] + [prompts.verdict(level) for level in LEVELS]:
            assert tokenizer(f"{prompt} {answer}</s>")["input_ids"] == before + tokenizer.continuation(f" {answer}") + [2]
            assert tokenizer.continuation(f" {answer} {answer}") == tokenizer.continuation(f" {answer}") * 2


def test_a_prompt_and_its_answer_come_apart_where_words_begin(small):
    _assert_parts_make_the_whole(small)


def test_a_continuation_adds_no_space(small):
    joined = ["".join(small.convert_ids_to_tokens(small.continuation(text))) for text in ("good", " good", "  good", ".", "")]
    assert joined == ["good", "▁good", "▁▁good", ".", ""]
    assert small.continuation("\n") == [3 + 10]  # the byte
    assert small.continuation("a<|image|>b</s>")[-1] == 2


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="▁"), max_size=30).filter(lambda text: "<" not in text))
def test_every_text_comes_back(text):
    tokenizer = train_tokenizer(600)
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text
    assert tokenizer.decode(tokenizer(f"{text}.<|image|>{text}")["input_ids"]) == f"<s>{text}.<|image|>{text}"
    assert tokenizer.decode([*tokenizer.encode("a</s>"), *tokenizer.continuation(text)]) == f"<s>a</s>{text}"


def test_several_texts_are_padded_with_unk(small):
    short, long = (small(text)["input_ids"] for text in ("Rate it.", "Rate the quality of the image."))
    pads = [0] * (len(long) - len(short))
    right = small(["Rate it.", "Rate the quality of the image."], padding=True)
    left = small(["Rate it.", "Rate the quality of the image."], padding=True, padding_side="left")
    assert right["input_ids"] == [short + pads, long]
    assert left["input_ids"] == [pads + short, long]
    assert left["attention_mask"] == [[0] * len(pads) + [1] * len(short), [1] * len(long)]


# files


def _old(name):
    return {"__type": "AddedToken", "content": name, "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}


OLD = {
    "add_bos_token": True,
    "add_eos_token": False,
    "bos_token": _old("<s>"),
    "eos_token": _old("</s>"),
    "unk_token": _old("<unk>"),
    "pad_token": None,
}
OLD |= {"legacy": False, "model_max_length": 2048, "padding_side": "right", "sp_model_kwargs": {}, "tokenizer_class": "LlamaTokenizer"}


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"tokenizer_config.json": OLD},
        {
            "tokenizer_config.json": OLD,
            "special_tokens_map.json": {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<unk>", "unk_token": "<unk>"},
        },
    ],
    ids=["the vocabulary alone", "transformers 4", "transformers 4, both files"],
)
def test_folders_of_published_checkpoints_are_read(small, tmp_path, files):
    (tmp_path / "tokenizer.model").write_bytes(small.model)
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    _assert_same(Owl2Tokenizer.from_pretrained(tmp_path), small)


def _assert_same(one, other):
    text = "USER: <|image|>\nRate it. ASSISTANT: good</s>USER: Why? ASSISTANT:"
    assert one(text)["input_ids"] == other(text)["input_ids"]
    assert one.get_vocab() == other.get_vocab()
    assert (one.pad_token_id, one.padding_side, len(one)) == (0, "right", len(other))


def test_saving_keeps_everything(small, tmp_path):
    small.save_pretrained(tmp_path / "one")
    again = Owl2Tokenizer.from_pretrained(tmp_path / "one")
    again.save_pretrained(tmp_path / "two")
    assert (tmp_path / "two" / "tokenizer.model").read_bytes() == small.model
    _assert_same(Owl2Tokenizer.from_pretrained(tmp_path / "two"), small)


def test_copies_go_to_other_processes(small):
    _assert_same(copy.deepcopy(small), small)
    _assert_same(pickle.loads(pickle.dumps(small)), small)


def test_a_folder_without_vocabulary_is_refused(tmp_path):
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(OLD))
    with pytest.raises(
        RunNotFound, match=f"{tmp_path}: there is no tokenizer.model, mPLUG-Owl2's vocabulary. Copy the one that came with the weights"
    ):
        Owl2Tokenizer.from_pretrained(tmp_path)


def test_a_damaged_vocabulary_is_refused(tmp_path):
    (tmp_path / "tokenizer.model").write_text("version https://git-lfs.github.com/spec/v1")
    with pytest.raises(RunNotFound, match=r"tokenizer\.model: 42 bytes that are no sentencepiece model. Fetch it again"):
        Owl2Tokenizer.from_pretrained(tmp_path)


def test_without_sentencepiece_it_says_what_to_install(small, monkeypatch):
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(IncompatibleChoice, match=r"needs the package sentencepiece: pip install 'biqa\[owl2\]'"):
        Owl2Tokenizer(model=small.model)


# the vocabulary made here


def test_the_same_size_gives_the_same_vocabulary_and_writes_nothing(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    first, again = (vocabulary._train.__wrapped__(600) for _ in range(2))
    assert first == again
    assert list(tmp_path.iterdir()) == []


def test_a_vocabulary_is_never_larger_than_asked_for():
    assert len(train_tokenizer(400)) == 400
    assert len(train_tokenizer(40_000)) < 2048


def test_a_vocabulary_without_room_for_letters_is_refused():
    with pytest.raises(IncompatibleChoice, match=r"a vocabulary of 200 has no room for special pieces, bytes and letters. Choose 320 or more"):
        train_tokenizer(200)
    assert len(train_tokenizer(320)) == 320
