"""Which position is scored against which token."""

import pytest
import torch

from biqa.data.collate import IGNORED, Encoded, collate


def batch():
    return collate(
        [
            Encoded(prompt=[10, 11, 12], answer=[1, 2, 3, 4], level_at=2, level_target=[0, 0, 1, 0, 0], q=0.5),
            Encoded(prompt=[10, 11], answer=[5, 6], level_at=0, level_target=[1, 0, 0, 0, 0], q=0.1),
        ],
        pad_id=0,
    )


def test_rows_are_padded_on_the_right():
    assert batch().input_ids.tolist() == [[10, 11, 12, 1, 2, 3, 4], [10, 11, 5, 6, 0, 0, 0]]
    assert batch().attention_mask.tolist() == [[1] * 7, [1, 1, 1, 1, 0, 0, 0]]


def test_labels_are_the_next_tokens_of_the_answer_without_the_level():
    x = IGNORED
    assert batch().labels.tolist() == [[x, x, 1, 2, x, 4, x], [x, x, 6, x, x, x, x]]
    assert batch().level_position.tolist() == [4, 1]


def test_the_level_position_reads_out_the_level_word():
    made = batch()
    following = made.input_ids[torch.arange(2), made.level_position + 1]
    assert following.tolist() == [3, 5]


def test_images_are_stacked_in_row_order():
    examples = [Encoded([1], [2], {"pixel_values": torch.full((1, 2), float(i), dtype=torch.float16)}) for i in range(3)]
    made = collate(examples, pad_id=0)
    assert made.image["pixel_values"].tolist() == [[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]]
    assert made.image["pixel_values"].dtype == torch.float32
    assert made.level_position.tolist() == [-1, -1, -1]


def test_a_batch_moves_as_a_whole():
    moved = batch().to(torch.device("meta"))
    assert moved.input_ids.device.type == moved.level_target.device.type == "meta"


# texts that share a row

X = IGNORED


def texts(*, image=False):
    """Lengths 3, 8, 4 and 2: the first shares a row with the third; the last has no level and lies in there too."""
    seen = {"pixel_values": torch.zeros(1, 2)} if image else {}
    return [
        Encoded(prompt=[10], answer=[1, 2], image=seen, level_at=0, level_target=[1, 0, 0, 0, 0], q=0.1),
        Encoded(prompt=[20, 21, 22], answer=[3, 4, 5, 6, 7], image=seen, level_at=3, level_target=[0, 1, 0, 0, 0], q=0.2),
        Encoded(prompt=[30, 31], answer=[8, 9], image=seen, level_at=1, level_target=[0, 0, 1, 0, 0], q=0.3),
        Encoded(prompt=[40], answer=[50], image=seen, q=0.4),
    ]


def test_texts_share_rows_where_that_takes_fewer():
    made = collate(texts(), pad_id=0, pack=True)
    assert made.packed
    assert made.input_ids.tolist() == [[20, 21, 22, 3, 4, 5, 6, 7], [30, 31, 8, 9, 10, 1, 2, 0], [40, 50, 0, 0, 0, 0, 0, 0]]
    assert made.attention_mask.tolist() == [[1] * 8, [1, 1, 1, 1, 2, 2, 2, 0], [1, 1, 0, 0, 0, 0, 0, 0]]
    assert made.labels.tolist() == [[X, X, 3, 4, 5, X, 7, X], [X, 8, X, X, X, 2, X, X], [50, X, X, X, X, X, X, X]]
    assert made.level_row.tolist() == [1, 0, 1, 2]
    assert made.level_position.tolist() == [4, 5, 2, -1]


def test_what_belongs_to_an_example_stays_in_order():
    made, plain = collate(texts(), pad_id=0, pack=True), collate(texts(), pad_id=0)
    assert made.q.tolist() == plain.q.tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert torch.equal(made.level_target, plain.level_target)
    assert made.examples == plain.examples
    for example, row, position in zip(made.examples, made.level_row, made.level_position, strict=True):
        if example.level_at is not None:
            assert made.input_ids[row, position + 1] == example.answer[example.level_at]
    assert plain.level_row.tolist() == [0, 1, 2, 3]


def test_each_token_sees_its_own_text_and_no_other():
    seen, positions = collate(texts(), pad_id=0, pack=True).attended()
    assert positions is not None
    assert positions.tolist()[1] == [0, 1, 2, 3, 0, 1, 2, 0]
    assert seen.dtype == torch.bool
    own = torch.ones(4, 4, dtype=torch.bool).tril()
    assert torch.equal(seen[1, :4, :4], own)
    assert torch.equal(seen[1, 4:7, 4:7], own[:3, :3])
    assert not seen[1, :4, 4:].any()
    assert not seen[1, 4:7, :4].any()
    assert not seen[1, 4:7, 7].any()
    assert seen.any(-1).all(), "softmax over nothing is NaN"


def test_padding_is_seen_by_padding_alone():
    seen, _ = collate(texts(), pad_id=0, pack=True).attended()
    assert not seen[2, :2, 2:].any()
    assert not seen[2, 2:, :2].any()


def test_images_keep_a_row_each_and_so_does_what_saves_nothing():
    for made in (collate(texts(image=True), pad_id=0, pack=True), collate(texts()[1:2] * 3, pad_id=0, pack=True), collate(texts(), pad_id=0)):
        assert not made.packed
        assert len(made.input_ids) == len(made.examples)
        mask, positions = made.attended()
        assert mask is made.attention_mask
        assert positions is None
        assert set(mask.flatten().tolist()) <= {0, 1}
