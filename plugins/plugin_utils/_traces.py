# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Spans of a run: one trace per incident, one span per step and per operation on a store, exported by OTLP.

PRIVATE to the collection. The controller exports; the memory hosts need neither a way to the collector nor a library.
A run has some twenty spans and its actions live in short processes, for which the OpenTelemetry SDK's batches are no
help: each action posts what it has, as OTLP/HTTP JSON. A span's attributes are names, counts and verdicts, never a text
that a memory, a key of one or a secret could stand in.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import socket
import threading
import time
import typing as t
import urllib.parse
import urllib.request

from ansible import constants as C

from ._attempt import attempt

SCOPE = "memops.agent_memory"
LONGEST = 0.8  # seconds that a run waits for a receiver, once; OTEL_EXPORTER_OTLP_TIMEOUT says otherwise
INTERNAL, CLIENT = 1, 3
#: Modules that work on a store, and what OpenTelemetry's conventions for memory of generative AI call that; None:
#: they have no word for it.
OPERATIONS: t.Dict[str, t.Optional[str]] = {
    "apply": "update_memory",
    "diagnose": "search_memory",
    "failback": "upsert_memory",
    "failover_store": None,
    "isolate": None,
    "monitor": "search_memory",
    "plan": "search_memory",
    "preflight": "search_memory",
    "promote": None,
    "rejoin": None,
    "release": None,
    "replication_info": None,
    "restore": "upsert_memory",
    "rotate_keys": "update_memory",
    "snapshot": "search_memory",
    "store_info": None,
    "undo": "update_memory",
    "validate": "search_memory",
}
_COUNTS = ("applied", "restored", "rotated", "records", "rows")  # of a result, in this order
_PARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(?:-.*)?")


