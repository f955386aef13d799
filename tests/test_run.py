"""Runs end to end: small, on a CPU, through the door."""

import csv
import json
import math
import shutil
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf
from PIL import Image
from scipy.io import savemat

from biqa.config import config_directory
from biqa.doors.sweeps import in_order
from biqa.evaluation.answers import COLUMNS, PROBABILITIES, read_answers
from biqa.evaluation.descriptions import evaluate_descriptions
from biqa.evaluation.evaluate import evaluate
from biqa.language.levels import LEVELS
from biqa.reporting.result import KEYS, read_result
from biqa.run import numbers_to_words

pytest_plugins = ["small_runs"]

STAGES = {"zero_shot": "zero_shot", "joint": "joint", "perception": "1", "inference": "2"}
SCORING = ("zero_shot", "joint", "inference")
BY_DECISION = {
    f"{measure}_{decision}"
    for measure in ("instability", "flip_rate", "pairwise_disagreement", "level_entropy")
    for decision in ("sampled", "argmax")
}
METRICS = {"srcc", "krcc", "plcc", "plcc_logistic4", "rmse", "srcc_mean", "plcc_mean", "score_std", "unparsed", "unscored"} | BY_DECISION
DESCRIPTION_METRICS = {"feature_f1", "strength_f1", "coverage", "accuracy", "majority", "over_majority", "within_one", "within_one_constant"}
OVER_ALL = {"accuracy_all", "majority_all", "over_majority_all"}
EIGHT = "stage.batch_size=8"


def options(stage):
    """As typed for one of the four stages."""
    return [f"stage={STAGES[stage]}", EIGHT, *([] if stage == "zero_shot" else ["stage.epochs=1"])]


def all_stages(run, runs, *more):
    return {stage: run(runs, stage, *options(stage), *more) for stage in STAGES}


@pytest.fixture(scope="module")
def four(run, tmp_path_factory):
    """A folder with a finished run of each stage, and what they printed."""
    runs = tmp_path_factory.mktemp("four") / "runs"
    return runs, all_stages(run, runs)


@pytest.fixture
def copy(four, tmp_path):
    """The same runs, for a test that may change them."""
    return shutil.copytree(four[0], tmp_path / "runs")


def answers_of(runs, name, dataset="synthetic"):
    return read_answers(runs / name / "answers" / f"{dataset}.parquet")


def result_of(runs, name):
    return read_result(runs / name / "result.json")


def state(folder):
    """Every file below a folder with its time and size."""
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*") if path.is_file()}


def images_of(folder):
    from biqa.running.loading import load_corpus

    [images] = load_corpus(OmegaConf.load(folder / "config.yaml"), describe_tests=True).training
    return images


@pytest.mark.parametrize("stage", STAGES)
def test_each_stage_runs_and_prints_its_table(four, stage):
    printed = four[1][stage]
    assert (printed.code, printed.err) == (0, "")
    assert f"{stage}: stage {stage}, model tiny, seed 0" in printed.out
    assert ("instability % (sampled)" in printed.out) == (stage in SCORING)
    assert "synthetic, 12 images" in printed.out
    assert "N = 2 queries an image at T = 1, top-p 1" in printed.out
    assert "STAND-IN: the labels of synthetic are not human opinions of these very images." in printed.out


@pytest.mark.parametrize("stage", STAGES)
def test_a_run_folder_holds_what_it_should(four, stage):
    folder = four[0] / stage
    held = {path.name for path in folder.iterdir()}
    trained = {"model", "checkpoints", "logs"}
    assert held - {"logs"} == {"config.yaml", "origin.json", "pictures.parquet", "result.json", "answers"} | {
        "zero_shot": set(), "joint": trained, "perception": trained, "inference": trained | {"descriptions"},
    }[stage] - {"logs"}  # fmt: skip
    assert [path.name for path in (folder / "answers").iterdir()] == ["synthetic.parquet"]
    assert stage == "zero_shot" or (folder / "model" / "model.safetensors").is_file()
    assert not list(folder.rglob("*.tmp"))


