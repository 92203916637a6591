# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Worker processes for what one core cannot do fast enough: reading, hashing and encrypting a namespace.

PRIVATE to the collection. Workers are forked, not spawned: a module that Ansible ships has no file to import again.
Fork them before a read transaction is opened here, never while one is open: SQLite's locks do not survive a fork.
"""

from __future__ import annotations

import gc
import multiprocessing
import multiprocessing.connection
import os
import signal
import typing as t

from .._errors import CannotProceed, MemoryOpsError

COLLECT_AFTER = 50_000  # objects; rows are no garbage, and looking through them every 700 takes a tenth of the time
Channel = multiprocessing.connection.Connection


class Parent:
    """A worker's end of the channel to the process that started it. The worker ends when that one is gone."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._parent = os.getppid()

    def receive(self) -> t.Any:
        while not self._channel.poll(1.0):
            self.check()
        return self._channel.recv()

    def waiting(self) -> bool:
        """Whether something was sent that ``receive`` would return at once."""
        return self._channel.poll()

    def send(self, kind: str, value: t.Any) -> None:
        self._channel.send((kind, value))

    def check(self) -> None:
        """End this process when the parent was killed."""
        if os.getppid() != self._parent:
            os._exit(1)


class Worker:
    """One forked process that runs ``work(parent, *args)`` and reports what it sends."""

    def __init__(self, work: t.Callable[..., None], *args: t.Any) -> None:
        context = multiprocessing.get_context("fork")
        self.channel, there = context.Pipe()
        self._process = context.Process(target=_run, args=(work, there, self.channel, args), daemon=True)
        self._process.start()
        there.close()

    def send(self, value: t.Any) -> None:
        """Errors: as of receive, when the worker has ended."""
        try:
            self.channel.send(value)
        except OSError:
            while True:  # to the end of what it sent before, which tells why
                self.receive()

    def receive(self) -> tuple[str, t.Any]:
        """The next (kind, value). Errors: what the worker raised; CannotProceed when it was killed."""
        try:
            kind, value = self.channel.recv()
        except (EOFError, OSError):
            raise CannotProceed(
                "A worker process was killed before it had finished (out of memory?).", "run the same command again"
            ) from None
        if kind == "error":
            raise value
        return kind, value

    def stop(self) -> None:
        """End the process, finished or not."""
        self.channel.close()
        if self._process.is_alive():
            self._process.terminate()
        self._process.join()


def collect(workers: t.Sequence[Worker]) -> t.Iterator[tuple[Worker, str, t.Any]]:
    """What the workers send, as it comes, until each has sent "done" (which is yielded too)."""
    running = {worker.channel: worker for worker in workers}
    while running:
        for channel in multiprocessing.connection.wait(list(running)):
            worker = running[t.cast(Channel, channel)]
            kind, value = worker.receive()
            if kind == "done":
                del running[worker.channel]
            yield worker, kind, value


def _run(work: t.Callable[..., None], there: Channel, here: Channel, args: tuple[t.Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it and stops us
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    here.close()
    gc.freeze()  # looking through what was inherited would copy all its pages
    gc.set_threshold(COLLECT_AFTER)
    _keep_memory()
    parent = Parent(there)
    try:
        work(parent, *args)
    except MemoryOpsError as exc:
        _report(parent, exc)
    except (EOFError, BrokenPipeError):
        pass  # the parent stopped listening
    except Exception as exc:
        _report(
            parent,
            CannotProceed(f"A worker process failed: {type(exc).__name__}: {exc}.", "run the same command again"),
        )
    finally:
        os._exit(0)  # nothing that was inherited may be flushed or closed a second time


def _keep_memory() -> None:
    """What this process frees stays with it for the next batch, up to 62 MiB. glibc gives back what is more than twice
    as large as the largest block that was mapped by itself and was freed, and the kernel then brings every page anew:
    so a block of nearly the size that counts at most is freed here. Nothing of it is ever touched."""
    bytes(31 << 20)


def _report(parent: Parent, error: MemoryOpsError) -> None:
    try:
        parent.send("error", error)
    except OSError:
        pass
