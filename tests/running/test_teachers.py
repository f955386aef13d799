"""Teachers through the doors: a finished stage 1, a backbone as it is, a server."""

import json
import shutil
import sqlite3
import sys

import pytest
from chat_server import Reply, serving
from hydra import compose, initialize_config_dir

from biqa import config as schema
from biqa.evaluation.answers import read_answers
from biqa.language.prompts import DESCRIBE
from biqa.running import teachers
from biqa.running.loading import load_corpus
from biqa.runs import different

pytest_plugins = ["small_runs"]

KEY = "sk-very-secret"


@pytest.fixture(scope="module")
def taught(run, tmp_path_factory):
    """Folder of runs with a finished stage 1 that writes whole sentences."""
    runs = tmp_path_factory.mktemp("taught")
    done = run(runs, "one", "stage=1", "stage.epochs=10", "stage.batch_size=24")
    assert done.code == 0, done.err
    return runs


@pytest.fixture
def built(monkeypatch):
    """Grows by an entry for each teacher that is built."""
    calls = []
    monkeypatch.setattr(teachers, "build_model", lambda *args, **options: calls.append("run") or build_model(*args, **options))
    build_model = sys.modules["biqa.running.building"].build_model
    return calls


def texts_in(cache):
    with sqlite3.connect(cache / "texts.sqlite") as connection:
        rows = connection.execute("SELECT text, question FROM texts").fetchall()
    connection.close()
    return rows


def images_of(synthetic):
    """What `python -m biqa.prepare` takes of the options of a small run."""
    return ("data=synthetic", *(option for option in synthetic if option.startswith("data.")))


# a model on this machine


def test_a_finished_stage_one_teaches_through_both_doors_and_is_loaded_once(taught, run, call, synthetic, built, tmp_path):
    cache = tmp_path / "cache"
    teacher = ("descriptions=teacher", f"descriptions.run={taught / 'one'}", "descriptions.max_new_tokens=16")
    prepared = call(
        "biqa.prepare", *images_of(synthetic), *teacher, f"descriptions.cache={cache}", "descriptions.batch_size=5", f"out={tmp_path / 'out'}"
    )
    assert (prepared.code, prepared.err) == (0, "")
    assert "42 written, none gives the answer away" in prepared.out
    rows = texts_in(cache)
    assert len(rows) == 42
    assert {question for _, question in rows} == {DESCRIBE}
    assert built == ["run"]

    answers = read_answers(taught / "one" / "answers" / "synthetic.parquet")
    greedy = answers[answers["query"] == 0].set_index("image")["description"].to_dict()
    targets = [json.loads(line) for line in (tmp_path / "out" / "targets.jsonl").read_text().splitlines()]
    assert {target["image"]: target["description"] for target in targets if target["split"] == "test"} == greedy

    shutil.copytree(taught / "one", taught / "moved", dirs_exist_ok=True)
    moved = cache.rename(tmp_path / "moved cache")
    again = [f"descriptions.cache={moved}", "stage.batch_size=24", "stage.epochs=1"]
    assert run(taught, "two", "stage=1", *teacher, *again).code == 0
    second = run(taught, "three", "stage=2", *teacher, *again, "descriptions.batch_size=7")  # finds "two": neither cache nor batches tell runs apart
    assert second.code == 0, second.err
    other = call(
        "biqa.prepare", *images_of(synthetic), *teacher[:1], f"descriptions.run={taught / 'moved'}", teacher[2], again[0], f"out={tmp_path / 'out'}"
    )
    assert other.code == 0
    assert built == ["run"]
    assert len(texts_in(moved)) == 42


