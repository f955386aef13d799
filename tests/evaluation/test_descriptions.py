import numpy as np
import pandas as pd
import pytest

from biqa.evaluation.bootstrap import draw_counts
from biqa.evaluation.descriptions import evaluate_descriptions
from biqa.language.features import ATTRIBUTES, describe

RESAMPLES = 200


def answers_saying(texts):
    """An answers table whose greedy descriptions are these; each image has a sampled one too, which says something else."""
    greedy = [{"image": f"{position:03d}.png", "query": 0, "description": text} for position, text in enumerate(texts)]
    return pd.DataFrame(greedy + [{**row, "query": 1, "description": "The image is very bright."} for row in greedy])


def figures_of(said, wanted, training):
    """Figures where the descriptions name `said` and the targets `wanted`: a mapping for each image."""
    texts = [describe(features, np.random.default_rng(position)) for position, features in enumerate(said)]
    features = {f"{position:03d}.png": target for position, target in enumerate(wanted)}
    return evaluate_descriptions(answers_saying(texts), features, training=training, resamples=RESAMPLES, seed=0)


def values_of(*texts):
    return {metric: figure["value"] for metric, figure in figures_of(*texts).items()}


def brightness(*strengths):
    return [{} if strength is None else {"brightness": strength} for strength in strengths]


def test_accuracy_beside_the_majority_answer():
    found = values_of(brightness(0, 1, 2, 4), brightness(0, 1, 3, 0), brightness(0, 0, 1))
    assert found["accuracy/brightness"] == 2 / 4
    assert found["majority/brightness"] == 2 / 4  # 0, of the first and the last image
    assert found["over_majority/brightness"] == 0


def test_the_majority_answer_is_that_of_the_training_targets():
    """Strength 3 is commonest among the test targets, 1 among those of training."""
    found = values_of(brightness(3, 3, 3, 3), brightness(3, 3, 3, 1), brightness(1, 1, 3))
    assert found["majority/brightness"] == 1 / 4
    assert found["over_majority/brightness"] == 3 / 4 - 1 / 4


def test_of_equally_common_answers_the_lowest_is_the_majority():
    assert values_of(brightness(0), brightness(2), brightness(4, 2, 4, 2))["majority/brightness"] == 1
    assert values_of(brightness(0), brightness(4), brightness(4, 2, 4, 2))["majority/brightness"] == 0


def test_within_one_step_beside_the_best_constant_answer():
    """With all five strengths equally common, 1 is the lowest that is within a step of three of them; the majority answer is 0."""
    found = values_of(brightness(1, 1, 1, 4, None), brightness(0, 1, 2, 0, 4), brightness(0, 1, 2, 3, 4))
    assert found["within_one/brightness"] == 3 / 5
    assert found["within_one_constant/brightness"] == 4 / 5
    assert found["accuracy/brightness"] == 1 / 5
    assert found["majority/brightness"] == 2 / 5


def test_a_feature_that_is_never_named_is_always_wrong():
    wanted = [{"brightness": strength, "noise": 0} for strength in (0, 1, 2)]
    found = values_of([{"noise": 0}] * 3, wanted, wanted)
    assert found["accuracy/brightness"] == found["within_one/brightness"] == 0
    assert found["over_majority/brightness"] == -1 / 3
    assert found["accuracy/noise"] == 1


def test_a_text_that_cannot_be_read_names_nothing():
    features = {"000.png": {"brightness": 2}}
    found = evaluate_descriptions(answers_saying(["bright bright bri"]), features, training=[{"brightness": 2}], resamples=10, seed=0)
    assert found["accuracy/brightness"]["value"] == 0
    assert found["majority/brightness"]["value"] == 1


def jitter(*levels):
    return [{"jitter": level} if level else {} for level in levels]


def test_a_feature_that_some_targets_leave_out_is_judged_where_it_is_and_over_all_images():
    """Levels 1 and 4 are in the first two images: one is named a step off, the other right; then a false alarm, and twice nothing, rightly."""
    found = values_of(jitter(2, 4, 1, None, None), jitter(1, 4, None, None, None), jitter(None, None, None, 1, 1, 5))
    assert found["accuracy/jitter"] == 1 / 2
    assert found["majority/jitter"] == 1 / 2  # level 1
    assert found["within_one/jitter"] == 1
    assert found["within_one_constant/jitter"] == 1 / 2
    assert found["accuracy_all/jitter"] == 3 / 5
    assert found["majority_all/jitter"] == 3 / 5  # absence
    assert found["over_majority_all/jitter"] == 0


