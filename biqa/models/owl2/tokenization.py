"""mPLUG-Owl2's tokenizer: LLaMA's sentencepiece model, with a place for images between texts.

It stands on sentencepiece alone. The LlamaTokenizer of transformers 5 splits a text that begins with a space in another way than the one that the
published checkpoints were trained with, and needs protobuf beside sentencepiece to read their tokenizer.model.
"""

from itertools import groupby, takewhile
from pathlib import Path
from typing import Any

from transformers import AddedToken, PreTrainedTokenizer

from biqa.errors import IncompatibleChoice, RunNotFound
from biqa.models.owl2.configuration import IMAGE_TOKEN_ID

IMAGE_TOKEN = "<|image|>"
"""The place of an image in a text. It is no piece of the vocabulary: its id is IMAGE_TOKEN_ID."""

MODEL_FILE = "tokenizer.model"
BREAK = "\n"
"""LLaMA's sentencepiece merges nothing with a line break: no piece holds one, it is always the byte 0x0A by itself."""


class Owl2Tokenizer(PreTrainedTokenizer):
    """Text to the ids that mPLUG-Owl2 was trained on, and back.

    Every stretch between images is tokenized by itself, as a text that begins there: "USER: <|image|>Rate" gives the pieces of "USER: ", the image,
    and the pieces of "Rate". What follows "</s>" has no space before it. `<s>` stands before the first text: after the image, in a prompt that begins
    with one (odd, and what the original does).

    Args:
        vocab_file: a tokenizer.model.
        unk_token: its piece with id 0; it also pads, because LLaMA has no piece for that.
        bos_token: its piece with id 1.
        eos_token: its piece with id 2.
        pad_token: None: the same as `unk_token`.
        model: what a tokenizer.model holds, instead of `vocab_file`.
        kwargs: transformers' own; `padding_side` is "right" if nothing else is said.

    Raises:
        RunNotFound: there is no tokenizer.model, or it is damaged.
        IncompatibleChoice: sentencepiece is not installed.
    """

    vocab_files_names = {"vocab_file": MODEL_FILE}  # noqa: RUF012 (transformers' own attributes)
    model_input_names = ["input_ids", "attention_mask"]  # noqa: RUF012
    padding_side = "right"

    def __init__(
        self,
        vocab_file: str | None = None,
        unk_token: str | AddedToken = "<unk>",
        bos_token: str | AddedToken = "<s>",
        eos_token: str | AddedToken = "</s>",
        pad_token: str | AddedToken | None = None,
        *,
        model: bytes | None = None,
        **kwargs: Any,  # noqa: ANN401 (transformers' own)
    ) -> None:
        self.model = _read(vocab_file, kwargs.get("name_or_path", "")) if model is None else model
        self.pieces = _processor(self.model, vocab_file)
        self._break = len(self.pieces.encode(BREAK))
        self._vocabulary = {self.pieces.id_to_piece(index): index for index in range(self.pieces.get_piece_size())}
        self._added_tokens_decoder = {IMAGE_TOKEN_ID: AddedToken(IMAGE_TOKEN, special=True, normalized=False)}
        kwargs["image_token"] = IMAGE_TOKEN
        kwargs["special_tokens_pattern"] = "bos"
        super().__init__(unk_token=unk_token, bos_token=bos_token, eos_token=eos_token, pad_token=pad_token or unk_token, **kwargs)

    # text to ids

    def tokenize(self, text: str, **_: object) -> list[str]:
        """The pieces of a text, and IMAGE_TOKEN for each image in it."""
        return self._pieces(text, begins=True)

    def continuation(self, text: str) -> list[int]:
        """Ids of a text that goes on from another, without `<s>`: " good" after "ASSISTANT:" is the one piece that it is inside the whole text.

        The ids of a whole are those of its parts where each part begins with a single space before a word.
        """
        ids = self.convert_tokens_to_ids(self._pieces(text, begins=False))
        assert isinstance(ids, list)
        return ids

    def _pieces(self, text: str, *, begins: bool) -> list[str]:
        pieces: list[str] = []
        for stretch in self.tokens_trie.split(text):
            if stretch in self._added_tokens_encoder:
                pieces.append(stretch)
            elif begins if not pieces else pieces[-1] == IMAGE_TOKEN:
                pieces += self._beginning(stretch)
            else:
                pieces += self._after_special(stretch) if pieces else self._inside(stretch)
        return pieces

    def _beginning(self, text: str) -> list[str]:
        """Pieces of a text by itself, with the space that sentencepiece puts before it."""
        return self.pieces.encode(text, out_type=str)

    def _inside(self, text: str) -> list[str]:
        """Pieces of a text that others stand before."""
        return self._beginning(BREAK + text)[self._break :]

    def _after_special(self, text: str) -> list[str]:
        """Pieces of a text after "</s>": as if it began there, but for the space before it: "USER" is "US", "ER" (LLaMA's 3308, 1001)."""
        first, *others = self._beginning(text)
        return [first[1:], *others] if first[1:] in self._vocabulary else self._inside(text)

    def build_inputs_with_special_tokens(self, token_ids_0: list[int], token_ids_1: list[int] | None = None) -> list[int]:
        """`<s>` before the first text. A second text is added as it is."""
        images = list(takewhile(IMAGE_TOKEN_ID.__eq__, token_ids_0))
        text = token_ids_0[len(images) :]
        if text or not images:
            text = [self._vocabulary[str(self.bos_token)], *text]
        return images + text + (token_ids_1 or [])

    def _convert_token_to_id(self, token: str) -> int:
        return self.pieces.piece_to_id(token)

    # ids to text

    def _convert_id_to_token(self, index: int) -> str:
        return self.pieces.id_to_piece(index)

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """The text of pieces, special tokens as they are written. A space before what begins a text is sentencepiece's own and left out."""
        text, before = "", None
        for special, group in groupby(tokens, key=self._added_tokens_encoder.__contains__):
            stretch = list(group)
            begins = before in (None, IMAGE_TOKEN, self.bos_token)
            text += "".join(stretch) if special else self.pieces.decode_pieces(stretch if begins else ["▁", *stretch])
            before = stretch[-1]
        return text

    # the vocabulary

    @property
    def vocab_size(self) -> int:
        """Pieces, without the image's place."""
        return len(self._vocabulary)

    def get_vocab(self) -> dict[str, int]:
        """Piece to id, without the image's place: what the embeddings have rows for."""
        return dict(self._vocabulary)

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str]:
        """Write tokenizer.model as it was read."""
        file = Path(save_directory) / (f"{filename_prefix}-{MODEL_FILE}" if filename_prefix else MODEL_FILE)
        file.write_bytes(self.model)
        return (str(file),)


def _read(vocab_file: str | None, folder: str) -> bytes:
    if vocab_file is None:
        raise RunNotFound(f"{folder}: there is no {MODEL_FILE}, mPLUG-Owl2's vocabulary. Copy the one that came with the weights (it is LLaMA's).")
    return Path(vocab_file).read_bytes()


def sentencepiece() -> Any:  # noqa: ANN401 (the package has no types)
    """The package.

    Raises:
        IncompatibleChoice: it is not installed.
    """
    try:
        import sentencepiece
    except ImportError as error:
        raise IncompatibleChoice("mPLUG-Owl2's tokenizer needs the package sentencepiece: pip install 'biqa[owl2]'") from error
    return sentencepiece


def _processor(model: bytes, file: str | None) -> Any:  # noqa: ANN401
    package = sentencepiece()
    try:
        return package.SentencePieceProcessor(model_proto=model)
    except RuntimeError as error:
        raise RunNotFound(f"{file}: {len(model):,} bytes that are no sentencepiece model. Fetch it again: LLaMA's has about 500,000.") from error