def test_the_folder_of_runs_holds_runs_alone(four):
    assert {path.name for path in four[0].iterdir()} == set(STAGES)


@pytest.mark.parametrize("stage", STAGES)
def test_a_result_says_what_was_measured_and_where_it_comes_from(four, stage):
    folder = four[0] / stage
    result = result_of(four[0], stage)
    assert tuple(result) == KEYS
    assert result["run"] == {
        "name": stage,
        "model": "tiny",
        "stage": stage,
        "data": "synthetic",
        "descriptions": "distortions",
        "tuning": "full",
        "quantization": "none",
    }
    assert result["seed"] == 0
    assert result["sampling"] == {"repeats": 2, "temperature": 1.0, "top_p": 1.0}
    assert result["config"] == OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"))
    assert {"python", "biqa", "torch", "transformers", "lightning", "hydra-core", "numpy", "scipy", "pandas"} <= result["versions"].keys()
    expected = {
        "images": 12, "trained_on": 0 if stage == "zero_shot" else 24, "fingerprint": images_of(folder).fingerprint,
        "stand_in": True, "skipped": [], "notes": [], "alarms": [],
    }  # fmt: skip
    assert result["data"] == {"synthetic": expected}
    phases = (
        {"build", "data", "answer", "evaluate"} | ({"fit"} if stage != "zero_shot" else set()) | ({"describe"} if stage == "inference" else set())
    )
    assert result["seconds"].keys() == phases
    assert sum(result["seconds"].values()) > 0


@pytest.mark.parametrize("stage", STAGES)
def test_every_figure_has_an_interval(four, stage):
    metrics = result_of(four[0], stage)["metrics"]
    assert list(metrics) == ["synthetic"]
    of_data = {metric for metric in metrics["synthetic"] if "/" not in metric}
    assert of_data == (METRICS if stage in SCORING else DESCRIPTION_METRICS | OVER_ALL)
    targets = images_of(four[0] / stage).targets if stage == "perception" else {}
    shown = set(answers_of(four[0], stage)["image"])
    named = Counter(name for image, target in targets.items() if image in shown for name in target.features)
    for metric, figure in metrics["synthetic"].items():
        assert figure.keys() == {"value", "low", "high"}
        assert math.isfinite(figure["value"])
        kind, _, feature = metric.partition("/")
        if feature and not kind.endswith("_all") and named[feature] == 1:
            assert math.isnan(figure["low"]), metric  # one image says nothing of how images differ
            assert math.isnan(figure["high"]), metric
        else:
            assert figure["low"] <= figure["high"], metric


@pytest.mark.parametrize("stage", SCORING)
def test_the_answers_table_gives_the_figures_of_the_result_again(four, stage):
    result = result_of(four[0], stage)
    assert evaluate(answers_of(four[0], stage), resamples=result["config"]["evaluation"]["resamples"], seed=0) == result["metrics"]


def test_the_descriptions_of_stage_one_give_its_figures_again(four):
    images = images_of(four[0] / "perception")
    features = {image: target.features for image, target in images.targets.items()}
    training = [features[record.image] for record in images.split("train")]
    again = evaluate_descriptions(answers_of(four[0], "perception"), features, training=training, resamples=40, seed=0)
    np.testing.assert_equal({"synthetic": again}, result_of(four[0], "perception")["metrics"])  # equal where undefined too


@pytest.mark.parametrize("stage", SCORING)
def test_the_answers_are_one_row_a_query(four, stage):
    answers = answers_of(four[0], stage)
    records = {record.image: record for record in images_of(four[0] / stage).split("test")}
    assert tuple(answers.columns) == COLUMNS
    assert list(zip(answers["image"], answers["query"], strict=True)) == [(image, query) for image in sorted(records) for query in range(3)]
    assert list(answers["q"]) == [records[image].q for image in answers["image"]]
    p = answers[list(PROBABILITIES)].to_numpy()
    assert p.sum(axis=1) == pytest.approx(1, abs=1e-12)
    assert list(answers["score"]) == pytest.approx(p @ np.linspace(0, 1, 5))
    greedy = (answers["query"] == 0).to_numpy()
    assert list(answers["level"][greedy]) == [LEVELS[index] for index in p[greedy].argmax(axis=1)]
    assert set(answers["level"]) <= set(LEVELS)