def test_false_alarms_show_over_all_images_alone():
    wanted = jitter(1, None, None, None)
    silent, loud = values_of(jitter(1, None, None, None), wanted, wanted), values_of(jitter(1, 1, 1, 1), wanted, wanted)
    assert silent["accuracy/jitter"] == loud["accuracy/jitter"] == 1
    assert (silent["accuracy_all/jitter"], loud["accuracy_all/jitter"]) == (1, 1 / 4)


def test_absence_is_the_majority_only_where_it_is_commonest_in_training():
    """Of equally common answers it comes first."""
    assert values_of(jitter(3), jitter(3), jitter(3, 3, None))["majority_all/jitter"] == 1
    assert values_of(jitter(3), jitter(3), jitter(3, None))["majority_all/jitter"] == 0


def test_a_feature_that_every_target_names_has_nothing_over_all_images():
    """There the two would be the same. One training or test target without it is enough to have both."""
    for wanted, training in ((jitter(1, None), jitter(1)), (jitter(1, 1), jitter(1, None))):
        both = [{**text, "brightness": 0} for text in wanted], [{**text, "brightness": 0} for text in training]
        found = values_of(both[0], *both)
        assert {metric for metric in found if "_all" in metric} == {
            f"{metric}_all{place}" for metric in ("accuracy", "majority", "over_majority") for place in ("", "/jitter")
        }


def test_a_constant_answer_is_one_that_can_be_given():
    """Level 0 is within a step of level 1 and lower, but no distortion has it: the lowest that can be said is 1, which is within a step of 2."""
    found = values_of(jitter(2), jitter(2), jitter(1))
    assert found["within_one_constant/jitter"] == 1
    assert found["majority/jitter"] == 0


def many(seed, images=60):
    """Targets of brightness and noise; descriptions that are right for about half of the images and now and then leave a feature out."""
    rng = np.random.default_rng(seed)
    wanted = [{"brightness": int(rng.integers(5)), "noise": int(rng.integers(3))} for _ in range(images)]
    said = [{name: (strength if rng.random() < 0.5 else int(rng.integers(5))) for name, strength in target.items()} for target in wanted]
    return [{name: strength for name, strength in text.items() if rng.random() < 0.9} for text in said], wanted


def test_intervals_are_those_of_the_paired_bootstrap_over_images():
    said, wanted = many(0)
    found = figures_of(said, wanted, wanted)
    counts = draw_counts("", [str(position) for position in range(60)], RESAMPLES, 0)
    for name in ("brightness", "noise"):
        strengths = np.array([target[name] for target in wanted])
        commonest = np.bincount(strengths).argmax()
        right = np.array([text.get(name, -1) for text in said]) == strengths
        ours = [np.average(right, weights=drawn) for drawn in counts]
        theirs = [np.average(strengths == commonest, weights=drawn) for drawn in counts]
        differences = np.array(ours) - np.array(theirs)
        for metric, draws, value in (
            ("accuracy", ours, right.mean()),
            ("majority", theirs, (strengths == commonest).mean()),
            ("over_majority", differences, right.mean() - (strengths == commonest).mean()),
        ):
            low, high = np.percentile(draws, (2.5, 97.5))
            figure = found[f"{metric}/{name}"]
            assert (figure["value"], figure["low"], figure["high"]) == pytest.approx((value, low, high), abs=1e-12)


def test_the_interval_of_a_difference_is_narrower_where_both_are_right_together():
    """The model gives the majority answer but for two images: the difference is known far better than either share."""
    wanted = brightness(*[1] * 30, *[4] * 30)
    found = figures_of(brightness(*[1] * 58, 4, 4), wanted, brightness(1, 1, 4))
    width = {metric: found[f"{metric}/brightness"]["high"] - found[f"{metric}/brightness"]["low"] for metric in ("accuracy", "over_majority")}
    assert found["over_majority/brightness"]["value"] == pytest.approx(2 / 60)
    assert width["over_majority"] < width["accuracy"] / 2


def test_the_mean_over_features_has_the_interval_of_that_mean():
    said, wanted = many(1)
    found = figures_of(said, wanted, wanted)
    counts = draw_counts("", [str(position) for position in range(60)], RESAMPLES, 0)
    right = np.mean([[text.get(name) == target[name] for name in target] for text, target in zip(said, wanted, strict=True)], axis=1)
    low, high = np.percentile([np.average(right, weights=drawn) for drawn in counts], (2.5, 97.5))
    assert tuple(found["accuracy"].values()) == pytest.approx((right.mean(), low, high), abs=1e-12)
    for metric in ("accuracy", "majority", "over_majority", "within_one", "within_one_constant"):
        by_feature = [found[f"{metric}/{name}"]["value"] for name in ("brightness", "noise")]
        assert found[metric]["value"] == pytest.approx(np.mean(by_feature), abs=1e-12)


