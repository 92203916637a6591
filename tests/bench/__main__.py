# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""BENCH_RECORDS (1000000), BENCH_ROUNDS (3), BENCH_ONLY (some of the parts, default all), BENCH_DIR (where),
BENCH_VECTORS (50000: items of the part langgraph)."""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
import traceback
import typing as t

from tests.support.s3_server import S3Server

from . import (
    failing_over,
    isolating,
    keyspace,
    langgraph,
    memory,
    postgresql,
    rebuild,
    restores,
    rows,
    snapshots,
    valkey,
)
from .data import NAMESPACE, Place
from .measure import Table

EMBEDDED = ("isolate", "scan", "snapshot", "again", "restore", "rotation", "rebuild", "growth")
SERVERS = ("postgresql", "valkey")
OTHERS = ("keyspace", "langgraph", "failover")
PARTS = EMBEDDED + SERVERS + OTHERS
ASKED_FOR = ("memory",)  # not among the default ones
USE_S3 = {"snapshot", "again", "restore", "rebuild", "growth", "memory", "langgraph", *SERVERS}


def main() -> int:
    records, rounds = int(os.environ.get("BENCH_RECORDS", 1_000_000)), int(os.environ.get("BENCH_ROUNDS", 3))
    parts = os.environ.get("BENCH_ONLY", "").replace(",", " ").split() or list(PARTS)
    unknown = set(parts) - set(PARTS + ASKED_FOR)
    if unknown or records < 20_000 or rounds < 1:
        print(
            f"BENCH_ONLY knows {', '.join(PARTS + ASKED_FOR)}; BENCH_RECORDS begins at 20000, BENCH_ROUNDS at 1.",
            file=sys.stderr,
        )
        return 2
    signal.signal(signal.SIGTERM, lambda *_what: sys.exit(143))  # the server is stopped and the folder removed
    folder = tempfile.mkdtemp(prefix="memops-bench-", dir=os.environ.get("BENCH_DIR"))
    print(
        f"{records:,} records, {rounds} rounds, in {folder} "
        f"(removed at the end; needs some {records * 5 // 10**6 + 1} GB)."
    )
    print(machine(), flush=True)
    table = Table()
    broken: list[str] = []
    try:
        place = Place(folder, records)
        if set(parts) & {*EMBEDDED, "memory"}:
            stores(place, parts)
        server = S3Server(place.path("s3"), bucket="bench")
        if server.weed is None and USE_S3.intersection(parts):
            print("SeaweedFS is missing. Next: make bench installs it (Linux on x86_64 or aarch64).", file=sys.stderr)
            return 1
        with server:
            at = server.repository("ours")
            works: dict[str, t.Callable[[], None]] = {
                "isolate": lambda: isolating.compare(table, place, max(5, rounds)),
                "scan": lambda: rows.compare_scan(table, place, rounds),
                "snapshot": lambda: snapshots.compare(table, place, at, rounds),
                "again": lambda: snapshots.again(table, place, at, rounds),
                "restore": lambda: restores.compare(table, place, at, rounds),
                "rotation": lambda: rows.compare_rotation(table, place, rounds),
                "rebuild": lambda: rebuild.measure(table, place, at),
                "growth": lambda: rows.growth(table, place, at, rounds),
                "postgresql": lambda: postgresql.measure(table, place, at, rounds),
                "valkey": lambda: valkey.measure(table, place, at, rounds),
                "keyspace": lambda: keyspace.measure(table, place, rounds),
                "langgraph": lambda: langgraph.measure(table, place, at, rounds),
                "memory": lambda: memory.measure(table, place, at),
                "failover": lambda: failing_over.measure(table, place, rounds),
            }
            for part in parts:
                try:
                    works[part]()
                except Exception:  # the other figures are wanted all the same
                    broken.append(part)
                    traceback.print_exc()
        print(f"load at the end: {os.getloadavg()}")
        target = os.environ.get("BENCH_JSON")
        if target:
            with open(target, "w", encoding="utf-8") as file:
                json.dump(
                    {"records": records, "rounds": rounds, "machine": machine(), "figures": table.rows}, file, indent=1
                )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if broken:
        print(f"Not measured to the end: {', '.join(broken)} (why is above).", file=sys.stderr)
    return 1 if broken else 0


def stores(place: Place, parts: t.Collection[str]) -> None:
    """Only what the wanted parts read."""
    started = time.monotonic()
    wanted: list[tuple[t.Any, ...]] = [("sealed.db", [NAMESPACE], True, None, True)]
    if "snapshot" in parts:
        wanted.append(("plain.db", [NAMESPACE], False, None, False))
    if "again" in parts:
        wanted.append(("twenty.db", [f"{NAMESPACE}-{number:02d}" for number in range(20)], True, None, False))
    if "growth" in parts:
        wanted.append(("small.db", [NAMESPACE], True, place.records // 10, True))
    # Processes, but no pool: its threads would slow down each lock of the libraries in all that is forked later, which
    # is not so in a module's process.
    context = multiprocessing.get_context("fork")
    for first in range(0, len(wanted), 2):
        builders = [context.Process(target=place.build, args=one) for one in wanted[first : first + 2]]
        for builder in builders:
            builder.start()
        for builder in builders:
            builder.join()
            if builder.exitcode:
                raise RuntimeError("A store could not be written (why is above).")
    size = os.path.getsize(place.path("sealed.db"))
    print(f"Wrote the stores in {time.monotonic() - started:.0f} s; the main one has {size / 1e6:.0f} MB.", flush=True)


def machine() -> str:
    model = "unknown processor"
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            model = next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{os.cpu_count()} × {model}, {gib:.0f} GiB, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}; load {os.getloadavg()[0]:.1f}"
    )


if __name__ == "__main__":
    sys.exit(main())