def test_stage_two_reads_what_its_stage_one_writes(four):
    """It found that stage 1 by itself, and asked it just as stage 1 asked itself."""
    one, two = answers_of(four[0], "perception"), answers_of(four[0], "inference")
    assert list(one["description"]) == list(two["description"])
    written = pd.read_parquet(four[0] / "inference" / "descriptions" / "synthetic-train.parquet")
    assert len(written) == 48  # stage.generated_per_image = 2 for each of 24


def test_stage_two_has_no_tower(four):
    names = json.loads((four[0] / "inference" / "model" / "config.json").read_text())
    assert names["architectures"] == ["LlamaForCausalLM"]


def test_the_same_command_gives_the_same_answers_and_figures(four, run, tmp_path, digest):
    all_stages(run, tmp_path)
    for stage in STAGES:
        pd.testing.assert_frame_equal(answers_of(tmp_path, stage), answers_of(four[0], stage), check_exact=True)
        assert result_of(tmp_path, stage)["metrics"] == result_of(four[0], stage)["metrics"]
    for stage in ("joint", "perception", "inference"):
        assert digest(tmp_path / stage / "model" / "model.safetensors") == digest(four[0] / stage / "model" / "model.safetensors")


def test_another_seed_gives_other_answers(four, run, tmp_path):
    assert run(tmp_path, "joint", *options("joint"), "seed=1").code == 0
    other, answers = answers_of(tmp_path, "joint"), answers_of(four[0], "joint")
    assert other["q"].tolist() == answers["q"].tolist()  # of the same images
    assert not set(other["score"]) & set(answers["score"])


def test_a_finished_run_is_shown_and_not_run_again(copy, run, four):
    before = state(copy)
    again = run(copy, "joint", *options("joint"))
    assert again.code == 0
    assert again.out.startswith(f"{copy / 'joint'} is finished already; its result follows. Add overwrite=true to run it again. joint: stage joint")
    assert again.out.endswith(four[1]["joint"].out[four[1]["joint"].out.index("joint: stage joint") :])
    assert state(copy) == before


def test_overwrite_runs_it_again(copy, run):
    stray = copy / "joint" / "answers" / "old.parquet"
    stray.write_text("left from before")
    before = state(copy / "joint")
    assert run(copy, "joint", *options("joint"), "overwrite=true").code == 0
    after = state(copy / "joint")
    assert after.keys() == before.keys() - {stray}
    assert after[copy / "joint" / "result.json"] != before[copy / "joint" / "result.json"]


def test_a_folder_of_another_config_is_refused(copy, run):
    before = state(copy)
    refused = run(copy, "joint", *options("joint"), "stage.epochs=3")
    assert refused.code == 2
    assert "holds a run with another config: stage.epochs: 1 there, 3 here Choose another name=, or overwrite=true" in refused.err
    assert "Traceback" not in refused.err
    assert state(copy) == before


def test_stage_two_without_a_stage_one_says_what_to_run_first(run, tmp_path):
    assert run(tmp_path, "other-seed", *options("perception"), "seed=1").code == 0
    refused = run(tmp_path, "two", *options("inference"))
    assert refused.code == 2
    assert "Run it first: python -m biqa.run stage=1 model=tiny data=synthetic seed=0" in refused.err
    assert "Traceback" not in refused.err
    assert not (tmp_path / "two").exists()


@pytest.mark.parametrize("epochs", [0, 1])
def test_init_from_starts_from_the_weights_of_that_run(four, run, tmp_path, digest, epochs):
    """Without a step the answers are those of that run; with steps of no length the weights stay, too."""
    source = four[0] / "joint"
    assert run(tmp_path, "joint", *options("joint"), f"stage.init_from={source}", "tuning.lr=1e-300", f"stage.epochs={epochs}", "seed=3").code == 0
    greedy = [answers_of(runs, "joint").query("query == 0").reset_index(drop=True) for runs in (tmp_path, four[0])]
    pd.testing.assert_frame_equal(*greedy, check_exact=True)
    if epochs:
        assert digest(tmp_path / "joint" / "model" / "model.safetensors") == digest(source / "model" / "model.safetensors")


