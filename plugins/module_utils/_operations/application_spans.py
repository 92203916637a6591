# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What the application's own OpenTelemetry spans say of its memory: failed operations, empty searches, deletions.

PRIVATE to the collection. Reads OTLP JSON, as a collector's file exporter writes it (one request per line) or as a
tracing backend answers it. A source that cannot be read is no data, which is not the same as no errors. Only spans of
memory operations count: those called ``memory_operation``, and those of OpenTelemetry's conventions for generative AI.
"""

from __future__ import annotations

import json
import re
import time
import typing as t
import urllib.parse

from .._errors import InvalidInput
from .commands import counted
from .error_lines import kind_of, mask
from .incident import rfc3339

LINE = 64 << 20  # bytes of one request, or of an answer, that are looked at
TIMEOUT = 10.0
LONGEST = 60.0  # seconds for a whole answer
OWN = "memops.agent_memory"  # spans of the runbook itself tell nothing about the application
SEARCH = "search_memory"
READS = frozenset({SEARCH, "read"})
OPERATIONS = frozenset(
    {
        "memory_operation",
        "create_memory",
        "update_memory",
        "upsert_memory",
        "delete_memory",
        SEARCH,
        "create_memory_store",
        "delete_memory_store",
    }
)
#: kind → what names of errors look like, beside what error_lines finds in their words.
NAMES = (
    ("corruption", re.compile(r"corrupt|checksum|integrity", re.IGNORECASE)),
    ("decryption", re.compile(r"decrypt|invalid.?tag|key.?unavailable", re.IGNORECASE)),
    ("storage", re.compile(r"storage.?error|store.?(?:unavailable|damaged)|\bdisk\b", re.IGNORECASE)),
)
FAILED = (2, "2", "STATUS_CODE_ERROR")

Source = t.Union[str, t.Mapping[str, t.Any]]


def split(sources: t.Sequence[Source]) -> tuple[list[Source], list[str]]:
    """(logs, where spans are) of memory_logs. Errors: InvalidInput."""
    logs: list[Source] = []
    spans: list[str] = []
    for source in sources:
        if not isinstance(source, t.Mapping) or "spans" not in source:
            logs.append(source)
            continue
        where = source["spans"]
        parts = urllib.parse.urlsplit(where) if isinstance(where, str) else None
        known = parts is not None and (parts.scheme in ("http", "https") or where.startswith("/"))
        if len(source) != 1 or parts is None or not known or parts.username is not None:
            raise InvalidInput(
                "An entry of memory_logs names spans that cannot be meant.",
                "set spans to an absolute path, or to an http(s) address without a login",
            )
        spans.append(where)
    return logs, spans


def read(sources: t.Sequence[str], *, namespace: str, store: str, since: int, until: int) -> dict[str, t.Any]:
    """What the spans of ``namespace`` say that began between ``since`` and ``until`` (µs).

    A span belongs to a namespace by ``memory.namespace``, else by ``gen_ai.memory.store.id`` (the namespace, or
    ``store``, the cluster's name); one that has neither counts. Returns {sources [{source, status: read | no-data,
    reason}], spans, operations {name: {count, failed, empty}}, deletions {count, whole},
    reads {hits, misses} of those that say whether they found something, errors as of error_lines.scan with
    ``what``}.
    """
    tally = _Tally(namespace, store, since, until)
    report = []
    for source in sources:
        try:
            torn = 0
            for text in _requests(source):
                try:
                    request = json.loads(text)
                except (ValueError, RecursionError):
                    torn += 1
                    continue
                tally.request(request)
            reason = counted(torn, "line is", "lines are") + " no JSON" if torn else None
            report.append({"source": source, "status": "read", "reason": reason})
        except (OSError, ValueError) as exc:
            why = getattr(exc, "strerror", None) or getattr(exc, "reason", None) or exc
            report.append({"source": source, "status": "no-data", "reason": mask(str(why))})
    return {"sources": report, **tally.result()}


def _requests(source: str) -> t.Iterator[bytes]:
    if source.startswith("/"):
        with open(source, "rb") as stream:
            first = stream.read(LINE)
            if len(first) < LINE and _is_json(first):
                yield first  # one document, whatever its lines
                return
            stream.seek(0)
            for line in iter(lambda: stream.readline(LINE), b""):
                if line.strip():
                    yield line
        return
    import http.client  # costs every module some 30 ms otherwise
    import urllib.request

    request = urllib.request.Request(source, headers={"Accept": "application/json"})
    try:
        with urllib.request.build_opener().open(request, timeout=TIMEOUT) as answer:
            body, end = b"", time.monotonic() + LONGEST
            while len(body) < LINE:
                part = answer.read1(min(1 << 20, LINE - len(body)))
                if not part:
                    break
                body += part
                if time.monotonic() > end:  # its own timeout is for each part
                    raise TimeoutError(f"it did not end within {LONGEST:g} s")
    except http.client.HTTPException as exc:
        raise ValueError(f"it gave no proper answer: {exc!r}") from None
    yield body


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


class _Tally:
    def __init__(self, namespace: str, store: str, since: int, until: int) -> None:
        self._namespace, self._stores = namespace, (namespace, store)
        self._since, self._until = since, until
        self._seen: set[tuple[str, str]] = set()  # a request that was sent twice counts once
        self.operations: dict[str, dict[str, int]] = {}
        self.deletions = {"count": 0, "whole": 0}
        self.reads = {"hits": 0, "misses": 0}
        self.errors: dict[str, dict[str, t.Any]] = {}

    def request(self, body: t.Any) -> None:
        """One export request, or a trace as a backend answers it."""
        body = _mapping(body)
        body = _mapping(body.get("trace")) or body
        for resource in _list(body.get("resourceSpans") or body.get("batches")):
            if attributes(_mapping(resource.get("resource"))).get("service.name") == OWN:
                continue
            for scope in _list(resource.get("scopeSpans")):
                for span in _list(scope.get("spans")):
                    self.span(span)

    def span(self, span: t.Mapping[str, t.Any]) -> None:
        known = attributes(span)
        name = str(span.get("name"))
        operation = str(known.get("gen_ai.operation.name") or known.get("memory.operation") or name)
        if operation not in OPERATIONS and name not in OPERATIONS:
            return
        at = _microseconds(span.get("startTimeUnixNano"))
        if at is None or not self._since <= at <= self._until or not self._belongs(known):
            return
        identity = (str(span.get("traceId")), str(span.get("spanId")))
        if identity in self._seen:
            return
        self._seen.add(identity)
        tally = self.operations.setdefault(operation[:60], {"count": 0, "failed": 0, "empty": 0})
        tally["count"] += 1
        status = _mapping(span.get("status"))
        if status.get("code") in FAILED or known.get("error.type"):
            tally["failed"] += 1
            self.reads["misses"] += operation in READS
            self._failed(span, operation, known, status, at)
            return
        count, hit = known.get("gen_ai.memory.record.count"), known.get("memory.hit")
        if operation == SEARCH and count == 0:
            tally["empty"] += 1
        if operation in READS and (hit is not None or count is not None):
            self.reads["hits" if hit or count else "misses"] += 1
        if operation in ("delete_memory", "delete_memory_store"):
            self.deletions["count"] += 1
            self.deletions["whole"] += not known.get("gen_ai.memory.record.id")  # of every record, says the convention

    def _belongs(self, known: t.Mapping[str, t.Any]) -> bool:
        if "memory.namespace" in known:
            return bool(known["memory.namespace"] == self._namespace)
        return known.get("gen_ai.memory.store.id", self._namespace) in self._stores

    def _failed(
        self, span: t.Mapping[str, t.Any], operation: str, known: t.Mapping[str, t.Any], status: t.Any, at: int
    ) -> None:
        said = [known.get("error.type"), status.get("message")]
        for event in _list(span.get("events")):
            told = attributes(event)
            said += [told.get("exception.type"), told.get("exception.message")]
        text = ": ".join(str(one) for one in said if one)
        kind = kind_of(text) or next((kind for kind, name in NAMES if name.search(str(said[0] or ""))), None)
        if kind is None:
            return
        sample = mask(f"{operation}: {text}")
        error = self.errors.setdefault(kind, {"count": 0, "first": at, "last": at, "sample": sample})
        error["count"] += 1
        error["first"], error["last"] = min(at, error["first"]), max(at, error["last"])

    def result(self) -> dict[str, t.Any]:
        return {
            "spans": len(self._seen),
            "operations": dict(sorted(self.operations.items())),
            "deletions": self.deletions,
            "reads": self.reads,
            "errors": [
                {"kind": kind, **one, "first": rfc3339(one["first"]), "last": rfc3339(one["last"]), "what": "spans"}
                for kind, one in self.errors.items()
            ],
        }


def attributes(holder: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """The attributes of a span, a resource or an event, as far as they are texts, whole numbers or true and false."""
    found: dict[str, t.Any] = {}
    for one in _list(holder.get("attributes")):
        value = _mapping(one.get("value"))
        if "stringValue" in value:
            found[str(one.get("key"))] = str(value["stringValue"])
        elif "intValue" in value:
            try:
                found[str(one.get("key"))] = int(value["intValue"])
            except (TypeError, ValueError):
                pass
        elif "boolValue" in value:
            found[str(one.get("key"))] = bool(value["boolValue"])
    return found


def _microseconds(nanoseconds: t.Any) -> int | None:
    try:
        return int(nanoseconds) // 1000
    except (TypeError, ValueError):
        return None


def _mapping(value: t.Any) -> t.Mapping[str, t.Any]:
    return value if isinstance(value, dict) else {}


def _list(value: t.Any) -> list[t.Mapping[str, t.Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
