"""The door to the page: what it refuses, what it says of pictures, that nothing leaves the machine, and how it looks in a browser."""

import ast
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
from browser import PROGRAM, Browser
from light_doors import HEAVY, loaded
from omegaconf import OmegaConf
from PIL import Image

from biqa import demo
from biqa.demo import GRADIO, REPEATS, DemoOptions, as_typed, free_port, repeats_of, serve
from biqa.doors.arguments import read_options
from biqa.errors import IncompatibleChoice, UserError
from biqa.finished.gradio_page import Answering
from biqa.finished.predicting import Scorer

pytest_plugins = ["small_runs"]

MB = 2**20
HEARD = """
import runpy, sys

heard = open(sys.argv.pop(1), "a", buffering=1)

def listen(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        place = arguments[1] if event != "socket.getaddrinfo" else arguments[:2]
        heard.write(repr((event, place)) + "\\n")

sys.addaudithook(listen)
runpy.run_module("biqa.demo", run_name="__main__", alter_sys=True)
"""
"""The door, with every address that it turns to written down."""

try:
    installed = version("gradio")
except PackageNotFoundError:
    installed = None
with_gradio = pytest.mark.skipif(installed is None, reason="the extra demo is not installed: it holds back Pillow, so it is not in the tested set")


@pytest.fixture(scope="module")
def scorer(finished) -> Scorer:
    return Scorer(finished / "joint", device="cpu")


@pytest.fixture
def sent(tmp_path):
    """A file as it is sent: in a folder of its own."""

    def send(name: str) -> Path:
        file = tmp_path / "sent" / "123" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if name.startswith("photo"):
            noise = np.random.default_rng(0).normal(120, 40, (64, 80, 3))
            Image.fromarray(np.clip(noise, 0, 255).astype(np.uint8)).save(file)
        elif name == "huge.png":
            Image.new("1", (25000, 20000)).save(file)
        else:
            file.write_text("" if name == "empty.png" else "no picture")
        return file

    return send


# options


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ([], "run has no value"),
        (["run=x", "port=70000"], "port=70000: choose 0 (any that is free) to 65535."),
        (["run=x", "max_mb=0"], "max_mb=0: choose 1 or more."),
        (["run=x", "waiting=0"], "waiting=0: choose 1 or more."),
        (["run=x", "accelerator=gpu"], "accelerator=gpu is not known"),
        (
            ["run=x", "host=0.0.0.0"],
            "host=0.0.0.0: then others could use the page, without a password and without encryption. If that is meant, add open=true.",
        ),
        (["run=x", "share=true"], "There is no option share."),
    ],
)
def test_options_that_make_no_sense(typed, message):
    with pytest.raises(IncompatibleChoice, match=re.escape(message)):
        demo.main(typed)


def test_it_is_open_where_that_is_said_alone():
    assert read_options(["x"], DemoOptions, alone=("run",)) == DemoOptions("x")
    assert (DemoOptions("x").host, DemoOptions("x").open) == ("127.0.0.1", False)
    assert DemoOptions("x", host="0.0.0.0", open=True).host == "0.0.0.0"


def test_help_loads_nothing(tmp_path):
    code, packages = loaded(tmp_path, "demo", "--help")
    assert code == 0
    assert not packages & (HEAVY | {"hydra", "omegaconf", "numpy", "rich", "gradio"})


def test_without_gradio_it_says_how_to_get_it(monkeypatch, tmp_path):
    def absent(_):
        raise PackageNotFoundError

    monkeypatch.setattr(demo, "version", absent)
    with pytest.raises(IncompatibleChoice, match=r"biqa demo needs the package gradio: pip install 'biqa\[demo\]'"):
        demo.main([f"run={tmp_path}"])


def test_an_old_gradio_is_not_used(monkeypatch, tmp_path):
    monkeypatch.setattr(demo, "version", lambda _: "6.9.0")
    with pytest.raises(IncompatibleChoice, match=f"needs gradio {GRADIO} or newer, and 6.9.0 is installed"):
        demo.main([f"run={tmp_path}"])