def decoder_weights(folder):
    """The decoder's tensors of a run by a name that does not depend on what stands beside the decoder."""
    from safetensors.numpy import load_file

    (file,) = [path for kind in ("model", "adapter") for path in (folder / kind).glob("*.safetensors")]
    weights = {name.replace("language_model.", ""): value for name, value in load_file(file).items()}
    return {name: value for name, value in weights.items() if "vision" not in name and "projector" not in name}


@pytest.fixture(scope="module")
def lora(run, tmp_path_factory):
    """Finished joint and stage-1 runs with adapters, and what they printed."""
    runs = tmp_path_factory.mktemp("lora") / "runs"
    return runs, {stage: run(runs, stage, *options(stage), "tuning=lora", "tuning.rank=2") for stage in ("joint", "perception", "inference")}


@pytest.mark.parametrize("stage", ["joint", "perception", "inference"])
def test_lora_writes_an_adapter(lora, stage):
    runs, printed = lora
    assert printed[stage].code == 0, printed[stage].err
    assert (runs / stage / "adapter" / "adapter_model.safetensors").is_file()
    assert json.loads((runs / stage / "adapter" / "adapter_config.json").read_text())["r"] == 2
    assert not (runs / stage / "model").exists()
    assert result_of(runs, stage)["run"]["tuning"] == "lora"
    learnt = [value for name, value in decoder_weights(runs / stage).items() if "lora_B" in name]
    assert any(value.any() for value in learnt)  # they start as zeros


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_stage_two_starts_from_the_decoder_of_its_stage_one(four, lora, run, tmp_path, tuning):
    source = (lora if tuning == "lora" else four)[0] / "perception"
    more = ["tuning=lora", "tuning.rank=2"] if tuning == "lora" else []
    assert run(tmp_path, "two", *options("inference"), *more, f"stage.perception={source}", "tuning.lr=1e-300").code == 0
    one, two = decoder_weights(source), decoder_weights(tmp_path / "two")
    assert one.keys() == two.keys()
    assert all((one[name] == two[name]).all() for name in one)


def test_stage_two_may_start_from_the_base_instead(four, run, tmp_path):
    assert (
        run(tmp_path, "two", *options("inference"), f"stage.perception={four[0] / 'perception'}", "tuning.lr=1e-300", "stage.init_from=base").code
        == 0
    )
    one, two = decoder_weights(four[0] / "perception"), decoder_weights(tmp_path / "two")
    assert any((one[name] != two[name]).any() for name in one)
    assert list(answers_of(tmp_path, "two")["description"]) == list(answers_of(four[0], "inference")["description"])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["stage.init_from={tmp}"], "stage.init_from={tmp}: no run there (a run folder has a config.yaml)."),
        (["stage.init_from={four}/zero_shot"], "zero_shot/model: no weights to start from; is that run finished?"),
        (["stage.init_from={four}/joint", "tuning=lora"], "joint/adapter: no weights to start from; it holds model/ instead: use the same tuning="),
        (["stage.init_from={four}/joint", "model.layers=2"], "Start from a run with the same model= options."),
        (["stage.init_from={four}/inference"], "weights are missing, misshaped or unknown in this model"),
    ],
)
def test_init_from_what_will_not_do_is_refused(four, run, tmp_path, more, message):
    places = {"tmp": tmp_path, "four": four[0]}
    refused = run(tmp_path, "joint", *options("joint"), *(text.format(**places) for text in more))
    assert refused.code == 2
    assert message.format(**places) in refused.err
    assert "Traceback" not in refused.err
    assert not list(tmp_path.iterdir())  # nothing half-made


