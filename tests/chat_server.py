"""A server on this machine that speaks OpenAI's /v1/chat/completions, counts what it is asked, and can be told to fail."""

import base64
import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Reply:
    """What the server sends."""

    content: str | None = "Edges are crisp."
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str | None = None
    """Instead of a chat completion around `content`."""
    finish: str = "stop"
    refusal: str | None = None
    after: Callable[[], object] = bool
    """Called before it is sent: where the server waits."""

    @property
    def bytes(self) -> bytes:
        message = {"role": "assistant", "content": self.content, "refusal": self.refusal}
        choice = {"index": 0, "message": message, "finish_reason": self.finish}
        completion = {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
        return (json.dumps(completion) if self.body is None else self.body).encode()


class ChatServer:
    """What was asked, and what to answer."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.images: list[str] = []
        """SHA-256 of the image of every request, in the order in which they came."""
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        """The header Authorization of every request."""
        self.answer: Callable[[str, int], Reply] = lambda image, time: Reply()
        """(image, which time it is asked about, from 1) -> reply."""
        self.lock = threading.Lock()

    def take(self, path: str, key: str | None, body: bytes) -> Reply:
        """One request."""
        if path != "/v1/chat/completions":
            return Reply(status=404, body='{"detail": "Not Found"}')
        request = json.loads(body)
        [url] = [part["image_url"]["url"] for part in request["messages"][0]["content"] if part["type"] == "image_url"]
        image = hashlib.sha256(base64.b64decode(url.partition(";base64,")[2])).hexdigest()
        with self.lock:
            self.images.append(image)
            self.requests.append(request)
            self.keys.append(key)
            time = self.images.count(image)
        return self.answer(image, time)


@contextmanager
def serving() -> Iterator[ChatServer]:
    """A server that answers as long as the context lasts."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            reply = chat.take(self.path, self.headers.get("Authorization"), self.rfile.read(int(self.headers["Content-Length"])))
            content = reply.bytes
            reply.after()
            try:
                self.send_response(reply.status)
                for name, value in {"Content-Type": "application/json", "Content-Length": str(len(content)), **reply.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)
            except OSError:  # whoever asked was killed, or did not wait
                self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, request: object, client_address: object) -> None:
            pass

    with Server(("127.0.0.1", 0), Handler) as server:
        chat = ChatServer(f"http://127.0.0.1:{server.server_port}/v1")
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield chat
        server.shutdown()