def test_no_run_is_told_before_anything_is_loaded(monkeypatch, tmp_path):
    monkeypatch.setattr(demo, "version", lambda _: "99")
    with pytest.raises(UserError, match="no run there"):
        demo.main([f"run={tmp_path}"])


def test_a_port_that_is_taken(monkeypatch, finished):
    monkeypatch.setattr(demo, "version", lambda _: "99")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(IncompatibleChoice, match=f"cannot be served at 127.0.0.1, port {port} .*port=0 for any that is free"):
            serve(DemoOptions(str(finished / "joint"), port=port))
    assert 0 < free_port("127.0.0.1", 0) < 2**16


def test_a_run_is_asked_again_where_it_can_say_something_else(scorer, finished):
    assert repeats_of(scorer, None) == REPEATS
    assert repeats_of(scorer, 3) == 3
    probe = Scorer(finished / "probe", device="cpu")
    assert repeats_of(probe, None) == 0
    with pytest.raises(IncompatibleChoice, match="asked again it says the same"):
        repeats_of(probe, 10)
    with pytest.raises(IncompatibleChoice, match="one answer cannot disagree with itself"):
        repeats_of(scorer, 1)
    greedy = SimpleNamespace(describes=True, config=OmegaConf.create({"sampling": {"temperature": 0.0}}))
    assert repeats_of(greedy, None) == 0


def test_the_command_has_the_options_that_were_typed():
    assert as_typed(DemoOptions("a", perception="b", accelerator="cpu", port=1), 10) == ["run=a", "perception=b", "accelerator=cpu", "repeats=10"]
    assert as_typed(DemoOptions("a"), 0) == ["run=a"]


# what is said of a picture


def test_it_says_what_the_run_says(scorer, sent):
    file = sent("photo.png")
    said = scorer(file, repeats=3)
    place, piece, command, kept = Answering(scorer, 3, ["run=x", "repeats=3"])(str(file))
    assert place is None
    assert f"<dd>{said.score:.3f}</dd>" in piece
    assert re.findall(r"<li(?: class=\"other\")?>(\w+)</li>", piece) == list(said.levels)
    for probability in said.probabilities.values():
        assert f"<dd>{100 * probability:.1f} %</dd>" in piece
    assert "The likeliest level by layer:" in piece
    assert str(file.parent) not in piece
    assert command == "biqa predict run=x repeats=3 photo.png"
    assert kept == [piece, command]
    assert not file.parent.exists()


def test_a_regression_has_no_words_and_no_lens(finished, sent):
    piece = Answering(Scorer(finished / "probe", device="cpu"), 0, ["run=x"])(str(sent("photo.png")))[1]
    assert "<dt>score</dt>" in piece
    assert not re.search("figure|blockquote|levels", piece)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("text.jpg", "text.jpg: cannot be decoded (not recognised as a picture)."),
        ("empty.png", "empty.png: cannot be decoded (0 bytes)."),
        ("huge.png", "huge.png: more than 80,000,000 pixels. Scale it down."),
    ],
)
def test_what_is_no_picture_is_told_in_a_sentence(scorer, sent, name, sentence):
    file = sent(name)
    piece = Answering(scorer, 0, ["run=x"])(str(file))[1]
    assert re.search(f'role="alert">{re.escape(sentence)}', piece)
    assert str(file.parent) not in piece
    assert not file.parent.exists()


def test_a_lack_of_memory_is_told_in_words(scorer, sent, monkeypatch):
    def fail(*_, **__):
        raise MemoryError

    monkeypatch.setattr(scorer, "each", fail)
    piece = Answering(scorer, 0, ["run=x"])(str(sent("photo.png")))[1]
    assert re.search('role="alert">.*memory', piece)


# the page itself


