# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A receiver of OTLP metrics (JSON over HTTP) that keeps what it is told."""
from __future__ import annotations

import http.server
import json
import threading
import typing as t


class OtlpMetrics:
    """``told``: (path, body) of each request. ``refuse``: answer the next ones with 503."""

    def __init__(self) -> None:
        self.told: list[tuple[str, t.Any]] = []
        self.refuse = False
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                receiver.told.append((self.path, body))
                known = self.headers["Content-Type"] == "application/json" and not receiver.refuse
                self.send_response(200 if known else 503)
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_: t.Any) -> None:
                return

        self._server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def __enter__(self) -> OtlpMetrics:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
