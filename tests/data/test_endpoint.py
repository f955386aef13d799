"""Asking a server: what is sent, what is asked again, and what is said when it fails."""

import base64
import io
import re
import signal
import sys
import threading
import time

import numpy as np
import pytest
from chat_server import Reply, serving
from PIL import ExifTags, Image

from biqa.config import EndpointDescriptions
from biqa.data.endpoint import EndpointWriter, data_url
from biqa.data.images import load_image
from biqa.data.record import Reduction
from biqa.errors import IncompatibleChoice, TeacherUnavailable

QUESTION = "What is seen?"
KEY = "sk-very-secret"


@pytest.fixture
def server():
    with serving() as chat:
        yield chat


@pytest.fixture
def images(tmp_path):
    """Six different pictures."""
    paths = [tmp_path / f"{shade}.png" for shade in range(6)]
    for shade, path in enumerate(paths):
        Image.new("L", (8, 8), 40 * shade).save(path)
    return paths


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("TEACHER_KEY", KEY)
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY"):
        monkeypatch.delenv(name, raising=False)


def writer(server, **options):
    return EndpointWriter(**({"url": server.url, "model": "m", "key_env": "TEACHER_KEY", "retries": 2, "timeout": 10} | options))


def written(server, images, **options):
    """Texts by file name."""
    texts = {}
    writer(server, **options).write(images, None, QUESTION, lambda path, text: texts.update({path.name: text}))
    return texts


def refused(server, images, **options):
    """The message, and the texts that were there before."""
    texts = {}
    with pytest.raises(TeacherUnavailable) as caught:
        writer(server, **options).write(images, None, QUESTION, lambda path, text: texts.update({path.name: text}))
    assert KEY not in str(caught.value)
    return str(caught.value), texts


def image_in(url):
    kind, _, content = url.partition(";base64,")
    return kind, Image.open(io.BytesIO(base64.b64decode(content)))


# what is asked


def test_a_request_holds_model_question_image_and_options(server, images):
    assert written(server, images[:1], extra={"seed": 7, "chat_template_kwargs": {"thinking": False}}) == {"0.png": "Edges are crisp."}
    [request] = server.requests
    [message] = request.pop("messages")
    assert request == {"model": "m", "max_tokens": 300, "temperature": 0.0, "seed": 7, "chat_template_kwargs": {"thinking": False}}
    assert message["role"] == "user"
    assert message["content"] == [{"type": "text", "text": QUESTION}, {"type": "image_url", "image_url": {"url": data_url(images[0], 1024)}}]
    assert server.keys == [f"Bearer {KEY}"]


def test_what_a_model_does_not_know_and_the_key_can_be_left_out(server, images, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    written(server, images[:1], key_env=None, max_tokens=None, temperature=None)
    assert server.requests[0].keys() == {"model", "messages"}
    assert server.keys == [None]


def test_several_images_are_under_way_at_a_time(server, images):
    together = threading.Barrier(3, timeout=10)
    server.answer = lambda image, time: Reply(after=together.wait)
    assert len(written(server, images, concurrency=3)) == 6  # the barrier opens for three requests at a time only


def test_texts_depend_on_model_and_decoding_and_not_on_the_address(server):
    same = [{}, {"url": "http://elsewhere/v1"}, {"key_env": None}, {"concurrency": 1}, {"retries": 0}, {"timeout": 1}, {"seed": 3}]
    assert len({writer(server, **options).name for options in same}) == 1
    other = [
        {}, {"model": "n"}, {"max_tokens": 100}, {"max_tokens": None}, {"max_side": 512}, {"extra": {"top_k": 1}},
        {"temperature": 1.0}, {"temperature": 1.0, "seed": 1}, {"temperature": None}, {"temperature": None, "seed": 1},
    ]  # fmt: skip
    assert len({writer(server, **options).name for options in other}) == len(other)
    assert KEY not in writer(server).name


# what is answered


def test_an_answer_that_was_cut_off_loses_its_unfinished_sentence(server, images):
    server.answer = lambda image, time: Reply("Edges are crisp. Noise is low. Col", finish="length")
    assert written(server, images[:1]) == {"0.png": "Edges are crisp. Noise is low."}
    server.answer = lambda image, time: Reply(" Edges are crisp. Noise is low\n")
    assert written(server, images[:1]) == {"0.png": "Edges are crisp. Noise is low"}


def test_a_busy_or_failing_server_is_asked_again(server, images):
    asked = []

    def answer(image, time_):
        asked.append(time.monotonic())
        return [Reply(status=429, headers={"Retry-After": "1"}), Reply(status=500, headers={"Retry-After-Ms": "10"}), Reply()][time_ - 1]

    server.answer = answer
    assert written(server, images[:1]) == {"0.png": "Edges are crisp."}
    assert len(asked) == 3
    assert asked[1] - asked[0] > 0.95  # without the header the client waits half a second at most
    assert asked[2] - asked[1] < 0.7  # without it, three quarters at least


@pytest.mark.parametrize("choices", ['{"choices": [', "<html>Welcome</html>", '{"choices": []}', "[]", "{}", '{"choices": [{"text": "old"}]}'])
def test_an_answer_of_another_kind_is_told(server, images, choices):
    server.answer = lambda image, time: Reply(body=choices)
    said, _ = refused(server, images[:1])
    assert re.match(
        rf"{server.url}, model m: the answer is (not JSON|no chat completion).* Is that the address of an OpenAI-compatible server\?", said
    )


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (Reply(""), r"no text about .*0\.png, but an empty answer \(finish_reason: stop\)\. Ask otherwise"),
        (Reply(None, finish="content_filter"), r"but an empty answer \(finish_reason: content_filter\)\. Ask otherwise"),
        (Reply(None, refusal="I cannot look at that."), r'but it refuses: "I cannot look at that\." Ask otherwise'),
        (Reply(status=401, body='{"error": {"message": "Incorrect key sk-very-secret"}}'), r"the server refuses the key in TEACHER_KEY \(HTTP 401\)"),
        (Reply(status=403), r"the server refuses the key in TEACHER_KEY \(HTTP 403\)\. Set the right one"),
        (Reply(status=404, body='{"detail": "Not Found"}'), r'HTTP 404: "Not Found" Is the model\'s name right, and does the address'),
        (Reply(status=413, body=""), r"HTTP 413: .*Choose a smaller descriptions\.max_side="),
        (Reply(status=400, body='{"error": {"message": "no temperature for sk-very-secret"}}'), r'HTTP 400: "no temperature for \*\*\*" Correct the'),
        (Reply(status=422, body='{"detail": [{"loc": "max_tokens"}]}'), r"HTTP 422: .*max_tokens.*Correct the options; one that this model"),
        (Reply(status=500, body="x" * 999), r'HTTP 500: "x{200}\.\.\." Try again later\. What was answered before is kept'),
        (Reply(status=429, headers={"Retry-After": "900"}), r"HTTP 429: .*It is too busy, or the account is used up: wait, or choose a smaller"),
    ],
)
def test_a_refusal_is_one_message_without_the_key(server, images, reply, message):
    server.answer = lambda image, time: reply
    said, texts = refused(server, images[:1], retries=0)
    assert re.search(message, said), said
    assert said.startswith(f"{server.url}, model m: ")
    assert "kept" in said
    assert texts == {}
    assert len(server.images) == 1


