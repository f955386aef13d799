"""Images whose features are looked up: the tower is asked once for each content, trouble with the disk is said once, several processes share the work."""

import errno
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock, patch

import pytest
import torch

from biqa.data.images import image_of
from biqa.data.record import Reduction
from biqa.errors import BadRecord
from biqa.models.features import FeatureStore
from biqa.stages.features import KnownImages
from biqa.stages.together import everywhere


class Counted:
    """A model that looks images up, and how often its tower is asked."""

    def __init__(self, vlm, cache, **options):
        self.known = KnownImages(vlm, **({"cache": cache, "most_gb": 1.0, "precision": "32-true"} | options))
        self.asked = 0
        features = vlm.features

        def counted(prompts):
            self.asked += len({id(prompt) for prompt in prompts})  # fewer than eight are filled up
            return features(prompts)

        vlm.features = counted

    def learn(self, items, *, halves=False):
        before = self.asked
        self.known.learn([item.record for item in items], nullcontext(), halves=halves)
        return self.asked - before

    def knows(self, item):
        return "features" in self.known.prompt(item.record, "Rate it.").image


@pytest.fixture
def counted(tiny, tmp_path):
    """Builder of one."""
    return lambda **options: Counted(tiny(), tmp_path / "cache", **options)


def test_the_tower_is_asked_once_for_each_content(counted, items, capsys):
    made = items(4)
    folder = counted().known.folder
    assert counted().learn(made[:3]) == 3
    assert capsys.readouterr().out == f"features of 3 images: 3 to compute, 0.0 MB in {folder}\n"
    moved = made[0].record.path.rename(made[0].record.path.with_name("moved.png"))
    again = [replace(made[0], record=replace(made[0].record, path=moved)), *made[1:]]
    assert counted().learn(again) == 1
    assert capsys.readouterr().out == f"features of 4 images: 1 to compute, 0.0 MB in {folder}\n"
    shutil.copy(made[1].record.path, moved)
    last = counted()
    assert last.learn(again) == 0
    assert capsys.readouterr().out == f"features of 3 images: known, in {folder}\n"  # two are one
    assert all(last.knows(item) for item in again)


def test_other_pixels_are_other_features(counted, items):
    made = items(2)
    of = counted()
    assert of.learn(made) == 2
    assert of.learn(made, halves=True) == 2
    small = [replace(item, record=replace(item.record, reduction=Reduction(32, None))) for item in made]
    assert of.learn(small) == 2
    for item, other in zip(made, small, strict=True):
        assert of.knows(other)
        assert not of.knows(item)
    assert of.learn(made) == 0
    assert of.knows(made[0])


def test_a_prompt_is_the_same_but_for_what_stands_for_pixels(counted, items):
    made = items(3)
    of = counted()
    of.learn(made[:2])
    for item in made:
        prompt, plain = of.known.prompt(item.record, "Is it sharp?"), of.known.vlm.prompt("Is it sharp?", image_of(item.record))
        assert (prompt.ids, prompt.placeholder) == (plain.ids, plain.placeholder)
        [features] = of.known.vlm.features([plain])
        if item in made[:2]:
            assert torch.equal(prompt.image["features"], features["features"])
            assert prompt.image["features"].shape == (of.known.vlm.visual_tokens(prompt), 32)
        else:
            assert torch.equal(prompt.image["pixel_values"], plain.image["pixel_values"])


def test_nothing_is_learnt_from_no_images(counted, capsys):
    assert counted().learn([]) == 0
    assert capsys.readouterr().out == ""


def test_a_stage_learns_and_answers_the_same_with_it(stage, items, data_of, trainer, tmp_path):
    """Through Lightning, with its autocast: losses, weights and answers."""
    made = items(4)

    def run(known):
        one = stage("joint", model_seed=3).train()
        for name, weight in one.vlm.backbone.named_parameters():
            weight.requires_grad = one.vlm.part_of(name) == "decoder"
        one.known = KnownImages(one.vlm, cache=tmp_path / "cache", most_gb=1, precision="bf16-mixed") if known else None
        data = data_of(one, made[:3], made[3:])
        lightning = trainer(precision="bf16-mixed")
        asked = Mock(side_effect=one.vlm.model.model.get_image_features)
        with patch.object(one.vlm.model.model, "get_image_features", asked):
            lightning.fit(one, data)
            rows = [row for batch in lightning.predict(one, data) for row in batch]
        return asked.call_count, rows, {name: weight.detach() for name, weight in one.vlm.backbone.named_parameters()}

    plain, first, second = run(known=False), run(known=True), run(known=True)
    assert (first[0], second[0]) == (2, 0)  # once to learn, once to answer
    assert plain[0] > 2
    for other in (first, second):
        assert other[1] == plain[1]
        assert all(torch.equal(other[2][name], weight) for name, weight in plain[2].items())


