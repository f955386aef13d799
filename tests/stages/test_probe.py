"""The ridge probe: what the frozen tower's features hold."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import RidgeCV
from sklearn.preprocessing import StandardScaler

from biqa.data.module import Item
from biqa.data.record import Record
from biqa.errors import RunNotFound
from biqa.reporting.result import read_result
from biqa.running.building import quiet
from biqa.stages.probe import PENALTIES, Probe, Regression

pytest_plugins = ["small_runs"]

OPTIONS = {
    "lr": 1e-3, "weight_decay": 0.0, "warmup": 0.0, "total_steps": 0, "repeats": 10, "temperature": 1.0, "top_p": 1.0, "max_new_tokens": 8, "seed": 0,
}  # fmt: skip


@pytest.fixture
def items(tmp_path, picture):
    """Pictures that are the blurrier the lower their quality."""
    from PIL import ImageFilter

    made = []
    for index in range(24):
        q = index / 23
        path = tmp_path / f"{index}.png"
        picture(index).filter(ImageFilter.GaussianBlur(4 * (1 - q))).save(path)
        made.append(Item(Record(image=path.name, path=path, q=q, score=q, split="train", group=path.name), ("",)))
    return made


def test_the_probe_is_the_ridge_regression_of_scikit_learn_on_the_mean_features(tiny, items):
    quiet()
    vlm = tiny()
    stage = Probe(vlm, target="soft", level_weight=1.0, **OPTIONS)
    stage.learn_without_steps(items[::2])
    stage.on_predict_start()
    rows = stage.predict_step(items[1::2])
    seen = {}
    vlm.model.model.vision_tower.register_forward_hook(lambda module, given, out: seen.update(out=out.last_hidden_state[:, 1:]))
    features = []
    for item in items:
        prompt = stage.image_prompt(item, "x")
        with torch.no_grad():
            vlm.hidden(torch.tensor([prompt.ids]), torch.ones(1, len(prompt.ids), dtype=torch.long), image=prompt.image)
        features.append(seen["out"][0].mean(0).numpy())
    scale = StandardScaler().fit(features[::2])
    ridge = RidgeCV(PENALTIES).fit(scale.transform(features[::2]), [item.record.q for item in items[::2]])
    expected = ridge.predict(scale.transform(features[1::2])).clip(0, 1)
    assert [row["score"] for row in rows] == pytest.approx(expected, abs=1e-5)
    assert np.corrcoef(expected, [row["q"] for row in rows])[0, 1] > 0.9
    assert {row["query"] for row in rows} == {0}


def test_what_it_has_learnt_is_kept_and_read_again(tiny, items, tmp_path, monkeypatch):
    quiet()
    file = tmp_path / "regression.safetensors"
    rows = []
    for _ in range(2):
        stage = Probe(tiny(), target="soft", level_weight=1.0, **OPTIONS)
        stage.learn_without_steps(items[::2], file)
        stage.on_predict_start()
        rows.append(stage.predict_step(items[1::2]))
        monkeypatch.setattr(Regression, "fit", None)  # a run that goes on after a kill
    assert rows[0] == rows[1]
    assert [path.name for path in tmp_path.glob("*.[st]*")] == [file.name]
    file.write_bytes(b"no weights")
    with pytest.raises(RunNotFound, match=r"regression\.safetensors: damaged .*overwrite=true"):
        Regression.read(file)


def test_the_decoder_is_not_run_for_features(tiny, picture):
    vlm = tiny()
    ran = []
    vlm.model.model.language_model.register_forward_hook(lambda *_: ran.append(1))
    features = vlm.tower_features(vlm.prompt("x", picture()))
    assert features.shape == (9, 32)
    assert ran == []


def test_a_run_of_it_is_told_from_one_that_learnt_nothing(run, tmp_path):
    assert run(tmp_path, "probe", "stage=probe").code == 0
    assert read_result(tmp_path / "probe" / "result.json")["data"]["synthetic"]["trained_on"] == 24
    assert not (tmp_path / "probe" / "model").exists()