def test_a_server_that_does_not_answer_is_told(server, images):
    gate = threading.Event()
    server.answer = lambda image, time: Reply(after=lambda: gate.wait(10))
    said, _ = refused(server, images[:1], timeout=0.1, retries=1)
    gate.set()
    assert "no answer within 0.1 s, asked 2 times. Choose a longer descriptions.timeout=" in said
    assert len(server.images) == 2


def test_a_server_that_is_not_there_is_told(server, images):
    said, _ = refused(server, images[:1], url="http://127.0.0.1:9/v1", retries=0)
    assert re.match(r'http://127\.0\.0\.1:9/v1, model m: the server cannot be reached: ".*refused". Is it running, and is the address right\?', said)


def test_after_a_failure_nothing_more_is_asked_and_what_is_under_way_is_kept(server, images):
    failed = threading.Event()

    def answer(image, time_):
        if len(server.images) == 3:
            failed.set()
            return Reply(status=401)
        failed.wait(10)
        return Reply(after=lambda: time.sleep(0.2))

    server.answer = answer
    said, texts = refused(server, images, concurrency=3)
    assert "HTTP 401" in said
    assert len(server.images) == 3
    assert len(texts) == 2


def test_ctrl_c_waits_for_what_is_under_way(server, images):
    asked = threading.Barrier(3, timeout=10)

    def answer(image, time_):
        if asked.wait() == 0:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        return Reply(after=lambda: time.sleep(0.2))

    server.answer = answer
    texts = {}
    with pytest.raises(KeyboardInterrupt):
        writer(server, concurrency=3).write(images, None, QUESTION, lambda path, text: texts.update({path.name: text}))
    assert len(server.images) == len(texts) == 3


# the key and the package


@pytest.mark.parametrize("key", [None, "", " ", "two words", "naïve", "line\nbreak"])
def test_a_key_that_is_none_is_told_before_anything_is_asked(server, images, monkeypatch, key):
    monkeypatch.setenv("TEACHER_KEY", key) if key is not None else monkeypatch.delenv("TEACHER_KEY")
    with pytest.raises(
        TeacherUnavailable, match=r"the environment variable TEACHER_KEY holds no key \(ASCII, no blanks\)\. Set it, name another"
    ) as caught:
        written(server, images)
    assert not key or not key.strip() or key not in str(caught.value)
    assert server.images == []


def test_white_space_around_a_key_is_no_part_of_it(server, images, monkeypatch):
    monkeypatch.setenv("TEACHER_KEY", f" {KEY}\r\n")
    written(server, images[:1])
    assert server.keys == [f"Bearer {KEY}"]