# trouble


def test_a_damaged_cache_is_made_anew_and_this_is_said_once(counted, items, capsys):
    made = items(3)
    counted().learn(made)
    [file] = counted().known.folder.glob("*/*")
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    capsys.readouterr()
    of = counted()
    assert of.learn(made) == 3
    out = capsys.readouterr().out
    said = f"{file.parent}: files that are damaged, or of another program: 1 (first: {file.name}). They are left out, and what is missing is computed"
    assert out.count(said) == 1
    assert all(of.knows(item) for item in made)
    assert counted().learn(made) == 0
    assert capsys.readouterr().out == f"features of 3 images: known, in {of.known.folder}\n"


def disk_full(path, content):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_said_once_and_the_tower_sees_images_anew(counted, items, capsys, monkeypatch):
    made = items(3)
    of = counted()
    monkeypatch.setattr(Path, "write_bytes", disk_full)
    for _ in range(2):
        of.learn(made)
        assert not any(of.knows(item) for item in made)
    out = capsys.readouterr().out
    said = f"features of images are not kept in {of.known.folder}: No space left on device. The tower sees every image anew, with the same result."
    assert out.count(said) == 1
    monkeypatch.undo()
    assert of.learn(made) == 3
    assert all(of.knows(item) for item in made)


def test_what_does_not_fit_is_not_begun(counted, items, capsys):
    of = counted(most_gb=1e-6)
    assert of.learn(items(12)) == 8
    assert not of.knows(items(1)[0])
    assert "for which images.features_gb=1e-06 leaves no room. The tower sees every image anew" in capsys.readouterr().out
    assert not list(of.known.folder.glob("*/*"))


def test_a_place_where_nothing_can_be_written_is_said(tiny, items, tmp_path, capsys):
    (tmp_path / "cache").write_text("a file")
    of = Counted(tiny(), tmp_path / "cache")
    of.learn(items(2))
    assert not of.knows(items(1)[0])
    assert f"features of images are not kept in {tmp_path / 'cache' / 'features'}: Not a directory." in capsys.readouterr().out


def test_a_folder_that_is_deleted_while_images_are_learnt_is_made_again(counted, items, monkeypatch):
    made = items(10)
    of = counted()
    make_room = FeatureStore.make_room

    def deleted_then(store, needed):
        shutil.rmtree(of.known.cache, ignore_errors=True)
        make_room(store, needed)

    monkeypatch.setattr(FeatureStore, "make_room", deleted_then)
    of.learn(made)
    assert all(of.knows(item) for item in made)
    shutil.rmtree(of.known.cache)
    assert torch.isfinite(of.known.prompt(made[9].record, "").image["features"]).all()


def test_what_is_deleted_as_soon_as_it_is_written_is_not_waited_for(counted, items, monkeypatch, capsys):
    of = counted()
    flush = FeatureStore.flush

    def then_deleted(store):
        flush(store)
        store.__init__(store.folder, store.shelf.name, store.most_gb)
        shutil.rmtree(store.folder, ignore_errors=True)

    monkeypatch.setattr(FeatureStore, "flush", then_deleted)
    of.learn(items(2))
    assert not of.knows(items(1)[0])
    assert "what was written is not there any more. The tower sees every image anew" in capsys.readouterr().out


def test_a_model_that_takes_none_or_sees_at_random_is_told(counted, items, capsys):
    of = counted()
    of.known.vlm.model.model.vision_tower.encoder.layers[0].self_attn.dropout = 0.1
    of.known.vlm.train()
    assert of.learn(items(2)) == 0
    assert "dropout acts in the tower. The tower sees every image anew" in capsys.readouterr().out
    of.known.vlm.eval()
    of.known.vlm.model.model.forward = lambda pixel_values: None
    assert of.learn(items(2)) == 0
    assert "this release of transformers takes no features in place of images" in capsys.readouterr().out
    assert not of.knows(items(1)[0])


