import json
import time
from pathlib import Path

import numpy as np
import pytest

from biqa.errors import BadRecord, IncompatibleChoice, RunNotFound
from biqa.reporting.result import FoundRun, find_results
from biqa.reporting.systems import baseline_of, datasets_of, group_systems, mean_measure, measure_system

pytest_plugins = ["fabrication"]


def systems_in(folder):
    return group_systems(find_results(folder))


def names_in(folder) -> list[str]:
    return [system.name for system in systems_in(folder)]


def test_stages_in_the_order_of_the_paper_without_perception(fabricate, tmp_path):
    for name, stage in {"a": "inference", "b": "perception", "c": "joint", "d": "zero_shot"}.items():
        fabricate(tmp_path, name, stage)
    assert names_in(tmp_path) == ["zero-shot", "one-stage (joint)", "two-stage"]


def test_a_name_says_what_differs_within_a_stage(fabricate, tmp_path):
    fabricate(tmp_path, "a", "joint")
    for text in ("target", "generated", "mixed"):
        fabricate(tmp_path, text, "inference", text=text)
    parts = ["trained on generated text", "trained on mixed text", "trained on target text"]
    assert names_in(tmp_path) == ["one-stage (joint)", *(f"two-stage, {part}" for part in parts)]


def test_a_name_says_model_and_tuning_where_they_differ(fabricate, tmp_path):
    fabricate(tmp_path, "a", "joint", model="owl2", tuning="lora")
    fabricate(tmp_path, "b", "joint", model="owl2", tuning="full")
    fabricate(tmp_path, "c", "inference", model="tiny")
    assert names_in(tmp_path) == ["one-stage (joint), owl2, full", "one-stage (joint), owl2, lora", "two-stage, tiny"]


def test_seeds_are_one_system(fabricate, tmp_path):
    for seed in (2, 0, 1):
        fabricate(tmp_path, f"s{seed}", "joint", seed=seed)
    (system,) = systems_in(tmp_path)
    assert [run.result["seed"] for run in system.runs_on("synthetic")] == [0, 1, 2]


def test_runs_on_several_data_sets_share_a_row(fabricate, tmp_path):
    fabricate(tmp_path, "a", "joint", dataset="koniq")
    fabricate(tmp_path, "b", "joint", dataset="spaq")
    systems = systems_in(tmp_path)
    assert [system.name for system in systems] == ["one-stage (joint)"]
    assert datasets_of(systems) == ["koniq", "spaq"]


def test_runs_trained_on_different_data_and_measured_on_one_have_rows_of_their_own(fabricate, tmp_path):
    fabricate(tmp_path, "a", "joint", dataset="koniq")
    fabricate(tmp_path, "b", "joint", dataset="koniq", data="spaq")
    assert names_in(tmp_path) == ["one-stage (joint), koniq", "one-stage (joint), spaq"]


def test_the_same_system_twice_is_refused(fabricate, tmp_path):
    fabricate(tmp_path, "a", "joint")
    fabricate(tmp_path, "b", "joint")
    with pytest.raises(IncompatibleChoice, match=r"a and .*b are the same system with the same seed.*only=\[\.\.\.\]"):
        systems_in(tmp_path)


def test_one_system_asked_in_two_ways_is_refused(fabricate, tmp_path):
    fabricate(tmp_path, "a", "joint", seed=0, repeats=4)
    fabricate(tmp_path, "b", "joint", seed=1, repeats=5)
    with pytest.raises(IncompatibleChoice, match=r"one system asked in different ways: .*'repeats': 4.*'repeats': 5"):
        systems_in(tmp_path)


def test_runs_that_differ_in_further_options_have_rows_that_say_which(fabricate, tmp_path):
    for name, config in [
        ("a", {"stage": {"target": "soft", "epochs": 5}, "trainer": {"devices": 1}}),
        ("b", {"stage": {"target": "hard", "epochs": 5}, "trainer": {"devices": 4}}),
    ]:
        fabricate(tmp_path, name, "joint", config=config)
    assert names_in(tmp_path) == ["one-stage (joint), stage.target=hard", "one-stage (joint), stage.target=soft"]


