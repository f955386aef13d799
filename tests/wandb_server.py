"""A W&B server on loopback for tests: `python wandb_server.py MODE` prints its port, answers what wandb asks, and goes wrong as it is told.

whole: it answers. hangs: it takes calls and never answers. dies, falls_silent: so it does once the first rows of a run have come.
"""

import gzip
import json
import os
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BUCKET = {
    "id": "b", "name": "abcd1234", "displayName": "x", "config": "{}", "sweepName": None, "historyLineCount": 0,
    "project": {"id": "p", "name": "biqa", "entity": {"id": "e", "name": "e"}},
}  # fmt: skip
ANSWERS = {
    "upsertBucket": {"upsertBucket": {"bucket": BUCKET, "inserted": True}},
    "createRunFiles": {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": []}},
    "viewer": {"viewer": {"id": "v", "entity": "e", "username": "e", "flags": "{}", "teams": {"edges": []}}},
}


class Answer(BaseHTTPRequestHandler):
    """One call."""

    protocol_version = "HTTP/1.1"
    mode = "whole"

    def do_GET(self) -> None:
        self._say({})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
        if self.path.endswith("file_stream") and b"history" in body:
            if self.mode == "dies":
                os._exit(0)
            if self.mode == "falls_silent":
                threading.Event().wait()
        asked = json.loads(body)["query"] if self.path.endswith("graphql") else ""
        self._say({"data": next((answer for word, answer in ANSWERS.items() if word in asked), {})})

    def _say(self, answer: object) -> None:
        text = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


if __name__ == "__main__":
    Answer.mode = sys.argv[1]
    if Answer.mode == "hangs":
        with socket.create_server(("127.0.0.1", 0)) as listening:
            print(listening.getsockname()[1], flush=True)
            taken = []
            while True:
                taken.append(listening.accept())
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    print(server.server_address[1], flush=True)
    server.serve_forever()
