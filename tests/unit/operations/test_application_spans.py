# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The application's own spans as evidence: OTLP JSON made by OpenTelemetry's own definition, from files and by HTTP."""

from __future__ import annotations

import base64
import http.server
import json
import pathlib
import threading
import time
import typing as t

import pytest
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status, TracesData

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import InvalidInput
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import application_spans
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.incident import rfc3339
from tests.unit.operations.runbook import NS, Site, attempt

SECOND = 1_000_000
AT = 1_750_000_000 * SECOND  # µs


class Application:
    """Notes its memory operations as spans."""

    def __init__(self, service: str = "agent") -> None:
        self.data = TracesData()
        resource = self.data.resource_spans.add()
        resource.resource.attributes.add(key="service.name").value.string_value = service
        self._spans = resource.scope_spans.add().spans

    def did(self, operation: str, *, error: str = "", words: str = "", at: int = AT, **known: t.Any) -> Span:
        span = self._spans.add(
            trace_id=b"t" * 16, span_id=len(self._spans).to_bytes(8, "big"), name=operation, kind=Span.SPAN_KIND_CLIENT
        )
        span.start_time_unix_nano = span.end_time_unix_nano = at * 1000
        for name, value in {"gen_ai.operation.name": operation, "error.type": error, **known}.items():
            one = span.attributes.add(key=name).value
            if isinstance(value, int):
                one.int_value = value
            else:
                one.string_value = value
        if error:
            span.status.code = Status.STATUS_CODE_ERROR
            event = span.events.add(name="exception")
            event.attributes.add(key="exception.message").value.string_value = words
        else:
            del span.attributes[1]
        return span

    def json(self) -> str:
        """As OTLP writes it: ids in hex, enums as numbers."""
        return json.dumps(_hex(MessageToDict(self.data, use_integers_for_enums=True)))


def _hex(value: t.Any) -> t.Any:
    if isinstance(value, list):
        return [_hex(one) for one in value]
    if isinstance(value, dict):
        ids = ("traceId", "spanId", "parentSpanId")
        return {k: base64.b64decode(v).hex() if k in ids else _hex(v) for k, v in value.items()}
    return value


def read(*sources: t.Any, namespace: str = NS) -> dict[str, t.Any]:
    places = [str(source) for source in sources]
    return application_spans.read(places, namespace=namespace, store="site", since=AT - SECOND, until=AT + SECOND)


@pytest.fixture
def application() -> Application:
    one = Application()
    of = {"memory.namespace": NS}
    one.did("search_memory", **of, **{"gen_ai.memory.record.count": 3})
    one.did("search_memory", **of, **{"gen_ai.memory.record.count": 0})
    one.did("search_memory", **of, error="RecordCorrupt", words="memory corrupt: password=hunter2")
    one.did("search_memory", **of, error="NamespaceQuarantined", words="its memory is quarantined")
    one.did("update_memory", error="InvalidTag", at=AT + 5, **{"gen_ai.memory.store.id": "site"})
    one.did("delete_memory", **of, **{"gen_ai.memory.record.id": "k1"})
    one.did("delete_memory", **of)
    one.did("memory_operation", error="store-unavailable")
    one.did("search_memory", **{"memory.namespace": "another"}, error="RecordCorrupt")
    one.did("update_memory", **{"gen_ai.memory.store.id": "another"})
    one.did("search_memory", **of, at=AT - 2 * SECOND, error="RecordCorrupt")
    one.did("chat", **of, error="RecordCorrupt")
    return one


def expect(found: dict[str, t.Any]) -> None:
    assert [one["status"] for one in found["sources"]] == ["read"] * len(found["sources"])
    assert found["spans"] == 8
    assert found["operations"] == {
        "delete_memory": {"count": 2, "failed": 0, "empty": 0},
        "memory_operation": {"count": 1, "failed": 1, "empty": 0},
        "search_memory": {"count": 4, "failed": 2, "empty": 1},
        "update_memory": {"count": 1, "failed": 1, "empty": 0},
    }
    assert found["deletions"] == {"count": 2, "whole": 1}
    errors = {one["kind"]: one for one in found["errors"]}
    assert {kind: one["count"] for kind, one in errors.items()} == {"corruption": 1, "decryption": 1, "storage": 1}
    assert {one["what"] for one in errors.values()} == {"spans"}
    assert errors["corruption"]["first"] == rfc3339(AT)
    assert "hunter2" not in json.dumps(found)


