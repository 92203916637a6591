# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A span for every operation of a ``Memory``, where the application has OpenTelemetry's API.

PRIVATE to the collection. Without that package nothing is wrapped and nothing is asked. Spans have the attributes of
OpenTelemetry's conventions for memory of generative AI and our own beside them; of a key they have a digest, of values,
queries, reasons and the words of errors nothing.
"""
from __future__ import annotations

import contextlib
import functools
import hashlib
import threading
import typing as t

from ._errors import MemoryOpsError

SCOPE = "memops.agent_memory"
NAME = "memory_operation"
#: Method → what the conventions call it; None: they have no word for it.
OPERATIONS: dict[str, str | None] = {
    "write": "upsert_memory",
    "write_many": "upsert_memory",
    "delete": "delete_memory",
    "read": "search_memory",
    "read_many": "search_memory",
    "search": "search_memory",
    "list_keys": None,
    "set_ttl": None,
    "rotate_keys": "update_memory",
    "evaluate_benchmark": None,
}
ONE_KEY = ("write", "delete", "read")
_ABSENT: t.Final = object()


def trace(memory: t.Any, engine: str | None, store: str | None) -> None:
    """Put a span around the methods of this object. Does nothing where OpenTelemetry's API is not installed."""
    try:
        from opentelemetry import trace as api
    except ImportError:
        return
    spans = _Spans(api, {"memory.engine": engine, "gen_ai.memory.store.id": store})
    for method in OPERATIONS:
        work = getattr(memory, method)
        setattr(memory, method, functools.wraps(work)(functools.partial(spans.around(method), work)))


class _Spans:
    def __init__(self, api: t.Any, common: t.Mapping[str, str | None]) -> None:
        self._api = api
        self._tracer = api.get_tracer(SCOPE)
        self._common = {name: value for name, value in common.items() if value}
        self._inside = threading.local()  # an operation that another one is made of is no operation of its own

    def around(self, method: str) -> t.Callable[..., t.Any]:
        if method == "list_keys":
            return self._listing
        if method == "read":
            return self._read
        return functools.partial(self._plain, method)

    def _plain(self, method: str, work: t.Callable[..., t.Any], *given: t.Any, **named: t.Any) -> t.Any:
        if getattr(self._inside, "it", False):
            return work(*given, **named)
        with self._span(method, given, named) as found:
            result = work(*given, **named)
            found.update(_outcome(method, result))
            return result

    def _read(
        self, work: t.Callable[..., t.Any], namespace: str, key: str, default: t.Any = None
    ) -> t.Any:
        with self._span("read", (namespace, key), {}) as found:
            value = work(namespace, key, _ABSENT)
            hit = value is not _ABSENT
            found.update({"memory.hit": hit, "gen_ai.memory.record.count": int(hit)})
            return value if hit else default

    def _listing(self, work: t.Callable[..., t.Any], *given: t.Any, **named: t.Any) -> t.Iterator[str]:
        """Its span is no parent: what the application does between two keys is its own."""
        with self._span("list_keys", given, named, current=False) as found:
            count = 0
            try:
                for key in work(*given, **named):
                    count += 1
                    yield key
            finally:
                found["gen_ai.memory.record.count"] = count

    @contextlib.contextmanager
    def _span(
        self, method: str, given: t.Sequence[t.Any], named: t.Mapping[str, t.Any], current: bool = True
    ) -> t.Iterator[dict[str, t.Any]]:
        """What is put into the mapping becomes attributes, also when an error leaves this."""
        span = self._tracer.start_span(NAME, kind=self._api.SpanKind.CLIENT)
        found: dict[str, t.Any] = {}
        try:
            with contextlib.ExitStack() as stack:
                if current:
                    stack.enter_context(
                        self._api.use_span(span, record_exception=False, set_status_on_exception=False)
                    )
                    self._inside.it = True
                    stack.callback(setattr, self._inside, "it", False)
                yield found
        except GeneratorExit:
            raise  # a listing that was left
        except BaseException as exc:
            found["error.type"] = exc.code if isinstance(exc, MemoryOpsError) else type(exc).__name__
            raise
        finally:
            if span.is_recording():
                span.set_attributes({**self._common, **_asked(method, given, named), **found})
                code = self._api.StatusCode.ERROR if "error.type" in found else self._api.StatusCode.OK
                span.set_status(self._api.Status(code))
            span.end()


def _asked(method: str, given: t.Sequence[t.Any], named: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    namespace = given[0] if given else named.get("namespace")
    key = (given[1] if len(given) > 1 else named.get("key")) if method in ONE_KEY else None
    known = {
        "memory.operation": method,
        "memory.namespace": namespace,
        "gen_ai.operation.name": OPERATIONS[method],
        "gen_ai.provider.name": SCOPE if OPERATIONS[method] else None,
        "gen_ai.memory.record.id": digest(key) if isinstance(key, str) else None,
    }
    return {name: value for name, value in known.items() if isinstance(value, str) and value}


def _outcome(method: str, result: t.Any) -> dict[str, t.Any]:
    if method == "write":
        return {"gen_ai.memory.record.count": 1}
    if method == "write_many":
        return {"gen_ai.memory.record.count": result}
    if method == "delete":
        return {"memory.hit": result, "gen_ai.memory.record.count": int(result)}
    if method in ("read_many", "search"):
        return {"memory.hit": bool(result), "gen_ai.memory.record.count": len(result)}
    return {}


def digest(key: str) -> str:
    """As the program's own log names a key."""
    return "sha256:" + hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:16]
