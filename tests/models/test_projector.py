"""A projector that begins with the words of the answers: what images say to the decoder before a step was taken."""

import numpy as np
import pytest
import torch
from checkpoints import NAMES
from hydra import compose, initialize_config_dir
from PIL import Image
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from biqa import config as schema
from biqa.errors import IncompatibleChoice
from biqa.models.adapters import adapt
from biqa.models.projector import begin_with, fitted_to_words, last_layer
from biqa.running.building import build_model, quiet

LORA = {"kind": "lora", "rank": 2, "alpha": 4, "dropout": 0.0, "targets": None, "freeze": None, "projector": True}
SAID = ("The image is very dark.", "The image is very bright.")


def pictures(number, seed):
    """Dark and bright ones in turn, with noise."""
    rng = np.random.default_rng(seed)
    return [Image.fromarray(np.clip(rng.normal((60, 190)[i % 2], 25, (64, 64, 3)), 0, 255).astype(np.uint8)) for i in range(number)]


def examples(vlm, number=40, seed=0):
    return [(vlm.prompt("How does it look?", picture), vlm.opening(SAID[place % 2])) for place, picture in enumerate(pictures(number, seed))]


def vectors(vlm, answers):
    return torch.stack([vlm.model.get_input_embeddings().weight[list(answer)].detach().float().mean(0) for answer in answers])


def spoken(vlm, prompts):
    """Mean over an image's positions of what the decoder is given."""
    projector = vlm.model.get_submodule(vlm.family.projector[0])
    return torch.stack([vlm.passed(prompt, projector)[1].float().mean(0) for prompt in prompts])


@pytest.fixture
def vlm(tiny):
    built = tiny(seed=3)
    adapt(built, **LORA)
    return built


def test_new_images_say_what_their_answers_would(vlm):
    def right(prompts):
        along = (spoken(vlm, prompts) - (dark + bright) / 2) @ (bright - dark)
        return float(torch.cat([along[0::2] < 0, along[1::2] > 0]).float().mean())

    dark, bright = vectors(vlm, [vlm.opening(text) for text in SAID])
    new = [prompt for prompt, _ in examples(vlm, 20, seed=5)]
    assert right(new) == 0.5
    start = fitted_to_words(vlm, examples(vlm))
    assert start.images == 40
    assert str(start) == "the projector starts with the words of 40 answers"
    begin_with(vlm, start)
    assert right(new) >= 0.9


def test_it_is_the_ridge_regression_of_scikit_learn_enlarged(vlm):
    made = examples(vlm)
    layer = last_layer(vlm, made[0][0])
    given = [vlm.passed(prompt, layer)[0].float() for prompt, _ in made]
    means = np.stack([one.mean(0).numpy() for one in given])
    words = vectors(vlm, [answer for _, answer in made]).numpy()
    scale = StandardScaler().fit(means)
    expected = Ridge(alpha=40).fit(scale.transform(means), words).predict(scale.transform(means)) - words.mean(0)
    begin_with(vlm, fitted_to_words(vlm, made))
    got = spoken(vlm, [prompt for prompt, _ in made]).numpy() - words.mean(0)
    factor = (got * expected).sum() / (expected**2).sum()
    assert factor > 1
    np.testing.assert_allclose(got, factor * expected, atol=1e-5)
    tokens = torch.cat([layer(one) for one in given]) - torch.tensor(words.mean(0))
    assert float(tokens.detach().std()) == pytest.approx(float(vlm.model.get_input_embeddings().weight.std()), rel=1e-4)


WITHOUT_BIAS = ("smolvlm", "idefics3")


@pytest.mark.parametrize("model", ["owl2", *NAMES])
def test_every_backbone_begins_so_whose_projector_ends_in_a_bias(model, checkpoint):
    quiet()
    schema.register()
    chosen = f"model.id={checkpoint(model)}" if model in NAMES else "model.size=tiny"
    with initialize_config_dir(schema.config_directory(), version_base="1.3"):
        vlm = build_model(
            compose("config", ["name=x", f"model={model}", chosen, "tuning=lora", "tuning.projector=true"]), vision=True, weights=None
        ).eval()
    made = examples(vlm, 8)
    if model in WITHOUT_BIAS:
        with pytest.raises(IncompatibleChoice, match="does not end in a linear layer with a bias"):
            fitted_to_words(vlm, made)
        return
    start = fitted_to_words(vlm, made)
    begin_with(vlm, start)
    layer = last_layer(vlm, made[0][0])
    table = vlm.model.get_input_embeddings().weight.float()
    answered = torch.cat([vlm.passed(prompt, layer)[1].float() for prompt, _ in made])
    assert float(table.std()) * 0.5 < float((answered - vectors(vlm, [answer for _, answer in made]).mean(0)).std()) < float(table.std()) * 2


def test_a_projector_that_ends_in_something_else_is_refused(vlm):
    layer = vlm.model.get_submodule("model.multi_modal_projector").modules_to_save["default"].linear_2
    layer.register_forward_hook(lambda module, given, answered: answered * 2)
    vlm.model.get_submodule("model.multi_modal_projector").register_forward_hook(lambda module, given, answered: answered + 1)
    with pytest.raises(
        IncompatibleChoice, match=r"^tuning\.projector_start=words: the projector of llava does not end in a linear layer with a bias\."
    ):
        fitted_to_words(vlm, examples(vlm, 2))