def test_ways_of_asking_are_called_as_in_tables_and_what_is_not_set_is_not_said(fabricate, tmp_path):
    for name, repeats, start in [("a", 4, None), ("b", 5, "base")]:
        config = {"sampling": {"repeats": repeats, "temperature": 1.0}, "stage": {"init_from": start}}
        fabricate(tmp_path, name, "joint", repeats=repeats, config=config)
    assert names_in(tmp_path) == ["one-stage (joint), N=4", "one-stage (joint), N=5, stage.init_from=base"]


def test_data_sets_with_descriptions_of_their_own_share_a_row(fabricate, tmp_path):
    for dataset, words in (("synthetic", "distortions"), ("livec", "measured")):
        fabricate(tmp_path, f"a-{dataset}", "joint", dataset=dataset, descriptions=words, config={"descriptions": {"kind": words}})
    assert names_in(tmp_path) == ["one-stage (joint)"]
    fabricate(tmp_path, "b", "joint", dataset="livec", descriptions="distortions", seed=1, config={"descriptions": {"kind": "distortions"}})
    assert names_in(tmp_path) == ["one-stage (joint), distortions descriptions", "one-stage (joint), measured descriptions"]


def test_numbers_in_names_are_in_their_order(fabricate, tmp_path):
    for repeats in (2, 10, 5):
        fabricate(tmp_path, f"a{repeats}", "joint", repeats=repeats, config={"sampling": {"repeats": repeats}})
    assert names_in(tmp_path) == [f"one-stage (joint), N={repeats}" for repeats in (2, 5, 10)]


def test_seeds_that_start_from_runs_of_their_seeds_are_one_system(fabricate, tmp_path):
    for seed in (0, 1, 10):
        fabricate(tmp_path, f"a{seed}", "joint", seed=seed, config={"stage": {"init_from": f"runs/x-s{seed}-y"}})
    fabricate(tmp_path, "b", "joint", seed=0, config={"stage": {"init_from": "base"}})
    assert names_in(tmp_path) == ["one-stage (joint), stage.init_from=base", "one-stage (joint), stage.init_from=runs/x-s*-y"]


def test_a_gain_is_taken_over_the_baseline_with_the_same_further_options(fabricate, tmp_path):
    for stage in ("joint", "inference"):
        for target in ("hard", "soft"):
            fabricate(tmp_path, f"{stage}-{target}", stage, config={"stage": {"target": target}})
    systems = systems_in(tmp_path)
    bases = {system.name: baseline_of(system, systems, "joint") for system in systems if system.stage == "inference"}
    assert {name: base and base.name for name, base in bases.items()} == {
        f"two-stage, stage.target={target}": f"one-stage (joint), stage.target={target}" for target in ("hard", "soft")
    }


def test_a_gain_without_such_a_baseline_is_taken_over_the_one_with_no_further_options(fabricate, tmp_path):
    for name, start in (("plain", None), ("base", "base")):
        fabricate(tmp_path, name, "joint", config={"stage": {"init_from": start}})
    for target in ("hard", "soft"):
        fabricate(tmp_path, target, "inference", config={"stage": {"target": target}})
    systems = systems_in(tmp_path)
    for system in systems:
        if system.stage == "inference":
            base = baseline_of(system, systems, "joint")
            assert base is not None
            assert base.runs[0].name == "plain"


def test_nothing_that_scores_images(fabricate, tmp_path):
    fabricate(tmp_path, "a", "perception")
    with pytest.raises(RunNotFound, match=r"None of the 1 runs found scores images.*sweep=main_table"):
        systems_in(tmp_path)


def test_baseline_is_of_the_same_model_and_tuning(fabricate, tmp_path):
    for name, stage, choices in [
        ("a", "joint", {"tuning": "lora"}),
        ("b", "joint", {}),
        ("c", "inference", {"tuning": "lora"}),
        ("d", "inference", {"model": "owl2"}),
        ("e", "zero_shot", {"tuning": "other"}),
    ]:
        fabricate(tmp_path, name, stage, **choices)
    systems = systems_in(tmp_path)
    found = {system.name: baseline_of(system, systems, "joint") for system in systems}
    same = found["two-stage, tiny, lora"]
    assert same is not None
    assert same.tuning == "lora"
    assert found["two-stage, owl2, full"] is None
    assert found["zero-shot, tiny"] is None  # two fit, neither is of its tuning


