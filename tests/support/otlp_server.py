# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A receiver of OTLP/HTTP JSON that takes nothing but what OpenTelemetry's own protocol definition takes."""
from __future__ import annotations

import base64
import http.server
import json
import threading
import typing as t

from google.protobuf.json_format import ParseDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

_IDS = ("traceId", "spanId", "parentSpanId")


class OtlpServer:
    """Use it as a context. ``spans``: all that were taken; ``refused``: what was wrong with others."""

    def __init__(self) -> None:
        self.spans: list[t.Any] = []
        self.refused: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.bodies: list[str] = []
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                receiver.bodies.append(body)
                receiver.headers.append(dict(self.headers))
                problem = receiver._take(self.path, str(self.headers["Content-Type"]), body)
                if problem:
                    receiver.refused.append(problem)
                self.send_response(400 if problem else 200)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_args: t.Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"

    def _take(self, path: str, kind: str, body: str) -> str:
        if (path, kind) != ("/v1/traces", "application/json"):
            return f"{path} {kind}"
        try:
            request = ParseDict(_with_bytes(json.loads(body)), ExportTraceServiceRequest())
        except Exception as exc:
            return f"{exc}: {body}"
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                self.spans += scope.spans
        return ""

    def __enter__(self) -> OtlpServer:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def attributes(span: t.Any) -> dict[str, t.Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}


def _with_bytes(value: t.Any) -> t.Any:
    """OTLP writes ids as hex where protobuf's JSON has base64."""
    if isinstance(value, list):
        return [_with_bytes(one) for one in value]
    if isinstance(value, dict):
        return {
            name: base64.b64encode(bytes.fromhex(one)).decode() if name in _IDS else _with_bytes(one)
            for name, one in value.items()
        }
    return value