def test_a_file_of_a_collector_is_read_and_what_was_sent_twice_counts_once(
    application: Application, tmp_path: pathlib.Path
) -> None:
    own = Application(service="memops.agent_memory")
    own.did("memory_operation", error="RecordCorrupt")
    lines, pretty = tmp_path / "traces.jsonl", tmp_path / "traces.json"
    lines.write_text("\n".join([application.json(), own.json(), application.json()]) + "\n")
    expect(read(lines))
    pretty.write_text(json.dumps(json.loads(application.json()), indent=2))
    expect(read(pretty))


@pytest.mark.parametrize("shape", ["resourceSpans", "batches", "trace"])
def test_a_backend_is_asked_by_http(application: Application, shape: str) -> None:
    body = json.loads(application.json())
    answer = {"trace": body} if shape == "trace" else {shape: body["resourceSpans"]}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/api/traces/1" else 404)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *_args: t.Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        base = f"http://127.0.0.1:{server.server_address[1]}"
        expect(read(f"{base}/api/traces/1"))
        (missing,) = read(f"{base}/elsewhere")["sources"]
    finally:
        server.shutdown()
        server.server_close()
    assert missing["status"] == "no-data" and "Not Found" in missing["reason"]
    (gone,) = read(f"{base}/api/traces/1")["sources"]
    assert gone["status"] == "no-data"


@pytest.mark.parametrize(
    "text",
    [
        "", "\0\xff{", "[]", "null", "{" * 100_000, '{"resourceSpans": 7}',
        '{"resourceSpans":[{"scopeSpans":[{"spans":1}]}]}',
        '{"resourceSpans":[{"resource":3,"scopeSpans":[{"spans":[{"name":"search_memory","attributes":[{"value":[]}]}]}]}]}',
        '{"resourceSpans":[{"scopeSpans":[{"spans":[{"name":["search_memory"],"startTimeUnixNano":{}}]}]}]}',
        '{"resourceSpans":[{"scopeSpans":[{"spans":[{"name":"search_memory","startTimeUnixNano":"1e9"}]}]}]}',
    ],
)  # fmt: skip
def test_what_is_no_otlp_tells_nothing_and_stops_nothing(tmp_path: pathlib.Path, text: str) -> None:
    path = tmp_path / "traces.jsonl"
    path.write_text(text, encoding="latin-1")
    found = read(path, tmp_path / "missing")
    assert found["spans"] == 0 and not found["errors"]
    assert [one["status"] for one in found["sources"]] == ["read", "no-data"]


@pytest.mark.parametrize("where", ["traces.json", "http://user:hunter2@tempo/x", 7, None, "ftp://x/y"])
def test_what_cannot_be_meant_is_refused(where: t.Any) -> None:
    with pytest.raises(InvalidInput, match="names spans that cannot be meant") as refused:
        application_spans.split(["/var/log/a.log", {"spans": where}])
    assert "hunter2" not in str(refused.value)


def test_logs_and_spans_are_told_apart() -> None:
    sources = ["/a.log", {"journal_unit": "agent"}, {"spans": "/t.json"}, {"spans": "https://tempo/api/traces/1"}]
    assert application_spans.split(sources) == (sources[:2], ["/t.json", "https://tempo/api/traces/1"])


def test_a_diagnosis_takes_spans_as_evidence_beside_the_access_log(tmp_path: pathlib.Path) -> None:
    site = Site(tmp_path / "site")
    with site.memory() as memory:
        memory.write_many(NS, {f"key-{n:03}": {"n": n} for n in range(60)})
    site.backup()
    site.raw.flip(NS, "key-007")
    site.raw.remove(NS, ["key-008"])
    application, now = Application(), time.time_ns() // 1000
    application.did("search_memory", at=now - SECOND, error="RecordCorrupt", **{"memory.namespace": NS})
    application.did("delete_memory", at=now - SECOND, **{"memory.namespace": NS})
    spans = tmp_path / "traces.jsonl"
    spans.write_text(application.json() + "\n")
    run = attempt()
    site.step("isolate", run)
    logs = [{"spans": str(spans)}, {"spans": str(tmp_path / "missing.jsonl")}]
    found = site.step("diagnose", run, logs=logs)
    evidence = {cause["cause"]: cause["evidence"] for cause in found["causes"]}
    assert "1 spans say corruption failure, for example: search_memory: RecordCorrupt" in evidence["storage-failure"]
    assert "1 span of the application is a deletion, 1 of them of everything" in evidence["lost-rows"]
    assert found["onset"]["at"] == rfc3339(now - SECOND)
    assert found["spans_seen"]["operations"]["search_memory"] == {"count": 1, "failed": 1, "empty": 0}
    assert any("missing.jsonl: No such file or directory" in doubt for doubt in found["doubts"])