def test_a_missing_package_is_told(server, images, monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(TeacherUnavailable, match=r"descriptions=endpoint needs the package openai: pip install 'biqa\[teacher\]'"):
        written(server, images)


# the image


def noise(mode="RGB", size=(60, 40)):
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).convert(mode)


@pytest.mark.parametrize(("kind", "mode"), [("JPEG", "RGB"), ("JPEG", "L"), ("PNG", "RGB"), ("PNG", "L"), ("WEBP", "RGB")])
def test_a_file_that_servers_know_is_sent_as_it_is(tmp_path, kind, mode):
    noise(mode).save(tmp_path / "image", kind)
    url = data_url(tmp_path / "image", 60)
    assert url == f"data:image/{kind.lower()};base64,{base64.b64encode((tmp_path / 'image').read_bytes()).decode()}"
    assert data_url(tmp_path / "image", 60, Reduction(40, None)) == url


def saved(path, case):
    """A file that must not be sent as it is."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    options = {
        "turned": ("JPEG", "RGB", {"exif": exif}), "cmyk": ("JPEG", "CMYK", {}), "transparent": ("PNG", "RGBA", {}), "palette": ("PNG", "P", {}),
        "keyed": ("PNG", "RGB", {"transparency": (1, 2, 3)}), "bitmap": ("BMP", "RGB", {}), "tiff": ("TIFF", "RGB", {}),
        "moving": ("WEBP", "RGB", {"save_all": True, "append_images": [Image.new("RGB", (60, 40))]}),
    }  # fmt: skip
    kind, mode, others = options[case]
    noise(mode).save(path, kind, **others)


@pytest.mark.parametrize("case", ["turned", "cmyk", "transparent", "palette", "keyed", "bitmap", "tiff", "moving"])
def test_any_other_is_sent_as_the_model_would_see_it(tmp_path, case):
    saved(tmp_path / "image", case)
    kind, sent = image_in(data_url(tmp_path / "image", 60))
    assert kind == "data:image/png"
    assert np.array_equal(np.asarray(sent), np.asarray(load_image(tmp_path / "image")))


def test_a_large_image_is_scaled_down_and_none_is_enlarged(tmp_path):
    noise().save(tmp_path / "image.png")
    assert image_in(data_url(tmp_path / "image.png", 30))[1].size == (30, 20)
    assert image_in(data_url(tmp_path / "image.png", 61))[1].size == (60, 40)
    assert image_in(data_url(tmp_path / "image.png", 61, Reduction(10, None)))[1].size == (15, 10)
    saved(tmp_path / "turned", "turned")
    assert image_in(data_url(tmp_path / "turned", 30))[1].size == (20, 30)


def test_what_a_camera_wrote_about_itself_is_not_sent(tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "a camera"
    Image.new("RGB", (20, 10), "red").save(tmp_path / "tagged.jpg", exif=exif)
    kind, sent = image_in(data_url(tmp_path / "tagged.jpg", 30))
    assert (kind, sent.size) == ("data:image/png", (20, 10))
    assert not sent.getexif()


# options


SOUND = {
    "question": QUESTION, "cache": "here", "on_leak": "stop", "url": "http://x/v1", "model": "m", "key_env": None, "max_tokens": 1, "temperature": 0.0,
    "concurrency": 1, "retries": 0, "timeout": 1.0, "max_side": 1,
}  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cache": None}, r"descriptions\.cache=null: the texts of a teacher cost money or hours, so they must be kept\. Name a folder"),
        ({"on_leak": "ignore"}, r"descriptions\.on_leak=ignore is not known: choose stop or skip_sentence"),
        ({"url": "localhost:8000"}, r"descriptions\.url=localhost:8000: an address begins with http:// or https://"),
        ({"url": "http://x/v1/chat/completions/"}, r"descriptions\.url=.*: leave /chat/completions out, it is added"),
        (
            {"url": "https://user:sk-very-secret@x/v1"},
            r"descriptions\.url= holds a user, a key or a query\. Take it out; a key goes by the environment",
        ),
        ({"url": "x?key=sk-very-secret"}, r"descriptions\.url= holds a user, a key or a query"),
        ({"max_tokens": 0}, r"descriptions\.max_tokens=0: choose 1 or more, or null"),
        ({"temperature": -1.0}, r"descriptions\.temperature=-1\.0: choose 0 or more, or null"),
        ({"extra": 3}, r"descriptions\.extra=3: give fields and values"),
        ({"concurrency": 0}, r"descriptions\.concurrency=0: choose 1 or more"),
        ({"retries": -1}, r"descriptions\.retries=-1: choose 0 or more"),
        ({"timeout": 0.0}, r"descriptions\.timeout=0\.0: choose a number of seconds above 0"),
        ({"max_side": 0}, r"descriptions\.max_side=0: choose 1 or more"),
        ({"seed": -1}, r"descriptions\.seed=-1: choose 0 or more"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message):
    assert EndpointDescriptions(**SOUND, extra={"top_k": 1}).max_side == 1
    with pytest.raises(IncompatibleChoice, match=message) as caught:
        EndpointDescriptions(**(SOUND | options))
    assert KEY not in str(caught.value)
