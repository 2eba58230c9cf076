"""A web server in a thread that serves a folder by ranges, and misbehaves as it is told."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit


class WebFolder:
    """folder: what is served. faults: path -> what goes wrong there, each time once: "503", "stall", "truncate", "404",
    "redirect URL", "endless", "no ranges" (that one for ever). asked: how often each path was asked for. sent: bytes of
    content."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.url = folder, ""
        self.faults: dict[str, list[str]] = {}
        self.asked: Counter[str] = Counter()
        self.sent = self.at_once = self.most_at_once = 0
        self.over = threading.Event()
        self.lock = threading.Lock()


@contextmanager
def web_folder(folder: Path) -> Iterator[WebFolder]:
    """Serve a folder while the block runs."""
    state = WebFolder(folder)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 2**16  # head and content in one packet, which no delayed acknowledgement holds up
        disable_nagle_algorithm = True

        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path).lstrip("/")
            with state.lock:
                state.asked[path] += 1
                state.at_once += 1
                state.most_at_once = max(state.at_once, state.most_at_once)
                fault = state.faults[path].pop(0) if state.faults.get(path) else ""
            try:
                self.answer(path, fault)
            finally:
                with state.lock:
                    state.at_once -= 1

        def answer(self, path: str, fault: str) -> None:
            file = state.folder / path
            if fault == "503":
                return self.plain(503)
            if fault.startswith("redirect "):
                return self.plain(302, Location=fault.split()[1])
            if fault == "404" or not file.is_file():
                return self.plain(404)
            content = file.read_bytes()
            tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
            if self.headers.get("If-None-Match") == tag:
                return self.plain(304, ETag=tag)
            start, end, status = 0, len(content), 200
            if (asked := self.headers.get("Range")) and fault != "no ranges":
                first, last = asked.removeprefix("bytes=").split("-")
                start, end, status = int(first), min(int(last) + 1, len(content)), 206
            if fault == "no ranges":
                state.faults[path].append(fault)
            body = content[start:end]
            self.send_response(status)
            self.send_header("ETag", tag)
            if status == 206:
                self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(content)}")
            if fault == "endless":
                self.close_connection = True
                self.end_headers()
                for _ in range(10_000):
                    self.wfile.write(bytes(2**16))
                return None
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with state.lock:
                state.sent += len(body)
            if fault == "stall":
                self.wfile.flush()
                state.over.wait(5)
                self.close_connection = True
                return None
            if fault == "truncate":
                body, self.close_connection = body[: len(body) // 2], True
            self.wfile.write(body)
            return None

        def plain(self, status: int, **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def handle(self) -> None:
            try:
                super().handle()
            except (BrokenPipeError, ConnectionResetError):  # the client has seen enough
                self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # of clients that have gone
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield state
    finally:
        state.over.set()
        server.shutdown()
        server.server_close()
        thread.join()