def test_intervals_where_a_feature_is_not_in_every_image():
    """Each resample divides by the images that it drew with the feature; the mean over features weighs each feature alike."""
    rng = np.random.default_rng(4)
    wanted = [{"brightness": int(rng.integers(5)), **({"jitter": int(rng.integers(1, 6))} if rng.random() < 0.4 else {})} for _ in range(60)]
    said = [{name: strength if rng.random() < 0.5 else 1 for name, strength in target.items()} for target in wanted]
    found = figures_of(said, wanted, wanted)
    shown = np.array(["jitter" in target for target in wanted])
    right = {
        name: np.array([text.get(name) == target.get(name) for text, target in zip(said, wanted, strict=True)]) for name in ("brightness", "jitter")
    }
    counts = draw_counts("", [str(position) for position in range(60)], RESAMPLES, 0)
    jittered = np.array([np.average(right["jitter"][shown], weights=drawn[shown]) for drawn in counts])
    both = (jittered + [np.average(right["brightness"], weights=drawn) for drawn in counts]) / 2
    for figure, draws, value in (
        (found["accuracy/jitter"], jittered, right["jitter"][shown].mean()),
        (found["accuracy"], both, (right["jitter"][shown].mean() + right["brightness"].mean()) / 2),
    ):
        assert tuple(figure.values()) == pytest.approx((value, *np.percentile(draws, (2.5, 97.5))), abs=1e-12)
    assert found["accuracy_all"] == found["accuracy_all/jitter"]


def test_only_features_that_both_sides_name_are_judged():
    found = figures_of(brightness(0), [{"brightness": 0, "contrast": 1}], [{"brightness": 0, "noise": 3}])
    assert {metric.partition("/")[2] for metric in found} == {"", "brightness"}


@pytest.mark.parametrize("training", [[], [{}, {}], [{"noise": 1}]])
def test_without_a_known_feature_there_is_nothing_by_feature(training):
    found = figures_of([{}, {}], [{}, {}], training)
    assert found.keys() == {"feature_f1", "strength_f1", "coverage"}
    assert found["feature_f1"]["value"] == 1


def test_features_come_in_the_order_of_the_registry():
    names = [spec.name for spec in ATTRIBUTES]
    everything = [dict.fromkeys(reversed(names), 1)]
    found = figures_of(everything, everything, everything)
    assert [metric.removeprefix("accuracy/") for metric in found if metric.startswith("accuracy/")] == names
    assert list(found)[:8] == [
        "feature_f1", "strength_f1", "coverage", "accuracy", "majority", "over_majority", "within_one", "within_one_constant",
    ]  # fmt: skip


def test_the_order_of_the_rows_does_not_matter():
    said, wanted = many(2)
    table = answers_saying([describe(features, np.random.default_rng(0)) for features in said])
    features = {f"{position:03d}.png": target for position, target in enumerate(wanted)}
    options = {"training": wanted, "resamples": RESAMPLES, "seed": 0}
    shuffled = table.sample(frac=1, random_state=0)
    assert evaluate_descriptions(shuffled, features, **options) == evaluate_descriptions(table, features, **options)


def test_figures_of_the_text_as_a_whole():
    """Named brightness and noise, wanted brightness and contrast: F1 2 * 1 / 4, with the strength 0; the second text is right but for a sentence."""
    texts = ["The image is dark. There is no noise.", "The image is dark. It is a cat."]
    features = {"000.png": {"brightness": 3, "contrast": 1}, "001.png": {"brightness": 1}}
    found = evaluate_descriptions(answers_saying(texts), features, training=[], resamples=10, seed=0)
    assert {metric: figure["value"] for metric, figure in found.items()} == {"feature_f1": 0.75, "strength_f1": 0.5, "coverage": 0.75}


def test_kinds_have_no_steps():
    """Blur is not one step from noise."""
    found = values_of([{"main_defect": 1}, {"main_defect": 0}], [{"main_defect": 0}, {"main_defect": 0}], [{"main_defect": 0}])
    assert found["accuracy/main_defect"] == 1 / 2
    assert not [metric for metric in found if metric.startswith("within_one")]


def test_without_targets_there_is_coverage_alone():
    table = answers_saying(["The image is very dark. It is sunny.", "The contrast is low."])
    found = evaluate_descriptions(table, None, training=[{"brightness": 0}], resamples=RESAMPLES, seed=0)
    assert {metric: figure["value"] for metric, figure in found.items()} == {"coverage": 0.75}
