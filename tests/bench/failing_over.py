# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A whole store fails over to its streaming replica: from the command to the first write that the other server accepts,
by an application that knows the route alone and tries all the time. The last backup has verified the replica."""

from __future__ import annotations

import pathlib
import statistics
import threading
import time
import typing as t

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import MemoryOpsError
from ansible_collections.memops.agent_memory.plugins.module_utils.memory import Memory
from tests.support.playbooks import Site
from tests.support.postgresql_server import PostgresqlServer, Standby

from .data import NAMESPACE, Place
from .measure import Table

SETTINGS = ("wal_retrieve_retry_interval = 200ms", "wal_keep_size = 64MB")
RECORDS = 20_000


class Servers:
    """Each host's own server, with the same store: what a Site needs of a bench."""

    def __init__(self, primary: PostgresqlServer, secondary: PostgresqlServer) -> None:
        self.of = {"primary": primary, "secondary": secondary}

    def params(self, host: str) -> dict[str, t.Any]:
        return self.of[host].store(server=self.of[host].on_host())

    def application(self, host: str) -> dict[str, t.Any]:
        return self.of[host].application()


class Application:
    """Writes without a pause; when each write was acknowledged, and by which epoch's server, is remembered."""

    def __init__(self, site: Site) -> None:
        self.acknowledged: list[float] = []
        self._site, self._ended = site, threading.Event()
        self._thread = threading.Thread(target=self._work)

    def _work(self) -> None:
        number = 0
        with Memory(route=str(self._site.route), keyring=self._site.keyring, actor="bench") as memory:
            while not self._ended.wait(0.01):
                number += 1
                try:
                    memory.write(NAMESPACE, f"new-{number}", {"n": number}, reason="bench")
                except MemoryOpsError:
                    continue
                self.acknowledged.append(time.monotonic())

    def __enter__(self) -> Application:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        self._thread.join()


def measure(table: Table, place: Place, rounds: int) -> None:
    waits, gaps, whole = [], [], []
    folder = pathlib.Path(place.path("failover"))
    folder.mkdir()
    with PostgresqlServer(*SETTINGS) as primary, Standby(primary, *SETTINGS) as secondary:
        site = Site(folder, bench=Servers(primary, secondary), memory_failover_min_interval="0s")
        site.fill(NAMESPACE, RECORDS)
        secondary.wait_for(primary)
        for _round in range(rounds):
            _play(site, "backup")
            with Application(site) as application:
                started = time.monotonic()
                _play(site, "failover")
                whole.append(time.monotonic() - started)
                time.sleep(1.0)
            gap, there = max(
                (later - sooner, later) for sooner, later in zip(application.acknowledged, application.acknowledged[1:])
            )
            waits.append(there - started)
            gaps.append(gap)
            _play(site, "failback")
            _play(site, "backup")
    table.add("failover, whole store: command to the first write there", statistics.median(waits), 5.0, "s",
              detail=f"no write was accepted for {statistics.median(gaps):.2f} s; the playbook took "
              f"{statistics.median(whole):.1f} s")  # fmt: skip


def _play(site: Site, playbook: str) -> None:
    done = site.play(playbook)
    if done.status:
        raise RuntimeError(done.text[-6000:])