def test_a_bad_image_is_told(counted, items):
    made = items(3)
    made[1].record.path.write_bytes(b"no image")
    with pytest.raises(BadRecord, match="cannot be decoded"):
        counted().learn(made)


# several processes


class Threads:
    """Threads in place of processes: what `biqa.stages.together` asks of torch.distributed."""

    def __init__(self, number):
        self.number = number
        self.here = threading.local()
        self.barrier = threading.Barrier(number, timeout=60)
        self.values = [None] * number

    ReduceOp = torch.distributed.ReduceOp

    def is_initialized(self):
        return hasattr(self.here, "rank")

    def get_world_size(self):
        return self.number

    def get_rank(self):
        return self.here.rank

    def all_gather_object(self, values, value, group=None):
        self.values[self.here.rank] = value
        self.barrier.wait()
        values[:] = self.values
        self.barrier.wait()

    def all_reduce(self, flag, how):
        values = [None] * self.number
        self.all_gather_object(values, flag.clone())
        flag.copy_(torch.stack(values).max(0).values)

    def run(self, work):
        """What `work` returns in each."""

        def one(rank):
            self.here.rank = rank
            return work(rank)

        with ThreadPoolExecutor(self.number) as pool:
            return list(pool.map(one, range(self.number)))


@pytest.fixture
def two(monkeypatch):
    """Two processes."""
    threads = Threads(2)
    monkeypatch.setattr("biqa.stages.together.dist", threads)
    return threads


def test_processes_share_the_work(two, counted, items):
    """Each takes its part of what all lack; of what one alone lacks, it takes all."""
    made = items(5)

    def learn(given, **options):
        models = [counted(**options) for _ in range(2)]
        asked = two.run(lambda rank: models[rank].learn(given[rank]))
        assert all(of.knows(item) for of, own in zip(models, given, strict=True) for item in own)
        return asked

    assert learn([made, made]) == [3, 2]
    assert learn([made, made]) == [0, 0]
    shutil.rmtree(counted().known.cache)
    assert learn([made[::2], made[1::2]]) == [3, 2]
    assert learn([made[:2], made[1:]]) == [0, 0]


def test_processes_that_share_no_folder_compute_each_for_itself(two, tiny, items, tmp_path):
    made = items(5)
    models = [Counted(tiny(), tmp_path / f"machine {rank}") for rank in range(2)]
    assert two.run(lambda rank: models[rank].learn(made)) == [3 + 2, 2 + 3]
    assert all(of.knows(item) for of in models for item in made)


def test_with_divided_weights_all_take_the_same_number_of_passes(two, counted, items):
    models = [counted() for _ in range(2)]
    weights = threading.Barrier(2, timeout=10)

    def put_together(*_):
        weights.wait()

    for of in models:
        of.known.vlm.sharded = True
        of.known.vlm.register_forward_pre_hook(put_together)
    made = items(17)  # nine and eight
    assert two.run(lambda rank: models[rank].learn(made)) == [9, 9]
    assert two.run(lambda rank: models[rank].learn(made)) == [0, 0]


def test_when_one_cannot_write_all_go_without(two, counted, items, monkeypatch, capsys):
    write = Path.write_bytes
    monkeypatch.setattr(Path, "write_bytes", lambda path, content: disk_full(path, content) if two.here.rank else write(path, content))
    models = [counted() for _ in range(2)]
    made = items(5)
    two.run(lambda rank: models[rank].learn(made))
    assert not any(of.knows(item) for of in models for item in made)
    assert not list(models[0].known.folder.glob("*/*"))
    assert capsys.readouterr().out.count("No space left on device") == 1


def test_what_goes_wrong_in_one_is_raised_in_all(two, counted, items):
    made = items(5)
    made[1].record.path.write_bytes(b"no image")  # the second process reads it
    models = [counted() for _ in range(2)]

    def learn(rank):
        with pytest.raises(BadRecord, match=r"1\.png: cannot be decoded"):
            models[rank].learn(made)
        return everywhere(lambda: rank)

    assert two.run(learn) == [[0, 1], [0, 1]]