def test_a_backbone_as_it_is_teaches(call, synthetic, tmp_path):
    model = tuple(option.replace("model.", "descriptions.model.") for option in synthetic if option.startswith("model."))
    options = (
        "descriptions=teacher",
        "model@descriptions.model=tiny",
        *model,
        "descriptions.max_new_tokens=4",
        f"descriptions.cache={tmp_path / 'cache'}",
    )
    said = call("biqa.prepare", *images_of(synthetic), *options, f"out={tmp_path / 'out'}")
    assert len(texts_in(tmp_path / "cache")) == 42
    assert "descriptions" in said.out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            (),
            "descriptions=teacher: which model is the teacher? Name one: descriptions.run=FOLDER (a finished stage 1) or model@descriptions.model=NAME",
        ),
        (
            ("descriptions.run=x", "model@descriptions.model=tiny"),
            "descriptions=teacher: two teachers are named. Choose one: descriptions.run=FOLDER",
        ),
        (("descriptions.model=tiny",), "descriptions.model=tiny: a backbone is a choice: model@descriptions.model=tiny."),
        (("descriptions.run=x", "images.cache=null"), "descriptions.cache=null: the texts of a teacher cost money or hours, so they must be kept."),
        (("descriptions.run=nowhere",), "descriptions.run=nowhere: no run there"),
        (("descriptions.run=x", "descriptions.batch_size=0", "descriptions.max_new_tokens=0"), "descriptions.batch_size=0: choose 1 or more."),
    ],
)
def test_a_teacher_that_is_none_is_told_at_both_doors(run, call, synthetic, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    for said in (
        run(tmp_path, "x", "descriptions=teacher", *options),
        call("biqa.prepare", *images_of(synthetic), "descriptions=teacher", *options, f"out={tmp_path / 'out'}"),
    ):
        assert said.code == 2
        assert message in said.err
    assert not (tmp_path / "out").exists()


def test_a_run_that_cannot_teach_is_told(taught, run, tmp_path):
    other = shutil.copytree(taught / "one", tmp_path / "other")
    shutil.rmtree(other / "model")
    said = run(tmp_path, "x", "descriptions=teacher", f"descriptions.run={other}")
    assert said.code == 2
    assert "other: no weights there. Was it a run of stage.epochs=0? Take one that has learnt." in said.err
    config = (other / "config.yaml").read_text()
    (other / "config.yaml").write_text(config.replace("perception.Perception", "joint.Joint"))
    said = run(tmp_path, "x", "descriptions=teacher", f"descriptions.run={other}")
    assert said.code == 2
    assert "that is a run of stage=joint, and one of stage=perception is needed." in said.err


def test_texts_depend_on_the_weights_and_the_length(taught, tmp_path):
    options = {
        "question": DESCRIBE,
        "cache": str(tmp_path),
        "on_leak": "stop",
        "batch_size": 2,
        "max_new_tokens": 16,
        "seed": 0,
        "run": None,
        "model": None,
    }
    tiny = {"_target_": "biqa.models.tiny.build_tiny", "hidden": 32, "lr": 1.0, "min_steps": 3}
    run = {"run": str(taught / "one")}
    same = [run, run | {"seed": 3}, run | {"batch_size": 1}]
    assert len({teachers.backbone(**(options | changes)).writer.name for changes in same}) == 1
    other = [{"max_new_tokens": 8}, {}]
    names = {teachers.backbone(**(options | run | changes)).writer.name for changes in other}
    for model in (tiny, tiny | {"lr": 2.0, "min_steps": 0}):
        names.add(teachers.backbone(**(options | {"model": model})).writer.name)
    names.add(teachers.backbone(**(options | {"model": tiny | {"hidden": 64}})).writer.name)
    names.add(teachers.backbone(**(options | {"model": tiny, "seed": 1})).writer.name)
    assert len(names) == 5


def test_the_question_of_a_teacher_is_that_of_stage_one():
    schema.register()
    with initialize_config_dir(schema.config_directory(), version_base="1.3"):
        assert compose("config", ["descriptions=teacher", "name=x"]).descriptions.question == DESCRIBE


# a server


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving() as chat:
        chat.answer = lambda image, time: Reply(
            f"- Edges are crisp\n- The image shows slight block artefacts.\n\nThe light is good. Spot {image[:4]}."
        )
        yield chat


def endpoint(url, cache):
    return (
        "descriptions=endpoint",
        f"descriptions.url={url}",
        "descriptions.model=some/model:7b",
        f"descriptions.cache={cache}",
        "descriptions.retries=0",
    )


def test_a_server_teaches_through_both_doors_and_each_image_is_paid_for_once(run, call, synthetic, server, tmp_path):
    options = endpoint(server.url, tmp_path / "cache")
    done = run(tmp_path, "one", "stage=1", "stage.epochs=1", "stage.batch_size=24", *options)
    assert done.code == 0, done.err
    assert "42 sentences that give the answer away were dropped from 42 of 42 texts" in done.out
    assert len(server.images) == len(set(server.images)) == 42
    assert set(server.keys) == {f"Bearer {KEY}"}
    asked = server.requests[0]["messages"][0]["content"][0]["text"]
    assert asked.startswith("Describe the low-level appearance of this image")
    assert "\n" not in asked
    gone = endpoint("http://127.0.0.1:9/v1", tmp_path / "cache")
    prepared = call("biqa.prepare", *images_of(synthetic), *gone, f"out={tmp_path / 'out'}")
    assert prepared.code == 0, prepared.out
    assert "Edges are crisp. The image shows slight block artefacts. Spot" in prepared.out
    second = run(tmp_path, "two", "stage=2", *gone, "descriptions.concurrency=2")
    assert second.code == 0, second.err
    assert len(server.images) == 42
    for name in ("one/config.yaml", "one/result.json", "two/config.yaml"):
        assert KEY not in (tmp_path / name).read_text()


def test_a_server_that_fails_ends_in_one_sentence_and_keeps_what_it_said(run, call, synthetic, server, tmp_path):
    server.answer = lambda image, time: Reply("Edges are crisp.") if len(server.images) < 20 else Reply(status=401, body=f'"{KEY}"')
    options = (*endpoint(server.url, tmp_path / "cache"), "descriptions.concurrency=1")
    failed = run(tmp_path, "one", "stage=1", *options)
    assert failed.code == 2
    assert failed.err.startswith(f"{server.url}, model some/model:7b: the server refuses the key in OPENAI_API_KEY (HTTP 401). Set the right one.")
    assert len(failed.err.splitlines()) == 1
    assert KEY not in failed.err + failed.out
    assert not (tmp_path / "one").exists()
    assert len(texts_in(tmp_path / "cache")) == 19
    prepared = call("biqa.prepare", *images_of(synthetic), *options, f"out={tmp_path / 'out'}")
    assert prepared.code == 2
    assert "refuses the key" in " ".join(prepared.out.replace("│", " ").split())
    server.answer = lambda image, time: Reply("Edges are crisp.")
    assert call("biqa.prepare", *images_of(synthetic), *options, f"out={tmp_path / 'out'}").code == 0
    assert len(server.images) == 42 + 2


def test_images_that_get_no_target_are_not_paid_for(server, synthetic, table, tmp_path):
    tested_on = [option.replace("data=", "test=").replace("data.", "test.table.") for option in table()]
    schema.register()
    with initialize_config_dir(schema.config_directory(), version_base="1.3"):
        config = compose("config", [*synthetic, *tested_on, "test_images=all", *endpoint(server.url, tmp_path / "cache"), "name=x"])
    load_corpus(config, describe_tests=False)
    assert len(server.images) == 42
    load_corpus(config, describe_tests=True)
    assert len(server.images) == 42 + 6


def test_where_and_how_fast_a_teacher_is_asked_tells_no_run_from_another():
    there = {"descriptions": {"url": "a", "model": "m", "cache": "a", "key_env": "a", "concurrency": 1, "retries": 1, "timeout": 1, "batch_size": 1}}
    here = {"descriptions": dict.fromkeys(there["descriptions"], "b") | {"model": "n"}}
    assert different(there, here) == ["  descriptions.model: m there, n here"]
    assert (
        schema.variant("descriptions=endpoint,descriptions.url=http://x:8000/v1,descriptions.cache=y,descriptions.concurrency=3")
        == "-descriptions-endpoint"
    )
