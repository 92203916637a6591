# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The spans of ``Memory`` in an application that has OpenTelemetry's SDK, in one that has its API alone, and in one
that has neither."""
from __future__ import annotations

import glob
import json
import os
import pathlib
import subprocess
import sys
import typing as t

from ansible_collections.memops.agent_memory.plugins.module_utils import _tracing
from ansible_collections.memops.agent_memory.plugins.module_utils.memory import Memory
from tests.support.frameworks import frameworks
from tests.unit.operations.operations_help import NS, Place

ROOT = pathlib.Path(__file__).resolve().parents[3]
PROGRAM = """
import json, pathlib, sys
from opentelemetry import trace
from tests.unit.operations.operations_help import NS, Place
place, spans = Place(pathlib.Path(sys.argv[1])), []
if sys.argv[2] == "sdk":
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
with trace.get_tracer("the agent").start_as_current_span("answer"), place.memory() as memory:
    memory.write(NS, "secret-key", "secret-text", reason="secret-reason")
    memory.write_many(NS, {"a": 1, "b": 2, "c": 3})
    values = [memory.read(NS, "a"), memory.read(NS, "nobody", default=7), memory.read(namespace=NS, key="b")]
    assert values == [1, 7, 2] and memory.read_many(NS, ["a", "b", "nobody"]) == {"a": 1, "b": 2}
    assert [key for key, _score, _value in memory.search(NS, "secret-text")] == ["secret-key"]
    assert list(memory.list_keys(NS)) == ["a", "b", "c", "secret-key"] and next(memory.list_keys(NS)) == "a"
    assert memory.delete(NS, "secret-key") and not memory.delete(NS, "secret-key")
    memory.set_ttl(NS, 3600)
    memory.rotate_keys(NS)
    memory.evaluate_benchmark(NS, [{"key": "a", "expect": 1}])
    place.flip("c")
    for key in ("c", 7):
        try:
            memory.read(NS, key)
        except Exception as exc:
            print(exc, file=sys.stderr)
if sys.argv[2] == "sdk":
    for one in exporter.get_finished_spans():
        parent = one.parent and one.parent.span_id
        spans.append([one.name, one.kind.name, parent, one.status.status_code.name, dict(one.attributes), one.to_json(),
                      one.context.span_id])
print(json.dumps(spans))
"""


def run(place: Place, has: str) -> t.Any:
    (site,) = glob.glob(str(pathlib.Path(frameworks()).parents[1] / "lib" / "python*" / "site-packages"))
    path = os.pathsep.join([str(ROOT / ".ansible" / "collections"), str(ROOT), site])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(place.folder), has], env={**os.environ, "PYTHONPATH": path},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_an_application_with_the_sdk_has_a_span_of_every_operation(tmp_path: pathlib.Path) -> None:
    *spans, root = run(Place(tmp_path), "sdk")
    assert root[0] == "answer" and {tuple(one[:3]) for one in spans} == {
        ("memory_operation", "CLIENT", root[6])
    }  # fmt: skip
    told = [(one["memory.operation"], one.get("memory.hit"), one.get("gen_ai.memory.record.count"))
            for _name, _kind, _parent, _status, one, *_rest in spans]  # fmt: skip
    assert told == [
        ("write", None, 1), ("write_many", None, 3), ("read", True, 1), ("read", False, 0), ("read", True, 1),
        ("read_many", True, 2), ("search", True, 1), ("list_keys", None, 4), ("list_keys", None, 1),
        ("delete", True, 1), ("delete", False, 0), ("set_ttl", None, None), ("rotate_keys", None, None),
        ("evaluate_benchmark", None, None), ("read", None, None), ("read", None, None),
    ]  # fmt: skip
    for _name, _kind, _parent, status, one, *_rest in spans:
        method = one["memory.operation"]
        assert one["memory.namespace"] == NS and one["memory.engine"] == "sqlite"
        assert one.get("gen_ai.operation.name") == _tracing.OPERATIONS[method]
        assert ("gen_ai.provider.name" in one) == (_tracing.OPERATIONS[method] is not None)
        assert (status, "error.type" in one) in (("OK", False), ("ERROR", True))
    assert [one.get("error.type") for *_rest, one, _json, _id in spans][-2:] == ["record-corrupt", "invalid-input"]
    first, gone = spans[0][4]["gen_ai.memory.record.id"], spans[9][4]["gen_ai.memory.record.id"]
    assert first == gone == _tracing.digest("secret-key")
    assert "secret-" not in "".join(one[5] for one in spans)


def test_the_api_alone_changes_nothing(tmp_path: pathlib.Path) -> None:
    assert run(Place(tmp_path), "api") == []


def test_without_the_api_nothing_is_wrapped(tmp_path: pathlib.Path) -> None:
    with Place(tmp_path).memory() as memory:
        assert not set(vars(memory)) & set(_tracing.OPERATIONS)
    assert all(callable(getattr(Memory, method)) for method in _tracing.OPERATIONS)
