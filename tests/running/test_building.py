"""From config to objects: what a config may name, what a run is made of, and whether W&B can be reached."""

import socket
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Event, Thread

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from biqa import config as schema
from biqa.data.module import Item
from biqa.data.record import Record
from biqa.errors import IncompatibleChoice, RunNotFound
from biqa.models import compiled
from biqa.models.adapters import save_weights
from biqa.models.budget import ROWS
from biqa.running import building
from biqa.running.loading import load_corpus
from biqa.runs import RunFolder
from biqa.stages.curves import CurveLogger

# on a machine with a GPU Lightning says that a trainer on the CPU leaves it alone
pytestmark = pytest.mark.filterwarnings("ignore:GPU available but not used")

SMALL = ("model.hidden=32", "model.layers=2", "model.heads=2", "model.tower_hidden=32", "model.tower_layers=1", "model.min_steps=0")
CPU = ("trainer.accelerator=cpu", "trainer.precision=32-true", "trainer.progress=false")
PERCEPTION = "biqa.stages.perception.Perception"
INFERENCE = "biqa.stages.inference.Inference"


@pytest.fixture(autouse=True)
def quiet():
    """What a run says nothing of, a test says nothing of."""
    building.quiet()


def composed(*overrides):
    schema.register()
    with initialize_config_dir(schema.config_directory(), version_base="1.3"):
        return compose("config", [*overrides, "name=x"])


# weights


def finished_run(path, *overrides):
    folder = RunFolder(path)
    folder.start(OmegaConf.to_container(composed(*overrides), resolve=True))
    folder.result.write_text("{}")
    return folder


def test_weights_to_start_from(tmp_path):
    def start(default, *overrides):
        return building.weights_to_start_from(OmegaConf.to_object(composed(*overrides)), default)

    default, named = finished_run(tmp_path / "default"), finished_run(tmp_path / "named")
    assert start(default) is default
    assert start(None) is None
    assert start(default, "stage.init_from=base") is None
    assert start(default, f"stage.init_from={named.path}") == named
    with pytest.raises(RunNotFound, match=r"stage\.init_from=.*nowhere: no run there"):
        start(default, f"stage.init_from={tmp_path / 'nowhere'}")


def test_a_model_is_drawn_by_the_seed_of_the_run_and_starts_from_a_run(tmp_path):
    head = "backbone.lm_head.weight"
    one, same, other = (building.build_model(composed(*SMALL, f"seed={seed}"), vision=False, weights=None).state_dict()[head] for seed in (3, 3, 4))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    run = finished_run(tmp_path / "run", *SMALL, "seed=3")
    save_weights(building.build_model(composed(*SMALL, "seed=3"), vision=True, weights=None), run.path)
    assert torch.equal(building.build_model(composed(*SMALL, "seed=4"), vision=False, weights=run).state_dict()[head], one)


def test_an_adapter_on_other_base_weights_is_refused(tmp_path):
    run = finished_run(tmp_path / "run", *SMALL, "tuning=lora", "seed=3")
    with pytest.raises(IncompatibleChoice, match=r"(?s)its adapter was learnt on other base weights:\n  seed: 3 there, 4 here\n.*or tuning=full"):
        building.build_model(composed(*SMALL, "tuning=lora", "seed=4"), vision=False, weights=run)


# length and loaders


@pytest.mark.parametrize(
    ("overrides", "images", "expected"),
    [
        (["stage.batch_size=4"], 17, (3, 15)),
        (["stage.batch_size=4"], 16, (3, 12)),
        (["stage.batch_size=4", "trainer.accumulate=2"], 17, (3, 9)),
        (["stage.batch_size=4", "trainer.accumulate=2", "model.min_steps=20"], 17, (7, 21)),
        (["stage.batch_size=4", "model.min_steps=15"], 17, (3, 15)),
        (["stage.batch_size=64"], 5, (3, 3)),
        (["stage.epochs=0", "model.min_steps=20"], 17, (0, 0)),
    ],
)
def test_training_length(overrides, images, expected):
    assert building.training_length(composed("model.min_steps=0", "stage.epochs=3", *overrides), images) == expected


