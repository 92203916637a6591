# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An agent of the demo's own: a process that knows nothing but the class ``Memory``, a route file and a keyring.

``python -m demo.agent`` takes one command a line on standard input and answers each with one line of JSON; when its
input ends, it ends. Whatever it does with its memories it notes in its own journal, with the times before and after:
every acknowledged write, what every read gave, every refusal. demo/check.py believes this journal, not the collection.
"""
from __future__ import annotations

import json
import logging
import queue
import random
import signal
import sys
import threading
import time
import typing as t

from ansible_collections.memops.agent_memory.plugins.module_utils.memory import (
    KeyUnavailable,
    Memory,
    MemoryOpsError,
    NamespaceQuarantined,
    RecordCorrupt,
)

from . import memories, places

COUNTS = {"agent-7": 8000, "agent-8": 6000, "tenant-acme": 6000}
WORKING = 40  # memories per namespace that are written again and again
BRIEF = 200  # memories per namespace that expire while the demo runs
BRIEF_SECONDS = 25.0
DAY = 24 * 3600.0
PAUSE = 0.004  # between two operations in the background
NOTES = 40  # new memories after the backup


class Agent:
    """All its memories and what it has seen of them."""

    def __init__(self, memory: Memory, journal: t.TextIO) -> None:
        self._memory = memory
        self._journal = journal
        self._dice = random.Random(7)
        self._stable = {name: memories.keys(name, count) for name, count in COUNTS.items()}
        self._current = {name: memories.current(keys) for name, keys in self._stable.items()}
        self._written = 0
        self._versions = dict.fromkeys(COUNTS, 1)
        self._news = dict.fromkeys(COUNTS, 0)
        self.counts: dict[str, int] = {}

    # --- what it is told to do ------------------------------------------------------------------------------------
    def fill(self) -> dict[str, t.Any]:
        """Its whole past: some 20,000 memories in three namespaces, a few deletions, and reads of what it wrote."""
        for namespace, keys in self._stable.items():
            day_long = [key for key in keys if key.startswith("task/")]  # tasks are forgotten after a day
            lasting = [key for key in keys if not key.startswith("task/")]
            lasting += [f"working/{namespace}/{n:03}" for n in range(WORKING)]
            self._write_many(namespace, lasting, None)
            self._write_many(namespace, day_long, DAY)
            self._write_many(namespace, [f"brief/{namespace}/{n:03}" for n in range(BRIEF)], BRIEF_SECONDS)
            self._forget(namespace, 20)
            for key in self._dice.sample(keys, 100):
                self.read(namespace, key)
        self._memory.flush()
        return {"written": self._written}

    def after_backup(self) -> dict[str, t.Any]:
        """What no backup has: new memories, new versions of old ones, and deletions, in the namespace to be damaged."""
        namespace = places.DAMAGED
        new = [f"note/{namespace}/{n:03}" for n in range(NOTES)]
        for key in new:
            self.write(namespace, key, 1)
        gone = self._forget(namespace, 10)
        again = self._dice.sample(self._stable[namespace], 12)
        for key in again:
            self.write(namespace, key, 2, DAY if key.startswith("task/") else None)
        return {"new": new, "again": again, "deleted": gone}

    def _forget(self, namespace: str, count: int) -> list[str]:
        """Delete some memories; it goes on asking for those that it worked with, and must not get them."""
        gone = self._dice.sample(self._stable[namespace], count)
        for key in gone:
            self.delete(namespace, key)
            self._stable[namespace].remove(key)
        return gone

    def live(self, more: t.Callable[[], bool]) -> None:
        """Its everyday work, until ``more`` says stop: mostly reads of what it knows, some writes, a few misses."""
        dice = self._dice
        names = [places.DAMAGED, *COUNTS]  # twice as much in the namespace that the demo is about
        while more():
            namespace = dice.choice(names)
            what = dice.random()
            if what < 0.40:
                self.read(namespace, dice.choice(self._stable[namespace]))
            elif what < 0.80:
                self.read(namespace, dice.choice(self._current[namespace]))
            elif what < 0.85:
                self.read(namespace, f"working/{namespace}/{dice.randrange(WORKING):03}")
            elif what < 0.87:
                self.read(namespace, f"brief/{namespace}/{dice.randrange(BRIEF):03}")
            elif what < 0.89:
                self.read(namespace, f"never-heard-of/{dice.randrange(1000)}")
            elif what < 0.95:
                self._versions[namespace] += 1
                self.write(namespace, f"working/{namespace}/{dice.randrange(WORKING):03}", self._versions[namespace])
            else:
                self._news[namespace] += 1
                self.write(namespace, f"journal/{namespace}/{self._news[namespace]:05}", 1)
            time.sleep(PAUSE)

    # --- one operation each, noted --------------------------------------------------------------------------------
    def _write_many(self, namespace: str, keys: t.Sequence[str], ttl: float | None) -> None:
        for start in range(0, len(keys), 500):
            items = {key: memories.value(namespace, key) for key in keys[start : start + 500]}
            begun = now()
            self._memory.write_many(namespace, items, reason="learned", ttl=ttl)
            ended = now()
            for key, data in items.items():
                self._note("write", namespace, key, begun, ended, "ok", digest=memories.digest(data), ttl=ttl)
            self._written += len(items)

    def write(self, namespace: str, key: str, version: int, ttl: float | None = None) -> None:
        data = memories.value(namespace, key, version)
        self._try(
            "write",
            namespace,
            key,
            lambda: {"result": "ok", "sequence": self._memory.write(namespace, key, data, reason="learned", ttl=ttl)},
            digest=memories.digest(data),
            ttl=ttl,
        )

    def read(self, namespace: str, key: str) -> None:
        def work() -> dict[str, t.Any]:
            data = self._memory.read(namespace, key)
            return {"result": "miss"} if data is None else {"result": "hit", "digest": memories.digest(data)}

        self._try("read", namespace, key, work)

    def delete(self, namespace: str, key: str) -> None:
        def work() -> dict[str, t.Any]:
            return {"result": "ok" if self._memory.delete(namespace, key, reason="asked to forget") else "miss"}

        self._try("delete", namespace, key, work)

    def _try(
        self, operation: str, namespace: str, key: str, work: t.Callable[[], dict[str, t.Any]], **more: t.Any
    ) -> None:
        begun = now()
        try:
            outcome = work()
        except (RecordCorrupt, KeyUnavailable):
            outcome = {"result": "corrupt"}
        except NamespaceQuarantined:
            outcome = {"result": "refused"}
        except MemoryOpsError as exc:
            outcome = {"result": "error", "code": exc.code, "message": str(exc)}
        self._note(operation, namespace, key, begun, now(), **{**more, **outcome})

    def _note(
        self, operation: str, namespace: str, key: str, begun: int, ended: int, result: str, **more: t.Any
    ) -> None:
        line = {"begun": begun, "ended": ended, "operation": operation, "namespace": namespace, "key": key}
        line["result"] = result
        line.update({name: one for name, one in more.items() if one is not None})
        self._journal.write(json.dumps(line) + "\n")
        if operation != "read" or result != "hit":
            self._journal.flush()  # an acknowledged write must not be forgotten with this process
        name = f"{operation} {result}"
        self.counts[name] = self.counts.get(name, 0) + 1


def now() -> int:
    """Microseconds since 1970 UTC."""
    return time.time_ns() // 1000


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the end of the input is the sign to stop
    logging.basicConfig(
        filename=places.AGENT_LOG,
        format="%(asctime)s.%(msecs)03dZ %(levelname)s %(message)s",
        datefmt="%Y-%m-%dT%H:%M:%S",
    )
    logging.Formatter.converter = time.gmtime
    commands: queue.Queue[str] = queue.Queue()

    def listen() -> None:
        for line in sys.stdin:
            commands.put(line.strip())
        commands.put("stop")

    threading.Thread(target=listen, daemon=True).start()
    with open(places.AGENT_JOURNAL, "a", encoding="utf-8") as journal, Memory(
        route=places.ROUTE, keyring=places.keyring(), actor=places.ACTOR, buffer_seconds=0.5
    ) as memory:
        agent = Agent(memory, journal)
        while True:
            command = commands.get()
            answer: dict[str, t.Any] = {}
            if command == "fill":
                answer = agent.fill()
            elif command == "after-backup":
                answer = agent.after_backup()
            elif command == "live":
                say({"done": "live"})
                agent.live(commands.empty)
                continue
            elif command == "stop":
                memory.flush()
                say({"done": "stop", "counts": agent.counts, "unlogged": memory.dropped_entries})
                return
            say({"done": command, **answer})


def say(answer: t.Mapping[str, t.Any]) -> None:
    try:
        print(json.dumps(answer), flush=True)
    except BrokenPipeError:
        sys.exit(0)  # nobody listens any more


if __name__ == "__main__":
    main()
