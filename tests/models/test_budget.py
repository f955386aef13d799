"""The memory that answering takes is foretold well enough: never much less than what is really alive, nor many times as much."""

import weakref
from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from biqa.errors import IncompatibleChoice
from biqa.models.budget import ROWS, bytes_an_image, host_memory, images_at_a_time
from biqa.models.sampling import sample, uniforms

SHAPES = {
    "a large vocabulary": {"vocabulary": 2048, "hidden": 32, "layers": 1},
    "long prompts": {"grid": 12, "hidden": 64, "layers": 2},
    "a wide tower": {"grid": 12, "tower_hidden": 256, "hidden": 32},
    "many layers": {"layers": 12, "hidden": 64, "vocabulary": 1024},
}


class Alive(TorchDispatchMode):
    """Bytes of all tensors that operations have made and that are still there; `peak` is the most."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self.known = set()

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        made = function(*arguments, **(options or {}))
        for value in made if isinstance(made, list | tuple) else [made]:
            if isinstance(value, torch.Tensor):
                self.count(value.untyped_storage())
        return made

    def count(self, storage):
        place, size = storage.data_ptr(), storage.nbytes()
        if place in self.known or not size:
            return
        self.known.add(place)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self.gone, place, size)

    def gone(self, place, size):
        self.known.discard(place)
        self.now -= size


def peak(vlm, prompts, queries, tokens):
    numbers = uniforms(0, [str(number) for number in range(len(prompts))], queries - 1, tokens)
    with Alive() as alive:
        sample(vlm, prompts, numbers, temperature=1.0, top_p=1.0, max_new_tokens=tokens)
    return alive.peak


@pytest.mark.parametrize("shape", list(SHAPES))
def test_what_an_image_takes_is_foretold(tiny, picture, monkeypatch, shape):
    vlm = tiny(**SHAPES[shape])
    monkeypatch.setattr(vlm, "eos_id", -1)  # all answers are as long as they may be
    prompts = [vlm.prompt("Describe.", picture(number)) for number in range(5)]
    queries, tokens = 6, 12
    measured = (peak(vlm, prompts, queries, tokens) - peak(vlm, prompts[:1], queries, tokens)) / 4
    foretold = bytes_an_image(vlm, prompts[0], queries=queries, tokens=tokens, kind=torch.float32)
    assert 0.8 * measured < foretold < 3 * measured


def test_as_many_images_as_fit(tiny, picture):
    vlm = tiny(layers=6, hidden=128)
    prompts = [vlm.prompt("Describe.", picture(0)), vlm.prompt("Describe what you see in the image in several words.", picture(1))]
    options = {"queries": 11, "tokens": 64, "kind": torch.bfloat16}
    one = bytes_an_image(vlm, prompts[1], **options)
    assert one > bytes_an_image(vlm, prompts[0], **options)
    assert images_at_a_time(vlm, prompts, memory_gb=3.5 * one / 2**30, **options) == 3
    assert images_at_a_time(vlm, prompts, memory_gb=1.0, **options) == ROWS // 11
    with pytest.raises(IncompatibleChoice) as refused:
        images_at_a_time(vlm, prompts, memory_gb=0.9 * one / 2**30, **options)
    assert "is too small for one image" in str(refused.value)
    (enough,) = [float(word.rstrip(",")[len("sampling.memory_gb=") :]) for word in str(refused.value).split() if "memory_gb" in word][1:]
    assert images_at_a_time(vlm, prompts, memory_gb=enough, **options) == 1


def test_known_features_cost_no_tower(tiny, picture):
    vlm = tiny(tower_hidden=512, grid=12)
    prompt = vlm.prompt("Describe.", picture(0))
    known = replace(prompt, image=vlm.features([prompt])[0])
    options = {"queries": 1, "tokens": 1, "kind": torch.float32}
    assert bytes_an_image(vlm, known, **options) < bytes_an_image(vlm, prompt, **options)


def test_the_host_has_no_more_than_a_container_allows(tmp_path):
    (tmp_path / "memory.max").write_text("1073741824\n")
    assert host_memory(tmp_path / "memory.max") == 2**30
    (tmp_path / "memory.max").write_text("max\n")
    assert host_memory(tmp_path / "memory.max") == host_memory(tmp_path / "none") > 2**30
