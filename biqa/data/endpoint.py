"""A teacher behind an OpenAI-compatible server: OpenAI's own, or one of vLLM, llama.cpp, Ollama and the like."""

import base64
import io
import json
import os
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from PIL import Image

from biqa.data.images import FORMATS, load_image
from biqa.data.record import Reduction
from biqa.data.teacher import Keep
from biqa.data.texts import whole_sentences
from biqa.errors import TeacherUnavailable

if TYPE_CHECKING:
    from openai import OpenAI

AS_THEY_ARE = ("JPEG", "PNG", "WEBP")
"""Formats that servers know; others go as PNG."""

QUOTED = 200
"""Characters of a server's words that a message repeats."""

ADVICE = {
    400: "Correct the options; one that this model does not know can be left out: descriptions.temperature=null, descriptions.max_tokens=null.",
    404: "Is the model's name right, and does the address end as the server wants it, mostly in /v1?",
    413: "Choose a smaller descriptions.max_side=.",
    429: "It is too busy, or the account is used up: wait, or choose a smaller descriptions.concurrency=.",
}
"""Status -> what to do."""


class EndpointWriter:
    """Asks a server, several images at a time. A busy or failing server is asked again (429, 5xx, timeouts), as late as its Retry-After says.

    Args:
        url: address of the API, mostly ending in /v1.
        model: what the server calls the model.
        key_env: environment variable that holds the key, which goes to `url` and nowhere else; None: no key is sent.
        max_tokens: an answer is cut there, and its unfinished sentence left out; None: the server's own limit.
        temperature: 0 for the likeliest words; None: the server's own.
        extra: further fields of a request, as the server knows them.
        concurrency: images under way at a time.
        retries: so often an image is asked about again.
        timeout: seconds without an answer.
        max_side: a larger image is scaled down to this longer side, in pixels.
        seed: another seed is another text for the same image, where the temperature is not 0.
    """

    def __init__(
        self,
        *,
        url: str,
        model: str,
        key_env: str | None = "OPENAI_API_KEY",
        max_tokens: int | None = 300,
        temperature: float | None = 0.0,
        extra: Mapping[str, Any] | None = None,
        concurrency: int = 8,
        retries: int = 5,
        timeout: float = 120.0,
        max_side: int = 1024,
        seed: int = 0,
    ) -> None:
        self.url = url
        self.model = model
        self.key_env = key_env
        self.options = {"max_tokens": max_tokens, "temperature": temperature}
        self.extra = dict(extra or {})
        self.concurrency = concurrency
        self.retries = retries
        self.timeout = timeout
        self.max_side = max_side
        self.seed = seed

    @property
    def name(self) -> str:
        """Model and decoding; not the address: the same model may move."""
        drawn = {} if self.options["temperature"] == 0 else {"seed": self.seed}
        return json.dumps({"model": self.model, **self.options, **drawn, "extra": self.extra, "max_side": self.max_side}, sort_keys=True)

    def write(self, images: Sequence[Path], reduction: Reduction | None, question: str, keep: Keep) -> None:
        """Ask about every image, and hand over each answer as it comes.

        Raises:
            TeacherUnavailable: package or key are missing, or an image got no text. What is under way then is paid for: it is waited for and
                handed over before, and nothing more is asked.
        """
        stopped = Event()
        with self._client() as client, ThreadPoolExecutor(self.concurrency) as pool:

            def describe(path: Path) -> None:
                if stopped.is_set():
                    return
                try:
                    keep(path, self._text(self._answer(client, question, data_url(path, self.max_side, reduction)), path))
                except BaseException:
                    stopped.set()
                    raise

            try:
                for done in as_completed([pool.submit(describe, path) for path in images]):
                    done.result()
            finally:  # Ctrl-C too; the pool waits for what is under way
                stopped.set()

    def _client(self) -> "OpenAI":
        try:
            from openai import OpenAI
        except ImportError as error:
            raise TeacherUnavailable("descriptions=endpoint needs the package openai: pip install 'biqa[teacher]'") from error
        if self.key_env is not None and not re.fullmatch(r"[!-~]+", self._key):  # anything else would stand in the client's error, key and all
            raise TeacherUnavailable(
                f"{self._who}: the environment variable {self.key_env} holds no key (ASCII, no blanks). Set it, name another with "
                f"descriptions.key_env=, or say descriptions.key_env=null for a server that wants none."
            )
        return OpenAI(base_url=self.url, api_key=self._key or "none", max_retries=self.retries, timeout=self.timeout)

    def _answer(self, client: "OpenAI", question: str, image: str) -> Any:  # noqa: ANN401 (a ChatCompletion, or whatever a server sends)
        """What the server says to an image, given as a data URL."""
        from openai import Omit, OpenAIError

        content: list[Any] = [{"type": "text", "text": question}, {"type": "image_url", "image_url": {"url": image}}]
        options: dict[str, Any] = {name: value for name, value in self.options.items() if value is not None}
        if self.key_env is None:
            options["extra_headers"] = {"Authorization": Omit()}
        try:
            return client.chat.completions.create(model=self.model, messages=[{"role": "user", "content": content}], extra_body=self.extra, **options)
        except OpenAIError as error:
            raise TeacherUnavailable(f"{self._who}: {self._what_went_wrong(error)}") from error
        except ValueError as error:
            raise TeacherUnavailable(f"{self._who}: the answer is not JSON ({error}). Is that the address of an OpenAI-compatible server?") from error

    def _text(self, answer: Any, path: Path) -> str:  # noqa: ANN401 (as above)
        """The words of an answer."""
        try:
            choice = answer.choices[0]
            text, refusal = choice.message.content, choice.message.refusal
        except (AttributeError, IndexError, TypeError) as error:
            raise TeacherUnavailable(
                f"{self._who}: the answer is no chat completion: {self._quoted(answer)} Is that the address of an OpenAI-compatible server?"
            ) from error
        if not text or not text.strip():
            reason = f"it refuses: {self._quoted(refusal)}" if refusal else f"an empty answer (finish_reason: {choice.finish_reason})."
            raise TeacherUnavailable(
                f"{self._who}: no text about {path}, but {reason} Ask otherwise (descriptions.question=, descriptions.max_tokens=), "
                f"or take that image out of the data set. What was answered before is kept."
            )
        return whole_sentences(text) if choice.finish_reason == "length" else text.strip()

    @property
    def _key(self) -> str:
        return os.environ.get(self.key_env, "").strip() if self.key_env else ""

    @property
    def _who(self) -> str:
        return f"{self.url}, model {self.model}"

    def _what_went_wrong(self, error: Exception) -> str:
        """An error of the client in a sentence or two. The key is in none of them."""
        from openai import APIConnectionError, APIStatusError, APITimeoutError

        kept = "What was answered before is kept: the same command asks for the rest."
        if isinstance(error, APITimeoutError):
            return f"no answer within {self.timeout:g} s, asked {self.retries + 1} times. Choose a longer descriptions.timeout=. {kept}"
        if isinstance(error, APIConnectionError):
            return f"the server cannot be reached: {self._quoted(error.__cause__ or error)}. Is it running, and is the address right? {kept}"
        assert isinstance(error, APIStatusError), f"an answer has a status, or there is none; got {error!r}"
        status = error.status_code
        if status in (401, 403):  # the server's words are left out: some repeat the key
            key = f"the key in {self.key_env}" if self.key_env else "a request without a key (descriptions.key_env=null)"
            return f"the server refuses {key} (HTTP {status}). Set the right one. {kept}"
        said = error.body.get("message") or error.body.get("detail") if isinstance(error.body, dict) else error.body
        return f"HTTP {status}: {self._quoted(said or 'without a word')} {ADVICE.get(400 if status == 422 else status, 'Try again later.')} {kept}"

    def _quoted(self, said: object) -> str:
        """The first words of what a server said, without the key."""
        text = " ".join(str(said).split())
        if self._key:
            text = text.replace(self._key, "***")
        return f'"{text[:QUOTED]}{"..." if len(text) > QUOTED else ""}"'


def data_url(path: Path, max_side: int, reduction: Reduction | None = None) -> str:
    """An image as a data URL (RFC 2397, base64).

    The file itself, where a server will see in it what `load_image` does: JPEG, PNG or WebP, plain RGB or grey, not reduced, not larger than
    `max_side`, and without EXIF, which may turn the image and say where it was taken. Anything else as PNG, whose compression adds nothing that could
    be described, scaled down where it is larger.

    Raises:
        BadRecord: see `load_image`.
    """
    with Image.open(path, formats=FORMATS) as file:
        tagged = len(file.getexif()) > 0
        still = getattr(file, "n_frames", 1) == 1
        kind = file.format
        opaque = file.mode in ("RGB", "L") and not file.has_transparency_data
        small = max(file.size) <= max_side and (reduction is None or min(file.size) <= reduction.shorter_side)
    if kind in AS_THEY_ARE and opaque and still and small and not tagged:
        return _url(str(kind), path.read_bytes())
    image = load_image(path, reduction)
    image.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return _url("PNG", buffer.getvalue())


def _url(kind: str, content: bytes) -> str:
    return f"data:image/{kind.lower()};base64,{base64.b64encode(content).decode()}"
