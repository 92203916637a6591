# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a receiver of OTLP gets of runs that go on from each other, and what a run does without one."""
from __future__ import annotations

import pathlib
import socket
import threading

import pytest

from tests.support.otlp_server import OtlpServer, attributes
from tests.support.playbooks import Site

NS = "agent-7"
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture
def site(tmp_path: pathlib.Path) -> Site:
    site = Site(tmp_path, secondary=False)
    site.fill(NS, 20)
    return site


def test_runs_of_an_incident_are_one_trace_unless_somebody_else_began_it(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20of-the-receiver")
    secret = (site.folder / "master.key").read_text().strip()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "300000")
    with OtlpServer() as receiver:
        endpoint = {"memory_otlp_endpoint": receiver.endpoint}
        assert site.play("isolate", "--check", memory_namespace=NS, **endpoint).status == 0
        assert not receiver.bodies
        assert site.play("isolate", memory_namespace=NS, **endpoint).status == 0
        failed = site.play("diagnose", memory_namespace=NS, memory_repository={"url": "file:///nowhere/x"}, **endpoint)
        assert failed.status != 0
        of_incident = list(receiver.spans)
        monkeypatch.setenv("TRACEPARENT", f"00-{TRACE}-{SPAN}-01")
        assert site.play("backup", **endpoint).status == 0
        assert site.play("isolate", memory_namespace=NS, **endpoint).status == 0
    assert not receiver.refused
    assert {headers["Authorization"] for headers in receiver.headers} == {"Bearer of-the-receiver"}
    assert len({span.trace_id for span in of_incident}) == 1
    assert [span.name for span in of_incident] == [
        "isolate", "memory_operation", "memory_incident", "diagnose", "memory_operation", "memory_incident",
    ]  # fmt: skip
    assert [span.status.code for span in of_incident] == [1, 1, 1, 2, 2, 2]
    assert attributes(of_incident[4])["error.type"] == "repository-refused"
    joined = receiver.spans[len(of_incident) :]
    assert {span.trace_id.hex() for span in joined} == {TRACE}
    backup, root = joined[0], joined[-1]
    assert backup.name == "memory_operation" and attributes(backup)["memory.operation"] == "snapshot"
    assert backup.parent_span_id.hex() == root.parent_span_id.hex() == SPAN
    assert root.name == "memory_incident" and root.links[0].trace_id == of_incident[0].trace_id
    for body in receiver.bodies:
        assert secret not in body and "key-0" not in body and "fact" not in body


def test_a_receiver_that_never_answers_is_asked_once_and_the_run_passes(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    with socket.create_server(("127.0.0.1", 0)) as silent:

        def accept() -> None:
            while True:
                try:
                    asked.append(silent.accept())
                except OSError:
                    return

        threading.Thread(target=accept, daemon=True).start()
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "900")
        outcome = site.play("backup", memory_otlp_endpoint=endpoint)
        silent.shutdown(socket.SHUT_RDWR)
    assert outcome.status == 0, outcome.text
    assert len(asked) == 1
    told = " ".join(outcome.text.split())
    assert told.count(f"The spans of this run cannot be sent to {endpoint}/v1/traces: ") == 1
    assert "no answer within 0.9 s" in told or "timed out" in told
    assert "Next: mend the receiver, or correct memory_otlp_endpoint." in told
    for connection, _address in asked:
        connection.close()


def test_a_login_in_the_address_is_neither_used_nor_shown(site: Site) -> None:
    outcome = site.play("info", memory_otlp_endpoint="http://user:hunter2@127.0.0.1:9")
    assert outcome.status == 0
    assert "hunter2" not in outcome.text
