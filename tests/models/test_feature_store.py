"""The disk that keeps features: what is written reads back the same, damage is never read, the bound holds, and a shelf is of one way to see."""

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from biqa.models.adapters import adapt
from biqa.models.features import PART, FeatureStore, Seen, learns_to_see, sees_at_random, shelf_of

SHELF, OTHER = "a" * 24, "b" * 24
NAMES = [f"{number:032x}" for number in range(3)]
LORA = {"kind": "lora", "rank": 2, "alpha": 4, "dropout": 0.0, "targets": None, "freeze": None}


def seen(number=0, tokens=9):
    generator = torch.Generator().manual_seed(number)
    features = torch.randn(tokens, 8, generator=generator).bfloat16()
    return Seen(
        {"features": features, "features_1": features.float() * 2, "image_grid_thw": torch.tensor([[1, 3, number]])}, "<image>" * (1 + number)
    )


def store_of(folder, shelf=SHELF, most_gb=1.0):
    return FeatureStore(folder, shelf, most_gb)


@pytest.fixture
def filled(tmp_path) -> Path:
    """The file of a shelf with three images."""
    store = store_of(tmp_path)
    for number, name in enumerate(NAMES):
        store.add(name, seen(number))
    store.flush()
    [file] = (tmp_path / SHELF).iterdir()
    return file


def same(found: Seen, wanted: Seen) -> bool:
    parts = all(torch.equal(found.image[part], value) and found.image[part].dtype == value.dtype for part, value in wanted.image.items())
    return parts and found.image.keys() == wanted.image.keys() and found.placeholder == wanted.placeholder


def test_what_was_written_reads_back_the_same_mapped_into_memory(filled):
    store = store_of(filled.parents[1])
    assert store.missing([*NAMES, "unknown"]) == ["unknown"]
    for number, name in enumerate(NAMES):
        assert same(store[name], seen(number))
    [mapped] = [line for line in Path("/proc/self/maps").read_text().splitlines() if str(filled) in line]
    begin, end = (int(place, 16) for place in mapped.split()[0].split("-"))
    assert begin < store[NAMES[0]].image["features"].data_ptr() < end
    assert store.left_out == []


