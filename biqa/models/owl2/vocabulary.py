"""A small vocabulary in LLaMA's form, for `model.size=tiny` and for tests: made at once from biqa's own wording, nothing is downloaded."""

from collections.abc import Iterator
from functools import lru_cache
from io import BytesIO

from biqa.errors import IncompatibleChoice
from biqa.language import features, prompts
from biqa.language.levels import LEVELS
from biqa.models.owl2.tokenization import Owl2Tokenizer, sentencepiece


def train_tokenizer(vocabulary: int) -> Owl2Tokenizer:
    """A sentencepiece BPE with LLaMA's settings and byte fallback; words of biqa's wording become single pieces, any other text falls back to bytes.

    The same `vocabulary` always gives the same pieces.

    Args:
        vocabulary: at most so many pieces, of which about 310 are needed for special pieces, bytes and letters; the wording has about 1,600.

    Raises:
        IncompatibleChoice: fewer than that, or sentencepiece is not installed.
    """
    return Owl2Tokenizer(model=_train(vocabulary))


@lru_cache(maxsize=4)
def _train(vocabulary: int) -> bytes:
    package = sentencepiece()
    model = BytesIO()
    try:
        package.SentencePieceTrainer.train(
            sentence_iterator=_wording(), model_writer=model, vocab_size=vocabulary, hard_vocab_limit=False, num_threads=1, minloglevel=2,
            # as LLaMA's
            model_type="bpe", byte_fallback=True, unk_id=0, bos_id=1, eos_id=2, pad_id=-1, character_coverage=1.0, split_digits=True,
            normalization_rule_name="identity", remove_extra_whitespaces=False, allow_whitespace_only_pieces=True,
        )  # fmt: skip
    except RuntimeError as error:
        raise IncompatibleChoice(f"a vocabulary of {vocabulary} has no room for special pieces, bytes and letters. Choose 320 or more.") from error
    return model.getvalue()


def _wording() -> Iterator[str]:
    yield from features.corpus()
    yield from (f"USER: {question} ASSISTANT:" for question in (prompts.DESCRIBE, prompts.JOINT, prompts.INFER))
    yield from (prompts.verdict(level) for level in LEVELS)
