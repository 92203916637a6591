# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A server that goes on sending a byte now and then keeps no step for ever."""
from __future__ import annotations

import contextlib
import socket
import threading
import typing as t

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils import _metrics
from ansible_collections.memops.agent_memory.plugins.module_utils._errors import StoreUnavailable
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import application_spans
from ansible_collections.memops.agent_memory.plugins.module_utils._prometheus import NoData, Prometheus

HEAD = (b"HTTP/1.1 200 OK\r\n", b"X-More: 1\r\n")
BODY = (b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b" ")
ENDLESS = (b"HTTP/1.1 200 OK\r\n\r\n", b" ")


@contextlib.contextmanager
def dripping(first: bytes, more: bytes) -> t.Iterator[str]:
    """The address of a server whose answer does not end."""
    listener, done = socket.create_server(("127.0.0.1", 0)), threading.Event()

    def answer(client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            client.sendall(first)
            while not done.wait(0.02):
                client.sendall(more)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        done.set()
        listener.close()


@pytest.mark.parametrize("answer", [HEAD, BODY, ENDLESS], ids=["head", "body", "endless"])
def test_prometheus(answer: tuple[bytes, bytes]) -> None:
    with dripping(*answer) as url, pytest.raises(NoData, match=r"no whole answer within 0\.3 s"):
        Prometheus(url, timeout=0.3).number("up", 60)


def test_metrics_need_the_head_alone() -> None:
    with dripping(*HEAD) as url, pytest.raises(StoreUnavailable, match=r"no whole answer within 0\.3 s"):
        _metrics.send(url, [], timeout=0.3)
    with dripping(*ENDLESS) as url:
        _metrics.send(url, [], timeout=5)


def test_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(application_spans, "LONGEST", 0.3)
    with dripping(*ENDLESS) as url:
        found = application_spans.read([url], namespace="agent-7", store="main", since=0, until=1)
    assert found["sources"][0]["status"] == "no-data"
    assert "did not end within 0.3 s" in found["sources"][0]["reason"]