def test_a_sweep_makes_the_runs_that_single_commands_would(call, synthetic, tmp_path):
    typed = [*synthetic, "stage.epochs=1", EIGHT]
    for arguments in in_order(numbers_to_words(["-m", "stage=1,2", "seed=0,1", *typed, f"runs={tmp_path / 'runs'}"]), Path(config_directory())):
        done = call("biqa.run", *arguments)
        assert done.code == 0, done.err
    folders = {path.parent for path in (tmp_path / "runs").glob("*/result.json")}
    assert len(folders) == 4
    before = state(tmp_path / "runs")
    shown = [call("biqa.run", f"stage={stage}", f"seed={seed}", f"runs={tmp_path / 'runs'}", *typed) for stage in (1, 2) for seed in (0, 1)]
    assert all("is finished already" in outcome.out for outcome in shown)
    assert {Path(outcome.out.split(" is finished")[0]) for outcome in shown} == folders
    assert state(tmp_path / "runs") == before
    assert {result_of(tmp_path / "runs", folder.name)["seed"] for folder in folders} == {0, 1}


def test_a_sweep_ends_with_the_exit_code_of_a_mistake(call, synthetic, tmp_path):
    refused = call("biqa.run", "-m", "stage=2", "seed=0,1", *synthetic, f"runs={tmp_path}")
    assert refused.code == 2
    assert "Run it first: python -m biqa.run stage=1" in refused.err


def test_the_csv_logger_writes_losses_and_validation_figures(run, tmp_path):
    assert run(tmp_path, "joint", "stage=joint", "stage.epochs=1", "stage.batch_size=2", "logger=csv").code == 0
    file = tmp_path / "joint" / "logs" / "metrics.csv"
    rows = list(csv.DictReader(file.read_text().splitlines()))
    for name in ("train/loss", "val/loss", "val/srcc", "val/plcc"):
        values = [float(row[name]) for row in rows if row[name]]
        assert values, name
        assert all(math.isfinite(value) for value in values), name


@pytest.mark.parametrize("typed", ["logger=null", "~logger"])
def test_no_logger_writes_no_logs(run, tmp_path, typed):
    assert run(tmp_path, "joint", *options("joint"), typed).code == 0
    assert not (tmp_path / "joint" / "logs").exists()


@pytest.mark.parametrize("key", [None, "0" * 40])
def test_wandb_goes_offline_without_a_key_or_a_server(run, tmp_path, monkeypatch, key):
    """Two runs one after the other, as in a sweep: each keeps its own log."""
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    if key:
        monkeypatch.setenv("WANDB_API_KEY", key)
        monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # where nobody listens
    began = time.monotonic()
    names = ("first",) if key else ("first", "second")
    for name in names:
        assert run(tmp_path / "runs", name, *options("joint"), "logger=wandb").code == 0
        (log,) = (tmp_path / "runs" / name / "wandb").glob("offline-run-*/run-*.wandb")
        assert log.stat().st_size > 0
    assert time.monotonic() - began < 60
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {*names}


def test_the_report_of_these_runs_names_the_stages(four, call, tmp_path):
    assert call("biqa.report", f"runs={four[0]}", f"out={tmp_path}", "resamples=40").code == 0
    for file in ("table.md", "table.tex", "table.csv"):
        text = (tmp_path / file).read_text()
        for system in ("zero-shot", "one-stage (joint)", "two-stage"):
            assert system in text, (file, system)
    srcc = result_of(four[0], "joint")["metrics"]["synthetic"]["srcc"]["value"]
    rows = csv.DictReader((tmp_path / "table.csv").read_text().splitlines())
    assert f"{srcc:.3f}" in {f"{float(row['value']):.3f}" for row in rows if row["system"] == "one-stage (joint)" and row["metric"] == "srcc"}


