# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A web server and a mail server on loopback that keep what they are told."""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import socketserver
import ssl
import threading
import typing as t

USER, PASSWORD = "memory", "the-mail-password"


@contextlib.contextmanager
def running(server: socketserver.BaseServer) -> t.Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def web(*answers: int) -> t.Iterator[tuple[str, list[tuple[str, dict[str, t.Any]]]]]:
    """Yields its address and (path, JSON) of every request. ``answers`` come first; after them it is 200."""
    told: list[tuple[str, dict[str, t.Any]]] = []
    codes = list(answers)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append((self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
            code = codes.pop(0) if codes else 200
            self.send_response(code)
            if code == 302:
                self.send_header("Location", "/elsewhere")
            self.end_headers()

        def log_message(self, *_: t.Any) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    with running(server):
        yield f"http://127.0.0.1:{server.server_port}", told


@contextlib.contextmanager
def mail(certificate: tuple[str, str] | None = None) -> t.Iterator[tuple[int, list[str]]]:
    """An SMTP server with AUTH PLAIN. Yields its port and the letters it took, after a login alone.

    With a ``certificate`` (its path and that of its key) it does STARTTLS, and knows no login before.
    """
    letters: list[str] = []
    context = None
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)

    class Handler(socketserver.StreamRequestHandler):
        def say(self, text: str) -> None:
            self.wfile.write(text.encode() + b"\r\n")

        def handle(self) -> None:
            allowed, plain = False, context is not None
            self.say("220 ready")
            while raw := self.rfile.readline():
                line = raw.decode().strip()
                verb = line.split(" ", 1)[0].upper()
                if verb == "EHLO":
                    self.say("250-here\r\n250 " + ("STARTTLS" if plain else "AUTH PLAIN"))
                elif verb == "STARTTLS" and plain and context:
                    self.say("220 go on")
                    try:
                        self.connection = context.wrap_socket(self.connection, server_side=True)
                    except OSError:
                        return  # who asked does not trust the certificate
                    self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb", 0)
                    plain = False
                elif plain:
                    self.say("530 only after STARTTLS")
                elif verb == "AUTH":
                    allowed = base64.b64decode(line.split()[-1]).decode() == f"\0{USER}\0{PASSWORD}"
                    self.say("235 welcome" if allowed else "535 no " + PASSWORD)
                elif verb == "DATA" and allowed:
                    self.say("354 go on")
                    lines = iter(self.rfile.readline, b".\r\n")
                    letters.append(b"".join(lines).decode())
                    self.say("250 taken")
                elif verb == "QUIT":
                    self.say("221 bye")
                    return
                else:
                    self.say("250 fine" if allowed else "530 log in")

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        allow_reuse_address = True

    server = Server(("127.0.0.1", 0), Handler)
    with running(server):
        yield server.server_address[1], letters
