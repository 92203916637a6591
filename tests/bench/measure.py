# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Run one piece of work in a process of its own: seconds, and the peak memory of it and all its children."""

from __future__ import annotations

import gc
import importlib
import multiprocessing
import os
import resource
import signal
import statistics
import time
import traceback
import typing as t

from ansible_collections.memops.agent_memory.plugins.module_utils._operations.workers import COLLECT_AFTER

# Loaded before anything is timed, for both sides alike: starting Python and reading libraries is no work of theirs.
OURS = "ansible_collections.memops.agent_memory.plugins.module_utils"
for _library in (
    "boto3.s3.transfer",
    "cryptography.hazmat.primitives.ciphers.aead",
    "cryptography.hazmat.primitives.hashes",
    "cryptography.hazmat.primitives.kdf.hkdf",
    "encodings.idna",
    "msgpack",
    "zstandard",
    f"{OURS}._engines.sqlite",
    f"{OURS}._layouts.native",
    f"{OURS}._layouts.tables",
    f"{OURS}._repository.s3",
):
    importlib.import_module(_library)

SAMPLE_SECONDS = 0.1
SHARE = 0.02  # of one core's time, at most, for counting shared pages once: milliseconds for each process
PAGE_MIB = os.sysconf("SC_PAGE_SIZE") / 2**20


class Ran(t.NamedTuple):
    seconds: float
    cpu: float  # seconds of user and system time, of it and its children; what the S3 server does is not in it
    rss: float  # MiB, the sum over the processes: pages that they share count for each
    pss: float  # MiB, shared pages counted once
    value: t.Any
    server: float = 0.0  # seconds of processor time that the store's server took meanwhile
    load: float = 0.0  # of the machine when it began


def run(work: t.Callable[..., t.Any], *arguments: t.Any) -> Ran:
    """Time ``work`` in a forked process; the start of the process is not counted. Raises what it raised, as text."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    before = _cpu()
    process = context.Process(target=_child, args=(work, arguments, there))
    process.start()
    there.close()
    rss = pss = again = 0.0  # again: when shared pages are counted the next time
    while not here.poll(SAMPLE_SECONDS):
        pids = _descendants(t.cast(int, process.pid))
        rss = max(rss, sum(map(_resident, pids)))
        if time.monotonic() >= again:
            taken = time.process_time()
            pss = max(pss, sum(map(_proportional, pids)))
            again = time.monotonic() + (time.process_time() - taken) / SHARE
    try:
        error, seconds, value = here.recv()
    except EOFError:
        error, seconds, value = "the process was killed", 0.0, None
    process.join()
    if error:
        raise RuntimeError(f"{getattr(work, '__name__', 'the work')} failed: {error}")
    return Ran(seconds, _cpu() - before, rss, pss, value)


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _child(work: t.Callable[..., t.Any], arguments: tuple[t.Any, ...], there: t.Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    gc.set_threshold(COLLECT_AFTER)  # as in a module's process
    try:
        started = time.perf_counter()
        value = work(*arguments)
        there.send((None, time.perf_counter() - started, value))
    except BaseException:
        there.send((traceback.format_exc(), 0.0, None))


def server_cpu(root: int) -> float:
    """Seconds of processor time of this process, its descendants and those of them that have ended."""
    ticks = 0
    waiting = [root]
    while waiting:
        pid = waiting.pop()
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
                ticks += sum(map(int, file.read().rpartition(")")[2].split()[11:15]))
            with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
                waiting += map(int, file.read().split())
        except OSError:
            continue
    return ticks / os.sysconf("SC_CLK_TCK")


def _descendants(root: int) -> list[int]:
    """This process and all that came of it."""
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        try:
            with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
                waiting += map(int, file.read().split())
        except OSError:
            continue  # it has just ended
        found.append(pid)
    return found


def _resident(pid: int) -> float:
    """MiB."""
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * PAGE_MIB
    except (OSError, IndexError):
        return 0.0


def _proportional(pid: int) -> float:
    """MiB, of a page that several processes share this one's part."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
            return next((int(line.split()[1]) / 1024 for line in file if line.startswith("Pss:")), 0.0)
    except OSError:
        return 0.0


def median(values: t.Sequence[float]) -> float:
    return statistics.median(values)


class Side(t.NamedTuple):
    """One of two things that are compared: before() is not timed, work(value of before) is."""

    before: t.Callable[[], t.Any]
    work: t.Callable[..., t.Any]


def turns(rounds: int, sides: t.Mapping[str, Side], server: int | None = None) -> dict[str, list[Ran]]:
    """A B C A B C …: what the machine does beside falls on all of them. ``server`` is the store's server's process."""
    found: dict[str, list[Ran]] = {name: [] for name in sides}
    for _round in range(rounds):
        for name, side in sides.items():
            prepared = side.before()
            os.sync()
            load, before = os.getloadavg()[0], server_cpu(server) if server is not None else 0.0
            ran = run(side.work, prepared)
            after = server_cpu(server) if server is not None else 0.0
            found[name].append(ran._replace(server=after - before, load=load))
    return found


def ratio(ours: t.Sequence[Ran], peer: t.Sequence[Ran]) -> float:
    """The median of the ratios round by round."""
    return median([a.seconds / b.seconds for a, b in zip(ours, peer)])


def said(found: t.Mapping[str, t.Sequence[Ran]]) -> str:
    """Seconds of each side, and of processor time: on a busy machine the latter is the steadier one."""
    parts = []
    for name, runs in found.items():
        seconds, cpu, server = (median(values) for values in zip(*((r.seconds, r.cpu, r.server) for r in runs)))
        more = f" + {server:.2f} of the server" if server else ""
        parts.append(f"{name} {seconds:.2f} s ({cpu:.2f} cpu{more})")
    return f"{', '.join(parts)}; load {next(iter(found.values()))[0].load:.1f}"


class Table:
    """The figures of one run, printed as they come."""

    def __init__(self) -> None:
        self.rows: list[dict[str, t.Any]] = []

    def add(self, what: str, figure: float, limit: float | None, unit: str = "×", *, least: bool = False,
            detail: str = "") -> None:  # fmt: skip
        held = None if limit is None else (figure >= limit if least else figure <= limit)
        self.rows.append(
            {"what": what, "figure": round(figure, 4), "limit": limit, "unit": unit, "least": least, "held": held,
             "detail": detail}
        )  # fmt: skip
        word = {None: "", True: "holds", False: "FALLS SHORT"}[held]
        sign = "" if limit is None else f"{'≥' if least else '≤'} {limit:g} {unit}"
        print(f"{what:<58} {figure:>9.3f} {unit:<4} {sign:<11} {word:<11} {detail}", flush=True)

    def memory(self, what: str, *runs: Ran) -> None:
        worst = max(runs, key=lambda ran: ran.rss)
        self.add(
            f"  peak memory: {what}", worst.rss, 256, "MiB", detail=f"shared pages counted once: {worst.pss:.0f} MiB"
        )
