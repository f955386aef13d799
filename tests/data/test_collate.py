"""Which position is scored against which token."""

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