def write_images(folder, count):
    """Photographs of nothing: noise that grows, on a grey ramp."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    ramp = np.linspace(40, 200, 48)[None, :, None] * np.ones((48, 1, 3))
    names = [f"{number}.{'bmp' if number % 2 else 'JPG'}" for number in range(1, count + 1)]
    for number, name in enumerate(names):
        Image.fromarray(np.clip(ramp + rng.normal(0, 1 + 2 * number, ramp.shape), 0, 255).astype(np.uint8)).save(folder / name)
    return names


def without_data(synthetic):
    """The small options of all but the data."""
    return [option for option in synthetic if not option.startswith("data.")]


def test_livec_from_its_official_layout(call, synthetic, tmp_path):
    root = tmp_path / "ChallengeDB_release"
    names = write_images(root / "Images", 20)
    (root / "Data").mkdir()
    cells = np.empty((27, 1), dtype=object)
    cells[:, 0] = [*(f"t{number}.bmp" for number in range(1, 8)), *names]
    scores = [float(5 + 4 * number) for number in range(20)]
    savemat(root / "Data" / "AllImages_release.mat", {"AllImages_release": cells})
    savemat(root / "Data" / "AllMOS_release.mat", {"AllMOS_release": np.array([[50.0] * 7 + scores])})
    savemat(root / "Data" / "AllStdDev_release.mat", {"AllStdDev_release": np.array([[20.0] * 27])})
    done = call("biqa.run", *without_data(synthetic), "data=livec", f"data.root={root}", *options("joint"), f"runs={tmp_path / 'runs'}", "name=joint")
    assert done.code == 0, done.err
    answers = answers_of(tmp_path / "runs", "joint", "livec")
    by_name = dict(zip(names, scores, strict=True))
    assert len(set(answers["image"])) == 4
    assert answers["q"].tolist() == pytest.approx([by_name[image] / 100 for image in answers["image"]])
    result = result_of(tmp_path / "runs", "joint")
    assert result["data"]["livec"]["images"] == 4
    assert result["data"]["livec"]["stand_in"] is False
    assert result["run"]["descriptions"] == "measured"
    assert result["metrics"]["livec"].keys() == METRICS
    assert "STAND-IN" not in done.out


def test_a_table_of_mos_and_the_same_table_of_dmos(call, synthetic, tmp_path):
    """DMOS counts the other way round: turned over on the same scale it is the same data."""
    names = write_images(tmp_path / "images", 20)
    mos = [1 + number % 5 for number in range(20)]
    for direction, scores in {"mos": mos, "dmos": [6 - score for score in mos]}.items():
        file = tmp_path / direction / "mine.csv"
        file.parent.mkdir()
        pd.DataFrame({"image": names, "opinion": scores}).to_csv(file, index=False)
        typed = ["data=table", f"data.file={file}", f"data.root={tmp_path / 'images'}", "data.score=opinion", "data.low=1", "data.high=5"]
        done = call(
            "biqa.run",
            *without_data(synthetic),
            *typed,
            f"data.direction={direction}",
            *options("joint"),
            f"runs={tmp_path / 'runs'}",
            f"name={direction}",
        )
        assert done.code == 0, done.err
    answers = answers_of(tmp_path / "runs", "mos", "mine")
    by_name = dict(zip(names, mos, strict=True))
    assert list(answers["q"]) == [(by_name[image] - 1) / 4 for image in answers["image"]]
    pd.testing.assert_frame_equal(answers, answers_of(tmp_path / "runs", "dmos", "mine"), check_exact=True)
    results = [result_of(tmp_path / "runs", direction) for direction in ("mos", "dmos")]
    assert results[0]["metrics"] == results[1]["metrics"]
    assert list(results[0]["metrics"]) == ["mine"]


# several data sets


@pytest.fixture(scope="module")
def crossed(call, synthetic, tmp_path_factory):
    """Trained on a mixture, tested on one of its parts and on another set: each stage."""
    place = tmp_path_factory.mktemp("crossed")
    for folder in ("one", "two"):
        names = write_images(place / folder, 20)
        pd.DataFrame({"image": names, "mos": [1 + number % 5 for number in range(20)]}).to_csv(place / folder / f"{folder}.csv", index=False)
    mine = tuple(option.replace("data.", "data.parts.synthetic.") for option in synthetic if option.startswith("data."))
    table = ("low=1", "high=5", f"file={place / 'one' / 'one.csv'}")
    other = ("low=1", "high=5", "direction=dmos", f"file={place / 'two' / 'two.csv'}")
    typed = (
        "data=synthetic+table", *mine, *(f"data.parts.table.{option}" for option in table), "data.weights.table=2",
        "test=[table,synthetic]", *(f"test.table.{option}" for option in other), f"runs={place / 'runs'}", "overlap=note",
    )  # fmt: skip
    for stage in STAGES:
        done = call("biqa.run", *without_data(synthetic), *typed, *options(stage))
        assert done.code == 0, done.err
    return place / "runs"


def test_a_mixture_is_learnt_and_each_data_set_tested_by_itself(crossed):
    names = {path.name for path in crossed.iterdir()}
    assert {name.split("-")[1] for name in names} == set(STAGES)
    assert all(name.startswith("tiny-") and "-synthetic+table-s0-" in name for name in names)
    for name in names:
        result = result_of(crossed, name)
        assert list(result["metrics"]) == ["synthetic", "two"]
        found = {dataset: (data["images"], data["trained_on"]) for dataset, data in result["data"].items()}
        trained = 0 if "zero_shot" in name else 1
        assert found == {"synthetic": (12, 24 * trained), "one": (0, 14 * trained), "two": (20, 0)}
        assert {path.stem for path in (crossed / name / "answers").iterdir()} == {"synthetic", "two"}
        for dataset in ("synthetic", "two"):
            answers = answers_of(crossed, name, dataset)
            assert set(answers["dataset"]) == {dataset}
            if "perception" not in name:
                again = evaluate(answers, resamples=40, seed=0)[dataset]
                for metric, figure in result["metrics"][dataset].items():
                    assert again[metric] == pytest.approx(figure, rel=0, abs=0, nan_ok=True)


def test_pictures_that_are_learnt_and_tested_are_announced_in_the_result(crossed):
    [name] = (path.name for path in crossed.iterdir() if "joint" in path.name)
    alarms = result_of(crossed, name)["data"]["two"]["alarms"]
    assert alarms[0].startswith("16 of the 20 test images of two are learnt from in one, pixel for pixel")


def test_stage_two_of_a_mixture_describes_each_data_set_apart(crossed):
    [name] = (path.name for path in crossed.iterdir() if "inference" in path.name)
    described = {path.stem for path in (crossed / name / "descriptions").iterdir()}
    assert described == {"synthetic-train", "synthetic-val", "synthetic-test", "one-train", "one-val", "two-test"}


def test_the_report_has_a_column_for_each_data_set_and_no_mean_with_a_stand_in(crossed, call, tmp_path):
    assert call("biqa.report", f"runs={crossed}", f"out={tmp_path}", "resamples=40").code == 0
    text = (tmp_path / "table.md").read_text()
    assert "| two SRCC" in text
    assert "| synthetic† SRCC" in text
    assert "mean over data sets" not in text


def test_one_adapter_for_both_stages_describes_after_stage_two(call, synthetic, tmp_path):
    """The experiments one_adapter_describes and one_adapter_judges: a stage 1 of no epochs describes with the weights that it began with."""
    runs = tmp_path / "runs"
    for stage, experiment in (
        ("perception", "lora"), ("inference", "lora"), ("perception", "one_adapter_describes"), ("inference", "one_adapter_judges"),
    ):  # fmt: skip
        label = "lora-quantization-none" if experiment == "lora" else "one_adapter"
        name = f"tiny-{stage}-synthetic-s0-{label}"
        outcome = call(
            "biqa.run", f"experiment={experiment}", *([f"stage={stage}"] if experiment == "lora" else []), *synthetic, f"runs={runs}", f"name={name}"
        )
        assert outcome.code == 0, outcome.err
    described = {
        label: pd.read_parquet(runs / f"tiny-perception-synthetic-s0-{label}" / "answers" / "synthetic.parquet")
        for label in ("lora-quantization-none", "one_adapter")
    }
    judged = pd.read_parquet(runs / "tiny-inference-synthetic-s0-one_adapter" / "answers" / "synthetic.parquet")
    assert list(judged["description"]) == list(described["one_adapter"]["description"])
    assert list(judged["description"]) != list(described["lora-quantization-none"]["description"])