def test_it_is_there_before_it_is_on_disk_and_what_is_large_is_written_at_once(tmp_path):
    store = store_of(tmp_path)
    store.add(NAMES[0], seen())
    assert same(store[NAMES[0]], seen())
    assert store.missing(NAMES) == NAMES[1:]
    assert not (tmp_path / SHELF).exists()
    large = torch.zeros(PART // 4)
    store.add(NAMES[1], Seen({"features": large[: PART // 8]}, ""))
    store.add(NAMES[2], Seen({"features": large[PART // 8 :]}, ""))  # of the same storage, as the images of a batch are
    assert len(list((tmp_path / SHELF).iterdir())) == 1
    assert store_of(tmp_path).missing(NAMES) == []


def flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :]


DAMAGE = {
    "empty": lambda content: b"",
    "cut off": lambda content: content[:-20],
    "garbage": lambda content: b"no features at all" * 40,
    "a bit of a number": lambda content: flipped(content, len(content) - 3),
    "a bit of a checksum": lambda content: flipped(content, content.index(str(seen().check).encode())),
    "a bit of what stands for an image": lambda content: flipped(content, content.index(b"<im") + 2),
    "a bit of an image's name": lambda content: flipped(content, content.index(NAMES[1].encode())),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_not_read_and_makes_way_for_a_new_one(filled, damage):
    whole = filled.read_bytes()
    filled.write_bytes(DAMAGE[damage](whole))
    store = store_of(filled.parents[1])
    missing = store.missing(NAMES)
    if damage == "a bit of an image's name":  # as good as another image
        assert missing == [NAMES[1]]
    else:
        assert missing == NAMES
        assert store.left_out == [filled.name]
        assert not filled.exists()
    for name in missing:
        store.add(name, seen(NAMES.index(name)))
    store.flush()
    assert store.missing(NAMES) == []
    assert all(same(store[name], seen(number)) for number, name in enumerate(NAMES))
    again = store_of(filled.parents[1])
    assert again.missing(NAMES) == []
    assert again.left_out == []


def test_files_of_others_are_not_read_and_stay(filled, tmp_path):
    shelf = filled.parent
    save_file({f"{NAMES[0]}/features": torch.zeros(2)}, shelf / "model.safetensors")
    (shelf / "notes.txt").write_text("mine")
    (shelf / "folder.safetensors").mkdir()
    another = store_of(tmp_path, OTHER)
    another.add(NAMES[0], seen(5))
    another.flush()
    [of_other] = (tmp_path / OTHER).iterdir()
    shutil.copy(of_other, shelf / f"{'f' * 32}.safetensors")
    store = store_of(tmp_path)
    assert store.missing(NAMES) == []
    assert same(store[NAMES[0]], seen(0))
    assert sorted(store.left_out) == [f"{'f' * 32}.safetensors", "folder.safetensors", "model.safetensors"]
    assert (shelf / "model.safetensors").exists()
    assert (shelf / "notes.txt").read_text() == "mine"


def test_a_header_that_makes_no_sense_is_no_reason_to_stop(filled):
    for told in (
        {},
        {"images": "[]"},
        {"images": '{"a": 1}'},
        {"images": "{", "placeholders": "[]"},
        {"images": '{"a": [["x"], 7, 0]}', "placeholders": "[]"},
    ):
        metadata = {"format": "biqa features 1", "shelf": SHELF, **told}
        save_file({"a/x": torch.zeros(1)}, filled.parent / f"{'e' * 32}.safetensors", metadata)
        store = store_of(filled.parents[1])
        assert store.missing([NAMES[0], "a"]) == ["a"]
        assert store.left_out == [f"{'e' * 32}.safetensors"]


def test_a_file_that_is_cut_off_after_it_was_opened_is_not_read_beyond_its_end(filled):
    store = store_of(filled.parents[1])
    assert store.missing(NAMES[:1]) == []
    os.truncate(filled, 40)  # numbers that are mapped and not there: to touch them would end the process
    assert store.missing(NAMES) == NAMES
    assert store.left_out == [filled.name]


def test_a_folder_that_is_deleted_in_between_is_made_again(filled):
    store = store_of(filled.parents[1])
    assert store.missing(NAMES[:1]) == []
    shutil.rmtree(filled.parents[1])
    assert same(store[NAMES[0]], seen(0))
    assert store.missing(NAMES) == []  # mapped, though no name leads there any more
    store.add("0" * 31 + "f", seen(7))
    store.flush()
    assert store_of(filled.parents[1]).missing(["0" * 31 + "f"]) == []


def test_what_was_not_used_for_longest_goes_first_and_nothing_that_is_in_use(tmp_path):
    files = []
    for number, shelf in enumerate((SHELF, OTHER, SHELF)):
        store = store_of(tmp_path, shelf)
        store.add(NAMES[number], seen(tokens=1000))
        store.flush()
        [file] = {*(tmp_path / shelf).iterdir()} - {*files}
        files.append(file)
        os.utime(file, (number, number))
    left_by_a_kill = tmp_path / OTHER / f"{'c' * 32}.tmp"
    left_by_a_kill.write_bytes(b"begun")
    os.utime(left_by_a_kill, (0, 0))
    (tmp_path / "somebody's").mkdir()
    (tmp_path / "somebody's" / f"{'d' * 32}.safetensors").write_bytes(b"else's")

    size = files[0].stat().st_size
    used = store_of(tmp_path, most_gb=3.5 * size / 2**30)
    assert used.missing(NAMES[:1]) == []  # the oldest, now used
    used.add("4" * 32, seen(tokens=1000))
    used.flush()
    assert [file.exists() for file in files] == [True, False, True]
    assert not left_by_a_kill.exists()
    with pytest.raises(OSError, match=r"^they take .* GB, for which images\.features_gb=.* leaves no room$"):
        used.make_room(3 * size)
    assert (tmp_path / "somebody's" / f"{'d' * 32}.safetensors").exists()


def test_no_more_than_half_of_the_free_disk_is_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10**12, 10**12 - 2**20, 2**20))
    store = store_of(tmp_path)
    store.make_room(2**19)
    with pytest.raises(OSError, match=r"no more than half of the 0\.000977 GB that are free on its disk"):
        store.make_room(2**19 + 1)


def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(path, content):  # as it happens: the file is begun
        path.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    store = store_of(tmp_path)
    store.add(NAMES[0], seen())
    store.flush()
    store.add(NAMES[1], seen())
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        store.flush()
    assert len(list((tmp_path / SHELF).iterdir())) == 1
    store.take_back()
    assert list((tmp_path / SHELF).iterdir()) == []


def test_a_folder_of_somebody_else_is_read_and_not_written(filled, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, how: False)
    store = store_of(filled.parents[1])
    assert store.missing(NAMES) == []
    with pytest.raises(PermissionError, match="Permission denied"):
        store.make_room(1)


def test_nothing_can_be_made_where_a_file_lies(tmp_path):
    (tmp_path / "features").write_text("")
    store = store_of(tmp_path / "features")
    assert store.missing(NAMES) == NAMES
    with pytest.raises(OSError, match=r"File exists|Not a directory"):
        store.make_room(1)


# a shelf is of one way to see


def test_a_shelf_depends_on_all_that_features_do_and_on_nothing_else(tiny):
    base = shelf_of(tiny(), "32-true")
    assert shelf_of(tiny(), "32-true") == base
    adapted = tiny()
    adapt(adapted, **LORA)
    with torch.no_grad():
        next(weight for name, weight in adapted.backbone.named_parameters() if "lora_B" in name).add_(1)
    other_text = tiny()
    other_text.model.config.text_config.rms_norm_eps = 0.5
    assert {shelf_of(adapted, "32-true"), shelf_of(other_text, "32-true")} == {base}

    def changed(change):
        vlm = tiny()
        change(vlm)
        return shelf_of(vlm, "32-true")

    def one_weight_of(part):
        return lambda vlm: next(weight for name, weight in vlm.backbone.named_parameters() if vlm.part_of(name) == part).data.view(-1)[0].add_(1e-3)

    def one_more_setting(vlm):
        vlm.image_options = {"size": 8}

    def other_processor(vlm):
        vlm.processor.image_processor.grid = 4

    def other_layer(vlm):
        vlm.model.config.vision_feature_layer = -2

    others = [changed(one_weight_of(part)) for part in ("tower", "projector")]
    others += [changed(change) for change in (one_more_setting, other_processor, other_layer, lambda vlm: vlm.half())]
    others += [shelf_of(tiny(), "bf16-mixed"), shelf_of(tiny(attention="eager"), "32-true")]
    assert len({base, *others}) == len(others) + 1
    assert changed(one_weight_of("decoder")) == base


def test_lora_on_decoder_alone_leaves_seeing_as_it_is(tiny):
    for options, learns in (({}, False), ({"projector": True}, True), ({"tower": True}, True)):
        vlm = tiny()
        adapt(vlm, **LORA, **options)
        assert learns_to_see(vlm) == learns
    for frozen, learns in ((("tower", "projector"), False), (("tower",), True), ((), True)):
        vlm = tiny()
        adapt(vlm, **LORA | {"kind": "full"}, frozen=frozen)
        assert learns_to_see(vlm) == learns


def test_dropout_in_the_tower_is_noticed_where_it_acts(tiny):
    vlm = tiny()
    vlm.model.model.vision_tower.encoder.layers[0].self_attn.dropout = 0.1
    vlm.model.model.language_model.layers[0].self_attn.attention_dropout = 0.1
    assert not sees_at_random(vlm)
    assert sees_at_random(vlm.train())
    vlm = tiny().train()
    vlm.model.model.language_model.layers[0].self_attn.attention_dropout = 0.1
    assert not sees_at_random(vlm)
    vlm.model.model.multi_modal_projector.add_module("dropout", nn.Dropout(0.5))
    assert sees_at_random(vlm)


def test_a_release_that_takes_no_features_is_noticed(tiny):
    vlm = tiny()
    assert vlm.takes_features
    vlm.model.model.forward = lambda input_ids, pixel_values, **more: None
    assert not vlm.takes_features


def test_the_index_is_json_with_a_checksum_for_each_image(filled):
    """What a reader of another language needs to know."""
    content = filled.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    index = json.loads(header["__metadata__"]["images"])
    assert {name: check for name, (_, _, check) in index.items()} == {name: seen(number).check for number, name in enumerate(NAMES)}