@pytest.fixture
def asked(tmp_path, picture):
    """Images to answer."""
    items = []
    for number in range(20):
        picture(number, size=64).save(tmp_path / f"{number}.png")
        record = Record(image=f"{number}.png", path=tmp_path / f"{number}.png", q=0.5, split="test", group=str(number), score=0.5)
        items.append(Item(record, ("It is dark. " * (1 + number),)))
    return items


def test_rows_answered_at_a_time_do_not_depend_on_the_repeats(tiny, asked):
    config = composed("sampling.batch_size=4", "sampling.repeats=9")
    sizes = []
    for repeats in (9, 1, 0, 100):
        stage = building.build_stage(config, PERCEPTION, tiny(), steps=0, repeats=repeats)
        sizes.append(building.build_data(config, stage, predict=asked).predict_batch_size)
    assert sizes == [4, 20, 40, 1]


def test_by_default_as_many_images_are_answered_at_a_time_as_fit(tiny, asked):
    sizes = []
    for memory in ("0.01", "0.02", "4"):
        config = composed(f"sampling.memory_gb={memory}")
        stage = building.build_stage(config, PERCEPTION, tiny(), steps=0, repeats=10)
        sizes.append(building.build_data(config, stage, predict=asked).predict_batch_size)
    assert 1 <= sizes[0] < sizes[1] < sizes[2] == ROWS // 11
    text_alone = building.build_stage(composed(), INFERENCE, tiny(vision=False), steps=0, repeats=10, target="hard", level_weight=1.0)
    assert building.build_data(composed(), text_alone, predict=asked).predict_batch_size == ROWS
    config = composed("sampling.memory_gb=0.0001")
    stage = building.build_stage(config, PERCEPTION, tiny(), steps=0, repeats=10)
    with pytest.raises(IncompatibleChoice, match=r"sampling\.memory_gb=0\.0001 is too small for one image"):
        building.build_data(config, stage, predict=asked)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_run_takes_the_steps_foretold_and_its_learning_rate_ends_at_zero(table, tmp_path, accumulate):
    options = (*SMALL, *CPU, *table(["train"] * 5 + ["val", "test"]))
    config = composed(*options, "stage=perception", "stage.batch_size=2", "stage.epochs=2", f"trainer.accumulate={accumulate}")
    [images] = load_corpus(config, describe_tests=False).training
    epochs, steps = building.training_length(config, 5)
    stage = building.build_stage(config, PERCEPTION, building.build_model(config, vision=True, weights=None), steps=steps, repeats=0)
    trainer = building.build_trainer(config, RunFolder(tmp_path / "run"), epochs)
    trainer.fit(stage, building.build_data(config, stage, train=images.items("train"), val=images.items("val")))
    assert trainer.global_step == steps == {1: 6, 2: 4}[accumulate]
    assert [group["lr"] for group in trainer.optimizers[0].param_groups] == pytest.approx([0.0, 0.0], abs=1e-12)
    assert [path.name for path in sorted((tmp_path / "run" / "checkpoints").iterdir())][-1] == f"step={steps:08d}.ckpt"
    assert (tmp_path / "run" / "logs").is_dir()


# trainer and logger


NO_GPU = pytest.mark.skipif(torch.accelerator.is_available(), reason="this machine has a GPU")


@pytest.mark.parametrize("choice", [pytest.param("trainer.accelerator=gpu", marks=NO_GPU), "trainer.accelerator=abacus", "trainer.devices=two"])
def test_what_this_machine_has_not_is_told(tmp_path, choice):
    with pytest.raises(IncompatibleChoice, match=rf"{choice}.* will not do on this machine: "):
        building.build_trainer(composed(*CPU, choice), RunFolder(tmp_path))


def test_the_logger_of_the_config_writes_below_the_run(tmp_path):
    logger = building.build_logger(composed(), RunFolder(tmp_path))
    assert isinstance(logger, CurveLogger)
    assert logger.file.is_relative_to(tmp_path / "logs")
    assert building.build_logger(composed("~logger"), RunFolder(tmp_path)) is False