class Traces:
    """The spans of one host and namespace in this run. ``endpoint``: of an OTLP/HTTP receiver."""

    def __init__(self, endpoint: str, host: str, namespace: str) -> None:
        self._url, self.host, self.namespace = url_of(endpoint), host, namespace
        self._waiting = _file("spans", host, namespace)
        self._down = _file("receiver-down", self._url)
        self._parent = _PARENT.fullmatch(os.environ.get("TRACEPARENT", "").strip().lower())

    def add(self, spans: t.Sequence[t.Dict[str, t.Any]], incident: t.Optional[str], last: bool) -> t.Optional[str]:
        """Export spans as soon as it is known which trace they belong to; ``last``: nobody will know more.

        Returns a sentence when the receiver cannot be reached, once in a run: it is not tried again.
        """
        if os.path.exists(self._down):
            return None
        if incident is None and self._parent is None and not last:
            with open(os.open(self._waiting, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "w") as file:
                file.writelines(json.dumps(span) + "\n" for span in spans)
            return None
        waiting: t.List[t.Dict[str, t.Any]] = []
        with contextlib.suppress(OSError, ValueError):
            with open(self._waiting, encoding="utf-8") as file:
                waiting = [json.loads(line) for line in file]
            os.unlink(self._waiting)
        problem = _post(self._url, json.dumps(self._request([*waiting, *spans], incident)).encode())
        if problem is None:
            return None
        with contextlib.suppress(OSError):
            os.close(os.open(self._down, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            return (
                f"The spans of this run cannot be sent to {self._url.rpartition('@')[2]}: {problem}; "
                "it goes on without them. "
                "Next: mend the receiver, or correct memory_otlp_endpoint."
            )
        return None

    def root(self) -> str:
        """The id of the run's own span, which every process of the run works out alike."""
        return _digest("run", attempt(), self.host, self.namespace)[:16]

    def _request(self, spans: t.Sequence[t.Dict[str, t.Any]], incident: t.Optional[str]) -> t.Dict[str, t.Any]:
        own = _digest("incident", incident) if incident else _digest("attempt", attempt())
        trace = self._parent.group(1) if self._parent else own[:32]
        root = self.root()
        exported = []
        for span in spans:
            one = {**span, "traceId": trace}
            if not one["parentSpanId"]:
                del one["parentSpanId"]
                if self._parent:  # whoever started the run
                    one["parentSpanId"] = self._parent.group(2)
            if self._parent and incident:  # the incident's other runs are found by this
                one["links"] = [{"traceId": own[:32], "spanId": root}]
            one["attributes"] = [*one["attributes"], *_attributes({"memory.incident": incident})]
            exported.append(one)
        resource = {"service.name": SCOPE, "host.name": socket.gethostname()}
        scope = {"scope": {"name": SCOPE}, "spans": exported}
        return {"resourceSpans": [{"resource": {"attributes": _attributes(resource)}, "scopeSpans": [scope]}]}


def of_module(
    traces: Traces,
    module: str,
    step: str,
    arguments: t.Mapping[str, t.Any],
    result: t.Mapping[str, t.Any],
    started: float,
    at: str,
) -> t.List[t.Dict[str, t.Any]]:
    """The spans of one module call: the operation on the store, and around it the step when it is one by itself.

    ``at``: the host that it worked on. A step of several operations has a span of its own from ``of_step``.
    """
    ended = time.time()
    common = {
        "memory.namespace": traces.namespace,
        "server.address": at,
        "memory.changed": bool(result.get("changed")),
        "memory.verdict": result.get("verdict") or ("fail" if result.get("failed") else "pass"),
    }
    failed = _error(result)
    spans = []
    parent = traces.root() if traces.namespace else ""  # only what is about a namespace ends with a report
    if step:
        spans.append(_span(step, started, ended, INTERNAL, {**common, "memory.step": step}, failed, parent))
        parent = spans[0]["spanId"]
    if module in OPERATIONS:
        store = _mapping(arguments.get("store"))
        count = next((result[name] for name in _COUNTS if result.get(name).__class__ is int), None)
        known = {
            **common,
            "memory.operation": module,
            "memory.engine": store.get("engine") or "sqlite",
            "gen_ai.operation.name": OPERATIONS[module],
            "gen_ai.provider.name": SCOPE if OPERATIONS[module] else None,
            "gen_ai.memory.store.id": store.get("name") or "memory",
            "gen_ai.memory.record.count": count,
        }
        spans.append(_span("memory_operation", started, ended, CLIENT, known, failed, parent))
    return spans


def of_step(traces: Traces, step: t.Mapping[str, t.Any], started: float) -> t.List[t.Dict[str, t.Any]]:
    """The span of a step that several tasks made."""
    known = {
        "memory.namespace": traces.namespace,
        "memory.step": step["name"],
        "memory.changed": step["changed"],
        "memory.verdict": step["verdict"],
    }
    failed = "verdict" if step["failed"] else None
    return [_span(step["name"], started, time.time(), INTERNAL, known, failed, traces.root())]


def of_run(traces: Traces, report: t.Mapping[str, t.Any], started: float) -> t.List[t.Dict[str, t.Any]]:
    """The span of the whole run, of which all others are children."""
    records = report["records"]
    known = {
        "memory.namespace": traces.namespace,
        "memory.verdict": report["verdict"],
        "memory.state": report["state"],
        **{f"memory.records.{name}": records[name] for name in ("expected", "recovered", "lost")},
    }
    failed = "verdict" if report["verdict"] == "fail" else None
    span = _span("memory_incident", started, time.time(), INTERNAL, known, failed, "")
    return [{**span, "spanId": traces.root()}]


def url_of(endpoint: str) -> str:
    """Where spans are posted to, of the base address of a receiver as OTEL_EXPORTER_OTLP_ENDPOINT has it."""
    return endpoint if endpoint.rstrip("/").endswith("/v1/traces") else endpoint.rstrip("/") + "/v1/traces"


def _span(
    name: str,
    started: float,
    ended: float,
    kind: int,
    attributes: t.Mapping[str, t.Any],
    error: t.Optional[str],
    parent: str,
) -> t.Dict[str, t.Any]:
    return {
        "spanId": secrets.token_hex(8),
        "parentSpanId": parent,
        "name": name,
        "kind": kind,
        "startTimeUnixNano": str(int(started * 1e9)),
        "endTimeUnixNano": str(int(max(started, ended) * 1e9)),
        "attributes": _attributes({**attributes, "error.type": error}),
        "status": {"code": 2} if error else {"code": 1},
    }


def _error(result: t.Mapping[str, t.Any]) -> t.Optional[str]:
    return str(result.get("error") or "failed")[:60] if result.get("failed") else None


def _attributes(known: t.Mapping[str, t.Any]) -> t.List[t.Dict[str, t.Any]]:
    """As OTLP's JSON has them; what is not known is left out."""
    made = []
    for key, value in known.items():
        if value is None or value == "":
            continue
        if isinstance(value, bool):
            typed: t.Dict[str, t.Any] = {"boolValue": value}
        elif isinstance(value, int):
            typed = {"intValue": str(value)}
        else:
            typed = {"stringValue": str(value)[:200]}
        made.append({"key": key, "value": typed})
    return made


def _post(url: str, body: bytes) -> t.Optional[str]:
    """Why the receiver did not take it; None: it did. Waits in a thread, as resolving a name knows no timeout."""
    outcome: t.List[t.Optional[str]] = []
    longest = _longest()

    def send() -> None:
        try:
            headers = {"Content-Type": "application/json", **_headers()}
            request = urllib.request.Request(url, body, headers)
            parts = urllib.parse.urlsplit(url)
            if parts.scheme not in ("http", "https") or parts.username is not None:
                raise ValueError("it has to be http(s)://host:port; a login goes into OTEL_EXPORTER_OTLP_HEADERS")
            with urllib.request.build_opener().open(request, timeout=longest) as answer:
                answer.read(1 << 16)
            outcome.append(None)
        except Exception as exc:  # whatever goes wrong there, the run goes on
            outcome.append(str(getattr(exc, "reason", None) or exc).rstrip(".")[:200])

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    thread.join(longest)
    return outcome[0] if outcome else f"no answer within {longest:g} s"


def _longest() -> float:
    """Seconds; OTEL_EXPORTER_OTLP_TIMEOUT has milliseconds. What is no number from 1 to an hour does not count."""
    given = os.environ.get("OTEL_EXPORTER_OTLP_TIMEOUT", "").strip()
    return int(given) / 1000 if re.fullmatch("[0-9]{1,7}", given) and 0 < int(given) <= 3_600_000 else LONGEST


def _headers() -> t.Dict[str, str]:
    """OTEL_EXPORTER_OTLP_HEADERS, as OpenTelemetry defines it: name=value,name=value, percent-encoded."""
    pairs = (part.partition("=") for part in os.environ.get("OTEL_EXPORTER_OTLP_HEADERS", "").split(",") if part)
    return {name.strip(): urllib.parse.unquote(value.strip()) for name, _sign, value in pairs}


def _mapping(value: t.Any) -> t.Mapping[str, t.Any]:
    return value if isinstance(value, dict) else {}


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(["memops.agent_memory", *parts]).encode("utf-8", "replace")).hexdigest()


def _file(kind: str, *parts: str) -> str:
    return os.path.join(str(C.DEFAULT_LOCAL_TMP), f"memops-{kind}-{_digest(*parts)[:16]}")