@pytest.fixture(scope="module")
def heard(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("heard") / "addresses"


@pytest.fixture(scope="module")
def temporary(tmp_path_factory) -> Path:
    """The folder of temporary files, of the page alone."""
    return tmp_path_factory.mktemp("temporary")


@pytest.fixture(scope="module")
def page(finished, heard, temporary) -> Iterator[str]:
    """Its address; the settings of the environment would open the machine."""
    environment = os.environ | {
        "PYTHONPATH": str(Path(__file__).parents[1]), "GRADIO_ALLOWED_PATHS": str(finished), "GRADIO_SHARE": "true", "GRADIO_ANALYTICS_ENABLED": "true",
        "GRADIO_SERVER_NAME": "0.0.0.0", "TMPDIR": str(temporary),
    }  # fmt: skip
    typed = [sys.executable, "-c", HEARD, str(heard), f"run={finished / 'joint'}", "port=0", "max_mb=1", "repeats=2", "accelerator=cpu"]
    with subprocess.Popen(typed, env=environment, cwd=finished, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline()
            assert line.startswith("http://127.0.0.1:"), line + process.stderr.read()
            yield line.split()[0]
        finally:
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=30)
    assert process.returncode == 0, said
    assert "STAND-IN: joint has learnt from labels that are no human opinions" in said
    assert said.count("Traceback") == said.count("InvalidPathError: ")  # Gradio's own, about the paths that it is asked for below
    assert not list(temporary.iterdir())


def kept_files(temporary: Path) -> list[Path]:
    """Files with something in them."""
    return [file for file in temporary.rglob("*") if file.is_file() and file.stat().st_size]


def asked(page: str, file: dict) -> tuple[str, object]:
    """What the page answers about a file, by its programming interface: how it ended, and the data."""
    event = httpx.post(f"{page}gradio_api/call/answer", json={"data": [file | {"meta": {"_type": "gradio.FileData"}}]}).json()["event_id"]
    [end, data] = re.findall(r"^(?:event|data): (.*)$", httpx.get(f"{page}gradio_api/call/answer/{event}", timeout=30).text, re.M)[-2:]
    return end, json.loads(data)


def upload(page: str, file: Path) -> httpx.Response:
    return httpx.post(f"{page}gradio_api/upload", files={"files": (file.name, file.read_bytes())})


@with_gradio
def test_it_answers_about_a_picture_that_is_sent(page, temporary, scorer, sent):
    file = sent("photo.png")
    [path] = upload(page, file).json()
    assert [kept.name for kept in kept_files(temporary)] == ["photo.png"]
    end, data = asked(page, {"path": path})
    assert end == "complete"
    assert f"<dd>{scorer(file).score:.3f}</dd>" in data[1]
    assert data[2].endswith(" accelerator=cpu repeats=2 photo.png")
    assert not kept_files(temporary)


@with_gradio
def test_text_that_is_called_a_picture_gets_a_sentence(page, sent):
    [path] = upload(page, sent("text.jpg")).json()
    end, data = asked(page, {"path": path})
    assert (end, "not recognised as a picture" in data[1]) == ("complete", True)


@with_gradio
def test_a_file_over_the_limit_is_refused(page, temporary, tmp_path):
    (tmp_path / "large.png").write_bytes(bytes(MB + 1))
    assert upload(page, tmp_path / "large.png").status_code == 413
    assert not kept_files(temporary)


@with_gradio
@pytest.mark.parametrize("place", ["http://192.0.2.1/x.png", "/etc/hostname", "RUN/result.json"])
def test_nothing_but_what_was_sent_is_looked_at(page, finished, place):
    path = place.replace("RUN", str(finished / "joint"))
    assert httpx.get(f"{page}gradio_api/file={path}").status_code in (403, 404)
    assert asked(page, {"path": path})[0] == "error"
    assert httpx.get(f"{page}gradio_api/proxy={path}").status_code in (400, 404)


@with_gradio
def test_it_answers_to_this_machines_name_alone(page):
    assert httpx.get(page).status_code == 200
    assert httpx.get(page, headers={"Host": "elsewhere.example"}).status_code == 400
    assert "default-src 'self'" in httpx.get(page).headers["Content-Security-Policy"]


@with_gradio
@pytest.mark.skipif(PROGRAM is None, reason="no Chromium here")
def test_in_a_browser(page, scorer, sent, tmp_path):
    browser = Browser(tmp_path / "profile")
    try:
        browser.open(page, 1200)
        until(browser, "document.querySelector('input[type=file]') !== null")
        assert browser.value("document.documentElement.lang") == "en"
        assert "STAND-IN" in browser.value("document.body.innerText")
        choose(browser, sent("text.jpg"))
        until(browser, "document.querySelector('[role=alert]') !== null")
        assert "not recognised as a picture" in browser.value("document.querySelector('[role=alert]').innerText")
        file = sent("photo.png")
        score = f"{scorer(file).score:.3f}"
        choose(browser, file)
        until(browser, "document.querySelector('.answer') !== null")
        assert score in browser.value("document.querySelector('.answer').innerText")
        assert browser.value("[...document.images].every(image => image.alt && image.naturalWidth > 0)")
        browser.open(page, 390)  # what was said is there again, on a narrow screen too
        until(browser, "document.querySelector('.answer') !== null")
        assert browser.value("document.documentElement.scrollWidth") <= 390
        assert tabbed(browser) >= {"upload", "lens", "copy", "forget"}
        browser.value("[...document.querySelectorAll('button')].find(one => one.innerText.startsWith('Forget')).click()")
        until(browser, "document.querySelector('.answer') === null")
        browser.open(page, 1200)
        until(browser, "document.querySelector('input[type=file]') !== null")
        time.sleep(0.3)
        assert browser.value("document.querySelector('.answer') === null")
        assert [url for url in browser.requests() if not url.startswith((page, "data:", "blob:"))] == []
        assert [told for told in browser.complaints() if not GRADIOS_OWN.search(told)] == []
    finally:
        browser.close()


GRADIOS_OWN = re.compile(r'"type": "warning".*Method not implemented\.')
"""What its client says whenever a stream ends."""


def until(browser: Browser, script: str) -> None:
    deadline = time.monotonic() + 15
    while not browser.value(script):
        assert time.monotonic() < deadline, (script, browser.value("document.body.innerText"), browser.complaints())
        time.sleep(0.05)


def choose(browser: Browser, file: Path) -> None:
    """Give a file to the page, as its dialog would."""
    until(browser, "document.querySelector('input[type=file]') !== null")
    field = browser.ask("Runtime.evaluate", expression="document.querySelector('input[type=file]')")["result"]["objectId"]
    browser.ask("DOM.setFileInputFiles", files=[str(file)], objectId=field)


def tabbed(browser: Browser) -> set[str]:
    """What the TAB key leads to."""
    reached = set()
    for _ in range(12):
        for kind in ("keyDown", "keyUp"):
            browser.ask("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
        reached.add(
            browser.value(
                "(at => at.querySelector('input[type=file]') || at.parentElement.querySelector(':scope > input[type=file]') ? 'upload'"
                " : at.classList.contains('scroll') ? 'lens' : /copy/i.test(at.ariaLabel || at.title) ? 'copy'"
                " : at.innerText.startsWith('Forget') ? 'forget' : at.outerHTML.slice(0, 80))(document.activeElement)"
            )
        )
    return reached


@with_gradio
def test_no_other_machine_was_asked_for_anything(page, heard, sent):
    """At the start, for an answer, and in all of the above."""
    [path] = upload(page, sent("photo.png")).json()
    assert asked(page, {"path": path})[0] == "complete"
    addresses = [ast.literal_eval(line) for line in heard.read_text().splitlines()]
    assert addresses, "nothing was heard: it asks itself whether it is there"
    hosts = {place[0] for _, place in addresses if isinstance(place, tuple)}
    assert hosts <= {"127.0.0.1", "localhost", "::1", None}, hosts