@pytest.mark.parametrize("reachable", [True, False])
def test_wandb_goes_offline_where_it_cannot_be_reached(tmp_path, monkeypatch, reachable):
    asked = {}
    monkeypatch.setattr("lightning.pytorch.loggers.WandbLogger.__init__", lambda self, **options: asked.update(options))
    monkeypatch.setattr("biqa.running.building.wandb_reachable", lambda: reachable)
    own, other = building.build_logger(composed("logger=wandb"), RunFolder(tmp_path))
    assert asked == {
        "project": "biqa", "save_dir": str(tmp_path), "name": "x", "offline": not reachable, "settings": {"init_timeout": 10.0, "finish_timeout": 20.0},
    }  # fmt: skip
    assert isinstance(own, CurveLogger)
    assert own.file == tmp_path / "logs" / "metrics.csv"
    other.close(0)


# W&B


class Unknown(BaseHTTPRequestHandler):
    """Of a server that knows no page, and is there."""

    def do_GET(self):
        self.send_error(404)

    def log_message(self, format, *args):
        """Nothing."""


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server that W&B is pointed at, in a home without a key."""
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with HTTPServer(("127.0.0.1", 0), Unknown) as listening:
        serving = Thread(target=listening.serve_forever, args=(0.01,))
        serving.start()
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{listening.server_address[1]}")
        yield listening
        listening.shutdown()
        serving.join()


def test_wandb_with_a_key_is_reachable_as_long_as_its_server_listens(server, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "key")
    assert building.wandb_reachable() is True
    server.shutdown()
    server.server_close()
    assert building.wandb_reachable() is False


@pytest.mark.parametrize("name", [".netrc", "_netrc"])
def test_without_a_key_it_is_not_and_the_key_may_lie_in_a_netrc(server, tmp_path, name):
    assert building.wandb_reachable() is False
    (tmp_path / name).write_text("machine example.org login user password key")
    assert building.wandb_reachable() is False
    (tmp_path / name).write_text("machine 127.0.0.1 login user password key")
    assert building.wandb_reachable() is True


@pytest.mark.parametrize("mode", ["offline", "disabled"])
def test_wandb_told_otherwise_is_not(server, monkeypatch, mode):
    monkeypatch.setenv("WANDB_API_KEY", "key")
    monkeypatch.setenv("WANDB_MODE", mode)
    assert building.wandb_reachable() is False


@pytest.mark.parametrize("said", [b"", b"H"])
def test_a_server_that_takes_the_call_and_does_not_answer_costs_the_timeout_and_no_more(monkeypatch, tmp_path, said):
    """Nor one that sends a letter now and then."""
    monkeypatch.setenv("WANDB_API_KEY", "key")
    monkeypatch.delenv("WANDB_MODE")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{listening.getsockname()[1]}")
        over = Event()

        def dribble():
            with listening.accept()[0] as call:
                while not over.wait(0.1):
                    call.send(said)

        Thread(target=dribble, daemon=True).start()
        start = time.perf_counter()
        assert building.wandb_reachable(timeout=0.3) is False
        over.set()
        assert 0.25 < time.perf_counter() - start < 2.0


def test_what_is_no_address_of_a_server_is_not_opened(monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_API_KEY", "key")
    monkeypatch.delenv("WANDB_MODE")
    (tmp_path / "healthz").touch()
    monkeypatch.setenv("WANDB_BASE_URL", f"file://{tmp_path}")
    assert building.wandb_reachable() is False


def test_a_compiled_step_wants_an_attention_that_takes_a_mask(tiny, monkeypatch):
    monkeypatch.setattr(compiled, "COMPILER", {"backend": "eager"})
    stage = building.build_stage(composed("sampling.compile=true"), PERCEPTION, tiny(), steps=0, repeats=2)
    assert stage.steps is not None
    assert building.build_stage(composed(), PERCEPTION, tiny(), steps=0, repeats=2).steps is None
    monkeypatch.setattr("biqa.models.vlm.MASKABLE", ())
    with pytest.raises(IncompatibleChoice, match=r"Choose model\.attention=sdpa"):
        building.build_stage(composed("sampling.compile=true"), PERCEPTION, tiny(), steps=0, repeats=2)