def test_measures_of_one_seed_are_those_of_the_result(fabricate, tmp_path):
    folder = fabricate(tmp_path, "a", "joint")
    (system,) = systems_in(tmp_path)
    measures = measure_system(system, "synthetic", resamples=50, seed=0)
    written = json.loads((folder / "result.json").read_text())["metrics"]["synthetic"]
    assert set(measures) == {"srcc", "plcc", "instability_sampled", "instability_argmax"}
    for metric, measure in measures.items():
        assert measure.estimate.as_dict() == pytest.approx(written[metric])


def test_without_the_answers_the_interval_is_the_written_one(fabricate, tmp_path):
    folder = fabricate(tmp_path, "a", "joint")
    (folder / "answers" / "synthetic.parquet").unlink()
    (system,) = systems_in(tmp_path)
    measure = measure_system(system, "synthetic", resamples=50, seed=0)["srcc"]
    written = json.loads((folder / "result.json").read_text())["metrics"]["synthetic"]["srcc"]
    assert measure.draws is None
    assert measure.estimate.as_dict() == written


def test_several_seeds_are_averaged_and_narrow_the_interval(fabricate, tmp_path):
    for seed in range(4):
        fabricate(tmp_path / "all", f"s{seed}", "joint", seed=seed)
    fabricate(tmp_path / "one", "s0", "joint", seed=0)
    many, one = (measure_system(systems_in(tmp_path / name)[0], "synthetic", resamples=300, seed=0)["srcc"] for name in ("all", "one"))
    assert many.value == pytest.approx(np.mean(list(many.by_seed.values())))
    assert list(many.by_seed) == [0, 1, 2, 3]
    assert many.estimate.high - many.estimate.low < one.estimate.high - one.estimate.low


def test_mean_over_data_sets(fabricate, tmp_path):
    fabricate(tmp_path, "a", "joint", dataset="koniq")
    fabricate(tmp_path, "b", "joint", dataset="spaq")
    (system,) = systems_in(tmp_path)
    koniq, spaq = (measure_system(system, dataset, resamples=300, seed=0)["srcc"] for dataset in ("koniq", "spaq"))
    mean = mean_measure([koniq, spaq])
    width = {measure: measure.estimate.high - measure.estimate.low for measure in (koniq, spaq, mean)}
    assert mean.value == pytest.approx((koniq.value + spaq.value) / 2)
    assert mean.by_seed == {0: pytest.approx(mean.value)}
    assert width[mean] == pytest.approx(np.hypot(width[koniq], width[spaq]) / 2, rel=0.2)  # independent draws


def test_a_result_that_does_not_fit_its_answers_is_refused(fabricate, tmp_path):
    folder = fabricate(tmp_path, "a", "joint")
    result = json.loads((folder / "result.json").read_text())
    result["metrics"]["synthetic"]["srcc"]["value"] = 0.123
    (folder / "result.json").write_text(json.dumps(result))
    with pytest.raises(BadRecord, match=r"srcc on synthetic is 0\.123 in result\.json and 0\.\d+ in the answers table"):
        measure_system(systems_in(tmp_path)[0], "synthetic", resamples=20, seed=0)


def test_eight_times_as_many_runs_take_eight_times_as_long_to_group(fabricate, tmp_path):
    (made,) = find_results(fabricate(tmp_path, "a", "joint"))
    options = {f"group{group}": {f"option{option}": option / 8 for option in range(8)} for group in range(10)}

    def runs(number: int) -> list[FoundRun]:
        configs = [{"stage": {"epochs": i % (number // 4)}, **options} for i in range(number)]
        return [FoundRun(Path(f"{i}"), made.result | {"seed": i // (number // 4), "config": config}) for i, config in enumerate(configs)]

    seconds = []
    for number in (40, 320):
        many = runs(number)
        began = time.process_time()
        found = group_systems(many)
        seconds.append(time.process_time() - began)
        assert [len(system.runs) for system in found] == [4] * (number // 4)
        assert [system.name for system in found] == [f"one-stage (joint), stage.epochs={i}" for i in range(number // 4)]
    assert seconds[1] < 3 * 8 * seconds[0]  # pair by pair it was 64 times, and each pair option by option
