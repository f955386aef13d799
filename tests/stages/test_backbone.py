"""A backbone as a teacher: what it writes is what it says greedily, whatever the batches."""

import pytest
import torch

from biqa.data.record import Reduction
from biqa.errors import TeacherUnavailable
from biqa.language.prompts import DESCRIBE
from biqa.models.vlm import VLM
from biqa.stages import backbone
from biqa.stages.backbone import BackboneWriter


def written(vlm, paths, *, batch_size=2, max_new_tokens=30, reduction=None):
    texts = []
    build = {"build": lambda: vlm, "batch_size": batch_size, "max_new_tokens": max_new_tokens}
    BackboneWriter(name="x", **build).write(paths, reduction, DESCRIBE, lambda path, text: texts.append((path, text)))
    return texts


def test_each_image_gets_the_greedy_text_of_stage_one(stage, items, learn_by_heart):
    module = stage("perception", repeats=0, max_new_tokens=30)
    learnt = items(3)
    learn_by_heart(module, learnt)
    paths = [item.record.path for item in learnt]
    expected = [(item.record.path, item.descriptions[0]) for item in learnt]
    for batch_size in (1, 2, 8):
        assert written(module.vlm, paths, batch_size=batch_size) == expected
    # the second one is the longest: 15 tokens and more
    cut = dict(written(module.vlm, paths, max_new_tokens=12))
    assert cut[paths[0]] == "The image is sharp."
    assert expected[1][1].startswith(cut[paths[1]])
    assert len(cut[paths[1]]) < len(expected[1][1])


def test_what_was_cut_off_loses_its_unfinished_sentence(tiny, items, monkeypatch):
    monkeypatch.setattr(backbone, "sample", lambda *_, **__: type("Answers", (), {"texts": [["Edges are crisp. Noise is low"]]}))
    paths = [items(1)[0].record.path]
    assert written(tiny(), paths, max_new_tokens=30) == [(paths[0], "Edges are crisp. Noise is low")]
    assert written(tiny(), paths, max_new_tokens=9) == [(paths[0], "Edges are crisp.")]


def test_a_text_is_handed_over_before_the_next_batch(tiny, items):
    paths = [item.record.path for item in items(3)]
    paths[2].unlink()
    texts = []
    writer = BackboneWriter(name="x", build=tiny, batch_size=2, max_new_tokens=2)
    with pytest.raises(Exception, match="there is no such file"):
        writer.write(paths, None, DESCRIBE, lambda path, text: texts.append(path))
    assert texts == paths[:2]


def test_the_model_sees_the_image_reduced(tiny, items, monkeypatch):
    seen, prompt = [], VLM.prompt
    monkeypatch.setattr(VLM, "prompt", lambda vlm, question, image: seen.append((question, image.size)) or prompt(vlm, question, image))
    written(tiny(), [items(1)[0].record.path], max_new_tokens=2, reduction=Reduction(32, None))
    assert seen == [(DESCRIBE, (32, 32))]


def test_too_little_memory_is_told(tiny, items, monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(backbone, "sample", full)
    with pytest.raises(TeacherUnavailable, match=r"The teacher with 2 images at a time does not fit into the GPU's memory\. Choose a smaller"):
        written(tiny(), [items(1)[0].record.path])
