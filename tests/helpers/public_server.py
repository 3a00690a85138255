"""A server on this machine that breaks where a test says so; ``pytest_plugins = ["public_server"]`` brings it."""

import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


class Server:
    """What the server serves, what it does, and what it was asked for."""

    def __init__(self):
        self.content = b""
        self.breaks = []  # for each request: after how many bytes the connection ends; then none
        self.status = 200
        self.asked = []  # the Range of each request
        self.url = ""

    def answer(self, request):
        asked = request.headers.get("Range")
        self.asked.append(asked)
        if self.status != 200:
            request.send_error(self.status)
            return
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(self.content) - 1}/{len(self.content)}")
        request.send_header("Content-Length", str(len(self.content) - start))
        request.end_headers()
        end = start + self.breaks.pop(0) if self.breaks else None
        with suppress(ConnectionError):  # who asked may be gone
            request.wfile.write(self.content[start:end])


@pytest.fixture
def server():
    behaviour = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            behaviour.answer(self)

        def log_message(self, *arguments):
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    behaviour.url = f"http://127.0.0.1:{running.server_port}/set.zip"
    yield behaviour
    running.shutdown()
    running.server_close()
    thread.join()
