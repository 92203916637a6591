# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Applications that write to clusters of a MemoryLab whatever happens there, and remember what was acknowledged.

Of each cluster one writes to the servers -1 and -2 themselves, to the other one whenever it is refused; where there are
Sentinels, a second one knows nothing but these.
"""
from __future__ import annotations

import contextlib
import itertools
import json
import threading
import time
import typing as t

from memory_lab import MemoryLab

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import MemoryOpsError

NAMESPACE = "agent-8"


class Writers:
    """``rounds`` tells apart what several of them write."""

    rounds = itertools.count()

    def __init__(self, lab: MemoryLab, engines: t.Sequence[str]) -> None:
        self.lab, self.engines, self.ended = lab, engines, threading.Event()
        self.acknowledged: dict[str, dict[str, t.Any]] = {engine: {} for engine in engines}
        number = next(self.rounds)
        ways = [(engine, True) for engine in engines] + [("valkey", False)] * ("valkey" in engines)
        self.threads = [threading.Thread(target=self._work, args=(*way, f"writer-{number}")) for way in ways]

    def _work(self, engine: str, direct: bool, name: str) -> None:
        memory, server = None, 1
        for n in itertools.count():
            if self.ended.wait(0.03):
                break
            key, value = f"{name}-{'direct' if direct else 'watched'}-{n}", {"n": n}
            try:
                memory = memory or self.lab.application(engine, server, direct=direct)
                memory.write(NAMESPACE, key, value)
                self.acknowledged[engine][key] = value
            except MemoryOpsError:  # whether it was done or not: the key is not used again
                with contextlib.suppress(MemoryOpsError):
                    if memory:
                        memory.close()
                memory, server = None, 3 - server if direct else 1
                time.sleep(0.1)
        if memory:
            memory.close()

    def wait(self, more: int = 10) -> None:
        """Until so many more writes were acknowledged on each cluster."""
        wanted = {engine: len(done) + more for engine, done in self.acknowledged.items()}
        deadline = time.monotonic() + 300
        while late := [engine for engine in self.engines if len(self.acknowledged[engine]) < wanted[engine]]:
            assert time.monotonic() < deadline, f"nobody lets the applications of {late} write"
            time.sleep(0.02)

    def missing(self, server: int) -> dict[str, set[str]]:
        """{engine: acknowledged keys that this server does not have as they were written}."""
        found = {}
        for engine, done in self.acknowledged.items():
            with self.lab.application(engine, server, direct=True) as memory:
                there = memory.read_many(NAMESPACE, list(done))
            found[engine] = {key for key, value in done.items() if there.get(key) != value}
        return found

    def __enter__(self) -> Writers:
        for thread in self.threads:
            thread.start()
        self.wait()
        return self

    def __exit__(self, *exc: object) -> None:
        self.ended.set()
        for thread in self.threads:
            thread.join()


def told_lost(lab: MemoryLab, engine: str) -> set[str]:
    """The keys of NAMESPACE in the data-loss statement of the cluster's newest report of a whole store."""
    paths = sorted(lab.reports.glob("*/report.json"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
    for path in paths:
        report = json.loads(path.read_text(encoding="utf-8"))
        if report["cluster"] == engine and report["namespace"] is None:
            lost = path.with_name("lost_keys.jsonl")
            lines = lost.read_text(encoding="utf-8").splitlines() if report["records"]["lost"] else []
            assert len(lines) == report["records"]["lost"], (engine, report["records"], report["reasons"])
            names = [json.loads(line)["key"].partition(": ") for line in lines]
            return {key for namespace, _colon, key in names if namespace == NAMESPACE}
    raise AssertionError(f"no report of {engine} as a whole")
